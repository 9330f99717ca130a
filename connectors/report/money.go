package report

import (
	"strings"

	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
)

// Money is an amount of one currency.
type Money struct {
	Amount   decimal.Decimal
	Currency string // ISO 4217, or ""
}

// String is 10.00 EUR.
func (m Money) String() string {
	return strings.TrimSpace(ledger.FormatDecimal(m.Amount) + " " + m.Currency)
}
