package ingest

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/openapi"
)

// The events that README.md and the API's description show are accepted, and tell one
// story: the ids are new, a parent is an event in front, and the reversal of a reversal is
// among them.
func TestShownEvents(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for _, part := range strings.Split(string(text), "```json\n")[1:] {
		part, _, _ = strings.Cut(part, "```")
		dec := json.NewDecoder(strings.NewReader(part))
		for {
			var e json.RawMessage
			if err := dec.Decode(&e); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("README.md: %v in\n%s", err, part)
			}
			shown = append(shown, string(e))
		}
	}
	checkShownEvents(t, "README.md", shown, time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC))

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
	shown = nil
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
		d := parseEvent([]byte(text), 0)
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
