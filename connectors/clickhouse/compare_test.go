package clickhouse_test

import (
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// Whatever is wrong with the sums, rows of differences make them right, however often
// they are inserted, and what lies outside of the comparison stays as it is.
func TestCompareSums(t *testing.T) {
	conn := openTestDB(t)
	execAll(t, conn,
		"CREATE TABLE a (at DateTime64(3, 'UTC'), p UInt32, k String, v Int64) ENGINE = MergeTree ORDER BY at",
		"CREATE TABLE b (at DateTime64(3, 'UTC'), p UInt32) ENGINE = MergeTree ORDER BY at",
		`CREATE TABLE sums (
				hour DateTime('UTC'), k LowCardinality(String), src LowCardinality(String), p UInt32,
				n SimpleAggregateFunction(sum, UInt64), s SimpleAggregateFunction(sum, Int128)
			) ENGINE = AggregatingMergeTree PARTITION BY toYYYYMM(hour) ORDER BY (hour, k, src, p)
			SETTINGS non_replicated_deduplication_window = 1000`,
		"CREATE MATERIALIZED VIEW from_a TO sums AS SELECT toDateTime(toStartOfHour(at), 'UTC') AS hour, k, "+
			"'a' AS src, p, count() AS n, sum(toInt128(v)) AS s FROM a GROUP BY hour, k, p",
		"CREATE MATERIALIZED VIEW from_b TO sums AS SELECT 'b' AS src, toDateTime(toStartOfHour(at), 'UTC') AS hour, "+
			"p, count() AS n FROM b GROUP BY hour, p",
		"INSERT INTO a SELECT toDateTime64('2026-01-31 20:00:00', 3, 'UTC') + number * 60, number % 2, "+
			"toString(number % 3), if(number % 5 = 0, -1, 1) * 9223372036854775807 FROM numbers(600)",
		"INSERT INTO b SELECT toDateTime64('2026-01-31 20:00:00', 3, 'UTC') + number * 60, number % 2 "+
			"FROM numbers(600)")
	all := func(p int) string {
		t.Helper()
		var rows []struct {
			Lines []string `ch:"lines"`
		}
		if err := conn.Select(t.Context(), &rows, "SELECT groupArray(line) AS lines FROM (SELECT concatWithSeparator("+
			"' ', toString(hour), k, src, toString(sum(n)), toString(sum(s))) AS line FROM sums "+
			"WHERE p = {p:UInt32} GROUP BY hour, k, src HAVING sum(n) != 0 OR sum(s) != 0 ORDER BY hour, k, src)",
			clickhouse.Named("p", p)); err != nil {
			t.Fatal(err)
		}
		return strings.Join(rows[0].Lines, "\n")
	}
	compare := func(src string) *clickhouse.SumDifferences {
		t.Helper()
		d, err := conn.CompareSums(t.Context(), clickhouse.Comparison{
			Table:  "sums",
			Within: "src = {src:String} AND p = 1",
			Args:   []any{clickhouse.Named("src", src)},
		})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	want := all(1)
	if d := compare("a"); d.Lines() != 0 {
		t.Fatalf("of sums that are right: %v", d)
	}
	execAll(t, conn,
		"INSERT INTO sums SELECT toDateTime('2026-01-31 20:00:00', 'UTC'), '1', 'a', 1, 7, -7",
		"INSERT INTO sums SELECT toDateTime('2026-03-01 20:00:00', 'UTC'), 'new', 'a', 1, 1, 0",
		"INSERT INTO sums SELECT hour, k, src, p, n, -s FROM sums FINAL WHERE hour = '2026-02-01 00:00:00' AND "+
			"src = 'a'",
		"DELETE FROM sums WHERE hour = '2026-02-01 01:00:00' AND p = 1")
	damaged := all(1)
	elsewhere := all(0)
	for _, src := range []string{"a", "b"} {
		d := compare(src)
		if d.Lines() == 0 {
			t.Fatalf("no difference was found in %s", damaged)
		}
		for range 2 {
			if err := conn.InsertDifferences(t.Context(), d, "token "+src); err != nil {
				t.Fatal(err)
			}
		}
		if d := compare(src); d.Lines() != 0 {
			t.Errorf("still different: %v", d)
		}
	}
	if got := all(1); got != want {
		t.Errorf("repaired:\n%s\nwant:\n%s", got, want)
	}
	if got := all(0); got != elsewhere {
		t.Errorf("outside of the comparison:\n%s\nwant:\n%s", got, elsewhere)
	}
}
