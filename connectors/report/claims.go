package report

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
)

// Claim is one line of a partner's list of orders.
type Claim struct {
	Line    int      // where it begins in the file
	Cells   []string // the whole line, as it came
	OrderID string
	EventID string // stands before OrderID if both are given
	Amount  *Decimal
	// Currency is that of Amount; "" if the list does not say.
	Currency string
}

// BadClaim is a list that cannot be read.
type BadClaim struct {
	File         string
	Line, Column int    // 1-based; the column in bytes, as encoding/csv counts
	Field        string // "" for the line as a whole
	Text         string
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
// others are kept.
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

var currencyCode = regexp.MustCompile(`^[A-Z]{3}$`)

// Claims reads a list of claimed orders: CSV with a header, order_id or event_id in
// each line, amount, currency and date as they are known.
type Claims struct {
	file   string
	csv    *csv.Reader
	header []string
	at     map[string]int // place of the columns that mean something
}

// ReadClaims reads the header. file names the list in errors.
func ReadClaims(from io.Reader, file string) (*Claims, error) {
	buffered := bufio.NewReader(from)
	if mark, _ := buffered.Peek(3); string(mark) == "\ufeff" {
		buffered.Discard(len(mark))
	}
	c := &Claims{file: file, csv: csv.NewReader(buffered), at: map[string]int{}}
	header, err := c.csv.Read()
	if errors.Is(err, io.EOF) {
		return nil, &BadClaim{file, 1, 1, "", "no header"}
	}
	if err != nil {
		return nil, c.bad(err)
	}
	c.header = header
	for i, name := range header {
		name = strings.ToLower(strings.TrimSpace(name))
		if !slices.Contains([]string{columnOrder, columnEvent, columnAmount, columnCurrency, columnDate}, name) {
			continue
		}
		if _, twice := c.at[name]; twice {
			return nil, c.problem(i, "there are two such columns")
		}
		c.at[name] = i
	}
	_, order := c.at[columnOrder]
	_, event := c.at[columnEvent]
	if !order && !event {
		return nil, &BadClaim{file, 1, 1, "", "the header has neither order_id nor event_id"}
	}
	return c, nil
}

// Header is the first line, as it came.
func (c *Claims) Header() []string { return c.header }

// Money says whether a column of the list holds amounts.
func (c *Claims) Money(column int) bool {
	i, ok := c.at[columnAmount]
	return ok && i == column
}

// Refuse makes an error of a column of the header, before the first Next.
func (c *Claims) Refuse(column int, text string) error { return c.problem(column, "%s", text) }

// bad wraps what encoding/csv found.
func (c *Claims) bad(err error) error {
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		text := parse.Err.Error()
		if errors.Is(err, csv.ErrFieldCount) {
			text = fmt.Sprintf("the line has not the %d columns of the header", len(c.header))
		}
		return &BadClaim{c.file, parse.Line, max(parse.Column, 1), "", text}
	}
	return fmt.Errorf("reading %s: %w", c.file, err)
}

func (c *Claims) problem(column int, format string, a ...any) error {
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
		return claim, c.bad(err)
	}
	claim.Line, _ = c.csv.FieldPos(0)
	claim.Cells = cells
	cell := func(name string) (text string, column int) {
		if i, ok := c.at[name]; ok {
			return strings.TrimSpace(cells[i]), i
		}
		return "", 0
	}
	for name, id := range map[string]*string{columnOrder: &claim.OrderID, columnEvent: &claim.EventID} {
		text, column := cell(name)
		if utf8.RuneCountInString(text) > maxID {
			return claim, c.problem(column, "longer than %d characters", maxID)
		}
		*id = text
	}
	if claim.OrderID == "" && claim.EventID == "" {
		_, column := cell(columnOrder)
		if _, ok := c.at[columnOrder]; !ok {
			_, column = cell(columnEvent)
		}
		return claim, c.problem(column, "order_id or event_id is required")
	}
	text, column := cell(columnCurrency)
	if text != "" && !currencyCode.MatchString(text) {
		return claim, c.problem(column, "%.20q is not a currency such as EUR", text)
	}
	claim.Currency = text
	if text, column = cell(columnAmount); text != "" {
		amount, ok := ParseDecimal(text)
		if !ok {
			return claim, c.problem(column, "%.50q is not a number such as 10.00", text)
		}
		claim.Amount = &amount
	}
	if text, column = cell(columnDate); text != "" {
		_, day := time.Parse(time.DateOnly, text)
		_, at := time.Parse(time.RFC3339, text)
		if day != nil && at != nil {
			return claim, c.problem(column, "%.50q is neither a day such as 2026-01-05 nor RFC 3339", text)
		}
	}
	return claim, nil
}
