package sink

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// countAdded makes partitions that were added count for the watermark: an empty batch of
// their `progress` says that they are there. Until they report, nothing is final, for what
// reached them may not be in the tables. It is written before anything that a processor
// says after the new epoch has begun: see awaitAdded.
func (s *Sink) countAdded(ctx context.Context) error {
	install := s.recorded()
	s.mu.Lock()
	done := s.counted == install
	s.mu.Unlock()
	if install == nil || done {
		return nil
	}
	missing, err := s.findUncounted(ctx, install)
	if err == nil && len(missing) > 0 {
		into := clickhouse.Insert{
			Table:   "batches",
			Columns: []string{"topic_id", "topic", "partition", "start_offset", "end_offset", "rows"},
		}
		err = s.wh.Insert(ctx, into, func(row *clickhouse.Batch) error {
			for _, id := range missing {
				if err := row.Append(s.topicIDs[topic.Progress], topic.Progress, uint32(id), uint64(0), uint64(0),
					uint64(0)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("counting the partitions that were added: %w", err)
	}
	s.client.ForceMetadataRefresh() // so that the group's leader gives them out
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counted = install
	return nil
}

// findUncounted returns the partitions that were added and of which table batches knows
// nothing.
func (s *Sink) findUncounted(ctx context.Context, install *topic.Install) (missing []int32, err error) {
	for id := range install.Epochs.Now() {
		if install.Epochs.IsAdded(id) {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		return nil, nil
	}
	var known []struct {
		Partition uint32 `ch:"partition"`
	}
	if err := s.wh.Select(ctx, &known, "SELECT DISTINCT partition FROM batches WHERE topic = {topic:String}",
		clickhouse.Named("topic", topic.Progress)); err != nil {
		return nil, fmt.Errorf("looking for the partitions that are known: %w", err)
	}
	return slices.DeleteFunc(missing, func(id int32) bool {
		return slices.ContainsFunc(known, func(k struct {
			Partition uint32 `ch:"partition"`
		}) bool {
			return k.Partition == uint32(id)
		})
	}), nil
}

// awaitAdded waits until the partitions count that were added before the newest record of
// a batch, by its time and by when it was met.
func (p *partition) awaitAdded(ctx context.Context, b *batch) error {
	if b.formedAt.IsZero() {
		b.formedAt = time.Now()
	}
	if err := p.sink.install.Await(ctx, kafka.AsOf(newestTime(b.records), b.formedAt)); err != nil {
		return fmt.Errorf("%w: %w", errKafka, err)
	}
	return p.sink.countAdded(ctx)
}

func newestTime(records []*kgo.Record) (newest time.Time) {
	for _, r := range records {
		if r.Timestamp.After(newest) {
			newest = r.Timestamp
		}
	}
	return newest
}

// mayStart returns whether a partition of which neither the group nor the tables know
// anything begins at offset 0: if, and only if, the record says that it was added. While
// it is being added the error is kafka.ErrGrowing.
func (s *Sink) mayStart(ctx context.Context, name string, partition int32) (bool, error) {
	if !slices.Contains(topic.CoPartitioned(), name) {
		return false, nil
	}
	if err := s.install.Await(ctx, time.Now()); err != nil {
		return false, fmt.Errorf("%w: %w", errKafka, err)
	}
	install := s.recorded()
	if install == nil {
		return false, nil
	}
	if install.Epochs.IsAdded(partition) {
		return true, nil
	}
	if partition >= install.Epochs.Now() {
		return false, s.checkPartitions(ctx)
	}
	return false, nil
}
