package redirect

import (
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// addParameters returns the location with whole parameters, the last of which may be the
// token's.
func addParameters(destination string, parameters ...string) string {
	extra, name, value := "", "", ""
	for _, p := range parameters {
		if n, v, _ := strings.Cut(p, "="); n == "nim_ct" {
			name, value = n, v
		} else {
			extra = p
		}
	}
	return string(appendLocation(nil, destination, extra, name, value))
}

func TestAddParameters(t *testing.T) {
	f := func(destination, want string, parameters ...string) {
		t.Helper()
		if got := addParameters(destination, parameters...); got != want {
			t.Errorf("extend(%q, %q)\n got %s\nwant %s", destination, parameters, got, want)
		}
	}
	const tok = "nim_ct=T"
	f("https://a.com", "https://a.com?nim_ct=T", tok)
	f("https://a.com/", "https://a.com/?nim_ct=T", tok)
	f("https://a.com/?", "https://a.com/?nim_ct=T", tok)
	f("https://a.com/?a=1", "https://a.com/?a=1&nim_ct=T", tok)
	f("https://a.com/?a=1&", "https://a.com/?a=1&nim_ct=T", tok)
	f("https://a.com/?a=1?", "https://a.com/?a=1?nim_ct=T", tok) // none after a final ?, the value's own
	f("https://a.com/?a=1?b=2", "https://a.com/?a=1?b=2&nim_ct=T", tok)
	f("https://a.com/?&&", "https://a.com/?&&nim_ct=T", tok)
	f("https://a.com#top", "https://a.com?nim_ct=T#top", tok)
	f("https://a.com/#", "https://a.com/?nim_ct=T#", tok)
	f("https://a.com/#/route?x=1", "https://a.com/?nim_ct=T#/route?x=1", tok)
	f("https://a.com/?a=1#b#c&d?", "https://a.com/?a=1&nim_ct=T#b#c&d?", tok)
	f("https://a.com/?#top", "https://a.com/?nim_ct=T#top", tok)
	f("https://a.com/%7e/%2F/ü?q=a+b%20c&e=%zz&u=%C3%bc&x=[1]|{2}^`'",
		"https://a.com/%7e/%2F/ü?q=a+b%20c&e=%zz&u=%C3%bc&x=[1]|{2}^`'&nim_ct=T", tok)
	f("HTTPS://A.COM:443/../b/./c//d", "HTTPS://A.COM:443/../b/./c//d?nim_ct=T", tok)
	f("https://a.com/?a=1#f", "https://a.com/?a=1&x=2&y=3&nim_ct=T#f", "x=2&y=3", tok)
	f("https://a.com/#f", "https://a.com/?x=2#f", "x=2")
	f("https://a.com/?", "https://a.com/?x=2&nim_ct=T", "x=2", tok)
	f("https://a.com/?a#f", "https://a.com/?a#f")
	f("https://a.com/?a#f", "https://a.com/?a&nim_ct=T#f", "", tok)
}

// Promise: what may hold a secret is in no click: user, password, query, fragment.
func TestBareDestination(t *testing.T) {
	f := func(destination, want string) {
		t.Helper()
		if got := bareDestination(destination); got != want {
			t.Errorf("%q: got %q, want %q", destination, got, want)
		}
	}
	f("https://user:pa%3Ass@intern.acme.com/x?y=1", "https://intern.acme.com/x")
	f("https://user@a.com", "https://a.com")
	f("https://u:p@q@a.com:8443/@x#y", "https://a.com:8443/@x")
	f("https://a.com/@x/y?u@b", "https://a.com/@x/y")
	f("https://a.com?x=u@b", "https://a.com")
	f("https://a.com#u@b", "https://a.com")
	f("acme://u:p@open/x", "acme://open/x")
	f("mailto:sales@acme.com?subject=x", "mailto:sales@acme.com")
	f("tel:+4930", "tel:+4930")
	f("sip:alice:secretword@acme.com:5060;transport=tcp?subject=x", "sip:alice@acme.com:5060;transport=tcp")
	f("urn:a:b", "urn:a:b")
	if n := testing.AllocsPerRun(100, func() { bareDestination("https://shop.acme.com/a?b=1") }); n != 0 {
		t.Errorf("a plain destination costs %v allocations", n)
	}
}

// Property: without the added parameter and its separator, every byte of the
// destination is there, in its place.
func TestAddParametersPreservesEveryByte(t *testing.T) {
	part := rapid.StringOfN(rapid.RuneFrom([]rune("ab/%?&=#+;:@ü~.[]'\"<>€")), 0, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		destination := "https://a.com" + part.Draw(t, "path") + part.Draw(t, "query") + part.Draw(t, "fragment")
		got := addParameters(destination, "nim_ct=TOKEN")
		at := strings.Index(got, "nim_ct=TOKEN")
		before, after := got[:at], got[at+len("nim_ct=TOKEN"):]
		head, fragment := destination, ""
		if i := strings.Index(destination, "#"); i >= 0 {
			head, fragment = destination[:i], destination[i:]
		}
		if after != fragment {
			t.Fatalf("%q became %q: the token is followed by %q, not by the fragment", destination, got, after)
		}
		added := strings.TrimPrefix(before, head)
		if !strings.HasPrefix(before, head) || added != "" && added != "?" && added != "&" {
			t.Fatalf("%q became %q", destination, got)
		}
		if last := before[len(before)-1]; last != '?' && last != '&' {
			t.Fatalf("%q became %q: the token is no parameter", destination, got)
		}
		joined := strings.HasSuffix(head, "?") || strings.HasSuffix(head, "&") && strings.Contains(head, "?")
		if joined != (added == "") {
			t.Fatalf("%q became %q: separator %q", destination, got, added)
		}
		// A server reads the token, unless the query's last value ends with ?.
		if q := strings.Index(head, "?"); strings.HasSuffix(head, "?") && q < len(head)-1 {
			return
		}
		if u, err := url.Parse(got); err == nil {
			if values, err := url.ParseQuery(u.RawQuery); err == nil && values.Get("nim_ct") != "TOKEN" {
				t.Fatalf("%q became %q: a server reads %q", destination, got, values.Get("nim_ct"))
			}
		}
	})
}

// Property: only whole parameters of the visitor are forwarded, in their order and with
// their bytes, and none of them has a forbidden name.
func TestForwarded(t *testing.T) {
	name := rapid.OneOf(rapid.SampledFrom([]string{
		"nr", "sub1", "sub5", "sub6", "nim_ct", "n%69m_ct", "own", "%6fwn", "x", "", "%zz", "NIM_CT", "a;nim_ct", "a;b",
	}), rapid.StringMatching(`[a-z%+]{0,5}`))
	value := rapid.SampledFrom([]string{"", "=", "=1", "=a=b", "=%20"})
	rapid.Check(t, func(t *rapid.T) {
		var parts []string
		for range rapid.IntRange(0, 6).Draw(t, "n") {
			parts = append(parts, name.Draw(t, "name")+value.Draw(t, "value"))
		}
		query := strings.Join(parts, "&")
		got := forwardedQuery(query, "https://a.com/?own=1#x=1", "nim_ct")
		rest := strings.Split(query, "&")
		for _, p := range strings.Split(got, "&") {
			if got == "" {
				break
			}
			i := 0
			for i < len(rest) && rest[i] != p {
				i++
			}
			if i == len(rest) {
				t.Fatalf("%q of %q: %q is not one of the visitor's parameters, or not in order", got, query, p)
			}
			rest = rest[i+1:]
			for _, piece := range strings.Split(p, ";") {
				n, _, _ := strings.Cut(piece, "=")
				if d, err := url.QueryUnescape(n); err == nil {
					n = d
				}
				if strings.EqualFold(n, "nim_ct") {
					t.Fatalf("%q of %q: the token parameter", got, query)
				}
				switch n {
				case "nr", "sub1", "sub5", "own":
					t.Fatalf("%q of %q: %s", got, query, n)
				}
			}
		}
	})
}

// Promise: no server reads the token parameter, or another value of a parameter that the
// destination has, from what the visitor wrote: neither PHP (blanks, NUL, dots, indexes)
// nor Rack and qs (indexes), nor one that takes invalid escapes for something.
func TestForwardedAsServersRead(t *testing.T) {
	const destination = "https://a.com/?ref=1&list[]=2&f[size]=3&a.b=4"
	f := func(query, want string) {
		t.Helper()
		if got := forwardedQuery(query, destination, "nim_ct"); got != want {
			t.Errorf("%q: got %q, want %q", query, got, want)
		}
	}
	for _, name := range []string{
		"nim_ct[]", "nim_ct[0]", "nim_c%74%5Ba%5D", "[nim_ct]", "nim.ct", "nim%20ct", "nim+ct", "nim[ct", "NIM.CT",
		"+nim_ct", "%0anim_ct", "nim_ct%00x", "%u006eim_ct", "%6eim_ct%00%zz",
		"%U006eim_ct", "x;nim_ct[]", // the token
		"ref", "ref[]", "ref[a]", "+ref", "ref%00", "list", "list[]", "f", "f[size]", "a_b", "a b", // the destination's
	} {
		f("x=1&"+name+"=9&y=2", "x=1&y=2")
	}
	for _, query := range []string{"nim_ct2=1", "nim-ct=1", "nim_ct_x=1", "xnim_ct=1", "x[nim_ct]=1", "f[color]=1",
		"list[1]=1", "REF=1", "ref2=1", "a=%zz", "%zz=1", "nim_ct%zz=1",
		"a=nim_ct[]", "%u00=1", "%=1"} {
		f(query, query)
	}
}

func TestVisit(t *testing.T) {
	f := func(query string, want visitQuery) {
		t.Helper()
		if got := parseVisitQuery(query); got != want {
			t.Errorf("%q: got %+v, want %+v", query, got, want)
		}
	}
	f("", visitQuery{})
	f("nr=qr", visitQuery{qr: true})
	f("nr=QR", visitQuery{})
	f("nr=x&nr=qr", visitQuery{qr: true})
	f("%6er=%71r", visitQuery{qr: true})
	f("sub1=a&sub2=b&sub3=c&sub4=d&sub5=e&sub6=f&sub=g&Sub1=h", visitQuery{sub: [5]string{"a", "b", "c", "d", "e"}})
	f("sub1=&sub1=late", visitQuery{})
	f("sub1", visitQuery{})
	f("sub1=a%20b+c%2B", visitQuery{sub: [5]string{"a b c+"}})
	f("sub1=%zz", visitQuery{sub: [5]string{"%zz"}})
	f("sub1=a%00%0d%0a%7f%e2%80%aeb%ff", visitQuery{sub: [5]string{"ab"}})
	f("sub1="+strings.Repeat("%C3%BC", 70), visitQuery{sub: [5]string{strings.Repeat("ü", 64)}})
}

func FuzzVisit(f *testing.F) {
	f.Add("nr=qr&sub1=a%00b&sub2=%ff&nim_ct=x")
	f.Add("&&=;=%")
	f.Fuzz(func(t *testing.T, query string) {
		notPrintable := func(r rune) bool { return !unicode.IsPrint(r) }
		for _, s := range parseVisitQuery(query).sub {
			if utf8.RuneCountInString(s) > maxSubLength || !utf8.ValidString(s) ||
				strings.ContainsFunc(s, notPrintable) {
				t.Errorf("%q gave %q", query, s)
			}
		}
		got := forwardedQuery(query, "https://a.com/?own=1", "nim_ct")
		if strings.Contains(got, "#") || len(got) > len(query) {
			t.Errorf("%q forwarded as %q", query, got)
		}
	})
}
