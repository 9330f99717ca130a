package sink

import (
	"context"
	"fmt"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/ddl"
	"github.com/nimriz/partners/schemas/event"
)

// minWindowAge is how long a replicated table must remember an insert: long enough for
// a restart.
const minWindowAge = time.Hour

// checkWindows reads back the deduplication windows of all tables that inserts reach,
// and refuses one that is too small. It waits for a ClickHouse that is away.
func (s *Sink) checkWindows(ctx context.Context) error {
	s.windows = map[string]dedupWindow{}
	defer s.clearFailure(readingWindows)
	for delay := 100 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		err := s.readWindows(ctx)
		if err == nil || !retryable(err) || ctx.Err() != nil {
			return err
		}
		s.reportFailure(readingWindows, delay, err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
	}
}

// CheckWindows refuses a database in which a repeated insert may not be recognised: a
// deduplication window is too small.
func CheckWindows(ctx context.Context, wh *clickhouse.Conn) error {
	s := &Sink{wh: wh, mappings: map[string]*topicMapping{}, windows: map[string]dedupWindow{}}
	for _, f := range topicMappings(event.DefaultCodec()) {
		s.mappings[f.topic] = &f
	}
	return s.readWindows(ctx)
}

func (s *Sink) readWindows(ctx context.Context) error {
	chain, err := s.wh.Windows(ctx, "batches")
	if err == nil {
		_, err = smallestWindow(chain)
	}
	if err != nil {
		return err
	}
	for _, f := range s.mappings {
		if chain, err = s.wh.Windows(ctx, f.table); err != nil {
			return err
		}
		if s.windows[f.topic], err = smallestWindow(chain); err != nil {
			return err
		}
	}
	return nil
}

// smallestWindow is what all tables of a chain remember.
func smallestWindow(chain []clickhouse.Window) (dedupWindow, error) {
	var out dedupWindow
	for n, w := range chain {
		if w.Blocks < ddl.MinDeduplicationWindow {
			return dedupWindow{}, fmt.Errorf("%w: table %s (%s) remembers %d blocks, needed are %d: set its "+
				"(non_)replicated_deduplication_window", ErrWindow, w.Table, w.Engine, w.Blocks,
				ddl.MinDeduplicationWindow)
		}
		if w.Age > 0 && w.Age < minWindowAge {
			return dedupWindow{}, fmt.Errorf("%w: table %s (%s) remembers blocks for %v, needed is %v: set its "+
				"replicated_deduplication_window_seconds", ErrWindow, w.Table, w.Engine, w.Age, minWindowAge)
		}
		if n == 0 || w.Blocks < out.blocks {
			out.blocks = w.Blocks
		}
		if w.Age > 0 && (out.age == 0 || w.Age < out.age) {
			out.age = w.Age
		}
	}
	return out, nil
}
