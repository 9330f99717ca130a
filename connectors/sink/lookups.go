package sink

import (
	"context"
	"fmt"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// lookupTables sum up rows of outcomes by an id, by least and greatest values. A row that
// is summed up twice changes nothing, so they are repaired by inserting rows again.
func lookupTables() []string { return []string{"effects_by_event_id", "sales_by_order_id"} }

// FillLookups inserts all lines of the tables that find events by their ids, as the rows
// of outcomes have them now. It calls report before each step.
func FillLookups(ctx context.Context, wh *clickhouse.Conn, report func(step string)) error {
	var partitions []struct {
		ID uint32 `ch:"src_partition"`
	}
	if err := wh.Select(ctx, &partitions, "SELECT DISTINCT src_partition FROM outcomes ORDER BY ALL"); err != nil {
		return fmt.Errorf("listing the partitions of outcomes: %w", err)
	}
	for _, table := range lookupTables() {
		for i, p := range partitions {
			report(fmt.Sprintf("filling %s, partition %d of %d", table, i+1, len(partitions)))
			err := wh.FillFromViews(ctx, table, "src_partition = {partition:UInt32}",
				clickhouse.Named("partition", p.ID))
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// fillLookups inserts the lines of the batch once more. Whether one of them was lost, as
// sums can be, is not looked for: that costs no less.
func (v *verification) fillLookups(ctx context.Context) error {
	if !v.mapping.hasLookups {
		return nil
	}
	for _, table := range lookupTables() {
		err := v.sink.wh.FillFromViews(ctx, table,
			"src_partition = {partition:UInt32} AND src_offset >= {start:UInt64} AND src_offset < {end:UInt64}",
			clickhouse.Named("partition", v.id),
			clickhouse.Named("start", uint64(v.batch.start)),
			clickhouse.Named("end", uint64(v.batch.end)))
		if err != nil {
			return err
		}
	}
	return nil
}
