package oracle

import "github.com/nimriz/partners/schemas/event"

// judgeNegative applies lines 10 to 14 and reports whether e was judged. If not, e
// waits for its parent. Wrong and ambiguous parents leave no trace, so that the merchant
// can send the same id again, mended.
func (j *journey) judgeNegative(e Event) bool {
	if e.ParentEventID == e.EventID {
		j.emitOutcome(j.outcomeWithClick(e, event.Unattributed, event.ReasonWrongParent))
		return true
	}
	candidates, inferred := j.findParents(e)
	switch {
	case len(candidates) == 0: // line 12
		return false
	case len(candidates) > 1: // line 11
		j.emitOutcome(j.outcomeWithClick(e, event.Unattributed, event.ReasonParentAmbiguous))
		return true
	}
	parent := candidates[0]
	switch {
	case e.Type != event.Reversal && !parent.Type.Positive(): // line 10
		wrong := judgedEvent{Outcome: j.outcomeWithClick(e, event.Unattributed, event.ReasonWrongParent)}
		wrong.showParent(parent)
		j.emitOutcome(wrong.Outcome)
	case e.Type == event.Reversal && e.ParentEventID == "" && j.isReversed(parent): // line 11
		j.emitOutcome(j.outcomeWithClick(e, event.Unattributed, event.ReasonParentAmbiguous))
	case parent.Verdict == event.Unattributed: // line 13
		j.keepUnattributed(e, event.ReasonParentUnattributed, parent)
	default: // line 14
		j.reverseParent(e, parent, inferred)
	}
	return true
}

// findParents returns the possible parents of e. Without any, e waits; with several,
// its parent is ambiguous.
func (j *journey) findParents(e Event) (candidates []*judgedEvent, inferred bool) {
	if e.ParentEventID != "" {
		if named := j.findNamed(e); named != nil {
			candidates = append(candidates, named)
		}
		return candidates, false
	}
	candidates = j.findPositives(event.Sale, e.OrderID)
	if len(candidates) == 0 && e.Type == event.Cancellation && !j.hasWaitingSale(e.OrderID) {
		candidates = j.findPositives(event.Lead, e.OrderID)
	}
	if e.OrderID == "" {
		return candidates, true
	}
	if len(candidates) > 1 {
		return candidates[len(candidates)-1:], true
	}
	return candidates, false
}

// findPositives returns the attributed sales, or leads, of an order, or of all orders if
// order is empty. If none is attributed, it returns the unattributed ones.
func (j *journey) findPositives(typ event.Type, order string) []*judgedEvent {
	with := func(verdict event.Verdict) []*judgedEvent {
		return j.findKept(func(k *judgedEvent) bool {
			return k.Verdict == verdict && k.Type == typ && (order == "" || k.OrderID == order)
		})
	}
	if attributed := with(event.Attributed); len(attributed) > 0 {
		return attributed
	}
	return with(event.Unattributed)
}

// hasWaitingSale reports whether a sale of the order, or of any if order is empty, waits
// for the event that it follows.
func (j *journey) hasWaitingSale(order string) bool {
	for _, w := range j.waiting {
		if w.Type == event.Sale && (order == "" || w.OrderID == order) {
			return true
		}
	}
	return false
}

// isReversed reports whether a reversal that names nothing may be meant for another than
// parent: something stands of a reversal directly below it, or nothing of parent stands
// any more. Nothing ever stood of a sale of 0; from one that is unattributed nothing is
// ever taken.
func (j *journey) isReversed(parent *judgedEvent) bool {
	for _, k := range j.kept {
		if k.parent == parent && k.Type == event.Reversal && j.standingAmount(k) > 0 {
			return true
		}
	}
	return parent.amountOrUnit() > 0 && j.standingAmount(parent) == 0
}

// reverseParent is line 14.
func (j *journey) reverseParent(e Event, parent *judgedEvent, inferred bool) {
	k := &judgedEvent{Outcome: j.outcomeWithClick(e, event.Reversed, ""), sent: e, parent: parent}
	k.showParent(parent)
	k.Effect = -parent.Effect

	standing := j.standingAmount(parent)
	switch {
	case k.AmountMinor == nil && parent.AmountMinor != nil:
		k.AmountMinor = &standing
		k.Currency = parent.Currency
		k.Exponent = parent.Exponent
		if standing == 0 && *parent.AmountMinor > 0 {
			k.Flags = append(k.Flags, event.FlagOverReversed)
		}
		k.Flags = append(k.Flags, event.FlagAmountMissing)
	case !sameMoney(k, parent):
		k.Flags = append(k.Flags, event.FlagCurrencyMismatch)
	case k.amountOrUnit() > standing:
		k.Flags = append(k.Flags, event.FlagOverReversed)
	}
	if inferred {
		k.Flags = append(k.Flags, event.FlagParentInferred)
	}
	if isDatedBack(e, parent) {
		k.Flags = append(k.Flags, event.FlagDatedBack)
	}
	j.keepReversed(k)
}

// keepReversed writes the outcome of a reversed event, with what it changes of its root.
func (j *journey) keepReversed(k *judgedEvent) {
	root := k.parent
	for root.parent != nil {
		root = root.parent
	}
	before := j.standingAmount(root)
	j.kept = append(j.kept, k)
	after := j.standingAmount(root)

	if root.AmountMinor != nil {
		change := after - before
		k.StandingChangeMinor = &change
	}
	if rewardBefore, currency, ok := estimateReward(j.click.RewardTerms, root, before); ok {
		rewardAfter, _, _ := estimateReward(j.click.RewardTerms, root, after)
		difference := rewardAfter - rewardBefore
		k.EstimatedRewardMinor, k.RewardCurrency = &difference, currency
	}
	j.emitOutcome(k.Outcome)
}
