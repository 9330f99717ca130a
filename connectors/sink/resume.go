package sink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/twmb/franz-go/pkg/kadm"
)

// clockSkew is how far ClickHouse's clock may be from this one when batches since an
// intent are counted.
const clockSkew = 5 * time.Minute

// recoveredState is all that decides where a partition is taken up.
type recoveredState struct {
	topicID   string
	committed int64   // of the consumer group; -1: none
	intent    *intent // in the commit's metadata; nil: none
	// From table batches.
	batchTopicIDs []string // topic ids of the partition's batches
	contiguousEnd int64    // end of the gapless run of finished batches; -1: no batch
	// The log holds [logStart, logEnd).
	logStart, logEnd int64
}

// resumeOffset returns the offset of the first record that is not known to be in the tables,
// whether the log still has it or not.
func (s recoveredState) resumeOffset() (at int64, err error) {
	for _, id := range s.batchTopicIDs {
		if id != s.topicID {
			return 0, fmt.Errorf("%w: the finished batches in ClickHouse are of topic id %s, the topic now has "+
				"%s: it was deleted and created again, or this is another cluster; give the new topic a new "+
				"database, or remove the old one's rows", ErrTopicChanged, id, s.topicID)
		}
	}
	if s.intent != nil && s.intent.topicID != s.topicID {
		return 0, fmt.Errorf("%w: the group's commit is of topic id %s, the topic now has %s: it was deleted and "+
			"created again; give the new topic a new database, or remove the old one's rows and the group's commit",
			ErrTopicChanged, s.intent.topicID, s.topicID)
	}
	switch {
	case s.contiguousEnd >= 0:
		return s.contiguousEnd, nil // whatever is committed: the tables know best what is in them
	case s.committed >= 0:
		return s.committed, nil
	default:
		return 0, fmt.Errorf("%w, and no finished batch in ClickHouse, while the log holds [%d, %d): on a fresh "+
			"install run `ctl topics apply`; else set the offset with kafka-consumer-groups --reset-offsets to "+
			"where the group stood", ErrNoCommit, s.logStart, s.logEnd)
	}
}

// findResumePoint returns the origin, which must be in the log, and the batch that has to be
// formed there if an intent names it.
func (s recoveredState) findResumePoint() (at int64, redo *intent, err error) {
	if at, err = s.resumeOffset(); err != nil {
		return 0, nil, err
	}
	if at < s.logStart {
		return 0, nil, fmt.Errorf("%w: the tables end at offset %d, the log begins at %d: [%d, %d) cannot be read "+
			"any more; stop the sinks and run `ctl rollup rebuild`, which completes the tables from what is left "+
			"and marks the range", ErrLostRange, at, s.logStart, at, s.logStart)
	}
	if at > s.logEnd {
		return 0, nil, fmt.Errorf("%w: the tables end at offset %d, the log ends at %d: records were lost or this "+
			"is another cluster", ErrLostRange, at, s.logEnd)
	}
	if s.intent != nil && s.intent.start == at {
		redo = s.intent
		if redo.end > s.logEnd {
			return 0, nil, fmt.Errorf("%w: batch [%d, %d) was begun, but the log ends at %d",
				ErrLostRange, redo.start, redo.end, s.logEnd)
		}
	}
	return at, redo, nil
}

// partitionClaim is a partition about to be taken up.
type partitionClaim struct {
	mapping   *topicMapping
	partition int32
	recoveredState
	resumeAt       int64
	declaredIntent *intent
	unrecordedFrom int64 // the base table must have no row at or behind it
}

// resolveClaims finds out where each partition is taken up, with a fixed number of questions
// for all of them together. An error is either one that time can heal, or one of this
// package's.
func (s *Sink) resolveClaims(ctx context.Context, partitions []*partitionClaim) error {
	if err := s.readLogRanges(ctx, partitions); err != nil {
		return err
	}
	if err := s.readFinishedBatches(ctx, partitions); err != nil {
		return err
	}
	byFeed := map[*topicMapping][]*partitionClaim{}
	for _, t := range partitions {
		var err error
		if t.resumeAt, t.declaredIntent, err = t.findResumePoint(); err != nil {
			return fmt.Errorf("%s partition %d: %w", t.mapping.topic, t.partition, err)
		}
		// What lies behind must be free of rows, or an insert got through that was not
		// recorded. The one exception is the batch of an intent that is young enough to
		// be repeated: its token is still known.
		t.unrecordedFrom = t.resumeAt
		if t.declaredIntent != nil {
			young, err := s.dedupTokenStillKnown(ctx, t.mapping, t.declaredIntent)
			if err != nil {
				return err
			}
			if young {
				t.unrecordedFrom = t.declaredIntent.end
			}
		}
		byFeed[t.mapping] = append(byFeed[t.mapping], t)
	}
	for f, partitions := range byFeed {
		if err := s.checkNoUnrecordedRows(ctx, f, partitions); err != nil {
			return err
		}
	}
	return nil
}

// checkNoUnrecordedRows returns ErrHalfDone if the base table has a row of a partition at or behind the
// partition's from.
func (s *Sink) checkNoUnrecordedRows(ctx context.Context, f *topicMapping, partitions []*partitionClaim) error {
	var behind []string // numbers only
	for _, t := range partitions {
		behind = append(behind, fmt.Sprintf("(src_partition = %d AND src_offset >= %d)", t.partition, t.unrecordedFrom))
	}
	var found []struct {
		Partition uint32 `ch:"src_partition"`
		First     uint64 `ch:"first"`
		Rows      uint64 `ch:"rows"`
	}
	err := s.wh.Select(ctx, &found, "SELECT src_partition, min(src_offset) AS first, count() AS rows FROM "+f.table+
		" WHERE "+strings.Join(behind, " OR ")+" GROUP BY src_partition")
	if err != nil {
		return fmt.Errorf("looking for rows of %s that no batch records: %w", f.table, err)
	}
	for _, x := range found {
		return fmt.Errorf("%w: table %s has %d rows of partition %d, from offset %d, that no finished batch "+
			"records, and a repeated insert would no longer be recognised: stop the sinks and run `ctl rollup rebuild`", ErrHalfDone, f.table, x.Rows, x.Partition, x.First)
	}
	return nil
}

// readLogRanges notes the first offset of each log and the one behind its last record.
func (s *Sink) readLogRanges(ctx context.Context, partitions []*partitionClaim) error {
	var names []string
	for _, t := range partitions {
		if name := s.kafka.Topic(t.mapping.topic); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	admin := kadm.NewClient(s.client)
	starts, err := admin.ListStartOffsets(ctx, names...)
	if err != nil {
		return fmt.Errorf("%w: listing the starts of the logs: %w", errKafka, err)
	}
	ends, err := admin.ListEndOffsets(ctx, names...)
	if err != nil {
		return fmt.Errorf("%w: listing the ends of the logs: %w", errKafka, err)
	}
	for _, t := range partitions {
		name := s.kafka.Topic(t.mapping.topic)
		first, ok1 := starts.Lookup(name, t.partition)
		last, ok2 := ends.Lookup(name, t.partition)
		switch {
		case !ok1 || !ok2:
			return fmt.Errorf("%w: listing the log of %s partition %d: no answer", errKafka, name, t.partition)
		case first.Err != nil || last.Err != nil:
			return fmt.Errorf("%w: listing the log of %s partition %d: %w",
				errKafka, name, t.partition, errors.Join(first.Err, last.Err))
		}
		t.logStart, t.logEnd = first.Offset, last.Offset
	}
	return nil
}

// readFinishedBatches notes what table batches says.
func (s *Sink) readFinishedBatches(ctx context.Context, partitions []*partitionClaim) error {
	type key struct {
		topic     string
		partition uint32
	}
	var ids []struct {
		Topic     string `ch:"topic"`
		Partition uint32 `ch:"partition"`
		ID        string `ch:"topic_id"`
	}
	if err := s.wh.Select(ctx, &ids, "SELECT DISTINCT topic, partition, topic_id FROM batches"); err != nil {
		return fmt.Errorf("reading the finished batches: %w", err)
	}
	var ends []struct {
		Topic     string `ch:"topic"`
		Partition uint32 `ch:"partition"`
		End       uint64 `ch:"end_offset"`
	}
	if err := s.wh.Select(ctx, &ends, "SELECT topic, partition, end_offset FROM tiled_ends"); err != nil {
		return fmt.Errorf("reading the ends of the finished batches: %w", err)
	}
	idsOf, endOf := map[key][]string{}, map[key]int64{}
	for _, x := range ids {
		idsOf[key{x.Topic, x.Partition}] = append(idsOf[key{x.Topic, x.Partition}], x.ID)
	}
	for _, x := range ends {
		endOf[key{x.Topic, x.Partition}] = int64(x.End)
	}
	for _, t := range partitions {
		k := key{t.mapping.topic, uint32(t.partition)}
		t.batchTopicIDs, t.contiguousEnd = idsOf[k], -1
		if end, ok := endOf[k]; ok {
			t.contiguousEnd = end
		}
	}
	return nil
}

// dedupTokenStillKnown reports whether the tables still know the token of a batch that was declared
// but not recorded: less than half of their windows has gone by since.
func (s *Sink) dedupTokenStillKnown(ctx context.Context, f *topicMapping, i *intent) (bool, error) {
	window := s.windows[f.topic]
	if window.age > 0 && time.Since(i.declaredAt) > window.age/2 {
		return false, nil
	}
	var followed []struct {
		Batches uint64 `ch:"batches"`
	}
	err := s.wh.Select(ctx, &followed, "SELECT count() AS batches FROM batches WHERE has({topics:Array(String)}, "+
		"topic) AND rows > 0 AND inserted_at >= fromUnixTimestamp64Milli({since:Int64})",
		clickhouse.Named("topics", f.dedupGroup), clickhouse.Named("since", i.declaredAt.Add(-clockSkew).UnixMilli()))
	if err != nil {
		return false, fmt.Errorf("counting the batches since the last intent: %w", err)
	}
	return len(followed) == 1 && followed[0].Batches < window.blocks/2, nil
}
