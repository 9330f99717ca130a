package ingest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
)

// countingReader is an endless body.
type countingReader struct{ n int64 }

func (c *countingReader) Read(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// A body that is too large is not read beyond the limit; one that says so, not at all.
func TestTooLargeIsNotRead(t *testing.T) {
	r := newRig(t)
	for path, limit := range map[string]int64{toWorkspace("acme"): MaxEventBytes, batchTo("acme"): MaxBatchBytes} {
		for _, declared := range []int64{-1, limit + 1} {
			body := new(countingReader)
			req := httptest.NewRequest("POST", path, io.NopCloser(body))
			req.ContentLength = declared
			req.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			r.handler.ServeHTTP(w, req)
			most := limit + 1 // one byte tells that there is more
			if declared > 0 {
				most = 0
			}
			if w.Code != 413 || body.n > most || w.Header().Get("Connection") != "close" && declared > 0 {
				t.Errorf("%s declared %d: %d, read %d", path, declared, w.Code, body.n)
			}
		}
	}
}

// needTools skips the test where a tool of a script is missing, or fails it if
// PARTNERS_REQUIRE_SENDERS=1.
func needTools(t *testing.T, script string, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("PARTNERS_REQUIRE_SENDERS") == "1" {
				t.Fatalf("PARTNERS_REQUIRE_SENDERS=1, and %s cannot run: there is no %s in PATH", script, tool)
			}
			t.Skipf("SKIP: %s: there is no %s in PATH", script, tool)
		}
	}
}

// The senders that the documentation shows are run against the handler.
func TestSenders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "event.json")
	for script, tools := range map[string][]string{"sign.sh": {"bash", "curl", "openssl"}, "sign.mjs": {"node"},
		"sign.py": {"python3"}} {
		t.Run(script, func(t *testing.T) {
			needTools(t, script, tools...)
			run := func(body, secretOfWorkspace string) (string, error) {
				if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := exec.CommandContext(t.Context(), tools[0], filepath.Join("..", "signature", "testdata", script),
					r.url+toWorkspace("acme"), file)
				cmd.Env = append(os.Environ(), "PARTNERS_SECRET="+secretOf(secretOfWorkspace).Reveal(),
					"NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			body := r.event("event_id", `"`+script+`"`, "reason", `"Grüße"`) + "\n"
			if out, err := run(body, "acme"); err != nil || !strings.Contains(out, `"status":"accepted","event_id":"`+
				script+`"`) {
				t.Errorf("%v: %s", err, out)
			}
			if out, err := run(body, "globex"); err == nil || !strings.Contains(out, "bad_signature") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// All that is registered is listed in the documentation, and the counters count.
func TestMetrics(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.do(call{path: batchTo("acme"), body: batchOf(r.event(), r.event("type", `"lead"`), "{}")})
	r.do(call{path: "/"})
	for name, want := range map[string]float64{
		"requests_total":       2,
		"events_total":         2,
		"events_refused_total": 1,
		"ack_seconds":          1,
		"unacknowledged_total": 0,
		"in_flight":            0,
	} {
		if got := r.metric("partners_ingest_" + name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	families, err := r.registry.Gather()
	if err != nil || len(families) != 11 {
		t.Errorf("%d metrics, %v", len(families), err)
	}
	for _, f := range families {
		if !bytes.Contains(doc, []byte("//\t"+f.GetName())) {
			t.Errorf("doc.go does not list %s", f.GetName())
		}
	}
}

func TestConfig(t *testing.T) {
	f := func(want string, change func(*Config)) {
		t.Helper()
		cfg := DefaultConfig()
		change(&cfg)
		err := cfg.Validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("got %v, want %s…", err, want)
		}
	}
	f("", func(*Config) {})
	f("-rate:", func(c *Config) { c.Rate = 0 })
	f("-burst:", func(c *Config) { c.Burst = 499 })
	f("rate of unverified requests:", func(c *Config) { c.UnverifiedRate = -1 })
	f("burst of unverified requests:", func(c *Config) { c.UnverifiedBurst = 0 })
	f("timeout of acknowledgements:", func(c *Config) { c.AckTimeout = time.Millisecond })
	f("timeout of acknowledgements:", func(c *Config) { c.AckTimeout = time.Minute })
}

// A producer with which 202 would promise too much is refused.
func TestProducerIsChecked(t *testing.T) {
	brokers := kafkatest.Broker(t)
	f := func(want string, opts ...kgo.Opt) {
		t.Helper()
		cl := kafkatest.Client(t, brokers, opts...)
		_, err := New(DefaultConfig(), kafka.DefaultConfig(), cl, event.DefaultCodec(), placedIn(topic.OneEpoch(6)),
			signingKeys(t), tokenKeys(t), catalogOf, nil, slog.New(slog.DiscardHandler), nil)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want …%s…", err, want)
		}
	}
	f("", ProducerOptions(DefaultConfig())...)
	f("all in-sync replicas", append(ProducerOptions(DefaultConfig()), kgo.RequiredAcks(kgo.LeaderAck()),
		kgo.DisableIdempotentWrite())...)
	f("idempotent", append(ProducerOptions(DefaultConfig()), kgo.DisableIdempotentWrite())...)
	f("delivery timeout")
}

// A body that does not come in time is to be sent again; one that ends early is wrong.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	server := httptest.NewUnstartedServer(r.handler)
	server.Config.ReadTimeout = 100 * time.Millisecond
	server.Start()
	defer server.Close()
	f := func(closes bool, status int) {
		t.Helper()
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
			toWorkspace("acme"))
		if closes {
			c.(*net.TCPConn).CloseWrite()
		}
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if again := answer.Header.Get("Retry-After") != ""; answer.StatusCode != status || again == closes {
			t.Errorf("closed by the sender: %v: got %s, Retry-After %v", closes, answer.Status, again)
		}
	}
	f(false, http.StatusServiceUnavailable)
	f(true, http.StatusBadRequest)
}
