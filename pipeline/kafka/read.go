package kafka

import (
	"context"
	"fmt"

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
