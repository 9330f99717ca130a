package oracle

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

// DailyKey is what a row of the rollup is about.
type DailyKey struct {
	WorkspaceID string
	Day         string // 2026-01-31, UTC: of clicked_at for clicks, of occurred_at for outcomes
	PartnerID   string
	ProgramID   string
	LinkID      string
	Currency    string // empty for clicks and for rows without amount
	Exponent    int32
}

// DailyRow is a row of the rollup partner_daily. Counts of events are of rows with
// effect.
type DailyRow struct {
	DailyKey
	DailySums
}

// DailySums are the columns of the rollup that add up.
type DailySums struct {
	Clicks, HumanClicks, TokenedClicks               int64
	Leads, Sales                                     int64 // attributed
	Refunds, Cancellations, Reversals                int64 // reversed
	GrossMinor, NegativeMinor, NetMinor, RewardMinor int64
}

// Daily recomputes the rollup partner_daily from all clicks and all outcomes, sorted by
// its key. A click that is given twice counts once. A row in which everything is 0 (a
// reward of 0 in a currency of its own makes one) says nothing and is left out.
func Daily(clicks []Click, outcomes []event.Outcome) []DailyRow {
	sums := make(map[DailyKey]DailySums)
	seen := make(map[string]bool)
	for i := range clicks {
		c := &clicks[i]
		if seen[c.ClickToken] {
			continue
		}
		seen[c.ClickToken] = true
		k := dailyKey(&c.Click, c.ClickedAt, "", 0)
		s := sums[k]
		s.Clicks++
		if !c.IsBot {
			s.HumanClicks++
		}
		if c.TokenStatus == event.TokenAppended {
			s.TokenedClicks++
		}
		sums[k] = s
	}
	for i := range outcomes {
		o := &outcomes[i]
		if o.Effect == 0 || o.Click == nil {
			continue
		}
		k := dailyKey(o.Click, o.OccurredAt, o.Currency, o.Exponent)
		sums[k] = sums[k].with(o)
		if o.EstimatedRewardMinor != nil {
			k := dailyKey(o.Click, o.OccurredAt, o.RewardCurrency, digits(o.RewardCurrency))
			s := sums[k]
			s.RewardMinor += *o.EstimatedRewardMinor
			sums[k] = s
		}
	}
	var rows []DailyRow
	for _, k := range slices.SortedFunc(maps.Keys(sums), DailyKey.compare) {
		if sums[k] != (DailySums{}) {
			rows = append(rows, DailyRow{k, sums[k]})
		}
	}
	return rows
}

func dailyKey(c *event.Click, at event.Millis, currency string, exponent int32) DailyKey {
	return DailyKey{c.WorkspaceID, at.Time().Format(time.DateOnly), c.PartnerID, c.ProgramID, c.LinkID, currency,
		exponent}
}

func (k DailyKey) compare(o DailyKey) int {
	return cmp.Or(cmp.Compare(k.WorkspaceID, o.WorkspaceID), cmp.Compare(k.Day, o.Day),
		cmp.Compare(k.PartnerID, o.PartnerID),
		cmp.Compare(k.ProgramID, o.ProgramID), cmp.Compare(k.LinkID, o.LinkID), cmp.Compare(k.Currency, o.Currency),
		cmp.Compare(k.Exponent, o.Exponent))
}

// with adds an outcome that has effect, its reward apart.
func (s DailySums) with(o *event.Outcome) DailySums {
	switch o.Type {
	case event.Lead:
		s.Leads++
	case event.Sale:
		s.Sales++
	case event.Refund:
		s.Refunds++
	case event.Cancellation:
		s.Cancellations++
	case event.Reversal:
		s.Reversals++
	}
	if o.AmountMinor == nil {
		return s
	}
	signed := int64(o.Effect) * *o.AmountMinor
	if o.Verdict == event.Attributed {
		s.GrossMinor += signed
	} else {
		s.NegativeMinor += signed
	}
	s.NetMinor += signed
	return s
}
