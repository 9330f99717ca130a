package redirect

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/forwarded"
)

// trustProxies makes the Proxies of a configuration that trusts a list of ranges.
func trustProxies(t testing.TB, cfg forwarded.Config, log *slog.Logger, list string) *forwarded.Proxies {
	t.Helper()
	var err error
	if cfg.TrustedProxies, err = forwarded.ParseProxies(list); err != nil {
		t.Fatal(err)
	}
	proxies, err := forwarded.New(cfg, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	return proxies
}

// The country is that of the visitor behind proxies, and no visitor chooses it. The
// proxy is the test itself, on a loopback address.
func TestCountryBehindAProxy(t *testing.T) {
	s := newTestHandler(t, testCatalog, testCountries(t))
	client := startServer(t, s)
	const loopback = "127.0.0.0/8,10.0.0.0/8"
	f := func(cfg forwarded.Config, trusted, header, want string) {
		t.Helper()
		s.proxies = trustProxies(t, cfg, discardLog(), trusted)
		req, err := http.NewRequest("GET", "http://go.acme.com/plain", nil)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(header) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			req.Header.Add(name, value)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := s.lastClick(t).Country; resp.StatusCode != 302 || got != want {
			t.Errorf("%+v, trusted %q, %q: %d, country %q, want %q", cfg, trusted, header, resp.StatusCode, got, want)
		}
	}
	xff := forwarded.Config{Header: forwarded.HeaderXForwardedFor}
	rfc := forwarded.Config{Header: forwarded.HeaderForwarded}
	cloudflare := forwarded.Config{Header: forwarded.HeaderXForwardedFor, CountryHeader: "cf-ipcountry"}
	cloudfront := forwarded.Config{CountryHeader: "CloudFront-Viewer-Country"}

	const all = "X-Forwarded-For: 81.2.69.142\nX-Real-IP: 81.2.69.142\nForwarded: for=81.2.69.142\n" +
		"CF-Connecting-IP: 81.2.69.142\nCF-IPCountry: GB\nCloudFront-Viewer-Country: GB"
	f(forwarded.Config{}, "", all, "")
	f(forwarded.Config{}, loopback, all, "")
	f(xff, "10.0.0.0/8", all, "") // the peer is no trusted proxy

	f(xff, loopback, "X-Forwarded-For: 81.2.69.142", "GB")
	f(rfc, loopback, "Forwarded: for=81.2.69.142", "GB")
	f(xff, loopback, "Forwarded: for=81.2.69.142", "")
	f(rfc, loopback, "X-Forwarded-For: 81.2.69.142", "")
	f(xff, loopback, "X-Real-IP: 81.2.69.142", "")
	f(xff, loopback, "CF-IPCountry: GB", "")
	f(cloudflare, loopback, "CF-Connecting-IP: 81.2.69.142\nCF-IPCountry: GB", "GB")
	f(cloudfront, loopback, "CloudFront-Viewer-Country: GB", "GB")
	f(cloudfront, "10.0.0.0/8", "CloudFront-Viewer-Country: GB", "")

	// the visitor wrote the first address; the proxies added the others
	f(xff, loopback, "X-Forwarded-For: 200.1.2.3, 81.2.69.142", "GB")
	f(xff, loopback, "X-Forwarded-For: 200.1.2.3\nX-Forwarded-For: 81.2.69.142, 10.1.1.1", "GB")
	f(rfc, loopback, `Forwarded: for="200.1.2.3, for=81.2.69.142;proto=https`, "GB")
	f(xff, loopback, "X-Forwarded-For: 81.2.69.142, unknown", "")
	// the country that a proxy names goes before the database, but must be one
	f(cloudflare, loopback, "X-Forwarded-For: 200.1.2.3\nCF-IPCountry: GB", "GB")
	f(cloudflare, loopback, "X-Forwarded-For: 200.1.2.3\nCF-IPCountry: XX", "BR")
	f(cloudflare, loopback, "X-Forwarded-For: 200.1.2.3\nCF-IPCountry: T1", "BR")
	f(cloudflare, loopback, "X-Forwarded-For: 200.1.2.3\nCF-IPCountry: GB\nCF-IPCountry: FR", "BR")
}

// The link is looked up by the host that a trusted proxy gives, if that is wanted.
func TestHostBehindAProxy(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	f := func(cfg forwarded.Config, trusted, header, value string, want int) {
		t.Helper()
		s.proxies = trustProxies(t, cfg, discardLog(), trusted)
		w := s.serveRequest("GET", "http://internal:8080/plain", func(r *http.Request) {
			r.RemoteAddr = "10.0.0.1:4711"
			r.Header[header] = []string{value}
		})
		if w.Code != want {
			t.Errorf("%+v, trusted %q, %s %s: %d, want %d", cfg, trusted, header, value, w.Code, want)
		}
	}
	xff := forwarded.Config{Header: forwarded.HeaderXForwardedFor, Host: true}
	rfc := forwarded.Config{Header: forwarded.HeaderForwarded, Host: true}
	f(xff, "10.0.0.0/8", "X-Forwarded-Host", "go.acme.com", 302)
	f(xff, "10.0.0.0/8", "X-Forwarded-Host", "evil.example, GO.ACME.COM:443", 302)
	f(xff, "10.0.0.0/8", "X-Forwarded-Host", "go.acme.com, evil.example", 404)
	f(rfc, "10.0.0.0/8", "Forwarded", `for=192.0.2.1;host="go.acme.com:443"`, 302)
	f(rfc, "10.0.0.0/8", "X-Forwarded-Host", "go.acme.com", 404)
	f(xff, "10.0.0.2", "X-Forwarded-Host", "go.acme.com", 404)
	f(forwarded.Config{Header: forwarded.HeaderXForwardedFor}, "10.0.0.0/8", "X-Forwarded-Host", "go.acme.com", 404)
	f(forwarded.Config{}, "", "X-Forwarded-Host", "go.acme.com", 404)
}

// The PROXY protocol of a trusted proxy gives the country; that of others is no HTTP.
func TestCountryByProxyProtocol(t *testing.T) {
	s := newTestHandler(t, testCatalog, testCountries(t))
	f := func(trusted, first string, wantStatus, wantCountry string) {
		t.Helper()
		s.proxies = trustProxies(t, forwarded.Config{ProxyProtocol: true}, discardLog(), trusted)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: s}
		go server.Serve(s.proxies.Listen(ln))
		defer server.Close()
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%sGET /plain HTTP/1.1\r\nHost: go.acme.com\r\nConnection: close\r\n\r\n", first)
		answer, _ := io.ReadAll(conn)
		if status, _, _ := strings.Cut(string(answer), "\r\n"); status != wantStatus {
			t.Errorf("trusted %q, %q: %q, want %q", trusted, first, status, wantStatus)
			return
		}
		if strings.Contains(wantStatus, "302") {
			if got := s.lastClick(t).Country; got != wantCountry {
				t.Errorf("trusted %q, %q: country %q, want %q", trusted, first, got, wantCountry)
			}
		}
	}
	const header = "PROXY TCP4 81.2.69.142 127.0.0.1 4711 80\r\n"
	f("127.0.0.0/8", header, "HTTP/1.1 302 Found", "GB")
	f("127.0.0.0/8", "", "", "")
	f("10.0.0.0/8", header, "HTTP/1.1 400 Bad Request", "")
	f("10.0.0.0/8", "", "HTTP/1.1 302 Found", "")
}

// A database of countries that finds none, because no visitor has a public address, is
// worth one line in the log.
func TestPrivateVisitorsAreReported(t *testing.T) {
	const warning = "-country-db finds no country"
	f := func(countries *Countries, want int, remotes ...string) {
		t.Helper()
		s := newTestHandler(t, testCatalog, countries)
		var logged safeBuffer
		s.private = newPrivateWatch(slog.New(slog.NewTextHandler(&logged, nil)))
		for i := range 3 * privateVisitors {
			s.serveRequest("GET", "http://go.acme.com/plain", func(r *http.Request) {
				r.RemoteAddr = remotes[min(i, len(remotes)-1)]
			})
		}
		if got := strings.Count(logged.String(), warning); got != want {
			t.Errorf("%v: %d warnings, want %d\n%s", remotes, got, want, logged.String())
		}
		if strings.Contains(logged.String(), "10.0.0.1") {
			t.Error("the log holds an address")
		}
	}
	countries := testCountries(t)
	f(countries, 1, "10.0.0.1:1")
	f(countries, 1, "127.0.0.1:1", "[::1]:1", "[fd00::1]:1", "192.168.1.1:1", "100.64.0.1:1", "[fe80::1%eth0]:1",
		"pipe")
	f(countries, 0, "10.0.0.1:1", "10.0.0.1:1", "200.1.2.3:1", "10.0.0.1:1")
	f(nil, 0, "10.0.0.1:1")
}
