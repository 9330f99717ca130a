package oracle

import (
	"math/big"
	"strings"
)

// size is what an event takes from its parent and lets its children take: its amount,
// or one unit if it has none.
func (r *row) size() int64 {
	if r.AmountMinor == nil {
		return 1
	}
	return *r.AmountMinor
}

// sameMoney says whether two events can take from each other: both have no amount, or
// both one in the same currency.
func sameMoney(a, b *row) bool {
	return (a.AmountMinor == nil) == (b.AmountMinor == nil) && a.Currency == b.Currency
}

// standing is size(e) less what stands of its children in the same currency, not below
// zero.
func (j *journey) standing(e *row) int64 {
	children := make(map[*row][]*row)
	for _, k := range j.kept {
		if k.parent != nil && sameMoney(k, k.parent) {
			children[k.parent] = append(children[k.parent], k)
		}
	}
	var stands func(*row) int64
	stands = func(r *row) int64 {
		left := r.size()
		for _, c := range children[r] {
			left -= min(left, stands(c))
		}
		return left
	}
	return stands(e)
}

// reward is the estimate for a root with the given amount standing: in minor units of
// currency; ok is false if there is none on the whole chain. Terms are "10%", "5.00
// USD" or "".
func reward(terms string, root *row, standing int64) (minor int64, currency string, ok bool) {
	if percent, is := strings.CutSuffix(terms, "%"); is {
		p, valid := new(big.Rat).SetString(percent)
		if !valid || root.AmountMinor == nil {
			return 0, "", false
		}
		p.Mul(p, big.NewRat(standing, 100))
		return halfEven(p), root.Currency, true
	}
	amount, currency, is := strings.Cut(terms, " ")
	flat, valid := new(big.Rat).SetString(amount)
	if !is || !valid {
		return 0, "", false
	}
	if standing == 0 {
		return 0, currency, true
	}
	flat.Mul(flat, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits(currency))), nil)))
	return halfEven(flat), currency, true
}

// halfEven rounds a number that is not negative to an integer, a half to the even one.
func halfEven(r *big.Rat) int64 {
	whole, rest := new(big.Int).QuoRem(r.Num(), r.Denom(), new(big.Int))
	half := rest.Lsh(rest, 1).Cmp(r.Denom())
	if half > 0 || half == 0 && whole.Bit(0) == 1 {
		whole.Add(whole, big.NewInt(1))
	}
	return whole.Int64()
}

// digits is how many decimals a currency has: ISO 4217, list one, where it is not two.
func digits(currency string) int32 {
	switch currency {
	case "":
		return 0
	case "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF":
		return 0
	case "XAG", "XAU", "XDR", "XPD", "XPT", "XSU", "XUA": // not applicable
		return 0
	case "BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND":
		return 3
	case "CLF", "UYW":
		return 4
	}
	return 2
}
