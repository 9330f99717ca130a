package sheet

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/nimriz/partners/schemas/currency"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
)

// mark is the character before the decimals of an amount.
type mark byte

const (
	unknown mark = 0 // the amount has no decimals, or may have some
	point   mark = '.'
	comma   mark = ','
)

// name is the mark's name in Options.
func (m mark) name() string {
	switch m {
	case point:
		return "point"
	case comma:
		return "comma"
	}
	return ""
}

// signs are what stands for a currency beside an amount. Several currencies use some; the
// first is the one that is assumed where nothing else tells.
var signs = map[string][]string{
	"$": {"USD", "CAD", "AUD", "NZD", "SGD", "HKD", "TWD", "MXN", "ARS", "CLP", "COP", "JMD", "TTD", "BBD", "BSD",
		"BZD", "FJD", "GYD", "LRD", "NAD", "XCD", "UYU", "BND", "KYD", "BMD", "SRD", "SBD", "DOP"},
	"£":   {"GBP", "EGP", "FKP", "GIP", "SHP", "LBP", "SYP", "SDG", "SSP"},
	"¥":   {"JPY", "CNY"},
	"￥":   {"JPY", "CNY"},
	"€":   {"EUR"},
	"US$": {"USD"}, "CA$": {"CAD"}, "C$": {"CAD", "NIO"}, "A$": {"AUD"}, "AU$": {"AUD"}, "NZ$": {"NZD"},
	"HK$": {"HKD"}, "S$": {"SGD"}, "NT$": {"TWD"}, "R$": {"BRL"}, "MX$": {"MXN"},
	"₹": {"INR"}, "₩": {"KRW"}, "₺": {"TRY"}, "₴": {"UAH"}, "₪": {"ILS"}, "₫": {"VND"}, "₱": {"PHP"}, "฿": {"THB"},
	"ZŁ": {"PLN"}, "KČ": {"CZK"}, "FT": {"HUF"}, "FR.": {"CHF"}, "SFR.": {"CHF"},
	"LEI": {"RON", "MDL"}, "KN": {"HRK"}, "R": {"ZAR"}, "RM": {"MYR"},
	"KR": {"SEK", "NOK", "DKK", "ISK"}, "KR.": {"DKK", "SEK", "NOK", "ISK"},
}

// moneyOf are the currencies that a code or a sign can mean, the likeliest first.
func moneyOf(text string) []string {
	text = strings.ToUpper(strings.TrimSpace(text))
	if known, ok := currency.Lookup(text); ok {
		return []string{known.Code}
	}
	return signs[text]
}

// written is an amount, taken apart.
type written struct {
	negative bool
	money    string // a currency's code or sign; "" for none
	number   string // digits and marks
}

// amountParts are what can stand around the number, in any order.
var amountParts = regexp.MustCompile(`^([^0-9.,]*)([0-9.,](?:[0-9., '’]*[0-9.,])?)([^0-9.,]*)$`)

// splitAmount takes apart such texts as 10,00 -$10.00 and (10.00) EUR.
func splitAmount(text string) (w written, ok bool) {
	text = strings.NewReplacer("\u00a0", " ", "\u202f", " ", "\u2009", " ", "\u2212", "-").Replace(
		ledger.UnescapeFormula(text))
	parts := amountParts.FindStringSubmatch(strings.TrimSpace(text))
	if parts == nil {
		return w, false
	}
	w.number = parts[2]
	around := parts[1] + "\x00" + parts[3]
	if strings.Contains(parts[1], "(") && strings.Contains(parts[3], ")") {
		around = strings.NewReplacer("(", "", ")", "").Replace(around)
		w.negative = true
	} else if strings.Count(around, "-") == 1 {
		around = strings.Replace(around, "-", "", 1)
		w.negative = true
	}
	before, after, _ := strings.Cut(around, "\x00")
	before, after = strings.TrimSpace(before), strings.TrimSpace(after)
	w.money = before + after
	return w, (before == "" || after == "") && (w.money == "" || moneyOf(w.money) != nil)
}

var (
	plainNumber = regexp.MustCompile(`^[0-9]{1,30}$`)
	decimals    = regexp.MustCompile(`^[0-9]{1,10}$`)
	// whole numbers with a mark between thousands, always the same one, or as in India
	groupedNumber = regexp.MustCompile(`^[0-9]{1,3}(?:(?:\.[0-9]{3}){1,9}|(?:,[0-9]{3}){1,9}|(?:'[0-9]{3}){1,9}|` +
		`(?: [0-9]{3}){1,9}|(?:,[0-9]{2}){1,9},[0-9]{3})$`)
	groupMarks = strings.NewReplacer(".", "", ",", "", "'", "", " ", "")
)

// readings are what a number can mean: with the mark before its decimals, unknown where
// it has none. There are two for 1.010.
func readings(number string) (found map[mark]string) {
	number = strings.ReplaceAll(number, "’", "'")
	found = map[mark]string{}
	if plainNumber.MatchString(number) || groupedNumber.MatchString(number) {
		found[unknown] = groupMarks.Replace(number)
	}
	for _, m := range []mark{point, comma} {
		whole, rest, ok := strings.Cut(number, string(rune(m)))
		if !ok || !decimals.MatchString(rest) || strings.ContainsRune(whole, rune(m)) {
			continue
		}
		if plainNumber.MatchString(whole) || groupedNumber.MatchString(whole) {
			found[m] = groupMarks.Replace(whole) + "." + rest
		}
	}
	// 0.125 and 0125.500 are no thousands
	if strings.HasPrefix(number, "0") && len(found) > 1 {
		delete(found, unknown)
	}
	return found
}

// marks is how the amounts of a list are written: where each kind is found first, as its
// text and line. An empty text means that there is none.
type marks struct {
	first [256]string // by mark, an amount that has it for certain
	open  []openAmount
	cut   string // the first whole amount whose decimals may be in the next cell, as an assumption
}

// openAmount is an amount that can be read in two ways.
type openAmount struct {
	text     string // with its line
	mark     mark   // its only one, before decimals or between thousands
	readings map[mark]string
}

// see takes in an amount. Only one that can be read in one way decides anything; of the
// others the first of each mark is kept.
func (m *marks) see(line int, text, number string) {
	found := readings(number)
	text = fmt.Sprintf("%.50s in line %d", text, line)
	for only := range found {
		if len(found) > 1 {
			known := slices.ContainsFunc(m.open, func(o openAmount) bool { return o.mark == only })
			if only != unknown && !known {
				m.open = append(m.open, openAmount{text, only, found})
			}
			continue
		}
		// 1.010.000 says that the point is not before decimals
		if only == unknown && strings.Contains(number, ".") {
			only = comma
		} else if only == unknown && strings.Contains(number, ",") {
			only = point
		}
		if m.first[only] == "" {
			m.first[only] = text
		}
	}
}

// decimal is the mark of the list; unknown if its amounts do not tell, or disagree.
func (m *marks) decimal() mark {
	switch {
	case m.first[point] != "" && m.first[comma] == "":
		return point
	case m.first[comma] != "" && m.first[point] == "":
		return comma
	}
	return unknown
}

// decisions say of amounts that can be read in two ways which other amount decided.
func (m *marks) decisions() (texts []string) {
	decimal := m.decimal()
	if decimal == unknown {
		return nil
	}
	for _, o := range m.open {
		reading, ok := o.readings[decimal]
		if !ok {
			reading = o.readings[unknown]
		}
		texts = append(texts, fmt.Sprintf("%s is %s, for %s decides how amounts are written", o.text, reading,
			m.first[decimal]))
	}
	return texts
}

// unknownDigits are those of a currency of which nothing follows for its amounts.
const unknownDigits int32 = -1

// valueOf reads a number. digits are those of its currency; a currency of three, or of
// none, is written with as many.
func valueOf(text, number string, chosen, seen mark, digits int32) (value decimal.Decimal, problem string) {
	found := readings(number)
	if len(found) == 0 {
		return value, fmt.Sprintf("%.50q is not a number such as 10.00", text)
	}
	pick := func(m mark) (decimal.Decimal, string) {
		value, err := decimal.NewFromString(found[m])
		if err != nil {
			return value, err.Error()
		}
		return value, ""
	}
	if len(found) == 1 {
		for only := range found {
			if chosen != unknown && only != unknown && only != chosen {
				return value, fmt.Sprintf("%.50q is no number with a decimal %s, as -decimal says", text, chosen.name())
			}
			return pick(only)
		}
	}
	for _, m := range []mark{chosen, seen} {
		if m == unknown {
			continue
		}
		if _, ok := found[m]; ok {
			return pick(m)
		}
		return pick(unknown)
	}
	switch digits {
	case 0: // 12,000 yen has no decimals
		return pick(unknown)
	case 3:
		if _, ok := found[point]; ok {
			return pick(point)
		}
	}
	var both []string
	for _, reading := range found {
		both = append(both, reading)
	}
	slices.Sort(both)
	return value, fmt.Sprintf("%.50q is %s or %s, and the list does not say which: choose with -decimal point or "+
		"-decimal comma", text, both[0], both[1])
}

var (
	wholeAmount = regexp.MustCompile(`^[0-9]{1,9}$`)
	// what may have been cut from an amount at a comma: decimals, or the last thousands
	cutRest = regexp.MustCompile(`^(?:[0-9]{2}|[0-9]{3}\.[0-9]{2})$`)
	// no column of numbers is written like this
	cutForCertain = regexp.MustCompile(`^0[0-9]{1,2}(?:\.[0-9]{2})?$`)
)

// cutAmount is what follows a whole amount where a comma separates cells, if it may be
// the rest of the amount: 00 for 10,00 without quotes. In a line that lacks its last cell
// the number of cells does not tell.
func (l *List) cutAmount(cells []string, money string) (rest string, certain bool) {
	i, ok := l.column[Amount]
	if !ok || i+1 >= len(cells) || l.separator != ',' || l.opts.Decimal == point.name() {
		return "", false
	}
	if known, ok := currency.Lookup(money); ok && known.Digits == 0 {
		return "", false
	}
	whole, ok := splitAmount(cells[i])
	after, is := splitAmount(cells[i+1])
	if !ok || !is || !wholeAmount.MatchString(whole.number) || after.negative {
		return "", false
	}
	certain = cutForCertain.MatchString(after.number) && !l.isKnown(i+1)
	if !certain && !cutRest.MatchString(after.number) {
		return "", false
	}
	return strings.TrimSpace(cells[i+1]), certain
}
