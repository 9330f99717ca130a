package components

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/ingest"
	"github.com/nimriz/partners/connectors/redirect"
	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/prometheus/client_golang/prometheus"
)

// secretsFolder is a directory of secrets; each write is in place, as an editor's is.
type secretsFolder string

func newSecretsFolder(t *testing.T, files map[string]string) secretsFolder {
	t.Helper()
	dir := secretsFolder(t.TempDir())
	for name, text := range files {
		dir.write(t, name, text)
	}
	return dir
}

func (dir secretsFolder) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(string(dir), name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// readMetric returns the value of the series of a metric that has all labels, as
// "NAME=VALUE"; ok is false without one.
func readMetric(t *testing.T, reg prometheus.Gatherer, name string, labels ...string) (value float64, ok bool) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var have []string
			for _, l := range m.GetLabel() {
				have = append(have, l.GetName()+"="+l.GetValue())
			}
			lacks := func(label string) bool { return !slices.Contains(have, label) }
			if f.GetName() == name && !slices.ContainsFunc(labels, lacks) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue(), true
			}
		}
	}
	return 0, false
}

// safeLog is a log that tests read while it is written.
type safeLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *safeLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *safeLog) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

// A change is in force within five seconds, a half-written file never, and what cannot
// be read is told once, in the log and as a number.
func TestSecretsWatch(t *testing.T) {
	dir := newSecretsFolder(t, map[string]string{"acme": tokenKey, "globex": tokenKey, "acme.bak": ""})
	const other = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
	synctest.Test(t, func(t *testing.T) {
		keys, err := token.LoadKeyring(os.DirFS(string(dir)))
		if err != nil {
			t.Fatal(err)
		}
		log, reg := new(safeLog), prometheus.NewRegistry()
		d := Deps{Log: slog.New(slog.NewTextHandler(log, nil)), Registry: reg}
		reload := newSecretsWatch(d, "gateway").add("-token-keys", keys)
		ctx, cancel := context.WithCancel(t.Context())
		go reload(ctx)
		ids := func() (list []string) {
			for _, u := range keys.Uses() {
				list = append(list, u.Workspace+" "+u.KeyID)
			}
			slices.Sort(list)
			return list
		}
		want := func(unreadable float64, inForce ...string) {
			t.Helper()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			got, ok := readMetric(t, reg, "partners_secrets_unreadable", "flag=-token-keys")
			if !ok || got != unreadable {
				t.Errorf("%v files unreadable, want %v", got, unreadable)
			}
			if got := ids(); !slices.Equal(got, inForce) {
				t.Errorf("%v in force, want %v", got, inForce)
			}
		}
		first, second := token.KeyID(tokenKey), token.KeyID(other)
		want(0, "acme "+first, "globex "+first)
		dir.write(t, "acme", tokenKey+"\noops")
		want(1, "acme "+first, "globex "+first)
		dir.write(t, "globex", other)
		want(1, "acme "+first, "globex "+second)
		if n := log.count("acme line 2: want standard base64"); n != 1 {
			t.Errorf("the bad line was logged %d times, want once", n)
		}
		dir.write(t, "acme", other)
		want(0, "acme "+second, "globex "+second)
		dir.write(t, "acme", other[:20]) // half written, for one look
		time.Sleep(pollInterval)
		synctest.Wait()
		dir.write(t, "acme", other+"\n")
		want(0, "acme "+second, "globex "+second)
		for text, n := range map[string]int{"can be read again": 1, "is ignored": 1, "level=ERROR": 1} {
			if got := log.count(text); got != n {
				t.Errorf("%q was logged %d times, want %d", text, got, n)
			}
		}
		if at, ok := readMetric(t, reg, "partners_secrets_last_used_timestamp_seconds", "workspace=acme",
			"key_id="+second, "component=gateway", "flag=-token-keys"); !ok || at != 0 {
			t.Errorf("a key that was not used: %v %v", at, ok)
		}
		raw, err := keys.Mint("acme", time.Now(), strings.NewReader("0123456789"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keys.Verify("acme", token.Text(&raw)); err != nil {
			t.Error(err)
		}
		if at, _ := readMetric(t, reg, "partners_secrets_last_used_timestamp_seconds", "workspace=acme"); at !=
			float64(time.Now().Unix()) {
			t.Errorf("last used at %v, want now", at)
		}
		cancel()
	})
}

// twoTenants is a catalog with two workspaces.
const twoTenants = `workspaces:
  - {id: acme, name: Acme, plan: professional, access: {conversion_tracking: true}, domains: [go.acme.com],
     links: [{id: lnk_acme, domain: go.acme.com, slug: x, destination: "https://acme.com/", conversion_tracking: true}]}
  - {id: globex, name: Globex, plan: professional, access: {conversion_tracking: true}, domains: [go.globex.com],
     links: [{id: lnk_globex, domain: go.globex.com, slug: x, destination: "https://globex.com/", conversion_tracking: true}]}
`

func testSecret(t *testing.T, name string) signature.Secret {
	t.Helper()
	sum := sha256.Sum256([]byte(name))
	secret, err := signature.ParseSecret("whsec_" + base64.StdEncoding.EncodeToString(sum[:]))
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// postEvent posts an event that no token belongs to: one whose signature is accepted is
// answered 422.
func postEvent(t *testing.T, at net.Listener, workspace, secret string) *http.Response {
	t.Helper()
	body := []byte(`{"event_id":"1","type":"lead","click_token":"000000000000000000000000000","occurred_at":"` +
		time.Now().UTC().Format(time.RFC3339) + `"}`)
	url := fmt.Sprintf("http://%s/v1/workspaces/%s/events", at.Addr(), workspace)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if err := signature.SignRequest(req, "msg_1", time.Now(), body, testSecret(t, secret)); err != nil {
		t.Fatal(err)
	}
	return answerOf(t, req)
}

func answerOf(t *testing.T, req *http.Request) *http.Response {
	t.Helper()
	client := http.Client{Timeout: maxWait, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	answer, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer
}

// awaitStatus repeats a request until it has the status.
func awaitStatus(t *testing.T, what string, want int, ask func() *http.Response) {
	t.Helper()
	for deadline := time.Now().Add(maxWait); ; time.Sleep(50 * time.Millisecond) {
		answer := ask()
		if answer.StatusCode == want {
			if want == http.StatusServiceUnavailable && answer.Header.Get("Retry-After") == "" {
				t.Errorf("%s: no Retry-After", what)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s, want %d", what, answer.Status, want)
		}
	}
}

// startWithCatalog returns dependencies on a broker that has twoTenants.
func startWithCatalog(t *testing.T) Deps {
	t.Helper()
	brokers := kafkatest.Broker(t)
	kafkatest.Topics(t, brokers)
	file := filepath.Join(t.TempDir(), "catalog.yaml")
	if err := os.WriteFile(file, []byte(twoTenants), 0o600); err != nil {
		t.Fatal(err)
	}
	k := kafka.DefaultConfig()
	k.Brokers = brokers
	if _, err := setup.Catalog(t.Context(), k, slog.New(slog.DiscardHandler), []string{file}, false); err != nil {
		t.Fatal(err)
	}
	return testDeps(brokers...)
}

// stopAfter runs a component until the returned function is called.
func stopAfter(t *testing.T, component interface{ Run(context.Context) error }) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- component.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// One tenant's bad file of signing secrets decides for no other: revocations of the
// other go through, a restart serves the other, and the tenant itself is told to come
// again once nothing is known of its secrets.
func TestGatewayWithBadFile(t *testing.T) {
	t.Parallel()
	d := startWithCatalog(t)
	lines := func(names ...string) (text string) {
		for _, n := range names {
			text += testSecret(t, n).Reveal() + "\n"
		}
		return text
	}
	dir := newSecretsFolder(t, map[string]string{"acme": lines("a1", "a2"), "globex": lines("g1")})
	keys := newSecretsFolder(t, map[string]string{"acme": tokenKey, "globex": tokenKey})
	var at net.Listener
	var reg *prometheus.Registry
	start := func() (stop func()) {
		reg = prometheus.NewRegistry()
		d.Registry = reg
		g := &Gateway{Deps: d, Config: ingest.DefaultConfig(), Listener: listenLoopback(t), TokenKeys: string(keys),
			SigningSecrets: string(dir)}
		at = g.Listener
		return stopAfter(t, g)
	}
	stop := start()
	want := func(what, workspace, secret string, status int) {
		t.Helper()
		awaitStatus(t, what, status, func() *http.Response { return postEvent(t, at, workspace, secret) })
	}
	want("at first", "acme", "a1", 422)
	want("at first", "globex", "g1", 422)
	dir.write(t, "acme", lines("a2")+"v1,"+lines("a3"))
	want("readably gone", "acme", "a1", 401)
	want("the last good state", "acme", "a2", 422)
	dir.write(t, "globex", lines("g2"))
	want("revoked while another file is bad", "globex", "g1", 401)
	want("the new one", "globex", "g2", 422)
	if n, _ := readMetric(t, reg, "partners_secrets_unreadable", "flag=-signing-secrets"); n != 1 {
		t.Errorf("%v files unreadable, want 1", n)
	}
	id := testSecret(t, "g2").KeyID()
	if used, _ := readMetric(t, reg, "partners_secrets_last_used_timestamp_seconds", "workspace=globex",
		"key_id="+id); time.Since(time.Unix(int64(used), 0)) > maxWait {
		t.Errorf("%s last used at %v", id, used)
	}
	stop()

	stop = start()
	want("restarted", "globex", "g2", 422)
	want("restarted, nothing is known", "acme", "a2", 503)
	if n, _ := readMetric(t, reg, "partners_secrets_unreadable", "flag=-signing-secrets"); n != 1 {
		t.Errorf("restarted: %v files unreadable, want 1", n)
	}
	dir.write(t, "acme", lines("a2", "a3"))
	want("mended", "acme", "a3", 422)
	stop()
}

// Without a usable token key a click goes without token; the other tenant's has one.
func TestRedirectorWithBadFile(t *testing.T) {
	t.Parallel()
	d := startWithCatalog(t)
	reg := prometheus.NewRegistry()
	d.Registry = reg
	keys := newSecretsFolder(t, map[string]string{"acme": "oops", "globex": tokenKey, "README.md": "keys"})
	r := &Redirector{Deps: d, Config: redirect.DefaultConfig(), Listener: listenLoopback(t), TokenKeys: string(keys)}
	r.Config.SpoolDir = t.TempDir()
	stop := stopAfter(t, r)
	defer stop()
	location := func(host string) string {
		at := "http://" + r.Listener.Addr().String() + "/x"
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		var found string
		awaitStatus(t, host, http.StatusFound, func() *http.Response {
			answer := answerOf(t, req)
			found = answer.Header.Get("Location")
			return answer
		})
		return found
	}
	if got := location("go.acme.com"); got != "https://acme.com/" {
		t.Errorf("acme: %s", got)
	}
	if got := location("go.globex.com"); !strings.HasPrefix(got, "https://globex.com/?nim_ct=") {
		t.Errorf("globex: %s", got)
	}
	if n, _ := readMetric(t, reg, "partners_redirect_clicks_without_key_total"); n != 1 {
		t.Errorf("%v clicks counted, want 1", n)
	}
	if n, _ := readMetric(t, reg, "partners_secrets_unreadable", "flag=-token-keys"); n != 1 {
		t.Errorf("%v files unreadable, want 1", n)
	}
	keys.write(t, "acme", tokenKey)
	for deadline := time.Now().Add(maxWait); !strings.Contains(location("go.acme.com"), "nim_ct="); {
		if time.Now().After(deadline) {
			t.Fatal("the mended key is not in force")
		}
	}
}

// A report starts with the good files. That a file is bad is told before ClickHouse
// answers.
func TestReportWithBadFile(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	d := testDeps()
	d.Registry = reg
	sum := sha256.Sum256([]byte("token"))
	dir := newSecretsFolder(t, map[string]string{"acme": "oops", "globex": "alice:" + hex.EncodeToString(sum[:])})
	stop := stopAfter(t, &Report{Deps: d, ClickHouse: clickhouse.Config{DSN: "http://" + closedPort + "/partners"},
		Listener: listenLoopback(t), ReaderTokens: string(dir)})
	for deadline := time.Now().Add(maxWait); ; time.Sleep(time.Millisecond) {
		if n, ok := readMetric(t, reg, "partners_secrets_unreadable", "flag=-reader-tokens"); ok && n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the unreadable file is not counted")
		}
	}
	stop()
}
