package sink

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/statement"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// progressed produces, of each partition, that the processor has judged all that is in the
// tables, up to a watermark; in the first partition some events wait since then.
func (r *rig) progressed(watermark time.Time, waiting uint64, since time.Time) {
	r.t.Helper()
	for p := range int32(kafkatest.Partitions) {
		var found []struct {
			Conversions uint64 `ch:"conversions"`
			Outcomes    uint64 `ch:"outcomes"`
			Events      uint64 `ch:"events"`
		}
		err := r.wh.Select(r.t.Context(), &found, `
			SELECT
				toUInt64(maxIf(end_offset, topic = 'conversions')) AS conversions,
				toUInt64(maxIf(end_offset, topic = 'outcomes')) AS outcomes,
				(SELECT count() FROM events_and_rows WHERE NOT judged AND src_partition = {p:UInt32}) AS events
			FROM tiled_ends
			WHERE partition = {p:UInt32}`, clickhouse.Named("p", uint32(p)))
		if err != nil {
			r.t.Fatal(err)
		}
		at := event.MillisOf(watermark)
		progress := &event.Progress{Partition: p, At: at, Watermark: at, GraceMs: (72 * time.Hour).Milliseconds(),
			ConversionsPosition: int64(found[0].Conversions), OutcomesEnd: int64(found[0].Outcomes),
			Read: int64(found[0].Events), Attributed: int64(found[0].Events)}
		if waiting > 0 && p == 0 {
			oldest := event.MillisOf(since)
			progress.Waiting = int64(waiting)
			progress.Read += int64(waiting)
			progress.OldestWaitingReceivedAt = &oldest
		}
		value, err := r.codec.AppendProgress(nil, progress)
		if err != nil {
			r.t.Fatal(err)
		}
		r.produce("progress", &kgo.Record{Topic: topic.Progress, Partition: p, Key: []byte{byte('0' + p)},
			Value: value, Timestamp: watermark})
	}
	r.arrived()
}

// figures are what must not change when months are dropped: sums, statements and both
// conservations.
func (r *rig) figures() string {
	r.t.Helper()
	queries := []string{
		"SELECT * FROM partner_daily ORDER BY ALL",
		"SELECT workspace_id, day, received, attributed, waiting, difference FROM workspace_conservation ORDER BY ALL",
		"SELECT partition, read, conversions_rows, outcomes_rows, difference FROM conservation ORDER BY ALL",
		"SELECT * FROM partner_days(tz = 'Europe/Berlin') ORDER BY ALL",
	}
	out := ""
	for _, query := range queries {
		out += r.text("SELECT arrayStringConcat(groupArray(toString(tuple(*))), '\n') AS s FROM ("+query+")") + "\n\n"
	}
	for month := range 3 { // before the events, theirs, and behind them
		start := time.Date(2026, time.Month(2+month), 1, 0, 0, 0, 0, time.UTC)
		var found []statement.Sums
		err := r.wh.Select(r.t.Context(), &found, statement.Query("workspace_id = 'w0'",
			"SELECT partner_id AS id, partner_key, partner_name FROM partners_now WHERE workspace_id = 'w0'"),
			clickhouse.Named("start", start.UnixMilli()),
			clickhouse.Named("end", start.AddDate(0, 1, 0).UnixMilli()))
		if err != nil {
			r.t.Fatal(err)
		}
		for _, sums := range found {
			out += fmt.Sprintf("%+v\n", sums)
		}
	}
	return out
}

// drop drops the months before an instant, and ends as if killed behind a step; "": it
// does not.
func (r *rig) drop(before time.Time, killedAt string) error {
	r.t.Helper()
	d, err := NewMonthDropper(r.wh, before, discard())
	if err != nil {
		return err
	}
	d.settle = time.Millisecond
	d.afterStep = func(step string) error {
		if step == killedAt {
			return errKilled
		}
		return nil
	}
	return d.Drop(r.t.Context())
}

// A month is dropped under a sink that runs, killed behind each step: no figure changes,
// conservation stays 0, and a repair neither inserts the rows again, which Kafka still has,
// nor takes their sums away.
func TestDropMonths(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 2
	before := monthOf(time.Now().AddDate(0, 0, -10))
	r.at = before.Add(-time.Hour)
	r.fill(100)
	r.consume()
	old := map[string]int{}
	for table, want := range r.want {
		old[table] = len(want)
	}
	run := r.start(r.sink(r.wh))
	r.progressed(r.at, 0, r.at)
	r.at = time.Time{}
	r.fill(100)
	r.arrived()

	refuses := func(name string, err error, text string) {
		t.Helper()
		if !errors.Is(err, ErrNotFinal) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v, want %v …%s…", name, err, ErrNotFinal, text)
		}
	}
	refuses("an old watermark", r.drop(before, ""), "may still get a row")
	r.progressed(before.Add(71*time.Hour), 0, before)
	refuses("within the grace", r.drop(before, ""), "may still get a row")
	r.progressed(time.Now(), 1, before.Add(-time.Minute))
	refuses("waits are open", r.drop(before, ""), "in 1 partitions")
	r.progressed(time.Now(), 0, before)
	r.exec("INSERT INTO conversions SELECT * REPLACE ('w9' AS workspace_id) FROM conversions WHERE event_id = 'e0' " +
		"LIMIT 1")
	refuses("something is wrong", r.drop(before, ""), "conservation is not 0")
	r.exec("DELETE FROM conversions WHERE workspace_id = 'w9'")
	refuses("the running month", r.drop(monthOf(time.Now()).AddDate(0, 1, 0), ""), "has not begun")

	want := r.figures()
	for _, step := range []string{"written-dropped_conversions", "written-dropped_outcomes", "counted", "marked",
		"dropped-clicks", "dropped-conversions", "dropped-outcomes", "dropped-rejections", "dropped-progress", "done",
		""} {
		if err := r.drop(before, step); step != "" && !errors.Is(err, errKilled) || step == "" && err != nil {
			t.Fatalf("killed behind %q: %v", step, err)
		}
		if diff := cmp.Diff(want, r.figures()); diff != "" {
			t.Fatalf("killed behind %q (-want +got):\n%.2000s", step, diff)
		}
	}
	for _, table := range []string{"clicks", "conversions", "outcomes"} {
		if diff := cmp.Diff(sorted(r.want[table][old[table]:]), r.places(table)); diff != "" {
			t.Errorf("%s (-want +got):\n%.2000s", table, diff)
		}
	}

	// A row that came later is not of what was dropped, and what was dropped is not written
	// anew from it.
	r.exec(fmt.Sprintf("INSERT INTO rejections (workspace_id, arrived_at) VALUES ('w0', fromUnixTimestamp64Milli(%d, "+
		"'UTC'))", before.Add(-time.Hour).UnixMilli()))
	if err := r.drop(before, ""); err != nil {
		t.Fatal(err)
	}
	if n := r.text("SELECT toString(count()) AS s FROM rejections"); n != "1" {
		t.Errorf("%s rows that came later", n)
	}
	if diff := cmp.Diff(want, r.figures()); diff != "" {
		t.Errorf("with a later row (-want +got):\n%.2000s", diff)
	}
	r.exec("DELETE FROM rejections WHERE 1")

	r.at = before.Add(-time.Hour) // by a clock that is wrong: their rows stay
	r.fill(10)
	r.at = time.Time{}
	r.fill(20)
	r.arrived()
	r.progressed(time.Now(), 0, before)
	run.stop(t)
	want = r.figures()
	kept := r.places("conversions")
	r.exec(fmt.Sprintf("DELETE FROM conversions WHERE src_partition = %d AND src_offset = %d", kept[0].Partition,
		kept[0].Offset))
	found, result, err := r.tryRepair("")
	if err != nil {
		t.Fatal(err)
	}
	var total RepairedPartition
	for _, f := range found {
		total.Inserted += f.Inserted
		total.Dropped += f.Dropped
		total.Gone += f.Gone
		total.Recorded += f.Recorded
		total.Unexplained += f.Unexplained
	}
	dropped := 100 + 10 + 10 + kafkatest.Partitions
	r.wants("a row of a kept month is missing", total, RepairedPartition{Inserted: 1, Dropped: uint64(dropped)})
	if result.Conservation+result.WorkspaceConservation+result.Sums.Excess != 0 {
		t.Errorf("repaired: %+v", result)
	}
	if diff := cmp.Diff(want, r.figures()); diff != "" {
		t.Errorf("repaired (-want +got):\n%.2000s", diff)
	}
	if from, err := SumsFrom(t.Context(), r.wh); err != nil || !from.Equal(before.Add(oldestArrivalMargin)) {
		t.Errorf("sums from %v, %v", from, err)
	}
}
