package report_test

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/report"
)

// What is asked by ids reads a few granules of a workspace of 300,000 events, also where no
// other index helps: the server refuses every query that reads more.
func TestQuestionsReadFewRows(t *testing.T) {
	t.Parallel()
	dsn := clickhousetest.ForTest(t)
	conn := clickhousetest.OpenMigrated(t, dsn)
	const others = `'acme', 0, 1000 + number, toDateTime64('2026-03-01 00:00:00', 3, 'UTC') + number * 10 AS at, at, at,
		concat('x', toString(number)), concat('t', toString(number)), concat('y', toString(number))`
	for _, statement := range []string{`
		INSERT INTO conversions (workspace_id, src_partition, src_offset, occurred_at, received_at, entered_at, event_id,
			click_token, order_id, type)
		SELECT ` + others + `, 'sale' FROM numbers(300000)`, `
		INSERT INTO outcomes (workspace_id, src_partition, src_offset, occurred_at, received_at, decided_at, event_id,
			click_token, order_id, type, verdict, effect, event_offset)
		SELECT ` + others + `, 'sale', 'attributed', 1, 1000 + number FROM numbers(300000)`, `
		INSERT INTO conversions (workspace_id, src_partition, src_offset, occurred_at, received_at, entered_at, event_id,
			click_token, order_id, type, parent_event_id)
		SELECT 'acme', 0, c1, toDateTime64('2026-03-20 00:00:00', 3, 'UTC') + c1 * 60 AS at, at, at, c2, c3, c4, c5, c6
		FROM VALUES
			((1, 'sale', 't', 'o', 'sale', ''), (2, 'refund', 't', 'o', 'refund', 'sale'),
			(3, 'sale2', 'u', 'o', 'sale', ''), (4, 'again', 't', '', 'refund', 'sale'),
			(5, 'other', 'v', '', 'refund', 'sale'), (6, 'sale', 't', 'o2', 'sale', ''))`, `
		INSERT INTO outcomes (workspace_id, src_partition, src_offset, occurred_at, received_at, event_id, click_token,
			order_id, type, parent_event_id, verdict, reason, effect, event_offset, first_offset)
		SELECT 'acme', 0, c1, toDateTime64('2026-03-20 00:00:00', 3, 'UTC') + c1 * 60 AS at, at, c2, c3, c4, c5, c6, c7, c8,
			c9, c1, if(c7 = 'conflict', 1, NULL)
		FROM VALUES
			((1, 'sale', 't', 'o', 'sale', '', 'attributed', '', 1),
			(2, 'refund', 't', 'o', 'refund', 'sale', 'reversed', '', -1),
			(3, 'sale2', 'u', 'o', 'sale', '', 'attributed', '', 1),
			(5, 'other', 'v', '', 'refund', 'sale', 'unattributed', 'parent_not_found', 0),
			(6, 'sale', 't', 'o2', 'sale', '', 'conflict', '', 0))`,
	} {
		if err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	limited, err := clickhouse.Open(t.Context(), clickhouse.Config{
		DSN: dsn + "?use_skip_indexes=0&max_rows_to_read=100000",
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer limited.Close()
	reader := report.New(limited)
	for _, want := range []string{
		"event_id sale: 2 records, chain of 2, 2 negatives, 0 orders count several times",
		"event_id refund: 1 records, chain of 2, 2 negatives, 0 orders count several times",
		"event_id again: 1 records, chain of 3, 2 negatives, 0 orders count several times",
		"event_id other: 1 records, chain of 1, 1 negatives, 0 orders count several times",
		"order_id o: 3 records, chain of 2, 2 negatives, 0 orders count several times",
		"event_id x7: 1 records, chain of 1, 0 negatives, 0 orders count several times",
		"order_id y250000: 1 records, chain of 1, 0 negatives, 0 orders count several times",
	} {
		var column report.KeyColumn
		var key string
		fmt.Sscanf(want, "%s %s", &column, &key)
		key = key[:len(key)-1]
		a, err := reader.Why(t.Context(), "acme", column, key)
		if err != nil {
			t.Errorf("%s: %v", want, err)
			continue
		}
		got := fmt.Sprintf("%s %s: %d records, chain of %d, %d negatives, %d orders count several times", column, key,
			len(a.Records), len(a.Records[0].Chain), len(a.Negatives), len(a.Counted))
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if _, err := reader.Why(t.Context(), "acme", report.ByEventID, "nothing"); err != nil {
		t.Error(err)
	}
	judged, waiting, err := reader.FindEvents(t.Context(), "acme", report.ByOrderID, []string{"o", "o2", "y1"})
	if err != nil || len(judged) != 5 || len(waiting) != 0 {
		t.Errorf("%d judged, %d waiting, %v", len(judged), len(waiting), err)
	}
}
