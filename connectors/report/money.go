package report

import (
	"cmp"
	"context"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// MoneyLine is one currency's sums.
type MoneyLine struct {
	Currency                     string
	Gross, Negative, Net, Reward string
	Down                         bool // the net is below zero
}

// grouped writes digits in groups of three, with a space that does not break.
func grouped(digits string) string {
	sign, whole := "", digits
	if strings.HasPrefix(whole, "-") {
		sign, whole = "−", whole[1:]
	}
	whole, fraction, _ := strings.Cut(whole, ".")
	var b strings.Builder
	for i, d := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteString("\u202f")
		}
		b.WriteRune(d)
	}
	if fraction != "" {
		fraction = "." + fraction
	}
	return sign + b.String() + fraction
}

func money(units *big.Int, exponent uint8) string {
	if units == nil {
		units = new(big.Int)
	}
	digits := new(big.Int).Abs(units).String()
	if n := int(exponent); n > 0 {
		if len(digits) <= n {
			digits = strings.Repeat("0", n-len(digits)+1) + digits
		}
		digits = digits[:len(digits)-n] + "." + digits[len(digits)-n:]
	}
	if units.Sign() < 0 {
		digits = "-" + digits
	}
	return grouped(digits)
}

func percent(part, whole uint64) string {
	if whole == 0 {
		return "–"
	}
	return strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 1, 64) + "\u202f%"
}

// sums reads lines added up by some of their columns.
func (r *Reader) sums(ctx context.Context, workspace string, f Filter, by string) (rows []*Performance, err error) {
	lines, args := f.lines(workspace)
	dims := by
	if by == "day" {
		dims = "toString(x.day) AS day"
	}
	err = stream(ctx, r.conn, "reading performance", "SELECT "+dims+", "+sums+" FROM ("+lines+") AS x GROUP BY "+by+
		" ORDER BY "+by, args, func(p *Performance) error {
		rows = append(rows, p)
		return nil
	})
	return rows, err
}

func (p *Performance) add(q *Performance) {
	p.Clicks += q.Clicks
	p.HumanClicks += q.HumanClicks
	p.TokenedClicks += q.TokenedClicks
	p.Leads += q.Leads
	p.Sales += q.Sales
	p.Refunds += q.Refunds
	p.Cancellations += q.Cancellations
	p.Reversals += q.Reversals
}

// purses adds up money by currency; amounts of one currency with different digits are
// brought to the larger number of them.
type purses struct {
	list []*purseOf
}

type purseOf struct {
	currency                     string
	exponent                     uint8
	gross, negative, net, reward big.Int
}

func (p *purses) add(q *Performance) {
	if q.Currency == "" || q.GrossMinor.Sign() == 0 && q.NegativeMinor.Sign() == 0 && q.RewardMinor.Sign() == 0 {
		return
	}
	i := slices.IndexFunc(p.list, func(x *purseOf) bool { return x.currency == q.Currency })
	if i < 0 {
		i, p.list = len(p.list), append(p.list, &purseOf{currency: q.Currency, exponent: q.Exponent})
	}
	x := p.list[i]
	scale := func(by uint8) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(by)), nil) }
	if q.Exponent > x.exponent {
		for _, sum := range []*big.Int{&x.gross, &x.negative, &x.net, &x.reward} {
			sum.Mul(sum, scale(q.Exponent-x.exponent))
		}
		x.exponent = q.Exponent
	}
	for sum, v := range map[*big.Int]*big.Int{
		&x.gross:    q.GrossMinor,
		&x.negative: q.NegativeMinor,
		&x.net:      q.NetMinor,
		&x.reward:   q.RewardMinor,
	} {
		sum.Add(sum, new(big.Int).Mul(v, scale(x.exponent-q.Exponent)))
	}
}

func (p *purses) lines() (out []MoneyLine) {
	slices.SortFunc(p.list, func(a, b *purseOf) int { return cmp.Compare(a.currency, b.currency) })
	for _, x := range p.list {
		out = append(out, MoneyLine{
			Currency: x.currency,
			Gross:    money(&x.gross, x.exponent),
			Negative: money(&x.negative, x.exponent),
			Net:      money(&x.net, x.exponent),
			Reward:   money(&x.reward, x.exponent),
			Down:     x.net.Sign() < 0,
		})
	}
	return out
}
