package sink

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/sink/rollup"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/event"
)

// quarter is the grain of the rollup.
const quarter = 15 * time.Minute

// quarterOf returns the quarter of an hour that a time is in, as the Unix time of its
// start, in seconds.
func quarterOf(at event.Millis) int64 { return at.Time().Truncate(quarter).Unix() }

const (
	// quartersPerQuery bounds the quarters of one query: twelve bytes each, of the
	// 128 KiB that ClickHouse accepts.
	quartersPerQuery = 5_000
	// maxRepairs bounds the repairs of one batch. Each of them can be lost as the
	// insert was, and the sink that takes over has to pass the tokens of lost ones again.
	maxRepairs = 50
	// oldestArrivalMargin is by how much the time of a row may lie before its arrival
	// without being taken for the time of a row that was dropped because of its age.
	oldestArrivalMargin = 24 * time.Hour
)

// verification checks one batch after an insert that was not its first try, and repairs
// what is missing.
//
// ClickHouse that is killed in an insert may have noted the deduplication token of a
// block and not the block. It then drops a repetition, and acknowledges it. This can
// happen to each block on its own: of the base table, of which there is one for each
// month, and of the rollup.
//
// Each repair is decided by what is in the tables, and has a token that names what it
// adds. A sink that verifies the batch again, or at the same time, does the same once more
// under the same tokens, or finds nothing to do.
type verification struct {
	*partition
	batch *batch
	whole batchSummary // of the batch as it was inserted
	// acknowledged counts inserts by the name of what they added. Another one of that
	// name gets another token: the one before did not add anything.
	acknowledged map[string]int
}

// verifyInsert compares the tables with a batch whose insert was repeated, and adds
// what is missing. An insert at the first try needs none of it.
func (p *partition) verifyInsert(ctx context.Context, b *batch) error {
	if !b.repeated {
		return p.reachStep(b, stepInsertVerified)
	}
	v := &verification{partition: p, batch: b, whole: b.summary, acknowledged: map[string]int{}}
	defer func() {
		b.summary = v.whole
		b.presentOffsets = nil
		b.quarters = nil
	}()
	for range maxRepairs {
		again, err := v.repairOnce(ctx)
		if err != nil {
			return fmt.Errorf("verifying batch [%d, %d): %w", b.start, b.end, err)
		}
		if !again {
			if err := v.fillLookups(ctx); err != nil {
				return fmt.Errorf("verifying batch [%d, %d): %w", b.start, b.end, err)
			}
			p.sink.metrics.verifications.WithLabelValues(p.mapping.topic).Inc()
			b.summary = v.whole
			return p.reachStep(b, stepInsertVerified)
		}
	}
	return fmt.Errorf("%w: table %s lacks rows of partition %d, [%d, %d), or %s their sums, after %d repairs: does "+
		"something delete them? Stop the sinks and run `ctl rollup rebuild`",
		ErrHalfDone, p.mapping.table, p.id, b.start, b.end, rollup.Table, maxRepairs)
}

// finding is what the tables lack of a batch.
type finding struct {
	missing     int    // rows of the base table
	digest      string // of the offsets that have no row
	differences []*clickhouse.SumDifferences
}

func (f finding) isClean() bool { return f.missing == 0 && len(f.differences) == 0 }

func (f finding) equal(other finding) bool {
	return f.digest == other.digest && fmt.Sprint(f.differences) == fmt.Sprint(other.differences)
}

// repairOnce does the first repair that is needed. It reports whether it has to be
// called again: there was one, or the tables are changing.
//
// The sums come first. The rollup may hold rows that the base table has lost: they are
// subtracted, and return when the missing rows are inserted, with all their views. So
// what is to do next always follows from the tables alone.
//
// It acts only on what it has found twice. An insert that a network has held back can
// arrive while it looks, and is in the base table before it is in the rollup.
func (v *verification) repairOnce(ctx context.Context) (again bool, err error) {
	buffer := v.sink.acquireRows(v.mapping)
	defer v.sink.releaseRows(v.mapping, buffer)
	found, err := v.inspectTables(ctx, buffer)
	if err != nil || found.isClean() {
		return false, err
	}
	if !outage.Sleep(ctx, v.sink.env.SettleTime) {
		return false, ctx.Err()
	}
	confirmed, err := v.inspectTables(ctx, buffer)
	if err != nil || !confirmed.equal(found) {
		return true, err
	}
	if len(found.differences) > 0 {
		repaired, err := v.repairSums(ctx, found)
		if repaired || err != nil {
			return repaired, err
		}
	}
	if found.missing == 0 {
		return false, nil
	}
	v.log.Warn("ClickHouse acknowledged a repeated insert without its rows; they are inserted now",
		"start", v.batch.start, "end", v.batch.end, "missing", found.missing, "of", v.whole.rows)
	err = v.insertUnder("rows/"+found.digest, func(token string) error {
		return v.insertBuffer(ctx, buffer, token, func() error { return nil })
	})
	if err != nil {
		return false, err
	}
	v.sink.metrics.repairedRows.WithLabelValues(v.mapping.topic).Add(float64(found.missing))
	return true, nil
}

// inspectTables compares base table and rollup with the batch. It leaves the rows that
// the base table lacks in buffer.
func (v *verification) inspectTables(ctx context.Context, buffer rowBuffer) (found finding, err error) {
	if err := v.awaitStillness(ctx); err != nil {
		return found, err
	}
	b := v.batch
	if b.presentOffsets, err = v.readPresentOffsets(ctx, b.start, b.end); err != nil {
		return found, err
	}
	if v.mapping.isSummed {
		b.quarters = map[int64]bool{}
	}
	buffer.resetRows()
	if err := v.collectRows(ctx, b, buffer); err != nil {
		return found, err
	}
	// A sink that did not know of places yet may have inserted misplaced records. Their
	// rows stay: they are neither missing nor a surplus.
	maps.DeleteFunc(b.presentOffsets, func(at int64, _ bool) bool { return b.misplaced[at] != nil })
	found.missing = b.summary.rows
	found.digest = v.missingOffsetsDigest()
	if present := len(b.presentOffsets); present+found.missing != v.whole.rows {
		return found, fmt.Errorf("%w: table %s has %d rows of partition %d in [%d, %d), and %d of the batch's %d are "+
			"missing: stop the sinks and find out what else inserted", ErrSurplus, v.mapping.table, present, v.id,
			b.start, b.end, found.missing, v.whole.rows)
	}
	for quarters := range slices.Chunk(slices.Sorted(maps.Keys(b.quarters)), quartersPerQuery) {
		differences, err := v.compareSums(ctx, quarters)
		if err != nil {
			return found, err
		}
		if differences.Lines() > 0 {
			found.differences = append(found.differences, differences)
		}
	}
	return found, nil
}

// insertUnder inserts under a token that begins with the batch's and says what is
// added. If an insert with that token was acknowledged and the same is missing again,
// the token was noted without its block, and the next one is used.
func (v *verification) insertUnder(name string, insert func(token string) error) error {
	token := fmt.Sprintf("%s/%s/%d", v.batch.deduplicationToken(), name, v.acknowledged[name])
	if err := insert(token); err != nil {
		return err
	}
	v.acknowledged[name]++
	return nil
}

// missingOffsetsDigest names the records that have no row. Among them are those that
// never get one.
func (v *verification) missingOffsetsDigest() string {
	h := sha256.New()
	for _, r := range v.batch.records {
		if !v.batch.presentOffsets[r.Offset] {
			fmt.Fprintln(h, r.Offset)
		}
	}
	return digestText(h.Sum(nil))
}

func digestText(sum []byte) string { return hex.EncodeToString(sum[:16]) }

// awaitStillness waits until no insert of the batch is running, of an earlier attempt or
// of another sink, and until this replica has caught up. Otherwise rows that are on
// their way would be taken for missing ones.
func (v *verification) awaitStillness(ctx context.Context) error {
	for {
		var found []struct {
			Running uint64 `ch:"running"`
		}
		err := v.sink.wh.Select(ctx, &found, `
			SELECT count() AS running
			FROM system.processes
			WHERE startsWith(concat(Settings['insert_deduplication_token'], '/'), {token:String})`,
			clickhouse.Named("token", v.batch.deduplicationToken()+"/"))
		if err != nil {
			return fmt.Errorf("looking for running inserts: %w", err)
		}
		if found[0].Running == 0 {
			break
		}
		if !outage.Sleep(ctx, 100*time.Millisecond) {
			return fmt.Errorf("waiting for %d running inserts: %w", found[0].Running, ctx.Err())
		}
	}
	tables := []string{v.mapping.table}
	if v.mapping.isSummed {
		tables = append(tables, rollup.Table)
	}
	for _, table := range tables {
		window, err := v.sink.wh.Window(ctx, table)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(window.Engine, "Replicated") {
			continue
		}
		if err := v.sink.wh.Exec(ctx, "SYSTEM SYNC REPLICA "+table+" LIGHTWEIGHT"); err != nil {
			return fmt.Errorf("waiting until this replica of %s has caught up: %w", table, err)
		}
	}
	return nil
}

// repairSums adds rows of differences to the rollup, and reports whether there were any
// to add.
func (v *verification) repairSums(ctx context.Context, found finding) (repaired bool, err error) {
	for _, all := range found.differences {
		differences, err := v.selectRepairable(ctx, all, found.missing)
		if err != nil {
			return repaired, err
		}
		if differences.Lines() == 0 {
			continue
		}
		lacking, surplus := countEvents(differences)
		v.log.Warn("the rollup differs from its rows after a repeated insert; the differences are added now",
			"start", v.batch.start, "end", v.batch.end, "lines", differences.Lines(),
			"missing", lacking, "of_missing_rows", surplus)
		digest := sha256.Sum256([]byte(differences.String()))
		err = v.insertUnder("sums/"+digestText(digest[:]), func(token string) error {
			return v.sink.wh.InsertDifferences(ctx, differences, token)
		})
		if err != nil {
			return repaired, err
		}
		v.sink.metrics.repairedSums.WithLabelValues(v.mapping.topic).Add(float64(differences.Lines()))
		repaired = true
	}
	return repaired, nil
}

// compareSums compares this partition's sums in some quarters, given in order.
func (v *verification) compareSums(ctx context.Context, quarters []int64) (*clickhouse.SumDifferences, error) {
	seconds := make([]uint32, len(quarters))
	for i, q := range quarters {
		seconds[i] = uint32(q)
	}
	return v.sink.wh.CompareSums(ctx, clickhouse.Comparison{
		Table: rollup.Table,
		// The bounds let ClickHouse skip what is older or younger.
		Within: `src_topic = {topic:String}
			AND src_partition = {partition:UInt32}
			AND quarter_hour >= fromUnixTimestamp({first:Int64})
			AND quarter_hour <= fromUnixTimestamp({last:Int64})
			AND toUnixTimestamp(quarter_hour) IN {quarters:Array(UInt32)}`,
		Args: []any{
			clickhouse.Named("topic", v.mapping.topic),
			clickhouse.Named("partition", v.id),
			clickhouse.Named("first", quarters[0]),
			clickhouse.Named("last", quarters[len(quarters)-1]),
			clickhouse.Named("quarters", seconds),
		},
	})
}

// countedColumns are the columns of the rollup of which a row adds at most 1 to one.
func countedColumns() []string {
	return []string{"clicks", "leads", "sales", "refunds", "cancellations", "reversals"}
}

// missingEvents returns the number of rows that a line lacks, negative if it has too
// many. A line that has only money may differ in it and lack none.
func missingEvents(d *clickhouse.SumDifferences, line int) *big.Int {
	sum := new(big.Int)
	for _, column := range countedColumns() {
		sum.Add(sum, d.Missing(line, column))
	}
	return sum
}

// countEvents returns the numbers of rows that lines lack, and that they have too many.
func countEvents(d *clickhouse.SumDifferences) (lacking, surplus *big.Int) {
	lacking = new(big.Int)
	surplus = new(big.Int)
	for line := range d.Lines() {
		if n := missingEvents(d, line); n.Sign() > 0 {
			lacking.Add(lacking, n)
		} else {
			surplus.Sub(surplus, n)
		}
	}
	return lacking, surplus
}

// selectRepairable returns the differences that are repaired. What is missing always is.
// What is too much is if the missing rows of the base table account for it. Differences
// stay where rows were dropped because of their age. In every other case it returns
// ErrSurplus: only a person can know which of the two tables is right.
func (v *verification) selectRepairable(ctx context.Context, all *clickhouse.SumDifferences, missing int) (
	*clickhouse.SumDifferences, error) {
	completeFrom, err := v.readCompleteFrom(ctx)
	if err != nil {
		return nil, err
	}
	isOld := func(line int) bool {
		at, _ := all.Key(line, rollup.TimeColumn).(time.Time)
		return at.Before(completeFrom)
	}
	repairable := all.Filter(func(line int) bool { return !isOld(line) || missingEvents(all, line).Sign() > 0 })
	_, surplus := countEvents(repairable)
	if missing > 0 {
		_, surplus = countEvents(all) // old or not, they may be the missing rows
	}
	switch {
	case surplus.Cmp(big.NewInt(int64(missing))) > 0:
		return nil, fmt.Errorf("%w: %s", ErrSurplus, v.describeSurplus(all, surplus, missing))
	case surplus.Sign() > 0 && repairable.Lines() < all.Lines():
		return nil, fmt.Errorf("%w, some of them of a time of which rows were dropped because of their age: %s",
			ErrSurplus, v.describeSurplus(all, surplus, missing))
	default:
		return repairable, nil
	}
}

// describeSurplus says where the rollup has how much too much, and what to do.
func (v *verification) describeSurplus(d *clickhouse.SumDifferences, surplus *big.Int, missing int) string {
	first := ""
	for line := range d.Lines() {
		if missingEvents(d, line).Sign() < 0 {
			first = fmt.Sprintf("workspace %v, quarter of an hour %v, link %v", d.Key(line, "workspace_id"),
				d.Key(line, rollup.TimeColumn), d.Key(line, "link_id"))
			break
		}
	}
	return fmt.Sprintf("table %s counts %v more than table %s has rows of partition %d of %s, which lacks %d rows of "+
		"the batch; the first are of %s: stop the sinks and run `ctl rollup rebuild`", rollup.Table, surplus,
		v.mapping.table, v.id, v.mapping.topic, missing, first)
}

// readCompleteFrom returns the time from which on the base table has all rows of the
// partition, or zero if it still has the first ones. Rows are dropped by age, whole
// months at a time and the oldest first.
func (v *verification) readCompleteFrom(ctx context.Context) (time.Time, error) {
	var found []struct {
		HasFirst bool      `ch:"has_first"`
		Oldest   time.Time `ch:"oldest"`
	}
	err := v.sink.wh.Select(ctx, &found, `
		WITH
		(
			SELECT min(end_offset)
			FROM batches
			WHERE topic = {topic:String}
				AND partition = {partition:UInt32}
				AND rows > 0
		) AS first_end
		SELECT
			first_end = 0 OR
			(
				SELECT count() > 0
				FROM `+v.mapping.table+`
				WHERE src_partition = {partition:UInt32}
					AND src_offset < first_end
			) AS has_first,
			(SELECT if(count() = 0, now64(3), min(arrived_at)) FROM `+v.mapping.table+`) AS oldest`,
		clickhouse.Named("topic", v.mapping.topic),
		clickhouse.Named("partition", v.id))
	if err != nil {
		return time.Time{}, fmt.Errorf("looking for the oldest rows of %s: %w", v.mapping.table, err)
	}
	if found[0].HasFirst {
		return time.Time{}, nil
	}
	return found[0].Oldest.Add(oldestArrivalMargin), nil
}
