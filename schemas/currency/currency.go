// Package currency knows the currencies of ISO 4217 and how many digits their amounts
// have after the point. The catalog checks flat rewards with it, the events API checks
// amounts.
package currency

import "github.com/Rhymond/go-money"

// Digits returns how many digits an amount of the currency has after the point: 2 for
// EUR, 0 for JPY. code is written in capitals, as ISO 4217 writes it; ok is false for
// anything else.
func Digits(code string) (digits int32, ok bool) {
	if len(code) != 3 {
		return 0, false
	}
	c := money.GetCurrency(code)
	// The library looks a code up in capitals, whatever its case, and its table also
	// has currencies that are not in ISO 4217, or no longer: those have no numeric
	// code.
	if c == nil || c.Code != code || c.NumericCode == "" {
		return 0, false
	}
	return int32(c.Fraction), true
}
