package event_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/linkedin/goavro/v2"
	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/avro"
	"pgregory.net/rapid"
)

var rewrite = flag.Bool("rewrite", false, "write golden files that do not exist yet")

func ptr[T any](v T) *T { return &v }

func sampleClick() *event.Click {
	return &event.Click{WorkspaceID: "acme", ClickToken: "2ABCdefGhIjKlMnOpQrStUvWxYz", ClickedAt: 1790000000123,
		WindowMs: 30 * 86400_000, FollowMs: 365 * 86400_000, OneSalePerOrder: true,
		TokenStatus: event.TokenAppended, LinkID: "lnk_nomura", Domain: "go.acme.com", Slug: "nomura",
		Destination: "https://shop.acme.com/", Trigger: event.TriggerQR,
		PartnerID: "prt_nomura", PartnerKey: "nomura", PartnerName: "Nomura Studio",
		PartnerRelationship: "approved", PartnerLifecycle: "active",
		ProgramID: "prg_agency", ProgramKey: "agency", ProgramName: "Agency partners",
		ProgramStatus: "active", AssignmentID: "asg_1", AssignedAt: 1767571200000,
		RewardTerms: "10%", UTMSource: "partner", UTMMedium: "agency", Sub1: "pub-77",
		ReferrerHost: "news.example.com", Country: "DE", Device: "mobile", OS: "iOS", Browser: "Safari",
		IsBot: true, BotReason: "head", CatalogOffset: 41}
}

func sampleConversion() *event.Conversion {
	c := &event.Conversion{WorkspaceID: "acme", EventID: "evt_1", ClickToken: "2ABCdefGhIjKlMnOpQrStUvWxYz",
		Type: event.Sale, EventName: "checkout", OccurredAt: 1790000100000,
		ReceivedAt: 1790000100250, AmountMinor: ptr(int64(10000)), Currency: "EUR", Exponent: 2, Quantity: ptr(
			int32(3)), OrderID: "o-1", CustomerRef: "c-9",
		Metadata: map[string]string{"store": "eu-1"}, KeyID: "0a1b2c3d",
		EnteredAt: 1790000100250, CustomerHash: []byte("0123456789abcdef"), References: []string{"order", "customer"},
		ResolvedBy: event.ResolvedByCustomer, ReferenceAmbiguous: true}
	c.ContentSHA256 = c.ContentHash()
	return c
}

func sampleOutcome() *event.Outcome {
	c := sampleConversion()
	return &event.Outcome{WorkspaceID: c.WorkspaceID, EventID: "evt_2", ClickToken: c.ClickToken,
		Verdict: event.Reversed, Flags: []string{event.FlagOverReversed}, Review: event.ReviewNeeded,
		Type: event.Refund, Effect: -1, OccurredAt: 1790000200000, ReceivedAt: 1790000200001, DecidedAt: 1790000200002,
		AmountMinor: ptr(int64(6000)), Currency: "EUR", Exponent: 2,
		OrderID: "o-1", ParentEventID: "evt_1", ParentType: "sale", ReasonText: "broken", EstimatedRewardMinor: ptr(
			int64(-400)), RewardCurrency: "EUR", ContentSHA256: c.ContentSHA256,
		EventPartition: 3, EventOffset: 77, FirstOffset: ptr(int64(5)), RulesVersion: 1,
		StandingChangeMinor: ptr(int64(-4000)), Metadata: map[string]string{"store": "eu-1"},
		ResolvedBy: event.ResolvedByOrder, Click: sampleClick()}
}

func sampleProgress() *event.Progress {
	return &event.Progress{Partition: 3, At: 1790000300000, ClicksPosition: 100, ConversionsPosition: 20,
		ClicksMaxAt: 1790000299000, ConversionsMaxAt: 1790000298000, OutcomesEnd: 24,
		Read: 20, Attributed: 11, Reversed: 3, Duplicate: 2, Conflict: 1, Unattributed: 1, Unreadable: 1, Waiting: 1,
		OldestWaitingReceivedAt: ptr(event.Millis(1790000298000)), CaughtUp: true, GraceMs: 259200000,
		Watermark: 1790000298500, ClickLifeMs: 40 * 86400_000, JourneyLifeMs: 400 * 86400_000}
}

func sampleRejection() *event.Rejection {
	return &event.Rejection{WorkspaceID: "acme", WebhookID: "msg_1", EventID: "evt_3", ClickToken: "x",
		ReceivedAt: 1790000400000, Status: 422, Code: "bad_amount", Field: "amount",
		Detail: "three digits", BodySHA256: [32]byte{1, 2, 3}, KeyID: "0a1b2c3d",
		Type: "refund", OrderID: "o-1", ParentEventID: "evt_1", CustomerHash: []byte("0123456789abcdef")}
}

func encodeAll(t testing.TB, c *event.Codec) map[string][]byte {
	t.Helper()
	out := make(map[string][]byte)
	put := func(name string, b []byte, err error) {
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = b
	}
	b, err := c.AppendClick(nil, sampleClick())
	put("Click", b, err)
	b, err = c.AppendConversion(nil, sampleConversion())
	put("Conversion", b, err)
	b, err = c.AppendOutcome(nil, sampleOutcome(), nil)
	put("Outcome", b, err)
	b, err = c.AppendProgress(nil, sampleProgress())
	put("Progress", b, err)
	b, err = c.AppendRejection(nil, sampleRejection())
	put("Rejection", b, err)
	return out
}

// Golden files are append-only: a record that was ever written must stay readable, byte
// for byte.
func TestGolden(t *testing.T) {
	c := event.DefaultCodec()
	for name, b := range encodeAll(t, c) {
		file := filepath.Join("testdata", fmt.Sprintf("%s.v%d.golden", strings.ToLower(name), newestVersion(name)))
		record, text, err := c.Text(b)
		if err != nil || record != name {
			t.Fatalf("%s: Text says %q, %v", name, record, err)
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, text, "", "  "); err != nil {
			t.Fatal(err)
		}
		got := hex.Dump(b) + "\n" + sortedJSON(t, pretty.Bytes()) + "\n"
		want, err := os.ReadFile(file)
		if os.IsNotExist(err) && *rewrite {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: the encoding changed; a new form needs a new schema version:\n%s",
				file, cmp.Diff(string(want), got))
		}
	}
}

// newestVersion is the version of a record that a codec writes.
func newestVersion(record string) (version int) {
	for _, s := range event.Schemas() {
		if s.Record == record {
			version = max(version, s.Version)
		}
	}
	return version
}

func sortedJSON(t *testing.T, b []byte) string {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestRoundTrip(t *testing.T) {
	c := event.DefaultCodec()
	all := encodeAll(t, c)
	same := func(name string, got, want any, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
	var k event.Click
	same("Click", &k, sampleClick(), c.DecodeClick(all["Click"], &k))
	var v event.Conversion
	same("Conversion", &v, sampleConversion(), c.DecodeConversion(all["Conversion"], &v))
	var o event.Outcome
	same("Outcome", &o, sampleOutcome(), c.DecodeOutcome(all["Outcome"], &o))
	var p event.Progress
	same("Progress", &p, sampleProgress(), c.DecodeProgress(all["Progress"], &p))
	var r event.Rejection
	same("Rejection", &r, sampleRejection(), c.DecodeRejection(all["Rejection"], &r))
}

// A decoded record is a copy. With Aliasing it has the same content, and costs no copy.
func TestAliasing(t *testing.T) {
	c := event.DefaultCodec()
	wire := encodeAll(t, c)["Outcome"]
	var copied, aliased event.Outcome
	if err := errors.Join(c.DecodeOutcome(wire, &copied), c.Aliasing().DecodeOutcome(wire, &aliased)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(copied, aliased); d != "" {
		t.Error(d)
	}
	clear(wire)
	if d := cmp.Diff(sampleOutcome(), &copied); d != "" {
		t.Errorf("a copy went with its input:\n%s", d)
	}
	if aliased.EventID == copied.EventID {
		t.Error("nothing was aliased")
	}
}

// The two codecs write the same bytes: what twmb/avro wrote, goavro reads and writes
// again unchanged.
func TestGoavroWritesTheSameBytes(t *testing.T) {
	c := event.DefaultCodec()
	check := func(t interface{ Fatalf(string, ...any) }, schema string, b []byte) {
		g, err := goavro.NewCodec(schema)
		if err != nil {
			t.Fatalf("%v", err)
		}
		native, rest, err := g.NativeFromBinary(b[event.FramingLen:])
		if err != nil || len(rest) > 0 {
			t.Fatalf("goavro reads: %v, %d bytes left", err, len(rest))
		}
		again, err := g.BinaryFromNative(nil, native)
		if err != nil || !bytes.Equal(again, b[event.FramingLen:]) {
			t.Fatalf("goavro writes other bytes (%v):\n%x\n%x", err, b[event.FramingLen:], again)
		}
	}
	schemas := make(map[string]string)
	for _, s := range event.Schemas() {
		schemas[s.Record] = s.JSON
	}
	rapid.Check(t, func(t *rapid.T) {
		k := drawClick(t)
		wire, err := c.AppendClick(nil, k)
		if err != nil {
			t.Fatalf("%v", err)
		}
		check(t, schemas["Click"], wire)
		v := sampleConversion()
		v.EventID, v.OrderID = rapid.String().Draw(t, "event"), rapid.String().Draw(t, "order")
		// one entry: a map's order is free
		v.Metadata = map[string]string{rapid.String().Draw(t, "k"): rapid.String().Draw(t, "v")}
		if rapid.Bool().Draw(t, "amountless") {
			v.AmountMinor, v.Quantity = nil, nil
		}
		b, err := c.AppendConversion(nil, v)
		if err != nil {
			t.Fatalf("%v", err)
		}
		check(t, schemas["Conversion"], b)
		o := sampleOutcome()
		o.Click = k
		whole, err := c.AppendOutcome(nil, o, nil)
		if err != nil {
			t.Fatalf("%v", err)
		}
		check(t, schemas["Outcome"], whole)
		copied, err := c.AppendOutcome(nil, o, wire)
		if err != nil || !bytes.Equal(whole, copied) {
			t.Fatalf("copying the click's bytes gives another outcome (%v)", err)
		}
	})
}

func drawClick(t *rapid.T) *event.Click {
	k := sampleClick()
	v := reflect.ValueOf(k).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Type() == reflect.TypeFor[string]() && rapid.Bool().Draw(t, "set") {
			f.SetString(rapid.StringN(0, 40, 40).Draw(t, v.Type().Field(i).Name))
		}
	}
	k.Destination = "https://e.example/" + strings.Repeat("é", rapid.IntRange(0, 400).Draw(t, "long"))
	return k
}

// newestSchema is twmb/avro's of a record.
func newestSchema(t testing.TB, record string) *avro.Schema {
	t.Helper()
	var text string
	for _, s := range event.Schemas() {
		if s.Record == record {
			text = s.JSON
		}
	}
	schema, err := avro.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// AppendClick is written by hand; twmb/avro, which reads the fields' names, is its oracle.
func TestAppendClickWritesTheLibrarysBytes(t *testing.T) {
	c := event.DefaultCodec()
	schema := newestSchema(t, "Click")
	rapid.Check(t, func(t *rapid.T) {
		k := new(event.Click)
		v := reflect.ValueOf(k).Elem()
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			switch f := v.Field(i); f.Kind() {
			case reflect.String:
				f.SetString(string(rapid.SliceOfN(rapid.Byte(), 0, 80).Draw(t, name)))
			case reflect.Int64:
				f.SetInt(rapid.Int64().Draw(t, name))
			case reflect.Bool:
				f.SetBool(rapid.Bool().Draw(t, name))
			default:
				t.Fatalf("%s: %s", name, f.Kind())
			}
		}
		k.TokenStatus = rapid.SampledFrom([]event.TokenStatus{event.TokenAppended, event.TokenWithheld, event.TokenOff,
			"", "on"}).Draw(t, "status")
		k.Trigger = rapid.SampledFrom([]event.Trigger{event.TriggerLink, event.TriggerQR, "",
			"mail"}).Draw(t, "trigger")
		want, wantErr := schema.AppendEncode(nil, k)
		got, err := c.AppendClick([]byte("before"), k)
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("error %v, the library's %v", err, wantErr)
		}
		if err != nil {
			if string(got) != "before" {
				t.Fatalf("an error, and %q", got)
			}
			return
		}
		if !bytes.Equal(got[len("before")+event.FramingLen:], want) {
			t.Fatalf("other bytes than the library's:\n%x\n%x", got, want)
		}
		fitted := *k
		truncated := fitted.Fit()
		fits, err := c.AppendClick(nil, &fitted)
		if err != nil {
			t.Fatal(err)
		}
		got, n, err := c.AppendFitted([]byte("before"), k)
		if err != nil || n != truncated || string(got) != "before"+string(fits) || *k != fitted {
			t.Fatalf("AppendFitted: %d texts truncated (%v), Fit: %d", n, err, truncated)
		}
	})
}

// AppendOutcome is written by hand; twmb/avro is its oracle. The order of metadata is the
// map's, so there is at most one pair.
func TestAppendOutcomeWritesTheLibrarysBytes(t *testing.T) {
	c := event.DefaultCodec()
	schema := newestSchema(t, "Outcome")
	rapid.Check(t, func(t *rapid.T) {
		o := new(event.Outcome)
		text := rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 80).Draw(t, "")) })
		number := rapid.OneOf(rapid.Int64Range(-200, 200), rapid.Int64())
		v := reflect.ValueOf(o).Elem()
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			switch f := v.Field(i).Addr().Interface().(type) {
			case *int64:
				*f = number.Draw(t, name)
			case *event.Millis:
				*f = event.Millis(number.Draw(t, name))
			case *int32:
				*f = int32(number.Draw(t, name))
			case **int64:
				*f = rapid.Ptr(number, true).Draw(t, name)
			case **int32:
				*f = rapid.Ptr(rapid.Int32(), true).Draw(t, name)
			case *[]string:
				*f = rapid.SliceOfN(text, 0, 3).Draw(t, name)
			case *map[string]string:
				*f = rapid.MapOfN(text, text, 0, 1).Draw(t, name)
			case *[32]byte:
				copy(f[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, name))
			case **event.Click:
				*f = rapid.SampledFrom([]*event.Click{nil, sampleClick(), {}}).Draw(t, name)
			default:
				if v.Field(i).Kind() != reflect.String {
					t.Fatalf("%s: %T", name, f)
				}
				v.Field(i).SetString(text.Draw(t, name))
			}
		}
		o.Verdict = rapid.SampledFrom(append(event.Verdicts(), "", "maybe")).Draw(t, "verdict")
		o.Review = rapid.SampledFrom(append(event.Reviews(), "")).Draw(t, "review")
		o.Type = rapid.SampledFrom(append(event.Types(), "")).Draw(t, "type")
		want, wantErr := schema.AppendEncode(nil, o)
		got, err := c.AppendOutcome([]byte("before"), o, nil)
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("error %v, the library's %v", err, wantErr)
		}
		if err != nil {
			if string(got) != "before" {
				t.Fatalf("an error, and %q", got)
			}
			return
		}
		if !bytes.Equal(got[len("before")+event.FramingLen:], want) {
			t.Fatalf("other bytes than the library's:\n%x\n%x", got, want)
		}
	})
}

func TestFit(t *testing.T) {
	c := event.DefaultCodec()
	rapid.Check(t, func(t *rapid.T) {
		k := drawClick(t)
		before := *k
		b, err := c.AppendClick(nil, k)
		if err != nil {
			t.Fatalf("%v", err)
		}
		cut := k.Fit()
		after, err := c.AppendClick(nil, k)
		if err != nil {
			t.Fatalf("%v", err)
		}
		small := len(b)-event.FramingLen <= event.MaxClickBytes
		if small != (cut == 0) || small && !bytes.Equal(b, after) {
			t.Fatalf("a click of %d bytes: %d fields cut", len(b)-event.FramingLen, cut)
		}
		ids := len(k.LinkID + k.PartnerID + k.PartnerKey + k.ProgramID + k.ProgramKey + k.AssignmentID + k.WorkspaceID)
		if n := len(after) - event.FramingLen; n > event.MaxClickBytes && ids < 300 {
			t.Fatalf("still %d bytes", n)
		}
		if k.LinkID != before.LinkID || k.PartnerID != before.PartnerID ||
			!strings.HasPrefix(before.Destination, k.Destination) {
			t.Fatalf("an id was cut, or a text is no prefix")
		}
	})
	// The worst that the catalog allows: every id and key at 40 bytes, the workspace at
	// 64.
	id := strings.Repeat("x", 40)
	k := &event.Click{WorkspaceID: strings.Repeat("w", 64), ClickToken: strings.Repeat("t", 27), ClickedAt: 1 << 44,
		WindowMs: 1 << 40, TokenStatus: event.TokenOff, TokenReason: "reserved_present",
		LinkID: id, Trigger: event.TriggerQR, PartnerID: id, PartnerKey: id,
		PartnerRelationship: "deactivated", PartnerLifecycle: "archived", ProgramID: id, ProgramKey: id,
		ProgramStatus: "archived",
		AssignmentID:  id, AssignedAt: 1 << 44, RewardTerms: "9223372036854775807 USD",
		Country: "DE", CatalogOffset: 1 << 60, Destination: strings.Repeat("d", 2048)}
	k.Fit()
	b, err := c.AppendClick(nil, k)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(b) - event.FramingLen; n > event.MaxClickBytes {
		t.Errorf("the largest ids leave %d bytes", n)
	}
}

func TestErrors(t *testing.T) {
	c := event.DefaultCodec()
	wire := encodeAll(t, c)["Conversion"]
	f := func(b []byte, want string) {
		t.Helper()
		var v event.Conversion
		err := c.DecodeConversion(b, &v)
		if err == nil || !event.Unreadable(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%x: got %v, want …%s…", b[:min(len(b), 8)], err, want)
		}
	}
	f(nil, "Confluent framing")
	f([]byte{1, 0, 0, 0, 2, 9}, "Confluent framing")
	f([]byte{0, 0, 0, 3, 9, 1}, "unknown schema id 777")
	f(encodeAll(t, c)["Click"], " is Click, not Conversion")
	for n := event.FramingLen; n < len(wire); n++ {
		f(wire[:n], "malformed Avro: Conversion")
	}
	f(append(bytes.Clone(wire), 0), "1 bytes behind the record")
	f(make([]byte, event.MaxConversionBytes+1), "too large: 491521 bytes")
	if _, err := event.NewCodec([]event.ID{{ID: 9, Record: "Click", Version: 7}}); err == nil ||
		!strings.Contains(err.Error(), `"Click" version 7`) {
		t.Errorf("unknown version: %v", err)
	}
	others := slices.DeleteFunc(event.DefaultIDs(), func(id event.ID) bool { return id.Record == "Click" })
	if _, err := event.NewCodec(others); err == nil ||
		!strings.Contains(err.Error(), "none for record Click") {
		t.Errorf("missing id: %v", err)
	}
}

// Thirty bytes that claim to hold a hundred million flags, found by FuzzDecode: to
// print them took 1.7 GB.
func TestTextOfClaims(t *testing.T) {
	b := []byte("\x00\x00\x00\x00\x03\ba\x02\x00\x02\x1aover_reversed\x00\x02\x04\x00\xe5\x9bŘh\x9bŘh\x02\xe0]Y")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, _, err := event.DefaultCodec().Text(b); !errors.Is(err, event.ErrMalformed) {
		t.Errorf("error %v", err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("%d bytes reserved", n)
	}
}

func TestContent(t *testing.T) {
	base := sampleConversion().ContentHash()
	same := func(what string, want bool, change func(*event.Conversion)) {
		t.Helper()
		c := sampleConversion()
		change(c)
		if (c.ContentHash() == base) != want {
			t.Errorf("%s: same content is %v, want %v", what, !want, want)
		}
	}
	same("received later", true, func(c *event.Conversion) { c.ReceivedAt++ })
	same("another signing key", true, func(c *event.Conversion) { c.KeyID = "ffffffff" })
	same("another workspace", true, func(c *event.Conversion) { c.WorkspaceID = "globex" })
	same("amount", false, func(c *event.Conversion) { c.AmountMinor = ptr(int64(10001)) })
	same("no quantity is not 1", false, func(c *event.Conversion) { c.Quantity = nil })
	same("metadata", false, func(c *event.Conversion) { c.Metadata["store"] = "eu-2" })
	same("name", false, func(c *event.Conversion) { c.EventName = "other" })
	same("a field moved into its neighbour", false, func(c *event.Conversion) {
		c.OrderID, c.ParentEventID = "", "o-1"
	})
	if got, want := hex.EncodeToString(
		base[:]), "534dc0a260afafb11f63a5e12e5b2ee0df46f44486d81dd516fc31411ed55054"; got != want {
		t.Errorf("canonical form changed: %s", got)
	}
}

func TestMoney(t *testing.T) {
	base := sampleConversion().MoneyHash()
	same := func(what string, want bool, change func(*event.Conversion)) {
		t.Helper()
		c := sampleConversion()
		change(c)
		if (c.MoneyHash() == base) != want {
			t.Errorf("%s: same money is %v, want %v", what, !want, want)
		}
	}
	same("another id, reason, quantity and time", true, func(c *event.Conversion) {
		c.EventID, c.ReasonText, c.Quantity, c.OccurredAt = "other", "other", nil, 1
	})
	same("type", false, func(c *event.Conversion) { c.Type = event.Lead })
	same("amount", false, func(c *event.Conversion) { c.AmountMinor = ptr(int64(10001)) })
	same("no amount", false, func(c *event.Conversion) { c.AmountMinor = nil })
	same("currency", false, func(c *event.Conversion) { c.Currency = "USD" })
	same("order", false, func(c *event.Conversion) { c.OrderID = "other" })
	same("parent", false, func(c *event.Conversion) { c.ParentEventID = "other" })
	same("a field moved into its neighbour", false, func(c *event.Conversion) {
		c.OrderID, c.ParentEventID = "", c.OrderID
	})
	if got, want := hex.EncodeToString(base[:]), "d35b266e08d2e5e8"; got != want {
		t.Errorf("form changed: %s", got)
	}
}

func FuzzDecode(f *testing.F) {
	c := event.DefaultCodec()
	for _, b := range encodeAll(f, c) {
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var k event.Click
		if err := c.DecodeClick(b, &k); err == nil {
			if _, err := c.AppendClick(nil, &k); err != nil {
				t.Errorf("a click that was read cannot be written: %v", err)
			}
		} else if !event.Unreadable(err) {
			t.Errorf("click: unclassified %v", err)
		}
		var v event.Conversion
		if err := c.DecodeConversion(b, &v); err != nil && !event.Unreadable(err) {
			t.Errorf("conversion: unclassified %v", err)
		}
		var o event.Outcome
		if err := c.DecodeOutcome(b, &o); err != nil && !event.Unreadable(err) {
			t.Errorf("outcome: unclassified %v", err)
		}
		var aliased event.Outcome
		if c.Aliasing().DecodeOutcome(b, &aliased); !reflect.DeepEqual(o, aliased) {
			t.Errorf("aliased: %+v, copied: %+v", aliased, o)
		}
		var p event.Progress
		if err := c.DecodeProgress(b, &p); err != nil && !event.Unreadable(err) {
			t.Errorf("progress: unclassified %v", err)
		}
		var r event.Rejection
		if err := c.DecodeRejection(b, &r); err != nil && !event.Unreadable(err) {
			t.Errorf("rejection: unclassified %v", err)
		}
		if _, _, err := c.Text(b); err != nil && !event.Unreadable(err) {
			t.Errorf("text: unclassified %v", err)
		}
	})
}

// readers compares what the codec reads by hand with what twmb/avro reads.
type readers struct {
	codec                      *event.Codec
	click, conversion, outcome *avro.Schema
}

func newReaders(t testing.TB) readers {
	return readers{event.DefaultCodec(), newestSchema(t, "Click"), newestSchema(t, "Conversion"),
		newestSchema(t, "Outcome")}
}

// ids are the schema ids of the records that are read by hand.
type ids struct{ click, conversion, outcome uint32 }

func idsOf(whole map[string][]byte) ids {
	id := func(name string) uint32 { return binary.BigEndian.Uint32(whole[name][1:]) }
	return ids{id("Click"), id("Conversion"), id("Outcome")}
}

// compare reads Avro binary as a click, a conversion and an outcome, and returns how many
// it is.
func (r readers) compare(t interface{ Fatalf(string, ...any) }, ids ids, body []byte) (readable int) {
	for _, codec := range []*event.Codec{r.codec, r.codec.Aliasing()} {
		var v, wantConversion event.Conversion
		err := codec.DecodeConversion(append(binary.BigEndian.AppendUint32([]byte{0}, ids.conversion), body...), &v)
		rest, wantErr := r.conversion.Decode(body, &wantConversion)
		if wantConversion.EnteredAt == 0 { // what DecodeConversion adds
			wantConversion.EnteredAt = wantConversion.ReceivedAt
		}
		if (err == nil) != (wantErr == nil && len(rest) == 0) || err == nil && !reflect.DeepEqual(v, wantConversion) {
			t.Fatalf("%x is the conversion\n%+v (%v), by twmb/avro\n%+v (%v)", body, v, err, wantConversion, wantErr)
		}
		if err == nil {
			readable++
		}
		var k, wantClick event.Click
		err = codec.DecodeClick(append(binary.BigEndian.AppendUint32([]byte{0}, ids.click), body...), &k)
		rest, wantErr = r.click.Decode(body, &wantClick)
		if (err == nil) != (wantErr == nil && len(rest) == 0) || err == nil && k != wantClick {
			t.Fatalf("%x is the click\n%+v (%v), by twmb/avro\n%+v (%v)", body, k, err, wantClick, wantErr)
		}
		if err == nil {
			readable++
		}
		var o, wantOutcome event.Outcome
		err = codec.DecodeOutcome(append(binary.BigEndian.AppendUint32([]byte{0}, ids.outcome), body...), &o)
		rest, wantErr = r.outcome.Decode(body, &wantOutcome)
		if (err == nil) != (wantErr == nil && len(rest) == 0) || err == nil && !reflect.DeepEqual(o, wantOutcome) {
			t.Fatalf("%x is the outcome\n%+v (%v), by twmb/avro\n%+v (%v)", body, o, err, wantOutcome, wantErr)
		}
		if err == nil {
			readable++
		}
	}
	return readable
}

// Clicks, conversions and outcomes, whole and with some bytes changed, removed or added,
// are read as twmb/avro reads them.
func TestReadingIsTheLibrarys(t *testing.T) {
	r := newReaders(t)
	whole := encodeAll(t, r.codec)
	ids := idsOf(whole)
	readable := 0
	rapid.Check(t, func(t *rapid.T) {
		o := sampleOutcome()
		o.Click = drawClick(t)
		if rapid.Bool().Draw(t, "bare") {
			o.Click, o.AmountMinor, o.Quantity = nil, nil, nil
			o.Flags, o.Metadata = nil, nil
		}
		o.EventOffset = rapid.Int64().Draw(t, "offset")
		o.Exponent = rapid.Int32().Draw(t, "exponent")
		o.ReasonText = rapid.String().Draw(t, "reason")
		wire, err := r.codec.AppendOutcome(nil, o, nil)
		if err != nil {
			t.Fatal(err)
		}
		if o.Click != nil && rapid.Bool().Draw(t, "click") {
			if wire, err = r.codec.AppendClick(nil, o.Click); err != nil {
				t.Fatal(err)
			}
		}
		if rapid.Bool().Draw(t, "conversion") {
			v := sampleConversion()
			if rapid.Bool().Draw(t, "plain") {
				v.AmountMinor, v.Quantity, v.Metadata, v.CustomerHash, v.References = nil, nil, nil, nil, nil
			}
			v.OccurredAt, v.ReasonText = event.Millis(rapid.Int64().Draw(t, "at")), rapid.String().Draw(t, "text")
			if wire, err = r.codec.AppendConversion(nil, v); err != nil {
				t.Fatal(err)
			}
		}
		body := wire[event.FramingLen:]
		for range rapid.SampledFrom([]int{0, 0, 1, 1, 2, 5}).Draw(t, "changes") {
			at := rapid.IntRange(0, len(body)-1).Draw(t, "at")
			some := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 2, 3, 4, 0x7f, 0x80, 0xff}), 0, 3).Draw(t, "bytes")
			cut := rapid.IntRange(0, min(2, len(body)-1-at)).Draw(t, "cut")
			body = slices.Concat(body[:at], some, body[at+cut:])
		}
		readable += r.compare(t, ids, body)
	})
	if readable == 0 {
		t.Error("nothing could be read")
	}
}

func FuzzRead(f *testing.F) {
	r := newReaders(f)
	whole := encodeAll(f, r.codec)
	for _, name := range []string{"Click", "Conversion", "Outcome"} {
		f.Add(whole[name][event.FramingLen:])
	}
	ids := idsOf(whole)
	f.Fuzz(func(t *testing.T, body []byte) { r.compare(t, ids, body) })
}

// compareFields reads a record by its fields, and compares every one with what the codec
// reads. It returns whether it could.
func compareFields(t testing.TB, codec *event.Codec, wire []byte) bool {
	t.Helper()
	var record any = new(event.Click)
	table := codec.ClickFields()
	err := codec.DecodeClick(wire, record.(*event.Click))
	if errors.Is(err, event.ErrWrongRecord) {
		record = new(event.Outcome)
		table = codec.OutcomeFields()
		err = codec.DecodeOutcome(wire, record.(*event.Outcome))
	}
	values := make([]event.FieldValue, len(table.Fields()))
	linkFrom, ok := table.Read(wire, values)
	if !ok {
		return false
	}
	if want := codec.LinkPart(wire); table.Fields()[1].Name == "clicked_at" && linkFrom != want {
		t.Errorf("%x: the link part begins at %d, by LinkPart at %d", wire, linkFrom, want)
	}
	if err != nil {
		return false // something behind the fields is unreadable
	}
	got, want := map[string]any{}, map[string]any{}
	for i, f := range table.Fields() {
		v := values[i]
		switch text := string(wire[v.From:v.To]); {
		case f.Name == "click":
		case f.Kind == event.FieldText || f.Kind == event.FieldFixed:
			got[f.Name] = text
		case f.Kind == event.FieldSymbol && !v.IsNull:
			got[f.Name] = f.Symbols[v.Number]
		case f.Kind == event.FieldSymbol:
			got[f.Name] = ""
		case f.Kind == event.FieldFlag:
			got[f.Name] = v.Number == 1
		case f.Kind == event.FieldTexts:
			got[f.Name] = cutTexts(text, v.Number)
		case f.Kind == event.FieldPairs:
			got[f.Name] = map[string]string{}
			for pair := range slices.Chunk(cutTexts(text, 2*v.Number), 2) {
				got[f.Name].(map[string]string)[pair[0]] = pair[1]
			}
		case v.IsNull && f.Kind != event.FieldLong && f.Kind != event.FieldInt:
			got[f.Name] = nil
		default:
			got[f.Name] = v.Number
		}
	}
	addFields(want, "", reflect.ValueOf(record).Elem())
	for name := range want {
		if _, ok := got[name]; !ok {
			delete(want, name) // of the link part
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%x: by fields\n%v, by the codec\n%v", wire, got, want)
	}
	return true
}

func cutTexts(items string, n int64) []string {
	texts, rest := []string{}, []byte(items)
	for range n {
		var text []byte
		text, rest = event.NextText(rest)
		texts = append(texts, string(text))
	}
	return texts
}

// addFields puts the fields of a record into m, by their names in the schema.
func addFields(m map[string]any, prefix string, record reflect.Value) {
	for i := range record.NumField() {
		name, f := prefix+record.Type().Field(i).Tag.Get("avro"), record.Field(i)
		if f.Type() == reflect.TypeFor[*event.Click]() {
			if f.IsNil() {
				f = reflect.ValueOf(new(event.Click))
			}
			addFields(m, name+".", f.Elem())
			continue
		}
		if f.Kind() == reflect.Pointer {
			if f.IsNil() {
				m[name] = nil
				continue
			}
			f = f.Elem()
		}
		switch f.Kind() {
		case reflect.String:
			m[name] = f.String()
		case reflect.Int32, reflect.Int64:
			m[name] = f.Int()
		case reflect.Array:
			sum := f.Interface().([32]byte)
			m[name] = string(sum[:])
		default:
			m[name] = f.Interface()
		}
	}
}

// Records of today's schemas are read by their fields, whole and bare.
func TestFields(t *testing.T) {
	codec := event.DefaultCodec()
	whole := encodeAll(t, codec)
	bare := sampleOutcome()
	bare.Click, bare.AmountMinor, bare.Quantity, bare.Flags, bare.Metadata = nil, nil, nil, nil, nil
	wire, err := codec.AppendOutcome(nil, bare, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, wire := range map[string][]byte{"click": whole["Click"], "outcome": whole["Outcome"], "bare": wire} {
		if !compareFields(t, codec, wire) {
			t.Errorf("%s: not read by its fields", name)
		}
		for n := range len(wire) {
			compareFields(t, codec, wire[:n])
		}
	}
}

// A key that comes twice is left to the codec, for which the last one counts.
func TestFieldsOfDoubleKeys(t *testing.T) {
	codec, o := event.DefaultCodec(), sampleOutcome()
	o.Metadata = map[string]string{"key-1": "a", "key-2": "b"}
	wire, err := codec.AppendOutcome(nil, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !compareFields(t, codec, wire) {
		t.Error("two keys are not read by fields")
	}
	if compareFields(t, codec, bytes.Replace(wire, []byte("key-2"), []byte("key-1"), 1)) {
		t.Error("a key that comes twice is read by fields")
	}
}

// Whatever the bytes are: what is read by its fields is what the codec reads.
func FuzzFields(f *testing.F) {
	codec := event.DefaultCodec()
	for _, name := range []string{"Click", "Outcome"} {
		f.Add(encodeAll(f, codec)[name])
	}
	f.Fuzz(func(t *testing.T, wire []byte) { compareFields(t, codec, wire) })
}

func BenchmarkDecodeConversion(b *testing.B) {
	c := event.DefaultCodec()
	wire := encodeAll(b, c)["Conversion"]
	b.ReportAllocs()
	var v event.Conversion
	for b.Loop() {
		if err := c.DecodeConversion(wire, &v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeClick(b *testing.B) {
	c := event.DefaultCodec()
	wire := encodeAll(b, c)["Click"]
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	var v event.Click
	for b.Loop() {
		if err := c.DecodeClick(wire, &v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendOutcome(b *testing.B) {
	c := event.DefaultCodec()
	click := encodeAll(b, c)["Click"]
	o := sampleOutcome()
	b.ReportAllocs()
	var buf []byte
	var err error
	for b.Loop() {
		if buf, err = c.AppendOutcome(buf[:0], o, click); err != nil {
			b.Fatal(err)
		}
	}
}

// A file that lacks built-in ids has them first: they are read, and what is written stays
// the file's. One that means another record by a built-in id is left alone.
func TestWithBuiltIn(t *testing.T) {
	ours := event.ID{ID: 101, Record: "Click", Version: 2}
	got := event.WithBuiltIn([]event.ID{event.DefaultIDs()[0], ours})
	want := append(slices.Clone(event.DefaultIDs()[1:]), event.DefaultIDs()[0], ours)
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	clashing := []event.ID{{ID: event.DefaultIDs()[0].ID, Record: "Outcome", Version: 1}, ours}
	if got := event.WithBuiltIn(clashing); !slices.Equal(got, clashing) {
		t.Errorf("%v", got)
	}
}
