package oracle

import (
	"slices"

	"github.com/nimriz/partners/schemas/event"
)

// journey is one token's past at some moment of its history.
type journey struct {
	cfg      Config
	minted   event.Millis    // the token's mint time
	click    *event.Click    // nil while unknown
	kept     []*judgedEvent  // in the order in which they were judged
	waiting  []Event         // in order of record
	outcomes []event.Outcome // in the order in which they were decided
}

// judgedEvent is a judged event that left a trace.
type judgedEvent struct {
	event.Outcome
	sent    Event        // what the merchant said, before anything was filled in
	parent  *judgedEvent // of a reversed event: what it takes back from
	follows *judgedEvent // of a positive attributed after the window: what it follows
}

// playHistory plays the whole history of the token: its click, or nil, its events in
// order of record, then the time through.
func (j *journey) playHistory(click *Click, events []Event, through event.Millis) {
	for _, e := range events {
		if click != nil && e.EnteredAt > click.At {
			j.receiveClick(click)
			click = nil
		}
		j.closeEndedWaits(e.EnteredAt)
		j.judgeEvent(e)
	}
	if click != nil {
		j.receiveClick(click)
	}
	j.closeEndedWaits(through)
}

// receiveClick judges the events that waited for the click as if they arrived now, one
// after the other.
func (j *journey) receiveClick(click *Click) {
	j.closeEndedWaits(click.At)
	j.click = &click.Click
	waited := j.waiting
	j.waiting = nil
	for _, e := range waited {
		j.judgeEvent(e)
	}
}

// closeEndedWaits ends the waits that ended before the given time, one end after the
// other. After each end it tries what still waits: the end of a sale's wait lets a
// cancellation turn to the leads.
func (j *journey) closeEndedWaits(at event.Millis) {
	for len(j.waiting) > 0 {
		end := j.waitEnd(j.waiting[0])
		for _, w := range j.waiting {
			end = min(end, j.waitEnd(w))
		}
		if end >= at {
			return
		}
		j.closeWaits(end)
		j.judgeWaiting()
	}
}

// waitEnd is the last moment at which e may still wait.
func (j *journey) waitEnd(e Event) event.Millis { return e.EnteredAt.Add(j.cfg.Grace) }

// closeWaits writes the outcomes of all waits with the given end.
func (j *journey) closeWaits(end event.Millis) {
	var still []Event
	for _, e := range j.waiting {
		switch {
		case j.waitEnd(e) != end:
			still = append(still, e)
		case j.click == nil:
			j.emitOutcome(outcomeWithoutClick(e, event.Unattributed, event.ReasonClickNotFound))
		default:
			j.emitOutcome(j.outcomeWithClick(e, event.Unattributed, event.ReasonParentNotFound))
		}
	}
	j.waiting = still
}

// judgeEvent applies the lines of the rules to e. Then it tries again the events that
// wait for a parent.
func (j *journey) judgeEvent(e Event) {
	switch {
	case j.hasExpired(e): // line 1
		j.emitOutcome(outcomeWithoutClick(e, event.Unattributed, event.ReasonExpired))
	case j.click == nil: // line 2
		j.waiting = append(j.waiting, e)
	case j.click.WorkspaceID != e.WorkspaceID: // line 3
		j.emitOutcome(outcomeWithoutClick(e, event.Unattributed, event.ReasonWorkspaceMismatch))
	default:
		j.judgeWithClick(e)
	}
	j.judgeWaiting()
}

// judgeWithClick applies lines 4 to 14.
func (j *journey) judgeWithClick(e Event) {
	if first, found := j.findSameID(e.EventID); found { // lines 4 and 5
		verdict := event.Conflict
		if first.ContentSHA256 == e.ContentSHA256 {
			verdict = event.Duplicate
		}
		o := j.outcomeWithClick(e, verdict, "")
		o.FirstOffset = &first.Offset
		if verdict == event.Conflict && moneyDiffers(first, e) {
			o.Flags = append(o.Flags, event.FlagMoneyDiffers)
		}
		j.emitOutcome(o)
		return
	}
	if len(j.kept)+len(j.waiting) >= j.cfg.MaxEvents { // line 6
		j.emitOutcome(j.outcomeWithClick(e, event.Unattributed, event.ReasonTokenFull))
		return
	}
	if !j.judgeByParent(e) {
		j.waiting = append(j.waiting, e)
	}
}

// judgeByParent applies lines 7 to 14 and reports whether e was judged. If not, e waits
// for its parent.
func (j *journey) judgeByParent(e Event) bool {
	if e.Type.Positive() {
		return j.judgePositive(e)
	}
	return j.judgeNegative(e)
}

// judgeWaiting judges the first event that waits for a parent and can be judged. It
// starts again from the first until none can.
func (j *journey) judgeWaiting() {
	if j.click == nil {
		return
	}
	for i := 0; i < len(j.waiting); i++ {
		if j.judgeByParent(j.waiting[i]) {
			j.waiting = slices.Delete(slices.Clone(j.waiting), i, i+1)
			i = -1
		}
	}
}

// hasExpired is line 1.
func (j *journey) hasExpired(e Event) bool {
	if len(j.kept)+len(j.waiting) == 0 {
		return e.EnteredAt > j.minted.Add(j.cfg.ClickLife)
	}
	var last event.Millis
	for _, k := range j.kept {
		last = max(last, k.sent.EnteredAt)
	}
	for _, w := range j.waiting {
		last = max(last, w.EnteredAt)
	}
	return e.EnteredAt > last.Add(j.cfg.JourneyLife)
}

// findSameID finds the event with this id that is kept or waits. There is at most one.
func (j *journey) findSameID(id string) (first Event, found bool) {
	for _, k := range j.kept {
		if k.EventID == id {
			return k.sent, true
		}
	}
	for _, w := range j.waiting {
		if w.EventID == id {
			return w, true
		}
	}
	return first, false
}

// findKept returns the kept events that match, in order of record.
func (j *journey) findKept(matches func(*judgedEvent) bool) []*judgedEvent {
	var found []*judgedEvent
	for _, k := range j.kept {
		if matches(k) {
			found = append(found, k)
		}
	}
	slices.SortFunc(found, func(a, b *judgedEvent) int { return compareOutcomes(a.Outcome, b.Outcome) })
	return found
}

// findNamed returns the kept event that e names, nil if there is none.
func (j *journey) findNamed(e Event) *judgedEvent {
	for _, k := range j.kept {
		if e.ParentEventID != "" && k.EventID == e.ParentEventID {
			return k
		}
	}
	return nil
}

// keepEvent writes the outcome of an event that leaves a trace.
func (j *journey) keepEvent(k *judgedEvent) {
	j.kept = append(j.kept, k)
	j.emitOutcome(k.Outcome)
}
