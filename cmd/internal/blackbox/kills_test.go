//go:build linux

package blackbox

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// killsPerHit bounds the kills per hit, for a load that leaves no work under way.
const killsPerHit = 5

// campaign says how often each process must be killed with work under way, and under
// which load.
type campaign struct {
	hits            int           // kills of each process that must hit work
	visitsPerSecond int           // load
	eventsPerSecond int           // load
	between         time.Duration // two kills of one kind, on average
}

func killCampaign() campaign {
	if long {
		return campaign{hits: 10, visitsPerSecond: 520, eventsPerSecond: 240, between: 4 * time.Second}
	}
	return campaign{hits: 2, visitsPerSecond: 100, eventsPerSecond: 40, between: time.Second}
}

// victim is a process that is killed repeatedly.
type victim struct {
	*childProcess
	killed, hit int // kills, and those that met work under way
}

// hasEnoughHits reports whether the victim was hit often enough, or too many kills have
// missed.
func (v *victim) hasEnoughHits(c campaign) bool {
	return v.hit >= c.hits || v.killed >= killsPerHit*c.hits
}

// Each process is killed by SIGKILL under load, and started again at once, until enough
// kills have met work under way. No row is lost or duplicated.
func TestKills(t *testing.T) {
	t.Parallel()
	r, c := newRig(t), killCampaign()
	l := r.newLoad()
	stop := l.start(c.visitsPerSecond, c.eventsPerSecond)
	began, before := time.Now(), l.answeredCount()
	processors := []*victim{{childProcess: r.processors[0]}, {childProcess: r.processors[1]}}
	sinks := []*victim{{childProcess: r.sinks[0]}, {childProcess: r.sinks[1]}}
	gateway, redirector := &victim{childProcess: r.gateway}, &victim{childProcess: r.redirector}

	// A consumer group waits for a dead sink until its session times out, so both sinks
	// are killed within one timeout. The others are killed meanwhile.
	var wg sync.WaitGroup
	wg.Go(func() {
		for !sinks[0].hasEnoughHits(c) || !sinks[1].hasEnoughHits(c) {
			var both sync.WaitGroup
			for i, v := range sinks {
				both.Go(func() {
					if i == 1 {
						sleepContext(t.Context(), time.Duration(rand.IntN(500))*time.Millisecond)
					}
					r.killInInsert(v, r.proxies[i])
				})
			}
			both.Wait()
		}
	})
	wg.Go(func() {
		for !processors[0].hasEnoughHits(c) || !processors[1].hasEnoughHits(c) {
			for _, v := range processors {
				pauseAbout(t.Context(), c.between)
				r.killInTransaction(v)
			}
		}
	})
	wg.Go(func() {
		for !gateway.hasEnoughHits(c) {
			pauseAbout(t.Context(), c.between)
			r.killInRequest(gateway, l)
		}
	})
	wg.Go(func() {
		a := followClicks(t, r.broker.Brokers())
		for !redirector.hasEnoughHits(c) {
			pauseAbout(t.Context(), c.between)
			r.killUnshipped(redirector, l, a)
		}
	})
	wg.Wait()
	took := time.Since(began)
	perSecond := float64(l.answeredCount()-before) / took.Seconds()
	stop()
	r.checkLedger(l)
	for _, v := range append(append(processors, sinks...), gateway, redirector) {
		t.Logf("%-18s killed %d times, %d of them with work under way", v.name, v.killed, v.hit)
		if v.hit < c.hits {
			t.Errorf("%s: %d of %d kills hit, want %d", v.name, v.hit, v.killed, c.hits)
		}
	}
	t.Logf("%.0f visits and events a second were answered during %v", perSecond, took.Round(time.Second))
}

// pauseAbout sleeps for d/2 to 3d/2.
func pauseAbout(ctx context.Context, d time.Duration) {
	sleepContext(ctx, d/2+time.Duration(rand.Int64N(int64(d))))
}

// killAndRestart kills a victim and starts it again. It calls between after the kill.
func (v *victim) killAndRestart(between func()) {
	v.kill()
	v.killed++
	between()
	if err := v.start(); err != nil {
		v.t.Error(err)
	}
}

// pollBriefly waits for a condition for at most 20 s. A kill after that counts as a
// miss.
func pollBriefly(ctx context.Context, every time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(20 * time.Second); ctx.Err() == nil && time.Now().Before(deadline); sleepContext(ctx,
		every) {
		if ok() {
			return true
		}
	}
	return false
}

// transactionOpen asks the broker whether a processor's transaction is open. That of a
// dead process stays Ongoing until its transactional id is initialised again.
func (r *rig) transactionOpen(p *childProcess) bool {
	id := topic.ProcessorGroup + "-" + strings.TrimPrefix(p.name, "processor-")
	ctx, cancel := context.WithTimeout(r.t.Context(), maxWait)
	defer cancel()
	d, err := r.adm.DescribeTransactions(ctx, id)
	return err == nil && d[id].Err == nil && d[id].State == "Ongoing"
}

func (r *rig) killInTransaction(v *victim) {
	pollBriefly(r.t.Context(), 2*time.Millisecond, func() bool { return r.transactionOpen(v.childProcess) })
	v.killAndRestart(func() {
		if r.transactionOpen(v.childProcess) {
			v.hit++
		}
	})
}

// killInInsert kills a sink at a random moment of an insert: while data is sent, is
// being stored, or while the answer is on its way.
func (r *rig) killInInsert(v *victim, p *warehouseProxy) {
	if p.awaitInsert(time.Minute) {
		v.hit++
	}
	sleepContext(r.t.Context(), time.Duration(rand.IntN(40))*time.Millisecond)
	v.killAndRestart(p.passAnswers)
}

func (r *rig) killInRequest(v *victim, l *trafficLoad) {
	torn := l.unanswered.Load()
	pollBriefly(r.t.Context(), 100*time.Microsecond, func() bool { return l.inFlight.Load() > 0 })
	v.killAndRestart(func() {})
	if l.unanswered.Load() > torn {
		v.hit++
	}
}

// killUnshipped kills the redirector when it has just answered one of many visitors:
// clicks are on disk, and Kafka has not acknowledged them. The kill hits if one of
// these reaches Kafka only after it.
func (r *rig) killUnshipped(v *victim, l *trafficLoad, a *clickArrivals) {
	answered := make(chan struct{}, 1)
	off := l.onRedirect(func() {
		select {
		case answered <- struct{}{}:
		default:
		}
	})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { l.visitRandomLink() })
	}
	select {
	case <-answered:
	case <-time.After(maxWait):
		r.t.Errorf("none of 50 visitors was answered")
	}
	off()
	before := a.spooled.Load()
	v.killAndRestart(func() {})
	wg.Wait()
	// The redirector sends the clicks of the dead process before new ones.
	token, ok := l.followLink("acme", "go.acme.com", "/plain")
	if !ok || !a.awaitToken(r.t.Context(), token) {
		r.t.Errorf("a click after the redirector's restart is not in Kafka (answered: %v)", ok)
	}
	if a.spooled.Load() > before {
		v.hit++
	}
}

// clickArrivals records the clicks that reach Kafka.
type clickArrivals struct {
	mu   sync.Mutex
	seen map[string]bool
	// spooled counts clicks whose first record has the header replay: the process that
	// accepted them did not send them.
	spooled atomic.Int64
}

func followClicks(t *testing.T, brokers []string) *clickArrivals {
	a := &clickArrivals{seen: make(map[string]bool)}
	cl := kafkatest.Client(t, brokers, kgo.FetchMaxWait(100*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), fromStart(topic.Clicks, kafkatest.Partitions))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			a.recordClicks(cl.PollFetches(ctx).Records())
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return a
}

func (a *clickArrivals) recordClicks(records []*kgo.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, rec := range records {
		if a.seen[string(rec.Key)] {
			continue
		}
		a.seen[string(rec.Key)] = true
		if slices.ContainsFunc(rec.Headers, func(h kgo.RecordHeader) bool { return h.Key == topic.HeaderReplay }) {
			a.spooled.Add(1)
		}
	}
}

// awaitToken waits until a click is in Kafka.
func (a *clickArrivals) awaitToken(ctx context.Context, token string) bool {
	for deadline := time.Now().Add(maxWait); ctx.Err() == nil && time.Now().Before(deadline); sleepContext(ctx,
		10*time.Millisecond) {
		a.mu.Lock()
		there := a.seen[token]
		a.mu.Unlock()
		if there {
			return true
		}
	}
	return false
}
