package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Steps of a batch, in order, for tests that die at each of them.
const (
	stepAcknowledged    = "committed"      // the commit that acknowledges the batch before
	stepIntentWritten   = "intent-written" // the same commit declares this batch
	stepInsertSent      = "insert-sent"    // all rows are with the client, nothing has gone out
	stepInsertDone      = "insert-done"
	stepDeadLettersSent = "letters-sent" // only where a batch has dead letters
	stepBatchRecorded   = "batch-recorded"
)

// partition is one partition of one topic while it is assigned to this sink. One
// goroutine inserts its batches, strictly one after another.
type partition struct {
	sink    *Sink
	mapping *topicMapping
	id      int32
	queue   *queue
	log     *slog.Logger

	stop chan struct{} // closed: finish the running batch and end
	kill context.CancelFunc
	ctx  context.Context // ends with kill, drainTime after stop
	done chan struct{}

	// Of the goroutine.
	next           int64 // start of the next batch
	declaredIntent *intent
	ackPending     bool // a batch was finished since the last commit
	lastInsert     time.Time
	lastInsertTook time.Duration
}

func (s *Sink) newPartition(f *topicMapping, id int32, at int64, redo *intent) *partition {
	ctx, kill := context.WithCancel(context.Background())
	return &partition{sink: s, mapping: f, id: id, queue: newQueue(at, s.cfg), log: s.log.With("topic", f.topic,
		"partition", id),
		stop: make(chan struct{}), kill: kill, ctx: ctx, done: make(chan struct{}), next: at, declaredIntent: redo}
}

// batch is what is being inserted.
type batch struct {
	batchID
	records []*kgo.Record
	// again: an earlier process may have done all this, in part.
	again  bool
	intent intent
	// when a commit of the intent last succeeded: this batch's, not the one's before
	declared       time.Time
	presentOffsets map[int64]bool // offsets whose rows are in the table: see Complete
	tokenSuffix    string         // of the tokens of inserts that are not the batch as it was declared

	inserted, letters bool // the rows are in, the dead letters are out: known by an answer

	summary        batchSummary
	replaysDropped int
	unreadable     []unreadableRecord
	attempted      int
}

var errStopped = errors.New("stopped")

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
			p.sink.stopWithError(fmt.Errorf("%s partition %d, batch at offset %d: %w", p.mapping.topic, p.id, p.next, err))
		}
		return
	}
}

// stopAndWait ends the partition: at once if its goroutine is not in a batch, else when that
// is finished, but after drainTime in any case.
func (p *partition) stopAndWait() {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	drain := time.NewTimer(drainTimeout)
	defer drain.Stop()
	select {
	case <-p.done:
	case <-drain.C:
		p.log.Warn("the running batch did not finish in time and is left to whoever takes the partition up",
			"waited", drainTimeout)
		p.kill()
		<-p.done
	}
}

// formBatch waits for the next batch: for the records of a declared one, else for as many as
// come until it is time to insert.
func (p *partition) formBatch() (*batch, error) {
	id := batchID{topicID: p.sink.topicIDs[p.mapping.topic], partition: p.id, start: p.next}
	if p.declaredIntent != nil {
		records, err := p.awaitRecords(p.declaredIntent.end)
		if err != nil {
			return nil, err
		}
		id.end = p.declaredIntent.end
		b := &batch{batchID: id, records: records, again: true, intent: *p.declaredIntent}
		p.declaredIntent = nil
		return b, nil
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
	return &batch{batchID: id, records: records, intent: intent{topicID: id.topicID, start: id.start, end: id.end}}, nil
}

// awaitRecords waits until all records below end were fetched.
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

// insertInterval is the shortest time from one insert to the next.
func (p *partition) insertInterval(full bool) time.Duration {
	budget := minInsertInterval(p.sink.partitionCounts[p.mapping.topic])
	if full {
		return budget
	}
	pace := max(p.sink.cfg.Linger, budget)
	if p.mapping.largeBatches && p.sink.cfg.Linger >= DefaultConfig().Linger {
		pace = max(pace, min(max(minClickInterval, 5*p.lastInsertTook), maxClickInterval))
	}
	return pace
}

// writeBatch does all steps of a batch and repeats them until they succeed: it ends with an
// error only if the partition is stopped, or if the error is one that repeating cannot
// heal.
func (p *partition) writeBatch(b *batch) error {
	inserting := fmt.Sprintf("inserting %s partition %d", p.mapping.topic, p.id)
	defer p.sink.clearFailure(inserting)
	delay := 100 * time.Millisecond
	for {
		err := p.attemptBatch(b)
		if err == nil {
			p.next, p.ackPending = b.end, true
			p.sink.metrics.setTableEnd(p.mapping.topic, p.id, b.end)
			return nil
		}
		if p.ctx.Err() != nil {
			return errStopped
		}
		if !retryable(err) {
			return err
		}
		b.again = true
		p.sink.metrics.retries.WithLabelValues(p.mapping.topic).Inc()
		p.sink.reportFailure(inserting, delay, fmt.Errorf("batch [%d, %d), which is repeated as it is: %w",
			b.start, b.end, err))
		select {
		case <-p.stop:
			return errStopped // its intent stands: whoever takes the partition up repeats it
		case <-time.After(delay/2 + rand.N(delay)):
		}
		delay = min(2*delay, 3*time.Second)
	}
}

// attemptBatch runs the steps once, but for those that are known to be done. Running one
// again changes nothing: commits and tokens are the same.
func (p *partition) attemptBatch(b *batch) error {
	ctx, cancel := context.WithTimeout(p.ctx, attemptTimeout)
	defer cancel()
	b.attempted++
	if err := p.declareIntent(ctx, b); err != nil {
		return err
	}
	if err := p.sink.acquireSlot(ctx); err != nil {
		return err
	}
	defer p.sink.releaseSlot()
	if b.attempted > 1 && !b.inserted {
		if err := p.checkRepeatable(ctx, b); err != nil {
			return err
		}
	}
	if err := p.insertRows(ctx, b); err != nil {
		return err
	}
	if err := p.produceDeadLetters(ctx, b); err != nil {
		return err
	}
	if err := p.recordBatch(ctx, b); err != nil {
		return err
	}
	p.sink.metrics.countBatch(p.mapping, b)
	return nil
}

// checkRepeatable returns an error if an earlier attempt may have inserted the batch and its
// token may be forgotten by now.
func (p *partition) checkRepeatable(ctx context.Context, b *batch) error {
	young, err := p.sink.dedupTokenStillKnown(ctx, p.mapping, &b.intent)
	if err != nil || young {
		return err
	}
	return p.sink.checkNoUnrecordedRows(ctx, p.mapping, []*partitionClaim{{mapping: p.mapping, partition: p.id, unrecordedFrom: b.start}})
}

// declareIntent commits the batch's start with the batch as metadata: that acknowledges the
// batch before and says, to whoever comes after a crash, what is about to be inserted.
// A member that lost the partition is refused here.
func (p *partition) declareIntent(ctx context.Context, b *batch) error {
	if time.Since(b.declared) < min(maxCommitAge, p.sink.cfg.SessionTimeout) {
		return nil
	}
	if b.intent.declaredAt.IsZero() {
		b.intent.declaredAt = time.Now().UTC()
	}
	if err := p.sink.commitIntent(ctx, p, b.intent); err != nil {
		return err
	}
	b.declared = time.Now()
	if p.ackPending {
		p.ackPending = false
		if err := p.sink.afterStep(stepAcknowledged, p); err != nil {
			return err
		}
	}
	return p.sink.afterStep(stepIntentWritten, p)
}

// insertRows sends the rows of the batch.
func (p *partition) insertRows(ctx context.Context, b *batch) error {
	if b.inserted {
		return nil
	}
	set := p.sink.acquireRows(p.mapping)
	defer p.sink.releaseRows(p.mapping, set)
	if err := p.collectRows(ctx, b, set); err != nil {
		return err
	}
	if b.summary.rows == 0 {
		b.inserted = true
		return nil
	}
	began := time.Now()
	err := p.sink.wh.Insert(ctx, clickhouse.Insert{Table: p.mapping.table, Columns: set.columnNames(), Token: b.deduplicationToken() +
		b.tokenSuffix}, func(block *clickhouse.Batch) error {
		if err := set.fillBatch(block); err != nil {
			return err
		}
		return p.sink.afterStep(stepInsertSent, p)
	})
	p.lastInsert, p.lastInsertTook = began, time.Since(began)
	p.sink.metrics.insertSeconds.WithLabelValues(p.mapping.topic).Observe(p.lastInsertTook.Seconds())
	if err != nil {
		return err
	}
	b.inserted = true
	return p.sink.afterStep(stepInsertDone, p)
}

// collectRows decodes the batch's records into set.
func (p *partition) collectRows(ctx context.Context, b *batch, set rowBuffer) error {
	skip, err := p.findReplays(ctx, b)
	if err != nil {
		return err
	}
	b.replaysDropped, b.unreadable = 0, b.unreadable[:0]
	for _, r := range b.records {
		ask := func() bool {
			if skip != nil && skip(r) {
				b.replaysDropped++
				return true
			}
			return b.presentOffsets[r.Offset]
		}
		if err := set.appendRow(r, ask); err != nil {
			if !isUnreadable(err) {
				return fmt.Errorf("decoding offset %d: %w", r.Offset, err)
			}
			if !p.mapping.deadLetteredElsewhere {
				b.unreadable = append(b.unreadable, unreadableRecord{r, err})
			}
		}
	}
	b.summary = set.summarize()
	return nil
}

// recordBatch writes the finished batch into table batches. With it, the batch is done. It
// has no token: a second row for a batch is as good as one, while a ClickHouse that was
// killed in the midst of an insert may have noted the token and not have the row, and
// would then swallow every repetition (seen once in TestOutages: all later sinks
// stopped at the gap).
func (p *partition) recordBatch(ctx context.Context, b *batch) error {
	into := clickhouse.Insert{Table: "batches",
		Columns: []string{"topic_id", "topic", "partition", "start_offset", "end_offset", "rows", "dropped_replays",
			"dead_lettered"}}
	err := p.sink.wh.Insert(ctx, into, func(row *clickhouse.Batch) error {
		return row.Append(b.topicID, p.mapping.topic, uint32(b.partition), uint64(b.start), uint64(b.end),
			uint64(b.summary.rows), uint64(b.replaysDropped), uint64(len(b.unreadable)))
	})
	if err != nil {
		return err
	}
	if b.summary.rows == 0 {
		p.lastInsert = time.Now() // the insert into batches has its budget too
	}
	return p.sink.afterStep(stepBatchRecorded, p)
}
