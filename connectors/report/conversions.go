package report

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
)

// Conversion is a row of the view conversion_rows: a judged event in the shape in which
// it is exported. In JSON it has the columns of package ledger.
type Conversion struct {
	values []any // pointers to the values of ledger.Columns, in order
}

func newConversion() *Conversion {
	c := &Conversion{}
	for _, column := range ledger.Columns() {
		c.values = append(c.values, newValue(column))
	}
	return c
}

// newValue is a pointer to what a column's value is scanned into.
func newValue(c ledger.Column) any {
	switch c.Kind {
	case ledger.List:
		return new([]string)
	case ledger.Time:
		return pointerTo[time.Time](c.Nullable)
	case ledger.Integer:
		return pointerTo[int64](c.Nullable)
	case ledger.Bool:
		return pointerTo[bool](c.Nullable)
	}
	return pointerTo[string](c.Nullable)
}

func pointerTo[T any](nullable bool) any {
	if nullable {
		return new(*T)
	}
	return new(T)
}

// selectConversion lists the columns of a Conversion in a SELECT. A column that a later
// migration adds to the view is not asked for.
func selectConversion() string {
	var list []string
	for _, c := range ledger.Columns() {
		if c.Kind == ledger.Integer {
			list = append(list, "toInt64("+c.Name+")")
		} else {
			list = append(list, c.Name)
		}
	}
	return strings.Join(list, ", ")
}

// MarshalJSON writes the columns in order.
func (c *Conversion) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	for i, name := range ledger.Names() {
		value, err := json.Marshal(c.values[i])
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", name, err)
		}
		separator := byte(',')
		if i == 0 {
			separator = '{'
		}
		out.WriteByte(separator)
		out.WriteString(strconv.Quote(name))
		out.WriteByte(':')
		out.Write(value)
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// conversionOrder is the order of the view's rows in a list.
var conversionOrder = []string{"occurred_at", "event_id", "event_partition", "event_offset"}

// Key is the row's place in the list, for Page.After.
func (c *Conversion) Key() []string {
	var key []string
	for i, name := range ledger.Names() {
		// The columns of conversionOrder are in this order among all columns, too.
		if len(key) == len(conversionOrder) || name != conversionOrder[len(key)] {
			continue
		}
		switch v := c.values[i].(type) {
		case *time.Time:
			key = append(key, strconv.FormatInt(v.UnixMilli(), 10))
		case *int64:
			key = append(key, strconv.FormatInt(*v, 10))
		case *string:
			key = append(key, *v)
		}
	}
	return key
}

// Conversions calls each for the judged events that f selects, the oldest first.
func (r *Reader) Conversions(ctx context.Context, workspace string, f Filter, page Page,
	each func(*Conversion) error) error {
	c := f.ofEvents(workspace)
	if page.After != nil {
		if err := addAfterConversion(c, page.After); err != nil {
			return err
		}
	}
	order := strings.Join(conversionOrder, ", ")
	query := `
SELECT ` + selectConversion() + `
FROM conversion_rows
WHERE ` + c.sql() + `
ORDER BY ` + order
	if page.Limit > 0 {
		query = pageOfConversions(c, selectConversion(), order, page.Limit, 0)
	}
	return readRows(ctx, r.conn, "conversions", query, c.args, func(rows *clickhouse.Rows) error {
		row := newConversion()
		if err := rows.Scan(row.values...); err != nil {
			return fmt.Errorf("reading conversions: %w", err)
		}
		return each(row)
	})
}

// pageOfConversions is a query for columns of limit rows of conversion_rows after offset
// ones. It finds out first which rows these are, from the columns that order and condition
// need; then it reads the others of these rows alone, and looks up their event ids alone
// among the reused ones, for which the view reads all of a workspace. Both answers are
// scalar subqueries, because ClickHouse runs a table of WITH once for each use.
func pageOfConversions(c *condition, columns, order string, limit, offset int) string {
	first := order + "\nLIMIT " + strconv.Itoa(limit) + " OFFSET " + strconv.Itoa(offset)
	keys := strings.Join(conversionOrder, ", ")
	return `
WITH
	(
		SELECT groupArray((` + keys + `))
		FROM
		(
			SELECT ` + keys + `
			FROM outcomes
			WHERE ` + c.sql() + `
			ORDER BY ` + first + `
		)
	) AS page,
	(
		SELECT groupArray(event_id)
		FROM reused_event_ids
		WHERE workspace_id = {w:String} AND event_id IN (SELECT arrayJoin(page.2))
	) AS reused
SELECT ` + columns + `
FROM
(
	SELECT * REPLACE (if(has(reused, event_id), arrayPushBack(flags, 'event_id_reused'), flags) AS flags)
	FROM outcome_rows
	WHERE workspace_id = {w:String} AND (` + keys + `) IN (SELECT untuple(arrayJoin(page)))
)
ORDER BY ` + order
}

// addAfterConversion adds the condition on rows behind a key.
func addAfterConversion(c *condition, key []string) error {
	if len(key) != len(conversionOrder) {
		return errCursor()
	}
	at, err := strconv.ParseUint(key[0], 10, 63)
	if err != nil {
		return errCursor()
	}
	partition, err := strconv.ParseUint(key[2], 10, 32)
	if err != nil {
		return errCursor()
	}
	offset, err := strconv.ParseUint(key[3], 10, 63)
	if err != nil {
		return errCursor()
	}
	// The first of the two lets ClickHouse skip what is before.
	c.and("occurred_at >= fromUnixTimestamp64Milli({a0:Int64}, 'UTC')")
	c.andArg("("+strings.Join(conversionOrder, ", ")+") > "+
		"(fromUnixTimestamp64Milli({a0:Int64}, 'UTC'), {a1:String}, {a2:UInt32}, {a3:UInt64})", "a0", int64(at))
	c.args = append(c.args,
		clickhouse.Named("a1", key[1]),
		clickhouse.Named("a2", partition),
		clickhouse.Named("a3", offset))
	return nil
}

// ConversionLines calls each for the lines of a CSV with the judged events that f
// selects, without their ends, the oldest first. An export of the same rows has the
// same bytes.
func (r *Reader) ConversionLines(ctx context.Context, workspace string, f Filter, each func(line string) error) error {
	c := f.ofEvents(workspace)
	query := `
WITH ` + ledger.Functions + `
SELECT ` + ledger.CSVLine(ledger.Version, false, func(c ledger.Column) string { return c.Name }) + ` AS line
FROM conversion_rows
WHERE ` + c.sql() + `
ORDER BY ` + strings.Join(conversionOrder, ", ")
	return readRows(ctx, r.conn, "conversions", query, c.args, func(rows *clickhouse.Rows) error {
		var line string
		if err := rows.Scan(&line); err != nil {
			return fmt.Errorf("reading conversions: %w", err)
		}
		return each(line)
	})
}

// RecentEvent is what a page shows of a judged event.
type RecentEvent struct {
	EventID       string    `ch:"event_id"`     // the merchant's
	ClickToken    string    `ch:"click_token"`  // of the click
	Type          string    `ch:"type"`         // see event.Types
	EventName     string    `ch:"event_name"`   // the merchant's name for it
	Verdict       string    `ch:"verdict"`      // see event.Verdicts
	Reason        string    `ch:"reason"`       // of the verdict; may be empty
	PartnerID     string    `ch:"partner_id"`   // "": no partner
	PartnerName   string    `ch:"partner_name"` // at the click
	ProgramName   string    `ch:"program_name"` // at the click
	OccurredAt    time.Time `ch:"occurred_at"`  // as the merchant says
	OrderID       string    `ch:"order_id"`
	ParentEventID string    `ch:"parent_event_id"` // that it takes back from; may be empty
	Review        string    `ch:"review"`          // see event.Reviews
	Flags         []string  `ch:"flags"`           // see event.Flags
	Effect        int8      `ch:"effect"`          // +1, 0 or −1
	NetAmount     *string   `ch:"net_amount"`      // effect × amount; nil: no amount
	Change        *string   `ch:"standing_change"` // of its root's standing amount; nil: none
	Currency      string    `ch:"currency"`
}

// Beyond is the part of a negative's amount that changed nothing of what stands, without
// a sign; "" where there is none.
func (e *RecentEvent) Beyond() (string, error) {
	if e.NetAmount == nil || e.Verdict != string(event.Reversed) {
		return "", nil
	}
	beyond, err := decimal.NewFromString(*e.NetAmount)
	if err != nil {
		return "", fmt.Errorf("net_amount of %s: %w", e.EventID, err)
	}
	if e.Change != nil {
		change, err := decimal.NewFromString(*e.Change)
		if err != nil {
			return "", fmt.Errorf("standing_change of %s: %w", e.EventID, err)
		}
		beyond = beyond.Sub(change)
	}
	if beyond.IsZero() {
		return "", nil
	}
	return ledger.FormatDecimal(beyond.Abs()), nil
}

// RecentEvents returns judged events that f selects, the newest first: at most limit, after
// the newest offset ones.
func (r *Reader) RecentEvents(ctx context.Context, workspace string, f Filter, limit, offset int) (
	events []*RecentEvent, err error) {
	c := f.ofEvents(workspace)
	query := pageOfConversions(c, strings.Join(ColumnNames[RecentEvent](), ", "),
		strings.Join(conversionOrder, " DESC, ")+" DESC", limit, offset)
	err = scanRows(ctx, r.conn, "conversions", query, c.args, func(e *RecentEvent) error {
		events = append(events, e)
		return nil
	})
	return events, err
}
