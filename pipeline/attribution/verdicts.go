package attribution

import (
	"github.com/nimriz/partners/schemas/event"
)

// The table of verdicts of RULES.md, line by line.

// judgeEvent judges an event whose click is known, from line 1 on. Then it judges the
// waiting events whose parent became known by that.
func (j *journey) judgeEvent(ev *event.Conversion, src Source) error {
	if err := j.endParentWaits(ev.EnteredAt); err != nil {
		return err
	}
	if j.head.Empty() {
		j.head = event.JourneyHead{} // as if it had been written and read again
	}
	if !j.head.Passed && ev.EnteredAt > j.clickArrivedAt {
		j.head.Passed = true
		j.headChanged = true
	}
	switch {
	case j.hasExpired(ev.EnteredAt): // line 1
		return j.emitWithoutClick(j.newOutcome(ev, src, event.Unattributed, event.ReasonExpired))
	case !j.head.Passed && j.clickArrivedAt > j.waitEnd(ev.EnteredAt): // line 2
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
// expired: the event entered less than the grace ago, and a journey lives longer.
func (j *journey) hasExpired(entered event.Millis) bool {
	if j.head.WaitParent > 0 {
		return false
	}
	if j.head.Kept == 0 {
		return entered > j.clickLifeEnd()
	}
	return entered > j.head.LastKept.Add(j.rules.cfg.JourneyLife)
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
	if verdict == event.Conflict {
		differs, err := j.moneyDiffers(ev, first)
		if err != nil {
			return err
		}
		o.Flags = appendFlag(o.Flags, event.FlagMoneyDiffers, differs)
	}
	return j.emitWithClick(o)
}

// judgePositive is lines 7 to 9 for an event that has just arrived. Only after the
// window does a named parent matter.
func (j *journey) judgePositive(ev *event.Conversion, src Source) error {
	var p parent
	if j.follows(ev) {
		if err := j.findParent(ev, &p); err != nil {
			return err
		}
		if p.state == parentAbsent {
			return j.waitForParent(ev, src) // line 8c
		}
	}
	return j.settlePositive(ev, src, &p)
}

// follows reports whether a positive counts, if at all, because of the one it names.
func (j *journey) follows(ev *event.Conversion) bool {
	return ev.OccurredAt-j.click.ClickedAt > event.Millis(j.click.WindowMs) && j.click.FollowMs > 0 &&
		ev.ParentEventID != ""
}

// settlePositive is lines 7 to 9 for an event that need not wait; p is empty unless the
// event follows. Then it wakes the events that wait for this one.
func (j *journey) settlePositive(ev *event.Conversion, src Source, p *parent) error {
	e := newRow(ev, src)
	e.Order = ev.OrderID
	var order event.JourneyOrder
	if err := j.readOwnOrder(ev, &order); err != nil {
		return err
	}
	reason, repeated := j.reasonAgainstPositive(ev, p), false
	if reason == "" {
		var err error
		if repeated, err = j.repeatsOrder(ev, &order); err != nil {
			return err
		}
		if repeated && j.click.OneSalePerOrder {
			reason = event.ReasonOrderRepeated // line 8f
		}
	}
	verdict := event.Attributed
	if reason != "" {
		verdict = event.Unattributed
	}
	o := j.newOutcome(ev, src, verdict, reason)
	if p.state == parentFound {
		o.ParentType = string(p.event.Type)
	}
	if reason == "" { // line 9
		j.attribute(ev, o, &e, p)
	}
	o.Flags = appendFlag(o.Flags, event.FlagOrderRepeated, repeated)
	o.Flags = appendFlag(o.Flags, event.FlagDatedBack, reason == "" && isDatedBack(ev, p))
	if err := j.indexPositive(ev, &e, &order); err != nil {
		return err
	}
	if err := j.recordEvent(ev, &e); err != nil {
		return err
	}
	if err := j.emitWithClick(o); err != nil {
		return err
	}
	return j.wakeForPositive(ev)
}

// reasonAgainstPositive is lines 7 to 8e. It returns "" if none of them applies.
func (j *journey) reasonAgainstPositive(ev *event.Conversion, p *parent) string {
	since := ev.OccurredAt - j.click.ClickedAt
	switch {
	case since < -clockSkew: // line 7
		return event.ReasonBeforeClick
	case since <= event.Millis(j.click.WindowMs):
		return ""
	case !j.follows(ev): // line 8a
		return event.ReasonOutsideWindow
	case p.state == parentIsItself || !p.event.Type.Positive(): // line 8b
		return event.ReasonWrongParent
	case p.event.Effect == 0: // line 8d
		return event.ReasonParentUnattributed
	case ev.OccurredAt-p.event.OriginAt() > event.Millis(j.click.FollowMs): // line 8e
		return event.ReasonOutsideWindow
	}
	return ""
}

// attribute sets what an attributed positive adds, in its outcome o and its row e.
func (j *journey) attribute(ev *event.Conversion, o *event.Outcome, e *event.JourneyEvent, p *parent) {
	o.Effect, e.Effect = 1, 1
	if ev.AmountMinor != nil {
		setAmount(e, *ev.AmountMinor, ev.Currency, ev.Exponent)
	}
	if p.state == parentFound {
		e.Follows = true
		e.Origin = p.event.OriginAt()
	}
	j.setChanges(o, &rootChange{root: e, before: 0, after: e.Standing()})
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
	return j.settleNegative(ev, src, &p, false)
}

// settleNegative is lines 10, 11, 13 and 14: the parent is known, or it is known that
// there can be none. Then it wakes the events that wait for this one.
func (j *journey) settleNegative(ev *event.Conversion, src Source, p *parent, waited bool) error {
	e := newRow(ev, src)
	reason := ""
	switch {
	case p.state == parentIsItself,
		p.state == parentFound && !p.event.Type.Positive() && ev.Type != event.Reversal: // line 10
		reason = event.ReasonWrongParent
	case p.state == parentAmbiguous || isReversalByGuess(ev, p): // line 11
		reason = event.ReasonParentAmbiguous
	case p.event.Effect == 0: // line 13
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
	if p.state == parentFound && reason != event.ReasonParentAmbiguous {
		o.ParentEventID, o.ParentType = p.id, string(p.event.Type)
	}
	if reason == event.ReasonWrongParent || reason == event.ReasonParentAmbiguous {
		return j.dropNegative(ev, o, waited)
	}
	if err := j.recordEvent(ev, &e); err != nil {
		return err
	}
	if err := j.emitWithClick(o); err != nil {
		return err
	}
	return j.wakeWaiting(event.KindForEvent, ev.EventID)
}

// dropNegative emits the outcome of a negative that leaves no trace, so that it can be
// sent again, mended. To the events that wait for it, it has not come.
func (j *journey) dropNegative(ev *event.Conversion, o *event.Outcome, waited bool) error {
	if waited {
		if err := j.deleteEvent(ev.EventID); err != nil {
			return err
		}
	}
	return j.emitWithClick(o)
}

// isReversalByGuess reports whether a reversal names no parent and may be the second of
// the one that was found: a second chargeback, a won one and a failed refund look alike.
// The row of an unattributed parent has no amount, so its unit stands, and nothing is
// below it.
func isReversalByGuess(ev *event.Conversion, p *parent) bool {
	if ev.Type != event.Reversal || ev.ParentEventID != "" || p.state != parentFound {
		return false
	}
	hadAnything := !p.event.HasAmount || p.event.Amount > 0
	return p.event.Reversals > 0 || hadAnything && p.event.Standing() == 0
}
