package kafka_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
)

// What would make a promise hollow is a problem that says what to change; what is
// unwise is a warning.
func TestChecks(t *testing.T) {
	brokers := kafkatest.Broker(t)
	cl := kafkatest.Client(t, brokers)
	adm := kadm.NewClient(cl)
	cfg := kafka.DefaultConfig()
	cfg.Brokers = brokers
	want := kafka.DefaultTopicsConfig()
	want.Partitions, want.Replication = kafkatest.Partitions, 1
	check := func() (string, error) {
		var said bytes.Buffer
		err := kafka.CheckTopics(t.Context(), cl, cfg, want, slog.New(slog.NewTextHandler(&said, nil)))
		return said.String(), err
	}
	set := func(name, key, value string) {
		t.Helper()
		if _, err := adm.AlterTopicConfigs(t.Context(),
			[]kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}}, name); err != nil {
			t.Fatal(err)
		}
	}

	said, err := check()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said, "min.insync.replicas should be 2") || !strings.Contains(said, "topic=outcomes") {
		t.Errorf("a single replica is not warned of: %s", said)
	}

	set(topic.Outcomes, "unclean.leader.election.enable", "true")
	if _, err := check(); err == nil || !strings.Contains(err.Error(),
		"topic outcomes: unclean.leader.election.enable is true") || strings.Contains(err.Error(), "topic clicks") {
		t.Errorf("unclean leader election: %v", err)
	}
	set(topic.Outcomes, "unclean.leader.election.enable", "false")

	const unsafeDowngrade = 3
	updated, err := adm.UpdateFeatures(t.Context(), false,
		kadm.FeatureUpdate{Feature: "transaction.version", MaxVersionLevel: 1, UpgradeType: unsafeDowngrade})
	if err = errors.Join(err, updated.Error()); err != nil {
		t.Fatal(err)
	}
	if _, err := check(); !errors.Is(err, kafka.ErrTransactions) ||
		!strings.Contains(err.Error(), "it is 1, needed is 2") || !strings.Contains(err.Error(), "kafka-features.sh") {
		t.Errorf("transaction.version 1: %v", err)
	}
}
