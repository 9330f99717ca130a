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
reserved_present  https://shop.acme.com/?nim_ct[]=1
reserved_present  https://shop.acme.com/?nim_ct%5Ba%5D=1
reserved_present  https://shop.acme.com/?nim.ct=1
reserved_present  https://shop.acme.com/?+nim%20ct=1
-                 https://shop.acme.com/?a=1#?nim_ct=1
-                 https://shop.acme.com/?a=b?nim_ct=1
-                 https://shop.acme.com/?%256eim_ct=1

# signed_url: what a name ends in
signed_url        https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=ab
signed_url        https://b.s3.amazonaws.com/k?x-amz-signature=ab
signed_url        https://b.s3.amazonaws.com/k?X%2DAmz%2DSignature=ab
signed_url        https://storage.googleapis.com/b/o?X-Goog-Signature=ab
signed_url        https://bucket.oss-cn-hangzhou.aliyuncs.com/o?x-oss-signature-version=OSS4&x-oss-signature=ab
signed_url        https://b.cos.ap-guangzhou.myqcloud.com/o?q-sign-algorithm=sha1&q-signature=ab
signed_url        https://app.acme.com/unsubscribe/42?signature=6e8d3f2b1c
signed_url        https://idp.acme.com/sso?SAMLRequest=ab&SigAlg=x&Signature=cd
signed_url        https://api.acme.com/1?oauth_nonce=1&oauth_signature=ab
signed_url        https://acme.com/?hmac=ab
signed_url        https://acme.com/?url_hmac=ab
signed_url        https://acme.com/?hash=ab
signed_url        https://acme.com/?wowzatokenhash=ab
signed_url        https://acme.com/?auth_sig=ab
signed_url        https://acme.com/?Signature=ab
signed_url        https://a.blob.core.windows.net/c/b?sv=2024-01-01&sp=r&sig=ab
signed_url        https://d1.cloudfront.net/x?Policy=p&Signature=ab&Key-Pair-Id=K
-                 https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256
-                 https://acme.com/?hmac2=ab&q=hmac&signatures=2&hashtag=x
-                 https://acme.com/?Key-Pair-Id=K&design=1&signup=1

# signed_url: any word of a name, as frameworks for payments and forms write them
signed_url        https://acme.com/?checksum=0cc175b9c0f1b6a831c399e269772661
signed_url        https://acme.com/?sig_v2=ab
signed_url        https://acme.com/?x-sig-sha256=ab
signed_url        https://acme.com/?params[signature]=ab
signed_url        https://acme.com/?data%5Bhash%5D=ab
signed_url        https://auth.robokassa.ru/?OutSum=1&SignatureValue=ab
-                 https://acme.com/?design[sign]=leo&hashes=2

# signed_url: a name that means a digest if its value is one
signed_url        https://acme.com/?digest=0cc175b9c0f1b6a831c399e269772661
signed_url        https://acme.com/?formDigest=0cc175b9
signed_url        https://acme.com/?MAC=0CC175B9C0F1
signed_url        https://acme.com/?md5=_e4Nc3iduzkWRm01TBBNYw
signed_url        https://acme.com/?sha256=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
signed_url        https://pay.acme.com/?chk=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
signed_url        https://pay.acme.com/?Seal=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
-                 https://acme.com/?digest=weekly&mac=studio&chk=1
-                 https://acme.com/?mac=20260105&imac=0cc175b9

# signed_url: a word that ends in sign, with a MAC
signed_url        https://pay.acme.com/?sign=0cc175b9c0f1b6a831c399e269772661
signed_url        https://secure.ogone.com/?PSPID=x&SHASIGN=A9993E364706816ABA3E25717850C26C9CD0D89D
signed_url        https://pay.acme.com/?p24_sign=0cc175b9c0f1b6a831c399e269772661
-                 https://acme.com/?redesign=winter&callsign=0cc175b9

# signed_url: inside of a value
signed_url        https://media.akamaized.net/v?hdnts=exp=1790000000~acl=/*~hmac=ab
signed_url        https://media.akamaized.net/v?hdnts=exp%3D1790000000~acl%3D%2F*~hmac%3Dab
signed_url        https://acme.com/?sign=q-sign-algorithm%3Dsha1%26q-signature%3Dab
-                 https://acme.com/?q=hmac&x=a=b

# signed_url: sign with its type
signed_url        https://openapi.alipay.com/gateway.do?app_id=1&sign_type=RSA2&sign=ab
signed_url        https://pay.acme.com/?signType=MD5&sign=ab
signed_url        https://pay.acme.com/?sign-method=md5&sign=ab
-                 https://acme.com/?sign=leo&experience=1
-                 https://acme.com/?sign_type=RSA2

# signed_url: a MAC beside an expiry
signed_url        https://cdn.acme.com/v.mp4?token=ab&expires=1
signed_url        https://cdn.acme.com/v.mp4?sign=ab&exp=1
signed_url        https://acme.com/verify?token=ab&valid_until=1
signed_url        https://acme.com/verify?token=ab&linkExpiration=1
signed_url        https://cdn.acme.com/v?md5=_e4Nc3iduzkWRm01TBBNYw&expires=1790000000
signed_url        https://cdn.acme.com/v?st=0cc175b9c0f1b6a831c399e269772661&e=1790000000
signed_url        https://acme.com/?verify=1790000000-R3ZzbmxsSGx5ZTVtMzFyYWJkT3Q4bUFwOW8lM0Q
signed_url        https://cdn.acme.com/?auth_key=1790000000-0-0-0cc175b9c0f1b6a831c399e269772661
signed_url        https://cdn.acme.com/f?secure=wvk9hKEg1NHxgcO-PEBBwA==,1790000000
signed_url        https://cdn.acme.com/f?auth_key=0cc175b9c0f1b6a831c399e269772661&timestamp=1790000000
signed_url        https://cdn.acme.com/f?auth_key=0cc175b9c0f1b6a831c399e269772661&from=1790000000
signed_url        https://cdn.discordapp.com/a?ex=68abcdef&is=68abcdee&hm=0cc175b9c0f1b6a831c399e269772661
signed_url        https://acme.imgix.net/a.jpg?w=400&s=0cc175b9c0f1b6a831c399e269772661
-                 https://acme.com/?s=shoes
-                 https://acme.com/?token=ab
-                 https://acme.com/?id=0cc175b9c0f1b6a831c399e269772661
-                 https://acme.com/?expires=1&campaign=winter-sale-and-more-of-it
-                 https://acme.com/?t=90&id=0cc175b9c0f1b6a831c399e269772661
-                 https://acme.com/?se=1&sv=2
-                 https://acme.com/?id=0cc175b9c0f1b6a831c399e269772661&phone=4930123456
-                 https://acme.com/?token=ab&from=1790000000

# oauth, but not a state of a country and a coupon
oauth             https://acme.com/cb?code=ab&state=cd
oauth             https://acme.com/cb?code=SplxlOBeZQQYbYS6WxSbIA&state=xyz
oauth             https://acme.com/cb?code=SplxlOBeZQQYbYS6WxSbIA&state=CA
oauth             https://acme.com/cb?code=SAVE10&state=af0ifjsldkj
oauth             https://acme.com/cb?code=1&state=2
oauth             https://id.acme.com/authorize?response_type=code&state=cd&redirect_uri=https%3A%2F%2Facme.com
-                 https://acme.com/?state=CA&code=SAVE10
-                 https://acme.com/?code=WELCOME2026&state=New+York
-                 https://acme.com/?code=save10&state=tx
-                 https://acme.com/?code=SAVE10&state=NSW
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
