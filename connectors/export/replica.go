package export

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/ddl"
)

// replicaPoll is how often a replica that is behind is looked at again.
const replicaPoll = 2 * time.Second

// readEnds returns how far the tables go now: of each partition the end of the gapless
// run of finished batches.
func (e *exporter) readEnds(ctx context.Context) (AsOf, error) {
	var ends []struct {
		Topic     string `ch:"topic"`
		Partition uint32 `ch:"partition"`
		End       uint64 `ch:"end_offset"`
	}
	const query = `
SELECT topic, partition, end_offset
FROM tiled_ends
WHERE topic IN ('outcomes', 'conversions', 'progress', 'catalog')`
	if err := e.conn.Select(ctx, &ends, query); err != nil {
		return AsOf{}, fmt.Errorf("reading how far the tables go: %w", err)
	}
	now := AsOf{
		Outcomes:    map[uint32]uint64{},
		Conversions: map[uint32]uint64{},
		Progress:    map[uint32]uint64{},
		At:          time.Now().UTC().Truncate(time.Millisecond),
	}
	for _, x := range ends {
		switch x.Topic {
		case "outcomes":
			now.Outcomes[x.Partition] = x.End
		case "conversions":
			now.Conversions[x.Partition] = x.End
		case "progress":
			now.Progress[x.Partition] = x.End
		case "catalog":
			now.Catalog = x.End
		}
	}
	return now, nil
}

// waitForReplica waits until the tables have all rows of the batches below the ends.
// Each table of a replica catches up on its own, so the table of batches may be ahead
// of the rows that it counts.
func (e *exporter) waitForReplica(ctx context.Context, ends AsOf) error {
	all, err := e.seesEveryWorkspace(ctx)
	if err != nil {
		return err
	}
	if !all { // batches count the rows of all workspaces
		e.cfg.Log.Warn("this user does not see all workspaces: the export cannot check whether this replica has " +
			"all rows")
		return nil
	}
	for deadline := time.Now().Add(cmp.Or(e.cfg.replicaWait, time.Minute)); ; {
		err := e.checkNoRowsMissing(ctx, ends)
		if !errors.Is(err, ErrRowsMissing) || !time.Now().Add(replicaPoll).Before(deadline) {
			return err
		}
		e.cfg.Log.Info("waiting for rows that this replica does not have yet", "error", err)
		if !outage.Sleep(ctx, replicaPoll) {
			return context.Cause(ctx)
		}
	}
}

// seesEveryWorkspace reports whether no row policy hides rows from this user.
func (e *exporter) seesEveryWorkspace(ctx context.Context) (bool, error) {
	var roles []struct {
		All bool `ch:"all"`
	}
	const query = `
SELECT NOT has(enabledRoles(), {reader:String}) OR hasAny(enabledRoles(), {whole:Array(String)}) AS all`
	if err := e.conn.Select(ctx, &roles, query,
		clickhouse.Named("reader", ddl.RoleReader),
		clickhouse.Named("whole", []string{ddl.RoleWriter, ddl.RoleEveryWorkspace})); err != nil {
		return false, fmt.Errorf("reading the roles: %w", err)
	}
	return roles[0].All, nil
}

// checkNoRowsMissing compares the tables with their batches.
func (e *exporter) checkNoRowsMissing(ctx context.Context, ends AsOf) error {
	if err := e.checkTable(ctx, "outcomes", "outcomes", ends.Outcomes); err != nil {
		return err
	}
	if err := e.checkTable(ctx, "conversions", "conversions", ends.Conversions); err != nil {
		return err
	}
	if err := e.checkTable(ctx, "progress", "progress", ends.Progress); err != nil {
		return err
	}
	return e.checkTable(ctx, "catalog", "catalog_versions", map[uint32]uint64{0: ends.Catalog})
}

// recentBatches are the batches of one partition that were inserted within a day.
type recentBatches struct {
	Partition uint32 `ch:"partition"`
	First     uint64 `ch:"first"` // offset with which they begin
	Rows      uint64 `ch:"rows"`  // that they inserted
}

// checkTable reports the first partition that has fewer rows in a table than its
// batches of the last day. A replica lags by less than that, and rows that were removed
// on purpose long ago do not block exports.
func (e *exporter) checkTable(ctx context.Context, topic, table string, ends map[uint32]uint64) error {
	batches, err := e.readRecentBatches(ctx, topic, ends)
	if err != nil || len(batches) == 0 {
		return err
	}
	firsts := map[uint32]uint64{}
	for _, b := range batches {
		firsts[b.Partition] = b.First
	}
	var counted []struct {
		Partition uint32 `ch:"partition"`
		Rows      uint64 `ch:"rows"`
	}
	query := `
SELECT src_partition AS partition, count() AS rows
FROM ` + table + `
WHERE ` + belowEnds("src_partition", "src_offset", "ends") + `
	AND NOT (` + belowEnds("src_partition", "src_offset", "firsts") + `)
GROUP BY partition`
	if err := e.conn.Select(ctx, &counted, query,
		clickhouse.Named("ends", endsByPartition(ends)),
		clickhouse.Named("firsts", endsByPartition(firsts))); err != nil {
		return fmt.Errorf("counting the rows of %s: %w", table, err)
	}
	rows := map[uint32]uint64{}
	for _, c := range counted {
		rows[c.Partition] = c.Rows
	}
	for _, b := range batches {
		if rows[b.Partition] < b.Rows {
			return fmt.Errorf("%w: of partition %d the table %s has %d rows from offset %d on, its batches have "+
				"%d: this replica is behind, or rows were removed",
				ErrRowsMissing, b.Partition, table, rows[b.Partition], b.First, b.Rows)
		}
	}
	return nil
}

// readRecentBatches reads the batches of a topic below the ends, by partition, but for
// those of which rows were dropped with their month. A batch that was recorded twice counts
// once.
func (e *exporter) readRecentBatches(ctx context.Context, topic string, ends map[uint32]uint64) ([]recentBatches,
	error) {
	var batches []recentBatches
	query := `
SELECT partition, min(start_offset) AS first, sum(n) AS rows
FROM
(
	SELECT partition, start_offset, end_offset, max(rows) AS n
	FROM batches
	LEFT JOIN
	(
		SELECT src_partition, max(end_offset) AS gone_end
		FROM dropped_rows
		WHERE table_name = {topic:String} AND month IN (SELECT month FROM dropped_months)
		GROUP BY src_partition
	) AS gone ON gone.src_partition = batches.partition
	WHERE topic = {topic:String}
		AND start_offset >= gone_end
		AND inserted_at > now() - INTERVAL 1 DAY
		AND ` + belowEnds("partition", "end_offset - 1", "ends") + `
	GROUP BY partition, start_offset, end_offset
)
GROUP BY partition
ORDER BY partition
SETTINGS join_use_nulls = 0`
	if err := e.conn.Select(ctx, &batches, query,
		clickhouse.Named("topic", topic),
		clickhouse.Named("ends", endsByPartition(ends))); err != nil {
		return nil, fmt.Errorf("counting the batches of %s: %w", topic, err)
	}
	return batches, nil
}
