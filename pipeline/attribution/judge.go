package attribution

import (
	"github.com/nimriz/partners/schemas/event"
)

// arrive judges an event whose click is known, from line 1 of the table of verdicts,
// and then what waited for it.
func (j *journey) arrive(ev *event.Conversion, src Source) error {
	if err := j.endParentWaits(ev.ReceivedAt); err != nil {
		return err
	}
	if j.head.Empty() {
		j.head = event.JourneyHead{} // as if it had been written and read again
	}
	if !j.head.Passed && ev.ReceivedAt > j.at {
		j.head.Passed, j.dirty = true, true
	}
	unattributed := func(reason string, snapshot bool) error {
		return j.send(j.row(ev, src, event.Unattributed, reason), snapshot)
	}
	switch {
	case j.expired(ev.ReceivedAt):
		return unattributed(event.ReasonExpired, false)
	case !j.head.Passed && j.at > j.waitEnd(ev.ReceivedAt):
		// the event stands before the click and its wait had ended when that came
		return unattributed(event.ReasonClickNotFound, false)
	case j.click.WorkspaceID != ev.WorkspaceID:
		return unattributed(event.ReasonWorkspaceMismatch, false)
	}
	if !j.head.Empty() {
		var first event.JourneyEvent
		if taken, err := j.event(ev.EventID, &first); err != nil {
			return err
		} else if taken {
			return j.again(ev, src, &first)
		}
	}
	if j.head.Kept+j.head.WaitParent >= j.rules.limit {
		return unattributed(event.ReasonTokenFull, true)
	}
	if ev.Type.Positive() {
		if err := j.positive(ev, src); err != nil {
			return err
		}
	} else if err := j.negative(ev, src); err != nil {
		return err
	}
	return j.settle()
}

// expired is line 1. While something waits for a parent the journey cannot have ended:
// what is left was received less than the grace ago, and a journey lives longer.
func (j *journey) expired(received event.Millis) bool {
	if j.head.WaitParent > 0 {
		return false
	}
	if j.head.Kept == 0 {
		return received > j.lifeEnd()
	}
	return received > j.head.LastKept.Add(j.rules.cfg.JourneyLife)
}

// again is lines 4 and 5: the id is taken.
func (j *journey) again(ev *event.Conversion, src Source, first *event.JourneyEvent) error {
	verdict := event.Conflict
	if first.Content == ev.ContentSHA256 {
		verdict = event.Duplicate
	}
	o := j.row(ev, src, verdict, "")
	j.first = first.Offset
	o.FirstOffset = &j.first
	return j.send(o, true)
}

// positive is lines 7 to 9.
func (j *journey) positive(ev *event.Conversion, src Source) error {
	e := event.JourneyEvent{Type: ev.Type, Offset: src.Offset, Content: ev.ContentSHA256, Order: ev.OrderID}
	var o *event.Outcome
	switch since := ev.OccurredAt - j.click.ClickedAt; {
	case since < -clockSkew:
		o = j.row(ev, src, event.Unattributed, event.ReasonBeforeClick)
	case since > event.Millis(j.click.WindowMs):
		o = j.row(ev, src, event.Unattributed, event.ReasonOutsideWindow)
	default:
		o = j.row(ev, src, event.Attributed, "")
		o.Effect, e.Effect = 1, 1
		if ev.AmountMinor != nil {
			e.HasAmount, e.Amount, e.Currency, e.Exponent = true, *ev.AmountMinor, ev.Currency, ev.Exponent
		}
		j.setReward(o, &e, 0, e.Standing())
	}
	if err := j.keep(ev, &e); err != nil {
		return err
	}
	if err := j.indexPositive(ev); err != nil {
		return err
	}
	if err := j.send(o, true); err != nil {
		return err
	}
	return j.wakePositive(ev)
}

// negative is lines 10 to 14 for an event that has just arrived.
func (j *journey) negative(ev *event.Conversion, src Source) error {
	var p parent
	if err := j.findParent(ev, &p); err != nil {
		return err
	}
	if p.state != absent {
		return j.resolve(ev, src, &p)
	}
	// line 12
	end := j.waitEnd(ev.ReceivedAt)
	if err := j.putWait(event.KindWaitParent, end, ev, src, false); err != nil {
		return err
	}
	if err := j.putEvent(ev.EventID, &event.JourneyEvent{
		Waiting: true,
		Type:    ev.Type,
		Offset:  src.Offset,
		Content: ev.ContentSHA256,
		End:     end,
	}); err != nil {
		return err
	}
	j.key = indexKey(j.key[:0], &j.token, ev, src.Offset)
	j.value = event.AppendIndex(j.value[:0], end)
	j.head.WaitParent++
	j.dirty = true
	return j.rows.Put(j.key, j.value)
}

// resolve is lines 10, 11, 13 and 14: the parent is known, or known to be none.
func (j *journey) resolve(ev *event.Conversion, src Source, p *parent) error {
	e := event.JourneyEvent{Type: ev.Type, Offset: src.Offset, Content: ev.ContentSHA256}
	reason := ""
	switch {
	case p.state == itself, p.state == found && !p.row.Type.Positive() && ev.Type != event.Reversal:
		reason = event.ReasonWrongParent
	case p.state == ambiguous:
		reason = event.ReasonParentAmbiguous
	case p.row.Effect == 0:
		reason = event.ReasonParentUnattributed
	}
	var o *event.Outcome
	if reason == "" {
		o = j.row(ev, src, event.Reversed, "")
		if err := j.reverse(ev, o, &e, p); err != nil {
			return err
		}
	} else {
		o = j.row(ev, src, event.Unattributed, reason)
	}
	if p.state == found {
		o.ParentEventID, o.ParentType = p.id, string(p.row.Type)
	}
	if err := j.keep(ev, &e); err != nil {
		return err
	}
	if err := j.send(o, true); err != nil {
		return err
	}
	return j.wake(event.KindForEvent, ev.EventID)
}

// keep makes the event part of the journey.
func (j *journey) keep(ev *event.Conversion, e *event.JourneyEvent) error {
	if j.head.Kept == 0 {
		j.head.LastKept = ev.ReceivedAt
	}
	j.head.LastKept = max(j.head.LastKept, ev.ReceivedAt)
	j.head.Kept++
	j.dirty = true
	return j.putEvent(ev.EventID, e)
}

// row begins an outcome with what the merchant said.
func (j *journey) row(ev *event.Conversion, src Source, verdict event.Verdict, reason string) *event.Outcome {
	j.out = event.Outcome{
		WorkspaceID: ev.WorkspaceID, EventID: ev.EventID, ClickToken: ev.ClickToken, Verdict: verdict, Reason: reason, Flags: j.flags[:0], Review: event.ReviewClear,
		Type: ev.Type, EventName: ev.EventName, OccurredAt: ev.OccurredAt, ReceivedAt: ev.ReceivedAt, AmountMinor: ev.AmountMinor, Currency: ev.Currency, Exponent: ev.Exponent,
		Quantity: ev.Quantity, OrderID: ev.OrderID, ParentEventID: ev.ParentEventID, ReasonText: ev.ReasonText, CustomerRef: ev.CustomerRef, ContentSHA256: ev.ContentSHA256,
		EventPartition: src.Partition, EventOffset: src.Offset, RulesVersion: event.RulesVersion,
	}
	return &j.out
}

// send completes the row with the flags of its snapshot, if it shows one, and emits it.
// The flags that o has already are those of a reversed row.
func (j *journey) send(o *event.Outcome, snapshot bool) error {
	if !snapshot {
		return j.emit(o, nil)
	}
	var all [8]string
	flags := all[:0]
	review := false
	add := func(flag string, is, reviewed bool) {
		if is {
			flags = append(flags, flag)
			review = review || reviewed
		}
	}
	c := &j.click
	add(event.FlagBotClick, c.IsBot, true)
	add(event.FlagPartnerReview, c.PartnerID != "" && (c.PartnerRelationship != "approved" ||
		c.PartnerLifecycle != "active"), true)
	add(event.FlagNoPartner, c.PartnerID == "", false)
	add(event.FlagTooFast, o.OccurredAt-c.ClickedAt < tooFast, false)
	for _, flag := range o.Flags {
		add(flag, true, flag != event.FlagAmountMissing)
	}
	o.Flags = append(j.flags[:0], flags...)
	if review {
		o.Review = event.ReviewNeeded
	}
	return j.emit(o, j.wire)
}
