package dispute

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shopspring/decimal"
)

// Claim is one line of a partner's list of orders.
type Claim struct {
	Line     int              // where it begins in the file, from 1
	Cells    []string         // the whole line, as it came
	OrderID  string           // may be empty if EventID is not
	EventID  string           // counts before OrderID if both are given
	Amount   *decimal.Decimal // nil: the list does not say
	Currency string           // of Amount; "": the list does not say
}

// BadClaim is a list that cannot be read.
type BadClaim struct {
	File   string
	Line   int    // from 1
	Column int    // in bytes from 1, as encoding/csv counts
	Field  string // of the header; "" for the line as a whole
	Text   string // what is wrong
}

// Error is FILE:LINE:COL: FIELD: TEXT.
func (b *BadClaim) Error() string {
	field := ""
	if b.Field != "" {
		field = b.Field + ": "
	}
	return fmt.Sprintf("%s:%d:%d: %s%s", b.File, b.Line, b.Column, field, b.Text)
}

// The columns of a list that mean something. Their names are read in any case; all
// other columns are kept.
const (
	columnOrder    = "order_id"
	columnEvent    = "event_id"
	columnAmount   = "amount"
	columnCurrency = "currency"
	columnDate     = "date"
)

// maxID is the longest id of an event or order, in characters as the gateway counts
// them.
const maxID = 128

var (
	currencyCode = regexp.MustCompile(`^[A-Z]{3}$`)
	amountText   = regexp.MustCompile(`^-?[0-9]{1,30}(\.[0-9]{1,10})?$`)
)

// parseAmount reads such texts as 10, 10.00 and -0.5.
func parseAmount(text string) (amount decimal.Decimal, ok bool) {
	if !amountText.MatchString(text) {
		return amount, false
	}
	amount, err := decimal.NewFromString(text)
	return amount, err == nil
}

// Claims reads a list of claimed orders: CSV with a header, order_id or event_id in
// each line, amount, currency and date as far as they are known.
type Claims struct {
	file   string // in errors
	csv    *csv.Reader
	header []string       // as it came
	column map[string]int // of the names that mean something
}

// ReadClaims reads the header. file names the list in errors.
func ReadClaims(from io.Reader, file string) (*Claims, error) {
	buffered := bufio.NewReader(from)
	if mark, _ := buffered.Peek(3); string(mark) == "\ufeff" {
		buffered.Discard(len(mark))
	}
	c := &Claims{file: file, csv: csv.NewReader(buffered), column: map[string]int{}}
	header, err := c.csv.Read()
	if errors.Is(err, io.EOF) {
		return nil, &BadClaim{file, 1, 1, "", "no header"}
	}
	if err != nil {
		return nil, c.badLine(err)
	}
	c.header = header
	known := []string{columnOrder, columnEvent, columnAmount, columnCurrency, columnDate}
	for i, name := range header {
		name = strings.ToLower(strings.TrimSpace(name))
		if !slices.Contains(known, name) {
			continue
		}
		if c.has(name) {
			return nil, c.badCell(i, "there are two such columns")
		}
		c.column[name] = i
	}
	if !c.has(columnOrder) && !c.has(columnEvent) {
		return nil, &BadClaim{file, 1, 1, "", "the header has neither order_id nor event_id"}
	}
	return c, nil
}

func (c *Claims) has(name string) bool {
	_, ok := c.column[name]
	return ok
}

// Header is the first line, as it came.
func (c *Claims) Header() []string { return c.header }

// IsAmount reports whether a column of the list holds amounts.
func (c *Claims) IsAmount(column int) bool {
	return c.has(columnAmount) && c.column[columnAmount] == column
}

// RefuseColumn makes an error of a column of the header, before the first Next.
func (c *Claims) RefuseColumn(column int, text string) error { return c.badCell(column, "%s", text) }

// badLine wraps what encoding/csv found.
func (c *Claims) badLine(err error) error {
	var parse *csv.ParseError
	if !errors.As(err, &parse) {
		return fmt.Errorf("reading %s: %w", c.file, err)
	}
	text := parse.Err.Error()
	if errors.Is(err, csv.ErrFieldCount) {
		text = fmt.Sprintf("the line does not have the %d columns of the header", len(c.header))
	}
	return &BadClaim{c.file, parse.Line, max(parse.Column, 1), "", text}
}

func (c *Claims) badCell(column int, format string, a ...any) error {
	line, at := c.csv.FieldPos(column)
	return &BadClaim{c.file, line, at, c.header[column], fmt.Sprintf(format, a...)}
}

// Next returns the next claim; io.EOF at the end, a *BadClaim for a line that is wrong.
func (c *Claims) Next() (claim Claim, err error) {
	cells, err := c.csv.Read()
	if errors.Is(err, io.EOF) {
		return claim, io.EOF
	}
	if err != nil {
		return claim, c.badLine(err)
	}
	claim.Line, _ = c.csv.FieldPos(0)
	claim.Cells = cells
	if claim.OrderID, err = c.readID(cells, columnOrder); err != nil {
		return claim, err
	}
	if claim.EventID, err = c.readID(cells, columnEvent); err != nil {
		return claim, err
	}
	if claim.OrderID == "" && claim.EventID == "" {
		_, column := c.cell(cells, columnOrder)
		if !c.has(columnOrder) {
			_, column = c.cell(cells, columnEvent)
		}
		return claim, c.badCell(column, "order_id or event_id is required")
	}
	text, column := c.cell(cells, columnCurrency)
	if text != "" && !currencyCode.MatchString(text) {
		return claim, c.badCell(column, "%.20q is not a currency such as EUR", text)
	}
	claim.Currency = text
	if text, column = c.cell(cells, columnAmount); text != "" {
		amount, ok := parseAmount(text)
		if !ok {
			return claim, c.badCell(column, "%.50q is not a number such as 10.00", text)
		}
		claim.Amount = &amount
	}
	return claim, c.checkDate(cells)
}

// cell is the text of a column that means something, and which column that is; empty if
// the list does not have it.
func (c *Claims) cell(cells []string, name string) (text string, column int) {
	i, ok := c.column[name]
	if !ok {
		return "", 0
	}
	return strings.TrimSpace(cells[i]), i
}

func (c *Claims) readID(cells []string, name string) (string, error) {
	text, column := c.cell(cells, name)
	if utf8.RuneCountInString(text) > maxID {
		return "", c.badCell(column, "longer than %d characters", maxID)
	}
	return text, nil
}

func (c *Claims) checkDate(cells []string) error {
	text, column := c.cell(cells, columnDate)
	if text == "" {
		return nil
	}
	if _, err := time.Parse(time.DateOnly, text); err == nil {
		return nil
	}
	if _, err := time.Parse(time.RFC3339, text); err == nil {
		return nil
	}
	return c.badCell(column, "%.50q is neither a day such as 2026-01-05 nor RFC 3339", text)
}

// NextBatch returns the next claims, at most MaxBatch. At the end of the list, and with
// the error of a line that is wrong, it returns the claims before that.
func (c *Claims) NextBatch() (batch []Claim, err error) {
	for len(batch) < MaxBatch {
		claim, err := c.Next()
		if err != nil {
			return batch, err
		}
		batch = append(batch, claim)
	}
	return batch, nil
}
