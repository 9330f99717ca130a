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

// ReadRange calls do for the committed records of one partition from offset from to
// before offset end.
func ReadRange(ctx context.Context, cfg Config, log *slog.Logger, name string, partition int32, from, end int64,
	do func(*kgo.Record) error) error {
	reader := RangeReader{Kafka: cfg, Log: log, Isolation: kgo.ReadCommitted()}
	return reader.Each(ctx, func(records []*kgo.Record) error {
		for _, r := range records {
			if err := do(r); err != nil {
				return err
			}
		}
		return nil
	}, Range{Topic: name, Partition: partition, From: from, To: end})
}
