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
	"github.com/twmb/franz-go/pkg/kadm"
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
// the ids do not have, have for another record, or whose records it cannot read.
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
	meaning := make(map[uint32]event.ID, len(ids))
	for _, id := range ids {
		meaning[id.ID] = id
	}
	records := make(map[string]string) // the record of each topic
	for record, name := range topicsBySchema() {
		records[name] = record
	}
	var problems []error
	for _, x := range carried {
		means, known := meaning[x.id]
		at := fmt.Sprintf("%s carries schema id %d (%d records of the sample, first in partition %d at offset %d)",
			x.topic, x.id, x.records, x.first.Partition, x.first.Offset)
		switch {
		case !known:
			problems = append(problems, fmt.Errorf("%s, which is not in %s: their records cannot be read. Put the id "+
				"back into the file of -schema-ids, before the newer ones: see schemas/README.md", at, where))
		case means.Record != records[x.topic]:
			problems = append(problems, fmt.Errorf("%s, which %s says is %s version %d: the id means two records. See "+
				"schemas/README.md", at, where, means.Record, means.Version))
		case x.broken == x.records: // single ones are dead letters
			problems = append(problems, fmt.Errorf("%s, and %d of them are no %s version %d as %s says: %w", at,
				x.broken, means.Record, means.Version, where, x.example))
		default:
			c.say("%s: %s version %d", at, means.Record, means.Version)
		}
	}
	return errors.Join(problems...)
}

// readIDs returns the ids of a file, or the built-in ones, and what to call them.
func readIDs(file string) (ids []event.ID, where string, err error) {
	if file == "" {
		return event.DefaultIDs(), "the built-in ids", nil
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

// sampleIDs reads the beginning and the end of each partition whose records have schema
// ids. Records in no framing are dead letters already, and left out.
func sampleIDs(ctx context.Context, log *slog.Logger, cfg kafka.Config, codec *event.Codec) ([]carriedID, error) {
	cl, err := kafka.NewClient(cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var names []string
	for _, name := range topicsBySchema() {
		names = append(names, cfg.Topic(name))
	}
	offsets, err := kafka.ListOffsets(ctx, kadm.NewClient(cl), names...)
	if err = errors.Join(err, offsets.Error()); err != nil {
		return nil, fmt.Errorf("reading which schema ids the topics carry: %w", err)
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
		return nil, fmt.Errorf("reading which schema ids the topics carry: %w", err)
	}
	if err := reader.Each(ctx, note, tails...); err != nil {
		return nil, fmt.Errorf("reading which schema ids the topics carry: %w", err)
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
