package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// idSample is how many offsets are read at the beginning and at the end of a partition.
const idSample = 200

// carriedID is a schema id that records of a topic carry, as far as a sample shows.
type carriedID struct {
	topic   string // without prefix
	id      uint32
	records int
	broken  int   // of them: what the id's schema cannot read
	example error // of a broken one
	first   kafka.RecordPos
}

// checkCarriedIDs reads which schema ids the topics' records carry, at the beginning and
// at the end of each partition. It says what they mean, and returns an error for each that
// the ids do not have, have for another record, or whose records it cannot read, unless
// these are strays.
func checkCarriedIDs(ctx context.Context, c *call, cfg kafka.Config, file string) error {
	ids, where, err := readIDs(file)
	if err != nil {
		return err
	}
	codec, err := event.NewCodec(ids)
	if err != nil {
		return fmt.Errorf("-schema-ids %s: %w", file, err)
	}
	carried, err := sampleIDs(ctx, c.log, cfg, codec)
	if err != nil {
		return err
	}
	lines, err := judgeCarriedIDs(carried, ids, where)
	for _, line := range lines {
		c.say("%s", line)
	}
	return err
}

// maxStrays is up to how many records of an id are strays: what was written by hand, or
// from a test. They are dead letters, and no reason to stop an upgrade. An id that was in
// use has more.
const maxStrays = 3

// judgeCarriedIDs says what the carried ids mean. The error is of those that are not what
// where, the name of the ids, says.
func judgeCarriedIDs(carried []carriedID, ids []event.ID, where string) (lines []string, err error) {
	meaning := make(map[uint32]event.ID, len(ids))
	for _, id := range ids {
		meaning[id.ID] = id
	}
	readable := make(map[string]int) // records of each topic
	for _, x := range carried {
		readable[x.topic] += x.records - x.broken
	}
	var problems []error
	for _, x := range carried {
		means := meaning[x.id]
		problem := x.checkMeaning(means, where)
		switch {
		case problem == nil:
			lines = append(lines, fmt.Sprintf("%s: %s version %d", x.String(), means.Record, means.Version))
		case x.records <= maxStrays && readable[x.topic] > x.records:
			lines = append(lines, fmt.Sprintf("%v. They are taken for strays, as %d others there can be read: each is "+
				"a dead letter%s", problem, readable[x.topic], x.strayWarning()))
		default:
			problems = append(problems, problem)
		}
	}
	return lines, errors.Join(problems...)
}

func (x *carriedID) String() string {
	return fmt.Sprintf("%s carries schema id %d (%d records of the sample, first in partition %d at offset %d)",
		x.topic, x.id, x.records, x.first.Partition, x.first.Offset)
}

// strayWarning says what else a stray does. Without a click whose schema is unknown its
// events would be judged wrongly, so the processor stops at them.
func (x *carriedID) strayWarning() string {
	if x.topic == topic.Clicks && errors.Is(x.example, event.ErrUnknownSchema) {
		return ", and a processor stops at an event of such a click until its token is given up"
	}
	return ""
}

// checkMeaning reports what is wrong with an id that means this, or nothing: a zero ID.
func (x *carriedID) checkMeaning(means event.ID, where string) error {
	wanted := ""
	for record, name := range topicsBySchema() {
		if name == x.topic {
			wanted = record
		}
	}
	switch {
	case means.Record == "" && where == builtInIDs:
		return fmt.Errorf("%s, which is not in %s: their records cannot be read. If the daemons have a file of "+
			"-schema-ids, give it to this command, too: -schema-ids FILE. See schemas/README.md", x, where)
	case means.Record == "" && slices.ContainsFunc(event.DefaultIDs(), func(id event.ID) bool { return id.ID == x.id }):
		return fmt.Errorf("%s, which is not in %s: it is a built-in id, which earlier releases cannot read with this "+
			"file. Put it into the file by `ctl topics apply -schema-registry URL -schema-ids FILE`: see "+
			"schemas/README.md", x, where)
	case means.Record == "":
		return fmt.Errorf("%s, which is not in %s: their records cannot be read. Put the id back into the file of "+
			"-schema-ids, before the newer ones: see schemas/README.md", x, where)
	case means.Record != wanted:
		return fmt.Errorf("%s, which %s says is %s version %d: the id means two records. See schemas/README.md",
			x, where, means.Record, means.Version)
	case x.broken == x.records: // single ones are dead letters
		return fmt.Errorf("%s, and %d of them are no %s version %d as %s says: %w", x, x.broken, means.Record,
			means.Version, where, x.example)
	}
	return nil
}

// builtInIDs is what the ids are called if there is no file.
const builtInIDs = "the built-in ids"

// readIDs returns the ids of a file, or the built-in ones, and what to call them.
func readIDs(file string) (ids []event.ID, where string, err error) {
	if file == "" {
		return event.DefaultIDs(), builtInIDs, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, "", fmt.Errorf("-schema-ids: %w", err)
	}
	if ids, err = event.ParseIDs(text); err != nil {
		return nil, "", fmt.Errorf("-schema-ids %s: %w", file, err)
	}
	return ids, file, nil
}

// maxSamples is how often a sample is begun: the beginning of a partition may be deleted
// before it is read.
const maxSamples = 5

// sampleIDs reads the beginning and the end of each partition whose records have schema
// ids. Records in no framing are dead letters already, and left out.
func sampleIDs(ctx context.Context, log *slog.Logger, cfg kafka.Config, codec *event.Codec) ([]carriedID, error) {
	cl, err := kafka.NewClient(cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var carried []carriedID
	for range maxSamples {
		carried, err = sampleOnce(ctx, log, cfg, kadm.NewClient(cl), codec)
		if !errors.Is(err, kerr.OffsetOutOfRange) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading which schema ids the topics carry: %w", err)
	}
	return carried, nil
}

func sampleOnce(ctx context.Context, log *slog.Logger, cfg kafka.Config, adm *kadm.Client, codec *event.Codec) (
	[]carriedID, error) {
	var names []string
	for _, name := range topicsBySchema() {
		names = append(names, cfg.Topic(name))
	}
	offsets, err := kafka.ListOffsets(ctx, adm, names...)
	if err = errors.Join(err, offsets.Error()); err != nil {
		return nil, err
	}
	var heads, tails []kafka.Range
	for _, name := range names {
		for id, at := range offsets.Partitions(name) {
			split := min(at.Start+idSample, at.Stable)
			heads = append(heads, kafka.Range{Topic: name, Partition: id, From: at.Start, To: split})
			tails = append(tails, kafka.Range{Topic: name, Partition: id, From: max(at.Stable-idSample, split),
				To: at.Stable})
		}
	}
	found := make(map[string]*carriedID)
	note := func(records []*kgo.Record) error {
		for _, r := range records {
			noteID(found, strings.TrimPrefix(r.Topic, cfg.TopicPrefix), r, codec)
		}
		return nil
	}
	reader := kafka.RangeReader{Kafka: cfg, Log: log, Isolation: kgo.ReadCommitted()}
	if err := reader.Each(ctx, note, heads...); err != nil {
		return nil, err
	}
	if err := reader.Each(ctx, note, tails...); err != nil {
		return nil, err
	}
	var carried []carriedID
	for _, x := range slices.SortedFunc(maps.Values(found), func(a, b *carriedID) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.id, b.id))
	}) {
		carried = append(carried, *x)
	}
	return carried, nil
}

func noteID(found map[string]*carriedID, name string, r *kgo.Record, codec *event.Codec) {
	if len(r.Value) < event.FramingLen || r.Value[0] != 0 {
		return
	}
	id := binary.BigEndian.Uint32(r.Value[1:])
	key := fmt.Sprint(name, "/", id)
	x := found[key]
	if x == nil {
		x = &carriedID{topic: name, id: id, first: kafka.RecordPos{Partition: r.Partition, Offset: r.Offset}}
		found[key] = x
	}
	x.records++
	if _, _, err := codec.Text(r.Value); err != nil {
		x.broken++
		x.example = err
	}
}
