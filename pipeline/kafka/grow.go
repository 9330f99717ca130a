package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// GrowConfig says what an installation grows to.
type GrowConfig struct {
	Partitions int32         // of the co-partitioned topics
	At         time.Time     // tokens minted from then on use them, in whole seconds
	Lead       time.Duration // how far ahead At must be at least; tests shorten it
	// Step is called after each step, with its name; an error ends Grow there. Only tests
	// set it.
	Step func(name string) error
}

// DefaultGrowConfig has no partitions and no time: they must be given.
func DefaultGrowConfig() GrowConfig {
	return GrowConfig{Lead: topic.GrowLead, Step: func(string) error { return nil }}
}

// Validate reports a setting that cannot be, by flag.
func (c GrowConfig) Validate() error {
	switch {
	case c.Partitions < 1:
		return fmt.Errorf("-partitions: %d is not a partition count", c.Partitions)
	case c.At.IsZero():
		return errors.New("-at: a time is required")
	case !c.At.Equal(c.At.Truncate(time.Second)):
		return fmt.Errorf("-at: %s has a part of a second, and tokens have none", c.At.Format(time.RFC3339Nano))
	}
	return nil
}

// ErrGrow: an installation cannot grow in the way that is asked for.
var ErrGrow = errors.New("the installation does not grow")

// Grow adds partitions to the co-partitioned topics of a live installation. Tokens minted
// before want.At keep their partition. It writes what it is about to do, adds the
// partitions, topic by topic, waits until every broker shows them, and then records the
// new epoch. In between no program sends, judges or inserts anything new, and none ends.
//
// It can be repeated, also after it was broken off anywhere: as it was, at any time, or
// with another time ahead. It returns a line for each change, also if it fails later.
func Grow(ctx context.Context, cl *kgo.Client, cfg Config, want GrowConfig, log *slog.Logger) (lines []string,
	err error) {
	if err := want.Validate(); err != nil {
		return nil, err
	}
	recorded, err := readGrowable(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	growth := topic.Growth{Partitions: want.Partitions, From: want.At.UTC()}
	epochs := recorded.Install.Epochs
	newest := epochs[len(epochs)-1]
	isDone := newest.Partitions == growth.Partitions && newest.From.Equal(growth.From)
	if isDone && recorded.Growing() == nil { // else the record is of a later growth
		return forgetGrowth(ctx, cl, cfg, recorded.Growth)
	}
	if err := checkGrowth(ctx, cl, cfg, recorded, growth, want.Lead); err != nil {
		return nil, err
	}
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if old := recorded.Growing(); old == nil || !old.From.Equal(growth.From) {
		if err := writeGrowth(ctx, cl, cfg, &growth); err != nil {
			return lines, err
		}
		say("wrote that tokens minted from %s on will use %d partitions", growth.From.Format(time.RFC3339),
			growth.Partitions)
	}
	if err := want.Step("intent"); err != nil {
		return lines, err
	}
	for _, name := range topic.CoPartitioned() {
		added, err := addPartitions(ctx, cl, cfg.Topic(name), growth.Partitions)
		if err != nil {
			return lines, err
		}
		if added > 0 {
			say("added %d partitions to topic %s, which has %d now", added, cfg.Topic(name), growth.Partitions)
		}
		if err := want.Step(name); err != nil {
			return lines, err
		}
	}
	if err := awaitPartitions(ctx, cl, cfg, growth.Partitions); err != nil {
		return lines, err
	}
	if err := want.Step("shown"); err != nil {
		return lines, err
	}
	if err := writeInstall(ctx, cl, cfg, grownInstall(*recorded.Install, growth)); err != nil {
		return lines, err
	}
	say("recorded that tokens minted from %s on are bound to %d partitions", growth.From.Format(time.RFC3339),
		growth.Partitions)
	if err := want.Step("recorded"); err != nil {
		return lines, err
	}
	_, err = forgetGrowth(ctx, cl, cfg, &growth)
	return lines, err
}

// readGrowable reads the records of an installation that can grow: all programs look at
// places, so that what is misplaced is found.
func readGrowable(ctx context.Context, cfg Config, log *slog.Logger) (Recorded, error) {
	recorded, err := ReadRecorded(ctx, cfg, log, nil)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		err = nil
	}
	switch {
	case err != nil:
		return recorded, err
	case recorded.Install == nil:
		return recorded, fmt.Errorf("%w: run `ctl topics apply`, which writes it", ErrNotInstalled)
	case recorded.Since.IsZero():
		return recorded, fmt.Errorf("%w: %s", ErrGrow, NotBound)
	}
	return recorded, nil
}

// checkGrowth refuses what would bind tokens to two places, or what somebody else began.
func checkGrowth(ctx context.Context, cl *kgo.Client, cfg Config, r Recorded, growth topic.Growth, lead time.Duration) (
	err error) {
	epochs := r.Install.Epochs
	under := r.Growing()
	begun := under != nil && under.From.Equal(growth.From)
	switch ahead := time.Now().Add(lead); {
	case under != nil && under.Partitions != growth.Partitions:
		return fmt.Errorf("-partitions: %w: it is %d, and growing to %d was begun: repeat that, or take it back with "+
			"-abandon if no topic has grown", ErrGrow, growth.Partitions, under.Partitions)
	case growth.Partitions <= epochs.Now():
		return fmt.Errorf("-partitions: %w: it is %d, the installation has %d, and Kafka cannot remove partitions",
			ErrGrow, growth.Partitions, epochs.Now())
	case !growth.From.After(epochs[len(epochs)-1].From):
		return fmt.Errorf("-at: %w: the newest epoch begins later, at %s", ErrGrow,
			epochs[len(epochs)-1].From.Format(time.RFC3339))
	// One that was begun was far enough ahead then, and nobody has placed a token since.
	case growth.From.Before(ahead) && !begun:
		return fmt.Errorf("-at: %w: %s is not %v ahead: clocks differ, and every program must know before it places "+
			"a token of then", ErrGrow, growth.From.Format(time.RFC3339), lead)
	}
	names := slices.Sorted(maps.Keys(r.Install.Topics))
	if err := CheckPartitions(ctx, cl, cfg, r, names...); err != nil && !errors.Is(err, ErrGrowing) {
		return err
	}
	if err := checkIDs(ctx, cl, cfg, r.Install); err != nil || under != nil {
		return err // what was added already has no commits
	}
	return checkAllGroups(ctx, kadm.NewClient(cl), cfg, r.Install)
}

// grownInstall is the record with the new epoch. Topics that do not grow keep their count.
func grownInstall(old topic.Install, growth topic.Growth) topic.Install {
	grown := topic.Install{Epochs: old.Epochs.Grown(growth), Topics: maps.Clone(old.Topics)}
	for _, name := range topic.CoPartitioned() {
		t := grown.Topics[name]
		t.Partitions = growth.Partitions
		grown.Topics[name] = t
	}
	return grown
}

// addPartitions brings a topic to a partition count, and returns how many it has added. An
// attempt whose answer was lost may have added them.
func addPartitions(ctx context.Context, cl *kgo.Client, name string, partitions int32) (added int32, err error) {
	for attempt := 0; ; attempt++ {
		have, err := ReadPartitionCount(ctx, kadm.NewClient(cl), name)
		switch {
		case err != nil:
			return 0, err
		case have == partitions:
			return added, nil
		case have > partitions:
			return 0, fmt.Errorf("%w: topic %s has %d: %s", ErrPartitions, name, have, partitionsAdded)
		}
		added = partitions - have
		altered, err := kadm.NewClient(cl).UpdatePartitions(ctx, int(partitions), name)
		if err == nil {
			err = altered.Error()
		}
		if err != nil && (attempt == growAttempts || !Retryable(err) && !errors.Is(err, kerr.InvalidPartitions) ||
			LacksRight(err)) {
			return 0, fmt.Errorf("adding partitions to topic %s: %w", name, err)
		}
		if err := sleep(ctx, growPause); err != nil {
			return 0, fmt.Errorf("adding partitions to topic %s: %w", name, err)
		}
	}
}

const (
	// growAttempts bounds the attempts to add partitions to one topic, to a minute. The
	// controller may have added them, and a busy broker not know of it for seconds: then it
	// shows too few, and a further attempt is refused as INVALID_PARTITIONS.
	growAttempts = 200
	// growPause is a little more than a client believes its metadata.
	growPause = 300 * time.Millisecond
)

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// awaitPartitions waits until every broker shows the partitions, each with a leader: a
// program that knows the record must not find fewer.
func awaitPartitions(ctx context.Context, cl *kgo.Client, cfg Config, partitions int32) error {
	brokers, err := kadm.NewClient(cl).ListBrokers(ctx)
	if err != nil {
		return fmt.Errorf("listing the brokers: %w", err)
	}
	for _, b := range brokers {
		for {
			missing, err := findMissing(ctx, cl.Broker(int(b.NodeID)), cfg, partitions)
			if err != nil {
				return fmt.Errorf("asking broker %d for the partitions: %w", b.NodeID, err)
			}
			if missing == "" {
				break
			}
			if err := sleep(ctx, 50*time.Millisecond); err != nil {
				return fmt.Errorf("waiting until broker %d shows %d partitions of %s: %w", b.NodeID, partitions,
					missing, err)
			}
		}
	}
	return nil
}

// findMissing returns a topic that a broker does not show with all partitions and leaders.
func findMissing(ctx context.Context, b *kgo.Broker, cfg Config, partitions int32) (name string, err error) {
	request := kmsg.NewPtrMetadataRequest()
	for _, name := range topic.CoPartitioned() {
		asked := kmsg.NewMetadataRequestTopic()
		asked.Topic = kmsg.StringPtr(cfg.Topic(name))
		request.Topics = append(request.Topics, asked)
	}
	answer, err := b.RetriableRequest(ctx, request)
	if err != nil {
		return "", err
	}
	for _, t := range answer.(*kmsg.MetadataResponse).Topics {
		led := int32(0)
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 && p.Leader >= 0 {
				led++
			}
		}
		if led < partitions && t.Topic != nil {
			return *t.Topic, nil
		}
	}
	return "", nil
}

// writeGrowth writes the record of a growth; nil deletes it.
func writeGrowth(ctx context.Context, cl *kgo.Client, cfg Config, growth *topic.Growth) error {
	var value []byte
	if growth != nil {
		var err error
		if value, err = growth.Encode(); err != nil {
			return err
		}
	}
	return writeCatalogRecord(ctx, cl, cfg, topic.GrowthKey, value)
}

// forgetGrowth deletes the record of a growth that is done.
func forgetGrowth(ctx context.Context, cl *kgo.Client, cfg Config, growth *topic.Growth) (lines []string, err error) {
	if growth == nil {
		return nil, nil
	}
	return nil, writeGrowth(ctx, cl, cfg, nil)
}

// AbandonGrowth takes back a growth that was begun, as long as no topic has partitions of
// it: Kafka cannot remove them. It reports whether there was one.
func AbandonGrowth(ctx context.Context, cl *kgo.Client, cfg Config, log *slog.Logger) (found bool, err error) {
	recorded, err := ReadRecorded(ctx, cfg, log, nil)
	if err != nil {
		return false, err
	}
	growing := recorded.Growing()
	if growing == nil {
		return false, nil
	}
	brokers, err := kadm.NewClient(cl).ListBrokers(ctx)
	if err != nil {
		return true, fmt.Errorf("listing the brokers: %w", err)
	}
	unexplained := Recorded{Install: recorded.Install}
	for _, b := range brokers { // one may not know yet of what was added
		err := CheckPartitions(ctx, cl.Broker(int(b.NodeID)), cfg, unexplained, topic.CoPartitioned()...)
		if errors.Is(err, ErrPartitions) {
			return true, fmt.Errorf("it cannot be abandoned any more: repeat `ctl topics grow -partitions %d -at %s`: "+
				"%w", growing.Partitions, growing.From.Format(time.RFC3339), err)
		}
		if err != nil {
			return true, fmt.Errorf("asking broker %d for the partitions: %w", b.NodeID, err)
		}
	}
	return true, writeGrowth(ctx, cl, cfg, nil)
}
