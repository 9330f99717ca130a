package forwarded

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// FuzzSpoof: whatever a client sends, as a line of its own or before what the proxy
// appends to it, the client is the address that the proxy saw.
func FuzzSpoof(f *testing.F) {
	for _, seed := range []string{"", "1.1.1.1", "10.0.0.1", "10.0.0.1,", "unknown", "for=1.1.1.1", `for="`, `for="\`,
		`"a", "`, `for=1.1.1.1;x="\"`, "for=10.0.0.1,for=10.0.0.2", "https", "[", ";=", "\\\"", "a\x00b\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		for header, appended := range map[string]string{
			HeaderXForwardedFor: "203.0.113.7",
			HeaderForwarded:     `for="203.0.113.7:80";proto=http;host="go.acme.com"`,
		} {
			cfg := testConfig(t, header)
			name := http.CanonicalHeaderKey(header)
			for _, lines := range [][]string{
				{sent, appended},
				{sent + ", " + appended},
				{sent, sent, sent + "," + appended},
			} {
				h := http.Header{name: lines}
				if header == HeaderXForwardedFor {
					h["X-Forwarded-Proto"] = []string{sent, "http"}
					h["X-Forwarded-Host"] = []string{sent + ",go.acme.com"}
				}
				got := clientText(Resolve(&cfg, netip.MustParseAddr("10.0.0.1"), h))
				if got != "203.0.113.7 believed http go.acme.com" {
					t.Errorf("%q: %s", h, got)
				}
			}
			alone := Resolve(&cfg, netip.MustParseAddr("10.0.0.1"), http.Header{name: {sent}})
			if known := alone.Basis == Believed || alone.Basis == Absent; alone.Addr.IsValid() != known {
				t.Errorf("%q alone: %s", sent, clientText(alone))
			}
			stranger := Resolve(&cfg, netip.MustParseAddr("203.0.113.7"), http.Header{name: {sent},
				"X-Forwarded-Proto": {sent}, "X-Forwarded-Host": {sent}, "Cf-Ipcountry": {sent}})
			if text := clientText(stranger); text != "203.0.113.7 ignored" {
				t.Errorf("%q of a stranger: %s", sent, text)
			}
		}
	})
}

// The grammar of RFC 7239 §4 as regular expressions, read from the left.
const (
	tokenPattern   = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
	quotedPattern  = `"(?:[^\x00-\x08\x0a-\x1f\x7f"\\]|\\[^\x00-\x08\x0a-\x1f\x7f])*"`
	pairPattern    = tokenPattern + "=(?:" + tokenPattern + "|" + quotedPattern + ")"
	elementPattern = "(?:" + pairPattern + `)?(?:[ \t]*;[ \t]*(?:` + pairPattern + `)?)*`
)

var (
	wholeList    = regexp.MustCompile(`^[ \t]*` + elementPattern + `[ \t]*(?:,[ \t]*` + elementPattern + `[ \t]*)*$`)
	firstElement = regexp.MustCompile(`^[ \t]*` + elementPattern + `[ \t]*(?:,|$)`)
)

// FuzzElements: from the right a valid list has the elements that it has from the left,
// each of which parseElement accepts; and it accepts no other text.
func FuzzElements(f *testing.F) {
	for _, seed := range []string{"", "for=1.1.1.1", `for="a, b", for=c`, `for="a\", b", for=c`, `a="\\", b=c`,
		`for="a;b";proto=https , ;;x=y`, `,,a=b,`, `for="`, `a="b"c="d"`, `a=b c=d`, "a=\x7f", `a="\` + "\x7f" + `"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var got []string
		for c := (listCursor{lines: []string{line}, quotes: true}); ; {
			text, ok := c.previous()
			if !ok {
				break
			}
			got = append(got, text)
		}
		slices.Reverse(got)
		if !wholeList.MatchString(line) {
			if len(got) == 1 && got[0] == trimBlanks(line) {
				if _, ok := parseElement(got[0]); ok {
					t.Errorf("%q is accepted", line)
				}
			}
			return
		}
		var want []string
		for rest := line; rest != ""; {
			first := firstElement.FindString(rest)
			rest = rest[len(first):]
			if text := trimBlanks(strings.TrimSuffix(first, ",")); text != "" {
				want = append(want, text)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q: from the right %q, from the left %q", line, got, want)
		}
		for _, text := range got {
			if _, ok := parseElement(text); !ok && !repeatsName(text) {
				t.Errorf("%q of %q is refused", text, line)
			}
		}
	})
}

// repeatsName reports whether an element may have a parameter twice.
func repeatsName(text string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc([]string{"for=", "by=", "host=", "proto="}, func(name string) bool {
		return strings.Count(text, name) > 1
	})
}

// node is an entry of a header in the model below.
type node struct {
	addr    netip.Addr // the zero Addr for one that is not known
	trusted bool
}

// Both headers, in any notation and however the entries are spread over lines, give
// what the trivial reading of the entries gives.
func TestLikeTheModel(t *testing.T) {
	nodes := []node{
		{netip.MustParseAddr("203.0.113.7"), false}, {netip.MustParseAddr("2001:db8::7"), false},
		{netip.MustParseAddr("198.51.100.1"), false}, {netip.MustParseAddr("10.0.0.2"), true},
		{netip.MustParseAddr("fd00::2"), true}, {netip.MustParseAddr("172.20.0.1"), true}, {},
	}
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(rapid.SampledFrom(nodes), 1, maxHops).Draw(t, "entries")
		seed := rapid.Uint64().Draw(t, "seed")
		want := "10.0.0.1 absent"
		for _, e := range slices.Backward(entries) {
			if want = e.addr.String() + " believed"; !e.addr.IsValid() {
				want = "- unknown"
			}
			if !e.trusted {
				break
			}
		}
		for _, header := range []string{HeaderXForwardedFor, HeaderForwarded} {
			cfg := testConfigOf(header)
			lines := renderEntries(rand.New(rand.NewPCG(seed, 0)), header, entries)
			h := http.Header{http.CanonicalHeaderKey(header): lines}
			if got := clientText(Resolve(&cfg, netip.MustParseAddr("10.0.0.1"), h)); got != want {
				t.Fatalf("%q: %s, want %s", h, got, want)
			}
		}
	})
}

func testConfigOf(header string) Config {
	trusted, _ := ParseProxies(proxies)
	return Config{TrustedProxies: trusted, Header: header}
}

// renderEntries writes entries in one of many notations, over several lines.
func renderEntries(r *rand.Rand, header string, entries []node) (lines []string) {
	pick := func(texts ...string) string { return texts[r.IntN(len(texts))] }
	line := ""
	for i, e := range entries {
		text := pick("unknown", "UNKNOWN", "_hidden")
		if e.addr.IsValid() {
			a, mapped := e.addr.String(), ""
			if e.addr.Is4() {
				mapped = "[::ffff:" + a + "]"
			} else {
				a = "[" + a + "]"
				mapped = a
			}
			text = pick(a, mapped, a+":4711")
		}
		if header == HeaderForwarded {
			text = fmt.Sprintf(`%s%s="%s"%s`, pick("", "by=_proxy;", `x="a, \"b"; `, ";"), pick("for", "For", "FOR"),
				text, pick("", ";proto=x", " ;secret=a"))
		}
		line += text
		if i == len(entries)-1 || r.IntN(3) == 0 {
			lines, line = append(lines, line), ""
			continue
		}
		line += pick(",", ", ", " ,\t", ",,", ", ,")
	}
	return lines
}
