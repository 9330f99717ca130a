package attribution

import (
	"fmt"
	"slices"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// JudgeGivenUp judges an event whose token an operator has given up: it is unattributed,
// whatever the journey would have said.
func (r *Rules) JudgeGivenUp(rows Rows, ev *event.Conversion, src Source, emit Emit) error {
	raw, err := token.Parse(ev.ClickToken)
	if err != nil {
		return fmt.Errorf("judging event %q: %w", ev.EventID, err)
	}
	if err := r.GiveUp(rows, &raw, emit); err != nil {
		return err
	}
	j := &journey{rules: r, rows: rows, emit: emit, token: raw}
	return j.emitWithoutClick(j.newOutcome(ev, src, event.Unattributed, event.ReasonGivenUp))
}

// GiveUp ends the journey of a token that an operator has given up, without reading more
// of it than the events that wait: they are unattributed, and every row is deleted. What
// was judged before stands. It does nothing if there is no journey.
func (r *Rules) GiveUp(rows Rows, raw *[20]byte, emit Emit) error {
	j := &journey{rules: r, rows: rows, emit: emit, token: *raw}
	all := func(*waitingEvent) bool { return true }
	waits, err := j.takeWaits(event.KindWaitClick, all)
	if err == nil {
		var more []waitingEvent
		more, err = j.takeWaits(event.KindWaitParent, all)
		waits = append(waits, more...)
	}
	if err != nil {
		return fmt.Errorf("giving up token %s: %w", token.Text(raw), err)
	}
	slices.SortFunc(waits, compareOffsets)
	for i := range waits {
		o := j.newOutcome(&waits[i].Event, waits[i].src, event.Unattributed, event.ReasonGivenUp)
		if err := j.emitWithoutClick(o); err != nil {
			return err
		}
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
