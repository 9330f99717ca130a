package oracle

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

// DailyKey names a row of the rollup.
type DailyKey struct {
	WorkspaceID string
	Day         string // 2026-01-31: of clicked_at for clicks, of occurred_at for outcomes
	PartnerID   string // as in the click's snapshot, like the next two
	ProgramID   string
	LinkID      string
	Currency    string // ISO 4217; empty for clicks and for rows without amount
	Exponent    int32  // decimals of Currency
}

// DailyRow is a row of the rollup partner_daily.
type DailyRow struct {
	DailyKey
	DailySums
}

// DaysRow is a row of partner_days: one of partner_daily, on a day of some zone, with
// its reversed events told apart by their effect.
type DaysRow struct {
	DailyKey
	DaysSums
}

// DaysSums are the columns of partner_days that add up.
type DaysSums struct {
	DailySums
	TakenBack      int64 // reversed, effect −1
	GivenBack      int64 // reversed, effect +1
	TakenBackMinor int64 // amounts of TakenBack, ≥ 0
	GivenBackMinor int64 // amounts of GivenBack, ≥ 0
}

// DailySums are the columns of the rollup that add up. Counts of events count rows with
// effect.
type DailySums struct {
	Clicks        int64
	HumanClicks   int64 // clicks that are not a bot's
	TokenedClicks int64 // clicks whose token was shown
	Leads         int64 // attributed
	Sales         int64 // attributed
	Refunds       int64 // reversed
	Cancellations int64 // reversed
	Reversals     int64 // reversed
	GrossMinor    int64 // sum of attributed amounts, minor units of Currency
	NegativeMinor int64 // sum of effect × amount of reversed rows
	NetMinor      int64 // gross + negative
	StandingMinor int64 // sum of standing changes

	// The parts of reversed amounts that changed nothing of what stands, by effect: −1
	// and +1.
	TakenBeyondMinor int64
	GivenBeyondMinor int64

	RewardMinor int64 // sum of estimated rewards, minor units of Currency
}

// Daily recomputes the rollup partner_daily, whose days are those of UTC, from all
// clicks and all outcomes, sorted by its key. A click that is given twice counts once.
// Rows in which everything is 0 are left out; a reward of 0 in a currency of its own
// would make one.
func Daily(clicks []Click, outcomes []event.Outcome) []DailyRow {
	var rows []DailyRow
	for _, r := range Days(clicks, outcomes, time.UTC) {
		rows = append(rows, DailyRow{r.DailyKey, r.DailySums})
	}
	return rows
}

// Days recomputes partner_days like Daily. The day of an instant is the date that the
// zone's clock shows then.
func Days(clicks []Click, outcomes []event.Outcome, zone *time.Location) []DaysRow {
	d := days{zone, make(map[DailyKey]DaysSums)}
	d.addClicks(clicks)
	for i := range outcomes {
		if o := &outcomes[i]; o.Effect != 0 && o.Click != nil {
			d.addOutcome(o)
		}
	}
	var rows []DaysRow
	for _, k := range slices.SortedFunc(maps.Keys(d.sums), DailyKey.compareKeys) {
		if d.sums[k] != (DaysSums{}) {
			rows = append(rows, DaysRow{k, d.sums[k]})
		}
	}
	return rows
}

type days struct {
	zone *time.Location
	sums map[DailyKey]DaysSums
}

func (d days) addClicks(clicks []Click) {
	seen := make(map[string]bool)
	for i := range clicks {
		c := &clicks[i]
		if seen[c.ClickToken] {
			continue
		}
		seen[c.ClickToken] = true
		k := d.keyOf(&c.Click, c.ClickedAt, "", 0)
		s := d.sums[k]
		s.Clicks++
		if !c.IsBot {
			s.HumanClicks++
		}
		if c.TokenStatus == event.TokenAppended {
			s.TokenedClicks++
		}
		d.sums[k] = s
	}
}

// addOutcome adds an outcome with effect. Its reward may be in a currency of its own.
func (d days) addOutcome(o *event.Outcome) {
	k := d.keyOf(o.Click, o.OccurredAt, o.Currency, o.Exponent)
	d.sums[k] = d.sums[k].withEvent(o)
	if o.EstimatedRewardMinor == nil {
		return
	}
	k = d.keyOf(o.Click, o.OccurredAt, o.RewardCurrency, currencyDigits(o.RewardCurrency))
	s := d.sums[k]
	s.RewardMinor += *o.EstimatedRewardMinor
	d.sums[k] = s
}

func (d days) keyOf(c *event.Click, at event.Millis, currency string, exponent int32) DailyKey {
	return DailyKey{
		WorkspaceID: c.WorkspaceID,
		Day:         at.Time().In(d.zone).Format(time.DateOnly),
		PartnerID:   c.PartnerID,
		ProgramID:   c.ProgramID,
		LinkID:      c.LinkID,
		Currency:    currency,
		Exponent:    exponent,
	}
}

func (k DailyKey) compareKeys(o DailyKey) int {
	return cmp.Or(
		cmp.Compare(k.WorkspaceID, o.WorkspaceID),
		cmp.Compare(k.Day, o.Day),
		cmp.Compare(k.PartnerID, o.PartnerID),
		cmp.Compare(k.ProgramID, o.ProgramID),
		cmp.Compare(k.LinkID, o.LinkID),
		cmp.Compare(k.Currency, o.Currency),
		cmp.Compare(k.Exponent, o.Exponent),
	)
}

// withEvent adds the event of an outcome with effect, without its reward.
func (s DaysSums) withEvent(o *event.Outcome) DaysSums {
	s.DailySums = s.DailySums.withEvent(o)
	if o.Verdict != event.Reversed {
		return s
	}
	amount := int64(0)
	if o.AmountMinor != nil {
		amount = *o.AmountMinor
	}
	if o.Effect < 0 {
		s.TakenBack++
		s.TakenBackMinor += amount
	} else {
		s.GivenBack++
		s.GivenBackMinor += amount
	}
	return s
}

// withEvent adds the event of an outcome with effect, without its reward.
func (s DailySums) withEvent(o *event.Outcome) DailySums {
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
	change := int64(0)
	if c := standingChange(o); c != nil {
		change = *c
	}
	s.StandingMinor += change
	switch {
	case signed < 0:
		s.TakenBeyondMinor += change - signed
	case o.Verdict == event.Reversed:
		s.GivenBeyondMinor += signed - change
	}
	return s
}

// standingChange returns what an outcome changes of its root's standing amount. Rules
// version 1 does not say it: effect × amount stands in.
func standingChange(o *event.Outcome) *int64 {
	if o.RulesVersion >= 2 || o.Effect == 0 || o.AmountMinor == nil {
		return o.StandingChangeMinor
	}
	net := int64(o.Effect) * *o.AmountMinor
	return &net
}
