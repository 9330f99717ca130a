package attribution_test

import (
	"cmp"
	"flag"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/nimriz/partners/pipeline/attribution"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"pgregory.net/rapid"
)

const forever = event.Millis(1 << 60)

// short are durations that random times of a few hours hit often.
var short = attribution.Config{Grace: 10 * time.Hour, ClickLife: 40 * time.Hour, JourneyLife: 60 * time.Hour}

// cases checks a property n times: 100,400 cases of all properties in a plain go test.
// -rapid.checks scales all of them: 100, the default, is once, 1000 is ten times as
// many.
func cases(t *testing.T, n int, property func(*rapid.T)) {
	t.Helper()
	checks := flag.Lookup("rapid.checks").Value
	was := checks.String()
	defer func() { _ = checks.Set(was) }()
	percent, err := strconv.Atoi(was)
	if err == nil {
		err = checks.Set(strconv.Itoa(max(1, n*percent/100)))
	}
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, property)
}

// history is all that a token's verdicts are a function of.
type history struct {
	click  *event.Click // nil: there is none
	at     event.Millis
	events []event.Conversion
	limit  int // events of a journey; 0: the real limit
}

// schedule says when the processor sees the history's parts: the click before event
// read, CloseWaits after events.
type schedule struct {
	read   int   // the click is read before this event; len(events) is after all
	inLog  bool  // the click is in the click log a step earlier than Click is called
	again  []int // the click is read again before these events
	due    map[int][2]event.Millis
	noDues bool
	// upgrade: before this event the rows become those of version 1. There are none
	// before the first.
	upgrade int
}

// player runs histories through the rules.
type player struct {
	t        rapid.TB
	rows     *memoryRows
	outcomes map[int64]event.Outcome // by offset
	order    []int64                 // of the outcomes
	waiting  []int64
}

func play(t rapid.TB, cfg attribution.Config, h *history, s schedule) *player {
	rules, err := attribution.New(cfg, codec)
	if err != nil {
		t.Fatal(err)
	}
	if h.limit > 0 {
		rules.SetMaxEvents(h.limit)
	}
	p := &player{t: t, rows: newRows(), outcomes: map[int64]event.Outcome{}}
	raw := testToken(1)
	var wire []byte
	if h.click != nil {
		if wire, err = codec.AppendClick(nil, h.click); err != nil {
			t.Fatal(err)
		}
	}
	inLog := false
	clicks := func(*[20]byte) ([]byte, event.Millis, bool, error) { return wire, h.at, inLog && wire != nil, nil }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range len(h.events) + 1 {
		if i == s.upgrade {
			writeVersion1(t, p.rows)
		}
		if wire != nil && s.inLog && i+1 == s.read {
			inLog = true
		}
		if wire != nil && (i == s.read || i > s.read && slices.Contains(s.again, i)) {
			inLog = true
			must(rules.ApplyClick(p.rows, &raw, wire, h.at, p.emit))
		}
		if d, ok := s.due[i]; ok {
			must(rules.CloseWaits(p.rows, clicks, &raw, d[0], d[1], p.emit))
		}
		if i < len(h.events) {
			must(rules.JudgeEvent(p.rows, clicks, &h.events[i], attribution.Source{Partition: 3, Offset: int64(i)},
				p.emit))
		}
	}
	for i := range h.events {
		if _, ok := p.outcomes[int64(i)]; !ok {
			p.waiting = append(p.waiting, int64(i))
		}
	}
	if len(p.rows.deadlines()) != len(p.waiting) {
		t.Fatalf("%d deadlines for %d events without a row", len(p.rows.deadlines()), len(p.waiting))
	}
	if s.noDues {
		return p
	}
	must(rules.CloseWaits(p.rows, clicks, &raw, forever, forever, p.emit))
	if len(p.outcomes) != len(h.events) || len(p.rows.deadlines()) != 0 {
		t.Fatalf("%d rows for %d events, %d deadlines left", len(p.outcomes), len(h.events), len(p.rows.deadlines()))
	}
	return p
}

func (p *player) emit(o *event.Outcome, click []byte) error {
	if _, ok := p.outcomes[o.EventOffset]; ok {
		p.t.Fatalf("a second row for event %d: %+v", o.EventOffset, o)
	}
	c := *o
	c.Flags = slices.Clone(o.Flags)
	for _, v := range []**int64{&c.AmountMinor, &c.EstimatedRewardMinor, &c.StandingChangeMinor, &c.FirstOffset} {
		if *v != nil {
			n := **v
			*v = &n
		}
	}
	if click != nil {
		c.Click = new(event.Click)
		if err := codec.DecodeClick(click, c.Click); err != nil {
			p.t.Fatal(err)
		}
	}
	p.outcomes[o.EventOffset] = c
	p.order = append(p.order, o.EventOffset)
	return nil
}

func (p *player) standings(h *history) map[string]int64 {
	out := map[string]int64{}
	raw := testToken(1)
	for i := range h.events {
		id := h.events[i].EventID
		row, ok := p.rows.values[string(event.AppendJourneyKey(nil, &raw, event.KindEvent, id))]
		if !ok {
			continue
		}
		var e event.JourneyEvent
		if err := event.DecodeEvent(row, &e); err != nil {
			p.t.Fatal(err)
		}
		if e.Effect != 0 {
			out[id] = e.Standing()
		}
	}
	return out
}

// generator of histories.
type generator struct {
	unique   bool // every event has its own id
	named    bool // negatives name their parent
	amounts  bool // negatives have an amount
	together bool // no wait ends: all within two hours, inside the click life
	max      int
	latest   int // hours after which no click reaches Kafka; 0: 80
}

// eventIDs are those of a history: the i-th event's own, or an earlier one's.
var eventIDs = []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"}

// draw draws a history. A close one has its click early and few events that come to
// nothing by their times and workspaces, so that those that are left meet each other.
func (g generator) draw(t *rapid.T) *history {
	h := &history{}
	isClose := !g.together && rapid.SampledFrom([]bool{true, true, false}).Draw(t, "close")
	if rapid.IntRange(0, 9).Draw(t, "click?") > 0 || isClose {
		h.click = drawClick(t)
		h.at = at(time.Duration(rapid.IntRange(0, cmp.Or(g.latest, 80)).Draw(t, "at")) * time.Hour)
	}
	switch {
	case isClose:
		h.at = at(time.Duration(rapid.IntRange(0, 3).Draw(t, "at")) * time.Hour)
		h.click.WindowMs = time.Hour.Milliseconds()
	case g.together:
		h.at = at(time.Duration(rapid.IntRange(0, 4).Draw(t, "at in half hours")) * 30 * time.Minute)
	case rapid.IntRange(0, 3).Draw(t, "limit?") == 0:
		h.limit = rapid.IntRange(1, 3).Draw(t, "limit")
	}
	var now time.Duration
	for i := range rapid.IntRange(1, g.max).Draw(t, "events") {
		if isClose && i > 0 && rapid.SampledFrom([]int{0, 1, 2, 3, 4, 5, 6, 7}).Draw(t, "again?") == 7 {
			h.events = append(h.events, drawRepeat(t, h, at(now)))
			continue
		}
		ev := g.drawEvent(t, i, isClose)
		switch {
		case g.together:
			ev.ReceivedAt = at(time.Duration(rapid.IntRange(0, 4).Draw(t, "received")) * 30 * time.Minute)
		case isClose:
			now += time.Duration(rapid.SampledFrom([]int{0, 0, 1, 2, 4, 6, 9, 10}).Draw(t, "later")) * time.Hour
			ev.ReceivedAt = at(now)
		default:
			now += time.Duration(rapid.SampledFrom([]int{0, 1, 1, 2, 5, 9, 11, 30, 59}).Draw(t, "later")) * time.Hour
			ev.ReceivedAt = at(now + time.Duration(rapid.IntRange(-2, 2).Draw(t, "skew"))*time.Hour)
		}
		ev.EnteredAt = ev.ReceivedAt
		if !g.together && rapid.SampledFrom([]int{0, 1, 2, 3}).Draw(t, "forwarded?") == 3 {
			ev.EnteredAt += event.Millis(rapid.SampledFrom([]int{1, 3600_000, 5 * 3600_000}).Draw(t, "entered"))
		}
		h.events = append(h.events, ev)
	}
	return h
}

func drawClick(t *rapid.T) *event.Click {
	hours := func(n int) int64 { return (time.Duration(n) * time.Hour).Milliseconds() }
	raw := testToken(1)
	return &event.Click{
		WorkspaceID:     "acme",
		ClickToken:      token.Text(&raw),
		ClickedAt:       at(0),
		TokenStatus:     event.TokenAppended,
		Trigger:         event.TriggerLink,
		IsBot:           rapid.Bool().Draw(t, "bot"),
		WindowMs:        hours(rapid.SampledFrom([]int{1, 20, 100}).Draw(t, "window")),
		FollowMs:        hours(rapid.SampledFrom([]int{0, 20, 1000}).Draw(t, "follow")),
		OneSalePerOrder: rapid.SampledFrom([]bool{false, false, true}).Draw(t, "one sale"),
		RewardTerms: rapid.SampledFrom([]string{"10%", "12.5%", "5.00 USD", "7 EUR", "300 JPY",
			"", "33.3333%"}).Draw(t, "terms"),
		PartnerID:           rapid.SampledFrom([]string{"", "prt_1"}).Draw(t, "partner"),
		PartnerRelationship: "approved",
		PartnerLifecycle:    rapid.SampledFrom([]string{"active", "paused"}).Draw(t, "lifecycle"),
	}
}

// drawRepeat draws an earlier event once more, as it was or with another name, amount,
// parent or time.
func drawRepeat(t *rapid.T, h *history, received event.Millis) event.Conversion {
	ev := rapid.SampledFrom(h.events).Draw(t, "repeated")
	ev.ReceivedAt, ev.EnteredAt = received, received
	switch rapid.SampledFrom([]string{"", "name", "amount", "parent", "time"}).Draw(t, "change") {
	case "name":
		ev.EventName = "repeated"
	case "amount":
		amount := int64(45)
		ev.AmountMinor, ev.Currency, ev.Exponent = &amount, "EUR", 2
	case "parent":
		ev.ParentEventID = rapid.SampledFrom(eventIDs[:len(h.events)]).Draw(t, "parent")
	case "time":
		ev.OccurredAt += event.Millis(rapid.SampledFrom([]int{1, 24 * 3600_000, 24*3600_000 + 1}).Draw(t, "by"))
	}
	ev.ContentSHA256 = ev.ContentHash()
	return ev
}

// drawEvent draws the i-th event without the times at which it was received and
// entered.
func (g generator) drawEvent(t *rapid.T, i int, isClose bool) event.Conversion {
	raw := testToken(1)
	ev := event.Conversion{WorkspaceID: "acme", ClickToken: token.Text(&raw), EventID: eventIDs[i],
		ResolvedBy: event.ResolvedByToken,
		Type: rapid.SampledFrom([]event.Type{event.Sale, event.Sale, event.Lead, event.Refund, event.Cancellation,
			event.Reversal, event.Reversal}).Draw(t, "type")}
	if !g.unique && !isClose {
		ev.EventID = rapid.SampledFrom(eventIDs[:5]).Draw(t, "id")
		ev.EventName = rapid.SampledFrom([]string{"", "", "", "other"}).Draw(t, "body")
		if rapid.IntRange(0, 7).Draw(t, "workspace?") == 0 {
			ev.WorkspaceID = "other"
		}
	}
	if !ev.Type.Positive() && g.named || rapid.Bool().Draw(t, "named") {
		ev.ParentEventID = rapid.SampledFrom(eventIDs[:g.max]).Draw(t, "parent")
		if isClose {
			ev.ParentEventID = rapid.SampledFrom(eventIDs[:min(i+2, g.max)]).Draw(t, "close parent")
		}
	}
	ev.OrderID = rapid.SampledFrom([]string{"", "o", "o", "p"}).Draw(t, "order")
	if g.together && ev.OrderID != "" && ev.Type == event.Sale {
		ev.OrderID = ev.EventID // no two of one order
	}
	if rapid.SampledFrom([]int{0, 1, 2, 3}).Draw(t, "metadata?") == 3 {
		ev.Metadata = map[string]string{"k": "v", "a": "b"}
	}
	if rapid.Bool().Draw(t, "amount?") || g.amounts && !ev.Type.Positive() {
		amount := rapid.SampledFrom([]int64{0, 1, 5, 45, 100, 155, 1<<63 - 1}).Draw(t, "amount")
		ev.AmountMinor, ev.Currency, ev.Exponent = &amount, rapid.SampledFrom(
			[]string{"EUR", "EUR", "EUR", "USD"}).Draw(t, "currency"), 2
	}
	minutes := []int{-3000, -6, -4, 0, 1, 30, 60, 61, 1201, 1202, 1260, 2460, 99999}
	if isClose { // inside the window, after it, and around the end of follow
		minutes = []int{0, 1, 30, 60, 61, 61, 90, 1200, 1201, 1260, 1261}
	}
	ev.OccurredAt = at(time.Duration(rapid.SampledFrom(minutes).Draw(t, "occurred")) * time.Minute)
	ev.ContentSHA256 = ev.ContentHash()
	return ev
}

func (h *history) String() string {
	b := &strings.Builder{}
	hours := func(m event.Millis) float64 { return float64(m-at(0)) / 3600_000 }
	if h.click != nil {
		fmt.Fprintf(b, "click at %gh, window %gh, follow %gh, one sale %v, %q\n", hours(h.at),
			float64(h.click.WindowMs)/3600_000, float64(h.click.FollowMs)/3600_000, h.click.OneSalePerOrder,
			h.click.RewardTerms)
	}
	for i := range h.events {
		e := &h.events[i]
		fmt.Fprintf(b, "%d %s %s", i, e.Type, e.EventID)
		if e.AmountMinor != nil {
			fmt.Fprintf(b, " %d %s", *e.AmountMinor, e.Currency)
		}
		fmt.Fprintf(b, " of=%q order=%q %s %s received %gh entered %gh occurred %gh\n", e.ParentEventID, e.OrderID,
			e.WorkspaceID, e.EventName, hours(e.ReceivedAt), hours(e.EnteredAt), hours(e.OccurredAt))
	}
	return b.String()
}

// drawSchedule draws any schedule that keeps what CloseWaits's caller promises.
func drawSchedule(t *rapid.T, h *history) schedule {
	n := len(h.events)
	s := schedule{
		read:  rapid.IntRange(0, n).Draw(t, "read"),
		inLog: rapid.Bool().Draw(t, "in log"),
		due:   map[int][2]event.Millis{},
		again: rapid.SliceOfN(rapid.IntRange(0, n), 0, 2).Draw(t, "again"),
	}
	for i := range n + 1 {
		if !rapid.Bool().Draw(t, "due?") {
			continue
		}
		through := at(time.Duration(rapid.IntRange(0, 200).Draw(t, "through")) * time.Hour)
		for j := i; j < n; j++ {
			through = min(through, h.events[j].EnteredAt)
		}
		clicks := through
		if h.click != nil && i < s.read {
			clicks = min(clicks, h.at)
		}
		s.due[i] = [2]event.Millis{clicks, through}
	}
	return s
}

// When the click is read, how often, and when CloseWaits is called: none of it changes
// a row, nor what is stored in the end.
func TestScheduleChangesNothing(t *testing.T) {
	cases(t, 15_000, func(t *rapid.T) {
		h := generator{max: 8}.draw(t)
		want := play(t, short, h, schedule{})
		s := drawSchedule(t, h)
		got := play(t, short, h, s)
		if d := gocmp.Diff(want.outcomes, got.outcomes); d != "" {
			t.Fatalf("%v%+v\n%s", h, s, d)
		}
		if d := gocmp.Diff(want.rows.contents(), got.rows.contents()); d != "" {
			t.Fatalf("%v%+v\n%s", h, s, d)
		}
	})
}

// summary is what the rules promise to be the same in every order.
type summary struct {
	Rows     map[string]string
	Net      map[string]string
	Standing map[string]int64
	Rewards  string
	Waiting  []string
}

func summarize(p *player, h *history) summary {
	s := summary{Rows: map[string]string{}, Net: map[string]string{}, Standing: p.standings(h)}
	net, rewards := map[string]*big.Int{}, new(big.Int)
	for _, o := range p.outcomes {
		amount := "none"
		if o.AmountMinor != nil {
			amount = fmt.Sprint(*o.AmountMinor, o.Currency)
			if o.Effect != 0 {
				if net[o.Currency] == nil {
					net[o.Currency] = new(big.Int)
				}
				net[o.Currency].Add(net[o.Currency], new(big.Int).Mul(big.NewInt(int64(o.Effect)),
					big.NewInt(*o.AmountMinor)))
			}
		}
		if o.EstimatedRewardMinor != nil {
			rewards.Add(rewards, big.NewInt(*o.EstimatedRewardMinor))
		}
		s.Rows[o.EventID] = fmt.Sprint(o.Verdict, o.Reason, o.ParentEventID, o.ParentType, o.Effect, amount,
			o.Click != nil, o.EstimatedRewardMinor != nil, o.RewardCurrency)
	}
	for c, n := range net {
		s.Net[c] = n.String()
	}
	for _, i := range p.waiting {
		s.Waiting = append(s.Waiting, h.events[i].EventID)
	}
	slices.Sort(s.Waiting)
	s.Rewards = rewards.String()
	return s
}

// Unique ids, named parents, amounts on negatives, no wait ended: every order gives the
// same, and the click may come anywhere.
func TestOrderIndependence(t *testing.T) {
	cases(t, 400, func(t *rapid.T) {
		h := generator{unique: true, named: true, amounts: true, together: true, max: 6}.draw(t)
		for _, noDues := range []bool{false, true} {
			want := summaryOf(t, h, schedule{noDues: noDues})
			permutations := 6
			for range permutations {
				other := &history{click: h.click, at: h.at, events: rapid.Permutation(h.events).Draw(t, "order")}
				for read := range len(h.events) + 1 {
					got := summaryOf(t, other, schedule{read: read, noDues: noDues})
					if d := gocmp.Diff(want, got); d != "" {
						t.Fatalf("%v\nas\n%vclick read before %d: %s", h, other, read, d)
					}
				}
			}
		}
	})
}

func summaryOf(t rapid.TB, h *history, s schedule) summary {
	return summarize(play(t, short, h, s), h)
}

// All negatives name their parent, no wait ended: a positive may come later, even if
// negatives have no amounts. Ids are unique: a later positive cannot have been the
// first with its id.
func TestLatePositiveChangesNothing(t *testing.T) {
	cases(t, 20_000, func(t *rapid.T) {
		h := generator{unique: true, named: true, together: true, max: 7}.draw(t)
		from := slices.IndexFunc(h.events, func(e event.Conversion) bool { return e.Type.Positive() })
		if from < 0 {
			return
		}
		late := &history{click: h.click, at: h.at, events: slices.Clone(h.events)}
		moved := late.events[from]
		late.events = slices.Delete(late.events, from, from+1)
		late.events = slices.Insert(late.events, rapid.IntRange(from, len(late.events)).Draw(t, "to"), moved)
		byID := func(p *player) map[string]event.Outcome {
			out := map[string]event.Outcome{}
			for _, o := range p.outcomes {
				o.EventOffset = 0
				out[o.EventID] = o
			}
			return out
		}
		want, got := byID(play(t, short, h, schedule{})), byID(play(t, short, late, schedule{}))
		if d := gocmp.Diff(want, got); d != "" {
			t.Fatalf("%v\nas\n%v%s", h, late, d)
		}
	})
}

// The rewards of a root and all under it sum to the reward of its standing amount,
// rounded half to even, computed here with fractions.
func TestRewardsSum(t *testing.T) {
	cases(t, 50_000, func(t *rapid.T) {
		h := generator{max: 10}.draw(t)
		if h.click == nil {
			return
		}
		p := play(t, short, h, schedule{})
		byID := map[string]event.Outcome{}
		for _, o := range p.outcomes {
			if o.Effect != 0 {
				byID[o.EventID] = o
			}
		}
		sums, standing := map[string]*big.Int{}, p.standings(h)
		for _, o := range byID {
			root := rootOf(byID, o)
			if root.Verdict != event.Attributed {
				t.Fatalf("%v%s has effect and no attributed root", h, o.EventID)
			}
			if sums[root.EventID] == nil {
				sums[root.EventID] = new(big.Int)
			}
			want, currency := estimate(h.click, root, standing[root.EventID])
			if (want == nil) != (o.EstimatedRewardMinor == nil) || want != nil && o.RewardCurrency != currency {
				t.Fatalf("%v%s: reward %v %q, want one in %q: %v", h, o.EventID, o.EstimatedRewardMinor,
					o.RewardCurrency, currency, want != nil)
			}
			if want != nil {
				sums[root.EventID].Add(sums[root.EventID], big.NewInt(*o.EstimatedRewardMinor))
			}
		}
		for id, sum := range sums {
			want, _ := estimate(h.click, byID[id], standing[id])
			if want != nil && want.Cmp(sum) != 0 {
				t.Fatalf("%vrewards of %s sum to %v, want %v of %d", h, id, sum, want, standing[id])
			}
		}
	})
}

// rootOf climbs from an outcome with effect to the positive at the top of its chain.
func rootOf(byID map[string]event.Outcome, o event.Outcome) event.Outcome {
	for !o.Type.Positive() {
		o = byID[o.ParentEventID]
	}
	return o
}

// estimate is r(x) in fractions; nil: no reward.
func estimate(click *event.Click, root event.Outcome, x int64) (*big.Int, string) {
	text := click.RewardTerms
	if percent, ok := strings.CutSuffix(text, "%"); ok {
		if root.AmountMinor == nil {
			return nil, ""
		}
		r, _ := new(big.Rat).SetString(percent)
		r.Mul(r, big.NewRat(x, 100))
		// half to even: floor of twice the fraction tells
		floor := new(big.Int).Div(r.Num(), r.Denom())
		rest := new(big.Rat).Sub(r, new(big.Rat).SetInt(floor))
		if c := rest.Cmp(big.NewRat(1, 2)); c > 0 || c == 0 && floor.Bit(0) == 1 {
			floor.Add(floor, big.NewInt(1))
		}
		return floor, root.Currency
	}
	if text == "" || root.OccurredAt > click.ClickedAt+event.Millis(click.WindowMs) {
		return nil, "" // a follower after the window has no flat reward
	}
	minor := map[string]int64{"5.00 USD": 500, "7 EUR": 700, "300 JPY": 300}[text]
	if x == 0 {
		minor = 0
	}
	return big.NewInt(minor), text[len(text)-3:]
}

// The standing changes of a root and of all under it sum to what stands of it, computed
// here from the rows, and on the way they are never below 0.
func TestStandingChangesSum(t *testing.T) {
	cases(t, 30_000, func(t *rapid.T) {
		h := generator{max: 10}.draw(t)
		p := play(t, short, h, drawSchedule(t, h))
		byID := map[string]event.Outcome{}
		below := map[string][]event.Outcome{}
		for _, o := range p.outcomes {
			if o.Effect != 0 {
				byID[o.EventID] = o
				if !o.Type.Positive() {
					below[o.ParentEventID] = append(below[o.ParentEventID], o)
				}
			} else if o.StandingChangeMinor != nil {
				t.Fatalf("%v%s has no effect and changes %d", h, o.EventID, *o.StandingChangeMinor)
			}
		}
		sums := map[string]*big.Int{}
		for _, offset := range p.order {
			o := p.outcomes[offset]
			if o.Effect == 0 {
				continue
			}
			root := rootOf(byID, o)
			if (root.AmountMinor == nil) != (o.StandingChangeMinor == nil) {
				t.Fatalf("%v%s: change %v of a root with amount %v", h, o.EventID, o.StandingChangeMinor,
					root.AmountMinor)
			}
			if o.StandingChangeMinor == nil {
				continue
			}
			if o.Currency != root.Currency && *o.StandingChangeMinor != 0 {
				t.Fatalf("%v%s changes %d of a root in another currency", h, o.EventID, *o.StandingChangeMinor)
			}
			if sums[root.EventID] == nil {
				sums[root.EventID] = new(big.Int)
			}
			sum := sums[root.EventID]
			if sum.Add(sum, big.NewInt(*o.StandingChangeMinor)).Sign() < 0 {
				t.Fatalf("%v%s leaves %v of its root", h, o.EventID, sum)
			}
		}
		for id, sum := range sums {
			if want := standingFrom(byID[id], below); want.Cmp(sum) != 0 {
				t.Fatalf("%vchanges of %s sum to %v, want %v", h, id, sum, want)
			}
		}
	})
}

// standingFrom is the section "Amounts" of RULES.md.
func standingFrom(o event.Outcome, below map[string][]event.Outcome) *big.Int {
	whole := big.NewInt(1)
	if o.AmountMinor != nil {
		whole.SetInt64(*o.AmountMinor)
	}
	for _, child := range below[o.EventID] {
		if child.Currency == o.Currency {
			whole.Sub(whole, standingFrom(child, below))
		}
	}
	if whole.Sign() < 0 {
		whole.SetInt64(0)
	}
	return whole
}

// A journey begun under version 1 is finished under version 2, whenever that begins: as
// if version 2 had been there from the start, but for two flags that version 1's rows
// cannot always tell. These are never set in error.
func TestUpgrade(t *testing.T) {
	cases(t, 20_000, func(t *rapid.T) {
		h := generator{max: 10}.draw(t)
		if h.click != nil {
			h.click.FollowMs, h.click.OneSalePerOrder = 0, false
		}
		for i := range h.events {
			h.events[i].EnteredAt = h.events[i].ReceivedAt
			h.events[i].Metadata = nil
			h.events[i].ContentSHA256 = h.events[i].ContentHash()
		}
		s := drawSchedule(t, h)
		want := play(t, short, h, s)
		s.upgrade = rapid.IntRange(1, len(h.events)).Draw(t, "upgrade")
		got := play(t, short, h, s)
		for offset, o := range want.outcomes {
			u := got.outcomes[offset]
			for _, flag := range u.Flags {
				if !slices.Contains(o.Flags, flag) {
					t.Fatalf("%v%+v\n%s has flag %s only after the upgrade", h, s, o.EventID, flag)
				}
			}
			if len(u.Flags) < len(o.Flags) {
				u.Flags, u.Review = slices.Clone(u.Flags), o.Review
				unknown := []string{event.FlagMoneyDiffers, event.FlagDatedBack}
				o.Flags = slices.DeleteFunc(slices.Clone(o.Flags), func(flag string) bool {
					return slices.Contains(unknown, flag) && !slices.Contains(u.Flags, flag)
				})
			}
			if d := gocmp.Diff(o, u); d != "" {
				t.Fatalf("%v%+v\n%s", h, s, d)
			}
		}
		if d := gocmp.Diff(want.standings(h), got.standings(h)); d != "" {
			t.Fatalf("%v%+v\n%s", h, s, d)
		}
	})
}

// The rules were written down twice by different people: here as they run, in package
// oracle as they read.
func TestOracle(t *testing.T) {
	cases(t, 15_000, func(t *rapid.T) {
		h := generator{max: 10, latest: 50}.draw(t)
		s := drawSchedule(t, h)
		s.noDues = rapid.Bool().Draw(t, "now")
		through := forever
		if s.noDues {
			s.due, through = nil, 0
		}
		p := play(t, short, h, s)
		var clicks []oracle.Click
		if h.click != nil {
			clicks = append(clicks, oracle.Click{Click: *h.click, At: h.at})
		}
		var events []oracle.Event
		for i, e := range h.events {
			events = append(events, oracle.Event{Conversion: e, Partition: 3, Offset: int64(i)})
		}
		cfg := oracle.Config{
			Grace:       short.Grace,
			ClickLife:   short.ClickLife,
			JourneyLife: short.JourneyLife,
			MaxEvents:   h.limit,
		}
		want := oracle.Judge(cfg, clicks, events, through)
		for _, o := range want.Outcomes {
			got, ok := p.outcomes[o.EventOffset]
			if !ok && s.noDues {
				// a click wait that an event found ended is written by ApplyClick or
				// CloseWaits only
				continue
			}
			for _, flags := range []*[]string{&o.Flags, &got.Flags} {
				if len(*flags) == 0 {
					*flags = nil
				}
			}
			if d := gocmp.Diff(o, got); d != "" {
				t.Fatalf("%v%+v\n(-oracle +rules)\n%s", h, s, d)
			}
		}
		for _, w := range want.Waiting {
			if o, ok := p.outcomes[w.Offset]; ok {
				t.Fatalf("%v%+v\nevent %d waits for the oracle, the rules say %v %v",
					h, s, w.Offset, o.Verdict, o.Reason)
			}
		}
		standing := map[string]int64{}
		for at, m := range want.Standing {
			standing[h.events[at.Offset].EventID] = m.Minor
		}
		if d := gocmp.Diff(standing, p.standings(h)); d != "" && through == forever {
			t.Fatalf("%v%+v\nstanding (-oracle +rules)\n%s", h, s, d)
		}
	})
}
