package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Completed is a range of one partition that Complete repaired and recorded as a
// finished batch.
type Completed struct {
	Topic      string // without prefix
	Partition  int32
	Start, End int64 // offsets: [Start, End)
	Had        int   // rows that the base table had before
	Inserted   int   // rows that were missing
	// Lost is the number of offsets of a range that the log no longer holds, else 0.
	// Rows of the range that are in the table stay there.
	Lost int64
}

// CheckIdle returns ErrBusy if the sinks' consumer group has members. A sink that was
// killed remains a member until its session times out.
func CheckIdle(ctx context.Context, cfg kafka.Config, log *slog.Logger) error {
	client, err := kafka.NewClient(cfg, log, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	return checkNoMembers(ctx, client, cfg.SinkGroup(), "stop the sinks first")
}

// checkNoMembers returns ErrBusy with what to do if a group has members.
func checkNoMembers(ctx context.Context, client *kgo.Client, group, remedy string) error {
	groups, err := kadm.NewClient(client).DescribeGroups(ctx, group)
	if err == nil {
		err = groups.Error()
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("looking for members of group %s: %w", group, err)
	}
	members := groups[group].Members
	if len(members) == 0 {
		return nil
	}
	var named []string
	for _, m := range members[:min(len(members), membersNamed)] {
		named = append(named, fmt.Sprintf("%s on %s", m.MemberID, strings.TrimPrefix(m.ClientHost, "/")))
	}
	if len(members) > len(named) {
		named = append(named, "…")
	}
	return fmt.Errorf("%w: group %s has %d members (%s): %s; one that was killed stays a member until its session "+
		"times out, ten seconds if nothing else is set",
		ErrBusy, group, len(members), strings.Join(named, ", "), remedy)
}

// membersNamed bounds the members that an error names.
const membersNamed = 5

// CheckSettled returns ErrBusy if the sinks' consumer group has members, and
// ErrUnrecorded if a batch may be in some tables and not in others. Otherwise nothing
// is on its way into the tables.
func CheckSettled(ctx context.Context, k kafka.Config, wh *clickhouse.Conn, log *slog.Logger) error {
	if err := CheckIdle(ctx, k, log); err != nil {
		return err
	}
	s, err := New(DefaultConfig(), k, event.DefaultCodec(), wh, log, nil)
	if err != nil {
		return err
	}
	if s.client, err = kafka.NewClient(k, log, nil); err != nil {
		return err
	}
	defer s.client.Close()
	defer s.closeInstall()
	if err := s.loadTopics(ctx); err != nil {
		return fmt.Errorf("looking for unfinished batches: %w", err)
	}
	claims, err := s.readPartitionStates(ctx)
	if err != nil {
		return fmt.Errorf("looking for unfinished batches: %w", err)
	}
	for _, c := range claims {
		if err := s.checkRecorded(ctx, c); err != nil {
			return fmt.Errorf("%s partition %d: %w", c.mapping.topic, c.partition, err)
		}
	}
	return nil
}

// checkRecorded returns ErrUnrecorded if a partition has rows behind its finished
// batches, or a declared batch follows them. A batch that was declared further behind
// is later than these tables: they were restored from a backup.
func (s *Sink) checkRecorded(ctx context.Context, c *partitionClaim) error {
	end, err := s.readEndOfRows(ctx, c)
	if err != nil {
		return err
	}
	finished := max(c.contiguousEnd, 0)
	if end > finished {
		return fmt.Errorf("%w: table %s has rows up to offset %d, table batches records them up to %d: start the "+
			"sinks of the release that inserted them and stop them when their lag is 0; if they refuse to start, run "+
			"its `ctl rollup rebuild`", ErrUnrecorded, c.mapping.table, end, finished)
	}
	if c.intent != nil && c.intent.start <= finished && finished < c.intent.end {
		return fmt.Errorf("%w: [%d, %d) is declared and not recorded in table batches: start the sinks of the "+
			"release that declared it and stop them when their lag is 0", ErrUnrecorded, c.intent.start, c.intent.end)
	}
	return nil
}

// Complete repairs ranges that a sink refuses to insert on its own because it cannot
// tell whether an earlier insert succeeded: half-done batches whose deduplication token
// may be forgotten, gaps between finished batches, and records that Kafka has already
// deleted. It reads the records of such a range again, inserts those that have no row,
// and records the range as finished batches; what Kafka no longer has is recorded as
// lost.
//
// No sink may run meanwhile (see CheckIdle). Rollups must be rebuilt afterwards.
// Complete can be repeated, also after it was interrupted. It calls report for each
// range as it is finished.
func Complete(ctx context.Context, cfg Config, k kafka.Config, codec *event.Codec, wh *clickhouse.Conn,
	log *slog.Logger, report func(Completed)) error {
	s, err := New(cfg, k, codec, wh, log, nil)
	if err != nil {
		return err
	}
	if err := checkNoRepair(ctx, wh, ""); err != nil {
		return fmt.Errorf("completing the tables: %w", err)
	}
	if s.client, err = kafka.NewClient(k, log, nil); err != nil {
		return err
	}
	defer s.client.Close()
	defer s.closeInstall()
	if err := s.loadTopics(ctx); err != nil {
		return fmt.Errorf("completing the tables: %w", err)
	}
	if err := s.identify(ctx); err != nil {
		return fmt.Errorf("completing the tables: %w", err)
	}
	if _, err := s.checkOwner(ctx); err != nil {
		return fmt.Errorf("completing the tables: %w", err)
	}
	claims, err := s.readPartitionStates(ctx)
	if err != nil {
		return fmt.Errorf("completing the tables: %w", err)
	}
	for _, c := range claims {
		if err := s.completePartition(ctx, c, report); err != nil {
			return fmt.Errorf("completing table %s, partition %d of %s: %w", c.mapping.table, c.partition,
				c.mapping.topic, err)
		}
	}
	return nil
}

// readPartitionStates returns the state of all partitions of all topics.
func (s *Sink) readPartitionStates(ctx context.Context) (claims []*partitionClaim, err error) {
	commits, err := s.fetchCommits(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(s.mappings)) {
		for id := range int32(s.partitionCounts[name]) {
			c := &partitionClaim{
				mapping:   s.mappings[name],
				partition: id,
				recoveredState: recoveredState{
					topicID:   s.topicIDs[name],
					formerIDs: s.formerIDs(name),
					committed: -1,
				},
			}
			if commit, ok := commits.Lookup(s.kafka.Topic(name), id); ok {
				c.committed = commit.At
				if c.commitNote, err = parseCommitNote(commit.Metadata); err != nil {
					return nil, fmt.Errorf("%s partition %d: %w", name, id, err)
				}
			}
			claims = append(claims, c)
		}
	}
	if err := s.readLogRanges(ctx, claims); err != nil {
		return nil, err
	}
	return claims, s.readFinishedBatches(ctx, claims)
}

// offsetRange is [start, end) of a log.
type offsetRange struct {
	Start uint64 `ch:"start_offset"`
	End   uint64 `ch:"end_offset"`
}

// completePartition closes all gaps between the finished batches of a partition, and
// the one between them and the last row of its table.
func (s *Sink) completePartition(ctx context.Context, c *partitionClaim, report func(Completed)) error {
	from, err := c.resumeOffset()
	if errors.Is(err, ErrNoCommit) {
		from = 0 // neither batch nor commit: nothing says that records were left out on purpose
	} else if err != nil {
		return err
	}
	batches, err := s.readBatchesFrom(ctx, c, from)
	if err != nil {
		return err
	}
	end, err := s.readEndOfRows(ctx, c)
	if err != nil {
		return err
	}
	for _, b := range batches {
		end = max(end, int64(b.End))
	}
	if end > c.logEnd {
		return fmt.Errorf("%w: the table goes to offset %d, the log ends at %d: this is another cluster, or it "+
			"lost records", ErrLostRange, end, c.logEnd)
	}
	if len(c.batchTopicIDs) > 0 || c.committed >= 0 || end > 0 { // else nothing was ever inserted
		end = max(end, min(c.logStart, c.logEnd))
	}
	for _, gap := range findGaps(from, end, batches) {
		if err := s.closeGap(ctx, c, gap, report); err != nil {
			return err
		}
	}
	return nil
}

// readBatchesFrom returns the finished batches that end behind an offset, in order.
func (s *Sink) readBatchesFrom(ctx context.Context, c *partitionClaim, from int64) ([]offsetRange, error) {
	var batches []offsetRange
	err := s.wh.Select(ctx, &batches, `
		SELECT DISTINCT start_offset, end_offset
		FROM batches
		WHERE topic = {topic:String}
			AND partition = {partition:UInt32}
			AND end_offset > {from:UInt64}
		ORDER BY start_offset, end_offset`,
		clickhouse.Named("topic", c.mapping.topic),
		clickhouse.Named("partition", c.partition),
		clickhouse.Named("from", uint64(from)))
	if err != nil {
		return nil, fmt.Errorf("reading the finished batches: %w", err)
	}
	return batches, nil
}

// readEndOfRows returns the offset behind the last row of a partition; 0 if it has
// none.
func (s *Sink) readEndOfRows(ctx context.Context, c *partitionClaim) (int64, error) {
	var last []struct {
		End uint64 `ch:"end"`
	}
	err := s.wh.Select(ctx, &last, `
		SELECT if(count() = 0, 0, max(src_offset) + 1) AS end
		FROM `+c.mapping.table+`
		WHERE src_partition = {partition:UInt32}`,
		clickhouse.Named("partition", c.partition))
	if err != nil {
		return 0, fmt.Errorf("looking for the last row: %w", err)
	}
	return int64(last[0].End), nil
}

// findGaps returns the parts of [from, end) that no batch covers. Batches are in order.
func findGaps(from, end int64, batches []offsetRange) (gaps []offsetRange) {
	for _, b := range batches {
		if int64(b.Start) > from {
			gaps = append(gaps, offsetRange{uint64(from), b.Start})
		}
		from = max(from, int64(b.End))
	}
	if from < end {
		gaps = append(gaps, offsetRange{uint64(from), uint64(end)})
	}
	return gaps
}

// closeGap records a range as finished batches: what the log has lost as one batch, the
// rest as batches of the usual size.
func (s *Sink) closeGap(ctx context.Context, c *partitionClaim, gap offsetRange, report func(Completed)) error {
	start := int64(gap.Start)
	end := int64(gap.End)
	p := s.newPartition(c.mapping, c.partition, start, nil)
	defer p.kill()
	if start < c.logStart {
		lost, err := p.recordLostRange(ctx, c.topicID, start, min(end, c.logStart))
		if err != nil {
			return err
		}
		report(lost)
		start = lost.End
	}
	var pending []*kgo.Record
	size := 0
	completePending := func(until int64) error {
		id := batchID{topicID: c.topicID, partition: c.partition, start: start, end: until}
		done, err := p.completeBatch(ctx, id, pending)
		if err != nil {
			return fmt.Errorf("[%d, %d): %w", start, until, err)
		}
		report(done)
		pending = nil
		size = 0
		start = until
		return nil
	}
	reader := kafka.RangeReader{Kafka: s.kafka, Log: s.log, Isolation: kgo.ReadCommitted()}
	err := reader.Each(ctx, func(records []*kgo.Record) error {
		for _, r := range records {
			if len(pending) >= s.cfg.BatchRows || size >= s.cfg.BatchBytes {
				if err := completePending(pending[len(pending)-1].Offset + 1); err != nil {
					return err
				}
			}
			pending = append(pending, r)
			size += len(r.Value)
		}
		return nil
	}, kafka.Range{Topic: s.kafka.Topic(c.mapping.topic), Partition: c.partition, From: start, To: end})
	if err != nil || start == end {
		return err
	}
	return completePending(end)
}

// recordLostRange records that the log no longer holds [start, end).
func (p *partition) recordLostRange(ctx context.Context, topicID string, start, end int64) (Completed, error) {
	lost := Completed{Topic: p.mapping.topic, Partition: p.id, Start: start, End: end, Lost: end - start}
	present, err := p.readPresentOffsets(ctx, start, end)
	if err != nil {
		return lost, err
	}
	lost.Had = len(present)
	into := clickhouse.Insert{
		Table: "batches",
		Columns: []string{"topic_id", "topic", "partition", "start_offset", "end_offset", "rows", "dropped_replays",
			"dead_lettered", "lost"},
	}
	return lost, p.sink.wh.Insert(ctx, into, func(row *clickhouse.Batch) error {
		return row.Append(topicID, p.mapping.topic, uint32(p.id), uint64(start), uint64(end), uint64(lost.Had),
			uint64(0), uint64(0), uint64(lost.Lost))
	})
}

// readPresentOffsets returns the offsets in [start, end) that have a row, or ErrSurplus if
// one has several.
func (p *partition) readPresentOffsets(ctx context.Context, start, end int64) (map[int64]bool, error) {
	return p.readSingleOffsets(ctx, start, end, nil)
}

// readSingleOffsets is readPresentOffsets without some offsets that may have several rows.
func (p *partition) readSingleOffsets(ctx context.Context, start, end int64, kept map[int64]bool) (map[int64]bool,
	error) {
	present, doubled, err := p.readOffsets(ctx, start, end)
	if err != nil {
		return nil, err
	}
	doubled = slices.DeleteFunc(doubled, func(offset int64) bool { return kept[offset] })
	if len(doubled) > 0 {
		return nil, fmt.Errorf("%w: offset %d has several rows: something else than the sink inserted into %s; "+
			"`ctl warehouse repair` leaves one", ErrSurplus, doubled[0], p.mapping.table)
	}
	return present, nil
}

// readOffsets returns the offsets in [start, end) that have one row, and in order those
// that have several.
func (p *partition) readOffsets(ctx context.Context, start, end int64) (present map[int64]bool, doubled []int64,
	err error) {
	var rows []struct {
		Offset uint64 `ch:"src_offset"`
		Count  uint64 `ch:"n"`
	}
	err = p.sink.wh.Select(ctx, &rows, `
		SELECT src_offset, count() AS n
		FROM `+p.mapping.table+`
		WHERE src_partition = {partition:UInt32}
			AND src_offset >= {start:UInt64}
			AND src_offset < {end:UInt64}
		GROUP BY src_offset
		ORDER BY src_offset
		SETTINGS select_sequential_consistency = 1`,
		clickhouse.Named("partition", p.id),
		clickhouse.Named("start", uint64(start)),
		clickhouse.Named("end", uint64(end)))
	if err != nil {
		return nil, nil, fmt.Errorf("looking for the rows of [%d, %d): %w", start, end, err)
	}
	present = make(map[int64]bool, len(rows))
	for _, r := range rows {
		if r.Count > 1 {
			doubled = append(doubled, int64(r.Offset))
			continue
		}
		present[int64(r.Offset)] = true
	}
	return present, doubled, nil
}

// maxCompleteInserts bounds the inserts that completeBatch tries for one batch.
const maxCompleteInserts = 3

// completeBatch inserts the missing rows of a batch, and resumes it behind that step.
//
// The first insert has the batch's own token: if the interrupted insert is still on its
// way, ClickHouse accepts only one of the two. If the table remembers that token
// without having the rows, it drops the insert; the next one has a token that names
// just the rows that are still missing.
func (p *partition) completeBatch(ctx context.Context, id batchID, records []*kgo.Record) (Completed, error) {
	b := newCompletedBatch(id, records)
	done := Completed{Topic: p.mapping.topic, Partition: p.id, Start: b.start, End: b.end}
	err := p.decidePlaces(ctx, b)
	if err != nil {
		return done, err
	}
	if b.presentOffsets, err = p.readPresentOffsets(ctx, b.start, b.end); err != nil {
		return done, err
	}
	done.Had = len(b.presentOffsets)
	if done.Inserted, err = p.insertMissing(ctx, b); err != nil {
		return done, err
	}
	return done, p.resumeBatch(ctx, b)
}

// newCompletedBatch returns a batch of which any step may have been taken, at any time.
func newCompletedBatch(id batchID, records []*kgo.Record) *batch {
	b := &batch{
		batchID:        id,
		records:        records,
		reached:        stepIntentWritten,
		mayHaveReached: stepBatchRecorded,
	}
	b.intent.declaredAt = time.UnixMilli(clockSkew.Milliseconds()) // its dead letters may be of any age
	return b
}

// insertMissing inserts the rows of a batch that are not among presentOffsets, and
// returns their number.
func (p *partition) insertMissing(ctx context.Context, b *batch) (inserted int, err error) {
	before := len(b.presentOffsets)
	suffix := b.tokenSuffix
	for inserts := 1; ; inserts++ {
		had := len(b.presentOffsets)
		if err := p.insertRows(ctx, b); err != nil {
			return 0, err
		}
		want := had + b.summary.rows
		if b.presentOffsets, err = p.readSingleOffsets(ctx, b.start, b.end, b.keptDoubled); err != nil {
			return 0, err
		}
		has := len(b.presentOffsets)
		if has == want {
			break
		}
		if inserts == maxCompleteInserts || has > want {
			return 0, fmt.Errorf("%d rows are in the table, should be %d", has, want)
		}
		b.reached = stepIntentWritten
		b.tokenSuffix = fmt.Sprintf("%s/rest-of-%d", suffix, has)
	}
	b.summary.rows = len(b.presentOffsets)
	return b.summary.rows - before, nil
}
