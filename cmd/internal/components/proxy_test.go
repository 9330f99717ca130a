package components

import (
	"fmt"
	"io"
	"net"
	"net/http"
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

// Each program that people reach speaks the PROXY protocol with trusted proxies, and
// refuses a configuration that cannot be meant.
func TestComponentsSpeakProxyProtocol(t *testing.T) {
	t.Parallel()
	cfg := behindLoopback(t, forwarded.Config{ProxyProtocol: true})
	components := func(cfg forwarded.Config) map[string]daemon.Component {
		redirector := &Redirector{Deps: testDeps(closedPort), Config: redirect.DefaultConfig(), Proxies: cfg,
			Listener: listenLoopback(t), TokenKeys: secretsDir(t, tokenKey)}
		redirector.Config.SpoolDir = t.TempDir()
		gateway := &Gateway{Deps: testDeps(closedPort), Config: ingest.DefaultConfig(), Proxies: cfg,
			Listener: listenLoopback(t), TokenKeys: secretsDir(t, tokenKey),
			SigningSecrets: secretsDir(t, "whsec_"+tokenKey)}
		reports := &Report{Deps: testDeps(), Proxies: cfg, Listener: listenLoopback(t),
			ClickHouse:   clickhouse.Config{DSN: "http://" + closedPort + "/partners"},
			ReaderTokens: secretsDir(t, "alice:"+strings.Repeat("ab", 32))}
		return map[string]daemon.Component{
			redirector.Listener.Addr().String(): redirector,
			gateway.Listener.Addr().String():    gateway,
			reports.Listener.Addr().String():    reports,
		}
	}
	ask := func(addr, first string) string {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%sGET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", first)
		answer, _ := io.ReadAll(conn)
		status, _, _ := strings.Cut(string(answer), "\r\n")
		return status
	}
	for addr, component := range components(cfg) {
		runUntilTestEnd(t, component)
		if got := ask(addr, "PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n"); got != "HTTP/1.1 503 Service Unavailable" {
			t.Errorf("%T with a header: %q", component, got)
		}
		if got := ask(addr, ""); got != "" {
			t.Errorf("%T without a header: %q, want no answer", component, got)
		}
	}
	for _, component := range components(forwarded.Config{Header: forwarded.HeaderForwarded}) {
		if err := component.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "-trusted-proxies") {
			t.Errorf("%T without trusted proxies: %v", component, err)
		}
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
