package signature

import (
	"net/http"
	"testing"
	"time"

	reference "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"pgregory.net/rapid"
)

// The Standard Webhooks project's own library signs, Verify accepts; and the other way
// round.
func TestAgreesWithReference(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), minKeyBytes, maxKeyBytes).Draw(rt, "key")
		id := rapid.StringMatching(`[ -\-/-~]{1,128}`).Draw(rt, "id")
		body := rapid.SliceOf(rapid.Byte()).Draw(rt, "body")
		at := testNow.Add(time.Duration(rapid.IntRange(-300, 300).Draw(rt, "skew")) * time.Second)

		secret, err := ParseSecret(secretPrefix + keyEncoding.EncodeToString(key))
		if err != nil {
			rt.Fatal(err)
		}
		webhook, err := reference.NewWebhook(secret.Reveal())
		if err != nil {
			rt.Fatal(err)
		}
		theirs, err := webhook.Sign(id, at, body)
		if err != nil {
			rt.Fatal(err)
		}
		if ours := Sign(secret, id, at, body); ours != theirs {
			rt.Fatalf("we sign %s, the reference %s", ours, theirs)
		}
		if err := webhook.VerifyIgnoringTimestamp(body, signedHeader(t, id, at, body, secret)); err != nil {
			rt.Fatalf("the reference refuses our request: %v", err)
		}
	})
}

// Whatever the headers are, nothing panics, and what passes here passes the reference
// too: this verifier is only ever stricter.
func FuzzVerify(f *testing.F) {
	genuine := Sign(namedSecret("a"), "msg_1", testNow, []byte("{}"))
	f.Add("msg_1", "1760000000", genuine, []byte("{}"))
	f.Add("msg_1", "1760000000", "v1a,x  "+genuine, []byte("{}"))
	f.Add("msg.1", "+1760000000", "v1,"+genuine, []byte("{}"))
	f.Add("", "-0", " , v1, =", []byte(nil))
	k := ringOf(f, "acme: a b")
	webhook, err := reference.NewWebhook(namedSecret("a").Reveal())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, id, timestamp, signatures string, body []byte) {
		h := http.Header{HeaderID: {id}, HeaderTimestamp: {timestamp}, HeaderSignature: {signatures}}
		v, err := k.Verify("acme", h, body, testNow)
		if err != nil {
			if Code(err) == "" {
				t.Fatalf("error without code: %v", err)
			}
		} else {
			if v.WebhookID != id || v.KeyID != namedSecret("a").KeyID() || v.Timestamp.Sub(testNow).Abs() > Tolerance {
				t.Fatalf("accepted as %+v", v)
			}
			if err := webhook.VerifyIgnoringTimestamp(body, h); err != nil {
				t.Fatalf("accepted here, but not by the reference: %v", err)
			}
		}

		// With a genuine signature in front, only form and clock can refuse.
		sum := namedSecret("b").computeMAC(signedHead(id, timestamp), body)
		h.Set(HeaderSignature, versionPrefix+keyEncoding.EncodeToString(sum[:])+" "+signatures)
		if _, err := k.Verify("acme", h, body, testNow); err == ErrBad {
			t.Fatal("a genuine signature was refused as bad")
		}
	})
}

func FuzzParseSecret(f *testing.F) {
	f.Add(namedSecret("a").Reveal())
	f.Add("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	f.Add("whsec_")
	f.Add("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSecret(text)
		if err != nil {
			return
		}
		if s.Reveal() != text || secretPrefix+keyEncoding.EncodeToString((*s.sealed).key) != text {
			t.Fatalf("%q was read as %q", text, s.Reveal())
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"event", 500}, {"batch", 1 << 20}} {
		b.Run(size.name, func(b *testing.B) {
			k := ringOf(b, "acme: a")
			body := make([]byte, size.bytes)
			h := signedHeader(b, "msg_1", testNow, body, namedSecret("a"))
			b.ReportAllocs()
			b.SetBytes(int64(size.bytes))
			for b.Loop() {
				if _, err := k.Verify("acme", h, body, testNow); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
