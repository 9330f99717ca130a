package ingest

import (
	"math/big"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/nimriz/partners/schemas/event"
)

func TestMinorUnits(t *testing.T) {
	f := func(text string, digits int32, want int64) {
		t.Helper()
		if got, ok := minorUnits(text, digits); !ok || got != want {
			t.Errorf("%q with %d digits: %d, %v; want %d", text, digits, got, ok, want)
		}
	}
	bad := func(text string, digits int32) {
		t.Helper()
		if got, ok := minorUnits(text, digits); ok {
			t.Errorf("%q with %d digits is %d", text, digits, got)
		}
	}
	f("0", 0, 0)
	f("0", 2, 0)
	f("0.00", 2, 0)
	f("10", 2, 1000)
	f("10.0", 2, 1000)
	f("10.00", 2, 1000)
	f("0000010.01", 2, 1001)
	f(strings.Repeat("0", 1000)+"7", 0, 7)
	f("1.005", 3, 1005)
	f("705.00", 0, 705)
	f("19.9900", 2, 1999)
	f("19."+strings.Repeat("0", 1000), 2, 1900)
	f("92233720368547758.0700", 2, 9223372036854775807)
	f("9223372036854775807", 0, 9223372036854775807)
	f("92233720368547758.07", 2, 9223372036854775807)
	bad("9223372036854775808", 0)
	bad("92233720368547758.08", 2)
	bad("92233720368547759", 2)
	bad(strings.Repeat("9", 1000), 2)
	bad("1.01", 0)
	bad("1.001", 2)
	bad("1.0010", 2)
	bad("1.00x", 2)
	bad("1.000.", 2)
	bad("1.000.0", 2)
	for _, text := range []string{"", ".", "1.", ".1", "1..2", "1.2.3", "-1", "+1", "1e2", " 1", "1 ",
		"1_0", "１", "NaN"} {
		bad(text, 4)
	}
}

// Against arithmetic without bounds.
func TestMinorUnitsExactly(t *testing.T) {
	form := regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.StringMatching(`[0-9]{1,21}(\.[0-9]{1,4})?`),
			rapid.StringMatching(`[0-9]{1,19}\.[0-9]{0,3}0{1,4}`),
			rapid.StringMatching(`[0-9.+e-]{0,8}`)).Draw(t, "text")
		digits := rapid.SampledFrom([]int32{0, 2, 3, 4}).Draw(t, "digits")
		got, ok := minorUnits(text, digits)

		_, fraction, _ := strings.Cut(text, ".")
		want, isDecimal := new(big.Rat).SetString(text)
		valid := form.MatchString(text) && isDecimal && len(strings.TrimRight(fraction, "0")) <= int(digits)
		if valid {
			want.Mul(want, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil)))
			valid = want.IsInt() && want.Num().IsInt64()
		}
		if ok != valid || ok && got != want.Num().Int64() {
			t.Fatalf("%q with %d digits: %d, %v; want %v, %v", text, digits, got, ok, want, valid)
		}
		if ok {
			if again, _ := minorUnits(event.Decimal(got, digits), digits); again != got {
				t.Fatalf("%q is %d, printed %d", text, got, again)
			}
		}
	})
}
