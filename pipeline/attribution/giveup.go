package attribution

import (
	"fmt"
	"slices"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// DamagedWait is the row of a waiting event of which nothing but the key can be read.
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
	all := func(*waitingEvent) bool { return true }
	waits, err := j.takeDecodedWaits(event.KindWaitClick, decodeWaitKey, all)
	if err == nil {
		var more []waitingEvent
		more, err = j.takeDecodedWaits(event.KindWaitParent, decodeWaitKey, all)
		waits = append(waits, more...)
	}
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
