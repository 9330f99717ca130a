package kafkatest

import (
	"slices"
	"sync/atomic"

	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// HoldCatalog makes listings of the end of topic catalog fail while held is true. Nobody
// can then be sure of having read all of it. It calls each with every one that fails.
func HoldCatalog(cluster *kfake.Cluster, held *atomic.Bool, each ...func()) {
	cluster.ControlKey(int16(kmsg.ListOffsets), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		in := request.(*kmsg.ListOffsetsRequest)
		isCatalog := func(t kmsg.ListOffsetsRequestTopic) bool { return t.Topic == topic.Catalog }
		if !held.Load() || !slices.ContainsFunc(in.Topics, isCatalog) {
			return nil, nil, false
		}
		for _, do := range each {
			do()
		}
		out := in.ResponseKind().(*kmsg.ListOffsetsResponse)
		p := kmsg.NewListOffsetsResponseTopicPartition()
		p.ErrorCode = kerr.UnknownServerError.Code
		t := kmsg.NewListOffsetsResponseTopic()
		t.Topic, t.Partitions = topic.Catalog, []kmsg.ListOffsetsResponseTopicPartition{p}
		out.Topics = append(out.Topics, t)
		return out, nil, true
	})
}
