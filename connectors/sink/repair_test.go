package sink

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/sink/rollup"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// tryRepair repairs the tables, and ends as if killed behind a step; "": it does not.
func (r *rig) tryRepair(killedAt string) (found []RepairedPartition, result RepairResult, err error) {
	r.t.Helper()
	return r.tryTake(false, killedAt)
}

// tryTake is tryRepair, which takes the group if take is true.
func (r *rig) tryTake(take bool, killedAt string) (found []RepairedPartition, result RepairResult, err error) {
	r.t.Helper()
	s := r.sink(r.wh)
	s.cfg.BatchRows = 40
	repair := &repairer{Sink: s, take: take, report: func(f RepairedPartition) { found = append(found, f) },
		afterStep: func(step string) error {
			if step == killedAt {
				return errKilled
			}
			return nil
		}}
	result, err = repair.run(r.t.Context())
	return found, result, err
}

// repairs repairs the tables and compares them with what was produced.
func (r *rig) repairs() (total RepairedPartition, result RepairResult) {
	r.t.Helper()
	found, result, err := r.tryRepair("")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range found {
		total.Inserted += f.Inserted
		total.Doubled += f.Doubled
		total.Recorded += f.Recorded
		total.Lost += f.Lost
		total.Gone += f.Gone
		total.Unexplained += f.Unexplained
	}
	if result.Conservation+result.WorkspaceConservation != 0 {
		r.t.Errorf("conservation is %+v", result)
	}
	r.check()
	return total, result
}

// wants compares what a repair did with what it should have done.
func (r *rig) wants(name string, got, want RepairedPartition) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("%s: repaired %+v, want %+v", name, got, want)
	}
}

// consume runs a sink until all that was produced is in the tables.
func (r *rig) consume() {
	r.t.Helper()
	run := r.start(r.sink(r.wh))
	r.arrived()
	run.stop(r.t)
}

// truncate empties all tables that the sink fills.
func (r *rig) truncate() {
	r.t.Helper()
	for _, table := range []string{"clicks", "conversions", "outcomes", "catalog_versions", "batches", rollup.Table,
		"effects_by_event_id", "sales_by_order_id", "conversions_by_key", "outcomes_by_key"} {
		r.exec("TRUNCATE TABLE " + table)
	}
}

// Whatever was lost, deleted or doubled in ClickHouse comes back from Kafka, and a
// repair that finds nothing changes nothing.
func TestRepair(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 2
	for range 2 { // the first batch is acknowledged when the second is declared
		r.fill(100)
		r.consume()
	}
	total, result := r.repairs()
	r.wants("nothing is wrong", total, RepairedPartition{})
	if result.Sums.Lines != 0 {
		t.Errorf("nothing is wrong: %+v", result)
	}

	r.truncate()
	r.stops(t, ErrForgotten, "ctl warehouse repair")
	catalog := len(r.want["catalog_versions"])
	if total, _ := r.repairs(); total.Inserted != 240+catalog || total.Lost != 0 {
		t.Errorf("emptied: %+v, want 200 clicks, 20 conversions and outcomes, and %d of the catalog", total, catalog)
	}
	r.fill(100)
	r.consume()
	r.check()

	r.exec("DELETE FROM clicks WHERE src_partition = 1 AND src_offset = 7")
	r.exec("DELETE FROM outcomes WHERE src_partition = 0 AND src_offset = " + r.firstOffset("outcomes"))
	total, _ = r.repairs()
	r.wants("deleted rows", total, RepairedPartition{Inserted: 2})

	r.exec("INSERT INTO clicks SELECT * FROM clicks WHERE src_partition = 1 AND src_offset IN (7, 8)")
	r.exec("INSERT INTO outcomes SELECT * FROM outcomes WHERE src_partition = 0 AND src_offset = " +
		r.firstOffset("outcomes"))
	total, _ = r.repairs()
	r.wants("doubled rows", total, RepairedPartition{Doubled: 3})

	view := "partner_quarter_hourly_from_clicks"
	create := r.text("SELECT create_table_query AS s FROM system.tables WHERE database = currentDatabase() AND " +
		"name = '" + view + "'")
	r.exec("DROP VIEW " + view + " SYNC")
	r.fill(100)
	r.consume()
	if _, _, err := r.tryRepair(""); !errors.Is(err, rollup.ErrNoView) || !strings.Contains(err.Error(), view) {
		t.Errorf("without a view: %v", err)
	}
	r.exec(create)
	total, result = r.repairs()
	r.wants("a view was dropped", total, RepairedPartition{})
	if result.Sums.Lines == 0 {
		t.Error("a view was dropped: no line of the rollup was corrected")
	}

	r.exec("ALTER TABLE " + rollup.Table + " DROP PARTITION ID '202603'")
	total, _ = r.repairs()
	r.wants("a month of the rollup was dropped", total, RepairedPartition{})
}

// firstOffset returns the offset of a table's first row in partition 0.
func (r *rig) firstOffset(table string) string {
	r.t.Helper()
	return fmt.Sprint(r.places(table)[0].Offset)
}

// A repair that is killed is repeated and killed at its next step, and so on: the one
// that is left alone makes the tables whole.
func TestRepairKilled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 1
	r.fill(150)
	r.consume()
	steps := []string{"doubled-rows-deleted", stepInsertSent.String(), stepInsertDone.String(),
		stepBatchRecorded.String(), "sums-added"}
	damage := func() {
		r.exec("INSERT INTO clicks SELECT * FROM clicks WHERE src_offset IN (7, 8)")
		r.exec("DELETE FROM clicks WHERE src_offset >= 140")
		r.exec("DELETE FROM outcomes WHERE 1")
		r.exec("DELETE FROM batches WHERE topic = 'clicks' OR topic = 'outcomes'")
	}
	damage()
	for _, step := range steps {
		if _, _, err := r.tryRepair(step); !errors.Is(err, errKilled) {
			t.Fatalf("%s: %v", step, err)
		}
		if long { // each kill by itself
			r.repairs()
			damage()
		}
	}
	r.repairs()
	r.fill(50)
	r.consume()
	r.check()
}

// A backup of yesterday, and an empty database, are filled up while no sink runs.
func TestRepairFillsDatabases(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 1
	r.fill(100)
	r.consume()
	first := r.wh
	second := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	for _, table := range []string{"clicks", "conversions", "outcomes", "catalog_versions", "batches"} {
		if err := second.Exec(t.Context(), fmt.Sprintf("INSERT INTO %s SELECT * FROM %s.%s",
			table, first.Database(), table)); err != nil {
			t.Fatal(err)
		}
	}
	r.fill(100)
	r.consume()
	r.wh = second
	if total, _ := r.repairs(); total.Inserted != 120 {
		t.Errorf("restored from yesterday: %+v, want 120 rows", total)
	}
	r.truncate()
	if total, _ := r.repairs(); total.Inserted != 240+len(r.want["catalog_versions"]) {
		t.Errorf("empty: %+v, want 240 rows and those of the catalog", total)
	}
	r.fill(100)
	r.consume()
	r.check()
}

// Sums of rows that neither Kafka nor the table has stay, and a repair that cannot tell
// them from too much says so.
func TestRepairKeepsSumsOfGoneRows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 1
	r.fill(100)
	r.consume()
	if err := r.cluster.DeleteRecords(topic.Clicks, 0, 20); err != nil {
		t.Fatal(err)
	}
	r.exec("DELETE FROM clicks WHERE src_offset < 20")
	r.want["clicks"] = slices.DeleteFunc(r.want["clicks"], func(s spot) bool { return s.Offset < 20 })
	r.exec("INSERT INTO clicks SELECT * REPLACE (99 AS src_partition) FROM clicks LIMIT 1") // too many, elsewhere
	r.exec("DELETE FROM clicks WHERE src_partition = 99")
	total, result := r.repairs()
	r.wants("rows are gone", total, RepairedPartition{Gone: 20})
	if result.Sums.Kept == 0 || result.Sums.Excess != 0 || fmt.Sprint(result.Sums.KeptDays) != "[2026-03-14]" ||
		result.Sums.Lines != 1 {
		t.Errorf("rows are gone: %+v, want kept lines, and one corrected: of the partition that has all its rows",
			result.Sums)
	}
	r.exec("DELETE FROM clicks WHERE src_offset = 50")
	if _, result, err := r.tryRepair(""); err != nil || result.Sums.Excess != 1 {
		t.Errorf("a row of these days was deleted, too: %+v %v", result.Sums, err)
	}

	// Emptied, with nothing left of them.
	r.truncate()
	r.sums["clicks"] = 80
	delete(r.sums, "human_clicks")
	delete(r.sums, "tokened_clicks")
	total, result = r.repairs()
	if total.Lost != 20 || total.Gone != 0 || result.Sums.Kept != 0 {
		t.Errorf("emptied: %+v %+v", total, result.Sums)
	}

	// A row that is doubled does not stand for one that is gone.
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) SELECT topic_id, topic, " +
		"0, 0, 20, 20 FROM batches WHERE topic = 'clicks' LIMIT 1")
	r.exec("INSERT INTO clicks SELECT * REPLACE (5 AS src_offset) FROM clicks LIMIT 2")
	found, _, err := r.tryRepair("")
	if err != nil || len(found) != 1 || found[0].Gone != 19 || found[0].DoubledBefore != 1 {
		t.Errorf("rows are gone and one is doubled: %+v %v", found, err)
	}
}

// A row at an offset where the log has no record is said and stays; so do rows that are
// there twice and that Kafka could not give again.
func TestRepairLeavesUnexplainedRows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	kafkatest.Produce(t, r.brokers, &kgo.Record{Topic: topic.Clicks, Key: []byte("k"), Value: []byte("nothing")})
	r.spread = 1
	r.fill(10)
	r.consume()
	r.exec("INSERT INTO outcomes SELECT * REPLACE (1 AS src_offset) FROM outcomes") // of a transaction's marker
	r.exec("INSERT INTO outcomes SELECT * FROM outcomes WHERE src_offset = 1")
	found, _, err := r.tryRepair("")
	if err != nil || len(found) != 1 || found[0].Unexplained != 1 || found[0].Inserted+found[0].Doubled != 0 {
		t.Errorf("repaired %+v, %v", found, err)
	}
	if n := len(r.places("outcomes")); n != 3 {
		t.Errorf("%d rows of outcomes, want 3", n)
	}
	if letters := kafkatest.Consume(t, r.brokers, topic.DeadLetters); len(letters) != 1 {
		t.Errorf("%d dead letters, want 1", len(letters))
	}
}

// A sink waits while a repair holds the tables, and says why; a repair waits for no sink.
// A lock of a repair that was killed holds nothing after half a minute.
func TestRepairLock(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("INSERT INTO repairs (holder, host, beat_at) SELECT 'killed', 'h', now64(3) - 31")
	_, lock, err := acquireRepairLock(t.Context(), r.wh)
	if err != nil {
		t.Fatal(err)
	}
	var logged kafkatest.LogBuffer
	s := r.sink(r.wh)
	s.repairWatch = outage.New(slog.New(slog.NewTextHandler(&logged, nil)), repairEnd)
	run := r.start(s)
	waits := "waiting for the end of .*ctl warehouse repair.* on host"
	for deadline := time.Now().Add(hang); logged.Count(waits) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the sink does not say that it waits")
		}
		time.Sleep(20 * time.Millisecond)
	}
	select {
	case <-run.Ready():
		t.Error("the sink does not wait")
	default:
	}
	if _, _, err := r.tryRepair(""); !errors.Is(err, ErrRepairing) {
		t.Errorf("a second repair: %v", err)
	}
	if err := Complete(t.Context(), s.cfg, s.kafka, r.codec, r.wh, discard(), nil); !errors.Is(err, ErrRepairing) {
		t.Errorf("completing beside a repair: %v", err)
	}
	if err := lock.release(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-run.Ready()
	if _, _, err := r.tryRepair(""); !errors.Is(err, ErrBusy) {
		t.Errorf("a repair beside a sink: %v", err)
	}
	run.stop(t)
}
