package oracle

import (
	"slices"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

const (
	clockSkew = 5 * time.Minute // a positive may be dated this long before its click
	tooFast   = time.Second     // an event sooner after its click is flagged
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
	parent *judgedEvent // of a reversed event
}

// playHistory plays the whole history of the token: its click, or nil, its events in
// order of record, then the time through.
func (j *journey) playHistory(click *Click, events []Event, through event.Millis) {
	for _, e := range events {
		if click != nil && e.ReceivedAt > click.At {
			j.receiveClick(click)
			click = nil
		}
		j.closeEndedWaits(e.ReceivedAt)
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

// closeEndedWaits writes the outcomes of all waits that ended before the given time.
func (j *journey) closeEndedWaits(at event.Millis) {
	var still []Event
	for _, e := range j.waiting {
		switch {
		case e.ReceivedAt.Add(j.cfg.Grace) >= at:
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
	if first, content, found := j.findSameID(e.EventID); found { // lines 4 and 5
		verdict := event.Conflict
		if content == e.ContentSHA256 {
			verdict = event.Duplicate
		}
		o := j.outcomeWithClick(e, verdict, "")
		o.FirstOffset = &first
		j.emitOutcome(o)
		return
	}
	if len(j.kept)+len(j.waiting) >= j.cfg.MaxEvents { // line 6
		j.emitOutcome(j.outcomeWithClick(e, event.Unattributed, event.ReasonTokenFull))
		return
	}
	if e.Type.Positive() {
		j.judgePositive(e)
	} else if !j.judgeNegative(e) {
		j.waiting = append(j.waiting, e)
	}
}

// judgeWaiting judges the first event that waits for a parent and can be judged. It
// starts again from the first until none can.
func (j *journey) judgeWaiting() {
	if j.click == nil {
		return
	}
	for i := 0; i < len(j.waiting); i++ {
		if j.judgeNegative(j.waiting[i]) {
			j.waiting = slices.Delete(slices.Clone(j.waiting), i, i+1)
			i = -1
		}
	}
}

// hasExpired is line 1.
func (j *journey) hasExpired(e Event) bool {
	if len(j.kept)+len(j.waiting) == 0 {
		return e.ReceivedAt > j.minted.Add(j.cfg.ClickLife)
	}
	var last event.Millis
	for _, k := range j.kept {
		last = max(last, k.ReceivedAt)
	}
	for _, w := range j.waiting {
		last = max(last, w.ReceivedAt)
	}
	return e.ReceivedAt > last.Add(j.cfg.JourneyLife)
}

// findSameID finds the event with this id that is kept or waits. There is at most one.
func (j *journey) findSameID(id string) (offset int64, content [32]byte, found bool) {
	for _, k := range j.kept {
		if k.EventID == id {
			return k.EventOffset, k.ContentSHA256, true
		}
	}
	for _, w := range j.waiting {
		if w.EventID == id {
			return w.Offset, w.ContentSHA256, true
		}
	}
	return 0, content, false
}

// judgePositive applies lines 7 to 9.
func (j *journey) judgePositive(e Event) {
	clicked := j.click.ClickedAt
	switch {
	case e.OccurredAt < clicked.Add(-clockSkew):
		j.keepUnattributed(e, event.ReasonBeforeClick)
	case e.OccurredAt > clicked+event.Millis(j.click.WindowMs):
		j.keepUnattributed(e, event.ReasonOutsideWindow)
	default:
		k := &judgedEvent{Outcome: j.outcomeWithClick(e, event.Attributed, "")}
		k.Effect = 1
		if minor, currency, ok := estimateReward(j.click.RewardTerms, k, k.amountOrUnit()); ok {
			k.EstimatedRewardMinor, k.RewardCurrency = &minor, currency
		}
		j.keepEvent(k)
	}
}

// judgeNegative applies lines 10 to 14 and reports whether e was judged. If not, e
// waits for its parent.
func (j *journey) judgeNegative(e Event) bool {
	if e.ParentEventID == e.EventID {
		j.keepUnattributed(e, event.ReasonWrongParent)
		return true
	}
	candidates, inferred := j.findParents(e)
	switch {
	case len(candidates) == 0: // line 12
		return false
	case len(candidates) > 1:
		j.keepUnattributed(e, event.ReasonParentAmbiguous)
		return true
	}
	parent := candidates[0]
	reason := ""
	switch {
	case e.Type != event.Reversal && !parent.Type.Positive():
		reason = event.ReasonWrongParent
	case parent.Verdict == event.Unattributed:
		reason = event.ReasonParentUnattributed
	default:
		j.reverseParent(e, parent, inferred)
		return true
	}
	k := &judgedEvent{Outcome: j.outcomeWithClick(e, event.Unattributed, reason)}
	k.ParentEventID, k.ParentType = parent.EventID, string(parent.Type)
	j.keepEvent(k)
	return true
}

// findParents returns the possible parents of e. Without any, e waits; with several,
// its parent is ambiguous.
func (j *journey) findParents(e Event) (candidates []*judgedEvent, inferred bool) {
	if e.ParentEventID != "" {
		return j.findKept(func(k *judgedEvent) bool { return k.EventID == e.ParentEventID }), false
	}
	candidates = j.findPositives(event.Sale, e.OrderID)
	if len(candidates) == 0 && e.Type == event.Cancellation {
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

// findPositives returns the sales, or leads, of an order, or all of them if order is
// empty.
func (j *journey) findPositives(typ event.Type, order string) []*judgedEvent {
	return j.findKept(func(k *judgedEvent) bool { return k.Type == typ && (order == "" || k.OrderID == order) })
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

// reverseParent is line 14.
func (j *journey) reverseParent(e Event, parent *judgedEvent, inferred bool) {
	k := &judgedEvent{Outcome: j.outcomeWithClick(e, event.Reversed, ""), parent: parent}
	k.ParentEventID = parent.EventID
	k.ParentType = string(parent.Type)
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
	k.Review = reviewFor(k.Flags)

	root := parent
	for root.parent != nil {
		root = root.parent
	}
	before, currency, ok := estimateReward(j.click.RewardTerms, root, j.standingAmount(root))
	j.kept = append(j.kept, k)
	if ok {
		after, _, _ := estimateReward(j.click.RewardTerms, root, j.standingAmount(root))
		difference := after - before
		k.EstimatedRewardMinor, k.RewardCurrency = &difference, currency
	}
	j.emitOutcome(k.Outcome)
}

// keepUnattributed writes the outcome of an unattributed event that leaves a trace.
func (j *journey) keepUnattributed(e Event, reason string) {
	j.keepEvent(&judgedEvent{Outcome: j.outcomeWithClick(e, event.Unattributed, reason)})
}

// keepEvent writes the outcome of an event that leaves a trace.
func (j *journey) keepEvent(k *judgedEvent) {
	j.kept = append(j.kept, k)
	j.emitOutcome(k.Outcome)
}

func (j *journey) emitOutcome(o event.Outcome) { j.outcomes = append(j.outcomes, o) }

// outcomeWithoutClick is an outcome that shows nothing of the click.
func outcomeWithoutClick(e Event, verdict event.Verdict, reason string) event.Outcome {
	return event.Outcome{
		WorkspaceID:    e.WorkspaceID,
		EventID:        e.EventID,
		ClickToken:     e.ClickToken,
		Verdict:        verdict,
		Reason:         reason,
		Review:         event.ReviewClear,
		Type:           e.Type,
		EventName:      e.EventName,
		OccurredAt:     e.OccurredAt,
		ReceivedAt:     e.ReceivedAt,
		AmountMinor:    e.AmountMinor,
		Currency:       e.Currency,
		Exponent:       e.Exponent,
		Quantity:       e.Quantity,
		OrderID:        e.OrderID,
		ParentEventID:  e.ParentEventID,
		ReasonText:     e.ReasonText,
		CustomerRef:    e.CustomerRef,
		ContentSHA256:  e.ContentSHA256,
		EventPartition: e.Partition,
		EventOffset:    e.Offset,
		RulesVersion:   event.RulesVersion,
	}
}

// outcomeWithClick is an outcome with the click's snapshot and the flags that follow
// from it.
func (j *journey) outcomeWithClick(e Event, verdict event.Verdict, reason string) event.Outcome {
	o := outcomeWithoutClick(e, verdict, reason)
	c := j.click
	o.Click = c
	if c.IsBot {
		o.Flags = append(o.Flags, event.FlagBotClick)
	}
	if c.PartnerID == "" {
		o.Flags = append(o.Flags, event.FlagNoPartner)
	} else if c.PartnerRelationship != "approved" || c.PartnerLifecycle != "active" {
		o.Flags = append(o.Flags, event.FlagPartnerReview)
	}
	if e.OccurredAt < c.ClickedAt.Add(tooFast) {
		o.Flags = append(o.Flags, event.FlagTooFast)
	}
	o.Review = reviewFor(o.Flags)
	return o
}

// reviewFor tells whether one of the flags asks for a review.
func reviewFor(flags []string) event.Review {
	for _, f := range flags {
		switch f {
		case event.FlagBotClick, event.FlagPartnerReview, event.FlagOverReversed, event.FlagCurrencyMismatch,
			event.FlagParentInferred:
			return event.ReviewNeeded
		}
	}
	return event.ReviewClear
}
