package rollup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// eventsAtOnce is about how many pending events are computed at a time; ClickHouse sorts
// them, with the other events of their tokens.
const eventsAtOnce = 250_000

// changesAtOnce is how many computed changes are held before they are inserted.
const changesAtOnce = 50_000

// changesTable holds computed changes until they are in outcomes.
const changesTable = "outcomes_standing_changes"

// completeStanding computes the standing change of every pending row of outcomes, and
// returns the number of rows that were pending and the number that had to be
// approximated.
func (c *carrier) completeStanding(ctx context.Context) (pending, approximated uint64, err error) {
	months, pending, err := c.readPendingMonths(ctx)
	if err != nil || len(months) == 0 {
		return 0, 0, err
	}
	shadow, err := c.wh.NewShadow(ctx, "outcomes", "arrived_at", "MergeTree")
	if err != nil {
		return 0, 0, err
	}
	// Even if ctx has ended: it may be as large as the table.
	defer func() { err = errors.Join(err, shadow.Drop(context.WithoutCancel(ctx))) }()
	if err := c.createChangesTable(ctx); err != nil {
		return 0, 0, err
	}
	if err := c.computeChanges(ctx, &approximated); err != nil {
		return 0, 0, fmt.Errorf("computing the standing changes of rules version 1: %w", err)
	}
	for i, month := range months {
		step := fmt.Sprintf("writing the standing changes of %s, month %d of %d", month, i+1, len(months))
		if err := c.announce(step); err != nil {
			return 0, 0, err
		}
		if err := c.rewriteMonth(ctx, shadow, month); err != nil {
			return 0, 0, fmt.Errorf("%s: %w", step, err)
		}
	}
	return pending, approximated, c.wh.Exec(ctx, "DROP TABLE "+changesTable+" SYNC")
}

// readPendingMonths returns the months (of arrived_at) with pending rows, and the
// number of those rows.
func (c *carrier) readPendingMonths(ctx context.Context) (months []string, pending uint64, err error) {
	var found []struct {
		Month string `ch:"month"`
		Rows  uint64 `ch:"n"`
	}
	err = c.wh.Select(ctx, &found, `
		SELECT toString(toYYYYMM(arrived_at)) AS month, count() AS n
		FROM outcomes
		WHERE standing_basis = 'pending'
		GROUP BY month
		ORDER BY month`)
	if err != nil {
		return nil, 0, fmt.Errorf("looking for events of rules version 1: %w", err)
	}
	for _, f := range found {
		months = append(months, f.Month)
		pending += f.Rows
	}
	return months, pending, nil
}

// createChangesTable creates it empty; an interrupted run may have left one.
func (c *carrier) createChangesTable(ctx context.Context) error {
	if err := c.wh.Exec(ctx, "DROP TABLE IF EXISTS "+changesTable+" SYNC"); err != nil {
		return err
	}
	return c.wh.Exec(ctx, `
		CREATE TABLE `+changesTable+`
		(
			month UInt32,
			src_partition UInt32,
			src_offset UInt64,
			changed_minor Nullable(Int64),
			basis LowCardinality(String)
		)
		ENGINE = MergeTree
		PARTITION BY month
		ORDER BY (src_partition, src_offset)`)
}

// computeChanges fills the table of changes, partition by partition; all outcomes of a
// token are in one.
func (c *carrier) computeChanges(ctx context.Context, approximated *uint64) error {
	var partitions []struct {
		ID      uint32 `ch:"src_partition"`
		Pending uint64 `ch:"n"`
	}
	err := c.wh.Select(ctx, &partitions, `
		SELECT src_partition, countIf(standing_basis = 'pending') AS n
		FROM outcomes
		GROUP BY src_partition
		HAVING n > 0
		ORDER BY src_partition`)
	if err != nil {
		return err
	}
	for i, p := range partitions {
		gaps, err := c.readGaps(ctx, p.ID)
		if err != nil {
			return fmt.Errorf("looking for missing rows of partition %d: %w", p.ID, err)
		}
		parts := p.Pending/c.eventsAtOnce + 1
		for part := range parts {
			step := fmt.Sprintf("computing the standing changes of partition %d, %d of %d, part %d of %d", p.ID, i+1,
				len(partitions), part+1, parts)
			if err := c.announce(step); err != nil {
				return err
			}
			w := &changesWriter{wh: c.wh, partition: p.ID, gaps: gaps, approximated: approximated}
			if err := w.computePart(ctx, part, parts); err != nil {
				return fmt.Errorf("partition %d: %w", p.ID, err)
			}
		}
	}
	return nil
}

// readGaps returns the ranges of a partition of outcomes of which rows are missing:
// because they were lost, or because old rows were dropped.
func (c *carrier) readGaps(ctx context.Context, partition uint32) ([]offsetGap, error) {
	var found []struct {
		Start uint64 `ch:"start_offset"`
		End   uint64 `ch:"end_offset"`
	}
	err := c.wh.Select(ctx, &found, `
		WITH recorded AS
		(
			SELECT start_offset, end_offset, rows, lost
			FROM batches FINAL
			WHERE topic = 'outcomes' AND partition = {partition:UInt32}
		)
		SELECT b.start_offset AS start_offset, b.end_offset AS end_offset
		FROM recorded AS b
		LEFT JOIN
		(
			SELECT starts.start_offset AS start_offset, count() AS n
			FROM
			(
				SELECT 1 AS one, src_offset FROM outcomes WHERE src_partition = {partition:UInt32}
			) AS present
			ASOF JOIN (SELECT 1 AS one, start_offset FROM recorded) AS starts
				ON present.one = starts.one AND present.src_offset >= starts.start_offset
			GROUP BY start_offset
		) AS counted ON counted.start_offset = b.start_offset
		WHERE b.lost > 0 OR counted.n < b.rows
		ORDER BY start_offset
		SETTINGS join_use_nulls = 0`,
		clickhouse.Named("partition", partition))
	if err != nil {
		return nil, err
	}
	var gaps []offsetGap
	for _, f := range found {
		if last := len(gaps) - 1; last >= 0 && gaps[last].end >= f.Start {
			gaps[last].end = max(gaps[last].end, f.End)
			continue
		}
		gaps = append(gaps, offsetGap{f.Start, f.End})
	}
	return gaps, nil
}

// rewriteMonth replaces a month of outcomes with the same rows and their computed
// changes. It makes sure that nothing else differs.
func (c *carrier) rewriteMonth(ctx context.Context, shadow *clickhouse.Shadow, month string) error {
	columns, err := c.wh.InsertableColumns(ctx, "outcomes")
	if err != nil {
		return err
	}
	var values, others []string
	for _, name := range columns {
		switch name {
		case "`standing_change_minor`":
			values = append(values, "if(basis != '', changed_minor, standing_change_minor)")
		case "`standing_basis`":
			values = append(values, "if(basis != '', basis, standing_basis)")
		default:
			values = append(values, name)
			others = append(others, name)
		}
	}
	var partitions []struct {
		ID uint32 `ch:"src_partition"`
	}
	err = c.wh.Select(ctx, &partitions,
		"SELECT DISTINCT src_partition FROM outcomes WHERE toYYYYMM(arrived_at) = {month:UInt32} ORDER BY ALL",
		clickhouse.Named("month", month))
	if err != nil {
		return err
	}
	for _, p := range partitions {
		err := c.wh.Exec(ctx, `
			INSERT INTO `+shadow.Name+` (`+strings.Join(columns, ", ")+`)
			SELECT `+strings.Join(values, ", ")+`
			FROM
			(
				SELECT *
				FROM outcomes
				WHERE toYYYYMM(arrived_at) = {month:UInt32} AND src_partition = {partition:UInt32}
			) AS o
			LEFT ANY JOIN
			(
				SELECT src_offset, changed_minor, basis
				FROM `+changesTable+`
				WHERE month = {month:UInt32} AND src_partition = {partition:UInt32}
			) AS computed USING (src_offset)
			SETTINGS join_use_nulls = 0`,
			clickhouse.Named("month", month), clickhouse.Named("partition", p.ID))
		if err != nil {
			return fmt.Errorf("partition %d: %w", p.ID, err)
		}
	}
	if err := c.compareMonth(ctx, shadow.Name, month, others); err != nil {
		return err
	}
	return shadow.ReplaceCopiedMonth(ctx, month)
}

// compareMonth makes sure that a month of outcomes and its copy differ in nothing but
// the standing changes, and that none of the copy is pending.
func (c *carrier) compareMonth(ctx context.Context, copied, month string, columns []string) error {
	type content struct {
		Rows    uint64 `ch:"n"`
		Hash    uint64 `ch:"hash"`
		Pending uint64 `ch:"pending"`
	}
	var found [2]content
	for i, table := range []string{"outcomes", copied} {
		var rows []content
		err := c.wh.Select(ctx, &rows, `
			SELECT
				count() AS n,
				sum(cityHash64(toString(tuple(reward_exponent, `+strings.Join(columns, ", ")+`)))) AS hash,
				countIf(standing_basis = 'pending') AS pending
			FROM `+table+`
			WHERE toYYYYMM(arrived_at) = {month:UInt32}`,
			clickhouse.Named("month", month))
		if err != nil {
			return err
		}
		found[i] = rows[0]
	}
	was, is := found[0], found[1]
	if was.Rows != is.Rows || was.Hash != is.Hash || is.Pending > 0 {
		return fmt.Errorf("%w: outcomes has %d rows, their copy %d, of which %d are pending; hashes of what must not "+
			"change: %x and %x", ErrDiffers, was.Rows, is.Rows, is.Pending, was.Hash, is.Hash)
	}
	return nil
}
