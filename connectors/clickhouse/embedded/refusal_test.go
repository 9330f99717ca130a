package embedded

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An external table is made by a statement, after which a connection must take no insert.
func TestExternalTableOfAnInsert(t *testing.T) {
	s := startServer(t, testConfig(t))
	for _, statement := range []string{
		"CREATE TABLE src (a Int64) ENGINE = MergeTree ORDER BY a",
		"CREATE TABLE dst (a Int64) ENGINE = MergeTree ORDER BY a",
		"CREATE MATERIALIZED VIEW mv TO dst AS SELECT a + (SELECT count() FROM dst) AS a FROM src",
	} {
		s.mustRun(t, "", statement)
	}
	insert := map[string]string{"query": "INSERT INTO src FORMAT TSV"}
	if a := s.postForm(t, "ext_types=Int64", insert, "1\n"); a.exceptionCode() != "48" {
		t.Errorf("data and an external table: %d %s", a.status, a.body)
	}
	selected := map[string]string{"query": "INSERT INTO src SELECT * FROM ext"}
	if a := s.postForm(t, "ext_types=Int64", selected, "1\n"); a.status != 200 {
		t.Errorf("INSERT … SELECT from an external table: %d %s", a.status, a.body)
	}
	s.mustRun(t, "query="+url.QueryEscape("INSERT INTO src FORMAT TSV"), "2\n")
	if got := s.mustRun(t, "", "SELECT count() FROM dst"); got != "2\n" {
		t.Errorf("the view has %s rows", got)
	}
}

// A session's statements keep the log_comment by which they are killed.
func TestSessionKeepsItsLogComment(t *testing.T) {
	s := startServer(t, testConfig(t))
	for _, test := range []struct{ name, params, body string }{
		{"of another setting", "", "SET max_threads = 3"},
		{"of the session", "", "SET log_comment = 'mine'"},
		{"of a request", "log_comment=mine", "SELECT 1"},
		{"under readonly", "", "SET readonly = 1"},
	} {
		s.mustRun(t, "session_id=a&"+test.params, test.body)
		got := s.mustRun(t, "session_id=a&log_comment=mine", "SELECT getSetting('log_comment')")
		if !strings.HasPrefix(got, "embedded-") {
			t.Errorf("log_comment %s: it is %s", test.name, got)
		}
	}
	if got := s.mustRun(t, "session_id=a", "SELECT getSetting('readonly')"); got != "1\n" {
		t.Errorf("readonly is %s", got)
	}
	a := s.postStatement(t, "session_id=b", "SET log_comment = 'mine', readonly = 1")
	if a.exceptionCode() != "36" || !strings.Contains(a.body, "the session has ended") {
		t.Errorf("a log_comment for good: %d %s", a.status, a.body)
	}
}

// What a request could not make of its external tables is not taken from the session.
func TestExternalTableOfASessionsName(t *testing.T) {
	s := startServer(t, testConfig(t))
	s.mustRun(t, "session_id=a", "CREATE TEMPORARY TABLE ext (a Int64)")
	s.mustRun(t, "session_id=a", "INSERT INTO ext VALUES (7)")
	query := map[string]string{"query": "SELECT * FROM ext"}
	for params, code := range map[string]string{"": "57", "&nosuch=1": "115"} {
		a := s.postForm(t, "session_id=a&ext_types=Int64"+params, query, "1\n")
		if a.exceptionCode() != code {
			t.Errorf("an external table of that name%s: %d %s", params, a.status, a.body)
		}
		if a := s.postStatement(t, "session_id=a", "SELECT a FROM ext"); a.body != "7\n" {
			t.Fatalf("after it%s, the session's table: %d %s", params, a.status, a.body)
		}
	}
}

// GET and readonly change no table and write no file.
func TestReadingChangesNothing(t *testing.T) {
	s := startServer(t, testConfig(t))
	s.mustRun(t, "", "CREATE TABLE t (a Int64) ENGINE = MergeTree ORDER BY a")
	s.mustRun(t, "session_id=tables", "CREATE TEMPORARY TABLE mine (a Int64)")
	s.mustRun(t, "session_id=set", "SET readonly = 1")
	file := filepath.Join(t.TempDir(), "out.tsv")
	for _, statement := range []string{
		"WITH x AS (SELECT 1 AS a) INSERT INTO t SELECT a FROM x",
		"WITH 1 AS select INSERT INTO t SELECT select",
		"SELECT 1 INTO OUTFILE '" + file + "'",
		"WITH 1 AS x SELECT x INTO /* a file */ OUTFILE '" + file + "' FORMAT CSV",
	} {
		for _, test := range []struct{ method, params string }{
			{http.MethodGet, ""},
			{http.MethodPost, "readonly=1"},
			{http.MethodPost, "readonly=1&session_id=tables"},
			{http.MethodPost, "session_id=set"},
		} {
			a := s.sendRequest(t, test.method, test.params+"&query="+url.QueryEscape(statement), nil)
			if a.exceptionCode() != "164" {
				t.Errorf("%s %s %s: %d %s", test.method, test.params, statement, a.status, a.body)
			}
		}
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a file was written")
	}
	if got := s.mustRun(t, "", "SELECT count() FROM t"); got != "0\n" {
		t.Errorf("%s rows were inserted", got)
	}
	for _, statement := range []string{
		"WITH 1 AS insert SELECT insert", "WITH insert AS (SELECT 1 AS a) SELECT a FROM insert", "(SELECT 1)",
		"WITH x AS (SELECT 1 AS a) SELECT a FROM x",
	} {
		if a := s.sendRequest(t, http.MethodGet, "query="+url.QueryEscape(statement), nil); a.body != "1\n" {
			t.Errorf("%s: %d %s", statement, a.status, a.body)
		}
	}
}

// What a request makes the server hold in memory has a limit.
func TestRequestBounds(t *testing.T) {
	s := startServer(t, testConfig(t))
	fields := map[string]string{"query": "SELECT 1"}
	for n := range maxParts - 1 {
		fields[fmt.Sprintf("param_p%d", n)] = ""
	}
	if a := s.postForm(t, "", fields, ""); a.body != "1\n" {
		t.Errorf("%d parts: %d %s", len(fields), a.status, a.body)
	}
	fields["param_more"] = ""
	if a := s.postForm(t, "", fields, ""); a.exceptionCode() != "307" || !strings.Contains(a.body, "1000 parts") {
		t.Errorf("%d parts: %d %s", len(fields), a.status, a.body)
	}
	large := map[string]string{"x": strings.Repeat(" ", maxStatement-partBytes)}
	if a := s.postForm(t, "", large, ""); a.exceptionCode() != "307" {
		t.Errorf("a part that leaves no room for itself: %d %s", a.status, a.body)
	}
	// A frame of one raw block, and its window: 2^(10 + n/8) bytes.
	frame := func(window byte) string {
		return "\x28\xb5\x2f\xfd\x00" + string([]byte{window, byte(len("SELECT 1")<<3 | 1), 0, 0}) + "SELECT 1"
	}
	if a := s.postStatement(t, "", frame(17<<3), "Content-Encoding", "zstd"); a.body != "1\n" {
		t.Errorf("a window of 128 MB: %d %s", a.status, a.body)
	}
	if a := s.postStatement(t, "", frame(18<<3), "Content-Encoding", "zstd"); a.status == 200 ||
		!strings.Contains(a.body, "window") {
		t.Errorf("a window of 256 MB: %d %s", a.status, a.body)
	}
}
