package attribution

import (
	"github.com/nimriz/partners/schemas/event"
)

// Waiting for a click, and the end of every wait: section "Waiting" of RULES.md. The
// wait for a parent begins in cascade.go.

// judgeWithoutClick applies line 1 to an event whose click is unknown; otherwise the
// event waits.
//
// Without a click, a journey exists as long as an earlier wait lasts. Whether a wait
// has really ended is known only when the clicks have been read past its end. Until
// then, an event that would find no journey waits behind it.
func (j *journey) judgeWithoutClick(ev *event.Conversion, src Source) error {
	late := ev.EnteredAt > j.clickLifeEnd()
	if late && j.head.WaitClick == 0 {
		return j.emitWithoutClick(j.newOutcome(ev, src, event.Unattributed, event.ReasonExpired))
	}
	if ev.EnteredAt > j.head.WaitsTo {
		j.head.WaitsTo = 0 // without a click, this event finds that all of them have ended
	}
	end := j.waitEnd(ev.EnteredAt)
	behind := late && j.head.WaitsTo == 0
	if err := j.writeWait(event.KindWaitClick, end, ev, src, behind); err != nil {
		return err
	}
	if !behind {
		j.head.WaitsTo = max(j.head.WaitsTo, end)
	}
	j.head.WaitClick++
	j.headChanged = true
	return nil
}

// judgeClickWaiters judges the events that waited for the click, which is known now, in
// order of record: each as if it had just arrived.
func (j *journey) judgeClickWaiters() error {
	all := func(*waitingEvent) bool { return true }
	waits, err := j.takeWaits(event.KindWaitClick, all)
	if err != nil {
		return err
	}
	j.head.WaitClick = 0
	j.head.WaitsTo = 0
	j.headChanged = true
	for i := range waits {
		if err := j.judgeEvent(&waits[i].Event, waits[i].src); err != nil {
			return err
		}
	}
	return nil
}

// endClickWaits closes the click waits that ended before the given time, and the events
// behind them.
func (j *journey) endClickWaits(through event.Millis) error {
	ended := func(w *waitingEvent) bool { return w.end < through || w.Behind }
	waits, err := j.takeWaits(event.KindWaitClick, ended)
	if err != nil {
		return err
	}
	for i := range waits {
		reason := event.ReasonClickNotFound
		if waits[i].Behind {
			reason = event.ReasonExpired
		}
		j.head.WaitClick--
		j.headChanged = true
		o := j.newOutcome(&waits[i].Event, waits[i].src, event.Unattributed, reason)
		if err := j.emitWithoutClick(o); err != nil {
			return err
		}
	}
	return nil
}

// endParentWaits closes the parent waits that ended before the given time. They leave
// no trace.
//
// The end of a waiting sale may tell a waiting cancellation that it may turn to the
// leads. That happens between the ends of waits, so they are closed in that order: the
// cancellation is judged if its own wait ends later, whenever both are closed.
func (j *journey) endParentWaits(through event.Millis) error {
	for j.head.WaitParent > 0 {
		saleEnd := event.Millis(-1)
		ended := func(w *waitingEvent) bool {
			if w.end >= through || saleEnd >= 0 && w.end > saleEnd {
				return false
			}
			if w.Event.Type == event.Sale {
				saleEnd = w.end
			}
			return true
		}
		waits, err := j.takeWaits(event.KindWaitParent, ended)
		if err != nil {
			return err
		}
		for i := range waits {
			if err := j.endParentWait(&waits[i]); err != nil {
				return err
			}
		}
		if saleEnd < 0 {
			return nil
		}
		for i := range waits {
			if err := j.wakeForEndedSale(&waits[i].Event); err != nil {
				return err
			}
		}
		if err := j.judgeWoken(); err != nil {
			return err
		}
	}
	return nil
}

// endParentWait closes a wait whose row takeWaits has taken out.
func (j *journey) endParentWait(w *waitingEvent) error {
	if err := j.deleteEvent(w.Event.EventID); err != nil {
		return err
	}
	if err := j.leaveParentWait(&w.Event, w.src.Offset); err != nil {
		return err
	}
	o := j.newOutcome(&w.Event, w.src, event.Unattributed, event.ReasonParentNotFound)
	return j.emitWithClick(o)
}
