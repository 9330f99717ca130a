package oracle_test

import (
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/schemas/event"
)

func ptr[T any](v T) *T { return &v }

func TestDaily(t *testing.T) {
	s := parseScript(t, `click terms=5.00_USD
		L lead
		S sale 100
		R refund 30 of=S at=2d
		V reversal of=R at=2d
		Z sale 9 at=31d
		X cancellation of=L at=1m`)
	bot := s.clicks[0]
	bot.ClickToken, bot.IsBot, bot.TokenStatus = mintToken(t0, 2), true, event.TokenOff
	other := s.clicks[0]
	other.ClickToken, other.PartnerID, other.LinkID = mintToken(t0, 3), "", "lnk_0"
	clicks := []oracle.Click{s.clicks[0], s.clicks[0], bot, other}
	got := oracle.Daily(clicks, oracle.Judge(s.cfg, clicks, s.events, t0.Add(90*day)).Outcomes)
	key := oracle.DailyKey{
		WorkspaceID: "acme",
		Day:         "2026-03-01",
		PartnerID:   "prt_1",
		ProgramID:   "prg_1",
		LinkID:      "lnk_1",
	}
	with := func(change func(*oracle.DailyKey)) oracle.DailyKey {
		k := key
		change(&k)
		return k
	}
	want := []oracle.DailyRow{
		{with(func(k *oracle.DailyKey) {
			k.PartnerID, k.LinkID = "", "lnk_0"
		}), oracle.DailySums{Clicks: 1, HumanClicks: 1, TokenedClicks: 1}},
		{key, oracle.DailySums{Clicks: 2, HumanClicks: 1, TokenedClicks: 1, Leads: 1, Cancellations: 1}},
		{with(func(k *oracle.DailyKey) {
			k.Currency, k.Exponent = "EUR", 2
		}), oracle.DailySums{Sales: 1, GrossMinor: 10000, NetMinor: 10000, StandingMinor: 10000}},
		// the lead brought 5.00 and lost it, the sale brought 5.00
		{with(func(k *oracle.DailyKey) { k.Currency, k.Exponent = "USD", 2 }), oracle.DailySums{RewardMinor: 500}},
		// rewards of 0 in USD leave no row
		{with(func(k *oracle.DailyKey) {
			k.Day, k.Currency, k.Exponent = "2026-03-03", "EUR", 2
		}), oracle.DailySums{Refunds: 1, Reversals: 1}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestDiff(t *testing.T) {
	s := parseScript(t, `S sale 100
		R refund 30 of=S
		Q refund of=S`)
	truth := func() []event.Outcome { return oracle.Judge(s.cfg, s.clicks, s.events, 0).Outcomes }
	f := func(name string, change func([]event.Outcome) []event.Outcome, want ...string) {
		t.Helper()
		if d := cmp.Diff(want, oracle.Diff(truth(), change(truth()))); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	tok := mintToken(t0, 1)
	f("the same", func(o []event.Outcome) []event.Outcome {
		o[0].DecidedAt, o[0].Flags = 7, []string{}
		o[0].Click = ptr(*o[0].Click)
		return []event.Outcome{o[2], o[1], o[0]}
	})
	f("changed", func(o []event.Outcome) []event.Outcome {
		o[1].AmountMinor, o[1].Verdict, o[1].Reason = nil, event.Unattributed, "expired"
		o[2].Click = nil
		return o
	}, "conversions 0/1: acme "+tok+" refund R: verdict is unattributed, want reversed; reason is expired, want "+
		"\"\"; amount_minor is none, want 3000",
		"conversions 0/2: acme "+tok+" refund Q: click is none, want that of lnk_1")
	f("another snapshot", func(o []event.Outcome) []event.Outcome {
		o[0].Click = ptr(*o[0].Click)
		o[0].Click.PartnerID = "prt_2"
		return o
	}, "conversions 0/0: acme "+tok+" sale S: click.partner_id is prt_2, want prt_1")
	f("missing, twice, not wanted", func(o []event.Outcome) []event.Outcome {
		o[0].EventPartition = 1
		return []event.Outcome{o[0], o[1], o[1], o[2]}
	}, "conversions 0/0: missing: acme "+tok+" sale S attributed 100.00 EUR",
		"conversions 0/1: 2 rows, want 1: acme "+tok+" refund R reversed 30.00 EUR",
		"conversions 1/0: not wanted: acme "+tok+" sale S attributed 100.00 EUR")
	many := make([]event.Outcome, 50)
	for i := range many {
		many[i].EventOffset = int64(i)
	}
	if d := oracle.Diff(many, nil); len(d) != 21 || d[20] != "and 30 more rows" {
		t.Errorf("50 missing rows: %q", d)
	}
}

// A row shows what the merchant said beyond the rules, whatever its verdict.
func TestCopiedFields(t *testing.T) {
	s := parseScript(t, `S sale 100
		S sale 100
		Q sale 1 ws=globex
		R refund of=S`)
	for i := range s.events {
		s.events[i].Metadata = map[string]string{"store": strconv.Itoa(i)}
		s.events[i].ResolvedBy = event.ResolvedByOrder
	}
	got := oracle.Judge(s.cfg, s.clicks, s.events, 0).Outcomes
	for i, o := range got {
		if o.Metadata["store"] != strconv.Itoa(i) || o.ResolvedBy != event.ResolvedByOrder ||
			o.RulesVersion != event.RulesVersion {
			t.Errorf("%s: %v, resolved by %s, rules version %d", o.EventID, o.Metadata, o.ResolvedBy, o.RulesVersion)
		}
	}
	if len(got) != len(s.events) {
		t.Errorf("%d rows", len(got))
	}
	got[0].Metadata, got[1].Metadata = nil, map[string]string{}
	want := slices.Clone(got)
	want[0].Metadata, want[1].Metadata = map[string]string{}, nil
	if d := oracle.Diff(want, got); d != nil {
		t.Errorf("no metadata: %q", d)
	}
	want[3].Metadata = map[string]string{"store": "x"}
	d := oracle.Diff(want, got)
	if len(d) != 1 || !strings.Contains(d[0], "metadata is map[store:3], want map[store:x]") {
		t.Errorf("other metadata: %q", d)
	}
}

func TestMintTimeOfBadTokens(t *testing.T) {
	for _, tok := range []string{"", "x", strings.Repeat("z", 27), strings.Repeat("-", 27)} {
		e := oracle.Event{Conversion: event.Conversion{ClickToken: tok, ReceivedAt: t0, EnteredAt: t0}}
		got := oracle.Judge(oracle.DefaultConfig(), nil, []oracle.Event{e}, 0).Outcomes
		if len(got) != 1 || got[0].Reason != event.ReasonExpired {
			t.Errorf("%q: %v", tok, got)
		}
	}
}

// much is a demo's worth of traffic, and one token with a thousand events, each of
// which takes back the one before.
func much(t testing.TB) (oracle.Config, []oracle.Click, []oracle.Event) {
	s := parseScript(t, "S sale 100")
	var clicks []oracle.Click
	var events []oracle.Event
	for i := range 200_000 {
		c := s.clicks[0]
		c.ClickToken = mintToken(t0, uint64(i))
		clicks = append(clicks, c)
		if i%10 == 0 {
			e := s.events[0]
			e.ClickToken, e.Offset = c.ClickToken, int64(i)
			events = append(events, e)
		}
	}
	for i := range 1000 {
		e := s.events[0]
		e.EventID, e.Offset = strconv.Itoa(i), int64(1_000_000+i)
		if i > 0 {
			e.Type, e.ParentEventID, e.AmountMinor = event.Reversal, strconv.Itoa(i-1), nil
		}
		events = append(events, e)
	}
	return s.cfg, clicks, events
}

func TestMuch(t *testing.T) {
	cfg, clicks, events := much(t)
	r := oracle.Judge(cfg, clicks, events, t0)
	if len(r.Outcomes) != 21_000 || r.Outcomes[20_999].Effect != -1 {
		t.Errorf("%d rows, the last %+v", len(r.Outcomes), r.Outcomes[len(r.Outcomes)-1])
	}
}

// The demo waits for it: it takes tenths of a second.
func BenchmarkMuch(b *testing.B) {
	cfg, clicks, events := much(b)
	for b.Loop() {
		oracle.Judge(cfg, clicks, events, t0)
	}
}

// The oracle is worth something only as long as it shares nothing with what it judges.
func TestImports(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file.Name(), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range parsed.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			if strings.Contains(path, ".") && path != "github.com/nimriz/partners/schemas/event" {
				t.Errorf("%s imports %s: the oracle imports only the standard library and schemas/event",
					file.Name(), path)
			}
		}
	}
}
