package event_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nimriz/partners/schemas/event"
	"pgregory.net/rapid"
)

func sampleHead() *event.JourneyHead {
	return &event.JourneyHead{
		Click:          []byte{0, 0, 0, 0, 1, 0xC1, 0x1C},
		ClickArrivedAt: 1790000000500,
		Passed:         true,
		Kept:           4,
		WaitParent:     1,
		LastKept:       1790000200001,
		WaitSales:      1,
		Sales:          event.Positives{Attributed: event.PositiveClass{Count: 1, Only: "evt_1"}},
		Leads: event.Positives{Attributed: event.PositiveClass{Count: 2},
			Unattributed: event.PositiveClass{Count: 1, Only: "evt_9"}},
	}
}

func sampleEvent() *event.JourneyEvent {
	return &event.JourneyEvent{Type: event.Refund, Offset: 78, Content: [32]byte{1, 2, 3, 31: 9}, Effect: -1,
		OccurredAt: 1790000100000, Money: [8]byte{5, 7: 6},
		HasAmount: true, Amount: 6000, Currency: "EUR", Exponent: 2,
		Parent: "evt_1", Root: "evt_0", Takes: true, Sum: event.Sum{High: 1, Low: 2000}, Reversals: 3}
}

func sampleOrder() *event.JourneyOrder {
	return &event.JourneyOrder{Attributed: event.OrderClass{Count: 2, Latest: "evt_1", Offset: 77},
		Unattributed: event.OrderClass{Count: 1, Latest: "evt_4", Offset: 76}, Standing: 1, Waiting: 3}
}

func sampleWait() *event.JourneyWait {
	c := sampleConversion()
	c.Type, c.ParentEventID, c.ReasonText = event.Reversal, "evt_0", "chargeback"
	c.ClickToken, c.KeyID = "", ""
	return &event.JourneyWait{Event: *c, Partition: 3, Behind: true}
}

type journeyRow struct {
	name       string
	key, value []byte
}

func journeyRows() []journeyRow {
	token := &[20]byte{0: 0x17, 1: 0x3F, 19: 0xAA}
	wait := sampleWait()
	waiting := &event.JourneyEvent{
		Waiting: true,
		Type:    event.Reversal,
		Offset:  79,
		Content: [32]byte{7},
		End:     1790259200000,
	}
	first := &event.JourneyEvent{Type: event.Sale, Offset: 77, Content: [32]byte{7}, OccurredAt: 1790000000000,
		Money: [8]byte{1}, Effect: 1, Order: "o-1"}
	follower := &event.JourneyEvent{Type: event.Sale, Offset: 80, OccurredAt: 1792592000000, Effect: 1, Order: "o-1",
		Follows: true, Origin: 1790000000000, SharesOrder: true}
	old := &event.JourneyEvent{Type: event.Sale, Offset: 7, Old: true, Effect: 1, Reversals: 1}
	unknown := &event.JourneyHead{WaitClick: 2, WaitsTo: 1790259200000}
	const end = event.Millis(1790259200000)
	voidKey, voidValue := event.VoidRow(4711)
	return []journeyRow{
		{"head", event.HeadKey(token), event.AppendHead(nil, sampleHead())},
		{"head while the click is unknown", event.HeadKey(token), event.AppendHead(nil, unknown)},
		{"event: a sale", event.AppendJourneyKey(nil, token, event.KindEvent, "evt_1"), event.AppendEvent(nil, first)},
		{"event: a refund deep in a chain", event.AppendJourneyKey(nil, token, event.KindEvent, "evt_2"),
			event.AppendEvent(nil, sampleEvent())},
		{"event: a sale that follows another", event.AppendJourneyKey(nil, token, event.KindEvent, "evt_4"),
			event.AppendEvent(nil, follower)},
		{"event: a sale of version 1, written again", event.AppendJourneyKey(nil, token, event.KindEvent, "evt_5"),
			event.AppendEvent(nil, old)},
		{"event: waiting", event.AppendJourneyKey(nil, token, event.KindEvent, "evt_3"),
			event.AppendEvent(nil, waiting)},
		{"order", event.AppendOrderKey(nil, token, event.Sale, "o-1"),
			event.AppendOrder(nil, sampleOrder())},
		{"order of one lead", event.AppendOrderKey(nil, token, event.Lead, "o-1"), event.AppendOrder(nil,
			&event.JourneyOrder{Attributed: event.OrderClass{Count: 1, Latest: "evt_1", Offset: 77}})},
		{"wait for the click", event.AppendWaitKey(nil, token, event.KindWaitClick, end, 79),
			event.AppendWait(nil, &wait.Event, wait.Partition, wait.Behind)},
		{"wait index", event.AppendIndexKey(nil, token, event.KindForEvent, "evt_0", 79), event.AppendIndex(nil, end)},
		{"deadline", event.DeadlineKey(end, token, 79), []byte{event.KindWaitClick}},
		{"void", voidKey, voidValue},
	}
}

// Rows of every version must stay readable: a change here needs a new version of the
// row.
func TestJourneyGolden(t *testing.T) {
	b := &strings.Builder{}
	for _, r := range journeyRows() {
		fmt.Fprintf(b, "%s\nkey\n%svalue\n%s\n", r.name, hex.Dump(r.key), hex.Dump(r.value))
	}
	file := filepath.Join("testdata", "journey.v2.golden")
	want, err := os.ReadFile(file)
	if os.IsNotExist(err) && *rewrite {
		err, want = os.WriteFile(file, []byte(b.String()), 0o644), []byte(b.String())
	}
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Error(d)
	}
}

// readGoldenRows reads a golden file of rows: names, and the hex dumps of keys and
// values.
func readGoldenRows(t *testing.T, file string) (rows []journeyRow) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n\n") {
		name, dumps, ok := strings.Cut(block, "\nkey\n")
		key, value, ok2 := strings.Cut(dumps, "\nvalue\n")
		if !ok || !ok2 {
			t.Fatalf("%s: %q", file, block)
		}
		rows = append(rows, journeyRow{name, parseDump(t, key), parseDump(t, value)})
	}
	return rows
}

// parseDump reverses hex.Dump.
func parseDump(t *testing.T, dump string) (b []byte) {
	t.Helper()
	for line := range strings.Lines(dump) {
		digits, _, _ := strings.Cut(line[len("00000000"):], "|")
		part, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		b = append(b, part...)
	}
	return b
}

// Rows of version 1 are read, and what they cannot tell is said to be unknown.
func TestJourneyVersion1(t *testing.T) {
	head := sampleHead()
	head.WaitSales, head.Sales, head.Leads, head.Old = 0, event.Positives{}, event.Positives{}, true
	deep := sampleEvent()
	deep.OccurredAt, deep.Money, deep.Reversals, deep.Old = 0, [8]byte{}, 0, true
	wait := sampleWait()
	c := &wait.Event
	c.Metadata, c.CustomerHash, c.References, c.ReferenceAmbiguous = nil, nil, nil, false
	c.EnteredAt = c.ReceivedAt
	c.ResolvedBy = event.ResolvedByToken
	const end = event.Millis(1790259200000)
	first := &event.JourneyEvent{Type: event.Sale, Offset: 77, Content: [32]byte{7}, Old: true, Effect: 1,
		Order: "o-1"}
	waiting := &event.JourneyEvent{Waiting: true, Type: event.Reversal, Offset: 79, Content: [32]byte{7}, Old: true,
		End: end}
	order := &event.JourneyOrder{Attributed: event.OrderClass{Count: 2, Latest: "evt_1"}, Old: true}
	want := map[string]any{
		"head":                            head,
		"head while the click is unknown": &event.JourneyHead{WaitClick: 2, WaitsTo: end, Old: true},
		"event: a sale":                   first,
		"event: a refund deep in a chain": deep,
		"event: waiting":                  waiting,
		"order":                           order,
		"wait for the click":              wait,
	}
	for _, r := range readGoldenRows(t, filepath.Join("testdata", "journey.v1.golden")) {
		var got any
		var err error
		switch w := want[r.name].(type) {
		case *event.JourneyHead:
			h := new(event.JourneyHead)
			got, err = h, event.DecodeHead(r.value, h)
		case *event.JourneyEvent:
			e := new(event.JourneyEvent)
			got, err = e, event.DecodeEvent(r.value, e)
		case *event.JourneyOrder:
			o := new(event.JourneyOrder)
			got, err = o, event.DecodeOrder(r.value, o)
		case *event.JourneyWait:
			x := new(event.JourneyWait)
			got, err = x, event.DecodeWait(r.value, x)
		case nil:
			if r.name == "wait index" {
				if at, offset, err := event.ParseIndex(r.key, r.value); at != end || offset != 79 || err != nil {
					t.Errorf("%s: %v %v %v", r.name, at, offset, err)
				}
			}
			continue
		default:
			t.Fatalf("%T", w)
		}
		if d := cmp.Diff(want[r.name], got); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", r.name, err, d)
		}
		delete(want, r.name)
	}
	if len(want) > 0 {
		t.Errorf("not in the golden file: %v", want)
	}
}

// A row that a newer program wrote is not damage: to rebuild the state would not help.
func TestNewerJourneyRow(t *testing.T) {
	for _, r := range journeyRows() {
		value := slices.Clone(r.value)
		value[0] = 3
		var err error
		switch strings.Fields(r.name)[0] {
		case "head":
			err = event.DecodeHead(value, new(event.JourneyHead))
		case "event:":
			err = event.DecodeEvent(value, new(event.JourneyEvent))
		case "order":
			err = event.DecodeOrder(value, new(event.JourneyOrder))
		case "wait":
			if err = event.DecodeWait(value, new(event.JourneyWait)); r.name == "wait index" {
				_, _, err = event.ParseIndex(r.key, value)
			}
		default:
			continue
		}
		if !errors.Is(err, event.ErrNewer) || errors.Is(err, event.ErrJourney) ||
			!strings.Contains(err.Error(), "of version 3: ") {
			t.Errorf("%s: %v", r.name, err)
		}
	}
}

// A scan over a prefix must meet exactly the rows that it is for.
func TestJourneyPrefixes(t *testing.T) {
	token := [20]byte{0: 0x17, 1: 0x3F, 19: 0xAA}
	for _, r := range journeyRows() {
		isDeadline := r.name == "deadline"
		isJourney := !isDeadline && r.name != "void"
		if bytes.HasPrefix(r.key, event.DeadlinePrefix()) != isDeadline {
			t.Errorf("%s: key %x, deadlines begin with %x", r.name, r.key, event.DeadlinePrefix())
		}
		if bytes.HasPrefix(r.key, event.JourneysPrefix()) != isJourney ||
			bytes.HasPrefix(r.key, event.JourneyPrefix(&token)) != isJourney {
			t.Errorf("%s: key %x, journeys begin with %x", r.name, r.key, event.JourneysPrefix())
		}
	}
}

func TestJourneyRoundTrip(t *testing.T) {
	var h event.JourneyHead
	if err := event.DecodeHead(event.AppendHead(nil, sampleHead()), &h); err != nil || !cmp.Equal(&h, sampleHead()) {
		t.Errorf("head: %v\n%s", err, cmp.Diff(sampleHead(), &h))
	}
	var e event.JourneyEvent
	if err := event.DecodeEvent(event.AppendEvent(nil, sampleEvent()), &e); err != nil ||
		!cmp.Equal(&e, sampleEvent()) {
		t.Errorf("event: %v\n%s", err, cmp.Diff(sampleEvent(), &e))
	}
	var o event.JourneyOrder
	if err := event.DecodeOrder(event.AppendOrder(nil, sampleOrder()), &o); err != nil || o != *sampleOrder() {
		t.Errorf("order: %v\n%s", err, cmp.Diff(sampleOrder(), &o))
	}
	var w event.JourneyWait
	s := sampleWait()
	if err := event.DecodeWait(event.AppendWait(nil, &s.Event, s.Partition, s.Behind), &w); err != nil ||
		!cmp.Equal(&w, s) {
		t.Errorf("wait: %v\n%s", err, cmp.Diff(s, &w))
	}
	// a record that no gateway writes must not become a row that cannot be read
	odd := &event.Conversion{
		Type:        event.Sale,
		AmountMinor: ptr(int64(math.MinInt64)),
		Exponent:    -1,
		Quantity:    ptr(int32(-5)),
		ReceivedAt:  math.MinInt64,
		OccurredAt:  math.MaxInt64,
		EnteredAt:   -1,
	}
	if err := event.DecodeWait(event.AppendWait(nil, odd, -1, false), &w); err != nil || !cmp.Equal(&w.Event, odd) {
		t.Errorf("odd wait: %v\n%s", err, cmp.Diff(odd, &w.Event))
	}
}

func TestJourneyKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var token [20]byte
		copy(token[:], rapid.SliceOfN(rapid.Byte(), 20, 20).Draw(t, "token"))
		end, offset := event.Millis(rapid.Int64Min(0).Draw(t, "end")), rapid.Int64Min(0).Draw(t, "offset")
		id := rapid.StringN(0, 40, 255).Draw(t, "id")
		if e, tok, o, ok := event.ParseDeadline(event.DeadlineKey(end, &token, offset)); e != end || tok != token ||
			o != offset || !ok {
			t.Errorf("deadline: %v %x %v %v", e, tok, o, ok)
		}
		if e, o, err := event.ParseWaitKey(event.AppendWaitKey(nil, &token, event.KindWaitParent, end,
			offset)); e != end || o != offset || err != nil {
			t.Errorf("wait: %v %v %v", e, o, err)
		}
		key := event.AppendIndexKey(nil, &token, event.KindForSale, id, offset)
		if e, o, err := event.ParseIndex(key, event.AppendIndex(nil, end)); e != end || o != offset || err != nil {
			t.Errorf("index: %v %v %v", e, o, err)
		}
		if tok, kind, ok := event.ParseJourneyKey(key); tok != token || kind != event.KindForSale || !ok ||
			!bytes.HasPrefix(key, event.JourneyPrefix(&token)) {
			t.Errorf("journey key: %x %c %v", tok, kind, ok)
		}
		if _, _, ok := event.ParseJourneyKey(event.DeadlineKey(end, &token, offset)); ok {
			t.Error("a deadline is no journey row")
		}
		void, _ := event.VoidRow(offset)
		if o, ok := event.ParseVoid(void); o != offset || !ok {
			t.Errorf("void: %v %v", o, ok)
		}
		for _, other := range [][]byte{key, event.DeadlineKey(end, &token, offset), event.HeadKey(&token)} {
			if _, ok := event.ParseVoid(other); ok {
				t.Errorf("%x is no void row", other)
			}
		}
		// one id's prefix holds no other id's rows
		other := rapid.StringN(0, 40, 255).Draw(t, "other")
		if other != id && bytes.HasPrefix(event.AppendIndexKey(nil, &token, event.KindForSale, other, offset),
			event.AppendIndexPrefix(nil, &token, event.KindForSale, id)) {
			t.Errorf("%q holds rows of %q", id, other)
		}
		// waits sort by end, then by offset
		end2, offset2 := event.Millis(rapid.Int64Min(0).Draw(t, "end2")), rapid.Int64Min(0).Draw(t, "offset2")
		less := end < end2 || end == end2 && offset < offset2
		if (bytes.Compare(event.AppendWaitKey(nil, &token, 'c', end, offset), event.AppendWaitKey(nil, &token, 'c',
			end2, offset2)) < 0) != less {
			t.Error("wait keys do not sort by end and offset")
		}
	})
}

// Sums of many amounts and their changes are exact.
func TestSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var sum event.Sum
		want := new(big.Int)
		parts := []int64{}
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			now := rapid.OneOf(rapid.Int64Min(0), rapid.Just(int64(math.MaxInt64))).Draw(t, "now")
			was := int64(0)
			if i := rapid.IntRange(-1, len(parts)-1).Draw(t, "which"); i >= 0 {
				was, parts[i] = parts[i], now
			} else {
				parts = append(parts, now)
			}
			sum = sum.Replace(was, now)
			want.Add(want, big.NewInt(now-was))
		}
		got := new(big.Int).Lsh(new(big.Int).SetUint64(sum.High), 64)
		if got.Add(got, new(big.Int).SetUint64(sum.Low)).Cmp(want) != 0 {
			t.Fatalf("%v, want %v", got, want)
		}
	})
	for _, c := range []struct {
		e    event.JourneyEvent
		want int64
	}{
		{event.JourneyEvent{}, 1},
		{event.JourneyEvent{Sum: event.Sum{Low: 1}}, 0},
		{event.JourneyEvent{HasAmount: true, Amount: 100, Sum: event.Sum{Low: 60}}, 40},
		{event.JourneyEvent{HasAmount: true, Amount: 100, Sum: event.Sum{Low: 101}}, 0},
		{event.JourneyEvent{HasAmount: true, Amount: math.MaxInt64, Sum: event.Sum{High: 1}}, 0},
		{event.JourneyEvent{HasAmount: true, Amount: -5}, 0},
	} {
		if got := c.e.Standing(); got != c.want {
			t.Errorf("%+v: standing amount %d, want %d", c.e, got, c.want)
		}
	}
}

// Whatever is read can be written and reads the same again; what cannot be read says
// so, and never takes memory beyond its own size.
func FuzzJourney(f *testing.F) {
	for _, r := range journeyRows() {
		f.Add(r.key, r.value)
		f.Add(r.key[:len(r.key)/2], r.value[:len(r.value)/2])
		for i := range r.value {
			broken := slices.Clone(r.value)
			broken[i] ^= 0xFF
			f.Add(r.key, broken)
		}
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		check := func(what string, err error, again func() (bool, error)) {
			t.Helper()
			if err != nil {
				if !errors.Is(err, event.ErrJourney) && !errors.Is(err, event.ErrNewer) {
					t.Errorf("%s: unclassified %v", what, err)
				}
				return
			}
			if same, err := again(); err != nil || !same {
				t.Errorf("%s: written and read again it is another: %v", what, err)
			}
		}
		var h, h2 event.JourneyHead
		check("head", event.DecodeHead(value, &h), func() (bool, error) {
			err := event.DecodeHead(event.AppendHead(nil, &h), &h2)
			return cmp.Equal(h, h2) || h.Old, err // what is written is of version 2
		})
		var e, e2 event.JourneyEvent
		check("event", event.DecodeEvent(value, &e), func() (bool, error) {
			err := event.DecodeEvent(event.AppendEvent(nil, &e), &e2)
			return cmp.Equal(e, e2), err
		})
		var o, o2 event.JourneyOrder
		check("order", event.DecodeOrder(value, &o), func() (bool, error) {
			err := event.DecodeOrder(event.AppendOrder(nil, &o), &o2)
			return o == o2 || o.Old, err
		})
		var w, w2 event.JourneyWait
		check("wait", event.DecodeWait(value, &w), func() (bool, error) {
			err := event.DecodeWait(event.AppendWait(nil, &w.Event, w.Partition, w.Behind), &w2)
			return cmp.Equal(w, w2), err
		})
		_, _, err := event.ParseIndex(key, value)
		check("index", err, func() (bool, error) { return true, nil })
		end, offset, err := event.ParseWaitKey(key)
		check("wait key", err, func() (bool, error) {
			token, kind, _ := event.ParseJourneyKey(key)
			return bytes.Equal(key, event.AppendWaitKey(nil, &token, kind, end, offset)), nil
		})
		if end, token, offset, ok := event.ParseDeadline(key); ok &&
			!bytes.Equal(key, event.DeadlineKey(end, &token, offset)) {
			t.Error("deadline: written again it is another")
		}
	})
}
