package sink

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/twmb/franz-go/pkg/kadm"
)

// clockSkew is by how much ClickHouse's clock may differ from this one when batches
// since an intent are counted.
const clockSkew = 5 * time.Minute

// recoveredState is what decides where a sink resumes in a partition.
type recoveredState struct {
	topicID    string   // the topic's id now
	formerIDs  []string // that it had before an operator adopted it under topicID
	committed  int64    // offset of the consumer group; -1: none
	mayStart   bool     // the partition was added: without a commit it begins at offset 0
	commitNote          // the commit's metadata

	batchTopicIDs []string // topic ids of the partition's rows in table batches
	contiguousEnd int64    // end of the gapless run of finished batches; -1: no batch

	logStart  int64 // the log holds [logStart, logEnd)
	logStable int64 // of [logStart, logStable) it is decided what is committed
	logEnd    int64
}

// checkTopic returns ErrTopicChanged if tables or commits are those of another topic.
func (s recoveredState) checkTopic() error {
	for _, id := range s.batchTopicIDs {
		if !s.isSameTopic(id) {
			return fmt.Errorf("%w: the finished batches in ClickHouse are of topic id %s, the topic now has "+
				"%s: it was deleted and created again, or this is another cluster; give the new topic a new "+
				"database, or remove the old one's rows", ErrTopicChanged, id, s.topicID)
		}
	}
	if s.intent != nil && !s.isSameTopic(s.intent.topicID) {
		return fmt.Errorf("%w: the group's commit is of topic id %s, the topic now has %s: it was deleted and "+
			"created again; give the new topic a new database, or remove the old one's rows and the group's commit",
			ErrTopicChanged, s.intent.topicID, s.topicID)
	}
	return nil
}

// resumeOffset returns the offset of the first record that is not known to be in the
// tables, whether the log still has it or not.
func (s recoveredState) resumeOffset() (int64, error) {
	if err := s.checkTopic(); err != nil {
		return 0, err
	}
	if s.intent != nil && s.intent.topicID != s.topicID && s.contiguousEnd < s.intent.end {
		return 0, fmt.Errorf("%w: batch [%d, %d) was declared under the id %s, before the topic was adopted as %s, "+
			"and is not recorded as finished: stop the sinks and run `ctl rollup rebuild`", ErrHalfDone,
			s.intent.start, s.intent.end, s.intent.topicID, s.topicID)
	}
	switch {
	case s.contiguousEnd >= 0:
		return s.contiguousEnd, nil // whatever is committed: only the tables know what is in them
	case s.committed > s.logStart:
		// A batch is declared when the one before it is in table batches.
		return 0, fmt.Errorf("%w: the group is at offset %d, the log begins at %d, and no finished batch is in "+
			"ClickHouse: it is another database, or was emptied; stop the sinks and run `ctl warehouse repair`, "+
			"which fills the tables from the log's start", ErrForgotten, s.committed, s.logStart)
	case s.committed >= 0:
		return s.committed, nil
	case s.mayStart:
		return 0, nil
	default:
		return 0, fmt.Errorf("%w, and no finished batch in ClickHouse, while the log holds [%d, %d): on a fresh "+
			"install run `ctl topics apply`; else stop the sinks and run `ctl warehouse repair`, which fills the "+
			"tables from the log's start", ErrNoCommit, s.logStart, s.logEnd)
	}
}

// isSameTopic reports whether offsets under an id are those of the topic now.
func (s recoveredState) isSameTopic(id string) bool {
	return id == s.topicID || slices.Contains(s.formerIDs, id)
}

// findResumePoint returns the resume offset, which must be in the log, and the batch
// that has to be formed there if it was declared.
func (s recoveredState) findResumePoint() (at int64, declared *intent, err error) {
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
	if s.intent == nil || s.intent.start != at {
		return at, nil, nil
	}
	if s.intent.end > s.logEnd {
		return 0, nil, fmt.Errorf("%w: batch [%d, %d) was declared, but the log ends at %d",
			ErrLostRange, s.intent.start, s.intent.end, s.logEnd)
	}
	return at, s.intent, nil
}

// partitionClaim is a partition that this sink is about to own.
type partitionClaim struct {
	mapping   *topicMapping
	partition int32
	recoveredState

	resumeAt       int64   // where it is read from
	declaredIntent *intent // the batch to form there; nil: any
	unrecordedFrom int64   // the base table must have no row at or behind this offset

	// Of a repair: the months (YYYYMM) that were dropped, how many rows of the partition
	// had them, and the end of their offsets.
	droppedMonths map[string]bool
	dropped       uint64
	droppedEnd    int64
}

// resolveClaims finds out where each partition is resumed. The number of its queries
// does not depend on the number of partitions. An error is either retryable, or needs
// an operator.
func (s *Sink) resolveClaims(ctx context.Context, claims []*partitionClaim) error {
	// This sink is a member of the group already: a repair that begins now sees it.
	if err := checkNoRepair(ctx, s.wh, ""); err != nil {
		return err
	}
	if err := s.adopt(ctx); err != nil {
		return err
	}
	if err := s.readLogRanges(ctx, claims); err != nil {
		return err
	}
	if err := s.readFinishedBatches(ctx, claims); err != nil {
		return err
	}
	byMapping := map[*topicMapping][]*partitionClaim{}
	for _, c := range claims {
		var err error
		if c.committed < 0 && c.contiguousEnd < 0 {
			if c.mayStart, err = s.mayStart(ctx, c.mapping.topic, c.partition); err != nil {
				return fmt.Errorf("%s partition %d: %w", c.mapping.topic, c.partition, err)
			}
		}
		if c.resumeAt, c.declaredIntent, err = c.findResumePoint(); err != nil {
			return fmt.Errorf("%s partition %d: %w", c.mapping.topic, c.partition, err)
		}
		// A row behind the finished batches comes from an insert that was not recorded.
		// Only the declared batch may have rows, while the tables still know its token:
		// then it can be repeated.
		c.unrecordedFrom = c.resumeAt
		if c.declaredIntent != nil {
			known, err := s.dedupTokenStillKnown(ctx, c.mapping, c.declaredIntent)
			if err != nil {
				return err
			}
			if known {
				c.unrecordedFrom = c.declaredIntent.end
			}
		}
		byMapping[c.mapping] = append(byMapping[c.mapping], c)
	}
	for m, claims := range byMapping {
		if err := s.checkNoUnrecordedRows(ctx, m, claims); err != nil {
			return err
		}
	}
	return nil
}

// checkNoUnrecordedRows returns ErrHalfDone if the base table has a row of a partition
// at or behind its unrecordedFrom.
func (s *Sink) checkNoUnrecordedRows(ctx context.Context, mapping *topicMapping, claims []*partitionClaim) error {
	var behind []string // only numbers are formatted into the SQL
	for _, c := range claims {
		behind = append(behind, fmt.Sprintf("(src_partition = %d AND src_offset >= %d)", c.partition, c.unrecordedFrom))
	}
	var found []struct {
		Partition uint32 `ch:"src_partition"`
		First     uint64 `ch:"first"`
		Rows      uint64 `ch:"rows"`
	}
	err := s.wh.Select(ctx, &found, `
		SELECT
			src_partition,
			min(src_offset) AS first,
			count() AS rows
		FROM `+mapping.table+`
		WHERE `+strings.Join(behind, " OR ")+`
		GROUP BY src_partition`)
	if err != nil {
		return fmt.Errorf("looking for rows of %s that no batch records: %w", mapping.table, err)
	}
	for _, x := range found {
		return fmt.Errorf("%w: table %s has %d rows of partition %d, from offset %d, that no finished batch "+
			"records, and a repeated insert would no longer be recognised: stop the sinks and run `ctl rollup "+
			"rebuild`", ErrHalfDone, mapping.table, x.Rows, x.Partition, x.First)
	}
	return nil
}

// readLogRanges sets logStart and logEnd of each claim.
func (s *Sink) readLogRanges(ctx context.Context, claims []*partitionClaim) error {
	var names []string
	for _, c := range claims {
		if name := s.kafka.Topic(c.mapping.topic); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	offsets, err := kafka.ListOffsets(ctx, kadm.NewClient(s.client), names...)
	if err != nil {
		return fmt.Errorf("%w: %w", errKafka, err)
	}
	for _, c := range claims {
		log, err := offsets.Of(s.kafka.Topic(c.mapping.topic), c.partition)
		if err != nil {
			return fmt.Errorf("%w: %w", errKafka, err)
		}
		c.logStart = log.Start
		c.logStable = log.Stable
		c.logEnd = log.End
	}
	return nil
}

// readFinishedBatches sets what table batches says about each claim.
func (s *Sink) readFinishedBatches(ctx context.Context, claims []*partitionClaim) error {
	var ids []struct {
		Topic     string `ch:"topic"`
		Partition uint32 `ch:"partition"`
		ID        string `ch:"topic_id"`
	}
	err := s.wh.Select(ctx, &ids, "SELECT DISTINCT topic, partition, topic_id FROM batches")
	if err != nil {
		return fmt.Errorf("reading the finished batches: %w", err)
	}
	var ends []struct {
		Topic     string `ch:"topic"`
		Partition uint32 `ch:"partition"`
		End       uint64 `ch:"end_offset"`
	}
	err = s.wh.Select(ctx, &ends, "SELECT topic, partition, end_offset FROM tiled_ends")
	if err != nil {
		return fmt.Errorf("reading the ends of the finished batches: %w", err)
	}
	idsOf := map[topicPartition][]string{}
	for _, x := range ids {
		at := topicPartition{x.Topic, int32(x.Partition)}
		idsOf[at] = append(idsOf[at], x.ID)
	}
	endOf := map[topicPartition]int64{}
	for _, x := range ends {
		endOf[topicPartition{x.Topic, int32(x.Partition)}] = int64(x.End)
	}
	for _, c := range claims {
		at := topicPartition{c.mapping.topic, c.partition}
		c.batchTopicIDs = idsOf[at]
		c.contiguousEnd = -1
		if end, ok := endOf[at]; ok {
			c.contiguousEnd = end
		}
	}
	return nil
}
