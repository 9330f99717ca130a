package sink

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// long runs everything in full, not only as much of it as shows that a promise is
// broken.
var long = os.Getenv("PARTNERS_TEST_LONG") == "1"

// hang is how long a test waits for what must come: it is for what never comes, far
// beyond what a slow machine takes.
const hang = 3 * time.Minute

// rig is a broker with our topics, a migrated ClickHouse and the truth of what was
// produced.
type rig struct {
	t       testing.TB
	cluster *kfake.Cluster
	brokers []string
	dsn     string
	wh      *clickhouse.Conn
	codec   *event.Codec
	want    map[string][]spot // by table: the records that must be in it
	sums    map[string]int64  // by name: what the rollup must say
	tokens  int
	spread  int // how many partitions fill uses
	// twoMonths: every second record of fill reached Kafka a month ago, so that an insert
	// is two blocks.
	twoMonths bool
	suffix    string    // of the sinks' group
	at        time.Time // when records of fill reached Kafka; zero: now
}

type spot struct {
	Partition uint32 `ch:"src_partition"`
	Offset    uint64 `ch:"src_offset"`
}

func discard() *slog.Logger {
	if os.Getenv("SINK_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{
		t:      t,
		dsn:    clickhousetest.ForTest(t),
		codec:  event.DefaultCodec(),
		want:   map[string][]spot{},
		sums:   map[string]int64{},
		spread: kafkatest.Partitions,
	}
	r.cluster, r.brokers = kafkatest.Cluster(t)
	return r.migrated()
}

// newRealRig is a rig on an Apache Kafka of its own.
func newRealRig(t testing.TB) *rig {
	t.Helper()
	b := kafkatest.Real(t)
	kafkatest.Topics(t, b.Brokers())
	r := &rig{
		t:       t,
		dsn:     clickhousetest.ForTest(t),
		codec:   event.DefaultCodec(),
		want:    map[string][]spot{},
		sums:    map[string]int64{},
		spread:  kafkatest.Partitions,
		brokers: b.Brokers(),
	}
	return r.migrated()
}

func (r *rig) migrated() *rig {
	r.t.Helper()
	r.wh = r.open(r.dsn)
	r.want["catalog_versions"] = []spot{{0, 0}, {0, 1}} // the records of the installation
	r.bind(time.Now().Add(50 * time.Minute))
	clickhousetest.Migrate(r.t, r.dsn, r.wh)
	return r
}

// bind writes since when a record can be misplaced. The tests put records into any
// partition, so a rig begins with a time to come.
func (r *rig) bind(since time.Time) {
	r.t.Helper()
	value, err := topic.PlacedSince{Since: since}.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	r.produce("catalog_versions", &kgo.Record{Topic: topic.Catalog, Key: []byte(topic.PlacedSinceKey), Value: value})
}

func (r *rig) open(dsn string) *clickhouse.Conn {
	r.t.Helper()
	conn, err := clickhouse.Open(r.t.Context(), clickhouse.Config{DSN: dsn}, discard())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

// sink makes a sink that inserts as often as the budget allows, in small batches.
func (r *rig) sink(wh *clickhouse.Conn) *Sink {
	r.t.Helper()
	cfg := DefaultConfig()
	cfg.BatchRows, cfg.Linger = 500, 10*time.Millisecond
	k := kafka.DefaultConfig()
	k.Brokers = r.brokers
	k.GroupSuffix = r.suffix
	s, err := New(cfg, k, r.codec, wh, discard(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	s.env.HeartbeatInterval = 50 * time.Millisecond
	s.env.SettleTime = 200 * time.Millisecond
	s.env.DrainTimeout = hang
	s.env.LedgerMetricsInterval = 0 // TestEndToEnd has them: they cost more than the sink
	return s
}

// takeCatalog brings the record of the installation into the tables, so that no batch of
// topic catalog is under way when a sink is killed.
func (r *rig) takeCatalog(t *testing.T) {
	t.Helper()
	run := r.start(r.sink(r.wh))
	r.arrived()
	run.stop(t)
}

// running is a sink at work.
type running struct {
	*Sink
	cancel context.CancelFunc
	done   chan error
}

func (r *rig) start(s *Sink) *running {
	ctx, cancel := context.WithCancel(context.Background())
	run := &running{s, cancel, make(chan error, 1)}
	go func() { run.done <- s.Run(ctx) }()
	r.t.Cleanup(cancel)
	return run
}

// end waits for the sink to end by itself.
func (run *running) end(t testing.TB) error {
	t.Helper()
	select {
	case err := <-run.done:
		return err
	case <-time.After(hang):
		t.Fatal("the sink did not end")
		return nil
	}
}

func (run *running) stop(t testing.TB) {
	t.Helper()
	run.cancel()
	if err := run.end(t); err != nil {
		t.Fatalf("stopping the sink: %v", err)
	}
}

// token makes a token text that sorts by time.
func (r *rig) token() string {
	r.tokens++
	return fmt.Sprintf("2abc%023d", r.tokens)
}

var epoch = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)

func (r *rig) click(i int) *event.Click {
	c := &event.Click{WorkspaceID: fmt.Sprintf("w%d", i%3), ClickToken: r.token(),
		ClickedAt: event.MillisOf(epoch.Add(time.Duration(i) * time.Second)), WindowMs: 30 * 86400_000,
		TokenStatus: event.TokenAppended, LinkID: fmt.Sprintf("lnk_%d", i%7), Domain: "go.acme.com", Slug: fmt.Sprintf(
			"s%d", i%7), Destination: "https://shop.acme.com/landing/page", Trigger: event.TriggerLink,
		PartnerID: fmt.Sprintf(
			"prt_%d",
			i%5), PartnerKey: "nomura", PartnerName: "Nomura Studio",
		PartnerRelationship: "approved", PartnerLifecycle: "active",
		ProgramID: "prg_agency", ProgramKey: "agency", ProgramName: "Agency partners",
		ProgramStatus: "active", AssignmentID: "asg_1", AssignedAt: event.MillisOf(epoch.Add(-240 * time.Hour)),
		RewardTerms: "10%", UTMSource: "partner", UTMMedium: "agency", ReferrerHost: "news.example.com", Country: "DE",
		Device: "phone", OS: "Android", Browser: "Chrome Mobile", CatalogOffset: 17}
	if i%10 == 3 {
		c.TokenStatus, c.TokenReason = event.TokenWithheld, "signed_url"
	}
	if i%10 == 4 {
		c.IsBot, c.BotReason = true, "ua"
	}
	return c
}

func (r *rig) clickRecord(c *event.Click, partition int32, replay bool) *kgo.Record {
	value, err := r.codec.AppendClick(nil, c)
	if err != nil {
		r.t.Fatal(err)
	}
	rec := &kgo.Record{
		Topic:     topic.Clicks,
		Partition: partition,
		Key:       []byte(c.ClickToken),
		Value:     value,
		Headers:   []kgo.RecordHeader{{Key: topic.HeaderToken, Value: []byte("1")}},
	}
	if replay {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: topic.HeaderReplay, Value: []byte("1")})
	}
	return rec
}

// conversion and its outcome, as the processor would write it.
func (r *rig) pair(i int, partition int32) (*kgo.Record, *event.Outcome) {
	c := r.click(i)
	amount := int64(1000 + i)
	v := &event.Conversion{WorkspaceID: c.WorkspaceID, EventID: fmt.Sprintf("e%d", i), ClickToken: c.ClickToken,
		Type: event.Sale, EventName: "order", OccurredAt: c.ClickedAt.Add(time.Hour),
		ReceivedAt: c.ClickedAt.Add(time.Hour + time.Second), AmountMinor: &amount, Currency: "EUR", Exponent: 2,
		OrderID: fmt.Sprintf("o%d", i), Metadata: map[string]string{"sku": "A1"}, KeyID: "0badcafe"}
	v.ContentSHA256 = v.ContentHash()
	value, err := r.codec.AppendConversion(nil, v)
	if err != nil {
		r.t.Fatal(err)
	}
	reward := amount / 10
	o := &event.Outcome{WorkspaceID: v.WorkspaceID, EventID: v.EventID, ClickToken: v.ClickToken,
		Verdict: event.Attributed, Flags: []string{event.FlagTooFast}, Review: event.ReviewClear, Type: v.Type,
		EventName: v.EventName,
		Effect:    1, OccurredAt: v.OccurredAt, ReceivedAt: v.ReceivedAt, DecidedAt: v.ReceivedAt +
			5, AmountMinor: &amount, Currency: "EUR", Exponent: 2, OrderID: v.OrderID,
		EstimatedRewardMinor: &reward, RewardCurrency: "EUR", ContentSHA256: v.ContentSHA256,
		EventPartition: partition, RulesVersion: event.RulesVersion, Click: c}
	return &kgo.Record{Topic: topic.Conversions, Partition: partition, Key: []byte(v.ClickToken), Value: value}, o
}

// produce sends records and notes those that must arrive in their table.
func (r *rig) produce(table string, records ...*kgo.Record) {
	r.t.Helper()
	kafkatest.Produce(r.t, r.brokers, records...)
	r.expect(table, records)
}

func (r *rig) expect(table string, records []*kgo.Record) {
	if table == "" {
		return
	}
	for _, rec := range records {
		r.want[table] = append(r.want[table], spot{uint32(rec.Partition), uint64(rec.Offset)})
	}
}

// fill produces n clicks and n/10 conversions with their outcomes, the latter in
// transactions of which some are aborted.
func (r *rig) fill(n int) {
	r.t.Helper()
	var clicks, conversions []*kgo.Record
	var outcomes []*event.Outcome
	for i := range n {
		c := r.click(i)
		clicks = append(clicks, r.clickRecord(c, int32(i%r.spread), false))
		if r.twoMonths && i/r.spread%2 == 1 {
			clicks[i].Timestamp = time.Now().AddDate(0, 0, -31)
		}
		r.sums["clicks"]++
		if !c.IsBot {
			r.sums["human_clicks"]++
		}
		if c.TokenStatus == event.TokenAppended {
			r.sums["tokened_clicks"]++
		}
		if i%10 == 0 {
			rec, o := r.pair(i, int32(i/10%r.spread))
			conversions, outcomes = append(conversions, rec), append(outcomes, o)
		}
	}
	if !r.at.IsZero() {
		for _, record := range slices.Concat(clicks, conversions) {
			record.Timestamp = r.at
		}
	}
	r.produce("clicks", clicks...)
	r.produce("conversions", conversions...)
	for i, o := range outcomes {
		o.EventOffset = conversions[i].Offset
	}
	r.judge(outcomes)
}

// judge writes outcomes in transactions of 50, before each of which one is aborted.
func (r *rig) judge(outcomes []*event.Outcome) {
	r.t.Helper()
	cl := kafkatest.Client(r.t, r.brokers, kgo.TransactionalID(fmt.Sprint("test-", rand.Uint64())))
	for chunk := range slices.Chunk(outcomes, 50) {
		for _, commit := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
			var records []*kgo.Record
			for _, o := range chunk {
				value, err := r.codec.AppendOutcome(nil, o, nil)
				if err != nil {
					r.t.Fatal(err)
				}
				records = append(records, &kgo.Record{
					Timestamp: r.at, // zero is now
					Topic:     topic.Outcomes,
					Partition: o.EventPartition,
					Key:       []byte(o.ClickToken),
					Value:     value,
				})
			}
			if err := cl.BeginTransaction(); err != nil {
				r.t.Fatal(err)
			}
			if err := cl.ProduceSync(r.t.Context(), records...).FirstErr(); err != nil {
				r.t.Fatal(err)
			}
			if err := cl.EndTransaction(r.t.Context(), commit); err != nil {
				r.t.Fatal(err)
			}
			if commit == kgo.TryCommit {
				r.expect("outcomes", records)
				for _, o := range chunk {
					r.sums["sales"]++
					r.sums["gross_minor"] += *o.AmountMinor
					r.sums["reward_minor"] += *o.EstimatedRewardMinor
				}
			}
		}
	}
}

func (r *rig) places(table string) []spot {
	r.t.Helper()
	var got []spot
	if err := r.wh.Select(r.t.Context(), &got, "SELECT src_partition, src_offset FROM "+table+
		" ORDER BY ALL"); err != nil {
		r.t.Fatal(err)
	}
	return got
}

func sorted(p []spot) []spot {
	out := slices.Clone(p)
	slices.SortFunc(out, func(a, b spot) int {
		if a.Partition != b.Partition {
			return int(a.Partition) - int(b.Partition)
		}
		return int(a.Offset) - int(b.Offset)
	})
	return out
}

// pollFirst and pollLast are between two questions whether rows have arrived: each costs
// ClickHouse a fifth of a small insert, and the slower the machine, the more there were.
const (
	pollFirst = 100 * time.Millisecond
	pollLast  = time.Second
)

// arrived waits until as many rows as expected are in all tables and recorded in
// batches.
func (r *rig) arrived() {
	r.t.Helper()
	pause := pollFirst
	for deadline := time.Now().Add(hang); ; pause = min(pause*3/2, pollLast) {
		missing := r.missing()
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal("did not arrive: ", missing)
		}
		time.Sleep(pause)
	}
}

// missing says which rows have not arrived.
func (r *rig) missing() string {
	r.t.Helper()
	var got []struct {
		Topic string `ch:"topic"`
		Rows  uint64 `ch:"n"`
	}
	if err := r.wh.Select(r.t.Context(), &got,
		"SELECT topic, sum(rows) AS n FROM batches FINAL GROUP BY topic"); err != nil {
		r.t.Fatal(err)
	}
	recorded := map[string]uint64{}
	for _, g := range got {
		recorded[g.Topic] = g.Rows
	}
	for table, want := range r.want {
		n := recorded[strings.Replace(table, "catalog_versions", "catalog", 1)]
		if n < uint64(len(want)) {
			return fmt.Sprintf("%s: %d of %d rows", table, n, len(want))
		}
	}
	return ""
}

// check compares base tables, batches and rollup with what was produced.
func (r *rig) check() {
	r.t.Helper()
	got := r.placesOf(slices.Sorted(maps.Keys(r.want)))
	for table, want := range r.want {
		if diff := cmp.Diff(sorted(want), got[table], cmpopts.EquateEmpty()); diff != "" {
			r.t.Errorf("%s (-want +got):\n%.2000s", table, diff)
		}
	}
	var ends []struct {
		Topic     string `ch:"topic"`
		Partition uint32 `ch:"partition"`
		First     uint64 `ch:"first_offset"`
		Runs      uint64 `ch:"runs"`
	}
	if err := r.wh.Select(r.t.Context(), &ends,
		"SELECT topic, partition, first_offset, runs FROM tiled_ends"); err != nil {
		r.t.Fatal(err)
	}
	for _, e := range ends {
		if e.First != 0 || e.Runs != 1 {
			r.t.Errorf("batches of %s partition %d begin at %d and are %d runs", e.Topic, e.Partition, e.First, e.Runs)
		}
	}
	if len(r.want["outcomes"]) > 0 {
		checkLookups(r.t, r.wh)
	}
	names := slices.Sorted(maps.Keys(r.sums))
	if len(names) == 0 {
		return
	}
	var sums []struct {
		Sums []int64 `ch:"sums"`
	}
	if err := r.wh.Select(r.t.Context(), &sums, "SELECT [toInt64(sum("+strings.Join(names, ")), toInt64(sum(")+
		"))] AS sums FROM partner_daily"); err != nil {
		r.t.Fatal(err)
	}
	for i, name := range names {
		if sums[0].Sums[i] != r.sums[name] {
			r.t.Errorf("rollup: %s is %d, want %d", name, sums[0].Sums[i], r.sums[name])
		}
	}
}

// placesOf returns the places of all rows of tables, in one question.
func (r *rig) placesOf(tables []string) map[string][]spot {
	r.t.Helper()
	var parts []string
	for _, table := range tables {
		parts = append(parts, "SELECT '"+table+"' AS name, src_partition, src_offset FROM "+table)
	}
	var rows []struct {
		Table     string `ch:"name"`
		Partition uint32 `ch:"src_partition"`
		Offset    uint64 `ch:"src_offset"`
	}
	if err := r.wh.Select(r.t.Context(), &rows, "SELECT * FROM ("+strings.Join(parts, " UNION ALL ")+
		") ORDER BY ALL"); err != nil {
		r.t.Fatal(err)
	}
	got := map[string][]spot{}
	for _, row := range rows {
		got[row.Table] = append(got[row.Table], spot{row.Partition, row.Offset})
	}
	return got
}
