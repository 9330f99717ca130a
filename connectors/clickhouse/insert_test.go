package clickhouse_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
)

const windowSetting = " SETTINGS non_replicated_deduplication_window = 100"

// createViewChain makes src → mv → sums → mv2 → totals; mv2 throws as long as the table
// gate is empty.
func createViewChain(t *testing.T, conn *clickhouse.Conn) {
	t.Helper()
	execAll(t, conn,
		"CREATE TABLE gate (x UInt8) ENGINE = MergeTree ORDER BY x",
		"CREATE TABLE src (k UInt64, v UInt64) ENGINE = MergeTree ORDER BY k PARTITION BY k % 3"+windowSetting,
		"CREATE TABLE sums (k UInt64, s SimpleAggregateFunction(sum, UInt64))"+
			" ENGINE = AggregatingMergeTree ORDER BY k"+windowSetting,
		"CREATE MATERIALIZED VIEW mv TO sums AS SELECT k % 10 AS k, sum(v) AS s FROM src GROUP BY k",
		"CREATE TABLE totals (s SimpleAggregateFunction(sum, UInt64))"+
			" ENGINE = AggregatingMergeTree ORDER BY tuple()"+windowSetting,
		"CREATE MATERIALIZED VIEW mv2 TO totals AS"+
			" SELECT sum(s) + throwIf((SELECT count() FROM gate) = 0, 'closed') AS s FROM sums")
}

func insertRows(t *testing.T, conn *clickhouse.Conn, token string, rows int) error {
	t.Helper()
	return conn.Insert(t.Context(), clickhouse.Insert{Table: "src", Columns: []string{"v", "k"}, Token: token},
		func(b *clickhouse.Batch) error {
			v, k := make([]uint64, rows), make([]uint64, rows)
			for i := range rows {
				v[i], k[i] = 1, uint64(i)
			}
			if err := b.Column(0, v); err != nil {
				return err
			}
			return b.Column(1, k)
		})
}

func sumTables(t *testing.T, conn *clickhouse.Conn) [3]uint64 {
	t.Helper()
	return [3]uint64{
		queryNumber(t, conn, "SELECT count() AS n FROM src"),
		queryNumber(t, conn, "SELECT sum(s) AS n FROM sums"),
		queryNumber(t, conn, "SELECT sum(s) AS n FROM totals"),
	}
}

// The promise of the sink rests on this: the same token again changes nothing in any
// table of the chain, and completes a half-done insert.
func TestTokenThroughViews(t *testing.T) {
	conn := openTestDB(t)
	createViewChain(t, conn)
	for range 2 { // the second fails too, not with a leftover of the first
		err := insertRows(t, conn, "t1", 200_000)
		if clickhouse.Code(err) != 395 || clickhouse.Unreachable(err) ||
			!strings.Contains(err.Error(), "inserting 200000 rows into src") {
			t.Fatalf("a view that throws: %v", err)
		}
	}
	if got := sumTables(t, conn); got[2] != 0 {
		t.Errorf("after the failure %v", got)
	}
	execAll(t, conn, "INSERT INTO gate VALUES (1)")
	for _, step := range []struct {
		token string
		rows  int
		want  uint64
	}{
		{"t1", 200_000, 200_000},
		{"t1", 200_000, 200_000},
		{"t2", 200_000, 400_000},
		{"t1", 200_000, 400_000},
		{"", 5, 400_005},
		{"", 5, 400_010},
	} {
		if err := insertRows(t, conn, step.token, step.rows); err != nil {
			t.Fatal(err)
		}
		if got := sumTables(t, conn); got != [3]uint64{step.want, step.want, step.want} {
			t.Errorf("after %q: %v, want %d everywhere", step.token, got, step.want)
		}
	}
}

// A whole block at the limit stays one block, so its repetition is found.
func TestLargestInsertIsOneBlock(t *testing.T) {
	conn := openTestDB(t)
	createViewChain(t, conn)
	execAll(t, conn, "INSERT INTO gate VALUES (1)")
	for range 2 {
		if err := insertRows(t, conn, "large", clickhouse.MaxInsertRows); err != nil {
			t.Fatal(err)
		}
	}
	const rows = clickhouse.MaxInsertRows
	if got := sumTables(t, conn); got != [3]uint64{rows, rows, rows} {
		t.Errorf("got %v", got)
	}
	parts := queryNumber(t, conn, `SELECT count() AS n FROM system.parts
		WHERE database = currentDatabase() AND table = 'src' AND level = 0`)
	if parts != 3 {
		t.Errorf("%d parts written for 3 partitions", parts)
	}
	if err := insertRows(t, conn, "larger", clickhouse.MaxInsertRows+1); err == nil || clickhouse.Unreachable(err) {
		t.Errorf("one row more: %v", err)
	}
}

func TestInsertRefuses(t *testing.T) {
	conn := openTestDB(t)
	execAll(t, conn, "CREATE TABLE r (a Int64, s String) ENGINE = MergeTree ORDER BY a")
	fine := func(b *clickhouse.Batch) error { return b.Append(int64(1), "x") }
	both := []string{"a", "s"}
	for name, test := range map[string]struct {
		into clickhouse.Insert
		fill func(*clickhouse.Batch) error
		want string
	}{
		"columns of different lengths": {clickhouse.Insert{Table: "r", Columns: both}, func(b *clickhouse.Batch) error {
			if err := b.Column(0, []int64{1, 2}); err != nil {
				return err
			}
			return b.Column(1, []string{"x"})
		}, "column s has 1 rows, column a has 2"},
		"a column too many": {clickhouse.Insert{Table: "r", Columns: both}, func(b *clickhouse.Batch) error {
			return b.Column(2, []int64{1})
		}, "column 2 of 2"},
		"a value of no fit": {clickhouse.Insert{Table: "r", Columns: both}, func(b *clickhouse.Batch) error {
			return b.Append("x", "x")
		}, "converting string to Int64"},
		"a column of no fit": {clickhouse.Insert{Table: "r", Columns: both}, func(b *clickhouse.Batch) error {
			return b.Column(0, []string{"x"})
		}, "column a"},
		"too few values": {clickhouse.Insert{Table: "r", Columns: both}, func(b *clickhouse.Batch) error {
			return b.Append(int64(1))
		}, "expected 2 arguments"},
		"fill's own error": {clickhouse.Insert{Table: "r", Columns: both}, func(b *clickhouse.Batch) error {
			fine(b)
			return fmt.Errorf("mine")
		}, "mine"},
		"no such table": {clickhouse.Insert{Table: "nosuch", Columns: both}, fine, "has no table nosuch"},
		"no such column": {
			clickhouse.Insert{Table: "r", Columns: []string{"a", "nosuch"}},
			fine,
			"no column nosuch",
		},
		"no column":            {clickhouse.Insert{Table: "r"}, fine, "no columns"},
		"a table with a quote": {clickhouse.Insert{Table: "r`", Columns: both}, fine, "not an identifier"},
	} {
		t.Run(name, func(t *testing.T) {
			err := conn.Insert(t.Context(), test.into, test.fill)
			if err == nil || !strings.Contains(err.Error(), test.want) || clickhouse.Unreachable(err) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if err := conn.Insert(t.Context(), clickhouse.Insert{Table: "r", Columns: both}, func(*clickhouse.Batch) error {
		return nil
	}); err != nil {
		t.Errorf("no rows: %v", err)
	}
	if got := queryNumber(t, conn, "SELECT count() AS n FROM r"); got != 0 {
		t.Errorf("%d rows", got)
	}
	// What is cached of a table must not outlive its change.
	if err := conn.Insert(t.Context(), clickhouse.Insert{Table: "r", Columns: both}, fine); err != nil {
		t.Fatal(err)
	}
	execAll(t, conn, "ALTER TABLE r ADD COLUMN d DateTime64(3, 'UTC')")
	added := clickhouse.Insert{Table: "r", Columns: []string{"a", "d"}}
	at := func(b *clickhouse.Batch) error { return b.Append(int64(2), time.UnixMilli(5)) }
	first := conn.Insert(t.Context(), added, at)
	second := conn.Insert(t.Context(), added, at)
	if second != nil {
		t.Errorf("after the table was altered: %v, then %v", first, second)
	}
}

// Defaults differ between versions of ClickHouse, and some would double or lose rows.
// So every insert sends the settings that its token needs: a batch stays one block and
// is not merged with other inserts, no error of a view is ignored, and the tables
// behind views check the token too.
func TestInsertSettings(t *testing.T) {
	dsn := clickhousetest.ForTest(t)
	to, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	var sent atomic.Pointer[url.Values]
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to.Host})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if q := req.URL.Query(); strings.HasPrefix(q.Get("query"), "INSERT INTO") {
			sent.Store(&q)
		}
		proxy.ServeHTTP(w, req)
	}))
	defer server.Close()
	to.Host = strings.TrimPrefix(server.URL, "http://")
	conn := openTestDSN(t, to.String())
	execAll(t, conn, "CREATE TABLE src (k UInt64, v UInt64) ENGINE = MergeTree ORDER BY k"+windowSetting)
	for token, want := range map[string]map[string]string{
		"t1": {"insert_deduplication_token": "t1", "insert_deduplicate": "1", "deduplicate_insert": "enable"},
		"":   {"insert_deduplication_token": "", "insert_deduplicate": "0", "deduplicate_insert": "disable"},
	} {
		for name, value := range map[string]string{"async_insert": "0", "materialized_views_ignore_errors": "0",
			"deduplicate_blocks_in_dependent_materialized_views": "1", "max_insert_threads": "1",
			"parallel_view_processing": "0"} {
			want[name] = value
		}
		if err := insertRows(t, conn, token, 10); err != nil {
			t.Fatal(err)
		}
		q := sent.Load()
		if q == nil {
			t.Fatal("no insert came by")
		}
		for name, value := range want {
			if got := q.Get(name); got != value {
				t.Errorf("token %q: %s is %q, want %q", token, name, got, value)
			}
		}
	}
}

func TestWindows(t *testing.T) {
	conn := openTestDB(t)
	execAll(t, conn,
		"CREATE TABLE w (k UInt64) ENGINE = MergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = "+
			"12345, index_granularity = 4096",
		"CREATE TABLE target (k UInt64) ENGINE = SummingMergeTree ORDER BY k"+windowSetting,
		"CREATE MATERIALIZED VIEW a TO target AS SELECT k FROM w",
		"CREATE MATERIALIZED VIEW b TO target AS SELECT k + 1 AS k FROM w",
		"CREATE MATERIALIZED VIEW c ENGINE = MergeTree ORDER BY k AS SELECT k FROM target",
		"CREATE VIEW plain AS SELECT k FROM w")
	own, err := conn.Window(t.Context(), "w")
	if err != nil || own != (clickhouse.Window{Table: "w", Engine: "MergeTree", Blocks: 12345}) {
		t.Errorf("got %+v, %v", own, err)
	}
	all, err := conn.Windows(t.Context(), "w")
	if err != nil || len(all) != 3 || all[0] != own ||
		all[1] != (clickhouse.Window{Table: "target", Engine: "SummingMergeTree", Blocks: 100}) ||
		!strings.HasPrefix(all[2].Table, ".inner_id.") || all[2].Blocks != 0 {
		t.Errorf("got %+v, %v", all, err)
	}
	if _, err := conn.Windows(t.Context(), "nosuch"); err == nil ||
		!strings.Contains(err.Error(), "has no table nosuch") {
		t.Error(err)
	}
}

// BenchmarkInsert measures a wide row by columns, including the server, which runs in
// this process.
func BenchmarkInsert(b *testing.B) {
	conn := openTestDB(b)
	execAll(b, conn, `CREATE TABLE wide (
			w LowCardinality(String), p UInt32, o UInt64, at DateTime64(3,'UTC'), token String,
			link LowCardinality(String), dest String, n Nullable(Int64)
		) ENGINE = MergeTree ORDER BY (w, at)`)
	const rows = 100_000
	var (
		w     = make([]string, rows)
		p     = make([]uint32, rows)
		o     = make([]uint64, rows)
		at    = make([]time.Time, rows)
		token = make([]string, rows)
		link  = make([]string, rows)
		dest  = make([]string, rows)
		n     = make([]*int64, rows)
	)
	for i := range rows {
		w[i] = "acme"
		p[i] = 3
		o[i] = uint64(i)
		at[i] = time.UnixMilli(1_700_000_000_000 + int64(i))
		token[i] = fmt.Sprintf("%027d", i)
		link[i] = fmt.Sprint("lnk_", i%50)
		dest[i] = "https://shop.example.com/?ref=a"
	}
	columns := []string{"w", "p", "o", "at", "token", "link", "dest", "n"}
	began := cpuTime(b)
	for b.Loop() {
		err := conn.Insert(b.Context(), clickhouse.Insert{Table: "wide", Columns: columns},
			func(batch *clickhouse.Batch) error {
				for i, column := range []any{w, p, o, at, token, link, dest, n} {
					if err := batch.Column(i, column); err != nil {
						return err
					}
				}
				return nil
			})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*rows/(cpuTime(b)-began).Seconds(), "rows/cpu-s")
}

// cpuTime is the CPU time of this process so far, the server's included.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
