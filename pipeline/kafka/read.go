package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
)

// ReadPartitionCount returns the partition count of a topic.
func ReadPartitionCount(ctx context.Context, adm *kadm.Client, name string) (int32, error) {
	have, err := adm.ListTopics(ctx, name)
	if err == nil {
		err = have.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("reading metadata of topic %s: %w", name, err)
	}
	return int32(len(have[name].Partitions)), nil
}
