package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
)

// statements are what was sent to a ClickHouse.
type statements struct {
	mu   sync.Mutex
	sent map[string]bool
}

// proxyTo stands before a ClickHouse, and keeps what passes.
func (s *statements) proxyTo(server *url.URL) http.Handler {
	pass := httputil.NewSingleHostReverseProxy(server)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		r.Host = server.Host
		if !r.URL.Query().Has("query") && r.Header.Get("Content-Encoding") == "" { // else the body is data
			s.mu.Lock()
			s.sent[string(body)] = true
			s.mu.Unlock()
		}
		pass.ServeHTTP(w, r)
	})
}

// readRefused returns the statements that ClickHouse's parser does not take.
func (s *statements) readRefused(ctx context.Context, conn *clickhouse.Conn) (refused []string) {
	for text := range s.sent {
		var formatted []struct {
			Text string `ch:"text"`
		}
		if err := conn.Select(ctx, &formatted, "SELECT formatQuery(?) AS text", text); err != nil {
			refused = append(refused, fmt.Sprintf("%s: %v", text, err))
		}
	}
	return refused
}

// The script for a real server, asked of the embedded one: it says yes to what that can
// show, no to what it cannot, and leaves nothing behind. Each of its statements is one of
// ClickHouse's; that the answers to those about roles are the right ones, only a real
// server shows.
func TestCheckScript(t *testing.T) {
	dsn, err := url.Parse(clickhousetest.ForTest(t))
	if err != nil {
		t.Fatal(err)
	}
	asked := &statements{sent: map[string]bool{}}
	proxy := httptest.NewServer(asked.proxyTo(&url.URL{Scheme: "http", Host: dsn.Host}))
	defer proxy.Close()
	ctl := filepath.Join(t.TempDir(), "ctl")
	if said, err := exec.Command("go", "build", "-o", ctl,
		"github.com/nimriz/partners/cmd/ctl").CombinedOutput(); err != nil {
		t.Fatalf("building ctl: %v: %s", err, said)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "clickhouse/check.sh")
	cmd.Env = append(os.Environ(), "PARTNERS_CHECK_URL="+proxy.URL, "PARTNERS_CHECK_NATIVE=127.0.0.1:1",
		"PARTNERS_CHECK_CTL="+ctl, "PARTNERS_CHECK_ENGINES=mergetree")
	said, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("got %v, want exit status 1", err)
	}
	answers := map[string]string{}
	for line := range strings.Lines(string(said)) {
		answer, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		name = strings.TrimSpace(name)
		if answer != "yes" && answer != "no" {
			t.Errorf("it says %q", line)
		}
		answers[name] = answer
	}
	answered := func(name string) string {
		for text, answer := range answers {
			if text == name || strings.HasPrefix(text, name+": ") {
				return answer
			}
		}
		return ""
	}
	for _, name := range []string{"the HTTP protocol: ctl migrate works over it",
		"mergetree: an insert can be repeated", "mergetree: a repeated insert is in the table once",
		"mergetree: a repeated insert is in the rollup once", "mergetree: an insert of its own counts in the rollup"} {
		if answered(name) != "yes" {
			t.Errorf("%q is not answered yes", name)
		}
	}
	for _, name := range []string{"the native protocol: ctl migrate works over it", "ctl migrate makes the three roles",
		"the reader of acme sees its rows of a table alone", "partners_every_workspace writes nothing"} {
		if answered(name) != "no" {
			t.Errorf("%q is not answered no", name)
		}
	}
	if t.Failed() {
		t.Logf("it said:\n%s", said)
	}
	conn, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: dsn.String()},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var left []struct {
		Name string `ch:"name"`
	}
	if err := conn.Select(t.Context(), &left, "SELECT name FROM system.databases WHERE name LIKE "+
		"'partners_check%'"); err != nil || len(left) > 0 {
		t.Errorf("it leaves %v, %v", left, err)
	}
	for _, part := range []string{"CREATE ROLE partners_workspace_", "IDENTIFIED BY", "GRANT partners_reader, ",
		"REVOKE ALL ON", "DROP USER IF EXISTS", "deduplicate_blocks_in_dependent"} {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(asked.sent)), func(text string) bool {
			return strings.Contains(text, part)
		}) {
			t.Errorf("nothing asked has %q", part)
		}
	}
	users, err := os.ReadFile("clickhouse/users.sql")
	if err != nil {
		t.Fatal(err)
	}
	for statement := range strings.SplitSeq(strings.TrimSpace(string(users)), ";\n") {
		asked.sent[strings.TrimSuffix(statement, ";")] = true
	}
	for _, text := range asked.readRefused(t.Context(), conn) {
		t.Errorf("no statement of ClickHouse: %s", text)
	}
	bad := &statements{sent: map[string]bool{"CREATE ROLL x": true}}
	if wrong := bad.readRefused(t.Context(), conn); len(wrong) != 1 {
		t.Error("what is no statement passes")
	}
}
