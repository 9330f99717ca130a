package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// LogOffsets are the offsets of one partition's log, as its leader lists them.
type LogOffsets struct {
	Start  int64 // of the first record that is kept
	Stable int64 // last stable offset: what lies below is committed or aborted
	End    int64 // high watermark: behind the last record

	err error
}

// Offsets are the offsets of all partitions of some topics.
type Offsets struct {
	topics map[string]map[int32]LogOffsets
	err    error // of a listing that was answered in part
}

// ListOffsets lists where the logs of topics begin and end, in three requests: start,
// last stable offset, end. The error is of a request that was not answered at all. What
// a single partition lacks is an error of that partition, so that it holds up only
// itself: see Of and Error.
func ListOffsets(ctx context.Context, adm *kadm.Client, topics ...string) (Offsets, error) {
	out := Offsets{topics: make(map[string]map[int32]LogOffsets)}
	starts, err := out.listed(adm.ListStartOffsets(ctx, topics...))
	if err != nil {
		return out, fmt.Errorf("listing start offsets: %w", err)
	}
	stable, err := out.listed(adm.ListCommittedOffsets(ctx, topics...))
	if err != nil {
		return out, fmt.Errorf("listing stable offsets: %w", err)
	}
	ends, err := out.listed(adm.ListEndOffsets(ctx, topics...))
	if err != nil {
		return out, fmt.Errorf("listing end offsets: %w", err)
	}
	ends.Each(func(end kadm.ListedOffset) {
		start, ok := starts.Lookup(end.Topic, end.Partition)
		last, ok2 := stable.Lookup(end.Topic, end.Partition)
		at := LogOffsets{Start: start.Offset, Stable: last.Offset, End: end.Offset}
		at.err = errors.Join(start.Err, last.Err, end.Err)
		if at.err == nil && (!ok || !ok2) {
			at.err = errNoAnswer
		}
		if out.topics[end.Topic] == nil {
			out.topics[end.Topic] = make(map[int32]LogOffsets)
		}
		out.topics[end.Topic][end.Partition] = at
	})
	return out, nil
}

var errNoAnswer = errors.New("no broker lists it")

// listed keeps the error of a listing that was answered in part, and returns that of
// one that was not answered.
func (o *Offsets) listed(list kadm.ListedOffsets, err error) (kadm.ListedOffsets, error) {
	if err != nil && len(list) == 0 {
		return nil, err
	}
	o.err = errors.Join(o.err, err)
	return list, nil
}

// Of returns the offsets of one partition. The error names it.
func (o Offsets) Of(topic string, partition int32) (LogOffsets, error) {
	at, ok := o.topics[topic][partition]
	if !ok {
		// An unknown topic is listed as partition -1 with an error.
		if at.err = errors.Join(o.topics[topic][-1].err, o.err); at.err == nil {
			at.err = errNoAnswer
		}
	}
	if at.err != nil {
		return LogOffsets{}, fmt.Errorf("listing the offsets of %s partition %d: %w", topic, partition, at.err)
	}
	return at, nil
}

// Partitions returns the offsets of the partitions of a topic that were listed without
// an error.
func (o Offsets) Partitions(topic string) map[int32]LogOffsets {
	found := make(map[int32]LogOffsets)
	for id, at := range o.topics[topic] {
		if at.err == nil {
			found[id] = at
		}
	}
	return found
}

// Error returns an error if any partition, or a topic, could not be listed.
func (o Offsets) Error() error {
	for topic, partitions := range o.topics {
		for id, at := range partitions {
			if at.err != nil {
				return fmt.Errorf("listing the offsets of %s partition %d: %w", topic, id, at.err)
			}
		}
	}
	return o.err
}

// ListRangesSince returns for each partition of a topic the range from the last record
// before a time to the end of the log: all that was written since, and one record to
// show that it is all. A partition that cannot be listed is left out of the ranges and
// reported in the error.
func ListRangesSince(ctx context.Context, adm *kadm.Client, topic string, since time.Time) ([]Range, error) {
	offsets, err := ListOffsets(ctx, adm, topic)
	if err != nil {
		return nil, fmt.Errorf("listing the offsets of %s: %w", topic, err)
	}
	after, err := adm.ListOffsetsAfterMilli(ctx, max(since.UnixMilli(), 0), topic)
	if err != nil && len(after) == 0 {
		return nil, fmt.Errorf("listing the offsets of %s since %s: %w", topic, since.UTC().Format(time.RFC3339), err)
	}
	failed := errors.Join(err, offsets.Error())
	var ranges []Range
	for id, at := range offsets.Partitions(topic) {
		first, ok := after.Lookup(topic, id)
		if !ok || first.Err != nil {
			failed = errors.Join(failed, fmt.Errorf("listing the offsets of %s partition %d since %s: %w", topic, id,
				since.UTC().Format(time.RFC3339), errors.Join(first.Err, errNoAnswer)))
			continue
		}
		ranges = append(ranges, Range{
			Topic:     topic,
			Partition: id,
			From:      max(first.Offset-1, at.Start),
			To:        at.End,
		})
	}
	if len(ranges) == 0 && failed == nil {
		failed = fmt.Errorf("listing the offsets of %s: the topic does not exist, or may not be seen", topic)
	}
	return ranges, failed
}
