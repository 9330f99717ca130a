package sheet

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/nimriz/partners/schemas/currency"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
	"golang.org/x/text/transform"
)

// Options are what the sender knows of a list that it does not say. Empty ones are read
// from the list.
type Options struct {
	Separator string // of cells: , ; | or tab
	Decimal   string // mark before the decimals: point or comma
	Currency  string // of amounts that stand without one, or with a sign such as $
}

// Validate reports the first option that cannot be, by its flag.
func (o Options) Validate() error {
	if o.Separator != "" && separatorOf(o.Separator) == 0 {
		return fmt.Errorf("-separator: %q is none of , ; | tab", o.Separator)
	}
	if o.Decimal != "" && o.Decimal != point.name() && o.Decimal != comma.name() {
		return fmt.Errorf("-decimal: %q is neither point nor comma", o.Decimal)
	}
	if known, ok := currency.Lookup(o.Currency); o.Currency != "" && (!ok || !known.Money) {
		return fmt.Errorf("-currency: %q is not a currency such as EUR", o.Currency)
	}
	return nil
}

// separators are what can separate cells. The first is assumed where a header of one
// column does not say.
const separators = ",;\t|"

func separatorOf(name string) rune {
	if name == "tab" || name == "\t" {
		return '\t'
	}
	if len(name) == 1 && strings.Contains(separators, name) {
		return rune(name[0])
	}
	return 0
}

func nameSeparator(r rune) string {
	if r == '\t' {
		return "TAB"
	}
	return string(r)
}

// BadList is a list that cannot be read.
type BadList struct {
	File   string
	Line   int    // from 1
	Column int    // in bytes from 1, of the text as UTF-8
	Field  string // of the header; "" for the line as a whole
	Text   string // what is wrong
}

// Error is FILE:LINE:COL: FIELD: TEXT.
func (b *BadList) Error() string {
	field := ""
	if b.Field != "" {
		field = b.Field + ": "
	}
	return fmt.Sprintf("%s:%d:%d: %s%s", b.File, b.Line, b.Column, field, b.Text)
}

// Row is a line of a list.
type Row struct {
	Line     int      // where it begins, from 1
	Cells    []string // the whole line, as it came
	OrderID  string   // as it stands there, without blanks around
	EventID  string
	Amount   *decimal.Decimal // nil: the line has none
	Currency string           // of Amount; "": neither the line nor the Options say
	// Exported is true in a CSV that our export wrote in version 2, and for all that can
	// be seen without -raw: formulas in ids are escaped, with a way back.
	Exported bool
}

// List reads a list a Row at a time. It is not safe for concurrent use.
type List struct {
	file      string // in errors
	opts      Options
	encoding  encoding
	separator rune
	preamble  int       // lines before the header: 1 with a sep=
	ends      *lineEnds // in front of csv
	header    []string
	column    map[Column]int // of those that mean something
	money     string         // currency of all amounts, as the header says; may be empty
	csv       *csv.Reader    // at the next line
	decimal   mark           // of the amounts; unknown: each says it by itself
	assumed   []string
	// openDays: a day that can be read in two ways was seen. openAmount: so was what may be
	// an amount, in a list that has no column of that name.
	openDays, openAmount bool
	exported             bool  // our export wrote it, see Row.Exported
	guarded              []int // columns in which our export escapes formulas
}

// Open reads a list to its end once, to see how it is written, and goes back to its
// start. file names it in errors, which are BadList where the list is to blame.
func Open(from io.ReadSeeker, file string, opts Options) (*List, error) {
	l := &List{file: file, opts: opts}
	var err error
	var refused errEncoding
	if l.encoding, err = detectEncoding(from); errors.As(err, &refused) {
		return nil, &BadList{file, 1, 1, "", string(refused)}
	} else if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	if err := l.rewind(from); err != nil {
		return nil, err
	}
	if err := l.lookAhead(); err != nil {
		return nil, err
	}
	return l, l.rewind(from)
}

// Header is the header's cells, as they came.
func (l *List) Header() []string { return l.header }

// Is reports whether a column of the header is one that means something.
func (l *List) Is(column int, c Column) bool {
	i, ok := l.column[c]
	return ok && i == column
}

// Assumptions say what was taken for granted, for whoever sent the list.
func (l *List) Assumptions() []string { return l.assumed }

// RefuseColumn makes an error of a column of the header, before the first Next.
func (l *List) RefuseColumn(column int, text string) error { return l.badCell(column, "%s", text) }

// rewind starts at the first byte, and reads the header.
func (l *List) rewind(from io.ReadSeeker) error {
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("reading %s again: %w", l.file, err)
	}
	l.ends = &lineEnds{file: l.file}
	in := bufio.NewReaderSize(transform.NewReader(decode(from, l.encoding), l.ends), maxHeader)
	start, err := in.Peek(maxHeader)
	if err != nil && !errors.Is(err, io.EOF) && !errors.As(err, new(*BadList)) {
		return fmt.Errorf("reading %s: %w", l.file, err)
	}
	said, length := readPreamble(string(start))
	if length > 0 {
		if separatorOf(said) == 0 && l.opts.Separator == "" {
			return &BadList{l.file, 1, len("sep=") + 1, "", fmt.Sprintf("sep=: %.20q is none of , ; | TAB: choose "+
				"with -separator", said)}
		}
		in.Discard(length)
		l.preamble = 1
	}
	if l.separator == 0 {
		if l.separator, err = l.findSeparator(string(start[length:]), said); err != nil {
			return err
		}
	}
	l.csv = csv.NewReader(in)
	l.csv.Comma = l.separator
	header, err := l.csv.Read()
	if errors.Is(err, io.EOF) {
		return &BadList{l.file, 1, 1, "", "no header"}
	}
	if err != nil {
		return l.badLine(err)
	}
	if l.header == nil {
		l.header = header
		return l.setColumns()
	}
	return nil
}

// maxHeader is how far a header is looked for its separator, in bytes.
const maxHeader = 64 << 10

// readPreamble takes apart a line such as sep=; with which a list may begin, for Excel.
// separator is what it says, known or not; length is that of the line.
func readPreamble(start string) (separator string, length int) {
	line, _, _ := strings.Cut(start, "\n")
	text := strings.Trim(strings.TrimSuffix(line, "\r"), `"`)
	if len(text) < len("sep=")+1 || !strings.EqualFold(text[:len("sep=")], "sep=") {
		return "", 0
	}
	// a spreadsheet adds a separator for each column of the list
	separator = strings.TrimRight(text[len("sep=")+1:], separators+" ")
	return text[len("sep="):len("sep=")+1] + separator, min(len(line)+1, len(start))
}

// findSeparator decides what separates cells: what the Options say, what the list says,
// or that under which the header names the most columns that mean something.
func (l *List) findSeparator(start, said string) (rune, error) {
	if chosen := separatorOf(l.opts.Separator); chosen != 0 {
		return chosen, nil
	}
	if chosen := separatorOf(said); chosen != 0 {
		l.assume("cells are separated by %s, as the line sep= says", nameSeparator(chosen))
		return chosen, nil
	}
	found := ','
	most, cells := 0, 1
	tie := false
	for _, candidate := range separators {
		r := csv.NewReader(strings.NewReader(start))
		r.Comma, r.LazyQuotes = candidate, true
		header, err := r.Read()
		if err != nil {
			continue
		}
		known := len(findColumns(header))
		switch {
		case known > most, known == most && known == 0 && len(header) > cells:
			found, most, cells, tie = candidate, known, len(header), false
		case known == most && known > 0 && len(header) > 1:
			tie = tie || cells > 1
			if cells == 1 {
				found, cells = candidate, len(header)
			}
		}
	}
	if tie {
		return 0, &BadList{l.file, l.preamble + 1, 1, "", "the header can be cut in two ways: choose with -separator"}
	}
	if found != ',' {
		l.assume("cells are separated by %s", nameSeparator(found))
	}
	return found, nil
}

// setColumns finds what the columns mean.
func (l *List) setColumns() error {
	l.column = map[Column]int{}
	found := findColumns(l.header)
	for _, c := range []Column{OrderID, EventID, Amount, Currency, Date} {
		if len(found[c]) == 0 {
			continue
		}
		first := found[c][0]
		if len(found[c]) > 1 {
			second := found[c][1]
			if isName(l.header[first], c) {
				return l.badCell(second, "there are two such columns")
			}
			return l.badCell(second, "this column and %q can both be %s: name one of them %s",
				l.header[first], c, c)
		}
		l.column[c] = first
		if !isName(l.header[first], c) {
			l.assume("column %q is %s", strings.TrimSpace(l.header[first]), c)
		}
	}
	l.exported = !slices.ContainsFunc(ledger.ColumnsOf(2), func(c ledger.Column) bool {
		return !slices.Contains(l.header, c.Name)
	})
	for i, name := range l.header {
		isGuarded := func(c ledger.Column) bool { return c.Name == name && c.IsGuarded() }
		if slices.ContainsFunc(ledger.Columns(), isGuarded) {
			l.guarded = append(l.guarded, i)
		}
	}
	if i, ok := l.column[Amount]; ok {
		_, l.money = splitAmountHeader(l.header[i])
		if l.money != "" && l.opts.Currency != "" && l.money != l.opts.Currency {
			return l.badCell(i, "its amounts are in %s, and -currency says %s", l.money, l.opts.Currency)
		}
	}
	if !l.has(OrderID) && !l.has(EventID) {
		text := "the header has neither order_id nor event_id"
		if len(l.header) > 1 {
			text += fmt.Sprintf(": separated by %s, its columns are %.200q", nameSeparator(l.separator), l.header)
		}
		return &BadList{l.file, l.preamble + 1, 1, "", text}
	}
	return nil
}

func (l *List) has(c Column) bool {
	_, ok := l.column[c]
	return ok
}

// areGuarded reports whether each formula in cells is escaped where our export does so.
func (l *List) areGuarded(cells []string) bool {
	for _, i := range l.guarded {
		if ledger.EscapeFormula(ledger.Version, ledger.UnescapeFormula(cells[i])) != cells[i] {
			return false
		}
	}
	return true
}

// isKnown reports whether a column means something.
func (l *List) isKnown(column int) bool {
	for _, i := range l.column {
		if i == column {
			return true
		}
	}
	return false
}

func (l *List) assume(format string, a ...any) {
	if text := fmt.Sprintf(format, a...); !slices.Contains(l.assumed, text) {
		l.assumed = append(l.assumed, text)
	}
}

// badLine wraps what encoding/csv found.
func (l *List) badLine(err error) error {
	if errors.As(err, new(*BadList)) {
		return err
	}
	var parse *csv.ParseError
	if !errors.As(err, &parse) {
		return fmt.Errorf("reading %s: %w", l.file, err)
	}
	text := parse.Err.Error()
	if errors.Is(err, csv.ErrFieldCount) {
		text = fmt.Sprintf("the line does not have the %d columns of the header", len(l.header))
		if l.separator == ',' {
			text += `; an amount such as "10,00" stands in quotes where a comma separates cells`
		}
	}
	if errors.Is(err, csv.ErrBareQuote) {
		text += `: a cell with quotes stands in quotes, and ="0001" is written as 0001`
	}
	return &BadList{l.file, parse.Line + l.preamble, max(parse.Column, 1), "", text}
}

func (l *List) badCell(column int, format string, a ...any) error {
	line, at := l.csv.FieldPos(column)
	return &BadList{l.file, line + l.preamble, at, l.header[column], fmt.Sprintf(format, a...)}
}

// maxID is the longest id of an event or order, in characters as the gateway counts
// them.
const maxID = 128

// readLine reads the next line with something in it.
func (l *List) readLine() (cells []string, err error) {
	for {
		cells, err := l.csv.Read()
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		if err != nil {
			return nil, l.badLine(err)
		}
		if !isBlank(cells) {
			return cells, nil
		}
	}
}

// isBlank reports whether a line has no text. Spreadsheets save rows in which there was
// some once.
func isBlank(cells []string) bool {
	return len(cells) > 1 && !slices.ContainsFunc(cells, func(c string) bool { return strings.TrimSpace(c) != "" })
}

// Next returns the next row; io.EOF at the end, a *BadList for a line that is wrong.
func (l *List) Next() (row Row, err error) {
	cells, err := l.readLine()
	if err != nil {
		return row, err
	}
	row.Line, _ = l.csv.FieldPos(0)
	row.Line += l.preamble
	row.Cells = cells
	row.Exported = l.exported
	if row.OrderID, err = l.readID(cells, OrderID); err != nil {
		return row, err
	}
	if row.EventID, err = l.readID(cells, EventID); err != nil {
		return row, err
	}
	if row.OrderID == "" && row.EventID == "" {
		_, column := l.cell(cells, OrderID)
		if !l.has(OrderID) {
			_, column = l.cell(cells, EventID)
		}
		return row, l.badCell(column, "order_id or event_id is required")
	}
	if err := l.readMoney(cells, &row); err != nil {
		return row, err
	}
	if text, column := l.cell(cells, Date); text != "" && readDays(text) == nil {
		return row, l.badCell(column, "%.50q is not a day such as 2026-01-05", text)
	}
	return row, nil
}

// cell is the text of a column that means something, and which column that is; empty if
// the list does not have it.
func (l *List) cell(cells []string, c Column) (text string, column int) {
	i, ok := l.column[c]
	if !ok {
		return "", 0
	}
	return strings.TrimSpace(cells[i]), i
}

func (l *List) readID(cells []string, c Column) (string, error) {
	text, column := l.cell(cells, c)
	if utf8.RuneCountInString(text) > maxID {
		return "", l.badCell(column, "longer than %d characters", maxID)
	}
	if l.encoding == windows1252 && strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return "", l.badCell(column, "the list is not UTF-8, so it cannot be told which letters %.40q has: save it as "+
			"CSV UTF-8", text)
	}
	return text, nil
}
