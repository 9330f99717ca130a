package sink

import (
	"context"
	"fmt"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/ddl"
	"github.com/nimriz/partners/schemas/event"
)

// batchID is [start, end) of one partition of one topic: what one insert holds.
type batchID struct {
	topicID    string // of Kafka, see topicIDText
	partition  int32
	start, end int64 // offsets
}

// deduplicationToken returns the batch's insert_deduplication_token. It names exactly
// these records: other records under the same token would be dropped.
func (b batchID) deduplicationToken() string {
	return fmt.Sprintf("%s/%d/%d/%d", b.topicID, b.partition, b.start, b.end)
}

// dedupWindow is how long a table, or a chain of tables, remembers a token: for so many
// blocks and, if age is not zero, for so long.
type dedupWindow struct {
	blocks uint64
	age    time.Duration
}

// minWindowAge is how long a replicated table must remember an insert: long enough for
// a restart.
const minWindowAge = time.Hour

// dedupTokenStillKnown reports whether the tables still know the token of a batch that
// was declared but not recorded. They do if less than half of their windows has passed
// since: half of the blocks, and half of the time.
func (s *Sink) dedupTokenStillKnown(ctx context.Context, mapping *topicMapping, i *intent) (bool, error) {
	window := s.windows[mapping.topic]
	if window.age > 0 && time.Since(i.declaredAt) > window.age/2 {
		return false, nil
	}
	var since []struct {
		Batches uint64 `ch:"batches"`
	}
	err := s.wh.Select(ctx, &since, `
		SELECT count() AS batches
		FROM batches
		WHERE has({topics:Array(String)}, topic)
			AND rows > 0
			AND inserted_at >= fromUnixTimestamp64Milli({since:Int64})`,
		clickhouse.Named("topics", mapping.dedupGroup),
		clickhouse.Named("since", i.declaredAt.Add(-clockSkew).UnixMilli()))
	if err != nil {
		return false, fmt.Errorf("counting the batches since the last intent: %w", err)
	}
	return len(since) == 1 && since[0].Batches < window.blocks/2, nil
}

// readWindows reads the deduplication windows of all tables that inserts reach, and
// refuses one that is too small.
func (s *Sink) readWindows(ctx context.Context) (err error) {
	s.windows, err = readDedupWindows(ctx, s.wh, s.mappings)
	return err
}

// CheckWindows refuses a database in which a repeated insert may not be recognised: a
// deduplication window is too small.
func CheckWindows(ctx context.Context, wh *clickhouse.Conn) error {
	mappings := make(map[string]*topicMapping)
	for _, m := range topicMappings(event.DefaultCodec()) {
		mappings[m.topic] = &m
	}
	_, err := readDedupWindows(ctx, wh, mappings)
	return err
}

// readDedupWindows returns by topic the smallest window of the tables that its inserts
// reach, or ErrWindow if one of them is too small.
func readDedupWindows(ctx context.Context, wh *clickhouse.Conn, mappings map[string]*topicMapping) (
	map[string]dedupWindow, error) {
	if _, err := readSmallestWindow(ctx, wh, "batches"); err != nil {
		return nil, err
	}
	windows := make(map[string]dedupWindow)
	for _, m := range mappings {
		window, err := readSmallestWindow(ctx, wh, m.table)
		if err != nil {
			return nil, err
		}
		windows[m.topic] = window
	}
	return windows, nil
}

// readSmallestWindow returns what a table and all tables that its views feed remember.
func readSmallestWindow(ctx context.Context, wh *clickhouse.Conn, table string) (dedupWindow, error) {
	chain, err := wh.Windows(ctx, table)
	if err != nil {
		return dedupWindow{}, err
	}
	var smallest dedupWindow
	for n, w := range chain {
		if w.Blocks < ddl.MinDeduplicationWindow {
			return dedupWindow{}, fmt.Errorf("%w: table %s (%s) remembers %d blocks, needed are %d: set its "+
				"(non_)replicated_deduplication_window",
				ErrWindow, w.Table, w.Engine, w.Blocks, ddl.MinDeduplicationWindow)
		}
		if w.Age > 0 && w.Age < minWindowAge {
			return dedupWindow{}, fmt.Errorf("%w: table %s (%s) remembers blocks for %v, needed is %v: set its "+
				"replicated_deduplication_window_seconds",
				ErrWindow, w.Table, w.Engine, w.Age, minWindowAge)
		}
		if n == 0 || w.Blocks < smallest.blocks {
			smallest.blocks = w.Blocks
		}
		if w.Age > 0 && (smallest.age == 0 || w.Age < smallest.age) {
			smallest.age = w.Age
		}
	}
	return smallest, nil
}
