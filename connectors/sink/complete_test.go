package sink

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

func (r *rig) complete() []Completed {
	r.t.Helper()
	var done []Completed
	s := r.sink(r.wh)
	if err := CheckIdle(r.t.Context(), s.kafka, discard()); err != nil {
		r.t.Fatal(err)
	}
	if err := Complete(r.t.Context(), s.cfg, s.kafka, r.codec, r.wh, discard(), func(c Completed) {
		done = append(done, c)
	}); err != nil {
		r.t.Fatal(err)
	}
	return done
}

// exec runs a statement. One that waits for a mutation is repeated if that was cut off
// (UNFINISHED, of ABORTED), as by a partition that is attached meanwhile.
func (r *rig) exec(statement string) {
	r.t.Helper()
	const unfinished, attempts = 341, 10
	err := r.wh.Exec(r.t.Context(), statement)
	for n := 1; n < attempts && clickhouse.Code(err) == unfinished; n++ {
		time.Sleep(pollFirst)
		err = r.wh.Exec(r.t.Context(), statement)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) rebuild() {
	r.t.Helper()
	if _, err := r.wh.Rebuild(r.t.Context(), clickhouse.Rebuild{Table: "partner_quarter_hourly_state",
		TimeColumn: "quarter_hour"}); err != nil {
		r.t.Fatal(err)
	}
}

// goesOn shows that a sink takes up where Complete left off, and that all tables and
// the rollup are right.
func (r *rig) goesOn() {
	r.t.Helper()
	r.rebuild()
	r.fill(100)
	run := r.start(r.sink(r.wh))
	r.arrived()
	run.stop(r.t)
	r.check()
}

// age makes the tables forget, as far as the sink can know, every token that is not
// newer.
func (r *rig) age() {
	r.t.Helper()
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) SELECT 'x', " +
		"'clicks', 99, number, number + 1, 1 FROM numbers(50000)")
}

// A batch that was inserted in part, with replays, dead letters and rows that are
// missing, becomes whole, once, however often it is tried.
func TestCompleteHalfDone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.takeCatalog(t)
	r.spread = 1
	var clicks []*kgo.Record
	for i := range 40 {
		c := r.click(10 * i)
		clicks = append(clicks, r.clickRecord(c, 0, false))
	}
	r.produce("clicks", clicks...)
	for _, name := range []string{"clicks", "human_clicks", "tokened_clicks"} {
		r.sums[name] += 40
	}
	again := []*kgo.Record{}
	for i := range 10 { // sent again: none of them is a row
		rec := *clicks[3*i]
		rec.Headers = append([]kgo.RecordHeader{{Key: topic.HeaderReplay, Value: []byte("1")}}, rec.Headers...)
		again = append(again, &rec)
	}
	kafkatest.Produce(t, r.brokers, append(again, &kgo.Record{Topic: topic.Clicks, Key: []byte("k"),
		Value: []byte("nothing")})...)
	s := r.sink(r.wh)
	killAt(s, stepInsertDone, topic.Clicks, 1)
	r.start(s).killed(t)
	// as if the insert had been cut off; the tables' memory of its token stays
	r.exec("DELETE FROM clicks WHERE src_offset IN (0, 3, 17)")
	r.age()
	r.stops(t, ErrHalfDone, "ctl rollup rebuild")
	r.exec("DELETE FROM batches WHERE partition = 99")
	if done := r.complete(); len(done) != 1 || done[0].Had != 37 || done[0].Inserted != 3 || done[0].Start != 0 ||
		done[0].End != 40 {
		t.Errorf("completed %+v, want 3 rows beside 37", done)
	}
	if done := r.complete(); len(done) != 0 {
		t.Errorf("and again %+v", done)
	}
	r.goesOn()
	if letters := kafkatest.Consume(t, r.brokers, topic.DeadLetters); len(letters) != 1 {
		t.Errorf("%d dead letters, want 1", len(letters))
	}
}

// A batch that is missing between others is put back; a batch of the log that is gone
// is marked as lost, and what is left goes on.
func TestCompleteGaps(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 1
	for range 3 {
		r.fill(100)
		run := r.start(r.sink(r.wh))
		r.arrived()
		run.stop(t)
	}
	r.exec("DELETE FROM batches WHERE topic = 'clicks' AND start_offset = 100")
	r.exec("DELETE FROM clicks WHERE src_offset >= 150 AND src_offset < 160")
	r.stops(t, ErrHalfDone, "ctl rollup rebuild")
	if done := r.complete(); fmt.Sprint(done) != "[{clicks 0 100 200 90 10 0}]" {
		t.Errorf("completed %+v", done)
	}
	r.goesOn()

	// The outcomes' log loses what no sink has read.
	var outcomes []*event.Outcome
	for i := range 50 {
		_, o := r.pair(i, 0)
		outcomes = append(outcomes, o)
	}
	was, sums := len(r.want["outcomes"]), fmt.Sprint(r.sums)
	r.judge(outcomes)
	lost := r.want["outcomes"][was:]
	r.want["outcomes"] = r.want["outcomes"][:was]
	if sums == fmt.Sprint(r.sums) {
		t.Fatal("nothing was judged")
	}
	for _, name := range []string{"sales"} {
		r.sums[name] -= 50
	}
	for _, o := range outcomes {
		r.sums["gross_minor"] -= *o.AmountMinor
		r.sums["reward_minor"] -= *o.EstimatedRewardMinor
	}
	cut := int64(lost[len(lost)-1].Offset) + 1
	if err := r.cluster.DeleteRecords(topic.Outcomes, 0, cut); err != nil {
		t.Fatal(err)
	}
	r.stops(t, ErrLostRange, "ctl rollup rebuild")
	if done := r.complete(); len(done) != 1 || done[0].Lost == 0 || done[0].End != cut || done[0].Had != 0 {
		t.Errorf("completed %+v, want one range up to %d lost", done, cut)
	}
	r.goesOn()
	var marked []struct {
		Lost uint64 `ch:"lost"`
	}
	if err := r.wh.Select(t.Context(), &marked, "SELECT lost FROM batches FINAL WHERE lost > 0"); err != nil ||
		len(marked) != 1 || marked[0].Lost < 50 {
		t.Errorf("batches mark %v as lost, %v", marked, err)
	}
}

// The tables are not touched while a sink runs.
func TestCheckIdle(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.sink(r.wh)
	run := r.start(s)
	<-run.Ready()
	if err := CheckIdle(t.Context(), s.kafka, discard()); !errors.Is(err, ErrBusy) {
		t.Errorf("while one runs: %v", err)
	}
	run.stop(t)
	for deadline := time.Now().Add(hang); CheckIdle(t.Context(), s.kafka, discard()) != nil; time.Sleep(
		20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the group still has members after its sink left")
		}
	}
}

// The tables are settled where no sink runs and every declared batch is recorded, and
// nowhere else.
func TestCheckSettled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 1
	settled := func(want error, text string) {
		t.Helper()
		err := CheckSettled(t.Context(), r.sink(r.wh).kafka, r.wh, discard())
		if !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %v, %q", err, want, text)
		}
	}
	settled(nil, "")
	r.takeCatalog(t)
	for at, text := range map[step]string{
		stepIntentWritten: "[%d, %d) is declared and not recorded",
		stepInsertDone:    "table clicks has rows up to offset %[2]d, table batches records them up to %[1]d",
	} {
		r.fill(100)
		var declared [2]int64
		s := r.sink(r.wh)
		killAt(s, at, topic.Clicks, 1)
		r.start(s).killed(t)
		for _, c := range r.partitionStates() {
			if c.mapping.topic == topic.Clicks && c.partition == 0 {
				declared = [2]int64{c.intent.start, c.intent.end}
			}
		}
		settled(ErrUnrecorded, "clicks partition 0: unfinished batch: "+fmt.Sprintf(text, declared[0], declared[1]))
		run := r.start(r.sink(r.wh))
		r.arrived()
		settled(ErrBusy, "has 1 members")
		run.stop(t)
		settled(nil, "")
	}
	// Tables of yesterday's backup: what was declared since concerns none of their rows.
	r.exec("DELETE FROM clicks WHERE src_offset >= 1")
	r.exec("DELETE FROM batches WHERE topic = 'clicks'")
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES " +
		"('" + r.partitionStates()[0].topicID + "', 'clicks', 0, 0, 1, 1)")
	settled(nil, "")
}

// partitionStates reads what the group and the tables say about each partition, as
// Complete does.
func (r *rig) partitionStates() []*partitionClaim {
	r.t.Helper()
	s := r.sink(r.wh)
	var err error
	if s.client, err = kafka.NewClient(s.kafka, discard(), nil); err != nil {
		r.t.Fatal(err)
	}
	defer s.client.Close()
	if s.topicIDs, s.partitionCounts, err = s.readTopics(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	claims, err := s.readPartitionStates(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return claims
}
