package currency

import "testing"

func TestDigits(t *testing.T) {
	for code, want := range map[string]int32{
		"EUR": 2,
		"USD": 2,
		"JPY": 0,
		"KRW": 0,
		"KWD": 3,
		"IQD": 3,
		"CLF": 4,
		"UGX": 0,
		"ISK": 0,
		"AFN": 2,
	} {
		if got, ok := Digits(code); !ok || got != want {
			t.Errorf("%s: %d, %v; want %d", code, got, ok, want)
		}
	}
	for _, code := range []string{"", "eur", "Eur", "XXX", "EURO", "ſEK", "GGP", "LTL"} {
		if digits, ok := Digits(code); ok {
			t.Errorf("%q has %d digits", code, digits)
		}
	}
}
