package rollup

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// naiveStanding computes what stands of an event from all events of its token.
func naiveStanding(rows []chainRow, of string) int64 {
	var left int64
	for _, r := range rows {
		if r.eventID != of {
			continue
		}
		left = 1
		if r.amount != nil {
			left = *r.amount
		}
		for _, child := range rows {
			if !child.positive && child.parentID == of && (child.amount == nil) == (r.amount == nil) &&
				child.currency == r.currency {
				left -= min(left, naiveStanding(rows, child.eventID))
			}
		}
	}
	return left
}

// In every order, each change is what stands of the root after the row less what stood
// before it, and the changes of a root's chain add up to what stands of it.
func TestReplayAgainstNaiveModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := drawRows(t)
		for i, change := range replayToken(rows, nil) {
			root := rows[i]
			for !root.positive {
				for _, r := range rows {
					if r.eventID == root.parentID {
						root = r
						break
					}
				}
			}
			if change.basis != basisChain || (change.minor == nil) != (root.amount == nil) {
				t.Fatalf("row %d: %+v", i, change)
			}
			if change.minor == nil {
				continue
			}
			before := int64(0)
			if root.offset < rows[i].offset {
				before = naiveStanding(rows[:i], root.eventID)
			}
			if want := naiveStanding(rows[:i+1], root.eventID) - before; *change.minor != want {
				t.Fatalf("row %d of %+v changes %d, want %d", i, rows, *change.minor, want)
			}
		}
	})
}

// drawRows makes chains in which every parent comes before its children.
func drawRows(t *rapid.T) (rows []chainRow) {
	for i := range rapid.IntRange(1, 12).Draw(t, "rows") {
		r := chainRow{offset: uint64(i * 3), eventID: fmt.Sprint("e", i), effect: 1}
		if r.positive = i == 0 || rapid.Bool().Draw(t, "positive"); !r.positive {
			parent := rows[rapid.IntRange(0, i-1).Draw(t, "parent")]
			r.parentID = parent.eventID
			r.effect = -parent.effect
		}
		if rapid.IntRange(0, 4).Draw(t, "amount") > 0 {
			amount := rapid.Int64Range(0, 5).Draw(t, "minor")
			r.amount = &amount
			r.currency = rapid.SampledFrom([]string{"EUR", "USD"}).Draw(t, "currency")
			r.exponent = 2
		}
		rows = append(rows, r)
	}
	return rows
}
