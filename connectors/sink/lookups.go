package sink

import (
	"context"
	"fmt"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
)

// FillLookups inserts all lines of the tables that find events by their ids, as the rows
// have them now. It calls report before each step.
func FillLookups(ctx context.Context, wh *clickhouse.Conn, report func(step string)) error {
	for _, m := range topicMappings(event.DefaultCodec()) {
		if len(m.lookups) == 0 {
			continue
		}
		var partitions []struct {
			ID uint32 `ch:"src_partition"`
		}
		err := wh.Select(ctx, &partitions, "SELECT DISTINCT src_partition FROM "+m.table+" ORDER BY ALL")
		if err != nil {
			return fmt.Errorf("listing the partitions of %s: %w", m.table, err)
		}
		for _, table := range m.lookups {
			for i, p := range partitions {
				report(fmt.Sprintf("filling %s, partition %d of %d", table, i+1, len(partitions)))
				err := wh.FillFromViews(ctx, table, m.table, fmt.Sprintf("src_partition = %d", p.ID))
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// fillLookups inserts the lines of the batch once more. Whether one of them was lost, as
// sums can be, is not looked for: that costs no less.
func (v *verification) fillLookups(ctx context.Context) error {
	rows := fmt.Sprintf("src_partition = %d AND src_offset >= %d AND src_offset < %d", v.id, v.batch.start, v.batch.end)
	for _, table := range v.mapping.lookups {
		if err := v.sink.wh.FillFromViews(ctx, table, v.mapping.table, rows); err != nil {
			return err
		}
	}
	return nil
}
