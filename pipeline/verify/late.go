package verify

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/nimriz/partners/pipeline/attribution"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
)

// A wait's end is compared with times in the log, and the processor closes a wait when
// its watermark says that everything dated before its end was read. Should a record have
// reached Kafka later than that, then the log says that it came in time, and the
// processor had closed the wait. A lateDerivation is that of such a processor.

const (
	// maxLateEvents bounds the events of a token that is derived in this way, and
	// maxLateClicks how many places of the click are tried.
	maxLateEvents = 1000
	maxLateClicks = 50
	// maxLateness is by how much later than its Kafka timestamp a record can have come:
	// producers give up before, and clocks differ. Were more believed, every row could be
	// turned into one whose wait ended in vain.
	maxLateness = event.Millis(topic.DeliveryLimit/time.Millisecond) + clockSlack
)

// errTooLate says that no record that came too late leads to the ledger's rows.
var errTooLate = errors.New("the rows are not those of a record that came too late")

// ignoreTooLate keeps every error but errTooLate.
func ignoreTooLate(err error) error {
	if errors.Is(err, errTooLate) {
		return nil
	}
	return err
}

// lateDerivation derives a token once more. Where the click or an event would end a wait
// of which the ledger says that it ended in vain, the wait is closed first.
type lateDerivation struct {
	*derivation
	grace   time.Duration
	entered []event.Millis           // by the index of the event
	closed  map[int64]*event.Outcome // rows that say that a wait ended in vain, by offset of the event
	derived map[int64]*event.Outcome // by offset of the event
	pending []*event.Outcome         // of the step that runs
	closes  int                      // waits that were closed before a record
}

// deriveLate looks for a record that came too late and so explains a token's rows, which
// are given by the offset of their event. It returns the rows that it derived then.
func (d *deriver) deriveLate(h *history, times int, rows map[int64]*event.Outcome,
	isLedger func(derived map[int64]*event.Outcome) bool) (derived map[int64]*event.Outcome, err error) {
	closed := make(map[int64]*event.Outcome)
	for offset, o := range rows {
		switch o.Reason {
		case event.ReasonClickNotFound, event.ReasonParentNotFound, event.ReasonExpired:
			closed[offset] = o
		}
	}
	if len(closed) == 0 || len(h.events) > maxLateEvents {
		return nil, errTooLate
	}
	l := &lateDerivation{
		grace:  time.Duration(d.partition.Times[times].GraceMs) * time.Millisecond,
		closed: closed,
	}
	for i := range h.events {
		var e event.Conversion
		if err := d.codec.DecodeConversion(h.events[i].value, &e); err != nil {
			return nil, err
		}
		l.entered = append(l.entered, e.EnteredAt)
	}
	// The click stands before the first event that entered after it. One that came too
	// late may have been read behind any later event.
	place := slices.IndexFunc(l.entered, func(at event.Millis) bool { return at > h.clickAt })
	if place < 0 || h.click == nil {
		place = len(h.events)
	}
	for try := place; try <= min(len(h.events), place+maxLateClicks); try++ {
		if try > place && h.events[try-1].at > h.clickAt+maxLateness {
			break
		}
		l.derived = make(map[int64]*event.Outcome)
		l.closes = 0
		l.derivation = d.begin(h, times, func(o *event.Outcome, click []byte) error {
			c, err := copyOutcome(d.codec, o, click)
			l.pending = append(l.pending, c)
			return err
		})
		switch err := l.derive(try); {
		case errors.Is(err, errTooLate):
		case err != nil:
			return nil, err
		case l.closes > 0 && isLedger(l.derived):
			return l.derived, nil
		}
	}
	return nil, errTooLate
}

// derive passes the token to the rules, with its click before the given event.
func (l *lateDerivation) derive(clickBefore int) error {
	clicks := attribution.ClickLookup(noClick)
	for i := range len(l.history.events) + 1 {
		if i == clickBefore && l.history.click != nil {
			clicks = l.lookUpClick
			if err := l.step(l.history.clickAt, l.history.clickAt, func() error {
				return l.rules.ApplyClick(l.rows, &l.raw, l.history.click, l.history.clickAt, l.emit)
			}); err != nil {
				return err
			}
		}
		if i < len(l.history.events) {
			do := func() error { return l.judgeEvent(i, clicks) }
			if err := l.step(l.entered[i], l.history.events[i].at, do); err != nil {
				return err
			}
		}
	}
	return l.step(forever, forever, func() error { return l.closeWaits(forever, clicks) })
}

// step takes one step of the history, which the rules date at a time, of a record with
// a Kafka timestamp. If it would give an event that waits a row, and the ledger's says
// that its wait ended in vain, the wait is closed first.
func (l *lateDerivation) step(at, stamped event.Millis, do func() error) error {
	for {
		before := l.rows.clone()
		l.pending = l.pending[:0]
		if err := do(); err != nil {
			return err
		}
		end, isContested := l.contestedEnd(at, stamped)
		if isContested {
			*l.rows = *before
			l.pending = l.pending[:0]
			l.closes++
			if err := l.closeWaits(end+1, noClick); err != nil {
				return err
			}
			if len(l.pending) == 0 {
				return errTooLate // it is not waiting: closing does not help
			}
		}
		for _, o := range l.pending {
			l.derived[o.EventOffset] = o
		}
		if !isContested {
			return nil
		}
	}
}

// contestedEnd is the first end of a wait that the step would end otherwise than the
// ledger says. The step is dated before that end, its record can have come after it, and
// the ledger's row was decided after it.
func (l *lateDerivation) contestedEnd(at, stamped event.Millis) (first event.Millis, found bool) {
	for _, o := range l.pending {
		row := l.closed[o.EventOffset]
		if row == nil || o.Reason == row.Reason {
			continue
		}
		i, _ := slices.BinarySearchFunc(l.history.events, o.EventOffset, func(e spilled, offset int64) int {
			return cmp.Compare(e.offset, offset)
		})
		end := l.entered[i].Add(l.grace)
		if at <= end && end < stamped+maxLateness && row.DecidedAt > end && (!found || end < first) {
			first, found = end, true
		}
	}
	return first, found
}
