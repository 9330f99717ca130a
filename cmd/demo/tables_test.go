package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/schemas/event"
)

// The tables are read back into the records that went in: every field, null and
// present, and no click where no snapshot may be shown.
func TestTablesAreReadBack(t *testing.T) {
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	if err := conn.Exec(t.Context(), `
INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, flags, type, effect, occurred_at, received_at,
	decided_at, amount_minor, standing_change_minor, currency, exponent, quantity, content_sha256, event_partition, event_offset, first_offset,
	rules_version, clicked_at, link_id, partner_id, assigned_at, window_ms, sub5, is_bot, catalog_offset, src_offset)
VALUES
	('acme', 'e1', 't1', 'attributed', ['too_fast'], 'sale', 1, '2026-03-14 10:00:00.007', '2026-03-14 10:00:01',
		'2026-03-14 10:00:02', 1050, 1040, 'EUR', 2, 3, repeat('x', 32), 4, 17, 9, 1, '2026-03-13 09:00:00.001', 'l1', 'p1',
		'2026-01-05 00:00:00', 86400000, 'five', true, 41, 0),
	('acme', 'e2', 't2', 'unattributed', [], 'lead', 0, '2026-03-14 11:00:00', '2026-03-14 11:00:01',
		'2026-03-14 11:00:02', NULL, NULL, '', 0, NULL, repeat('y', 32), 5, 18, NULL, 1, NULL, '', '', NULL, 0, '', false, 0, 1)`,
	); err != nil {
		t.Fatal(err)
	}
	got, err := tableOutcomes(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	amount, standing := int64(1050), int64(1040)
	quantity, first := int32(3), int64(9)
	want := []event.Outcome{{
		WorkspaceID:    "acme",
		EventID:        "e1",
		ClickToken:     "t1",
		Verdict:        event.Attributed,
		Flags:          []string{event.FlagTooFast},
		Type:           event.Sale,
		Effect:         1,
		OccurredAt:     1773482400007,
		ReceivedAt:     1773482401000,
		DecidedAt:      1773482402000,
		AmountMinor:    &amount,
		Currency:       "EUR",
		Exponent:       2,
		Quantity:       &quantity,
		ContentSHA256:  [32]byte([]byte(strings.Repeat("x", 32))),
		EventPartition: 4,
		EventOffset:    17,
		FirstOffset:    &first,
		RulesVersion:   1,

		StandingChangeMinor: &standing,
		Metadata:            map[string]string{},
		ResolvedBy:          "token",
		Click: &event.Click{
			WorkspaceID:   "acme",
			ClickToken:    "t1",
			ClickedAt:     1773392400001,
			WindowMs:      86400000,
			LinkID:        "l1",
			PartnerID:     "p1",
			AssignedAt:    1767571200000,
			Sub5:          "five",
			IsBot:         true,
			CatalogOffset: 41,
		},
	}, {
		WorkspaceID:    "acme",
		EventID:        "e2",
		ClickToken:     "t2",
		Verdict:        event.Unattributed,
		Type:           event.Lead,
		OccurredAt:     1773486000000,
		ReceivedAt:     1773486001000,
		DecidedAt:      1773486002000,
		ContentSHA256:  [32]byte([]byte(strings.Repeat("y", 32))),
		EventPartition: 5,
		EventOffset:    18,
		RulesVersion:   1,
		Metadata:       map[string]string{},
		ResolvedBy:     "token",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	daily, err := tableDaily(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	wantDaily := []oracle.DailyRow{{
		DailyKey: oracle.DailyKey{WorkspaceID: "acme", Day: "2026-03-14", PartnerID: "p1", LinkID: "l1",
			Currency: "EUR",
			Exponent: 2},
		DailySums: oracle.DailySums{Sales: 1, GrossMinor: 1050, NetMinor: 1050, StandingMinor: 1040},
	}}
	if diff := cmp.Diff(wantDaily, daily); diff != "" {
		t.Error(diff)
	}
	if err := conn.Exec(t.Context(), `
INSERT INTO conversions (workspace_id, event_id, received_at, src_partition, src_offset) VALUES
	('acme', 'e1', '2026-03-14 10:00:01', 4, 0), ('acme', 'e3', '2026-03-14 12:00:01', 4, 1)`); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	d := &demo{stdout: &out}
	if err := d.printTables(t.Context(), conn); err != nil {
		t.Error(err)
	}
	const conservation = "conservation: received 2 = attributed 0 + reversed 0 + duplicate 0 + conflict 0 + " +
		"unattributed 0 + waiting 2, difference 0\n"
	if !strings.HasSuffix(out.String(), conservation) || !strings.Contains(out.String(), "EUR 10.40") {
		t.Errorf("got %s, want EUR 10.40 and %s", out.String(), conservation)
	}
}
