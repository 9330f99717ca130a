package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Range is a part of one partition's log: the offsets [From, To).
type Range struct {
	Topic     string // full name
	Partition int32
	From, To  int64
}

// RangeReader reads ranges of logs with a client of its own.
type RangeReader struct {
	Kafka Config
	Log   *slog.Logger
	// Isolation is what of a transaction is read. With kgo.ReadCommitted, reading waits
	// for a transaction that is still open below To. The zero value reads what was
	// aborted, too.
	Isolation kgo.IsolationLevel
	// Markers hands on control records as well: see kgo.RecordAttrs.IsControl.
	Markers bool
}

// progressInterval is how often a read that takes longer is logged.
const progressInterval = 5 * time.Second

// Each reads all ranges at once and calls do with their records, as they were fetched:
// records of one partition, in order. It returns when every range has been read, or the
// first error: of do as it is, of a refused fetch, or of ctx. Errors that repeating
// cures are retried by the client and not returned.
//
// A range counts as read when its last offset, or one behind it, has been seen. If
// compaction took all records from there on, Each waits for new ones until ctx ends.
func (r RangeReader) Each(ctx context.Context, do func([]*kgo.Record) error, ranges ...Range) error {
	left := make(map[topicPartition]Range)
	from := make(map[string]map[int32]kgo.Offset)
	for _, x := range ranges {
		if x.From >= x.To {
			continue
		}
		left[topicPartition{x.Topic, x.Partition}] = x
		if from[x.Topic] == nil {
			from[x.Topic] = make(map[int32]kgo.Offset)
		}
		from[x.Topic][x.Partition] = kgo.NewOffset().At(x.From)
	}
	if len(left) == 0 {
		return nil
	}
	cl, err := NewClient(r.Kafka, r.Log, nil,
		kgo.ConsumePartitions(from),
		// An offset that the log no longer has is an error, not a reason to skip
		// records.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(r.Isolation),
		// Only markers show that an aborted end has been passed.
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	began := time.Now()
	loggedAt := began
	read := 0
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("reading %s: %w", describeRanges(left), context.Cause(ctx))
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("reading %s: %w", describeRanges(left), err)
		}
		if err := r.handOver(fetches, left, do); err != nil {
			return err
		}
		read += fetches.NumRecords()
		if time.Since(loggedAt) > progressInterval {
			loggedAt = time.Now()
			r.Log.Info("still reading", "ranges", describeRanges(left), "records", read,
				"per_second", int64(float64(read)/time.Since(began).Seconds()))
		}
	}
	return nil
}

type topicPartition struct {
	topic     string
	partition int32
}

// handOver calls do with what was fetched of the ranges in left. It moves their From
// forward, and removes those that have been read.
func (r RangeReader) handOver(fetches kgo.Fetches, left map[topicPartition]Range,
	do func([]*kgo.Record) error) (err error) {
	fetches.EachPartition(func(fetched kgo.FetchTopicPartition) {
		at := topicPartition{fetched.Topic, fetched.Partition}
		x, ok := left[at]
		if err != nil || !ok || len(fetched.Records) == 0 {
			return
		}
		x.From = fetched.Records[len(fetched.Records)-1].Offset + 1
		if wanted := r.selectRecords(fetched.Records, x.To); len(wanted) > 0 {
			err = do(wanted)
		}
		left[at] = x
		if x.From >= x.To {
			delete(left, at)
		}
	})
	return err
}

// selectRecords returns the records below an offset, without markers unless they are
// asked for.
func (r RangeReader) selectRecords(records []*kgo.Record, below int64) []*kgo.Record {
	wanted := records[:0]
	for _, record := range records {
		if record.Offset < below && (r.Markers || !record.Attrs.IsControl()) {
			wanted = append(wanted, record)
		}
	}
	return wanted
}

// describeRanges names one of the ranges, and says how many others there are.
func describeRanges(left map[topicPartition]Range) string {
	for _, x := range left {
		text := fmt.Sprintf("%s partition %d, offsets [%d, %d)", x.Topic, x.Partition, x.From, x.To)
		if more := len(left) - 1; more > 0 {
			text += fmt.Sprintf(" and %d more partitions", more)
		}
		return text
	}
	return "nothing"
}

// ReadAll returns the committed records of a topic from its start to the last stable
// offset at the call, in order within each partition. It holds them in memory: it is
// for the catalog, for tools and for checks.
func ReadAll(ctx context.Context, cfg Config, log *slog.Logger, topic string) ([]*kgo.Record, error) {
	cl, err := NewClient(cfg, log, nil)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	offsets, err := ListOffsets(ctx, kadm.NewClient(cl), topic)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("reading all of %s: %w", topic, err)
	}
	var ranges []Range
	for id, at := range offsets.Partitions(topic) {
		ranges = append(ranges, Range{Topic: topic, Partition: id, From: at.Start, To: at.Stable})
	}
	var all []*kgo.Record
	reader := RangeReader{Kafka: cfg, Log: log, Isolation: kgo.ReadCommitted()}
	err = reader.Each(ctx, func(records []*kgo.Record) error {
		all = append(all, records...)
		return nil
	}, ranges...)
	if err != nil {
		return nil, fmt.Errorf("reading all of %s: %w", topic, err)
	}
	return all, nil
}
