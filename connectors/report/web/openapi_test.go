package web

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/nimriz/partners/schemas/openapi"
	"github.com/nimriz/partners/schemas/statement"
)

// described is the API's document, made strict: a member that it does not name is a
// mistake of ours, though readers must bear it.
func described(t *testing.T) *openapi3.T {
	t.Helper()
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData(openapi.Report())
	if err == nil {
		err = doc.Validate(loader.Context)
	}
	if err != nil {
		t.Fatal(err)
	}
	no := false
	for _, schema := range doc.Components.Schemas {
		if schema.Value.Properties != nil {
			schema.Value.AdditionalProperties = openapi3.BoolSchema{Has: &no}
		}
	}
	return doc
}

var workspaceIn = regexp.MustCompile(`^/v1/workspaces/[^/]+/`)

// checkAnswer holds an answer against the document: its status, headers, type and,
// where it is JSON, its schema. Paths that the document does not have are no route of
// ours, which TestEveryRouteIsDescribed shows.
func (r *rig) checkAnswer(req *http.Request, code int, header http.Header, body string) {
	r.Helper()
	path := workspaceIn.ReplaceAllString(req.URL.Path, "/v1/workspaces/{workspace}/")
	item := r.doc.Paths.Find(path)
	if item == nil || item.GetOperation(req.Method) == nil {
		return
	}
	described := item.GetOperation(req.Method).Responses.Value(strconv.Itoa(code))
	if described == nil {
		r.Errorf("%s %s answers %d, which is not described", req.Method, path, code)
		return
	}
	for name, h := range described.Value.Headers {
		if h.Value.Required && header.Get(name) == "" {
			r.Errorf("%s %s answers %d without %s", req.Method, path, code, name)
		}
	}
	if len(described.Value.Content) == 0 {
		return
	}
	media := described.Value.Content[header.Get("Content-Type")]
	if media == nil {
		r.Errorf("%s %s answers %d as %q", req.Method, path, code, header.Get("Content-Type"))
		return
	}
	if !strings.HasSuffix(header.Get("Content-Type"), "json") {
		return
	}
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		r.Errorf("%s %s answers %.200q: %v", req.Method, path, body, err)
	} else if err := media.Schema.Value.VisitJSON(v, openapi3.EnableJSONSchema2020()); err != nil {
		text, _, _ := strings.Cut(err.Error(), "\n") // behind it comes the whole schema
		r.Errorf("%s %s answers %d: %s", req.Method, path, code, text)
	}
}

// Every route of the server is in the document, and everything that the document has is
// a route of the server.
func TestEveryRouteIsDescribed(t *testing.T) {
	doc, variable := described(t), regexp.MustCompile(`\{[^}]*\}`)
	var served, documented []string
	for pattern := range new(Server).routes() {
		served = append(served, variable.ReplaceAllString(strings.ReplaceAll(pattern, "{$}", ""), "{}"))
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+variable.ReplaceAllString(path, "{}"))
		}
	}
	slices.Sort(served)
	slices.Sort(documented)
	if !slices.Equal(served, documented) {
		t.Errorf("served:     %v\ndocumented: %v", served, documented)
	}
}

// Every parameter that a route's description names is taken, and every other that any
// of them names is refused by its name.
func TestEveryParameterIsDescribed(t *testing.T) {
	r := newRig(t)
	values := map[string]string{
		"from":     "2026-03-01",
		"to":       "2026-03-20",
		"partner":  "p0",
		"program":  "g0",
		"link":     "l0",
		"type":     "sale,refund",
		"verdict":  "attributed,reversed",
		"review":   "review",
		"basis":    "click",
		"clicks":   "human",
		"tz":       "UTC",
		"limit":    "3",
		"q":        "s0",
		"sort":     "clicks",
		"event_id": "e1",
		"order_id": "o1",
		"month":    "2026-03",
	}
	for path, item := range r.doc.Paths.Map() {
		if !strings.HasPrefix(path, "/v1/workspaces/") {
			continue
		}
		known := map[string]bool{}
		for _, p := range item.Get.Parameters {
			known[p.Value.Name] = p.Value.In == "query"
		}
		at := "/v1/workspaces/acme/" + strings.TrimPrefix(path, "/v1/workspaces/{workspace}/")
		for name, value := range values {
			q := url.Values{name: {value}}
			for _, required := range []string{"event_id", "month"} {
				if known[required] && !(required == "event_id" && name == "order_id") {
					q.Set(required, values[required])
				}
			}
			code, _, body := r.get("acme", at+"?"+q.Encode())
			var p problem
			if code != 200 {
				if err := json.Unmarshal([]byte(body), &p); err != nil {
					t.Fatal(err)
				}
			}
			if known[name] != (code == 200) || code != 200 && p.Field != name {
				t.Errorf("%s?%s: %d, field %q; described %v", path, q.Encode(), code, p.Field, known[name])
			}
		}
		if known["cursor"] != known["limit"] {
			t.Errorf("%s: limit %v, cursor %v", path, known["limit"], known["cursor"])
		}
	}
}

// What is described with words alone: the columns of a CSV, and the limits.
func TestColumnsAndLimitsAreDescribed(t *testing.T) {
	doc := described(t)
	for path, columns := range map[string][]string{"performance.csv": performanceColumns(),
		"outcomes.csv": ledger.Names(), "statement.csv": statement.Names()} {
		text := *doc.Paths.Find("/v1/workspaces/{workspace}/" + path).Get.Responses.Value("200").Value.Description
		if !strings.HasSuffix(text, "Columns: "+strings.Join(columns, ", ")+".") {
			t.Errorf("%s: %s", path, text)
		}
	}
	for operation, limits := range map[*openapi3.Operation][]string{
		doc.Paths.Find("/dispute").Post: {"first " + strconv.Itoa(shownFindings) +
			" answers", "10 MB and 2 minutes"},
		doc.Paths.Find("/session").Post: {"64 kB"},
		doc.Paths.Find("/why").Get:      {queryTime.String()[:2] + " seconds"},
		doc.Paths.Find("/v1/workspaces/{workspace}/outcomes.csv").Get: {csvTime.String()[:2] + " minutes",
			"breaks the connection"},
		doc.Paths.Find("/v1/workspaces/{workspace}/performance.csv").Get: {csvTime.String()[:2] + " minutes",
			"breaks the connection"},
		doc.Paths.Find("/v1/workspaces/{workspace}/statement.csv").Get: {csvTime.String()[:2] + " minutes",
			"breaks the connection"},
		doc.Paths.Find("/statement").Get: {"first " + strconv.Itoa(shownAccounts) + " accounts"},
	} {
		for _, limit := range limits {
			if !strings.Contains(operation.Description, limit) {
				t.Errorf("%s does not say %q", operation.OperationID, limit)
			}
		}
	}
	limit := doc.Components.Parameters["limit"].Value.Schema.Value
	if *limit.Min != 1 || *limit.Max != maxLimit || limit.Default != float64(defaultLimit) {
		t.Errorf("limit: %v to %v, default %v", *limit.Min, *limit.Max, limit.Default)
	}
	for name, words := range map[string][]string{"type": event.Texts(event.Types()),
		"verdict": event.Texts(event.Verdicts()), "review": event.Texts(event.Reviews())} {
		var enum []string
		for _, v := range doc.Components.Parameters[name].Value.Schema.Value.Items.Value.Enum {
			enum = append(enum, v.(string))
		}
		if !slices.Equal(enum, words) {
			t.Errorf("%s: %v, want %v", name, enum, words)
		}
	}
}

// The answers that the other tests do not come to: the document itself, and a warehouse
// that is gone. What they do get is held against the document by rig.do.
func TestAnswersAreDescribed(t *testing.T) {
	r := newRig(t)
	if code, h, body := r.get("", "/v1/openapi.json"); code != 200 || h.Get("Content-Type") != "application/json" ||
		body != string(openapi.Report()) {
		t.Errorf("GET /v1/openapi.json: %d, %d bytes of %s", code, len(body), h.Get("Content-Type"))
	}
	// a lead, an unattributed event, a refund, a refused request, nothing
	for _, id := range []string{"e1", "e3", "e7", "bad", "nobody"} {
		r.get("acme", "/v1/workspaces/acme/events?event_id="+id)
	}
	r.conn.Close()
	for _, path := range slices.Sorted(maps.Keys(r.doc.Paths.Map())) {
		if r.doc.Paths.Find(path).Get == nil || path == "/v1/openapi.json" {
			continue
		}
		at := strings.Replace(path, "{workspace}", "acme", 1)
		if strings.HasSuffix(path, "events") {
			at += "?event_id=e1"
		}
		if strings.Contains(path, "/statement") {
			at += "?month=2026-03"
		}
		if code, _, body := r.get("acme", at); code != 500 && code != 503 {
			t.Errorf("%s without a warehouse: %d %.200s", path, code, body)
		}
	}
}
