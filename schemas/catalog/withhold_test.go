package catalog

import (
	"strings"
	"testing"
)

// Each line: the reason given with token parameter nim_ct ("-": safe), then the
// destination.
const withholdTable = `
-                 https://shop.acme.com
-                 https://shop.acme.com/?ref=a%2Bb#top
-                 HTTP://shop.acme.com/?a=1&&b
-                 https://shop.acme.com/?
-                 https://shop.acme.com/?q=100%&x=[1]&y=%zz
-                 https://shop.acme.com/nim_ct/?a=nim_ct&xnim_ct=1

# scheme: only http and https get a token
scheme            myapp://open/item?id=1
scheme            httpsx://shop.acme.com/
scheme            ftp://shop.acme.com/?nim_ct=1
scheme            https:shop.acme.com

# semicolon_query: in the query only
semicolon_query   https://shop.acme.com/?a=1;b=2
semicolon_query   https://shop.acme.com/?a=1&amp;b=2
semicolon_query   https://shop.acme.com/?a=1;X-Amz-Signature=2
-                 https://shop.acme.com/a;b?c=1#d;e
-                 https://shop.acme.com/?a=1%3Bb=2

# reserved_present: the name, however it is written; never a value, path or fragment
reserved_present  https://shop.acme.com/?nim_ct=abc
reserved_present  https://shop.acme.com/?a=1&nim_ct
reserved_present  https://shop.acme.com/?a=1&%6eim%5Fct=
reserved_present  https://shop.acme.com/?NIM_CT=1
reserved_present  https://shop.acme.com/?nim_ct=1&X-Amz-Signature=2
-                 https://shop.acme.com/?a=1#?nim_ct=1
-                 https://shop.acme.com/?a=b?nim_ct=1
-                 https://shop.acme.com/?%256eim_ct=1

# signed_url: one name is enough
signed_url        https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=ab
signed_url        https://b.s3.amazonaws.com/k?x-amz-signature=ab
signed_url        https://b.s3.amazonaws.com/k?X%2DAmz%2DSignature=ab
signed_url        https://storage.googleapis.com/b/o?X-Goog-Signature=ab
signed_url        https://acme.com/?hmac=ab
-                 https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256
-                 https://acme.com/?hmac2=ab&q=hmac

# signed_url: two names together
signed_url        https://d1.cloudfront.net/x?Expires=1&Signature=ab&Key-Pair-Id=K
signed_url        https://d1.cloudfront.net/x?Policy=p&Signature=ab&Key-Pair-Id=K
signed_url        https://a.blob.core.windows.net/c/b?sv=2024-01-01&sp=r&sig=ab
signed_url        https://a.blob.core.windows.net/c/b?se=2026-01-01&sig=ab
signed_url        https://bucket.oss.aliyuncs.com/o?OSSAccessKeyId=a&Expires=1&Signature=ab
signed_url        https://cdn.acme.com/v.mp4?token=ab&expires=1
signed_url        https://cdn.acme.com/v.mp4?sign=ab&exp=1
signed_url        https://acme.com/verify?signature=ab&expires_at=1
signed_url        https://acme.com/verify?signature=ab&linkExpiration=1
signed_url        https://acme.com/verify?token=ab&valid_until=1
-                 https://acme.com/?Signature=ab
-                 https://acme.com/?Key-Pair-Id=K
-                 https://acme.com/?sig=ab
-                 https://acme.com/?se=1&sv=2
-                 https://acme.com/?token=ab
-                 https://acme.com/?sign=leo&experience=1
-                 https://acme.com/?expires=1

# oauth
oauth             https://acme.com/cb?code=ab&state=cd
oauth             https://id.acme.com/authorize?response_type=code&state=cd&redirect_uri=https%3A%2F%2Facme.com
-                 https://acme.com/?state=CA
-                 https://acme.com/?code=SPRING
-                 https://acme.com/?redirect_uri=x&code=y

# order: what stays final under "token: always" comes first
signed_url        https://acme.com/?code=ab&state=cd&hmac=1
semicolon_query   https://acme.com/?nim_ct=1;2
`

func TestWithholdReason(t *testing.T) {
	seen := map[string]bool{}
	for line := range strings.Lines(withholdTable) {
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		want := strings.TrimPrefix(f[0], "-")
		seen[want] = true
		if got := WithholdReason(f[1], "nim_ct"); got != want {
			t.Errorf("WithholdReason(%q) = %q, want %q", f[1], got, want)
		}
	}
	for _, reason := range []string{"", ReasonScheme, ReasonSemicolonQuery, ReasonReservedPresent, ReasonSignedURL,
		ReasonOAuth} {
		if !seen[reason] {
			t.Errorf("no line for %q", reason)
		}
	}
	if got := WithholdReason("https://acme.com/?Click.ID=1", "click.id"); got != ReasonReservedPresent {
		t.Errorf("another token parameter: got %q", got)
	}
}

// FuzzWithholdReason: no input panics; a safe destination stays safe with another
// fragment, and is reserved_present once the token is on it.
func FuzzWithholdReason(f *testing.F) {
	for line := range strings.Lines(withholdTable) {
		if fields := strings.Fields(line); len(fields) == 2 {
			f.Add(fields[1])
		}
	}
	f.Fuzz(func(t *testing.T, destination string) {
		reason := WithholdReason(destination, "nim_ct")
		head, _, _ := strings.Cut(destination, "#")
		if reason != WithholdReason(head+"#;?nim_ct=1&hmac=1", "nim_ct") {
			t.Errorf("%q: the fragment counts", destination)
		}
		if reason != "" {
			return
		}
		separator := "?"
		if strings.Contains(head, "?") {
			separator = "&"
		}
		if got := WithholdReason(head+separator+"nim_ct=t", "nim_ct"); got != ReasonReservedPresent {
			t.Errorf("%q with the token: %q", destination, got)
		}
	})
}

func TestNormalizeHost(t *testing.T) {
	for in, want := range map[string]string{
		"go.acme.com":       "go.acme.com",
		"Go.ACME.com:8080":  "go.acme.com",
		"go.acme.com.":      "go.acme.com",
		"go.acme.com.:443":  "go.acme.com",
		"go.acme.com..":     "go.acme.com.",
		"127.0.0.1:80":      "127.0.0.1",
		"[::1]:8080":        "::1",
		"[::1]":             "::1",
		"[0:0::1]:1":        "::1",
		"2001:DB8::1":       "2001:db8::1",
		"":                  "",
		":80":               "",
		"\u212aELVIN.com":   "\u212aelvin.com", // the Kelvin sign is not a K
		"[":                 "",
		"a:b:c":             "a:b:c",
		"xn--BCHER-kva.com": "xn--bcher-kva.com",
	} {
		if got := NormalizeHost(in); got != want {
			t.Errorf("NormalizeHost(%q) = %q, want %q", in, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { NormalizeHost("go.acme.com") }); n != 0 {
		t.Errorf("a plain host costs %v allocations", n)
	}
}
