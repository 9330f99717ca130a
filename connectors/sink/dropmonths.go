package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/nimriz/partners/schemas/statement"
)

// ErrNotFinal says that something of the months may still change, so they stay.
var ErrNotFinal = errors.New("the months are not final")

// droppedTables are the tables of which months are dropped. The catalog is not among
// them: it is small, and rows of any age are shown with it.
func droppedTables() []string {
	return []string{"clicks", "conversions", "outcomes", "rejections", "progress"}
}

// MonthRows is what one table has of a month.
type MonthRows struct {
	Table string `ch:"table"`
	Month string `ch:"month"` // YYYYMM of arrived_at
	Rows  uint64 `ch:"n"`
	Bytes uint64 `ch:"bytes"` // on disk
}

// MonthDropper drops the oldest months of the base tables. What stays of their rows is a
// narrow line of each event and verdict, so conservation, statements and the rollup are
// what they were; see migration 0014.
type MonthDropper struct {
	wh     *clickhouse.Conn
	log    *slog.Logger
	before time.Time // the first instant (UTC) of the first month that stays
	// settle is how long queries that began before a month was marked have to read it.
	settle    time.Duration
	afterStep func(step string) error // an error ends the drop there
}

// NewMonthDropper returns a MonthDropper for the months before an instant, which is the
// first of a month in UTC.
func NewMonthDropper(wh *clickhouse.Conn, before time.Time, log *slog.Logger) (*MonthDropper, error) {
	now := time.Now().UTC()
	switch {
	case !before.Equal(monthOf(before)):
		return nil, fmt.Errorf("%v is not the beginning of a month", before)
	case before.After(monthOf(now)):
		return nil, fmt.Errorf("%w: %s has not begun: rows of the running month stay", ErrNotFinal,
			before.Format("2006-01"))
	}
	return &MonthDropper{wh: wh, log: log, before: before, settle: 5 * time.Second,
		afterStep: func(string) error { return nil }}, nil
}

// monthOf returns the beginning of an instant's month, in UTC.
func monthOf(at time.Time) time.Time {
	at = at.UTC()
	return time.Date(at.Year(), at.Month(), 1, 0, 0, 0, 0, time.UTC)
}

// firstKept is the first month that stays, as the name of a partition.
func (d *MonthDropper) firstKept() string { return d.before.Format("200601") }

// List returns what would be dropped, the oldest first. Rows that came after their month
// was dropped, by a clock that was wrong, are not among it: they stay, and count as rows.
func (d *MonthDropper) List(ctx context.Context) (found []MonthRows, err error) {
	err = d.wh.Select(ctx, &found, `
		SELECT table, partition_id AS month, sum(rows) AS n, sum(bytes_on_disk) AS bytes
		FROM system.parts
		WHERE database = {database:String} AND active AND table IN {tables:Array(String)}
			AND partition_id < {first:String}
			AND partition_id NOT IN (SELECT toString(month) FROM dropped_months FINAL WHERE done)
		GROUP BY table, month
		ORDER BY month, table`,
		clickhouse.Named("database", d.wh.Database()),
		clickhouse.Named("tables", droppedTables()),
		clickhouse.Named("first", d.firstKept()))
	if err != nil {
		return nil, fmt.Errorf("listing the months: %w", err)
	}
	return found, nil
}

// Drop drops the months. It returns ErrNotFinal, and has changed nothing, if something of
// them may still change: an event that waits, or one that is not accounted for. Sinks may
// run, a repair may not: Drop holds its lock.
//
// Of each month it writes the narrow lines, marks the month as dropped, from which moment
// on readers count the lines and no longer the rows, and drops the rows. It can be
// repeated, also after it was killed anywhere: lines of a month that is not marked are
// written anew, a month that is marked is dropped.
func (d *MonthDropper) Drop(ctx context.Context) (err error) {
	held, lock, err := acquireRepairLock(ctx, d.wh)
	if err != nil {
		return fmt.Errorf("dropping months: %w", err)
	}
	defer func() { err = errors.Join(err, lock.release(ctx)) }()
	if err := d.dropAll(held); err != nil {
		if lost := context.Cause(held); ctx.Err() == nil && lost != nil {
			err = lost
		}
		return fmt.Errorf("dropping months: %w", err)
	}
	return nil
}

func (d *MonthDropper) dropAll(ctx context.Context) error {
	marked, err := readDroppedMonths(ctx, d.wh)
	if err != nil {
		return err
	}
	for month, done := range marked {
		if !done {
			if err := d.dropRows(ctx, month); err != nil {
				return err
			}
		}
	}
	found, err := d.List(ctx)
	if err != nil || len(found) == 0 {
		return err
	}
	if err := d.checkFinal(ctx); err != nil {
		return err
	}
	last := ""
	for _, f := range found {
		if f.Month == last {
			continue
		}
		last = f.Month
		if err := d.dropMonth(ctx, f.Month); err != nil {
			return fmt.Errorf("month %s: %w", f.Month, err)
		}
	}
	return nil
}

// readDroppedMonths returns the months that are dropped (YYYYMM), and whether no row of
// them is left.
func readDroppedMonths(ctx context.Context, wh *clickhouse.Conn) (map[string]bool, error) {
	var found []struct {
		Month string `ch:"month"`
		Done  bool   `ch:"done"`
	}
	err := wh.Select(ctx, &found, `
		SELECT toString(dropped_months.month) AS month, done
		FROM dropped_months FINAL
		SETTINGS select_sequential_consistency = 1`)
	if err != nil {
		return nil, fmt.Errorf("reading the dropped months: %w", err)
	}
	marked := map[string]bool{}
	for _, f := range found {
		marked[f.Month] = f.Done
	}
	return marked, nil
}

// checkFinal returns ErrNotFinal unless every event that arrived before is judged, its
// verdict is in the tables, and nothing is missing.
func (d *MonthDropper) checkFinal(ctx context.Context) error {
	var closing []statement.Closing
	if err := d.wh.Select(ctx, &closing, statement.ClosingQuery,
		clickhouse.Named("end", d.before.UnixMilli())); err != nil {
		return fmt.Errorf("reading how far all events are judged: %w", err)
	}
	if !closing[0].IsFinal() {
		return fmt.Errorf("%w: events of before %s may still get a row: the watermark is %s and has to pass %s",
			ErrNotFinal, d.before.Format("2006-01"), closing[0].Watermark.UTC().Format(time.RFC3339),
			closing[0].FinalAt.UTC().Format(time.RFC3339))
	}
	// Of any month: the changes of one that stays are computed from rows of its journey that
	// may be older.
	var found []struct {
		Waiting uint64 `ch:"waiting"`
		Pending uint64 `ch:"pending"`
		Silent  uint64 `ch:"silent"`
	}
	err := d.wh.Select(ctx, &found, `
		SELECT
			(
				SELECT count()
				FROM progress_reached
				WHERE waiting > 0 AND oldest_waiting_received_at < fromUnixTimestamp64Milli({before:Int64}, 'UTC')
			) AS waiting,
			(
				SELECT count()
				FROM outcomes
				WHERE standing_basis = 'pending'
			) AS pending,
			(
				SELECT count()
				FROM progress_reached
				WHERE arrived_at < fromUnixTimestamp64Milli({before:Int64}, 'UTC')
			) AS silent`,
		clickhouse.Named("before", d.before.UnixMilli()))
	if err != nil {
		return fmt.Errorf("looking for what may still change: %w", err)
	}
	switch f := found[0]; {
	case f.Waiting > 0:
		return fmt.Errorf("%w: in %d partitions events that were received before %s still wait for their click or "+
			"parent", ErrNotFinal, f.Waiting, d.before.Format("2006-01"))
	case f.Pending > 0:
		return fmt.Errorf("%w: %d rows of rules version 1 have no standing change yet: run `ctl rollup rebuild`",
			ErrNotFinal, f.Pending)
	case f.Silent > 0:
		return fmt.Errorf("%w: %d partitions have had no Progress since: do their processors run?", ErrNotFinal,
			f.Silent)
	}
	byPartition, byEvent, err := readConservation(ctx, d.wh)
	if err == nil && byPartition+byEvent > 0 {
		err = fmt.Errorf("%w: conservation is not 0 (by partition %d, by event %d), and could not be explained "+
			"without these rows: see ConservationBroken in the runbook", ErrNotFinal, byPartition, byEvent)
	}
	return err
}

// dropMonth drops one month that is not marked.
func (d *MonthDropper) dropMonth(ctx context.Context, month string) error {
	d.log.Info("writing what stays of a month", "month", month)
	for _, fill := range []struct{ table, columns, from string }{
		{"dropped_conversions", narrowEvents, "conversions"},
		{"dropped_outcomes", narrowVerdicts, "outcomes"},
	} {
		// What a killed run left, of a month that nobody counts in this table yet.
		if err := d.wh.Exec(ctx, "ALTER TABLE "+fill.table+" DROP PARTITION ID '"+month+"'"); err != nil {
			return fmt.Errorf("removing earlier lines of %s: %w", fill.table, err)
		}
		err := d.wh.Exec(ctx, "INSERT INTO "+fill.table+" ("+fill.columns+") SETTINGS insert_deduplicate = 0 SELECT "+
			fill.columns+" FROM "+fill.from+" WHERE _partition_id = '"+month+"'")
		if err != nil {
			return fmt.Errorf("writing %s: %w", fill.table, err)
		}
		if err := d.afterStep("written-" + fill.table); err != nil {
			return err
		}
	}
	for _, table := range droppedTables() {
		err := d.wh.Exec(ctx, `INSERT INTO dropped_rows (table_name, month, src_partition, rows, end_offset)
			SETTINGS insert_deduplicate = 0
			SELECT '`+table+`' AS table_name, `+month+` AS month, src_partition, count() AS rows,
				max(src_offset) + 1 AS end_offset
			FROM `+table+`
			WHERE _partition_id = '`+month+`'
			GROUP BY src_partition`)
		if err != nil {
			return fmt.Errorf("counting the rows of %s: %w", table, err)
		}
	}
	if err := d.afterStep("counted"); err != nil {
		return err
	}
	if err := d.checkWritten(ctx, month); err != nil {
		return err
	}
	if err := d.mark(ctx, month, false); err != nil {
		return err
	}
	return d.dropRows(ctx, month)
}

// The columns of the narrow lines.
const (
	narrowEvents   = "workspace_id, src_partition, src_offset, arrived_at, received_at, entered_at"
	narrowVerdicts = "workspace_id, src_partition, src_offset, arrived_at, event_partition, event_offset, " +
		"received_at, occurred_at, verdict, effect, standing_change_minor, standing_basis, currency, exponent, " +
		"partner_id, program_id, rules_version"
)

// checkWritten compares what was written of a month with its rows.
func (d *MonthDropper) checkWritten(ctx context.Context, month string) error {
	for table, narrow := range map[string]string{"conversions": "dropped_conversions", "outcomes": "dropped_outcomes",
		"clicks": "", "rejections": "", "progress": ""} {
		query := "SELECT count() AS n, (SELECT toUInt64(sum(dropped_rows.rows)) FROM dropped_rows FINAL WHERE " +
			"table_name = '" + table + "' AND month = " + month + ") AS counted, "
		if narrow == "" {
			query += "counted AS written"
		} else {
			query += "(SELECT count() FROM " + narrow + " WHERE _partition_id = '" + month + "') AS written"
		}
		var found []struct {
			Rows    uint64 `ch:"n"`
			Counted uint64 `ch:"counted"`
			Written uint64 `ch:"written"`
		}
		query += " FROM " + table + " WHERE _partition_id = '" + month + "' SETTINGS select_sequential_consistency = 1"
		if err := d.wh.Select(ctx, &found, query); err != nil {
			return fmt.Errorf("comparing what was written of %s: %w", table, err)
		}
		if f := found[0]; f.Counted != f.Rows || f.Written != f.Rows {
			return fmt.Errorf("%w: table %s has %d rows of the month, %d were counted and %d written: does something "+
				"insert? Run this command again", ErrNotFinal, table, f.Rows, f.Counted, f.Written)
		}
	}
	return nil
}

// mark writes that a month is dropped.
func (d *MonthDropper) mark(ctx context.Context, month string, done bool) error {
	err := d.wh.Exec(ctx, fmt.Sprintf("INSERT INTO dropped_months (month, done) VALUES (%s, %t)", month, done))
	if err != nil {
		return fmt.Errorf("marking month %s: %w", month, err)
	}
	if done {
		return d.afterStep("done")
	}
	return d.afterStep("marked")
}

// dropRows drops the rows of a month that is marked.
func (d *MonthDropper) dropRows(ctx context.Context, month string) error {
	if !outage.Sleep(ctx, d.settle) {
		return ctx.Err()
	}
	for _, table := range droppedTables() {
		d.log.Info("dropping rows", "month", month, "table", table)
		if err := d.wh.Exec(ctx, "ALTER TABLE "+table+" DROP PARTITION ID '"+month+
			"' SETTINGS max_partition_size_to_drop = 0"); err != nil {
			return fmt.Errorf("dropping month %s of %s: %w", month, table, err)
		}
		if err := d.afterStep("dropped-" + table); err != nil {
			return err
		}
	}
	return d.mark(ctx, month, true)
}

// SumsFrom returns from when on the rollup can be computed from its rows, because months
// were dropped; zero: all of it.
func SumsFrom(ctx context.Context, wh *clickhouse.Conn) (time.Time, error) {
	var found []ledger.Dropped
	if err := wh.Select(ctx, &found, ledger.DroppedQuery); err != nil {
		return time.Time{}, fmt.Errorf("reading which months were dropped: %w", err)
	}
	if !found[0].Any() {
		return time.Time{}, nil
	}
	return found[0].RowsFrom.Add(oldestArrivalMargin), nil
}
