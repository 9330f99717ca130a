package processor_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

var codec = event.DefaultCodec()

// world is a broker, and what a test writes into it.
type world struct {
	testing.TB
	brokers []string
	epochs  topic.Epochs
	rand    *rand.Rand
	client  *kgo.Client
	n       int
	shift   time.Duration // how far in the past the records are said to have arrived
}

func newWorld(t testing.TB, brokers []string) *world {
	return &world{TB: t, brokers: brokers, epochs: topic.OneEpoch(kafkatest.Partitions), rand: rand.New(rand.NewPCG(1, 2)), client: kafkatest.Client(t, brokers, kgo.MaxBufferedRecords(1_000_000))}
}

func (w *world) now() time.Time { return time.Now().Add(-w.shift) }

// click makes a click that can bring conversions.
func (w *world) click() *event.Click {
	var raw token.Raw
	at := w.now()
	binary.BigEndian.PutUint32(raw[:], token.SecondsOf(at.UnixMilli()))
	for i := 4; i < 20; i += 8 {
		binary.BigEndian.PutUint64(raw[i:], w.rand.Uint64())
	}
	return &event.Click{WorkspaceID: "acme", ClickToken: token.Text(&raw), ClickedAt: event.MillisOf(at), WindowMs: 30 * 86400_000, TokenStatus: event.TokenAppended, LinkID: "lnk_1",
		Domain: "go.acme.com", Slug: "a", Trigger: event.TriggerLink, PartnerID: "prt_1", PartnerKey: "one", PartnerName: "One", PartnerRelationship: "approved", PartnerLifecycle: "active",
		ProgramID: "prg_1", ProgramKey: "p", ProgramName: "P", ProgramStatus: "active", RewardTerms: "10%", CatalogOffset: 1}
}

func (w *world) sale(k *event.Click, minor int64) *event.Conversion {
	w.n++
	c := &event.Conversion{WorkspaceID: "acme", EventID: fmt.Sprint("e", w.n), ClickToken: k.ClickToken, Type: event.Sale, OccurredAt: k.ClickedAt + 5000, ReceivedAt: event.MillisOf(w.now()),
		AmountMinor: &minor, Currency: "EUR", Exponent: 2, OrderID: fmt.Sprint("o", w.n)}
	c.ContentSHA256 = c.Content()
	return c
}

func (w *world) refund(of *event.Conversion, minor int64) *event.Conversion {
	w.n++
	c := &event.Conversion{WorkspaceID: "acme", EventID: fmt.Sprint("e", w.n), ClickToken: of.ClickToken, Type: event.Refund, OccurredAt: of.OccurredAt + 1000, ReceivedAt: event.MillisOf(w.now()),
		AmountMinor: &minor, Currency: "EUR", Exponent: 2, ParentEventID: of.EventID}
	c.ContentSHA256 = c.Content()
	return c
}

func (w *world) partition(tok string) int32 {
	raw, err := token.Parse(tok)
	if err != nil {
		w.Fatal(err)
	}
	return w.epochs.Partition(tok, token.Time(&raw))
}

func (w *world) sendClick(k *event.Click, headers ...string) {
	b, err := codec.AppendClick(nil, k)
	if err != nil {
		w.Fatal(err)
	}
	r := &kgo.Record{Topic: topic.Clicks, Partition: w.partition(k.ClickToken), Key: []byte(k.ClickToken), Value: b, Timestamp: w.now()}
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: topic.HeaderToken, Value: []byte("1")})
	for _, h := range headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h}) // as the redirector sends it: there, without a value
	}
	w.send(r)
}

func (w *world) sendEvent(c *event.Conversion) {
	b, err := codec.AppendConversion(nil, c)
	if err != nil {
		w.Fatal(err)
	}
	w.send(&kgo.Record{Topic: topic.Conversions, Partition: w.partition(c.ClickToken), Key: []byte(c.ClickToken), Value: b, Timestamp: c.ReceivedAt.Time()})
}

// send queues a record; flush waits for all of them.
func (w *world) send(r *kgo.Record) {
	w.client.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
		if err != nil {
			w.Errorf("producing: %v", err)
		}
	})
}

func (w *world) flush() {
	if err := w.client.Flush(w.Context()); err != nil {
		w.Fatal(err)
	}
}

// story writes n journeys of mixed kinds: sales, refunds, duplicates, conflicts, unknown clicks, refunds before their sale, clicks that are sent twice, and clicks that come
// after their conversions. It returns the number of events.
func (w *world) story(n int) (events int) {
	for range n {
		k := w.click()
		s := w.sale(k, 1000+w.rand.Int64N(9000))
		say := func(cs ...*event.Conversion) {
			for _, c := range cs {
				w.sendEvent(c)
				events++
			}
		}
		switch w.rand.IntN(12) {
		case 0: // nothing but the click
			w.sendClick(k)
		case 1: // the click never comes
			say(s)
		case 2: // the click comes late
			say(s, w.refund(s, 100))
			w.sendClick(k)
		case 3: // refund before its sale
			w.sendClick(k)
			say(w.refund(s, 100), s)
		case 4: // duplicate and conflict
			other := *s
			other.OrderID = "other"
			other.ContentSHA256 = other.Content()
			w.sendClick(k)
			say(s, s, &other)
		case 5: // sent twice by a spool
			w.sendClick(k)
			w.sendClick(k, topic.HeaderReplay)
			say(s)
		case 6: // a parent that never comes
			w.sendClick(k)
			say(w.refund(s, 100))
		default:
			w.sendClick(k)
			say(s, w.refund(s, 300), w.refund(s, 300))
		}
	}
	w.flush()
	return events
}

// truth is what the oracle says about the log.
func (w *world) truth(grace time.Duration) oracle.Result {
	var clicks []oracle.Click
	for _, r := range kafkatest.Consume(w, w.brokers, topic.Clicks) {
		var k oracle.Click
		if codec.DecodeClick(r.Value, &k.Click) == nil {
			k.At = event.MillisOf(r.Timestamp)
			clicks = append(clicks, k)
		}
	}
	var events []oracle.Event
	for _, r := range kafkatest.Consume(w, w.brokers, topic.Conversions) {
		var e oracle.Event
		if codec.DecodeConversion(r.Value, &e.Conversion) == nil && string(r.Key) == e.ClickToken {
			e.Partition, e.Offset = r.Partition, r.Offset
			events = append(events, e)
		}
	}
	cfg := oracle.DefaultConfig()
	cfg.Grace = grace
	return oracle.Judge(cfg, clicks, events, event.MillisOf(time.Now().Add(100*time.Hour)))
}

func (w *world) outcomes() (out []event.Outcome) {
	for _, r := range kafkatest.Consume(w, w.brokers, topic.Outcomes) {
		var o event.Outcome
		if err := codec.DecodeOutcome(r.Value, &o); err != nil {
			w.Fatal(err)
		}
		if string(r.Key) != o.ClickToken || r.Partition != o.EventPartition {
			w.Errorf("outcome of %s under key %q in partition %d", o.ClickToken, r.Key, r.Partition)
		}
		out = append(out, o)
	}
	return out
}

// progress is the newest Progress of each partition.
func (w *world) progress() map[int32]event.Progress {
	out := make(map[int32]event.Progress)
	for _, r := range kafkatest.Consume(w, w.brokers, topic.Progress) {
		var p event.Progress
		if err := codec.DecodeProgress(r.Value, &p); err != nil {
			w.Fatal(err)
		}
		out[p.Partition] = p
	}
	return out
}

// settle waits until every event has its row, and compares the rows with the truth.
func (w *world) settle(grace time.Duration) {
	w.Helper()
	want := w.truth(grace).Outcomes
	deadline := time.Now().Add(60 * time.Second)
	var got []event.Outcome
	for {
		if got = w.outcomes(); len(got) >= len(want) || time.Now().After(deadline) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if diff := oracle.Diff(want, got); diff != nil {
		w.Fatalf("the ledger is not the oracle's (%d rows, want %d):\n%s", len(got), len(want), strings.Join(diff, "\n"))
	}
}

// conserved checks the newest Progress against the rows: nothing read is unaccounted for.
func (w *world) conserved() {
	w.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		var sum event.Progress
		for _, p := range w.progress() {
			sum.Read += p.Read
			sum.Waiting += p.Waiting
			sum.Unreadable += p.Unreadable
			sum.Attributed += p.Attributed + p.Reversed + p.Duplicate + p.Conflict + p.Unattributed
		}
		read, rows := int64(len(kafkatest.Consume(w, w.brokers, topic.Conversions))), int64(len(w.outcomes()))
		if sum.Read == read && sum.Attributed == rows && sum.Read == sum.Attributed+sum.Unreadable+sum.Waiting {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("not conserved: %+v; %d records, %d rows", sum, read, rows)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func config(dir string) processor.Config {
	cfg := processor.DefaultConfig()
	cfg.StateDir, cfg.Instance, cfg.Grace, cfg.ClickMemory, cfg.CommitInterval = dir, "slot-0", 2*time.Second, 8<<20, 20*time.Millisecond
	cfg.SessionTimeout = 6 * time.Second
	return cfg
}

func newProcessor(t testing.TB, brokers []string, cfg processor.Config) *processor.Processor {
	t.Helper()
	k := kafka.DefaultConfig()
	k.Brokers = brokers
	out := io.Discard
	if testing.Verbose() && os.Getenv("PARTNERS_TEST_LOG") != "" {
		out = os.Stderr
	}
	p, err := processor.New(cfg, k, codec, slog.New(slog.NewTextHandler(out, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// start runs a processor until stop is called, which waits for its clean end.
func start(t testing.TB, p *processor.Processor) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the processor does not stop")
		}
	}
	t.Cleanup(stop)
	return stop
}
