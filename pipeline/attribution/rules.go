package attribution

import (
	"fmt"
	"sync"
	"time"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// MaxEvents is how many events a journey may have, kept or waiting for a parent. The
// next one is token_full.
const MaxEvents = 100_000

// Tolerances of the rules.
const (
	clockSkew = event.Millis(5 * 60_000) // a positive may be dated this long before its click
	tooFast   = event.Millis(1000)       // an event sooner after its click is flagged
)

// Rows are the journey rows of one partition, sorted by key (schemas/event).
type Rows interface {
	// Get returns the value, or nil if there is none. It is valid until the next call.
	Get(key []byte) (value []byte, err error)
	// Scan yields the rows with the prefix in ascending order, including those just
	// put. yield must not call Rows and must not keep its arguments.
	Scan(prefix []byte, yield func(key, value []byte) bool) error
	// Put copies key and value. A nil value deletes the row.
	Put(key, value []byte) error
}

// ClickLookup finds a token's click among the clicks read so far: its wire form, and
// the time at which it reached Kafka (the record's timestamp). The rules call it only
// while the journey has no click.
type ClickLookup func(token *[20]byte) (wire []byte, at event.Millis, ok bool, err error)

// Source is an event's record in `conversions`. The order of record is the order of the
// offsets of one token.
type Source struct {
	Partition int32
	Offset    int64
}

// Emit receives an outcome. click is the wire form of the snapshot to embed, nil if the
// outcome must not show one. Both are valid during the call only. The caller sets
// DecidedAt.
type Emit func(o *event.Outcome, click []byte) error

// Config holds the durations of the rules. They are part of the meaning of stored rows:
// a change applies only to events that arrive afterwards.
type Config struct {
	Grace       time.Duration // how long after entered_at an event may wait
	ClickLife   time.Duration // how long after the token's time a first event may come
	JourneyLife time.Duration // how long after its last event a journey accepts more
}

// DefaultConfig returns the durations that the README promises.
func DefaultConfig() Config {
	return Config{
		Grace:       72 * time.Hour,
		ClickLife:   40 * 24 * time.Hour,
		JourneyLife: 400 * 24 * time.Hour,
	}
}

// Validate reports a duration that the rules cannot work with. It names the flag.
func (c Config) Validate() error {
	switch {
	case c.Grace < time.Millisecond:
		return fmt.Errorf("-grace %v must be at least 1ms", c.Grace)
	case c.ClickLife < time.Millisecond:
		return fmt.Errorf("-click-life %v must be at least 1ms", c.ClickLife)
	case c.JourneyLife < c.Grace:
		// line 1 relies on it: a journey with a waiting event cannot have expired
		return fmt.Errorf("-grace %v must not be longer than the journey life %v", c.Grace, c.JourneyLife)
	}
	return nil
}

// Rules judges events. It holds no state of any token and is safe for concurrent use,
// but calls for one token must not overlap.
type Rules struct {
	cfg       Config
	codec     *event.Codec
	maxEvents int64     // MaxEvents; smaller in tests
	journeys  sync.Pool // of *journey, to reuse their buffers
}

// New returns the rules with the given durations. codec decodes the clicks. It fails if
// cfg is invalid.
func New(cfg Config, codec *event.Codec) (*Rules, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("attribution rules: %w", err)
	}
	newJourney := func() any { return new(journey) }
	return &Rules{
		cfg:       cfg,
		codec:     codec,
		maxEvents: MaxEvents,
		journeys:  sync.Pool{New: newJourney},
	}, nil
}

// JudgeEvent judges the token's next event in order of record, or lets it wait. Then it
// judges the events that were waiting for it.
//
// It returns the errors of rows, clicks and emit, event.ErrJourney for a damaged row,
// and token.ErrMalformed for an event without a valid token. After an error the caller
// must discard what the call has put.
func (r *Rules) JudgeEvent(rows Rows, clicks ClickLookup, ev *event.Conversion, src Source, emit Emit) error {
	raw, err := token.Parse(ev.ClickToken)
	if err != nil {
		return fmt.Errorf("judging event %q: %w", ev.EventID, err)
	}
	return r.withJourney(rows, &raw, emit, func(j *journey) error {
		j.text = ev.ClickToken
		known, err := j.findClick(clicks)
		if err != nil {
			return err
		}
		if !known {
			return j.judgeWithoutClick(ev, src)
		}
		if j.head.WaitClick > 0 {
			// ApplyClick has not run for a click that the click log holds: its
			// transaction was aborted.
			if err := j.judgeClickWaiters(); err != nil {
				return err
			}
		}
		return j.judgeEvent(ev, src)
	})
}

// ApplyClick judges the events that wait for this click, which reached Kafka at the
// given time. It does nothing if no event waits for it. It ignores a click whose token
// was not shown, whose bytes cannot be decoded, or that belongs to another token: for
// the events, such a click stays unknown.
func (r *Rules) ApplyClick(rows Rows, raw *[20]byte, wire []byte, at event.Millis, emit Emit) error {
	return r.withJourney(rows, raw, emit, func(j *journey) error {
		if j.head.WaitClick == 0 {
			return nil
		}
		given := func(*[20]byte) ([]byte, event.Millis, bool, error) { return wire, at, true, nil }
		if known, err := j.findClick(given); err != nil || !known {
			return err
		}
		return j.judgeClickWaiters()
	})
}

// CloseWaits writes the outcomes of the token's waits that have ended and that nothing
// else closed: a wait for a click if it ended before both given times, a wait for a
// parent if it ended before eventsThrough.
//
// The caller guarantees that every click that reached Kafka up to clicksThrough has
// been read, and that every event that entered up to eventsThrough has been passed
// to JudgeEvent.
func (r *Rules) CloseWaits(
	rows Rows, clicks ClickLookup, raw *[20]byte, clicksThrough, eventsThrough event.Millis, emit Emit,
) error {
	return r.withJourney(rows, raw, emit, func(j *journey) error {
		if j.head.WaitClick > 0 {
			known, err := j.findClick(clicks)
			if err != nil {
				return err
			}
			if known {
				err = j.judgeClickWaiters()
			} else {
				err = j.endClickWaits(min(clicksThrough, eventsThrough))
			}
			if err != nil {
				return err
			}
		}
		if j.head.WaitParent == 0 {
			return nil
		}
		if _, err := j.findClick(nil); err != nil {
			return err
		}
		return j.endParentWaits(eventsThrough)
	})
}

// withJourney reads the head of the token's journey, runs f and writes the head back.
func (r *Rules) withJourney(rows Rows, raw *[20]byte, emit Emit, f func(*journey) error) error {
	j := r.journeys.Get().(*journey)
	defer func() {
		j.reset()
		r.journeys.Put(j)
	}()
	j.rules = r
	j.rows = rows
	j.emit = emit
	j.token = *raw
	err := j.readHead()
	if err == nil {
		err = f(j)
	}
	if err == nil {
		err = j.writeHead()
	}
	if err != nil {
		return fmt.Errorf("judging token %s: %w", token.Text(raw), err)
	}
	return nil
}
