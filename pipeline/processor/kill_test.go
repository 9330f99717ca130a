package processor_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
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
	// so that a kill finds state of some age on disk, not none
	p.SetFlushEvery(time.Duration(n) * 10 * time.Millisecond)
	p.SetHook(func(at string) {
		if at == step {
			if n--; n == 0 {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
	})
	// Whoever started us may be gone: never outlive the test.
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := p.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// SIGKILL at every named step of a transaction, under load, changes no row.
func TestKills(t *testing.T) {
	w := newWorld(t, kafkatest.Broker(t))
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	kills := 0
	for _, step := range append(processor.Steps, processor.Steps...) {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "PARTNERS_TEST_CHILD="+strings.Join(w.brokers, ","), "PARTNERS_TEST_DIR="+dir,
			fmt.Sprintf("PARTNERS_TEST_DIE=%s %d", step, 1+rand.IntN(4)))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		for running, stories := true, 0; running; {
			// on a slow machine there would be more than can be judged in the end
			if stories++; stories <= 20 {
				w.story(20)
			}
			select {
			case err := <-done:
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("step %s: the child ended with %v", step, err)
				}
				kills++
				running = false
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	if kills != 2*len(processor.Steps) {
		t.Fatalf("%d kills", kills)
	}
	start(t, newProcessor(t, w.brokers, config(dir)))
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
// missing.
func TestLostEndReply(t *testing.T) {
	w := newWorld(t, kafkatest.Broker(t))
	var unknown atomic.Int64
	f := &faults{}
	p := newProcessor(t, w.brokers, config(t.TempDir()))
	p.SetOptions(f.options()...)
	p.SetHook(func(step string) {
		if step == processor.StepEndFailed {
			unknown.Add(1)
			f.lose.Store(0)
		}
	})
	p.SetFlushEvery(10 * time.Millisecond)
	start(t, p)
	for i := 0; i < 100 && unknown.Load() < 6; i++ {
		if i%4 == 3 {
			f.request.Store(i%8 == 3)
			f.lose.Store(1 << 30)
		}
		w.story(20)
		time.Sleep(100 * time.Millisecond)
	}
	w.settle(grace)
	w.conserved()
	if unknown.Load() < 4 {
		t.Errorf("%d transactions with unknown outcome, %d replies lost: too few to show anything",
			unknown.Load(), f.lost.Load())
	}
}

// The broker refuses a row that a transaction writes after its outcomes: nothing of the
// transaction may be committed, or offsets and outcomes are there whose rows the
// changelog lacks. What is refused for good stops the slot, so the log must say which
// record that is.
func TestRefusedRow(t *testing.T) {
	cluster, brokers := kafkatest.Cluster(t)
	w := newWorld(t, brokers)
	var log notes
	start(t, newLoggedProcessor(t, w.brokers, config(t.TempDir()), &log))
	for range 3 {
		w.story(50)
		refused := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic.Changelog,
			Err: kerr.MessageTooLarge})
		w.story(50)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
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

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}
