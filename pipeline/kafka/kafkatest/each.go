package kafkatest

import (
	"context"
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
)

// Install is our topics and fresh consumer groups on a broker, under a prefix of their
// own.
type Install struct {
	Brokers []string
	Prefix  string
	shared  bool // the broker outlives the test
}

// Each runs a test as two subtests, each with an install of its own: "kfake" and
// "apache".
func Each(t *testing.T, test func(t *testing.T, in Install)) {
	t.Run("kfake", func(t *testing.T) {
		test(t, Install{Brokers: startFake(t).ListenAddrs()}.Fresh(t))
	})
	t.Run("apache", func(t *testing.T) {
		in := Install{shared: true}
		if given := os.Getenv("PARTNERS_TEST_KAFKA"); given != "" {
			in.Brokers = strings.Split(given, ",")
		} else {
			in = Install{Brokers: Real(t).Brokers()}
		}
		test(t, in.Fresh(t))
	})
}

// Fresh makes another install on the same broker: for subtests that share the cost of
// its start.
func (in Install) Fresh(t testing.TB) Install {
	t.Helper()
	in.Prefix = "test-" + strings.ToLower(rand.Text()[:8]) + "."
	if in.shared {
		t.Cleanup(func() { in.deleteTopicsAndGroups(t) })
	}
	createTopics(t, in.Config(), 1)
	return in
}

// Config returns the configuration of a program that uses the install.
func (in Install) Config() kafka.Config {
	cfg := clientConfig(in.Brokers)
	cfg.TopicPrefix = in.Prefix
	return cfg
}

// Topic returns the full name of a topic.
func (in Install) Topic(name string) string { return in.Config().Topic(name) }

// Group returns the full name of a consumer group.
func (in Install) Group(name string) string { return in.Config().Group(name) }

// deleteTopicsAndGroups deletes what the install left on a cluster that stays.
func (in Install) deleteTopicsAndGroups(t testing.TB) {
	cl, err := kafka.NewClient(in.Config(), discardLogger(), nil)
	if err != nil {
		t.Errorf("removing the topics with prefix %s: %v", in.Prefix, err)
		return
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	adm := kadm.NewClient(cl)
	var names []string
	for _, s := range topic.Specs(in.Prefix, Partitions, topic.DefaultClickLife) {
		names = append(names, s.Name)
	}
	if _, err := adm.DeleteTopics(ctx, names...); err != nil {
		t.Errorf("removing the topics with prefix %s: %v", in.Prefix, err)
	}
	if _, err := adm.DeleteGroups(ctx, in.Group(topic.ProcessorGroup), in.Group(topic.SinkGroup)); err != nil {
		t.Errorf("removing the groups with prefix %s: %v", in.Prefix, err)
	}
}
