package oracle

import (
	"slices"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

const (
	clockSkew = 5 * time.Minute // a positive may be dated this much before its click
	tooFast   = time.Second
)

// journey is one token's past at some moment of its history.
type journey struct {
	cfg     Config
	minted  event.Millis
	click   *event.Click // nil while unknown
	kept    []*row       // in the order in which they were judged
	waiting []Event      // in order of record
	out     []event.Outcome
}

// row is a judged event that left a trace.
type row struct {
	event.Outcome
	parent *row // of what is reversed
}

func (j *journey) play(click *Click, events []Event, through event.Millis) {
	for _, e := range events {
		if click != nil && e.ReceivedAt > click.At {
			j.clickArrives(click)
			click = nil
		}
		j.closeWaits(e.ReceivedAt)
		j.arrive(e)
	}
	if click != nil {
		j.clickArrives(click)
	}
	j.closeWaits(through)
}

// clickArrives judges what waited for the click as if it came now, one after the other.
func (j *journey) clickArrives(click *Click) {
	j.closeWaits(click.At)
	j.click = &click.Click
	waited := j.waiting
	j.waiting = nil
	for _, e := range waited {
		j.arrive(e)
	}
}

// closeWaits writes the rows of all waits that ended before the given time.
func (j *journey) closeWaits(at event.Millis) {
	var still []Event
	for _, e := range j.waiting {
		switch {
		case e.ReceivedAt.Add(j.cfg.Grace) >= at:
			still = append(still, e)
		case j.click == nil:
			j.out = append(j.out, j.bare(e, event.Unattributed, event.ReasonClickNotFound))
		default:
			j.out = append(j.out, j.shown(e, event.Unattributed, event.ReasonParentNotFound))
		}
	}
	j.waiting = still
}

// arrive takes e through the lines of the rules, then tries again what waits for a
// parent.
func (j *journey) arrive(e Event) {
	switch {
	case j.expired(e): // line 1
		j.out = append(j.out, j.bare(e, event.Unattributed, event.ReasonExpired))
	case j.click == nil: // line 2
		j.waiting = append(j.waiting, e)
	case j.click.WorkspaceID != e.WorkspaceID: // line 3
		j.out = append(j.out, j.bare(e, event.Unattributed, event.ReasonWorkspaceMismatch))
	default:
		j.arriveWithClick(e)
	}
	j.retry()
}

func (j *journey) arriveWithClick(e Event) {
	if first, content, found := j.sameID(e.EventID); found { // lines 4 and 5
		verdict := event.Conflict
		if content == e.ContentSHA256 {
			verdict = event.Duplicate
		}
		o := j.shown(e, verdict, "")
		o.FirstOffset = &first
		j.out = append(j.out, o)
		return
	}
	if len(j.kept)+len(j.waiting) >= j.cfg.MaxEvents { // line 6
		j.out = append(j.out, j.shown(e, event.Unattributed, event.ReasonTokenFull))
		return
	}
	if e.Type.Positive() {
		j.positive(e)
	} else if !j.negative(e) {
		j.waiting = append(j.waiting, e)
	}
}

// retry judges the first waiting event that can be judged, and again from the start,
// until none can.
func (j *journey) retry() {
	if j.click == nil {
		return
	}
	for i := 0; i < len(j.waiting); i++ {
		if j.negative(j.waiting[i]) {
			j.waiting = slices.Delete(slices.Clone(j.waiting), i, i+1)
			i = -1
		}
	}
}

func (j *journey) expired(e Event) bool {
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

// sameID finds the event with this id that is kept or waits. There is at most one.
func (j *journey) sameID(id string) (offset int64, content [32]byte, found bool) {
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

// positive applies lines 7 to 9.
func (j *journey) positive(e Event) {
	clicked := j.click.ClickedAt
	switch {
	case e.OccurredAt < clicked.Add(-clockSkew):
		j.keep(&row{Outcome: j.shown(e, event.Unattributed, event.ReasonBeforeClick)})
	case e.OccurredAt > clicked+event.Millis(j.click.WindowMs):
		j.keep(&row{Outcome: j.shown(e, event.Unattributed, event.ReasonOutsideWindow)})
	default:
		r := &row{Outcome: j.shown(e, event.Attributed, "")}
		r.Effect = 1
		if minor, currency, ok := reward(j.click.RewardTerms, r, r.size()); ok {
			r.EstimatedRewardMinor, r.RewardCurrency = &minor, currency
		}
		j.keep(r)
	}
}

// negative applies lines 10 to 14, and reports whether e was judged. If not, e waits
// for its parent.
func (j *journey) negative(e Event) bool {
	if e.ParentEventID == e.EventID {
		j.keep(&row{Outcome: j.shown(e, event.Unattributed, event.ReasonWrongParent)})
		return true
	}
	candidates, inferred := j.parents(e)
	switch {
	case len(candidates) == 0: // line 12
		return false
	case len(candidates) > 1:
		j.keep(&row{Outcome: j.shown(e, event.Unattributed, event.ReasonParentAmbiguous)})
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
		j.reverse(e, parent, inferred)
		return true
	}
	r := &row{Outcome: j.shown(e, event.Unattributed, reason)}
	r.ParentEventID, r.ParentType = parent.EventID, string(parent.Type)
	j.keep(r)
	return true
}

// parents returns the possible parents of e: none is to wait, several is to be
// ambiguous.
func (j *journey) parents(e Event) (candidates []*row, inferred bool) {
	if e.ParentEventID != "" {
		return j.rows(func(k *row) bool { return k.EventID == e.ParentEventID }), false
	}
	of := func(t event.Type) []*row {
		return j.rows(func(k *row) bool { return k.Type == t && (e.OrderID == "" || k.OrderID == e.OrderID) })
	}
	candidates = of(event.Sale)
	if len(candidates) == 0 && e.Type == event.Cancellation {
		candidates = of(event.Lead)
	}
	if e.OrderID == "" {
		return candidates, true
	}
	if len(candidates) > 1 {
		return candidates[len(candidates)-1:], true
	}
	return candidates, false
}

// rows returns what is kept and passes the test, in order of record.
func (j *journey) rows(test func(*row) bool) []*row {
	var found []*row
	for _, k := range j.kept {
		if test(k) {
			found = append(found, k)
		}
	}
	slices.SortFunc(found, func(a, b *row) int { return compareOutcomes(a.Outcome, b.Outcome) })
	return found
}

// reverse writes the row of a negative that takes back parent.
func (j *journey) reverse(e Event, parent *row, inferred bool) {
	r := &row{Outcome: j.shown(e, event.Reversed, ""), parent: parent}
	r.ParentEventID, r.ParentType, r.Effect = parent.EventID, string(parent.Type), -parent.Effect

	stands := j.standing(parent)
	var over, mismatch, missing bool
	if r.AmountMinor == nil && parent.AmountMinor != nil {
		missing = true
		r.AmountMinor, r.Currency, r.Exponent = &stands, parent.Currency, parent.Exponent
		over = stands == 0 && *parent.AmountMinor > 0
	} else if !sameMoney(r, parent) {
		mismatch = true
	} else {
		over = r.size() > stands
	}
	r.Flags = append(r.Flags, flags(event.FlagOverReversed, over, event.FlagCurrencyMismatch, mismatch,
		event.FlagAmountMissing, missing, event.FlagParentInferred, inferred)...)
	r.Review = review(r.Flags)

	root := parent
	for root.parent != nil {
		root = root.parent
	}
	before, currency, ok := reward(j.click.RewardTerms, root, j.standing(root))
	j.kept = append(j.kept, r)
	if ok {
		after, _, _ := reward(j.click.RewardTerms, root, j.standing(root))
		moved := after - before
		r.EstimatedRewardMinor, r.RewardCurrency = &moved, currency
	}
	j.out = append(j.out, r.Outcome)
}

// keep writes a row that leaves a trace.
func (j *journey) keep(r *row) {
	j.kept = append(j.kept, r)
	j.out = append(j.out, r.Outcome)
}

// bare is a row without anything of the click.
func (j *journey) bare(e Event, verdict event.Verdict, reason string) event.Outcome {
	return event.Outcome{
		WorkspaceID: e.WorkspaceID, EventID: e.EventID, ClickToken: e.ClickToken, Verdict: verdict, Reason: reason, Review: event.ReviewClear,
		Type: e.Type, EventName: e.EventName, OccurredAt: e.OccurredAt, ReceivedAt: e.ReceivedAt,
		AmountMinor: e.AmountMinor, Currency: e.Currency, Exponent: e.Exponent, Quantity: e.Quantity,
		OrderID: e.OrderID, ParentEventID: e.ParentEventID, ReasonText: e.ReasonText, CustomerRef: e.CustomerRef, ContentSHA256: e.ContentSHA256,
		EventPartition: e.Partition, EventOffset: e.Offset, RulesVersion: event.RulesVersion,
	}
}

// shown is a row with the click's snapshot and the flags that follow from it.
func (j *journey) shown(e Event, verdict event.Verdict, reason string) event.Outcome {
	o, c := j.bare(e, verdict, reason), j.click
	o.Click = c
	o.Flags = flags(event.FlagBotClick, c.IsBot,
		event.FlagPartnerReview, c.PartnerID != "" && (c.PartnerRelationship != "approved" ||
			c.PartnerLifecycle != "active"),
		event.FlagNoPartner, c.PartnerID == "",
		event.FlagTooFast, e.OccurredAt < c.ClickedAt.Add(tooFast))
	o.Review = review(o.Flags)
	return o
}

// flags takes pairs of a flag and whether it is set.
func flags(pairs ...any) []string {
	var set []string
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1].(bool) {
			set = append(set, pairs[i].(string))
		}
	}
	return set
}

func review(set []string) event.Review {
	for _, f := range set {
		switch f {
		case event.FlagBotClick, event.FlagPartnerReview, event.FlagOverReversed, event.FlagCurrencyMismatch, event.FlagParentInferred:
			return event.ReviewNeeded
		}
	}
	return event.ReviewClear
}
