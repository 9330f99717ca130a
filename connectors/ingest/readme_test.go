package ingest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/openapi"
)

// shownCommands returns the commands of README.md that are to be pasted, without the
// script that they call.
func shownCommands(t *testing.T) (list []string) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(text), "```sh\n")[1:] {
		if part, _, _ = strings.Cut(part, "```"); !strings.HasPrefix(part, "#!") {
			list = append(list, part)
		}
	}
	return list
}

// The commands of README.md work as they are pasted, one after the other: they are dry
// runs, and without dry_run their events are recorded, as of now and not of the day on
// which they were written.
func TestShownCommands(t *testing.T) {
	t.Parallel()
	needTools(t, "README.md", "bash", "curl", "openssl")
	r := newRig(t)
	commands := shownCommands(t)
	if len(commands) != 2 {
		t.Fatalf("README.md shows %d commands, want 2", len(commands))
	}
	script, err := os.ReadFile("../signature/testdata/sign.sh")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sign.sh"), script, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(text string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "bash", "-e", "-c", text)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PARTNERS_URL="+r.url, "PARTNERS_SECRET="+secretOf("acme").Reveal(),
			"CLICK_TOKEN="+r.token, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	pasted := strings.Join(commands, "")
	if out := run(pasted); !strings.HasPrefix(out, `{"status":"valid"}{"status":"valid","results":[`) {
		t.Errorf("as they are pasted: %s", out)
	}
	if n := len(r.conversions()); n != 0 {
		t.Errorf("%d events of dry runs are on record", n)
	}
	before := event.MillisOf(time.Now().Truncate(time.Second))
	if out := run(strings.ReplaceAll(pasted, `"dry_run": true, `, "")); strings.Count(out, `"accepted"`) != 6 {
		t.Errorf("without dry_run: %s", out)
	}
	list := r.conversions()
	for _, c := range list {
		if c.OccurredAt < before || c.OccurredAt > c.ReceivedAt {
			t.Errorf("%s occurred at %v and was received at %v", c.EventID, c.OccurredAt.Time(), c.ReceivedAt.Time())
		}
	}
	if len(list) != 6 {
		t.Errorf("%d events are on record, want 6", len(list))
	}
}

// The events that README.md and the API's description show are accepted, and tell one
// story: the ids are new, a parent is an event in front, and the reversal of a reversal is
// among them.
func TestShownEvents(t *testing.T) {
	for _, command := range shownCommands(t) {
		_, text, _ := strings.Cut(command, "<<EOF\n")
		text, _, _ = strings.Cut(text, "EOF\n")
		text = strings.NewReplacer("$now", fuzzNow.Format(time.RFC3339), "$CLICK_TOKEN", fuzzToken).Replace(text)
		var sent struct{ Events []json.RawMessage }
		if err := json.Unmarshal([]byte(text), &sent); err != nil {
			t.Fatalf("README.md: %v in\n%s", err, text)
		}
		if sent.Events == nil {
			d := parseEvent([]byte(text))
			if _, _, ref := d.toConversion(fuzzNow); ref != nil || !d.dryRun.on() {
				t.Errorf("README.md shows %+v\n%s", ref, text)
			}
			continue
		}
		var shown []string
		for _, e := range sent.Events {
			shown = append(shown, string(e))
		}
		checkShownEvents(t, "README.md", shown, fuzzNow)
	}

	var doc struct {
		Paths map[string]map[string]struct {
			RequestBody struct {
				Content map[string]struct{ Examples json.RawMessage }
			}
		}
	}
	if err := json.Unmarshal(openapi.Events(), &doc); err != nil {
		t.Fatal(err)
	}
	post := doc.Paths["/v1/workspaces/{workspace}/events"]["post"]
	dec := json.NewDecoder(strings.NewReader(string(post.RequestBody.Content["application/json"].Examples)))
	var shown []string
	if _, err := dec.Token(); err != nil {
		t.Fatal(err)
	}
	for dec.More() {
		var example struct{ Value json.RawMessage }
		if _, err := dec.Token(); err != nil {
			t.Fatal(err)
		}
		if err := dec.Decode(&example); err != nil {
			t.Fatal(err)
		}
		shown = append(shown, string(example.Value))
	}
	checkShownEvents(t, "the API's description", shown, time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC))
}

func checkShownEvents(t *testing.T, where string, shown []string, now time.Time) {
	t.Helper()
	types := make(map[string]event.Type)
	won := false
	for _, text := range shown {
		d := parseEvent([]byte(text))
		c, truncated, ref := d.toConversion(now)
		if ref != nil || truncated != nil {
			t.Errorf("%s shows an event that is refused or cut: %+v, %v:\n%s", where, ref, truncated, text)
			continue
		}
		if types[c.EventID] != "" || !strings.HasPrefix(c.EventID, string(c.Type)+":") {
			t.Errorf("%s shows %q, which is not new or not TYPE:ORDER:OBJECT", where, c.EventID)
		}
		parent := types[c.ParentEventID]
		if c.ParentEventID != "" && parent == "" {
			t.Errorf("%s: the parent of %s, %s, is no event in front of it", where, c.EventID, c.ParentEventID)
		}
		if (c.Type == event.Refund || c.Type == event.Cancellation) && parent == event.Reversal {
			t.Errorf("%s: %s is a %s of a reversal", where, c.EventID, c.Type)
		}
		types[c.EventID] = c.Type
		won = won || c.Type == event.Reversal && parent == event.Reversal
	}
	if !won {
		t.Errorf("%s shows no won chargeback that names the chargeback, in %d events", where, len(shown))
	}
}
