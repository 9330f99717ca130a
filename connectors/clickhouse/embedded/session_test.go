package embedded

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pierrec/lz4/v4"
)

// leftInPool returns what the pool's connections have beside the defaults when the next
// request comes.
func (s *Server) leftInPool(t *testing.T) (left []string) {
	t.Helper()
	var held []*session
	defer func() {
		for _, session := range held {
			s.pool.releaseSession(session, true)
		}
	}()
	for range maxSessions {
		session, err := s.pool.acquireSession(t.Context(), s.pool.queries)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, session)
		if err := session.applySettings(defaultDatabase, nil); err != nil {
			left = append(left, err.Error())
			continue
		}
		database, err := session.readText("SELECT currentDatabase()", "TSVRaw")
		if err != nil {
			t.Fatal(err)
		}
		settings, err := session.changedSettings()
		if err != nil {
			t.Fatal(err)
		}
		maps.DeleteFunc(settings, func(name, value string) bool { return s.pool.defaults[name] == value })
		if len(settings) != 0 || database != "default\n" {
			left = append(left, fmt.Sprintf("%d settings, database %s", len(settings), database))
		}
	}
	return left
}

// Whatever a request sets, the next one finds a server without it.
func TestRequestEndsWithWhatItSet(t *testing.T) {
	s := startServer(t, testConfig(t))
	for _, request := range [][2]string{
		{"readonly=1", "SELECT 1"},
		{"readonly=2&max_threads=3", "SELECT 1"},
		{"compatibility=22.8", "SELECT 1"},
		{"profile=default", "SELECT 1"},
		{"allow_ddl=0", "SELECT 1"},
		{"implicit_select=0", "SELECT 1"}, // chDB's own default is 1
		{"max_threads=3&database=system", "SELECT 1"},
		{"", "SET readonly = 1"},
		{"", "SET max_threads = 3"},
		{"", " /* x */ use system"},
		{"", "CREATE OR REPLACE TEMPORARY TABLE left_behind (a Int64)"},
		{"", "SELECT 1 SETTINGS readonly = 1, max_threads = 3"},
	} {
		s.mustRun(t, request[0], request[1])
	}
	for range maxSessions { // connections take turns
		if got := s.mustRun(t, "max_block_size=1000", "SELECT getSetting('max_block_size')"); got != "1000\n" {
			t.Errorf("max_block_size is %s", got)
		}
	}
	for _, left := range s.leftInPool(t) {
		t.Errorf("a request has left %s", left)
	}
	if a := s.postStatement(t, "", "SELECT * FROM left_behind"); a.exceptionCode() != "60" {
		t.Errorf("a temporary table is there after its request: %s", a.body)
	}
	if a := s.postStatement(t, "readonly=1", "CREATE TABLE r (a Int64) ENGINE = Memory"); a.exceptionCode() != "164" {
		t.Errorf("readonly=1 creates a table: %d %s", a.status, a.body)
	}
}

func TestSessions(t *testing.T) {
	s := startServer(t, testConfig(t))
	s.mustRun(t, "", "CREATE TABLE lasting (a Int64) ENGINE = MergeTree ORDER BY a")
	insert := "query=" + url.QueryEscape("INSERT INTO basket FORMAT CSV")
	for _, test := range []struct {
		name, params, body string
		status             int
		want               string
	}{
		{"a session that needs nothing", "session_id=a", "SELECT 1", 200, "1\n"},
		{"it is there", "session_id=a&session_check=1", "SELECT 1", 200, "1\n"},
		{"another is not", "session_id=b&session_check=1", "SELECT 1", 404, "Code: 372."},
		{"a setting", "session_id=a", "SET max_threads = 3", 200, ""},
		{"it stays", "session_id=a", "SELECT getSetting('max_threads')", 200, "3\n"},
		{"in its session", "session_id=b", "SELECT getSetting('max_threads') = 3", 200, "0\n"},
		{"and in no other request", "", "SELECT getSetting('max_threads') = 3", 200, "0\n"},
		{"a request's own", "session_id=a&max_threads=5", "SELECT getSetting('max_threads')", 200, "5\n"},
		{"ends with it", "session_id=a", "SELECT getSetting('max_threads')", 200, "3\n"},
		{"a bad one changes nothing", "session_id=a&max_threads=7&nosuch=1", "SELECT 1", 404, "Code: 115."},
		{"nothing", "session_id=a", "SELECT getSetting('max_threads')", 200, "3\n"},
		{"readonly in a session with settings", "session_id=a&readonly=1", "SELECT getSetting('max_threads')", 200,
			"3\n"},
		{"and after it", "session_id=a&max_threads=4", "SELECT getSetting('max_threads')", 200, "4\n"},
		{"a temporary table", "session_id=a", "CREATE TEMPORARY TABLE basket (a Int64, s String)", 200, ""},
		{"of no other session", "session_id=b", "SELECT * FROM basket", 404, "Code: 60."},
		{"takes data", "session_id=a&" + insert, "1,x\n2,\"y\n\nz\"\n", 200, ""},
		{"refuses bad data", "session_id=a&" + insert, "x,y\n", 400, "Code: "},
		{"takes data after that", "session_id=a", "INSERT INTO basket VALUES (3, 'w')", 200, ""},
		{"is read", "session_id=a", "SELECT sum(a), max(s) FROM basket", 200, "6\ty\\n\\nz\n"},
		{"survives an error", "session_id=a", "SELECT throwIf(1)", 500, "Code: 395."},
		{"and fills a table", "session_id=a", "INSERT INTO lasting SELECT a FROM basket", 200, ""},
		{"data for a table that stays", "session_id=a&query=" + url.QueryEscape("INSERT INTO lasting FORMAT CSV"),
			"10\n", 200, ""},
		{"all is there", "", "SELECT sum(a) FROM lasting", 200, "16\n"},
		{"a profile beside a temporary table", "session_id=a&compatibility=22.8", "SELECT 1", 501, "Code: 48."},
		{"another database", "session_id=a", "USE system", 200, ""},
		{"stays", "session_id=a", "SELECT currentDatabase()", 200, "system\n"},
		{"a request's own database", "session_id=a&database=default", "SELECT currentDatabase()", 200, "default\n"},
		{"ends with it too", "session_id=a", "SELECT currentDatabase()", 200, "system\n"},
		{"data goes there", "session_id=a&query=" + url.QueryEscape("INSERT INTO lasting FORMAT CSV"), "1\n", 404,
			"Code: 60."},
		{"the end", "session_id=a&close_session=1", "SELECT 1", 200, "1\n"},
		{"is the end", "session_id=a&session_check=1", "SELECT 1", 404, "Code: 372."},
		{"of all that it had", "session_id=a", "SELECT currentDatabase()", 200, "default\n"},
		{"a timeout that is none", "session_id=a&session_timeout=x", "SELECT 1", 400, "Code: 374."},
		{"a timeout that is too long", "session_id=a&session_timeout=3601", "SELECT 1", 400, "Code: 374."},
	} {
		a := s.postStatement(t, test.params, test.body)
		whole := test.status != 200 || a.body == test.want
		if a.status != test.status || !strings.HasPrefix(a.body, test.want) || !whole {
			t.Errorf("%s: got %d %q, want %d %q", test.name, a.status, a.body, test.status, test.want)
		}
	}
	a := s.sendRequest(t, http.MethodGet, "session_id=g&query="+url.QueryEscape("SET max_threads = 3"), nil)
	if got := s.mustRun(t, "session_id=g", "SELECT getSetting('max_threads')"); a.status != 200 || got != "3\n" {
		t.Errorf("SET by GET: %d %s, then max_threads %s", a.status, a.body, got)
	}
}

// A session ends when it was not used for its timeout, and not before.
func TestSessionTimeout(t *testing.T) {
	s := startServer(t, testConfig(t))
	s.mustRun(t, "session_id=long", "SET max_threads = 3")
	s.mustRun(t, "session_id=short&session_timeout=1", "SET max_threads = 3")
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		s.named.mu.Lock()
		left := len(s.named.byID)
		s.named.mu.Unlock()
		if left == 1 {
			break
		}
		if time.Since(began) > hang {
			t.Fatal("the session does not end")
		}
	}
	if free := len(s.named.slots); free != maxOwnConns-1 {
		t.Errorf("%d connections are free, want %d", free, maxOwnConns-1)
	}
	if a := s.postStatement(t, "session_id=short&session_check=1", "SELECT 1"); a.exceptionCode() != "372" {
		t.Errorf("it is still there: %s", a.body)
	}
	if got := s.mustRun(t, "session_id=long", "SELECT getSetting('max_threads')"); got != "3\n" {
		t.Errorf("the other one has lost its setting: %s", got)
	}
}

func TestSessionBounds(t *testing.T) {
	s := startServer(t, testConfig(t))
	for n := range maxOwnConns {
		s.mustRun(t, fmt.Sprintf("session_id=%d", n), "SET max_threads = 3")
	}
	a := s.postStatement(t, "session_id=more", "SET max_threads = 3")
	if a.exceptionCode() != "202" || !strings.Contains(a.body, "at most 32 sessions") {
		t.Errorf("got %d %s", a.status, a.body)
	}
	s.mustRun(t, "session_id=more", "SELECT 1") // it needs no connection of its own
	s.mustRun(t, "session_id=0&close_session=1", "SELECT 1")
	s.mustRun(t, "session_id=more", "SET max_threads = 3")

	first, second := make(chan httpResult), make(chan httpResult)
	wait := "SELECT count() FROM numbers(400) WHERE sleepEachRow(0.005) SETTINGS max_block_size = 100"
	go func() { first <- s.postStatement(t, "session_id=x", wait) }()
	go func() { second <- s.postStatement(t, "session_id=x", wait) }()
	if codes := (<-first).exceptionCode() + (<-second).exceptionCode(); codes != "373" {
		t.Errorf("two requests of one session at a time: exceptions %q, want one 373", codes)
	}
}

// The summary has what the statement did, also where the client waits for the end.
func TestSummary(t *testing.T) {
	s := startServer(t, testConfig(t))
	s.mustRun(t, "", "CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a")
	for _, test := range []struct{ params, body, want string }{
		{"query=" + url.QueryEscape("INSERT INTO t FORMAT CSV"), "1\n2\n3\n", `"written_rows":"3"`},
		{"", "SELECT sum(a) FROM t", `"result_rows":"1"`},
		{"", "SELECT sum(a) FROM t", `{"read_rows":"3","read_bytes":"24",`},
		{"default_format=RowBinaryWithNamesAndTypes", "SELECT a FROM t", `"result_rows":"3"`},
		{"wait_end_of_query=1", "SELECT number FROM numbers(500000)", `"result_rows":"500000"`},
		{"", "SELECT a FROM t WHERE a = 7", `"result_rows":"0"`},
	} {
		a := s.postStatement(t, test.params, test.body)
		if got := a.header.Get("X-ClickHouse-Summary"); !strings.Contains(got, test.want) {
			t.Errorf("%s: summary %s, want %s", test.body, got, test.want)
		}
		if a.header.Get("X-ClickHouse-Query-Id") == "" || a.header.Get("X-ClickHouse-Timezone") != s.timezone {
			t.Errorf("%s: headers %v", test.body, a.header)
		}
	}
}

func TestLZ4Frames(t *testing.T) {
	s := startServer(t, testConfig(t))
	var sent bytes.Buffer
	frames := lz4.NewWriter(&sent)
	fmt.Fprint(frames, "SELECT number FROM numbers(300000)")
	if err := frames.Close(); err != nil {
		t.Fatal(err)
	}
	a := s.postStatement(t, "", sent.String(), "Content-Encoding", "lz4", "Accept-Encoding", "lz4")
	if a.status != 200 || a.header.Get("Content-Encoding") != "lz4" {
		t.Fatalf("got %d %v", a.status, a.header)
	}
	got, err := io.ReadAll(lz4.NewReader(strings.NewReader(a.body)))
	if lines := bytes.Count(got, []byte("\n")); err != nil || lines != 300_000 {
		t.Errorf("%d lines, %v", lines, err)
	}
	for accept, want := range map[string]string{
		"gzip, lz4;q=0.5": "lz4", "gzip, lz4;q=0, zstd;q=0.0": "gzip", "deflate": "deflate", "br": "", "identity": "",
		"gzip, deflate, br, zstd": "zstd",
	} {
		a := s.postStatement(t, "", "SELECT 1", "Accept-Encoding", accept)
		if got := a.header.Get("Content-Encoding"); got != want {
			t.Errorf("Accept-Encoding %s: %q, want %q", accept, got, want)
		}
	}
}

// postForm sends a multipart form with fields and, unless data is empty, the file ext.
func (s *Server) postForm(t *testing.T, params string, fields map[string]string, data string) httpResult {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for name, value := range fields {
		form.WriteField(name, value)
	}
	if data != "" {
		file, err := form.CreateFormFile("ext", "ext")
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(file, data)
	}
	form.Close()
	return s.sendRequest(t, http.MethodPost, params, &body, "Content-Type", form.FormDataContentType())
}

func TestExternalTables(t *testing.T) {
	s := startServer(t, testConfig(t))
	query := map[string]string{"query": "SELECT * FROM ext ORDER BY ALL"}
	for _, test := range []struct {
		params, data, want string
	}{
		{"ext_structure=" + url.QueryEscape("a Int64, s String") + "&ext_format=CSV", "2,x\n1,y\n", "1\ty\n2\tx\n"},
		{"ext_types=Int64,String", "2\tx\n1\ty\n", "1\ty\n2\tx\n"},
		{"session_id=a&ext_types=Int64", "2\n", "2\n"},
		{"session_id=a&ext_types=Int64", "3\n", "3\n"},
		{"", "3\n", "Code: 36. DB::Exception: Property \"ext_structure\" of the external table is missing: " +
			"its columns\n"},
	} {
		if a := s.postForm(t, test.params, query, test.data); a.body != test.want {
			t.Errorf("%s: got %d %q, want %q", test.params, a.status, a.body, test.want)
		}
	}
	a := s.postForm(t, "", map[string]string{"query": "SELECT {x:String}", "param_x": "it's"}, "")
	if a.body != "it\\'s\n" {
		t.Errorf("parameters in a form: %d %s", a.status, a.body)
	}
	if a := s.postStatement(t, "", "SELECT * FROM ext"); a.exceptionCode() != "60" {
		t.Errorf("the table is there after its request: %s", a.body)
	}
}
