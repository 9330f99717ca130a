package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/statement"
	"github.com/shopspring/decimal"
	"pgregory.net/rapid"
)

// Statements of account, as scripts: testdata/statement. Each form of each statement is
// held against the others.
func TestStatements(t *testing.T) {
	b := newBooks(t)
	datadriven.Walk(t, "testdata/statement", func(t *testing.T, path string) {
		b.TB = t
		var s *shop
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			b.TB = t
			switch d.Cmd {
			case "shop":
				s = b.openShop(d.CmdArgs[0].Key, d.CmdArgs[1].Key)
				return ""
			case "events":
				return s.playEvents(d)
			case "statement":
				return s.printStatement(d)
			}
			t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
			return ""
		})
	})
}

// playEvents adds what a script says, one line each, and prints what became of it:
//
//	2026-11-05 09:30  click CLICK [PARTNER]
//	2026-11-05 09:30  TYPE ID [AMOUNT CURRENCY] [order=O] [of=PARENT] [click=CLICK] [dated=DAY]
//	2026-11-05 09:30  judged
//
// Times are of the shop's zone, and those of receipt. An event is of the newest click
// that was named before it.
func (s *shop) playEvents(d *datadriven.TestData) string {
	s.Helper()
	shown := maps.Clone(s.judged)
	newest := ""
	for _, c := range s.clicks {
		newest = c.ClickToken
	}
	for line := range strings.Lines(d.Input) {
		words := strings.Fields(line)
		if len(words) < 3 {
			s.Fatalf("%s: %q", d.Pos, line)
		}
		at := s.parseTime(d, words[0]+" "+words[1])
		switch words[2] {
		case "click":
			s.addClick(words[3], strings.Join(words[4:], ""), "", at)
			newest = s.tokens[words[3]]
		case "judged":
			s.judge(at)
		default:
			s.addEvents(s.parseEvent(d, newest, at, words[2:]))
		}
	}
	var out strings.Builder
	outcomes := slices.Clone(s.truth.Outcomes)
	slices.SortFunc(outcomes, func(a, b event.Outcome) int { return int(a.EventOffset - b.EventOffset) })
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for i := range outcomes {
		o := &outcomes[i]
		if shown[oracle.Position{Partition: o.EventPartition, Offset: o.EventOffset}] {
			continue
		}
		change := "changes no amount"
		if o.StandingChangeMinor != nil {
			change = "changes " + decimal.New(*o.StandingChangeMinor, -2).StringFixed(2) + " " + o.Currency
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", o.EventID, o.Verdict, change)
	}
	w.Flush()
	return out.String()
}

func (s *shop) parseTime(d *datadriven.TestData, text string) time.Time {
	s.Helper()
	at, err := time.ParseInLocation("2006-01-02 15:04", text, s.zone.Location())
	if err != nil {
		s.Fatalf("%s: %v", d.Pos, err)
	}
	return at
}

func (s *shop) parseEvent(d *datadriven.TestData, token string, at time.Time, words []string) event.Conversion {
	s.Helper()
	c := event.Conversion{
		Type:       event.Type(words[0]),
		EventID:    words[1],
		ClickToken: token,
		ReceivedAt: event.MillisOf(at),
		OccurredAt: event.MillisOf(at),
	}
	for i := 2; i < len(words); i++ {
		name, value, named := strings.Cut(words[i], "=")
		switch {
		case !named:
			amount, err := decimal.NewFromString(words[i])
			if err != nil {
				s.Fatalf("%s: %v", d.Pos, err)
			}
			minor := amount.Shift(2).IntPart()
			c.AmountMinor, c.Currency, c.Exponent = &minor, words[i+1], 2
			i++
		case name == "order":
			c.OrderID = value
		case name == "of":
			c.ParentEventID = value
		case name == "click":
			c.ClickToken = s.tokens[value]
		case name == "dated":
			c.OccurredAt = event.MillisOf(s.parseTime(d, value+" 12:00"))
		default:
			s.Fatalf("%s: %s", d.Pos, words[i])
		}
	}
	return c
}

// printStatement prints a statement and compares its forms.
func (s *shop) printStatement(d *datadriven.TestData) string {
	s.Helper()
	var f report.StatementFilter
	var err error
	if f.Month, err = statement.ParseMonth(d.CmdArgs[0].Key); err != nil {
		s.Fatalf("%s: %v", d.Pos, err)
	}
	h, accounts := s.read(f)
	clock := func(at time.Time) string { return at.In(s.zone.Location()).Format("2006-01-02 15:04") }
	var out strings.Builder
	fmt.Fprintf(&out, "%s, %s to %s: %s", h.Timezone, clock(h.Start), clock(h.End), h.Status)
	if h.Status != statement.Final {
		fmt.Fprintf(&out, " until all is judged up to %s", clock(*h.FinalAt))
	}
	out.WriteString("\n")
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for i := range accounts {
		a := &accounts[i]
		partner := a.PartnerID
		if partner == "" {
			partner = "no partner"
		}
		earlier := ""
		if a.EarlierEvents > 0 {
			earlier = fmt.Sprintf("of these %d dated earlier: + %s − %s + %s", a.EarlierEvents, a.AttributedEarlier,
				a.TakenBackEarlier, a.GivenBackEarlier)
		}
		fmt.Fprintf(w, "%s\t%s\topening %s\t+ %s (%d)\t− %s (%d)\t+ %s (%d)\t= %s\t%s\n", partner, a.Currency,
			a.Opening, a.Attributed, a.AttributedEvents, a.TakenBack, a.TakenBackEvents, a.GivenBack, a.GivenBackEvents,
			a.Closing, earlier)
	}
	w.Flush()
	s.checkEveryForm(f.Month.String(), accounts)
	var text strings.Builder
	for line := range strings.Lines(out.String()) {
		text.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return text.String()
}

// months are those of the random histories.
var months = []string{"2026-02", "2026-03", "2026-04", "2026-05", "2026-06", "2026-07"}

// drawHistory draws clicks and events from 1 March to June, by the shop's zone; many of
// them near the ends of months.
func (s *shop) drawHistory(t *rapid.T) []event.Conversion {
	first := time.Date(2026, 3, 1, 0, 0, 0, 0, s.zone.Location())
	clicks := rapid.IntRange(1, 4).Draw(t, "clicks")
	for i := range clicks {
		partner := rapid.SampledFrom([]string{"nomura", "creator", ""}).Draw(t, "partner")
		s.addClick(fmt.Sprint("k", i), partner, rapid.SampledFrom([]string{"p", "q"}).Draw(t, "program"), first)
	}
	var times []time.Time
	for range rapid.IntRange(2, 40).Draw(t, "events") {
		at := first.AddDate(0, rapid.IntRange(0, 3).Draw(t, "month"), 0)
		if rapid.Bool().Draw(t, "at an end") {
			at = at.Add(time.Duration(rapid.IntRange(-2, 2).Draw(t, "half hours")) * 30 * time.Minute)
		} else {
			at = at.Add(time.Duration(rapid.IntRange(0, 30*24).Draw(t, "hours")) * time.Hour)
		}
		if at.Before(first) {
			at = first
		}
		times = append(times, at)
	}
	slices.SortFunc(times, time.Time.Compare)
	times = append(slices.Repeat([]time.Time{first}, clicks), times...) // each journey begins in time
	var events []event.Conversion
	for i, at := range times {
		click, kind := i, event.Sale
		if i >= clicks {
			click = rapid.IntRange(0, clicks-1).Draw(t, "click")
			kind = rapid.SampledFrom(event.Types()).Draw(t, "type")
		}
		c := event.Conversion{
			EventID:    fmt.Sprint("e", i),
			ClickToken: s.tokens[fmt.Sprint("k", click)],
			Type:       kind,
			ReceivedAt: event.MillisOf(at),
			OccurredAt: event.MillisOf(at),
		}
		if back := at.AddDate(0, 0, -rapid.IntRange(0, 40).Draw(t, "days back")); back.After(first) {
			c.OccurredAt = event.MillisOf(back)
		}
		if rapid.IntRange(0, 5).Draw(t, "has amount") > 0 {
			minor := rapid.Int64Range(0, 1<<40).Draw(t, "minor")
			c.AmountMinor = &minor
			c.Currency = rapid.SampledFrom([]string{"EUR", "EUR", "EUR", "JPY"}).Draw(t, "currency")
			c.Exponent = map[string]int32{"EUR": 2, "JPY": 0}[c.Currency]
		}
		if !c.Type.Positive() { // of any event, also one that comes later, or never
			c.ParentEventID = fmt.Sprint("e", rapid.IntRange(max(0, i-4), i+2).Draw(t, "parent"))
		}
		events = append(events, c)
	}
	return events
}

// key names an account.
type key struct{ partner, currency string }

// modelStatement computes the closings by adding up standing changes one by one.
func (s *shop) modelStatement(end time.Time) map[key]int64 {
	sums := map[key]int64{}
	for i := range s.truth.Outcomes {
		o := &s.truth.Outcomes[i]
		if o.StandingChangeMinor != nil && o.ReceivedAt < event.MillisOf(end) {
			sums[key{o.Click.PartnerID, o.Currency}] += *o.StandingChangeMinor
		}
	}
	maps.DeleteFunc(sums, func(_ key, minor int64) bool { return minor == 0 })
	return sums
}

// standingOfRoots is what the oracle says still stands of all leads and sales.
func (s *shop) standingOfRoots() map[key]int64 {
	sums := map[key]int64{}
	for i := range s.truth.Outcomes {
		o := &s.truth.Outcomes[i]
		if o.Verdict == event.Attributed && o.AmountMinor != nil {
			standing := s.truth.Standing[oracle.Position{Partition: o.EventPartition, Offset: o.EventOffset}]
			sums[key{o.Click.PartnerID, o.Currency}] += standing.Minor
		}
	}
	maps.DeleteFunc(sums, func(_ key, minor int64) bool { return minor == 0 })
	return sums
}

// amountsOf are the amounts of accounts that are not 0, in minor units.
func amountsOf(accounts []statement.Account, amount func(*statement.Account) statement.Amount) map[key]int64 {
	out := map[key]int64{}
	for i := range accounts {
		a := &accounts[i]
		minor := amount(a).Shift(map[string]int32{"EUR": 2}[a.Currency])
		if !minor.IsZero() {
			out[key{a.PartnerID, a.Currency}] += minor.IntPart()
		}
	}
	return out
}

func openingOf(a *statement.Account) statement.Amount { return a.Opening }
func closingOf(a *statement.Account) statement.Amount { return a.Closing }

// Whatever comes in, and in whatever zone: a closing is what had changed until then and
// the next month's opening; each account adds up; the last closing is what stands. A
// statement that was final at some moment is the same at the end.
func TestChainsOfMonthsAddUp(t *testing.T) {
	b := newBooks(t)
	finals, changed := 0, 0
	clickhousetest.FewerChecks(t)
	rapid.Check(t, func(rt *rapid.T) {
		zone := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "Pacific/Apia", "America/Santiago"}).Draw(rt, "zone")
		s := b.openShop("shop"+strconv.Itoa(b.shops), zone)
		events := s.drawHistory(rt)
		cut := rapid.IntRange(0, len(events)).Draw(rt, "cut")
		s.addEvents(events[:cut]...)
		moment := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		if cut > 0 {
			moment = events[cut-1].ReceivedAt.Time()
		}
		moment = moment.Add(time.Duration(rapid.IntRange(0, 100).Draw(rt, "hours later")) * time.Hour)
		if cut < len(events) && moment.After(events[cut].ReceivedAt.Time()) {
			moment = events[cut].ReceivedAt.Time()
		}
		s.judge(moment)
		before := map[string]string{}
		open := map[string]string{}
		for _, month := range months {
			h, accounts := s.read(report.StatementFilter{Month: mustMonth(rt, month)})
			if h.Status == statement.Final {
				before[month] = fmt.Sprint(accounts)
			} else {
				open[month] = fmt.Sprint(accounts)
			}
		}
		s.addEvents(events[cut:]...)
		s.judge(time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC))
		if len(s.truth.Waiting) > 0 {
			rt.Fatalf("%d events wait", len(s.truth.Waiting))
		}
		last := map[key]int64{}
		for _, month := range months {
			m := mustMonth(rt, month)
			late := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) // asked in the first half, and not again
			h := statement.NewHead(s.id, m, s.zone, statement.Closing{Watermark: late, FinalAt: late})
			accounts := s.readAccounts(h, report.StatementFilter{Month: m})
			if got, was := fmt.Sprint(accounts), before[month]; was != "" {
				if finals++; got != was {
					rt.Fatalf("%s was final at %s:\n%s\nand now\n%s", month, moment, was, got)
				}
			} else if strings.ReplaceAll(open[month], "false", "true") != got {
				changed++
			}
			if got := amountsOf(accounts, openingOf); !maps.Equal(got, last) {
				rt.Fatalf("%s opens with %v, the month before closed with %v", month, got, last)
			}
			last = amountsOf(accounts, closingOf)
			if want := s.modelStatement(h.End); !maps.Equal(last, want) {
				rt.Fatalf("%s closes with %v, the rows make %v", month, last, want)
			}
			for i := range accounts {
				a := &accounts[i]
				sum := a.Opening.Add(a.Attributed.Decimal).Sub(a.TakenBack.Decimal).Add(a.GivenBack.Decimal)
				if !sum.Equal(a.Closing.Decimal) || a.Attributed.Sign() < 0 || a.TakenBack.Sign() < 0 ||
					a.GivenBack.Sign() < 0 {
					rt.Fatalf("%s: %+v does not add up to %s", month, a, sum)
				}
			}
		}
		if want := s.standingOfRoots(); !maps.Equal(last, want) {
			rt.Fatalf("the last closing is %v, what stands is %v", last, want)
		}
	})
	t.Logf("%d statements were final before the end, %d that were not changed", finals, changed)
	if finals == 0 || changed == 0 {
		t.Error("nothing was tried")
	}
}

func mustMonth(t rapid.TB, text string) statement.Month {
	m, err := statement.ParseMonth(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
