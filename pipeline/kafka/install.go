package kafka

import (
	"context"
	"encoding/base64"
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

// ErrRecreated: a topic is not the one that the installation was made with.
var ErrRecreated = errors.New("topic was recreated")

// ErrNotInstalled: the record of an installation is needed, and there is none.
var ErrNotInstalled = errors.New("the installation has no record " + topic.InstallKey)

// partitionsAdded is what an operator has to know of topics with another partition
// count than tokens are bound to.
const partitionsAdded = "tokens are bound to the recorded count, so clicks, events and verdicts would no longer " +
	"meet; Kafka cannot remove partitions: see the runbook, PartitionsDiffer"

// ErrGrowing: `ctl topics grow` is adding partitions, or was broken off. It passes.
var ErrGrowing = errors.New("partitions are being added")

// growthUnderWay is what an operator has to know of a growth that does not end.
const growthUnderWay = "this waits until it is done; if `ctl topics grow` does not run any more, repeat it"

// NotRecorded is what a program logs that found no record of the installation.
const NotRecorded = "the partition count is not recorded, so added partitions would go unnoticed: run `ctl topics " +
	"apply`"

// NotBound is what a program says that found no record of the time since when records can
// be misplaced.
const NotBound = "misplaced records are not looked for: when all processors and sinks are of this release, run `ctl " +
	"topics bind`"

// Recorded is what the records of an installation say. The zero value: there are none.
type Recorded struct {
	// Install is nil if a release before the record made the topics.
	Install *topic.Install
	// Growth is what the newest record of a growth says, also of one that is done: see
	// Growing. nil: there is none.
	Growth *topic.Growth
	// Since is since when records can be misplaced; zero: no record says so.
	Since time.Time
}

// Growing returns the growth that is under way, or was broken off; nil: there is none.
func (r Recorded) Growing() *topic.Growth {
	if r.Growth == nil || r.Install == nil || r.Growth.Partitions <= r.Install.Epochs.Now() {
		return nil
	}
	return r.Growth
}

// growingError says what is under way and what ends it.
func growingError(g *topic.Growth) error {
	return fmt.Errorf("%w: there will be %d, for tokens minted from %s on: %s (-partitions %d -at %[3]s)", ErrGrowing,
		g.Partitions, g.From.Format(time.RFC3339), growthUnderWay, g.Partitions)
}

// note keeps a record of topic catalog if it is one of the installation.
func (r *Recorded) note(key string, value []byte) (ours bool, err error) {
	switch key {
	case topic.InstallKey:
		r.Install, err = parseInstall(value)
	case topic.GrowthKey:
		r.Growth, err = parseGrowth(value)
	case topic.PlacedSinceKey:
		r.Since, err = parsePlacedSince(value)
	default:
		return false, nil
	}
	return true, err
}

// ReadRecorded reads the records of the installation from topic catalog, which it reads
// to its present end. It calls progressed, which may be nil, while it reads: a large
// catalog takes its time.
func ReadRecorded(ctx context.Context, cfg Config, log *slog.Logger, progressed func()) (r Recorded, err error) {
	name := cfg.Topic(topic.Catalog)
	cl, err := NewClient(cfg, log, nil)
	if err != nil {
		return r, err
	}
	defer cl.Close()
	offsets, err := ListOffsets(ctx, kadm.NewClient(cl), name)
	var at LogOffsets
	if err == nil {
		at, err = offsets.Of(name, 0)
	}
	if err != nil {
		return r, fmt.Errorf("reading record %s: %w", topic.InstallKey, err)
	}
	values := make(map[string][]byte)
	reader := RangeReader{Kafka: cfg, Log: log, Isolation: kgo.ReadCommitted()}
	err = reader.Each(ctx, func(records []*kgo.Record) error {
		if progressed != nil {
			progressed()
		}
		for _, r := range records {
			values[string(r.Key)] = r.Value
		}
		return nil
	}, Range{Topic: name, From: at.Start, To: at.Stable})
	if err != nil {
		return r, fmt.Errorf("reading record %s: %w", topic.InstallKey, err)
	}
	for key, value := range values { // the newest of each: one that cannot be read may have been replaced
		_, bad := r.note(key, value)
		err = errors.Join(err, bad)
	}
	return r, err
}

// parseInstall returns nil for a record that is not there, or deleted.
func parseInstall(value []byte) (*topic.Install, error) {
	if len(value) == 0 {
		return nil, nil
	}
	install, err := topic.ParseInstall(value)
	return &install, err
}

// parseGrowth returns nil for a record that is not there, or deleted.
func parseGrowth(value []byte) (*topic.Growth, error) {
	if len(value) == 0 {
		return nil, nil
	}
	growth, err := topic.ParseGrowth(value)
	return &growth, err
}

// parsePlacedSince returns zero for a record that is not there, or deleted.
func parsePlacedSince(value []byte) (time.Time, error) {
	if len(value) == 0 {
		return time.Time{}, nil
	}
	p, err := topic.ParsePlacedSince(value)
	return p.Since, err
}

// CheckPartitions compares the partition counts of topics, named without prefix, with
// the records of the installation. Another one than these explain is ErrPartitions. While
// partitions are being added the error is ErrGrowing, whether a topic has them yet or not.
// A topic that is not there, or not in the record, is left to who needs it. Without a
// record there is nothing to compare.
func CheckPartitions(ctx context.Context, cl kmsg.Requestor, cfg Config, r Recorded, names ...string) error {
	if r.Install == nil {
		return nil
	}
	growing := r.Growing()
	err := eachRecorded(ctx, cl, cfg, r.Install, names, func(d topicFound, made topic.Installed) error {
		grows := growing != nil && d.partitions == growing.Partitions && slices.Contains(topic.CoPartitioned(), d.name)
		if d.partitions == made.Partitions || grows {
			return nil
		}
		return fmt.Errorf("%w: topic %s has %d, the installation was made with %d: %s", ErrPartitions,
			cfg.Topic(d.name), d.partitions, made.Partitions, partitionsAdded)
	})
	if err == nil && growing != nil {
		return growingError(growing)
	}
	return err
}

// checkIDs compares the ids of all topics with the record of the installation. Another
// topic of the same name is ErrRecreated. So is one that is gone.
func checkIDs(ctx context.Context, cl *kgo.Client, cfg Config, install *topic.Install) error {
	names := slices.Sorted(maps.Keys(install.Topics))
	seen := 0
	err := eachRecorded(ctx, cl, cfg, install, names, func(d topicFound, made topic.Installed) error {
		seen++
		if id := idText(d.id); id != made.ID {
			return fmt.Errorf("%w: %s has the id %s, the installation was made with %s: if it was restored with all "+
				"its records, run `ctl topics adopt`", ErrRecreated, cfg.Topic(d.name), id, made.ID)
		}
		return nil
	})
	if err == nil && seen < len(names) {
		return fmt.Errorf("%w: %d topics of the installation are gone: restore them, then run `ctl topics adopt`",
			ErrRecreated, len(names)-seen)
	}
	return err
}

// topicFound is a topic as a broker shows it.
type topicFound struct {
	name       string // without prefix
	id         kadm.TopicID
	partitions int32
}

// eachRecorded calls compare for the topics that are there and in the record, and joins
// its errors. It asks a broker: what a client remembers may be older than a record that
// it was told of.
func eachRecorded(ctx context.Context, cl kmsg.Requestor, cfg Config, install *topic.Install, names []string,
	compare func(topicFound, topic.Installed) error) error {
	request := kmsg.NewPtrMetadataRequest()
	byFull := make(map[string]string)
	for _, name := range names {
		asked := kmsg.NewMetadataRequestTopic()
		asked.Topic = kmsg.StringPtr(cfg.Topic(name))
		request.Topics = append(request.Topics, asked)
		byFull[cfg.Topic(name)] = name
	}
	answer, err := request.RequestWith(ctx, cl)
	if err != nil {
		return fmt.Errorf("reading metadata of topics: %w", err)
	}
	var problems []error
	for _, t := range answer.Topics {
		if t.Topic == nil {
			continue
		}
		err := kerr.ErrorForCode(t.ErrorCode)
		if LacksRight(err) {
			return fmt.Errorf("reading metadata of %s: %w", *t.Topic, err)
		}
		name := byFull[*t.Topic]
		if made, recorded := install.Topics[name]; recorded && err == nil {
			problems = append(problems, compare(topicFound{name, t.TopicID, int32(len(t.Partitions))}, made))
		}
	}
	return errors.Join(problems...)
}

// idText prints a topic id as Kafka's own tools do.
func idText(id kadm.TopicID) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// recordInstall writes the record of an installation that has none, or whose release
// has got further topics. Before, all co-partitioned topics must agree, and the groups
// must have their offsets in every partition. In an installation that is fresh records can
// be misplaced from now on; else programs may be at work that do not look, see BindPlaces.
func recordInstall(ctx context.Context, cl *kgo.Client, cfg Config, specs []topic.Spec, old *topic.Install) (
	changes []string, err error) {
	adm := kadm.NewClient(cl)
	made, err := describeInstall(ctx, adm, cfg, specs)
	if err != nil {
		return nil, err
	}
	if old != nil {
		maps.Copy(made.Topics, old.Topics)
		made.Epochs = old.Epochs
		if len(made.Topics) == len(old.Topics) {
			return nil, nil
		}
	}
	if err := checkAllGroups(ctx, adm, cfg, old); err != nil {
		return nil, fmt.Errorf("record %s is not written: %w", topic.InstallKey, err)
	}
	used := old != nil
	if !used {
		if used, err = haveEvents(ctx, adm, cfg); err != nil {
			return nil, err
		}
	}
	if err := writeInstall(ctx, cl, cfg, made); err != nil {
		return nil, err
	}
	if !used {
		if err := writePlacedSince(ctx, cl, cfg, time.Now()); err != nil {
			return nil, err
		}
	}
	return []string{fmt.Sprintf("recorded that tokens are bound to %d partitions", made.Epochs.Now())}, nil
}

// describeInstall is the record for the topics as they are.
func describeInstall(ctx context.Context, adm *kadm.Client, cfg Config, specs []topic.Spec) (topic.Install, error) {
	made := topic.Install{Topics: map[string]topic.Installed{}}
	have, err := adm.ListTopics(ctx, specNames(specs)...)
	if err == nil {
		err = have.Error()
	}
	if err != nil {
		return made, fmt.Errorf("reading metadata of topics: %w", err)
	}
	for _, s := range specs {
		d := have[s.Name]
		n := int32(len(d.Partitions))
		if s.Partitioned {
			if n != s.Partitions {
				return made, fmt.Errorf("%w: topic %s has %d, its siblings have %d", ErrPartitions, s.Name, n,
					s.Partitions)
			}
			made.Epochs = topic.OneEpoch(n)
		}
		made.Topics[s.Name[len(cfg.TopicPrefix):]] = topic.Installed{ID: idText(d.ID), Partitions: n}
	}
	return made, nil
}

// checkChangelog returns ErrRecreated if a partition of the changelog is empty although
// processors have judged events of it: a state rebuilt from it would have
// forgotten every journey.
func checkChangelog(ctx context.Context, adm *kadm.Client, cfg Config) error {
	changelog, conversions := cfg.Topic(topic.Changelog), cfg.Topic(topic.Conversions)
	committed, err := fetchGroupOffsets(ctx, adm, cfg.Group(topic.ProcessorGroup))
	if err != nil {
		return fmt.Errorf("reading the offsets of group %s: %w", cfg.Group(topic.ProcessorGroup), err)
	}
	offsets, err := ListOffsets(ctx, adm, changelog)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return fmt.Errorf("reading the log of %s: %w", changelog, err)
	}
	for id, log := range offsets.Partitions(changelog) {
		if o, ok := committed.Lookup(conversions, id); ok && o.At > 0 && log.End == 0 {
			return fmt.Errorf("%w: %s partition %d is empty, and events of %s up to offset %d were judged: their "+
				"journeys would be forgotten; restore its records", ErrRecreated, changelog, id, conversions, o.At)
		}
	}
	return nil
}

// haveEvents reports whether programs have written clicks or conversions.
func haveEvents(ctx context.Context, adm *kadm.Client, cfg Config) (bool, error) {
	for _, name := range []string{cfg.Topic(topic.Clicks), cfg.Topic(topic.Conversions)} {
		offsets, err := ListOffsets(ctx, adm, name)
		if err == nil {
			err = offsets.Error()
		}
		if err != nil {
			return false, fmt.Errorf("reading the log of %s: %w", name, err)
		}
		for _, log := range offsets.Partitions(name) {
			if log.End > 0 {
				return true, nil
			}
		}
	}
	return false, nil
}

func writeInstall(ctx context.Context, cl *kgo.Client, cfg Config, install topic.Install) error {
	value, err := install.Encode()
	if err != nil {
		return err
	}
	return writeCatalogRecord(ctx, cl, cfg, topic.InstallKey, value)
}

func writePlacedSince(ctx context.Context, cl *kgo.Client, cfg Config, since time.Time) error {
	value, err := topic.PlacedSince{Since: since}.Encode()
	if err != nil {
		return err
	}
	return writeCatalogRecord(ctx, cl, cfg, topic.PlacedSinceKey, value)
}

func writeCatalogRecord(ctx context.Context, cl *kgo.Client, cfg Config, key string, value []byte) error {
	record := &kgo.Record{Topic: cfg.Topic(topic.Catalog), Key: []byte(key), Value: value}
	if err := cl.ProduceSync(ctx, record).FirstErr(); err != nil {
		return fmt.Errorf("writing record %s: %w", key, err)
	}
	return nil
}

// BindPlaces writes since when records can be misplaced, if no record says so yet: the last
// step of an upgrade, when all processors and sinks look at places. What one that does not
// look has judged, another one would take for misplaced, and the ledger would lack it. It
// returns the time, and whether it was written now.
func BindPlaces(ctx context.Context, cl *kgo.Client, cfg Config, log *slog.Logger) (since time.Time, written bool,
	err error) {
	recorded, err := ReadRecorded(ctx, cfg, log, nil)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		err = nil
	}
	switch {
	case err != nil:
		return since, false, err
	case recorded.Install == nil:
		return since, false, fmt.Errorf("%w: run `ctl topics apply`, which writes it", ErrNotInstalled)
	case !recorded.Since.IsZero():
		return recorded.Since, false, nil
	}
	// It lies ahead: clocks differ, and what is judged before must not count as misplaced.
	since = time.Now().Add(topic.DeliveryLimit).Truncate(time.Millisecond)
	return since, true, writePlacedSince(ctx, cl, cfg, since)
}

// AdoptTopics takes over topics that were restored, or created anew, under ids that the
// installation does not know. Their partition counts must be the recorded ones, and the
// committed offsets of all groups must lie within their logs: else records are missing.
// It returns a line for each such topic. Without yes it changes nothing.
func AdoptTopics(ctx context.Context, cl *kgo.Client, cfg Config, log *slog.Logger, yes bool) (lines []string,
	err error) {
	recorded, err := ReadRecorded(ctx, cfg, log, nil)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		err = nil
	}
	install := recorded.Install
	if err != nil {
		return nil, err
	}
	if install == nil {
		return nil, fmt.Errorf("%w: run `ctl topics apply`, which writes it", ErrNotInstalled)
	}
	adm := kadm.NewClient(cl)
	names := slices.Sorted(maps.Keys(install.Topics))
	if err := CheckPartitions(ctx, cl, cfg, recorded, names...); err != nil {
		return nil, err
	}
	have, err := adm.ListTopics(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	adopted := topic.Install{Epochs: install.Epochs, Topics: maps.Clone(install.Topics)}
	for _, name := range names {
		made := install.Topics[name]
		d, ok := have[cfg.Topic(name)]
		if !ok || d.Err != nil {
			return nil, fmt.Errorf("topic %s does not exist: restore it first", cfg.Topic(name))
		}
		if id := idText(d.ID); id != made.ID {
			lines = append(lines, fmt.Sprintf("topic %s: %d partitions, id %s instead of %s", d.Topic,
				made.Partitions, id, made.ID))
			former := append(slices.Clone(made.Former), made.ID)
			adopted.Topics[name] = topic.Installed{ID: id, Partitions: made.Partitions, Former: former}
		}
	}
	if len(lines) == 0 {
		return nil, nil
	}
	if err := errors.Join(checkAllGroups(ctx, adm, cfg, install), checkChangelog(ctx, adm, cfg)); err != nil {
		return nil, fmt.Errorf("the topics are not adopted: %w", err)
	}
	if !yes {
		return lines, nil
	}
	return lines, writeInstall(ctx, cl, cfg, adopted)
}
