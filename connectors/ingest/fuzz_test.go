package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/openapi"
)

var fuzzNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const fuzzToken = "0ujtsYcgvSTl8PAuAdqWYSMnLOv"

// canonical writes an accepted event as the JSON text of the same content.
func canonical(t testing.TB, c *event.Conversion) []byte {
	m := map[string]any{
		"event_id":    c.EventID,
		"type":        c.Type,
		"click_token": c.ClickToken,
		"occurred_at": c.OccurredAt.Time().Format(timeFormat),
	}
	if c.AmountMinor != nil {
		m["amount"], m["currency"] = event.Decimal(*c.AmountMinor, c.Exponent), c.Currency
	}
	if c.Quantity != nil {
		m["quantity"] = *c.Quantity
	}
	for name, text := range map[string]string{
		"order_id":        c.OrderID,
		"parent_event_id": c.ParentEventID,
		"name":            c.EventName,
		"reason":          c.ReasonText,
		"customer_ref":    c.CustomerRef,
	} {
		if text != "" {
			m[name] = text
		}
	}
	if len(c.Metadata) > 0 {
		m["metadata"] = c.Metadata
	}
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// checkBetweenGoodOnes puts a body between two good events of a batch. Whatever it is,
// they are read as ever or refused with the batch; and a body that is strict is the same
// event there as alone, but for dry_run, which an event of a batch does not have.
func checkBetweenGoodOnes(t *testing.T, body []byte, alone *draft) {
	good := []byte(eventWith(fuzzToken, fuzzNow.Format(time.RFC3339)))
	b := parseBatch(slices.Concat([]byte(`{"events":[`), good, []byte{','}, body, []byte{','}, good, []byte("]}")))
	same := *alone
	same.alone = false
	if alone.fault == nil && (b.count != 3 || b.checkWhole() != nil ||
		alone.dryRun == 0 && !reflect.DeepEqual(b.items[1], same) || alone.dryRun != 0 && !b.items[1].hasUnknown) {
		t.Fatalf("in a batch: %+v; alone: %+v", b, alone)
	}
	if b.fault != nil && (b.fault.detail == "" || b.fault.offset < int64(len(`{"events":[`)+len(good))) {
		t.Fatalf("the fault of the batch is %+v", b.fault)
	}
	if b.checkWhole() != nil || b.count != 3 {
		return
	}
	want := parseDraft(good, 0, false)
	for _, i := range []int{0, 2} {
		if !reflect.DeepEqual(b.items[i], want) {
			t.Fatalf("event %d beside %q: %+v", i, body, b.items[i])
		}
	}
	if f := b.items[1].fault; f != nil && alone.fault == nil {
		t.Fatalf("alone it is strict, in a batch %+v", f)
	}
	for f := range fieldCount {
		if text := b.items[1].textOf(f); !utf8.ValidString(text) {
			t.Fatalf("%s is %q", f, text)
		}
	}
}

// checkSameRefusal wants what a dry run says of a body to be what is said without it.
func checkSameRefusal(t *testing.T, body []byte) {
	if !bytes.HasPrefix(body, []byte("{")) {
		return
	}
	of := func(value string) (*draft, *refusal) {
		d := parseEvent([]byte(withDryRun(string(body), value)))
		_, _, ref := d.toConversion(fuzzNow)
		return &d, ref
	}
	_, want := of("false")
	if d, got := of("true"); !reflect.DeepEqual(got, want) || !d.dryRun.on() {
		t.Fatalf("%q: a dry run (%v) is refused as %+v, the event as %+v", body, d.dryRun.on(), got, want)
	}
}

// No body causes a panic or a 5xx. An accepted event fits the published schema, has the
// same content when it is read from its canonical form and from the wire, and is
// accepted in a batch, too.
func FuzzEvent(f *testing.F) {
	at := fuzzNow.Format(time.RFC3339)
	for _, seed := range []string{
		"", "{}", "[]", "null", "{", "{}{}", `{"a":1,"a":2}`, `{"metadata":{"a":"1"`, "\xff", strings.Repeat("[", 100),
		eventWith(fuzzToken, at),
		eventWith(fuzzToken, "2026-03-01t11:59:59.9999999+01:00", "type", `"refund"`, "parent_event_id", `"p"`,
			"amount", `"007.00"`, "currency", `"jpy"`, "order_id", "null"),
		eventWith(fuzzToken, at, "event_id", `"e",  "event_id":"f"`, "order_id", "\"\xe9\""),
		eventWith(fuzzToken, at, "amount", "null", "currency", "null", "reason", `"`+strings.Repeat("😀", 129)+`"`,
			"parent_event_id", `" e "`),
		eventWith(fuzzToken, at, "name", `"\ud800"`),
		eventWith(fuzzToken, at, "amount", "", "currency", "", "quantity", "3", "metadata",
			`{"k":"v","\u0000":"\ud83d\ude00"}`),
		eventWith(fuzzToken, at, "amount", `"92233720368547758.08"`),
		eventWith(fuzzToken, at, "dry_run", "true"), eventWith(fuzzToken, at, "dry_run", `"true"`, "x", "1"),
		"\xef\xbb\xbf{}", "\xff\xfe{\x00}\x00", "{\x00}\x00", "\x00{", "a=1&b=%7B", "--b\r\nContent-Disposition: x",
		"{\"name\":\"a\nb\"}", `{"a":"\x41"}`, `{'a':1}`, `{"a":1,}`, `{"a":}`, `{"a" 1}`, `{1:2}`, `{a:1}`, "{} {}",
		`[1]]`, "{// x\n}",
		eventWith(fuzzToken, at, "amount", "1", "colour", "[{}]"),
		eventWith(fuzzToken, at, "name", `"`+strings.Repeat("😀", 128)+`"`, "order_id", `"</script>\u2028"`),
	} {
		f.Add([]byte(seed))
	}
	doc, err := openapi3.NewLoader().LoadFromData(openapi.Events())
	if err != nil {
		f.Fatal(err)
	}
	if err := doc.Validate(f.Context()); err != nil {
		f.Fatal(err)
	}
	schema := doc.Components.Schemas["Event"].Value
	codes := doc.Components.Schemas["ItemResult"].Value.Properties["code"].Value.Enum
	f.Fuzz(func(t *testing.T, body []byte) {
		d := parseEvent(bytes.Clone(body))
		checkBetweenGoodOnes(t, body, &d)
		checkSameRefusal(t, body)
		c, truncated, ref := d.toConversion(fuzzNow)
		if ref != nil {
			if statusOf(ref.code) >= 500 || !slices.Contains(codes, any(ref.code)) || ref.detail == "" ||
				!utf8.ValidString(ref.detail) || len(ref.detail) > 200 {
				t.Fatalf("refused as %+v", ref)
			}
			if ref.offset != nil && (*ref.offset < 0 || *ref.offset > int64(len(body))) {
				t.Fatalf("the fault is at byte %d of %d", *ref.offset, len(body))
			}
			return
		}
		if _, err := token.Parse(c.ClickToken); err == nil {
			var v any
			if err := json.Unmarshal(body, &v); err != nil {
				t.Fatal(err)
			}
			m := v.(map[string]any)
			for field, text := range map[string]string{"name": c.EventName, "reason": c.ReasonText} {
				sent, _ := m[field].(string)
				if cut := utf8.RuneCountInString(sent) > 128; cut != slices.Contains(truncated, field) ||
					!cut && sent != text || cut && text != string([]rune(sent)[:128]) {
					t.Fatalf("%s %q is %q, truncated %v", field, sent, text, truncated)
				}
			}
			// the validator does not know that RFC 3339 allows t and z
			m["occurred_at"] = strings.ToUpper(m["occurred_at"].(string))
			if err := schema.VisitJSON(v, openapi3.EnableJSONSchema2020()); err != nil {
				t.Fatalf("accepted, but the schema says: %v", err)
			}
		}
		again := parseEvent(canonical(t, &c))
		second, cut, ref := again.toConversion(fuzzNow)
		if ref != nil || cut != nil || second.ContentHash() != c.ContentHash() {
			t.Fatalf("%s is read as %+v, %v; was %+v", canonical(t, &c), second, ref, c)
		}
		wire, err := event.DefaultCodec().AppendConversion(nil, &c)
		if err != nil {
			t.Fatal(err)
		}
		var third event.Conversion
		if err := event.DefaultCodec().DecodeConversion(wire, &third); err != nil ||
			third.ContentHash() != c.ContentHash() {
			t.Fatalf("from the wire: %+v, %v", third, err)
		}
	})
}

// The parser of batches: no panic, as many results as events, and only what the
// contract has for a whole batch.
func FuzzBatch(f *testing.F) {
	for _, seed := range []string{"", "{}", "[]", `{"events":[]}`, `{"events":[{}],"events":[]}`,
		`{"events":[{},1,"x",null]}`, `{"events":{},"x":1}`, `{"events":[` + strings.Repeat("1,", 501) + "1]}",
		batchOf(eventWith(fuzzToken, fuzzNow.Format(time.RFC3339)), "{}"), batchOf("{}", `{"a":1,"a":2}`, "\"\xff\""),
		`{"events":[{"a":1,"a":2}],"x":"` + "\xff" + `"}`, `{"events":[{"a":1,"a":2}],"\u0065vents":[]}`,
		batchOf("{}", `{"a":1,"a":2}`, "{"), batchOf(`{"a":1,"a":2}`) + "x", `{"dry_run":true,"events":[{}]}`,
		`{"dry_run":true,"events":[{"a":1,"a":2}]}`, `{"events":[{"a":1,"a":2}],"dry_run":true}`,
		`{"dry_run":true,"dry_run":false,"events":[1]}`, "\xef\xbb\xbf" + batchOf("1"), "events=1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		sent := bytes.Clone(body)
		b := parseBatch(sent)
		if !bytes.Equal(sent, body) {
			t.Fatal("the body was changed: its hash goes on record")
		}
		ref := b.checkWhole()
		// encoding/json lets bytes pass that are no UTF-8, and names that repeat.
		if valid := json.Valid(body); ref == nil && !valid {
			t.Fatal("accepted what does not have the form of JSON")
		}
		if ref == nil && (len(b.items) != b.count || b.count < 1 || b.count > MaxBatchEvents) {
			t.Fatalf("%d events, %d kept", b.count, len(b.items))
		}
		if ref != nil && !slices.Contains([]string{codeMalformedJSON, codeUnknownField, codeInvalidField,
			codeTooLarge}, ref.code) {
			t.Fatalf("refused as %+v", ref)
		}
		if f := b.fault; f != nil && (f.offset < 0 || f.offset > int64(len(body)) || f.index != nil &&
			*f.index != b.count) {
			t.Fatalf("%+v in %d bytes", f, len(body))
		}
		for i := range b.items {
			b.items[i].toConversion(fuzzNow)
		}
	})
}

func FuzzTime(f *testing.F) {
	for _, seed := range []string{"2026-03-01T09:30:00Z", "2026-03-01t09:30:00.123456789z",
		"2026-02-29T00:00:00+14:00", "0000-01-01T00:00:00-00:00", "9999-12-31T23:59:60Z", "2026-03-01T09:30:00."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := parseTime(text)
		if err != nil {
			return
		}
		if again, err := parseTime(at.Format(time.RFC3339Nano)); err != nil || !again.Equal(at) {
			t.Fatalf("%q is %v, printed and read %v, %v", text, at, again, err)
		}
		if _, err := fmt.Sscanf(strings.ToUpper(text), "%4d-%2d-%2dT%2d:%2d:%2d", new(int), new(int), new(int),
			new(int), new(int), new(int)); err != nil {
			t.Fatalf("%q was read: %v", text, err)
		}
	})
}
