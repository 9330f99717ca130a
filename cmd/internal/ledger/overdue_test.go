package ledger

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/sink"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/statement"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// waits is how many events wait in one partition: more than one transaction closes.
	waits = 2500
	// longGrace is the grace of the events that wait; their ends lie within an hour.
	longGrace = 2 * time.Hour
)

// outage is a processor, a sink and a warehouse in a time that the test moves.
type outage struct {
	testing.TB
	kafka kafka.Config
	codec *event.Codec
	wh    *clickhouse.Conn
	dir   string       // of the processor's state
	ahead atomic.Int64 // of the processor's clock, in nanoseconds
	polls int          // of the views, all with difference 0
	// between counts polls at which some events of the outage had a row and some had not.
	between int
	// received counts the events that were received before each of these instants: the
	// ends of months, as far as statements know.
	received map[event.Millis]uint64
	// final and open count such ends that a poll found final, and not.
	final, open int
}

func (o *outage) now() time.Time { return time.Now().Add(time.Duration(o.ahead.Load())) }

// start runs a processor that calls applied after each commit, until stop is called.
func (o *outage) start(applied func()) (stop func()) {
	o.Helper()
	cfg := processor.DefaultConfig()
	cfg.StateDir, cfg.Instance = o.dir, "slot-0"
	cfg.Grace, cfg.ClickMemory = longGrace, 8<<20
	env := processor.DefaultEnv()
	env.Now = o.now
	env.Step = func(step string) {
		if step == processor.StepApplied {
			applied()
		}
	}
	p, err := processor.NewIn(env, cfg, o.kafka, o.codec, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		o.Fatal(err)
	}
	return run(o.TB, p.Run)
}

// run runs a daemon until stop is called.
func run(t testing.TB, daemon func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- daemon(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// produceWaits writes events whose click never comes, all to one partition, over an
// hour.
func (o *outage) produceWaits() {
	o.Helper()
	client := kafkatest.Client(o, o.kafka.Brokers, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	random := rand.New(rand.NewPCG(1, 2))
	epochs := topic.OneEpoch(kafkatest.Partitions)
	var records []*kgo.Record
	for len(records) < waits {
		at := time.Now().Add(-time.Hour * time.Duration(len(records)) / waits)
		var raw token.Raw
		binary.BigEndian.PutUint32(raw[:], token.SecondsOf(at.UnixMilli()))
		binary.BigEndian.PutUint64(raw[12:], random.Uint64())
		c := &event.Conversion{
			WorkspaceID: "acme",
			EventID:     fmt.Sprint("e", len(records)),
			ClickToken:  token.Text(&raw),
			Type:        event.Lead,
			EventName:   "signup",
			OccurredAt:  event.MillisOf(at),
			ReceivedAt:  event.MillisOf(at),
			EnteredAt:   event.MillisOf(at),
		}
		if epochs.Partition(c.ClickToken, at) != 0 {
			continue
		}
		c.ContentSHA256 = c.ContentHash()
		value, err := o.codec.AppendConversion(nil, c)
		if err != nil {
			o.Fatal(err)
		}
		records = append(records, &kgo.Record{
			Topic:     topic.Conversions,
			Key:       []byte(c.ClickToken),
			Value:     value,
			Timestamp: at,
		})
	}
	if err := client.ProduceSync(o.Context(), records...).FirstErr(); err != nil {
		o.Fatal(err)
	}
	o.received = map[event.Millis]uint64{}
	for i := range 5 {
		end := records[0].Timestamp.Add(time.Second - time.Duration(i)*15*time.Minute)
		for _, r := range records {
			if event.MillisOf(r.Timestamp) < event.MillisOf(end) {
				o.received[event.MillisOf(end)]++
			}
		}
	}
}

// accounts is what the two views say.
type accounts struct {
	Difference uint64 `ch:"difference"` // of the view conservation
	Lost       int64  `ch:"lost"`       // the difference of the view workspace_conservation
	Waiting    uint64 `ch:"waiting"`    // by workspace
	Rows       uint64 `ch:"judged"`     // by workspace
	InProgress uint64 `ch:"progress"`   // rows of the table progress
	InOutcomes uint64 `ch:"outcomes"`   // rows of the table outcomes
}

func (o *outage) read() accounts {
	var found []accounts
	if err := o.wh.Select(o.Context(), &found, `
SELECT
	(SELECT toUInt64(sum(difference)) FROM conservation) AS difference,
	(SELECT toInt64(sum(w.difference)) FROM workspace_conservation AS w) AS lost,
	(SELECT toUInt64(sum(w.waiting)) FROM workspace_conservation AS w) AS waiting,
	(SELECT toUInt64(sum(w.unattributed)) FROM workspace_conservation AS w) AS judged,
	(SELECT count() FROM progress) AS progress,
	(SELECT count() FROM outcomes) AS outcomes`); err != nil {
		o.Error(err)
		return accounts{}
	}
	return found[0]
}

// poll reads the views, which show no difference, whatever is under way.
func (o *outage) poll() accounts {
	final := o.readFinal()
	a := o.read()
	o.checkFinal(final)
	o.polls++
	if a.Difference != 0 || a.Lost != 0 {
		o.Errorf("poll %d: %+v", o.polls, a)
	}
	if a.Waiting > 0 && a.Rows > 0 {
		o.between++
	}
	return a
}

// readFinal returns the ends before which a statement is final.
func (o *outage) readFinal() (ends []event.Millis) {
	for end := range o.received {
		var found []statement.Closing
		if err := o.wh.Select(o.Context(), &found, statement.ClosingQuery,
			clickhouse.Named("end", int64(end))); err != nil {
			o.Error(err)
			continue
		}
		if found[0].IsFinal() {
			ends = append(ends, end)
		}
	}
	o.final += len(ends)
	o.open += len(o.received) - len(ends)
	return ends
}

// checkFinal checks that all events that were received before these ends have a row.
func (o *outage) checkFinal(ends []event.Millis) {
	for _, end := range ends {
		var found []struct {
			Rows uint64 `ch:"n"`
		}
		if err := o.wh.Select(o.Context(), &found, "SELECT count() AS n FROM outcomes WHERE received_at < "+
			"fromUnixTimestamp64Milli({end:Int64}, 'UTC')", clickhouse.Named("end", int64(end))); err != nil {
			o.Error(err)
		} else if found[0].Rows != o.received[end] {
			o.Errorf("a statement up to %s is final, with %d of %d rows", end.Time(), found[0].Rows, o.received[end])
		}
	}
}

// pollCommitted polls until the tables have all that is committed, and for long enough
// that the next transaction reports progress too.
func (o *outage) pollCommitted() {
	var committed [2]int
	for i, name := range []string{topic.Progress, topic.Outcomes} {
		records, err := kafka.ReadAll(o.Context(), o.kafka, slog.New(slog.DiscardHandler), name)
		if err != nil {
			o.Error(err)
			return
		}
		committed[i] = len(records)
	}
	began := time.Now()
	for time.Since(began) < time.Minute {
		a := o.poll()
		if a.InProgress >= uint64(committed[0]) && a.InOutcomes >= uint64(committed[1]) &&
			time.Since(began) > 1100*time.Millisecond {
			return
		}
	}
	o.Error("the tables do not come to what is committed")
}

// await polls until the condition holds.
func (o *outage) await(what string, condition func(accounts) bool) {
	o.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !condition(o.poll()); {
		if time.Now().After(deadline) || o.Failed() {
			o.Fatalf("waiting until %s: %+v", what, o.read())
		}
	}
}

// A processor is down for an hour, across the ends of 2,500 waits. The views show no
// difference before, meanwhile and at every step after it: nothing is overdue by a
// clock, and a watermark passes no wait that is still open. No statement of account is
// final before all rows of its time are there. Then one row is removed, and both views
// show it.
func TestOverdue(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	o := &outage{TB: t, kafka: kafka.DefaultConfig(), codec: event.DefaultCodec(), dir: t.TempDir()}
	o.kafka.Brokers = kafkatest.Broker(t)
	o.wh = clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	cfg := sink.DefaultConfig()
	cfg.Linger = 20 * time.Millisecond
	s, err := sink.New(cfg, o.kafka, o.codec, o.wh, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer run(t, s.Run)()

	stop := o.start(func() {})
	o.produceWaits()
	o.await("all events wait and the watermark is known", func(a accounts) bool {
		return a.Waiting == waits && o.watermark() > 0
	})
	stop()
	before := o.watermark()
	o.ahead.Store(int64(longGrace + time.Hour))
	for range 10 {
		o.poll()
	}
	stop = o.start(o.pollCommitted)
	for deadline := time.Now().Add(3 * time.Minute); o.read().Rows < waits || o.watermark() <
		event.MillisOf(time.Now().Add(longGrace+6*time.Minute)); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) || t.Failed() {
			t.Fatalf("not all waits are closed: %+v, watermark %d, before %d", o.read(), o.watermark(), before)
		}
	}
	for deadline := time.Now().Add(3 * time.Minute); o.final < len(o.received) && time.Now().Before(deadline); {
		o.poll() // the other partitions report, too
	}
	stop()
	t.Logf("%d polls, %d of them between the rows; ends that were final %d times, and %d times not", o.polls,
		o.between, o.final, o.open)
	if o.between == 0 {
		t.Error("no poll saw a part of the waits closed")
	}
	if o.final < len(o.received) || o.open == 0 {
		t.Error("no end became final")
	}
	o.checkWatermarks()
	const remove = "ALTER TABLE outcomes DELETE WHERE event_id = 'e7' SETTINGS mutations_sync = 1"
	if err := o.wh.Exec(t.Context(), remove); err != nil {
		t.Fatal(err)
	}
	if a := o.read(); a.Difference != 1 || a.Lost != 1 || a.Waiting != 0 {
		t.Errorf("one row was removed: %+v", a)
	}
}

// watermark is that of the newest Progress of partition 0 that the tables have reached.
func (o *outage) watermark() event.Millis {
	var found []struct {
		Watermark int64 `ch:"watermark"`
	}
	if err := o.wh.Select(o.Context(), &found, "SELECT toInt64(ifNull(max(toUnixTimestamp64Milli(w.watermark)), 0)) "+
		"AS watermark FROM wait_ends AS w WHERE w.partition = 0"); err != nil {
		o.Error(err)
		return 0
	}
	return event.Millis(found[0].Watermark)
}

// checkWatermarks checks the times in all Progress that was written: a watermark never
// goes back, also where a processor began anew.
func (o *outage) checkWatermarks() {
	records, err := kafka.ReadAll(o.Context(), o.kafka, slog.New(slog.DiscardHandler), topic.Progress)
	if err != nil {
		o.Fatal(err)
	}
	last := map[int32]event.Millis{}
	for _, r := range records {
		var p event.Progress
		if err := o.codec.DecodeProgress(r.Value, &p); err != nil {
			o.Fatal(err)
		}
		if p.Watermark < last[p.Partition] || p.Watermark > p.At || p.GraceMs != longGrace.Milliseconds() ||
			p.ClickLifeMs != topic.DefaultClickLife.Milliseconds() ||
			p.JourneyLifeMs != (400*24*time.Hour).Milliseconds() {
			o.Errorf("after the watermark %d: %+v", last[p.Partition], p)
		}
		last[p.Partition] = p.Watermark
	}
}
