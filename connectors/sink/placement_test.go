package sink

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A misplaced click goes to the dead letters, and a misplaced event, which the processor
// sends there, is left out; but only when topic catalog was read to an end that was listed
// after they came. Until then their batches are tried again, hold no memory slot, and nobody
// exits.
func TestMisplaced(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.bind(time.Now().Add(-time.Minute))
	s := r.sink(r.wh)
	run := r.start(s)
	r.arrived()
	var held atomic.Bool
	kafkatest.HoldCatalog(r.cluster, &held)
	held.Store(true)
	click := r.clickRecord(r.click(0), 0, false)
	event, _ := r.pair(1, 0)
	wrong := r.clickRecord(r.click(2), 0, false)
	wrongEvent, _ := r.pair(3, 0)
	for _, x := range []*kgo.Record{click, event} {
		x.Partition = home(t, x)
	}
	for _, x := range []*kgo.Record{wrong, wrongEvent} {
		x.Partition = (home(t, x) + 1) % kafkatest.Partitions
	}
	for range cap(s.memorySlots) { // all are taken
		if err := s.acquireSlot(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	kafkatest.Produce(t, r.brokers, wrong, wrongEvent)
	r.produce("clicks", click)
	r.produce("conversions", event)
	waiting := func(name string) float64 { return count(t, s.metrics.retries, name) }
	for began := time.Now(); waiting(topic.Clicks) == 0 || waiting(topic.Conversions) == 0; {
		select {
		case err := <-run.done:
			t.Fatalf("the sink ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Since(began) > attemptTimeout/2 {
			t.Fatal("a place is decided only with a memory slot")
		}
	}
	for range cap(s.memorySlots) {
		s.releaseSlot()
	}
	if dead := kafkatest.Consume(t, r.brokers, topic.DeadLetters); len(dead) > 0 {
		t.Errorf("%d dead letters before the catalog was read", len(dead))
	}
	held.Store(false)
	r.arrived()
	for count(t, s.metrics.misplaced, topic.Clicks) == 0 || count(t, s.metrics.misplaced, topic.Conversions) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	dead := kafkatest.Consume(t, r.brokers, topic.DeadLetters)
	if len(dead) != 1 {
		t.Fatalf("%d dead letters, want that of the click", len(dead))
	}
	letter, err := kafka.ParseDeadLetter(dead[0])
	if err != nil || letter.Source.Topic != topic.Clicks || !strings.Contains(letter.Error, "wrong partition") {
		t.Errorf("%v %v", letter, err)
	}
	run.stop(t)
	r.arrived()
}

// A sink that does not look at places yet inserts a misplaced click and dies in its batch.
// The next one looks: the click gets its dead letter, its row stays and is no surplus.
func TestMisplacedHalfDone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.takeCatalog(t)
	wrong := r.clickRecord(r.click(0), 0, false)
	wrong.Partition = (home(t, wrong) + 1) % kafkatest.Partitions
	s := r.sink(r.wh)
	killAt(s, stepInsertDone, topic.Clicks, 1)
	run := r.start(s)
	kafkatest.Produce(t, r.brokers, wrong)
	run.killed(t)
	r.bind(time.Now().Add(-time.Hour))
	run = r.start(r.sink(r.wh))
	behind := r.clickRecord(r.click(2), 0, false)
	for home(t, behind) != wrong.Partition {
		behind = r.clickRecord(r.click(2), 0, false)
	}
	behind.Partition = wrong.Partition
	r.produce("clicks", behind)
	r.arrived()
	if dead := kafkatest.Consume(t, r.brokers, topic.DeadLetters); len(dead) != 1 {
		t.Errorf("%d dead letters, want one", len(dead))
	}
	if got := len(r.places("clicks")); got != 2 {
		t.Errorf("%d clicks, want both", got)
	}
	run.stop(t)
}

// home is the partition where a record belongs.
func home(t *testing.T, r *kgo.Record) int32 {
	t.Helper()
	raw, err := token.Parse(string(r.Key))
	if err != nil {
		t.Fatal(err)
	}
	return topic.OneEpoch(kafkatest.Partitions).Partition(string(r.Key), token.Time(&raw))
}

// count reads a counter of a topic.
func count(t *testing.T, c *prometheus.CounterVec, name string) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == name {
			return m.GetCounter().GetValue()
		}
	}
	return 0
}
