package oracle

import (
	"math/big"
	"strings"
)

// amountOrUnit returns an event's amount, or one unit if it has none. The event takes
// that much from its parent, and its children can take that much from it.
func (k *judgedEvent) amountOrUnit() int64 {
	if k.AmountMinor == nil {
		return 1
	}
	return *k.AmountMinor
}

// sameMoney reports whether two events can take from each other: neither has an amount,
// or both have one in the same currency.
func sameMoney(a, b *judgedEvent) bool {
	return (a.AmountMinor == nil) == (b.AmountMinor == nil) && a.Currency == b.Currency
}

// standingAmount is the amount of e less the standing amounts of its children in the
// same currency, and not below 0.
func (j *journey) standingAmount(e *judgedEvent) int64 {
	children := make(map[*judgedEvent][]*judgedEvent)
	for _, k := range j.kept {
		if k.parent != nil && sameMoney(k, k.parent) {
			children[k.parent] = append(children[k.parent], k)
		}
	}
	var standing func(*judgedEvent) int64
	standing = func(k *judgedEvent) int64 {
		left := k.amountOrUnit()
		for _, c := range children[k] {
			left -= min(left, standing(c))
		}
		return left
	}
	return standing(e)
}

// estimateReward returns the reward of a root with the given standing amount, in minor
// units of currency. ok is false if no event of the chain has a reward. Terms are
// "10%", "5.00 USD" or "". A root after the window has no flat reward.
func estimateReward(terms string, root *judgedEvent, standing int64) (minor int64, currency string, ok bool) {
	if percent, is := strings.CutSuffix(terms, "%"); is {
		p, valid := new(big.Rat).SetString(percent)
		if !valid || root.AmountMinor == nil {
			return 0, "", false
		}
		p.Mul(p, big.NewRat(standing, 100))
		return roundHalfEven(p), root.Currency, true
	}
	amount, currency, is := strings.Cut(terms, " ")
	flat, valid := new(big.Rat).SetString(amount)
	if !is || !valid || root.follows != nil {
		return 0, "", false
	}
	if standing == 0 {
		return 0, currency, true
	}
	flat.Mul(flat, new(big.Rat).SetInt(powerOfTen(currencyDigits(currency))))
	return roundHalfEven(flat), currency, true
}

func powerOfTen(n int32) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}

// roundHalfEven rounds a number that is not negative to an integer, a half to the even
// one.
func roundHalfEven(r *big.Rat) int64 {
	whole, rest := new(big.Int).QuoRem(r.Num(), r.Denom(), new(big.Int))
	half := rest.Lsh(rest, 1).Cmp(r.Denom())
	if half > 0 || half == 0 && whole.Bit(0) == 1 {
		whole.Add(whole, big.NewInt(1))
	}
	return whole.Int64()
}

// currencyDigits is the number of decimals of a currency by ISO 4217, list one.
func currencyDigits(currency string) int32 {
	switch currency {
	case "":
		return 0
	case "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV",
		"XAF", "XOF", "XPF":
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
