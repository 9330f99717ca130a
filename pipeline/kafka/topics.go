package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TopicsConfig says what Apply and Check compare the cluster with.
type TopicsConfig struct {
	Partitions  int32
	Replication int16
	ClickLife   time.Duration
}

// DefaultTopicsConfig is a production install: six partitions, three replicas of which
// two must acknowledge.
func DefaultTopicsConfig() TopicsConfig {
	return TopicsConfig{Partitions: topic.DefaultPartitions, Replication: 3, ClickLife: topic.DefaultClickLife}
}

// Validate reports a setting that cannot be, by flag.
func (c TopicsConfig) Validate() error {
	switch {
	case c.Partitions < 1:
		return fmt.Errorf("-partitions: %d is not a partition count", c.Partitions)
	case c.Replication < 1:
		return fmt.Errorf("-replication: %d is not a replication factor", c.Replication)
	case c.ClickLife < time.Hour:
		return fmt.Errorf("-click-life: %v is under an hour", c.ClickLife)
	}
	return nil
}

// ErrPartitions is a co-partitioned topic with another partition count than its
// siblings.
var ErrPartitions = errors.New("partition count differs")

// ApplyTopics creates the topics that are missing, sets the configuration of those that
// exist, waits until all are visible, and commits offset 0 for both groups where a
// partition is fresh. It is repeatable, and returns a line for each change. It refuses
// a partition count that differs, and a retention that is shortened by nobody's
// decision is simply set to what it should be.
func ApplyTopics(ctx context.Context, cl *kgo.Client, cfg Config, want TopicsConfig) (changes []string, err error) {
	if err := want.Validate(); err != nil {
		return nil, err
	}
	adm := kadm.NewClient(cl)
	specs := topic.Specs(cfg.TopicPrefix, want.Partitions, want.ClickLife)
	created := make(map[string]bool)
	have, err := adm.ListTopics(ctx, specNames(specs)...)
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	for _, s := range specs {
		if d := have[s.Name]; d.Err == nil && have.Has(s.Name) {
			if n := int32(len(d.Partitions)); s.Partitioned && n != s.Partitions {
				return changes, fmt.Errorf("topic %s: %w: it has %d, -partitions says %d; give the count of the "+
					"existing topics: tokens are bound to it", s.Name, ErrPartitions, n, s.Partitions)
			}
			continue
		}
		minISR := strconv.Itoa(max(1, int(want.Replication)-1))
		config := map[string]*string{"min.insync.replicas": &minISR}
		for k, v := range s.Config {
			config[k] = kadm.StringPtr(v)
		}
		if _, err := adm.CreateTopic(ctx, s.Partitions, want.Replication, config, s.Name); err != nil {
			if errors.Is(err, kerr.TopicAlreadyExists) {
				continue
			}
			return changes, fmt.Errorf("creating topic %s: %w",
				s.Name, explainReplication(ctx, adm, err, want.Replication))
		}
		created[s.Name] = true
		changes = append(changes, fmt.Sprintf("created topic %s with %d partitions", s.Name, s.Partitions))
	}
	if err := waitForLeaders(ctx, adm, specs); err != nil {
		return changes, err
	}
	altered, err := alterConfigs(ctx, adm, specs, created)
	changes = append(changes, altered...)
	if err != nil {
		return changes, err
	}
	committed, err := commitFreshOffsets(ctx, adm, cfg, created)
	return append(changes, committed...), err
}

// explainReplication says what is to be given where a cluster refuses a topic because
// it has too few brokers for its replicas.
func explainReplication(ctx context.Context, adm *kadm.Client, err error, want int16) error {
	if !errors.Is(err, kerr.InvalidReplicationFactor) {
		return err
	}
	brokers, listing := adm.ListBrokers(ctx)
	if n := len(brokers); listing == nil && n > 0 && n < int(want) {
		return fmt.Errorf("-replication is %d and the cluster has %d broker(s): give -replication %d, or wait "+
			"until more of them are up: %w", want, n, n, err)
	}
	return err
}

func specNames(specs []topic.Spec) []string {
	out := make([]string, len(specs))
	for i, s := range specs {
		out[i] = s.Name
	}
	return out
}

// waitForLeaders waits until every partition has a leader: a client that looks earlier
// waits for its next metadata refresh.
func waitForLeaders(ctx context.Context, adm *kadm.Client, specs []topic.Spec) error {
	for {
		have, err := adm.ListTopics(ctx, specNames(specs)...)
		if err != nil {
			return fmt.Errorf("waiting for topics: %w", err)
		}
		missing := ""
		for _, s := range specs {
			d, ok := have[s.Name]
			leaders := 0
			for _, p := range d.Partitions {
				if p.Err == nil && p.Leader >= 0 {
					leaders++
				}
			}
			if !ok || d.Err != nil || leaders < int(s.Partitions) {
				missing = s.Name
			}
		}
		if missing == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for topic %s to have leaders: %w", missing, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// alterConfigs sets what differs on topics that existed.
func alterConfigs(ctx context.Context, adm *kadm.Client, specs []topic.Spec, created map[string]bool) (changes []string,
	err error) {
	have, err := adm.DescribeTopicConfigs(ctx, specNames(specs)...)
	if err != nil {
		return nil, fmt.Errorf("reading topic configurations: %w", err)
	}
	for _, s := range specs {
		if created[s.Name] {
			continue
		}
		current, err := have.On(s.Name, nil)
		if err != nil || current.Err != nil {
			return changes, fmt.Errorf("reading the configuration of %s: %w", s.Name, errors.Join(err, current.Err))
		}
		var set []kadm.AlterConfig
		for k, v := range s.Config {
			i := slices.IndexFunc(current.Configs, func(c kadm.Config) bool { return c.Key == k })
			if i >= 0 && current.Configs[i].MaybeValue() == v {
				continue
			}
			set = append(set, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: kadm.StringPtr(v)})
			changes = append(changes, fmt.Sprintf("set %s of topic %s to %s", k, s.Name, v))
		}
		if len(set) == 0 {
			continue
		}
		if _, err := adm.AlterTopicConfigs(ctx, set, s.Name); err != nil {
			return changes, fmt.Errorf("setting the configuration of %s: %w", s.Name, err)
		}
	}
	return changes, nil
}

// topicsByGroup says which topics each consumer group reads.
func topicsByGroup(cfg Config) map[string][]string {
	t := cfg.Topic
	return map[string][]string{
		cfg.Group(topic.ProcessorGroup): {t(topic.Clicks), t(topic.Conversions)},
		cfg.Group(topic.SinkGroup): {t(topic.Clicks), t(topic.Conversions), t(topic.Outcomes),
			t(topic.Rejections), t(topic.Progress), t(topic.Catalog)},
	}
}

// commitFreshOffsets commits offset 0 where a group has no commit and the partition was
// created just now or is still empty. Anything else without a commit has lost it: that
// is for a person to decide.
func commitFreshOffsets(ctx context.Context, adm *kadm.Client, cfg Config, created map[string]bool) (changes []string,
	err error) {
	for group, topics := range topicsByGroup(cfg) {
		committed, err := fetchGroupOffsets(ctx, adm, group)
		if err != nil {
			return changes, fmt.Errorf("reading the offsets of group %s: %w", group, err)
		}
		ends, err := adm.ListEndOffsets(ctx, topics...)
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			return changes, fmt.Errorf("listing the ends of %v: %w", topics, err)
		}
		var fresh kadm.Offsets
		n := 0
		ends.Each(func(end kadm.ListedOffset) {
			if _, ok := committed.Lookup(end.Topic, end.Partition); ok || !created[end.Topic] && end.Offset > 0 {
				return
			}
			fresh.AddOffset(end.Topic, end.Partition, 0, -1)
			n++
		})
		if n == 0 {
			continue
		}
		if err := adm.CommitAllOffsets(ctx, group, fresh); err != nil {
			return changes, fmt.Errorf("committing the start of group %s: %w", group, err)
		}
		changes = append(changes, fmt.Sprintf("committed offset 0 of %d partitions for group %s", n, group))
	}
	slices.Sort(changes)
	return changes, nil
}

// CheckTopics compares the cluster with what it and the topics must be, and returns every
// problem it finds, each with what to change. Problems of one topic do not hide
// another's. What is unwise, or cannot be seen, is logged as a warning.
func CheckTopics(ctx context.Context, cl *kgo.Client, cfg Config, want TopicsConfig, log *slog.Logger) error {
	adm := kadm.NewClient(cl)
	specs := topic.Specs(cfg.TopicPrefix, want.Partitions, want.ClickLife)
	have, err := adm.ListTopics(ctx, specNames(specs)...)
	if err != nil {
		return fmt.Errorf("listing topics: %w", err)
	}
	transactions := CheckTransactions(ctx, cl, log)
	var problems []error
	for _, s := range specs {
		d, ok := have[s.Name]
		switch {
		case !ok || d.Err != nil:
			problems = append(problems, fmt.Errorf("topic %s does not exist: run `ctl topics apply`", s.Name))
		case s.Partitioned && len(d.Partitions) != int(s.Partitions):
			problems = append(problems, fmt.Errorf("topic %s: %w: it has %d, its siblings have %d; co-partitioned "+
				"topics must have the same count", s.Name, ErrPartitions, len(d.Partitions), s.Partitions))
		}
	}
	if problems != nil {
		return errors.Join(append(problems, transactions)...)
	}
	problems = append(problems, transactions)
	configs, err := adm.DescribeTopicConfigs(ctx, specNames(specs)...)
	if err != nil {
		return fmt.Errorf("reading topic configurations: %w", errors.Join(err, transactions))
	}
	for _, s := range specs {
		current, err := configs.On(s.Name, nil)
		if err != nil || current.Err != nil {
			// A managed Kafka may deny DescribeConfigs: what cannot be read is not a
			// reason to refuse.
			log.Warn("a topic's configuration cannot be read, so it is not checked",
				"topic", s.Name, "error", errors.Join(err, current.Err))
			continue
		}
		replicas := 0
		for _, p := range have[s.Name].Partitions {
			replicas = len(p.Replicas)
		}
		problems = append(problems, checkTopicConfig(s, current, replicas, log)...)
	}
	problems = append(problems, checkAllGroups(ctx, adm, cfg))
	return errors.Join(problems...)
}

func sameCleanupPolicy(a, b string) bool {
	return a == b || a == "delete,compact" && b == "compact,delete"
}

// checkAllGroups reports groups that have no commit on a partition, or one outside the
// log.
func checkAllGroups(ctx context.Context, adm *kadm.Client, cfg Config) error {
	var problems []error
	for group, topics := range topicsByGroup(cfg) {
		if err := CheckOffsets(ctx, adm, group, topics); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// ErrOffsets is a consumer group that has lost its place: nothing here resets it
// silently.
var ErrOffsets = errors.New("lost offsets")

// fetchGroupOffsets reads a group's offsets; a group that does not exist has none. It waits
// for a coordinator: a cluster that was born a moment ago has none for about a second,
// and franz-go does not try COORDINATOR_NOT_AVAILABLE again.
func fetchGroupOffsets(ctx context.Context, adm *kadm.Client, group string) (kadm.OffsetResponses, error) {
	for deadline := time.Now().Add(30 * time.Second); ; {
		committed, err := adm.FetchOffsets(ctx, group)
		switch {
		case errors.Is(err, kerr.GroupIDNotFound):
			return committed, nil
		case !kerr.IsRetriable(err) || time.Now().After(deadline):
			return committed, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// CheckOffsets returns an ErrOffsets that names each partition of topics on which group
// has no committed offset, or one outside the log.
func CheckOffsets(ctx context.Context, adm *kadm.Client, group string, topics []string) error {
	committed, err := fetchGroupOffsets(ctx, adm, group)
	if err != nil {
		return fmt.Errorf("reading the offsets of group %s: %w", group, err)
	}
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("listing the starts of %v: %w", topics, err)
	}
	ends, err := adm.ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("listing the ends of %v: %w", topics, err)
	}
	var problems []error
	starts.Each(func(start kadm.ListedOffset) {
		end, _ := ends.Lookup(start.Topic, start.Partition)
		at, ok := committed.Lookup(start.Topic, start.Partition)
		where := fmt.Sprintf("group %s, %s partition %d", group, start.Topic, start.Partition)
		switch {
		case !ok || at.At < 0:
			problems = append(problems, fmt.Errorf("%w: %s: no committed offset while the log holds [%d, %d): on "+
				"a fresh install run `ctl topics apply`; else set it with kafka-consumer-groups --reset-offsets "+
				"to where the group stood", ErrOffsets, where, start.Offset, end.Offset))
		case at.At < start.Offset:
			problems = append(problems, fmt.Errorf("%w: %s: committed %d, but the log begins at %d: records [%d, "+
				"%d) are gone; set the offset to %d with kafka-consumer-groups --reset-offsets if that loss is accepted", ErrOffsets, where, at.At, start.Offset, at.At, start.Offset, start.Offset))
		case at.At > end.Offset:
			problems = append(problems, fmt.Errorf("%w: %s: committed %d, but the log ends at %d: was the topic "+
				"recreated? records are missing or this is another cluster", ErrOffsets, where, at.At, end.Offset))
		}
	})
	return errors.Join(problems...)
}
