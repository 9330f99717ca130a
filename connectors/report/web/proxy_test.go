package web

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/forwarded"
)

// trust makes the server believe the proxies of a list.
func (r *rig) trust(cfg forwarded.Config, list string) {
	r.Helper()
	var err error
	if cfg.TrustedProxies, err = forwarded.ParseProxies(list); err != nil {
		r.Fatal(err)
	}
	if r.server.proxies, err = forwarded.New(cfg, slog.New(slog.DiscardHandler), nil); err != nil {
		r.Fatal(err)
	}
}

// signInWith sends acme's form to sign in, with some headers.
func (r *rig) signInWith(header http.Header) (int, http.Header) {
	r.Helper()
	form := url.Values{"workspace": {"acme"}, "token": {"secret of acme"}}
	req, err := http.NewRequest(http.MethodPost, r.URL+"/session", strings.NewReader(form.Encode()))
	if err != nil {
		r.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	code, h, _ := r.do(req)
	return code, h
}

// The cookie is Secure where a trusted proxy says https, in the header that is believed.
// Nobody else makes it so.
func TestSecureCookieBehindAProxy(t *testing.T) {
	r := newRig(t)
	f := func(cfg forwarded.Config, trusted, name, value string, want bool) {
		t.Helper()
		r.trust(cfg, trusted)
		code, h := r.signInWith(http.Header{name: {value}})
		if got := strings.Contains(h.Get("Set-Cookie"), "Secure"); code != 303 || got != want {
			t.Errorf("%+v, trusted %q, %s: %s: %d, Secure %v, want %v", cfg, trusted, name, value, code, got, want)
		}
	}
	xff := forwarded.Config{Header: forwarded.HeaderXForwardedFor}
	rfc := forwarded.Config{Header: forwarded.HeaderForwarded}
	const loopback = "127.0.0.0/8"
	f(forwarded.Config{}, "", "X-Forwarded-Proto", "https", false)
	f(forwarded.Config{}, loopback, "X-Forwarded-Proto", "https", false)
	f(xff, "10.0.0.0/8", "X-Forwarded-Proto", "https", false)
	f(rfc, loopback, "X-Forwarded-Proto", "https", false)
	f(xff, loopback, "Forwarded", "for=192.0.2.1;proto=https", false)
	f(xff, loopback, "X-Forwarded-Proto", "https", true)
	f(xff, loopback, "X-Forwarded-Proto", "HTTPS", true)
	f(xff, loopback, "X-Forwarded-Proto", "https, http", false) // the reader wrote the first
	f(xff, loopback, "X-Forwarded-Proto", "ftp", false)
	f(rfc, loopback, "Forwarded", "for=192.0.2.1;proto=https", true)
	f(rfc, loopback, "Forwarded", "for=192.0.2.1;proto=https, for=192.0.2.2", false)
	f(rfc, loopback, "Forwarded", "for=192.0.2.2;proto=http", false)

	// the proxy's own connection may be encrypted where the reader's is not
	r.trust(xff, "192.0.2.0/24")
	for proto, want := range map[string]bool{"": true, "https": true, "http": false} {
		form := strings.NewReader("workspace=acme&token=secret+of+acme")
		req := httptest.NewRequest(http.MethodPost, "/session", form)
		req.RemoteAddr = "192.0.2.1:4711"
		req.TLS = &tls.ConnectionState{}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if proto != "" {
			req.Header.Set("X-Forwarded-Proto", proto)
		}
		w := httptest.NewRecorder()
		r.server.ServeHTTP(w, req)
		if got := strings.Contains(w.Header().Get("Set-Cookie"), "Secure"); w.Code != 303 || got != want {
			t.Errorf("over TLS, the proxy says %q: %d, Secure %v, want %v", proto, w.Code, got, want)
		}
	}
}

// A form comes from this site if its page has the host that the reader asked for.
func TestSameSiteBehindAProxy(t *testing.T) {
	r := newRig(t)
	f := func(cfg forwarded.Config, trusted, host, origin string, want int) {
		t.Helper()
		r.trust(cfg, trusted)
		code, _ := r.signInWith(http.Header{"X-Forwarded-Host": {host}, "Origin": {origin}})
		if code != want {
			t.Errorf("%+v, trusted %q, host %q, origin %q: %d, want %d", cfg, trusted, host, origin, code, want)
		}
	}
	host := forwarded.Config{Header: forwarded.HeaderXForwardedFor, Host: true}
	const loopback, page = "127.0.0.0/8", "https://reports.acme.com"
	f(host, loopback, "reports.acme.com", page, 303)
	f(host, loopback, "reports.acme.com", "https://evil.example", 403)
	f(host, loopback, "evil.example, reports.acme.com", "https://evil.example", 403)
	f(host, "10.0.0.0/8", "evil.example", "https://evil.example", 403)
	f(forwarded.Config{Header: forwarded.HeaderXForwardedFor}, loopback, "evil.example", "https://evil.example", 403)
	f(forwarded.Config{}, "", "evil.example", "https://evil.example", 403)
	f(forwarded.Config{}, "", "", r.URL, 303)
}
