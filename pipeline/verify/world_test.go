package verify_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/internal/scenario"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/pipeline/verify"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

var codec = event.DefaultCodec()

// hang is how long a test waits for what must come.
const hang = 3 * time.Minute

// grace is how long an event waits in the worlds of these tests.
const grace = time.Minute

// world is a log, and the ledger that a processor made of it.
type world struct {
	partitions []verify.Partition
	records    map[string]map[int32][]verify.Record // by topic and partition
}

// clone copies what tests change: lists, not bytes.
func (w *world) clone() *world {
	c := &world{records: make(map[string]map[int32][]verify.Record)}
	for _, p := range w.partitions {
		p.Times = slices.Clone(p.Times)
		c.partitions = append(c.partitions, p)
	}
	for name, partitions := range w.records {
		c.records[name] = make(map[int32][]verify.Record)
		for id, list := range partitions {
			c.records[name][id] = slices.Clone(list)
		}
	}
	return c
}

func (w *world) source() *verify.Source {
	return &verify.Source{
		Partitions: slices.Clone(w.partitions),
		Each: func(_ context.Context, name string, partition int32, do func(*verify.Record) error) error {
			for _, r := range w.records[name][partition] {
				if err := do(&r); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// loadWorld reads a source into memory.
func loadWorld(t testing.TB, source *verify.Source) *world {
	t.Helper()
	w := &world{partitions: source.Partitions, records: make(map[string]map[int32][]verify.Record)}
	for _, name := range []string{topic.Clicks, topic.Conversions, topic.Outcomes} {
		w.records[name] = make(map[int32][]verify.Record)
		for _, p := range source.Partitions {
			if err := source.Each(t.Context(), name, p.ID, func(r *verify.Record) error {
				c := *r
				c.Key, c.Value = slices.Clone(r.Key), slices.Clone(r.Value)
				w.records[name][p.ID] = append(w.records[name][p.ID], c)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w
}

// row is a row of outcomes and where it is.
type row struct {
	verify.Place
	event.Outcome
}

// rows are the rows of a workspace, in order of partition and offset.
func (w *world) rows(t testing.TB, workspace string) (rows []row) {
	t.Helper()
	for _, p := range w.partitions {
		for _, r := range w.records[topic.Outcomes][p.ID] {
			x := row{Place: verify.Place{Partition: p.ID, Offset: r.Offset}}
			if err := codec.DecodeOutcome(r.Value, &x.Outcome); err != nil {
				t.Fatal(err)
			}
			if x.WorkspaceID == workspace {
				rows = append(rows, x)
			}
		}
	}
	return rows
}

// replaceRow writes a row with other contents.
func (w *world) replaceRow(t testing.TB, at verify.Place, o *event.Outcome) {
	t.Helper()
	list := w.records[topic.Outcomes][at.Partition]
	i := slices.IndexFunc(list, func(r verify.Record) bool { return r.Offset == at.Offset })
	value, err := codec.AppendOutcome(nil, o, nil)
	if err != nil || i < 0 {
		t.Fatalf("no row at %v: %v", at, err)
	}
	list[i].Value, list[i].Key = value, []byte(o.ClickToken)
}

// run verifies a world.
func run(t testing.TB, w *world, cfg verify.Config) *verify.Report {
	t.Helper()
	return runSource(t, w.source(), cfg)
}

func runSource(t testing.TB, source *verify.Source, cfg verify.Config) *verify.Report {
	t.Helper()
	if cfg.Workspace == "" {
		cfg.Workspace = "acme"
	}
	cfg.TempDir = t.TempDir()
	r, err := verify.Run(t.Context(), cfg, source, codec)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// tally returns the tally of a name.
func tally(t testing.TB, r *verify.Report, name string) *verify.Tally {
	t.Helper()
	for _, x := range r.Tallies {
		if x.Name == name {
			return x
		}
	}
	t.Fatalf("no tally %q", name)
	return nil
}

// judgedWorld is one world for all tests that do not write: journeys of every kind, some
// of which still wait, judged by the real processor.
var judgedWorld = func() func(t testing.TB) *world {
	var once sync.Once
	var shared *world
	return func(t testing.TB) *world {
		once.Do(func() { shared = makeWorld(t, rand.New(rand.NewPCG(3, 7)), 250) })
		if shared == nil {
			t.Fatal("the world could not be made")
		}
		return shared
	}
}()

// brokerWorld is a broker with a processor on it.
type brokerWorld struct {
	testing.TB
	brokers []string
	client  *kgo.Client
	*scenario.Generator
	ahead atomic.Int64 // of the clock
	seen  map[*event.Conversion]bool
}

func (b *brokerWorld) now() time.Time { return time.Now().Add(time.Duration(b.ahead.Load())) }

// makeWorld writes random journeys, has them judged, lets all waits end, and writes some
// more, of which some wait.
func makeWorld(t testing.TB, random *rand.Rand, journeys int) *world {
	t.Helper()
	brokers := kafkatest.Broker(t)
	b := &brokerWorld{TB: t, brokers: brokers, client: kafkatest.Client(t, brokers),
		seen: make(map[*event.Conversion]bool)}
	b.Generator = scenario.New(kafkatest.Partitions, random, b.now)
	stop := b.startProcessor()
	b.write(journeys)
	b.awaitJudged(func(event.Progress) bool { return true })
	b.ahead.Add(int64(grace + grace/5 + time.Second))
	b.awaitJudged(func(p event.Progress) bool { return p.Waiting == 0 })
	b.write(journeys / 5)
	b.awaitJudged(func(event.Progress) bool { return true })
	stop()
	source, err := verify.OpenTopics(t.Context(), b.kafka(), codec, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return loadWorld(t, source)
}

func (b *brokerWorld) kafka() kafka.Config {
	cfg := kafka.DefaultConfig()
	cfg.Brokers = b.brokers
	return cfg
}

func (b *brokerWorld) startProcessor() (stop func()) {
	b.Helper()
	cfg := processor.DefaultConfig()
	cfg.StateDir, cfg.Instance = b.TempDir(), "slot-0"
	cfg.Grace = grace
	cfg.ClickMemory = 8 << 20
	cfg.CommitInterval = 20 * time.Millisecond
	env := processor.DefaultEnv()
	env.Now = b.now
	p, err := processor.NewIn(env, cfg, b.kafka(), codec, slog.New(slog.NewTextHandler(io.Discard, nil)),
		prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.Errorf("Run: %v", err)
		}
	})
	b.Cleanup(stop)
	return stop
}

// write writes journeys of several partners, whose events say things that concern the
// merchant alone.
func (b *brokerWorld) write(journeys int) {
	b.Helper()
	for range journeys {
		partner := b.Rand.IntN(3)
		for _, step := range b.Journey() {
			if k := step.Click; k != nil {
				k.PartnerID = fmt.Sprint("prt_", partner)
				k.PartnerName = fmt.Sprint("Partner ", partner)
			}
			if ev := step.Event; ev != nil && !b.seen[ev] {
				b.seen[ev] = true
				ev.CustomerRef = "customer-of-the-merchant"
				ev.CustomerHash = []byte("0123456789abcdef")
				ev.KeyID = "key-of-the-merchant"
				if ev.Metadata != nil {
					ev.Metadata["note"] = "metadata-of-the-merchant"
				}
				ev.ContentSHA256 = ev.ContentHash()
			}
			r, err := b.Record(step)
			if err != nil {
				b.Fatal(err)
			}
			b.client.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
				if err != nil {
					b.Errorf("producing: %v", err)
				}
			})
		}
	}
	if err := b.client.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// awaitJudged waits until the newest Progress of each partition has reached the ends of
// the inputs, and meets a condition.
func (b *brokerWorld) awaitJudged(ok func(event.Progress) bool) {
	b.Helper()
	count := func(name string) (n int64) { return int64(len(kafkatest.Consume(b, b.brokers, name))) }
	clicks, events := count(topic.Clicks), count(topic.Conversions)
	for end := time.Now().Add(hang); ; time.Sleep(100 * time.Millisecond) {
		newest := make(map[int32]event.Progress)
		for _, r := range kafkatest.Consume(b, b.brokers, topic.Progress) {
			var p event.Progress
			if err := codec.DecodeProgress(r.Value, &p); err != nil {
				b.Fatal(err)
			}
			newest[p.Partition] = p
		}
		var readClicks, readEvents int64
		good := true
		for _, p := range newest {
			readClicks += p.ClicksPosition
			readEvents += p.ConversionsPosition
			good = good && ok(p)
		}
		if good && readClicks == clicks && readEvents == events {
			return
		}
		if time.Now().After(end) {
			b.Fatalf("not judged: %v", slices.Collect(maps.Values(newest)))
		}
	}
}

// tableOf is a warehouse with these rows.
func tableOf(w *world, rows []row) *verify.Table {
	table := &verify.Table{Ends: make(map[int32]int64)}
	for _, p := range w.partitions {
		table.Ends[p.ID] = p.Outcomes.End
	}
	table.Each = func(_ context.Context, partition int32, do func(verify.Place, *event.Outcome) error) error {
		for i := range rows {
			if rows[i].Partition != partition {
				continue
			}
			if err := do(rows[i].Place, &rows[i].Outcome); err != nil {
				return err
			}
		}
		return nil
	}
	return table
}
