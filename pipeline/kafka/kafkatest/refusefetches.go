package kafkatest

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// RefuseFetches answers the next fetches, so many of them, with an error.
func RefuseFetches(cluster *kfake.Cluster, with *kerr.Error, count int) {
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: with, Count: count})
}
