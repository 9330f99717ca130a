package forwarded

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// proxies are trusted in all tests.
const proxies = "10.0.0.0/8, 192.0.2.1, fd00::/8, ::ffff:172.20.0.0/112"

func testConfig(t testing.TB, header string) Config {
	t.Helper()
	trusted, err := ParseProxies(proxies)
	if err != nil {
		t.Fatal(err)
	}
	return Config{TrustedProxies: trusted, Header: header, Host: header != HeaderNone, CountryHeader: "CF-IPCountry"}
}

// headerOf reads lines of a header, NAME: VALUE.
func headerOf(lines string) http.Header {
	header := http.Header{}
	for line := range strings.Lines(lines) {
		name, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ":")
		header.Add(name, strings.TrimSpace(value))
	}
	return header
}

// clientText is a client as the tables have it: address, basis, and the rest if it is
// known.
func clientText(c Client) string {
	text := "- " + c.Basis.String()
	if c.Addr.IsValid() {
		text = c.Addr.String() + text[1:]
	}
	for _, known := range []string{c.Scheme, c.Host, c.Country} {
		if known != "" {
			text += " " + known
		}
	}
	return text
}

// resolved is a case: a request from peer with lines of a header.
type resolved struct{ peer, lines, want string }

func checkCases(t *testing.T, header string, cases []resolved) {
	t.Helper()
	cfg := testConfig(t, header)
	for _, c := range cases {
		got := clientText(Resolve(&cfg, netip.MustParseAddr(c.peer), headerOf(c.lines)))
		if got != c.want {
			t.Errorf("%s from %s with\n%s\n got %s\nwant %s", cmp.Or(header, "none"), c.peer, c.lines, got, c.want)
		}
	}
}

// In these cases a client writes what it can, and X-Forwarded-For is believed.
func TestSpoofedXForwardedFor(t *testing.T) {
	checkCases(t, HeaderXForwardedFor, []resolved{
		// an untrusted peer is the client, whatever it sends
		{"203.0.113.7", "", "203.0.113.7 direct"},
		{"203.0.113.7", "X-Forwarded-For: 1.1.1.1", "203.0.113.7 ignored"},
		{"203.0.113.7", "X-Forwarded-For: 10.0.0.1", "203.0.113.7 ignored"},
		{"203.0.113.7", "Forwarded: for=1.1.1.1", "203.0.113.7 direct"},
		{"203.0.113.7", "X-Forwarded-Proto: https\nX-Forwarded-Host: evil.example\nCF-IPCountry: GB",
			"203.0.113.7 direct"},
		{"::ffff:203.0.113.7", "X-Forwarded-For: 1.1.1.1", "203.0.113.7 ignored"},
		{"fe80::1%eth0", "X-Forwarded-For: 1.1.1.1", "fe80::1 ignored"},
		// a trusted one appends its peer
		{"10.0.0.1", "X-Forwarded-For: 203.0.113.7", "203.0.113.7 believed"},
		{"::ffff:10.0.0.1", "X-Forwarded-For: 203.0.113.7", "203.0.113.7 believed"},
		{"fd00::1%eth0", "X-Forwarded-For: 203.0.113.7", "203.0.113.7 believed"},
		{"192.0.2.1", "X-Forwarded-For: 203.0.113.7", "203.0.113.7 believed"},
		{"192.0.2.2", "X-Forwarded-For: 203.0.113.7", "192.0.2.2 ignored"},
		{"10.0.0.1", "X-Forwarded-For: 1.1.1.1, 203.0.113.7", "203.0.113.7 believed"},
		{"10.0.0.1", "X-Forwarded-For: 10.9.9.9, 203.0.113.7", "203.0.113.7 believed"},
		{"10.0.0.1", "X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.0.0.2, 192.0.2.1", "203.0.113.7 believed"},
		{"10.0.0.1", "X-Forwarded-For: 1.1.1.1,203.0.113.7 ,\t10.0.0.2", "203.0.113.7 believed"},
		// lines are joined in order
		{"10.0.0.1", "X-Forwarded-For: 1.1.1.1\nX-Forwarded-For: 203.0.113.7", "203.0.113.7 believed"},
		{"10.0.0.1", "X-Forwarded-For: 1.1.1.1, 203.0.113.7\nX-Forwarded-For: 10.0.0.2\nX-Forwarded-For: 10.0.0.3",
			"203.0.113.7 believed"},
		{"10.0.0.1", "X-Forwarded-For: 203.0.113.7\nX-Forwarded-For: ", "203.0.113.7 believed"},
		// all are trusted: the leftmost
		{"10.0.0.1", "X-Forwarded-For: 10.0.0.4, 10.0.0.3\nX-Forwarded-For: 10.0.0.2", "10.0.0.4 believed"},
		{"10.0.0.1", "X-Forwarded-For: fd00::4, 10.0.0.3", "fd00::4 believed"},
		// nothing was sent
		{"10.0.0.1", "", "10.0.0.1 absent"},
		{"10.0.0.1", "X-Forwarded-For: ", "10.0.0.1 absent"},
		{"10.0.0.1", "X-Forwarded-For: , ,,\nX-Forwarded-For: ,", "10.0.0.1 absent"},
		// the other headers say nothing
		{"10.0.0.1", "Forwarded: for=1.1.1.1\nX-Real-IP: 1.1.1.1\nTrue-Client-IP: 1.1.1.1\nCF-Connecting-IP: 1.1.1.1",
			"10.0.0.1 absent"},
		{"10.0.0.1", "Forwarded: for=1.1.1.1\nX-Forwarded-For: 203.0.113.7", "203.0.113.7 believed"},
		// forms of an address
		{"10.0.0.1", "X-Forwarded-For: 203.0.113.7:4711", "203.0.113.7 believed"},
		{"10.0.0.1", "X-Forwarded-For: 2001:db8::7", "2001:db8::7 believed"},
		{"10.0.0.1", "X-Forwarded-For: [2001:db8::7]", "2001:db8::7 believed"},
		{"10.0.0.1", "X-Forwarded-For: [2001:DB8:0::7]:4711", "2001:db8::7 believed"},
		{"10.0.0.1", "X-Forwarded-For: ::ffff:203.0.113.7", "203.0.113.7 believed"},
		{"10.0.0.1", "X-Forwarded-For: 203.0.113.7, ::ffff:10.0.0.2", "203.0.113.7 believed"},
		{"10.0.0.1", "X-Forwarded-For: 203.0.113.7, [::ffff:172.20.1.1]:80", "203.0.113.7 believed"},
		// a client that is not known is nobody
		{"10.0.0.1", "X-Forwarded-For: unknown", "- unknown"},
		{"10.0.0.1", "X-Forwarded-For: 1.1.1.1, Unknown, 10.0.0.2", "- unknown"},
		{"10.0.0.1", "X-Forwarded-For: 1.1.1.1, _x", "- unknown"},
		{"10.0.0.1", "X-Forwarded-For: unknown, 203.0.113.7", "203.0.113.7 believed"},
		// rubbish to the left of the client does not matter, in its place it is nobody
		{"10.0.0.1", "X-Forwarded-For: ';DROP TABLE clicks, 203.0.113.7", "203.0.113.7 believed"},
		{"10.0.0.1", "X-Forwarded-For: \"1.1.1.1, 203.0.113.7", "203.0.113.7 believed"},
		{"10.0.0.1", "X-Forwarded-For: 1.1.1.1, x, 10.0.0.2", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: \"203.0.113.7\"", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: 203.0.113.7 10.0.0.2", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: 203.0.113.7:", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: 203.0.113.7:65536", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: 203.0.113.7:123456", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: 203.0.113.007", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: 0x7f.1", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: [203.0.113.7]", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: [2001:db8::7", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: 203.0.113.7]", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: [", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: []:80", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: :80", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: [fe80::1%eth0]", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: fe80::1%25eth0", "- malformed"},
		{"10.0.0.1", "X-Forwarded-For: www.example.com", "- malformed"},
	})
}

// In these cases Forwarded is believed.
func TestSpoofedForwarded(t *testing.T) {
	checkCases(t, HeaderForwarded, []resolved{
		{"203.0.113.7", "Forwarded: for=1.1.1.1;proto=https;host=evil.example", "203.0.113.7 ignored"},
		{"203.0.113.7", "X-Forwarded-For: 1.1.1.1", "203.0.113.7 direct"},
		{"10.0.0.1", "", "10.0.0.1 absent"},
		{"10.0.0.1", "X-Forwarded-For: 1.1.1.1\nX-Forwarded-Proto: https\nX-Forwarded-Host: evil.example",
			"10.0.0.1 absent"},
		{"10.0.0.1", "X-Forwarded-For: 1.1.1.1\nForwarded: for=203.0.113.7", "203.0.113.7 believed"},
		// the examples of RFC 7239
		{"10.0.0.1", `Forwarded: for="_gazonk"`, "- unknown"},
		{"10.0.0.1", `Forwarded: For="[2001:db8:cafe::17]:4711"`, "2001:db8:cafe::17 believed"},
		{"10.0.0.1", "Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60 believed http"},
		{"10.0.0.1", "Forwarded: for=192.0.2.43, for=198.51.100.17", "198.51.100.17 believed"},
		{"10.0.0.1", "Forwarded: for=_hidden, for=_SEVKISEK", "- unknown"},
		{"10.0.0.1", `Forwarded: for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown`, "- unknown"},
		{"10.0.0.1", `Forwarded: for="192.0.2.43:47011"`, "192.0.2.43 believed"},
		{"10.0.0.1", `Forwarded: for="192.0.2.43:_port"`, "192.0.2.43 believed"},
		// from the right, over lines
		{"10.0.0.1", "Forwarded: for=1.1.1.1, for=203.0.113.7\nForwarded: for=10.0.0.2, for=192.0.2.1",
			"203.0.113.7 believed"},
		{"10.0.0.1", "Forwarded: for=10.0.0.3;proto=https, for=10.0.0.2;proto=http", "10.0.0.3 believed https"},
		{"10.0.0.1", `Forwarded: for=203.0.113.7, for="[::ffff:10.0.0.2]:80"`, "203.0.113.7 believed"},
		// a client cannot swallow what the proxy adds
		{"10.0.0.1", `Forwarded: for="1.1.1.1, for=203.0.113.7`, "203.0.113.7 believed"},
		{"10.0.0.1", `Forwarded: for=1.1.1.1;x=", for=203.0.113.7;host="go.acme.com"`,
			"203.0.113.7 believed go.acme.com"},
		{"10.0.0.1", `Forwarded: for=1.1.1.1;x="\, for=203.0.113.7;proto="https"`, "203.0.113.7 believed https"},
		{"10.0.0.1", "Forwarded: for=1.1.1.1;x=\"\nForwarded: \", for=203.0.113.7", "203.0.113.7 believed"},
		{"10.0.0.1", `Forwarded: for=1.1.1.1;x="a, b", for=203.0.113.7`, "203.0.113.7 believed"},
		// a comma in quotation marks separates nothing
		{"10.0.0.1", `Forwarded: for=203.0.113.7;by="a, for=1.1.1.1"`, "203.0.113.7 believed"},
		{"10.0.0.1", `Forwarded: for=203.0.113.7;by="a\", for=1.1.1.1"`, "203.0.113.7 believed"},
		{"10.0.0.1", `Forwarded: for=203.0.113.7;by="a\\", for=198.51.100.1`, "198.51.100.1 believed"},
		// parameters
		{"10.0.0.1", `Forwarded: FOR="203\.0.113.7";PROTO="HTTPS";Host="go.acme.com:443"`,
			"203.0.113.7 believed https go.acme.com:443"},
		{"10.0.0.1", "Forwarded: ;for=203.0.113.7; ;proto=https ; secret=x;", "203.0.113.7 believed https"},
		{"10.0.0.1", "Forwarded: proto=https;host=go.acme.com", "- unknown https go.acme.com"},
		{"10.0.0.1", "Forwarded: for=203.0.113.7;proto=https, for=10.0.0.2", "203.0.113.7 believed https"},
		{"10.0.0.1", "Forwarded: for=203.0.113.7, for=10.0.0.2;proto=https", "203.0.113.7 believed"},
		{"10.0.0.1", "Forwarded: for=1.1.1.1;proto=https, for=203.0.113.7;proto=http", "203.0.113.7 believed http"},
		{"10.0.0.1", `Forwarded: for=203.0.113.7;host="a b";proto=gopher`, "203.0.113.7 believed"},
		// malformed, in the place of the client
		{"10.0.0.1", "Forwarded: for=203.0.113.7;for=1.1.1.1", "- malformed"},
		{"10.0.0.1", "Forwarded: for=203.0.113.7;proto=https;Proto=http", "- malformed"},
		{"10.0.0.1", "Forwarded: for=203.0.113.7:80", "- malformed"},
		{"10.0.0.1", "Forwarded: for=[2001:db8::7]", "- malformed"},
		{"10.0.0.1", `Forwarded: for="2001:db8::7"`, "- malformed"},
		{"10.0.0.1", `Forwarded: for="[203.0.113.7]"`, "- malformed"},
		{"10.0.0.1", `Forwarded: for="[fe80::1%eth0]"`, "- malformed"},
		{"10.0.0.1", `Forwarded: for="203.0.113.7:123456"`, "- malformed"},
		{"10.0.0.1", `Forwarded: for="_"`, "- malformed"},
		{"10.0.0.1", `Forwarded: for="_a b"`, "- malformed"},
		{"10.0.0.1", "Forwarded: for =203.0.113.7", "- malformed"},
		{"10.0.0.1", "Forwarded: for= 203.0.113.7", "- malformed"},
		{"10.0.0.1", "Forwarded: for=", "- malformed"},
		{"10.0.0.1", "Forwarded: for", "- malformed"},
		{"10.0.0.1", "Forwarded: 203.0.113.7", "- malformed"},
		{"10.0.0.1", `Forwarded: for="203.0.113.7`, "- malformed"},
		{"10.0.0.1", `Forwarded: for="203.0.113.7"x`, "- malformed"},
		{"10.0.0.1", "Forwarded: for=203.0.113.7, rubbish, for=10.0.0.2", "- malformed"},
		{"10.0.0.1", "Forwarded: rubbish, for=203.0.113.7", "203.0.113.7 believed"},
	})
}

// Scheme and host are those of the client's hop; the country is one.
func TestSpoofedSchemeHostAndCountry(t *testing.T) {
	const client = "X-Forwarded-For: 203.0.113.7\n"
	checkCases(t, HeaderXForwardedFor, []resolved{
		{"10.0.0.1", client + "X-Forwarded-Proto: https\nX-Forwarded-Host: go.acme.com",
			"203.0.113.7 believed https go.acme.com"},
		{"10.0.0.1", "X-Forwarded-Proto: https\nX-Forwarded-Host: go.acme.com", "10.0.0.1 absent https go.acme.com"},
		{"10.0.0.1", client + "Forwarded: for=203.0.113.7;proto=https;host=evil.example", "203.0.113.7 believed"},
		// the client wrote the first value
		{"10.0.0.1", client + "X-Forwarded-Proto: https, http\nX-Forwarded-Host: evil.example, go.acme.com",
			"203.0.113.7 believed http go.acme.com"},
		{"10.0.0.1", client + "X-Forwarded-Proto: https\nX-Forwarded-Proto: http", "203.0.113.7 believed http"},
		// two proxies, which both append; or only the outer one says it
		{"10.0.0.1", "X-Forwarded-For: 203.0.113.7, 10.0.0.2\nX-Forwarded-Proto: https, http",
			"203.0.113.7 believed https"},
		{"10.0.0.1", "X-Forwarded-For: 203.0.113.7, 10.0.0.2\nX-Forwarded-Proto: https", "203.0.113.7 believed https"},
		{"10.0.0.1", "X-Forwarded-For: 203.0.113.7, 10.0.0.2\nX-Forwarded-Proto: http, https, http",
			"203.0.113.7 believed https"},
		{"10.0.0.1", client + "X-Forwarded-Proto: javascript\nX-Forwarded-Host: a b", "203.0.113.7 believed"},
		{"10.0.0.1", client + "X-Forwarded-Host: user@go.acme.com", "203.0.113.7 believed"},
		{"10.0.0.1", client + "X-Forwarded-Host: [2001:db8::1]:443", "203.0.113.7 believed [2001:db8::1]:443"},
		{"10.0.0.1", client + "X-Forwarded-Host: " + strings.Repeat("a", maxHost+1), "203.0.113.7 believed"},
		{"10.0.0.1", client + "CF-IPCountry: GB", "203.0.113.7 believed GB"},
		{"10.0.0.1", client + "CF-IPCountry: GB\nCF-IPCountry: FR", "203.0.113.7 believed"},
		{"10.0.0.1", client + "CF-IPCountry: XX", "203.0.113.7 believed"},
		{"10.0.0.1", client + "CF-IPCountry: T1", "203.0.113.7 believed"},
		{"10.0.0.1", client + "CF-IPCountry: gb", "203.0.113.7 believed"},
		{"10.0.0.1", client + "CF-IPCountry: GBR", "203.0.113.7 believed"},
		{"10.0.0.1", client + "CF-IPCountry: ", "203.0.113.7 believed"},
	})
	checkCases(t, HeaderNone, []resolved{
		{"10.0.0.1", client + "Forwarded: for=203.0.113.7;proto=https;host=a\nX-Forwarded-Proto: https\n" +
			"X-Forwarded-Host: b\nCF-IPCountry: GB", "10.0.0.1 absent GB"},
		{"203.0.113.7", "CF-IPCountry: GB", "203.0.113.7 direct"},
	})
	cfg := testConfig(t, HeaderXForwardedFor)
	cfg.Host, cfg.CountryHeader = false, ""
	got := Resolve(&cfg, netip.MustParseAddr("10.0.0.1"), headerOf(client+"X-Forwarded-Proto: https\n"+
		"X-Forwarded-Host: go.acme.com\nCF-IPCountry: GB"))
	if text := clientText(got); text != "203.0.113.7 believed https" {
		t.Errorf("without host and country: %s", text)
	}
}

// A visitor in the network of three proxies in a row, who asks at each of them: with all
// three trusted the address is always the visitor's, with only the last one that of the
// proxy in front of it.
func TestThreeProxies(t *testing.T) {
	const visitor, one, two, three = "172.20.16.1", "172.20.16.15", "172.20.16.17", "172.20.16.18"
	f := func(trusted, peer, xff, want string) {
		t.Helper()
		list, err := ParseProxies(trusted)
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{TrustedProxies: list, Header: HeaderXForwardedFor}
		header := http.Header{}
		if xff != "" {
			header.Set("X-Forwarded-For", xff)
		}
		if got := Resolve(&cfg, netip.MustParseAddr(peer), header); got.Addr.String() != want {
			t.Errorf("trusted %s, from %s, %q: %s, want %s", trusted, peer, xff, got.Addr, want)
		}
	}
	all := strings.Join([]string{one, two, three}, ",")
	f(all, visitor, "", visitor)
	f(all, one, visitor, visitor)
	f(all, one, visitor+", "+two, visitor)
	f(all, one, visitor+", "+three+", "+two, visitor)
	f(one, one, visitor+", "+three+", "+two, two)
	f("", one, visitor+", "+three+", "+two, one)
}

// Neither the number of entries nor the length of a header matters to the left of the
// client. More trusted proxies than there ever are make a header malformed.
func TestLongHeaders(t *testing.T) {
	f := func(header, line, want string) {
		t.Helper()
		cfg := testConfig(t, header)
		name := http.CanonicalHeaderKey(header)
		got := Resolve(&cfg, netip.MustParseAddr("10.0.0.1"), http.Header{name: {line}})
		if text := clientText(got); text != want {
			t.Errorf("%s of %d bytes: %s, want %s", header, len(line), text, want)
		}
	}
	const kB = 1 << 10
	for _, left := range []string{"1.1.1.1,", "10.0.0.9,", ",", `"`, `\`, "x", "unknown, "} {
		left = strings.Repeat(left, 40*kB/len(left))
		f(HeaderXForwardedFor, left+", 203.0.113.7", "203.0.113.7 believed")
		f(HeaderForwarded, left+", for=203.0.113.7", "203.0.113.7 believed")
		f(HeaderForwarded, left+`, for="203.0.113.7";host="go.acme.com"`, "203.0.113.7 believed go.acme.com")
	}
	f(HeaderXForwardedFor, strings.Repeat("1", 40*kB), "- malformed")
	f(HeaderForwarded, `for="`+strings.Repeat("1", 40*kB)+`"`, "- malformed")
	hops := func(entry string, n int) string { return strings.Repeat(", "+entry, n) }
	f(HeaderXForwardedFor, "203.0.113.7"+hops("10.0.0.2", maxHops-1), "203.0.113.7 believed")
	f(HeaderXForwardedFor, "203.0.113.7"+hops("10.0.0.2", maxHops), "- malformed")
	f(HeaderXForwardedFor, "10.0.0.3"+hops("10.0.0.2", 40*kB/10), "- malformed")
	f(HeaderForwarded, "for=203.0.113.7"+hops("for=10.0.0.2", maxHops-1), "203.0.113.7 believed")
	f(HeaderForwarded, "for=203.0.113.7"+hops("for=10.0.0.2", maxHops), "- malformed")
}

// A request tells what no trusted proxy says. Without trusted proxies that is all.
func TestClientOf(t *testing.T) {
	reg := prometheus.NewRegistry()
	p, err := New(testConfig(t, HeaderXForwardedFor), slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	f := func(p *Proxies, remote, lines, want string) {
		t.Helper()
		got := clientText(p.ClientOf(&http.Request{RemoteAddr: remote, Host: "host", Header: headerOf(lines)}))
		if got != want {
			t.Errorf("%s %q: %s, want %s", remote, lines, got, want)
		}
	}
	f(p, "10.0.0.1:80", "X-Forwarded-For: 203.0.113.7", "203.0.113.7 believed http host")
	f(p, "10.0.0.1:80", "X-Forwarded-Proto: https\nX-Forwarded-Host: go.acme.com", "10.0.0.1 absent https go.acme.com")
	f(p, "[::ffff:10.0.0.1]:80", "X-Forwarded-For: unknown", "- unknown http host")
	f(p, "10.0.0.1:80", "X-Forwarded-For: x", "- malformed http host")
	f(p, "203.0.113.7:80", "X-Forwarded-For: 1.1.1.1", "203.0.113.7 ignored http host")
	f(p, "[2001:db8::1]:80", "", "2001:db8::1 direct http host")
	f(p, "pipe", "X-Forwarded-For: 1.1.1.1", "- ignored http host")
	f(nil, "10.0.0.1:80", "X-Forwarded-For: 203.0.113.7\nX-Forwarded-Proto: https", "10.0.0.1 direct http host")
	f(nil, "[fe80::1%eth0]:80", "", "fe80::1 direct http host")
	f(nil, "", "", "- direct http host")
	want := map[string]float64{"absent": 1, "believed": 1, "direct": 1, "ignored": 2, "malformed": 1, "unknown": 1}
	if got := counted(t, reg, "partners_forwarded_requests_total"); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// counted returns the values of a counter by its label.
func counted(t *testing.T, reg *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			values[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return values
}

func TestValidate(t *testing.T) {
	f := func(want string, change func(*Config)) {
		t.Helper()
		cfg := testConfig(t, HeaderForwarded)
		change(&cfg)
		err := cfg.Validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("got %v, want %s…", err, want)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	f("", func(*Config) {})
	f("", func(c *Config) { *c = Config{} })
	f("", func(c *Config) { c.ProxyProtocol = true })
	f(`-forwarded-header: "x-real-ip" is none of`, func(c *Config) { c.Header = "x-real-ip" })
	f("-forwarded-header: -trusted-proxies is missing", func(c *Config) { c.TrustedProxies = nil })
	f("-forwarded-host: -forwarded-header does not say", func(c *Config) { c.Header = HeaderNone })
	f("-country-header: -trusted-proxies is missing", func(c *Config) { *c = Config{CountryHeader: "CF-IPCountry"} })
	f(`-country-header: "a b" is not the name`, func(c *Config) { c.CountryHeader = "a b" })
	f("-proxy-protocol: -trusted-proxies is missing", func(c *Config) { *c = Config{ProxyProtocol: true} })
}

func TestWarnings(t *testing.T) {
	f := func(cfg Config, list string, want ...string) {
		t.Helper()
		var err error
		if cfg.TrustedProxies, err = ParseProxies(list); err != nil {
			t.Fatal(err)
		}
		got := cfg.Warnings()
		if !slices.EqualFunc(got, want, strings.Contains) {
			t.Errorf("%+v: %q, want %q", cfg, got, want)
		}
	}
	f(Config{}, "")
	f(Config{Header: HeaderForwarded}, "10.0.0.0/8")
	f(Config{CountryHeader: "A"}, "10.0.0.0/8")
	f(Config{ProxyProtocol: true}, "10.0.0.0/8")
	f(Config{Header: HeaderNone}, "10.0.0.0/8", "-trusted-proxies without effect")
	f(Config{Header: HeaderForwarded}, "0.0.0.0/0,::/0", "0.0.0.0/0 trusts everybody", "::/0 trusts everybody")
}

func TestParseProxies(t *testing.T) {
	f := func(list, want string) {
		t.Helper()
		got, err := ParseProxies(list)
		text := strings.Trim(fmt.Sprint(got), "[]")
		if err != nil {
			text = err.Error()
		}
		if !strings.Contains(text, want) || want == "" && text != "" {
			t.Errorf("%q: %s, want %s", list, text, want)
		}
	}
	f("", "")
	f(" ", "")
	f("10.0.0.0/8, 192.0.2.1,2001:db8::/32 ,::1", "10.0.0.0/8 192.0.2.1/32 2001:db8::/32 ::1/128")
	f("::ffff:10.0.0.0/104,::ffff:192.0.2.1", "10.0.0.0/8 192.0.2.1/32")
	f("0.0.0.0/0,::/0", "0.0.0.0/0 ::/0")
	f("10.1.2.3/8", "10.1.2.3/8 has bits behind its length: write 10.0.0.0/8, or the address alone")
	for _, bad := range []string{"10.0.0.0/33", "proxy.acme.com", "10.0.0.0/8,", ",", "10.0.0.1:80", "fe80::1%eth0",
		"10.0.0.0-10.0.0.9", "[::1]"} {
		f(bad, "is neither a range, as 10.0.0.0/8, nor an address")
	}
}

// A request of the usual form costs no memory, nor does one where no proxy is trusted.
func TestResolveAllocatesNothing(t *testing.T) {
	for name, line := range map[string]string{
		HeaderXForwardedFor: "1.1.1.1, 203.0.113.7, 10.0.0.2",
		HeaderForwarded:     `for=1.1.1.1, for="[2001:db8::7]:4711";proto=https;host="go.acme.com", for=10.0.0.2`,
		HeaderNone:          "",
	} {
		cfg := testConfig(t, name)
		header := http.Header{http.CanonicalHeaderKey(name): {line}, "Cf-Ipcountry": {"GB"}}
		cfg.CountryHeader = "Cf-Ipcountry"
		for _, peer := range []string{"10.0.0.1", "203.0.113.7"} {
			addr := netip.MustParseAddr(peer)
			if n := testing.AllocsPerRun(100, func() { Resolve(&cfg, addr, header) }); n != 0 {
				t.Errorf("%s from %s: %v allocations", name, peer, n)
			}
		}
	}
	var none *Proxies
	for _, remote := range []string{"203.0.113.7:4711", "[2001:db8::7]:4711", "[::ffff:203.0.113.7]:4711"} {
		r := &http.Request{RemoteAddr: remote, Host: "go.acme.com", Header: headerOf("X-Forwarded-For: 1.1.1.1")}
		if n := testing.AllocsPerRun(100, func() { none.ClientOf(r) }); n != 0 {
			t.Errorf("no proxy is trusted, from %s: %v allocations", remote, n)
		}
	}
}
