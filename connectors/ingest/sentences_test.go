package ingest

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/nimriz/partners/connectors/signature"
)

// script expands what stands in < > in testdata/sentences.txt, which explains it.
func (r *rig) script(text string) string {
	head := strings.TrimSuffix(strings.TrimPrefix(eventWith(r.token, time.Now().UTC().Format(time.RFC3339),
		"amount", "", "currency", ""), "{"), "}")
	text = strings.ReplaceAll(text, "<event>", "{<head>}")
	text = strings.ReplaceAll(text, "<head>", head)
	return regexp.MustCompile(`<[0-9A-F]{2}>`).ReplaceAllStringFunc(text, func(m string) string {
		b, _ := hex.DecodeString(m[1:3])
		return string(b)
	})
}

// scriptHeaders signs a good event and changes its headers as the lines say.
func (r *rig) scriptHeaders(lines string) *http.Request {
	r.t.Helper()
	body := r.script("<event>")
	req := r.request(call{body: body})
	genuine := req.Header.Get(signature.HeaderSignature)
	given := make(map[string]bool)
	for line := range strings.Lines(lines) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.ReplaceAll(strings.TrimSpace(value), "<signed>", genuine)
		if name == "timestamp-as-signed" {
			at := time.Now()
			if value == "milliseconds" {
				at = time.Unix(at.UnixMilli(), 0)
			} else if seconds, err := strconv.Atoi(value); err == nil {
				at = at.Add(time.Duration(seconds) * time.Second)
			}
			if err := signature.SignRequest(req, "msg_1", at, []byte(body), secretOf("acme")); err != nil {
				r.t.Fatal(err)
			}
			continue
		}
		name = http.CanonicalHeaderKey(name)
		if !given[name] {
			req.Header.Del(name)
		}
		if given[name] = true; value != "" {
			req.Header[name] = append(req.Header[name], value)
		}
	}
	return req
}

// sentence writes an answer as in the script.
func (a answer) sentence() string {
	one := func(code, field, detail string) string {
		return strings.TrimSuffix(strings.TrimSuffix(fmt.Sprintf(" %s %s", code, field), " ")+": "+detail, " : ")
	}
	text := strconv.Itoa(a.status) + one(a.Code, a.Field, a.Detail) + "\n"
	for _, item := range a.Results {
		text += fmt.Sprintf("%d %s %s%s\n", item.Index, item.EventID, item.Status,
			one(item.Code, item.Field, item.Detail))
	}
	return text
}

// Each fault has a sentence of its own, before any secret was looked at if it lies in the
// headers.
func TestSentences(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	datadriven.RunTest(t, "testdata/sentences.txt", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "headers":
			return r.send(r.scriptHeaders(d.Input)).sentence()
		case "event":
			return r.do(call{body: r.script(d.Input)}).sentence()
		case "batch":
			return r.do(call{path: batchTo("acme"), body: r.script(d.Input)}).sentence()
		}
		t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
		return ""
	})
}

// A refusal because of the form of headers says the same whatever the workspace is, and
// whoever signed.
func TestSentencesTellNoWorkspace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	datadriven.RunTest(t, "testdata/sentences.txt", func(t *testing.T, d *datadriven.TestData) string {
		if d.Cmd != "headers" || !strings.Contains(d.Expected, "missing_signature") &&
			!strings.Contains(d.Expected, "unsupported_media_type") {
			return d.Expected
		}
		known := r.send(r.scriptHeaders(d.Input))
		for _, workspace := range []string{"nobody-there", "globex", "muted", "ghost", "torn", "tornghost"} {
			req := r.scriptHeaders(d.Input)
			req.URL.Path = toWorkspace(workspace)
			if a := r.send(req); a.status != known.status || string(a.body) != string(known.body) {
				t.Errorf("%s: %s: %d %s; acme: %d %s", d.Pos, workspace, a.status, a.body, known.status, known.body)
			}
		}
		return d.Expected
	})
}

// What is said about a break is where it is: offset is the number in the sentence.
func TestOffsets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for body, want := range map[string]int64{
		"{\"a\":\"\n\"}":     6,
		`{"a":1}  {"b":2}`:   9,
		"\t{\"a\":\"\xe9\"}": 7,
		`{"a":1,"a":2}`:      7,
	} {
		a := r.do(call{body: body})
		var p struct{ Offset *int64 }
		if err := json.Unmarshal(a.body, &p); err != nil || p.Offset == nil || *p.Offset != want ||
			!strings.HasSuffix(a.Detail, fmt.Sprintf(", at byte %d of the body", want)) {
			t.Errorf("%q: %v %s, want byte %d", body, err, a.body, want)
		}
	}
}
