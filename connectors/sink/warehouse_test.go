package sink

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/ddl"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// beside returns a rig with the same Kafka and an empty ClickHouse of its own, whose group
// has a suffix.
func (r *rig) beside(suffix string) *rig {
	r.t.Helper()
	b := *r
	b.dsn = clickhousetest.ForTest(r.t)
	b.wh = b.open(b.dsn)
	b.suffix = suffix
	if err := b.wh.Migrate(r.t.Context(), ddl.Migrations(), clickhouse.MigrateConfig{Log: discard()}); err != nil {
		r.t.Fatal(err)
	}
	return &b
}

// id returns the id of the rig's warehouse.
func (r *rig) id() string {
	r.t.Helper()
	w, err := readWarehouse(r.t.Context(), r.wh)
	if err != nil || w.ID == "" {
		r.t.Fatal(w, err)
	}
	return w.ID
}

// isEmpty fails the test if anything was inserted.
func (r *rig) isEmpty() {
	r.t.Helper()
	for _, table := range []string{"clicks", "conversions", "outcomes", "catalog_versions", "batches"} {
		if n := r.text("SELECT toString(count()) AS s FROM " + table); n != "0" {
			r.t.Errorf("%s has %s rows", table, n)
		}
	}
}

// commits returns the commits of a group, by topic and partition.
func (r *rig) commits(group string) kadm.OffsetResponses {
	r.t.Helper()
	commits, err := kadm.NewClient(kafkatest.Client(r.t, r.brokers)).FetchOffsets(r.t.Context(), group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		r.t.Fatal(err)
	}
	return commits
}

// named returns the warehouses that the commits of a group name; "" is none.
func (r *rig) named(group string) (ids []string) {
	r.t.Helper()
	for _, commit := range r.commits(group).Sorted() {
		note, err := parseCommitNote(commit.Metadata)
		if err != nil {
			r.t.Fatal(err)
		}
		if !slices.Contains(ids, note.warehouse) {
			ids = append(ids, note.warehouse)
		}
	}
	return ids
}

func sortedTexts(texts []string) []string {
	texts = slices.Clone(texts)
	slices.Sort(texts)
	return texts
}

// refusesOther fails the test unless err is ErrOtherWarehouse and says all of this.
func refusesOther(t *testing.T, err error, says ...string) {
	t.Helper()
	for _, text := range append(says, "-group-suffix NAME", "`ctl warehouse repair -take-group`") {
		if !errors.Is(err, ErrOtherWarehouse) || !NeedsOperator(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %v …%s…", err, ErrOtherWarehouse, text)
		}
	}
}

// Two warehouses on one Kafka each get everything, and a sink or a repair that is pointed
// at the wrong one refuses and writes nothing.
func TestTwoWarehouses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 2
	r.fill(100)
	r.consume()
	if got := r.named(topic.SinkGroup); !slices.Contains(got, r.id()) {
		t.Errorf("the commits name %q, want %s", got, r.id())
	}

	second := r.beside("")
	if second.id() == r.id() {
		t.Fatal("two warehouses have one id")
	}
	refusesOther(t, second.start(second.sink(second.wh)).end(t), "group clickhouse-sink fills warehouse "+r.id(),
		"-clickhouse is warehouse "+second.id())
	_, _, err := second.tryRepair("")
	refusesOther(t, err, r.id(), second.id())
	err = Complete(t.Context(), DefaultConfig(), second.sink(second.wh).kafka, r.codec, second.wh, discard(),
		func(Completed) {})
	refusesOther(t, err, r.id(), second.id())
	second.isEmpty()

	second.suffix = "two"
	wrong := *r
	wrong.suffix = "two"
	refusesOther(t, wrong.start(wrong.sink(wrong.wh)).end(t), "-clickhouse is warehouse "+r.id()+", which group "+
		"clickhouse-sink fills, and this is group clickhouse-sink-two")
	_, _, err = wrong.tryRepair("")
	refusesOther(t, err, r.id(), "clickhouse-sink-two")
	total, _ := second.repairs()
	if catalog := len(r.want["catalog_versions"]); total.Inserted != 120+catalog {
		t.Errorf("repaired %+v, want 100 clicks, 10 conversions and outcomes, and %d of the catalog", total, catalog)
	}
	if got := r.named("clickhouse-sink-two"); !slices.Equal(got, []string{second.id()}) {
		t.Errorf("the second group's commits name %q, want %s", got, second.id())
	}

	r.produce("", &kgo.Record{Topic: topic.Clicks, Key: []byte("x"), Value: []byte("unreadable")})
	r.fill(200)
	first, other := r.start(r.sink(r.wh)), second.start(second.sink(second.wh))
	r.arrived()
	second.arrived()
	first.stop(t)
	other.stop(t)
	r.check()
	second.check()
	for group, id := range map[string]string{topic.SinkGroup: r.id(), "clickhouse-sink-two": second.id()} {
		got := sortedTexts(r.named(group))
		if !slices.Equal(got, []string{id}) && !slices.Equal(got, []string{"", id}) {
			t.Errorf("commits of %s name %q, want %s", group, got, id)
		}
	}
	if letters := kafkatest.Consume(t, r.brokers, topic.DeadLetters); len(letters) != 1 {
		t.Errorf("%d dead letters of one record", len(letters))
	}
}

// rewrite replaces the notes of the group's commits.
func (r *rig) rewrite(change func(commitNote) commitNote) {
	r.t.Helper()
	var offsets kadm.Offsets
	for _, commit := range r.commits(topic.SinkGroup).Sorted() {
		note, err := parseCommitNote(commit.Metadata)
		if err != nil {
			r.t.Fatal(err)
		}
		commit.Offset.Metadata = change(note).encodeMetadata()
		offsets.Add(commit.Offset)
	}
	adm := kadm.NewClient(kafkatest.Client(r.t, r.brokers))
	if err := adm.CommitAllOffsets(r.t.Context(), topic.SinkGroup, offsets); err != nil {
		r.t.Fatal(err)
	}
}

// Commits of an earlier release name no warehouse. The first sink adopts them, also if it
// is killed before it has committed, and from then on no other warehouse gets the group.
func TestAdoptsEarlierCommits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 1
	for range 2 {
		r.fill(100)
		r.consume()
	}
	r.rewrite(func(note commitNote) commitNote { return commitNote{intent: note.intent} })
	r.exec("TRUNCATE TABLE warehouse")
	r.exec("INSERT INTO warehouse (id, sink_group) VALUES ('wh_new', '')")

	refused := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Count: 1 << 20})
	r.fill(100)
	run := r.start(r.sink(r.wh))
	for deadline := time.Now().Add(hang); refused.Hits() < 2 && time.Now().Before(deadline); {
		time.Sleep(pollFirst)
	}
	run.cancel()
	if err := run.end(t); err != nil {
		t.Fatal(err)
	}
	refused.Remove()
	if got := r.named(topic.SinkGroup); !slices.Equal(got, []string{""}) || refused.Hits() < 2 {
		t.Fatalf("after %d refused commits they name %q", refused.Hits(), got)
	}
	if got := r.text("SELECT argMax(sink_group, written_at) AS s FROM warehouse"); got != topic.SinkGroup {
		t.Errorf("the warehouse's group is %q", got)
	}

	r.consume()
	r.check()
	if got := r.named(topic.SinkGroup); !slices.Contains(got, "wh_new") {
		t.Errorf("the commits name %q", got)
	}
	second := r.beside("")
	refusesOther(t, second.start(second.sink(second.wh)).end(t), "fills warehouse wh_new")

	// Two warehouses in one group are noticed by the sinks that run, too.
	s := r.sink(r.wh)
	s.env.TopicCheckInterval = 50 * time.Millisecond
	run = r.start(s)
	r.fill(100)
	r.arrived()
	r.exec("INSERT INTO warehouse (id, sink_group) VALUES ('wh_new', 'clickhouse-sink-b')")
	refusesOther(t, run.end(t), "warehouse wh_new, which group clickhouse-sink-b fills")
	r.exec("TRUNCATE TABLE warehouse")
	r.stops(t, ErrOtherWarehouse, "table warehouse is empty")
	if _, _, err := r.tryTake(true, ""); err != nil {
		t.Fatal(err)
	}
	r.fill(100)
	r.consume()
	r.check()
}

// A new ClickHouse in place of one that is lost takes the group, also when that is killed,
// and the lost one does not get it back. A backup of it goes on without that.
func TestTakesGroup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 1
	for range 2 {
		r.fill(100)
		r.consume()
	}
	r.exec("DELETE FROM clicks WHERE src_offset >= 100") // a backup of before the second hundred
	r.exec("DELETE FROM batches WHERE topic = 'clicks' AND start_offset >= 100")
	r.exec("ALTER TABLE partner_quarter_hourly_state DROP PARTITION ID '202603'")
	if _, _, err := r.tryRepair(""); err != nil {
		t.Fatal(err)
	}
	r.fill(100)
	r.consume()
	r.check()

	second := r.beside("")
	if _, _, err := second.tryTake(true, "group-committed"); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	if got := r.named(topic.SinkGroup); !slices.Equal(got, []string{second.id()}) {
		t.Errorf("the commits name %q, want %s", got, second.id())
	}
	if _, _, err := second.tryTake(true, ""); err != nil {
		t.Fatal(err)
	}
	r.fill(100)
	second.consume()
	second.check()
	refusesOther(t, r.start(r.sink(r.wh)).end(t), "group clickhouse-sink fills warehouse "+second.id())
}

// A warehouse whose group has sinks does not go to another group: nothing is written. A
// copy of it, in which table warehouse is emptied, does.
func TestTakesNoGroupBesideItsSinks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 1
	r.fill(10)
	run := r.start(r.sink(r.wh))
	r.arrived()
	moved := *r
	moved.suffix = "two"
	_, _, err := moved.tryTake(true, "")
	for _, text := range []string{"-take-group", "from group clickhouse-sink to group clickhouse-sink-two",
		"clickhouse-sink has 1 members (", " on 127.0.0.1", "TRUNCATE TABLE warehouse"} {
		if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), text) {
			t.Errorf("beside a sink of the other group: %v, want …%s…", err, text)
		}
	}
	if w, err := readWarehouse(t.Context(), r.wh); err != nil || w.Group != topic.SinkGroup {
		t.Errorf("a refused repair has written %+v, %v", w, err)
	}
	if got := r.named("clickhouse-sink-two"); len(got) > 0 {
		t.Errorf("a refused repair has committed for its group: %q", got)
	}

	copied := moved.beside("two")
	first := r.id()
	copied.exec("TRUNCATE TABLE warehouse")
	copied.exec("INSERT INTO warehouse (id, sink_group) VALUES ('" + first + "', '" + topic.SinkGroup + "')")
	if _, _, err := copied.tryTake(true, ""); !errors.Is(err, ErrBusy) {
		t.Errorf("a copy beside the original's sinks: %v", err)
	}
	copied.exec("TRUNCATE TABLE warehouse")
	if _, _, err := copied.tryTake(true, ""); err != nil {
		t.Fatal(err)
	}
	if got := r.named("clickhouse-sink-two"); !slices.Equal(got, []string{copied.id()}) || copied.id() == first {
		t.Errorf("the copy is %s and its group's commits name %q; the original is %s", copied.id(), got, first)
	}
	copied.check()
	run.stop(t)
	r.check()
}
