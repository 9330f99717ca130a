//go:build linux

package blackbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nimriz/partners/cmd/internal/components"
	"github.com/nimriz/partners/connectors/redirect"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// nearby is how near a token's time is to the beginning of an epoch that is counted.
	nearby = 2 * time.Second
	// wantNearby is how many such tokens each epoch must have, each with an event.
	wantNearby = 100
)

// growthScale is how often the installation grows, and to what.
func growthScale() (counts []int32, breakOffs []string) {
	if os.Getenv("PARTNERS_TEST_LONG") != "" {
		steps := append(append([]string{"intent"}, topic.CoPartitioned()...), "shown", "recorded")
		for i := range int32(len(steps)) {
			counts = append(counts, kafkatest.Partitions+2*(i+1))
		}
		return counts, steps
	}
	return []int32{8, 12}, []string{topic.Conversions, topic.Outcomes}
}

// slowBy is how far the clock of one redirector is behind.
const slowBy = 30 * time.Second

// An installation grows twice under load, each time broken off and repeated, while a
// processor is killed and a redirector has no way to Kafka when the epoch begins. Another
// one's clock is behind, so that it mints tokens of the old epoch long after. No program
// ends, nothing is misplaced, and the ledger is the oracle's.
func TestGrow(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	apart := r.startApart("apart", time.Now)
	late := r.startApart("late", func() time.Time { return time.Now().Add(-slowBy) })
	l, cut := r.newLoad(), newTrafficLoad(t, apart.at, r.gatewayAt, r.secrets)
	slow := newTrafficLoad(t, late.at, r.gatewayAt, r.secrets)
	stop, stopCut, stopSlow := l.start(100, 60), cut.start(20, 0), slow.start(40, 5)
	began := time.Now()
	counts, breakOffs := growthScale()
	var epochs []time.Time
	for i, n := range counts {
		at := r.growTo(n, breakOffs[i], apart)
		epochs = append(epochs, at)
		sleepContext(t.Context(), time.Until(at.Add(nearby+time.Second)))
		apart.blocked.set(false)
	}
	r.awaitEveryPartition(counts[len(counts)-1])
	stop()
	stopCut()
	sleepContext(t.Context(), time.Until(epochs[len(epochs)-1].Add(slowBy+nearby+time.Second)))
	stopSlow()
	if l.unavailable.Load() == 0 {
		t.Error("the gateway was never unavailable: no growth was under way for it")
	}
	r.awaitShipped(apart)
	r.awaitShipped(late)
	near := r.sendNearby(l, epochs)
	nearSlow := slow.countNear(epochs)
	apart.stop()
	late.stop()
	r.checkLedger(l, cut, slow)
	if dead := kafkatest.Consume(t, r.broker.Brokers(), topic.DeadLetters); len(dead) > 0 {
		t.Errorf("%d dead letters, the first: %s", len(dead), dead[0].Headers)
	}
	t.Logf("grew to %v in %v; tokens near each epoch's beginning, with a sale and half of them with a refund: %v, "+
		"of these by the clock that is %v behind: %v; %d posts were answered 503", counts,
		time.Since(began).Round(time.Second), near, slowBy, nearSlow, l.unavailable.Load())
}

// countNear counts the tokens that were minted near the beginning of each epoch. There must
// be some.
func (l *trafficLoad) countNear(epochs []time.Time) (near []int) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, at := range epochs {
		n := 0
		for text := range l.tokens {
			if raw, err := token.Parse(text); err == nil && token.Time(&raw).Sub(at).Abs() <= nearby {
				n++
			}
		}
		if near = append(near, n); n == 0 {
			l.t.Errorf("no token was minted within %v of %v", nearby, at)
		}
	}
	return near
}

var errBrokenOff = errors.New("broken off")

// growTo grows the installation as ctl does, but with a time that is near. It is broken off
// after a step and repeated when a processor was killed and started again.
func (r *rig) growTo(n int32, breakOff string, apart *apartRedirector) (at time.Time) {
	r.t.Helper()
	want := kafka.DefaultGrowConfig()
	want.Partitions, want.Lead = n, time.Second
	want.At = time.Now().Add(12 * time.Second).Truncate(time.Second)
	grow := func(breakOff string) error {
		want.Step = func(name string) error {
			if name == breakOff {
				return errBrokenOff
			}
			return nil
		}
		ctx, cancel := context.WithTimeout(r.t.Context(), maxWait)
		defer cancel()
		cl := kafkatest.Client(r.t, r.broker.Brokers())
		_, err := kafka.Grow(ctx, cl, r.kafka, want, slog.New(slog.DiscardHandler))
		return err
	}
	if err := grow(breakOff); !errors.Is(err, errBrokenOff) {
		r.t.Fatalf("growing to %d, to be broken off after %s: %v", n, breakOff, err)
	}
	sleepContext(r.t.Context(), time.Second)
	r.processors[0].kill()
	if err := r.processors[0].launch(); err != nil {
		r.t.Fatal(err)
	}
	if err := grow(""); err != nil {
		r.t.Fatalf("growing to %d, repeated: %v", n, err)
	}
	sleepContext(r.t.Context(), time.Until(want.At.Add(-nearby)))
	apart.blocked.set(true)
	return want.At
}

// awaitEveryPartition waits until every partition has told of its progress.
func (r *rig) awaitEveryPartition(n int32) {
	r.t.Helper()
	for began := time.Now(); ; sleepContext(r.t.Context(), 200*time.Millisecond) {
		var found []struct {
			Partitions uint64 `ch:"partitions"`
		}
		err := r.wh.Select(r.t.Context(), &found, "SELECT uniqExact(partition) AS partitions FROM progress")
		if err == nil && found[0].Partitions == uint64(n) {
			return
		}
		if time.Since(began) > maxWait {
			r.t.Fatalf("%v partitions of %d report: %v", found, n, err)
		}
	}
}

// sendNearby sends a sale for each token that was minted near the beginning of an epoch,
// and a refund of every second one, and returns how many there were of each epoch.
func (r *rig) sendNearby(l *trafficLoad, epochs []time.Time) (near []int) {
	r.t.Helper()
	f := r.readTopics()
	for n, at := range epochs {
		near = append(near, 0)
		seen := make(map[string]bool)
		for _, k := range f.clicks {
			raw, err := token.Parse(k.ClickToken)
			if err != nil || seen[k.ClickToken] || token.Time(&raw).Sub(at).Abs() > nearby {
				continue
			}
			seen[k.ClickToken] = true
			near[n]++
			id := fmt.Sprintf("near-%d-%d", n, near[n])
			r.sendFields(l, k, map[string]any{"type": "sale", "event_id": id, "amount": "10.00", "currency": "EUR",
				"order_id": id})
			if near[n]%2 == 0 {
				r.sendFields(l, k, map[string]any{"type": "refund", "event_id": "r" + id, "parent_event_id": id})
			}
		}
		if near[n] < wantNearby {
			r.t.Errorf("only %d tokens were minted within %v of %v", near[n], nearby, at)
		}
	}
	return near
}

func (r *rig) sendFields(l *trafficLoad, k oracle.Click, fields map[string]any) {
	r.t.Helper()
	fields["click_token"] = k.ClickToken
	fields["occurred_at"] = time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	body, err := json.Marshal(fields)
	if err != nil {
		r.t.Fatal(err)
	}
	for began := time.Now(); ; sleepContext(r.t.Context(), 50*time.Millisecond) {
		status, _, err := l.postOnce(k.WorkspaceID, body)
		if err == nil && status == http.StatusAccepted {
			return
		}
		if time.Since(began) > maxWait {
			r.t.Fatalf("posting %s: status %d, %v", body, status, err)
		}
	}
}

// switchable is a network that can be taken away.
type switchable struct {
	mu      sync.Mutex
	blocked bool
	conns   []net.Conn
}

var errNoNetwork = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("no way to the broker")}

func (s *switchable) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocked {
		return nil, errNoNetwork
	}
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		s.conns = append(s.conns, c)
	}
	return c, err
}

func (s *switchable) set(blocked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocked = blocked; blocked {
		for _, c := range s.conns {
			c.Close()
		}
		s.conns = nil
	}
}

// apartRedirector is a redirector in this process, with a clock of its own, whose way to
// Kafka can be taken away.
type apartRedirector struct {
	at       string
	blocked  switchable
	registry *prometheus.Registry
	stop     func()
}

func (r *rig) startApart(name string, clock func() time.Time) *apartRedirector {
	r.t.Helper()
	a := &apartRedirector{registry: prometheus.NewRegistry()}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	a.at = listener.Addr().String()
	k := r.kafka
	k.Dial = a.blocked.dial
	c := &components.Redirector{
		Deps: components.Deps{Kafka: k, Codec: event.DefaultCodec(), Log: slog.New(slog.DiscardHandler),
			Registry: a.registry},
		Config:    redirect.DefaultConfig(),
		Listener:  listener,
		TokenKeys: filepath.Join(r.dir, "token-keys"),
		Clock:     clock,
	}
	c.Config.SpoolDir = filepath.Join(r.dir, "spool-"+name)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	a.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("the redirector apart: %v", err)
		}
	})
	r.t.Cleanup(a.stop)
	for began := time.Now(); c.Ready() != nil; sleepContext(r.t.Context(), 20*time.Millisecond) {
		if time.Since(began) > maxWait {
			r.t.Fatalf("the redirector apart: %v", c.Ready())
		}
	}
	return a
}

// awaitShipped waits until the spool of the redirector apart is in Kafka.
func (r *rig) awaitShipped(a *apartRedirector) {
	r.t.Helper()
	for began := time.Now(); ; sleepContext(r.t.Context(), 50*time.Millisecond) {
		families, err := a.registry.Gather()
		if err != nil {
			r.t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "partners_spool_backlog_bytes" && f.GetMetric()[0].GetGauge().GetValue() == 0 {
				return
			}
		}
		if time.Since(began) > maxWait {
			r.t.Fatal("the spool of the redirector apart is not in Kafka")
		}
	}
}
