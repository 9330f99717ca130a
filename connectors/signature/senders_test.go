package signature

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/nimriz/partners/schemas/openapi"
)

// startVerifier serves 202 or 401 for workspace acme, by Verify with the real clock.
func startVerifier(t *testing.T, k *Keyring, received *[]byte) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		v, err := k.Verify("acme", r.Header, body, time.Now())
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			http.Error(w, "refused: "+Code(err), http.StatusUnauthorized)
			return
		}
		*received = body
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, "accepted "+v.KeyID)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// need skips the test where a tool of a script is missing, or fails it if
// PARTNERS_REQUIRE_SENDERS=1.
func need(t *testing.T, script string, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("PARTNERS_REQUIRE_SENDERS") == "1" {
				t.Fatalf("PARTNERS_REQUIRE_SENDERS=1, and %s cannot run: there is no %s in PATH", script, tool)
			}
			t.Skipf("SKIP: %s: there is no %s in PATH", script, tool)
		}
	}
}

// What ingest/README.md shows of a script is in it, and of sign.sh all.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../ingest/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for script, fence := range map[string]string{"sign.sh": "```sh\n#!", "sign.mjs": "```js\n",
		"sign.py": "```python\n"} {
		text, err := os.ReadFile(filepath.Join("testdata", script))
		if err != nil {
			t.Fatal(err)
		}
		_, shown, _ := strings.Cut(string(readme), fence)
		shown, _, _ = strings.Cut(shown, "```")
		if shown == "" || !strings.Contains(string(text), shown) || script == "sign.sh" && "#!"+shown != string(text) {
			t.Errorf("%s: ingest/README.md shows\n%s", script, shown)
		}
	}
}

// The senders that the documentation shows are run as they are shown.
func TestSenders(t *testing.T) {
	for script, tools := range map[string][]string{
		"sign.sh":  {"bash", "curl", "openssl"},
		"sign.mjs": {"node"},
		"sign.py":  {"python3"},
	} {
		t.Run(script, func(t *testing.T) {
			need(t, script, tools...)
			// Line ends, quotes, UTF-8 and a zero byte: only the exact bytes verify.
			body := []byte("{\"name\": \"Grüße\\n\"}\r\n \x00\n\n")
			file := filepath.Join(t.TempDir(), "event.json")
			if err := os.WriteFile(file, body, 0o600); err != nil {
				t.Fatal(err)
			}
			run := func(k *Keyring) (string, []byte, error) {
				var received []byte
				url := startVerifier(t, k, &received)
				out, err := runSender(t, url, tools[0], filepath.Join("testdata", script), url, file)
				return out, received, err
			}

			out, received, err := run(ringOf(t, "acme: b a"))
			if err != nil || !strings.Contains(out, "accepted "+namedSecret("a").KeyID()) {
				t.Errorf("%v: %s", err, out)
			}
			if !bytes.Equal(received, body) {
				t.Errorf("received %q, want %q", received, body)
			}
			if out, _, err := run(ringOf(t, "acme: b")); err == nil ||
				!strings.Contains(out, "refused: bad_signature") {
				t.Errorf("with another secret: %v: %s; want an exit code and the refusal", err, out)
			}
		})
	}
}

// The samples in the API's description run as printed, and what they post fits its
// schema.
func TestPublishedSamples(t *testing.T) {
	need(t, "the samples", "bash", "curl", "openssl")
	doc, err := openapi3.NewLoader().LoadFromData(openapi.Events())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v1/workspaces/{workspace}/events", "/v1/workspaces/{workspace}/events:batch"} {
		post := doc.Paths.Find(path).Post
		samples, _ := post.Extensions["x-codeSamples"].([]any)
		if len(samples) != 1 {
			t.Fatalf("%s has %d samples, want 1", path, len(samples))
		}
		source, _ := samples[0].(map[string]any)["source"].(string)
		if !strings.Contains(source, strings.Replace(path, "{workspace}", "acme", 1)+`"`) {
			t.Errorf("%s: its sample posts elsewhere:\n%s", path, source)
		}

		var received []byte
		out, err := runSender(t, startVerifier(t, ringOf(t, "acme: a"), &received), "bash", "-c", source)
		if err != nil || !strings.Contains(out, "accepted "+namedSecret("a").KeyID()) {
			t.Errorf("%s: %v: %s", path, err, out)
			continue
		}
		var body any
		if err := json.Unmarshal(received, &body); err != nil {
			t.Errorf("%s: the sample posts %q: %v", path, received, err)
			continue
		}
		schema := post.RequestBody.Value.Content["application/json"].Schema.Value
		if err := schema.VisitJSON(body, openapi3.EnableJSONSchema2020()); err != nil {
			t.Errorf("%s: the sample posts %s: %v", path, received, err)
		}
	}
}

// runSender runs a command with the environment that the senders read.
func runSender(t *testing.T, url, command string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Env = append(os.Environ(), "PARTNERS_URL="+url, "PARTNERS_SECRET="+namedSecret("a").Reveal(),
		"CLICK_TOKEN=0ujtsYcgvSTl8PAuAdqWYSMnLOv", "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// What the package's documentation quotes is what the tests run.
func TestDocumentationQuotesTheSenders(t *testing.T) {
	var senders string
	for _, file := range []string{"sign.sh", "sign.mjs", "sign.py"} {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		senders += string(text)
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	quoted := 0
	for line := range strings.Lines(string(doc)) {
		if code, ok := strings.CutPrefix(line, "//\t"); ok {
			quoted++
			if !strings.Contains(senders, strings.TrimSpace(code)+"\n") {
				t.Errorf("doc.go quotes %q, which no sender has", code)
			}
		}
	}
	if quoted == 0 {
		t.Error("doc.go quotes nothing")
	}
}
