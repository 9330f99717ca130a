package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nimriz/partners/pipeline/outage"
	"github.com/twmb/franz-go/pkg/kgo"
)

// partition is one partition of one topic while it is assigned to this sink. One
// goroutine inserts its batches, strictly one after another.
type partition struct {
	sink    *Sink
	mapping *topicMapping
	id      int32
	queue   *queue // filled by the poll loop
	log     *slog.Logger

	stop chan struct{}      // closed: finish the running batch, then end
	ctx  context.Context    // of requests; ends with kill
	kill context.CancelFunc // called when DrainTimeout has passed after stop
	done chan struct{}      // closed when the goroutine has ended

	// Of the goroutine.
	next           int64         // start of the next batch
	declaredIntent *intent       // the batch to form next; nil: any
	ackPending     bool          // a batch was finished since the last commit
	lastInsert     time.Time     // start of the last insert
	lastInsertTook time.Duration // how long it took
}

func (s *Sink) newPartition(mapping *topicMapping, id int32, next int64, declared *intent) *partition {
	ctx, kill := context.WithCancel(context.Background())
	return &partition{
		sink:           s,
		mapping:        mapping,
		id:             id,
		queue:          newQueue(next, s.cfg),
		log:            s.log.With("topic", mapping.topic, "partition", id),
		stop:           make(chan struct{}),
		ctx:            ctx,
		kill:           kill,
		done:           make(chan struct{}),
		next:           next,
		declaredIntent: declared,
	}
}

var errStopped = errors.New("stopped")

// newAttemptBackoff spaces the attempts at a batch. Jitter keeps the partitions of a
// ClickHouse that comes back from inserting at the same moment.
func newAttemptBackoff() outage.Backoff {
	return outage.Backoff{Min: 100 * time.Millisecond, Max: 3 * time.Second, Jitter: true}
}

// run inserts batches until the partition is stopped or an error stops the sink.
func (p *partition) run() {
	defer close(p.done)
	defer p.kill()
	for {
		b, err := p.formBatch()
		if err == nil {
			err = p.writeBatch(b)
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, errStopped) {
			p.sink.stopWithError(fmt.Errorf("%s partition %d, batch at offset %d: %w",
				p.mapping.topic, p.id, p.next, err))
		}
		return
	}
}

// stopAndWait ends the partition: at once between batches, else when the running batch
// is finished, but after DrainTimeout in any case.
func (p *partition) stopAndWait() {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	timeout := p.sink.env.DrainTimeout
	drain := time.NewTimer(timeout)
	defer drain.Stop()
	select {
	case <-p.done:
	case <-drain.C:
		p.log.Warn("the running batch did not finish in time; the next owner of the partition repeats it",
			"waited", timeout)
		p.kill()
		<-p.done
	}
}

// formBatch waits for the next batch: for all records of a batch that was declared,
// else for the records that come until the next insert is due.
func (p *partition) formBatch() (*batch, error) {
	id := batchID{topicID: p.sink.topicIDs[p.mapping.topic], partition: p.id, start: p.next}
	if declared := p.declaredIntent; declared != nil {
		records, err := p.awaitRecords(declared.end)
		if err != nil {
			return nil, err
		}
		p.declaredIntent = nil
		id.end = declared.end
		return &batch{batchID: id, records: records, intent: *declared, mayHaveReached: stepBatchRecorded}, nil
	}
	for {
		records, full := p.queue.fillLevel()
		wait := time.Until(p.lastInsert.Add(p.insertInterval(full)))
		if records > 0 && wait <= 0 {
			break
		}
		var due <-chan time.Time
		if records > 0 {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			due = timer.C
		}
		select {
		case <-p.stop:
			return nil, errStopped
		case <-p.queue.changed:
		case <-due:
		}
	}
	records, resume := p.queue.takeBatch()
	if resume {
		p.sink.resumeFetching(p)
	}
	id.end = records[len(records)-1].Offset + 1
	return &batch{
		batchID: id,
		records: records,
		intent:  intent{topicID: id.topicID, start: id.start, end: id.end},
	}, nil
}

// awaitRecords waits until all records below end have been fetched.
func (p *partition) awaitRecords(end int64) ([]*kgo.Record, error) {
	for {
		records, resume, complete := p.queue.takeBelow(end)
		if resume {
			p.sink.resumeFetching(p)
		}
		if complete {
			return records, nil
		}
		select {
		case <-p.stop:
			return nil, errStopped
		case <-p.queue.changed:
		}
	}
}

// insertInterval returns the shortest time from one insert to the next. full says that
// the waiting records fill a batch.
func (p *partition) insertInterval(full bool) time.Duration {
	budget := minInsertInterval(p.sink.partitionCounts[p.mapping.topic])
	if full {
		return budget
	}
	interval := max(p.sink.cfg.Linger, budget)
	if p.mapping.largeBatches && p.sink.cfg.Linger >= DefaultConfig().Linger {
		interval = max(interval, min(max(minClickInterval, 5*p.lastInsertTook), maxClickInterval))
	}
	return interval
}
