package attribution

import (
	"slices"

	"github.com/nimriz/partners/schemas/event"
)

// newOutcome begins an outcome with what the merchant sent.
func (j *journey) newOutcome(
	ev *event.Conversion, src Source, verdict event.Verdict, reason string,
) *event.Outcome {
	// A negative that takes nothing: money went back, and the ledger did not take it.
	withoutEffect := verdict == event.Unattributed && !ev.Type.Positive()
	j.outcome = event.Outcome{
		WorkspaceID:    ev.WorkspaceID,
		EventID:        ev.EventID,
		ClickToken:     ev.ClickToken,
		Verdict:        verdict,
		Reason:         reason,
		Flags:          appendFlag(j.flags[:0], event.FlagWithoutEffect, withoutEffect),
		Review:         event.ReviewClear,
		Type:           ev.Type,
		EventName:      ev.EventName,
		OccurredAt:     ev.OccurredAt,
		ReceivedAt:     ev.ReceivedAt,
		AmountMinor:    ev.AmountMinor,
		Currency:       ev.Currency,
		Exponent:       ev.Exponent,
		Quantity:       ev.Quantity,
		OrderID:        ev.OrderID,
		ParentEventID:  ev.ParentEventID,
		ReasonText:     ev.ReasonText,
		CustomerRef:    ev.CustomerRef,
		ContentSHA256:  ev.ContentSHA256,
		EventPartition: src.Partition,
		EventOffset:    src.Offset,
		RulesVersion:   event.RulesVersion,
		Metadata:       ev.Metadata,
		ResolvedBy:     ev.ResolvedBy,
	}
	return &j.outcome
}

// emitWithoutClick emits an outcome that shows nothing of the click.
func (j *journey) emitWithoutClick(o *event.Outcome) error {
	setReview(o)
	return j.emit(o, nil)
}

// emitWithClick emits an outcome with the click's snapshot and the flags that follow
// from it. The flags that o has already come after them.
func (j *journey) emitWithClick(o *event.Outcome) error {
	c := &j.click
	underReview := c.PartnerID != "" &&
		(c.PartnerRelationship != "approved" || c.PartnerLifecycle != "active")

	var space [len(j.flags)]string
	flags := appendFlag(space[:0], event.FlagBotClick, c.IsBot)
	flags = appendFlag(flags, event.FlagPartnerReview, underReview)
	flags = appendFlag(flags, event.FlagNoPartner, c.PartnerID == "")
	flags = appendFlag(flags, event.FlagTooFast, o.OccurredAt-c.ClickedAt < tooFast)
	flags = append(flags, o.Flags...)
	o.Flags = append(j.flags[:0], flags...)
	setReview(o)
	return j.emit(o, j.clickWire)
}

func setReview(o *event.Outcome) {
	if slices.ContainsFunc(o.Flags, needsReview) {
		o.Review = event.ReviewNeeded
	}
}

func appendFlag(flags []string, flag string, isSet bool) []string {
	if isSet {
		flags = append(flags, flag)
	}
	return flags
}

func needsReview(flag string) bool {
	return flag != event.FlagNoPartner && flag != event.FlagTooFast && flag != event.FlagAmountMissing
}
