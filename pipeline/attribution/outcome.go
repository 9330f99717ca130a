package attribution

import (
	"github.com/nimriz/partners/schemas/event"
)

// newOutcome begins an outcome with what the merchant sent.
func (j *journey) newOutcome(
	ev *event.Conversion, src Source, verdict event.Verdict, reason string,
) *event.Outcome {
	j.outcome = event.Outcome{
		WorkspaceID:    ev.WorkspaceID,
		EventID:        ev.EventID,
		ClickToken:     ev.ClickToken,
		Verdict:        verdict,
		Reason:         reason,
		Flags:          j.flags[:0],
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
	}
	return &j.outcome
}

// emitWithoutClick emits an outcome that shows nothing of the click.
func (j *journey) emitWithoutClick(o *event.Outcome) error { return j.emit(o, nil) }

// emitWithClick emits an outcome with the click's snapshot and the flags that follow
// from it. The flags that o has already, those of a reversed row, come after them.
func (j *journey) emitWithClick(o *event.Outcome) error {
	c := &j.click
	underReview := c.PartnerID != "" &&
		(c.PartnerRelationship != "approved" || c.PartnerLifecycle != "active")

	var space [8]string
	flags := appendFlag(space[:0], event.FlagBotClick, c.IsBot)
	flags = appendFlag(flags, event.FlagPartnerReview, underReview)
	flags = appendFlag(flags, event.FlagNoPartner, c.PartnerID == "")
	flags = appendFlag(flags, event.FlagTooFast, o.OccurredAt-c.ClickedAt < tooFast)
	flags = append(flags, o.Flags...)
	o.Flags = append(j.flags[:0], flags...)
	for _, flag := range o.Flags {
		if needsReview(flag) {
			o.Review = event.ReviewNeeded
		}
	}
	return j.emit(o, j.clickWire)
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
