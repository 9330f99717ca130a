//go:build linux

package blackbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// outcomeWatcher reads committed outcomes from the first on, as they become visible,
// through all outages.
type outcomeWatcher struct {
	t       *testing.T
	brokers []string

	mu      sync.Mutex
	next    map[int32]int64                   // by partition, the offset after the newest row
	decided map[int32]event.Millis            // by partition, when the newest row was decided
	rows    map[recordPosition]recordPosition // where each event's row lies, by the event's place
	shown   map[recordPosition]bool           // places of rows
	twice   int
	grew    chan struct{}
}

func newOutcomeWatcher(t *testing.T, brokers []string) (w *outcomeWatcher, stop func()) {
	w = &outcomeWatcher{
		t:       t,
		brokers: brokers,
		next:    make(map[int32]int64),
		decided: make(map[int32]event.Millis),
		rows:    make(map[recordPosition]recordPosition),
		shown:   make(map[recordPosition]bool),
		grew:    make(chan struct{}, 1),
	}
	cl := kafkatest.Client(t, brokers, kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(100*time.Millisecond), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		fromStart(topic.Outcomes, kafkatest.Partitions))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			// errors are outages; only the outcomes read by the end count
			w.recordOutcomes(cl.PollFetches(ctx).Records())
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return w, stop
}

func fromStart(name string, partitions int32) kgo.Opt {
	from := make(map[int32]kgo.Offset)
	for p := range partitions {
		from[p] = kgo.NewOffset().At(0)
	}
	return kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: from})
}

func (w *outcomeWatcher) recordOutcomes(records []*kgo.Record) {
	codec := event.DefaultCodec()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, rec := range records {
		at := recordPosition{rec.Partition, rec.Offset}
		if rec.Offset < w.next[rec.Partition] {
			w.t.Errorf("the reader of outcomes got %v twice", at)
		}
		w.next[rec.Partition] = rec.Offset + 1
		w.shown[at] = true
		var o event.Outcome
		if err := codec.DecodeOutcome(rec.Value, &o); err != nil {
			w.t.Errorf("outcomes %v: %v", at, err)
			continue
		}
		w.decided[rec.Partition] = o.DecidedAt
		source := recordPosition{o.EventPartition, o.EventOffset}
		if first, ok := w.rows[source]; ok {
			if w.twice++; w.twice <= 10 {
				w.t.Errorf("event %v has a row at %v and, %v, another at %v",
					source, first, time.Now().Format("15:04:05.000"), at)
			}
			continue
		}
		w.rows[source] = at
	}
	select {
	case w.grew <- struct{}{}:
	default:
	}
}

// awaitRows waits until ok returns true. It calls ok, with the lock held, after each
// new row.
func (w *outcomeWatcher) awaitRows(limit time.Duration, ok func() bool) bool {
	for deadline := time.After(limit); ; {
		w.mu.Lock()
		done := ok()
		w.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-w.grew:
		case <-deadline:
			return false
		}
	}
}

// awaitRecovery waits until every partition has an outcome that was decided after
// since. It returns the time from since until then.
func (w *outcomeWatcher) awaitRecovery(since time.Time) time.Duration {
	w.t.Helper()
	if !w.awaitRows(maxWait, func() bool {
		for p := range int32(kafkatest.Partitions) {
			if w.decided[p] <= event.MillisOf(since) {
				return false
			}
		}
		return true
	}) {
		w.t.Errorf("%v after %v not every partition has a new outcome: %v", maxWait, since.Format("15:04:05.000"),
			w.decided)
	}
	return time.Since(since)
}

// markerAudit is the result of auditMarkers.
type markerAudit struct {
	aborted  int // rows of outcomes
	visible  int // aborted rows that the watcher saw
	hidden   int // committed rows that the watcher did not see
	problems []string
}

// transactionID identifies one transaction: with transaction.version 2 each has an
// epoch of its own.
type transactionID struct {
	producer int64
	epoch    int16
}

// auditMarkers reads the log without isolation and compares the markers with the rows
// before them. The markers of a transaction must agree in all its partitions, and one
// that commits must close rows of only one transaction: if Kafka loses a marker, that of
// the producer's next transaction would close, and show, aborted rows. One that aborts
// may close several: that is how a processor ends what hangs under its own id.
func (w *outcomeWatcher) auditMarkers(adm *kadm.Client) (a markerAudit) {
	w.t.Helper()
	fate := make(map[transactionID]map[bool]string) // committed or not: where its marker says so
	rows := make(map[recordPosition]transactionID)  // of outcomes
	closed := make(map[recordPosition]bool)         // rows of outcomes: how their own marker closed them
	for _, name := range []string{topic.Outcomes, topic.Changelog, topic.Progress, topic.DeadLetters} {
		open := make(map[int32]map[int64][]*kgo.Record)
		w.readWholeTopic(adm, name, func(rec *kgo.Record) {
			if open[rec.Partition] == nil {
				open[rec.Partition] = make(map[int64][]*kgo.Record)
			}
			of := open[rec.Partition]
			if !rec.Attrs.IsControl() {
				of[rec.ProducerID] = append(of[rec.ProducerID], &kgo.Record{Partition: rec.Partition,
					Offset: rec.Offset, ProducerEpoch: rec.ProducerEpoch})
				return
			}
			if len(rec.Key) < 4 || binary.BigEndian.Uint16(rec.Key[2:]) > 1 {
				return
			}
			commit, where := binary.BigEndian.Uint16(rec.Key[2:]) == 1, fmt.Sprintf("%s %d/%d",
				name, rec.Partition, rec.Offset)
			before := of[rec.ProducerID]
			for i, row := range before {
				id := transactionID{rec.ProducerID, row.ProducerEpoch}
				if commit && i > 0 && row.ProducerEpoch != before[i-1].ProducerEpoch {
					a.problems = append(a.problems,
						fmt.Sprintf("the marker at %s closes rows of epochs %d and %d of producer %d",
							where, before[i-1].ProducerEpoch, row.ProducerEpoch, rec.ProducerID))
				}
				if fate[id] == nil {
					fate[id] = make(map[bool]string)
				}
				fate[id][commit] = where
				if name == topic.Outcomes {
					at := recordPosition{row.Partition, row.Offset}
					rows[at], closed[at] = id, commit
				}
			}
			delete(of, rec.ProducerID)
		})
	}
	for id, f := range fate {
		if len(f) > 1 {
			a.problems = append(a.problems, fmt.Sprintf("transaction %v was aborted by the marker at %s and "+
				"committed by that at %s", id, f[false], f[true]))
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for at, id := range rows {
		_, aborted := fate[id][false]
		switch {
		case aborted && w.shown[at]:
			a.visible++
		case closed[at] && !w.shown[at]:
			a.hidden++
		}
		if aborted {
			a.aborted++
		}
	}
	return a
}

// readWholeTopic calls do for all present records of a topic, including markers and
// aborted records, in the order of each partition.
func (w *outcomeWatcher) readWholeTopic(adm *kadm.Client, name string, do func(*kgo.Record)) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), maxWait)
	defer cancel()
	ends, err := adm.ListEndOffsets(ctx, name)
	if err = errors.Join(err, ends.Error()); err != nil {
		w.t.Fatalf("listing the end offsets of %s: %v", name, err)
	}
	left := make(map[int32]int64)
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	cl := kafkatest.Client(w.t, w.brokers, kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), fromStart(name, int32(len(ends[name]))))
	defer cl.Close()
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := errors.Join(ctx.Err(), fetches.Err()); err != nil {
			w.t.Fatalf("reading all of %s: %v", name, err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			end, ok := left[rec.Partition]
			if ok && rec.Offset < end {
				do(rec)
			}
			if ok && rec.Offset+1 >= end {
				delete(left, rec.Partition)
			}
		})
	}
}

// rowCount returns how many events have a row.
func (w *outcomeWatcher) rowCount() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.rows)
}
