package export

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Days of which rows were dropped are refused, also with -as-of. A statement of a later
// month opens with what is left of them, and its manifest conserves what it did.
func TestDropped(t *testing.T) {
	r := newRig(t)
	r.rows(40, true)
	march, _, _ := r.run(config(t.TempDir()))
	april, _, want := r.runStatement(statementConfig(t.TempDir(), "2026-04"))
	if april.Rows == 0 {
		t.Fatal("nothing stands in April")
	}

	r.exec(`INSERT INTO dropped_conversions (workspace_id, src_partition, src_offset, arrived_at, received_at, entered_at)
		SELECT workspace_id, src_partition, src_offset, toDateTime64('2026-03-15', 3, 'UTC') AS at, received_at,
			entered_at
		FROM conversions`)
	r.exec(`INSERT INTO dropped_outcomes (workspace_id, src_partition, src_offset, arrived_at, event_partition, event_offset,
			received_at, occurred_at, verdict, effect, standing_change_minor, standing_basis, currency, exponent, partner_id,
			program_id, rules_version)
		SELECT workspace_id, src_partition, src_offset, toDateTime64('2026-03-15', 3, 'UTC') AS at, event_partition,
			event_offset, received_at, occurred_at, verdict, effect, standing_change_minor, standing_basis, currency,
			exponent, partner_id, program_id, rules_version
		FROM outcomes`)
	r.exec("INSERT INTO dropped_months (month, done) VALUES (202603, true)")
	for _, table := range []string{"conversions", "outcomes"} {
		r.exec("INSERT INTO dropped_rows (table_name, month, src_partition, rows, end_offset) VALUES "+
			"('%[1]s', 202603, 0, 40, 40), ('%[1]s', 202603, 1, 40, 40)", table)
	}
	r.exec("TRUNCATE TABLE conversions")
	r.exec("TRUNCATE TABLE outcomes")

	again := config(t.TempDir())
	again.AsOf = march
	late := config(t.TempDir())
	late.From = "2026-03-31"
	for name, cfg := range map[string]Config{"days": config(t.TempDir()), "as of": again, "the last day": late,
		"a statement": statementConfig(t.TempDir(), "2026-03")} {
		if _, err := Run(t.Context(), r.conn, cfg); !errors.Is(err, ErrDropped) ||
			!strings.Contains(err.Error(), "rows before 2026-04 were dropped") {
			t.Errorf("%s: got %v, want %v", name, err, ErrDropped)
		}
	}
	cfg := statementConfig(t.TempDir(), "2026-04")
	cfg.AsOf = april
	m, _, got := r.runStatement(cfg)
	if !bytes.Equal(got, want) {
		t.Errorf("April (-want +got):\n%s", cmp.Diff(string(want), string(got)))
	}
	if diff := cmp.Diff(april.Conservation, m.Conservation); diff != "" {
		t.Errorf("April's manifest (-want +got):\n%s", diff)
	}
	cfg = config(t.TempDir())
	cfg.From, cfg.To = "2026-04-02", "2026-04-30" // the first begins in March, in UTC
	if _, err := Run(t.Context(), r.conn, cfg); err != nil {
		t.Errorf("days of which all rows are there: %v", err)
	}
}
