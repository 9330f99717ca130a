package openapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

const (
	onePath   = "/v1/workspaces/{workspace}/events"
	batchPath = "/v1/workspaces/{workspace}/events:batch"
)

func load(data []byte) (*openapi3.T, error) {
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData(data)
	if err != nil {
		return nil, err
	}
	return doc, doc.Validate(loader.Context, openapi3.EnableExamplesValidation())
}

func spec(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := load(Events())
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// The documents are valid OpenAPI 3.1 and every example validates against its schema.
func TestSpecIsValid(t *testing.T) {
	for name, data := range map[string][]byte{"events": Events(), "report": Report()} {
		if doc, err := load(data); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !doc.IsOpenAPI31OrLater() {
			t.Errorf("%s: openapi: %s, want 3.1", name, doc.OpenAPI)
		}
	}
}

// The validation above must be able to fail, also on keywords new in 3.1.
func TestValidationSeesMistakes(t *testing.T) {
	for name, change := range map[string]struct {
		doc       []byte
		old, with string
	}{
		"wrong type in an example":           {Events(), `"quantity": 2`, `"quantity": "2"`},
		"currency without amount (3.1)":      {Events(), `"amount": "129.90",`, ``},
		"unknown member in an example":       {Events(), `"customer_ref": "c_8841"`, `"customer": "c_8841"`},
		"code of another status (3.1 const)": {Events(), `"const": 415`, `"const": 416`},
		"dangling reference": {Events(), `"$ref": "#/components/schemas/Batch"`,
			`"$ref": "#/components/schemas/Lot"`},
		"no such keyword value":              {Events(), `"type": "integer"`, `"type": "intger"`},
		"null where there is always a value": {Report(), `"day": "2026-03-14"`, `"day": null`},
		"an example without a member":        {Report(), `"difference": 0`, `"differences": 0`},
		"a word that is none of its list":    {Report(), `"verdict": "attributed"`, `"verdict": "approved"`},
		"a parameter that is nowhere": {Report(), `"$ref": "#/components/parameters/cursor"`,
			`"$ref": "#/components/parameters/page"`},
	} {
		text := string(change.doc)
		if !strings.Contains(text, change.old) {
			t.Errorf("%s: the document has no %q to change", name, change.old)
			continue
		}
		if _, err := load([]byte(strings.Replace(text, change.old, change.with, 1))); err == nil {
			t.Errorf("%s: the changed document validates", name)
		}
	}
}

// What the gateway answers, by status; the batch differs where a second list is given.
var contractCodes = map[int]struct{ one, batch []string }{
	400: {one: []string{"malformed_json", "unknown_field"}},
	401: {one: []string{"missing_signature", "bad_signature", "stale_timestamp", "future_timestamp"}},
	403: {one: []string{"not_entitled"}},
	405: {one: []string{"method_not_allowed"}},
	413: {one: []string{"too_large"}},
	415: {one: []string{"unsupported_media_type"}},
	422: {
		one: []string{"invalid_field", "bad_amount", "bad_currency", "token_malformed", "token_invalid",
			"occurred_in_future", "occurred_too_old"},
		batch: []string{"invalid_field"},
	},
	429: {one: []string{"rate_limited"}},
	503: {one: []string{"unavailable"}},
}

func TestEveryErrorCode(t *testing.T) {
	doc := spec(t)
	for path, batch := range map[string]bool{onePath: false, batchPath: true} {
		responses := doc.Paths.Find(path).Post.Responses.Map()
		want := []string{"200", "202"}
		for status, codes := range contractCodes {
			want = append(want, fmt.Sprint(status))
			list := codes.one
			if batch && codes.batch != nil {
				list = codes.batch
			}
			response := responses[fmt.Sprint(status)]
			if response == nil {
				t.Errorf("%s: no response %d", path, status)
				continue
			}
			checkProblem(t, path, status, response.Value, list)
		}
		slices.Sort(want)
		if got := slices.Sorted(maps.Keys(responses)); !slices.Equal(got, want) {
			t.Errorf("%s answers %v, want %v", path, got, want)
		}
	}
}

// checkProblem wants exactly these codes: as the schema's enum, in the text, and as an
// example each.
func checkProblem(t *testing.T, path string, status int, response *openapi3.Response, codes []string) {
	t.Helper()
	media := response.Content["application/problem+json"]
	if media == nil || len(response.Content) != 1 {
		t.Errorf("%s %d: not application/problem+json alone", path, status)
		return
	}
	var enum []string
	for _, part := range media.Schema.Value.AllOf {
		if code := part.Value.Properties["code"]; code != nil {
			for _, v := range code.Value.Enum {
				enum = append(enum, v.(string))
			}
		}
	}
	if !slices.Equal(enum, codes) {
		t.Errorf("%s %d: codes %v, want %v", path, status, enum, codes)
	}
	for _, code := range codes {
		if !strings.Contains(*response.Description, "`"+code+"`") || media.Examples[code] == nil {
			t.Errorf("%s %d: %s is not described or has no example", path, status, code)
		}
	}
	if needs := status == 429 || status == 503; needs != (response.Headers["Retry-After"] != nil) {
		t.Errorf("%s %d: Retry-After is described: %v, want %v", path, status, !needs, needs)
	}
}

func TestEveryField(t *testing.T) {
	event := spec(t).Components.Schemas["Event"].Value
	required := []string{"event_id", "type", "click_token", "occurred_at"}
	optional := []string{"amount", "currency", "quantity", "order_id", "parent_event_id", "name", "reason",
		"customer_ref", "metadata", "dry_run"}
	if !slices.Equal(event.Required, required) {
		t.Errorf("required %v, want %v", event.Required, required)
	}
	want := slices.Sorted(slices.Values(append(required, optional...)))
	if got := slices.Sorted(maps.Keys(event.Properties)); !slices.Equal(got, want) {
		t.Errorf("fields %v, want %v", got, want)
	}
	for name, property := range event.Properties {
		if property.Value.Description == "" {
			t.Errorf("%s has no description", name)
		}
	}
}

func TestHeadersAndRoutes(t *testing.T) {
	doc := spec(t)
	for _, path := range []string{onePath, batchPath} {
		post := doc.Paths.Find(path).Post
		for name, in := range map[string]string{
			"workspace": "path", "webhook-id": "header", "webhook-timestamp": "header", "webhook-signature": "header",
		} {
			if p := post.Parameters.GetByInAndName(in, name); p == nil || !p.Required {
				t.Errorf("%s: %s parameter %s is missing or optional", path, in, name)
			}
		}
		if len(post.Parameters) != 4 || !post.RequestBody.Value.Required {
			t.Errorf("%s: %d parameters, body required %v; want 4, true",
				path, len(post.Parameters), post.RequestBody.Value.Required)
		}
	}
	if item := doc.Paths.Find("/v1/openapi.json"); item == nil || item.Get == nil {
		t.Error("GET /v1/openapi.json is not described")
	}
}

// The limits that a sender must know are written down.
func TestLimitsAreWritten(t *testing.T) {
	text := string(Events())
	for _, limit := range []string{
		"256 kB", "1 MB", "500 events", `"maxItems": 500`, "1 to 128 characters without a dot", "1 to 10 signatures",
		"at most 5 minutes from the gateway's clock", "up to 8 active secrets", "400 days", "at most 2 kB",
		"Up to 20 pairs",
		"27 base62", "500 a second and bursts of 2000", "webhook-id", "whsec_", "in-sync replicas", "RFC 9457",
		"Retry-After",
		"method, content type, size, signature, JSON, fields, token",
	} {
		if !strings.Contains(text, limit) {
			t.Errorf("the document does not say %q", limit)
		}
	}
}

func TestEventSchema(t *testing.T) {
	schema := spec(t).Components.Schemas["Event"].Value
	const base = `"event_id":"e","click_token":"0ujtsYcgvSTl8PAuAdqWYSMnLOv","occurred_at":"2026-03-01T09:30:00Z"`
	long := strings.Repeat("x", 129)
	pairs := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`"k%d":"v"`, i))
		}
		return strings.Join(list, ",")
	}
	for _, c := range []struct {
		event string
		valid bool
	}{
		{`{` + base + `,"type":"lead"}`, true},
		{`{` + base + `,"type":"sale","amount":"0","currency":"JPY"}`, true},
		{`{` + base + `,"type":"refund","parent_event_id":"s","amount":"1.000","currency":"KWD"}`, true},
		{`{` + base + `,"type":"sale","parent_event_id":""}`, true},
		{`{` + base + `,"type":"reversal","order_id":"","quantity":1}`, true},
		{`{` + base + `,"type":"sale","parent_event_id":" x ","amount":"1.0000","currency":"eur"}`, true},
		{`{` + base + `,"type":"lead","name":"` + long + `","reason":"` + long + `","order_id":"a b"}`, true},
		{`{` + base + `,"type":"lead","amount":null,"currency":null,"quantity":null,"order_id":null,` +
			`"parent_event_id":null,"name":null,"reason":null,"customer_ref":null,"metadata":null}`, true},
		{`{` + base + `,"type":"sale","metadata":{` + pairs(20) + `}}`, true},
		{`{` + base + `,"type":"sale","dry_run":true}`, true},
		{`{` + base + `,"type":"sale","dry_run":null}`, true},
		{strings.Replace(`{`+base+`,"type":"lead"}`, "Z\"", ".123456+02:00\"", 1), true},

		{`{` + base + `}`, false},
		{`{` + base + `,"type":"payout"}`, false},
		{`{` + base + `,"type":"lead","dry_run":"true"}`, false},
		{`{` + base + `,"type":"lead","colour":"red"}`, false},
		{`{` + base + `,"type":"sale","amount":"1.00"}`, false},
		{`{` + base + `,"type":"sale","currency":"EUR"}`, false},
		{`{` + base + `,"type":"sale","amount":1.00,"currency":"EUR"}`, false},
		{`{` + base + `,"type":"refund","amount":"-1.00","currency":"EUR"}`, false},
		{`{` + base + `,"type":"sale","amount":"1,00","currency":"EUR"}`, false},
		{`{` + base + `,"type":"sale","amount":"1.00","currency":"ſek"}`, false},
		{`{` + base + `,"type":"sale","amount":"1.00","currency":null}`, false},
		{`{` + base + `,"type":"sale","amount":null,"currency":"EUR"}`, false},
		{`{` + base + `,"type":"sale","quantity":0}`, false},
		{`{` + base + `,"type":"sale","quantity":1.5}`, false},
		{`{` + base + `,"type":"sale","quantity":"1"}`, false},
		{`{` + base + `,"type":"lead","parent_event_id":"é"}`, false},
		{`{` + base + `,"type":"lead","order_id":"x "}`, false},
		{`{` + base + `,"type":null}`, false},
		{`{` + base + `,"type":"lead","order_id":"` + long + `"}`, false},
		{`{` + base + `,"type":"lead","metadata":{` + pairs(21) + `}}`, false},
		{`{` + base + `,"type":"lead","metadata":{"k":1}}`, false},
		{strings.Replace(`{`+base+`,"type":"lead"}`, `"e"`, `""`, 1), false},
		{strings.Replace(`{`+base+`,"type":"lead"}`, `"e"`, `"é"`, 1), false},
		{strings.Replace(`{`+base+`,"type":"lead"}`, `"e"`, `" e"`, 1), false},
		{strings.Replace(`{`+base+`,"type":"lead"}`, `"e"`, `"`+long+`"`, 1), false},
		{strings.Replace(`{`+base+`,"type":"lead"}`, `nLOv"`, `nLO"`, 1), false},
		{strings.Replace(`{`+base+`,"type":"lead"}`, `nLOv"`, `nLO_"`, 1), false},
		{strings.Replace(`{`+base+`,"type":"lead"}`, `T09:30:00Z`, ``, 1), false},
	} {
		var event any
		if err := json.Unmarshal([]byte(c.event), &event); err != nil {
			t.Fatalf("%s: %v", c.event, err)
		}
		if err := schema.VisitJSON(event, openapi3.EnableJSONSchema2020()); (err == nil) != c.valid {
			t.Errorf("%s: valid %v, want %v (%v)", c.event, err == nil, c.valid, err)
		}
	}
}

func TestItemResultSchema(t *testing.T) {
	schema := spec(t).Components.Schemas["ItemResult"].Value
	codes := append([]string{"malformed_json", "unknown_field"}, contractCodes[422].one...)
	for _, code := range append(codes, "unavailable") {
		item := map[string]any{"index": 0, "event_id": "e", "status": "refused", "code": code, "detail": "d"}
		if err := schema.VisitJSON(item, openapi3.EnableJSONSchema2020()); err != nil {
			t.Errorf("an item refused with %s: %v", code, err)
		}
	}
	for name, item := range map[string]map[string]any{
		"refused without code": {"index": 0, "event_id": "e", "status": "refused", "detail": "d"},
		"refused without why":  {"index": 0, "event_id": "e", "status": "refused", "code": "bad_amount"},
		"refused and cut": {"index": 0, "event_id": "e", "status": "refused", "code": "bad_amount", "detail": "d",
			"truncated": []any{"name"}},
		"an id cut":          {"index": 0, "event_id": "e", "status": "accepted", "truncated": []any{"order_id"}},
		"accepted with code": {"index": 0, "event_id": "e", "status": "accepted", "code": "bad_amount"},
		"code of a request": {"index": 0, "event_id": "e", "status": "refused", "code": "rate_limited",
			"detail": "d"},
		"other status": {"index": 0, "event_id": "e", "status": "pending"},
	} {
		if err := schema.VisitJSON(item, openapi3.EnableJSONSchema2020()); err == nil {
			t.Errorf("%s validates", name)
		}
	}
	for _, truncated := range [][]any{nil, {"reason"}, {"name", "reason"}} {
		item := map[string]any{"index": 0, "event_id": "e", "status": "accepted"}
		if truncated != nil {
			item["truncated"] = truncated
		}
		if err := schema.VisitJSON(item, openapi3.EnableJSONSchema2020()); err != nil {
			t.Errorf("an accepted item with %v cut: %v", truncated, err)
		}
	}
}

// dry_run is beside the events of a batch, and its answer has other words than that of a
// real batch.
func TestBatchSchemas(t *testing.T) {
	const event = `{"event_id":"e","type":"lead","click_token":"0ujtsYcgvSTl8PAuAdqWYSMnLOv",` +
		`"occurred_at":"2026-03-01T09:30:00Z"`
	const refused = `"status":"refused","code":"bad_amount","detail":"d"}`
	for _, c := range []struct {
		schema, text string
		valid        bool
	}{
		{"Batch", `{"dry_run":true,"events":[` + event + `}]}`, true},
		{"Batch", `{"dry_run":1,"events":[` + event + `}]}`, false},
		{"Batch", `{"events":[` + event + `,"dry_run":true}]}`, false},
		{"Batch", `{"events":[` + event + `,"type":"x"}]}`, false},
		{"Valid", `{"status":"valid"}`, true},
		{"Valid", `{"status":"accepted"}`, false},
		{"Valid", `{"status":"valid","event_id":"e"}`, false},
		{"BatchCheck", `{"status":"valid","results":[{"index":0,"event_id":"e","status":"valid"}]}`, true},
		{"BatchCheck", `{"status":"refused","results":[{"index":0,"event_id":"e",` + refused + `]}`, true},
		{"BatchCheck", `{"results":[{"index":0,"event_id":"e","status":"valid"}]}`, false},
		{"BatchCheck", `{"status":"valid","results":[{"index":0,"event_id":"e","status":"accepted"}]}`, false},
		{"BatchCheck", `{"status":"refused","results":[{"index":0,"event_id":"e","status":"refused",` +
			`"code":"unavailable","detail":"d"}]}`, false},
		{"BatchResult", `{"results":[{"index":0,"event_id":"e","status":"valid"}]}`, false},
		{"BatchResult", `{"results":[{"index":0,"event_id":"e",` + refused + `]}`, true},
	} {
		var value any
		if err := json.Unmarshal([]byte(c.text), &value); err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		schema := spec(t).Components.Schemas[c.schema].Value
		if err := schema.VisitJSON(value, openapi3.EnableJSONSchema2020()); (err == nil) != c.valid {
			t.Errorf("%s %s: valid %v, want %v (%v)", c.schema, c.text, err == nil, c.valid, err)
		}
	}
}

// A caller that writes into what it got changes nobody else's document.
func TestSpecIsTheCallersOwn(t *testing.T) {
	Events()[0], Report()[0] = 'x', 'x'
	if Events()[0] != '{' || Report()[0] != '{' {
		t.Error("shared bytes are handed out")
	}
}
