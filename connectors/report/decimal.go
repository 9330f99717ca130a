package report

import (
	"math/big"
	"regexp"
	"strings"
)

// Decimal is an exact decimal number; the zero value is 0. It is written with the
// digits of the longest number that went into it.
type Decimal struct {
	units  *big.Int // nil: 0
	digits int      // after the point
}

var decimalText = regexp.MustCompile(`^-?[0-9]{1,30}(\.[0-9]{1,10})?$`)

// ParseDecimal reads such texts as 10, 10.00 and -0.5.
func ParseDecimal(text string) (d Decimal, ok bool) {
	if !decimalText.MatchString(text) {
		return Decimal{}, false
	}
	whole, part, _ := strings.Cut(text, ".")
	d.units, ok = new(big.Int).SetString(whole+part, 10)
	d.digits = len(part)
	return d, ok
}

func minor(units int64, exponent uint8) Decimal {
	return Decimal{big.NewInt(units), int(exponent)}
}

// scaled returns d in units of 10^-digits, which are not fewer than d has.
func (d Decimal) scaled(digits int) *big.Int {
	if d.units == nil {
		return new(big.Int)
	}
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits-d.digits)), nil)
	return power.Mul(power, d.units)
}

// Plus returns d + e.
func (d Decimal) Plus(e Decimal) Decimal {
	digits := max(d.digits, e.digits)
	sum := d.scaled(digits)
	return Decimal{sum.Add(sum, e.scaled(digits)), digits}
}

// Minus returns d - e.
func (d Decimal) Minus(e Decimal) Decimal {
	digits := max(d.digits, e.digits)
	difference := d.scaled(digits)
	return Decimal{difference.Sub(difference, e.scaled(digits)), digits}
}

// Cmp is negative for d < e, 0 for equal numbers, positive for d > e.
func (d Decimal) Cmp(e Decimal) int {
	digits := max(d.digits, e.digits)
	return d.scaled(digits).Cmp(e.scaled(digits))
}

// String writes all digits: 10.00, -0.5.
func (d Decimal) String() string {
	text := d.scaled(d.digits).String()
	sign := ""
	if strings.HasPrefix(text, "-") {
		sign, text = "-", text[1:]
	}
	if d.digits == 0 {
		return sign + text
	}
	if short := d.digits + 1 - len(text); short > 0 {
		text = strings.Repeat("0", short) + text
	}
	return sign + text[:len(text)-d.digits] + "." + text[len(text)-d.digits:]
}

// Money is an amount of one currency.
type Money struct {
	Amount   Decimal
	Currency string
}

// String is 10.00 EUR.
func (m Money) String() string { return strings.TrimSpace(m.Amount.String() + " " + m.Currency) }

// purse holds money by currency.
type purse map[string]Decimal

func (p purse) add(m Money) { p[m.Currency] = p[m.Currency].Plus(m.Amount) }
