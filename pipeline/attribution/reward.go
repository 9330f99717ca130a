package attribution

import (
	"math"
	"math/bits"
	"strconv"
	"strings"

	"github.com/Rhymond/go-money"
	"github.com/nimriz/partners/schemas/event"
)

// terms are the reward terms that were frozen on the click; the zero value is none.
type terms struct {
	percent  bool
	flat     bool
	number   uint64 // percent: the digits of the percentage
	divisor  uint64 // percent: 100 times the power of ten of its decimals
	minor    int64  // flat: minor units
	currency string // flat
}

// parseTerms reads "12.5%" or "5.00 USD". A flat sum may have fewer decimals than its
// currency. Anything else, which the catalog does not let pass, is no terms: an
// estimate is not worth stopping a ledger for.
func parseTerms(text string) terms {
	if number, ok := strings.CutSuffix(text, "%"); ok {
		whole, fraction, _ := strings.Cut(number, ".")
		v, ok := digits(whole + fraction)
		if !ok || whole == "" || len(fraction) > 16 {
			return terms{}
		}
		return terms{percent: true, number: uint64(v), divisor: 100 * pow10(len(fraction))}
	}
	number, currency, ok := strings.Cut(text, " ")
	if !ok {
		return terms{}
	}
	iso := money.GetCurrency(currency)
	if iso == nil || iso.Code != currency {
		return terms{}
	}
	whole, fraction, _ := strings.Cut(number, ".")
	if whole == "" || len(fraction) > iso.Fraction {
		return terms{}
	}
	v, ok := digits(whole + fraction + strings.Repeat("0", iso.Fraction-len(fraction)))
	if !ok {
		return terms{}
	}
	return terms{flat: true, minor: v, currency: currency}
}

// digits reads a number of digits only.
func digits(s string) (v int64, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	v, err := strconv.ParseInt(s, 10, 64)
	return v, err == nil
}

func pow10(n int) uint64 {
	v := uint64(1)
	for range n {
		v *= 10
	}
	return v
}

// reward is r(x) of a root with x standing; ok is false if the chain has no reward.
func (t *terms) reward(root *event.JourneyEvent, x int64) (minor int64, currency string, ok bool) {
	switch {
	case t.percent && root.HasAmount:
		return share(x, t.number, t.divisor), root.Currency, true
	case t.flat && x > 0:
		return t.minor, t.currency, true
	case t.flat:
		return 0, t.currency, true
	}
	return 0, "", false
}

// share is x × number ÷ divisor, rounded half to even; a share larger than any amount
// is cut to the largest.
func share(x int64, number, divisor uint64) int64 {
	if x <= 0 {
		return 0
	}
	high, low := bits.Mul64(uint64(x), number)
	if high >= divisor {
		return math.MaxInt64
	}
	q, rest := bits.Div64(high, low, divisor)
	if up := divisor - rest; rest > up || rest == up && q&1 == 1 {
		q++
	}
	return int64(min(q, math.MaxInt64))
}

// setReward puts the reward of a row with effect: what it changes in the reward of its
// root, before and after being what stands of that.
func (j *journey) setReward(o *event.Outcome, root *event.JourneyEvent, before, after int64) {
	b, _, _ := j.terms.reward(root, before)
	a, currency, ok := j.terms.reward(root, after)
	if !ok {
		return
	}
	j.reward = a - b
	o.EstimatedRewardMinor, o.RewardCurrency = &j.reward, currency
}
