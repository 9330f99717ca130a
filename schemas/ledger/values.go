package ledger

import (
	"time"

	"github.com/shopspring/decimal"
)

// FormatTime writes a time as RFC 3339 in UTC with milliseconds.
func FormatTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// FormatDecimal writes all digits of a number: 10.00 and -0.5, where its String method
// would leave out the zeros at the end.
func FormatDecimal(d decimal.Decimal) string { return d.StringFixed(-d.Exponent()) }

// MinorUnits is the number that so many of a currency's smallest units are; exponent is
// the currency's digits after the point.
func MinorUnits(units int64, exponent uint8) decimal.Decimal {
	return decimal.New(units, -int32(exponent))
}
