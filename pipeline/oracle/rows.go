package oracle

import (
	"slices"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

const (
	tooFast      = time.Second         // an event sooner after its click is flagged
	bookMonth    = 35 * 24 * time.Hour // an event dated longer before its receipt is flagged
	sameOccasion = 24 * time.Hour      // repeats of an event may be dated this far apart
)

// emitOutcome writes an outcome, its flags in their order.
func (j *journey) emitOutcome(o event.Outcome) {
	o.Review = event.ReviewClear
	var flags []string
	for _, f := range event.Flags() {
		if !slices.Contains(o.Flags, f) {
			continue
		}
		flags = append(flags, f)
		switch f {
		case event.FlagNoPartner, event.FlagTooFast, event.FlagAmountMissing:
		default:
			o.Review = event.ReviewNeeded
		}
	}
	o.Flags = flags
	j.outcomes = append(j.outcomes, o)
}

// outcomeWithoutClick is an outcome that shows nothing of the click.
func outcomeWithoutClick(e Event, verdict event.Verdict, reason string) event.Outcome {
	o := event.Outcome{
		WorkspaceID:    e.WorkspaceID,
		EventID:        e.EventID,
		ClickToken:     e.ClickToken,
		Verdict:        verdict,
		Reason:         reason,
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
		Metadata:       e.Metadata,
		ResolvedBy:     e.ResolvedBy,
	}
	if verdict == event.Unattributed && !e.Type.Positive() {
		o.Flags = append(o.Flags, event.FlagWithoutEffect)
	}
	return o
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
	return o
}

// showParent shows the parent that was found, if one was.
func (k *judgedEvent) showParent(parent *judgedEvent) {
	if parent != nil {
		k.ParentEventID, k.ParentType = parent.EventID, string(parent.Type)
	}
}

// isDatedBack reports whether an event with effect may change a closed month: it is
// dated on a day (UTC) before that of what it takes back from, or long before its
// receipt. parent is nil for a positive.
func isDatedBack(e Event, parent *judgedEvent) bool {
	if e.OccurredAt < e.ReceivedAt.Add(-bookMonth) {
		return true
	}
	return parent != nil && utcDay(e.OccurredAt).Before(utcDay(parent.OccurredAt))
}

func utcDay(m event.Millis) time.Time { return m.Time().Truncate(24 * time.Hour) }

// moneyDiffers reports whether two events with one id are different facts about money,
// as the merchant said both.
func moneyDiffers(first, e Event) bool {
	sameAmount := (first.AmountMinor == nil) == (e.AmountMinor == nil) && first.Currency == e.Currency &&
		(e.AmountMinor == nil || *first.AmountMinor == *e.AmountMinor)
	return first.Type != e.Type || !sameAmount || first.OrderID != e.OrderID ||
		first.ParentEventID != e.ParentEventID ||
		e.OccurredAt > first.OccurredAt.Add(sameOccasion) || e.OccurredAt < first.OccurredAt.Add(-sameOccasion)
}
