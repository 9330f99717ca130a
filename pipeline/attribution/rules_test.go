package attribution_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/attribution"
	clicktoken "github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		change func(*attribution.Config)
		want   string
	}{
		{func(*attribution.Config) {}, ""},
		{func(c *attribution.Config) { c.Grace = 0 }, "-grace 0s must be at least 1ms"},
		{func(c *attribution.Config) { c.ClickLife = time.Microsecond }, "-click-life 1µs must be at least 1ms"},
		{func(c *attribution.Config) { c.Grace = 401 * 24 * time.Hour }, "must not be longer than the journey life"},
	} {
		cfg := attribution.DefaultConfig()
		c.change(&cfg)
		_, err := attribution.New(cfg, codec)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", cfg, err, c.want)
		}
	}
}

// The package is pure: its imports do no input or output, and it reads no clock.
func TestPure(t *testing.T) {
	allowed := []string{"cmp", "container/heap", "errors", "fmt", "maps", "math", "math/bits", "slices", "strconv",
		"strings", "sync", "time",
		"github.com/nimriz/partners/pipeline/token", "github.com/nimriz/partners/schemas/currency",
		"github.com/nimriz/partners/schemas/event"}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		read++
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			if path, _ := strconv.Unquote(i.Path.Value); !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s: the rules see rows and clicks only; let the processor pass it in",
					name, path)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s starts a goroutine", name)
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" &&
					slices.Contains([]string{"Now", "Since", "Until", "After", "Sleep", "NewTimer", "AfterFunc",
						"Tick"}, n.Sel.Name) {
					t.Errorf("%s uses time.%s: take the time from the event", name, n.Sel.Name)
				}
			}
			return true
		})
	}
	if read == 0 {
		t.Fatal("no files")
	}
}

// ruleBench is a token with a click, and rules that judge its events.
type ruleBench struct {
	t        testing.TB
	rules    *attribution.Rules
	rows     *memoryRows
	raw      [20]byte
	text     string        // raw in base62
	wire     []byte        // the click in the click log
	next     int64         // offset of the latest event
	last     event.Outcome // the latest
	outcomes int           // so far
}

func newBench(t testing.TB) *ruleBench {
	rules, err := attribution.New(attribution.DefaultConfig(), codec)
	if err != nil {
		t.Fatal(err)
	}
	b := &ruleBench{t: t, rules: rules, rows: newRows()}
	b.useToken(1)
	return b
}

func (b *ruleBench) useToken(n uint64) {
	b.raw = testToken(n)
	b.text = clicktoken.Text(&b.raw)
	b.useTerms(func(*event.Click) {})
}

// useTerms makes the token's click, with a change.
func (b *ruleBench) useTerms(change func(*event.Click)) {
	k := &event.Click{
		WorkspaceID:         "acme",
		ClickToken:          b.text,
		ClickedAt:           at(0),
		WindowMs:            (30 * 24 * time.Hour).Milliseconds(),
		TokenStatus:         event.TokenAppended,
		LinkID:              "lnk_nomura",
		Domain:              "go.acme.com",
		Slug:                "nomura",
		Destination:         "https://shop.acme.com/?ref=1",
		Trigger:             event.TriggerLink,
		PartnerID:           "prt_nomura",
		PartnerKey:          "nomura",
		PartnerName:         "Nomura Studio",
		PartnerRelationship: "approved",
		PartnerLifecycle:    "active",
		ProgramID:           "prg_agency",
		ProgramKey:          "agency",
		ProgramName:         "Agency partners",
		ProgramStatus:       "active",
		AssignmentID:        "asg_1",
		RewardTerms:         "12.5%",
		UTMSource:           "partner",
		UTMMedium:           "agency",
		Country:             "DE",
		Device:              "mobile",
		OS:                  "iOS",
		Browser:             "Safari",
		CatalogOffset:       41,
	}
	change(k)
	var err error
	if b.wire, err = codec.AppendClick(b.wire[:0], k); err != nil {
		b.t.Fatal(err)
	}
}

func (b *ruleBench) clicks(*[20]byte) ([]byte, event.Millis, bool, error) {
	return b.wire, at(time.Second), true, nil
}

func (b *ruleBench) emit(o *event.Outcome, _ []byte) error {
	b.last = *o
	b.outcomes++
	return nil
}

var amount = int64(10000)

func (b *ruleBench) newEvent(typ event.Type, id, of string) *event.Conversion {
	return &event.Conversion{
		WorkspaceID:   "acme",
		EventID:       id,
		ClickToken:    b.text,
		Type:          typ,
		OccurredAt:    at(time.Hour),
		ReceivedAt:    at(time.Hour),
		EnteredAt:     at(time.Hour),
		AmountMinor:   &amount,
		Currency:      "EUR",
		Exponent:      2,
		OrderID:       "o-" + id,
		ParentEventID: of,
		ResolvedBy:    event.ResolvedByToken,
	}
}

func (b *ruleBench) judgeEvent(ev *event.Conversion) {
	b.next++
	src := attribution.Source{Partition: 1, Offset: b.next}
	if err := b.rules.JudgeEvent(b.rows, b.clicks, ev, src, b.emit); err != nil {
		b.t.Fatal(err)
	}
}

// The 100,000th event of a token touches as many rows as the tenth, and the next one is
// refused. Most events are sales with refunds; some wait for parents that never arrive.
func TestFullJourney(t *testing.T) {
	b := newBench(t)
	most, waiting := 0, 0
	for i := 0; b.next < attribution.MaxEvents; i++ {
		id := fmt.Sprintf("%05d", i)
		was := b.rows.puts + b.rows.gets + b.rows.visited
		b.judgeEvent(b.newEvent(event.Sale, "s"+id, ""))
		b.judgeEvent(b.newEvent(event.Refund, "r"+id, "s"+id))
		touched := b.rows.puts + b.rows.gets + b.rows.visited - was
		if i == 11 {
			most = touched
		}
		if i > 11 && touched > most {
			t.Fatalf("events %d and %d touched %d rows, those of 11 touched %d", b.next-1, b.next, touched, most)
		}
		if i%20 == 10 {
			b.judgeEvent(b.newEvent(event.Refund, "w"+id, "missing"+id))
			b.judgeEvent(b.newEvent(event.Refund, "v"+id, "missing"))
			waiting += 2
		}
	}
	if b.outcomes != attribution.MaxEvents-waiting || len(b.rows.deadlines()) != waiting {
		t.Fatalf("%d rows, %d deadlines, %d wait", b.outcomes, len(b.rows.deadlines()), waiting)
	}
	b.judgeEvent(b.newEvent(event.Sale, "one too many", ""))
	if b.last.Reason != event.ReasonTokenFull {
		t.Errorf("got %s %s", b.last.Verdict, b.last.Reason)
	}
	b.judgeEvent(b.newEvent(event.Sale, "s00007", ""))
	if b.last.Verdict != event.Duplicate {
		t.Errorf("a duplicate in a full journey is %s", b.last.Verdict)
	}
	// ended waits no longer count towards the limit
	late := b.newEvent(event.Sale, "one too many", "")
	late.ReceivedAt, late.EnteredAt = at(80*time.Hour), at(80*time.Hour)
	b.judgeEvent(late)
	if b.last.Verdict != event.Attributed || len(b.rows.deadlines()) != 0 || b.outcomes != attribution.MaxEvents+3 {
		t.Errorf("got %s %s, %d deadlines, %d rows", b.last.Verdict, b.last.Reason, len(b.rows.deadlines()), b.outcomes)
	}
}

// Many sales of one order, and much that waits: the next sale, its refund, a reversal by
// order, a follower that waits and a cancellation beside it touch as many rows as the
// first ones.
func TestSharedOrder(t *testing.T) {
	b := newBench(t)
	b.useTerms(func(k *event.Click) { k.FollowMs = (365 * 24 * time.Hour).Milliseconds() })
	most := 0
	for i := range 1000 {
		id := strconv.Itoa(1000 + i)
		was := b.rows.puts + b.rows.gets + b.rows.visited
		for _, ev := range []*event.Conversion{
			b.newEvent(event.Sale, "s"+id, ""),
			b.newEvent(event.Refund, "r"+id, "s"+id),
			b.newEvent(event.Reversal, "v"+id, ""),
			b.newEvent(event.Lead, "l"+id, ""),
			b.newEvent(event.Sale, "f"+id, "missing"+id),
			b.newEvent(event.Cancellation, "x"+id, ""),
		} {
			if ev.OrderID = "o"; ev.EventID[0] == 'f' || ev.EventID[0] == 'x' {
				ev.OrderID = "of followers"
			}
			ev.EnteredAt += event.Millis(i)
			if ev.EventID[0] == 'f' {
				ev.OccurredAt = at(31 * 24 * time.Hour)
			}
			b.judgeEvent(ev)
		}
		touched := b.rows.puts + b.rows.gets + b.rows.visited - was
		if i == 10 {
			most = touched
		}
		if i > 10 && touched > most {
			t.Fatalf("round %d touched %d rows, round 10 touched %d", i, touched, most)
		}
	}
	if n := len(b.rows.deadlines()); n != 2000 {
		t.Errorf("%d events wait, want 2000", n)
	}
	// each of the 1,000 moments closes two waits, and looks at one more
	was := b.rows.visited
	if err := b.rules.CloseWaits(b.rows, nil, &b.raw, forever, forever, b.emit); err != nil {
		t.Fatal(err)
	}
	if visited := b.rows.visited - was; visited > 3000 || len(b.rows.deadlines()) > 0 {
		t.Errorf("closing 2000 waits visited %d rows, %d are left", visited, len(b.rows.deadlines()))
	}
}

// The first event of version 2 scans a journey of version 1 once, and rewrites only the
// rows that say too little: not those of thousands of orders with one sale.
func TestUpgradeOfLargeJourney(t *testing.T) {
	b := newBench(t)
	const sales = 5000
	for i := range sales {
		id := strconv.Itoa(i)
		b.judgeEvent(b.newEvent(event.Sale, "s"+id, ""))
		b.judgeEvent(b.newEvent(event.Refund, "r"+id, "s"+id))
	}
	b.judgeEvent(b.newEvent(event.Reversal, "v", "s1"))
	writeVersion1(t, b.rows)
	for i, want := range []struct{ visited, puts int }{{2*sales + 1, 4}, {0, 3}} {
		puts, visited := b.rows.puts, b.rows.visited
		b.judgeEvent(b.newEvent(event.Refund, "late"+strconv.Itoa(i), "s2"))
		puts, visited = b.rows.puts-puts, b.rows.visited-visited
		if b.last.Verdict != event.Reversed || visited != want.visited || puts > want.puts {
			t.Errorf("event %d after the upgrade is %s: %d rows visited, %d written; want %d and at most %d", i,
				b.last.Verdict, visited, puts, want.visited, want.puts)
		}
	}
	var s1 event.JourneyEvent
	row := b.rows.values[string(event.AppendJourneyKey(nil, &b.raw, event.KindEvent, "s1"))]
	if err := event.DecodeEvent(row, &s1); err != nil || s1.Reversals != 1 {
		t.Errorf("%d reversals of s1 stand, want 1; %v", s1.Reversals, err)
	}
}

// failingRows fails after a number of calls.
type failingRows struct {
	*memoryRows
	left int
}

var errFull = errors.New("disk full")

func (f *failingRows) countCall() error {
	if f.left--; f.left < 0 {
		return errFull
	}
	return nil
}

func (f *failingRows) Get(key []byte) ([]byte, error) {
	if err := f.countCall(); err != nil {
		return nil, err
	}
	return f.memoryRows.Get(key)
}

func (f *failingRows) Put(key, value []byte) error {
	if err := f.countCall(); err != nil {
		return err
	}
	return f.memoryRows.Put(key, value)
}

func (f *failingRows) Scan(prefix []byte, yield func(key, value []byte) bool) error {
	if err := f.countCall(); err != nil {
		return err
	}
	return f.memoryRows.Scan(prefix, yield)
}

// An error of any row, look-up or emitted outcome is returned, with the token.
func TestErrorsAreReturned(t *testing.T) {
	for left := 0; ; left++ {
		b := newBench(t)
		rows, emitted := &failingRows{memoryRows: b.rows, left: left}, 0
		step := func(err error) bool {
			if err != nil && (!errors.Is(err, errFull) || !strings.Contains(err.Error(), b.text)) {
				t.Fatalf("after %d calls: %v", left, err)
			}
			return err == nil
		}
		none := func(*[20]byte) ([]byte, event.Millis, bool, error) { return nil, 0, false, rows.countCall() }
		emit := func(*event.Outcome, []byte) error { emitted++; return rows.countCall() }
		src := func() attribution.Source { b.next++; return attribution.Source{Offset: b.next} }
		bare := b.newEvent(event.Refund, "r3", "")
		bare.OrderID, bare.AmountMinor = "o-s", nil
		done := step(b.rules.JudgeEvent(rows, none, b.newEvent(event.Reversal, "v", "r"), src(), emit)) &&
			step(b.rules.JudgeEvent(rows, none, b.newEvent(event.Refund, "r", "s"), src(), emit)) &&
			step(b.rules.JudgeEvent(rows, none, b.newEvent(event.Refund, "x", "missing"), src(), emit)) &&
			step(b.rules.ApplyClick(rows, &b.raw, b.wire, at(2*time.Hour), emit)) &&
			step(b.rules.JudgeEvent(rows, none, b.newEvent(event.Sale, "s", ""), src(), emit)) &&
			step(b.rules.JudgeEvent(rows, none, b.newEvent(event.Sale, "s2", ""), src(), emit)) &&
			step(b.rules.JudgeEvent(rows, none, bare, src(), emit)) &&
			step(b.rules.CloseWaits(rows, none, &b.raw, at(100*time.Hour), at(100*time.Hour), emit))
		if done {
			if emitted != 6 {
				t.Fatalf("%d rows", emitted)
			}
			return
		}
		if left > 200 {
			t.Fatal("never ends")
		}
	}
}

// A damaged store is an error, never a guess. A row of a newer version is another one.
func TestDamagedRows(t *testing.T) {
	build := func() *ruleBench {
		b := newBench(t)
		b.judgeEvent(b.newEvent(event.Sale, "s", ""))
		b.judgeEvent(b.newEvent(event.Sale, "s2", ""))
		b.judgeEvent(b.newEvent(event.Refund, "r", "s"))
		b.judgeEvent(b.newEvent(event.Refund, "w", "missing"))
		return b
	}
	keys := build().rows.values
	found := 0
	for k := range keys {
		for _, damage := range [][]byte{{9}, {0}, {1}, {2}, nil} {
			b := build()
			if damage == nil {
				delete(b.rows.values, k)
				if i := slices.Index(b.rows.scanned, k); i >= 0 {
					b.rows.scanned = slices.Delete(b.rows.scanned, i, i+1)
				}
			} else {
				b.rows.values[k] = damage
			}
			ev := b.newEvent(event.Reversal, "v", "r")
			byOrder := b.newEvent(event.Refund, "r2", "")
			byOrder.OrderID = "o-s"
			err := b.rules.JudgeEvent(b.rows, b.clicks, ev, attribution.Source{Offset: 9}, b.emit)
			if err == nil {
				err = b.rules.JudgeEvent(b.rows, b.clicks, byOrder, attribution.Source{Offset: 10}, b.emit)
			}
			if err == nil {
				err = b.rules.JudgeEvent(b.rows, b.clicks, b.newEvent(event.Sale, "missing", ""),
					attribution.Source{Offset: 11}, b.emit)
			}
			if err != nil {
				found++
				isNewer := len(damage) == 1 && damage[0] == 9
				if isNewer != errors.Is(err, event.ErrNewer) || isNewer == errors.Is(err, event.ErrJourney) {
					t.Errorf("%q %v: %v", k, damage, err)
				}
			}
		}
	}
	if found < len(keys) {
		t.Errorf("of %d rows damaged five ways each, %d were noticed", len(keys), found)
	}
	b := newBench(t)
	ev := b.newEvent(event.Sale, "s", "")
	ev.ClickToken = "short"
	err := b.rules.JudgeEvent(b.rows, b.clicks, ev, attribution.Source{}, b.emit)
	if !errors.Is(err, clicktoken.ErrMalformed) {
		t.Errorf("malformed token: %v", err)
	}
}

// An event in the middle of a chain that has lost its effect is damage: to take from it
// would credit or charge the root by guess.
func TestDamagedChain(t *testing.T) {
	b := newBench(t)
	b.judgeEvent(b.newEvent(event.Sale, "s", ""))
	b.judgeEvent(b.newEvent(event.Refund, "r", "s"))
	b.judgeEvent(b.newEvent(event.Reversal, "v1", "r"))
	key := event.AppendJourneyKey(nil, &b.raw, event.KindEvent, "r")
	b.rows.values[string(key)] = event.AppendEvent(nil, &event.JourneyEvent{Type: event.Refund, Offset: 2})
	v2 := b.newEvent(event.Reversal, "v2", "v1")
	err := b.rules.JudgeEvent(b.rows, b.clicks, v2, attribution.Source{Offset: 4}, b.emit)
	if !errors.Is(err, event.ErrJourney) {
		t.Errorf("got %v, want %v", err, event.ErrJourney)
	}
}

// A click whose schema id is unknown is not judged as if there were none: the partition
// has to stop. It may be in the click log or in the journey already.
func TestNewerClick(t *testing.T) {
	b := newBench(t)
	b.wire[4] = 99
	ev := b.newEvent(event.Sale, "s", "")
	const want = "unknown schema id 99, neither built in nor in the file of -schema-ids: "
	check := func(where string, err error) {
		t.Helper()
		if !errors.Is(err, event.ErrNewer) || errors.Is(err, event.ErrJourney) ||
			!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "upgrade the processor") {
			t.Errorf("%s: %v", where, err)
		}
	}
	check("in the click log", b.rules.JudgeEvent(b.rows, b.clicks, ev, attribution.Source{Offset: 1}, b.emit))
	none := func(*[20]byte) ([]byte, event.Millis, bool, error) { return nil, 0, false, nil }
	if err := b.rules.JudgeEvent(b.rows, none, ev, attribution.Source{Offset: 1}, b.emit); err != nil {
		t.Fatal(err)
	}
	check("in the log", b.rules.ApplyClick(b.rows, &b.raw, b.wire, at(0), b.emit))
	check("when the wait ends", b.rules.CloseWaits(b.rows, b.clicks, &b.raw, forever, forever, b.emit))

	b = newBench(t)
	b.judgeEvent(b.newEvent(event.Refund, "r", "missing"))
	key := string(event.HeadKey(&b.raw))
	b.rows.values[key] = []byte(strings.Replace(string(b.rows.values[key]), "\x00\x00\x00\x00\x06",
		"\x00\x00\x00\x00\x63", 1))
	check("in the journey", b.rules.JudgeEvent(b.rows, b.clicks, ev, attribution.Source{Offset: 2}, b.emit))
	check("when a parent's wait ends", b.rules.CloseWaits(b.rows, b.clicks, &b.raw, forever, forever, b.emit))
}

// For the events, a click that cannot be used is unknown: its bytes cannot be decoded,
// or they belong to another token.
func TestUselessClick(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"cut off":       func(w []byte) []byte { return w[:len(w)/2] },
		"no record":     func([]byte) []byte { return []byte("hello") },
		"another token": func(w []byte) []byte { return []byte(strings.Replace(string(w), "3A", "3B", 1)) },
	} {
		b := newBench(t)
		if !strings.HasPrefix(b.text, "3A") {
			t.Fatal(b.text)
		}
		b.wire = change(b.wire)
		b.judgeEvent(b.newEvent(event.Sale, "s", ""))
		if err := b.rules.ApplyClick(b.rows, &b.raw, b.wire, at(0), b.emit); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if b.outcomes != 0 || len(b.rows.deadlines()) != 1 {
			t.Errorf("%s: %d rows, %d waits", name, b.outcomes, len(b.rows.deadlines()))
		}
		if err := b.rules.CloseWaits(b.rows, b.clicks, &b.raw, forever, forever, b.emit); err != nil ||
			b.last.Reason != event.ReasonClickNotFound || len(b.rows.values) != 0 {
			t.Errorf("%s: %v, %s, %d rows left", name, err, b.last.Reason, len(b.rows.values))
		}
	}
}

// The usual case writes two rows and touches no other.
func TestFirstSaleRows(t *testing.T) {
	b := newBench(t)
	b.judgeEvent(b.newEvent(event.Sale, "s", ""))
	if b.rows.gets != 1 || b.rows.puts != 2 || b.rows.visited != 0 {
		t.Errorf("%d gets, %d puts, %d rows scanned; want 1, 2, 0", b.rows.gets, b.rows.puts, b.rows.visited)
	}
}

// plainRows is rowMap without its checks, so that a benchmark measures the rules.
type plainRows struct{ values map[string][]byte }

func (p *plainRows) Get(key []byte) ([]byte, error)                  { return p.values[string(key)], nil }
func (p *plainRows) Scan([]byte, func(key, value []byte) bool) error { return nil }
func (p *plainRows) Put(key, value []byte) error {
	if old := p.values[string(key)]; value != nil && cap(old) >= len(value) {
		copy(old[:len(value)], value)
		p.values[string(key)] = old[:len(value)]
		return nil
	}
	if value == nil {
		delete(p.values, string(key))
		return nil
	}
	p.values[string(key)] = slices.Clone(value)
	return nil
}

// The hot path: a token's first sale, its click found.
func BenchmarkFirstSale(bb *testing.B) {
	b := newBench(bb)
	rows := &plainRows{values: map[string][]byte{}}
	ev := b.newEvent(event.Sale, "evt_00001", "")
	bb.ReportAllocs()
	for bb.Loop() {
		clear(rows.values)
		b.next++
		if err := b.rules.JudgeEvent(rows, b.clicks, ev, attribution.Source{Offset: b.next}, b.emit); err != nil {
			bb.Fatal(err)
		}
	}
}

// A sale waits for its click, then the click arrives.
func BenchmarkLateClick(bb *testing.B) {
	b := newBench(bb)
	ev := b.newEvent(event.Sale, "evt_00001", "")
	none := func(*[20]byte) ([]byte, event.Millis, bool, error) { return nil, 0, false, nil }
	bb.ReportAllocs()
	for bb.Loop() {
		clear(b.rows.values)
		b.rows.scanned = b.rows.scanned[:0]
		if err := b.rules.JudgeEvent(b.rows, none, ev, attribution.Source{Offset: 1}, b.emit); err != nil {
			bb.Fatal(err)
		}
		if err := b.rules.ApplyClick(b.rows, &b.raw, b.wire, at(time.Second), b.emit); err != nil {
			bb.Fatal(err)
		}
	}
}

// A refund waits for its sale, then the sale arrives and the cascade judges the refund.
func BenchmarkEarlyRefund(bb *testing.B) {
	b := newBench(bb)
	refund := b.newEvent(event.Refund, "evt_00001", "evt_00002")
	sale := b.newEvent(event.Sale, "evt_00002", "")
	bb.ReportAllocs()
	for bb.Loop() {
		clear(b.rows.values)
		b.rows.scanned = b.rows.scanned[:0]
		b.judgeEvent(refund)
		b.judgeEvent(sale)
	}
}

// Refunds of one of n sales. The size of the journey must make no difference.
func BenchmarkRefund(bb *testing.B) {
	for _, n := range []int{10, attribution.MaxEvents - 10} {
		bb.Run(fmt.Sprintf("journey=%d", n), func(bb *testing.B) {
			b := newBench(bb)
			rows := &plainRows{values: map[string][]byte{}}
			judge := func(ev *event.Conversion) {
				b.next++
				if err := b.rules.JudgeEvent(rows, b.clicks, ev, attribution.Source{Offset: b.next},
					b.emit); err != nil {
					bb.Fatal(err)
				}
			}
			for i := range n {
				judge(b.newEvent(event.Sale, strconv.Itoa(i), ""))
			}
			refund := event.AppendJourneyKey(nil, &b.raw, event.KindEvent, "refund")
			head := slices.Clone(rows.values[string(event.HeadKey(&b.raw))])
			ev := b.newEvent(event.Refund, "refund", strconv.Itoa(n/2))
			bb.ReportAllocs()
			for bb.Loop() {
				judge(ev)
				delete(rows.values, string(refund)) // so that the next one is no duplicate
				copy(rows.values[string(event.HeadKey(&b.raw))], head)
			}
		})
	}
}

// The cost of an event in a token of 100,000 events, and in tokens of ten: sales and
// their refunds, in turn. The larger journey costs more only because its rows miss the
// CPU's caches.
func BenchmarkHotToken(bb *testing.B) {
	const events, small = attribution.MaxEvents, 10
	b := newBench(bb)
	script := make([]*event.Conversion, events)
	for i := range script {
		id := strconv.Itoa(i / 2)
		if script[i] = b.newEvent(event.Sale, "s"+id, ""); i%2 == 1 {
			script[i] = b.newEvent(event.Refund, "r"+id, "s"+id)
		}
	}
	// run judges 100,000 events in journeys of the given size
	run := func(size int) (spent time.Duration) {
		for from := 0; from < events; from += size {
			rows := &plainRows{values: make(map[string][]byte, 3*size)}
			start := time.Now()
			for i, ev := range script[from : from+size] {
				if err := b.rules.JudgeEvent(rows, b.clicks, ev, attribution.Source{Offset: int64(i)},
					b.emit); err != nil {
					bb.Fatal(err)
				}
			}
			spent += time.Since(start)
		}
		return spent
	}
	var hot, cold time.Duration
	for bb.Loop() {
		hot += run(events)
		cold += run(small)
	}
	n := float64(bb.N * events)
	bb.ReportMetric(float64(hot.Nanoseconds())/n, "ns/event-of-100000")
	bb.ReportMetric(float64(cold.Nanoseconds())/n, "ns/event-of-10")
	bb.ReportMetric(float64(hot)/float64(cold), "ratio")
}

// A chain of n reversals, each of the one before. The cost of an event grows with its
// chain up to the root.
func BenchmarkChain(bb *testing.B) {
	for _, n := range []int{10, 1000} {
		bb.Run(fmt.Sprintf("depth=%d", n), func(bb *testing.B) {
			for bb.Loop() {
				b := newBench(bb)
				rows := &plainRows{values: map[string][]byte{}}
				of := ""
				for i := range n {
					ev := b.newEvent(event.Reversal, strconv.Itoa(i), of)
					if i == 0 {
						ev.Type = event.Sale
					}
					of = ev.EventID
					if err := b.rules.JudgeEvent(rows, b.clicks, ev, attribution.Source{Offset: int64(i)},
						b.emit); err != nil {
						bb.Fatal(err)
					}
				}
			}
			bb.ReportMetric(float64(bb.Elapsed().Nanoseconds())/float64(bb.N*n), "ns/event")
		})
	}
}
