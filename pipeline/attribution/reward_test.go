package attribution

import (
	"math"
	"math/big"
	"testing"

	"github.com/nimriz/partners/schemas/event"
	"pgregory.net/rapid"
)

func TestParseTerms(t *testing.T) {
	for text, want := range map[string]rewardTerms{
		"":                         {},
		"10%":                      {percent: true, number: 10, divisor: 100},
		"12.5%":                    {percent: true, number: 125, divisor: 1000},
		"0%":                       {percent: true, divisor: 100},
		"33.3333%":                 {percent: true, number: 333333, divisor: 1_000_000},
		"%":                        {},
		".5%":                      {},
		"-5%":                      {},
		"1e3%":                     {},
		"0.00000000000000001%":     {},
		"5.00 USD":                 {flat: true, minor: 500, currency: "USD"},
		"5 USD":                    {flat: true, minor: 500, currency: "USD"},
		"5.5 USD":                  {flat: true, minor: 550, currency: "USD"},
		"300 JPY":                  {flat: true, minor: 300, currency: "JPY"},
		"1.005 KWD":                {flat: true, minor: 1005, currency: "KWD"},
		"3.5 JPY":                  {},
		"5.001 USD":                {},
		"5.00 usd":                 {},
		"5.00 XXQ":                 {},
		"5.00":                     {},
		" USD":                     {},
		"+5 USD":                   {},
		"99999999999999999999 USD": {},
	} {
		if got := parseTerms(text); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

// shareOf is exact at any size: held against fractions.
func TestShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.OneOf(rapid.Int64Range(0, 1000), rapid.Int64Min(0)).Draw(t, "x")
		divisor := 100 * powerOfTen(rapid.IntRange(0, 16).Draw(t, "decimals"))
		number := rapid.Uint64Range(0, min(divisor, math.MaxInt64)).Draw(t, "number")
		product := new(big.Int).Mul(big.NewInt(x), new(big.Int).SetUint64(number))
		want, rest := new(big.Int).QuoRem(product, new(big.Int).SetUint64(divisor), new(big.Int))
		rest.Lsh(rest, 1)
		if c := rest.Cmp(new(big.Int).SetUint64(divisor)); c > 0 || c == 0 && want.Bit(0) == 1 {
			want.Add(want, big.NewInt(1))
		}
		if got := shareOf(x, number, divisor); want.Cmp(big.NewInt(got)) != 0 {
			t.Fatalf("%d × %d ÷ %d = %d, want %v", x, number, divisor, got, want)
		}
	})
	for _, c := range []struct {
		x               int64
		number, divisor uint64
		want            int64
	}{
		{25, 1, 10, 2},
		{35, 1, 10, 4},
		{45, 1, 10, 4},
		{-5, 1, 10, 0},
		{math.MaxInt64, 1000, 100, math.MaxInt64},
		{math.MaxInt64, math.MaxInt64, 100, math.MaxInt64},
	} {
		if got := shareOf(c.x, c.number, c.divisor); got != c.want {
			t.Errorf("%d × %d ÷ %d = %d, want %d", c.x, c.number, c.divisor, got, c.want)
		}
	}
}

func FuzzTerms(f *testing.F) {
	for _, s := range []string{"10%", "12.5%", "5.00 USD", "300 JPY", "", "%", "5 ", " 5"} {
		f.Add(s, int64(12345))
	}
	f.Fuzz(func(t *testing.T, text string, x int64) {
		terms := parseTerms(text)
		root := &event.JourneyEvent{HasAmount: true, Amount: x, Currency: "EUR", Exponent: 2}
		if r, _, ok := terms.estimate(root, root.Standing()); r < 0 || !ok && r != 0 {
			t.Errorf("%q of %d: %d", text, x, r)
		}
	})
}
