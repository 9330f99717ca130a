package kafka

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ReadPartitionCount returns the partition count of a topic.
func ReadPartitionCount(ctx context.Context, cl *kgo.Client, name string) (int32, error) {
	have, err := kadm.NewClient(cl).ListTopics(ctx, name)
	if err == nil {
		err = have.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("reading metadata of topic %s: %w", name, err)
	}
	return int32(len(have[name].Partitions)), nil
}

// ReadAll returns the committed records of a topic from its start to the last stable
// offset at the call, by partition in order. It holds them in memory: it is for the
// catalog, for tools and for checks.
func ReadAll(ctx context.Context, cfg Config, log *slog.Logger, name string) ([]*kgo.Record, error) {
	from, left, err := spans(ctx, cfg, log, name)
	if err != nil {
		return nil, fmt.Errorf("reading all of %s: %w", name, err)
	}
	if len(from) == 0 {
		return nil, nil
	}
	reader, err := NewClient(cfg, log, nil, kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: from}))
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	var out []*kgo.Record
	for len(left) > 0 {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("reading all of %s: %w", name, context.Cause(ctx))
		}
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("reading all of %s: %w", name, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			end, ok := left[r.Partition]
			if ok && r.Offset < end && !r.Attrs.IsControl() {
				out = append(out, r)
			}
			if ok && r.Offset+1 >= end {
				delete(left, r.Partition)
			}
		})
	}
	return out, nil
}

// ReadRange calls do for the committed records of one partition from offset from to
// before offset end, in order, and stops at its first error. It waits for a transaction
// that is still open below end. end must not lie behind the log's.
func ReadRange(ctx context.Context, cfg Config, log *slog.Logger, name string, partition int32, from, end int64,
	do func(*kgo.Record) error) error {
	if from >= end {
		return nil
	}
	reader, err := NewClient(cfg, log, nil, kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {partition: kgo.NewOffset().At(from)}}))
	if err != nil {
		return err
	}
	defer reader.Close()
	for {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("reading %s partition %d: %w", name, partition, context.Cause(ctx))
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("reading %s partition %d: %w", name, partition, err)
		}
		for _, r := range fetches.Records() {
			if r.Offset < end && !r.Attrs.IsControl() {
				if err := do(r); err != nil {
					return err
				}
			}
			if r.Offset+1 >= end {
				return nil
			}
		}
	}
}

// spans lists where each partition that holds anything begins and ends.
func spans(ctx context.Context, cfg Config, log *slog.Logger, name string) (from map[int32]kgo.Offset,
	ends map[int32]int64, err error) {
	cl, err := NewClient(cfg, log, nil)
	if err != nil {
		return nil, nil, err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	stable, err := adm.ListCommittedOffsets(ctx, name)
	if err == nil {
		err = stable.Error()
	}
	if err != nil {
		return nil, nil, err
	}
	starts, err := adm.ListStartOffsets(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	from, ends = make(map[int32]kgo.Offset), make(map[int32]int64)
	stable.Each(func(o kadm.ListedOffset) {
		if s, _ := starts.Lookup(o.Topic, o.Partition); o.Offset > s.Offset {
			from[o.Partition], ends[o.Partition] = kgo.NewOffset().At(s.Offset), o.Offset
		}
	})
	return from, ends, nil
}
