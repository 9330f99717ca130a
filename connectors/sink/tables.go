package sink

import (
	"github.com/nimriz/partners/schemas/event"
)

// The columns of the tables, as functions of the records. Their names are those of the
// tables in schemas/ddl.

// nullable makes zero a null.
func nullable(v int64) *int64 {
	if v == 0 {
		return nil
	}
	return &v
}

func clickColumns() []named[event.Click] {
	return append([]named[event.Click]{
		recurring("workspace_id", func(c *event.Click) string { return c.WorkspaceID }),
		of("clicked_at", func(c *event.Click) int64 { return int64(c.ClickedAt) }),
		of("click_token", func(c *event.Click) string { return c.ClickToken }),
	}, contextColumns()...)
}

// contextColumns are what clicks and outcomes have in common: the click as it was
// frozen.
func contextColumns() []named[event.Click] {
	return []named[event.Click]{
		recurring("link_id", func(c *event.Click) string { return c.LinkID }),
		recurring("domain", func(c *event.Click) string { return c.Domain }),
		recurring("slug", func(c *event.Click) string { return c.Slug }),
		recurring("destination", func(c *event.Click) string { return c.Destination }),
		recurring("trigger", func(c *event.Click) string { return string(c.Trigger) }),
		recurring("token_status", func(c *event.Click) string { return string(c.TokenStatus) }),
		recurring("token_reason", func(c *event.Click) string { return c.TokenReason }),
		recurring("partner_id", func(c *event.Click) string { return c.PartnerID }),
		recurring("partner_key", func(c *event.Click) string { return c.PartnerKey }),
		recurring("partner_name", func(c *event.Click) string { return c.PartnerName }),
		recurring("partner_relationship", func(c *event.Click) string { return c.PartnerRelationship }),
		recurring("partner_lifecycle", func(c *event.Click) string { return c.PartnerLifecycle }),
		recurring("program_id", func(c *event.Click) string { return c.ProgramID }),
		recurring("program_key", func(c *event.Click) string { return c.ProgramKey }),
		recurring("program_name", func(c *event.Click) string { return c.ProgramName }),
		recurring("program_status", func(c *event.Click) string { return c.ProgramStatus }),
		recurring("assignment_id", func(c *event.Click) string { return c.AssignmentID }),
		of("assigned_at", func(c *event.Click) *int64 { return nullable(int64(c.AssignedAt)) }),
		of("window_ms", func(c *event.Click) uint64 { return uint64(max(c.WindowMs, 0)) }),
		recurring("reward_terms", func(c *event.Click) string { return c.RewardTerms }),
		recurring("utm_source", func(c *event.Click) string { return c.UTMSource }),
		recurring("utm_medium", func(c *event.Click) string { return c.UTMMedium }),
		recurring("utm_campaign", func(c *event.Click) string { return c.UTMCampaign }),
		recurring("utm_term", func(c *event.Click) string { return c.UTMTerm }),
		recurring("utm_content", func(c *event.Click) string { return c.UTMContent }),
		of("sub1", func(c *event.Click) string { return c.Sub1 }),
		of("sub2", func(c *event.Click) string { return c.Sub2 }),
		of("sub3", func(c *event.Click) string { return c.Sub3 }),
		of("sub4", func(c *event.Click) string { return c.Sub4 }),
		of("sub5", func(c *event.Click) string { return c.Sub5 }),
		recurring("experiment", func(c *event.Click) string { return c.Experiment }),
		recurring("variant", func(c *event.Click) string { return c.Variant }),
		recurring("referrer_host", func(c *event.Click) string { return c.ReferrerHost }),
		recurring("country", func(c *event.Click) string { return c.Country }),
		recurring("device", func(c *event.Click) string { return c.Device }),
		recurring("os", func(c *event.Click) string { return c.OS }),
		recurring("browser", func(c *event.Click) string { return c.Browser }),
		of("is_bot", func(c *event.Click) bool { return c.IsBot }),
		recurring("bot_reason", func(c *event.Click) string { return c.BotReason }),
		of("catalog_offset", func(c *event.Click) int64 { return c.CatalogOffset }),
	}
}

func conversionColumns() []named[event.Conversion] {
	return []named[event.Conversion]{
		recurring("workspace_id", func(v *event.Conversion) string { return v.WorkspaceID }),
		of("event_id", func(v *event.Conversion) string { return v.EventID }),
		of("click_token", func(v *event.Conversion) string { return v.ClickToken }),
		recurring("type", func(v *event.Conversion) string { return string(v.Type) }),
		recurring("event_name", func(v *event.Conversion) string { return v.EventName }),
		of("occurred_at", func(v *event.Conversion) int64 { return int64(v.OccurredAt) }),
		of("received_at", func(v *event.Conversion) int64 { return int64(v.ReceivedAt) }),
		of("amount_minor", func(v *event.Conversion) *int64 { return v.AmountMinor }),
		recurring("currency", func(v *event.Conversion) string { return v.Currency }),
		of("exponent", func(v *event.Conversion) uint8 { return uint8(v.Exponent) }),
		of("quantity", func(v *event.Conversion) *int32 { return v.Quantity }),
		of("order_id", func(v *event.Conversion) string { return v.OrderID }),
		of("parent_event_id", func(v *event.Conversion) string { return v.ParentEventID }),
		of("reason_text", func(v *event.Conversion) string { return v.ReasonText }),
		of("customer_ref", func(v *event.Conversion) string { return v.CustomerRef }),
		of("metadata", func(v *event.Conversion) map[string]string { return v.Metadata }),
		of("content_sha256", func(v *event.Conversion) string { return string(v.ContentSHA256[:]) }),
		recurring("key_id", func(v *event.Conversion) string { return v.KeyID }),
	}
}

func outcomeColumns() []named[event.Outcome] {
	none := new(event.Click) // a row that may show no snapshot has empty columns
	snapshot := func(o *event.Outcome) *event.Click {
		if o.Click == nil {
			return none
		}
		return o.Click
	}
	return append([]named[event.Outcome]{
		recurring("workspace_id", func(o *event.Outcome) string { return o.WorkspaceID }),
		of("event_id", func(o *event.Outcome) string { return o.EventID }),
		of("click_token", func(o *event.Outcome) string { return o.ClickToken }),
		recurring("verdict", func(o *event.Outcome) string { return string(o.Verdict) }),
		recurring("reason", func(o *event.Outcome) string { return o.Reason }),
		of("flags", func(o *event.Outcome) []string { return o.Flags }),
		recurring("review", func(o *event.Outcome) string { return string(o.Review) }),
		recurring("type", func(o *event.Outcome) string { return string(o.Type) }),
		recurring("event_name", func(o *event.Outcome) string { return o.EventName }),
		of("effect", func(o *event.Outcome) int8 { return int8(o.Effect) }),
		of("occurred_at", func(o *event.Outcome) int64 { return int64(o.OccurredAt) }),
		of("received_at", func(o *event.Outcome) int64 { return int64(o.ReceivedAt) }),
		of("decided_at", func(o *event.Outcome) int64 { return int64(o.DecidedAt) }),
		of("amount_minor", func(o *event.Outcome) *int64 { return o.AmountMinor }),
		recurring("currency", func(o *event.Outcome) string { return o.Currency }),
		of("exponent", func(o *event.Outcome) uint8 { return uint8(o.Exponent) }),
		of("quantity", func(o *event.Outcome) *int32 { return o.Quantity }),
		of("order_id", func(o *event.Outcome) string { return o.OrderID }),
		of("parent_event_id", func(o *event.Outcome) string { return o.ParentEventID }),
		recurring("parent_type", func(o *event.Outcome) string { return o.ParentType }),
		of("reason_text", func(o *event.Outcome) string { return o.ReasonText }),
		of("customer_ref", func(o *event.Outcome) string { return o.CustomerRef }),
		of("estimated_reward_minor", func(o *event.Outcome) *int64 { return o.EstimatedRewardMinor }),
		recurring("reward_currency", func(o *event.Outcome) string { return o.RewardCurrency }),
		of("content_sha256", func(o *event.Outcome) string { return string(o.ContentSHA256[:]) }),
		of("event_partition", func(o *event.Outcome) uint32 { return uint32(o.EventPartition) }),
		of("event_offset", func(o *event.Outcome) uint64 { return uint64(o.EventOffset) }),
		of("first_offset", func(o *event.Outcome) *uint64 { return unsigned(o.FirstOffset) }),
		of("rules_version", func(o *event.Outcome) uint16 { return uint16(o.RulesVersion) }),
		of("clicked_at", func(o *event.Outcome) *int64 { return nullable(int64(snapshot(o).ClickedAt)) }),
	}, below(snapshot, contextColumns())...)
}

func unsigned(v *int64) *uint64 {
	if v == nil {
		return nil
	}
	u := uint64(*v)
	return &u
}

func rejectionColumns() []named[event.Rejection] {
	return []named[event.Rejection]{
		recurring("workspace_id", func(r *event.Rejection) string { return r.WorkspaceID }),
		of("webhook_id", func(r *event.Rejection) string { return r.WebhookID }),
		of("event_id", func(r *event.Rejection) string { return r.EventID }),
		of("click_token", func(r *event.Rejection) string { return r.ClickToken }),
		of("received_at", func(r *event.Rejection) int64 { return int64(r.ReceivedAt) }),
		of("status", func(r *event.Rejection) uint16 { return uint16(r.Status) }),
		recurring("code", func(r *event.Rejection) string { return r.Code }),
		recurring("field", func(r *event.Rejection) string { return r.Field }),
		of("detail", func(r *event.Rejection) string { return r.Detail }),
		of("body_sha256", func(r *event.Rejection) string { return string(r.BodySHA256[:]) }),
		recurring("key_id", func(r *event.Rejection) string { return r.KeyID }),
	}
}

func progressColumns() []named[event.Progress] {
	return []named[event.Progress]{
		of("partition", func(p *event.Progress) uint32 { return uint32(p.Partition) }),
		of("at", func(p *event.Progress) int64 { return int64(p.At) }),
		of("clicks_position", func(p *event.Progress) uint64 { return uint64(p.ClicksPosition) }),
		of("conversions_position", func(p *event.Progress) uint64 { return uint64(p.ConversionsPosition) }),
		of("clicks_max_at", func(p *event.Progress) int64 { return int64(p.ClicksMaxAt) }),
		of("conversions_max_at", func(p *event.Progress) int64 { return int64(p.ConversionsMaxAt) }),
		of("outcomes_end", func(p *event.Progress) uint64 { return uint64(p.OutcomesEnd) }),
		of("read", func(p *event.Progress) uint64 { return uint64(p.Read) }),
		of("attributed", func(p *event.Progress) uint64 { return uint64(p.Attributed) }),
		of("reversed", func(p *event.Progress) uint64 { return uint64(p.Reversed) }),
		of("duplicate", func(p *event.Progress) uint64 { return uint64(p.Duplicate) }),
		of("conflict", func(p *event.Progress) uint64 { return uint64(p.Conflict) }),
		of("unattributed", func(p *event.Progress) uint64 { return uint64(p.Unattributed) }),
		of("unreadable", func(p *event.Progress) uint64 { return uint64(p.Unreadable) }),
		of("waiting", func(p *event.Progress) uint64 { return uint64(p.Waiting) }),
		of("oldest_waiting_received_at", func(p *event.Progress) *int64 { return (*int64)(p.OldestWaitingReceivedAt) }),
		of("caught_up", func(p *event.Progress) bool { return p.CaughtUp }),
		of("grace_ms", func(p *event.Progress) uint64 { return uint64(p.GraceMs) }),
	}
}

// version is a record of the catalog.
type version struct {
	workspace, kind, key, json string
	at                         event.Millis
}

func versionColumns() []named[version] {
	return []named[version]{
		recurring("workspace_id", func(v *version) string { return v.workspace }),
		recurring("kind", func(v *version) string { return v.kind }),
		of("key", func(v *version) string { return v.key }),
		of("json", func(v *version) string { return v.json }),
	}
}
