package sink

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func gaugeValue(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "partners_ledger_"+name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no %s", name)
	return 0
}

// The ledger metrics are what the views say: here a missing verdict, an id that counts
// twice, and clicks of which half can bring events.
func TestLedgerMetrics(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	reg := prometheus.NewRegistry()
	b := newLedgerMetrics(reg)
	if families, err := reg.Gather(); err != nil || len(families) > 0 {
		t.Errorf("before the first reading there are %d gauges, %v", len(families), err)
	}
	value := func(name string) float64 {
		t.Helper()
		if err := errors.Join(b.readViews(t.Context(), r.wh), b.compareEvents(t.Context(), r.wh),
			b.countListed(t.Context(), r.wh)); err != nil {
			t.Fatal(err)
		}
		return gaugeValue(t, reg, name)
	}
	if value("workspace_conservation_difference") != 0 {
		t.Error("an empty ledger has a difference by workspace")
	}
	if value("conservation_difference") != 0 || value("reused_event_ids") != 0 || value("token_coverage_ratio") != 1 {
		t.Error("an empty ledger has metrics other than zero")
	}
	if value("reused_orders") != 0 || value("negatives_without_effect") != 0 || value("positives_in_conflict") != 0 {
		t.Error("an empty ledger has reused orders, negatives without effect, or conflicts")
	}
	r.exec("INSERT INTO outcomes (workspace_id, event_id, click_token, effect, event_partition, event_offset, " +
		"src_partition, src_offset) SELECT 'acme', 'e', toString(number), 1, 0, number, 0, number FROM numbers(2)")
	r.exec("INSERT INTO conversions (workspace_id, event_id, src_partition, src_offset) SELECT 'acme', 'e', 0, " +
		"number FROM numbers(3)")
	r.exec("INSERT INTO progress (partition, at, read, attributed, conversions_position, outcomes_end, " +
		"src_partition, src_offset) SELECT 0, now64(3), 3, 3, 3, 2, 0, 0")
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES ('x', " +
		"'conversions', 0, 0, 3, 3), ('x', 'outcomes', 0, 0, 2, 2), ('x', 'progress', 0, 0, 1, 1)")
	r.exec("INSERT INTO clicks (workspace_id, click_token, clicked_at, token_status, src_partition, src_offset) " +
		"SELECT 'acme', toString(number), now64(3), ['appended', 'withheld', 'off', 'off'][1 + number], 0, number " +
		"FROM numbers(4)")
	if d := value("conservation_difference"); d != 1 {
		t.Errorf("a verdict is missing, the difference is %v", d)
	}
	if n := value("reused_event_ids"); n != 1 {
		t.Errorf("%v ids are reused", n)
	}
	r.exec("INSERT INTO outcomes (workspace_id, event_id, click_token, order_id, verdict, type, effect, " +
		"amount_minor, event_offset, src_offset) SELECT 'acme', toString(number), 't', 'o', " +
		"['attributed', 'unattributed'][1 + intDiv(number, 2)], ['sale', 'refund'][1 + intDiv(number, 2)], " +
		"number < 2, 100, 10 + number, 10 + number FROM numbers(4)")
	if n := value("reused_orders"); n != 1 {
		t.Errorf("%v orders are reused", n)
	}
	if n := value("negatives_without_effect"); n != 2 {
		t.Errorf("%v negatives have no effect", n)
	}
	r.exec("INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, type, flags, event_offset, " +
		"src_offset) SELECT 'acme', '0', 't', 'conflict', ['sale', 'lead', 'sale', 'refund'][1 + number], " +
		"if(number = 2, [], ['money_differs']), 20 + number, 20 + number FROM numbers(4)")
	if n := value("positives_in_conflict"); n != 2 {
		t.Errorf("%v leads and sales are conflicts that differ in money", n)
	}
	if c := value("token_coverage_ratio"); c != 0.5 {
		t.Errorf("coverage %v", c)
	}
}

// A lost row whose place another one takes: the counts agree, and only the comparison
// event by event sees it. Days that are long gone are left to reports.
func TestLedgerMetricsCompareEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	reg := prometheus.NewRegistry()
	m := newLedgerMetrics(reg)
	difference := func(name string) float64 {
		t.Helper()
		if err := errors.Join(m.readViews(t.Context(), r.wh), m.compareEvents(t.Context(), r.wh)); err != nil {
			t.Fatal(err)
		}
		return gaugeValue(t, reg, name)
	}
	// Three events of which the last has no row and the first has two.
	fill := func(ago string) {
		at := "now64(3) - INTERVAL " + ago
		r.exec("INSERT INTO conversions (workspace_id, event_id, received_at, entered_at, src_partition, " +
			"src_offset) SELECT 'acme', toString(number), " + at + ", " + at + ", 0, number FROM numbers(3)")
		r.exec("INSERT INTO outcomes (workspace_id, event_id, received_at, verdict, event_partition, event_offset, " +
			"src_partition, src_offset) SELECT 'acme', toString(n), " + at + ", 'attributed', 0, n, 0, number " +
			"FROM (SELECT number, [0, 1, 0][1 + number] AS n FROM numbers(3))")
	}
	fill("1 DAY") // waits end after an hour
	r.exec("INSERT INTO progress (partition, at, read, attributed, conversions_position, outcomes_end, watermark, " +
		"grace_ms, src_partition, src_offset) SELECT 0, now64(3), 3, 3, 3, 3, now64(3), 3600000, 0, 0")
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES ('x', " +
		"'conversions', 0, 0, 3, 3), ('x', 'outcomes', 0, 0, 3, 3), ('x', 'progress', 0, 0, 1, 1)")
	if d := difference("conservation_difference"); d != 0 {
		t.Errorf("the counts differ by %v", d)
	}
	if d := difference("workspace_conservation_difference"); d != 2 {
		t.Errorf("a row is missing and another is there twice, the difference is %v", d)
	}
	r.exec("TRUNCATE TABLE conversions")
	r.exec("TRUNCATE TABLE outcomes")
	fill("30 DAY")
	if d := difference("workspace_conservation_difference"); d != 0 {
		t.Errorf("a month ago: the difference is %v", d)
	}
}
