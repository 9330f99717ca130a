package components

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/forwarded"
	"github.com/nimriz/partners/connectors/ingest"
	"github.com/nimriz/partners/connectors/redirect"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/prometheus/client_golang/prometheus"
)

// behindLoopback trusts proxies on this machine.
func behindLoopback(t *testing.T, cfg forwarded.Config) forwarded.Config {
	t.Helper()
	var err error
	if cfg.TrustedProxies, err = forwarded.ParseProxies("127.0.0.0/8"); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Each program that people reach speaks the PROXY protocol with trusted proxies, also
// below TLS, and refuses a configuration that cannot be meant.
func TestComponentsSpeakProxyProtocol(t *testing.T) {
	t.Parallel()
	cfg := behindLoopback(t, forwarded.Config{ProxyProtocol: true})
	authority := kafkatest.NewAuthority(t)
	cert, key := authority.Issue(time.Hour, "127.0.0.1")
	components := func(cfg forwarded.Config, files daemon.TLSFiles) map[string]daemon.Component {
		redirector := &Redirector{Deps: testDeps(closedPort), Config: redirect.DefaultConfig(), Proxies: cfg,
			TLS: files, Listener: listenLoopback(t), TokenKeys: secretsDir(t, tokenKey)}
		redirector.Config.SpoolDir = t.TempDir()
		gateway := &Gateway{Deps: testDeps(closedPort), Config: ingest.DefaultConfig(), Proxies: cfg, TLS: files,
			Listener: listenLoopback(t), TokenKeys: secretsDir(t, tokenKey),
			SigningSecrets: secretsDir(t, "whsec_"+tokenKey)}
		reports := &Report{Deps: testDeps(), Proxies: cfg, TLS: files, Listener: listenLoopback(t),
			ClickHouse:   clickhouse.Config{DSN: "http://" + closedPort + "/partners"},
			ReaderTokens: secretsDir(t, "alice:"+strings.Repeat("ab", 32))}
		return map[string]daemon.Component{
			redirector.Listener.Addr().String(): redirector,
			gateway.Listener.Addr().String():    gateway,
			reports.Listener.Addr().String():    reports,
		}
	}
	ask := func(addr, first string, over *tls.Config) string {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, first)
		if over != nil {
			conn = tls.Client(conn, over)
		}
		io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		answer, _ := io.ReadAll(conn)
		status, _, _ := strings.Cut(string(answer), "\r\n")
		return status
	}
	check := func(files daemon.TLSFiles, over *tls.Config) {
		t.Helper()
		for addr, component := range components(cfg, files) {
			runUntilTestEnd(t, component)
			if got := ask(addr, "PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n", over); got !=
				"HTTP/1.1 503 Service Unavailable" {
				t.Errorf("%T with a header: %q", component, got)
			}
			if got := ask(addr, "", over); got != "" {
				t.Errorf("%T without a header: %q, want no answer", component, got)
			}
		}
	}
	check(daemon.TLSFiles{}, nil)
	check(daemon.TLSFiles{Cert: cert, Key: key}, trusting(t, authority))
	for _, component := range components(forwarded.Config{Header: forwarded.HeaderForwarded}, daemon.TLSFiles{}) {
		if err := component.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "-trusted-proxies") {
			t.Errorf("%T without trusted proxies: %v", component, err)
		}
	}
}

// trusting is the TLS of a client that trusts an authority.
func trusting(t *testing.T, authority *kafkatest.Authority) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(authority.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
}

// A report that serves TLS itself gives readers a Secure cookie, whoever is in front.
func TestReportGivesSecureCookieOverTLS(t *testing.T) {
	t.Parallel()
	authority := kafkatest.NewAuthority(t)
	var files daemon.TLSFiles
	files.Cert, files.Key = authority.Issue(time.Hour, "127.0.0.1")
	sum := sha256.Sum256([]byte("secret"))
	reports := &Report{Deps: testDeps(), TLS: files, Listener: listenLoopback(t),
		ClickHouse:   clickhouse.Config{DSN: clickhousetest.ForTest(t)},
		ReaderTokens: secretsDir(t, "alice:"+hex.EncodeToString(sum[:]))}
	addr := reports.Listener.Addr().String()
	runUntilTestEnd(t, reports)
	for reports.Ready() != nil {
		time.Sleep(time.Millisecond)
	}
	transport := &http.Transport{TLSClientConfig: trusting(t, authority), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodPost, "https://"+addr+"/session",
		strings.NewReader("workspace=acme&token=secret"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if cookies := resp.Cookies(); resp.StatusCode != http.StatusSeeOther || len(cookies) != 1 || !cookies[0].Secure {
		t.Errorf("%s, cookies %v, want one that is Secure", resp.Status, cookies)
	}
}

// Each program looks at the header that it was told to believe.
func TestComponentsReadForwarded(t *testing.T) {
	t.Parallel()
	cfg := behindLoopback(t, forwarded.Config{Header: forwarded.HeaderXForwardedFor})
	d := testDeps(kafkatest.Broker(t)...)
	applyLink(t, d.Kafka, "nomura")
	redirector := &Redirector{Deps: d, Config: redirect.DefaultConfig(), Proxies: cfg, Listener: listenLoopback(t),
		TokenKeys: secretsDir(t, tokenKey)}
	redirector.Config.SpoolDir = t.TempDir()
	gateway := &Gateway{Deps: d, Config: ingest.DefaultConfig(), Proxies: cfg, Listener: listenLoopback(t),
		TokenKeys: secretsDir(t, tokenKey), SigningSecrets: secretsDir(t, "whsec_"+tokenKey)}
	reports := &Report{Deps: testDeps(), Proxies: cfg, Listener: listenLoopback(t),
		ClickHouse: clickhouse.Config{DSN: clickhousetest.ForTest(t)}, ReaderTokens: secretsDir(t, "alice:"+
			strings.Repeat("ab", 32))}
	registries := map[string]*prometheus.Registry{}
	for at, c := range map[net.Listener]struct {
		daemon.Component
		deps         *Deps
		method, path string
	}{
		redirector.Listener: {redirector, &redirector.Deps, http.MethodGet, "/nomura"},
		gateway.Listener:    {gateway, &gateway.Deps, http.MethodPost, "/v1/workspaces/acme/events"},
		reports.Listener:    {reports, &reports.Deps, http.MethodGet, "/why"},
	} {
		registry := prometheus.NewRegistry()
		c.deps.Registry = registry
		registries[c.path] = registry
		runUntilTestEnd(t, c)
		for c.Ready() != nil {
			time.Sleep(time.Millisecond)
		}
		req, err := http.NewRequest(c.method, "http://"+at.Addr().String()+c.path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", "203.0.113.7")
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	for path, registry := range registries {
		if n := counterValue(t, registry, "partners_forwarded_requests_total", "believed"); n != 1 {
			t.Errorf("%s: %v requests believed, want 1", path, n)
		}
	}
}

// counterValue returns the value of a counter for a value of its label.
func counterValue(t *testing.T, registry *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}
