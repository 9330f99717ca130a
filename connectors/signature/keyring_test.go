package signature

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

var testNow = time.Unix(1760000000, 0)

func signedHeader(t testing.TB, id string, at time.Time, body []byte, secrets ...Secret) http.Header {
	t.Helper()
	r := &http.Request{Header: make(http.Header)}
	if err := SignRequest(r, id, at, body, secrets...); err != nil {
		t.Fatal(err)
	}
	return r.Header
}

// A refusal must cost the same MACs over the body for every name, and an accepted
// request no more than that.
func TestEveryWorkspaceCostsTheSame(t *testing.T) {
	k := ringOf(t, "one: a", "three: b c d", "two: e f")
	body := []byte(`{"event_id":"1"}`)
	stranger := signedHeader(t, "msg_1", testNow, body, namedSecret("stranger"))
	c, err := parseClaim(stranger)
	if err != nil {
		t.Fatal(err)
	}
	for _, workspace := range []string{"one", "two", "three", "unknown", ""} {
		key, macs, ok := k.current.Load().secretsOf(workspace).matchSignature(c, body)
		if ok || macs != 3 || key != (Secret{}) {
			t.Errorf("workspace %q: matched %v with %v after %d MACs, want a refusal after 3", workspace, ok, key, macs)
		}
		if _, err := k.Verify(workspace, stranger, body, testNow); err != ErrBad {
			t.Errorf("workspace %q: %v, want exactly ErrBad", workspace, err)
		}
	}
}

// Even a request that a decoy signed is refused.
func TestDecoyNeverMatches(t *testing.T) {
	k := ringOf(t, "one: a", "three: b c d")
	loaded := k.current.Load()
	if len(loaded.unknown.secrets) != 3 {
		t.Fatalf("%d decoys for an unknown workspace, want 3", len(loaded.unknown.secrets))
	}
	for _, decoy := range loaded.unknown.secrets {
		h := signedHeader(t, "msg_1", testNow, nil, decoy)
		for _, workspace := range []string{"one", "three", "unknown"} {
			if _, err := k.Verify(workspace, h, nil, testNow); err != ErrBad {
				t.Errorf("workspace %q accepts a decoy's signature: %v", workspace, err)
			}
		}
	}
	if again := ringOf(t, "one: a",
		"three: b c d").current.Load(); again.unknown.secrets[0].KeyID() == loaded.unknown.secrets[0].KeyID() {
		t.Error("two keyrings share a decoy: decoys are not random")
	}
}

// The trivial model of rotation: a request passes when one of its signers is active in
// its workspace, and names the active one that comes first in the file.
func TestRotationModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"})
		distinct := func(label string, most int) []string {
			return rapid.SliceOfNDistinct(name, 1, most, rapid.ID).Draw(rt, label)
		}
		active := distinct("active", MaxSecrets)
		other := distinct("other workspace", MaxSecrets)
		signers := distinct("signers", MaxSignatures)

		k := ringOf(t, "w: "+strings.Join(active, " "), "x: "+strings.Join(other, " "))
		var secrets []Secret
		for _, s := range signers {
			secrets = append(secrets, namedSecret(s))
		}
		body := rapid.SliceOf(rapid.Byte()).Draw(rt, "body")
		got, err := k.Verify("w", signedHeader(t, "msg_1", testNow, body, secrets...), body, testNow)

		want := ""
		for _, a := range active {
			if want == "" && strings.Contains(strings.Join(signers, ""), a) {
				want = namedSecret(a).KeyID()
			}
		}
		if (err == nil) != (want != "") || got.KeyID != want || (err != nil && err != ErrBad) {
			rt.Fatalf("key %q, error %v; want key %q", got.KeyID, err, want)
		}
	})
}

func TestLoadKeyring(t *testing.T) {
	a, b := namedSecret("a").Reveal(), namedSecret("b").Reveal()
	nine := ""
	for i := range 9 {
		nine += namedSecret(fmt.Sprint(i)).Reveal() + "\n"
	}
	for _, c := range []struct{ name, file, text, want string }{
		{"one", "acme", a, ""},
		{"comments, blanks, CRLF, indent", "acme", "# old\r\n" + a + "\r\n\r\n  \n  " + b + "\n# end", ""},
		{"eight", "acme", nine[:strings.LastIndex(strings.TrimSpace(nine), "\n")], ""},
		{"64 characters", strings.Repeat("a", 64), a, ""},
		{"nine", "acme", nine, `acme line 9: more than 8 secrets`},
		{"twice", "acme", a + "\n" + b + "\n\n" + a, `acme line 4: the same secret as on line 1`},
		{"empty", "acme", "# none yet\n", `acme: no secret in it`},
		{"no prefix", "acme", "\n" + a[len(secretPrefix):], `acme line 2: a signing secret starts with whsec_`},
		{"not base64", "acme", a + "!", `acme line 1: a signing secret is padded standard base64 after whsec_`},
		{"trailing comment", "acme", a + " # old",
			`acme line 1: a signing secret is padded standard base64 after whsec_`},
		{"too short", "acme", "whsec_c2VjcmV0",
			`acme line 1: a signing secret has 24 to 64 bytes, this one has 6`},
		{"too long", "acme", "whsec_" + strings.Repeat("AAAA", 21) +
			"AAA=", `acme line 1: a signing secret has 24 to 64 bytes, this one has 65`},
		{"carriage return within", "acme", a[:10] + "\r" + a[10:],
			`acme line 1: a signing secret is padded standard base64 after whsec_`},
		{"no key", "acme", "whsec_", `acme line 1: a signing secret has 24 to 64 bytes, this one has 0`},
		{"extension", "acme.txt", a, `the directory has no workspace's file`},
		{"directory", "acme/key", a, `acme: `},
		{"nothing but hidden files", ".gitkeep", "", "the directory has no workspace's file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := LoadKeyring(fstest.MapFS{c.file: {Data: []byte(c.text)}})
			if err == nil {
				found := k.Findings()
				err = found.Err()
			}
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), a[len(secretPrefix):][:6]) {
				t.Fatalf("the error contains the secret: %v", err)
			}
		})
	}
}

// Kubernetes mounts a secret as symbolic links beside a ..data directory.
func TestLoadKeyringSkipsDotFiles(t *testing.T) {
	text := []byte(namedSecret("a").Reveal())
	k, err := LoadKeyring(fstest.MapFS{
		"..2026_01_02/acme": {Data: text},
		"..data":            {Data: []byte("..2026_01_02"), Mode: fs.ModeSymlink},
		"acme":              {Data: []byte("..data/acme"), Mode: fs.ModeSymlink},
	})
	if err != nil {
		t.Fatal(err)
	}
	if workspaces, secrets := k.Size(); workspaces != 1 || secrets != 1 {
		t.Fatalf("%d workspaces, %d secrets, want 1 and 1", workspaces, secrets)
	}
}

func TestReload(t *testing.T) {
	dir := secretFiles("acme: old", "globex: g")
	k, err := LoadKeyring(dir)
	if err != nil {
		t.Fatal(err)
	}
	reload := func(name, text string) {
		dir[name] = &fstest.MapFile{Data: []byte(text)}
		k.Reload()
		k.Reload()
	}
	verify := func(workspace, name string, want error) {
		t.Helper()
		h := signedHeader(t, "msg_1", testNow, nil, namedSecret(name))
		if _, err := k.Verify(workspace, h, nil, testNow); err != want {
			t.Errorf("%s, signed with %s: %v, want %v", workspace, name, err, want)
		}
	}
	reload("acme", namedSecret("old").Reveal()+"\nv1,"+namedSecret("new").Reveal())
	verify("acme", "old", nil)
	verify("acme", "new", ErrBad)
	reload("acme", namedSecret("old").Reveal()+"\noops\n"+namedSecret("new").Reveal())
	verify("acme", "old", nil)
	verify("acme", "new", ErrUnreadable) // it will be good, once the line above is mended
	verify("acme", "g", ErrBad)
	reload("globex", namedSecret("h").Reveal()) // while acme's file cannot be used
	verify("globex", "g", ErrBad)
	verify("globex", "h", nil)
	reload("acme", namedSecret("new").Reveal())
	verify("acme", "old", ErrBad)
	verify("acme", "new", nil)
	reload("acme", namedSecret("other").Reveal()+"\noops")
	verify("acme", "new", ErrUnreadable)
	verify("acme", "other", ErrUnreadable)
	verify("globex", "h", nil)
	verify("unknown", "h", ErrBad)
	reload("globex", "# revoked\n")
	verify("globex", "h", ErrUnreadable)
}

// Wherever a copy of a file stops: the secrets that were in force stay, and none comes.
func TestReloadOfCutFile(t *testing.T) {
	first, second := namedSecret("a").Reveal(), namedSecret("b").Reveal()
	whole := first + "\n" + second + "\n"
	for length := range len(whole) {
		dir := fstest.MapFS{"acme": {Data: []byte(whole)}}
		k, err := LoadKeyring(dir)
		if err != nil {
			t.Fatal(err)
		}
		dir["acme"] = &fstest.MapFile{Data: []byte(whole[:length])}
		k.Reload()
		found := k.Reload()
		kept, unreadable := 2, 1
		if length == len(first) || length == len(first)+1 {
			kept, unreadable = 1, 0 // the second line is gone, as if it had been removed
		} else if length == len(whole)-1 {
			unreadable = 0
		}
		for _, name := range []string{"a", "b"}[:kept] {
			h := signedHeader(t, "msg_1", testNow, nil, namedSecret(name))
			if _, err := k.Verify("acme", h, nil, testNow); err != nil {
				t.Errorf("cut to %d characters: secret %s: %v", length, name, err)
			}
		}
		if found.Unreadable() != unreadable || found.Entries != kept {
			t.Errorf("cut to %d characters: %d files unreadable, %d secrets in force; want %d, %d", length,
				found.Unreadable(), found.Entries, unreadable, kept)
		}
	}
}

// A workspace whose file cannot be used from the start is not refused as one without
// the secret would be, and costs the same MACs.
func TestStartWithUnreadableFile(t *testing.T) {
	dir := secretFiles("globex: g h")
	dir["acme"] = &fstest.MapFile{Data: []byte("oops")}
	k, err := LoadKeyring(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := signedHeader(t, "msg_1", testNow, nil, namedSecret("g"))
	if _, err := k.Verify("acme", h, nil, testNow); err != ErrUnreadable {
		t.Errorf("acme: %v, want ErrUnreadable", err)
	}
	if _, err := k.Verify("globex", h, nil, testNow); err != nil {
		t.Errorf("globex: %v", err)
	}
	if _, err := k.Verify("acme", http.Header{}, nil, testNow); !errors.Is(err, ErrMissing) {
		t.Errorf("acme without signature: %v, want ErrMissing", err)
	}
	c, err := parseClaim(h)
	if err != nil {
		t.Fatal(err)
	}
	if _, macs, _ := k.current.Load().secretsOf("acme").matchSignature(c, nil); macs != 2 {
		t.Errorf("%d MACs, want 2 as for any other name", macs)
	}
}

// Uses tell when each active secret last signed a request, over reloads.
func TestUses(t *testing.T) {
	dir := secretFiles("acme: old new")
	k, err := LoadKeyring(dir)
	if err != nil {
		t.Fatal(err)
	}
	uses := func() string {
		var list []string
		for _, u := range k.Uses() {
			for _, name := range []string{"old", "new", "third"} {
				if u.KeyID == namedSecret(name).KeyID() && !u.At.IsZero() {
					list = append(list, fmt.Sprint(u.Workspace, " ", name, " ", u.At.Sub(testNow)))
				}
			}
		}
		slices.Sort(list)
		return fmt.Sprint(len(k.Uses()), list)
	}
	sign := func(name string, at time.Time) {
		if _, err := k.Verify("acme", signedHeader(t, "msg_1", at, nil, namedSecret(name)), nil, at); (err == nil) !=
			(name != "stranger") {
			t.Errorf("%s: %v", name, err)
		}
	}
	want := func(want string) {
		t.Helper()
		if got := uses(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	want("2 []")
	sign("stranger", testNow)
	want("2 []")
	sign("old", testNow)
	sign("old", testNow.Add(-time.Minute))
	want("2 [acme old 0s]")
	sign("new", testNow.Add(time.Minute))
	want("2 [acme new 1m0s acme old 0s]")
	dir["acme"] = &fstest.MapFile{Data: []byte(namedSecret("third").Reveal() + "\n" + namedSecret("new").Reveal())}
	k.Reload()
	k.Reload()
	want("2 [acme new 1m0s]")
}

// A secret common to both versions of a file is good at every moment of a reload.
func TestReloadWhileVerifying(t *testing.T) {
	file := filepath.Join(t.TempDir(), "acme")
	write := func(second string) {
		text := namedSecret("both").Reveal() + "\n" + namedSecret(second).Reveal()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Error(err)
		}
	}
	write("old")
	k, err := LoadKeyring(os.DirFS(filepath.Dir(file)))
	if err != nil {
		t.Fatal(err)
	}
	h := signedHeader(t, "msg_1", testNow, nil, namedSecret("both"))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				if _, err := k.Verify("acme", h, nil, testNow); err != nil {
					t.Errorf("during a reload: %v", err)
					return
				}
			}
		})
	}
	for i := range 50 {
		write([]string{"new", "old"}[i%2])
		k.Reload()
		if found := k.Reload(); found.Err() != nil {
			t.Error(found.Err())
		}
	}
	wg.Wait()
}

// A secret must not reach a log through any door.
func TestSecretIsNeverPrinted(t *testing.T) {
	s := namedSecret("a")
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "list", []Secret{s})
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s, "list", []Secret{s})
	printed := log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		printed += fmt.Sprintf(verb, s)
		printed += fmt.Sprintf(verb, []Secret{s})
		printed += fmt.Sprintf(verb, struct{ hidden Secret }{s})
		printed += fmt.Sprintf(verb, ring{unknown: trialSecrets{secrets: []Secret{s}}})
	}
	key := (*s.sealed).key
	for _, leak := range []string{
		s.Reveal()[len(secretPrefix):][:8],
		fmt.Sprintf("%x", key[:4]), fmt.Sprintf("%d %d %d", key[0], key[1], key[2]), fmt.Sprintf("%q", key[:4]),
	} {
		if strings.Contains(printed, leak) {
			t.Errorf("%q of the secret was printed:\n%s", leak, printed)
		}
	}
	if !strings.Contains(printed, "secret("+s.KeyID()+")") {
		t.Errorf("the key id was not printed:\n%s", printed)
	}
}

func TestNewSecret(t *testing.T) {
	s, err := NewSecret(bytes.NewReader(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	if want := "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="; s.Reveal() != want {
		t.Errorf("%s, want %s", s.Reveal(), want)
	}
	broken := errors.New("no entropy")
	if s, err := NewSecret(iotest.ErrReader(broken)); !errors.Is(err, broken) || s != (Secret{}) {
		t.Errorf("%v, %v; want the reader's error", s, err)
	}
}

func TestSignRequestRefuses(t *testing.T) {
	a := namedSecret("a")
	for name, c := range map[string]struct {
		id      string
		secrets []Secret
	}{
		"id with a dot":      {"msg.1", []Secret{a}},
		"no id":              {"", []Secret{a}},
		"over-long id":       {strings.Repeat("x", 129), []Secret{a}},
		"line break in id":   {"x\ny", []Secret{a}},
		"id that is no text": {"x\xff", []Secret{a}},
		"no secret":          {"msg_1", nil},
		"the zero secret":    {"msg_1", []Secret{a, {}}},
		"eleven secrets":     {"msg_1", make([]Secret, 11)},
	} {
		r := &http.Request{Header: make(http.Header)}
		if err := SignRequest(r, c.id, testNow, nil, c.secrets...); err == nil || len(r.Header) != 0 {
			t.Errorf("%s: error %v, headers %v; want an error and none", name, err, r.Header)
		}
	}
}

func TestCodeOfOtherErrors(t *testing.T) {
	if Code(nil) != "" || Code(errors.New("other")) != "" {
		t.Error("an error that is not of Verify has a code")
	}
	if got := Code(fmt.Errorf("reading: %w", ErrStale)); got != "stale_timestamp" {
		t.Errorf("wrapped ErrStale has code %q", got)
	}
}
