package redirect

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/topic"
)

var epochs = topic.OneEpoch(kafkatest.Partitions)

// runningShipper is a spool with a shipper at work.
type runningShipper struct {
	*Shipper
	reg  *prometheus.Registry
	stop func() // ends Run, waits for it, and closes client and spool
}

func startShipper(t testing.TB, cfg Config, brokers []string, opts ...kgo.Opt) *runningShipper {
	t.Helper()
	return startLoggedShipper(t, discardLog(), cfg, brokers, opts...)
}

func startLoggedShipper(t testing.TB, log *slog.Logger, cfg Config, brokers []string, opts ...kgo.Opt) *runningShipper {
	t.Helper()
	return startPlacedShipper(t, placedIn(epochs), log, cfg, brokers, opts...)
}

func startPlacedShipper(t testing.TB, placer Placer, log *slog.Logger, cfg Config, brokers []string,
	opts ...kgo.Opt) *runningShipper {
	t.Helper()
	reg := prometheus.NewRegistry()
	spool, err := OpenSpool(cfg, discardLog(), reg)
	if err != nil {
		t.Fatal(err)
	}
	kcfg := kafka.DefaultConfig()
	kcfg.Brokers = brokers
	client, err := kafka.NewClient(kcfg, discardLog(), nil, append(ClientOptions(), opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	watch := outage.New(log, "Kafka")
	s, err := NewShipper(spool, client, topic.Clicks, placer, codec, watch, log, reg)
	if err != nil {
		t.Fatal(err)
	}
	s.replayDelay, s.maxPause = 10*time.Millisecond, 100*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	ended := false
	l := &runningShipper{Shipper: s, reg: reg}
	l.stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("shipper: %v", err)
		}
		client.Close()
		if err := spool.Close(); err != nil {
			t.Errorf("spool: %v", err)
		}
	}
	t.Cleanup(l.stop)
	return l
}

func headerValue(r *kgo.Record, key string) (string, bool) {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value), true
		}
	}
	return "", false
}

func countReplays(records []*kgo.Record) (n int) {
	for _, r := range records {
		if _, ok := headerValue(r, topic.HeaderReplay); ok {
			n++
		}
	}
	return n
}

// waitForClicks waits until Kafka has n clicks and returns them.
func waitForClicks(t testing.TB, brokers []string, n int) []*kgo.Record {
	t.Helper()
	var records []*kgo.Record
	eventually(t, fmt.Sprintf("%d clicks in Kafka", n), func() bool {
		records = kafkatest.Consume(t, brokers, topic.Clicks)
		return len(records) >= n
	})
	return records
}

// placedLater places tokens when it is told where they belong.
type placedLater struct {
	known atomic.Pointer[topic.Epochs]
	asked atomic.Int32
}

func (p *placedLater) TryPlace(clickToken string, minted, _ time.Time) (int32, bool) {
	p.asked.Add(1)
	known := p.known.Load()
	if known == nil {
		return 0, false
	}
	return known.Partition(clickToken, minted), true
}

// A click waits in the spool until its place is known, and goes to where it belongs then,
// whatever was known when it was spooled.
func TestPlacedWhenShipped(t *testing.T) {
	brokers, keys := kafkatest.Broker(t), testKeys(t, "acme")
	placer := new(placedLater)
	l := startPlacedShipper(t, placer, discardLog(), testConfig(t), brokers)
	for n := range 20 {
		mustAppend(t, l.spool, testRecord(t, keys, n))
	}
	eventually(t, "the shipper asks again", func() bool { return placer.asked.Load() > 20 })
	if got := kafkatest.Consume(t, brokers, topic.Clicks); len(got) > 0 {
		t.Errorf("%d clicks were sent and not placed", len(got))
	}
	few := topic.OneEpoch(2)
	placer.known.Store(&few)
	for _, r := range waitForClicks(t, brokers, 20) {
		raw, err := token.Parse(string(r.Key))
		if err != nil {
			t.Fatal(err)
		}
		if p := few.Partition(string(r.Key), token.Time(&raw)); r.Partition != p {
			t.Errorf("%s went to partition %d, belongs to %d", r.Key, r.Partition, p)
		}
	}
}

func TestShipping(t *testing.T) {
	brokers, keys := kafkatest.Broker(t), testKeys(t, "acme")
	l := startShipper(t, testConfig(t), brokers)
	before := time.Now().Add(-time.Millisecond)
	want := map[string]Record{}
	for n := range 300 {
		r := testRecord(t, keys, n)
		want[r.Token] = r
		if n%50 == 0 {
			mustAppend(t, l.spool, r)
		} else {
			go l.spool.Append(context.Background(), r)
		}
	}
	records := waitForClicks(t, brokers, len(want))
	if len(records) != len(want) {
		t.Fatalf("%d records in Kafka, want %d", len(records), len(want))
	}
	for _, r := range records {
		w, ok := want[string(r.Key)]
		delete(want, string(r.Key))
		if !ok || !bytes.Equal(r.Value, w.Value) {
			t.Fatalf("record %s is not what was appended", r.Key)
		}
		raw, err := token.Parse(string(r.Key))
		if err != nil {
			t.Fatal(err)
		}
		if p := epochs.Partition(string(r.Key), token.Time(&raw)); r.Partition != p {
			t.Errorf("%s went to partition %d, belongs to %d", r.Key, r.Partition, p)
		}
		if v, ok := headerValue(r, topic.HeaderToken); ok != w.Shown || ok && v != "1" {
			t.Errorf("%s: header t %q %v, shown %v", r.Key, v, ok, w.Shown)
		}
		if _, ok := headerValue(r, topic.HeaderReplay); ok {
			t.Errorf("%s: header replay on a first attempt", r.Key)
		}
		if r.Timestamp.Before(before) || r.Timestamp.After(time.Now()) {
			t.Errorf("%s: timestamp %v", r.Key, r.Timestamp)
		}
	}
	eventually(t, "an empty backlog", func() bool { return metricValue(t, l.reg, "partners_spool_backlog_bytes") == 0 })
	if got := metricValue(t, l.reg, "partners_shipper_records_total"); got != 300 {
		t.Errorf("counted %v shipped", got)
	}
	if got := metricValue(t, l.reg, "partners_shipper_lag_seconds"); got != 0 {
		t.Errorf("lag %v with an empty backlog", got)
	}
	l.stop()
	for path := range readFiles(t, l.spool.cfg.SpoolDir) {
		if strings.HasSuffix(path, segmentExt) {
			t.Errorf("%s is left although all was shipped", path)
		}
	}
}

// A single click does not wait for others. How long it takes depends on the machine,
// but one of a hundred is quick unless all of them wait.
func TestShippingLatency(t *testing.T) {
	brokers, keys := kafkatest.Broker(t), testKeys(t, "acme")
	l := startShipper(t, testConfig(t), brokers)
	mustAppend(t, l.spool, testRecord(t, keys, 0))
	waitForClicks(t, brokers, 1) // connected
	best := time.Hour
	for n := 1; best > 100*time.Millisecond; n++ {
		if n == 100 {
			t.Fatalf("the fastest of %d clicks took %v to Kafka", n-1, best)
		}
		start := time.Now()
		mustAppend(t, l.spool, testRecord(t, keys, n))
		eventually(t, "the acknowledgement", func() bool {
			return metricValue(t, l.reg, "partners_shipper_records_total") == float64(n+1)
		})
		best = min(best, time.Since(start))
	}
	t.Logf("a click took %v to Kafka", best)
}

// What an earlier process left after its acknowledged position is sent with a new
// timestamp and header replay, before anything new. New clicks are sent without.
func TestReplayAfterRestart(t *testing.T) {
	t.Parallel()
	brokers := kafkatest.Broker(t)
	keys, cfg := testKeys(t, "acme"), testConfig(t)
	s := openSpool(t, cfg)
	var left []string
	for n := range 20 {
		r := testRecord(t, keys, n)
		mustAppend(t, s, r)
		left = append(left, r.Token)
	}
	// The earlier process has stored the acknowledgement of three records.
	_, data := onlySegment(t, cfg.SpoolDir)
	end := segmentHead
	for range 3 {
		_, size, _ := new(checksumBuffer).parseFrame(data[end:], 1, end)
		end += int64(size)
	}
	if err := s.acknowledgeUpTo(position{1, end}); err != nil {
		t.Fatal(err)
	}
	s.Close()

	start := time.Now().Add(-time.Millisecond)
	l := startShipper(t, cfg, brokers)
	fresh := testRecord(t, keys, 99)
	mustAppend(t, l.spool, fresh)
	for _, r := range waitForClicks(t, brokers, 18) {
		_, replay := headerValue(r, topic.HeaderReplay)
		old := slices.Contains(left[3:], string(r.Key))
		if old != replay || !old && string(r.Key) != fresh.Token {
			t.Errorf("%s: replay %v, from the earlier process %v", r.Key, replay, old)
		}
		if r.Timestamp.Before(start) {
			t.Errorf("%s has an old timestamp %v", r.Key, r.Timestamp)
		}
	}
	l.stop()
	if got := metricValue(t, l.reg, "partners_shipper_replayed_total"); got != 17 {
		t.Errorf("counted %v replays, want 17", got)
	}

	// Everything is acknowledged now: another start sends nothing.
	l = startShipper(t, cfg, brokers)
	mustAppend(t, l.spool, testRecord(t, keys, 100))
	if n := len(waitForClicks(t, brokers, 19)); n != 19 {
		t.Errorf("%d records after a clean restart, want 19", n)
	}
	l.stop()
}

// After crashes at any moment while shipping nothing is lost, and of several copies of
// a click only the first lacks header replay.
func TestCrashWhileShipping(t *testing.T) {
	t.Parallel()
	brokers := kafkatest.Broker(t)
	keys, cfg := testKeys(t, "acme"), testConfig(t)
	want := map[string]bool{}
	n := 0
	for round := range 5 {
		l := startShipper(t, cfg, brokers)
		for range 200 {
			n++
			r := testRecord(t, keys, n)
			want[r.Token] = true
			mustAppend(t, l.spool, r)
		}
		if round > 0 {
			waitForClicks(t, brokers, n/2)
		}
		// The crash: the next process finds what is in the directory now.
		content := readFiles(t, cfg.SpoolDir)
		from := cfg.SpoolDir
		l.stop()
		cfg.SpoolDir = filepath.Join(memoryDir(t), "spool")
		for path, data := range content {
			to := filepath.Join(cfg.SpoolDir, strings.TrimPrefix(path, from))
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	startShipper(t, cfg, brokers).stop() // drains
	seen := map[string]bool{}
	twice := 0
	// a token stays in one partition, so its order is the log's
	for _, r := range kafkatest.Consume(t, brokers, topic.Clicks) {
		_, replay := headerValue(r, topic.HeaderReplay)
		if seen[string(r.Key)] {
			twice++
			if !replay {
				t.Errorf("%s was sent again without header replay", r.Key)
			}
		}
		seen[string(r.Key)] = true
	}
	for tok := range want {
		if !seen[tok] {
			t.Errorf("%s was acknowledged to its visitor and is not in Kafka", tok)
		}
	}
	if twice == 0 {
		t.Error("no click was sent twice: the crashes came at the wrong moments")
	}
}

// While Kafka is away at the start, redirects go on and the backlog waits on disk. All
// of it arrives later.
func TestKafkaAway(t *testing.T) {
	t.Parallel()
	brokers := kafkatest.Broker(t)
	gate := newGate(t, brokers[0])
	keys := testKeys(t, "acme")
	l := startShipper(t, testConfig(t), []string{gate.addr}, gate.clientOptions()...)
	want := map[string]bool{}
	for n := range 100 {
		r := testRecord(t, keys, n)
		want[r.Token] = true
		mustAppend(t, l.spool, r)
	}
	eventually(t, "a failed attempt", func() bool {
		return metricValue(t, l.reg, "partners_shipper_send_failures_total") > 0
	})
	eventually(t, "a lag", func() bool { return metricValue(t, l.reg, "partners_shipper_lag_seconds") > 0 })
	if metricValue(t, l.reg, "partners_spool_backlog_bytes") == 0 {
		t.Error("no backlog while Kafka is away")
	}
	gate.open()
	eventually(t, "an empty backlog", func() bool { return metricValue(t, l.reg, "partners_spool_backlog_bytes") == 0 })
	there := map[string]bool{}
	for _, r := range kafkatest.Consume(t, brokers, topic.Clicks) {
		there[string(r.Key)] = true
	}
	if len(there) != len(want) {
		t.Errorf("%d clicks are there, want %d", len(there), len(want))
	}

	// Kafka goes away under load: the outcome of what is in flight is not known.
	gate.shut()
	for n := range 100 {
		r := testRecord(t, keys, 1000+n)
		want[r.Token] = true
		mustAppend(t, l.spool, r)
	}
	failed := metricValue(t, l.reg, "partners_shipper_send_failures_total")
	eventually(t, "more failed attempts", func() bool {
		return metricValue(t, l.reg, "partners_shipper_send_failures_total") > failed
	})
	gate.open()
	eventually(t, "an empty backlog", func() bool { return metricValue(t, l.reg, "partners_spool_backlog_bytes") == 0 })
	seen := map[string]bool{}
	for _, r := range kafkatest.Consume(t, brokers, topic.Clicks) {
		if _, replay := headerValue(r, topic.HeaderReplay); seen[string(r.Key)] && !replay {
			t.Errorf("%s was sent again without header replay", r.Key)
		}
		seen[string(r.Key)] = true
	}
	for tok := range want {
		if !seen[tok] {
			t.Errorf("%s is lost", tok)
		}
	}
	if n := countReplays(kafkatest.Consume(t, brokers, topic.Clicks)); n == 0 {
		t.Error("no record has header replay after delivery timeouts")
	}
}

// After an outage the shipments that failed in it are sent without a pause for each: a
// thousand small shipments do not wait for a thousand pauses.
func TestCatchesUpAfterOutage(t *testing.T) {
	t.Parallel()
	brokers := kafkatest.Broker(t)
	gate := newGate(t, brokers[0])
	keys := testKeys(t, "acme")
	var log safeBuffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l := startLoggedShipper(t, logger, testConfig(t), []string{gate.addr}, gate.clientOptions()...)
	const shipments = 150
	for n := range shipments {
		mustAppend(t, l.spool, testRecord(t, keys, n))
		time.Sleep(2 * time.Millisecond) // each on its own
	}
	eventually(t, "repeated failures of the head", func() bool {
		return metricValue(t, l.reg, "partners_shipper_send_failures_total") >= 3
	})
	opened := time.Now()
	gate.open()
	eventually(t, "an empty backlog", func() bool { return metricValue(t, l.reg, "partners_spool_backlog_bytes") == 0 })
	t.Logf("%d shipments of an outage took %v", shipments, time.Since(opened).Round(time.Millisecond))
	// A pause after a success is the shortest one.
	if n := strings.Count(log.String(), fmt.Sprint(" in=", minPause, " ")); n == 0 || n > 5 {
		t.Errorf("in one outage of %d shipments the back-off started %d times", shipments, n)
	}
}

// gate leads to a broker and can be shut: then connections break and new ones are
// refused.
type gate struct {
	addr   string
	target string
	isOpen atomic.Bool
	conns  chan net.Conn
}

// clientOptions are those of a shipper whose way to Kafka is the gate.
func (g *gate) clientOptions() []kgo.Opt {
	return []kgo.Opt{
		kgo.RecordDeliveryTimeout(time.Second),
		kgo.Dialer(g.dial),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }),
	}
}

func newGate(t testing.TB, target string) *gate {
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is closed
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return &gate{addr: l.Addr().String(), target: target, conns: make(chan net.Conn, 1000)}
}

func (g *gate) open() { g.isOpen.Store(true) }

func (g *gate) shut() {
	g.isOpen.Store(false)
	for {
		select {
		case c := <-g.conns:
			c.Close()
		default:
			return
		}
	}
}

func (g *gate) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	addr := g.addr
	if g.isOpen.Load() {
		addr = g.target
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if err == nil {
		g.conns <- c
	}
	return c, err
}

// A lost acknowledgement leaves the outcome unknown: the click is in the log without
// header replay, and is sent again with it.
func TestLostAcknowledgement(t *testing.T) {
	t.Parallel()
	cluster, brokers := kafkatest.Cluster(t)
	gate := newGate(t, brokers[0])
	gate.open()
	keys := testKeys(t, "acme")
	l := startShipper(t, testConfig(t), []string{gate.addr}, gate.clientOptions()...)
	mustAppend(t, l.spool, testRecord(t, keys, 1))
	waitForClicks(t, brokers, 1)

	// The broker takes the next produce request; then the connection breaks.
	var once sync.Once
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		once.Do(gate.shut)
		return nil, nil, false // and the fake writes it
	})
	lost := testRecord(t, keys, 2)
	mustAppend(t, l.spool, lost)
	eventually(t, "the failed attempt", func() bool {
		return metricValue(t, l.reg, "partners_shipper_send_failures_total") > 0
	})
	gate.open()
	eventually(t, "the acknowledgement", func() bool {
		return metricValue(t, l.reg, "partners_shipper_records_total") == 2
	})
	var headers []bool
	for _, r := range kafkatest.Consume(t, brokers, topic.Clicks) {
		if string(r.Key) == lost.Token {
			_, replay := headerValue(r, topic.HeaderReplay)
			headers = append(headers, replay)
		}
	}
	// a slow machine may lose the second acknowledgement too
	if len(headers) < 2 || headers[0] || slices.Contains(headers[1:], false) {
		t.Errorf("the click is in the log %d times, replay %v; want once without and then with",
			len(headers), headers)
	}
}

// controlled is the part of the fake broker that replaces its responses.
type controlled interface {
	ControlKey(int16, func(kmsg.Request) (kmsg.Response, error, bool))
	KeepControl()
}

// refuseBatchesWith makes the fake refuse whole batches that contain the bad record, as
// Kafka does.
func refuseBatchesWith(cluster controlled, bad Record, refusal *kerr.Error) {
	refuseBatchesWhile(cluster, bad, refusal, func() bool { return true })
}

// refuseBatchesWhile is refuseBatchesWith for as long as more returns true, which is
// called for each of them.
func refuseBatchesWhile(cluster controlled, bad Record, refusal *kerr.Error, more func() bool) {
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		p := req.(*kmsg.ProduceRequest)
		if !bytes.Contains(p.AppendTo(nil), []byte(bad.Token)) || !more() {
			return nil, nil, false
		}
		res := p.ResponseKind().(*kmsg.ProduceResponse)
		for _, rt := range p.Topics {
			st := kmsg.NewProduceResponseTopic()
			st.Topic, st.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				sp := kmsg.NewProduceResponseTopicPartition()
				sp.Partition = rp.Partition
				sp.ErrorCode = kerr.NotLeaderForPartition.Code // innocent: another attempt
				if bytes.Contains(rp.Records, []byte(bad.Token)) {
					sp.ErrorCode = refusal.Code
				}
				st.Partitions = append(st.Partitions, sp)
			}
			res.Topics = append(res.Topics, st)
		}
		return res, nil, true
	})
}

// A refused click that refused/ cannot take stays in the spool until it can.
func TestRefusedCannotBeKept(t *testing.T) {
	cluster, brokers := kafkatest.Cluster(t)
	keys, cfg := testKeys(t, "acme"), testConfig(t)
	bad := testRecord(t, keys, 7)
	refuseBatchesWith(cluster, bad, kerr.InvalidTimestamp)
	l := startShipper(t, cfg, brokers, kgo.ProducerBatchCompression(kgo.NoCompression()))
	dir := filepath.Join(cfg.SpoolDir, refusedDir)
	if err := errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l.spool, bad)
	eventually(t, "attempts to keep it", func() bool {
		return metricValue(t, l.reg, "partners_shipper_refused_store_failures_total") >= 2
	})
	if metricValue(t, l.reg, "partners_spool_backlog_bytes") == 0 ||
		metricValue(t, l.reg, "partners_shipper_refused_total", "INVALID_TIMESTAMP") != 0 {
		t.Error("a click was acknowledged that is neither in Kafka nor in refused/")
	}
	if err := errors.Join(os.Remove(dir), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an empty backlog", func() bool { return metricValue(t, l.reg, "partners_spool_backlog_bytes") == 0 })
	if lines := refusedLines(t, cfg); len(lines) != 1 || lines[0].Key != bad.Token {
		t.Errorf("%d refused records", len(lines))
	}
}

// Removing a file makes room at once, and lines that were never synced are not reported
// as durable.
func TestRefusedRoom(t *testing.T) {
	cfg := testConfig(t)
	r, err := openRefusedStore(cfg, codec)
	if err != nil {
		t.Fatal(err)
	}
	f := failure{frame: frame{token: []byte("t"), value: make([]byte, 1000)}, err: kerr.InvalidTimestamp}
	r.limit = 3000
	store := func() error { return r.storeRecord(f, "X", 0, time.Now()) }
	if err := store(); err != nil {
		t.Fatal(err)
	}
	if err := store(); !errors.Is(err, errRefusedFull) {
		t.Errorf("a second of 1.5 kB: %v", err)
	}
	r.current.Close() // makes the sync fail
	r.closeFile()
	if err := r.syncFile(); err == nil {
		t.Error("lines that were not synced are reported as durable")
	}
	for path := range readFiles(t, r.dir) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(store(), r.syncFile()); err != nil {
		t.Errorf("after its file was removed: %v", err)
	}
}

// What Kafka refuses for good goes to refused/ with the reason, and blocks nothing.
func TestRefusedRecords(t *testing.T) {
	for _, refusal := range []*kerr.Error{kerr.InvalidTimestamp, kerr.MessageTooLarge} {
		t.Run(refusal.Message, func(t *testing.T) {
			cluster, brokers := kafkatest.Cluster(t)
			keys, cfg := testKeys(t, "acme"), testConfig(t)
			bad := testRecord(t, keys, 7)
			refuseBatchesWith(cluster, bad, refusal)
			l := startShipper(t, cfg, brokers, kgo.ProducerBatchCompression(kgo.NoCompression()))
			mustAppend(t, l.spool, bad)
			eventually(t, "the refusal", func() bool {
				return metricValue(t, l.reg, "partners_shipper_refused_total", refusal.Message) == 1
			})
			good := testRecord(t, keys, 8)
			mustAppend(t, l.spool, good)
			if r := waitForClicks(t, brokers, 1); len(r) != 1 || string(r[0].Key) != good.Token {
				t.Errorf("%d records in Kafka, want the good one", len(r))
			}
			l.stop()

			lines := refusedLines(t, cfg)
			if len(lines) != 1 {
				t.Fatalf("%d refused records", len(lines))
			}
			got := lines[0]
			if got.Key != bad.Token || got.Error != refusal.Message || !bytes.Equal(got.Value, bad.Value) ||
				got.Shown != bad.Shown || !strings.Contains(string(got.Click), `"link_id":"lnk"`) ||
				got.RefusedAt.IsZero() || got.Detail == "" {
				t.Errorf("refused line %+v", got)
			}
			again := startShipper(t, cfg, brokers)
			again.stop()
			if r := kafkatest.Consume(t, brokers, topic.Clicks); len(r) != 1 {
				t.Errorf("after a restart %d records are in Kafka: the refused one was tried again", len(r))
			}
		})
	}
}

func refusedLines(t testing.TB, cfg Config) (out []refusedLine) {
	t.Helper()
	for path, data := range readFiles(t, filepath.Join(cfg.SpoolDir, refusedDir)) {
		if !strings.HasSuffix(path, ".jsonl") {
			t.Errorf("unexpected file %s", path)
		}
		for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
			var l refusedLine
			if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			out = append(out, l)
		}
	}
	return out
}

// When one record of a batch is too large, its neighbours get through.
func TestOneOfABatchIsRefused(t *testing.T) {
	cluster, brokers := kafkatest.Cluster(t)
	keys, cfg := testKeys(t, "acme"), testConfig(t)
	bad := testRecord(t, keys, 0)
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		p := req.(*kmsg.ProduceRequest)
		for _, rt := range p.Topics {
			for _, rp := range rt.Partitions {
				if !bytes.Contains(rp.Records, []byte(bad.Token)) {
					continue
				}
				res := p.ResponseKind().(*kmsg.ProduceResponse)
				for _, rt := range p.Topics {
					st := kmsg.NewProduceResponseTopic()
					st.Topic, st.TopicID = rt.Topic, rt.TopicID
					for _, rp := range rt.Partitions {
						sp := kmsg.NewProduceResponseTopicPartition()
						sp.Partition, sp.ErrorCode = rp.Partition, kerr.MessageTooLarge.Code
						st.Partitions = append(st.Partitions, sp)
					}
					res.Topics = append(res.Topics, st)
				}
				return res, nil, true
			}
		}
		return nil, nil, false
	})
	s := openSpool(t, cfg) // filled first, so that one read and few batches contain all
	mustAppend(t, s, bad)
	want := map[string]bool{}
	for n := range 60 {
		r := testRecord(t, keys, n+1)
		want[r.Token] = true
		mustAppend(t, s, r)
	}
	s.Close()
	l := startShipper(t, cfg, brokers, kgo.ProducerBatchCompression(kgo.NoCompression()))
	eventually(t, "the refusal", func() bool {
		return metricValue(t, l.reg, "partners_shipper_refused_total", "MESSAGE_TOO_LARGE") == 1
	})
	eventually(t, "an empty backlog", func() bool { return metricValue(t, l.reg, "partners_spool_backlog_bytes") == 0 })
	for _, r := range kafkatest.Consume(t, brokers, topic.Clicks) {
		delete(want, string(r.Key))
	}
	if len(want) > 0 {
		t.Errorf("%d neighbours of the refused record are missing", len(want))
	}
	if lines := refusedLines(t, cfg); len(lines) != 1 || lines[0].Key != bad.Token {
		t.Errorf("%d refused records", len(lines))
	}
}

// A right that lacks is no refusal: the clicks stay in the spool until somebody gives it.
func TestLackingRightKeepsClicks(t *testing.T) {
	cluster, brokers := kafkatest.Cluster(t)
	const attempts = 3
	var refused atomic.Int64
	keys, cfg := testKeys(t, "acme"), testConfig(t)
	click := testRecord(t, keys, 7)
	refuseBatchesWhile(cluster, click, kerr.TopicAuthorizationFailed, func() bool { return refused.Add(1) <= attempts })
	l := startShipper(t, cfg, brokers, kgo.ProducerBatchCompression(kgo.NoCompression()))
	mustAppend(t, l.spool, click)
	if r := waitForClicks(t, brokers, 1); len(r) != 1 || string(r[0].Key) != click.Token {
		t.Errorf("%d records in Kafka", len(r))
	}
	if refused.Load() <= attempts {
		t.Errorf("sent %d times", refused.Load())
	}
	if lines := refusedLines(t, cfg); len(lines) != 0 {
		t.Errorf("%d refused records", len(lines))
	}
}

// Into a topic that was recreated a running shipper sends nothing: it may be empty still,
// and its records replaced by those of before. It says what to do, keeps the clicks, and
// the next process sends them.
func TestRecreatedTopic(t *testing.T) {
	_, brokers := kafkatest.Cluster(t)
	keys, cfg := testKeys(t, "acme"), testConfig(t)
	log := new(safeBuffer)
	l := startLoggedShipper(t, slog.New(slog.NewTextHandler(log, nil)), cfg, brokers,
		kgo.MetadataMinAge(10*time.Millisecond), kgo.MetadataMaxAge(100*time.Millisecond))
	mustAppend(t, l.spool, testRecord(t, keys, 1))
	waitForClicks(t, brokers, 1)
	adm := kadm.NewClient(kafkatest.Client(t, brokers))
	if _, err := adm.DeleteTopic(t.Context(), topic.Clicks); err != nil {
		t.Fatal(err)
	}
	if _, err := adm.CreateTopic(t.Context(), kafkatest.Partitions, 1, nil, topic.Clicks); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l.spool, testRecord(t, keys, 2))
	eventually(t, "that it says what to do", func() bool {
		return strings.Contains(log.String(), "the topic was recreated since this process began")
	})
	if n := len(kafkatest.Consume(t, brokers, topic.Clicks)); n != 0 {
		t.Errorf("%d clicks in the recreated topic", n)
	}
	l.stop()
	startShipper(t, cfg, brokers)
	waitForClicks(t, brokers, 1)
}

// Only errors that are known to be final are final.
func TestRefusalClassifier(t *testing.T) {
	f := func(err error, want refusal) {
		t.Helper()
		if got := classifyRefusal(err); got != want {
			t.Errorf("%v: got %d, want %d", err, got, want)
		}
	}
	f(kerr.InvalidTimestamp, refusedRecord)
	f(fmt.Errorf("producing: %w", kerr.InvalidTimestamp), refusedRecord)
	f(kerr.MessageTooLarge, refusedBatch)
	f(kerr.InvalidRecord, refusedBatch)
	f(kgo.ErrRecordTimeout, retryable)
	f(kerr.UnknownTopicOrPartition, retryable)
	f(kerr.NotEnoughReplicas, retryable)
	f(kerr.TopicAuthorizationFailed, retryable)
	f(kerr.ClusterAuthorizationFailed, retryable)
	f(kafka.ErrAccess, retryable)
	f(context.DeadlineExceeded, retryable)
	f(kgo.ErrClientClosed, retryable)
}
