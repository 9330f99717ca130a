package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// runTransactions runs transactions until ctx is done or something ends the session.
func (s *session) runTransactions(ctx context.Context) error {
	for ctx.Err() == nil {
		err := s.runTransaction(ctx)
		if lost := context.Cause(s.connected); lost != nil && !Fatal(err) {
			return lost // it is why anything else failed
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// runTransaction polls and applies for a commit interval, lets tasks act on their
// watermarks, and commits. Any error ends the session.
func (s *session) runTransaction(ctx context.Context) error {
	tx := &Tx{session: s, deadline: time.Now().Add(s.cfg.CommitInterval)}
	defer s.gts.AllowRebalance()
	for first := true; first || time.Now().Before(tx.deadline) && tx.records < maxRows &&
		ctx.Err() == nil; first = false {
		if err := s.pollInputs(ctx, tx); err != nil {
			return err
		}
	}
	if err := s.tickTasks(tx); err != nil {
		return err
	}
	return s.commitTransaction(tx)
}

// pollInputs takes what has arrived: records of the leading input are applied at once,
// those of the following input when the leading one was read up to them.
func (s *session) pollInputs(ctx context.Context, tx *Tx) error {
	wait, cancel := context.WithTimeout(ctx, s.pollTimeout(tx))
	s.lastPoll.Store(time.Now().UnixNano())
	began := time.Now()
	fetches := s.gts.PollRecords(wait, maxPoll)
	for len(fetches) == 0 { // a rebalance took away what woke it: such a poll does not hold rebalances off
		fetches = s.gts.PollRecords(wait, maxPoll)
	}
	cancel()
	s.m.phases.WithLabelValues("poll").Add(time.Since(began).Seconds())
	if fetches.IsClientClosed() {
		return errSession
	}
	if err := pollError(fetches); err != nil {
		return err
	}
	if !tx.open {
		if err := s.settleRevocation(); err != nil {
			return err
		}
	}
	if err := s.promoteRestored(); err != nil {
		return err
	}
	s.env.Step(StepPolled)
	began = time.Now()
	err := s.takeFetched(tx, fetches, began)
	if err == nil {
		err = s.applyBuffered(tx)
	}
	s.m.phases.WithLabelValues("rules").Add(time.Since(began).Seconds())
	return err
}

// pollTimeout returns how long the next poll may block: until the commit deadline, or 2
// ms while buffered records wait for an end-offset snapshot, or until the task is ready for
// them. It reads s.buffering
// instead of the partitions, which the session does not own before a poll.
func (s *session) pollTimeout(tx *Tx) time.Duration {
	left := max(time.Until(tx.deadline), time.Millisecond)
	if s.buffering {
		return min(left, 2*time.Millisecond)
	}
	return left
}

// pollError sorts what a poll reports beside records.
func pollError(fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		switch {
		case errors.Is(e.Err, context.DeadlineExceeded), errors.Is(e.Err, context.Canceled):
		case errors.Is(e.Err, kerr.FencedInstanceID):
			return fmt.Errorf("%w: the group knows another member of this name", ErrInstance)
		case errors.Is(e.Err, kerr.OffsetOutOfRange):
			return fmt.Errorf("%w: %s partition %d: %w", kafka.ErrOffsets, e.Topic, e.Partition, e.Err)
		default:
			return fmt.Errorf("polling %s partition %d: %w", e.Topic, e.Partition, e.Err)
		}
	}
	return nil
}

// takeFetched applies records of the leading input and buffers those of the following
// one.
func (s *session) takeFetched(tx *Tx, fetches kgo.Fetches, polled time.Time) (failed error) {
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		p := s.running[f.Partition]
		if failed != nil || len(f.Records) == 0 {
			return
		}
		if p == nil {
			failed = fmt.Errorf("polled %s partition %d, which is not running here: %w",
				f.Topic, f.Partition, errSession)
			return
		}
		if f.Topic == s.leading {
			failed = s.applyLeading(tx, p, f.Records)
			return
		}
		for _, r := range f.Records {
			p.buffered = append(p.buffered, bufferedRecord{r, polled})
		}
	})
	return failed
}

func (s *session) applyLeading(tx *Tx, p *Partition, records []*kgo.Record) error {
	if err := tx.Begin(); err != nil {
		return err
	}
	for _, r := range records {
		p.leading.next = r.Offset + 1
		p.leading.newest = max(p.leading.newest, event.MillisOf(r.Timestamp))
		var err error
		if r.Attrs.IsControl() {
			err = p.task.SideLog.Keep(r)
		} else {
			err = p.task.Apply(tx, r)
		}
		if err != nil {
			return p.markCorrupt(fmt.Errorf("applying %s partition %d offset %d: %w",
				r.Topic, r.Partition, r.Offset, err))
		}
	}
	return nil
}

// applyBuffered applies the buffered records that are ready, and for which the leading
// input has been read: a later Kafka time of it was seen, or all that was there when they
// were polled.
func (s *session) applyBuffered(tx *Tx) error {
	latest := s.endOffsets.latest.Load()
	s.buffering = false
	for _, p := range s.running {
		n := 0
		for n < len(p.buffered) && tx.records < maxRows {
			b := p.buffered[n]
			if !s.env.SkipBuffering && !p.leadingRead(b, latest) {
				if latest == nil || latest.at.Before(b.polled) {
					s.endOffsets.requestSnapshot()
				}
				break
			}
			if p.task.Ready != nil && !p.task.Ready(b.record, b.polled) {
				break
			}
			if err := s.applyFollowing(tx, p, b.record); err != nil {
				return err
			}
			s.env.Step(StepJudged)
			n++
		}
		p.buffered = slices.Delete(p.buffered, 0, n)
		s.buffering = s.buffering || len(p.buffered) > 0
		s.throttleFollowing(p)
	}
	return nil
}

// leadingRead reports whether the leading input has been read as far as a buffered
// record can depend on it.
func (p *Partition) leadingRead(b bufferedRecord, latest *endOffsetSnapshot) bool {
	if event.MillisOf(b.record.Timestamp) <= p.leading.newest {
		return true
	}
	return latest != nil && !latest.at.Before(b.polled) && hasReached(latest.leading, p.ID, p.leading.next)
}

func (s *session) applyFollowing(tx *Tx, p *Partition, r *kgo.Record) error {
	p.following.next = r.Offset + 1
	if r.Attrs.IsControl() { // another program writes the input in transactions
		return nil
	}
	if err := tx.Begin(); err != nil {
		return err
	}
	p.following.newest = max(p.following.newest, event.MillisOf(r.Timestamp))
	if err := p.task.Apply(tx, r); err != nil {
		return p.markCorrupt(fmt.Errorf("judging %s partition %d offset %d: %w", r.Topic, p.ID, r.Offset, err))
	}
	return nil
}

// throttleFollowing stops fetching the following input while too much of it is
// buffered, and goes on when half of that is applied.
func (s *session) throttleFollowing(p *Partition) {
	which := map[string][]int32{s.following: {p.ID}}
	switch {
	case !p.paused && len(p.buffered) >= maxBuffered:
		s.gts.Client().PauseFetchPartitions(which)
		p.paused = true
	case p.paused && len(p.buffered) <= maxBuffered/2:
		s.gts.Client().ResumeFetchPartitions(which)
		p.paused = false
	}
}

// maxSnapshotAge is how old a snapshot may be for a partition to count as caught up.
const maxSnapshotAge = 3 * time.Second

// tickTasks moves the watermarks and lets each task act on its own.
func (s *session) tickTasks(tx *Tx) error {
	latest := s.endOffsets.latest.Load()
	if latest == nil || time.Since(latest.at) > s.snapshotInterval() {
		s.endOffsets.requestSnapshot()
	}
	for _, p := range s.running {
		if latest != nil {
			s.moveWatermark(p, latest)
		}
		if err := p.task.Tick(tx); err != nil {
			return p.markCorrupt(fmt.Errorf("acting on the watermark of partition %d: %w", p.ID, err))
		}
	}
	return nil
}

// moveWatermark raises a partition's watermark to the snapshot's time less the margin,
// if both inputs were applied to the snapshot's ends.
func (s *session) moveWatermark(p *Partition, latest *endOffsetSnapshot) {
	reached := hasReached(latest.leading, p.ID, p.leading.next) &&
		hasReached(latest.following, p.ID, p.following.next)
	p.caughtUp = reached && time.Since(latest.at) < maxSnapshotAge
	if reached {
		p.watermark = max(p.watermark, event.MillisOf(latest.wall.Add(-s.topo.Margin)))
	}
}

// snapshotInterval is how often end offsets are listed when nothing else asks for them:
// often enough for the shortest margin.
func (s *session) snapshotInterval() time.Duration {
	return min(max(s.topo.Margin/2, 100*time.Millisecond), time.Second)
}

// setGauges sets the gauges of all running partitions.
func (s *session) setGauges() {
	latest := s.endOffsets.latest.Load()
	for _, p := range s.running {
		s.setNextOffset(p, s.topo.Leading.Topic, p.leading.next)
		s.setNextOffset(p, s.topo.Following.Topic, p.following.next)
		s.m.buffered.WithLabelValues(p.Label).Set(float64(len(p.buffered)))
		s.m.watermark.WithLabelValues(p.Label).Set(float64(p.watermark) / 1000)
		if latest != nil {
			s.setLag(p, s.topo.Leading.Topic, latest.leading[p.ID]-p.leading.next)
			s.setLag(p, s.topo.Following.Topic, latest.following[p.ID]-p.following.next)
		}
	}
}

func (s *session) setNextOffset(p *Partition, topic string, next int64) {
	s.m.nextOffset.WithLabelValues(topic, p.Label).Set(float64(next))
}

func (s *session) setLag(p *Partition, topic string, records int64) {
	s.m.lag.WithLabelValues(topic, p.Label).Set(float64(max(records, 0)))
}

// raiseTo sets a to at least v. Promises of one partition come in order, but those of a
// client's retries need not.
func raiseTo(a *atomic.Int64, v int64) {
	for old := a.Load(); old < v; old = a.Load() {
		if a.CompareAndSwap(old, v) {
			return
		}
	}
}
