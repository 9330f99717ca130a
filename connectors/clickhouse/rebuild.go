package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Rebuild says which part of a table of sums is computed anew.
type Rebuild struct {
	// Table is fed by materialized views only, has one of the AggregatingMergeTree
	// engines, and is partitioned by toYYYYMM(Time).
	Table string
	// Time is its DateTime column.
	Time string
	// From (inclusive) and To (exclusive) bound it; zero means without end.
	From, To time.Time
	// DropMissing lets go of sums of days that the base tables have no rows of; without
	// it they are ErrMissing. Such days may be wrong, or their rows may have been
	// dropped as too old.
	DropMissing bool
	// Progress, if not nil, is called before each step.
	Progress func(step string)
}

// ErrMissing is sums of days that the base tables have no rows of.
var ErrMissing = errors.New("sums without rows in the base tables")

// Rebuilt is what a rebuild found.
type Rebuilt struct {
	// Months were replaced, as YYYYMM.
	Months []string
	// Wrong is the number of rows (keys) that did not say what the base tables say,
	// Missing the number that were not there at all or wrong.
	Wrong, Missing uint64
}

// Rebuild computes the sums from the tables that the views read, in a table beside it,
// and puts them in place month by month. Each month changes at once: whoever reads sees
// the old sums or the new ones, and a rebuild that is broken off leaves every month as
// one or the other. Nothing may insert meanwhile: what comes between the computing and
// the replacing would be lost.
func (c *Conn) Rebuild(ctx context.Context, r Rebuild) (*Rebuilt, error) {
	out, err := c.rebuild(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("rebuilding %s: %w", r.Table, wrap(err))
	}
	return out, nil
}

func (c *Conn) rebuild(ctx context.Context, r Rebuild) (out *Rebuilt, err error) {
	if !identifier.MatchString(r.Table) || !identifier.MatchString(r.Time) {
		return nil, fmt.Errorf("%q or %q is not an identifier", r.Table, r.Time)
	}
	if r.Progress == nil {
		r.Progress = func(string) {}
	}
	views, err := c.viewsInto(ctx, r.Table)
	if err != nil {
		return nil, err
	}
	beside := r.Table + "_rebuilt"
	if err := c.makeBeside(ctx, r, beside); err != nil {
		return nil, err
	}
	// The end of ctx must not keep it: it may be as large as the table.
	defer func() {
		if drop := c.Exec(context.WithoutCancel(ctx), "DROP TABLE IF EXISTS "+beside+" SYNC"); err == nil {
			err = drop
		}
	}()
	within, args := r.bounds()
	for _, v := range views {
		r.Progress("computing what " + v.name + " feeds")
		columns := strings.Join(v.columns, ", ")
		if err := c.Exec(ctx, "INSERT INTO "+beside+" ("+columns+") SELECT "+columns+" FROM ("+v.query+") WHERE "+
			within, args...); err != nil {
			return nil, err
		}
	}
	if err := c.keepMissing(ctx, r, beside, within, args); err != nil {
		return nil, err
	}
	months, err := c.months(ctx, r, beside, within, args)
	if err != nil {
		return nil, err
	}
	out = &Rebuilt{Months: months}
	if len(months) == 0 {
		return out, nil
	}
	// The rest of the months that are replaced stays as it is.
	list := strings.Join(months, ", ")
	if err := c.Exec(ctx, "INSERT INTO "+beside+" SELECT * FROM "+r.Table+" WHERE NOT ("+within+") AND toYYYYMM("+
		r.Time+") IN ("+list+")", args...); err != nil {
		return nil, err
	}
	r.Progress("comparing")
	if out.Wrong, err = c.except(ctx, r.Table, beside, "toYYYYMM("+r.Time+") IN ("+list+")"); err != nil {
		return nil, err
	}
	if out.Missing, err = c.except(ctx, beside, r.Table, "toYYYYMM("+r.Time+") IN ("+list+")"); err != nil {
		return nil, err
	}
	return out, c.replace(ctx, r, beside, months)
}

// bounds is the condition for a row to be within the rebuild.
func (r Rebuild) bounds() (condition string, args []any) {
	condition = "1"
	if !r.From.IsZero() {
		condition += " AND " + r.Time + " >= fromUnixTimestamp({from:Int64})"
		args = append(args, Named("from", r.From.Unix()))
	}
	if !r.To.IsZero() {
		condition += " AND " + r.Time + " < fromUnixTimestamp({to:Int64})"
		args = append(args, Named("to", r.To.Unix()))
	}
	return condition, args
}

// feeder is a materialized view that feeds a table.
type feeder struct {
	name, query string
	columns     []string
}

func (c *Conn) viewsInto(ctx context.Context, table string) ([]feeder, error) {
	var found []struct {
		Name   string `ch:"name"`
		Query  string `ch:"as_select"`
		Create string `ch:"create_table_query"`
		ID     string `ch:"id"`
	}
	if err := c.Select(ctx, &found, "SELECT name, as_select, create_table_query, toString(uuid) AS id FROM "+
		"system.tables WHERE database = {database:String} AND engine = 'MaterializedView' ORDER BY name",
		Named("database", c.Database())); err != nil {
		return nil, err
	}
	var out []feeder
	for _, v := range found {
		target, err := targetOf(place{c.Database(), v.Name}, tableRow{Create: v.Create, ID: v.ID})
		if err != nil {
			return nil, err
		}
		if target != (place{c.Database(), table}) {
			continue
		}
		var columns []struct {
			Name string `ch:"name"`
		}
		if err := c.Select(ctx, &columns, "SELECT name FROM system.columns WHERE database = {database:String} AND "+
			"table = {table:String} ORDER BY position", Named("database", c.Database()),
			Named("table", v.Name)); err != nil {
			return nil, err
		}
		f := feeder{name: v.Name, query: v.Query}
		for _, column := range columns {
			f.columns = append(f.columns, quoted(column.Name))
		}
		out = append(out, f)
	}
	if len(out) == 0 {
		return nil, errors.New("no materialized view feeds it")
	}
	return out, nil
}

// makeBeside makes an empty table that partitions can be taken from. A broken rebuild
// may have left one.
func (c *Conn) makeBeside(ctx context.Context, r Rebuild, beside string) error {
	var shape []struct {
		Engine    string `ch:"engine"`
		Partition string `ch:"partition_key"`
		Sorting   string `ch:"sorting_key"`
	}
	if err := c.Select(ctx, &shape, "SELECT engine, partition_key, sorting_key FROM system.tables WHERE database "+
		"= {database:String} AND name = {table:String}", Named("database", c.Database()),
		Named("table", r.Table)); err != nil {
		return err
	}
	if len(shape) != 1 {
		return fmt.Errorf("no table of this name in %s: apply the migrations", c.Database())
	}
	s := shape[0]
	if want := "toYYYYMM(" + r.Time + ")"; !strings.HasSuffix(s.Engine, "AggregatingMergeTree") || s.Partition != want {
		return fmt.Errorf("its engine is %s, partitioned by %q; needed is AggregatingMergeTree partitioned by %s",
			s.Engine, s.Partition, want)
	}
	if err := c.Exec(ctx, "DROP TABLE IF EXISTS "+beside+" SYNC"); err != nil {
		return err
	}
	return c.Exec(ctx, "CREATE TABLE "+beside+" AS "+r.Table+" ENGINE = AggregatingMergeTree PARTITION BY "+
		s.Partition+" ORDER BY ("+s.Sorting+")")
}

// keepMissing refuses to replace days of sums by nothing. It looks at days, not months:
// a base table is divided by the arrival of its rows, so a month that was dropped there
// may have left a few.
func (c *Conn) keepMissing(ctx context.Context, r Rebuild, beside, within string, args []any) error {
	if r.DropMissing {
		return nil
	}
	var found []struct {
		Month uint32 `ch:"month"`
	}
	if err := c.Select(ctx, &found, "SELECT DISTINCT toUInt32(toYYYYMM("+r.Time+")) AS month FROM "+r.Table+" WHERE "+
		within+" AND toDate("+r.Time+") NOT IN (SELECT toDate("+r.Time+") FROM "+beside+") ORDER BY month",
		args...); err != nil {
		return err
	}
	if len(found) == 0 {
		return nil
	}
	var months []string
	for _, f := range found {
		months = append(months, fmt.Sprint(f.Month))
	}
	return fmt.Errorf("%w: days of %s", ErrMissing, strings.Join(months, ", "))
}

// months lists those that hold sums within the rebuild, now or then.
func (c *Conn) months(ctx context.Context, r Rebuild, beside, within string, args []any) ([]string, error) {
	var found []struct {
		Month uint32 `ch:"month"`
	}
	month := "SELECT DISTINCT toUInt32(toYYYYMM(" + r.Time + ")) AS month FROM "
	if err := c.Select(ctx, &found, "SELECT DISTINCT month FROM ("+month+r.Table+" WHERE "+within+" UNION ALL "+month+
		beside+") ORDER BY month", args...); err != nil {
		return nil, err
	}
	var out []string
	for _, f := range found {
		out = append(out, fmt.Sprint(f.Month))
	}
	return out, nil
}

// except counts the merged rows of a table that another one does not have.
func (c *Conn) except(ctx context.Context, of, in, where string) (uint64, error) {
	var count []struct {
		Rows uint64 `ch:"n"`
	}
	err := c.Select(ctx, &count, "SELECT count() AS n FROM (SELECT * FROM "+of+" FINAL WHERE "+where+
		" EXCEPT SELECT * FROM "+in+" FINAL WHERE "+where+")")
	if err != nil || len(count) != 1 {
		return 0, err
	}
	return count[0].Rows, nil
}

// replace puts each of the months in the place of the table's.
func (c *Conn) replace(ctx context.Context, r Rebuild, beside string, months []string) error {
	var parts []struct {
		Months []string `ch:"months"`
	}
	if err := c.Select(ctx, &parts, "SELECT groupUniqArray(partition_id) AS months FROM system.parts WHERE active "+
		"AND database = {database:String} AND table = {table:String}",
		Named("database", c.Database()), Named("table", beside)); err != nil {
		return err
	}
	for _, month := range months {
		r.Progress("replacing " + month)
		change := "DROP PARTITION ID '" + month + "'"
		if slices.Contains(parts[0].Months, month) {
			change = "REPLACE PARTITION ID '" + month + "' FROM " + beside
		}
		if err := c.Exec(ctx, "ALTER TABLE "+r.Table+" "+change); err != nil {
			return fmt.Errorf("month %s: %w", month, err)
		}
	}
	return nil
}
