package attribution

import (
	"errors"
	"fmt"
	"slices"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// DamagedWait is the row of a waiting event of which nothing but the key can be read, or
// that of its deadline if not even that can.
type DamagedWait struct {
	Offset int64  // of the event in conversions
	Row    []byte // the row's value
	Why    error  // it cannot be read
}

// RereadEvent reads the event of a damaged row from conversions again. It returns nil if
// that fails for good, and has then accounted for the event itself.
type RereadEvent func(d *DamagedWait) (*event.Conversion, Source, error)

// JudgeGivenUp judges an event whose token an operator has given up: it is unattributed,
// whatever the journey would have said.
func (r *Rules) JudgeGivenUp(rows Rows, reread RereadEvent, ev *event.Conversion, src Source, emit Emit) error {
	raw, err := token.Parse(ev.ClickToken)
	if err != nil {
		return fmt.Errorf("judging event %q: %w", ev.EventID, err)
	}
	if err := r.GiveUp(rows, reread, &raw, emit); err != nil {
		return err
	}
	j := &journey{rules: r, rows: rows, emit: emit, token: raw}
	return j.emitWithoutClick(j.newOutcome(ev, src, event.Unattributed, event.ReasonGivenUp))
}

// GiveUp ends the journey of a token that an operator has given up, without reading more
// of it than the events that wait: they are unattributed, and every row is deleted. What
// was judged before stands. It does nothing if there is no journey.
func (r *Rules) GiveUp(rows Rows, reread RereadEvent, raw *[20]byte, emit Emit) error {
	j := &journey{rules: r, rows: rows, emit: emit, token: *raw}
	waits, err := j.takeAllWaits()
	slices.SortFunc(waits, compareOffsets)
	for i := 0; i < len(waits) && err == nil; i++ {
		err = j.giveUpWait(&waits[i], reread)
	}
	if err != nil {
		return fmt.Errorf("giving up token %s: %w", token.Text(raw), err)
	}
	var keys [][]byte
	if err := rows.Scan(event.JourneyPrefix(raw), func(key, _ []byte) bool {
		keys = append(keys, slices.Clone(key))
		return true
	}); err != nil {
		return err
	}
	for _, key := range keys {
		if err := rows.Put(key, nil); err != nil {
			return err
		}
	}
	return nil
}

// errNameless: the key of a wait row does not say which event waits.
var errNameless = errors.New("nameless wait row")

// takeAllWaits takes every waiting event out of its rows, whatever can be read of them.
func (j *journey) takeAllWaits() (waits []waitingEvent, err error) {
	var nameless error
	decode := func(key, value []byte, w *waitingEvent) error {
		err := decodeWaitKey(key, value, w)
		if err != nil {
			nameless = err
			return errNameless // GiveUp deletes the row
		}
		return nil
	}
	all := func(*waitingEvent) bool { return true }
	for _, kind := range []byte{event.KindWaitClick, event.KindWaitParent} {
		taken, err := j.takeDecodedWaits(kind, decode, all)
		if err != nil {
			return nil, err
		}
		waits = append(waits, taken...)
	}
	if nameless == nil {
		return waits, nil
	}
	rest, err := j.takeDeadlines(nameless)
	return append(waits, rest...), err
}

// takeDeadlines takes what is left of the token in the deadline index, which has a row for
// each waiting event. It reads the whole index.
func (j *journey) takeDeadlines(why error) (waits []waitingEvent, err error) {
	var keys [][]byte
	if err := j.rows.Scan(event.DeadlinePrefix(), func(key, value []byte) bool {
		end, tok, offset, ok := event.ParseDeadline(key)
		if ok && tok == j.token {
			keys = append(keys, slices.Clone(key))
			waits = append(waits, waitingEvent{end: end, src: Source{Offset: offset},
				damaged: &DamagedWait{Offset: offset, Row: slices.Clone(value), Why: why}})
		}
		return true
	}); err != nil {
		return nil, err
	}
	for _, key := range keys {
		if err := j.rows.Put(key, nil); err != nil {
			return nil, err
		}
	}
	return waits, nil
}

// giveUpWait gives its verdict to an event whose wait has been taken.
func (j *journey) giveUpWait(w *waitingEvent, reread RereadEvent) error {
	ev, src := &w.Event, w.src
	if w.damaged != nil {
		var err error
		if ev, src, err = reread(w.damaged); err != nil || ev == nil {
			return err
		}
	}
	return j.emitWithoutClick(j.newOutcome(ev, src, event.Unattributed, event.ReasonGivenUp))
}
