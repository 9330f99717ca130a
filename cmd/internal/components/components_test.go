package components

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/cmd/internal/setup"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/ingest"
	"github.com/nimriz/partners/connectors/redirect"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// maxWait bounds each wait of a test. It is far longer than a slow machine needs, so
// that only a hang reaches it.
const maxWait = 3 * time.Minute

// applyLink puts a catalog with one link into the topic.
func applyLink(t *testing.T, k kafka.Config, slug string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "catalog.yaml")
	text := fmt.Sprintf("workspaces:\n  - id: acme\n    name: Acme\n    plan: professional\n    access: "+
		"{conversion_tracking: true, partner_reporting: true, conversion_reporting: true, exports: true}\n    "+
		"domains: [go.acme.com]\n    links:\n      - {id: lnk_%s, domain: go.acme.com, slug: %s, destination: "+
		"\"https://shop.acme.com/\"}\n", slug, slug)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := setup.Catalog(t.Context(), k, slog.New(slog.DiscardHandler), []string{file}, false); err != nil {
		t.Fatal(err)
	}
}

// logLines receives the lines of a log.
type logLines chan string

// Write implements io.Writer.
func (l logLines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// await waits for a line that has text in it.
func (l logLines) await(t *testing.T, text string) {
	t.Helper()
	for deadline := time.After(maxWait); ; {
		select {
		case line := <-l:
			if strings.Contains(line, text) {
				return
			}
		case <-deadline:
			t.Fatalf("not logged: %s", text)
		}
	}
}

// While the catalog topic is empty, or was deleted and created again, the previous
// catalog stays in use. The next catalog replaces it although its offsets are smaller.
func TestFollowCatalog(t *testing.T) {
	t.Parallel()
	brokers := kafkatest.Broker(t)
	k := kafka.DefaultConfig()
	k.Brokers = brokers
	lines := make(logLines, 1000)
	log := slog.New(slog.NewTextHandler(lines, nil))
	apply := func(slug string) {
		t.Helper()
		applyLink(t, k, slug)
	}
	view := catalog.NewView()
	serves := func(slug string) bool {
		_, found := view.Lookup("go.acme.com", slug)
		return found == catalog.Active
	}
	within := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(maxWait); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}

	apply("old")
	old := catalog.NewView()
	f, err := kafka.Follow(t.Context(), k, log, topic.Catalog, func(r *kgo.Record) error {
		return old.Apply(string(r.Key), r.Value, r.Offset+1000)
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	view.Replace(old)
	adm := kadm.NewClient(kafkatest.Client(t, brokers))
	recreate := func() {
		t.Helper()
		if _, err := adm.DeleteTopics(t.Context(), topic.Catalog); err != nil {
			t.Fatal(err)
		}
		if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, topic.Catalog); err != nil {
			t.Fatal(err)
		}
	}
	recreate()

	ctx, cancel := context.WithCancel(t.Context())
	caught, ended := make(chan struct{}, 10), make(chan struct{})
	go func() {
		defer close(ended)
		if err := followCatalog(ctx, Deps{Kafka: k, Log: log}, view, func() { caught <- struct{}{} }); err != nil {
			t.Error(err)
		}
	}()
	lines.await(t, "the catalog topic is empty")
	if len(caught) > 0 || !serves("old") {
		t.Errorf("with an empty topic caughtUp is called %d times; the old link is served: %v",
			len(caught), serves("old"))
	}
	apply("new")
	within("the new catalog is not in use", func() bool { return serves("new") && !serves("old") })
	<-caught

	recreate()
	apply("third")
	within("the catalog of the recreated topic is not in use", func() bool {
		return serves("third") && !serves("new")
	})
	cancel()
	<-ended
}

// runUntilTestEnd runs a component until the test ends.
func runUntilTestEnd(t *testing.T, component interface{ Run(context.Context) error }) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- component.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func listenLoopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// secretsDir writes a directory with one file, that of workspace acme.
func secretsDir(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "acme"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func testDeps(brokers ...string) Deps {
	k := kafka.DefaultConfig()
	k.Brokers = brokers
	return Deps{
		Kafka:    k,
		Codec:    event.DefaultCodec(),
		Log:      slog.New(slog.DiscardHandler),
		Registry: prometheus.NewRegistry(),
	}
}

const tokenKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

// closedPort is an address that refuses connections.
const closedPort = "127.0.0.1:1"

// A request during a restart waits until the component serves.
func TestGateHoldsRequestsUntilOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newReadinessGate(http.NotFoundHandler())
		time.AfterFunc(maxGateWait/2, func() {
			for range 2 { // followCatalog may call it again
				g.openTo(http.RedirectHandler("/", http.StatusFound), nil)
			}
		})
		for range 2 {
			w := httptest.NewRecorder()
			if g.ServeHTTP(w, httptest.NewRequest("GET", "/x", nil)); w.Code != http.StatusFound {
				t.Errorf("status %d", w.Code)
			}
		}
	})
}

// While Kafka or ClickHouse does not answer, requests get 503 with Retry-After.
func TestClosedGateAnswers503(t *testing.T) {
	t.Parallel()
	gateway := &Gateway{
		Deps:           testDeps(closedPort),
		Config:         ingest.DefaultConfig(),
		Listener:       listenLoopback(t),
		TokenKeys:      secretsDir(t, tokenKey),
		SigningSecrets: secretsDir(t, "whsec_"+tokenKey),
	}
	reports := &Report{
		Deps:         testDeps(),
		ClickHouse:   clickhouse.Config{DSN: "http://" + closedPort + "/partners"},
		Listener:     listenLoopback(t),
		ReaderTokens: secretsDir(t, "alice:"+strings.Repeat("ab", 32)),
	}
	redirector := &Redirector{
		Deps:      testDeps(closedPort),
		Config:    redirect.DefaultConfig(),
		Listener:  listenLoopback(t),
		TokenKeys: secretsDir(t, tokenKey),
	}
	redirector.Config.SpoolDir = t.TempDir()
	for _, component := range []struct {
		daemon.Component
		at   net.Listener
		path string
	}{
		{gateway, gateway.Listener, "/v1/workspaces/acme/events"},
		{reports, reports.Listener, "/v1/workspaces/acme/performance"},
		{redirector, redirector.Listener, "/nomura"},
	} {
		runUntilTestEnd(t, component)
		client := http.Client{Timeout: maxWait}
		answer, err := client.Get("http://" + component.at.Addr().String() + component.path)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" ||
			component.Ready() == nil {
			t.Errorf("%s: %s, Retry-After %q, ready: %v", component.path, answer.Status,
				answer.Header.Get("Retry-After"),
				component.Ready())
		}
	}
}

// A redirector stores the catalog before it reports ready: killed at that moment, it
// serves without Kafka after its restart.
func TestRedirectorKeepsCatalog(t *testing.T) {
	t.Parallel()
	d := testDeps(kafkatest.Broker(t)...)
	applyLink(t, d.Kafka, "nomura")
	p := &Redirector{
		Deps:      d,
		Config:    redirect.DefaultConfig(),
		Listener:  listenLoopback(t),
		TokenKeys: secretsDir(t, tokenKey),
	}
	p.Config.SpoolDir = t.TempDir()
	runUntilTestEnd(t, p)
	for p.Ready() != nil {
		time.Sleep(time.Millisecond)
	}
	if view, err := redirect.LoadCatalog(p.Config, d.Log); err != nil || view.Offset() < 0 {
		t.Errorf("the catalog on disk: %v", err)
	}
}

// An attempt may take any time while it makes progress, and ends when it makes none.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts := 0
		if err := retryUntilDone(t.Context(), nil, "x", func(ctx context.Context, alive func()) error {
			if attempts++; attempts == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			for range 60 {
				time.Sleep(9 * time.Second)
				alive()
			}
			return ctx.Err()
		}); err != nil || attempts != 2 {
			t.Errorf("%d attempts, %v", attempts, err)
		}
	})
}

// An outage at the start is logged once a minute, not once an attempt.
func TestRetryLogsOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		began, attempts := time.Now(), 0
		watch := outage.New(slog.New(slog.NewTextHandler(&log, nil)), "ClickHouse")
		err := retryUntilDone(t.Context(), watch, "connecting to ClickHouse", func(context.Context, func()) error {
			if attempts++; time.Since(began) < 150*time.Second {
				return errors.New("connection refused")
			}
			return nil
		})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if err != nil || attempts < 30 || len(lines) != 4 ||
			!strings.Contains(lines[0], `msg="waiting for ClickHouse"`) ||
			!strings.Contains(lines[3], `msg="no longer waiting for ClickHouse"`) {
			t.Errorf("%d attempts, %v:\n%s", attempts, err, &log)
		}
	})
}
