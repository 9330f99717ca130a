package web

import (
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
)

// moneyLine is the sums of one currency, as a page shows them.
type moneyLine struct {
	Currency string // ISO 4217
	Gross    string // of attributed events
	Negative string // of reversed events
	Net      string // the sum of both
	Reward   string // estimated
	Down     bool   // the net is below zero
}

// groupDigits writes a number in groups of three digits, with a space that does not
// break, and with a minus sign instead of a hyphen.
func groupDigits(number string) string {
	sign := ""
	if rest, negative := strings.CutPrefix(number, "-"); negative {
		sign, number = "−", rest
	}
	whole, fraction, _ := strings.Cut(number, ".")
	var b strings.Builder
	b.WriteString(sign)
	for i, d := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteString("\u202f")
		}
		b.WriteRune(d)
	}
	if fraction != "" {
		b.WriteString("." + fraction)
	}
	return b.String()
}

func formatPercent(part, whole uint64) string {
	if whole == 0 {
		return "–"
	}
	return strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 1, 64) + "\u202f%"
}

// moneyTotals adds up money by currency.
type moneyTotals map[string]*currencyTotal

type currencyTotal struct {
	gross    decimal.Decimal
	negative decimal.Decimal
	net      decimal.Decimal
	reward   decimal.Decimal
}

// add adds the sums of a row. A currency without any gets no line.
func (t moneyTotals) add(p *report.Performance) {
	if p.Currency == "" || p.GrossMinor.Sign() == 0 && p.NegativeMinor.Sign() == 0 && p.RewardMinor.Sign() == 0 {
		return
	}
	number := func(minor *big.Int) decimal.Decimal { return decimal.NewFromBigInt(minor, -int32(p.Exponent)) }
	c := t[p.Currency]
	if c == nil {
		c = &currencyTotal{}
		t[p.Currency] = c
	}
	c.gross = c.gross.Add(number(p.GrossMinor))
	c.negative = c.negative.Add(number(p.NegativeMinor))
	c.net = c.net.Add(number(p.NetMinor))
	c.reward = c.reward.Add(number(p.RewardMinor))
}

// lines are in the order of their currencies.
func (t moneyTotals) lines() (lines []moneyLine) {
	format := func(d decimal.Decimal) string { return groupDigits(ledger.FormatDecimal(d)) }
	for currency, c := range t {
		lines = append(lines, moneyLine{
			Currency: currency,
			Gross:    format(c.gross),
			Negative: format(c.negative),
			Net:      format(c.net),
			Reward:   format(c.reward),
			Down:     c.net.Sign() < 0,
		})
	}
	slices.SortFunc(lines, func(a, b moneyLine) int { return strings.Compare(a.Currency, b.Currency) })
	return lines
}
