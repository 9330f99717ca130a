package processor_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/internal/scenario"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

var codec = event.DefaultCodec()

// long runs everything in full, not only as much of it as shows that a promise is
// broken.
var long = os.Getenv("PARTNERS_TEST_LONG") == "1"

// hang is how long a test waits for what must come: it is for what never comes, far
// beyond what a slow machine takes.
const hang = 3 * time.Minute

// grace is how long an event may wait. Its margin, six seconds, is more than a record
// is under way on a slow machine; no test waits that long, see clock.
const grace = time.Minute

// clock is that of a broker's world and of its processors. A test that has written
// everything puts it forward, and all waits are over: a verdict depends on times in the
// log, so it may not depend on how fast the machine is.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// clocks are those of the worlds, by the address of their broker.
var clocks sync.Map

func clockOf(brokers []string) *clock {
	c, _ := clocks.LoadOrStore(brokers[0], new(clock))
	return c.(*clock)
}

// world is a broker, and what a test writes into it.
type world struct {
	testing.TB
	brokers []string
	client  *kgo.Client
	*scenario.Generator
	clock *clock
	shift time.Duration // how far in the past the records are said to have arrived
}

func newWorld(t testing.TB, brokers []string) *world {
	clocks.Store(brokers[0], new(clock)) // the port may have been another test's
	w := &world{
		TB:      t,
		brokers: brokers,
		client:  kafkatest.Client(t, brokers, kgo.MaxBufferedRecords(1_000_000)),
		clock:   clockOf(brokers),
	}
	w.Generator = scenario.New(kafkatest.Partitions, rand.New(rand.NewPCG(1, 2)), w.now)
	return w
}

func (w *world) now() time.Time { return w.clock.now().Add(-w.shift) }

// passes puts the clock forward by more than a grace and its margin. Everything that
// was sent must be acknowledged: what comes later with a time from before comes too
// late.
func (w *world) passes(grace time.Duration) {
	w.clock.ahead.Add(int64(grace + grace/5 + time.Second))
}

func (w *world) partition(tok string) int32 {
	p, err := w.Partition(tok)
	if err != nil {
		w.Fatal(err)
	}
	return p
}

func (w *world) sendClick(k *event.Click, headers ...string) {
	r, err := w.ClickRecord(k, headers...)
	if err != nil {
		w.Fatal(err)
	}
	w.send(r)
}

func (w *world) sendEvent(c *event.Conversion) {
	r, err := w.EventRecord(c)
	if err != nil {
		w.Fatal(err)
	}
	w.send(r)
}

// send queues a record; flush waits for all of them.
func (w *world) send(r *kgo.Record) {
	w.client.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
		if err != nil {
			w.Errorf("producing: %v", err)
		}
	})
}

func (w *world) flush() {
	if err := w.client.Flush(w.Context()); err != nil {
		w.Fatal(err)
	}
}

// story writes n journeys of mixed kinds, each line at once, and returns the number of
// events.
func (w *world) story(n int) (events int) {
	for range n {
		for _, line := range w.Journey() {
			r, err := w.Record(line)
			if err != nil {
				w.Fatal(err)
			}
			w.send(r)
			if line.Event != nil {
				events++
			}
		}
	}
	w.flush()
	return events
}

// ledger is what readers of committed records see.
func (w *world) ledger(only ...string) *scenario.Ledger {
	w.Helper()
	cfg := kafka.DefaultConfig()
	cfg.Brokers = w.brokers
	ctx, cancel := context.WithTimeout(w.Context(), hang)
	defer cancel()
	l, err := scenario.ReadLedger(ctx, cfg, only...)
	if err != nil {
		w.Fatal(err)
	}
	return l
}

func (w *world) outcomes() []event.Outcome { return w.ledger(topic.Outcomes).Outcomes }

// progress is the newest Progress of each partition.
func (w *world) progress() map[int32]event.Progress { return w.ledger(topic.Progress).Progress }

// judged waits until every event has its row that needs no more waiting.
func (w *world) judged() {
	w.Helper()
	want := len(w.ledger().ExpectedUnexpired(grace).Outcomes)
	eventually(w, fmt.Sprintf("%d events are judged", want), func() bool { return len(w.outcomes()) >= want })
}

// settle lets all waits end, waits until every event has its row, and compares the rows
// with the truth.
func (w *world) settle(grace time.Duration) {
	w.Helper()
	want := w.ledger().Expected(grace).Outcomes
	w.passes(grace)
	var got []event.Outcome
	hasAll := func() bool {
		got = w.outcomes()
		return len(got) >= len(want)
	}
	// A slow processor gets on, only one that hangs does not.
	for had := -1; !askUntil(hasAll) && len(got) > had; {
		had = len(got)
	}
	if diff := oracle.Diff(want, got); diff != nil {
		w.Fatalf("the ledger is not the oracle's (%d rows, want %d):\n%s",
			len(got), len(want), strings.Join(diff, "\n"))
	}
}

// conserved checks the newest Progress against the rows: nothing read is unaccounted
// for.
func (w *world) conserved() {
	w.Helper()
	var err error
	if !askUntil(func() bool {
		err = w.ledger().CheckConservation()
		return err == nil
	}) {
		w.Fatalf("not conserved: %v", err)
	}
}

func config(dir string) processor.Config {
	cfg := processor.DefaultConfig()
	cfg.StateDir = dir
	cfg.Instance = "slot-0"
	cfg.Grace = grace
	cfg.ClickMemory = 8 << 20
	cfg.CommitInterval = 20 * time.Millisecond
	cfg.SessionTimeout = 6 * time.Second
	return cfg
}

func newProcessor(t testing.TB, brokers []string, cfg processor.Config) *processor.Processor {
	t.Helper()
	out := io.Discard
	if testing.Verbose() && os.Getenv("PARTNERS_TEST_LOG") != "" {
		out = os.Stderr
	}
	return newLoggedProcessor(t, brokers, cfg, out)
}

func newLoggedProcessor(t testing.TB, brokers []string, cfg processor.Config, out io.Writer) *processor.Processor {
	t.Helper()
	k := kafka.DefaultConfig()
	k.Brokers = brokers
	p, err := processor.New(cfg, k, codec, slog.New(slog.NewTextHandler(out, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	p.SetNow(clockOf(brokers).now)
	return p
}

// start runs a processor until stop is called, which waits for its clean end.
func start(t testing.TB, p *processor.Processor) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(hang):
			t.Error("the processor does not stop")
		}
	}
	t.Cleanup(stop)
	return stop
}
