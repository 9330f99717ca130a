package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// nest returns a value within n lists and objects. The names have brackets and quotes,
// which are no brackets and quotes of the JSON.
func nest(n int, value string) string {
	return strings.Repeat("[", n%2) + strings.Repeat(`{"}\"]\\":[`, n/2) + value +
		strings.Repeat("]}", n/2) + strings.Repeat("]", n%2)
}

// An event that is too deep is refused alone, and is on record with all that stands
// beside what is too deep.
func TestTooDeepEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const around = 3 // a batch, its events, an event
	deepest, deeper := nest(maxDepth-around, ""), nest(maxDepth-around, "[]")
	sent := []string{
		r.event("event_id", `"e-0"`),
		r.event("event_id", `"e-1"`, "metadata", deepest),
		r.event("event_id", `"e-2"`, "metadata", deeper, "type", `"refund"`, "parent_event_id", `"p"`),
		r.event("event_id", `"e-3"`, "colour", nest(3*maxDepth, "[], [[]], {}")),
		r.event("event_id", `"e-4"`, "name", nest(maxDepth-around, `{"a":1}, []`)+`, "name":"b"`),
		r.event("event_id", `"e-5"`, "name", `"a", "name":`+deeper),
		"[" + deeper + "]",
		r.event("event_id", `"e-7"`),
	}
	body := batchOf(sent...)
	a := r.do(call{path: batchTo("acme"), body: body})
	want := []itemResult{
		{Index: 0, EventID: "e-0", Status: "accepted"},
		{Index: 1, EventID: "e-1", Status: "refused", Code: "invalid_field", Field: "metadata"},
		{Index: 2, EventID: "e-2", Status: "refused", Code: "malformed_json", Field: "metadata"},
		{Index: 3, EventID: "e-3", Status: "refused", Code: "malformed_json"},
		{Index: 4, EventID: "e-4", Status: "refused", Code: "malformed_json", Field: "name"},
		{Index: 5, EventID: "e-5", Status: "refused", Code: "malformed_json", Field: "name"},
		{Index: 6, Status: "refused", Code: "malformed_json"},
		{Index: 7, EventID: "e-7", Status: "accepted"},
	}
	if diff := cmp.Diff(want, a.Results, cmpopts.IgnoreFields(itemResult{}, "Detail")); a.status != 202 || diff != "" {
		t.Fatalf("%d, -want +got:\n%s", a.status, diff)
	}
	at := strings.Index(body, deeper) + strings.Index(deeper, "[]")
	for i, detail := range map[int]string{
		2: fmt.Sprintf("nested too deeply, at byte %d of the body", at),
		3: "nested too deeply", 4: "nested too deeply", 5: "a name twice", 6: "nested too deeply",
	} {
		if got := a.Results[i].Detail; !strings.Contains(got, detail) {
			t.Errorf("event %d: %q, want %q", i, got, detail)
		}
	}
	var recorded []string
	for _, c := range r.conversions() {
		recorded = append(recorded, c.EventID)
	}
	if !reflect.DeepEqual(recorded, []string{"e-0", "e-7"}) {
		t.Errorf("recorded %v", recorded)
	}
	for _, j := range r.rejections() {
		if j.EventID == "e-2" && (j.Type != "refund" || j.ParentEventID != "p" || j.ClickToken != r.token) {
			t.Errorf("%+v", j)
		}
	}

	for n, code := range map[int]string{maxDepth - 1: "invalid_field", maxDepth: "malformed_json"} {
		a := r.do(call{body: r.event("metadata", nest(n, ""))})
		if a.Code != code || a.Field != "metadata" ||
			strings.Contains(a.Detail, "nested too deeply") != (n == maxDepth) {
			t.Errorf("%d deep: %d %s", n, a.status, a.body)
		}
	}
}

// What is too deep and does not have the form of JSON refuses the batch, as all else
// does that has not; so does what is too deep beside the events.
func TestBrokenBatchThatIsTooDeep(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := r.event()
	for name, c := range map[string]struct{ value, beside string }{
		"a word":          {value: nest(maxDepth, "word")},
		"a word far down": {value: nest(3*maxDepth, "word")},
		"a wrong bracket": {value: nest(maxDepth, "[}")},
		"no end":          {value: nest(maxDepth, "[")},
		"a text open":     {value: nest(maxDepth, `"`)},
		"a backslash":     {value: nest(maxDepth, `"\`)},
		"no event":        {beside: `,"x":` + nest(maxDepth, "")},
	} {
		event := good
		if c.value != "" {
			event = `{"event_id":"x","metadata":` + c.value + "}"
		}
		body := `{"events":[` + strings.Join([]string{good, event, good}, ",") + "]" + c.beside + "}"
		a := r.do(call{path: batchTo("acme"), body: body})
		var p struct{ Index *int }
		if err := json.Unmarshal(a.body, &p); err != nil {
			t.Fatal(err)
		}
		if a.status != 400 || a.Code != "malformed_json" ||
			!strings.Contains(a.Detail, "nested too deeply, at byte ") ||
			(p.Index == nil) != (c.beside != "") || p.Index != nil && *p.Index != 1 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if n := len(r.conversions()); n != 0 {
		t.Errorf("%d events of refused batches are recorded", n)
	}
}

// However much of a body is too deep, reading it takes some tens of milliseconds.
func BenchmarkTooDeepBatch(b *testing.B) {
	for name, value := range map[string]string{
		"chain":    nest(MaxBatchBytes/8, ""),
		"siblings": nest(maxDepth, strings.Repeat("[],", MaxBatchBytes/4)+"[]"),
		"flat":     strconv.Quote(strings.Repeat("a", MaxBatchBytes-100)),
	} {
		body := []byte(`{"events":[{"event_id":"x","event_id":"y","metadata":` + value + "}]}")
		b.Run(name, func(b *testing.B) {
			for range b.N {
				if parsed := parseBatch(bytes.Clone(body)); parsed.count != 1 {
					b.Fatal(parsed.fault)
				}
			}
		})
	}
}
