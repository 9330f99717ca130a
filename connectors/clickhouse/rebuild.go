package clickhouse

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Rebuild selects the part of a table of sums that is computed again.
type Rebuild struct {
	// Table is fed by materialized views only, has one of the AggregatingMergeTree
	// engines, and is partitioned by toYYYYMM(TimeColumn).
	Table string
	// TimeColumn is the DateTime column that From and To refer to.
	TimeColumn string
	// From (inclusive) and To (exclusive) bound the rebuild; zero means unbounded.
	From, To time.Time
	// DropMissing deletes sums of days of which the base tables have no rows. Without
	// it such days are ErrMissing: their sums may be wrong, or their rows may have been
	// dropped because of their age.
	DropMissing bool
	// Keep is a condition on lines that the base tables know nothing of: they stay as
	// they are, also with DropMissing. Empty: there are none.
	Keep string
	// Progress, if not nil, is called before each step.
	Progress func(step string)
}

// ErrMissing says that there are sums of days of which the base tables have no rows.
var ErrMissing = errors.New("sums without rows in the base tables")

// RebuildResult is what a rebuild found.
type RebuildResult struct {
	// Months were replaced, as YYYYMM.
	Months []string
	// Wrong is the number of rows (keys) whose sums differed from the base tables,
	// Missing the number of rows that were wrong or absent.
	Wrong, Missing uint64
}

// Rebuild computes the sums from the tables that the views read, in a shadow table, and
// replaces the table's partitions with the result, month by month. Each month changes
// at once: a reader sees the old sums or the new ones, and an interrupted rebuild
// leaves every month in one of the two states. Stop all inserts first: rows that arrive
// between the computation and the replacement would be lost from the sums.
func (c *Conn) Rebuild(ctx context.Context, r Rebuild) (*RebuildResult, error) {
	out, err := c.rebuildSums(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("rebuilding %s: %w", r.Table, wrapError(err))
	}
	return out, nil
}

func (c *Conn) rebuildSums(ctx context.Context, r Rebuild) (out *RebuildResult, err error) {
	if !identifier.MatchString(r.Table) || !identifier.MatchString(r.TimeColumn) {
		return nil, fmt.Errorf("%q or %q is not an identifier", r.Table, r.TimeColumn)
	}
	if r.Progress == nil {
		r.Progress = func(string) {}
	}
	s, err := c.NewShadow(ctx, r.Table, r.TimeColumn, "AggregatingMergeTree")
	if err != nil {
		return nil, err
	}
	// Drop the shadow table even if ctx has ended: it may be as large as the table.
	defer func() {
		if drop := s.Drop(context.WithoutCancel(ctx)); err == nil {
			err = drop
		}
	}()
	shadow := s.Name
	within, args := r.timeCondition()
	r.Progress("computing the sums")
	if err := s.FillFromViews(ctx, within, args...); err != nil {
		return nil, err
	}
	if r.Keep != "" {
		query := "INSERT INTO " + shadow + " SELECT * FROM " + r.Table + " WHERE (" + r.Keep + ") AND " + within
		if err := c.Exec(ctx, query, args...); err != nil {
			return nil, err
		}
	}
	if err := c.checkMissingDays(ctx, r, shadow, within, args); err != nil {
		return nil, err
	}
	months, err := c.readMonths(ctx, r, shadow, within, args)
	if err != nil {
		return nil, err
	}
	out = &RebuildResult{Months: months}
	if len(months) == 0 {
		return out, nil
	}
	// Copy the rest of the months that will be replaced.
	inMonths := "toYYYYMM(" + r.TimeColumn + ") IN (" + strings.Join(months, ", ") + ")"
	query := "INSERT INTO " + shadow + " SELECT * FROM " + r.Table +
		" WHERE NOT (" + within + ") AND " + inMonths
	if err := c.Exec(ctx, query, args...); err != nil {
		return nil, err
	}
	r.Progress("comparing")
	if out.Wrong, err = c.countExtraRows(ctx, r.Table, shadow, inMonths); err != nil {
		return nil, err
	}
	if out.Missing, err = c.countExtraRows(ctx, shadow, r.Table, inMonths); err != nil {
		return nil, err
	}
	for _, month := range months {
		r.Progress("replacing " + month)
		if err := s.ReplaceMonth(ctx, month); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// timeCondition returns the SQL condition for a row to be within the bounds.
func (r Rebuild) timeCondition() (condition string, args []any) {
	condition = "1"
	if !r.From.IsZero() {
		condition += " AND " + r.TimeColumn + " >= fromUnixTimestamp({from:Int64})"
		args = append(args, Named("from", r.From.Unix()))
	}
	if !r.To.IsZero() {
		condition += " AND " + r.TimeColumn + " < fromUnixTimestamp({to:Int64})"
		args = append(args, Named("to", r.To.Unix()))
	}
	return condition, args
}

// FillFromViews adds to a table again what the materialized views that feed it make of
// the rows of a base table that meet a condition on its columns. It is for tables that
// are fed by that one alone, in which a line that is inserted twice counts once, and
// inserts whatever the deduplication window remembers. The condition is SQL without quotes
// and without parameters.
func (c *Conn) FillFromViews(ctx context.Context, table, base, condition string) error {
	// The view reads the base table: a filter on that reaches rows by columns that the view
	// does not have.
	settings := ", additional_table_filters = {'" + base + "': '" + condition + "'}"
	if err := c.fillFromViews(ctx, table, table, settings, "1", nil); err != nil {
		return fmt.Errorf("filling %s: %w", table, wrapError(err))
	}
	return nil
}

// fillFromViews adds what feeds a table to another one of its columns, or to itself.
// settings are further ones, each with a comma before it.
func (c *Conn) fillFromViews(ctx context.Context, into, fed, settings, condition string, args []any) error {
	views, err := c.readFeedingViews(ctx, fed)
	if err != nil {
		return err
	}
	for _, v := range views {
		columns := strings.Join(v.columns, ", ")
		// Without a token of its own the insert could be taken for an earlier one.
		query := "INSERT INTO " + into + " (" + columns + ")" +
			" SETTINGS insert_deduplication_token = '" + rand.Text() + "'" + settings +
			" SELECT " + columns + " FROM (" + v.query + ") WHERE " + condition
		if err := c.Exec(ctx, query, args...); err != nil {
			return fmt.Errorf("computing what %s feeds: %w", v.name, err)
		}
	}
	return nil
}

// feedingView is a materialized view that feeds a table.
type feedingView struct {
	name, query string
	columns     []string // quoted
}

// readFeedingViews lists the materialized views that write to a table.
func (c *Conn) readFeedingViews(ctx context.Context, table string) ([]feedingView, error) {
	var found []struct {
		Name   string `ch:"name"`
		Query  string `ch:"as_select"`
		Create string `ch:"create_table_query"`
		ID     string `ch:"id"`
	}
	err := c.Select(ctx, &found,
		`SELECT name, as_select, create_table_query, toString(uuid) AS id
		FROM system.tables
		WHERE database = {database:String} AND engine = 'MaterializedView'
		ORDER BY name`,
		Named("database", c.Database()))
	if err != nil {
		return nil, err
	}
	var out []feedingView
	for _, v := range found {
		target, err := parseViewTarget(tableName{c.Database(), v.Name}, tableRow{Create: v.Create, ID: v.ID})
		if err != nil {
			return nil, err
		}
		if target != (tableName{c.Database(), table}) {
			continue
		}
		columns, err := c.InsertableColumns(ctx, v.Name)
		if err != nil {
			return nil, err
		}
		out = append(out, feedingView{name: v.Name, query: v.Query, columns: columns})
	}
	if len(out) == 0 {
		return nil, errors.New("no materialized view feeds it")
	}
	return out, nil
}

// InsertableColumns returns the quoted names of the columns of a table or view that an
// insert can have a value for, in order.
func (c *Conn) InsertableColumns(ctx context.Context, table string) ([]string, error) {
	var found []struct {
		Name string `ch:"name"`
	}
	err := c.Select(ctx, &found,
		`SELECT name FROM system.columns
		WHERE database = {database:String} AND table = {table:String}
			AND default_kind NOT IN ('MATERIALIZED', 'ALIAS', 'EPHEMERAL')
		ORDER BY position`,
		Named("database", c.Database()), Named("table", table))
	if err != nil {
		return nil, fmt.Errorf("reading the columns of %s: %w", table, err)
	}
	var columns []string
	for _, column := range found {
		columns = append(columns, quoteIdentifier(column.Name))
	}
	return columns, nil
}

// checkMissingDays refuses to replace days of sums with nothing. It compares days, not
// months: a base table is partitioned by the arrival of its rows, so a month that was
// dropped there may have left a few.
func (c *Conn) checkMissingDays(ctx context.Context, r Rebuild, shadow, within string, args []any) error {
	if r.DropMissing {
		return nil
	}
	months, err := c.selectMonths(ctx,
		"SELECT DISTINCT toUInt32(toYYYYMM("+r.TimeColumn+")) AS month FROM "+r.Table+
			" WHERE "+within+
			" AND toDate("+r.TimeColumn+") NOT IN (SELECT toDate("+r.TimeColumn+") FROM "+shadow+")"+
			" ORDER BY month", args)
	if err != nil || len(months) == 0 {
		return err
	}
	return fmt.Errorf("%w: days of %s", ErrMissing, strings.Join(months, ", "))
}

// readMonths lists the months that hold sums within the rebuild, before or after it.
func (c *Conn) readMonths(ctx context.Context, r Rebuild, shadow, within string, args []any) ([]string, error) {
	month := "SELECT DISTINCT toUInt32(toYYYYMM(" + r.TimeColumn + ")) AS month FROM "
	return c.selectMonths(ctx,
		"SELECT DISTINCT month"+
			" FROM ("+month+r.Table+" WHERE "+within+" UNION ALL "+month+shadow+")"+
			" ORDER BY month", args)
}

// selectMonths returns the results of a query for a column named month, as YYYYMM.
func (c *Conn) selectMonths(ctx context.Context, query string, args []any) ([]string, error) {
	var found []struct {
		Month uint32 `ch:"month"`
	}
	if err := c.Select(ctx, &found, query, args...); err != nil {
		return nil, err
	}
	var months []string
	for _, f := range found {
		months = append(months, fmt.Sprint(f.Month))
	}
	return months, nil
}

// countExtraRows counts the merged rows of a table that another one does not have.
func (c *Conn) countExtraRows(ctx context.Context, of, in, where string) (uint64, error) {
	var count []struct {
		Rows uint64 `ch:"n"`
	}
	err := c.Select(ctx, &count,
		"SELECT count() AS n FROM ("+
			"SELECT * FROM "+of+" FINAL WHERE "+where+
			" EXCEPT SELECT * FROM "+in+" FINAL WHERE "+where+")")
	if err != nil || len(count) != 1 {
		return 0, err
	}
	return count[0].Rows, nil
}
