package processor

import (
	"fmt"

	"github.com/nimriz/partners/pipeline/engine"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/event"
)

// journeyRows are the rows that the rules see. Beside the rows themselves it remembers
// what is needed about waiting events at every click and every tick. It implements
// attribution.Rows.
type journeyRows struct {
	*engine.Rows
	// waiting counts the deadline rows, committed and not: one row per waiting event.
	waiting int64
	// earliest is a lower bound of the first end among the waiting events.
	earliest event.Millis
	// clickWaits holds at least the tokens that have an event waiting for its click. It
	// may hold more: one wrong look-up is all that costs.
	clickWaits map[[20]byte]struct{}
}

// noDeadline is later than every end of a wait.
const noDeadline = event.Millis(1<<63 - 1)

func newJourneyRows(rows *engine.Rows) *journeyRows {
	return &journeyRows{Rows: rows, earliest: noDeadline, clickWaits: make(map[[20]byte]struct{})}
}

// Put implements attribution.Rows.
func (o *journeyRows) Put(key, value []byte) error {
	end, _, _, isDeadline := event.ParseDeadline(key)
	if isDeadline {
		old, err := o.Get(key)
		if err != nil {
			return err
		}
		switch {
		case old == nil && value != nil:
			o.waiting++
		case old != nil && value == nil:
			o.waiting--
		}
	}
	if err := o.Rows.Put(key, value); err != nil || value == nil {
		return err
	}
	if isDeadline {
		o.earliest = min(o.earliest, end)
	} else if t, kind, ok := event.ParseJourneyKey(key); ok && kind == event.KindWaitClick {
		o.clickWaits[t] = struct{}{}
	}
	return nil
}

func (o *journeyRows) waitsForClick(t *[20]byte) bool {
	_, waits := o.clickWaits[*t]
	return waits
}

func (o *journeyRows) forgetClickWait(t *[20]byte) { delete(o.clickWaits, *t) }

// recheckClickWait drops a token from clickWaits when no event of it waits for its
// click any more.
func (o *journeyRows) recheckClickWait(t *[20]byte) error {
	waits := false
	err := o.Scan(event.AppendJourneyKey(nil, t, event.KindWaitClick, ""), func(_, _ []byte) bool {
		waits = true
		return false
	})
	if err == nil && !waits {
		o.forgetClickWait(t)
	}
	return err
}

// endedWaits returns up to limit tokens with waits that ended before the watermark.
func (o *journeyRows) endedWaits(watermark event.Millis, limit int) (tokens [][20]byte, err error) {
	if o.waiting == 0 || o.earliest >= watermark {
		return nil, nil
	}
	seen := make(map[[20]byte]bool)
	o.earliest = noDeadline
	err = o.Scan(deadlinePrefix, func(key, _ []byte) bool {
		end, tok, _, _ := event.ParseDeadline(key)
		if end >= watermark || len(tokens) == limit {
			o.earliest = end
			return false
		}
		if !seen[tok] {
			seen[tok] = true
			tokens = append(tokens, tok)
		}
		return true
	})
	return tokens, err
}

// firstDeadline is the earliest end of a wait.
func (o *journeyRows) firstDeadline() (end event.Millis, ok bool, err error) {
	err = o.Scan(deadlinePrefix, func(key, _ []byte) bool {
		end, _, _, ok = event.ParseDeadline(key)
		return false
	})
	return end, ok, err
}

// readWaiting reads what the deadline rows of a restored store say about waiting
// events.
func (o *journeyRows) readWaiting(store *state.Store) error {
	var damaged error
	err := store.Scan(deadlinePrefix, state.PrefixEnd(deadlinePrefix), func(key, value []byte) bool {
		end, t, _, ok := event.ParseDeadline(key)
		if !ok {
			damaged = fmt.Errorf("deadline row %x %x", key, value)
			return false
		}
		o.waiting++
		o.earliest = min(o.earliest, end)
		// What a damaged value does not say, the rules find in the row of the wait.
		if len(value) != 1 || value[0] == event.KindWaitClick {
			o.clickWaits[t] = struct{}{}
		}
		return true
	})
	if err == nil {
		err = damaged
	}
	if err != nil {
		return fmt.Errorf("counting waiting events: %w", err)
	}
	return nil
}

// dropJourney deletes every row of a journey.
func (o *journeyRows) dropJourney(t *[20]byte) error {
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
