package signature

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cockroachdb/datadriven"
)

// namedSecret is the same secret for the same name, always.
func namedSecret(name string) Secret {
	digest := sha256.Sum256([]byte(name))
	s, err := NewSecret(bytes.NewReader(digest[:]))
	if err != nil {
		panic(err)
	}
	return s
}

// secretFiles makes a directory of lines "workspace: name name …".
func secretFiles(lines ...string) fstest.MapFS {
	dir := fstest.MapFS{}
	for _, line := range lines {
		workspace, names, _ := strings.Cut(line, ":")
		var text strings.Builder
		for _, name := range strings.Fields(names) {
			fmt.Fprintln(&text, namedSecret(name).Reveal())
		}
		dir[workspace] = &fstest.MapFile{Data: []byte(text.String())}
	}
	return dir
}

// ringOf makes a keyring of lines "workspace: name name …".
func ringOf(t testing.TB, lines ...string) *Keyring {
	t.Helper()
	k, err := LoadKeyring(secretFiles(lines...))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestVectors(t *testing.T) {
	datadriven.RunTest(t, "testdata/vectors.txt", func(t *testing.T, d *datadriven.TestData) string {
		in := make(map[string]string)
		for line := range strings.Lines(d.Input) {
			name, value, _ := strings.Cut(line, ":")
			in[name] = strings.TrimSpace(value)
		}
		s, err := ParseSecret(in["secret"])
		if err != nil {
			return err.Error()
		}
		at, err := strconv.ParseInt(in["at"], 10, 64)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("%s\nkey id %s\n", Sign(s, in["id"], time.Unix(at, 0), []byte(in["body"])), s.KeyID())
	})
}

func TestVerifyScript(t *testing.T) {
	script := &verifyScript{names: make(map[string]string)}
	datadriven.RunTest(t, "testdata/verify.txt", script.run)
	// Every code must have been met, or the script has lost its point.
	for _, code := range []string{"", "missing_signature", "bad_signature", "stale_timestamp", "future_timestamp"} {
		if !script.met[code] {
			t.Errorf("no request of the script ended with code %q", code)
		}
	}
}

type verifyScript struct {
	ring  *Keyring
	names map[string]string // key id → secret's name in the script
	met   map[string]bool
}

func (s *verifyScript) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "keyring":
		lines := strings.Split(d.Input, "\n")
		s.ring = ringOf(t, lines...)
		for _, line := range lines {
			_, names, _ := strings.Cut(line, ":")
			for _, name := range strings.Fields(names) {
				s.names[namedSecret(name).KeyID()] = name
			}
		}
		workspaces, secrets := s.ring.Size()
		return fmt.Sprintf("%d workspaces, %d secrets\n", workspaces, secrets)
	case "verify":
		var workspace string
		if arg, ok := d.Arg("workspace"); ok && len(arg.Vals) > 0 {
			workspace = arg.Vals[0]
		}
		h, body := scriptRequest(d.Input)
		return s.verify(workspace, h, body)
	}
	t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	return ""
}

func (s *verifyScript) verify(workspace string, h http.Header, body []byte) string {
	v, err := s.ring.Verify(workspace, h, body, time.Unix(1760000000, 999999999))
	if s.met == nil {
		s.met = make(map[string]bool)
	}
	s.met[Code(err)] = true
	id := v.WebhookID
	if id == strings.Repeat("é", 128) {
		id = "{128*é}"
	}
	result := fmt.Sprintf("secret=%s id=%s at=%s", s.names[v.KeyID], id, v.Timestamp.Format(time.RFC3339))
	switch {
	case err == nil:
		return "ok " + result + "\n"
	case errors.Is(err, ErrStale) || errors.Is(err, ErrFuture):
		return fmt.Sprintf("%s: %s (%s)\n", Code(err), Detail(err), result)
	case v != Verified{}:
		return fmt.Sprintf("%s, but a result: %s\n", Code(err), result)
	}
	return fmt.Sprintf("%s: %s\n", Code(err), Detail(err))
}

var scriptMacro = regexp.MustCompile(`\{(?:(\d+)\*([^{}]+)|([a-z]+))\}`)

// scriptRequest reads the input of a verify command, as described at the top of the
// script.
func scriptRequest(input string) (http.Header, []byte) {
	set := map[string][]string{
		"webhook-id":        {"msg_1"},
		"webhook-timestamp": {"1760000000"},
		"body":              {"{}"},
	}
	given := make(map[string]bool)
	for line := range strings.Lines(input) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		if !given[name] {
			set[name] = nil
		}
		given[name] = true
		if value != "" {
			set[name] = append(set[name], value)
		}
	}
	first := func(name string) string {
		if len(set[name]) == 0 {
			return ""
		}
		return expandMacros(set[name][0], nil)
	}
	head := signedHead(first("webhook-id"), first("webhook-timestamp"))
	sign := func(name string) string {
		s := namedSecret(name)
		sum := s.computeMAC(head, []byte(first("body")))
		return versionPrefix + keyEncoding.EncodeToString(sum[:])
	}

	h := make(http.Header)
	for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
		for _, value := range set[name] {
			h.Add(name, expandMacros(value, sign))
		}
	}
	// What arrives is not what was signed.
	for from, to := range map[string]string{"id-received": HeaderID, "timestamp-received": HeaderTimestamp,
		"svix-id": "Svix-Id", "svix-timestamp": "Svix-Timestamp", "svix-signature": "Svix-Signature"} {
		if given[from] {
			h.Set(to, first(from))
		}
	}
	body := first("body")
	if given["body-received"] {
		body = set["body-received"][0]
	}
	return h, []byte(body)
}

func expandMacros(text string, sign func(name string) string) string {
	return scriptMacro.ReplaceAllStringFunc(text, func(macro string) string {
		parts := scriptMacro.FindStringSubmatch(macro)
		if parts[1] != "" {
			n, _ := strconv.Atoi(parts[1])
			return strings.Repeat(parts[2], n)
		}
		return sign(parts[3])
	})
}
