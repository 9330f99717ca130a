package clickhouse_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
)

// However wrong the sums are, a rebuild makes them equal to the base tables, within its
// bounds and nowhere else.
func TestRebuild(t *testing.T) {
	conn := openTestDB(t)
	execAll(t, conn,
		"CREATE TABLE a (at DateTime64(3, 'UTC'), k String, v UInt64) ENGINE = MergeTree ORDER BY at",
		"CREATE TABLE b (at DateTime64(3, 'UTC'), k String) ENGINE = MergeTree ORDER BY at",
		`CREATE TABLE sums (
				hour DateTime('UTC'), k LowCardinality(String),
				s SimpleAggregateFunction(sum, UInt64), n SimpleAggregateFunction(sum, UInt64)
			) ENGINE = AggregatingMergeTree PARTITION BY toYYYYMM(hour) ORDER BY (k, hour)
			SETTINGS non_replicated_deduplication_window = 1000`,
		"CREATE MATERIALIZED VIEW from_a TO sums AS SELECT toDateTime(toStartOfHour(at), 'UTC') AS hour, k, "+
			"sum(v) AS s FROM a GROUP BY hour, k",
		"CREATE MATERIALIZED VIEW from_b TO sums AS SELECT k, toDateTime(toStartOfHour(at), 'UTC') AS hour, "+
			"count() AS n FROM b GROUP BY hour, k",
		"CREATE MATERIALIZED VIEW elsewhere ENGINE = MergeTree ORDER BY k AS SELECT k FROM b")
	for n := range 3 { // several parts of each month, January to April
		execAll(t, conn, fmt.Sprintf("INSERT INTO a SELECT toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + number * "+
			"7200 + %d, toString(number %% 3), number FROM numbers(1200)", n),
			fmt.Sprintf("INSERT INTO b SELECT toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + number * 10000 + "+
				"%d, toString(number %% 2) FROM numbers(900)", n))
	}
	all := func() string {
		var rows []struct {
			Line string `ch:"line"`
		}
		if err := conn.Select(t.Context(), &rows, "SELECT concatWithSeparator(' ', toString(hour), k, "+
			"toString(sum(s)), toString(sum(n))) AS line FROM sums GROUP BY hour, k ORDER BY hour, k"); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, r := range rows {
			b.WriteString(r.Line + "\n")
		}
		return b.String()
	}
	want := all()
	rebuild := func(from, to time.Time) *clickhouse.RebuildResult {
		t.Helper()
		got, err := conn.Rebuild(t.Context(), clickhouse.Rebuild{
			Table:       "sums",
			TimeColumn:  "hour",
			From:        from,
			To:          to,
			DropMissing: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := rebuild(time.Time{}, time.Time{}); strings.Join(got.Months, " ") != "202601 202602 202603 202604" ||
		got.Wrong != 0 || got.Missing != 0 || all() != want {
		t.Errorf("of sums that were right: %+v; sums the same: %v", got, all() == want)
	}
	damage := []string{
		"INSERT INTO sums SELECT toDateTime('2026-02-10 05:00:00', 'UTC'), '1', 7, 7", // doubled
		// a month without rows
		"INSERT INTO sums SELECT toDateTime('2025-11-03 00:00:00', 'UTC'), '1', 1, 1",
		"ALTER TABLE sums DROP PARTITION ID '202603'",
	}
	execAll(t, conn, damage...)
	got := rebuild(time.Time{}, time.Time{})
	if strings.Join(got.Months, " ") != "202511 202601 202602 202603 202604" ||
		got.Wrong != 2 || got.Missing < 300 || all() != want {
		t.Errorf("of damaged sums: %+v; repaired: %v", got, all() == want)
	}

	// Only the tenth of February, of a damaged February and a damaged March.
	execAll(t, conn, damage[0], "INSERT INTO sums SELECT toDateTime('2026-02-11 00:00:00', 'UTC'), '1', 1, 0",
		"INSERT INTO sums SELECT toDateTime('2026-03-11 00:00:00', 'UTC'), '1', 1, 0")
	day := time.Date(2026, 2, 10, 0, 0, 0, 0, time.UTC)
	if got := rebuild(day, day.AddDate(0, 0, 1)); strings.Join(got.Months, " ") != "202602" || got.Wrong != 1 {
		t.Errorf("of one day: %+v", got)
	}
	if n := queryNumber(t, conn, "SELECT count() AS n FROM (SELECT hour, k, sum(s) AS s, sum(n) AS n FROM sums GROUP "+
		"BY hour, k) WHERE hour = toDateTime('2026-02-11 00:00:00', 'UTC') AND k = '1' OR hour = "+
		"toDateTime('2026-03-11 00:00:00', 'UTC') AND k = '1'"); n != 2 {
		t.Errorf("%d lines of other days are as they were, want 2", n)
	}
	if got := rebuild(time.Time{}, time.Time{}); got.Wrong != 2 || all() != want {
		t.Errorf("of the rest: %+v; repaired: %v", got, all() == want)
	}
	if n := queryNumber(t, conn, "SELECT count() AS n FROM system.tables WHERE database = currentDatabase() AND name "+
		"LIKE '%rebuilt%'"); n != 0 {
		t.Error("the shadow table is still there")
	}
}

// Sums may outlive their rows: a rebuild drops them only on demand.
func TestRebuildKeepsOldSums(t *testing.T) {
	conn := openTestDB(t)
	execAll(t, conn,
		"CREATE TABLE a (at DateTime64(3, 'UTC'), arrived DateTime('UTC'), k String) ENGINE = MergeTree PARTITION "+
			"BY toYYYYMM(arrived) ORDER BY at",
		"CREATE TABLE sums (hour DateTime('UTC'), k String, n SimpleAggregateFunction(sum, UInt64)) ENGINE = "+
			"AggregatingMergeTree PARTITION BY toYYYYMM(hour) ORDER BY (k, hour)",
		"CREATE MATERIALIZED VIEW from_a TO sums AS SELECT toDateTime(toStartOfHour(at), 'UTC') AS hour, k, "+
			"count() AS n FROM a GROUP BY hour, k",
		// A row each hour from January to March; the last of a month arrive in the
		// next.
		"INSERT INTO a SELECT toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + number * 3600 AS at, at + 7200, 'k' "+
			"FROM numbers(90 * 24)",
		"ALTER TABLE a DROP PARTITION ID '202601'", "ALTER TABLE a DROP PARTITION ID '202602'",
		"INSERT INTO sums SELECT toDateTime('2026-03-10 05:00:00', 'UTC'), 'k', 7")
	sum := func() int { return int(queryNumber(t, conn, "SELECT sum(n) AS n FROM sums")) }
	rebuild := func(from time.Time, drop bool) error {
		_, err := conn.Rebuild(t.Context(), clickhouse.Rebuild{
			Table:       "sums",
			TimeColumn:  "hour",
			From:        from,
			DropMissing: drop,
		})
		return err
	}
	if err := rebuild(time.Time{}, false); !errors.Is(err, clickhouse.ErrMissing) ||
		!strings.HasSuffix(err.Error(), "days of 202601, 202602") || sum() != 90*24+7 {
		t.Errorf("sums without rows: %v, %d", err, sum())
	}
	if err := rebuild(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), false); err != nil || sum() != 90*24 {
		t.Errorf("only what has rows: %v, %d", err, sum())
	}
	if err := rebuild(time.Time{}, true); err != nil || sum() != 31*24+2 {
		t.Errorf("on demand: %v, %d", err, sum())
	}
}

func TestRebuildRefuses(t *testing.T) {
	conn := openTestDB(t)
	createViewChain(t, conn)
	execAll(t, conn, "CREATE TABLE unfed (hour DateTime('UTC'), n SimpleAggregateFunction(sum, UInt64)) ENGINE = "+
		"AggregatingMergeTree PARTITION BY toYYYYMM(hour) ORDER BY hour")
	for table, want := range map[string]string{
		"sums":  "partitioned by",
		"src":   "needed is AggregatingMergeTree",
		"unfed": "no materialized view",
		"none":  "run ctl migrate",
		"a b":   "identifier",
	} {
		if _, err := conn.Rebuild(t.Context(), clickhouse.Rebuild{Table: table, TimeColumn: "hour"}); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", table, err, want)
		}
	}
}

// A pool over several servers would make the shadow on one and look for it on another.
func TestRebuildRefusesSeveralServers(t *testing.T) {
	dsn := clickhousetest.ForTest(t)
	start, path, _ := strings.Cut(dsn, "://")
	hosts, database, _ := strings.Cut(path, "/")
	host := hosts[strings.LastIndex(hosts, "@")+1:]
	conn := openTestDSN(t, start+"://"+hosts+","+host+"/"+database)
	_, err := conn.Rebuild(t.Context(), clickhouse.Rebuild{Table: "sums", TimeColumn: "hour"})
	if err == nil || !strings.Contains(err.Error(), "-clickhouse: 2 servers are named, needed is one") {
		t.Errorf("got %v", err)
	}
}
