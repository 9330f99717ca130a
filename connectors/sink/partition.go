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
	stepCommitted     = "committed"      // the commit that acknowledges the batch before
	stepIntentWritten = "intent-written" // the same commit declares this batch
	stepInsertSent    = "insert-sent"    // all rows are with the client, nothing has gone out
	stepInsertDone    = "insert-done"
	stepLettersSent   = "letters-sent" // only where a batch has dead letters
	stepBatchRecorded = "batch-recorded"
)

// partition is one partition of one topic while it is assigned to this sink. One
// goroutine inserts its batches, strictly one after another.
type partition struct {
	sink  *Sink
	feed  *feed
	id    int32
	queue *queue
	log   *slog.Logger

	stop   chan struct{} // closed: finish the running batch and end
	kill   context.CancelFunc
	ctx    context.Context // ends with kill, drainTime after stop
	exited chan struct{}

	// Of the goroutine.
	next       int64 // start of the next batch
	redo       *intent
	unacked    bool // a batch was finished since the last commit
	lastInsert time.Time
	lastTook   time.Duration
}

func (s *Sink) newPartition(f *feed, id int32, at int64, redo *intent) *partition {
	ctx, kill := context.WithCancel(context.Background())
	return &partition{sink: s, feed: f, id: id, queue: newQueue(at, s.cfg), log: s.log.With("topic", f.topic,
		"partition", id),
		stop: make(chan struct{}), kill: kill, ctx: ctx, exited: make(chan struct{}), next: at, redo: redo}
}

// batch is what is being inserted.
type batch struct {
	batchID
	records []*kgo.Record
	// again: an earlier process may have done all this, in part.
	again  bool
	intent intent
	// when a commit of the intent last succeeded: this batch's, not the one's before
	declared time.Time
	have     map[int64]bool // offsets whose rows are in the table: see Complete
	suffix   string         // of the tokens of inserts that are not the batch as it was declared

	inserted, letters bool // the rows are in, the dead letters are out: known by an answer

	sum       summary
	dropped   int
	poisoned  []poison
	attempted int
}

var errStopped = errors.New("stopped")

// run inserts batches until the partition is stopped or an error stops the sink.
func (p *partition) run() {
	defer close(p.exited)
	defer p.kill()
	for {
		b, err := p.form()
		if err == nil {
			err = p.write(b)
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, errStopped) {
			p.sink.fail(fmt.Errorf("%s partition %d, batch at offset %d: %w", p.feed.topic, p.id, p.next, err))
		}
		return
	}
}

// halt ends the partition: at once if its goroutine is not in a batch, else when that
// is finished, but after drainTime in any case.
func (p *partition) halt() {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	patience := time.NewTimer(drainTime)
	defer patience.Stop()
	select {
	case <-p.exited:
	case <-patience.C:
		p.log.Warn("the running batch did not finish in time and is left to whoever takes the partition up",
			"waited", drainTime)
		p.kill()
		<-p.exited
	}
}

// form waits for the next batch: for the records of a declared one, else for as many as
// come until it is time to insert.
func (p *partition) form() (*batch, error) {
	id := batchID{topicID: p.sink.topicIDs[p.feed.topic], partition: p.id, start: p.next}
	if p.redo != nil {
		records, err := p.await(p.redo.end)
		if err != nil {
			return nil, err
		}
		id.end = p.redo.end
		b := &batch{batchID: id, records: records, again: true, intent: *p.redo}
		p.redo = nil
		return b, nil
	}
	for {
		records, full := p.queue.level()
		wait := time.Until(p.lastInsert.Add(p.pace(full)))
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
	records, resume := p.queue.take()
	if resume {
		p.sink.resume(p)
	}
	id.end = records[len(records)-1].Offset + 1
	return &batch{batchID: id, records: records, intent: intent{topicID: id.topicID, start: id.start, end: id.end}}, nil
}

// await waits until all records below end were fetched.
func (p *partition) await(end int64) ([]*kgo.Record, error) {
	for {
		records, resume, complete := p.queue.takeTo(end)
		if resume {
			p.sink.resume(p)
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

// pace is the shortest time from one insert to the next.
func (p *partition) pace(full bool) time.Duration {
	budget := budgetPace(p.sink.partitions[p.feed.topic])
	if full {
		return budget
	}
	pace := max(p.sink.cfg.Linger, budget)
	if p.feed.slow && p.sink.cfg.Linger >= DefaultConfig().Linger {
		pace = max(pace, min(max(minClickPace, 5*p.lastTook), maxClickPace))
	}
	return pace
}

// write does all steps of a batch and repeats them until they succeed: it ends with an
// error only if the partition is stopped, or if the error is one that repeating cannot
// heal.
func (p *partition) write(b *batch) error {
	inserting := fmt.Sprintf("inserting %s partition %d", p.feed.topic, p.id)
	defer p.sink.cleared(inserting)
	delay := 100 * time.Millisecond
	for {
		err := p.attempt(b)
		if err == nil {
			p.next, p.unacked = b.end, true
			p.sink.metrics.position(p.feed.topic, p.id, b.end)
			return nil
		}
		if p.ctx.Err() != nil {
			return errStopped
		}
		if !passing(err) {
			return err
		}
		b.again = true
		p.sink.metrics.stalls.WithLabelValues(p.feed.topic).Inc()
		p.sink.failed(inserting, delay, fmt.Errorf("batch [%d, %d), which is repeated as it is: %w",
			b.start, b.end, err))
		select {
		case <-p.stop:
			return errStopped // its intent stands: whoever takes the partition up repeats it
		case <-time.After(delay/2 + rand.N(delay)):
		}
		delay = min(2*delay, 3*time.Second)
	}
}

// attempt runs the steps once, but for those that are known to be done. Running one
// again changes nothing: commits and tokens are the same.
func (p *partition) attempt(b *batch) error {
	ctx, cancel := context.WithTimeout(p.ctx, attemptTime)
	defer cancel()
	b.attempted++
	if err := p.declare(ctx, b); err != nil {
		return err
	}
	if err := p.sink.slot(ctx); err != nil {
		return err
	}
	defer p.sink.release()
	if b.attempted > 1 && !b.inserted {
		if err := p.repeatable(ctx, b); err != nil {
			return err
		}
	}
	if err := p.insert(ctx, b); err != nil {
		return err
	}
	if err := p.bury(ctx, b); err != nil {
		return err
	}
	if err := p.record(ctx, b); err != nil {
		return err
	}
	p.sink.metrics.done(p.feed, b)
	return nil
}

// repeatable returns an error if an earlier attempt may have inserted the batch and its
// token may be forgotten by now.
func (p *partition) repeatable(ctx context.Context, b *batch) error {
	young, err := p.sink.young(ctx, p.feed, &b.intent)
	if err != nil || young {
		return err
	}
	return p.sink.free(ctx, p.feed, []*taking{{feed: p.feed, partition: p.id, from: b.start}})
}

// declare commits the batch's start with the batch as metadata: that acknowledges the
// batch before and says, to whoever comes after a crash, what is about to be inserted.
// A member that lost the partition is refused here.
func (p *partition) declare(ctx context.Context, b *batch) error {
	if time.Since(b.declared) < min(intentFresh, p.sink.cfg.SessionTimeout) {
		return nil
	}
	if b.intent.at.IsZero() {
		b.intent.at = time.Now().UTC()
	}
	if err := p.sink.commit(ctx, p, b.intent); err != nil {
		return err
	}
	b.declared = time.Now()
	if p.unacked {
		p.unacked = false
		if err := p.sink.step(stepCommitted, p); err != nil {
			return err
		}
	}
	return p.sink.step(stepIntentWritten, p)
}

// insert sends the rows of the batch.
func (p *partition) insert(ctx context.Context, b *batch) error {
	if b.inserted {
		return nil
	}
	set := p.sink.takeRows(p.feed)
	defer p.sink.giveRows(p.feed, set)
	if err := p.collect(ctx, b, set); err != nil {
		return err
	}
	if b.sum.rows == 0 {
		b.inserted = true
		return nil
	}
	began := time.Now()
	err := p.sink.wh.Insert(ctx, clickhouse.Insert{Table: p.feed.table, Columns: set.names(), Token: b.token() +
		b.suffix}, func(block *clickhouse.Batch) error {
		if err := set.fill(block); err != nil {
			return err
		}
		return p.sink.step(stepInsertSent, p)
	})
	p.lastInsert, p.lastTook = began, time.Since(began)
	p.sink.metrics.insertSeconds.WithLabelValues(p.feed.topic).Observe(p.lastTook.Seconds())
	if err != nil {
		return err
	}
	b.inserted = true
	return p.sink.step(stepInsertDone, p)
}

// collect decodes the batch's records into set.
func (p *partition) collect(ctx context.Context, b *batch, set rows) error {
	skip, err := p.replays(ctx, b)
	if err != nil {
		return err
	}
	b.dropped, b.poisoned = 0, b.poisoned[:0]
	for _, r := range b.records {
		ask := func() bool {
			if skip != nil && skip(r) {
				b.dropped++
				return true
			}
			return b.have[r.Offset]
		}
		if err := set.add(r, ask); err != nil {
			if !unreadable(err) {
				return fmt.Errorf("decoding offset %d: %w", r.Offset, err)
			}
			if !p.feed.silent {
				b.poisoned = append(b.poisoned, poison{r, err})
			}
		}
	}
	b.sum = set.result()
	return nil
}

// record writes the finished batch into table batches. With it, the batch is done. It
// has no token: a second row for a batch is as good as one, while a ClickHouse that was
// killed in the midst of an insert may have noted the token and not have the row, and
// would then swallow every repetition (seen once in TestOutages: all later sinks
// stopped at the gap).
func (p *partition) record(ctx context.Context, b *batch) error {
	into := clickhouse.Insert{Table: "batches",
		Columns: []string{"topic_id", "topic", "partition", "start_offset", "end_offset", "rows", "dropped_replays",
			"dead_lettered"}}
	err := p.sink.wh.Insert(ctx, into, func(row *clickhouse.Batch) error {
		return row.Append(b.topicID, p.feed.topic, uint32(b.partition), uint64(b.start), uint64(b.end),
			uint64(b.sum.rows), uint64(b.dropped), uint64(len(b.poisoned)))
	})
	if err != nil {
		return err
	}
	if b.sum.rows == 0 {
		p.lastInsert = time.Now() // the insert into batches has its budget too
	}
	return p.sink.step(stepBatchRecorded, p)
}
