package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Completed is a range of one partition that was made whole and recorded as a finished
// batch.
type Completed struct {
	Topic      string // without prefix
	Partition  int32
	Start, End int64
	// Had and Inserted are rows of the base table: those that were there, and those
	// that were not.
	Had, Inserted int
	// Lost is set instead if the log no longer holds the range: its number of offsets.
	// What of it is in the table stays there.
	Lost int64
}

// CheckIdle returns ErrBusy if the sinks' group has members. A sink that was killed stays
// one until its session times out.
func CheckIdle(ctx context.Context, cfg kafka.Config, log *slog.Logger) error {
	client, err := kafka.NewClient(cfg, log, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	name := cfg.Group(topic.SinkGroup)
	groups, err := kadm.NewClient(client).DescribeGroups(ctx, name)
	if err == nil {
		err = groups.Error()
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("looking for members of group %s: %w", name, err)
	}
	if members := groups[name].Members; len(members) > 0 {
		return fmt.Errorf("%w: group %s has %d members (one is %s): stop the sinks first; one that was killed "+
			"stays a member until its session times out, ten seconds if nothing else is set",
			ErrBusy, name, len(members), members[0].ClientHost)
	}
	return nil
}

// Complete makes the base tables whole wherever an operator is needed because a sink
// does not dare: where a batch is half-done and its token may be forgotten, where a
// batch is missing between others, and where the log no longer reaches back to the end
// of the tables. It reads the records again, inserts those that have no row, and
// records the ranges as finished batches; what Kafka no longer has is recorded as lost.
// Rollups are not to be trusted afterwards: rebuild them. No sink may run meanwhile
// (see Idle). It can be repeated, also when it was broken off. The ranges are reported
// as they are finished.
func Complete(ctx context.Context, cfg Config, k kafka.Config, codec *event.Codec, wh *clickhouse.Conn,
	log *slog.Logger, report func(Completed)) error {
	s, err := New(cfg, k, codec, wh, log, nil)
	if err != nil {
		return err
	}
	if s.client, err = kafka.NewClient(k, log, nil); err != nil {
		return err
	}
	defer s.client.Close()
	if s.topicIDs, s.partitionCounts, err = s.readTopics(ctx); err != nil {
		return fmt.Errorf("completing the tables: %w", err)
	}
	partitions, err := s.readPartitionStates(ctx)
	if err != nil {
		return fmt.Errorf("completing the tables: %w", err)
	}
	for _, t := range partitions {
		if err := s.completePartition(ctx, t, report); err != nil {
			return fmt.Errorf("completing table %s, partition %d of %s: %w", t.mapping.table, t.partition, t.mapping.topic,
				err)
		}
	}
	return nil
}

// readPartitionStates returns the situation of all partitions of all topics.
func (s *Sink) readPartitionStates(ctx context.Context) (out []*partitionClaim, err error) {
	commits, err := kadm.NewClient(s.client).FetchOffsets(ctx, s.kafka.Group(topic.SinkGroup))
	if err != nil {
		return nil, fmt.Errorf("reading the group's commits: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(s.mappings)) {
		for id := range int32(s.partitionCounts[name]) {
			t := &partitionClaim{mapping: s.mappings[name], partition: id, recoveredState: recoveredState{topicID: s.topicIDs[name],
				committed: -1}}
			if c, ok := commits.Lookup(s.kafka.Topic(name), id); ok {
				t.committed = c.At
				if t.intent, err = parseIntent(c.Metadata); err != nil {
					return nil, fmt.Errorf("%s partition %d: %w", name, id, err)
				}
			}
			out = append(out, t)
		}
	}
	if err := s.readLogRanges(ctx, out); err != nil {
		return nil, err
	}
	return out, s.readFinishedBatches(ctx, out)
}

// offsetRange is [start, end) of a log.
type offsetRange struct {
	Start uint64 `ch:"start_offset"`
	End   uint64 `ch:"end_offset"`
}

func (s *Sink) completePartition(ctx context.Context, t *partitionClaim, report func(Completed)) error {
	at, err := t.resumeOffset()
	if errors.Is(err, ErrNoCommit) {
		at = 0 // rows without a batch and without a commit: nothing says that anything was left out
	} else if err != nil {
		return err
	}
	var batches []offsetRange
	if err := s.wh.Select(ctx, &batches, "SELECT DISTINCT start_offset, end_offset FROM batches WHERE topic = "+
		"{topic:String} AND partition = {partition:UInt32} AND end_offset > {at:UInt64} ORDER BY "+
		"start_offset, end_offset",
		clickhouse.Named("topic", t.mapping.topic), clickhouse.Named("partition", t.partition),
		clickhouse.Named("at", uint64(at))); err != nil {
		return fmt.Errorf("reading the finished batches: %w", err)
	}
	var last []struct {
		End uint64 `ch:"end"`
	}
	if err := s.wh.Select(ctx, &last, "SELECT if(count() = 0, 0, max(src_offset) + 1) AS end FROM "+t.mapping.table+
		" WHERE src_partition = {partition:UInt32}", clickhouse.Named("partition", t.partition)); err != nil {
		return fmt.Errorf("looking for the last row: %w", err)
	}
	end := int64(last[0].End)
	for _, b := range batches {
		end = max(end, int64(b.End))
	}
	if end > t.logEnd {
		return fmt.Errorf("%w: the table goes to offset %d, the log ends at %d: this is another cluster, or it "+
			"lost records", ErrLostRange, end, t.logEnd)
	}
	if len(t.batchTopicIDs) > 0 || t.committed >= 0 || end > 0 { // else nothing ever came here
		end = max(end, min(t.logStart, t.logEnd))
	}
	for _, gap := range findGaps(at, end, batches) {
		if err := s.closeGap(ctx, t, gap, report); err != nil {
			return err
		}
	}
	return nil
}

// findGaps returns what of [at, end) no batch covers. Batches are in order.
func findGaps(at, end int64, batches []offsetRange) (out []offsetRange) {
	for _, b := range batches {
		if int64(b.Start) > at {
			out = append(out, offsetRange{uint64(at), b.Start})
		}
		at = max(at, int64(b.End))
	}
	if at < end {
		out = append(out, offsetRange{uint64(at), uint64(end)})
	}
	return out
}

// closeGap records a range as batches: what the log lost as one, the rest in batches of
// the usual size.
func (s *Sink) closeGap(ctx context.Context, t *partitionClaim, gap offsetRange, report func(Completed)) error {
	start, end := int64(gap.Start), int64(gap.End)
	p := s.newPartition(t.mapping, t.partition, start, nil)
	defer p.kill()
	if start < t.logStart {
		lost := Completed{Topic: t.mapping.topic, Partition: t.partition, Start: start, End: min(end, t.logStart)}
		lost.Lost = lost.End - lost.Start
		have, err := p.readPresentOffsets(ctx, lost.Start, lost.End)
		if err != nil {
			return err
		}
		lost.Had = len(have)
		err = s.wh.Insert(ctx, clickhouse.Insert{Table: "batches", Columns: []string{"topic_id", "topic", "partition",
			"start_offset", "end_offset", "rows", "dropped_replays", "dead_lettered", "lost"}},
			func(row *clickhouse.Batch) error {
				return row.Append(t.topicID, t.mapping.topic, uint32(t.partition), uint64(lost.Start), uint64(lost.End),
					uint64(lost.Had), uint64(0), uint64(0), uint64(lost.Lost))
			})
		if err != nil {
			return err
		}
		report(lost)
		start = lost.End
	}
	b := &batch{}
	size := 0
	flush := func(until int64) error {
		b.batchID = batchID{topicID: t.topicID, partition: t.partition, start: start, end: until}
		done, err := p.completeBatch(ctx, b)
		if err != nil {
			return fmt.Errorf("[%d, %d): %w", start, until, err)
		}
		report(done)
		b, size, start = &batch{}, 0, until
		return nil
	}
	err := kafka.ReadRange(ctx, s.kafka, s.log, s.kafka.Topic(t.mapping.topic), t.partition, start, end,
		func(r *kgo.Record) error {
			if len(b.records) >= s.cfg.BatchRows || size >= s.cfg.BatchBytes {
				if err := flush(b.records[len(b.records)-1].Offset + 1); err != nil {
					return err
				}
			}
			b.records = append(b.records, r)
			size += len(r.Value)
			return nil
		})
	if err != nil || start == end {
		return err
	}
	return flush(end)
}

// readPresentOffsets returns the offsets in [start, end) that have a row.
func (p *partition) readPresentOffsets(ctx context.Context, start, end int64) (map[int64]bool, error) {
	var rows []struct {
		Offset uint64 `ch:"src_offset"`
		Count  uint64 `ch:"n"`
	}
	err := p.sink.wh.Select(ctx, &rows, "SELECT src_offset, count() AS n FROM "+p.mapping.table+
		" WHERE src_partition = {partition:UInt32} AND src_offset >= {start:UInt64} AND src_offset < {end:UInt64} "+
		"GROUP BY src_offset",
		clickhouse.Named("partition", p.id), clickhouse.Named("start", uint64(start)),
		clickhouse.Named("end", uint64(end)))
	if err != nil {
		return nil, fmt.Errorf("looking for the rows of [%d, %d): %w", start, end, err)
	}
	have := make(map[int64]bool, len(rows))
	for _, r := range rows {
		if r.Count > 1 {
			return nil, fmt.Errorf("offset %d has %d rows: something else than the sink inserted into %s",
				r.Offset, r.Count, p.mapping.table)
		}
		have[int64(r.Offset)] = true
	}
	return have, nil
}

// completeBatch inserts the rows of a batch that are missing, and records it.
func (p *partition) completeBatch(ctx context.Context, b *batch) (done Completed, err error) {
	// its dead letters may be of any age
	b.again, b.intent.declaredAt = true, time.UnixMilli(clockSkew.Milliseconds())
	if b.presentOffsets, err = p.readPresentOffsets(ctx, b.start, b.end); err != nil {
		return done, err
	}
	had := len(b.presentOffsets)
	done = Completed{Topic: p.mapping.topic, Partition: p.id, Start: b.start, End: b.end, Had: had}
	// First under the batch's own token: should the insert that was broken off still be
	// on its way, only one of both gets in. If a token that the table remembers
	// swallows rows that are not there, then under another, which names just these
	// rows.
	for attempt := 0; ; attempt++ {
		if err := p.insertRows(ctx, b); err != nil {
			return done, err
		}
		missing := b.summary.rows
		if b.presentOffsets, err = p.readPresentOffsets(ctx, b.start, b.end); err != nil {
			return done, err
		}
		want := had + missing
		if len(b.presentOffsets) == want {
			break
		}
		if attempt == 2 || len(b.presentOffsets) > want {
			return done, fmt.Errorf("%d rows are in the table, should be %d", len(b.presentOffsets), want)
		}
		had, b.inserted = len(b.presentOffsets), false
		b.tokenSuffix = fmt.Sprintf("/rest-of-%d", had)
	}
	if err := p.produceDeadLetters(ctx, b); err != nil {
		return done, err
	}
	done.Inserted = len(b.presentOffsets) - done.Had
	b.summary.rows = len(b.presentOffsets)
	// its row may have been there and be gone
	b.tokenSuffix = fmt.Sprintf("/completed-%d", time.Now().UnixNano())
	return done, p.recordBatch(ctx, b)
}
