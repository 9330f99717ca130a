package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	views, err := c.readFeedingViews(ctx, r.Table)
	if err != nil {
		return nil, err
	}
	shadow := r.Table + "_rebuilt"
	if err := c.createShadowTable(ctx, r, shadow); err != nil {
		return nil, err
	}
	// Drop the shadow table even if ctx has ended: it may be as large as the table.
	defer func() {
		if drop := c.Exec(context.WithoutCancel(ctx), "DROP TABLE IF EXISTS "+shadow+" SYNC"); err == nil {
			err = drop
		}
	}()
	within, args := r.timeCondition()
	for _, v := range views {
		r.Progress("computing what " + v.name + " feeds")
		columns := strings.Join(v.columns, ", ")
		query := "INSERT INTO " + shadow + " (" + columns + ")" +
			" SELECT " + columns + " FROM (" + v.query + ") WHERE " + within
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
	return out, c.replaceMonths(ctx, r, shadow, months)
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
		columns, err := c.readColumns(ctx, v.Name)
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

// readColumns returns the quoted names of a table's columns, in order.
func (c *Conn) readColumns(ctx context.Context, table string) ([]string, error) {
	var found []struct {
		Name string `ch:"name"`
	}
	err := c.Select(ctx, &found,
		`SELECT name FROM system.columns
		WHERE database = {database:String} AND table = {table:String}
		ORDER BY position`,
		Named("database", c.Database()), Named("table", table))
	if err != nil {
		return nil, err
	}
	var columns []string
	for _, column := range found {
		columns = append(columns, quoteIdentifier(column.Name))
	}
	return columns, nil
}

// createShadowTable creates an empty table whose partitions can replace those of
// r.Table. An interrupted rebuild may have left one.
func (c *Conn) createShadowTable(ctx context.Context, r Rebuild, shadow string) error {
	var shape []struct {
		Engine    string `ch:"engine"`
		Partition string `ch:"partition_key"`
		Sorting   string `ch:"sorting_key"`
	}
	err := c.Select(ctx, &shape,
		`SELECT engine, partition_key, sorting_key
		FROM system.tables
		WHERE database = {database:String} AND name = {table:String}`,
		Named("database", c.Database()), Named("table", r.Table))
	if err != nil {
		return err
	}
	if len(shape) != 1 {
		return fmt.Errorf("database %s has no such table: run ctl migrate", c.Database())
	}
	s := shape[0]
	want := "toYYYYMM(" + r.TimeColumn + ")"
	if !strings.HasSuffix(s.Engine, "AggregatingMergeTree") || s.Partition != want {
		return fmt.Errorf("its engine is %s, partitioned by %q; needed is AggregatingMergeTree partitioned by %s",
			s.Engine, s.Partition, want)
	}
	if err := c.Exec(ctx, "DROP TABLE IF EXISTS "+shadow+" SYNC"); err != nil {
		return err
	}
	return c.Exec(ctx, "CREATE TABLE "+shadow+" AS "+r.Table+
		" ENGINE = AggregatingMergeTree PARTITION BY "+s.Partition+" ORDER BY ("+s.Sorting+")")
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

// replaceMonths replaces each of the months in r.Table with that of the shadow table.
func (c *Conn) replaceMonths(ctx context.Context, r Rebuild, shadow string, months []string) error {
	var parts []struct {
		Months []string `ch:"months"`
	}
	err := c.Select(ctx, &parts,
		`SELECT groupUniqArray(partition_id) AS months
		FROM system.parts
		WHERE active AND database = {database:String} AND table = {table:String}`,
		Named("database", c.Database()), Named("table", shadow))
	if err != nil {
		return err
	}
	for _, month := range months {
		r.Progress("replacing " + month)
		change := "DROP PARTITION ID '" + month + "'"
		if slices.Contains(parts[0].Months, month) {
			change = "REPLACE PARTITION ID '" + month + "' FROM " + shadow
		}
		if err := c.Exec(ctx, "ALTER TABLE "+r.Table+" "+change); err != nil {
			return fmt.Errorf("month %s: %w", month, err)
		}
	}
	return nil
}
