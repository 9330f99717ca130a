package processor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// maxDue is how many tokens one transaction closes waits of.
	maxDue = 2000
	// maxExpire is how many journeys one transaction deletes.
	maxExpire = 500
	// expiryDelay keeps rows for a day beyond what the rules can ask for.
	expiryDelay = 24 * time.Hour

	progressMin   = time.Second
	progressMax   = 10 * time.Second
	flushInterval = 30 * time.Second
)

// timers moves the horizons and closes the waits that ended before them.
func (s *session) timers(t *transaction) error {
	latest := s.lister.latest.Load()
	if latest == nil || time.Since(latest.at) > s.listEvery() {
		s.lister.ask()
	}
	if latest == nil {
		return nil
	}
	for _, p := range s.ready {
		reached := reached(latest.clicks, p.id, p.clicksPosition) &&
			reached(latest.conversions, p.id, p.conversionsPosition)
		p.caughtUp = reached && time.Since(latest.at) < 3*time.Second
		if reached {
			p.horizon = max(p.horizon, event.MillisOf(latest.wall.Add(-s.cfg.margin())))
		}
		if err := s.due(t, p); err != nil {
			return p.condemn(fmt.Errorf("closing waits of partition %d: %w", p.id, err))
		}
		if err := s.expireJourneys(t, p); err != nil {
			return p.condemn(fmt.Errorf("expiring journeys of partition %d: %w", p.id, err))
		}
	}
	return nil
}

// listEvery is how often the ends are listed when nothing else asks: often enough for
// the shortest grace.
func (s *session) listEvery() time.Duration {
	return min(max(s.cfg.margin()/2, 100*time.Millisecond), time.Second)
}

// due closes waits that ended before the horizon, found through the deadline index.
func (s *session) due(t *transaction, p *partition) error {
	if p.view.waiting == 0 || p.view.earliest >= p.horizon {
		return nil
	}
	var tokens [][20]byte
	seen := make(map[[20]byte]bool)
	p.view.earliest = never
	from := event.DeadlineKey(0, new([20]byte), 0)[:1]
	err := p.view.scan(from, state.PrefixEnd(from), func(key, _ []byte) bool {
		end, tok, _, _ := event.ParseDeadline(key)
		if end >= p.horizon || len(tokens) == maxDue {
			p.view.earliest = end
			return false
		}
		if !seen[tok] {
			seen[tok] = true
			tokens = append(tokens, tok)
		}
		return true
	})
	if err != nil || len(tokens) == 0 {
		return err
	}
	if err := s.begin(t); err != nil {
		return err
	}
	for i := range tokens {
		if err := s.rules.Due(p.view, p.lookup, &tokens[i], p.horizon, p.horizon,
			s.emitter(t, p, nowhere)); err != nil {
			return err
		}
		if err := p.view.forget(&tokens[i]); err != nil {
			return err
		}
	}
	p.progressDirty = true
	return nil
}

// Clicks and journeys are deleted a day after the rules stopped asking for them, every
// hour. The clock of that is the log's: the older of both inputs' newest times, so that
// a stopped redirector or a wrong wall clock deletes nothing.
func (p *partition) logTime() event.Millis { return min(p.newestClick, p.newestConversion) }

const expireEvery = event.Millis(time.Hour / time.Millisecond)

// expireClicks deletes clicks, by whole segments. It runs behind a commit: a
// transaction that fails is read again, over days of log if nobody ran for so long, and
// its events must find their clicks again.
func (s *session) expireClicks(p *partition) error {
	now := p.logTime()
	seconds := token.SecondsOf(int64(now.Add(-s.cfg.ClickLife - expiryDelay)))
	if now-p.clicksExpired < expireEvery || seconds == 0 {
		return nil
	}
	p.clicksExpired = now
	if err := p.clicks.Expire(seconds); err != nil {
		return err
	}
	b := p.store.NewBatch()
	upper := append([]byte{lateTable}, byte(seconds>>24), byte(seconds>>16), byte(seconds>>8), byte(seconds))
	return errors.Join(b.DeleteRange([]byte{lateTable}, upper), b.Commit())
}

// expireJourneys deletes journeys within the transaction: their rows become tombstones
// in the changelog.
func (s *session) expireJourneys(t *transaction, p *partition) error {
	now := p.logTime()
	if now-p.journeysExpired < expireEvery {
		return nil
	}
	done, err := s.dropJourneys(t, p, now.Add(-s.journeyLife-expiryDelay))
	if err == nil && done {
		p.journeysExpired = now
	}
	return err
}

// dropJourneys deletes journeys whose last event is older than cutoff, at most
// maxExpire in one transaction.
func (s *session) dropJourneys(t *transaction, p *partition, cutoff event.Millis) (done bool, err error) {
	if cutoff <= 0 {
		return true, nil
	}
	var hints [][]byte
	if err := p.store.Scan([]byte{hintTable}, hintDay(cutoff), func(key, _ []byte) bool {
		hints = append(hints, append([]byte(nil), key...))
		return len(hints) < maxExpire
	}); err != nil {
		return false, err
	}
	b := p.store.NewBatch()
	for _, key := range hints {
		tok := [20]byte(key[5:])
		value, err := p.view.Get(event.HeadKey(&tok))
		if err != nil {
			return false, err
		}
		var head event.JourneyHead
		if value != nil {
			if err := event.DecodeHead(value, &head); err != nil {
				return false, err
			}
		}
		if last, ok := head.Last(); value != nil && ok && last < cutoff {
			if err := s.begin(t); err != nil {
				return false, err
			}
			if err := p.view.drop(&tok); err != nil {
				return false, err
			}
		} else if err := b.Delete(key); err != nil { // a hint of an earlier day
			return false, err
		}
	}
	return len(hints) < maxExpire, b.Commit()
}

// drop deletes every row of a journey.
func (o *overlay) drop(t *[20]byte) error {
	var keys [][]byte
	if err := o.Scan(event.JourneyPrefix(t), func(key, _ []byte) bool {
		keys = append(keys, append([]byte(nil), key...))
		return true
	}); err != nil {
		return err
	}
	for _, k := range keys {
		if err := o.Put(k, nil); err != nil {
			return err
		}
	}
	return nil
}

// progressDue opens a transaction if a partition has something to report and nothing
// else opened one.
func (s *session) progressDue(t *transaction) error {
	for _, p := range s.ready {
		if s.wantsProgress(p) {
			return s.begin(t)
		}
	}
	return nil
}

func (s *session) wantsProgress(p *partition) bool {
	age := time.Since(p.lastProgress)
	return age >= progressMax || age >= progressMin && (p.progressDirty || p.moved())
}

// writeProgress reports how far each partition has come. The outcomes are acknowledged
// already, so their end is known.
func (s *session) writeProgress() error {
	for _, p := range s.ready {
		if !s.wantsProgress(p) {
			continue
		}
		oldest, err := s.oldest(p)
		if err != nil {
			return err
		}
		b, err := s.codec.AppendProgress(nil, &event.Progress{Partition: p.id, At: event.MillisOf(s.now()),
			ClicksPosition: p.clicksPosition, ConversionsPosition: p.conversionsPosition,
			ClicksMaxAt: p.newestClick, ConversionsMaxAt: p.newestConversion, OutcomesEnd: p.totals.outcomesEnd, Read: p.totals.read, Attributed: p.totals.attributed,
			Reversed: p.totals.reversed, Duplicate: p.totals.duplicate, Conflict: p.totals.conflict, Unattributed: p.totals.unattributed, Unreadable: p.totals.unreadable,
			Waiting: p.view.waiting, OldestWaitingReceivedAt: oldest, CaughtUp: p.caughtUp,
			GraceMs: s.cfg.Grace.Milliseconds()})
		if err != nil {
			return err
		}
		s.send(&kgo.Record{Topic: s.kafka.Topic(topic.Progress), Partition: p.id, Key: []byte(p.label), Value: b}, nil)
		p.lastProgress, p.progressDirty = time.Now(), false
	}
	return nil
}

// oldest is the receipt of the event that has waited longest; the deadline index knows
// it.
func (s *session) oldest(p *partition) (*event.Millis, error) {
	if p.view.waiting == 0 {
		return nil, nil
	}
	var at *event.Millis
	from := event.DeadlineKey(0, new([20]byte), 0)[:1]
	err := p.view.scan(from, state.PrefixEnd(from), func(key, _ []byte) bool {
		end, _, _, _ := event.ParseDeadline(key)
		received := end.Add(-s.cfg.Grace)
		at = &received
		return false
	})
	return at, err
}

// housekeep deletes old clicks, and flushes each Pebble now and then, so that a restart
// has little to read again.
func (s *session) housekeep() error {
	for _, p := range s.ready {
		if err := s.expireClicks(p); err != nil {
			return p.condemn(fmt.Errorf("expiring clicks of partition %d: %w", p.id, err))
		}
		if time.Since(p.lastFlush) < s.flushEvery {
			continue
		}
		p.lastFlush = time.Now()
		// nobody else writes this partition's changelog: the state is of now, however
		// long nothing changed
		p.meta.At = s.now().UnixMilli()
		b := p.store.NewBatch()
		if err := errors.Join(p.meta.put(b), b.Commit(), p.store.Flush()); err != nil {
			return p.condemn(err)
		}
	}
	return nil
}

func (s *session) observe() {
	latest := s.lister.latest.Load()
	for _, p := range s.ready {
		s.m.position.WithLabelValues(topic.Clicks, p.label).Set(float64(p.clicksPosition))
		s.m.position.WithLabelValues(topic.Conversions, p.label).Set(float64(p.conversionsPosition))
		s.m.waiting.WithLabelValues(p.label).Set(float64(p.view.waiting))
		s.m.held.WithLabelValues(p.label).Set(float64(len(p.held)))
		s.m.horizon.WithLabelValues(p.label).Set(float64(p.horizon) / 1000)
		if latest != nil {
			s.m.lag.WithLabelValues(topic.Clicks, p.label).Set(float64(max(latest.clicks[p.id]-p.clicksPosition, 0)))
			s.m.lag.WithLabelValues(topic.Conversions,
				p.label).Set(float64(max(latest.conversions[p.id]-p.conversionsPosition, 0)))
		}
	}
}

// run steps until ctx is done or something ends the session.
func (s *session) run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := s.step(ctx)
		if lost := context.Cause(s.connected); lost != nil && !Fatal(err) {
			return lost // whatever else failed, failed of that
		}
		if err != nil {
			return err
		}
	}
	return nil
}
