package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TopicsConfig is what ApplyTopics and CheckTopics compare the cluster with.
type TopicsConfig struct {
	Partitions  int32         // of the co-partitioned topics
	Replication int16         // replicas of a topic that is created
	ClickLife   time.Duration // retention of clicks: how long one may bring its first event
}

// DefaultTopicsConfig is a production installation: six partitions, three replicas of
// which two must acknowledge.
func DefaultTopicsConfig() TopicsConfig {
	return TopicsConfig{Partitions: topic.DefaultPartitions, Replication: 3, ClickLife: topic.DefaultClickLife}
}

// Validate reports a setting that cannot work, by flag.
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

// ErrPartitions: a co-partitioned topic has another partition count than its siblings.
var ErrPartitions = errors.New("partition count differs")

// ApplyTopics creates the topics that are missing, sets the configuration of those that
// exist, waits until all have leaders, commits offset 0 for both groups in topics that
// are fresh, and records with what the installation was made. It can be repeated. It
// returns a line for each change, also if it fails later. A partition count that
// differs, also from the record, is refused with ErrPartitions, and a topic that was
// recreated, or that is gone, with ErrRecreated.
func ApplyTopics(ctx context.Context, cl *kgo.Client, cfg Config, want TopicsConfig, log *slog.Logger) (
	changes []string, err error) {
	if err := want.Validate(); err != nil {
		return nil, err
	}
	recorded, err := ReadRecorded(ctx, cfg, log, nil)
	if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return nil, err
	}
	install := recorded.Install
	adm := kadm.NewClient(cl)
	specs := topic.Specs(cfg.TopicPrefix, want.Partitions, want.ClickLife)
	if install != nil {
		if err := checkWanted(ctx, cl, cfg, want, recorded); err != nil {
			return nil, err
		}
	}
	changes, created, err := createMissing(ctx, adm, specs, want)
	if err != nil {
		return changes, err
	}
	if err := waitForLeaders(ctx, adm, specs); err != nil {
		return changes, err
	}
	altered, err := alterConfigs(ctx, adm, specs, created)
	changes = append(changes, altered...)
	if err != nil {
		return changes, err
	}
	committed, err := commitFreshOffsets(ctx, adm, cfg, created, install)
	changes = append(changes, committed...)
	if err != nil {
		return changes, err
	}
	written, err := recordInstall(ctx, cl, cfg, specs, install)
	return append(changes, written...), err
}

// checkWanted compares what is wanted, and what is there, with the records of the
// installation.
func checkWanted(ctx context.Context, cl *kgo.Client, cfg Config, want TopicsConfig, r Recorded) error {
	if n := r.Install.Epochs.Now(); n != want.Partitions && r.Growing() == nil {
		return fmt.Errorf("-partitions: %w: it is %d, the installation has %d, and tokens are bound to that: "+
			"`ctl topics grow` adds partitions", ErrPartitions, want.Partitions, n)
	}
	names := slices.Sorted(maps.Keys(r.Install.Topics))
	if err := CheckPartitions(ctx, cl, cfg, r, names...); err != nil {
		return err
	}
	return checkIDs(ctx, cl, cfg, r.Install)
}

// createMissing creates the topics that are missing.
func createMissing(ctx context.Context, adm *kadm.Client, specs []topic.Spec, want TopicsConfig) (changes []string,
	created map[string]bool, err error) {
	created = make(map[string]bool)
	have, err := adm.ListTopics(ctx, specNames(specs)...)
	if err != nil {
		return nil, nil, fmt.Errorf("listing topics: %w", err)
	}
	for _, s := range specs {
		if d := have[s.Name]; d.Err == nil && have.Has(s.Name) {
			if n := int32(len(d.Partitions)); s.Partitioned && n != s.Partitions {
				return changes, created, fmt.Errorf("topic %s: %w: it has %d, -partitions says %d; give the count "+
					"that the installation was made with: tokens are bound to it",
					s.Name, ErrPartitions, n, s.Partitions)
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
			return changes, created, fmt.Errorf("creating topic %s: %w",
				s.Name, explainReplication(ctx, adm, err, want.Replication))
		}
		created[s.Name] = true
		changes = append(changes, fmt.Sprintf("created topic %s with %d partitions", s.Name, s.Partitions))
	}
	return changes, created, nil
}

// explainReplication adds the flag to change to an error of a cluster that has too few
// brokers for the replicas of a topic.
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

// waitForLeaders waits until every partition has a leader. A client that asks earlier
// has to wait for its next metadata refresh.
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

// alterConfigs corrects the configuration of topics that existed before.
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

// topicsByGroup returns the topics that each consumer group reads.
func topicsByGroup(cfg Config) map[string][]string {
	t := cfg.Topic
	sinkTopics := []string{t(topic.Clicks), t(topic.Conversions), t(topic.Outcomes), t(topic.Rejections),
		t(topic.Progress), t(topic.Catalog)}
	return map[string][]string{
		cfg.Group(topic.ProcessorGroup): {t(topic.Clicks), t(topic.Conversions)},
		cfg.Group(topic.SinkGroup):      sinkTopics,
		cfg.SinkGroup():                 sinkTopics,
	}
}

// commitFreshOffsets commits offset 0 where a group has no commit and the topic was
// created just now, or is empty and new to the group. A group that has offsets in some
// partitions of a topic only has lost the others, or partitions were added: that was
// once taken for a fresh install, and every older token looked for its click in the
// wrong partition. An operator must decide where such a group goes on. Partitions that
// were added, as the record says, need no commit: see isStart.
func commitFreshOffsets(ctx context.Context, adm *kadm.Client, cfg Config, created map[string]bool,
	install *topic.Install) (changes []string, err error) {
	groups := topicsByGroup(cfg)
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		committed, err := fetchGroupOffsets(ctx, adm, group)
		if err != nil {
			return changes, fmt.Errorf("reading the offsets of group %s: %w", group, err)
		}
		offsets, err := ListOffsets(ctx, adm, groups[group]...)
		if err == nil {
			err = offsets.Error()
		}
		if err != nil {
			return changes, fmt.Errorf("reading the logs that group %s reads: %w", group, err)
		}
		var fresh kadm.Offsets
		n := 0
		for _, name := range groups[group] {
			partitions := offsets.Partitions(name)
			known := 0
			var missing []int32
			for _, id := range slices.Sorted(maps.Keys(partitions)) {
				if _, ok := committed.Lookup(name, id); ok {
					known++
				} else if isStart(cfg, install, name, id, partitions[id]) {
					continue
				} else if created[name] || partitions[id].End == 0 {
					missing = append(missing, id)
				}
			}
			if known > 0 && len(missing) > 0 {
				return changes, fmt.Errorf("%w: group %s has offsets in %d of the %d partitions of topic %s, so this "+
					"is not a fresh install, and nothing is committed: were partitions added? %s",
					ErrOffsets, group, known, len(partitions), name, partitionsAdded)
			}
			for _, id := range missing {
				fresh.AddOffset(name, id, 0, -1)
				n++
			}
		}
		if n == 0 {
			continue
		}
		if err := adm.CommitAllOffsets(ctx, group, fresh); err != nil {
			return changes, fmt.Errorf("committing the start of group %s: %w", group, err)
		}
		changes = append(changes, fmt.Sprintf("committed offset 0 of %d partitions for group %s", n, group))
	}
	return changes, nil
}

// CheckTopics checks the cluster and the topics, and returns every problem with what to
// change. Problems of one topic do not hide those of another. Settings that are unwise,
// or that the cluster does not show, are logged as warnings.
func CheckTopics(ctx context.Context, cl *kgo.Client, cfg Config, want TopicsConfig, log *slog.Logger) error {
	adm := kadm.NewClient(cl)
	specs := topic.Specs(cfg.TopicPrefix, want.Partitions, want.ClickLife)
	have, err := adm.ListTopics(ctx, specNames(specs)...)
	if err != nil {
		return fmt.Errorf("listing topics: %w", err)
	}
	transactions := CheckTransactions(ctx, cl, log)
	install, problems := checkRecorded(ctx, cl, cfg, log)
	for _, s := range specs {
		d, ok := have[s.Name]
		switch {
		case !ok || d.Err != nil:
			problems = append(problems, fmt.Errorf("topic %s does not exist: run `ctl topics apply`", s.Name))
		case s.Partitioned && len(d.Partitions) != int(s.Partitions):
			problems = append(problems, fmt.Errorf("topic %s: %w: it has %d, -partitions says %d; co-partitioned "+
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
			// A managed Kafka may deny DescribeConfigs. That is no reason to refuse it.
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
	problems = append(problems, checkAllGroups(ctx, adm, cfg, install))
	return errors.Join(problems...)
}

// checkRecorded compares the topics with the records of the installation.
func checkRecorded(ctx context.Context, cl *kgo.Client, cfg Config, log *slog.Logger) (install *topic.Install,
	problems []error) {
	recorded, err := ReadRecorded(ctx, cfg, log, nil)
	install = recorded.Install
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return nil, nil // every check of a topic says so
	case err != nil:
		return nil, []error{err}
	case install == nil:
		return nil, []error{fmt.Errorf("%w: run `ctl topics apply`, which writes it", ErrNotInstalled)}
	}
	if recorded.Since.IsZero() {
		log.Warn(NotBound)
	}
	names := slices.Sorted(maps.Keys(install.Topics))
	if err := CheckPartitions(ctx, cl, cfg, recorded, names...); err != nil {
		problems = append(problems, err)
	}
	if err := checkIDs(ctx, cl, cfg, install); err != nil {
		problems = append(problems, err)
	}
	return install, problems
}

func sameCleanupPolicy(a, b string) bool {
	return a == b || a == "delete,compact" && b == "compact,delete"
}

// checkAllGroups is CheckOffsets for all consumer groups.
func checkAllGroups(ctx context.Context, adm *kadm.Client, cfg Config, install *topic.Install) error {
	var problems []error
	for group, topics := range topicsByGroup(cfg) {
		if err := CheckOffsets(ctx, adm, cfg, install, group, topics); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// ErrOffsets: a consumer group has no committed offset, or one outside the log. Nothing
// in this project resets it silently.
var ErrOffsets = errors.New("lost offsets")

// fetchGroupOffsets reads a group's offsets; a group that does not exist has none. It
// waits for a coordinator: a new cluster has none for about a second, and franz-go does
// not retry COORDINATOR_NOT_AVAILABLE.
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

// isStart reports whether a group that has no commit in a partition begins at offset 0
// there: if, and only if, the record says that it was added, and nothing of it is gone.
func isStart(cfg Config, install *topic.Install, name string, partition int32, log LogOffsets) bool {
	short := strings.TrimPrefix(name, cfg.TopicPrefix)
	return install != nil && slices.Contains(topic.CoPartitioned(), short) && install.Epochs.IsAdded(partition) &&
		log.Start == 0
}

// CheckOffsets returns an ErrOffsets that names each partition of topics on which group
// has no committed offset, or one outside the log. install, which may be nil, says which
// partitions need none.
func CheckOffsets(ctx context.Context, adm *kadm.Client, cfg Config, install *topic.Install, group string,
	topics []string) error {
	committed, err := fetchGroupOffsets(ctx, adm, group)
	if err != nil {
		return fmt.Errorf("reading the offsets of group %s: %w", group, err)
	}
	offsets, err := ListOffsets(ctx, adm, topics...)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return fmt.Errorf("reading the logs that group %s reads: %w", group, err)
	}
	var problems []error
	for _, name := range topics {
		partitions := offsets.Partitions(name)
		for _, id := range slices.Sorted(maps.Keys(partitions)) {
			at := int64(-1)
			if o, ok := committed.Lookup(name, id); ok {
				at = o.At
			} else if isStart(cfg, install, name, id, partitions[id]) {
				continue
			}
			if err := checkCommit(at, partitions[id]); err != nil {
				problems = append(problems, fmt.Errorf("%w: group %s, %s partition %d: %w", ErrOffsets, group, name, id,
					err))
			}
		}
	}
	return errors.Join(problems...)
}

// checkCommit compares a committed offset, -1 for none, with a partition's log.
func checkCommit(at int64, log LogOffsets) error {
	switch {
	case at < 0:
		return fmt.Errorf("no committed offset while the log holds [%d, %d): on a fresh install run `ctl topics "+
			"apply`; if partitions were added see the runbook, PartitionsDiffer; else set it with "+
			"kafka-consumer-groups --reset-offsets to where the group was", log.Start, log.End)
	case at < log.Start:
		return fmt.Errorf("committed %d, but the log begins at %d: records [%d, %d) are gone; set the offset to %d "+
			"with kafka-consumer-groups --reset-offsets if that loss is accepted", at, log.Start, at, log.Start,
			log.Start)
	case at > log.End:
		return fmt.Errorf("committed %d, but the log ends at %d: was the topic recreated? records are missing or "+
			"this is another cluster", at, log.End)
	}
	return nil
}
