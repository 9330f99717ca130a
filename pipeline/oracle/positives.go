package oracle

import (
	"time"

	"github.com/nimriz/partners/schemas/event"
)

// clockSkew is how long before its click a positive may be dated.
const clockSkew = 5 * time.Minute

// judgePositive applies lines 7 to 9 and reports whether e was judged. If not, e waits
// for the event that it follows.
func (j *journey) judgePositive(e Event) bool {
	clicked := j.click.ClickedAt
	switch {
	case e.OccurredAt < clicked.Add(-clockSkew): // line 7
		j.keepUnattributed(e, event.ReasonBeforeClick, nil)
		return true
	case e.OccurredAt <= clicked+event.Millis(j.click.WindowMs): // whatever it names
		j.attributePositive(e, nil)
		return true
	case e.ParentEventID == "" || j.click.FollowMs == 0: // line 8a
		j.keepUnattributed(e, event.ReasonOutsideWindow, nil)
		return true
	case e.ParentEventID == e.EventID: // line 8b
		j.keepUnattributed(e, event.ReasonWrongParent, nil)
		return true
	}
	followed := j.findNamed(e)
	switch {
	case followed == nil: // line 8c
		return false
	case !followed.Type.Positive(): // line 8b
		j.keepUnattributed(e, event.ReasonWrongParent, followed)
	case followed.Verdict == event.Unattributed: // line 8d
		j.keepUnattributed(e, event.ReasonParentUnattributed, followed)
	case e.OccurredAt > originOf(followed).OccurredAt+event.Millis(j.click.FollowMs): // line 8e
		j.keepUnattributed(e, event.ReasonOutsideWindow, followed)
	default:
		j.attributePositive(e, followed)
	}
	return true
}

// originOf goes from an attributed positive to the first one that it follows, which is
// inside the window.
func originOf(k *judgedEvent) *judgedEvent {
	for k.follows != nil {
		k = k.follows
	}
	return k
}

// attributePositive applies lines 8f and 9. followed is nil for a positive inside the
// window.
func (j *journey) attributePositive(e Event, followed *judgedEvent) {
	repeated := j.repeatsOrder(e)
	if repeated && j.click.OneSalePerOrder { // line 8f
		j.keepUnattributed(e, event.ReasonOrderRepeated, followed, event.FlagOrderRepeated)
		return
	}
	k := &judgedEvent{Outcome: j.outcomeWithClick(e, event.Attributed, ""), sent: e, follows: followed}
	k.Effect = 1
	k.showParent(followed)
	if k.AmountMinor != nil {
		standing := *k.AmountMinor
		k.StandingChangeMinor = &standing
	}
	if minor, currency, ok := estimateReward(j.click.RewardTerms, k, k.amountOrUnit()); ok {
		k.EstimatedRewardMinor, k.RewardCurrency = &minor, currency
	}
	if repeated {
		k.Flags = append(k.Flags, event.FlagOrderRepeated)
	}
	if isDatedBack(e, nil) {
		k.Flags = append(k.Flags, event.FlagDatedBack)
	}
	j.keepEvent(k)
}

// repeatsOrder reports whether e is a sale of an order that has an attributed sale of
// which something stands. A sale that names an attributed sale of its order is a further
// part of the order and repeats nothing.
func (j *journey) repeatsOrder(e Event) bool {
	if e.Type != event.Sale || e.OrderID == "" {
		return false
	}
	sameOrder := func(k *judgedEvent) bool {
		return k.Type == event.Sale && k.Verdict == event.Attributed && k.OrderID == e.OrderID
	}
	if named := j.findNamed(e); named != nil && sameOrder(named) {
		return false
	}
	for _, k := range j.kept {
		if sameOrder(k) && j.standingAmount(k) > 0 {
			return true
		}
	}
	return false
}

// keepUnattributed writes the outcome of an unattributed event that leaves a trace. It
// shows the parent unless that is nil.
func (j *journey) keepUnattributed(e Event, reason string, parent *judgedEvent, flags ...string) {
	k := &judgedEvent{Outcome: j.outcomeWithClick(e, event.Unattributed, reason), sent: e}
	k.showParent(parent)
	k.Flags = append(k.Flags, flags...)
	j.keepEvent(k)
}
