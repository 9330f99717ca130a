package kafkatest

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Partitions is the partition count of the topics that this package makes.
const Partitions = 6

// waitLimit is how long this package waits for a broker: it is for what never comes,
// far beyond what a slow machine takes.
const waitLimit = 3 * time.Minute

// Broker starts a kfake with all our topics and fresh consumer groups, and stops it
// when the test ends.
func Broker(t testing.TB) (brokers []string) {
	t.Helper()
	_, brokers = Cluster(t)
	return brokers
}

// Cluster is Broker for tests that inject faults into the fake.
func Cluster(t testing.TB, opts ...kfake.Opt) (*kfake.Cluster, []string) {
	t.Helper()
	c := startFake(t, opts...)
	Topics(t, c.ListenAddrs())
	return c, c.ListenAddrs()
}

// startFake starts a kfake without topics.
func startFake(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(time.Second),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"})}, opts...)...)
	if err != nil {
		t.Fatalf("starting kfake: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// Topics creates the project's topics, without a prefix, on running brokers. Each has
// one replica on each of the given brokers.
func Topics(t testing.TB, brokers []string) {
	t.Helper()
	createTopics(t, clientConfig(brokers), len(brokers))
}

func createTopics(t testing.TB, cfg kafka.Config, replicas int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	want := kafka.DefaultTopicsConfig()
	want.Partitions, want.Replication = Partitions, int16(replicas)
	if _, err := kafka.ApplyTopics(ctx, Client(t, cfg.Brokers), cfg, want, discardLogger()); err != nil {
		t.Fatalf("making topics: %v", err)
	}
}

// Client makes a client that is closed when the test ends.
func Client(t testing.TB, brokers []string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kafka.NewClient(clientConfig(brokers), discardLogger(), nil, opts...)
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

// Consume returns the committed records of a topic, from its start to its end at the
// call.
func Consume(t testing.TB, brokers []string, topicName string) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	for {
		records, err := kafka.ReadAll(ctx, clientConfig(brokers), discardLogger(), topicName)
		switch {
		case err == nil:
			return records
		case ctx.Err() != nil || !kafka.Retryable(err):
			t.Fatalf("consuming %s: %v", topicName, err)
		}
		time.Sleep(100 * time.Millisecond) // a broker that a busy machine starves has no leaders for a while
	}
}

func clientConfig(brokers []string) kafka.Config {
	cfg := kafka.DefaultConfig()
	cfg.Brokers = brokers
	return cfg
}

func discardLogger() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }
