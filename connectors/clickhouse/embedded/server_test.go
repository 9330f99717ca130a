package embedded

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/klauspost/compress/zstd"
)

// hang is how long a test waits for what must come: it is for what never comes, far
// beyond what a slow machine takes.
const hang = 3 * time.Minute

// testConfig returns a configuration with a library, or skips the test; where CI=true
// or PARTNERS_REQUIRE_KAFKA=1 it fails instead.
func testConfig(t testing.TB) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Library = os.Getenv("PARTNERS_LIBCHDB")
	library, err := Prepare(context.Background(), cfg, nil)
	if errors.Is(err, ErrNoLibrary) && os.Getenv("CI") != "true" && os.Getenv("PARTNERS_REQUIRE_KAFKA") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg.Library, cfg.DataDir = library, t.TempDir()
	return cfg
}

func startServer(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := Start(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// idleSessions counts the sessions that are not in use.
func (s *Server) idleSessions() int { return len(s.pool.queries) + len(s.pool.inserts) }

// httpResult is a finished HTTP exchange; broken says how its transfer ended early.
type httpResult struct {
	status int
	header http.Header
	body   string
	broken error
}

func (a httpResult) exceptionCode() string { return a.header.Get("X-ClickHouse-Exception-Code") }

// postStatement sends body to the server; params are the URL's query.
func (s *Server) postStatement(t testing.TB, params, body string, headers ...string) httpResult {
	t.Helper()
	return s.sendRequest(t, http.MethodPost, params, strings.NewReader(body), headers...)
}

func (s *Server) sendRequest(t testing.TB, method, params string, body io.Reader, headers ...string) httpResult {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr()+"/?"+params, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			request.Host = headers[i+1]
		}
	}
	client := http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return httpResult{response.StatusCode, response.Header, string(content), err}
}

// mustRun returns the body of a statement that succeeds.
func (s *Server) mustRun(t testing.TB, params, body string) string {
	t.Helper()
	a := s.postStatement(t, params, body)
	if a.status != http.StatusOK || a.broken != nil {
		t.Fatalf("%s %s: %d %s %v", params, body, a.status, a.body, a.broken)
	}
	return a.body
}

func TestProtocol(t *testing.T) {
	s := startServer(t, testConfig(t))
	q := url.QueryEscape
	s.mustRun(t, "", "CREATE TABLE t (a Int64, s String) ENGINE = MergeTree ORDER BY a")
	for _, test := range []struct {
		name, method, params, body string
		status                     int
		want                       string
	}{
		{"ping by root", "GET", "", "", 200, "Ok.\n"},
		{"GET", "GET", "query=" + q("SELECT 1"), "", 200, "1\n"},
		{"POST body", "POST", "", "SELECT 1, 'a'", 200, "1\ta\n"},
		{"query and body are one text", "POST", "query=" + q("SELECT"), "2", 200, "2\n"},
		{"default format", "POST", "default_format=CSV", "SELECT 1, 'a'", 200, "1,\"a\"\n"},
		{"FORMAT wins", "POST", "default_format=Native", "SELECT 1 AS a FORMAT JSONEachRow", 200, "{\"a\":1}\n"},
		{"a header for each result", "POST", "default_format=CSVWithNames", "SELECT 1 AS a WHERE 0", 200, "\"a\"\n"},
		{"no streaming for SHOW", "GET", "query=" + q("SHOW TABLES"), "", 200, "t\n"},
		{"a parameter", "POST", "param_x=" + q(`it's \\ a`), "SELECT {x:String}", 200, "it\\'s \\\\ a\n"},
		{"a parameter that is too long", "POST", "param_x=" + strings.Repeat("x", 128<<10+1),
			"SELECT length({x:String})", 500, "Code: 1000."},
		{"a long parameter", "POST", "param_x=" + strings.Repeat("x", 128<<10), "SELECT length({x:String})",
			200, "131072\n"},
		{"a setting", "POST", "max_threads=3", "SELECT getSetting('max_threads')", 200, "3\n"},
		{"a setting ends with its request", "POST", "", "SELECT getSetting('max_threads') = 3", 200, "0\n"},
		{"an unknown setting", "POST", "nosuch=3", "SELECT 1", 404, "Code: 115."},
		{"no name of a setting", "POST", q("a=1, b") + "=2", "SELECT 1", 404, "Code: 115."},
		{"a database", "POST", "database=system", "SELECT currentDatabase()", 200, "system\n"},
		{"a database ends with its request", "POST", "", "SELECT currentDatabase()", 200, "default\n"},
		{"an unknown database", "POST", "database=nosuch", "SELECT 1", 404, "Code: 81."},
		{"an unknown table", "POST", "", "SELECT * FROM nosuch", 404, "Code: 60."},
		{"bad syntax", "POST", "", "SELECT (", 400, "Code: 62."},
		{"two statements", "POST", "", "SELECT 1; SELECT 2", 400, "Code: 62."},
		{"a failing row", "POST", "", "SELECT throwIf(number = 3) FROM numbers(10)", 500, "Code: 395."},
		{"all rows of FORMAT Null", "POST", "", "SELECT throwIf(number = 900000) FROM numbers(1000000) FORMAT Null",
			500, "Code: 395."},
		{"GET changes nothing", "GET", "query=" + q("DROP TABLE t"), "", 403, "Code: 164."},
		{"PUT", "PUT", "", "SELECT 1", 405, "the embedded server knows GET and POST"},
		{"a role", "POST", "role=a", "SELECT 1", 501, "Code: 48."},
		{"an unknown format", "POST", "", "SELECT 1 FORMAT Nosuch", 404, "Code: 73."},
		{"inline values", "POST", "", "INSERT INTO t VALUES (1, 'a\n\nb;'), (2, 'c');", 200, ""},
		{"values as body", "POST", "query=" + q("INSERT INTO t VALUES"), "(3, 'd'), (4, 'e')", 200, ""},
		{"inline data", "POST", "", "INSERT INTO t FORMAT CSV\n5,\"f\n\ng\"\n6,h\n", 200, ""},
		{"data as body", "POST", "query=" + q("INSERT INTO t (s, a) FORMAT JSONEachRow"), `{"a": 7, "s": "i"}`,
			200, ""},
		{"data begins in the query", "POST", "query=" + q("INSERT INTO t FORMAT TSV\n8\tj"), "9\tk\n", 200, ""},
		{"settings of an insert", "POST", "format_csv_delimiter=|&async_insert=0&query=" +
			q("INSERT INTO t FORMAT CSV"), "9|k", 200, ""},
		{"settings of an insert in its text win", "POST", "format_csv_delimiter=|&query=" +
			q("INSERT INTO t SETTINGS format_csv_delimiter = ';' FORMAT CSV"), "-9;k", 200, ""},
		{"an unknown setting of an insert", "POST", "nosuch=1&query=" + q("INSERT INTO t FORMAT CSV"), "1,a", 404,
			"Code: 115."},
		{"an insert into another database", "POST", "database=nosuch&query=" + q("INSERT INTO t FORMAT CSV"),
			"1,a", 404, "Code: 81."},
		{"an insert that names its database", "POST", "database=nosuch&query=" + q("INSERT INTO default.t FORMAT CSV"),
			"0,o", 200, ""},
		{"INSERT SELECT", "POST", "", "INSERT INTO t SELECT 10, 'l'", 200, ""},
		{"INSERT with a parameter", "POST", "param_x=11", "INSERT INTO t VALUES ({x:Int64}, 'm')", 200, ""},
		{"malformed data", "POST", "query=" + q("INSERT INTO t FORMAT CSV"), "x,y,z", 400, "Code: 27."},
		{"data for no table", "POST", "query=" + q("INSERT INTO nosuch FORMAT CSV"), "1,a", 404, "Code: 60."},
		{"what was inserted", "POST", "", "SELECT sum(a), groupArray(s) FROM (SELECT * FROM t ORDER BY a)", 200,
			`66	['k','o','a\n\nb;','c','d','e','f\n\ng','h','i','j','k','k','l','m']` + "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := s.sendRequest(t, test.method, test.params, strings.NewReader(test.body))
			if a.broken != nil || a.status != test.status || !strings.HasPrefix(a.body, test.want) ||
				test.status == 200 && a.body != test.want {
				t.Errorf("got %d %q %v, want %d %q", a.status, a.body, a.broken, test.status, test.want)
			}
			if code, ok := strings.CutPrefix(test.want, "Code: "); ok && a.exceptionCode()+"." != code {
				t.Errorf("exception code header %q, want %s", a.exceptionCode(), code)
			}
		})
	}
}

func TestCredentialsAreIgnoredAndForeignPagesRefused(t *testing.T) {
	s := startServer(t, testConfig(t))
	for _, test := range []struct {
		headers []string
		want    int
	}{
		{[]string{"Authorization", "Basic bm9ib2R5Om5vdGhpbmc="}, 200},
		{[]string{"X-ClickHouse-User", "nobody", "X-ClickHouse-Key", "nothing"}, 200},
		{[]string{"Host", "localhost:1"}, 200},
		{[]string{"Host", "[::1]:1"}, 200},
		{[]string{"Host", "rebound.example.com"}, 403},
		{[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Sec-Fetch-Site", "same-origin"}, 200},
		{[]string{"Content-Encoding", "br"}, 400},
	} {
		if got := s.postStatement(t, "", "SELECT 1", test.headers...); got.status != test.want {
			t.Errorf("%v: got %d %s, want %d", test.headers, got.status, got.body, test.want)
		}
	}
	for _, listen := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:80", "example.com:80", "127.0.0.1"} {
		cfg := testConfig(t)
		cfg.Listen = listen
		if _, err := Start(cfg, slog.New(slog.DiscardHandler)); err == nil ||
			!strings.Contains(err.Error(), "listen address:") {
			t.Errorf("%s: got %v", listen, err)
		}
	}
}

func compressBlocks(t *testing.T, method compress.Method, text string) string {
	t.Helper()
	var out []byte
	for len(text) > 0 {
		n := min(len(text), 1000)
		writer := compress.NewWriter(compress.LevelZero, method)
		if err := writer.Compress([]byte(text[:n])); err != nil {
			t.Fatal(err)
		}
		out, text = append(out, writer.Data...), text[n:]
	}
	return string(out)
}

func decompressBlocks(t *testing.T, text string) string {
	t.Helper()
	out, err := io.ReadAll(&stickyErrorReader{from: compress.NewReader(strings.NewReader(text))})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestCompression(t *testing.T) {
	s := startServer(t, testConfig(t))
	var data bytes.Buffer
	for i := range 70_000 {
		fmt.Fprintf(&data, "%d\tvalue\\t%d\n", i, i)
	}
	text := data.String()
	zipped := func(w io.WriteCloser, to *bytes.Buffer) string {
		io.WriteString(w, text)
		w.Close()
		return to.String()
	}
	var gz, zs bytes.Buffer
	zstdWriter, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	for name, sent := range map[string]struct{ encoding, params, body string }{
		"plain": {"", "", text},
		"gzip":  {"gzip", "", zipped(gzip.NewWriter(&gz), &gz)},
		"zstd":  {"zstd", "", zipped(zstdWriter, &zs)},
		"LZ4":   {"", "&decompress=1", compressBlocks(t, compress.LZ4, text)},
		"ZSTD":  {"", "&decompress=1", compressBlocks(t, compress.ZSTD, text)},
	} {
		t.Run("send "+name, func(t *testing.T) {
			s.mustRun(t, "", "CREATE OR REPLACE TABLE c (a Int64, s String) ENGINE = MergeTree ORDER BY a")
			a := s.postStatement(t, "query="+url.QueryEscape("INSERT INTO c FORMAT TSV")+sent.params, sent.body,
				"Content-Encoding", sent.encoding)
			if a.status != 200 {
				t.Fatal(a.body)
			}
			if got := s.mustRun(t, "", "SELECT * FROM c ORDER BY a"); got != text {
				t.Errorf("got %d bytes back, want %d", len(got), len(text))
			}
		})
	}
	for name, want := range map[string]struct {
		params, accept string
		decode         func(string) (string, error)
	}{
		"gzip": {"", "gzip, deflate", func(body string) (string, error) {
			r, err := gzip.NewReader(strings.NewReader(body))
			if err != nil {
				return "", err
			}
			out, err := io.ReadAll(r)
			return string(out), err
		}},
		"zstd": {"", "br, zstd", func(body string) (string, error) {
			r, err := zstd.NewReader(strings.NewReader(body))
			if err != nil {
				return "", err
			}
			defer r.Close()
			out, err := io.ReadAll(r)
			return string(out), err
		}},
		"refused": {"enable_http_compression=0", "gzip", func(body string) (string, error) { return body, nil }},
		"LZ4":     {"compress=1", "", func(body string) (string, error) { return decompressBlocks(t, body), nil }},
		"ZSTD": {"compress=1&network_compression_method=ZSTD", "", func(body string) (string, error) {
			return decompressBlocks(t, body), nil
		}},
	} {
		t.Run("receive "+name, func(t *testing.T) {
			for _, rows := range []int{0, 1, 70_000} { // nothing, held back, streamed
				a := s.postStatement(t, want.params, "SELECT * FROM c ORDER BY a LIMIT "+strconv.Itoa(rows),
					"Accept-Encoding", want.accept)
				if a.status != 200 || a.broken != nil {
					t.Fatal(a)
				}
				got := a.body
				if got != "" {
					if got, err = want.decode(got); err != nil {
						t.Fatal(err)
					}
				}
				if expected := strings.Join(strings.SplitAfter(text, "\n")[:rows], ""); got != expected {
					t.Errorf("%d rows: got %d bytes, want %d", rows, len(got), len(expected))
				}
			}
		})
	}
}

// Every format that is streamed must give the bytes that chDB gives for the whole
// result.
func TestStreamedFormatsAreWhole(t *testing.T) {
	cfg := testConfig(t)
	s := startServer(t, cfg)
	s.mustRun(t, "", "CREATE TABLE f (a Int64, `b\"\nc` Nullable(String)) ENGINE = MergeTree ORDER BY a")
	s.mustRun(t, "", "INSERT INTO f SELECT number, if(number % 3 = 0, NULL, 'x\"\n' || toString(number)) FROM "+
		"numbers(70000)")
	for _, format := range []string{
		"Native", "RowBinary", "CSV", "TSV", "TabSeparated", "TabSeparatedRaw", "TSVRaw", "TSKV",
		"JSONEachRow", "JSONLines", "NDJSON", "JSONStringsEachRow", "JSONCompactEachRow", "JSONCompactStringsEachRow",
		"CSVWithNames", "CSVWithNamesAndTypes", "TSVWithNames", "TabSeparatedWithNamesAndTypes",
		"JSONCompactEachRowWithNames", "JSONCompactEachRowWithNamesAndTypes",
	} {
		if formatKindOf(format) == unjoinable {
			t.Errorf("%s is not streamed", format)
		}
		for _, query := range []string{"SELECT * FROM f ORDER BY a", "SELECT * FROM f WHERE 0",
			"SELECT * FROM f WHERE a % 66000 = 65999"} {
			var want bytes.Buffer
			session, err := s.pool.acquireSession(t.Context(), s.pool.queries)
			if err != nil {
				t.Fatal(err)
			}
			_, err = session.runStatement(query, format, nil, func(p []byte) error { want.Write(p); return nil })
			s.pool.releaseSession(session, true)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.mustRun(t, "default_format="+format, query); got != want.String() {
				t.Errorf("%s %s: %d bytes, want %d", format, query, len(got), want.Len())
			}
		}
	}
	if got := s.mustRun(t, "", "SELECT number FROM numbers(200000) FORMAT JSON"); strings.Count(got, `"meta"`) != 1 {
		t.Errorf("JSON with %d heads", strings.Count(got, `"meta"`))
	}
}

func TestExceptionAfterTheStart(t *testing.T) {
	s := startServer(t, testConfig(t))
	const query = "SELECT throwIf(number = 900000, 'late'), toString(number) FROM numbers(1000000) SETTINGS " +
		"max_block_size = 10000"
	a := s.postStatement(t, "default_format=TSV", query)
	if a.status != 200 || a.broken == nil {
		t.Errorf("status %d, transfer broken: %v", a.status, a.broken)
	}
	tag := a.header.Get("X-ClickHouse-Exception-Tag")
	if len(tag) != 16 || !strings.Contains(a.body, "\r\n__exception__\r\n"+tag+"\r\nCode: 395.") ||
		!strings.HasSuffix(a.body, " "+tag+"\r\n__exception__\r\n") {
		t.Errorf("tag %q, body ends %q", tag, a.body[max(0, len(a.body)-300):])
	}
	a = s.postStatement(t, "default_format=TSV&wait_end_of_query=1", query)
	if a.status != 500 || a.exceptionCode() != "395" || a.broken != nil {
		t.Errorf("waited: %d %q %v", a.status, a.body[:min(len(a.body), 200)], a.broken)
	}
}

func TestFailedInsertLeavesServerUsable(t *testing.T) {
	s := startServer(t, testConfig(t))
	for _, statement := range []string{
		"CREATE TABLE src (a Int64) ENGINE = MergeTree ORDER BY a",
		"CREATE TABLE dst (a Int64) ENGINE = MergeTree ORDER BY a",
		"CREATE TABLE bad (a Int64) ENGINE = MergeTree ORDER BY a",
		"INSERT INTO bad VALUES (13)",
		"CREATE MATERIALIZED VIEW mv TO dst AS SELECT a + throwIf(a = (SELECT max(a) FROM bad)) AS a FROM src",
	} {
		s.mustRun(t, "", statement)
	}
	insert := "query=" + url.QueryEscape("INSERT INTO src FORMAT TSV")
	for range 3 {
		if a := s.postStatement(t, insert, "13\n"); a.exceptionCode() != "395" {
			t.Errorf("the real error, not the one of a poisoned connection: %d %s", a.status, a.body)
		}
		s.mustRun(t, insert, "1\n")
	}
	if got := s.mustRun(t, "", "SELECT count() FROM dst"); got != "3\n" {
		t.Errorf("%s rows", got)
	}
}

// A request that breaks off inserts nothing, although its first blocks were read.
func TestBrokenTransferInsertsNothing(t *testing.T) {
	s := startServer(t, testConfig(t))
	s.mustRun(t, "", "CREATE TABLE b (a Int64) ENGINE = MergeTree ORDER BY a")
	connection, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Repeat("1\n", 200_000)
	fmt.Fprintf(connection, "POST /?query=INSERT+INTO+b+FORMAT+TSV HTTP/1.1\r\nHost: localhost\r\nContent-Length: "+
		"%d\r\n\r\n%s", 2*len(rows), rows)
	connection.Close()
	s.mustRun(t, "query="+url.QueryEscape("INSERT INTO b FORMAT TSV"), "2\n")
	deadline := time.Now().Add(hang)
	for s.idleSessions() < 2*maxSessions && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if got := s.mustRun(t, "", "SELECT count(), max(a) FROM b"); got != "1\t2\n" {
		t.Errorf("rows and largest: %s", got)
	}
}

func TestGoneClientEndsStatement(t *testing.T) {
	s := startServer(t, testConfig(t))
	for name, statement := range map[string]string{
		"before the first row": "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)",
		"while streaming":      "SELECT sipHash64(number) FROM numbers(1000000000000)",
		"not streamed":         "SELECT sum(sipHash64(number)) FROM numbers(1000000000000) FORMAT JSON",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		request, err := http.NewRequestWithContext(ctx, "POST", "http://"+s.Addr(), strings.NewReader(statement))
		if err != nil {
			t.Fatal(err)
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
		cancel()
		began := time.Now()
		for s.idleSessions() < 2*maxSessions {
			if time.Since(began) > hang {
				t.Fatalf("%s: still running", name)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	running := s.mustRun(t, "", "SELECT query FROM system.processes WHERE query NOT LIKE '%system.processes%'")
	if running != "" {
		t.Errorf("still running: %s", running)
	}
}

func residentMB(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb >> 10
}

func TestGoneClientEndsInsert(t *testing.T) {
	s := startServer(t, testConfig(t))
	s.mustRun(t, "", "CREATE TABLE slow (a Int64) ENGINE = MergeTree ORDER BY a")
	s.mustRun(t, "", "CREATE MATERIALIZED VIEW mv ENGINE = MergeTree ORDER BY a AS SELECT a + sleepEachRow(0.1) AS "+
		"a FROM slow")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	address := "http://" + s.Addr() + "/?max_block_size=1&function_sleep_max_microseconds_per_block=100000000&query=" +
		url.QueryEscape("INSERT INTO slow FORMAT TSV")
	request, err := http.NewRequestWithContext(ctx, "POST", address, strings.NewReader(strings.Repeat("1\n", 300)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := http.DefaultClient.Do(request); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	began := time.Now()
	for s.idleSessions() < 2*maxSessions {
		if time.Since(began) > hang {
			t.Fatal("still running")
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("ended after %v", time.Since(began))
}

// A result of 350 MB that is read slowly is not held in memory.
func TestLargeResultIsStreamed(t *testing.T) {
	s := startServer(t, testConfig(t))
	s.mustRun(t, "", "SELECT 1")
	before := residentMB(t)
	response, err := http.Post("http://"+s.Addr()+"/?default_format=RowBinary", "", strings.NewReader(
		"SELECT repeat('x', 999) FROM numbers(350000) SETTINGS max_block_size = 10000"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var total int64
	most := 0
	for {
		n, err := io.CopyN(io.Discard, response.Body, 50<<20)
		total += n
		most = max(most, residentMB(t)-before)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if total != 350_350_000 {
		t.Errorf("%d bytes", total)
	}
	t.Logf("resident memory grew by %d MB", most)
	if most > 150 {
		t.Errorf("resident memory grew by %d MB", most)
	}
}

func TestConcurrentRequests(t *testing.T) {
	s := startServer(t, testConfig(t))
	s.mustRun(t, "", "CREATE DATABASE other")
	s.mustRun(t, "", "CREATE TABLE other.n (a Int64) ENGINE = MergeTree ORDER BY a")
	var wg sync.WaitGroup
	for g := range 2 * maxSessions {
		wg.Go(func() {
			for i := range 4 {
				params, want := fmt.Sprintf("max_threads=%d", g+1), fmt.Sprintf("default\t%d\n", g+1)
				if g%2 == 0 {
					params, want = params+"&database=other", fmt.Sprintf("other\t%d\n", g+1)
					s.mustRun(t, "database=other&query="+url.QueryEscape("INSERT INTO n FORMAT TSV"),
						fmt.Sprintf("%d\n", i))
				}
				if got := s.mustRun(t, params, "SELECT currentDatabase(), getSetting('max_threads')"); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
	wg.Wait()
	if got := s.mustRun(t, "", "SELECT count() FROM other.n"); got != fmt.Sprintf("%d\n", maxSessions*4) {
		t.Errorf("%s rows", got)
	}
}

func TestCloseAndStartAgain(t *testing.T) {
	cfg := testConfig(t)
	s := startServer(t, cfg)
	s.mustRun(t, "", "CREATE TABLE kept (a Int64) ENGINE = MergeTree ORDER BY a")
	s.mustRun(t, "", "INSERT INTO kept VALUES (7)")
	second := testConfig(t)
	if _, err := Start(second, slog.New(slog.DiscardHandler)); err == nil ||
		!strings.Contains(err.Error(), "this process has another one open") {
		t.Errorf("two at a time: %v", err)
	}
	running := make(chan httpResult, 1)
	go func() {
		response, err := http.Post("http://"+s.Addr(),
			"", strings.NewReader("SELECT sum(sipHash64(number)) FROM numbers(1000000000000)"))
		if err == nil {
			response.Body.Close()
		}
		running <- httpResult{broken: err}
	}()
	for s.idleSessions() == 2*maxSessions {
		time.Sleep(time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	<-running
	if _, err := http.Get("http://" + s.Addr() + "/ping"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("closed, it says %v", err)
	}
	again := startServer(t, cfg)
	if got := again.mustRun(t, "", "SELECT a FROM kept"); got != "7\n" {
		t.Errorf("after a restart: %q", got)
	}
}

// The data directory belongs to one process: the child is this test, run again.
func TestDataDirOfAnotherProcess(t *testing.T) {
	const variable = "PARTNERS_TEST_TAKEN_DATA_DIR"
	cfg := testConfig(t)
	if taken := os.Getenv(variable); taken != "" {
		cfg.DataDir = taken
		_, err := Start(cfg, slog.New(slog.DiscardHandler))
		fmt.Println("child:", err)
		return
	}
	startServer(t, cfg)
	child := exec.Command(os.Args[0], "-test.run", "^TestDataDirOfAnotherProcess$")
	child.Env = append(os.Environ(), variable+"="+cfg.DataDir)
	out, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "child: opening "+cfg.DataDir+
		" with chDB: another process has it open") {
		t.Errorf("%v: %s", err, out)
	}
}

// libchdb must leave the Go runtime its signals.
func TestGoKeepsItsSignals(t *testing.T) {
	s := startServer(t, testConfig(t))
	s.mustRun(t, "", "SELECT sum(sipHash64(number)) FROM numbers(5000000)")
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		var nothing *Server
		_ = nothing.timezone
	}()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGHUP} {
		got := make(chan os.Signal, 1)
		signal.Notify(got, sig)
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		select {
		case <-got:
		case <-time.After(hang):
			t.Errorf("%v did not arrive", sig)
		}
		signal.Stop(got)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	// chDB's own threads block SIGPIPE. This is a thread of Go, which must not.
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(status), "SigBlk:\t0000000000000000") {
		t.Errorf("one of %d threads blocks signals: %s", len(tasks), status)
	}
}
