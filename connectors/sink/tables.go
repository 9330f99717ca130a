package sink

import (
	"slices"

	"github.com/nimriz/partners/schemas/event"
)

// The columns of the tables, as functions of the records. Their names are those of the
// tables in schemas/ddl.

// nullIfZero makes zero a null.
func nullIfZero(v int64) *int64 {
	if v == 0 {
		return nil
	}
	return &v
}

func clickColumns() []namedColumn[event.Click] {
	columns := append([]namedColumn[event.Click]{
		textColumn("workspace_id", func(c *event.Click) string { return c.WorkspaceID }),
		valueColumn("clicked_at", func(c *event.Click) int64 { return int64(c.ClickedAt) }),
		valueColumn("click_token", func(c *event.Click) string { return c.ClickToken }),
	}, contextColumns()...)
	for i := range columns {
		columns[i].ofTail = !slices.Contains(visitColumns, columns[i].name)
	}
	return columns
}

// visitColumns are the columns of a click that do not follow from its link part.
var visitColumns = []string{"clicked_at", "click_token", "trigger", "token_status", "token_reason",
	"sub1", "sub2", "sub3", "sub4", "sub5", "referrer_host", "country", "device", "os", "browser",
	"is_bot", "bot_reason"}

// contextColumns are what clicks and outcomes have in common: the click as it was
// frozen.
func contextColumns() []namedColumn[event.Click] {
	return []namedColumn[event.Click]{
		textColumn("link_id", func(c *event.Click) string { return c.LinkID }),
		textColumn("domain", func(c *event.Click) string { return c.Domain }),
		textColumn("slug", func(c *event.Click) string { return c.Slug }),
		textColumn("destination", func(c *event.Click) string { return c.Destination }),
		textColumn("trigger", func(c *event.Click) string { return string(c.Trigger) }),
		textColumn("token_status", func(c *event.Click) string { return string(c.TokenStatus) }),
		textColumn("token_reason", func(c *event.Click) string { return c.TokenReason }),
		textColumn("partner_id", func(c *event.Click) string { return c.PartnerID }),
		textColumn("partner_key", func(c *event.Click) string { return c.PartnerKey }),
		textColumn("partner_name", func(c *event.Click) string { return c.PartnerName }),
		textColumn("partner_relationship", func(c *event.Click) string { return c.PartnerRelationship }),
		textColumn("partner_lifecycle", func(c *event.Click) string { return c.PartnerLifecycle }),
		textColumn("program_id", func(c *event.Click) string { return c.ProgramID }),
		textColumn("program_key", func(c *event.Click) string { return c.ProgramKey }),
		textColumn("program_name", func(c *event.Click) string { return c.ProgramName }),
		textColumn("program_status", func(c *event.Click) string { return c.ProgramStatus }),
		textColumn("assignment_id", func(c *event.Click) string { return c.AssignmentID }),
		valueColumn("assigned_at", func(c *event.Click) *int64 { return nullIfZero(int64(c.AssignedAt)) }),
		valueColumn("window_ms", func(c *event.Click) uint64 { return uint64(max(c.WindowMs, 0)) }),
		valueColumn("follow_ms", func(c *event.Click) uint64 { return uint64(max(c.FollowMs, 0)) }),
		valueColumn("one_sale_per_order", func(c *event.Click) bool { return c.OneSalePerOrder }),
		textColumn("reward_terms", func(c *event.Click) string { return c.RewardTerms }),
		textColumn("utm_source", func(c *event.Click) string { return c.UTMSource }),
		textColumn("utm_medium", func(c *event.Click) string { return c.UTMMedium }),
		textColumn("utm_campaign", func(c *event.Click) string { return c.UTMCampaign }),
		textColumn("utm_term", func(c *event.Click) string { return c.UTMTerm }),
		textColumn("utm_content", func(c *event.Click) string { return c.UTMContent }),
		valueColumn("sub1", func(c *event.Click) string { return c.Sub1 }),
		valueColumn("sub2", func(c *event.Click) string { return c.Sub2 }),
		valueColumn("sub3", func(c *event.Click) string { return c.Sub3 }),
		valueColumn("sub4", func(c *event.Click) string { return c.Sub4 }),
		valueColumn("sub5", func(c *event.Click) string { return c.Sub5 }),
		textColumn("experiment", func(c *event.Click) string { return c.Experiment }),
		textColumn("variant", func(c *event.Click) string { return c.Variant }),
		textColumn("referrer_host", func(c *event.Click) string { return c.ReferrerHost }),
		textColumn("country", func(c *event.Click) string { return c.Country }),
		textColumn("device", func(c *event.Click) string { return c.Device }),
		textColumn("os", func(c *event.Click) string { return c.OS }),
		textColumn("browser", func(c *event.Click) string { return c.Browser }),
		valueColumn("is_bot", func(c *event.Click) bool { return c.IsBot }),
		textColumn("bot_reason", func(c *event.Click) string { return c.BotReason }),
		valueColumn("catalog_offset", func(c *event.Click) int64 { return c.CatalogOffset }),
	}
}

func conversionColumns() []namedColumn[event.Conversion] {
	return []namedColumn[event.Conversion]{
		textColumn("workspace_id", func(v *event.Conversion) string { return v.WorkspaceID }),
		valueColumn("event_id", func(v *event.Conversion) string { return v.EventID }),
		valueColumn("click_token", func(v *event.Conversion) string { return v.ClickToken }),
		textColumn("type", func(v *event.Conversion) string { return string(v.Type) }),
		textColumn("event_name", func(v *event.Conversion) string { return v.EventName }),
		valueColumn("occurred_at", func(v *event.Conversion) int64 { return int64(v.OccurredAt) }),
		valueColumn("received_at", func(v *event.Conversion) int64 { return int64(v.ReceivedAt) }),
		valueColumn("amount_minor", func(v *event.Conversion) *int64 { return v.AmountMinor }),
		textColumn("currency", func(v *event.Conversion) string { return v.Currency }),
		valueColumn("exponent", func(v *event.Conversion) uint8 { return uint8(v.Exponent) }),
		valueColumn("quantity", func(v *event.Conversion) *int32 { return v.Quantity }),
		valueColumn("order_id", func(v *event.Conversion) string { return v.OrderID }),
		valueColumn("parent_event_id", func(v *event.Conversion) string { return v.ParentEventID }),
		valueColumn("reason_text", func(v *event.Conversion) string { return v.ReasonText }),
		valueColumn("customer_ref", func(v *event.Conversion) string { return v.CustomerRef }),
		valueColumn("metadata", func(v *event.Conversion) map[string]string { return v.Metadata }),
		valueColumn("content_sha256", func(v *event.Conversion) string { return string(v.ContentSHA256[:]) }),
		textColumn("key_id", func(v *event.Conversion) string { return v.KeyID }),
		valueColumn("entered_at", func(v *event.Conversion) int64 { return int64(v.EnteredAt) }),
		valueColumn("customer_hash", func(v *event.Conversion) string { return string(v.CustomerHash) }),
		valueColumn("references", func(v *event.Conversion) []string { return v.References }),
		textColumn("resolved_by", func(v *event.Conversion) string { return string(v.ResolvedBy) }),
		valueColumn("reference_ambiguous", func(v *event.Conversion) bool { return v.ReferenceAmbiguous }),
	}
}

func outcomeColumns() []namedColumn[event.Outcome] {
	none := new(event.Click) // a row that may show no snapshot has empty columns
	snapshot := func(o *event.Outcome) *event.Click {
		if o.Click == nil {
			return none
		}
		return o.Click
	}
	return append([]namedColumn[event.Outcome]{
		textColumn("workspace_id", func(o *event.Outcome) string { return o.WorkspaceID }),
		valueColumn("event_id", func(o *event.Outcome) string { return o.EventID }),
		valueColumn("click_token", func(o *event.Outcome) string { return o.ClickToken }),
		textColumn("verdict", func(o *event.Outcome) string { return string(o.Verdict) }),
		textColumn("reason", func(o *event.Outcome) string { return o.Reason }),
		valueColumn("flags", func(o *event.Outcome) []string { return o.Flags }),
		textColumn("review", func(o *event.Outcome) string { return string(o.Review) }),
		textColumn("type", func(o *event.Outcome) string { return string(o.Type) }),
		textColumn("event_name", func(o *event.Outcome) string { return o.EventName }),
		valueColumn("effect", func(o *event.Outcome) int8 { return int8(o.Effect) }),
		valueColumn("occurred_at", func(o *event.Outcome) int64 { return int64(o.OccurredAt) }),
		valueColumn("received_at", func(o *event.Outcome) int64 { return int64(o.ReceivedAt) }),
		valueColumn("decided_at", func(o *event.Outcome) int64 { return int64(o.DecidedAt) }),
		valueColumn("amount_minor", func(o *event.Outcome) *int64 { return o.AmountMinor }),
		textColumn("currency", func(o *event.Outcome) string { return o.Currency }),
		valueColumn("exponent", func(o *event.Outcome) uint8 { return uint8(o.Exponent) }),
		valueColumn("quantity", func(o *event.Outcome) *int32 { return o.Quantity }),
		valueColumn("order_id", func(o *event.Outcome) string { return o.OrderID }),
		valueColumn("parent_event_id", func(o *event.Outcome) string { return o.ParentEventID }),
		textColumn("parent_type", func(o *event.Outcome) string { return o.ParentType }),
		valueColumn("reason_text", func(o *event.Outcome) string { return o.ReasonText }),
		valueColumn("customer_ref", func(o *event.Outcome) string { return o.CustomerRef }),
		valueColumn("estimated_reward_minor", func(o *event.Outcome) *int64 { return o.EstimatedRewardMinor }),
		textColumn("reward_currency", func(o *event.Outcome) string { return o.RewardCurrency }),
		valueColumn("content_sha256", func(o *event.Outcome) string { return string(o.ContentSHA256[:]) }),
		valueColumn("event_partition", func(o *event.Outcome) uint32 { return uint32(o.EventPartition) }),
		valueColumn("event_offset", func(o *event.Outcome) uint64 { return uint64(o.EventOffset) }),
		valueColumn("first_offset", func(o *event.Outcome) *uint64 { return toUnsigned(o.FirstOffset) }),
		valueColumn("rules_version", func(o *event.Outcome) uint16 { return uint16(o.RulesVersion) }),
		valueColumn("standing_change_minor", standingChange),
		valueColumn("metadata", func(o *event.Outcome) map[string]string { return o.Metadata }),
		textColumn("resolved_by", func(o *event.Outcome) string { return string(o.ResolvedBy) }),
		valueColumn("clicked_at", func(o *event.Outcome) *int64 { return nullIfZero(int64(snapshot(o).ClickedAt)) }),
	}, nestColumns(snapshot, contextColumns())...)
}

// standingChange returns the outcome's own, or effect × amount where rules version 1 did
// not say it; standing_basis is then "pending".
func standingChange(o *event.Outcome) *int64 {
	if o.RulesVersion >= 2 || o.Effect == 0 || o.AmountMinor == nil {
		return o.StandingChangeMinor
	}
	net := int64(o.Effect) * *o.AmountMinor
	return &net
}

func toUnsigned(v *int64) *uint64 {
	if v == nil {
		return nil
	}
	u := uint64(*v)
	return &u
}

func rejectionColumns() []namedColumn[event.Rejection] {
	return []namedColumn[event.Rejection]{
		textColumn("workspace_id", func(r *event.Rejection) string { return r.WorkspaceID }),
		valueColumn("webhook_id", func(r *event.Rejection) string { return r.WebhookID }),
		valueColumn("event_id", func(r *event.Rejection) string { return r.EventID }),
		valueColumn("click_token", func(r *event.Rejection) string { return r.ClickToken }),
		valueColumn("received_at", func(r *event.Rejection) int64 { return int64(r.ReceivedAt) }),
		valueColumn("status", func(r *event.Rejection) uint16 { return uint16(r.Status) }),
		textColumn("code", func(r *event.Rejection) string { return r.Code }),
		textColumn("field", func(r *event.Rejection) string { return r.Field }),
		valueColumn("detail", func(r *event.Rejection) string { return r.Detail }),
		valueColumn("body_sha256", func(r *event.Rejection) string { return string(r.BodySHA256[:]) }),
		textColumn("key_id", func(r *event.Rejection) string { return r.KeyID }),
		textColumn("type", func(r *event.Rejection) string { return r.Type }),
		valueColumn("order_id", func(r *event.Rejection) string { return r.OrderID }),
		valueColumn("parent_event_id", func(r *event.Rejection) string { return r.ParentEventID }),
		valueColumn("customer_hash", func(r *event.Rejection) string { return string(r.CustomerHash) }),
	}
}

func progressColumns() []namedColumn[event.Progress] {
	return []namedColumn[event.Progress]{
		valueColumn("partition", func(p *event.Progress) uint32 { return uint32(p.Partition) }),
		valueColumn("at", func(p *event.Progress) int64 { return int64(p.At) }),
		valueColumn("clicks_position", func(p *event.Progress) uint64 { return uint64(p.ClicksPosition) }),
		valueColumn("conversions_position", func(p *event.Progress) uint64 { return uint64(p.ConversionsPosition) }),
		valueColumn("clicks_max_at", func(p *event.Progress) int64 { return int64(p.ClicksMaxAt) }),
		valueColumn("conversions_max_at", func(p *event.Progress) int64 { return int64(p.ConversionsMaxAt) }),
		valueColumn("outcomes_end", func(p *event.Progress) uint64 { return uint64(p.OutcomesEnd) }),
		valueColumn("read", func(p *event.Progress) uint64 { return uint64(p.Read) }),
		valueColumn("attributed", func(p *event.Progress) uint64 { return uint64(p.Attributed) }),
		valueColumn("reversed", func(p *event.Progress) uint64 { return uint64(p.Reversed) }),
		valueColumn("duplicate", func(p *event.Progress) uint64 { return uint64(p.Duplicate) }),
		valueColumn("conflict", func(p *event.Progress) uint64 { return uint64(p.Conflict) }),
		valueColumn("unattributed", func(p *event.Progress) uint64 { return uint64(p.Unattributed) }),
		valueColumn("unreadable", func(p *event.Progress) uint64 { return uint64(p.Unreadable) }),
		valueColumn("waiting", func(p *event.Progress) uint64 { return uint64(p.Waiting) }),
		valueColumn("oldest_waiting_received_at", func(p *event.Progress) *int64 {
			return (*int64)(p.OldestWaitingReceivedAt)
		}),
		valueColumn("caught_up", func(p *event.Progress) bool { return p.CaughtUp }),
		valueColumn("grace_ms", func(p *event.Progress) uint64 { return uint64(p.GraceMs) }),
		valueColumn("watermark", func(p *event.Progress) int64 { return int64(p.Watermark) }),
		valueColumn("click_life_ms", func(p *event.Progress) uint64 { return uint64(p.ClickLifeMs) }),
		valueColumn("journey_life_ms", func(p *event.Progress) uint64 { return uint64(p.JourneyLifeMs) }),
	}
}

// catalogVersion is a record of the catalog.
type catalogVersion struct {
	workspace, kind, key, json string
	at                         event.Millis
}

func catalogVersionColumns() []namedColumn[catalogVersion] {
	return []namedColumn[catalogVersion]{
		textColumn("workspace_id", func(v *catalogVersion) string { return v.workspace }),
		textColumn("kind", func(v *catalogVersion) string { return v.kind }),
		valueColumn("key", func(v *catalogVersion) string { return v.key }),
		valueColumn("json", func(v *catalogVersion) string { return v.json }),
	}
}
