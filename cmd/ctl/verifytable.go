package main

import (
	"context"
	"fmt"

	"github.com/nimriz/partners/cmd/internal/tablerows"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/verify"
	"github.com/nimriz/partners/schemas/event"
)

// openTable makes the warehouse's part of a verification. It adds to the source what
// the tables remember and the topics may not: the times that Progress named, and which
// events an earlier version of the rules judged.
func openTable(ctx context.Context, wh *clickhouse.Conn, workspace string, source *verify.Source) (t *verify.Table,
	err error) {
	t = &verify.Table{Ends: make(map[int32]int64)}
	var ends []struct {
		Partition uint32 `ch:"partition"`
		End       uint64 `ch:"end_offset"`
	}
	if err := wh.Select(ctx, &ends, `
SELECT partition, toUInt64(end_offset) AS end_offset
FROM tiled_ends
WHERE topic = 'outcomes'`); err != nil {
		return nil, fmt.Errorf("reading how far the sink is: %w", err)
	}
	for _, x := range ends {
		t.Ends[int32(x.Partition)] = int64(x.End)
	}
	if t.Dropped, err = readDroppedEnds(ctx, wh); err != nil {
		return nil, err
	}
	if err := addWitnesses(ctx, wh, source); err != nil {
		return nil, err
	}
	known := []uint32{}
	for _, p := range source.Partitions {
		known = append(known, uint32(p.ID))
	}
	t.Each = func(ctx context.Context, partition int32, do func(verify.Place, *event.Outcome) error) error {
		const condition = `workspace_id = {w:String}
			AND if(has({known:Array(UInt32)}, src_partition), src_partition, {known:Array(UInt32)}[1]) = {p:UInt32}`
		return tablerows.EachOutcome(ctx, wh, condition,
			[]any{clickhouse.Named("w", workspace), clickhouse.Named("known", known),
				clickhouse.Named("p", uint32(partition))},
			func(partition uint32, offset uint64, o *event.Outcome) error {
				return do(verify.Place{Partition: int32(partition), Offset: int64(offset)}, o)
			})
	}
	return t, nil
}

// readDroppedEnds reads what was dropped with its month.
func readDroppedEnds(ctx context.Context, wh *clickhouse.Conn) (map[int32]verify.DroppedEnds, error) {
	var found []struct {
		Partition uint32 `ch:"src_partition"`
		Rows      uint64 `ch:"rows_end"`
		Events    uint64 `ch:"events_end"`
	}
	if err := wh.Select(ctx, &found, `
SELECT
	src_partition,
	maxIf(end_offset, table_name = 'outcomes') AS rows_end,
	maxIf(end_offset, table_name = 'conversions') AS events_end
FROM dropped_rows
WHERE month IN (SELECT month FROM dropped_months)
GROUP BY src_partition`); err != nil {
		return nil, fmt.Errorf("reading what was dropped: %w", err)
	}
	ends := map[int32]verify.DroppedEnds{}
	for _, f := range found {
		ends[int32(f.Partition)] = verify.DroppedEnds{Rows: int64(f.Rows), Events: int64(f.Events)}
	}
	return ends, nil
}

// addWitnesses adds to the source's partitions what the tables know about them.
func addWitnesses(ctx context.Context, wh *clickhouse.Conn, source *verify.Source) error {
	var times []struct {
		Partition    uint32 `ch:"partition"`
		Grace        uint64 `ch:"grace_ms"`
		ClickLife    uint64 `ch:"click_life_ms"`
		JourneyLife  uint64 `ch:"journey_life_ms"`
		First        uint64 `ch:"first"`
		Last         uint64 `ch:"last"`
		LastOutcomes uint64 `ch:"last_outcomes"`
	}
	if err := wh.Select(ctx, &times, `
SELECT
	partition, grace_ms, click_life_ms, journey_life_ms,
	min(conversions_position) AS first,
	max(conversions_position) AS last,
	max(outcomes_end) AS last_outcomes
FROM progress
GROUP BY partition, grace_ms, click_life_ms, journey_life_ms`); err != nil {
		return fmt.Errorf("reading which grace and lives were in force: %w", err)
	}
	var older []struct {
		Partition uint32 `ch:"partition"`
		End       uint64 `ch:"end"`
	}
	// A row of an earlier version behind one of today's is no upgrade, and no witness: it
	// would hide all rows before it.
	if err := wh.Select(ctx, &older, `
SELECT o.src_partition AS partition, max(o.event_offset) + 1 AS end
FROM outcomes AS o
LEFT JOIN
(
	SELECT src_partition, min(src_offset) AS start, count() AS n
	FROM outcomes
	WHERE rules_version >= {version:UInt16}
	GROUP BY src_partition
) AS today ON today.src_partition = o.src_partition
WHERE o.rules_version < {version:UInt16} AND (today.n = 0 OR o.src_offset < today.start)
GROUP BY o.src_partition`, clickhouse.Named("version", event.RulesVersion)); err != nil {
		return fmt.Errorf("reading which events an earlier version of the rules judged: %w", err)
	}
	for i := range source.Partitions {
		p := &source.Partitions[i]
		for _, x := range times {
			if int32(x.Partition) == p.ID {
				p.AddTimes(0, verify.Times{
					GraceMs:       int64(x.Grace),
					ClickLifeMs:   int64(x.ClickLife),
					JourneyLifeMs: int64(x.JourneyLife),
					First:         int64(x.First),
					Last:          int64(x.Last),
					LastOutcomes:  int64(x.LastOutcomes),
				})
			}
		}
		for _, x := range older {
			if int32(x.Partition) == p.ID {
				p.AddTimes(int64(x.End))
			}
		}
	}
	return nil
}
