package engine_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nimriz/partners/pipeline/engine"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestMain lets more tests run at once than there are cores.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "20"); err != nil { // these tests mostly wait
		panic(err)
	}
	os.Exit(m.Run())
}

// hang is how long a test waits for what must come: it is for what never comes, far
// beyond what a slow machine takes.
const hang = 3 * time.Minute

// tally is the smallest task with state: it counts the records of each key, and writes
// for each record the count that it made. A record that is lost or applied twice, or a
// state that is not that of the log, breaks the sequence 1, 2, 3 … of a key.
type tally struct {
	part    *engine.Partition
	leading string // full topic name
	output  string
	next    int64 // of the side log, which keeps nothing
}

// countKey is the row of a key's count.
func countKey(key []byte) []byte { return append([]byte{'C'}, key...) }

// newTally returns the topology of tallies, over the topics of an install.
func newTally(in kafkatest.Install) engine.Topology {
	return engine.Topology{
		Name:      "tally",
		Group:     topic.ProcessorGroup,
		Leading:   engine.Input{Topic: topic.Clicks},
		Following: engine.Input{Topic: topic.Conversions},
		Owned:     []string{topic.Outcomes, topic.Progress},
		Shared:    []string{topic.DeadLetters},
		Changelog: topic.Changelog,
		Margin:    time.Second,
		Tables:    map[byte]int{'C': 1},
		Index:     func(*engine.Partition, *state.Batch, []byte, []byte) error { return nil },
		Open: func(p *engine.Partition) (engine.Task, error) {
			t := &tally{part: p, leading: in.Topic(topic.Clicks), output: in.Topic(topic.Outcomes), next: -1}
			done := func() error { return nil }
			inTx := func(*engine.Tx) error { return nil }
			return engine.Task{
				SideLog:   engine.SideLog{Next: func() int64 { return t.next }, Keep: t.keepRecord},
				Restored:  done,
				Apply:     t.countRecord,
				Tick:      inTx,
				Finish:    inTx,
				Committed: done,
				Close:     done,
			}, nil
		},
		WipeSideLog: func(vfs.FS, string) error { return nil },
	}
}

func (t *tally) keepRecord(r *kgo.Record) error {
	t.next = max(t.next, r.Offset+1)
	return nil
}

func (t *tally) countRecord(tx *engine.Tx, r *kgo.Record) error {
	if r.Topic == t.leading {
		return t.keepRecord(r)
	}
	row := countKey(r.Key)
	stored, err := t.part.Rows.Get(row)
	if err != nil {
		return err
	}
	count := 0
	if stored != nil {
		if count, err = strconv.Atoi(string(stored)); err != nil {
			return err
		}
	}
	value := []byte(strconv.Itoa(count + 1))
	if err := t.part.Rows.Put(row, value); err != nil {
		return err
	}
	return tx.ProduceOwned(t.part, &kgo.Record{Topic: t.output, Partition: t.part.ID, Key: r.Key, Value: value})
}

// world is an install on a broker, and what a test writes into it.
type world struct {
	*testing.T
	kafkatest.Install
	client *kgo.Client
	sent   int // records to count
}

func newWorld(t *testing.T, broker *kafkatest.RealBroker) *world {
	t.Helper()
	in := kafkatest.Install{Brokers: broker.Brokers()}.Fresh(t)
	return &world{T: t, Install: in, client: kafkatest.Client(t, in.Brokers)}
}

const (
	keyPrefix = "counted-" // of what is counted
	keysEach  = 3          // in each partition
)

func countedKey(partition int32, n int) []byte {
	return []byte(fmt.Sprint(keyPrefix, partition, "-", n))
}

// send writes n records to count, of a few keys in every partition, and some of the
// leading input.
func (w *world) send(n int) {
	w.Helper()
	var records []*kgo.Record
	for i := range n {
		partition := int32(i % kafkatest.Partitions)
		key := countedKey(partition, rand.IntN(keysEach))
		records = append(records, &kgo.Record{Topic: w.Topic(topic.Conversions), Partition: partition, Key: key})
		if i%2 == 0 {
			records = append(records, &kgo.Record{Topic: w.Topic(topic.Clicks), Partition: partition, Key: key})
		}
	}
	w.sent += n
	if err := w.client.ProduceSync(w.Context(), records...).FirstErr(); err != nil {
		w.Fatal(err)
	}
}

// counts returns what was counted and committed, by key, in the order of the log.
func (w *world) counts() (byKey map[string][]string, rows int) {
	w.Helper()
	byKey = make(map[string][]string)
	for _, r := range kafkatest.Consume(w, w.Brokers, w.Topic(topic.Outcomes)) {
		if key := string(r.Key); strings.HasPrefix(key, keyPrefix) {
			byKey[key] = append(byKey[key], string(r.Value))
			rows++
		}
	}
	return byKey, rows
}

// settle waits until everything that was sent is counted, and compares: each key was
// counted 1, 2, 3 …
func (w *world) settle() {
	w.Helper()
	w.eventually("everything is counted", func() bool { _, rows := w.counts(); return rows >= w.sent })
	byKey, rows := w.counts()
	if rows != w.sent {
		w.Errorf("%d rows for %d records", rows, w.sent)
	}
	for key, counts := range byKey {
		for i, count := range counts {
			if count != strconv.Itoa(i+1) {
				w.Fatalf("%s was counted %v", key, counts)
			}
		}
	}
}

func (w *world) eventually(what string, ok func() bool) {
	w.Helper()
	for deadline := time.Now().Add(hang); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("not within %v: %s", hang, what)
		}
	}
}

// running is an engine that counts, and what it logs.
type running struct {
	*engine.Engine
	log  *safeBuffer
	stop func() // waits for its clean end
}

// restored is how many partitions it has restored, over all sessions.
func (r *running) restored() int { return strings.Count(r.log.String(), "partition restored") }

// start runs slot-0 on a state directory until stop is called or the test ends. from is
// the address that it connects from.
func (w *world) start(dir, from string) *running {
	w.Helper()
	cfg := engine.DefaultConfig()
	cfg.StateDir, cfg.Instance = dir, "slot-0"
	cfg.CommitInterval, cfg.SessionTimeout = 20*time.Millisecond, 6*time.Second
	env := engine.DefaultEnv()
	env.TransactionTimeout = 2 * time.Second // what is open for longer, and 10 s, must have ended
	r := &running{log: &safeBuffer{}}
	var out io.Writer = r.log
	if os.Getenv("PARTNERS_TEST_LOG") != "" {
		out = io.MultiWriter(r.log, os.Stderr)
	}
	log := slog.New(slog.NewTextHandler(out, nil))
	k := w.Config()
	k.Watch = outage.New(log, "Kafka")
	k.Dial = dialFrom(from)
	var err error
	if r.Engine, err = engine.New(env, cfg, newTally(w.Install), k, log, prometheus.NewRegistry()); err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				w.Errorf("Run: %v", err)
			}
		case <-time.After(hang):
			w.Error("the engine does not stop")
		}
	})
	w.Cleanup(r.stop)
	return r
}

// dialFrom dials from an address of this machine.
func dialFrom(address string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return dialer.DialContext
}

// valueOf reads a counter or gauge.
func valueOf(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	m := families[0].GetMetric()[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// safeBuffer collects what an engine logs.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
