package processor_test

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestMain also serves as the processor that tests kill: a real process of its own.
func TestMain(m *testing.M) {
	if brokers := os.Getenv("PARTNERS_TEST_CHILD"); brokers != "" {
		child(brokers)
	}
	if brokers := os.Getenv("PARTNERS_TEST_RECOVERY"); brokers != "" {
		recoverChild(brokers)
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil { // these tests mostly wait
		panic(err)
	}
	os.Exit(m.Run())
}

// child runs a processor that kills itself at the n-th time it comes by a step.
func child(brokers string) {
	var step string
	var n int
	fmt.Sscanf(os.Getenv("PARTNERS_TEST_DIE"), "%s %d", &step, &n)
	cfg := config(os.Getenv("PARTNERS_TEST_DIR"))
	k := kafka.DefaultConfig()
	k.Brokers = strings.Split(brokers, ",")
	p, err := processor.New(cfg, k, codec, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	if err != nil {
		panic(err)
	}
	ahead, err := time.ParseDuration(os.Getenv("PARTNERS_TEST_AHEAD"))
	if err != nil {
		panic(err)
	}
	p.SetNow(func() time.Time { return time.Now().Add(ahead) })
	// so that a kill finds state of some age on disk, not none
	p.SetFlushEvery(time.Duration(n) * 10 * time.Millisecond)
	p.SetHook(func(at string) {
		if at == step {
			if n--; n == 0 {
				if step == processor.StepProduced && !hasOpenTransaction(k.Brokers) {
					n = 1 // nothing to abort: the next time
					return
				}
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
	})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1) // the test is gone
	}()
	if err := p.Run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// hasOpenTransaction reports whether a transaction is open in the changelog. What was
// just produced may be under way, so it looks for a second.
func hasOpenTransaction(brokers []string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		panic(err)
	}
	defer cl.Close()
	for adm := kadm.NewClient(cl); ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		described, err := adm.DescribeProducers(ctx, kadm.TopicsSet{topic.Changelog: nil})
		if err != nil {
			continue
		}
		for _, p := range described.SortedProducers() {
			if p.CurrentTxnStartOffset >= 0 {
				return true
			}
		}
	}
	return false
}

// SIGKILL at every named step of a transaction, under load, changes no row.
func TestKills(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	w.kills(t.TempDir())
}

// kills runs processors on one state directory, each of which kills itself at a step of
// a transaction, and at last one that does not. What waits when one is killed is due in
// the life of the next.
func (w *world) kills(dir string) {
	w.Helper()
	rounds := 1
	if long {
		rounds = 3
	}
	for range rounds {
		for i, step := range processor.Steps {
			c := startChild(w, dir, step, 1+i%4)
			began := time.Now()
			for running, stories := true, 0; running; {
				// on a slow machine there would be more than can be judged in the end
				if stories++; stories <= 20 {
					w.story(20)
				}
				select {
				case err := <-c.done:
					c.killed(w, err)
					running = false
				case <-time.After(20 * time.Millisecond):
					if time.Since(began) > hang {
						w.Fatalf("the child does not come by %s", step)
					}
				}
			}
			w.Logf("killed at %s after %v", step, time.Since(began).Round(time.Millisecond))
			w.passes(grace)
		}
	}
	start(w, newProcessor(w, w.brokers, config(dir)))
	w.settle(grace)
	w.conserved()
}

// deaf is a connection that breaks at EndTxn: after the broker got it, or before. The
// client cannot tell one from the other.
type deaf struct {
	net.Conn
	*faults
	now atomic.Bool
}

type faults struct {
	lose    atomic.Int64 // how many answers are still to be lost
	lost    atomic.Int64
	request atomic.Bool // lose requests instead
}

// options are those of a client whose connections break, and which soon gives up.
func (f *faults) options() []kgo.Opt {
	return []kgo.Opt{kgo.RetryTimeout(time.Second), kgo.RequestRetries(2),
		kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return &deaf{Conn: c, faults: f}, err
		})}
}

func (c *deaf) Write(b []byte) (int, error) {
	const endTxn = 26
	if len(b) > 6 && binary.BigEndian.Uint16(b[4:]) == endTxn && c.lose.Add(-1) >= 0 {
		if c.request.Load() {
			c.lost.Add(1)
			c.Conn.Close()
			return 0, io.EOF
		}
		c.now.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *deaf) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.now.Load() {
		c.Conn.Close()
		c.lost.Add(1)
		return 0, io.EOF
	}
	return n, err
}

// The answer to EndTxn is lost, or the request, with all retries: the client cannot
// know whether the transaction was committed. Nothing is written twice, and nothing is
// missing. Each of these transactions holds verdicts, and later events ask for their
// rows.
func TestLostEndReply(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	var armed, judged atomic.Bool
	var unknown atomic.Int64
	f := &faults{}
	p := newProcessor(t, w.brokers, config(t.TempDir()))
	p.SetOptions(f.options()...)
	p.SetHook(func(step string) {
		switch step {
		case processor.StepJudged:
			judged.Store(true)
		case processor.StepFlushed:
			if judged.Load() && armed.Swap(false) {
				f.lose.Store(1 << 30)
			}
		case processor.StepEnded:
			judged.Store(false)
		case processor.StepEndFailed:
			judged.Store(false)
			unknown.Add(1)
			f.lose.Store(0)
		}
	})
	p.SetFlushEvery(10 * time.Millisecond)
	start(t, p)
	rounds := 4
	if long {
		rounds = 20
	}
	for i := range int64(rounds) {
		w.story(60)
		f.request.Store(i%2 == 1)
		armed.Store(true)
		var sales []*event.Conversion
		for range 20 {
			k := w.Click()
			w.sendClick(k)
			sales = append(sales, w.Sale(k, 1000))
			w.sendEvent(sales[len(sales)-1])
		}
		w.flush()
		eventually(t, "a transaction comes to an unknown end", func() bool { return unknown.Load() > i })
		for _, s := range sales {
			w.sendEvent(w.Refund(s, 400))
			w.sendEvent(s)
		}
		w.flush()
	}
	w.settle(grace)
	w.conserved()
}

// The broker refuses a row that a transaction writes after its outcomes: nothing of the
// transaction may be committed, or offsets and outcomes are there whose rows the
// changelog lacks. What is refused for good stops the slot, so the log must say which
// record that is.
func TestRefusedRow(t *testing.T) {
	t.Parallel()
	cluster, brokers := kafkatest.Cluster(t)
	w := newWorld(t, brokers)
	var log notes
	start(t, newLoggedProcessor(t, w.brokers, config(t.TempDir()), &log))
	for range 3 {
		w.story(50)
		refused := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic.Changelog,
			Err: kerr.MessageTooLarge})
		w.story(50)
		ctx, cancel := context.WithTimeout(t.Context(), hang)
		err := refused.Wait(ctx, 1)
		cancel()
		if err != nil {
			t.Fatalf("nothing was refused: %v", err)
		}
	}
	w.settle(grace)
	w.conserved()
	if !regexp.MustCompile(
		`producing a record of \d+ bytes with key .* to attribution-changelog partition \d+: MESSAGE_TOO_LARGE`).MatchString(log.String()) {
		t.Errorf("the log does not say what was refused:\n%s", log.String())
	}
}

// A click is read twice when the transaction that read it first comes to nothing. The
// click log has it by then; the events that wait for it must be looked for all the
// same: else their verdicts, which were dropped, come only when the wait ends.
func TestClickReadTwiceEndsTheWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	f := &faults{}
	f.request.Store(true)
	var failed atomic.Int64
	cfg := config(t.TempDir())
	cfg.Grace = time.Hour
	p := newProcessor(t, w.brokers, cfg)
	p.SetOptions(f.options()...)
	p.SetHook(func(step string) {
		if step == processor.StepEndFailed {
			failed.Add(1)
			f.lose.Store(0)
		}
	})
	start(t, p)
	k := w.Click()
	w.sendEvent(w.Sale(k, 1000))
	w.flush()
	eventually(t, "the event waits", func() bool { return w.progress()[w.partition(k.ClickToken)].Waiting == 1 })
	f.lose.Store(1 << 30)
	w.sendClick(k)
	w.flush()
	eventually(t, "the click's transaction fails", func() bool { return failed.Load() > 0 })
	eventually(t, "the event has its verdict", func() bool { return len(w.outcomes()) == 1 })
	if o := w.outcomes()[0]; o.Verdict != event.Attributed {
		t.Errorf("%s %s", o.Verdict, o.Reason)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !askUntil(ok) {
		t.Fatalf("not within %v: %s", hang, what)
	}
}

// askUntil asks until the answer is yes, for as long as hang. A question may read whole
// topics: it has a fifth of the time, so that on a busy machine those who are waited for
// get on.
func askUntil(ok func() bool) bool {
	for deadline := time.Now().Add(hang); ; {
		asked := time.Now()
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(max(50*time.Millisecond, min(4*time.Since(asked), 2*time.Second)))
	}
}
