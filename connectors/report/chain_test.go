package report

import (
	"fmt"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// The standing amount, against its definition: max(0, amount − Σ standing of the
// reversed children in the same currency), whatever the order of the events.
func TestStandingIsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := []*Event{{EventID: "0"}}
		amounts := rapid.SampledFrom([]int64{-1, 0, 1, 30, 60, 100, 1<<63 - 1})
		for i := range rapid.IntRange(1, 12).Draw(t, "events") {
			e := &Event{EventID: fmt.Sprint(i), OutcomeOffset: uint64(i), Effect: 1, Verdict: "reversed"}
			if i > 0 {
				e.ParentEventID = fmt.Sprint(rapid.IntRange(0, i-1).Draw(t, "parent"))
			}
			if amount := amounts.Draw(t, "amount"); amount >= 0 {
				e.AmountMinor, e.Currency = &amount, rapid.SampledFrom([]string{"EUR", "USD"}).Draw(t, "currency")
			}
			if i > 0 && rapid.IntRange(0, 5).Draw(t, "effect") == 0 {
				e.Effect = 0
			}
			if i == 0 {
				events = nil
			}
			events = append(events, e)
		}
		var model func(e *Event) *big.Int
		model = func(e *Event) *big.Int {
			left := big.NewInt(1)
			if e.AmountMinor != nil {
				left = big.NewInt(*e.AmountMinor)
			}
			for _, c := range events {
				if c.Effect != 0 && c != e && c.ParentEventID == e.EventID &&
					(c.AmountMinor == nil) == (e.AmountMinor == nil) && c.Currency == e.Currency {
					left.Sub(left, model(c))
				}
			}
			if left.Sign() < 0 {
				return new(big.Int)
			}
			return left
		}
		got := StandingAmounts(rapid.Permutation(events).Draw(t, "order"))
		for _, e := range events {
			n, ok := got[e]
			if ok != (e.Effect != 0) || ok && n != model(e).Int64() {
				t.Fatalf("event %s: %d, %t; want %d", e.EventID, n, ok, model(e))
			}
		}
	})
}
