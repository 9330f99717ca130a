package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/embedded"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// hang is how long a test waits for what must come: it is for what never comes, far
// beyond what a slow machine takes.
const hang = 3 * time.Minute

var discard = slog.New(slog.NewTextHandler(io.Discard, nil))

func config(brokers []string) kafka.Config {
	cfg := kafka.DefaultConfig()
	cfg.Brokers = brokers
	return cfg
}

func want() kafka.TopicsConfig {
	w := kafka.DefaultTopicsConfig()
	w.Replication = 1
	return w
}

// One start of each broker serves all of these.
func TestBrokers(t *testing.T) {
	kafkatest.Each(t, func(t *testing.T, in kafkatest.Install) {
		f := func(name string, test func(*testing.T, kafkatest.Install)) {
			t.Run(name, func(t *testing.T) { test(t, in.Fresh(t)) })
		}
		f("apply is repeatable", applyIsRepeatable)
		f("too few brokers", tooFewBrokers)
		f("partition mismatch", partitionMismatch)
		f("lost offsets", lostOffsets)
		f("follow", follow)
	})
}

func applyIsRepeatable(t *testing.T, in kafkatest.Install) {
	cl := kafkatest.Client(t, in.Brokers)
	changes, err := kafka.ApplyTopics(t.Context(), cl, in.Config(), want(), discard)
	if err != nil || len(changes) != 0 {
		t.Errorf("the second apply changed %v, %v", changes, err)
	}
	if err := kafka.CheckTopics(t.Context(), cl, in.Config(), want(), discard); err != nil {
		t.Errorf("a fresh install has problems: %v", err)
	}
	longer := want()
	longer.ClickLife += 24 * time.Hour
	if err := kafka.CheckTopics(t.Context(), cl, in.Config(), longer, discard); err == nil ||
		!strings.Contains(err.Error(), "topic "+in.Topic(topic.Clicks)+
			": retention.ms is 3888000000, needed is 3974400000") {
		t.Errorf("short retention: %v", err)
	}
	changes, err = kafka.ApplyTopics(t.Context(), cl, in.Config(), longer, discard)
	if err != nil || len(changes) != 2 {
		t.Errorf("longer retention: %v, %v", changes, err)
	}
	// What a controller answered, a broker's metadata shows a moment later.
	eventually(t, func() error {
		if err := kafka.CheckTopics(t.Context(), cl, in.Config(), longer, discard); err != nil {
			return fmt.Errorf("after a longer retention was applied: %w", err)
		}
		return nil
	})
}

// A partition count that differs makes every join wrong: refused, by apply and by
// check. The default of three replicas is refused by a cluster of one node: the error
// says which flag it lacks, and nothing was created.
func tooFewBrokers(t *testing.T, in kafkatest.Install) {
	cl := kafkatest.Client(t, in.Brokers)
	cfg := in.Config()
	cfg.TopicPrefix += "three."
	changes, err := kafka.ApplyTopics(t.Context(), cl, cfg, kafka.DefaultTopicsConfig(), discard)
	if err == nil || len(changes) > 0 || !strings.Contains(err.Error(),
		"-replication is 3 and the cluster has 1 broker(s): give -replication 1,") {
		t.Errorf("changed %q, %v", changes, err)
	}
}

func partitionMismatch(t *testing.T, in kafkatest.Install) {
	cl := kafkatest.Client(t, in.Brokers)
	other := want()
	other.Partitions = 12
	_, err := kafka.ApplyTopics(t.Context(), cl, in.Config(), other, discard)
	if !errors.Is(err, kafka.ErrPartitions) ||
		!strings.Contains(err.Error(), "it is 12, the installation has 6") {
		t.Errorf("apply: %v", err)
	}
	adm := kadm.NewClient(cl)
	if _, err := adm.DeleteTopics(t.Context(), in.Topic(topic.Conversions)); err != nil {
		t.Fatal(err)
	}
	if _, err := adm.CreateTopic(t.Context(), 7, 1, nil, in.Topic(topic.Conversions)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		fresh := kafkatest.Client(t, in.Brokers) // a client may answer from metadata that is a moment old
		if err := kafka.CheckTopics(t.Context(), fresh, in.Config(), want(), discard); !errors.Is(err,
			kafka.ErrPartitions) || !strings.Contains(err.Error(), "topic "+in.Topic(topic.Conversions)) {
			return fmt.Errorf("check: %w", err)
		}
		return nil
	})
}

// A group without a valid offset is an error that names the range; nothing resets it.
func lostOffsets(t *testing.T, in kafkatest.Install) {
	cl := kafkatest.Client(t, in.Brokers)
	clicks, group := in.Topic(topic.Clicks), in.Group(topic.ProcessorGroup)
	for range 10 {
		kafkatest.Produce(t, in.Brokers, &kgo.Record{Topic: clicks, Partition: 2, Value: []byte("x")})
	}
	adm := kadm.NewClient(cl)
	check := func(want string) {
		t.Helper()
		err := kafka.CheckOffsets(t.Context(), adm, kafka.DefaultConfig(), nil, group, []string{clicks})
		if !errors.Is(err, kafka.ErrOffsets) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want …%s…", err, want)
		}
	}
	var gone kadm.Offsets
	gone.AddOffset(clicks, 2, 4, -1)
	if deleted, err := adm.DeleteRecords(t.Context(), gone); err != nil || deleted.Error() != nil {
		t.Fatal(err, deleted.Error())
	}
	check(clicks + " partition 2: committed 0, but the log begins at 4: records [0, 4) are gone")
	var o kadm.Offsets
	o.AddOffset(clicks, 2, 99, -1)
	if err := adm.CommitAllOffsets(t.Context(), group, o); err != nil {
		t.Fatal(err)
	}
	check("committed 99, but the log ends at 10")
	if _, err := adm.DeleteGroup(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	check(clicks + " partition 2: no committed offset while the log holds [4, 10)")
	changes, err := kafka.ApplyTopics(t.Context(), cl, in.Config(), want(), discard)
	if err != nil {
		t.Fatal(err)
	}
	check(clicks + " partition 2: no committed offset") // apply commits empty partitions only
	if !strings.Contains(strings.Join(changes, "\n"), "committed offset 0 of 11 partitions for group "+group) {
		t.Errorf("changes: %v", changes)
	}
}

func follow(t *testing.T, in kafkatest.Install) {
	catalog := in.Topic(topic.Catalog)
	put := func(k, v string) {
		kafkatest.Produce(t, in.Brokers, &kgo.Record{Topic: catalog, Key: []byte(k), Value: []byte(v)})
	}
	put("a", "1")
	put("b", "2")
	got := make(chan string, 10)
	f, err := kafka.Follow(t.Context(), in.Config(), discard, catalog, func(r *kgo.Record) error {
		if strings.HasPrefix(string(r.Key), "install/") {
			return nil
		}
		got <- string(r.Key) + string(r.Value)
		if string(r.Value) == "bad" {
			return errors.New("bad value")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(got) != 2 {
		t.Errorf("Follow returned after %d of 2 records", len(got))
	}
	put("c", "3")
	if a, b, c := <-got, <-got, <-got; a+b+c != "a1b2c3" {
		t.Errorf("got %s %s %s", a, b, c)
	}
	put("d", "bad")
	<-f.Done()
	if err := f.Err(); err == nil || !strings.Contains(err.Error(), "applying "+catalog+" offset 5: bad value") {
		t.Errorf("Err: %v", err)
	}
	if _, err := kafka.Follow(t.Context(), in.Config(), discard, "nosuch", nil); err == nil {
		t.Error("followed a topic that does not exist")
	}
}

// A follower outlives its broker: a crash and a restart are a pause.
func TestFollowOverACrash(t *testing.T) {
	b := kafkatest.Real(t)
	kafkatest.Topics(t, b.Brokers())
	put := func(v string) {
		kafkatest.Produce(t, b.Brokers(), &kgo.Record{Topic: topic.Catalog, Key: []byte("k"), Value: []byte(v)})
	}
	put("1")
	got := make(chan string, 10)
	f, err := kafka.Follow(t.Context(), config(b.Brokers()), discard, topic.Catalog, func(r *kgo.Record) error {
		if strings.HasPrefix(string(r.Key), "install/") {
			return nil
		}
		got <- string(r.Value)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b.Kill()
	b.Start()
	began := time.Now()
	put("2")
	for _, want := range []string{"1", "2"} {
		select {
		case v := <-got:
			if v != want {
				t.Errorf("got %s, want %s", v, want)
			}
		case <-time.After(hang):
			t.Fatalf("record %s does not come; Err: %v", want, f.Err())
		}
	}
	t.Logf("a new record came %v after the broker was back", time.Since(began).Round(time.Millisecond))
}

func eventually(t *testing.T, ok func() error) {
	t.Helper()
	err := ok()
	for deadline := time.Now().Add(hang); err != nil; err = ok() {
		if time.Now().After(deadline) {
			t.Error(err)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// The embedded broker keeps its log over a clean stop.
func TestEmbeddedKeepsItsLog(t *testing.T) {
	dir := t.TempDir()
	b, err := embedded.Start(embedded.Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	kafkatest.Topics(t, b.Addrs())
	kafkatest.Produce(t, b.Addrs(), &kgo.Record{
		Topic:     topic.Clicks,
		Partition: 1,
		Key:       []byte("k"),
		Value:     []byte("v"),
	})
	b.Close()
	b, err = embedded.Start(embedded.Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got := kafkatest.Consume(t, b.Addrs(), topic.Clicks); len(got) != 1 || string(got[0].Value) != "v" {
		t.Errorf("after a restart: %v", got)
	}
	var port int
	if _, p, ok := strings.Cut(b.Addrs()[0], ":"); ok {
		for _, d := range p {
			port = port*10 + int(d-'0')
		}
	}
	if _, err := embedded.Start(embedded.Config{Port: port}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a taken port: %v", err)
	}
}

// A client whose brokers are away says so once, however often it dials and however many
// partitions it has records for; when one answers again, it says that. The rest is at
// level debug.
func TestWatch(t *testing.T) {
	b, err := embedded.Start(embedded.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var log kafkatest.LogBuffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := config(b.Addrs())
	cfg.Watch = outage.New(logger, "Kafka")
	var away atomic.Bool
	var dials atomic.Int32
	var conns sync.Map
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		if away.Load() {
			return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		if err == nil {
			conns.Store(conn, nil)
		}
		return conn, err
	}
	cl, err := kafka.NewClient(cfg, logger, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	apply := want()
	if _, err := kafka.ApplyTopics(t.Context(), cl, cfg, apply, discard); err != nil {
		t.Fatal(err)
	}
	produce := func() {
		for p := range apply.Partitions {
			cl.Produce(t.Context(), &kgo.Record{Topic: topic.Clicks, Partition: p, Value: []byte("x")}, nil)
		}
	}
	produce()
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := log.Count("level=(WARN|ERROR)"); n > 0 {
		t.Fatalf("%d warnings before:\n%s", n, &log)
	}
	before := dials.Load()
	away.Store(true)
	conns.Range(func(conn, _ any) bool { conn.(net.Conn).Close(); return true })
	produce()
	until := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no %s within a minute:\n%s", what, &log)
			}
		}
	}
	until("five attempts", func() bool { return dials.Load() >= before+5 })
	away.Store(false)
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	until("end", func() bool { return log.Count(`level=INFO msg="no longer waiting for Kafka"`) > 0 })
	if n := log.Count("level=(WARN|ERROR)"); n != 1 ||
		log.Count(
			`level=WARN msg="waiting for Kafka" since=\S+ trying="reaching brokers" error=".*connection refused"`) != 1 {
		t.Errorf("%d warnings:\n%s", n, &log)
	}
}

func TestConfig(t *testing.T) {
	f := func(brokers []string, want string) {
		t.Helper()
		if _, err := kafka.NewClient(config(brokers), discard, nil); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", brokers, err)
		}
	}
	f(nil, "-brokers")
	f([]string{"kafka"}, `"kafka" is not host:port`)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := kafka.Follow(ctx, config([]string{"127.0.0.1:1"}), discard, "x", nil); err == nil {
		t.Error("followed nothing")
	}
}
