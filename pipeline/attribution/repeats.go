package attribution

import (
	"github.com/nimriz/partners/schemas/event"
)

// The flags money_differs and dated_back: section "Flags" of RULES.md.

const (
	dayMs = 24 * 60 * 60 * 1000
	// longAgo is how long before its receipt an event may be dated.
	longAgo = event.Millis(35 * dayMs)
)

// isDatedBack reports whether a row with effect may change a closed month. What version
// 1 wrote is as if it had occurred in 1970: nothing is dated before that.
func isDatedBack(ev *event.Conversion, p *parent) bool {
	beforeParent := !ev.Type.Positive() && dayOf(ev.OccurredAt) < dayOf(p.event.OccurredAt)
	return beforeParent || ev.ReceivedAt-ev.OccurredAt > longAgo
}

// dayOf returns the day in UTC, counted from 1970.
func dayOf(t event.Millis) int64 {
	day := int64(t) / dayMs
	if int64(t)%dayMs < 0 {
		day--
	}
	return day
}

// moneyDiffers reports whether a conflict differs in money from the first event of its
// id, as the merchant said both.
func (j *journey) moneyDiffers(ev *event.Conversion, first *event.JourneyEvent) (bool, error) {
	switch {
	case !first.Old:
		return first.Money != ev.MoneyHash() || isAnotherDay(first.OccurredAt, ev.OccurredAt), nil
	case !first.Waiting:
		return surelyDiffers(ev, first), nil
	}
	j.key = event.AppendWaitKey(j.key[:0], &j.token, event.KindWaitParent, first.End, first.Offset)
	row, err := j.rows.Get(j.key)
	if err != nil {
		return false, err
	}
	var w event.JourneyWait
	if err := event.DecodeWait(row, &w); err != nil {
		return false, err
	}
	return w.Event.MoneyHash() != ev.MoneyHash() || isAnotherDay(w.Event.OccurredAt, ev.OccurredAt), nil
}

// isAnotherDay reports whether two times are more than a day apart.
func isAnotherDay(a, b event.Millis) bool { return a-b > dayMs || b-a > dayMs }

// surelyDiffers compares an event with what version 1 kept of another one: its type;
// amount and currency of what had an effect, where a negative may have had none; the
// order of a positive; the parent of a negative, named or not. What may have been the
// same does not differ.
func surelyDiffers(ev *event.Conversion, first *event.JourneyEvent) bool {
	if ev.Type != first.Type {
		return true
	}
	amountKnown, parentKnown := first.Effect != 0, first.Parent != ""
	sameAmount := ev.AmountMinor != nil && first.HasAmount && *ev.AmountMinor == first.Amount &&
		ev.Currency == first.Currency
	if ev.AmountMinor == nil {
		sameAmount = !first.HasAmount || !first.Type.Positive() // a negative's may be its parent's
	}
	return amountKnown && !sameAmount ||
		first.Type.Positive() && ev.OrderID != first.Order ||
		parentKnown && ev.ParentEventID != "" && ev.ParentEventID != first.Parent
}
