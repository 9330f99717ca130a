package token_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/segmentio/ksuid"
	"pgregory.net/rapid"
)

const (
	key1 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	key2 = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
)

func newKeyring(t testing.TB, files map[string]string) *token.Keyring {
	t.Helper()
	dir := fstest.MapFS{}
	for name, text := range files {
		dir[name] = &fstest.MapFile{Data: []byte(text)}
	}
	k, err := token.LoadKeyring(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var at = time.Unix(1790000000, 0).UTC()

func TestGolden(t *testing.T) {
	k := newKeyring(t, map[string]string{"acme": "# first mints\n" + key1 + "\n" + key2 + "\n"})
	raw, err := k.Mint("acme", at, bytes.NewReader(make([]byte, 10)))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := token.Text(&raw), "3Jdnq4arA0Qv7N1RckwT0wFx4jl"; got != want {
		t.Errorf("the form of a token changed: got %s, want %s", got, want)
	}
	if !token.Time(&raw).Equal(at) {
		t.Errorf("time %v, want %v", token.Time(&raw), at)
	}
}

func TestVerify(t *testing.T) {
	k := newKeyring(t, map[string]string{"acme": key1, "globex": key1})
	rotated := newKeyring(t, map[string]string{"acme": key2 + "\n" + key1})
	raw, err := k.Mint("acme", at, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := token.Text(&raw)
	f := func(k *token.Keyring, workspace, text string, want error) {
		t.Helper()
		if _, err := k.Verify(workspace, text); !errors.Is(err, want) {
			t.Errorf("%s %s: got %v, want %v", workspace, text, err, want)
		}
	}
	f(k, "acme", text, nil)
	f(rotated, "acme", text, nil)
	f(k, "globex", text, token.ErrInvalid) // the same key, another workspace
	f(k, "unknown", text, token.ErrInvalid)
	f(k, "acme", text[:26], token.ErrMalformed)
	f(k, "acme", text+"0", token.ErrMalformed)
	f(k, "acme", strings.Repeat("z", 27), token.ErrMalformed) // more than 20 bytes can hold
	f(k, "acme", "*"+text[1:], token.ErrMalformed)
	// One token, one text.
	for i := range text {
		for c := range 256 {
			if other := text[:i] + string([]byte{byte(c)}) + text[i+1:]; other != text {
				if _, err := k.Verify("acme", other); err == nil {
					t.Errorf("%q is taken for %q", other, text)
				}
			}
		}
	}
	for i := range raw {
		forged := raw
		forged[i] ^= 1
		f(k, "acme", token.Text(&forged), token.ErrInvalid)
	}
	if _, err := k.Mint("unknown", at, rand.Reader); err == nil {
		t.Error("minted without a key")
	}
}

func TestLoadErrors(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		k, err := token.LoadKeyring(fstest.MapFS{"acme": &fstest.MapFile{Data: []byte(text)}, "globex": &fstest.MapFile{
			Data: []byte(key1)}})
		if err != nil || k.Has("acme") || !k.Has("globex") {
			t.Fatalf("%q: %v", text, err)
		}
		found := k.Findings()
		if err = found.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want …%s…", text, err, want)
		}
	}
	f("", "acme: no key in it")
	if _, err := token.LoadKeyring(fstest.MapFS{}); err != nil {
		t.Errorf("a directory for keys to come: %v", err)
	}
	f(key1+"\nsecret!", "acme line 2: want standard base64")
	f("c2hvcnQ=", "at least 16 bytes")
}

// After Reload a keyring verifies tokens of its new keys. A file that cannot be used
// leaves the old ones, but for those that are readably gone.
func TestReload(t *testing.T) {
	dir := fstest.MapFS{"acme": {Data: []byte(key1)}, "globex": {Data: []byte(key1)}}
	k, err := token.LoadKeyring(dir)
	if err != nil {
		t.Fatal(err)
	}
	minted := map[string]string{}
	for _, workspace := range []string{"acme", "globex"} {
		raw, err := k.Mint(workspace, at, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		minted[workspace] = token.Text(&raw)
	}
	for _, step := range []struct {
		workspace, text string
		acme, globex    error
		unreadable      int
	}{
		{"acme", "oops", nil, nil, 1},
		{"globex", key2, nil, token.ErrInvalid, 1}, // while acme's file cannot be used
		{"globex", key2 + "\n" + key1, nil, nil, 1},
		{"acme", key2 + "\noops", token.ErrInvalid, nil, 1},
		{"acme", key2 + "\n" + key1, nil, nil, 0},
		{"acme", key2, token.ErrInvalid, nil, 0},
		{"globex", "# revoked\n", token.ErrInvalid, token.ErrInvalid, 1},
		{"globex", key1, token.ErrInvalid, nil, 0},
	} {
		dir[step.workspace] = &fstest.MapFile{Data: []byte(step.text)}
		k.Reload()
		found := k.Reload()
		for workspace, want := range map[string]error{"acme": step.acme, "globex": step.globex} {
			if _, err := k.Verify(workspace, minted[workspace]); !errors.Is(err, want) {
				t.Errorf("%s = %q: %s: %v, want %v", step.workspace, step.text, workspace, err, want)
			}
		}
		if found.Unreadable() != step.unreadable {
			t.Errorf("%s = %q: %v", step.workspace, step.text, found.Err())
		}
	}
	delete(dir, "acme")
	delete(dir, "globex")
	k.Reload()
	if found := k.Reload(); found.Err() == nil || !k.Has("globex") {
		t.Errorf("an empty directory was believed: %v", found.Err())
	}
}

// Wherever a copy of a file stops: the keys that were in force stay, and none comes.
func TestReloadOfCutFile(t *testing.T) {
	whole := key1 + "\n" + key2 + "\n"
	for length := range len(whole) {
		dir := fstest.MapFS{"acme": {Data: []byte(whole)}, "globex": {Data: []byte(key2)}}
		k, err := token.LoadKeyring(dir)
		if err != nil {
			t.Fatal(err)
		}
		dir["acme"] = &fstest.MapFile{Data: []byte(whole[:length])}
		k.Reload()
		found := k.Reload()
		kept, unreadable := 2, 1
		if length == len(key1) || length == len(key1)+1 {
			kept, unreadable = 1, 0 // the second line is gone, as if it had been removed
		} else if length == len(whole)-1 {
			unreadable = 0
		}
		for i, key := range []string{key1, key2}[:kept] {
			minter := newKeyring(t, map[string]string{"acme": key})
			raw, err := minter.Mint("acme", at, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.Verify("acme", token.Text(&raw)); err != nil {
				t.Errorf("cut to %d characters: key %d: %v", length, i+1, err)
			}
		}
		if found.Unreadable() != unreadable || found.Entries != kept+1 {
			t.Errorf("cut to %d characters: %d files unreadable, %d keys in force; want %d, %d", length,
				found.Unreadable(), found.Entries, unreadable, kept+1)
		}
	}
}

// Uses tell when a key last minted or verified. A token without key verifies nowhere.
func TestUses(t *testing.T) {
	k := newKeyring(t, map[string]string{"acme": key1 + "\n" + key2})
	old := newKeyring(t, map[string]string{"acme": key2})
	used := func(want ...string) {
		t.Helper()
		var ids []string
		for _, u := range k.Uses() {
			if u.Workspace == "acme" && !u.At.IsZero() {
				ids = append(ids, u.KeyID)
			}
		}
		slices.Sort(ids)
		slices.Sort(want)
		if !slices.Equal(ids, want) || len(k.Uses()) != 2 {
			t.Errorf("used %v, want %v", ids, want)
		}
	}
	raw, err := token.Unsigned(at, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Verify("acme", token.Text(&raw)); !errors.Is(err, token.ErrInvalid) || !token.Time(&raw).Equal(at) {
		t.Errorf("%v, minted %v", err, token.Time(&raw))
	}
	if _, err := k.Mint("globex", at, rand.Reader); !errors.Is(err, token.ErrNoKey) {
		t.Errorf("%v, want ErrNoKey", err)
	}
	used()
	if raw, err = old.Mint("acme", at, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Verify("acme", token.Text(&raw)); err != nil {
		t.Fatal(err)
	}
	used(token.KeyID(key2))
	if _, err := k.Mint("acme", at, rand.Reader); err != nil {
		t.Fatal(err)
	}
	used(token.KeyID(key1), token.KeyID(key2))
}

// Text order, byte order and time order are the same.
func TestOrder(t *testing.T) {
	k := newKeyring(t, map[string]string{"acme": key1})
	rapid.Check(t, func(t *rapid.T) {
		a, _ := k.Mint("acme", at.Add(time.Duration(rapid.Int64Range(0, 1<<30).Draw(t, "a"))*time.Second), rand.Reader)
		b, _ := k.Mint("acme", at.Add(time.Duration(rapid.Int64Range(0, 1<<30).Draw(t, "b"))*time.Second), rand.Reader)
		if strings.Compare(token.Text(&a), token.Text(&b)) != slices.Compare(a[:], b[:]) {
			t.Fatalf("text and bytes sort differently")
		}
		if token.Seconds(&a) < token.Seconds(&b) && slices.Compare(a[:], b[:]) > 0 {
			t.Fatalf("not in time order")
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("2ABCdefGhIjKlMnOpQrStUvWxYz")
	f.Add(strings.Repeat("z", 27))
	f.Add("@ABCdefGhIjKlMnOpQrStUvWxYz")
	f.Add("aWgEPTl1tmebfsQzFP4bxwgy80V") // the largest
	f.Add("aWgEPTl1tmebfsQzFP4bxwgy80W")
	f.Fuzz(func(t *testing.T, text string) {
		raw, err := token.Parse(text)
		if theirs, bad := ksuid.Parse(text); !strings.ContainsFunc(text, func(r rune) bool {
			return !strings.ContainsRune(base62, r)
		}) && ((bad == nil) != (err == nil) || bad == nil && token.Raw(theirs) != raw) {
			t.Errorf("%q parses to %x (%v), ksuid says %x (%v)", text, raw, err, theirs, bad)
		}
		if err != nil {
			if !errors.Is(err, token.ErrMalformed) {
				t.Errorf("unclassified: %v", err)
			}
			return
		}
		if token.Text(&raw) != text {
			t.Errorf("%q parses to %q", text, token.Text(&raw))
		}
	})
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// The library and this package decode and encode alike, over the whole range.
func TestTextsAreKSUIDs(t *testing.T) {
	for _, raw := range []token.Raw{{}, {19: 1}, token.Raw(bytes.Repeat([]byte{0xff}, 20))} {
		if got, want := token.Text(&raw), ksuid.KSUID(raw).String(); got != want {
			t.Errorf("%x is %s, ksuid says %s", raw, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		random := token.Raw(rapid.SliceOfN(rapid.Byte(), 20, 20).Draw(t, "raw"))
		if got, want := token.Text(&random), ksuid.KSUID(random).String(); got != want {
			t.Fatalf("%x is %s, ksuid says %s", random, got, want)
		}
		text := rapid.StringOfN(rapid.RuneFrom([]rune(base62)), token.Len, token.Len, token.Len).Draw(t, "text")
		raw, err := token.Parse(text)
		theirs, bad := ksuid.Parse(text)
		if (bad == nil) != (err == nil) || bad == nil && token.Raw(theirs) != raw {
			t.Fatalf("%q parses to %x (%v), ksuid says %x (%v)", text, raw, err, theirs, bad)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	const text = "2ABCdefGhIjKlMnOpQrStUvWxYz"
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			if _, err := token.Parse(text); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ksuid", func(b *testing.B) {
		for b.Loop() {
			if _, err := ksuid.Parse(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkMint(b *testing.B) {
	k := newKeyring(b, map[string]string{"acme": key1})
	random := strings.NewReader("")
	b.ReportAllocs()
	for b.Loop() {
		random.Reset("0123456789")
		if _, err := k.Mint("acme", at, random); err != nil {
			b.Fatal(err)
		}
	}
}
