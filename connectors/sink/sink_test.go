package sink

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestEndToEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if r.fill(2_000); long {
		r.fill(8_000)
	}
	s := r.sink(r.wh)
	s.env.LedgerMetricsInterval = time.Second
	run := r.start(s)
	r.arrived()
	for deadline := time.Now().Add(hang); !s.ledger.hasRead.Load() || !s.ledger.hasComparedEvents.Load() ||
		!s.ledger.hasCounted.Load(); time.Sleep(pollFirst) {
		if time.Now().After(deadline) {
			t.Fatal("the sink does not read its ledger metrics")
		}
	}
	run.stop(t)
	r.check()
	way := measured(t, run.metrics)
	if got, want := [2]int{int(way["click"][math.Inf(1)]),
		int(way["receipt"][math.Inf(1)])}, [2]int{len(r.places("clicks")), len(r.places("outcomes"))}; got != want ||
		want[0] == 0 || want[1] == 0 {
		t.Errorf("the way of %d clicks and verdicts was measured, %d are in the tables", got, want)
	}
	// Nothing is new: a sink that starts again inserts nothing.
	again := r.start(r.sink(r.wh))
	<-again.Ready()
	r.produce("clicks", r.clickRecord(r.click(1), 0, false))
	r.sums["clicks"]++
	r.sums["human_clicks"]++
	r.sums["tokened_clicks"]++
	r.arrived()
	again.stop(t)
	r.check()
}

// killAt makes a sink die at the nth occurrence of a step of a topic.
func killAt(s *Sink, last step, of string, n int64) {
	var seen atomic.Int64
	s.env.AfterStep = func(at step, name string, _ int32) error {
		if at == last && name == of && seen.Add(1) == n {
			return errors.New("kill -9")
		}
		return nil
	}
}

func (run *running) killed(t *testing.T) {
	t.Helper()
	if err := run.end(t); !errors.Is(err, errKilled) {
		t.Fatalf("the sink ended with %v, not by the kill", err)
	}
}

// A sink that dies between any two steps leaves nothing doubled and nothing missing, in
// tables and rollup.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	killedAtEachStep(t, newRig(t))
}

// Kafka refuses a commit now and then. A batch is inserted only once it was declared
// itself: a recent commit for the batch before it would not help the next owner after a
// crash.
func TestNothingUndeclaredIsInserted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 1
	refused := r.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Count: 12,
		When: func(kmsg.Request) bool {
			return rand.IntN(2) == 0
		}})
	adm := kadm.NewClient(kafkatest.Client(t, r.brokers))
	s := r.sink(r.wh)
	var inserted atomic.Int64
	s.env.AfterStep = func(reached step, name string, partition int32) error {
		if reached != stepInsertSent {
			return nil
		}
		inserted.Add(1)
		offsets, err := adm.FetchOffsets(t.Context(), s.kafka.SinkGroup())
		if err != nil {
			return err
		}
		committed, _ := offsets.Lookup(s.kafka.Topic(name), partition)
		declared, err := parseCommitNote(committed.Metadata)
		if err != nil {
			return err
		}
		s.mu.Lock()
		start := s.owned[name][partition].next
		s.mu.Unlock()
		if declared.intent == nil || declared.intent.start != start || declared.warehouse != s.warehouse.ID {
			t.Errorf("%s partition %d: a batch at offset %d is inserted, and this is declared: %q",
				name, partition, start, committed.Metadata)
		}
		return nil
	}
	run := r.start(s)
	for fills := 0; refused.Hits() < 4 || inserted.Load() < 8; fills++ {
		if fills == 50 {
			t.Fatalf("%d commits were refused, %d batches inserted: too few to show anything",
				refused.Hits(), inserted.Load())
		}
		r.fill(300)
		r.arrived()
	}
	run.stop(t)
	r.check()
}

// TestKilledAtEachStep on Apache Kafka, and after it a rebalance and clicks that are
// sent again.
func TestRealKilledAtEachStep(t *testing.T) {
	t.Parallel()
	r := newRealRig(t)
	killedAtEachStep(t, r)
	rebalance(t, r)
	replayedClicks(t, r, 5_000_000)
}

func killedAtEachStep(t *testing.T, r *rig) {
	r.spread = 2
	type kill struct {
		step step
		of   string
	}
	kills := []kill{
		{stepIntentWritten, topic.Clicks},
		{stepInsertSent, topic.Clicks},
		{stepInsertDone, topic.Clicks},
		{stepBatchRecorded, topic.Clicks},
		{stepAcknowledged, topic.Clicks},
		{stepInsertDone, topic.Outcomes},
	}
	if long {
		kills = append(kills, kill{stepBatchRecorded, topic.Outcomes}, kill{stepInsertDone, topic.Conversions})
	} else if r.cluster == nil { // what the steps leave behind is the same on both brokers
		kills = []kill{{stepInsertDone, topic.Clicks}, {stepBatchRecorded, topic.Outcomes}}
	}
	for _, kill := range kills {
		r.fill(300)
		s := r.sink(r.wh)
		s.cfg.BatchRows = 50 // several for each partition of clicks
		killAt(s, kill.step, kill.of, 2)
		r.start(s).killed(t)
		r.fill(60) // the repetition must not swallow what came meanwhile
		run := r.start(r.sink(r.wh))
		r.arrived()
		run.stop(t)
		r.check()
		if t.Failed() {
			t.Fatalf("after a kill at %s of %s", kill.step, kill.of)
		}
	}
}

// faulty is a proxy before ClickHouse.
type faulty struct {
	down      atomic.Bool
	loseReply func() bool
	refuse    func(*http.Request) bool // before it reaches ClickHouse
	inserts   atomic.Int64
}

func (f *faulty) start(t *testing.T, dsn string) (through string) {
	t.Helper()
	to, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to.Host})
	lost := errors.New("lost")
	proxy.ModifyResponse = func(res *http.Response) error {
		if f.down.Load() || res.Request.URL.Query().Has("insert_deduplication_token") && f.loseReply != nil &&
			f.loseReply() {
			return lost
		}
		return nil
	}
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if f.down.Load() || f.refuse != nil && f.refuse(req) {
			panic(http.ErrAbortHandler)
		}
		if req.URL.Query().Has("insert_deduplication_token") {
			f.inserts.Add(1)
		}
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	to.Host = strings.TrimPrefix(server.URL, "http://")
	return to.String()
}

// Half of the inserts succeed but their answer is lost: repeating them changes nothing.
func TestReplyLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 2
	var lost atomic.Int64
	f := &faulty{loseReply: func() bool {
		lose := rand.N(2) == 0
		if lose {
			lost.Add(1)
		}
		return lose
	}}
	run := r.start(r.sink(r.open(f.start(t, r.dsn))))
	for fills := 0; lost.Load() < 5; fills++ {
		if fills == 50 {
			t.Fatalf("only %d answers were lost", lost.Load())
		}
		r.fill(300)
		r.arrived()
	}
	run.stop(t)
	r.check()
}

// failedAttempts is how many attempts at a batch failed so far.
func (run *running) failedAttempts(t *testing.T) (n float64) {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(run.metrics.retries)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			n += m.Counter.GetValue()
		}
	}
	return n
}

func TestUnreachableAndBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 2
	f := &faulty{}
	run := r.start(r.sink(r.open(f.start(t, r.dsn))))
	<-run.Ready()
	f.down.Store(true)
	r.fill(1000)
	for deadline := time.Now().Add(hang); run.failedAttempts(t) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no batch is tried")
		}
	}
	if got := len(r.places("clicks")); got != 0 {
		t.Fatalf("%d rows came through a connection that is down", got)
	}
	// A sink that starts while ClickHouse is away waits too.
	other := r.start(r.sink(r.open(r.dsn)))
	f.down.Store(false)
	r.arrived()
	run.stop(t)
	other.stop(t)
	r.check()
}

// Partitions move between sinks that come and go, one of them by force.
func TestRebalance(t *testing.T) {
	t.Parallel()
	rebalance(t, newRig(t))
}

func rebalance(t *testing.T, r *rig) {
	r.spread = kafkatest.Partitions // both sinks get something
	first := r.start(r.sink(r.wh))
	<-first.Ready()
	r.fill(1000)
	s := r.sink(r.wh)
	killAt(s, stepInsertDone, topic.Clicks, 3)
	second := r.start(s)
	<-second.Ready()
	r.fill(2000)
	second.killed(t)
	r.fill(500)
	third := r.start(r.sink(r.wh))
	<-third.Ready()
	first.stop(t)
	r.fill(500)
	r.arrived()
	third.stop(t)
	r.check()
}

// A click that was sent again counts once: in the batch of its first copy, in a later
// one, and in a batch that is repeated after a crash.
func TestReplayedClicks(t *testing.T) {
	t.Parallel()
	replayedClicks(t, newRig(t), 0)
}

// replayedClicks uses tokens from one on that no other test of the rig uses.
func replayedClicks(t *testing.T, r *rig, base int) {
	dropped := func() uint64 {
		var sum []struct {
			N uint64 `ch:"n"`
		}
		if err := r.wh.Select(t.Context(), &sum, "SELECT sum(dropped_replays) AS n FROM batches FINAL"); err != nil {
			t.Fatal(err)
		}
		return sum[0].N
	}
	before := dropped()
	send := func(of int, replay bool, first, n int) []*kgo.Record {
		r.tokens = base + first
		var records []*kgo.Record
		for i := range n {
			records = append(records, r.clickRecord(r.click(10*i), 0, replay))
		}
		kafkatest.Produce(t, r.brokers, records...)
		if of > 0 {
			r.expect("clicks", records[len(records)-of:])
			for _, name := range []string{"clicks", "human_clicks", "tokened_clicks"} {
				r.sums[name] += int64(of)
			}
		}
		return records
	}
	send(100, false, 0, 100)
	// 50 that were sent before, and 20 that were not: a replay without a first copy
	// counts.
	send(20, true, 50, 70)
	send(0, true, 100, 20) // the same 20 again
	s := r.sink(r.wh)
	killAt(s, stepInsertDone, topic.Clicks, 1)
	run := r.start(s)
	run.killed(t)
	send(5, true, 115, 10) // 5 of a batch that is in doubt, 5 new ones
	run = r.start(r.sink(r.wh))
	r.arrived()
	send(0, true, 0, 125) // everything once more
	send(1, false, 900, 1)
	r.arrived()
	run.stop(t)
	r.check()
	if n := dropped() - before; n != 50+20+5+125 {
		t.Errorf("dropped %d, want 200", n)
	}
}

// A batch may hold more clicks that were sent again than one query can name.
func TestManyReplays(t *testing.T) {
	r := newRig(t)
	s := r.sink(r.wh)
	b := &batch{}
	for i := range 8000 {
		b.records = append(b.records, r.clickRecord(r.click(i), 0, true))
	}
	first := s.mappings[topic.Clicks]
	drop, err := s.newPartition(first, 0, 0, nil).findReplays(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if drop(b.records[0]) || !drop(b.records[0]) {
		t.Error("of a click that was sent twice, not exactly the second is dropped")
	}
}

func headerValue(r *kgo.Record, key string) string {
	value, _ := kafka.Header(r, key)
	return value
}

// Unreadable records are skipped, and dead-lettered once, whatever happens in between;
// those of conversions are left to the processor.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good, wrongKey := r.clickRecord(r.click(0), 3, false), r.clickRecord(r.click(10), 3, false)
	wrongKey.Key = []byte("another token")
	bad := func(name, key, value string) *kgo.Record {
		return &kgo.Record{
			Topic:     name,
			Partition: 0,
			Key:       []byte(key),
			Value:     []byte(value),
			Headers:   []kgo.RecordHeader{{Key: "trace", Value: []byte("1")}},
		}
	}
	r.produce("clicks", good)
	readable, _ := r.pair(0, 0)
	r.produce("conversions", readable)
	noToken, _ := r.pair(1, 0)
	v := event.Conversion{WorkspaceID: "w0", EventID: "e", ClickToken: "no token", Type: event.Sale}
	value, err := r.codec.AppendConversion(nil, &v)
	if err != nil {
		t.Fatal(err)
	}
	noToken.Key, noToken.Value = []byte(v.ClickToken), value
	kafkatest.Produce(t, r.brokers, noToken, wrongKey, bad(topic.Clicks, "k", "\x00\x00\x00\x00\x01\xff"),
		bad(topic.Outcomes, "k", "nothing"), bad(topic.Conversions, "k", "nothing"),
		bad(topic.Rejections, "w", "\x00\x00\x00\xff\xff"), bad(topic.Progress, "0", ""))
	kill := func(of string) {
		t.Helper()
		s := r.sink(r.wh)
		killAt(s, stepDeadLettersSent, of, 1) // the letters are out, but the batch is not recorded
		r.start(s).killed(t)
	}
	kill(topic.Clicks)
	// Only now: the first sink could have finished with these before its end.
	kafkatest.Produce(t, r.brokers, bad(topic.Catalog, "workspace/w", "{"), bad(topic.Catalog, "workspace", "{}"))
	r.produce("catalog_versions", bad(topic.Catalog, "link/go.acme.com/nomura", `{"workspace":"w","id":"lnk"}`),
		bad(topic.Catalog, "partner/w/p", ""))
	kill(topic.Catalog)
	run := r.start(r.sink(r.wh))
	r.arrived()
	deadline := time.Now().Add(hang)
	for len(kafkatest.Consume(t, r.brokers, topic.DeadLetters)) < 7 && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	run.stop(t)
	r.check()
	got := map[string]string{}
	for _, letter := range kafkatest.Consume(t, r.brokers, topic.DeadLetters) {
		at := strings.Join([]string{
			headerValue(letter, topic.HeaderSourceTopic),
			headerValue(letter, topic.HeaderSourcePartition),
			headerValue(letter, topic.HeaderSourceOffset),
		}, "/")
		if got[at] != "" {
			t.Errorf("%s is twice in the dead letters", at)
		}
		got[at] = headerValue(letter, topic.HeaderError)
		if _, err := time.Parse(time.RFC3339Nano, headerValue(letter, topic.HeaderFailedAt)); err != nil {
			t.Error(err)
		}
		if headerValue(letter, topic.HeaderSourceTopic) == topic.Outcomes && (string(letter.Value) != "nothing" ||
			string(letter.Key) != "k" || headerValue(letter, "trace") != "1") {
			t.Errorf("the letter is not the original: %+v", letter)
		}
	}
	for at, want := range map[string]string{"clicks/3/1": "key differs", "clicks/0/0": "malformed Avro",
		"outcomes/0/0": "Confluent framing", "rejections/0/0": "unknown schema id 65535", "progress/0/0": "framing",
		"catalog/0/3": "malformed catalog", "catalog/0/4": "malformed catalog"} {
		if !strings.Contains(got[at], want) {
			t.Errorf("dead letter of %s: %q, want …%s…", at, got[at], want)
		}
		delete(got, at)
	}
	if len(got) > 0 {
		t.Errorf("dead letters too many: %v", got)
	}
	var counted []struct {
		N uint64 `ch:"n"`
	}
	if err := r.wh.Select(t.Context(), &counted, "SELECT sum(dead_lettered) AS n FROM batches FINAL"); err != nil ||
		counted[0].N != 7 {
		t.Errorf("batches count %v dead letters, %v", counted, err)
	}
}

// stops runs a sink that must refuse.
func (r *rig) stops(t *testing.T, want error, text string) {
	t.Helper()
	err := r.start(r.sink(r.wh)).end(t)
	if !errors.Is(err, want) || !NeedsOperator(err) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %v …%s…", err, want, text)
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	adm := kadm.NewClient(kafkatest.Client(t, r.brokers))
	exec := func(statement string) {
		t.Helper()
		if err := r.wh.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	exec("ALTER TABLE partner_quarter_hourly_state MODIFY SETTING non_replicated_deduplication_window = 9999")
	r.stops(t, ErrWindow, "partner_quarter_hourly_state")
	exec("ALTER TABLE partner_quarter_hourly_state MODIFY SETTING non_replicated_deduplication_window = 100000")

	r.fill(100)
	if _, err := adm.DeleteGroup(t.Context(), topic.SinkGroup); err != nil {
		t.Fatal(err)
	}
	r.stops(t, ErrNoCommit, "ctl topics apply")
	var zero kadm.Offsets
	for _, name := range []string{topic.Clicks, topic.Conversions, topic.Outcomes, topic.Progress} {
		for p := range int32(kafkatest.Partitions) {
			zero.AddOffset(name, p, 0, -1)
		}
	}
	zero.AddOffset(topic.Rejections, 0, 0, -1)
	zero.AddOffset(topic.Catalog, 0, 0, -1)
	if err := adm.CommitAllOffsets(t.Context(), topic.SinkGroup, zero); err != nil {
		t.Fatal(err)
	}
	run := r.start(r.sink(r.wh))
	r.arrived()
	run.stop(t)

	// With finished batches the commit no longer matters.
	if _, err := adm.DeleteGroup(t.Context(), topic.SinkGroup); err != nil {
		t.Fatal(err)
	}
	var rest kadm.Offsets // but where there are none
	rest.AddOffset(topic.Rejections, 0, 0, -1)
	rest.AddOffset(topic.Catalog, 0, 0, -1)
	for p := range int32(kafkatest.Partitions) {
		rest.AddOffset(topic.Progress, p, 0, -1)
		rest.AddOffset(topic.Clicks, p, 0, -1)
	}
	if err := adm.CommitAllOffsets(t.Context(), topic.SinkGroup, rest); err != nil {
		t.Fatal(err)
	}
	r.fill(100)
	run = r.start(r.sink(r.wh))
	r.arrived()
	run.stop(t)
	r.check()

	// Records go before they were read.
	r.fill(100)
	if err := r.cluster.DeleteRecords(topic.Clicks, 2, 49); err != nil {
		t.Fatal(err)
	}
	r.stops(t, ErrLostRange, "ctl rollup rebuild")
}

func TestTopicRecreated(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(100)
	s := r.sink(r.wh)
	s.env.TopicCheckInterval = 50 * time.Millisecond
	run := r.start(s)
	r.arrived()
	adm := kadm.NewClient(kafkatest.Client(t, r.brokers))
	recreate := func(name string) {
		t.Helper()
		if _, err := adm.DeleteTopics(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if _, err := adm.CreateTopic(t.Context(), kafkatest.Partitions, 1, nil, name); err != nil {
			t.Fatal(err)
		}
	}
	recreate(topic.Clicks)
	if err := run.end(t); !NeedsOperator(err) || !errors.Is(err, ErrTopicChanged) && !errors.Is(err, ErrNoTopic) &&
		!errors.Is(err, ErrLostRange) {
		t.Errorf("while running: %v", err)
	}
	r.stops(t, ErrTopicChanged, "finished batches in ClickHouse")
}

// A topic that is restored with all its records, and adopted, is gone on with in the
// same tables.
func TestAdoptedTopic(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(300)
	run := r.start(r.sink(r.wh))
	r.arrived()
	run.stop(t)
	cl := kafkatest.Client(t, r.brokers)
	adm := kadm.NewClient(cl)
	records := kafkatest.Consume(t, r.brokers, topic.Clicks)
	if _, err := adm.DeleteTopics(t.Context(), topic.Clicks); err != nil {
		t.Fatal(err)
	}
	if _, err := adm.CreateTopic(t.Context(), kafkatest.Partitions, 1, nil, topic.Clicks); err != nil {
		t.Fatal(err)
	}
	kafkatest.Produce(t, r.brokers, records...)
	var offsets kadm.Offsets
	for id := range int32(kafkatest.Partitions) {
		offsets.AddOffset(topic.Clicks, id, 0, -1)
	}
	k := kafka.DefaultConfig()
	k.Brokers = r.brokers
	for _, group := range []string{topic.ProcessorGroup, topic.SinkGroup} {
		if err := adm.CommitAllOffsets(t.Context(), group, offsets); err != nil {
			t.Fatal(err)
		}
	}
	r.stops(t, ErrTopicChanged, "finished batches in ClickHouse")
	if lines, err := kafka.AdoptTopics(t.Context(), kafkatest.Client(t, r.brokers), k, discard(), true); err != nil ||
		len(lines) != 1 {
		t.Fatalf("%q %v", lines, err)
	}
	r.want["catalog_versions"] = append(r.want["catalog_versions"], spot{Offset: 3}) // the record again
	run = r.start(r.sink(r.wh))
	r.fill(300)
	r.arrived()
	run.stop(t)
	r.check()
}

// Partitions that somebody adds stop a sink that runs, and one that starts.
func TestPartitionsAdded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.sink(r.wh)
	s.env.TopicCheckInterval = 50 * time.Millisecond
	run := r.start(s)
	<-run.Ready()
	altered, err := kadm.NewClient(kafkatest.Client(t, r.brokers)).UpdatePartitions(t.Context(), 8, topic.Clicks)
	if err = errors.Join(err, altered.Error()); err != nil {
		t.Fatal(err)
	}
	if err := run.end(t); !NeedsOperator(err) || !errors.Is(err, ErrPartitions) && !errors.Is(err, ErrNoCommit) {
		t.Errorf("while running: %v", err)
	}
	r.stops(t, ErrPartitions, "topic clicks has 8, the installation was made with 6")
}

// A batch that is in the tables but not recorded, and whose token may be forgotten,
// cannot be repeated. If none of its rows is there, it can.
func TestHalfDoneAndOld(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		step step
		ok   bool
	}{{stepInsertDone, false}, {stepIntentWritten, true}} {
		t.Run(c.step.String(), func(t *testing.T) {
			r := newRig(t)
			r.takeCatalog(t)
			var outcomes []*event.Outcome
			// of one partition and nothing else: a batch of another topic that the kill
			// finds under way would be half-done as well
			for i := range 10 {
				_, o := r.pair(i, 0)
				o.EventOffset = int64(i)
				outcomes = append(outcomes, o)
			}
			r.judge(outcomes)
			s := r.sink(r.wh)
			killAt(s, c.step, topic.Outcomes, 1)
			r.start(s).killed(t)
			if err := r.wh.Exec(t.Context(), "INSERT INTO batches (topic_id, topic, partition, start_offset, "+
				"end_offset, rows) SELECT 'x', 'clicks', 99, number, number + 1, 1 FROM numbers(50000)"); err != nil {
				t.Fatal(err)
			}
			if !c.ok {
				r.stops(t, ErrHalfDone, "ctl rollup rebuild")
				return
			}
			run := r.start(r.sink(r.wh))
			defer run.stop(t)
			for deadline := time.Now().Add(hang); len(r.places("outcomes")) < len(r.want["outcomes"]); time.Sleep(
				50 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the batch was not inserted")
				}
			}
		})
	}
}

// A ClickHouse that was restored from a backup is filled up from where its batches end,
// whatever is committed.
func TestRestoredFromBackup(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 2
	r.fill(500)
	run := r.start(r.sink(r.wh))
	r.arrived()
	run.stop(t)
	backup := clickhousetest.ForTest(t)
	restored := clickhousetest.OpenMigrated(t, backup)
	for _, table := range []string{"clicks", "conversions", "outcomes", "catalog_versions", "batches"} {
		if err := restored.Exec(t.Context(), fmt.Sprintf("INSERT INTO %s SELECT * FROM %s.%s",
			table, r.wh.Database(), table)); err != nil {
			t.Fatal(err)
		}
	}
	r.fill(500)
	run = r.start(r.sink(r.wh))
	r.arrived()
	run.stop(t)
	r.check()

	r.wh = restored
	run = r.start(r.sink(r.wh))
	r.arrived()
	run.stop(t)
	r.check()
}

// A sink that is asked to end finishes its running batch and records it.
func TestDrain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(200)
	s := r.sink(r.wh)
	entered, stopping := make(chan struct{}, 100), make(chan struct{})
	s.env.AfterStep = func(reached step, _ string, _ int32) error {
		if reached == stepIntentWritten {
			entered <- struct{}{}
			<-stopping
		}
		return nil
	}
	run := r.start(s)
	<-entered
	run.cancel()
	close(stopping)
	run.stop(t)
	inserted := 0
	for table := range r.want {
		inserted += len(r.places(table))
	}
	var recorded []struct {
		N uint64 `ch:"n"`
	}
	if err := r.wh.Select(t.Context(), &recorded, "SELECT sum(rows) AS n FROM batches FINAL"); err != nil ||
		int(recorded[0].N) != inserted || inserted == 0 {
		t.Errorf("%d rows are in the tables, %v are recorded, %v", inserted, recorded, err)
	}
}

// A batch whose row in `batches` cannot be written is not inserted again: the next attempt
// resumes behind the insert.
func TestResumesBehindTheInsert(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 1
	var refused atomic.Int64
	f := &faulty{refuse: func(req *http.Request) bool {
		query := req.URL.Query().Get("query")
		return strings.Contains(query, "INSERT INTO") && strings.Contains(query, "batches") && refused.Add(1) <= 4
	}}
	r.fill(100)
	run := r.start(r.sink(r.open(f.start(t, r.dsn))))
	r.arrived()
	run.stop(t)
	r.check()
	var batches []struct {
		N uint64 `ch:"n"`
	}
	if err := r.wh.Select(t.Context(), &batches, "SELECT count() AS n FROM batches FINAL WHERE rows > 0"); err != nil {
		t.Fatal(err)
	}
	if inserts := f.inserts.Load(); refused.Load() <= 4 || inserts != int64(batches[0].N) {
		t.Errorf("%d batches took %d inserts, while %d records of a finished batch were tried",
			batches[0].N, inserts, refused.Load())
	}
}
