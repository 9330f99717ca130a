package sink

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/sink/rollup"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

// RepairedPartition is what Repair found and did in the base table of a partition.
type RepairedPartition struct {
	Topic     string // without prefix
	Partition int32
	Records   int    // of the log, compared with the table
	Inserted  int    // rows that were missing
	Doubled   int    // offsets with several rows, of which one is left
	Recorded  int64  // offsets that no finished batch covered, and one does now
	Lost      int64  // of Recorded: offsets that the log no longer holds
	Gone      uint64 // rows that a finished batch had, and neither table nor log have
	Dropped   uint64 // rows that a finished batch had, and that were dropped by month
	// Unexplained are rows at offsets at which the log has no record. They stay. A
	// compacted topic is not looked at: its log forgets.
	Unexplained int
	// DoubledBefore are rows too many in front of the log's start: they stay.
	DoubledBefore uint64
}

// isSound reports whether nothing was found.
func (r RepairedPartition) isSound() bool {
	r.Topic = ""
	r.Partition = 0
	r.Records = 0
	return r == RepairedPartition{}
}

// RepairResult is the state in which Repair left the database.
type RepairResult struct {
	Standing uint64 // events of rules version 1 whose standing change was computed
	Sums     rollup.RepairedSums
	// Conservation and WorkspaceConservation sum up the differences of the views of that
	// name. They are 0 if the ledger is whole.
	Conservation, WorkspaceConservation uint64
}

// repairer repairs one database.
type repairer struct {
	*Sink
	report    func(RepairedPartition)
	take      bool                    // the group, from whatever warehouse it fills
	afterStep func(step string) error // an error ends the repair there
}

// Repair makes the tables what the log says: it reads all topics from the start of the
// log, inserts rows that are missing, leaves one of those that are there twice, and
// records what no finished batch covers. Then it computes the sums that differ from their
// rows anew, except those that may count rows which Kafka no longer has, and fills the
// lookups. It calls report for each partition in which it found something.
//
// No sink may run: Repair returns ErrBusy if one does, and holds a lock meanwhile on
// which sinks wait. It can be repeated, also after it was killed anywhere: what to do
// follows from the tables alone.
//
// If the sinks' group fills another warehouse, or another group fills this one, Repair
// returns ErrOtherWarehouse before it writes anything; with takeGroup the group fills this
// one from now on.
func Repair(ctx context.Context, cfg Config, k kafka.Config, codec *event.Codec, wh *clickhouse.Conn, log *slog.Logger,
	takeGroup bool, report func(RepairedPartition)) (RepairResult, error) {
	s, err := New(cfg, k, codec, wh, log, nil)
	if err != nil {
		return RepairResult{}, err
	}
	r := &repairer{Sink: s, report: report, take: takeGroup, afterStep: func(string) error { return nil }}
	return r.run(ctx)
}

func (r *repairer) run(ctx context.Context) (out RepairResult, err error) {
	if old, err := rollup.Pending(ctx, r.wh); err != nil || old {
		return out, errors.Join(err, errors.New("the rollup is that of an earlier release: run `ctl migrate`"))
	}
	held, lock, err := acquireRepairLock(ctx, r.wh)
	if err != nil {
		return out, fmt.Errorf("repairing the tables: %w", err)
	}
	defer func() { err = errors.Join(err, lock.release(ctx)) }()
	out, err = r.repairTables(held)
	if lost := context.Cause(held); err != nil && ctx.Err() == nil && lost != nil {
		err = lost
	}
	if err != nil {
		return out, fmt.Errorf("repairing the tables: %w", err)
	}
	return out, nil
}

func (r *repairer) repairTables(ctx context.Context) (out RepairResult, err error) {
	quiet := slog.New(slog.DiscardHandler)
	if err := CheckIdle(ctx, r.kafka, quiet); err != nil {
		return out, err
	}
	if r.client, err = kafka.NewClient(r.kafka, quiet, nil); err != nil {
		return out, err
	}
	defer r.client.Close()
	var stopped context.CancelFunc
	ctx, stopped = context.WithCancel(ctx)
	defer stopped()
	r.cancel = stopped
	r.env.AfterStep = func(s step, _ string, _ int32) error { return r.afterStep(s.String()) }
	if err := r.loadTopics(ctx); err != nil {
		return out, err
	}
	if err := r.claimWarehouse(ctx, r.take); err != nil {
		return out, err
	}
	claims, err := r.readPartitionStates(ctx)
	if err != nil {
		return out, err
	}
	if err := r.readDropped(ctx, claims); err != nil {
		return out, err
	}
	var incomplete []rollup.Incomplete
	for i, c := range claims {
		r.log.Info("comparing the table with the log", "topic", c.mapping.topic, "partition", c.partition,
			"offsets", fmt.Sprintf("[%d, %d)", c.logStart, c.logStable),
			"step", fmt.Sprintf("%d of %d", i+1, len(claims)))
		found, err := r.repairPartition(ctx, c)
		if gone := found.Gone + found.Dropped; err == nil && gone > 0 && c.mapping.isSummed {
			var at rollup.Incomplete
			at, err = r.findIncomplete(ctx, c, gone)
			incomplete = append(incomplete, at)
		}
		if err != nil {
			return out, fmt.Errorf("table %s, partition %d of %s: %w", c.mapping.table, c.partition, c.mapping.topic,
				err)
		}
		if !found.isSound() {
			r.report(found)
		}
	}
	if err := CheckIdle(ctx, r.kafka, quiet); err != nil {
		return out, err
	}
	if out.Standing, err = rollup.CompleteStanding(ctx, r.wh, r.log); err != nil {
		return out, err
	}
	if out.Sums, err = rollup.RepairSums(ctx, r.wh, incomplete, r.log, r.afterStep); err != nil {
		return out, err
	}
	if err := FillLookups(ctx, r.wh, func(step string) { r.log.Info(step) }); err != nil {
		return out, err
	}
	if err := r.takeGroup(ctx, claims); err != nil {
		return out, err
	}
	out.Conservation, out.WorkspaceConservation, err = readConservation(ctx, r.wh)
	return out, err
}

// readConservation sums up the differences of both views.
func readConservation(ctx context.Context, wh *clickhouse.Conn) (byPartition, byEvent uint64, err error) {
	var found []struct {
		ByPartition uint64 `ch:"by_partition"`
		ByEvent     uint64 `ch:"by_event"`
	}
	err = wh.Select(ctx, &found, `
		SELECT
			(SELECT toUInt64(sum(abs(difference))) FROM conservation) AS by_partition,
			(SELECT toUInt64(sum(abs(difference))) FROM workspace_conservation) AS by_event`)
	if err != nil {
		return 0, 0, fmt.Errorf("reading conservation: %w", err)
	}
	return found[0].ByPartition, found[0].ByEvent, nil
}

// repairPartition brings the base table and the finished batches of a partition to the
// last stable offset of its log.
func (r *repairer) repairPartition(ctx context.Context, c *partitionClaim) (found RepairedPartition, err error) {
	found.Topic = c.mapping.topic
	found.Partition = c.partition
	if err := c.checkTopic(); err != nil {
		return found, err
	}
	batches, err := r.readBatchesFrom(ctx, c, 0)
	if err != nil {
		return found, err
	}
	end, err := r.readEndOfRows(ctx, c)
	if err != nil {
		return found, err
	}
	for _, b := range batches {
		end = max(end, int64(b.End))
	}
	if end > c.logEnd {
		return found, fmt.Errorf("%w: the table goes to offset %d, the log ends at %d: this is another cluster, or it "+
			"lost records", ErrLostRange, end, c.logEnd)
	}
	p := r.newPartition(c.mapping, c.partition, 0, nil)
	defer p.kill()
	if found.DoubledBefore, err = r.countDoubledBefore(ctx, c); err != nil {
		return found, err
	}
	from := int64(0)
	for _, gap := range findGaps(0, c.logStable, batches) {
		if err := r.repairRange(ctx, p, c, offsetRange{uint64(from), gap.Start}, true, &found); err != nil {
			return found, err
		}
		if err := r.repairRange(ctx, p, c, gap, false, &found); err != nil {
			return found, err
		}
		from = int64(gap.End)
	}
	if err := r.repairRange(ctx, p, c, offsetRange{uint64(from), uint64(c.logStable)}, true, &found); err != nil {
		return found, err
	}
	gone, err := r.countGone(ctx, c, found.DoubledBefore)
	found.Dropped = min(gone, c.dropped)
	found.Gone = gone - found.Dropped
	return found, err
}

// repairRange compares a range with the log. Either finished batches cover all of it, or
// none covers any of it: then it is recorded as batches, and as lost in front of the
// log's start.
func (r *repairer) repairRange(ctx context.Context, p *partition, c *partitionClaim, within offsetRange, covered bool,
	found *RepairedPartition) error {
	start := int64(within.Start)
	end := int64(within.End)
	if before := min(end, c.logStart); start < before {
		if !covered {
			lost, err := p.recordLostRange(ctx, c.topicID, start, before)
			if err != nil {
				return err
			}
			found.Lost += lost.Lost
			found.Recorded += lost.Lost
		}
		start = before
	}
	if start >= end {
		return nil
	}
	var pending []*kgo.Record
	size := 0
	repairPending := func(until int64) error {
		id := batchID{topicID: c.topicID, partition: c.partition, start: start, end: until}
		if err := r.repairChunk(ctx, p, c, newCompletedBatch(id, pending), covered, found); err != nil {
			return fmt.Errorf("[%d, %d): %w", start, until, err)
		}
		pending = nil
		size = 0
		start = until
		return nil
	}
	reader := kafka.RangeReader{Kafka: r.kafka, Log: r.log, Isolation: kgo.ReadCommitted()}
	err := reader.Each(ctx, func(records []*kgo.Record) error {
		for _, record := range records {
			if c.droppedMonths[record.Timestamp.UTC().Format("200601")] {
				continue // it has no row any more, and counts all the same
			}
			if len(pending) >= r.cfg.BatchRows || size >= r.cfg.BatchBytes {
				if err := repairPending(pending[len(pending)-1].Offset + 1); err != nil {
					return err
				}
			}
			pending = append(pending, record)
			size += len(record.Value)
		}
		return nil
	}, kafka.Range{Topic: r.kafka.Topic(c.mapping.topic), Partition: c.partition, From: start, To: end})
	if err != nil || start == end {
		return err
	}
	return repairPending(end)
}

// repairChunk inserts the rows that a part of the log lacks. Rows that are there twice are
// deleted, all of them, and inserted once: if that is cut off between, they are missing,
// and the next repair inserts them.
func (r *repairer) repairChunk(ctx context.Context, p *partition, c *partitionClaim, b *batch, covered bool,
	found *RepairedPartition) error {
	if err := p.decidePlaces(ctx, b); err != nil {
		return err
	}
	present, several, err := p.readOffsets(ctx, b.start, b.end)
	if err != nil {
		return err
	}
	found.Records += len(b.records)
	b.keptDoubled = map[int64]bool{}
	for _, offset := range several {
		b.keptDoubled[offset] = true
	}
	var doubled []int64
	missing := 0
	for _, record := range b.records {
		if b.keptDoubled[record.Offset] { // those that the log has not could not be inserted again
			doubled = append(doubled, record.Offset)
			delete(b.keptDoubled, record.Offset)
		}
		if !present[record.Offset] {
			missing++
		}
	}
	if !p.mapping.isCompacted {
		late, err := r.countLate(ctx, c, b.start, b.end)
		if err != nil {
			return err
		}
		found.Unexplained += len(present) + missing - len(b.records) + len(b.keptDoubled) - late
	}
	if len(doubled) > 0 {
		if err := r.deleteRows(ctx, p, doubled); err != nil {
			return err
		}
		found.Doubled += len(doubled)
	}
	// Behind the last record are only markers: a sink takes them into its next batch.
	isRest := len(b.records) == 0 && b.end == c.logStable && b.start > c.logStart
	if covered && missing == 0 || isRest {
		return nil
	}
	// No earlier insert has this token, so that none that the tables remember swallows
	// this one.
	b.tokenSuffix = "/repair-" + rand.Text()
	b.presentOffsets = present
	inserted, err := p.insertMissing(ctx, b)
	if err != nil {
		return err
	}
	found.Inserted += max(inserted-len(doubled), 0)
	if covered {
		return nil
	}
	if err := p.resumeBatch(ctx, b); err != nil {
		return err
	}
	found.Recorded += b.end - b.start
	return nil
}

// countLate counts the offsets in [start, end) with rows of months that were dropped. They
// came later, by a clock that was wrong, and stay. Their records are not compared.
func (r *repairer) countLate(ctx context.Context, c *partitionClaim, start, end int64) (int, error) {
	if len(c.droppedMonths) == 0 {
		return 0, nil
	}
	var found []struct {
		Late uint64 `ch:"late"`
	}
	err := r.wh.Select(ctx, &found, `
		SELECT uniqExact(src_offset) AS late
		FROM `+c.mapping.table+`
		WHERE src_partition = {partition:UInt32}
			AND src_offset >= {start:UInt64}
			AND src_offset < {end:UInt64}
			AND has({months:Array(String)}, _partition_id)`,
		clickhouse.Named("partition", c.partition),
		clickhouse.Named("start", uint64(start)),
		clickhouse.Named("end", uint64(end)),
		clickhouse.Named("months", slices.Collect(maps.Keys(c.droppedMonths))))
	if err != nil {
		return 0, fmt.Errorf("looking for rows that came after their month was dropped: %w", err)
	}
	return int(found[0].Late), nil
}

// deletesAtOnce bounds the offsets that one statement names: twenty bytes each, of the
// 256 KiB that ClickHouse parses.
const deletesAtOnce = 5_000

// deleteRows deletes all rows at some offsets.
func (r *repairer) deleteRows(ctx context.Context, p *partition, offsets []int64) error {
	for some := range slices.Chunk(offsets, deletesAtOnce) {
		var list []string // only numbers are formatted into the SQL
		for _, offset := range some {
			list = append(list, strconv.FormatInt(offset, 10))
		}
		err := r.wh.Exec(ctx, fmt.Sprintf("DELETE FROM %s WHERE src_partition = %d AND src_offset IN (%s)",
			p.mapping.table, p.id, strings.Join(list, ", ")))
		if err != nil {
			return fmt.Errorf("deleting rows that are there twice: %w", err)
		}
	}
	return r.afterStep("doubled-rows-deleted")
}

// readDropped sets what was dropped of each partition by month.
func (r *repairer) readDropped(ctx context.Context, claims []*partitionClaim) error {
	marked, err := readDroppedMonths(ctx, r.wh)
	if err != nil {
		return err
	}
	for month, done := range marked {
		if !done {
			return fmt.Errorf("month %s is half dropped: run `ctl warehouse drop-months` again", month)
		}
	}
	var found []struct {
		Table     string `ch:"table_name"`
		Partition uint32 `ch:"src_partition"`
		Rows      uint64 `ch:"n"`
		End       uint64 `ch:"end"`
	}
	err = r.wh.Select(ctx, &found, `
		SELECT table_name, src_partition, sum(dropped_rows.rows) AS n, max(end_offset) AS end
		FROM dropped_rows FINAL
		WHERE month IN (SELECT month FROM dropped_months)
		GROUP BY table_name, src_partition`)
	if err != nil {
		return fmt.Errorf("reading how many rows were dropped: %w", err)
	}
	for _, c := range claims {
		if !slices.Contains(droppedTables(), c.mapping.table) {
			continue
		}
		c.droppedMonths = marked
		for _, f := range found {
			if f.Table == c.mapping.table && int32(f.Partition) == c.partition {
				c.dropped = f.Rows
				c.droppedEnd = int64(f.End)
			}
		}
	}
	return nil
}

// countGone counts the rows in front of the log's start, or of the end of what was
// dropped, and of batches across it, that the batches had and the table no longer has.
// doubled are rows too many among those.
func (r *repairer) countGone(ctx context.Context, c *partitionClaim, doubled uint64) (uint64, error) {
	var found []struct {
		Gone uint64 `ch:"gone"`
	}
	err := r.wh.Select(ctx, &found, `
		WITH
			(
				SELECT (sum(rows), max(end_offset))
				FROM batches FINAL
				WHERE topic = {topic:String}
					AND partition = {partition:UInt32}
					AND start_offset < {start:UInt64}
			) AS had,
			(
				SELECT count() - {doubled:UInt64}
				FROM `+c.mapping.table+`
				WHERE src_partition = {partition:UInt32}
					AND src_offset < had.2
			) AS has
		SELECT toUInt64(if(had.1 > has, had.1 - has, 0)) AS gone`,
		clickhouse.Named("topic", c.mapping.topic),
		clickhouse.Named("partition", c.partition),
		clickhouse.Named("doubled", doubled),
		clickhouse.Named("start", uint64(max(c.logStart, c.droppedEnd))))
	if err != nil {
		return 0, fmt.Errorf("counting the rows that Kafka no longer has: %w", err)
	}
	return found[0].Gone, nil
}

// offsetsPerCount bounds the memory in which rows are counted by their offsets.
const offsetsPerCount = 5_000_000

// countDoubledBefore counts the rows too many in front of the log's start. Which of them
// to insert again Kafka no longer says.
func (r *repairer) countDoubledBefore(ctx context.Context, c *partitionClaim) (doubled uint64, err error) {
	for from := int64(0); from < c.logStart; from += offsetsPerCount {
		var found []struct {
			Doubled uint64 `ch:"doubled"`
		}
		err := r.wh.Select(ctx, &found, `
			SELECT toUInt64(count() - uniqExact(src_offset)) AS doubled
			FROM `+c.mapping.table+`
			WHERE src_partition = {partition:UInt32}
				AND src_offset >= {from:UInt64}
				AND src_offset < {to:UInt64}`,
			clickhouse.Named("partition", c.partition),
			clickhouse.Named("from", uint64(from)),
			clickhouse.Named("to", uint64(min(from+offsetsPerCount, c.logStart))))
		if err != nil {
			return 0, fmt.Errorf("looking for rows that are there twice: %w", err)
		}
		doubled += found[0].Doubled
	}
	return doubled, nil
}

// findIncomplete finds the time before which sums of a partition may count rows that are
// gone: a row lies no later than a day behind its arrival, and what arrived after the
// first row that the log still has is in the table.
func (r *repairer) findIncomplete(ctx context.Context, c *partitionClaim, gone uint64) (rollup.Incomplete, error) {
	at := rollup.Incomplete{Topic: c.mapping.topic, Partition: uint32(c.partition), Gone: gone}
	var first []struct {
		Rows   uint64 `ch:"n"`
		Oldest int64  `ch:"oldest"`
	}
	err := r.wh.Select(ctx, &first, `
		SELECT count() AS n, toInt64(toUnixTimestamp(min(arrived_at))) AS oldest
		FROM `+c.mapping.table+`
		WHERE src_partition = {partition:UInt32}
			AND src_offset >= {start:UInt64}`,
		clickhouse.Named("partition", c.partition),
		clickhouse.Named("start", uint64(max(c.logStart, c.droppedEnd))))
	if err != nil {
		return at, fmt.Errorf("looking for the oldest row that Kafka still has: %w", err)
	}
	if first[0].Rows > 0 {
		at.Before = first[0].Oldest + int64(oldestArrivalMargin.Seconds())
	}
	return at, nil
}
