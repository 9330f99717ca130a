package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// deadLetterFlags are the flags of the three commands.
type deadLetterFlags struct {
	kafka      kafka.Config
	schemaIDs  string            // file with the registry's schema ids; empty: built-in ids
	force      bool              // replay: send also what this program cannot read
	clickhouse clickhouse.Config // replay: where to look for rows of dead letters
}

func deadLetterCommands() []command {
	define := func(fs *flag.FlagSet) *deadLetterFlags {
		l := &deadLetterFlags{kafka: kafka.DefaultConfig()}
		l.kafka.ClientID = "partners-ctl"
		daemon.KafkaFlags(fs, &l.kafka)
		daemon.SchemaIDsFlag(fs, &l.schemaIDs)
		return l
	}
	return []command{
		{"dead-letters list", "", "lists the records that could not be read, and where they came from",
			func(fs *flag.FlagSet) func(context.Context, *call) error {
				return define(fs).listDeadLetters
			}},
		{"dead-letters show", "OFFSET…", "prints dead letters with key, headers and all bytes of the value",
			func(fs *flag.FlagSet) func(context.Context, *call) error {
				return define(fs).showDeadLetters
			}},
		{"dead-letters replay", "OFFSET…",
			"sends dead letters again to the partition that they came from, or to that of their token if they were " +
				"misplaced; each becomes a new record there",
			func(fs *flag.FlagSet) func(context.Context, *call) error {
				f := define(fs)
				fs.BoolVar(&f.force, "force", false, "send also what this program cannot read: it comes back as a "+
					"dead letter unless the daemons are newer")
				fs.StringVar(&f.clickhouse.DSN, "clickhouse", "", "`DSN` of the warehouse; required for dead letters "+
					"of outcomes and rejections, which would count twice if they were there already")
				daemon.ClickHouseCAFlag(fs, &f.clickhouse)
				return f.replayDeadLetters
			}},
	}
}

// readDeadLetters returns the dead letters with the given offsets, in that order, or
// all if none is given, and the codec that may read their records now.
func (f *deadLetterFlags) readDeadLetters(ctx context.Context, offsets []string) (*event.Codec, []kafka.DeadLetter,
	error) {
	codec, err := daemon.Codec(f.schemaIDs)
	if err != nil {
		return nil, nil, usageError{err}
	}
	var want []int64
	for _, text := range offsets {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return nil, nil, usagef("%q is not the offset of a dead letter", text)
		}
		want = append(want, n)
	}
	var letters []kafka.DeadLetter
	err = withBrokers(ctx, f.kafka, func(ctx context.Context) error {
		name := f.kafka.Topic(topic.DeadLetters)
		records, err := kafka.ReadAll(ctx, f.kafka, slog.New(slog.DiscardHandler), name)
		if err != nil {
			return err
		}
		if len(want) == 0 {
			for _, r := range records {
				want = append(want, r.Offset)
			}
		}
		for _, offset := range want {
			i := slices.IndexFunc(records, func(r *kgo.Record) bool { return r.Offset == offset })
			if i < 0 {
				return fmt.Errorf("%s has no letter at offset %d: `ctl dead-letters list` shows what is there",
					name, offset)
			}
			l, err := kafka.ParseDeadLetter(records[i])
			if err != nil {
				return err
			}
			letters = append(letters, l)
		}
		return nil
	})
	return codec, letters, err
}

func (f *deadLetterFlags) listDeadLetters(ctx context.Context, c *call) error {
	codec, letters, err := f.readDeadLetters(ctx, nil)
	if err != nil {
		return err
	}
	if len(letters) == 0 {
		c.say("no dead letters")
		return nil
	}
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"Offset", "Failed at", "Source", "Bytes", "Error", "Now"})
	for _, l := range letters {
		now := "readable"
		if _, err := f.describeRecord(codec, l); err != nil {
			now = "unreadable"
		}
		source := fmt.Sprintf("%s %d/%d", l.Source.Topic, l.Source.Partition, l.Source.Offset)
		t.AppendRow(table.Row{l.Offset, l.FailedAt, source, len(l.Record.Value), fmt.Sprintf("%.120s", l.Error), now})
	}
	c.say("%s", t.Render())
	return nil
}

func (f *deadLetterFlags) showDeadLetters(ctx context.Context, c *call) error {
	if len(c.args) == 0 {
		return usagef("which one? give the OFFSET of a letter")
	}
	codec, letters, err := f.readDeadLetters(ctx, c.args)
	if err != nil {
		return err
	}
	for _, l := range letters {
		c.say("letter     %d", l.Offset)
		c.say("source     %s partition %d offset %d", l.Source.Topic, l.Source.Partition, l.Source.Offset)
		c.say("failed at  %s", l.FailedAt)
		c.say("error      %s", l.Error)
		for _, h := range l.Record.Headers {
			c.say("header     %q = %q", h.Key, h.Value)
		}
		c.say("key        %q", l.Record.Key)
		c.say("value      %d bytes\n%s", len(l.Record.Value), strings.TrimSuffix(hex.Dump(l.Record.Value), "\n"))
		text, err := f.describeRecord(codec, l)
		if err != nil {
			text = "unreadable: " + err.Error()
		}
		c.say("now        %s", replaceControls(text))
	}
	return nil
}

func (f *deadLetterFlags) replayDeadLetters(ctx context.Context, c *call) error {
	if len(c.args) == 0 {
		return usagef("which one? give the OFFSET of a letter")
	}
	codec, letters, err := f.readDeadLetters(ctx, c.args)
	if err != nil {
		return err
	}
	for i, l := range letters { // check all of them before one is sent
		if err := f.checkReplayable(codec, l); err != nil {
			return err
		}
		sameSource := func(o kafka.DeadLetter) bool { return o.Source == l.Source }
		if twin := slices.IndexFunc(letters[:i], sameSource); twin >= 0 {
			return fmt.Errorf("letters %d and %d hold the same record: send one of them",
				letters[twin].Offset, l.Offset)
		}
	}
	wh, err := f.openWarehouse(ctx, letters)
	if err != nil {
		return err
	}
	if wh != nil {
		defer wh.Close()
	}
	return withBrokers(ctx, f.kafka, func(ctx context.Context) error {
		cl, err := kafka.NewClient(f.kafka, c.log, nil)
		if err != nil {
			return err
		}
		defer cl.Close()
		for _, l := range letters {
			if f.becomesRow(l) {
				if err := f.checkNotInTable(ctx, cl, wh, l); err != nil {
					return err
				}
			}
		}
		recorded, err := kafka.ReadRecorded(ctx, f.kafka, c.log, nil)
		if err == nil {
			err = kafka.CheckPartitions(ctx, cl, f.kafka, recorded, topic.Clicks, topic.Conversions)
		}
		if err != nil {
			return err
		}
		for _, l := range letters {
			r := l.Record
			if strings.HasPrefix(l.Error, kafka.ErrMisplaced.Error()) {
				placeRecord(recorded.Install, r)
			}
			_, isReplay := kafka.Header(r, topic.HeaderReplay)
			if r.Topic == f.kafka.Topic(topic.Clicks) && !isReplay {
				// The processor does not decode clicks and may have kept this one.
				r.Headers = append(slices.Clone(r.Headers), kgo.RecordHeader{Key: topic.HeaderReplay})
			}
			if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
				return fmt.Errorf("sending letter %d to %s partition %d: %w", l.Offset, r.Topic, r.Partition, err)
			}
			c.say("letter %d is now %s partition %d offset %d", l.Offset, r.Topic, r.Partition, r.Offset)
		}
		return nil
	})
}

// placeRecord addresses a click or an event to the partition of its token.
func placeRecord(install *topic.Install, r *kgo.Record) {
	if raw, err := token.Parse(string(r.Key)); err == nil && install != nil {
		r.Partition = install.Epochs.Partition(string(r.Key), token.Time(&raw))
	}
}

// checkReplayable returns an error that says why a dead letter cannot be sent again.
func (f *deadLetterFlags) checkReplayable(codec *event.Codec, l kafka.DeadLetter) error {
	switch l.Source.Topic {
	case f.kafka.Topic(topic.Clicks), f.kafka.Topic(topic.Conversions), f.kafka.Topic(topic.Outcomes),
		f.kafka.Topic(topic.Rejections):
	default:
		return fmt.Errorf("letter %d comes from %s, where a newer record has taken its place", l.Offset, l.Source.Topic)
	}
	if l.Truncated {
		return fmt.Errorf("letter %d holds only a part of its record: %s", l.Offset, l.Error)
	}
	if _, err := f.describeRecord(codec, l); err != nil && !f.force {
		return fmt.Errorf("letter %d would come back: %w (-force sends it all the same)", l.Offset, err)
	}
	return nil
}

// becomesRow reports whether each record of a dead letter's topic becomes a row that
// counts. Conversions and clicks do not: the processor recognises the former, the sink
// the latter, if they had them before.
func (f *deadLetterFlags) becomesRow(l kafka.DeadLetter) bool {
	return l.Source.Topic == f.kafka.Topic(topic.Outcomes) || l.Source.Topic == f.kafka.Topic(topic.Rejections)
}

// openWarehouse connects to ClickHouse if a dead letter has to be looked up there, else
// it returns nil.
func (f *deadLetterFlags) openWarehouse(ctx context.Context, letters []kafka.DeadLetter) (*clickhouse.Conn, error) {
	i := slices.IndexFunc(letters, f.becomesRow)
	if i < 0 {
		return nil, nil
	}
	if f.clickhouse.DSN == "" {
		return nil, usagef("-clickhouse is required: letter %d comes from %s, and must not be in the table yet",
			letters[i].Offset, letters[i].Source.Topic)
	}
	if err := checkDSN(f.clickhouse); err != nil {
		return nil, err
	}
	return clickhouse.Open(ctx, f.clickhouse, slog.New(slog.DiscardHandler))
}

// checkNotInTable returns an error if a record must not be sent again: its row is in
// the table, may still come, or the record was sent before. Two replays at the same
// moment do not see each other.
func (f *deadLetterFlags) checkNotInTable(ctx context.Context, cl *kgo.Client, wh *clickhouse.Conn,
	l kafka.DeadLetter) error {
	name := l.Source.Topic
	partition := l.Source.Partition
	table := strings.TrimPrefix(name, f.kafka.TopicPrefix)
	var found []struct {
		Finished uint64 `ch:"finished"`
		Rows     uint64 `ch:"rows"`
	}
	err := wh.Select(ctx, &found, `
		SELECT
			(
				SELECT count()
				FROM batches
				WHERE topic = {topic:String}
					AND partition = {partition:UInt32}
					AND start_offset <= {offset:UInt64}
					AND end_offset > {offset:UInt64}
			) AS finished,
			(
				SELECT count()
				FROM `+table+`
				WHERE src_partition = {partition:UInt32}
					AND src_offset = {offset:UInt64}
			) AS rows`,
		clickhouse.Named("topic", table),
		clickhouse.Named("partition", partition),
		clickhouse.Named("offset", l.Source.Offset))
	if err != nil {
		return fmt.Errorf("looking for letter %d in table %s: %w", l.Offset, table, err)
	}
	if found[0].Rows > 0 {
		return fmt.Errorf("letter %d is in table %s already: a sink that can read it has inserted it", l.Offset, table)
	}
	if found[0].Finished == 0 { // a newer sink could repeat the batch, and read the record
		return fmt.Errorf("letter %d is of a batch that the sink has not finished: start the sink, and try again",
			l.Offset)
	}
	at, err := readLogOffsets(ctx, cl, name, partition)
	if err != nil {
		return fmt.Errorf("looking for letter %d in %s: %w", l.Offset, name, err)
	}
	// A replayed record has the same bytes, and is kept at least as long as its letter.
	reader := kafka.RangeReader{Kafka: f.kafka, Log: slog.New(slog.DiscardHandler), Isolation: kgo.ReadCommitted()}
	return reader.Each(ctx, func(records []*kgo.Record) error {
		for _, r := range records {
			if bytes.Equal(r.Key, l.Record.Key) && bytes.Equal(r.Value, l.Record.Value) {
				return fmt.Errorf("letter %d was sent before: it is %s partition %d offset %d",
					l.Offset, name, partition, r.Offset)
			}
		}
		return nil
	}, kafka.Range{
		Topic:     name,
		Partition: partition,
		From:      max(at.Start, l.Source.Offset+1),
		To:        at.End,
	})
}

func readLogOffsets(ctx context.Context, cl *kgo.Client, name string, partition int32) (kafka.LogOffsets, error) {
	offsets, err := kafka.ListOffsets(ctx, kadm.NewClient(cl), name)
	if err != nil {
		return kafka.LogOffsets{}, err
	}
	return offsets.Of(name, partition)
}

// describeRecord returns the record of a dead letter as text, or the reason why this
// program cannot read it either.
func (f *deadLetterFlags) describeRecord(codec *event.Codec, l kafka.DeadLetter) (text string, err error) {
	record, fields, err := codec.Text(l.Record.Value)
	if err != nil {
		return "", err
	}
	switch l.Source.Topic {
	case f.kafka.Topic(topic.Clicks), f.kafka.Topic(topic.Conversions), f.kafka.Topic(topic.Outcomes):
		var key struct { // is the token
			Token string `json:"click_token"`
		}
		if err := json.Unmarshal(fields, &key); err != nil {
			return "", err
		}
		if string(l.Record.Key) != key.Token {
			return "", fmt.Errorf("key %.64q is not the record's click_token", l.Record.Key)
		}
	}
	return record + " " + string(fields), nil
}
