package processor_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/engine"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// displace moves a record into the partition behind its own.
func displace(r *kgo.Record) *kgo.Record {
	r.Partition = (r.Partition + 1) % kafkatest.Partitions
	return r
}

// deadLetterSeen is a client's hook: a dead letter was produced.
type deadLetterSeen struct{ count atomic.Int32 }

func (d *deadLetterSeen) OnProduceRecordBuffered(r *kgo.Record) {
	if r.Topic == topic.DeadLetters {
		d.count.Add(1)
	}
}

// abortDeadLetter makes the commit fail of the first transaction that has a dead letter.
func abortDeadLetter(cluster *kfake.Cluster) kgo.Hook {
	seen, failed := new(deadLetterSeen), false
	cluster.ControlKey(int16(kmsg.EndTxn), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if failed || seen.count.Load() == 0 {
			return nil, nil, false
		}
		failed = true
		response := request.ResponseKind().(*kmsg.EndTxnResponse)
		response.ErrorCode = kerr.UnknownServerError.Code
		return response, nil, true
	})
	return seen
}

// An event in the wrong partition goes to the dead letters, but only when topic catalog was
// read to an end that was listed after the event came. Until then its partition waits, and
// the others go on.
func TestMisplacedEvents(t *testing.T) {
	t.Parallel()
	cluster, brokers := kafkatest.Cluster(t)
	w := newWorld(t, brokers)
	p := newProcessor(t, w.brokers, config(t.TempDir()))
	p.SetOptions(kgo.WithHooks(abortDeadLetter(cluster)))
	start(t, p)
	first := w.Click()
	w.sendClick(first)
	w.sendEvent(w.Sale(first, 1000))
	w.flush()
	eventually(w, "the first event is judged", func() bool { return len(w.outcomes()) == 1 })
	var held atomic.Bool
	kafkatest.HoldCatalog(cluster, &held)
	held.Store(true)
	k := w.Click()
	wrong, err := w.EventRecord(w.Sale(k, 1000))
	if err != nil {
		t.Fatal(err)
	}
	displace(wrong)
	w.sendClick(k)
	w.send(wrong)
	w.flush()
	// What comes behind it in its partition, and what comes in the others. The place of
	// what is that old is known.
	behind := w.Click()
	for w.partition(behind.ClickToken) != wrong.Partition {
		behind = w.Click()
	}
	w.sendClick(behind)
	w.sendEvent(w.Sale(behind, 1000))
	w.shift = time.Hour
	other := w.Click()
	for w.partition(other.ClickToken) == wrong.Partition {
		other = w.Click()
	}
	w.sendClick(other)
	w.sendEvent(w.Sale(other, 1000))
	w.shift = 0
	w.flush()
	eventually(w, "the other partition is judged", func() bool { return len(w.outcomes()) == 2 })
	if dead := w.ledger(topic.DeadLetters).DeadLetters; dead > 0 || p.Ready() != nil {
		t.Errorf("before the catalog was read: %d dead letters, %v", dead, p.Ready())
	}
	for _, o := range w.outcomes() {
		if o.ClickToken == behind.ClickToken {
			t.Errorf("its partition went on: %v", o)
		}
	}
	held.Store(false)
	eventually(w, "what lies behind it is judged", func() bool { return len(w.outcomes()) == 3 })
	dead := kafkatest.Consume(t, w.brokers, topic.DeadLetters)
	if len(dead) != 1 {
		t.Fatalf("%d dead letters", len(dead))
	}
	letter, err := kafka.ParseDeadLetter(dead[0])
	if err != nil || !strings.Contains(letter.Error, "wrong partition: its key belongs into partition ") {
		t.Errorf("%v %v", letter, err)
	}
	eventually(w, "it is counted", func() bool { return p.Misplaced() > 0 })
	if n := p.Misplaced(); n != 1 {
		t.Errorf("counted %v", n) // the aborted transaction, too
	}
	eventually(w, "rows are counted", func() bool { return p.Judged("attributed") >= 3 })
	if n := p.Judged("attributed"); n != 3 {
		t.Errorf("counted %v rows", n) // what was judged behind the dead letter twice
	}
	w.passes(grace)
	w.conserved()
}

// Records that came before the record of the installation, or without one, are judged as
// ever: their click is not found.
func TestMisplacedBeforeTheRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	w.shift = time.Hour
	k := w.Click()
	r, err := w.EventRecord(w.Sale(k, 1000))
	if err != nil {
		t.Fatal(err)
	}
	r.Timestamp = w.now()
	w.send(displace(r))
	w.flush()
	start(t, newProcessor(t, w.brokers, config(t.TempDir())))
	w.passes(grace + time.Hour)
	eventually(w, "it is judged", func() bool { return len(w.outcomes()) == 1 })
	if got := w.outcomes()[0]; got.Reason != "click_not_found" {
		t.Errorf("%v", got)
	}
}

// A partition does not run before its session has read topic catalog to an end that was
// listed after the assignment: its former owner may have known tokens that were given up.
func TestRestoreReadsTheCatalog(t *testing.T) {
	t.Parallel()
	cluster, brokers := kafkatest.Cluster(t)
	w := newWorld(t, brokers)
	p := newProcessor(t, w.brokers, config(t.TempDir()))
	var held atomic.Bool
	var once sync.Once
	var refused atomic.Int32
	kafkatest.HoldCatalog(cluster, &held, func() {
		if refused.Add(1) == 3 {
			held.Store(false)
		}
	})
	p.SetHook(func(step string) {
		switch step {
		case engine.StepAssigned:
			once.Do(func() { held.Store(true) })
		case engine.StepRestored:
			if held.Load() {
				t.Error("a partition is restored, and nobody could list the catalog's end")
				held.Store(false)
			}
		}
	})
	start(t, p)
	w.story(5)
	w.judged()
	if n := refused.Load(); n != 3 && !t.Failed() {
		t.Errorf("%d listings were refused", n)
	}
}

// Partitions are added with Kafka's own tool while a processor works.
func TestPartitionsAddedWhileRunning(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	p := newProcessor(t, w.brokers, config(t.TempDir()))
	p.SetPartitionCheckInterval(500 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	w.story(5)
	w.judged()
	altered, err := kadm.NewClient(w.client).UpdatePartitions(ctx, 8, topic.Outcomes)
	if err = errors.Join(err, altered.Error()); err != nil {
		t.Fatal(err)
	}
	for n := 0; len(done) == 0; n++ { // a busy catalog does not put the check off
		busy := &kgo.Record{Topic: topic.Catalog, Key: []byte("workspace/busy"), Value: fmt.Append(nil, n)}
		if err := w.client.ProduceSync(ctx, busy).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; !errors.Is(err, kafka.ErrPartitions) || !strings.Contains(err.Error(), "topic outcomes has 8") {
		t.Errorf("%v", err)
	}
}
