package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Tx is a running transaction of a session, over all its partitions.
type Tx struct {
	session  *session
	deadline time.Time // of the last poll
	open     bool      // Begin was called
	records  int       // records produced by tasks
	// failed is the first record that could not be produced; set by promises.
	failed atomic.Pointer[error]
}

// Begin opens the transaction, if it is not open yet, so that it commits even if
// nothing is produced.
func (tx *Tx) Begin() error {
	if tx.open {
		return nil
	}
	if err := tx.session.gts.Begin(); err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	tx.open = true
	return nil
}

// Now is the wall clock.
func (tx *Tx) Now() time.Time { return tx.session.env.Now() }

// Produce writes a record to an output that every slot writes, named with its prefix.
func (tx *Tx) Produce(r *kgo.Record) error {
	if err := tx.Begin(); err != nil {
		return err
	}
	tx.records++
	tx.produceRecord(r, nil)
	return nil
}

// ProduceOwned writes a record to the first owned output. p's OwnedEnd covers it once
// it is acknowledged.
func (tx *Tx) ProduceOwned(p *Partition, r *kgo.Record) error {
	if err := tx.Begin(); err != nil {
		return err
	}
	tx.records++
	tx.produceRecord(r, func(r *kgo.Record) { raiseTo(&p.ownedEnd, r.Offset+1) })
	return nil
}

// produceRecord produces within the transaction; acked runs on the client's goroutine.
func (tx *Tx) produceRecord(r *kgo.Record, acked func(*kgo.Record)) {
	tx.session.gts.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		if err == nil && acked != nil {
			acked(r)
		}
		tx.noteProduced(r, err)
	})
}

// noteProduced keeps the first record that failed. A record that its topic never takes
// stops the slot at this message, so it says what an operator has to know of it.
func (tx *Tx) noteProduced(r *kgo.Record, err error) {
	if err != nil {
		err = fmt.Errorf("a record of %d bytes with key %.64q to %s partition %d: %w",
			len(r.Value), r.Key, r.Topic, r.Partition, err)
		tx.failed.CompareAndSwap(nil, &err)
	}
}

// commitTransaction ends the transaction if there is one, and applies it. Anything but
// a clear yes ends the session: the broker knows, and the next session asks.
func (s *session) commitTransaction(tx *Tx) error {
	if !tx.open {
		return nil
	}
	began := time.Now()
	if err := s.produceRows(tx); err != nil {
		return err
	}
	s.m.phases.WithLabelValues("produce").Add(time.Since(began).Seconds())
	began = time.Now()
	ok, err := s.endTransaction()
	s.m.phases.WithLabelValues("commit").Add(time.Since(began).Seconds())
	switch {
	case err != nil:
		s.env.Step(StepEndFailed)
		s.m.transactions.WithLabelValues("unknown").Inc()
		return fmt.Errorf("ending a transaction: %w", err)
	case !ok:
		s.m.transactions.WithLabelValues("aborted").Inc()
		return fmt.Errorf("transaction aborted by a rebalance: %w", errSession)
	}
	s.env.Step(StepEnded)
	s.m.transactions.WithLabelValues("committed").Inc()
	s.engine.fenced = 0
	return s.applyCommitted()
}

// applyCommitted applies the transaction to the state of every partition, and does what
// had to wait for the commit.
func (s *session) applyCommitted() error {
	began := time.Now()
	now := s.env.Now()
	for _, p := range s.running {
		if err := p.applyCommit(now); err != nil {
			return p.markCorrupt(fmt.Errorf("applying a transaction to partition %d: %w", p.ID, err))
		}
	}
	s.m.phases.WithLabelValues("apply").Add(time.Since(began).Seconds())
	s.env.Step(StepApplied)
	s.setGauges()
	for _, p := range s.running {
		if err := p.task.Committed(); err != nil {
			return p.markCorrupt(fmt.Errorf("cleaning up partition %d: %w", p.ID, err))
		}
		if err := s.flushState(p); err != nil {
			return p.markCorrupt(err)
		}
	}
	return nil
}

// flushState makes a partition's state durable now and then, so that a restart has
// little to read again.
func (s *session) flushState(p *Partition) error {
	if time.Since(p.lastFlush) < s.env.FlushEvery {
		return nil
	}
	p.lastFlush = time.Now()
	// Only this process writes the partition's changelog: the state is of now, however
	// long nothing changed.
	p.identity.At = s.env.Now().UnixMilli()
	b := p.Store.NewBatch()
	return errors.Join(p.identity.putRow(b), b.Commit(), p.Store.Flush())
}

// produceRows waits for the tasks' records, lets each task finish, writes each changed
// row once, in its last form, and waits for those too: End would wait for them, but
// commits whatever became of them. Offsets were committed whose rows the changelog
// lacked, because a record had been given up on.
func (s *session) produceRows(tx *Tx) error {
	if err := s.flushProduced(tx); err != nil {
		return err
	}
	s.env.Step(StepFlushed)
	changelog := s.kafka.Topic(s.topo.Changelog)
	for _, p := range s.running {
		if err := p.task.Finish(tx); err != nil {
			return p.markCorrupt(fmt.Errorf("finishing a transaction of partition %d: %w", p.ID, err))
		}
		for _, k := range p.Rows.keys {
			r := &kgo.Record{Topic: changelog, Partition: p.ID, Key: []byte(k), Value: p.Rows.rows[k]}
			tx.produceRecord(r, func(r *kgo.Record) { raiseTo(&p.changelogEnd, r.Offset+1) })
		}
	}
	s.env.Step(StepProduced)
	return s.flushProduced(tx)
}

func (s *session) flushProduced(tx *Tx) error {
	ctx, cancel := context.WithTimeout(s.connected, EndTimeout)
	defer cancel()
	if err := s.gts.Client().Flush(ctx); err != nil {
		return fmt.Errorf("flushing a transaction: %w", err)
	}
	if err := tx.failed.Load(); err != nil {
		return fmt.Errorf("producing %w", *err)
	}
	return nil
}

// endTransaction commits with the offsets of what was applied. The deadline gets us out
// of a client that waits for itself (see DESIGN.md); if even that does not help, only a
// new process does.
func (s *session) endTransaction() (bool, error) {
	type answer struct {
		ok  bool
		err error
	}
	ctx, cancel := context.WithTimeout(s.connected, EndTimeout)
	defer cancel()
	done := make(chan answer, 1)
	go func() {
		ok, err := s.gts.End(kgo.PreTxnCommitFnContext(ctx, s.replaceOffsets), kgo.TryCommit)
		done <- answer{ok, err}
	}()
	for _, wait := range []time.Duration{2 * EndTimeout, stuckGrace} {
		select {
		case a := <-done:
			return a.ok, a.err
		case <-time.After(wait):
		}
	}
	return false, ErrStuck
}

// replaceOffsets replaces what was polled by what was applied, and so gives every
// transaction offsets: without them nothing checks the group's generation, and a zombie
// would commit.
func (s *session) replaceOffsets(r *kmsg.TxnOffsetCommitRequest) error {
	if len(s.running) == 0 {
		return errors.New("a transaction without a partition")
	}
	leading := kmsg.NewTxnOffsetCommitRequestTopic()
	leading.Topic, leading.TopicID = s.leading, s.ids.leading
	following := kmsg.NewTxnOffsetCommitRequestTopic()
	following.Topic, following.TopicID = s.following, s.ids.following
	for _, p := range s.running {
		leading.Partitions = append(leading.Partitions, offsetCommit(p.ID, p.leading.next))
		following.Partitions = append(following.Partitions, offsetCommit(p.ID, p.following.next))
	}
	r.Topics = append(r.Topics[:0], leading, following)
	return nil
}

func offsetCommit(partition int32, offset int64) kmsg.TxnOffsetCommitRequestTopicPartition {
	o := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	o.Partition, o.Offset, o.LeaderEpoch = partition, offset, -1
	return o
}
