package processor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// realWorld is a world on an Apache Kafka of its own.
func realWorld(t *testing.T, settings ...string) (*world, *kafkatest.RealBroker) {
	t.Helper()
	b := kafkatest.Real(t, settings...)
	kafkatest.Topics(t, b.Brokers())
	return newWorld(t, b.Brokers()), b
}

// processorChild is a processor in a process of its own, which kills itself at the n-th
// time it comes by step.
type processorChild struct {
	cmd  *exec.Cmd
	done chan error
	life io.Closer // it ends when this is closed, so it does not outlive us
}

func startChild(w *world, dir, step string, n int) *processorChild {
	w.Helper()
	self, err := os.Executable()
	if err != nil {
		w.Fatal(err)
	}
	c := &processorChild{cmd: exec.Command(self), done: make(chan error, 1)}
	c.cmd.Env = append(os.Environ(), "PARTNERS_TEST_CHILD="+strings.Join(w.brokers, ","), "PARTNERS_TEST_DIR="+dir,
		fmt.Sprintf("PARTNERS_TEST_DIE=%s %d", step, n),
		"PARTNERS_TEST_AHEAD="+time.Duration(w.clock.ahead.Load()).String())
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err := errors.Join(err, c.cmd.Start()); err != nil {
		w.Fatal(err)
	}
	c.life = in
	go func() { c.done <- c.cmd.Wait() }()
	w.Cleanup(func() { _ = c.cmd.Process.Kill() })
	return c
}

// killed fails the test unless the child ended by SIGKILL.
func (c *processorChild) killed(w *world, err error) {
	w.Helper()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		w.Fatalf("the child ended with %v", err)
	}
}

// traffic writes stories until stop is called.
func (w *world) traffic(n int, pause time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			w.story(n)
			time.Sleep(pause)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	w.Cleanup(stop)
	return stop
}

// On Apache Kafka: every event gets its verdict once, waits end by themselves, and
// SIGKILL at every named step of a transaction, under load, changes no row.
func TestRealKills(t *testing.T) {
	t.Parallel()
	w, _ := realWorld(t)
	dir := t.TempDir()
	stop := start(t, newProcessor(t, w.brokers, config(dir)))
	for range 3 {
		w.story(300)
	}
	w.settle(grace)
	w.conserved()
	stop()
	w.kills(dir)
}

// On Apache Kafka: the changelog takes no record for a while. Nothing is lost.
func TestRealRefusedRows(t *testing.T) {
	t.Parallel()
	w, _ := realWorld(t)
	p := newProcessor(t, w.brokers, config(t.TempDir()))
	// transactions that wrote their rows and have not ended; one of them may be under
	// way
	var failed atomic.Int64
	p.SetHook(func(step string) {
		switch step {
		case processor.StepProduced:
			failed.Add(1)
		case processor.StepEnded:
			failed.Add(-1)
		}
	})
	start(t, p)
	w.story(50)
	adm := kadm.NewClient(w.client)
	// markers of transactions have 78 bytes; a log that refuses those stops the
	// coordinator
	limit := func(op kadm.IncrementalOp) {
		t.Helper()
		res, err := adm.AlterTopicConfigs(t.Context(),
			[]kadm.AlterConfig{{Op: op, Name: "max.message.bytes", Value: kadm.StringPtr("100")}}, topic.Changelog)
		if err != nil || res[0].Err != nil {
			t.Fatal(err, res)
		}
	}
	limit(kadm.SetConfig)
	// the limit reaches the log some time after it was acknowledged
	for deadline := time.Now().Add(hang); failed.Load() < 3; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no row is refused")
		}
		w.story(5)
	}
	limit(kadm.DeleteConfig)
	w.settle(grace)
	w.conserved()
}

// On Apache Kafka: the broker is SIGKILLed in the middle of transactions and comes
// back. The processor goes on by itself, and the ledger is the oracle's.
func TestRealBrokerCrash(t *testing.T) {
	t.Parallel()
	w, b := realWorld(t)
	steps := []string{"flushed"}
	if long {
		steps = []string{"produced", "flushed", "ended"}
	}
	start(t, w.brokenBroker(b, 0, steps...))
	w.settle(grace)
	w.conserved()
}

// On Apache Kafka: the same, with the broker away until the transactions have timed
// out. A broker that looks for those every second, as this one does, aborts them while
// it starts, and loses markers that its only node has to write to itself; the aborted
// rows would become visible with the next commit.
func TestRealBrokerAway(t *testing.T) {
	t.Parallel()
	w, b := realWorld(t)
	start(t, w.brokenBroker(b, processor.TransactionTimeout+4*time.Second, "produced"))
	w.settle(grace)
	w.conserved()
}

// brokenBroker runs a processor under load and kills the broker each time that it comes
// by one of the steps, for so long. It returns another processor on the same state.
//
// Nothing of the load is under way while the broker is away: a producer that holds a
// click for so long delivers it with a timestamp before the end of waits that were
// closed meanwhile. Ours give a click up, and stamp it anew, well within the margin of
// the default grace; that of the tests' grace is shorter.
func (w *world) brokenBroker(b *kafkatest.RealBroker, away time.Duration, steps ...string) *processor.Processor {
	w.Helper()
	dir := w.TempDir()
	p := newProcessor(w, w.brokers, config(dir))
	var die atomic.Pointer[string]
	reached, gone := make(chan struct{}), make(chan struct{})
	p.SetHook(func(step string) {
		if at := die.Load(); at != nil && *at == step {
			die.Store(nil)
			reached <- struct{}{}
			<-gone
		}
	})
	rows := tail(w)
	stopTraffic := w.traffic(10, 50*time.Millisecond)
	stop := start(w, p)
	rows.after(rows.mark())
	for _, step := range steps {
		die.Store(&step)
		<-reached
		for away > 0 && !hasOpenTransaction(w.brokers) { // nothing that could time out
			die.Store(&step)
			gone <- struct{}{}
			<-reached
		}
		stopTraffic()
		markersWritten(w)
		b.Kill()
		gone <- struct{}{}
		killed := time.Now()
		time.Sleep(away)
		b.Start()
		back := time.Now()
		stopTraffic = w.traffic(10, 50*time.Millisecond)
		rows.after(rows.mark())
		w.Logf("broker killed at %s and down for %v; first new outcome %v after it was back",
			step, back.Sub(killed).Round(time.Millisecond), time.Since(back).Round(time.Millisecond))
	}
	stopTraffic()
	stop()
	w.Logf("markers that Kafka lost and the processor wrote: %v", p.Hanging())
	return newProcessor(w, w.brokers, config(dir))
}

// markersWritten waits until no transaction is between the answer to EndTxn and its
// last marker. The only node of a cluster that is killed there loses the transaction:
// when the controller then fences the dead registration, no partition has a leader, and
// the coordinator takes them all for deleted and drops their markers (Kafka 4.3: it
// logs "likely deleted already and hence can be skipped"). The acknowledged commit
// hangs in the log for ever, and no client can change that.
func markersWritten(w *world) {
	w.Helper()
	adm := kadm.NewClient(w.client)
	for deadline := time.Now().Add(hang); ; time.Sleep(5 * time.Millisecond) {
		pending, err := adm.ListTransactions(w.Context(), nil, []string{"PrepareCommit", "PrepareAbort"})
		if err == nil && len(pending) == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("markers still pending: %v, %v", pending, err)
		}
	}
}

// On Apache Kafka: the only node of a cluster is SIGKILLed again and again, in
// transactions of two seconds that it aborts within a second when it is back: whatever
// markers it loses, nobody has to do anything.
func TestRealBrokerKills(t *testing.T) {
	t.Parallel()
	kills := 3
	if long {
		kills = 50
	}
	w, b := realWorld(t)
	env := processor.DefaultEnv()
	env.TransactionTimeout = 2 * time.Second
	env.Now = clockOf(w.brokers).now
	var die atomic.Pointer[string]
	reached, goOn := make(chan struct{}), make(chan struct{})
	env.Step = func(step string) {
		if at := die.Load(); at != nil && *at == step && die.CompareAndSwap(at, nil) {
			reached <- struct{}{}
			<-goOn
		}
	}
	ended := make(chan error, 2)
	var slots []*processor.Processor
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 2 {
		cfg := config(t.TempDir())
		cfg.Instance = fmt.Sprint("slot-", i)
		k := kafka.DefaultConfig()
		k.Brokers = w.brokers
		var out io.Writer = io.Discard
		if os.Getenv("PARTNERS_TEST_LOG") != "" {
			out = os.Stderr
		}
		logger := slog.New(slog.NewTextHandler(out, nil)).With("slot", i)
		p, err := processor.NewIn(env, cfg, k, codec, logger, prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		slots = append(slots, p)
		go func() { ended <- p.Run(ctx) }()
	}
	rows := tail(w)
	// Not under way while the broker is away: see brokenBroker.
	stopTraffic := w.traffic(10, 50*time.Millisecond)
	rows.everywhere(rows.mark())
	steps := []string{processor.StepEnded, processor.StepProduced, processor.StepApplied,
		processor.StepFlushed, processor.StepJudged}
	var took []time.Duration
	for i := range kills {
		die.Store(&steps[i%len(steps)])
		<-reached
		stopTraffic()
		time.Sleep(time.Duration(rand.IntN(15)) * time.Millisecond)
		b.Kill()
		goOn <- struct{}{}
		b.Start()
		back, mark := time.Now(), rows.mark()
		stopTraffic = w.traffic(10, 50*time.Millisecond)
		rows.everywhere(mark)
		took = append(took, time.Since(back).Round(time.Millisecond))
		t.Logf("kill %d, at %s: a new outcome in every partition %v after the broker was back",
			i+1, steps[i%len(steps)], took[i])
		select {
		case err := <-ended:
			t.Fatalf("a processor ended by itself: %v", err)
		default:
		}
	}
	stopTraffic()
	w.settle(grace)
	w.conserved()
	slices.Sort(took)
	t.Logf("%d kills: a new outcome in every partition after %v (median), %v (worst); markers written: %v and %v",
		kills, took[len(took)/2], took[len(took)-1], slots[0].Hanging(), slots[1].Hanging())
	cancel()
	for range slots {
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

// On Apache Kafka: what a SIGKILLed processor left open is ended by whoever comes next,
// itself or another slot. Nobody waits for its timeout, which this broker does not look
// at for ten minutes.
func TestRealRestart(t *testing.T) {
	t.Parallel()
	w, _ := realWorld(t, "transaction.abort.timed.out.transaction.cleanup.interval.ms=600000")
	dir := t.TempDir()
	rows := tail(w)
	stop := w.traffic(10, 50*time.Millisecond)
	c := startChild(w, dir, "flushed", 10)
	for range 4 {
		c.killed(w, <-c.done)
		killed, from := time.Now(), rows.mark()
		c = startChild(w, dir, "flushed", 10)
		rows.after(from)
		t.Logf("SIGKILL with an open transaction and restart to the first new outcome: %v",
			time.Since(killed).Round(time.Millisecond))
	}
	c.killed(w, <-c.done)
	killed, from := time.Now(), rows.mark()
	other := config(t.TempDir())
	other.Instance = "slot-1"
	stopOther := start(t, newProcessor(t, w.brokers, other))
	rows.after(from)
	t.Logf("SIGKILL with an open transaction and takeover by another slot, after a session of %v, to the first "+
		"new outcome: %v", other.SessionTimeout, time.Since(killed).Round(time.Millisecond))
	stop()
	w.settle(grace)
	w.conserved()
	stopOther()
	standbyMove(w)
}

// outcomeTail follows what becomes visible in outcomes.
type outcomeTail struct {
	w    *world
	mu   sync.Mutex
	next map[int32]int64 // by partition, the offset after the newest row
	grew chan struct{}
}

func tail(w *world) *outcomeTail {
	w.Helper()
	from := map[int32]kgo.Offset{}
	for p := range int32(kafkatest.Partitions) {
		from[p] = kgo.NewOffset().AtStart()
	}
	cl := kafkatest.Client(w, w.brokers, kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(50*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic.Outcomes: from}))
	o := &outcomeTail{w: w, next: make(map[int32]int64), grew: make(chan struct{}, 1)}
	go func() {
		for w.Context().Err() == nil {
			records := cl.PollFetches(w.Context()).Records()
			o.mu.Lock()
			for _, r := range records {
				o.next[r.Partition] = r.Offset + 1
			}
			o.mu.Unlock()
			select {
			case o.grew <- struct{}{}:
			default:
			}
		}
	}()
	return o
}

// mark is where outcomes end now, open transactions included: a row at or beyond it was
// produced later. A broker that has just started may not lead all partitions yet.
func (o *outcomeTail) mark() map[int32]int64 {
	o.w.Helper()
	var ends kadm.ListedOffsets
	eventually(o.w, "the ends of outcomes are listed", func() bool {
		var err error
		ends, err = kadm.NewClient(o.w.client).ListEndOffsets(o.w.Context(), topic.Outcomes)
		return err == nil && ends.Error() == nil
	})
	mark := make(map[int32]int64)
	ends.Each(func(e kadm.ListedOffset) { mark[e.Partition] = e.Offset })
	return mark
}

// after waits until a row beyond mark is visible.
func (o *outcomeTail) after(mark map[int32]int64) {
	o.w.Helper()
	o.wait(mark, 1)
}

// everywhere waits until there is one in every partition.
func (o *outcomeTail) everywhere(mark map[int32]int64) {
	o.w.Helper()
	o.wait(mark, kafkatest.Partitions)
}

func (o *outcomeTail) wait(mark map[int32]int64, partitions int) {
	o.w.Helper()
	visible := func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		n := 0
		for p, next := range o.next {
			if next > mark[p] {
				n++
			}
		}
		return n >= partitions
	}
	for deadline := time.After(hang); !visible(); {
		select {
		case <-o.grew:
		case <-deadline:
			o.w.Fatalf("no new outcome in %v", hang)
		}
	}
}
