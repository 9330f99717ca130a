// Package kafkatest gives tests a broker: a fresh kfake with our topics. A fake server, never a mocked client.
package kafkatest

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Partitions is the partition count of the topics that Broker makes.
const Partitions = 6

// Broker starts a broker with all our topics and fresh consumer groups, and stops it when the test ends.
func Broker(t testing.TB) (brokers []string) {
	t.Helper()
	_, brokers = Cluster(t)
	return brokers
}

// Cluster is Broker for tests that inject faults into the fake.
func Cluster(t testing.TB, opts ...kfake.Opt) (*kfake.Cluster, []string) {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(time.Second),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"})}, opts...)...)
	if err != nil {
		t.Fatalf("starting kfake: %v", err)
	}
	t.Cleanup(c.Close)
	Topics(t, c.ListenAddrs())
	return c, c.ListenAddrs()
}

// Topics makes all our topics on a running broker.
func Topics(t testing.TB, brokers []string) {
	t.Helper()
	cfg := kafka.DefaultConfig()
	cfg.Brokers = brokers
	cl := Client(t, brokers)
	want := kafka.DefaultTopicsConfig()
	want.Partitions, want.Replication = Partitions, 1
	if _, err := kafka.Apply(t.Context(), cl, cfg, want); err != nil {
		t.Fatalf("making topics: %v", err)
	}
}

// Client makes a client that is closed when the test ends.
func Client(t testing.TB, brokers []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cfg := kafka.DefaultConfig()
	cfg.Brokers = brokers
	cl, err := kafka.NewClient(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// Produce writes records and waits for their acknowledgement.
func Produce(t testing.TB, brokers []string, records ...*kgo.Record) {
	t.Helper()
	cl := Client(t, brokers)
	if err := cl.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatalf("producing: %v", err)
	}
}

// Consume reads a topic, committed records only, from its start to the end that stands when it is called.
func Consume(t testing.TB, brokers []string, topicName string) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	records, err := ReadAll(ctx, brokers, topicName)
	if err != nil {
		t.Fatalf("consuming %s: %v", topicName, err)
	}
	return records
}

// ReadAll is Consume for helpers without a test.
func ReadAll(ctx context.Context, brokers []string, topicName string) ([]*kgo.Record, error) {
	cfg := kafka.DefaultConfig()
	cfg.Brokers = brokers
	cl, err := kafka.NewClient(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), nil)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(ctx, topicName)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, err
	}
	starts, err := kadm.NewClient(cl).ListStartOffsets(ctx, topicName)
	if err != nil {
		return nil, err
	}
	from := make(map[int32]kgo.Offset)
	left := make(map[int32]int64)
	ends.Each(func(o kadm.ListedOffset) {
		if s, _ := starts.Lookup(o.Topic, o.Partition); o.Offset > s.Offset {
			from[o.Partition] = kgo.NewOffset().At(s.Offset)
			left[o.Partition] = o.Offset
		}
	})
	if len(from) == 0 {
		return nil, nil
	}
	reader, err := kafka.NewClient(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), nil, kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topicName: from}))
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	var out []*kgo.Record
	for len(left) > 0 {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return out, ctx.Err()
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
