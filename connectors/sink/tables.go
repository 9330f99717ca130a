package sink

import (
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
)

// The columns of the tables, as functions of the records. Their names are those of the
// tables in schemas/ddl.

func clickColumns() []namedColumn[event.Click] {
	return append([]namedColumn[event.Click]{
		textColumn("workspace_id", func(c *event.Click) string { return c.WorkspaceID }),
		timeColumn("clicked_at", func(c *event.Click) event.Millis { return c.ClickedAt }),
		stringColumn("click_token", func(c *event.Click) string { return c.ClickToken }),
	}, contextColumns()...)
}

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
		maybeTimeColumn("assigned_at", func(c *event.Click) event.Millis { return c.AssignedAt }),
		numberColumn("window_ms", clickhouse.UInt64, func(c *event.Click) int64 { return max(c.WindowMs, 0) }),
		numberColumn("follow_ms", clickhouse.UInt64, func(c *event.Click) int64 { return max(c.FollowMs, 0) }),
		flagColumn("one_sale_per_order", func(c *event.Click) bool { return c.OneSalePerOrder }),
		textColumn("reward_terms", func(c *event.Click) string { return c.RewardTerms }),
		textColumn("utm_source", func(c *event.Click) string { return c.UTMSource }),
		textColumn("utm_medium", func(c *event.Click) string { return c.UTMMedium }),
		textColumn("utm_campaign", func(c *event.Click) string { return c.UTMCampaign }),
		textColumn("utm_term", func(c *event.Click) string { return c.UTMTerm }),
		textColumn("utm_content", func(c *event.Click) string { return c.UTMContent }),
		stringColumn("sub1", func(c *event.Click) string { return c.Sub1 }),
		stringColumn("sub2", func(c *event.Click) string { return c.Sub2 }),
		stringColumn("sub3", func(c *event.Click) string { return c.Sub3 }),
		stringColumn("sub4", func(c *event.Click) string { return c.Sub4 }),
		stringColumn("sub5", func(c *event.Click) string { return c.Sub5 }),
		textColumn("experiment", func(c *event.Click) string { return c.Experiment }),
		textColumn("variant", func(c *event.Click) string { return c.Variant }),
		textColumn("referrer_host", func(c *event.Click) string { return c.ReferrerHost }),
		textColumn("country", func(c *event.Click) string { return c.Country }),
		textColumn("device", func(c *event.Click) string { return c.Device }),
		textColumn("os", func(c *event.Click) string { return c.OS }),
		textColumn("browser", func(c *event.Click) string { return c.Browser }),
		flagColumn("is_bot", func(c *event.Click) bool { return c.IsBot }),
		textColumn("bot_reason", func(c *event.Click) string { return c.BotReason }),
		numberColumn("catalog_offset", clickhouse.Int64, func(c *event.Click) int64 { return c.CatalogOffset }),
	}
}

func conversionColumns() []namedColumn[event.Conversion] {
	return []namedColumn[event.Conversion]{
		textColumn("workspace_id", func(v *event.Conversion) string { return v.WorkspaceID }),
		stringColumn("event_id", func(v *event.Conversion) string { return v.EventID }),
		stringColumn("click_token", func(v *event.Conversion) string { return v.ClickToken }),
		textColumn("type", func(v *event.Conversion) string { return string(v.Type) }),
		textColumn("event_name", func(v *event.Conversion) string { return v.EventName }),
		timeColumn("occurred_at", func(v *event.Conversion) event.Millis { return v.OccurredAt }),
		timeColumn("received_at", func(v *event.Conversion) event.Millis { return v.ReceivedAt }),
		maybeNumberColumn("amount_minor", clickhouse.Int64, func(v *event.Conversion) *int64 { return v.AmountMinor }),
		textColumn("currency", func(v *event.Conversion) string { return v.Currency }),
		numberColumn("exponent", clickhouse.UInt8, func(v *event.Conversion) int64 { return int64(v.Exponent) }),
		maybeNumberColumn("quantity", clickhouse.Int32, func(v *event.Conversion) *int32 { return v.Quantity }),
		stringColumn("order_id", func(v *event.Conversion) string { return v.OrderID }),
		stringColumn("parent_event_id", func(v *event.Conversion) string { return v.ParentEventID }),
		stringColumn("reason_text", func(v *event.Conversion) string { return v.ReasonText }),
		stringColumn("customer_ref", func(v *event.Conversion) string { return v.CustomerRef }),
		pairsColumn("metadata", func(v *event.Conversion) map[string]string { return v.Metadata }),
		hashColumn("content_sha256", func(v *event.Conversion) *[32]byte { return &v.ContentSHA256 }),
		textColumn("key_id", func(v *event.Conversion) string { return v.KeyID }),
		timeColumn("entered_at", func(v *event.Conversion) event.Millis { return v.EnteredAt }),
		stringColumn("customer_hash", func(v *event.Conversion) string { return string(v.CustomerHash) }),
		listColumn("references", func(v *event.Conversion) []string { return v.References }),
		textColumn("resolved_by", func(v *event.Conversion) string { return string(v.ResolvedBy) }),
		flagColumn("reference_ambiguous", func(v *event.Conversion) bool { return v.ReferenceAmbiguous }),
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
		stringColumn("event_id", func(o *event.Outcome) string { return o.EventID }),
		stringColumn("click_token", func(o *event.Outcome) string { return o.ClickToken }),
		textColumn("verdict", func(o *event.Outcome) string { return string(o.Verdict) }),
		textColumn("reason", func(o *event.Outcome) string { return o.Reason }),
		listColumn("flags", func(o *event.Outcome) []string { return o.Flags }),
		textColumn("review", func(o *event.Outcome) string { return string(o.Review) }),
		textColumn("type", func(o *event.Outcome) string { return string(o.Type) }),
		textColumn("event_name", func(o *event.Outcome) string { return o.EventName }),
		numberColumn("effect", clickhouse.Int8, func(o *event.Outcome) int64 { return int64(o.Effect) }),
		timeColumn("occurred_at", func(o *event.Outcome) event.Millis { return o.OccurredAt }),
		timeColumn("received_at", func(o *event.Outcome) event.Millis { return o.ReceivedAt }),
		timeColumn("decided_at", func(o *event.Outcome) event.Millis { return o.DecidedAt }),
		maybeNumberColumn("amount_minor", clickhouse.Int64, func(o *event.Outcome) *int64 { return o.AmountMinor }),
		textColumn("currency", func(o *event.Outcome) string { return o.Currency }),
		numberColumn("exponent", clickhouse.UInt8, func(o *event.Outcome) int64 { return int64(o.Exponent) }),
		maybeNumberColumn("quantity", clickhouse.Int32, func(o *event.Outcome) *int32 { return o.Quantity }),
		stringColumn("order_id", func(o *event.Outcome) string { return o.OrderID }),
		stringColumn("parent_event_id", func(o *event.Outcome) string { return o.ParentEventID }),
		textColumn("parent_type", func(o *event.Outcome) string { return o.ParentType }),
		stringColumn("reason_text", func(o *event.Outcome) string { return o.ReasonText }),
		stringColumn("customer_ref", func(o *event.Outcome) string { return o.CustomerRef }),
		maybeNumberColumn("estimated_reward_minor", clickhouse.Int64, func(o *event.Outcome) *int64 {
			return o.EstimatedRewardMinor
		}),
		textColumn("reward_currency", func(o *event.Outcome) string { return o.RewardCurrency }),
		hashColumn("content_sha256", func(o *event.Outcome) *[32]byte { return &o.ContentSHA256 }),
		numberColumn("event_partition", clickhouse.UInt32, func(o *event.Outcome) int64 {
			return int64(o.EventPartition)
		}),
		numberColumn("event_offset", clickhouse.UInt64, func(o *event.Outcome) int64 { return o.EventOffset }),
		maybeNumberColumn("first_offset", clickhouse.UInt64, func(o *event.Outcome) *int64 { return o.FirstOffset }),
		numberColumn("rules_version", clickhouse.UInt16, func(o *event.Outcome) int64 { return int64(o.RulesVersion) }),
		maybeNumberColumn("standing_change_minor", clickhouse.Int64, standingChange),
		pairsColumn("metadata", func(o *event.Outcome) map[string]string { return o.Metadata }),
		textColumn("resolved_by", func(o *event.Outcome) string { return string(o.ResolvedBy) }),
		maybeTimeColumn("clicked_at", func(o *event.Outcome) event.Millis { return snapshot(o).ClickedAt }),
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

func rejectionColumns() []namedColumn[event.Rejection] {
	return []namedColumn[event.Rejection]{
		textColumn("workspace_id", func(r *event.Rejection) string { return r.WorkspaceID }),
		stringColumn("webhook_id", func(r *event.Rejection) string { return r.WebhookID }),
		stringColumn("event_id", func(r *event.Rejection) string { return r.EventID }),
		stringColumn("click_token", func(r *event.Rejection) string { return r.ClickToken }),
		timeColumn("received_at", func(r *event.Rejection) event.Millis { return r.ReceivedAt }),
		numberColumn("status", clickhouse.UInt16, func(r *event.Rejection) int64 { return int64(r.Status) }),
		textColumn("code", func(r *event.Rejection) string { return r.Code }),
		textColumn("field", func(r *event.Rejection) string { return r.Field }),
		stringColumn("detail", func(r *event.Rejection) string { return r.Detail }),
		hashColumn("body_sha256", func(r *event.Rejection) *[32]byte { return &r.BodySHA256 }),
		textColumn("key_id", func(r *event.Rejection) string { return r.KeyID }),
		textColumn("type", func(r *event.Rejection) string { return r.Type }),
		stringColumn("order_id", func(r *event.Rejection) string { return r.OrderID }),
		stringColumn("parent_event_id", func(r *event.Rejection) string { return r.ParentEventID }),
		stringColumn("customer_hash", func(r *event.Rejection) string { return string(r.CustomerHash) }),
	}
}

func progressColumns() []namedColumn[event.Progress] {
	return []namedColumn[event.Progress]{
		numberColumn("partition", clickhouse.UInt32, func(p *event.Progress) int64 { return int64(p.Partition) }),
		timeColumn("at", func(p *event.Progress) event.Millis { return p.At }),
		numberColumn("clicks_position", clickhouse.UInt64, func(p *event.Progress) int64 { return p.ClicksPosition }),
		numberColumn("conversions_position", clickhouse.UInt64, func(p *event.Progress) int64 {
			return p.ConversionsPosition
		}),
		timeColumn("clicks_max_at", func(p *event.Progress) event.Millis { return p.ClicksMaxAt }),
		timeColumn("conversions_max_at", func(p *event.Progress) event.Millis { return p.ConversionsMaxAt }),
		numberColumn("outcomes_end", clickhouse.UInt64, func(p *event.Progress) int64 { return p.OutcomesEnd }),
		numberColumn("read", clickhouse.UInt64, func(p *event.Progress) int64 { return p.Read }),
		numberColumn("attributed", clickhouse.UInt64, func(p *event.Progress) int64 { return p.Attributed }),
		numberColumn("reversed", clickhouse.UInt64, func(p *event.Progress) int64 { return p.Reversed }),
		numberColumn("duplicate", clickhouse.UInt64, func(p *event.Progress) int64 { return p.Duplicate }),
		numberColumn("conflict", clickhouse.UInt64, func(p *event.Progress) int64 { return p.Conflict }),
		numberColumn("unattributed", clickhouse.UInt64, func(p *event.Progress) int64 { return p.Unattributed }),
		numberColumn("unreadable", clickhouse.UInt64, func(p *event.Progress) int64 { return p.Unreadable }),
		numberColumn("waiting", clickhouse.UInt64, func(p *event.Progress) int64 { return p.Waiting }),
		maybeNumberColumn("oldest_waiting_received_at", clickhouse.Millis, func(p *event.Progress) *event.Millis {
			return p.OldestWaitingReceivedAt
		}),
		flagColumn("caught_up", func(p *event.Progress) bool { return p.CaughtUp }),
		numberColumn("grace_ms", clickhouse.UInt64, func(p *event.Progress) int64 { return p.GraceMs }),
		timeColumn("watermark", func(p *event.Progress) event.Millis { return p.Watermark }),
		numberColumn("click_life_ms", clickhouse.UInt64, func(p *event.Progress) int64 { return p.ClickLifeMs }),
		numberColumn("journey_life_ms", clickhouse.UInt64, func(p *event.Progress) int64 { return p.JourneyLifeMs }),
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
		stringColumn("key", func(v *catalogVersion) string { return v.key }),
		stringColumn("json", func(v *catalogVersion) string { return v.json }),
	}
}
