package ingest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/openapi"
	"github.com/nimriz/partners/schemas/topic"
)

// Every code of the contract but those of Kafka's absence and of the limits, which have
// tests of their own.
func TestAnswers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at := func(d time.Duration) string { return `"` + time.Now().Add(d).Format(time.RFC3339Nano) + `"` }
	f := func(c call, status int, code, field string) {
		t.Helper()
		a := r.do(c)
		if a.status != status || a.Code != code || a.Field != field {
			t.Errorf("%+v\n got %d %q %q (%s)\nwant %d %q %q", c, a.status, a.Code, a.Field, a.Detail, status, code,
				field)
		}
	}
	good := func(changes ...string) { t.Helper(); f(call{body: r.event(changes...)}, 202, "", "") }
	bad := func(code, field string, changes ...string) {
		t.Helper()
		f(call{body: r.event(changes...)}, 422, code, field)
	}
	text := func(n int) string { return `"` + strings.Repeat("ä", n) + `"` }

	good()
	good("type", `"lead"`, "amount", "", "currency", "")
	for _, negative := range []string{`"refund"`, `"cancellation"`, `"reversal"`} {
		good("type", negative, "parent_event_id", `"e-0"`)
	}
	good("quantity", "2", "order_id", text(128), "name", text(128), "reason", text(128), "customer_ref", text(128),
		"metadata", `{"a":"b"}`)
	good("parent_event_id", `""`, "order_id", `""`)
	good("parent_event_id", `"e-0"`)
	good("type", `"lead"`, "parent_event_id", `"e-1"`)
	good("type", `"refund"`, "parent_event_id", `" sent before blanks were refused "`)
	good("amount", "null", "currency", "null", "quantity", "null", "order_id", "null", "parent_event_id", "null",
		"name", "null", "reason", "null", "customer_ref", "null", "metadata", "null")
	good("metadata", "{}")
	good("event_id", `"`+strings.Repeat("~", 128)+`"`)
	good("occurred_at", at(-399*24*time.Hour))
	good("occurred_at", at(4*time.Minute))
	f(call{body: " \n" + r.event() + "\r\n\t ", contentType: "Application/JSON; charset=UTF-8"}, 202, "", "")
	f(call{path: batchTo("acme"), body: batchOf(r.event())}, 202, "", "")

	// Paths and methods.
	f(call{path: "/"}, 404, "not_found", "")
	f(call{path: toWorkspace("acme") + "/"}, 404, "not_found", "")
	f(call{path: toWorkspace("")}, 404, "not_found", "")
	f(call{path: "/v1/workspaces/acme/../acme/events"}, 404, "not_found", "")
	f(call{method: "GET"}, 405, "method_not_allowed", "")
	f(call{method: "PUT", path: batchTo("acme")}, 405, "method_not_allowed", "")
	f(call{path: "/v1/openapi.json"}, 405, "method_not_allowed", "")

	// Content type and size. The signature is not looked at yet.
	f(call{contentType: "text/json", signer: "nobody"}, 415, "unsupported_media_type", "")
	f(call{contentType: "application/json; charset=latin1"}, 415, "unsupported_media_type", "")
	f(call{header: header("Content-Encoding", "gzip")}, 415, "unsupported_media_type", "")
	f(call{body: strings.Repeat(" ", MaxEventBytes+1), signer: "nobody"}, 413, "too_large", "")
	f(call{path: batchTo("acme"), body: strings.Repeat(" ", MaxBatchBytes+1)}, 413, "too_large", "")
	f(call{path: batchTo("acme"), body: batchOf(slicesOf(`{}`, 501)...)}, 413, "too_large", "")

	// Signature. The signed body is not parsed before.
	f(call{signer: "nobody", body: "{"}, 401, "missing_signature", "")
	f(call{header: header("Webhook-Id", "a.b"), body: r.event()}, 401, "missing_signature", "")
	f(call{header: header("Webhook-Timestamp", "noon"), body: r.event()}, 401, "missing_signature", "")
	f(call{header: header("Webhook-Signature", "v1,x"), body: r.event()}, 401, "missing_signature", "")
	f(call{signer: "globex", body: "{"}, 401, "bad_signature", "")
	f(call{signer: "globex", path: toWorkspace("nobody-there"), body: r.event()}, 401, "bad_signature", "")
	f(call{signer: "ghost", path: toWorkspace("ghost"), body: r.event()}, 401, "bad_signature", "")
	f(call{skew: -6 * time.Minute, body: "{"}, 401, "stale_timestamp", "")
	f(call{skew: 6 * time.Minute, body: "{"}, 401, "future_timestamp", "")
	f(call{signer: "muted", path: toWorkspace("muted"), body: "{"}, 403, "not_entitled", "")
	f(call{signer: "muted", path: batchTo("muted"), body: "{"}, 403, "not_entitled", "")

	// JSON.
	for _, body := range []string{"", "{", "{}{}", "{} x",
		`{"a":1,"a":1}`, `{"a":1,"\u0061":1}`, `{"a":[{"b":1,"b":1}]}`, "{\"\xff\":1}",
		"{'a':1}", `{"a":1,}`, "{\"a\":\"\xff\"}", `{"a":"\ud800"}`, `{"a":NaN}`, strings.Repeat("[", 20000),
		`{"colour":1,"x"}`} {
		f(call{body: body}, 400, "malformed_json", "")
		f(call{path: batchTo("acme"), body: body}, 400, "malformed_json", "")
	}
	f(call{body: `{"type":"sale","type":"sale"}`}, 400, "malformed_json", "type")
	f(call{body: r.event("order_id", "\"\xe9\"")}, 400, "malformed_json", "order_id")
	f(call{body: r.event("metadata", `{"a":"1","\u0061":"2"}`)}, 400, "malformed_json", "metadata")
	f(call{body: `{"colour":"red"}`}, 400, "unknown_field", "colour")
	f(call{body: r.event("Type", `"sale"`)}, 400, "unknown_field", "Type")
	f(call{path: batchTo("acme"), body: `{"events":[],"colour":"red"}`}, 400, "unknown_field", "colour")

	// Fields.
	f(call{body: "[]"}, 422, "invalid_field", "")
	f(call{body: "{}"}, 422, "invalid_field", "event_id")
	for _, body := range []string{"{}", "[]", "null", `{"events":[]}`, `{"events":{}}`, `{"events":null}`} {
		f(call{path: batchTo("acme"), body: body}, 422, "invalid_field", "events")
	}
	for _, name := range []string{"event_id", "type", "click_token", "occurred_at", "amount", "currency"} {
		bad("invalid_field", name, name, "")
		bad("invalid_field", name, name, "null")
		bad("invalid_field", name, name, "[]")
	}
	for _, name := range []string{"order_id", "parent_event_id", "customer_ref"} {
		bad("invalid_field", name, "type", `"refund"`, name, text(129))
	}
	for _, name := range []string{"order_id", "parent_event_id", "name", "reason", "customer_ref"} {
		bad("invalid_field", name, name, "7")
	}
	for _, v := range []string{`" "`, `" 1001"`, `"1001 "`, `"1001\n"`, `"1001\u00a0"`, `"\u20281001"`} {
		bad("invalid_field", "order_id", "order_id", v)
	}
	for _, v := range []string{`" "`, `" e"`, `"e "`} {
		bad("invalid_field", "event_id", "event_id", v)
	}
	for _, v := range []string{`"é"`, `"e\n"`, `"` + strings.Repeat("x", 129) + `"`} {
		bad("invalid_field", "parent_event_id", "type", `"refund"`, "parent_event_id", v)
		bad("invalid_field", "parent_event_id", "parent_event_id", v)
	}
	bad("invalid_field", "event_id", "event_id", `""`)
	bad("invalid_field", "event_id", "event_id", `"ä"`)
	bad("invalid_field", "event_id", "event_id", `"a\n"`)
	bad("invalid_field", "event_id", "event_id", `"`+strings.Repeat("x", 129)+`"`)
	bad("invalid_field", "type", "type", `"payout"`)
	bad("invalid_field", "type", "type", `"Sale"`)
	for _, v := range []string{"0", "-1", "1.5", "2.0", "1e1", `"1"`, "2147483648", "99999999999999999999", "true"} {
		bad("invalid_field", "quantity", "quantity", v)
	}
	for _, v := range []string{`"k"`, `{"k":1}`, `{"k":null}`, `{"k":{}}`, pairs(21), `{"k":"` +
		strings.Repeat("x", 2048) + `"}`} {
		bad("invalid_field", "metadata", "metadata", v)
	}
	for _, v := range []string{`"today"`, `"2026-03-01"`, `"2026-03-01T09:30:00"`, `"2026-03-01 09:30:00Z"`,
		`"2026-03-01T9:30:00Z"`, `"2026-02-30T09:30:00Z"`, `"2026-03-01T09:30:00,5Z"`, `"2026-03-01T09:30:00.Z"`,
		`"2026-03-01T09:30:00+24:00"`, `"2026-03-01T09:30:00+01:60"`, `"2026-03-01T09:30:00+0100"`,
		`"2026-03-01T24:00:00Z"`, `""`, "1772353800"} {
		bad("invalid_field", "occurred_at", "occurred_at", v)
	}
	bad("occurred_in_future", "occurred_at", "occurred_at", at(6*time.Minute))
	bad("occurred_too_old", "occurred_at", "occurred_at", at(-401*24*time.Hour))

	// Money.
	for _, v := range []string{"10.00", "10", "-1", `"-1"`, `"+1"`, `""`, `"1."`, `".5"`, `"1.2.3"`, `"1,00"`, `" 1"`,
		`"1e2"`, `"0x1"`, `"1.001"`, `"1.0001"`, `"92233720368547758.08"`, `"٣"`} {
		bad("bad_amount", "amount", "amount", v)
	}
	bad("bad_amount", "amount", "currency", `"JPY"`, "amount", `"10.50"`)
	bad("bad_amount", "amount", "currency", `"JPY"`, "amount", `"9223372036854775808"`)
	for _, v := range []string{`"EU"`, `"XYZ"`, `""`, `"EURO"`, `"GGP"`, `"ſEK"`, `" EUR"`} {
		bad("bad_currency", "currency", "currency", v)
	}
	good("amount", `"92233720368547758.07"`)
	good("amount", `"1000"`, "currency", `"JPY"`)
	good("amount", `"705.00"`, "currency", `"jpy"`)
	good("amount", `"19.9900"`, "currency", `"Eur"`)
	good("amount", `"1.005"`, "currency", `"KWD"`)

	// Token.
	bad("token_malformed", "click_token", "click_token", `""`)
	bad("token_malformed", "click_token", "click_token", `"`+r.token[1:]+`"`)
	bad("token_malformed", "click_token", "click_token", `"`+r.token[1:]+`_"`)
	for i, c := range r.token { // what KSUID's decoder takes for the same digit
		for _, alias := range "@[]^_:<>=?;" {
			if aliased := r.token[:i] + string(alias) + r.token[i+1:]; alias != c {
				if _, err := r.tokens.Verify("acme", aliased); err == nil || alias == '_' {
					bad("token_malformed", "click_token", "click_token", strconv.Quote(aliased))
				}
			}
		}
	}
	bad("token_invalid", "click_token", "click_token", `"`+mint(t, r.tokens, "globex")+`"`)
	bad("token_invalid", "click_token", "click_token", `"0ujtsYcgvSTl8PAuAdqWYSMnLOv"`)
	// fields come first
	bad("bad_amount", "amount", "amount", `"x"`, "click_token", `"0ujtsYcgvSTl8PAuAdqWYSMnLOv"`)
}

func slicesOf(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func pairs(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`"k%d":"v"`, i))
	}
	return "{" + strings.Join(list, ",") + "}"
}

func TestAllowAndSpecification(t *testing.T) {
	r := newRig(t)
	if a := r.do(call{method: "HEAD"}); a.status != 405 || a.header.Get("Allow") != "POST" || len(a.body) != 0 {
		t.Errorf("HEAD: %d, Allow %q, %d bytes", a.status, a.header.Get("Allow"), len(a.body))
	}
	if a := r.do(call{method: "HEAD", path: "/"}); a.status != 404 ||
		a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("HEAD /: %d %s", a.status, a.header.Get("Content-Type"))
	}
	a := r.do(call{method: "GET", path: "/v1/openapi.json", signer: "nobody"})
	if a.status != 200 || !bytes.Equal(a.body, openapi.Events()) || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("GET /v1/openapi.json: %d, %d bytes of %s", a.status, len(a.body), a.header.Get("Content-Type"))
	}
}

// The record holds all that was sent and all that the gateway adds, where the processor
// looks for it.
func TestRecord(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at := time.Now().Add(-time.Hour).In(time.FixedZone("", 2*3600))
	before := event.MillisOf(time.Now())
	a := r.do(call{body: eventWith(r.token, at.Format(time.RFC3339Nano),
		"type", `"refund"`, "amount", `"1.005"`, "currency", `"KWD"`, "quantity", "3",
		"order_id", `"o"`, "parent_event_id", `"p"`, "name", `"n"`, "reason", `"r\u00e9"`, "customer_ref", `"c"`,
		"metadata", `{"k":"v","l":""}`)})
	if a.status != 202 || a.EventID != "e-1" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	r.flush()
	records := kafkatest.Consume(t, r.brokers, topic.Conversions)
	if len(records) != 1 {
		t.Fatalf("%d records, want 1", len(records))
	}
	rec := records[0]
	var got event.Conversion
	if err := event.DefaultCodec().DecodeConversion(rec.Value, &got); err != nil {
		t.Fatal(err)
	}
	minor, quantity := int64(1005), int32(3)
	want := event.Conversion{
		WorkspaceID: "acme", EventID: "e-1", ClickToken: r.token, Type: event.Refund, EventName: "n",
		OccurredAt: event.MillisOf(at), ReceivedAt: event.MillisOf(a.ReceivedAt),
		AmountMinor: &minor, Currency: "KWD", Exponent: 3, Quantity: &quantity,
		OrderID: "o", ParentEventID: "p", ReasonText: "ré", CustomerRef: "c",
		Metadata: map[string]string{"k": "v", "l": ""}, KeyID: secretOf("acme").KeyID(),
		EnteredAt: event.MillisOf(a.ReceivedAt), ResolvedBy: event.ResolvedByToken,
	}
	want.ContentSHA256 = want.ContentHash()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got.ReceivedAt < before || got.ReceivedAt > event.MillisOf(time.Now()) ||
		rec.Timestamp.UnixMilli() != int64(got.ReceivedAt) {
		t.Errorf("received at %v, record time %v", got.ReceivedAt.Time(), rec.Timestamp)
	}
	raw, _ := r.tokens.Verify("acme", r.token)
	if want := topic.OneEpoch(kafkatest.Partitions).Partition(r.token, token.Time(&raw)); rec.Partition != want ||
		string(rec.Key) != r.token {
		t.Errorf("partition %d, key %q; want %d, the token", rec.Partition, rec.Key, want)
	}
}

// What says the same has the same content hash, however it is written; what does not
// has another.
func TestContent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	send := func(body string) [32]byte {
		t.Helper()
		if a := r.do(call{body: body}); a.status != 202 {
			t.Fatalf("%s: %s", body, a.body)
		}
		list := r.conversions()
		return list[len(list)-1].ContentSHA256 // one token, so one partition: the last is the newest
	}
	now := time.Now().Truncate(time.Second).UTC()
	utc, berlin := now.Format(time.RFC3339), now.In(time.FixedZone("", 3600)).Format("2006-01-02T15:04:05.000000-07:00")
	first := send(eventWith(r.token, utc, "metadata", `{"a":"1","b":"2"}`))
	same := func(body string) {
		t.Helper()
		if send(body) != first {
			t.Errorf("%s has another content", body)
		}
	}
	other := func(body string) {
		t.Helper()
		if send(body) == first {
			t.Errorf("%s has the same content", body)
		}
	}
	same(eventWith(r.token, utc, "metadata", `{"b":"2","a":"1"}`, "amount", `"10.0"`))
	same(eventWith(r.token, berlin, "metadata", `{"b":"\u0032","a":"1"}`, "amount", `"0010"`))
	same(eventWith(r.token, strings.ToLower(utc),
		"order_id", `""`, "name", `""`, "metadata", ` { "a" : "1", "b" : "2" } `))
	same(eventWith(r.token, utc, "metadata", `{"a":"1","b":"2"}`, "amount", `"10.0000"`, "currency", `"eUr"`,
		"order_id", "null", "quantity", "null"))
	same(`{"metadata":{"a":"1","b":"2"},"currency":"EUR","\u0061mount":"10.00","occurred_at":"` + utc +
		`","click_token":"` + r.token + `","type":"sale","event_id":"e-1"}`)
	other(eventWith(r.token, utc, "metadata", `{"a":"1","b":"2"}`, "quantity", "1"))
	other(eventWith(r.token, utc, "metadata", `{"a":"1","b":"2"}`, "amount", `"10.01"`))
	other(eventWith(r.token, utc))
}

// Items succeed or fail one by one, in order.
func TestBatch(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := func(n int) string { return fmt.Sprintf(`"e-%d"`, n) }
	body := batchOf(
		r.event("event_id", id(0)),
		r.event("event_id", id(1), "amount", `"1.001"`),
		r.event("event_id", id(2), "colour", `"red"`),
		r.event("event_id", id(3), "type", `"refund"`, "parent_event_id", id(0)),
		r.event("event_id", "7"),
		`[]`,
		r.event("event_id", id(6), "click_token", `"0ujtsYcgvSTl8PAuAdqWYSMnLOv"`),
		r.event("event_id", id(0)),
	)
	a := r.do(call{path: batchTo("acme"), body: body})
	want := []itemResult{
		{Index: 0, EventID: "e-0", Status: "accepted"},
		{Index: 1, EventID: "e-1", Status: "refused", Code: "bad_amount", Field: "amount"},
		{Index: 2, EventID: "e-2", Status: "refused", Code: "unknown_field", Field: "colour"},
		{Index: 3, EventID: "e-3", Status: "accepted"},
		{Index: 4, Status: "refused", Code: "invalid_field", Field: "event_id"},
		{Index: 5, Status: "refused", Code: "invalid_field"},
		{Index: 6, EventID: "e-6", Status: "refused", Code: "token_invalid", Field: "click_token"},
		{Index: 7, EventID: "e-0", Status: "accepted"},
	}
	for i := range a.Results {
		if has := a.Results[i].Detail != ""; has != (a.Results[i].Status == "refused") {
			t.Errorf("%+v", a.Results[i])
		}
		a.Results[i].Detail = ""
	}
	if diff := cmp.Diff(want, a.Results); a.status != 202 || diff != "" {
		t.Errorf("%d, -want +got:\n%s", a.status, diff)
	}
	var recorded []string
	for _, c := range r.conversions() {
		recorded = append(recorded, c.EventID)
	}
	if want := []string{"e-0", "e-3", "e-0"}; !reflect.DeepEqual(recorded, want) {
		t.Errorf("recorded %v, want %v: one token, so in the order sent", recorded, want)
	}
	type row struct {
		id, token, code, field string
		status                 int32
	}
	var rows []row
	for _, j := range r.rejections() {
		rows = append(rows, row{j.EventID, j.ClickToken, j.Code, j.Field, j.Status})
		if j.BodySHA256 != sha256.Sum256([]byte(body)) || j.KeyID != secretOf("acme").KeyID() ||
			j.WebhookID != "msg_1" {
			t.Errorf("%+v", j)
		}
	}
	wantRows := []row{
		{"e-1", r.token, "bad_amount", "amount", 422},
		{"e-2", r.token, "unknown_field", "colour", 400},
		{"7", r.token, "invalid_field", "event_id", 422},
		{"", "", "invalid_field", "", 422},
		{"e-6", "0ujtsYcgvSTl8PAuAdqWYSMnLOv", "token_invalid", "click_token", 422},
	}
	if diff := cmp.Diff(wantRows, rows, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("rejections, -want +got:\n%s", diff)
	}
	if a := r.do(call{path: batchTo("acme"), body: batchOf(slicesOf(r.event(), 500)...)}); a.status != 202 ||
		len(a.Results) != 500 || a.Results[499].Status != "accepted" {
		t.Errorf("500 events: %d, %d results", a.status, len(a.Results))
	}
	if a := r.do(call{path: batchTo("acme"), body: batchOf("{}", "1")}); a.status != 202 ||
		a.Results[0].Code != "invalid_field" || a.Results[1].Code != "invalid_field" {
		t.Errorf("nothing but refusals: %d %s", a.status, a.body)
	}
}

// An event that is not strict JSON is refused alone: its neighbours are recorded, and it
// is on record itself, with what can be read.
func TestBatchWithFaultyEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := func(n int) string { return fmt.Sprintf(`"e-%d"`, n) }
	body := batchOf(
		r.event("event_id", id(0)),
		r.event("event_id", id(1), "name", `"a", "name":"b"`, "order_id", `"o-1"`),
		r.event("event_id", id(2), "order_id", "\"Gr\xfc\xdfe\"", "type", `"refund"`, "parent_event_id", `"p"`),
		r.event("event_id", id(3), "reason", `"\ud800"`),
		r.event("event_id", id(4), "metadata", `{"a":"1","a":"2"}`),
		"\"\xff\"",
		"{\"event_id\":\"\xff\",\"colour\":1}",
		r.event("event_id", id(7)+`,"event_id":"second"`),
		r.event("event_id", id(8)),
	)
	a := r.do(call{path: batchTo("acme"), body: body})
	want := []itemResult{{Index: 0, EventID: "e-0", Status: "accepted"}}
	for i, f := range []struct{ id, field, cause string }{
		{"e-1", "name", "a name twice"},
		{"e-2", "order_id", "no UTF-8"},
		{"e-3", "reason", "no UTF-8"},
		{"e-4", "metadata", "a name twice"},
		{"", "", "no UTF-8"},
		{"", "event_id", "no UTF-8"},
		{"e-7", "event_id", "a name twice"},
	} {
		want = append(want, itemResult{Index: i + 1, EventID: f.id, Status: "refused", Code: "malformed_json",
			Field: f.field})
		if len(a.Results) == 9 && !strings.Contains(a.Results[i+1].Detail, f.cause) {
			t.Errorf("event %d: %q", i+1, a.Results[i+1].Detail)
		}
	}
	want = append(want, itemResult{Index: 8, EventID: "e-8", Status: "accepted"})
	if diff := cmp.Diff(want, a.Results, cmpopts.IgnoreFields(itemResult{}, "Detail")); a.status != 202 || diff != "" {
		t.Errorf("%d, -want +got:\n%s", a.status, diff)
	}
	// the byte is one of the whole body
	if at := strings.Index(body, "\xfc"); !strings.Contains(a.Results[2].Detail, fmt.Sprintf("byte %d ", at)) {
		t.Errorf("byte %d: %q", at, a.Results[2].Detail)
	}
	var recorded []string
	for _, c := range r.conversions() {
		recorded = append(recorded, c.EventID)
	}
	if !reflect.DeepEqual(recorded, []string{"e-0", "e-8"}) {
		t.Errorf("recorded %v", recorded)
	}
	rows := make(map[string]event.Rejection)
	for _, j := range r.rejections() {
		rows[j.EventID] = j
	}
	if len(rows) != 6 { // one for both without id
		t.Errorf("rejections of %v", rows)
	}
	one, two := rows["e-1"], rows["e-2"]
	if one.Code != "malformed_json" || one.Status != 400 || one.OrderID != "o-1" || one.Type != "sale" ||
		one.ClickToken != r.token || one.Field != "name" {
		t.Errorf("%+v", one)
	}
	if two.OrderID != "" || two.Type != "refund" || two.ParentEventID != "p" || two.ClickToken != r.token {
		t.Errorf("%+v", two)
	}
}

// What breaks the list, or what surrounds it, refuses the batch. The answer says where,
// and each event whose id can be read is on record.
func TestBrokenBatch(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := func(id string) string { return r.event("event_id", strconv.Quote(id)) }
	bad := r.event("event_id", `"b"`, "name", `"a", "name":"b"`)
	none := -1
	first := good("a")
	for name, c := range map[string]struct {
		body   string
		broken string // the offset is that of its end, where it is for the first time
		index  int    // none: the list is whole
		ids    []string
	}{
		"cut in an event":     {`{"events":[` + first + `,{"event_id":"x`, `"x`, 1, []string{"a"}},
		"cut after an event":  {`{"events":[` + first + `,` + bad, bad, 2, []string{"a", "b"}},
		"no comma":            {`{"events":[` + first + ` ` + bad + `]}`, first + " ", 1, []string{"a"}},
		"a comma too many":    {`{"events":[` + first + `,]}`, first, 1, []string{"a"}},
		"NaN":                 {batchOf(first, `{"event_id":"x","quantity":NaN}`), `"quantity":`, 1, []string{"a"}},
		"no value":            {batchOf(`{"event_id":"x","type":}`), `"type":`, 0, nil},
		"data after it":       {batchOf(first, bad) + "x", "]}", none, []string{"a", "b"}},
		"two lists":           {`{"events":[` + bad + `],"events":[` + first + `]}`, `}],`, none, []string{"b", "a"}},
		"two other names":     {`{"x":1,"x":2,"events":[` + bad + `]}`, `{"x":1,`, none, []string{"b"}},
		"a name of bytes":     {`{"events":[` + first + "],\"\xff\":1}", `],"`, none, []string{"a"}},
		"another member":      {`{"events":[` + bad + "],\"x\":\"\xff\"}", `"x":"`, none, []string{"b"}},
		"twice below another": {`{"events":[` + bad + `],"x":{"a":1,"a":2}}`, `"a":1,`, none, []string{"b"}},
		"nothing but a text":  {"\"\xff\"", `"`, none, nil},
	} {
		a := r.do(call{path: batchTo("acme"), body: c.body, header: header("Webhook-Id", "msg_1")})
		var p struct{ Offset, Index *int }
		if err := json.Unmarshal(a.body, &p); err != nil || p.Offset == nil {
			t.Errorf("%s: %v in %s", name, err, a.body)
			continue
		}
		want := strings.Index(c.body, c.broken) + len(c.broken)
		if a.status != 400 || a.Code != "malformed_json" || a.Field != "" || *p.Offset != want ||
			!strings.Contains(a.Detail, fmt.Sprintf("at byte %d of the body", want)) {
			t.Errorf("%s: %d %s, want byte %d", name, a.status, a.body, want)
		}
		if (p.Index != nil) != (c.index != none) || p.Index != nil && (*p.Index != c.index ||
			!strings.Contains(a.Detail, fmt.Sprintf("at event %d of the batch", c.index))) {
			t.Errorf("%s: %s, want index %d", name, a.body, c.index)
		}
		var ids []string
		for _, j := range r.rejections() {
			if j.BodySHA256 == sha256.Sum256([]byte(c.body)) && j.EventID != "" {
				ids = append(ids, j.EventID)
			}
			if j.Code != "malformed_json" || j.Status != 400 {
				t.Errorf("%s: %+v", name, j)
			}
		}
		if !reflect.DeepEqual(ids, c.ids) {
			t.Errorf("%s: on record %v, want %v", name, ids, c.ids)
		}
	}
	if n := len(r.conversions()); n != 0 {
		t.Errorf("%d events of refused batches are recorded", n)
	}
}

// Context that is too long is cut and named; it never costs the event. Ids are not cut.
func TestLongContextIsCut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	long := strings.Repeat("😀", 129)
	cut := long[:4*128]
	a := r.do(call{body: r.event("reason", strconv.Quote(long), "name", `"fits"`)})
	var one struct{ Truncated []string }
	if err := json.Unmarshal(a.body, &one); err != nil || a.status != 202 ||
		!reflect.DeepEqual(one.Truncated, []string{"reason"}) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := r.do(call{body: r.event()}); strings.Contains(string(a.body), "truncated") {
		t.Errorf("%s", a.body)
	}
	a = r.do(call{path: batchTo("acme"), body: batchOf(r.event("event_id", `"e-2"`),
		r.event("event_id", `"e-3"`, "name", strconv.Quote(long), "reason", strconv.Quote(long)))})
	want := []itemResult{{Index: 0, EventID: "e-2", Status: "accepted"},
		{Index: 1, EventID: "e-3", Status: "accepted", Truncated: []string{"name", "reason"}}}
	if diff := cmp.Diff(want, a.Results); a.status != 202 || diff != "" {
		t.Errorf("%d, -want +got:\n%s", a.status, diff)
	}
	list := r.conversions()
	if len(list) != 4 || list[0].ReasonText != cut || list[0].EventName != "fits" || list[3].EventName != cut {
		t.Errorf("recorded %+v", list)
	}
	if list[0].ContentSHA256 != list[0].ContentHash() {
		t.Error("the content hash is not that of what is recorded")
	}
}

// Which currencies an event may have depends on its type and its day.
func TestCurrencies(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	f := func(code, typ, occurred string, want string) {
		t.Helper()
		d := parseEvent([]byte(eventWith(fuzzToken, occurred, "type", strconv.Quote(typ), "currency",
			strconv.Quote(code), "amount", `"5"`)))
		c, _, ref := d.toConversion(now)
		switch {
		case want == "" && (ref != nil || c.Currency != strings.ToUpper(code)):
			t.Errorf("%s of %s at %s: %+v, %+v", typ, code, occurred, c, ref)
		case want != "" && (ref == nil || ref.code != codeBadCurrency || ref.field != "currency" ||
			!strings.Contains(ref.detail, want)):
			t.Errorf("%s of %s at %s: %+v, want %q", typ, code, occurred, ref, want)
		}
	}
	const today = "2026-06-01T00:00:00Z"
	const notThatDay, notMoney, never = "not in force on the day", "funds code", "not an ISO 4217 code"
	for _, code := range []string{"EUR", "zwg", "VED", "Xcg", "SLE", "TWD"} {
		f(code, "sale", today, "")
		f(code, "lead", today, "")
		f(code, "refund", today, "")
	}
	for _, code := range []string{"HRK", "SLL", "ANG", "CUC", "VEF", "ZWL", "ZWD", "BGN"} {
		f(code, "sale", today, notThatDay)
		f(code, "lead", today, notThatDay)
	}
	for _, code := range []string{"BOV", "CHE", "CLF", "UYI", "UYW", "XAD", "XAU", "XDR", "XTS", "XXX"} {
		f(code, "sale", today, notMoney)
		f(code, "reversal", today, "")
	}
	f("GGP", "sale", today, never)
	f("LTL", "refund", today, never)

	// the day is that of occurred_at in UTC, both ends included
	f("BGN", "sale", "2025-12-31T23:59:59.999Z", "")
	f("BGN", "sale", "2026-01-01T01:59:00+02:00", "")
	f("BGN", "sale", "2026-01-01T00:00:00Z", notThatDay)
	f("BGN", "sale", "2025-12-31T23:00:00-02:00", notThatDay)
	// 800 days from 31 August 2024 are 9 November 2026; from 31 December 2023, 10 March 2026
	f("ZWL", "cancellation", today, "")
	f("BGN", "refund", today, "")
	f("SLL", "refund", "2026-03-10T23:59:59Z", "")
	f("SLL", "refund", "2026-03-11T00:00:00Z", "800 days")
	f("CUC", "refund", today, "800 days")
}

// The answer to a wrong type says which is wanted and which was sent.
func TestWrongTypes(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"order_id", "5432109876543", "a string, not a number"},
		{"event_id", "null", "a string, not null"},
		{"reason", "[]", "a string, not an array"},
		{"customer_ref", "true", "a string, not true or false"},
		{"quantity", `"2"`, "an integer, not a string"},
		{"metadata", `"k"`, "an object of strings, not a string"},
		{"metadata", `{"k":{}}`, "the value of a pair is a string, not an object"},
		{"metadata", `{"j":"","k":null}`, "the value of a pair is a string, not null"},
		{"currency", "{}", "a string, not an object"},
	} {
		d := parseEvent([]byte(eventWith(fuzzToken, fuzzNow.Format(time.RFC3339), c.name, c.value)))
		if _, _, ref := d.toConversion(fuzzNow); ref == nil || ref.code != codeInvalidField || ref.field != c.name ||
			ref.detail != c.want {
			t.Errorf("%s %s: %+v", c.name, c.value, ref)
		}
	}
}

// Which refusals are put on record: those of genuine signers, with what could be read.
func TestRejections(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	long := strings.Repeat("ä", 200)
	r.do(call{signer: "nobody", body: r.event()})
	r.do(call{signer: "globex", body: r.event()})
	r.do(call{signer: "ghost", path: toWorkspace("ghost"), body: r.event()})
	r.do(call{contentType: "text/plain", body: r.event()})
	r.do(call{method: "GET"})
	r.do(call{body: strings.Repeat(" ", MaxEventBytes+1)})
	r.do(call{signer: "keyless", path: toWorkspace("keyless"), body: r.event()}) // 503
	if list := r.rejections(); len(list) != 0 {
		t.Errorf("on record, but not signed or not 4xx: %+v", list)
	}
	r.do(call{skew: -time.Hour, body: r.event()})
	r.do(call{skew: time.Hour, path: batchTo("acme"), body: batchOf(r.event())})
	r.do(call{signer: "muted", path: toWorkspace("muted"), body: r.event()})
	r.do(call{body: `{"event_id":"e-2","click_token":"x","type":}`})
	r.do(call{body: r.event("event_id", `"`+long+`"`)})
	r.do(call{body: `{"` + long + `":1}`})
	r.do(call{path: batchTo("acme"), body: `{"events":7}`})
	r.do(call{path: batchTo("acme"), body: `{"events":[` + r.event() + `,` + r.event("event_id", "7") + `],"x":1}`})
	r.do(call{body: r.event("type", `"`+long+`"`, "order_id", `"`+long+`"`, "parent_event_id", `"p"`)})
	// found by what is seen of their ids
	r.do(call{body: r.event("event_id", `" e-3\u00a0"`, "order_id", `5432109876543`)})
	r.do(call{body: r.event("event_id", `1003`, "order_id", `"1003 "`, "type", `"refund"`, "parent_event_id", `1002`)})
	r.do(call{body: `{"event_id":1004,"name":"a","name":"b","order_id":1005}`})
	r.do(call{path: batchTo("acme"), body: `{"events":[{"event_id":1006,"order_id":[7]}]}`})
	want := []event.Rejection{
		{
			WorkspaceID: "acme",
			EventID:     "e-1",
			ClickToken:  r.token,
			Type:        "sale",
			Status:      401,
			Code:        "stale_timestamp",
		},
		{WorkspaceID: "acme", Status: 401, Code: "future_timestamp"},
		{
			WorkspaceID: "muted",
			EventID:     "e-1",
			ClickToken:  r.token,
			Type:        "sale",
			Status:      403,
			Code:        "not_entitled",
		},
		{WorkspaceID: "acme", EventID: "e-2", ClickToken: "x", Status: 400, Code: "malformed_json",
			Field: "type"},
		{
			WorkspaceID: "acme",
			EventID:     long[:256],
			ClickToken:  r.token,
			Type:        "sale",
			Status:      422,
			Code:        "invalid_field",
			Field:       "event_id",
		},
		{WorkspaceID: "acme", Status: 400, Code: "unknown_field", Field: long[:256]},
		{WorkspaceID: "acme", Status: 422, Code: "invalid_field", Field: "events"},
		{
			WorkspaceID: "acme",
			EventID:     "e-1",
			ClickToken:  r.token,
			Type:        "sale",
			Status:      400,
			Code:        "unknown_field",
			Field:       "x",
		},
		{
			WorkspaceID: "acme",
			EventID:     "7",
			ClickToken:  r.token,
			Type:        "sale",
			Status:      400,
			Code:        "unknown_field",
			Field:       "x",
		},
		{
			WorkspaceID:   "acme",
			EventID:       "e-1",
			ClickToken:    r.token,
			Type:          long[:256],
			OrderID:       long[:256],
			ParentEventID: "p",
			Status:        422,
			Code:          "invalid_field",
			Field:         "type",
		},
		{
			WorkspaceID: "acme",
			EventID:     "e-3",
			ClickToken:  r.token,
			Type:        "sale",
			OrderID:     "5432109876543",
			Status:      422,
			Code:        "invalid_field",
			Field:       "order_id",
		},
		{
			WorkspaceID:   "acme",
			EventID:       "1003",
			ClickToken:    r.token,
			Type:          "refund",
			OrderID:       "1003",
			ParentEventID: "1002",
			Status:        422,
			Code:          "invalid_field",
			Field:         "event_id",
		},
		{WorkspaceID: "acme", EventID: "1004", OrderID: "1005", Status: 400, Code: "malformed_json", Field: "name"},
		{WorkspaceID: "acme", EventID: "1006", Status: 422, Code: "invalid_field", Field: "event_id"},
	}
	got := r.rejections()
	for i := range got {
		j := &got[i]
		if j.ReceivedAt == 0 || j.Detail == "" || j.WebhookID != "msg_1" ||
			j.KeyID != secretOf(j.WorkspaceID).KeyID() || j.BodySHA256 == [32]byte{} {
			t.Errorf("incomplete: %+v", *j)
		}
		*j = event.Rejection{WorkspaceID: j.WorkspaceID, EventID: j.EventID, ClickToken: j.ClickToken,
			Status: j.Status, Code: j.Code, Field: j.Field, Type: j.Type, OrderID: j.OrderID,
			ParentEventID: j.ParentEventID, CustomerHash: j.CustomerHash}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if n := r.metric("partners_ingest_rejections_recorded_total"); n != float64(len(want)) {
		t.Errorf("counted %v, want %d", n, len(want))
	}
}

// Nothing in the answer tells an unknown workspace from a wrong secret.
func TestUnknownWorkspaceIsABadSignature(t *testing.T) {
	r := newRig(t)
	known := r.do(call{signer: "globex", body: r.event()})
	for _, w := range []string{"nobody-there", "NOT%20an%20id", "ghost"} {
		signer := "globex"
		if w == "ghost" {
			signer = "ghost" // a good signature for a workspace that the catalog lacks
		}
		a := r.do(call{signer: signer, path: toWorkspace(w), body: r.event()})
		known.header.Del("Date")
		a.header.Del("Date")
		if diff := cmp.Diff(known.header, a.header); !bytes.Equal(a.body, known.body) || a.status != 401 || diff != "" {
			t.Errorf("%s: %d %s %s", w, a.status, a.body, diff)
		}
	}
}

// A missing key is the operator's mistake: the merchant can send the events again, and
// the log says what to do.
func TestWorkspaceWithoutTokenKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 3 {
		if a := r.do(call{signer: "keyless", path: toWorkspace("keyless"), body: r.event()}); a.status != 503 ||
			a.Code != "unavailable" || a.header.Get("Retry-After") == "" {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if n := strings.Count(r.logged.String(), "no token key"); n != 1 ||
		!strings.Contains(r.logged.String(), "workspace=keyless") {
		t.Errorf("logged %d times:\n%s", n, r.logged)
	}
}

// Where it is not known which secrets hold, a sender must not drop its events: 503, not
// 401. That a workspace is not in the catalog stays hidden, and so is what a request
// without headers would learn.
func TestUnreadableSigningSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct {
		signer, workspace, code string
		status                  int
	}{
		{"torn", "torn", "unavailable", 503},
		{"acme", "torn", "unavailable", 503},
		{"tornghost", "tornghost", "bad_signature", 401},
		{"torn", "acme", "bad_signature", 401},
	} {
		a := r.do(call{signer: c.signer, path: toWorkspace(c.workspace), body: r.event()})
		if a.status != c.status || a.Code != c.code || (a.header.Get("Retry-After") != "") != (c.status == 503) {
			t.Errorf("%s, signed by %s: %d %s", c.workspace, c.signer, a.status, a.body)
		}
	}
}
