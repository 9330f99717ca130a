package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"

	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrTransactions: transactions of the cluster do not fence zombies reliably.
var ErrTransactions = errors.New("transaction.version is too low")

// transactionVersion is the level at which brokers give every transaction its own epoch
// (KIP-890). Below it, a delayed write may end up in the next transaction of the same
// id and be committed with it.
const transactionVersion = 2

// CheckTransactions refuses a cluster whose finalized transaction.version is below 2.
// It only warns of a cluster that does not report its features (a proxy, a managed
// Kafka).
func CheckTransactions(ctx context.Context, cl *kgo.Client, log *slog.Logger) error {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName = "partners"
	req.ClientSoftwareVersion = "1"
	resp, err := req.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("reading the cluster's features: %w", err)
	}
	if resp.FinalizedFeaturesEpoch < 0 {
		log.Warn("the cluster does not report its features, so transaction.version is not checked; it must be 2")
		return nil
	}
	level := int16(0) // a feature that is not finalized is at level 0
	if i := slices.IndexFunc(resp.FinalizedFeatures, func(f kmsg.ApiVersionsResponseFinalizedFeature) bool {
		return f.Name == "transaction.version"
	}); i >= 0 {
		level = resp.FinalizedFeatures[i].MaxVersionLevel
	}
	if level < transactionVersion {
		return fmt.Errorf("%w: it is %d, needed is %d: run `kafka-features.sh --bootstrap-server … upgrade "+
			"--feature transaction.version=%d` (Kafka 4.0 or newer)", ErrTransactions, level, transactionVersion,
			transactionVersion)
	}
	return nil
}

// ErrUnclean: a topic may lose records that were acknowledged.
var ErrUnclean = errors.New("unclean leader election")

const uncleanElection = "unclean.leader.election.enable"

func uncleanElectionError(name string) error {
	return fmt.Errorf("%w: topic %s: unclean.leader.election.enable is true: a replica that lacks acknowledged "+
		"records may become leader, and they are gone; set it to false with kafka-configs.sh", ErrUnclean, name)
}

// CheckElections refuses topics whose leader may be a replica that lacks acknowledged
// records. It only warns if the cluster does not let us read configurations.
func CheckElections(ctx context.Context, adm *kadm.Client, log *slog.Logger, names ...string) error {
	configs, err := adm.DescribeTopicConfigs(ctx, names...)
	for _, c := range configs {
		err = errors.Join(err, c.Err)
	}
	if err != nil {
		log.Warn(
			"the topics' configurations cannot be read, so unclean leader election is not checked; it must be off",
			"error", err)
		return nil
	}
	for _, c := range configs {
		if slices.ContainsFunc(c.Configs, func(x kadm.Config) bool {
			return x.Key == uncleanElection && x.MaybeValue() == "true"
		}) {
			return uncleanElectionError(c.Name)
		}
	}
	return nil
}

// checkTopicConfig compares a topic's configuration with its Spec. A setting that is
// merely unwise is logged as a warning.
func checkTopicConfig(s topic.Spec, current kadm.ResourceConfig, replicas int, log *slog.Logger) (problems []error) {
	value := func(key string) string {
		if i := slices.IndexFunc(current.Configs, func(c kadm.Config) bool { return c.Key == key }); i >= 0 {
			return current.Configs[i].MaybeValue()
		}
		return ""
	}
	if want, ok := s.Config["retention.ms"]; ok {
		need, _ := strconv.ParseInt(want, 10, 64)
		if got, err := strconv.ParseInt(value("retention.ms"), 10, 64); err == nil && got >= 0 && got < need {
			problems = append(problems, fmt.Errorf("topic %s: retention.ms is %d, needed is %d: run `ctl topics "+
				"apply` or shorten -click-life", s.Name, got, need))
		}
	}
	if want, got := s.Config["cleanup.policy"], value("cleanup.policy"); got != "" && !sameCleanupPolicy(got, want) {
		problems = append(problems, fmt.Errorf("topic %s: cleanup.policy is %q, must be %q: run `ctl topics apply`",
			s.Name, got, want))
	}
	if value(uncleanElection) == "true" {
		problems = append(problems, uncleanElectionError(s.Name))
	}
	if least, err := strconv.Atoi(value("min.insync.replicas")); err == nil && (least < 2 || least > replicas) {
		log.Warn("a topic's acknowledgements do not survive a broker, or cannot be given: min.insync.replicas "+
			"should be 2 and the replication 3", "topic", s.Name, "min_insync_replicas", least, "replicas", replicas)
	}
	return problems
}

// NameRecreated adds to the error of a produced record what to do about a topic that is
// another one than a program began with: its client never writes to that, so nothing comes
// between the records of a topic that is being restored.
func NameRecreated(err error) error {
	if errors.Is(err, kerr.UnknownTopicID) {
		return fmt.Errorf("the topic was recreated since this process began: when `ctl topics check` finds all in "+
			"order, start it again: %w", err)
	}
	return err
}
