package rollup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// Names in the database.
const (
	// Table holds the sums.
	Table = "partner_quarter_hourly_state"
	// TimeColumn is the start of the quarter of an hour, in Table.
	TimeColumn = "quarter_hour"
	// Carried is the src_topic of sums whose rows were gone when they were carried
	// over.
	Carried = "carried-over"

	hourlyTable = "partner_hourly_state" // of earlier releases
)

// ErrDiffers says that sums would change: nothing was replaced that a reader sees.
var ErrDiffers = errors.New("the new sums are not the old ones")

// ErrReplicaBehind says that this replica does not have all rows yet.
var ErrReplicaBehind = errors.New("this replica is behind")

// Rebuild returns the part of a rebuild of Table that does not depend on the days.
func Rebuild() clickhouse.Rebuild {
	return clickhouse.Rebuild{Table: Table, TimeColumn: TimeColumn, Keep: "src_topic = '" + Carried + "'"}
}

// Result is what CarryOver did.
type Result struct {
	Months       int    // of sums
	Standing     uint64 // events of rules version 1 whose standing change was computed
	Approximated uint64 // of these, events in which effect × amount stands in
	CarriedLines uint64 // lines of sums without rows
}

// carrier carries the sums over.
type carrier struct {
	wh  *clickhouse.Conn
	log *slog.Logger

	eventsAtOnce uint64
	beforeStep   func(step string) error // an error ends the run there; nil: none
}

func newCarrier(wh *clickhouse.Conn, log *slog.Logger) *carrier {
	return &carrier{wh: wh, log: log, eventsAtOnce: eventsAtOnce}
}

func (c *carrier) announce(step string) error {
	c.log.Info(step)
	if c.beforeStep == nil {
		return nil
	}
	return c.beforeStep(step)
}

// Pending reports whether the database is one of an earlier release and has rows or
// sums that CarryOver must see before the migrations can be finished. A database that
// is new, or missing, has none.
func Pending(ctx context.Context, wh *clickhouse.Conn) (bool, error) {
	var views []struct {
		N uint64 `ch:"n"`
	}
	// Once the first of the old views is gone, the new table is in use.
	err := wh.Select(ctx, &views, `
		SELECT count() AS n
		FROM system.tables
		WHERE database = {database:String}
			AND name IN ('partner_hourly_from_clicks', 'partner_hourly_from_outcomes')`,
		clickhouse.Named("database", wh.Database()))
	if errors.Is(err, clickhouse.ErrNoDatabase) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for sums of an earlier release: %w", err)
	}
	if views[0].N < 2 {
		return false, nil
	}
	var rows []struct {
		N uint64 `ch:"n"`
	}
	err = wh.Select(ctx, &rows, `
		SELECT
			(SELECT count() FROM `+hourlyTable+`)
			+ (SELECT count() FROM clicks)
			+ (SELECT count() FROM outcomes) AS n`)
	if err != nil {
		return false, fmt.Errorf("looking for sums of an earlier release: %w", err)
	}
	return rows[0].N > 0, nil
}

// CarryOver computes the standing changes of rules version 1 and fills Table with the
// sums of the rows, and with those sums of partner_hourly_state that have no rows any
// more. Migration 0006 must have made the table and its views. It can be repeated.
func CarryOver(ctx context.Context, wh *clickhouse.Conn, log *slog.Logger) (Result, error) {
	return newCarrier(wh, log).carryOver(ctx)
}

// CompleteStanding computes the standing changes of events of rules version 1 that
// arrived after CarryOver, and returns their number. Table must be rebuilt afterwards.
func CompleteStanding(ctx context.Context, wh *clickhouse.Conn, log *slog.Logger) (uint64, error) {
	events, _, err := newCarrier(wh, log).completeStanding(ctx)
	return events, err
}

func (c *carrier) carryOver(ctx context.Context) (out Result, err error) {
	if err := c.checkReplica(ctx); err != nil {
		return out, err
	}
	if out.Standing, out.Approximated, err = c.completeStanding(ctx); err != nil {
		return out, err
	}
	incomplete, err := c.readIncompleteTables(ctx)
	if err != nil {
		return out, err
	}
	months, err := c.readMonths(ctx)
	if err != nil {
		return out, err
	}
	for i, month := range months {
		if err := c.announce(fmt.Sprintf("carrying over %s, month %d of %d", month, i+1, len(months))); err != nil {
			return out, err
		}
		lines, err := c.carryMonth(ctx, month, incomplete)
		if err != nil {
			return out, fmt.Errorf("carrying over the sums of %s: %w", month, err)
		}
		out.CarriedLines += lines
	}
	out.Months = len(months)
	return out, nil
}

// checkReplica waits until this replica has all rows, and refuses to compute sums on one
// that still lacks some.
func (c *carrier) checkReplica(ctx context.Context) error {
	replicated, err := c.readReplicatedTables(ctx, "NOT is_readonly")
	if err != nil {
		return err
	}
	for _, table := range replicated {
		if err := c.wh.Exec(ctx, "SYSTEM SYNC REPLICA "+table); err != nil {
			return fmt.Errorf("waiting until this replica of %s has caught up: %w", table, err)
		}
	}
	// The queue has only what the replica took from the log. log_pointer is the next
	// entry that it takes; log_max_index is 0 also where the log is empty.
	behind, err := c.readReplicatedTables(ctx, `is_readonly OR queue_size > 0 OR absolute_delay > 0
			OR (log_max_index > 0 AND log_pointer <= log_max_index)`)
	if err != nil {
		return err
	}
	if len(behind) > 0 {
		return fmt.Errorf("%w: table %s is read-only, has a queue or is behind the log in system.replicas; run this "+
			"again when it has caught up", ErrReplicaBehind, behind[0])
	}
	return nil
}

// readReplicatedTables lists the tables whose row in system.replicas meets a condition.
func (c *carrier) readReplicatedTables(ctx context.Context, condition string) ([]string, error) {
	var found []struct {
		Table string `ch:"table"`
	}
	err := c.wh.Select(ctx, &found, `
		SELECT table
		FROM system.replicas
		WHERE database = {database:String} AND (`+condition+`)
		ORDER BY table`,
		clickhouse.Named("database", c.wh.Database()))
	if err != nil {
		return nil, fmt.Errorf("reading the state of this replica: %w", err)
	}
	var tables []string
	for _, f := range found {
		tables = append(tables, f.Table)
	}
	return tables, nil
}

// readIncompleteTables returns which of clicks and outcomes have fewer rows than their
// batches record, because old rows were dropped. Only of these may there be sums
// without rows.
func (c *carrier) readIncompleteTables(ctx context.Context) (map[string]bool, error) {
	var found []struct {
		Topic    string `ch:"topic"`
		Recorded uint64 `ch:"recorded"`
		Present  uint64 `ch:"present"`
	}
	err := c.wh.Select(ctx, &found, `
		SELECT
			topic,
			sum(rows) AS recorded,
			if(topic = 'clicks', (SELECT count() FROM clicks), (SELECT count() FROM outcomes)) AS present
		FROM batches FINAL
		WHERE topic IN ('clicks', 'outcomes')
		GROUP BY topic`)
	if err != nil {
		return nil, fmt.Errorf("counting the rows of clicks and outcomes: %w", err)
	}
	incomplete := map[string]bool{}
	for _, f := range found {
		incomplete[f.Topic] = f.Present < f.Recorded
	}
	return incomplete, nil
}

// readMonths lists the months (YYYYMM) that have sums, or will have.
func (c *carrier) readMonths(ctx context.Context) ([]string, error) {
	var found []struct {
		Month string `ch:"month"`
	}
	err := c.wh.Select(ctx, &found, `
		SELECT DISTINCT toString(month) AS month
		FROM
		(
			SELECT DISTINCT toYYYYMM(hour) AS month FROM `+hourlyTable+`
			UNION ALL SELECT DISTINCT toYYYYMM(`+TimeColumn+`) AS month FROM `+Table+`
			UNION ALL SELECT DISTINCT toYYYYMM(clicked_at) AS month FROM clicks
			UNION ALL SELECT DISTINCT toYYYYMM(occurred_at) AS month FROM outcomes WHERE effect != 0
		)
		ORDER BY month`)
	if err != nil {
		return nil, fmt.Errorf("listing the months of the rollup: %w", err)
	}
	var months []string
	for _, f := range found {
		months = append(months, f.Month)
	}
	return months, nil
}

// carryMonth makes a month in the shadow, compares it, and puts it in place. It returns
// the number of lines of sums without rows.
func (c *carrier) carryMonth(ctx context.Context, month string, incomplete map[string]bool) (lines uint64, err error) {
	start, err := time.Parse("200601", month)
	if err != nil {
		return 0, err
	}
	shadow, err := c.wh.NewShadow(ctx, Table, TimeColumn, "AggregatingMergeTree")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, shadow.Drop(context.WithoutCancel(ctx))) }()
	err = shadow.FillFromViews(ctx, TimeColumn+" >= fromUnixTimestamp({from:Int64}) AND "+
		TimeColumn+" < fromUnixTimestamp({to:Int64})",
		clickhouse.Named("from", start.Unix()), clickhouse.Named("to", start.AddDate(0, 1, 0).Unix()))
	if err != nil {
		return 0, err
	}
	if err := c.checkDifferences(ctx, shadow.Name, month, incomplete); err != nil {
		return 0, err
	}
	if lines, err = c.insertCarriedLines(ctx, shadow.Name, month); err != nil {
		return 0, err
	}
	if left, err := c.countDifferences(ctx, shadow.Name, month); err != nil || left > 0 {
		return 0, errors.Join(err, fmt.Errorf("%w: %d lines differ from %s", ErrDiffers, left, hourlyTable))
	}
	if err := c.announce("replacing " + month); err != nil {
		return 0, err
	}
	return lines, shadow.ReplaceMonth(ctx, month)
}

// keyColumns are those of the hourly table.
const keyColumns = "workspace_id, hour, partner_id, program_id, link_id, currency, exponent"

// clickSums and eventSums are what the hourly table sums of clicks and of outcomes.
func clickSums() []string { return []string{"clicks", "human_clicks", "tokened_clicks"} }

func eventSums() []string {
	return []string{"leads", "sales", "refunds", "cancellations", "reversals", "gross_minor", "negative_minor",
		"reward_minor"}
}

// differences is a query for what the hourly table has and the shadow lacks, of one
// month: a row for each key that differs in a sum.
func differences(shadow string) string {
	var ours, theirs, sums, unequal []string
	for _, name := range append(clickSums(), eventSums()...) {
		theirs = append(theirs, "toInt128("+name+") AS "+name)
		ours = append(ours, "-toInt128("+name+") AS "+name)
		sums = append(sums, "sum(x."+name+") AS "+name)
		unequal = append(unequal, name+" != 0")
	}
	return `
		SELECT ` + keyColumns + `, ` + strings.Join(sums, ", ") + `
		FROM
		(
			SELECT ` + keyColumns + `, ` + strings.Join(theirs, ", ") + `
			FROM ` + hourlyTable + `
			WHERE toYYYYMM(hour) = {month:UInt32}
			UNION ALL
			SELECT
				` + strings.Replace(keyColumns, "hour", "toStartOfHour("+TimeColumn+") AS hour", 1) + `,
				` + strings.Join(ours, ", ") + `
			FROM ` + shadow + `
		) AS x
		GROUP BY ` + keyColumns + `
		HAVING ` + strings.Join(unequal, " OR ")
}

func (c *carrier) countDifferences(ctx context.Context, shadow, month string) (uint64, error) {
	var count []struct {
		N uint64 `ch:"n"`
	}
	err := c.wh.Select(ctx, &count, "SELECT count() AS n FROM ("+differences(shadow)+")",
		clickhouse.Named("month", month))
	if err != nil {
		return 0, err
	}
	return count[0].N, nil
}

// checkDifferences refuses sums that cannot be those of rows that are gone: less than
// the rows that are there, or more although no row is gone.
func (c *carrier) checkDifferences(ctx context.Context, shadow, month string, incomplete map[string]bool) error {
	var impossible []string
	for topic, sums := range map[string][]string{"clicks": clickSums(), "outcomes": eventSums()} {
		for _, name := range sums {
			switch {
			case !incomplete[topic]:
				impossible = append(impossible, name+" != 0")
			case name != "negative_minor" && name != "reward_minor":
				impossible = append(impossible, name+" < 0")
			}
		}
	}
	var found []struct {
		Workspace string `ch:"workspace_id"`
		Hour      string `ch:"at"`
		Link      string `ch:"link_id"`
		Lines     uint64 `ch:"n"`
	}
	err := c.wh.Select(ctx, &found, `
		SELECT workspace_id, toString(hour) AS at, link_id, count() OVER () AS n
		FROM (`+differences(shadow)+`)
		WHERE `+strings.Join(impossible, " OR ")+`
		ORDER BY hour, workspace_id, link_id
		LIMIT 1`,
		clickhouse.Named("month", month))
	if err != nil || len(found) == 0 {
		return err
	}
	f := found[0]
	return fmt.Errorf("%w: %d lines of %s are not the sums of the rows of clicks and outcomes, the first at %s UTC, "+
		"workspace %s, link %s: run `ctl rollup rebuild` of the release that you come from, then this command again",
		ErrDiffers, f.Lines, hourlyTable, f.Hour, f.Workspace, f.Link)
}

// insertCarriedLines adds the sums whose rows are gone. What of them stands is not
// known; gross + negative stands in.
func (c *carrier) insertCarriedLines(ctx context.Context, shadow, month string) (uint64, error) {
	sums := append(clickSums(), eventSums()...)
	lines, err := c.countDifferences(ctx, shadow, month)
	if err != nil || lines == 0 {
		return 0, err
	}
	return lines, c.wh.Exec(ctx, `
		INSERT INTO `+shadow+`
		(
			`+strings.Replace(keyColumns, "hour", TimeColumn, 1)+`, src_topic, src_partition,
			`+strings.Join(sums, ", ")+`, approximated_events, standing_minor
		)
		SELECT
			`+keyColumns+`, '`+Carried+`', 0,
			`+strings.Join(sums, ", ")+`, refunds + cancellations + reversals, gross_minor + negative_minor
		FROM (`+differences(shadow)+`)`,
		clickhouse.Named("month", month))
}
