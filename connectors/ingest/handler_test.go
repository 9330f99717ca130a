package ingest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/nimriz/partners/pipeline/kafka"
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
		`{"a":1,"a":1}`, `{"type":"sale","type":"sale"}`, `{"metadata":{"a":"1","\u0061":"2"}}`,
		"{'a':1}", `{"a":1,}`, "{\"a\":\"\xff\"}", `{"a":"\ud800"}`, `{"a":NaN}`, strings.Repeat("[", 20000),
		`{"colour":1,"type"}`} {
		f(call{body: body}, 400, "malformed_json", "")
		f(call{path: batchTo("acme"), body: body}, 400, "malformed_json", "")
	}
	f(call{path: batchTo("acme"), body: `{"events":[{"type":"sale","type":"sale"}]}`}, 400, "malformed_json", "")
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
	for _, name := range []string{"order_id", "parent_event_id", "name", "reason", "customer_ref"} {
		bad("invalid_field", name, "type", `"refund"`, name, text(129))
		bad("invalid_field", name, name, "7")
	}
	bad("invalid_field", "event_id", "event_id", `""`)
	bad("invalid_field", "event_id", "event_id", `"ä"`)
	bad("invalid_field", "event_id", "event_id", `"a\n"`)
	bad("invalid_field", "event_id", "event_id", `"`+strings.Repeat("x", 129)+`"`)
	bad("invalid_field", "type", "type", `"payout"`)
	bad("invalid_field", "type", "type", `"Sale"`)
	bad("invalid_field", "parent_event_id", "parent_event_id", `"e-0"`)
	bad("invalid_field", "parent_event_id", "type", `"lead"`, "parent_event_id", `"e-0"`)
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
		`"1e2"`, `"0x1"`, `"1.001"`, `"1.000"`, `"92233720368547758.08"`, `"٣"`} {
		bad("bad_amount", "amount", "amount", v)
	}
	bad("bad_amount", "amount", "currency", `"JPY"`) // 10.00: more digits than the currency has
	bad("bad_amount", "amount", "currency", `"JPY"`, "amount", `"9223372036854775808"`)
	for _, v := range []string{`"eur"`, `"EU"`, `"XYZ"`, `""`, `"EURO"`, `"GGP"`} {
		bad("bad_currency", "currency", "currency", v)
	}
	good("amount", `"92233720368547758.07"`)
	good("amount", `"1000"`, "currency", `"JPY"`)
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
	want := []itemResult{{0, "e-0", "accepted", ""}, {1, "e-1", "refused", "bad_amount"},
		{2, "e-2", "refused", "unknown_field"}, {3, "e-3", "accepted", ""},
		{4, "", "refused", "invalid_field"}, {5, "", "refused", "invalid_field"},
		{6, "e-6", "refused", "token_invalid"}, {7, "e-0", "accepted", ""}}
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
		{"", r.token, "invalid_field", "event_id", 422},
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
	want := []event.Rejection{
		{WorkspaceID: "acme", EventID: "e-1", ClickToken: r.token, Status: 401, Code: "stale_timestamp"},
		{WorkspaceID: "acme", Status: 401, Code: "future_timestamp"},
		{WorkspaceID: "muted", EventID: "e-1", ClickToken: r.token, Status: 403, Code: "not_entitled"},
		{WorkspaceID: "acme", EventID: "e-2", ClickToken: "x", Status: 400, Code: "malformed_json"},
		{
			WorkspaceID: "acme",
			EventID:     long[:256],
			ClickToken:  r.token,
			Status:      422,
			Code:        "invalid_field",
			Field:       "event_id",
		},
		{WorkspaceID: "acme", Status: 400, Code: "unknown_field", Field: long[:256]},
		{WorkspaceID: "acme", Status: 422, Code: "invalid_field", Field: "events"},
	}
	got := r.rejections()
	for i := range got {
		j := &got[i]
		if j.ReceivedAt == 0 || j.Detail == "" || j.WebhookID != "msg_1" ||
			j.KeyID != secretOf(j.WorkspaceID).KeyID() || j.BodySHA256 == [32]byte{} {
			t.Errorf("incomplete: %+v", *j)
		}
		*j = event.Rejection{WorkspaceID: j.WorkspaceID, EventID: j.EventID, ClickToken: j.ClickToken,
			Status: j.Status, Code: j.Code, Field: j.Field}
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

// countingReader is an endless body.
type countingReader struct{ n int64 }

func (c *countingReader) Read(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// A body that is too large is not read beyond the limit; one that says so, not at all.
func TestTooLargeIsNotRead(t *testing.T) {
	r := newRig(t)
	for path, limit := range map[string]int64{toWorkspace("acme"): MaxEventBytes, batchTo("acme"): MaxBatchBytes} {
		for _, declared := range []int64{-1, limit + 1} {
			body := new(countingReader)
			req := httptest.NewRequest("POST", path, io.NopCloser(body))
			req.ContentLength = declared
			req.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			r.handler.ServeHTTP(w, req)
			most := limit + 1 // one byte tells that there is more
			if declared > 0 {
				most = 0
			}
			if w.Code != 413 || body.n > most || w.Header().Get("Connection") != "close" && declared > 0 {
				t.Errorf("%s declared %d: %d, read %d", path, declared, w.Code, body.n)
			}
		}
	}
}

// The senders that the documentation shows are run against the handler.
func TestSenders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "event.json")
	for script, tools := range map[string][]string{"sign.sh": {"bash", "curl", "openssl"}, "sign.mjs": {"node"},
		"sign.py": {"python3"}} {
		t.Run(script, func(t *testing.T) {
			for _, tool := range tools {
				if _, err := exec.LookPath(tool); err != nil {
					if os.Getenv("PARTNERS_REQUIRE_SENDERS") == "1" {
						t.Fatalf("PARTNERS_REQUIRE_SENDERS=1, and %s cannot run: there is no %s in PATH", script, tool)
					}
					t.Skipf("SKIP: %s: there is no %s in PATH", script, tool)
				}
			}
			run := func(body, secretOfWorkspace string) (string, error) {
				if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := exec.CommandContext(t.Context(), tools[0], filepath.Join("..", "signature", "testdata", script),
					r.url+toWorkspace("acme"), file)
				cmd.Env = append(os.Environ(), "PARTNERS_SECRET="+secretOf(secretOfWorkspace).Reveal(),
					"NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			body := r.event("event_id", `"`+script+`"`, "reason", `"Grüße"`) + "\n"
			if out, err := run(body, "acme"); err != nil || !strings.Contains(out, `"status":"accepted","event_id":"`+
				script+`"`) {
				t.Errorf("%v: %s", err, out)
			}
			if out, err := run(body, "globex"); err == nil || !strings.Contains(out, "bad_signature") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// All that is registered is listed in the documentation, and the counters count.
func TestMetrics(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.do(call{path: batchTo("acme"), body: batchOf(r.event(), r.event("type", `"lead"`), "{}")})
	r.do(call{path: "/"})
	for name, want := range map[string]float64{
		"requests_total":       2,
		"events_total":         2,
		"events_refused_total": 1,
		"ack_seconds":          1,
		"unacknowledged_total": 0,
		"in_flight":            0,
	} {
		if got := r.metric("partners_ingest_" + name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	families, err := r.registry.Gather()
	if err != nil || len(families) != 9 {
		t.Errorf("%d metrics, %v", len(families), err)
	}
	for _, f := range families {
		if !bytes.Contains(doc, []byte("//\t"+f.GetName())) {
			t.Errorf("doc.go does not list %s", f.GetName())
		}
	}
}

func TestConfig(t *testing.T) {
	f := func(want string, change func(*Config)) {
		t.Helper()
		cfg := DefaultConfig()
		change(&cfg)
		err := cfg.Validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("got %v, want %s…", err, want)
		}
	}
	f("", func(*Config) {})
	f("-rate:", func(c *Config) { c.Rate = 0 })
	f("-burst:", func(c *Config) { c.Burst = 499 })
	f("rate of unverified requests:", func(c *Config) { c.UnverifiedRate = -1 })
	f("burst of unverified requests:", func(c *Config) { c.UnverifiedBurst = 0 })
	f("timeout of acknowledgements:", func(c *Config) { c.AckTimeout = time.Millisecond })
	f("timeout of acknowledgements:", func(c *Config) { c.AckTimeout = time.Minute })
}

// A producer with which 202 would promise too much is refused.
func TestProducerIsChecked(t *testing.T) {
	brokers := kafkatest.Broker(t)
	f := func(want string, opts ...kgo.Opt) {
		t.Helper()
		cl := kafkatest.Client(t, brokers, opts...)
		_, err := New(DefaultConfig(), kafka.DefaultConfig(), cl, event.DefaultCodec(), topic.OneEpoch(6),
			signingKeys(t), tokenKeys(t), catalogOf, slog.New(slog.DiscardHandler), nil)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want …%s…", err, want)
		}
	}
	f("", ProducerOptions(DefaultConfig())...)
	f("all in-sync replicas", append(ProducerOptions(DefaultConfig()), kgo.RequiredAcks(kgo.LeaderAck()),
		kgo.DisableIdempotentWrite())...)
	f("idempotent", append(ProducerOptions(DefaultConfig()), kgo.DisableIdempotentWrite())...)
	f("delivery timeout")
}

// A body that does not come in time is to be sent again; one that ends early is wrong.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	server := httptest.NewUnstartedServer(r.handler)
	server.Config.ReadTimeout = 100 * time.Millisecond
	server.Start()
	defer server.Close()
	f := func(closes bool, status int) {
		t.Helper()
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
			toWorkspace("acme"))
		if closes {
			c.(*net.TCPConn).CloseWrite()
		}
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if again := answer.Header.Get("Retry-After") != ""; answer.StatusCode != status || again == closes {
			t.Errorf("closed by the sender: %v: got %s, Retry-After %v", closes, answer.Status, again)
		}
	}
	f(false, http.StatusServiceUnavailable)
	f(true, http.StatusBadRequest)
}
