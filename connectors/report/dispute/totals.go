package dispute

import (
	"cmp"
	"slices"
	"strings"

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

// setNet puts what events net into the finding, in the claim's currency, else the first
// event's.
func (f *Finding) setNet(nets moneyByCurrency, events []*report.Event) {
	f.Currency = f.Claim.Currency
	for _, e := range events {
		f.Currency = cmp.Or(f.Currency, e.Currency)
	}
	if net, ok := nets[f.Currency]; ok {
		f.Net = &net
	}
	for currency, net := range nets {
		if currency != f.Currency {
			f.Other = append(f.Other, report.Money{Amount: net, Currency: currency})
		}
	}
	slices.SortFunc(f.Other, func(a, b report.Money) int { return strings.Compare(a.Currency, b.Currency) })
	for _, m := range f.Other {
		f.Words += "; also " + m.String()
	}
}

// setDifference compares what was claimed with the net. Of a claim without net, nothing
// is confirmed.
func (f *Finding) setDifference() {
	f.Currency = cmp.Or(f.Currency, f.Claim.Currency)
	if f.Amount == nil {
		return
	}
	if f.Net == nil {
		nothing := decimal.New(0, f.Amount.Exponent())
		f.Net = &nothing
	}
	difference := f.Amount.Sub(*f.Net)
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
		t.Confirmed = t.Confirmed.Add(*f.Net)
		t.Difference = t.Difference.Add(*f.Difference)
	case f.Net != nil:
		t := d.total(f.Currency)
		t.Unpriced = t.Unpriced.Add(*f.Net)
	}
	for _, m := range f.Other {
		t := d.total(m.Currency)
		t.Unpriced = t.Unpriced.Add(m.Amount)
	}
}
