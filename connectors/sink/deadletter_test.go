package sink

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A repeated batch finds its own dead letters, and not those of another partition. If
// the broker refuses to let it read them, the error says so, at once: it does not look
// like a broker that is slow.
func TestExistingDeadLetters(t *testing.T) {
	t.Parallel()
	cluster, brokers := kafkatest.Cluster(t)
	k := kafka.DefaultConfig()
	k.Brokers = brokers
	s, err := New(DefaultConfig(), k, event.DefaultCodec(), nil, discard(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.client = kafkatest.Client(t, brokers)
	now := time.Now()
	send := func(partition int32, offset int64) {
		t.Helper()
		unreadable := &kgo.Record{Topic: topic.Clicks, Partition: partition, Offset: offset, Value: []byte("x")}
		kafkatest.Produce(t, brokers, kafka.NewDeadLetter(topic.DeadLetters, unreadable, errKey, now))
	}
	send(1, 17)
	send(2, 18)
	kafkatest.Produce(t, brokers, &kgo.Record{Topic: topic.DeadLetters, Value: []byte("of another program")})
	p := s.newPartition(s.mappings[topic.Clicks], 1, 0, nil)
	b := &batch{batchID: batchID{partition: 1, start: 10, end: 20}, intent: intent{declaredAt: now}}
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	existing, err := p.readExistingDeadLetters(ctx, b)
	if err != nil || len(existing) != 1 || !existing[17] {
		t.Errorf("found %v, want only offset 17, %v", existing, err)
	}
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	existing, err = p.readExistingDeadLetters(ctx, b)
	if !errors.Is(err, kerr.TopicAuthorizationFailed) || !errors.Is(err, errKafka) ||
		errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a refused fetch: %v, %v", existing, err)
	}
}
