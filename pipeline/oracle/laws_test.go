package oracle_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/schemas/event"
	"pgregory.net/rapid"
)

var (
	workspaces = []string{"acme", "acme", "acme", "acme", "globex"}
	terms      = []string{"10%", "12.5%", "33.3333%", "5.00 USD", ""}
	currencies = []string{"EUR", "EUR", "EUR", "JPY"}
)

// drawLimits says what drawn histories are limited to. With ownOrders, no two sales have
// the same order id.
type drawLimits struct{ ownIDs, ownOrders, namedParents, amounts, inLife bool }

// drawHistory makes up to a dozen events of one token, a minute apart, few ids and
// orders among them so that they meet.
func drawHistory(t *rapid.T, limit drawLimits) (oracle.Click, []oracle.Event) {
	click := parseClick(noFail{}, nil)
	click.RewardTerms = rapid.SampledFrom(terms).Draw(t, "terms")
	click.IsBot = rapid.Bool().Draw(t, "bot")
	click.FollowMs = rapid.SampledFrom([]int64{0, day.Milliseconds(), (365 * day).Milliseconds()}).Draw(t, "follow")
	click.OneSalePerOrder = rapid.Bool().Draw(t, "one sale")
	var events []oracle.Event
	for i := range rapid.IntRange(1, 12).Draw(t, "events") {
		at := t0.Add(time.Duration(i+1) * time.Minute)
		if !limit.inLife && rapid.IntRange(0, 5).Draw(t, "late") == 0 {
			at = t0.Add(40*day + time.Duration(i)*time.Minute) // the grace is long enough below
		}
		e := oracle.Event{Offset: int64(i), Conversion: event.Conversion{ClickToken: click.ClickToken, OccurredAt: at,
			ReceivedAt:  at,
			EnteredAt:   at,
			WorkspaceID: rapid.SampledFrom(workspaces).Draw(t, "workspace"),
			Type:        rapid.SampledFrom(event.Types()).Draw(t, "type")}}
		id := rapid.IntRange(0, 6)
		e.EventID = fmt.Sprintf("e%02d", id.Draw(t, "id"))
		if limit.ownIDs {
			e.EventID = fmt.Sprintf("e%02d", i)
		}
		if e.Type.Positive() {
			switch rapid.IntRange(0, 5).Draw(t, "date") {
			case 0:
				e.OccurredAt = t0.Add(-time.Hour)
			case 1, 2: // after the window
				e.OccurredAt = t0.Add(30*day + 2*time.Hour)
			}
		}
		if !e.Type.Positive() && limit.namedParents || rapid.Bool().Draw(t, "named") {
			e.ParentEventID = fmt.Sprintf("e%02d", id.Draw(t, "parent"))
		}
		e.OrderID = rapid.SampledFrom([]string{"", "o", "p"}).Draw(t, "order")
		if limit.ownOrders && e.Type == event.Sale {
			e.OrderID = fmt.Sprintf("o%02d", i)
		}
		if limit.amounts || rapid.IntRange(0, 2).Draw(t, "amount") > 0 {
			minor := rapid.Int64Range(0, 40).Draw(t, "minor")
			e.AmountMinor, e.Currency = &minor, rapid.SampledFrom(currencies).Draw(t, "currency")
			if e.Currency == "EUR" {
				e.Exponent = 2
			}
		}
		e.ContentSHA256 = e.ContentHash()
		events = append(events, e)
	}
	return click, events
}

type noFail struct{ testing.TB }

func (noFail) Helper() {}

// longGraceConfig is a configuration in which no wait ends within a drawn history.
func longGraceConfig() oracle.Config {
	cfg := oracle.DefaultConfig()
	cfg.Grace = 100 * day
	return cfg
}

// "A late click changes nothing (its waits not having ended)."
func TestLateClickChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		click, events := drawHistory(t, drawLimits{})
		early := oracle.Judge(longGraceConfig(), []oracle.Click{click}, events, 0)
		click.At = t0.Add(time.Duration(rapid.IntRange(0, 60*24*60).Draw(t, "minute")) * time.Minute)
		late := oracle.Judge(longGraceConfig(), []oracle.Click{click}, events, 0)
		if d := oracle.Diff(early.Outcomes, late.Outcomes); d != nil {
			t.Fatal(strings.Join(d, "\n"))
		}
	})
}

// "A late positive changes nothing where all negatives name their parent, all events
// were received within the click life and no wait ended." Ids are unique here, of events
// and of the sales' orders: of two with one id it is the first that counts.
func TestLatePositiveChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		click, events := drawHistory(t, drawLimits{ownIDs: true, ownOrders: true, namedParents: true, inLife: true})
		before := oracle.Judge(longGraceConfig(), []oracle.Click{click}, events, 0)
		moved := rapid.IntRange(0, len(events)-1).Draw(t, "moved")
		if !events[moved].Type.Positive() {
			t.Skip("a negative")
		}
		order := slices.Clone(events)
		e := order[moved]
		order = append(slices.Delete(order, moved, moved+1), e)
		after := oracle.Judge(longGraceConfig(), []oracle.Click{click}, renumber(order), 0)
		compareByID(t, before, after, func(*event.Outcome) {})
	})
}

// "For a token whose event ids are unique and whose negatives name their parent and
// carry an amount, and no two of its sales have one order id and no follower waits …
// verdict, reason, parent, effect, amount and snapshot of every row, net per currency,
// the standing amount of every event and the sum of rewards are the same in every order,
// click included." Here followers do wait: as long as no wait ends, that changes nothing
// either.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		click, events := drawHistory(t,
			drawLimits{ownIDs: true, ownOrders: true, namedParents: true, amounts: true, inLife: true})
		before := oracle.Judge(longGraceConfig(), []oracle.Click{click}, events, 0)
		order := slices.Clone(events)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0))
		r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		click.At = t0.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "minute")) * time.Minute)
		after := oracle.Judge(longGraceConfig(), []oracle.Click{click}, renumber(order), 0)
		compareByID(t, before, after, func(o *event.Outcome) {
			o.EstimatedRewardMinor, o.StandingChangeMinor = nil, nil
			o.Flags = slices.DeleteFunc(slices.Clone(o.Flags), func(f string) bool {
				return f == event.FlagOverReversed
			})
			o.Review = ""
		})
		if a, b := sumTotals(before), sumTotals(after); a != b {
			t.Fatalf("net and rewards are %s, were %s", b, a)
		}
	})
}

// "The rewards of a root and of all events below it add up to the reward of the present
// standing amount"; every event has one row or waits; and every row with effect belongs
// to a chain that ends at an attributed positive.
func TestChainsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		click, events := drawHistory(t, drawLimits{})
		click.RewardTerms = rapid.SampledFrom([]string{"10%", "50%"}).Draw(t, "percent")
		result := oracle.Judge(longGraceConfig(), []oracle.Click{click}, events, 0)
		if len(result.Outcomes)+len(result.Waiting) != len(events) {
			t.Fatalf("%d rows and %d waiting of %d events", len(result.Outcomes), len(result.Waiting), len(events))
		}
		kept := make(map[string]event.Outcome)
		for _, o := range result.Outcomes {
			if o.Effect != 0 {
				kept[o.EventID] = o
			}
		}
		rewards, roots := make(map[string]int64), make(map[string]event.Outcome)
		for _, o := range kept {
			root := o
			for root.Verdict == event.Reversed {
				root = kept[root.ParentEventID]
			}
			if root.Verdict != event.Attributed || root.Effect != 1 {
				t.Fatalf("%s has effect and ends at %+v", o.EventID, root)
			}
			roots[root.EventID] = root
			if (o.EstimatedRewardMinor == nil) != (root.AmountMinor == nil) {
				t.Fatalf("%s: a percentage of a root with an amount, and only that, is a reward", o.EventID)
			}
			if o.EstimatedRewardMinor != nil {
				rewards[root.EventID] += *o.EstimatedRewardMinor
			}
		}
		for id, root := range roots {
			standing := result.Standing[oracle.Position{Offset: root.EventOffset}].Minor
			if root.AmountMinor == nil {
				standing = 0
			}
			want := standing / 10
			if rest := standing % 10; rest > 5 || rest == 5 && want%2 == 1 {
				want++
			}
			if click.RewardTerms == "50%" {
				want = standing / 2
				if standing%2 == 1 && want%2 == 1 {
					want++
				}
			}
			if rewards[id] != want {
				t.Fatalf("rewards of %s are %d, want %d of %d", id, rewards[id], want, standing)
			}
		}
	})
}

// "The sum of the changes over any set of whole chains is what stands of their roots; it
// is never negative", in whatever order the events came.
func TestStandingChangesAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		click, events := drawHistory(t, drawLimits{})
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0))
		r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		result := oracle.Judge(longGraceConfig(), []oracle.Click{click}, renumber(events), 0)
		rows := make(map[string]event.Outcome) // with effect, by event id
		for _, o := range result.Outcomes {
			if o.Effect != 0 {
				rows[o.EventID] = o
			} else if o.StandingChangeMinor != nil {
				t.Fatalf("%s has no effect and changes what stands", o.EventID)
			}
		}
		sums := make(map[string]int64) // by root
		for _, o := range rows {
			root := o
			for root.Verdict == event.Reversed {
				root = rows[root.ParentEventID]
			}
			if (o.StandingChangeMinor == nil) != (root.AmountMinor == nil) {
				t.Fatalf("%s: a change is wanted where the root has an amount, and only there", o.EventID)
			}
			if o.StandingChangeMinor == nil {
				continue
			}
			if o.Currency != root.Currency && *o.StandingChangeMinor != 0 {
				t.Fatalf("%s in %s changes what stands of %s", o.EventID, o.Currency, root.Currency)
			}
			sums[root.EventID] += *o.StandingChangeMinor
		}
		for id, sum := range sums {
			stands := result.Standing[oracle.Position{Offset: rows[id].EventOffset}].Minor
			if sum != stands || sum < 0 {
				t.Fatalf("the changes of %s add up to %d, and %d stands", id, sum, stands)
			}
		}
	})
}

// "A follower is a root of its own": what is taken back of the others changes nothing of
// it, and of those who follow it.
func TestTakingBackChangesNoFollower(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		click, events := drawHistory(t, drawLimits{ownIDs: true, ownOrders: true, inLife: true})
		click.FollowMs = (365 * day).Milliseconds()
		all := oracle.Judge(longGraceConfig(), []oracle.Click{click}, events, 0)
		positives := slices.DeleteFunc(slices.Clone(events), func(e oracle.Event) bool { return !e.Type.Positive() })
		alone := oracle.Judge(longGraceConfig(), []oracle.Click{click}, positives, 0)
		attributed := func(rows []event.Outcome) []event.Outcome {
			return slices.DeleteFunc(slices.Clone(rows), func(o event.Outcome) bool {
				return o.Verdict != event.Attributed
			})
		}
		if d := oracle.Diff(attributed(all.Outcomes), attributed(alone.Outcomes)); d != nil {
			t.Fatal(strings.Join(d, "\n"))
		}
	})
}

func renumber(events []oracle.Event) []oracle.Event {
	for i := range events {
		events[i].Offset = int64(i)
	}
	return events
}

// compareByID compares results of the same events, whose ids are unique, in different
// orders. forget removes what the order may change.
func compareByID(t *rapid.T, want, got oracle.Result, forget func(*event.Outcome)) {
	t.Helper()
	byID := func(r oracle.Result) []event.Outcome {
		rows := slices.Clone(r.Outcomes)
		for i := range rows {
			// ids are e00, e01, …
			rows[i].EventOffset = int64(rows[i].EventID[1])<<8 + int64(rows[i].EventID[2])
			forget(&rows[i])
		}
		return rows
	}
	if d := oracle.Diff(byID(want), byID(got)); d != nil {
		t.Fatal(strings.Join(d, "\n"))
	}
	standing := func(r oracle.Result) string {
		var lines []string
		for _, o := range r.Outcomes {
			if m, ok := r.Standing[oracle.Position{Offset: o.EventOffset}]; ok {
				lines = append(lines, fmt.Sprint(o.EventID, " ", m))
			}
		}
		slices.Sort(lines)
		return strings.Join(lines, "; ")
	}
	if a, b := standing(want), standing(got); a != b {
		t.Fatalf("standing amounts are\n%s, were\n%s", b, a)
	}
}

func sumTotals(r oracle.Result) string {
	totals := make(map[string]int64)
	for _, o := range r.Outcomes {
		if o.AmountMinor != nil {
			totals["net "+o.Currency] += int64(o.Effect) * *o.AmountMinor
		}
		if o.EstimatedRewardMinor != nil {
			totals["reward "+o.RewardCurrency] += *o.EstimatedRewardMinor
		}
	}
	return fmt.Sprint(totals)
}
