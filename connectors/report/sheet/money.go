package sheet

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/nimriz/partners/schemas/currency"
)

// lookAhead reads the list to its end, or to a line that cannot be taken apart, and
// learns how its amounts are written. What is wrong is left to the second reading, which
// refuses it in its turn.
func (l *List) lookAhead() error {
	if l.encoding == utf16LE || l.encoding == utf16BE {
		l.assume("the text is UTF-16, as its first bytes say")
	} else if l.encoding == windows1252 {
		l.assume("the text is Windows-1252, for it is not UTF-8")
	}
	var seen marks
	rows := 0
	for {
		cells, err := l.csv.Read()
		if errors.Is(err, csv.ErrFieldCount) {
			rows++
			continue
		}
		if errors.Is(err, io.EOF) && rows == 0 {
			return &BadList{l.file, l.preamble + 1, 1, "", "below the header there is no line with text"}
		}
		if errors.Is(err, io.EOF) || errors.As(err, new(*csv.ParseError)) || errors.As(err, new(*BadList)) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", l.file, err)
		}
		if isBlank(cells) {
			l.assume("lines without text are left out")
			continue
		}
		rows++
		line, _ := l.csv.FieldPos(0)
		l.lookAtLine(cells, line+l.preamble, &seen)
	}
	if l.ends.lone > 0 {
		l.assume("a CR alone ends a line, as line %d", l.ends.lone)
	}
	l.decimal = seen.decimal()
	if seen.cut != "" && l.decimal != point {
		l.assume("%s", seen.cut)
	}
	if l.opts.Decimal != "" {
		return nil
	}
	if seen.first[comma] != "" {
		l.assume("amounts with a decimal comma, as %s", seen.first[comma])
	}
	for _, text := range seen.decisions() {
		l.assume("%s", text)
	}
	return nil
}

// lookAtLine takes in how amounts are written, and assumes what their signs leave open.
func (l *List) lookAtLine(cells []string, line int, seen *marks) {
	l.exported = l.exported && l.areGuarded(cells)
	if text, _ := l.cell(cells, Date); len(readDays(text)) > 1 && !l.openDays {
		l.openDays = true
		l.assume("days such as %s can be read in two ways: they are not compared", text)
	}
	if !l.has(Amount) {
		l.lookForAmount(cells, line)
		return
	}
	text, _ := l.cell(cells, Amount)
	w, ok := splitAmount(text)
	if !ok {
		return
	}
	seen.see(line, text, w.number)
	code, _ := l.cell(cells, Currency)
	money := cmp.Or(strings.ToUpper(code), l.money, l.opts.Currency)
	if rest, certain := l.cutAmount(cells, money); rest != "" && !certain && seen.cut == "" {
		seen.cut = fmt.Sprintf("%.50s in line %d is a whole amount, and %s behind it is %q: an amount such as "+
			"\"10,50\" "+
			"stands in quotes", text, line, rest, l.header[l.column[Amount]+1])
	}
	if isCode(code) || isCode(w.money) || l.opts.Currency+l.money != "" {
		return
	}
	for _, sign := range []string{code, w.money} {
		if money := moneyOf(sign); len(money) > 1 {
			l.assume("%s is %s: for another currency say -currency", sign, money[0])
		}
	}
}

// lookForAmount says, once, that a list without a column of amounts seems to have one
// under another name.
func (l *List) lookForAmount(cells []string, line int) {
	for i, cell := range cells {
		w, ok := splitAmount(cell)
		if l.openAmount || !ok || l.isKnown(i) || len(readings(w.number)) == 0 ||
			w.money == "" && !centsAtEnd.MatchString(w.number) {
			continue
		}
		l.openAmount = true
		l.assume("no column is amount, so ids alone are compared: name the column %q amount if it is, as %.50s in "+
			"line %d seems", strings.TrimSpace(l.header[i]), strings.TrimSpace(cell), line)
	}
}

var centsAtEnd = regexp.MustCompile(`[.,][0-9]{2}$`)

var currencyCode = regexp.MustCompile(`^[A-Za-z]{3}$`)

func isCode(text string) bool { return currencyCode.MatchString(text) }

// readMoney reads amount and currency of a line.
func (l *List) readMoney(cells []string, row *Row) error {
	code, column := l.cell(cells, Currency)
	candidates := moneyOf(code)
	if code != "" && candidates == nil {
		return l.badCell(column, "%.20q is not a currency such as EUR", code)
	}
	if candidates != nil && l.money != "" {
		if !slices.Contains(candidates, l.money) {
			return l.badCell(column, "%.20q is not %s, which the column %q says", code, l.money,
				l.header[l.column[Amount]])
		}
		candidates = []string{l.money}
	}
	text, column := l.cell(cells, Amount)
	if text == "" {
		row.Currency = l.choose(candidates)
		return nil
	}
	w, ok := splitAmount(text)
	if !ok {
		return l.badCell(column, "%.50q is not a number such as 10.00", text)
	}
	if w.money != "" {
		beside := moneyOf(w.money)
		if candidates == nil && l.money != "" {
			candidates = []string{l.money}
		}
		if candidates == nil {
			candidates = beside
		}
		both := slices.DeleteFunc(slices.Clone(candidates), func(c string) bool { return !slices.Contains(beside, c) })
		if len(both) == 0 {
			return l.badCell(column, "%.50q is not an amount of %s", text, candidates[0])
		}
		candidates = both
	}
	if len(candidates) > 1 && l.opts.Currency != "" && !slices.Contains(candidates, l.opts.Currency) {
		return l.badCell(column, "%.50q is not an amount of %s, which -currency says", text, l.opts.Currency)
	}
	row.Currency = l.choose(candidates)
	digits := unknownDigits
	if known, ok := currency.Lookup(row.Currency); ok && (l.separator == ',' || known.Digits == 0) {
		digits = known.Digits
	}
	if rest, certain := l.cutAmount(cells, row.Currency); certain {
		return l.badCell(column, "%.50q has %q behind it, as if an amount were cut at its comma: it stands in quotes "+
			"where "+
			"a comma separates cells; if nothing is cut, choose -decimal point", text, rest)
	}
	value, problem := valueOf(text, w.number, markOf(l.opts.Decimal), l.decimal, digits)
	if problem != "" {
		return l.badCell(column, "%s", problem)
	}
	if w.negative {
		value = value.Neg()
	}
	row.Amount = &value
	return nil
}

// choose is the currency of candidates that a line leaves.
func (l *List) choose(candidates []string) string {
	switch {
	case len(candidates) == 1:
		return candidates[0]
	case len(candidates) == 0 && l.money != "":
		return l.money
	case l.opts.Currency != "":
		return l.opts.Currency
	case len(candidates) > 1:
		return candidates[0]
	}
	return ""
}

func markOf(name string) mark {
	for _, m := range []mark{point, comma} {
		if name == m.name() {
			return m
		}
	}
	return unknown
}
