package sink

import (
	"context"
	"fmt"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/twmb/franz-go/pkg/kgo"
)

// step is how far a batch has come.
type step int

const (
	stepFormed          step = iota // its records are known
	stepAcknowledged                // the batch before it is acknowledged
	stepIntentWritten               // the same commit declares this batch
	stepInsertSent                  // all rows are with the client; they may reach ClickHouse
	stepInsertDone                  // ClickHouse has confirmed the rows
	stepInsertVerified              // if the insert was repeated, its rows and sums are there
	stepDeadLettersSent             // Kafka has confirmed its dead letters, if there are any
	stepBatchRecorded               // its row is in table batches: the batch is finished
)

func (s step) String() string {
	switch s {
	case stepFormed:
		return "formed"
	case stepAcknowledged:
		return "acknowledged"
	case stepIntentWritten:
		return "intent-written"
	case stepInsertSent:
		return "insert-sent"
	case stepInsertDone:
		return "insert-done"
	case stepInsertVerified:
		return "insert-verified"
	case stepDeadLettersSent:
		return "dead-letters-sent"
	case stepBatchRecorded:
		return "batch-recorded"
	default:
		return fmt.Sprintf("step %d", int(s))
	}
}

// batch is a batch on its way into the tables.
type batch struct {
	batchID
	records []*kgo.Record
	intent  intent // what its commit declares

	// reached is the last step that is confirmed. An attempt resumes behind it.
	reached step
	// mayHaveReached is the furthest step that an earlier attempt or process may have
	// taken without our knowing: its answer was lost, or the process died.
	mayHaveReached step
	// repeated: the insert was not the batch's first try. ClickHouse's word that it is
	// done is not enough.
	repeated bool
	// committedAt is when the intent was last committed by this process; zero: never.
	committedAt time.Time

	// formedAt is a time by which all records were in Kafka. awaitAdded sets it, or
	// decidePlaces where that comes first.
	formedAt time.Time
	// misplaced are the reasons of records that lie in another partition than their
	// token's, by offset. They get no row. decidePlaces sets it, once; nil: not yet.
	misplaced map[int64]error
	// presentOffsets are offsets that have a row already and get no second one. Only
	// Complete, Repair and verifyInsert set them.
	presentOffsets map[int64]bool
	// keptDoubled are offsets with several rows at which the log has no record: they stay.
	// Only Repair sets them.
	keptDoubled map[int64]bool
	// quarters are the quarters of an hour in which the rollup sums the records. Only
	// verifyInsert sets it, so that they are collected.
	quarters map[int64]bool
	// tokenSuffix is appended to the deduplication token of an insert whose rows are
	// not those of the batch as it was declared. Only Complete and Repair set it.
	tokenSuffix string

	// Set when the rows are collected, anew in each attempt to insert them.
	summary        batchSummary
	replaysDropped int                // clicks that were sent again and are left out
	unreadable     []unreadableRecord // records that go to the dead letters
}

// beginStep notes that a step is about to be taken, whatever becomes of it.
func (b *batch) beginStep(s step) { b.mayHaveReached = max(b.mayHaveReached, s) }

// writeBatch takes all steps of a batch, and repeats those that fail until they
// succeed. It ends with an error only if the partition is stopped, or if repeating
// cannot help.
func (p *partition) writeBatch(b *batch) error {
	inserting := fmt.Sprintf("inserting %s partition %d", p.mapping.topic, p.id)
	defer p.sink.clearFailure(inserting)
	pauses := newAttemptBackoff()
	for {
		err := p.attemptBatch(b)
		if err == nil {
			p.next = b.end
			p.ackPending = true
			p.sink.metrics.setTableEnd(p.mapping.topic, p.id, b.end)
			p.sink.noteRecorded(recordedBatch{p.mapping.topic, p.id, b.start, b.end})
			return nil
		}
		if p.ctx.Err() != nil {
			return errStopped
		}
		if !retryable(err) {
			return err
		}
		p.sink.metrics.retries.WithLabelValues(p.mapping.topic).Inc()
		pause := pauses.Next()
		p.sink.reportFailure(inserting, pause, fmt.Errorf("batch [%d, %d), which is repeated from step %q: %w",
			b.start, b.end, b.reached, err))
		select {
		case <-p.stop:
			return errStopped // the intent remains: the next owner of the partition repeats the batch
		case <-time.After(pause):
		}
	}
}

// attemptBatch declares a batch, or confirms its declaration, and resumes it.
func (p *partition) attemptBatch(b *batch) error {
	ctx, cancel := context.WithTimeout(p.ctx, attemptTimeout)
	defer cancel()
	if err := p.declareIntent(ctx, b); err != nil {
		return err
	}
	if err := p.awaitAdded(ctx, b); err != nil { // it may wait, so it holds no slot
		return err
	}
	if err := p.decidePlaces(ctx, b); err != nil { // likewise
		return err
	}
	if err := p.sink.acquireSlot(ctx); err != nil {
		return err
	}
	defer p.sink.releaseSlot()
	if b.reached < stepInsertDone && b.mayHaveReached >= stepInsertSent {
		b.repeated = true
		if err := p.checkRepeatable(ctx, b); err != nil {
			return err
		}
	}
	if err := p.resumeBatch(ctx, b); err != nil {
		return err
	}
	p.sink.metrics.countBatch(p.mapping, b)
	return nil
}

// resumeBatch takes the steps behind the one that a declared batch has reached. Taking
// a step twice changes nothing: the tokens are the same.
func (p *partition) resumeBatch(ctx context.Context, b *batch) error {
	for b.reached < stepBatchRecorded {
		var err error
		switch {
		case b.reached < stepInsertDone:
			err = p.insertRows(ctx, b)
		case b.reached < stepInsertVerified:
			err = p.verifyInsert(ctx, b)
		case b.reached < stepDeadLettersSent:
			err = p.produceDeadLetters(ctx, b)
		default:
			err = p.recordBatch(ctx, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reachStep notes that a step is confirmed.
func (p *partition) reachStep(b *batch, s step) error {
	b.reached = max(b.reached, s)
	b.beginStep(b.reached)
	return p.sink.afterStep(s, p)
}

// checkRepeatable returns an error if an earlier attempt may have inserted the batch
// and the tables may have forgotten its token.
func (p *partition) checkRepeatable(ctx context.Context, b *batch) error {
	known, err := p.sink.dedupTokenStillKnown(ctx, p.mapping, &b.intent)
	if err != nil || known {
		return err
	}
	claim := &partitionClaim{mapping: p.mapping, partition: p.id, unrecordedFrom: b.start}
	return p.sink.checkNoUnrecordedRows(ctx, p.mapping, []*partitionClaim{claim})
}

// declareIntent commits the batch's start with the batch as metadata. The commit
// acknowledges the batch before, and tells a later owner of the partition what is about
// to be inserted. A member that has lost the partition is refused here; therefore a
// commit that is older than maxCommitAge is repeated.
func (p *partition) declareIntent(ctx context.Context, b *batch) error {
	if time.Since(b.committedAt) < min(maxCommitAge, p.sink.cfg.SessionTimeout) {
		return nil
	}
	if b.intent.declaredAt.IsZero() {
		b.intent.declaredAt = time.Now().UTC()
	}
	if err := p.sink.commitIntent(ctx, p, b.intent); err != nil {
		return err
	}
	b.committedAt = time.Now()
	if p.ackPending {
		p.ackPending = false
		if err := p.reachStep(b, stepAcknowledged); err != nil {
			return err
		}
	}
	return p.reachStep(b, stepIntentWritten)
}

// insertRows collects the rows of the batch and inserts them.
func (p *partition) insertRows(ctx context.Context, b *batch) error {
	buffer := p.sink.acquireRows(p.mapping)
	defer p.sink.releaseRows(p.mapping, buffer)
	if err := p.collectRows(ctx, b, buffer); err != nil {
		return err
	}
	if b.summary.rows == 0 {
		b.reached = stepInsertDone
		return nil
	}
	err := p.insertBuffer(ctx, buffer, b.deduplicationToken()+b.tokenSuffix, func() error {
		return p.reachStep(b, stepInsertSent)
	})
	if err != nil {
		return err
	}
	return p.reachStep(b, stepInsertDone)
}

// insertBuffer inserts collected rows. It calls sent when all of them are with the
// client.
func (p *partition) insertBuffer(ctx context.Context, buffer rowBuffer, token string, sent func() error) error {
	began := time.Now()
	err := p.sink.wh.InsertBlock(ctx, clickhouse.Insert{Table: p.mapping.table, Token: token}, buffer.block(), sent)
	p.lastInsert = began
	p.lastInsertTook = time.Since(began)
	p.sink.metrics.insertSeconds.WithLabelValues(p.mapping.topic).Observe(p.lastInsertTook.Seconds())
	return err
}

// collectRows decodes the batch's records into buffer.
func (p *partition) collectRows(ctx context.Context, b *batch, buffer rowBuffer) error {
	isReplayed, err := p.findReplays(ctx, b)
	if err != nil {
		return err
	}
	b.replaysDropped = 0
	b.unreadable = b.unreadable[:0]
	for _, r := range b.records {
		skip := func() bool {
			if b.quarters != nil {
				b.quarters[quarterOf(buffer.sumTime())] = true
			}
			if isReplayed != nil && isReplayed(r) {
				b.replaysDropped++
				return true
			}
			return b.presentOffsets[r.Offset]
		}
		err := b.misplaced[r.Offset]
		if err == nil {
			err = buffer.appendRow(r, skip)
		} else if b.presentOffsets[r.Offset] {
			_ = buffer.appendRow(r, skip) // for its quarter: its sum must be there, too
		}
		if err != nil {
			if !isUnreadable(err) {
				return fmt.Errorf("decoding offset %d: %w", r.Offset, err)
			}
			if !p.mapping.deadLetteredElsewhere {
				b.unreadable = append(b.unreadable, unreadableRecord{r, err})
			}
		}
	}
	b.summary = buffer.summarize()
	return nil
}

// recordBatch writes the finished batch into table batches. The insert has no
// deduplication token. A second row for a batch does no harm, but a ClickHouse that is
// killed during an insert may remember the token without having the row, and would then
// swallow every repetition (seen once in TestOutages: all later sinks stopped at the
// gap).
func (p *partition) recordBatch(ctx context.Context, b *batch) error {
	into := clickhouse.Insert{
		Table: "batches",
		Columns: []string{"topic_id", "topic", "partition", "start_offset", "end_offset", "rows", "dropped_replays",
			"dead_lettered"},
	}
	err := p.sink.wh.Insert(ctx, into, func(row *clickhouse.Batch) error {
		return row.Append(b.topicID, p.mapping.topic, uint32(b.partition), uint64(b.start), uint64(b.end),
			uint64(b.summary.rows), uint64(b.replaysDropped), uint64(len(b.unreadable)))
	})
	if err != nil {
		return err
	}
	if b.summary.rows == 0 {
		p.lastInsert = time.Now() // an insert into batches counts towards the budget, too
	}
	return p.reachStep(b, stepBatchRecorded)
}
