package attribution

import (
	"math"
	"math/bits"
	"strconv"
	"strings"

	"github.com/nimriz/partners/schemas/currency"
	"github.com/nimriz/partners/schemas/event"
)

// The estimated reward: section "Amounts" of RULES.md.

// rewardTerms are the reward terms frozen on the click. The zero value means none.
type rewardTerms struct {
	percent  bool
	flat     bool
	number   uint64 // percent: the digits of the percentage, without the point
	divisor  uint64 // percent: 100 times the power of ten of its decimals
	minor    int64  // flat: the amount, minor units
	currency string // flat: ISO 4217
}

// parseTerms reads "12.5%" or "5.00 USD". A flat amount may have fewer decimals than
// its currency. Any other text means no terms. The catalog accepts no other text, and
// an estimate does not justify stopping the ledger.
func parseTerms(text string) rewardTerms {
	if number, ok := strings.CutSuffix(text, "%"); ok {
		whole, fraction, _ := strings.Cut(number, ".")
		v, ok := parseDigits(whole + fraction)
		if !ok || whole == "" || len(fraction) > 16 {
			return rewardTerms{}
		}
		return rewardTerms{percent: true, number: uint64(v), divisor: 100 * powerOfTen(len(fraction))}
	}
	number, code, ok := strings.Cut(text, " ")
	if !ok {
		return rewardTerms{}
	}
	iso, ok := currency.Lookup(code)
	if !ok {
		return rewardTerms{}
	}
	whole, fraction, _ := strings.Cut(number, ".")
	if whole == "" || len(fraction) > int(iso.Digits) {
		return rewardTerms{}
	}
	v, ok := parseDigits(whole + fraction + strings.Repeat("0", int(iso.Digits)-len(fraction)))
	if !ok {
		return rewardTerms{}
	}
	return rewardTerms{flat: true, minor: v, currency: code}
}

// parseDigits reads a number that consists of digits only.
func parseDigits(s string) (v int64, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	v, err := strconv.ParseInt(s, 10, 64)
	return v, err == nil
}

func powerOfTen(n int) uint64 {
	v := uint64(1)
	for range n {
		v *= 10
	}
	return v
}

// estimate returns the reward of a root with the given standing amount, both in minor
// units. ok is false if the events of the chain have no reward; so it is where terms
// are flat and the root is a follower after the window.
func (t *rewardTerms) estimate(root *event.JourneyEvent, standing int64) (minor int64, currency string, ok bool) {
	switch {
	case t.percent && root.HasAmount:
		return shareOf(standing, t.number, t.divisor), root.Currency, true
	case root.Follows:
		return 0, "", false
	case t.flat && standing > 0:
		return t.minor, t.currency, true
	case t.flat:
		return 0, t.currency, true
	}
	return 0, "", false
}

// shareOf returns amount × number ÷ divisor, rounded half to even. A share larger than
// any amount becomes the largest amount.
func shareOf(amount int64, number, divisor uint64) int64 {
	if amount <= 0 {
		return 0
	}
	high, low := bits.Mul64(uint64(amount), number)
	if high >= divisor {
		return math.MaxInt64
	}
	q, rest := bits.Div64(high, low, divisor)
	if up := divisor - rest; rest > up || rest == up && q&1 == 1 {
		q++
	}
	return int64(min(q, math.MaxInt64))
}

// setReward sets the reward of a row with effect: the difference that the row makes to
// the reward of its root, whose standing amount it changes from before to after.
func (j *journey) setReward(o *event.Outcome, root *event.JourneyEvent, before, after int64) {
	rewardBefore, _, _ := j.terms.estimate(root, before)
	rewardAfter, currency, ok := j.terms.estimate(root, after)
	if !ok {
		return
	}
	j.rewardMinor = rewardAfter - rewardBefore
	o.EstimatedRewardMinor, o.RewardCurrency = &j.rewardMinor, currency
}
