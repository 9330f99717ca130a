package attribution

import (
	"github.com/nimriz/partners/schemas/event"
)

// The table of verdicts of RULES.md, line by line.

// judgeEvent judges an event whose click is known, from line 1 on. Then it judges the
// waiting events whose parent became known by that.
func (j *journey) judgeEvent(ev *event.Conversion, src Source) error {
	if err := j.endParentWaits(ev.ReceivedAt); err != nil {
		return err
	}
	if j.head.Empty() {
		j.head = event.JourneyHead{} // as if it had been written and read again
	}
	if !j.head.Passed && ev.ReceivedAt > j.clickArrivedAt {
		j.head.Passed = true
		j.headChanged = true
	}
	switch {
	case j.hasExpired(ev.ReceivedAt): // line 1
		return j.emitWithoutClick(j.newOutcome(ev, src, event.Unattributed, event.ReasonExpired))
	case !j.head.Passed && j.clickArrivedAt > j.waitEnd(ev.ReceivedAt): // line 2
		// The event comes before the click, and its wait had ended when the click came.
		return j.emitWithoutClick(j.newOutcome(ev, src, event.Unattributed, event.ReasonClickNotFound))
	case j.click.WorkspaceID != ev.WorkspaceID: // line 3
		return j.emitWithoutClick(j.newOutcome(ev, src, event.Unattributed, event.ReasonWorkspaceMismatch))
	}
	if !j.head.Empty() {
		var first event.JourneyEvent
		taken, err := j.readEvent(ev.EventID, &first)
		if err != nil {
			return err
		}
		if taken {
			return j.judgeRepeat(ev, src, &first)
		}
	}
	if j.head.Kept+j.head.WaitParent >= j.rules.maxEvents { // line 6
		return j.emitWithClick(j.newOutcome(ev, src, event.Unattributed, event.ReasonTokenFull))
	}
	if ev.Type.Positive() {
		if err := j.judgePositive(ev, src); err != nil {
			return err
		}
	} else if err := j.judgeNegative(ev, src); err != nil {
		return err
	}
	return j.judgeWoken()
}

// hasExpired is line 1. A journey in which an event waits for a parent cannot have
// expired: the event was received less than the grace ago, and a journey lives longer.
func (j *journey) hasExpired(received event.Millis) bool {
	if j.head.WaitParent > 0 {
		return false
	}
	if j.head.Kept == 0 {
		return received > j.clickLifeEnd()
	}
	return received > j.head.LastKept.Add(j.rules.cfg.JourneyLife)
}

// judgeRepeat is lines 4 and 5: another event of the journey has this id.
func (j *journey) judgeRepeat(ev *event.Conversion, src Source, first *event.JourneyEvent) error {
	verdict := event.Conflict
	if first.Content == ev.ContentSHA256 {
		verdict = event.Duplicate
	}
	o := j.newOutcome(ev, src, verdict, "")
	j.firstOffset = first.Offset
	o.FirstOffset = &j.firstOffset
	return j.emitWithClick(o)
}

// judgePositive is lines 7 to 9.
func (j *journey) judgePositive(ev *event.Conversion, src Source) error {
	e := event.JourneyEvent{Type: ev.Type, Offset: src.Offset, Content: ev.ContentSHA256, Order: ev.OrderID}
	var o *event.Outcome
	switch since := ev.OccurredAt - j.click.ClickedAt; {
	case since < -clockSkew:
		o = j.newOutcome(ev, src, event.Unattributed, event.ReasonBeforeClick)
	case since > event.Millis(j.click.WindowMs):
		o = j.newOutcome(ev, src, event.Unattributed, event.ReasonOutsideWindow)
	default:
		o = j.newOutcome(ev, src, event.Attributed, "")
		o.Effect, e.Effect = 1, 1
		if ev.AmountMinor != nil {
			setAmount(&e, *ev.AmountMinor, ev.Currency, ev.Exponent)
		}
		j.setReward(o, &e, 0, e.Standing())
	}
	if err := j.recordEvent(ev, &e); err != nil {
		return err
	}
	if err := j.indexPositive(ev); err != nil {
		return err
	}
	if err := j.emitWithClick(o); err != nil {
		return err
	}
	return j.wakeForPositive(ev)
}

// judgeNegative is lines 10 to 14 for an event that has just arrived.
func (j *journey) judgeNegative(ev *event.Conversion, src Source) error {
	var p parent
	if err := j.findParent(ev, &p); err != nil {
		return err
	}
	if p.state == parentAbsent {
		return j.waitForParent(ev, src) // line 12
	}
	return j.judgeWithParent(ev, src, &p)
}

// judgeWithParent is lines 10, 11, 13 and 14: the parent is known, or it is known that
// there can be none. Then it wakes the events that wait for this one.
func (j *journey) judgeWithParent(ev *event.Conversion, src Source, p *parent) error {
	e := event.JourneyEvent{Type: ev.Type, Offset: src.Offset, Content: ev.ContentSHA256}
	reason := ""
	switch {
	case p.state == parentIsItself,
		p.state == parentFound && !p.event.Type.Positive() && ev.Type != event.Reversal:
		reason = event.ReasonWrongParent
	case p.state == parentAmbiguous:
		reason = event.ReasonParentAmbiguous
	case p.event.Effect == 0:
		reason = event.ReasonParentUnattributed
	}
	var o *event.Outcome
	if reason == "" {
		o = j.newOutcome(ev, src, event.Reversed, "")
		if err := j.takeFromParent(ev, o, &e, p); err != nil {
			return err
		}
	} else {
		o = j.newOutcome(ev, src, event.Unattributed, reason)
	}
	if p.state == parentFound {
		o.ParentEventID, o.ParentType = p.id, string(p.event.Type)
	}
	if err := j.recordEvent(ev, &e); err != nil {
		return err
	}
	if err := j.emitWithClick(o); err != nil {
		return err
	}
	return j.wakeWaiting(event.KindForEvent, ev.EventID)
}
