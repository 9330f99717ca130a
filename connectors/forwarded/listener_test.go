package forwarded

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus"
)

// A proxyRig is a server that answers who its client is. It trusts 127.0.0.1 and
// 10.0.0.0/8; tests also connect from 127.0.0.2, which it does not.
type proxyRig struct {
	*testing.T
	proxies  *Proxies
	registry *prometheus.Registry
	addr     string
	logged   safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newProxyRig(t *testing.T, cfg Config) *proxyRig {
	t.Helper()
	r := &proxyRig{T: t, registry: prometheus.NewRegistry()}
	var err error
	if cfg.TrustedProxies, err = ParseProxies("127.0.0.1,10.0.0.0/8"); err != nil {
		t.Fatal(err)
	}
	if r.proxies, err = New(cfg, slog.New(slog.NewTextHandler(&r.logged, nil)), r.registry); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		io.WriteString(w, clientText(r.proxies.ClientOf(req)))
	}), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go server.Serve(r.proxies.Listen(ln))
	t.Cleanup(func() { server.Close() })
	r.addr = ln.Addr().String()
	return r
}

// ask connects from an address, sends a text and then a request with lines of a header.
// It returns the body of the answer, or the status if that is not 200; "refused" for a
// connection that ends without an answer.
func (r *proxyRig) ask(from, first, lines string) string {
	r.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(r.Context(), "tcp4", r.addr)
	if err != nil {
		r.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%sGET / HTTP/1.1\r\nHost: host\r\nConnection: close\r\n%s\r\n", first, lines)
	answer, _ := io.ReadAll(conn)
	head, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	status, _, _ := strings.Cut(head, "\r\n")
	switch {
	case status == "":
		return "refused"
	case status != "HTTP/1.1 200 OK":
		return status
	}
	return body
}

// binaryHeader is a header of version 2.
func binaryHeader(t *testing.T, header proxyproto.Header) string {
	t.Helper()
	header.Version = 2
	text, err := header.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A trusted proxy gives the client's address and must do so; the header of any other
// peer is no HTTP, and its address is its own.
func TestProxyProtocol(t *testing.T) {
	r := newProxyRig(t, Config{ProxyProtocol: true})
	f := func(from, first, want string) {
		t.Helper()
		if got := r.ask(from, first, ""); got != want {
			t.Errorf("from %s, %q: %s, want %s", from, first, got, want)
		}
	}
	at := func(ip string) *net.TCPAddr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 4711} }
	const proxy, stranger = "127.0.0.1", "127.0.0.2"
	const spoofed = "PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n"
	f(proxy, spoofed, "203.0.113.7 direct http host")
	f(proxy, "PROXY TCP6 2001:db8::7 ::1 4711 80\r\n", "2001:db8::7 direct http host")
	f(proxy, "PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 80\r\n", "203.0.113.7 direct http host")
	f(proxy, binaryHeader(t, proxyproto.Header{Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4,
		SourceAddr: at("203.0.113.7"), DestinationAddr: at("127.0.0.1")}), "203.0.113.7 direct http host")
	f(proxy, binaryHeader(t, proxyproto.Header{Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv6,
		SourceAddr: at("2001:db8::7"), DestinationAddr: at("::1")}), "2001:db8::7 direct http host")
	f(proxy, binaryHeader(t, proxyproto.Header{Command: proxyproto.LOCAL}), "127.0.0.1 absent http host")
	f(proxy, "PROXY UNKNOWN\r\n", "- direct http host")
	const v2 = "\r\n\r\n\x00\r\nQUIT\n"
	const ends = "\xcb\x00\x71\x07\x7f\x00\x00\x01\x12\x67\x00\x50" // 203.0.113.7:4711, 127.0.0.1:80
	f(proxy, v2+"\x20\x11\x00\x0c"+ends, "127.0.0.1 absent http host")
	f(proxy, v2+"\x21\x11\x00\x10"+ends+"\x04\x00\x01x", "203.0.113.7 direct http host")
	f(proxy, v2+"\x21\x12\x00\x0c"+ends, "- direct http host")
	f(proxy, v2+"\x21\x31\x00\xd8"+strings.Repeat("\x00", 216), "- direct http host")

	f(proxy, "", "refused")
	f(proxy, "PROXY TCP4 203.0.113.7\r\n", "refused")
	f(proxy, "PROXY TCP4 999.0.113.7 127.0.0.1 4711 80\r\n", "refused")
	f(proxy, "PROXY "+strings.Repeat("x", 200)+"\r\n", "refused")
	f(proxy, v2+"\x41\x11\x00\x0c"+ends, "refused")
	f(proxy, v2+"\x21\x00\x00\x00", "refused")
	f(proxy, v2+"\x21\x11\x00\x08"+ends, "refused")

	f(stranger, "", "127.0.0.2 direct http host")
	f(stranger, spoofed, "HTTP/1.1 400 Bad Request")
	f(stranger, binaryHeader(t, proxyproto.Header{Command: proxyproto.LOCAL}), "HTTP/1.1 400 Bad Request")

	want := map[string]float64{"believed": 11, "refused": 7, "direct": 3}
	if got := counted(t, r.registry, "partners_proxy_protocol_connections_total"); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
	if n := strings.Count(r.logged.String(), "-proxy-protocol"); n != 1 {
		t.Errorf("%d lines about refused connections, want 1 in a minute:\n%s", n, r.logged.String())
	}
}

// Behind the PROXY protocol a header is believed if the address that it gave is a
// trusted proxy's. A client whose proxy does not know it is not trusted.
func TestHeaderBehindProxyProtocol(t *testing.T) {
	r := newProxyRig(t, Config{ProxyProtocol: true, Header: HeaderXForwardedFor})
	f := func(first, want string) {
		t.Helper()
		if got := r.ask("127.0.0.1", first, "X-Forwarded-For: 1.1.1.1\r\n"); got != want {
			t.Errorf("%q: %s, want %s", first, got, want)
		}
	}
	f("PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n", "203.0.113.7 ignored http host")
	f("PROXY TCP4 10.0.0.1 127.0.0.1 4711 80\r\n", "1.1.1.1 believed http host")
	f("PROXY UNKNOWN\r\n", "- ignored http host")
}

// Without the setting a header of the PROXY protocol is no HTTP, whoever sends it.
func TestProxyProtocolIsOff(t *testing.T) {
	r := newProxyRig(t, Config{Header: HeaderXForwardedFor})
	got := r.ask("127.0.0.1", "PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n", "")
	if got != "HTTP/1.1 400 Bad Request" {
		t.Error(got)
	}
	if got := r.ask("127.0.0.1", "", ""); got != "127.0.0.1 absent http host" {
		t.Error(got)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if (*Proxies)(nil).Listen(ln) != ln {
		t.Error("a listener without trusted proxies is not the listener itself")
	}
}

// A health check that only connects is neither counted nor logged, and holds up nobody.
func TestSilentConnection(t *testing.T) {
	r := newProxyRig(t, Config{ProxyProtocol: true})
	for range 3 {
		conn, err := net.Dial("tcp4", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := r.ask("127.0.0.2", "", ""); got != "127.0.0.2 direct http host" {
			t.Error(got)
		}
		conn.(*net.TCPConn).CloseWrite()
		io.ReadAll(conn)
	}
	got := counted(t, r.registry, "partners_proxy_protocol_connections_total")
	if want := map[string]float64{"believed": 0, "refused": 0, "direct": 3}; !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
	if r.logged.String() != "" {
		t.Error(r.logged.String())
	}
}

func TestLogLimit(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := logLimit{now: func() time.Time { return now }}
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {0, false}, {complaintInterval - 1, false}, {1, true}, {time.Second, false}, {time.Hour, true}} {
		now = now.Add(c.after)
		if got := l.allow(); got != c.want {
			t.Errorf("%v later: %v, want %v", c.after, got, c.want)
		}
	}
}
