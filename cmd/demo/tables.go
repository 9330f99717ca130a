package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/schemas/event"
)

// outcomeRow is a row of the table outcomes.
type outcomeRow struct {
	WorkspaceID          string     `ch:"workspace_id"`
	EventID              string     `ch:"event_id"`
	ClickToken           string     `ch:"click_token"`
	Verdict              string     `ch:"verdict"`
	Reason               string     `ch:"reason"`
	Flags                []string   `ch:"flags"`
	Review               string     `ch:"review"`
	Type                 string     `ch:"type"`
	EventName            string     `ch:"event_name"`
	Effect               int8       `ch:"effect"`
	OccurredAt           time.Time  `ch:"occurred_at"`
	ReceivedAt           time.Time  `ch:"received_at"`
	AmountMinor          *int64     `ch:"amount_minor"`
	Currency             string     `ch:"currency"`
	Exponent             uint8      `ch:"exponent"`
	Quantity             *int32     `ch:"quantity"`
	OrderID              string     `ch:"order_id"`
	ParentEventID        string     `ch:"parent_event_id"`
	ParentType           string     `ch:"parent_type"`
	ReasonText           string     `ch:"reason_text"`
	CustomerRef          string     `ch:"customer_ref"`
	EstimatedRewardMinor *int64     `ch:"estimated_reward_minor"`
	RewardCurrency       string     `ch:"reward_currency"`
	ContentSHA256        string     `ch:"content_sha256"`
	EventPartition       uint32     `ch:"event_partition"`
	EventOffset          uint64     `ch:"event_offset"`
	FirstOffset          *uint64    `ch:"first_offset"`
	RulesVersion         uint16     `ch:"rules_version"`
	ClickedAt            *time.Time `ch:"clicked_at"`
	LinkID               string     `ch:"link_id"`
	Domain               string     `ch:"domain"`
	Slug                 string     `ch:"slug"`
	Destination          string     `ch:"destination"`
	Trigger              string     `ch:"trigger"`
	TokenStatus          string     `ch:"token_status"`
	TokenReason          string     `ch:"token_reason"`
	PartnerID            string     `ch:"partner_id"`
	PartnerKey           string     `ch:"partner_key"`
	PartnerName          string     `ch:"partner_name"`
	PartnerRelationship  string     `ch:"partner_relationship"`
	PartnerLifecycle     string     `ch:"partner_lifecycle"`
	ProgramID            string     `ch:"program_id"`
	ProgramKey           string     `ch:"program_key"`
	ProgramName          string     `ch:"program_name"`
	ProgramStatus        string     `ch:"program_status"`
	AssignmentID         string     `ch:"assignment_id"`
	AssignedAt           *time.Time `ch:"assigned_at"`
	WindowMs             uint64     `ch:"window_ms"`
	RewardTerms          string     `ch:"reward_terms"`
	UTMSource            string     `ch:"utm_source"`
	UTMMedium            string     `ch:"utm_medium"`
	UTMCampaign          string     `ch:"utm_campaign"`
	UTMTerm              string     `ch:"utm_term"`
	UTMContent           string     `ch:"utm_content"`
	Sub1                 string     `ch:"sub1"`
	Sub2                 string     `ch:"sub2"`
	Sub3                 string     `ch:"sub3"`
	Sub4                 string     `ch:"sub4"`
	Sub5                 string     `ch:"sub5"`
	Experiment           string     `ch:"experiment"`
	Variant              string     `ch:"variant"`
	ReferrerHost         string     `ch:"referrer_host"`
	Country              string     `ch:"country"`
	Device               string     `ch:"device"`
	OS                   string     `ch:"os"`
	Browser              string     `ch:"browser"`
	IsBot                bool       `ch:"is_bot"`
	BotReason            string     `ch:"bot_reason"`
	CatalogOffset        int64      `ch:"catalog_offset"`
}

const outcomeColumns = `workspace_id, event_id, click_token, verdict, reason, flags, review, type, event_name, effect, occurred_at, received_at, amount_minor, currency, exponent, quantity,
	order_id, parent_event_id, parent_type, reason_text, customer_ref, estimated_reward_minor, reward_currency, content_sha256, event_partition, event_offset, first_offset, rules_version,
	clicked_at, link_id, domain, slug, destination, trigger, token_status, token_reason, partner_id, partner_key, partner_name, partner_relationship, partner_lifecycle, program_id, program_key,
	program_name, program_status, assignment_id, assigned_at, window_ms, reward_terms, utm_source, utm_medium, utm_campaign, utm_term, utm_content, sub1, sub2, sub3, sub4, sub5, experiment, variant,
	referrer_host, country, device, os, browser, is_bot, bot_reason, catalog_offset`

// tableOutcomes reads the table back into the form that the oracle speaks, snapshot
// included.
func tableOutcomes(ctx context.Context, wh *clickhouse.Conn) ([]event.Outcome, error) {
	var rows []outcomeRow
	if err := wh.Select(ctx, &rows, "SELECT "+outcomeColumns+" FROM outcomes"); err != nil {
		return nil, err
	}
	out := make([]event.Outcome, len(rows))
	for i := range rows {
		out[i] = rows[i].outcome()
	}
	return out, nil
}

func (r *outcomeRow) outcome() event.Outcome {
	o := event.Outcome{WorkspaceID: r.WorkspaceID, EventID: r.EventID, ClickToken: r.ClickToken,
		Verdict: event.Verdict(r.Verdict), Reason: r.Reason, Flags: r.Flags, Review: event.Review(r.Review),
		Type: event.Type(r.Type), EventName: r.EventName, Effect: int32(r.Effect), OccurredAt: event.MillisOf(
			r.OccurredAt), ReceivedAt: event.MillisOf(r.ReceivedAt), AmountMinor: r.AmountMinor,
		Currency: r.Currency, Exponent: int32(
			r.Exponent), Quantity: r.Quantity, OrderID: r.OrderID, ParentEventID: r.ParentEventID, ParentType: r.ParentType, ReasonText: r.ReasonText,
		CustomerRef: r.CustomerRef, EstimatedRewardMinor: r.EstimatedRewardMinor, RewardCurrency: r.RewardCurrency, EventPartition: int32(r.EventPartition), EventOffset: int64(r.EventOffset),
		RulesVersion: int32(r.RulesVersion)}
	copy(o.ContentSHA256[:], r.ContentSHA256)
	if len(r.Flags) == 0 {
		o.Flags = nil
	}
	if r.FirstOffset != nil {
		first := int64(*r.FirstOffset)
		o.FirstOffset = &first
	}
	if r.ClickedAt == nil {
		return o
	}
	o.Click = &event.Click{WorkspaceID: r.WorkspaceID, ClickToken: r.ClickToken,
		ClickedAt: event.MillisOf(*r.ClickedAt), WindowMs: int64(r.WindowMs), TokenStatus: event.TokenStatus(
			r.TokenStatus),
		TokenReason: r.TokenReason, LinkID: r.LinkID, Domain: r.Domain, Slug: r.Slug, Destination: r.Destination, Trigger: event.Trigger(r.Trigger), PartnerID: r.PartnerID, PartnerKey: r.PartnerKey,
		PartnerName: r.PartnerName, PartnerRelationship: r.PartnerRelationship, PartnerLifecycle: r.PartnerLifecycle, ProgramID: r.ProgramID, ProgramKey: r.ProgramKey, ProgramName: r.ProgramName,
		ProgramStatus: r.ProgramStatus, AssignmentID: r.AssignmentID, RewardTerms: r.RewardTerms, UTMSource: r.UTMSource, UTMMedium: r.UTMMedium, UTMCampaign: r.UTMCampaign, UTMTerm: r.UTMTerm,
		UTMContent: r.UTMContent, Sub1: r.Sub1, Sub2: r.Sub2, Sub3: r.Sub3, Sub4: r.Sub4, Sub5: r.Sub5, Experiment: r.Experiment, Variant: r.Variant, ReferrerHost: r.ReferrerHost, Country: r.Country,
		Device: r.Device, OS: r.OS, Browser: r.Browser, IsBot: r.IsBot, BotReason: r.BotReason,
		CatalogOffset: r.CatalogOffset}
	if r.AssignedAt != nil {
		o.Click.AssignedAt = event.MillisOf(*r.AssignedAt)
	}
	return o
}

// tableDaily reads partner_daily without the rows that say nothing.
func tableDaily(ctx context.Context, wh *clickhouse.Conn) (out []oracle.DailyRow, err error) {
	rows, err := wh.Rows(ctx, `SELECT workspace_id, toString(day), partner_id, program_id, link_id, currency, toInt32(exponent), toInt64(clicks), toInt64(human_clicks), toInt64(tokened_clicks),
		toInt64(leads), toInt64(sales), toInt64(refunds), toInt64(cancellations), toInt64(reversals), toInt64(gross_minor), toInt64(negative_minor), toInt64(net_minor), toInt64(reward_minor)
		FROM partner_daily`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r oracle.DailyRow
		if err := rows.Scan(&r.WorkspaceID, &r.Day, &r.PartnerID, &r.ProgramID, &r.LinkID, &r.Currency, &r.Exponent,
			&r.Clicks, &r.HumanClicks, &r.TokenedClicks, &r.Leads, &r.Sales,
			&r.Refunds, &r.Cancellations, &r.Reversals, &r.GrossMinor, &r.NegativeMinor, &r.NetMinor,
			&r.RewardMinor); err != nil {
			return nil, err
		}
		if r.DailySums != (oracle.DailySums{}) {
			out = append(out, r)
		}
	}
	return out, rows.Err()
}

// partnerRow is a line of the partner table.
type partnerRow struct {
	Workspace    string `ch:"workspace_id"`
	Partner      string `ch:"partner"`
	Relationship string `ch:"relationship"`
	Program      string `ch:"program"`
	Clicks       uint64 `ch:"clicks"`
	Leads        int64  `ch:"leads"`
	Sales        int64  `ch:"sales"`
	Refunds      int64  `ch:"refunds"`
	Cancelled    int64  `ch:"cancellations"`
	Reversals    int64  `ch:"reversals"`
	Money        string `ch:"money"` // lines of currency, exponent, net in minor units
}

// money prints exact amounts, a currency a line: they are never added up.
func (p *partnerRow) money() string {
	var lines []string
	for line := range strings.Lines(p.Money) {
		var currency string
		var exponent int32
		var minor int64
		if n, err := fmt.Sscan(line, &currency, &exponent, &minor); err == nil && n == 3 {
			lines = append(lines, currency+" "+event.Decimal(minor, exponent))
		}
	}
	return strings.Join(lines, "\n")
}

// badges are the words of the relationship on the page.
var badges = map[string]string{
	"approved":    "Approved",
	"review":      "Review",
	"invited":     "Invited",
	"declined":    "Declined",
	"banned":      "Banned",
	"deactivated": "Deactivated",
}

// printTables prints the partners, the conservation of each workspace, and the line
// that says it all.
func (d *demo) printTables(ctx context.Context, wh *clickhouse.Conn) error {
	var partners []partnerRow
	if err := wh.Select(ctx, &partners, `SELECT workspace_id, any(partner_name) AS partner, any(partner_relationship) AS relationship, any(program_name) AS program,
			toUInt64(sum(clicks_sum)) AS clicks, toInt64(sum(leads_sum)) AS leads, toInt64(sum(sales_sum)) AS sales, toInt64(sum(refunds_sum)) AS refunds, toInt64(sum(cancellations_sum)) AS cancellations, toInt64(sum(reversals_sum)) AS reversals,
			arrayStringConcat(arraySort(groupArrayIf(concat(toString(currency), ' ', toString(exponent), ' ', toString(net)), currency != '' AND (net != 0 OR sales_sum != 0))), '\n') AS money
		FROM (SELECT workspace_id, partner_id, program_id, currency, any(exponent) AS exponent, any(partner_name) AS partner_name, any(partner_relationship) AS partner_relationship, any(program_name) AS program_name,
				sum(clicks) AS clicks_sum, sum(leads) AS leads_sum, sum(sales) AS sales_sum, sum(refunds) AS refunds_sum, sum(cancellations) AS cancellations_sum, sum(reversals) AS reversals_sum, sum(net_minor) AS net
			FROM partner_performance GROUP BY workspace_id, partner_id, program_id, currency)
		GROUP BY workspace_id, partner_id, program_id ORDER BY workspace_id, clicks DESC`); err != nil {
		return err
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleRounded)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"Workspace", "Partner", "Status", "Program", "Clicks", "Leads", "Sales", "Refunds",
		"Cancelled", "Reversals", "Net revenue"})
	var columns []table.ColumnConfig
	for n := 5; n <= 11; n++ {
		columns = append(columns, table.ColumnConfig{Number: n, Align: text.AlignRight})
	}
	t.SetColumnConfigs(columns)
	for _, p := range partners {
		name, badge := p.Partner, badges[p.Relationship]
		if name == "" {
			name, badge = "(no partner)", ""
		}
		t.AppendRow(table.Row{p.Workspace, name, badge, p.Program, p.Clicks, p.Leads, p.Sales, p.Refunds, p.Cancelled,
			p.Reversals, p.money()})
	}
	d.say("\n%s\n", t.Render())
	return d.printConservation(ctx, wh)
}

func (d *demo) printConservation(ctx context.Context, wh *clickhouse.Conn) error {
	type sums struct {
		Workspaces   string `ch:"workspaces"`
		Received     uint64 `ch:"received"`
		Attributed   uint64 `ch:"attributed"`
		Reversed     uint64 `ch:"reversed"`
		Duplicate    uint64 `ch:"duplicate"`
		Conflict     uint64 `ch:"conflict"`
		Unattributed uint64 `ch:"unattributed"`
		Waiting      uint64 `ch:"waiting"`
		Difference   int64  `ch:"difference"`
	}
	var rows []sums
	if err := wh.Select(ctx, &rows, `SELECT arrayStringConcat(arraySort(groupUniqArray(toString(workspace_id))), ', ') AS workspaces, toUInt64(sum(w.received)) AS received, toUInt64(sum(w.attributed)) AS attributed,
		toUInt64(sum(w.reversed)) AS reversed, toUInt64(sum(w.duplicate)) AS duplicate, toUInt64(sum(w.conflict)) AS conflict, toUInt64(sum(w.unattributed)) AS unattributed, toUInt64(sum(w.waiting)) AS waiting,
		toInt64(sum(w.difference)) + (SELECT toInt64(sum(c.difference)) FROM conservation AS c) AS difference FROM workspace_conservation AS w`); err != nil {
		return err
	}
	s := rows[0]
	d.say("conservation: received %d = attributed %d + reversed %d + duplicate %d + conflict %d + unattributed %d "+
		"+ waiting %d, difference %d",
		s.Received, s.Attributed, s.Reversed, s.Duplicate, s.Conflict, s.Unattributed, s.Waiting, s.Difference)
	if s.Difference != 0 {
		return fmt.Errorf("conservation: difference %d in workspaces %s", s.Difference, strings.TrimSpace(s.Workspaces))
	}
	return nil
}
