package attribution

import (
	"fmt"
	"sync"
	"time"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// MaxEvents is the number of events, kept or waiting for a parent, that a journey may
// have; the next one is token_full.
const MaxEvents = 100_000

// Tolerances of the rules.
const (
	clockSkew = event.Millis(5 * 60_000) // an event may be dated this much before its click
	tooFast   = event.Millis(1000)
)

// Rows are the journey rows of one partition, sorted by key.
type Rows interface {
	// Get returns the value, nil if there is none; it is valid until the next call.
	Get(key []byte) (value []byte, err error)
	// Scan yields the rows with the prefix in ascending order, those just put included;
	// yield must not call Rows, nor keep what it is given.
	Scan(prefix []byte, yield func(key, value []byte) bool) error
	// Put copies both; a nil value deletes.
	Put(key, value []byte) error
}

// Clicks looks up a token's click among the clicks that were read: its wire form and
// when it reached Kafka (the record's timestamp). It is asked only while the journey
// has no click.
type Clicks func(token *[20]byte) (wire []byte, at event.Millis, ok bool, err error)

// Source is an event's record in `conversions`. Order of record is the order of the
// offsets of one token.
type Source struct {
	Partition int32
	Offset    int64
}

// Emit takes a verdict. click is the wire form of the snapshot to embed, nil if none
// may be shown. Both are valid during the call only; DecidedAt is left to the caller.
type Emit func(o *event.Outcome, click []byte) error

// Config holds the times of the rules. They are part of the meaning of what is stored:
// a change applies to events that arrive afterwards.
type Config struct {
	Grace       time.Duration // how long after received_at an event may wait
	ClickLife   time.Duration // how long after the token's time a first event may come
	JourneyLife time.Duration // how long after its last event a journey answers
}

// DefaultConfig is what the README promises.
func DefaultConfig() Config {
	return Config{Grace: 72 * time.Hour, ClickLife: 40 * 24 * time.Hour, JourneyLife: 400 * 24 * time.Hour}
}

// Validate names the flag to blame.
func (c Config) Validate() error {
	switch {
	case c.Grace < time.Millisecond:
		return fmt.Errorf("-grace %v must be at least 1ms", c.Grace)
	case c.ClickLife < time.Millisecond:
		return fmt.Errorf("-click-life %v must be at least 1ms", c.ClickLife)
	case c.JourneyLife < c.Grace:
		// line 1 rests on it: a journey in which something waits cannot have ended
		return fmt.Errorf("-grace %v must not be longer than the journey life %v", c.Grace, c.JourneyLife)
	}
	return nil
}

// Rules judges. It holds no state of any token and is safe for concurrent use; one
// token's calls must follow each other.
type Rules struct {
	cfg   Config
	codec *event.Codec
	limit int64     // MaxEvents, but in tests
	free  sync.Pool // of *journey
}

// New makes the rules. codec reads the clicks.
func New(cfg Config, codec *event.Codec) (*Rules, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("attribution rules: %w", err)
	}
	return &Rules{cfg: cfg, codec: codec, limit: MaxEvents, free: sync.Pool{New: func() any {
		return new(journey)
	}}}, nil
}

// Event judges the token's next event in order of record, or lets it wait; then what
// waited for it. Errors are those of rows, clicks and emit, event.ErrJourney, and
// token.ErrMalformed for an event whose token is none: after one, the caller drops what
// was put.
func (r *Rules) Event(rows Rows, clicks Clicks, ev *event.Conversion, src Source, emit Emit) error {
	raw, err := token.Parse(ev.ClickToken)
	if err != nil {
		return fmt.Errorf("judging event %q: %w", ev.EventID, err)
	}
	return r.with(rows, &raw, emit, func(j *journey) error {
		j.text = ev.ClickToken
		known, err := j.findClick(clicks)
		if err != nil {
			return err
		}
		if !known {
			return j.withoutClick(ev, src)
		}
		if j.head.WaitClick > 0 {
			// the click log holds a click that Click was not yet called with (its
			// transaction was aborted)
			if err := j.replay(); err != nil {
				return err
			}
		}
		return j.arrive(ev, src)
	})
}

// Click judges the events that wait for this click, which reached Kafka at the given
// time. It does nothing if none waits, or if the click's token was not shown, its bytes
// cannot be read, or it is of another token: to the events it stays unknown.
func (r *Rules) Click(rows Rows, raw *[20]byte, wire []byte, at event.Millis, emit Emit) error {
	return r.with(rows, raw, emit, func(j *journey) error {
		if j.head.WaitClick == 0 {
			return nil
		}
		found := func(*[20]byte) ([]byte, event.Millis, bool, error) { return wire, at, true, nil }
		if known, err := j.findClick(found); err != nil || !known {
			return err
		}
		return j.replay()
	})
}

// Due writes the rows of the token's waits that have ended and that nothing else
// closed: for a click, if the wait ended before both given times; for a parent, if it
// ended before eventsThrough. The caller promises that every click that reached Kafka
// up to clicksThrough has been read, and that every event received up to eventsThrough
// has been given to Event.
func (r *Rules) Due(rows Rows, clicks Clicks, raw *[20]byte, clicksThrough, eventsThrough event.Millis,
	emit Emit) error {
	return r.with(rows, raw, emit, func(j *journey) error {
		if j.head.WaitClick > 0 {
			known, err := j.findClick(clicks)
			if err != nil {
				return err
			}
			if known {
				err = j.replay()
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

// with runs f on the token's journey and writes the head back.
func (r *Rules) with(rows Rows, raw *[20]byte, emit Emit, f func(*journey) error) error {
	j := r.free.Get().(*journey)
	defer func() {
		j.reset()
		r.free.Put(j)
	}()
	j.rules, j.rows, j.emit, j.token = r, rows, emit, *raw
	err := j.open()
	if err == nil {
		err = f(j)
	}
	if err == nil {
		err = j.close()
	}
	if err != nil {
		return fmt.Errorf("token %s: %w", token.Text(raw), err)
	}
	return nil
}
