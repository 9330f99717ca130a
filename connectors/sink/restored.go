package sink

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// recordedBatch is a batch that this sink has recorded as finished.
type recordedBatch struct {
	topic      string // without prefix
	partition  int32
	start, end int64 // offsets
}

// noteRecorded remembers a finished batch until it was found in ClickHouse again.
func (s *Sink) noteRecorded(b recordedBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unconfirmed = append(s.unconfirmed, b)
}

// watchRecorded stops the sink when a batch that it has recorded is no longer in
// ClickHouse: it went back to an earlier state while the sink ran, and what the sink
// inserts now comes behind a hole. It acts on what it has found twice.
func (s *Sink) watchRecorded(ctx context.Context) {
	tick := time.NewTicker(s.env.TopicCheckInterval)
	defer tick.Stop()
	var missing, before []recordedBatch
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		var err error
		before, missing, err = s.findMissingBatches(attempt, missing)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !clickhouse.Unreachable(err):
			s.log.Log(ctx, slog.LevelWarn, "looking whether ClickHouse went back", "error", err)
		}
		for _, b := range before {
			s.stopWithError(fmt.Errorf("%w: batch [%d, %d) of %s partition %d was recorded by this sink and is gone: "+
				"was a backup restored? Stop the sinks and run `ctl warehouse repair`", ErrWentBack, b.start, b.end,
				b.topic, b.partition))
			return
		}
	}
}

// batchesPerQuery bounds the batches that one query looks for: fifty bytes each, of the
// 256 KiB that ClickHouse parses.
const batchesPerQuery = 1_000

// findMissingBatches looks for the batches that were recorded since the last call, for
// the last of each partition before, and for those that were missing. It returns which
// of the latter are missing still, and which of the others are. After an error it will
// look for all of them again.
func (s *Sink) findMissingBatches(ctx context.Context, missing []recordedBatch) (again, first []recordedBatch,
	err error) {
	s.mu.Lock()
	recorded := slices.Clone(s.unconfirmed)
	s.mu.Unlock()
	present := map[recordedBatch]bool{}
	for some := range slices.Chunk(recorded, batchesPerQuery) {
		var wanted []string // names of ours, and numbers
		for _, b := range some {
			wanted = append(wanted, fmt.Sprintf("('%s', %d, %d, %d)", b.topic, b.partition, b.start, b.end))
		}
		var found []struct {
			Topic     string `ch:"topic"`
			Partition uint32 `ch:"partition"`
			Start     uint64 `ch:"start_offset"`
			End       uint64 `ch:"end_offset"`
		}
		err := s.wh.Select(ctx, &found, `
			SELECT topic, partition, start_offset, end_offset
			FROM batches
			WHERE (topic, partition, start_offset, end_offset) IN (`+strings.Join(wanted, ", ")+`)`)
		if err != nil {
			return nil, missing, fmt.Errorf("looking for the batches that were recorded: %w", err)
		}
		for _, f := range found {
			present[recordedBatch{f.Topic, int32(f.Partition), int64(f.Start), int64(f.End)}] = true
		}
	}
	for _, b := range recorded {
		switch {
		case present[b]:
		case slices.Contains(missing, b):
			again = append(again, b)
		default:
			first = append(first, b)
		}
	}
	s.forgetRecorded(recorded, present)
	return again, first, nil
}

// forgetRecorded forgets batches that were found, but for the last of each partition:
// while nothing new is recorded, that is the one that a restored backup lacks.
func (s *Sink) forgetRecorded(looked []recordedBatch, present map[recordedBatch]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := map[topicPartition]recordedBatch{}
	for _, b := range s.unconfirmed {
		last[topicPartition{b.topic, b.partition}] = b
	}
	var kept []recordedBatch
	for i, b := range s.unconfirmed {
		if i >= len(looked) || !present[b] || last[topicPartition{b.topic, b.partition}] == b {
			kept = append(kept, b)
		}
	}
	s.unconfirmed = kept
}
