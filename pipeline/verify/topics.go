package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// OpenTopics makes the source of an installation's topics. What is verified is the state
// that the newest Progress of each partition tells of: what processors do meanwhile is
// not seen.
func OpenTopics(ctx context.Context, cfg kafka.Config, codec *event.Codec, log *slog.Logger) (*Source, error) {
	s := &topicSource{kafka: cfg, log: log}
	s.reader = kafka.RangeReader{Kafka: cfg, Log: log, Isolation: kgo.ReadCommitted()}
	var err error
	if s.install, err = kafka.FollowInstall(cfg, log); err != nil {
		return nil, err
	}
	defer s.install.Close() // what it has read stays
	if err := s.install.Await(ctx, time.Now()); err != nil {
		return nil, err
	}
	partitions, err := s.readProgress(ctx, codec)
	if err != nil {
		return nil, err
	}
	source := &Source{Each: s.eachRecord}
	if err := s.limitToLogs(ctx, partitions, source); err != nil {
		return nil, err
	}
	s.partitions = partitions
	for _, id := range slices.Sorted(maps.Keys(partitions)) {
		partitions[id].IsGivenUp = s.install.IsGivenUp
		source.Partitions = append(source.Partitions, *partitions[id])
	}
	return source, nil
}

type topicSource struct {
	kafka      kafka.Config
	log        *slog.Logger
	reader     kafka.RangeReader
	install    *kafka.InstallFollower
	partitions map[int32]*Partition
}

// listOffsets lists where the logs of topics begin and end, by the names without
// prefix.
func (s *topicSource) listOffsets(ctx context.Context, names ...string) (kafka.Offsets, error) {
	cl, err := kafka.NewClient(s.kafka, s.log, nil)
	if err != nil {
		return kafka.Offsets{}, err
	}
	defer cl.Close()
	for i := range names {
		names[i] = s.kafka.Topic(names[i])
	}
	offsets, err := kafka.ListOffsets(ctx, kadm.NewClient(cl), names...)
	return offsets, errors.Join(err, offsets.Error())
}

// readProgress reads all of progress: the newest record of each partition, and the
// times that any of them named.
func (s *topicSource) readProgress(ctx context.Context, codec *event.Codec) (map[int32]*Partition, error) {
	offsets, err := s.listOffsets(ctx, topic.Progress)
	if err != nil {
		return nil, err
	}
	name := s.kafka.Topic(topic.Progress)
	var ranges []kafka.Range
	for id, at := range offsets.Partitions(name) {
		ranges = append(ranges, kafka.Range{Topic: name, Partition: id, From: at.Start, To: at.Stable})
	}
	partitions := make(map[int32]*Partition)
	err = s.reader.Each(ctx, func(records []*kgo.Record) error {
		for _, r := range records {
			var p event.Progress
			if err := codec.DecodeProgress(r.Value, &p); err != nil {
				return fmt.Errorf("reading %s partition %d offset %d: %w", name, r.Partition, r.Offset, err)
			}
			notePosition(partitions, &p)
		}
		return nil
	}, ranges...)
	return partitions, err
}

func notePosition(partitions map[int32]*Partition, p *event.Progress) {
	at := partitions[p.Partition]
	if at == nil {
		at = &Partition{ID: p.Partition}
		partitions[p.Partition] = at
	}
	at.Watermark = p.Watermark
	at.Clicks.End = p.ClicksPosition
	at.Conversions.End = p.ConversionsPosition
	at.Outcomes.End = p.OutcomesEnd
	at.Times = mergeTimes(at.Times, Times{
		GraceMs:       p.GraceMs,
		ClickLifeMs:   p.ClickLifeMs,
		JourneyLifeMs: p.JourneyLifeMs,
		First:         p.ConversionsPosition,
		Last:          p.ConversionsPosition,
		LastOutcomes:  p.OutcomesEnd,
	})
}

// limitToLogs sets where the logs begin, and when what is left of them does. It counts
// what is in the logs and not verified.
func (s *topicSource) limitToLogs(ctx context.Context, partitions map[int32]*Partition, source *Source) error {
	offsets, err := s.listOffsets(ctx, topic.Clicks, topic.Conversions, topic.Outcomes)
	if err != nil {
		return err
	}
	for id, at := range offsets.Partitions(s.kafka.Topic(topic.Conversions)) {
		judged := at.Start
		if p := partitions[id]; p != nil {
			judged = max(judged, p.Conversions.End)
		}
		source.Unjudged += max(at.End-judged, 0)
	}
	for id, at := range offsets.Partitions(s.kafka.Topic(topic.Outcomes)) {
		if partitions[id] == nil {
			source.Unread += max(at.End-at.Start, 0)
		}
	}
	for _, p := range partitions {
		for name, extent := range p.extents() {
			at, err := offsets.Of(s.kafka.Topic(name), p.ID)
			if err != nil {
				return err
			}
			if extent.End > at.End {
				return fmt.Errorf("progress says that %s partition %d is processed up to offset %d, and it ends at "+
					"%d: the topic was recreated or has lost records", s.kafka.Topic(name), p.ID, extent.End, at.End)
			}
			extent.Start = min(at.Start, extent.End)
			if extent.Start > 0 {
				if extent.FirstAt, err = s.readFirstTime(ctx, name, p.ID, *extent); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// extents are the extents by topic.
func (p *Partition) extents() map[string]*Extent {
	return map[string]*Extent{
		topic.Clicks:      &p.Clicks,
		topic.Conversions: &p.Conversions,
		topic.Outcomes:    &p.Outcomes,
	}
}

// errFound ends a read that has found what it looks for.
var errFound = errors.New("found")

// readFirstTime returns the timestamp of the first record that is left. Of a log of
// which nothing is left, everything may be missing.
func (s *topicSource) readFirstTime(ctx context.Context, name string, partition int32, x Extent) (
	first event.Millis, err error) {
	first = event.Millis(1<<63 - 1)
	err = s.reader.Each(ctx, func(records []*kgo.Record) error {
		first = event.MillisOf(records[0].Timestamp)
		return errFound
	}, kafka.Range{Topic: s.kafka.Topic(name), Partition: partition, From: x.Start, To: x.End})
	if errors.Is(err, errFound) {
		err = nil
	}
	return first, err
}

// isDeadLetter reports whether the processor has sent an event to the dead letters for
// its place.
func (s *topicSource) isDeadLetter(name string, r *kgo.Record) bool {
	raw, err := token.Parse(string(r.Key))
	return name == topic.Conversions && err == nil &&
		s.install.Binding().IsMisplaced(r.Partition, r.Timestamp, string(r.Key), token.Time(&raw))
}

func (s *topicSource) eachRecord(ctx context.Context, name string, partition int32, do func(*Record) error) error {
	extent := s.partitions[partition].extents()[name]
	var record Record
	return s.reader.Each(ctx, func(records []*kgo.Record) error {
		for _, r := range records {
			if s.isDeadLetter(name, r) {
				continue
			}
			record = Record{
				Offset: r.Offset,
				At:     event.MillisOf(r.Timestamp),
				Key:    r.Key,
				Value:  r.Value,
			}
			if name == topic.Clicks {
				shown, _ := kafka.Header(r, topic.HeaderToken)
				record.Shown = shown == "1"
				_, record.Replay = kafka.Header(r, topic.HeaderReplay)
			}
			if err := do(&record); err != nil {
				return err
			}
		}
		return nil
	}, kafka.Range{Topic: s.kafka.Topic(name), Partition: partition, From: extent.Start, To: extent.End})
}
