package dispute

import (
	"cmp"
	"maps"
	"slices"

	"github.com/nimriz/partners/connectors/report"
	"github.com/shopspring/decimal"
)

// moneyByCurrency adds up money of several currencies.
type moneyByCurrency map[string]decimal.Decimal

func (m moneyByCurrency) add(x report.Money) {
	if before, ok := m[x.Currency]; ok {
		x.Amount = x.Amount.Add(before)
	}
	m[x.Currency] = x.Amount
}

// list is in the order of the currencies.
func (m moneyByCurrency) list() (list []report.Money) {
	for _, currency := range slices.Sorted(maps.Keys(m)) {
		list = append(list, report.Money{Amount: m[currency], Currency: currency})
	}
	return list
}

// setConfirmed puts what stands of events into the finding, in the claim's currency,
// else the first event's.
func (f *Finding) setConfirmed(standing moneyByCurrency, events []*report.Event) {
	f.Currency = f.Claim.Currency
	for _, e := range events {
		f.Currency = cmp.Or(f.Currency, e.Currency)
	}
	if amount, ok := standing[f.Currency]; ok {
		f.Confirmed = &amount
		delete(standing, f.Currency)
	}
	f.Other = standing.list()
	for _, m := range f.Other {
		f.Words += "; also " + m.String()
	}
}

// setBeyond puts what changed nothing of what stands into the finding.
func (f *Finding) setBeyond(taken, given moneyByCurrency) {
	f.TakenBeyond = taken.list()
	for _, m := range f.TakenBeyond {
		f.Words += "; " + m.String() + " taken back beyond what stood"
	}
	f.GivenBeyond = given.list()
	for _, m := range f.GivenBeyond {
		f.Words += "; " + m.String() + " given back beyond what was taken"
	}
}

// setDifference compares what was claimed with what is confirmed: nothing, of a claim
// of which nothing stands.
func (f *Finding) setDifference() {
	f.Currency = cmp.Or(f.Currency, f.Claim.Currency)
	if f.Amount == nil {
		return
	}
	if f.Confirmed == nil {
		nothing := decimal.New(0, f.Amount.Exponent())
		f.Confirmed = &nothing
	}
	difference := f.Amount.Sub(*f.Confirmed)
	f.Difference = &difference
}

func (d *Dispute) total(currency string) *Total {
	if d.totals[currency] == nil {
		d.totals[currency] = &Total{Currency: currency}
	}
	return d.totals[currency]
}

func (d *Dispute) addToTotals(f *Finding) {
	switch {
	case f.Amount != nil:
		t := d.total(f.Currency)
		t.Claimed = t.Claimed.Add(*f.Amount)
		t.Confirmed = t.Confirmed.Add(*f.Confirmed)
		t.Difference = t.Difference.Add(*f.Difference)
	case f.Confirmed != nil:
		t := d.total(f.Currency)
		t.Unpriced = t.Unpriced.Add(*f.Confirmed)
	}
	for _, m := range f.Other {
		t := d.total(m.Currency)
		t.Unpriced = t.Unpriced.Add(m.Amount)
	}
}
