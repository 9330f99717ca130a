package processor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nimriz/partners/pipeline/attribution"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// transaction is one step of a session: from the first poll to the commit.
type transaction struct {
	began    time.Time
	open     bool // Begin was called
	rows     int
	deadline time.Time
}

// step runs one transaction. Any error ends the session.
func (s *session) step(ctx context.Context) error {
	t := &transaction{began: time.Now()}
	t.deadline = t.began.Add(s.cfg.CommitInterval)
	defer s.gts.AllowRebalance()
	for first := true; first || time.Now().Before(t.deadline) && t.rows < maxRows && ctx.Err() == nil; first = false {
		if err := s.poll(ctx, t); err != nil {
			return err
		}
	}
	if err := s.timers(t); err != nil {
		return err
	}
	return s.commit(t)
}

// poll takes what has arrived: clicks at once, conversions when their clicks have been
// read.
func (s *session) poll(ctx context.Context, t *transaction) error {
	wait, cancel := context.WithTimeout(ctx, s.patience(t))
	s.beat.Store(time.Now().UnixNano())
	began := time.Now()
	fetches := s.gts.PollRecords(wait, maxPoll)
	// woken for something that a rebalance took away: such a poll does not hold
	// rebalances off
	for len(fetches) == 0 {
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
	if !t.open {
		if err := s.settleRevocation(); err != nil {
			return err
		}
	}
	if err := s.admit(); err != nil {
		return err
	}
	s.hook(StepPolled)
	began = time.Now()
	clicks, conversions := s.kafka.Topic(topic.Clicks), s.kafka.Topic(topic.Conversions)
	var failed error
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		p := s.ready[f.Partition]
		if failed != nil || len(f.Records) == 0 {
			return
		}
		if p == nil {
			failed = fmt.Errorf("polled %s partition %d, which is not ready: %w", f.Topic, f.Partition, errSession)
			return
		}
		switch f.Topic {
		case clicks:
			failed = s.takeClicks(t, p, f.Records)
		case conversions:
			for _, r := range f.Records {
				p.held = append(p.held, held{r, began})
			}
		}
	})
	if failed == nil {
		failed = s.judgeHeld(t)
	}
	s.m.phases.WithLabelValues("rules").Add(time.Since(began).Seconds())
	return failed
}

// patience is how long a poll may wait: until the commit, but only for a moment while a
// listing is on its way that held conversions wait for. Before a poll the partitions
// are not the session's to look at, hence the note.
func (s *session) patience(t *transaction) time.Duration {
	left := max(time.Until(t.deadline), time.Millisecond)
	if s.holding {
		return min(left, 2*time.Millisecond)
	}
	return left
}

// begin opens the transaction when the first thing happens that needs one.
func (s *session) begin(t *transaction) error {
	if t.open {
		return nil
	}
	if err := s.gts.Begin(); err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	t.open = true
	return nil
}

// takeClicks puts clicks into the log and judges what waits for them. The look-up runs
// for every click read, stored or not: an aborted transaction reads again, and its
// verdicts were dropped.
func (s *session) takeClicks(t *transaction, p *partition, records []*kgo.Record) error {
	if err := s.begin(t); err != nil {
		return err
	}
	for _, r := range records {
		tok, shown, err := p.keep(r)
		if err != nil {
			return p.condemn(fmt.Errorf("keeping the click at %s partition %d offset %d: %w",
				r.Topic, r.Partition, r.Offset, err))
		}
		p.clicksPosition = r.Offset + 1
		p.newestClick = max(p.newestClick, event.MillisOf(r.Timestamp))
		if !shown {
			continue
		}
		if _, waits := p.view.clickWaits[tok]; !waits {
			continue
		}
		// what goes on waiting for its click is noted again by its rows; an abort ends
		// the session
		delete(p.view.clickWaits, tok)
		wire, at, ok, err := p.lookup(&tok)
		if err == nil && ok {
			err = s.rules.Click(p.view, &tok, wire, at, s.emitter(t, p, nowhere))
		}
		if err != nil {
			return p.condemn(fmt.Errorf("judging what waits for the click at %s partition %d offset %d: %w",
				r.Topic, r.Partition, r.Offset, err))
		}
	}
	s.m.clicks.Add(float64(len(records)))
	return nil
}

// judgeHeld judges the conversions whose clicks have been read: a click with a later
// Kafka time has been seen, or all that was there when they were polled.
func (s *session) judgeHeld(t *transaction) error {
	latest := s.lister.latest.Load()
	s.holding = false
	for _, p := range s.ready {
		n := 0
		for n < len(p.held) && t.rows < maxRows {
			h := p.held[n]
			if !s.hasty && event.MillisOf(h.record.Timestamp) > p.newestClick &&
				(latest == nil || latest.at.Before(h.polled) || !reached(latest.clicks, p.id, p.clicksPosition)) {
				if latest == nil || latest.at.Before(h.polled) {
					s.lister.ask()
				}
				break
			}
			if err := s.judge(t, p, h.record); err != nil {
				return p.condemn(fmt.Errorf("judging %s partition %d offset %d: %w",
					h.record.Topic, p.id, h.record.Offset, err))
			}
			s.hook(StepJudged)
			n++
		}
		p.held = append(p.held[:0], p.held[n:]...)
		clear(p.held[len(p.held):cap(p.held)])
		s.holding = s.holding || len(p.held) > 0
		s.throttle(p)
	}
	return nil
}

// throttle stops fetching conversions while too many are held, and goes on when half of
// them are judged.
func (s *session) throttle(p *partition) {
	which := map[string][]int32{s.kafka.Topic(topic.Conversions): {p.id}}
	switch {
	case !p.paused && len(p.held) >= maxHeld:
		s.gts.Client().PauseFetchPartitions(which)
		p.paused = true
	case p.paused && len(p.held) <= maxHeld/2:
		s.gts.Client().ResumeFetchPartitions(which)
		p.paused = false
	}
}

// judge gives one record of conversions its verdict, its place among the waiting, or
// its dead letter.
func (s *session) judge(t *transaction, p *partition, r *kgo.Record) error {
	if r.Attrs.IsControl() { // somebody writes events in transactions
		p.conversionsPosition = r.Offset + 1
		return nil
	}
	if err := s.begin(t); err != nil {
		return err
	}
	p.totals.read++
	p.progressDirty = true
	p.conversionsPosition = r.Offset + 1
	p.newestConversion = max(p.newestConversion, event.MillisOf(r.Timestamp))
	var ev event.Conversion
	err := s.codec.DecodeConversion(r.Value, &ev)
	if err == nil && string(r.Key) != ev.ClickToken {
		err = fmt.Errorf("key %.64q is not the record's click_token", r.Key)
	} else if err == nil {
		_, err = token.Parse(ev.ClickToken)
	} else if !event.Unreadable(err) {
		return err
	}
	if err != nil {
		p.totals.unreadable++
		s.m.events.WithLabelValues("unreadable").Inc()
		return s.deadLetter(r, err)
	}
	return s.rules.Event(p.view, p.lookup, &ev, attribution.Source{Partition: p.id, Offset: r.Offset},
		s.emitter(t, p, r.Offset))
}

// nowhere is the offset of no event.
const nowhere = -1

// emitter writes the rows that the rules decide. Of the event at the given offset they
// decide when it arrives; every other one waited.
func (s *session) emitter(t *transaction, p *partition, arrived int64) attribution.Emit {
	name := s.kafka.Topic(topic.Outcomes)
	return func(o *event.Outcome, click []byte) error {
		now := s.now()
		o.DecidedAt = event.MillisOf(now)
		b, err := s.codec.AppendOutcome(s.buffer[:0], o, click)
		if err != nil {
			return err
		}
		s.buffer = b
		p.totals.count(o.Verdict)
		p.progressDirty = true
		t.rows++
		s.m.events.WithLabelValues(string(o.Verdict)).Inc()
		s.m.latency.Observe(now.Sub(o.ReceivedAt.Time()).Seconds())
		r := &kgo.Record{
			Topic:     name,
			Partition: p.id,
			Key:       []byte(o.ClickToken),
			Value:     append(make([]byte, 0, len(b)), b...),
		}
		if o.EventOffset != arrived {
			r.Headers = waitedHeader
		}
		s.send(r, func(r *kgo.Record) { raise(&p.outcomesEnd, r.Offset+1) })
		return nil
	}
}

var waitedHeader = []kgo.RecordHeader{{Key: topic.HeaderWaited}}

// send produces within the transaction; acked runs on the client's goroutine.
func (s *session) send(r *kgo.Record, acked func(*kgo.Record)) {
	s.gts.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		if err == nil && acked != nil {
			acked(r)
		}
		s.produced(r, err)
	})
}

// produced notes the first record that failed. A record that its topic never takes
// stops the slot at this message, so it says what an operator has to know of it.
func (s *session) produced(r *kgo.Record, err error) {
	if err != nil {
		err = fmt.Errorf("a record of %d bytes with key %.64q to %s partition %d: %w",
			len(r.Value), r.Key, r.Topic, r.Partition, err)
		s.produce.CompareAndSwap(nil, &err)
	}
}

// raise sets a to at least v. Promises of one partition come in order, but those of a
// client's retries need not.
func raise(a interface {
	Load() int64
	CompareAndSwap(old, new int64) bool
}, v int64) {
	for old := a.Load(); old < v; old = a.Load() {
		if a.CompareAndSwap(old, v) {
			return
		}
	}
}

// deadLetter writes an unreadable record's bytes where a person can look at them, in
// the same transaction.
func (s *session) deadLetter(r *kgo.Record, why error) error {
	s.send(kafka.DeadLetter(s.kafka.Topic(topic.DeadLetters), r, why, s.now()), nil)
	return nil
}

// commit ends the transaction if there is one, and applies it. Whatever is not a clear
// yes ends the session: the broker knows, and the next session asks.
func (s *session) commit(t *transaction) error {
	if err := s.progressDue(t); err != nil || !t.open {
		return err
	}
	began := time.Now()
	if err := s.produceRows(); err != nil {
		return err
	}
	s.m.phases.WithLabelValues("produce").Add(time.Since(began).Seconds())
	began = time.Now()
	ok, err := s.end()
	s.m.phases.WithLabelValues("commit").Add(time.Since(began).Seconds())
	switch {
	case err != nil:
		s.hook(StepEndFailed)
		s.m.transactions.WithLabelValues("unknown").Inc()
		return fmt.Errorf("ending a transaction: %w", err)
	case !ok:
		s.m.transactions.WithLabelValues("aborted").Inc()
		return fmt.Errorf("transaction aborted by a rebalance: %w", errSession)
	}
	s.hook(StepEnded)
	s.m.transactions.WithLabelValues("committed").Inc()
	s.fenced = 0
	began = time.Now()
	now := s.now()
	for _, p := range s.ready {
		if err := p.apply(now); err != nil {
			return p.condemn(fmt.Errorf("applying a transaction to partition %d: %w", p.id, err))
		}
	}
	s.m.phases.WithLabelValues("apply").Add(time.Since(began).Seconds())
	s.hook(StepApplied)
	s.observe()
	return s.housekeep()
}

// produceRows waits for the outcomes, then writes each changed row once, in its last
// form, and the progress, and waits for those too: End would wait for them, but commits
// whatever became of them. Offsets were committed whose rows the changelog lacked,
// because a record had been given up on.
func (s *session) produceRows() error {
	// The rows of outcomes first: the totals name their end.
	if err := s.flush(); err != nil {
		return err
	}
	s.hook(StepFlushed)
	name := s.kafka.Topic(topic.Changelog)
	for _, p := range s.ready {
		if err := p.finishRows(); err != nil {
			return p.condemn(err)
		}
		for _, k := range p.view.keys {
			s.send(&kgo.Record{
				Topic:     name,
				Partition: p.id,
				Key:       []byte(k),
				Value:     p.view.rows[k],
			}, func(r *kgo.Record) {
				raise(&p.changelogEnd, r.Offset+1)
			})
		}
	}
	s.hook(StepProduced)
	if err := s.writeProgress(); err != nil {
		return err
	}
	return s.flush()
}

func (s *session) flush() error {
	ctx, cancel := context.WithTimeout(s.connected, endTimeout)
	defer cancel()
	if err := s.gts.Client().Flush(ctx); err != nil {
		return fmt.Errorf("flushing a transaction: %w", err)
	}
	if err := s.produce.Load(); err != nil {
		return fmt.Errorf("producing %w", *err)
	}
	return nil
}

// end commits with the offsets of what was judged. The deadline is what gets us out of
// a client that waits for itself (see DESIGN.md); if even that does not help, only a
// new process does.
func (s *session) end() (bool, error) {
	type answer struct {
		ok  bool
		err error
	}
	ctx, cancel := context.WithTimeout(s.connected, endTimeout)
	defer cancel()
	done := make(chan answer, 1)
	go func() {
		ok, err := s.gts.End(kgo.PreTxnCommitFnContext(ctx, s.offsets), kgo.TryCommit)
		done <- answer{ok, err}
	}()
	for _, wait := range []time.Duration{2 * endTimeout, awake} {
		select {
		case a := <-done:
			return a.ok, a.err
		case <-time.After(wait):
		}
	}
	return false, ErrStuck
}

// offsets replaces what was polled by what was judged, and so gives every transaction
// offsets: without them nothing checks the group's generation, and a zombie would
// commit.
func (s *session) offsets(r *kmsg.TxnOffsetCommitRequest) error {
	r.Topics = r.Topics[:0]
	for _, x := range []struct {
		name string
		id   [16]byte
		at   func(*partition) int64
	}{
		{s.kafka.Topic(topic.Clicks), s.ids.clicks, func(p *partition) int64 { return p.clicksPosition }},
		{s.kafka.Topic(topic.Conversions), s.ids.conversions, func(p *partition) int64 {
			return p.conversionsPosition
		}},
	} {
		t := kmsg.NewTxnOffsetCommitRequestTopic()
		t.Topic, t.TopicID = x.name, x.id
		for _, p := range s.ready {
			o := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			o.Partition, o.Offset, o.LeaderEpoch = p.id, x.at(p), -1
			t.Partitions = append(t.Partitions, o)
		}
		r.Topics = append(r.Topics, t)
	}
	if len(s.ready) == 0 {
		return errors.New("a transaction without a partition")
	}
	return nil
}

// fencedBy reports whether err says that somebody took our transactional id.
func fencedBy(err error) bool { return errors.Is(err, kerr.ProducerFenced) }
