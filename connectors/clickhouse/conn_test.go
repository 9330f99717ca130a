package clickhouse_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
)

func openTestDB(t testing.TB) *clickhouse.Conn {
	t.Helper()
	return openTestDSN(t, clickhousetest.ForTest(t))
}

func openTestDSN(t testing.TB, dsn string) *clickhouse.Conn {
	t.Helper()
	conn, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: dsn}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func execAll(t testing.TB, conn *clickhouse.Conn, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// queryNumber returns the one number of a query "SELECT … AS n".
func queryNumber(t testing.TB, conn *clickhouse.Conn, query string) uint64 {
	t.Helper()
	var rows []struct {
		N uint64 `ch:"n"`
	}
	if err := conn.Select(t.Context(), &rows, query); err != nil || len(rows) != 1 {
		t.Fatalf("%s: %d rows, %v", query, len(rows), err)
	}
	return rows[0].N
}

type typedRow struct {
	At       time.Time         `ch:"at"`
	Maybe    *int64            `ch:"maybe"`
	Many     []string          `ch:"many"`
	Metadata map[string]string `ch:"metadata"`
	Low      string            `ch:"low"`
	Fixed    string            `ch:"fixed"`
	Big      uint64            `ch:"big"`
	Small    int8              `ch:"small"`
	Flag     bool              `ch:"flag"`
	LowMaybe *string           `ch:"low_maybe"`
	Day      time.Time         `ch:"day"`
}

// Every type that the tables use, by rows and by columns, with every compression, there
// and back.
func TestTypesRoundTrip(t *testing.T) {
	dsn := clickhousetest.ForTest(t)
	columns := []string{"at", "maybe", "many", "metadata", "low", "fixed", "big", "small", "flag", "low_maybe", "day"}
	n := int64(-5)
	word := "it's"
	want := []typedRow{
		{
			At:       time.UnixMilli(1_700_000_000_123).UTC(),
			Maybe:    &n,
			Many:     []string{"a", "", "tab\t"},
			Metadata: map[string]string{"k": "v\n", "": ""},
			Low:      "low",
			Fixed:    strings.Repeat("\x00\xff", 16),
			Big:      1<<64 - 1,
			Small:    -128,
			Flag:     true,
			LowMaybe: &word,
			Day:      time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC),
		},
		{
			At:       time.UnixMilli(0).UTC(),
			Many:     []string{},
			Metadata: map[string]string{},
			Fixed:    strings.Repeat("x", 32),
			Small:    127,
			Day:      time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		},
	}
	for _, option := range []string{"", "?compress=lz4", "?compress=zstd", "?compress=gzip", "?compress=deflate"} {
		conn := openTestDSN(t, dsn+option)
		execAll(t, conn, `CREATE OR REPLACE TABLE types (
				at DateTime64(3,'UTC'), maybe Nullable(Int64), many Array(String), metadata Map(String,String),
				low LowCardinality(String), fixed FixedString(32), big UInt64, small Int8, flag Bool,
				low_maybe LowCardinality(Nullable(String)), day Date
			) ENGINE = MergeTree ORDER BY at`)
		for name, fill := range map[string]func(*clickhouse.Batch) error{
			"rows": func(b *clickhouse.Batch) error {
				for _, r := range want {
					if err := b.Append(r.At, r.Maybe, r.Many, r.Metadata, r.Low, r.Fixed, r.Big, r.Small, r.Flag,
						r.LowMaybe, r.Day); err != nil {
						return err
					}
				}
				return nil
			},
			"columns": func(b *clickhouse.Batch) error {
				var err error
				for i, column := range []any{
					[]time.Time{want[0].At, want[1].At},
					[]*int64{want[0].Maybe, want[1].Maybe},
					[][]string{want[0].Many, want[1].Many},
					[]map[string]string{want[0].Metadata, want[1].Metadata},
					[]string{want[0].Low, want[1].Low},
					[]string{want[0].Fixed, want[1].Fixed},
					[]uint64{want[0].Big, want[1].Big},
					[]int8{want[0].Small, want[1].Small},
					[]bool{want[0].Flag, want[1].Flag},
					[]*string{want[0].LowMaybe, want[1].LowMaybe},
					[]time.Time{want[0].Day, want[1].Day},
				} {
					err = errors.Join(err, b.Column(i, column))
				}
				return err
			},
		} {
			execAll(t, conn, "TRUNCATE TABLE types")
			if err := conn.Insert(t.Context(), clickhouse.Insert{Table: "types", Columns: columns}, fill); err != nil {
				t.Errorf("%s%s: %v", name, option, err)
				continue
			}
			var got []typedRow
			if err := conn.Select(t.Context(), &got, "SELECT * FROM types ORDER BY at DESC"); err != nil {
				t.Errorf("%s%s: %v", name, option, err)
			} else if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s%s: (-want +got)\n%s", name, option, diff)
			}
		}
	}
}

func TestArguments(t *testing.T) {
	conn := openTestDB(t)
	at := time.Date(2026, 3, 1, 12, 0, 0, 5e6, time.UTC)
	var got []struct {
		Text string    `ch:"text"`
		List []string  `ch:"list"`
		At   time.Time `ch:"at"`
		N    int64     `ch:"n"`
	}
	err := conn.Select(t.Context(), &got, "SELECT {text:String} AS text, {list:Array(String)} AS list, "+
		"{at:DateTime64(3,'UTC')} AS at, {n:Int64} AS n",
		clickhouse.Named("text", "'; DROP TABLE t --\t\\ \n"), clickhouse.Named("list", []string{"a", "it's"}),
		clickhouse.Named("at", at), clickhouse.Named("n", int64(-1)))
	if err != nil || len(got) != 1 || got[0].Text != "'; DROP TABLE t --\t\\ \n" ||
		!reflect.DeepEqual(got[0].List, []string{"a", "it's"}) || !got[0].At.Equal(at) || got[0].N != -1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A large result needs little memory, and an abandoned one ends.
func TestRowsStream(t *testing.T) {
	conn := openTestDB(t)
	rows, err := conn.Rows(t.Context(), "SELECT number, 'value ' || toString(number) AS text FROM numbers(1000000)")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(rows.Columns(), []string{"number", "text"}) {
		t.Errorf("columns %v", rows.Columns())
	}
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	n, most := uint64(0), uint64(0)
	for rows.Next() {
		var number uint64
		var text string
		if err := rows.Scan(&number, &text); err != nil {
			t.Fatal(err)
		}
		if number != n || text != fmt.Sprint("value ", n) {
			t.Fatalf("row %d is %d, %q", n, number, text)
		}
		if n++; n%100_000 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
		}
	}
	if err := rows.Close(); err != nil || n != 1_000_000 {
		t.Fatalf("%d rows, %v", n, err)
	}
	if grown := int64(most) - int64(before.HeapAlloc); grown > 30<<20 {
		t.Errorf("the heap grew by %d MB", grown>>20)
	}
}

func TestRowsCloseEarly(t *testing.T) {
	conn := openTestDB(t)
	for range 30 { // more than there are connections
		rows, err := conn.Rows(t.Context(), "SELECT number FROM numbers(1000000000000)")
		if err != nil {
			t.Fatal(err)
		}
		if !rows.Next() {
			t.Fatal(rows.Err())
		}
		if err := rows.Close(); err != nil || rows.Next() || rows.Err() != nil {
			t.Fatalf("closed: %v, %v", err, rows.Err())
		}
	}
}

func TestRowsFailLate(t *testing.T) {
	conn := openTestDB(t)
	rows, err := conn.Rows(t.Context(), "SELECT number, throwIf(number = 900000) FROM numbers(1000000)")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rows.Next() {
		n++
	}
	if err := rows.Err(); n == 0 || n >= 900_000 || clickhouse.Code(err) != 395 || clickhouse.Unreachable(err) {
		t.Errorf("after %d rows: %v", n, err)
	}
	if err := rows.Close(); clickhouse.Code(err) != 395 {
		t.Errorf("closed: %v", err)
	}
}

func TestConcurrentUse(t *testing.T) {
	conn := openTestDB(t)
	execAll(t, conn, "CREATE TABLE c (g Int64, n Int64) ENGINE = MergeTree ORDER BY g")
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 10 {
				err := conn.Insert(t.Context(), clickhouse.Insert{Table: "c", Columns: []string{"g", "n"}},
					func(b *clickhouse.Batch) error {
						return errors.Join(b.Column(0, []int64{int64(g), int64(g)}),
							b.Column(1, []int64{int64(i), int64(i)}))
					})
				if err != nil {
					t.Error(err)
				}
				got := queryNumber(t, conn, fmt.Sprintf("SELECT count() AS n FROM c WHERE g = %d", g))
				if got != uint64(2*i+2) {
					t.Errorf("%d: %d rows after %d inserts", g, got, i+1)
				}
			}
		})
	}
	wg.Wait()
}

func TestOpenErrors(t *testing.T) {
	closed := closedPort(t)
	notClickHouse := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "<html>hello</html>")
	}))
	defer notClickHouse.Close()
	for dsn, want := range map[string]string{
		"":                                 "-clickhouse: missing",
		"host:8123":                        "-clickhouse: ",
		"http://":                          "-clickhouse: ",
		"ftp://user:geheim@127.0.0.1/x":    `-clickhouse: the scheme is neither http, https nor clickhouse`,
		"http://user:geheim@127.0.0.1:a/":  "-clickhouse: ",
		"http://u:geheim@127.0.0.1:1/a-b":  `database "a-b" is not an identifier`,
		"http://u:geheim@" + closed + "/p": "connecting to ClickHouse at [" + closed + `] as "u"`,
		"http://u:geheim@" + strings.TrimPrefix(notClickHouse.URL, "http://"): "connecting to ClickHouse",
	} {
		_, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: dsn}, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	return listener.Addr().String()
}

func TestUnreachable(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(status)
		io.WriteString(w, "upstream")
	}))
	defer server.Close()
	open := func(address string) error {
		_, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: "http://default@" + address +
			"/p?dial_timeout=2s"}, slog.New(slog.DiscardHandler))
		return err
	}
	if err := open(closedPort(t)); !clickhouse.Unreachable(err) {
		t.Errorf("a closed port: %v", err)
	}
	if err := open("nosuch.invalid:8123"); !clickhouse.Unreachable(err) {
		t.Errorf("an unknown host: %v", err)
	}
	address := strings.TrimPrefix(server.URL, "http://")
	for code, want := range map[int]bool{
		0:   true,
		502: true,
		503: true,
		504: true,
		429: true,
		408: true,
		401: false,
		403: false,
		404: false,
	} {
		status = code
		if err := open(address); err == nil || clickhouse.Unreachable(err) != want {
			t.Errorf("HTTP %d: %v", code, err)
		}
	}
	conn := openTestDSN(t, clickhousetest.ForTest(t))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := conn.Exec(ctx, "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)")
	if !clickhouse.Unreachable(err) {
		t.Errorf("a deadline: %v", err)
	}
	if err := conn.Exec(t.Context(), "SELECT sleep(0.2) FROM numbers(100) SETTINGS max_execution_time = 0.1, "+
		"max_block_size = 1"); clickhouse.Code(err) != 159 || !clickhouse.Unreachable(err) {
		t.Errorf("the server's time limit: %v", err)
	}
	if err := conn.Exec(t.Context(), "SELECT groupArray(number) FROM numbers(100000000) SETTINGS "+
		"max_memory_usage = 10000000"); clickhouse.Code(err) != 241 || !clickhouse.Unreachable(err) {
		t.Errorf("the memory limit: %v", err)
	}
	for query, code := range map[string]int32{
		"SELECT * FROM nosuch": 60,
		"SELECT (":             62,
		"SELECT throwIf(1)":    395,
		"SELECT nosuch":        47,
	} {
		if err := conn.Exec(t.Context(), query); clickhouse.Code(err) != code || clickhouse.Unreachable(err) {
			t.Errorf("%s: %v", query, err)
		}
	}
	for code, name := range clickhouse.RetryableCodes() {
		if queryNumber(t, conn, fmt.Sprintf("SELECT toUInt64(errorCodeToName(%d) = '%s') AS n", code, name)) != 1 {
			t.Errorf("%d is not %s", code, name)
		}
	}
	idle := errors.New("http: server closed idle connection")
	closed := fmt.Errorf("sendQuery: %w", &url.Error{Op: "Post", URL: "http://127.0.0.1:8123", Err: idle})
	if !clickhouse.Unreachable(closed) {
		t.Error(closed)
	}
	if clickhouse.Unreachable(nil) || clickhouse.Unreachable(errors.New("anything")) {
		t.Error("nil or an unknown error counts as unreachable")
	}
}
