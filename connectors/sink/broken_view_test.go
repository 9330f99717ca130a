package sink

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/topic"
)

// A materialized view begins to throw while inserts run, a sink that is started again
// and again fails at it, and then it is repaired: the batch is in the base table, in
// the tables of the views beside it and above it already, and comes into the rest
// without coming into those twice. Broken are, in turn, both views that feed the
// rollup, a foreign view beside them, and one that reads what they write; in the short
// form one of each kind.
func TestBrokenView(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 2
	const window = " ENGINE = AggregatingMergeTree ORDER BY tuple() SETTINGS " +
		"non_replicated_deduplication_window = 100000"
	for _, statement := range []string{
		"CREATE TABLE own (clicks SimpleAggregateFunction(sum, UInt64))" + window,
		"CREATE MATERIALIZED VIEW own_from_clicks TO own AS SELECT count() AS clicks FROM clicks",
		"CREATE TABLE total (clicks SimpleAggregateFunction(sum, UInt64), " +
			"sales SimpleAggregateFunction(sum, UInt64))" + window,
		"CREATE MATERIALIZED VIEW total_from_rollup TO total AS SELECT sum(clicks) AS clicks, sum(sales) AS sales " +
			"FROM partner_quarter_hourly_state",
	} {
		r.exec(statement)
	}
	type breakage struct {
		view, throws, of string
		batch            int64 // from which on, of those that are declared next
	}
	broken := []breakage{
		{"partner_quarter_hourly_from_clicks", "clicks > 0", topic.Clicks, 3},
		{"partner_quarter_hourly_from_outcomes", "sales > 0", topic.Outcomes, 1},
		{"own_from_clicks", "clicks > 0", topic.Clicks, 3},
		{"total_from_rollup", "clicks > 0", topic.Clicks, 3},
		{"total_from_rollup", "sales > 0", topic.Outcomes, 1},
	}
	if !long {
		broken = []breakage{broken[0], broken[2], broken[4]}
	}
	small := func() *Sink {
		s := r.sink(r.wh)
		s.cfg.BatchRows = 50 // several for each partition
		return s
	}
	for _, c := range broken {
		sound := r.text("SELECT as_select AS s FROM system.tables WHERE database = currentDatabase() AND name = '" +
			c.view + "'")
		alter := func(query string) { r.exec("ALTER TABLE " + c.view + " MODIFY QUERY " + query) }
		r.fill(300)
		s := small()
		var declared atomic.Int64
		s.env.AfterStep = func(reached step, name string, _ int32) error {
			if reached == stepIntentWritten && name == c.of && declared.Add(1) == c.batch {
				alter("SELECT * FROM (" + sound + ") WHERE NOT throwIf(" + c.throws + ", 'broken on purpose')")
			}
			return nil
		}
		for i := range 2 {
			if err := r.start(s).end(t); clickhouse.Code(err) != 395 || NeedsOperator(err) {
				t.Fatalf("%s throws, and sink %d ended with %v", c.view, i, err)
			}
			s = small()
			r.fill(60)
		}
		alter(sound)
		run := r.start(r.sink(r.wh))
		r.arrived()
		run.stop(t)
		r.check()
		for query, want := range map[string]int64{"SELECT toString(sum(clicks)) AS s FROM own": r.sums["clicks"],
			"SELECT toString(sum(clicks)) AS s FROM total": r.sums["clicks"],
			"SELECT toString(sum(sales)) AS s FROM total":  r.sums["sales"]} {
			if got := r.text(query); got != fmt.Sprint(want) {
				t.Errorf("%s: %s, want %d", query, got, want)
			}
		}
		if t.Failed() {
			t.Fatalf("after %s was broken where %s", c.view, c.throws)
		}
	}
}

// text is the answer to a query for one text, named s.
func (r *rig) text(query string) string {
	r.t.Helper()
	var rows []struct {
		S string `ch:"s"`
	}
	if err := r.wh.Select(r.t.Context(), &rows, query); err != nil || len(rows) != 1 {
		r.t.Fatalf("%s: %v %v", query, rows, err)
	}
	return rows[0].S
}
