package processor_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// Hanging transactions are made here as Kafka makes them, without waiting for its luck:
// a record is in a partition, and the coordinator knows nothing of that, so it writes
// no marker there. That takes a broker that does not ask the coordinator whether it
// does (transaction.partition.verification.enable), and a client of before KIP-890.

// hangingRig is a broker on which transactions can be made to hang, and rights be taken
// from a processor: it connects from an address of its own.
type hangingRig struct {
	*world
	adm            *kadm.Client
	known, unknown *kgo.Client // what they produce is known to the coordinator, or not
	producer       int64
	epoch          int16
	id             string
}

const deniedHost = "127.0.0.2"

func newHangingRig(t *testing.T) *hangingRig {
	if l, err := net.Listen("tcp", deniedHost+":0"); err != nil {
		t.Skipf("SKIP: %s is no address of this machine: %v", deniedHost, err)
	} else {
		l.Close()
	}
	w, b := realWorld(t,
		"transaction.partition.verification.enable=false",
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"allow.everyone.if.no.acl.found=true")
	known := kafkatest.Client(t, b.Brokers())
	unknown := kafkatest.Client(t, b.Brokers(), kgo.MaxVersions(kversion.V3_8_0()))
	return &hangingRig{world: w, adm: kadm.NewClient(known), known: known, unknown: unknown}
}

// begin takes a slot's transactional id.
func (h *hangingRig) begin(t *testing.T, slot string) {
	t.Helper()
	h.id = "attribution-processor-" + slot
	h.producer, h.epoch = initProducerID(t, h.known, h.id)
}

// put writes a record of the transaction into a partition.
func (h *hangingRig) put(t *testing.T, cl *kgo.Client, name string, partition int32, key, value string) (offset int64) {
	t.Helper()
	now := time.Now().UnixMilli()
	body := kmsg.NewRecord()
	body.Key, body.Value = []byte(key), []byte(value)
	raw := body.AppendTo(nil)[1:] // its length, which is still 0, is a varint of one byte
	raw = append(binary.AppendVarint(nil, int64(len(raw))), raw...)
	b := kmsg.NewRecordBatch()
	b.PartitionLeaderEpoch, b.Magic, b.Attributes, b.NumRecords, b.Records = -1, 2, 1<<4, 1, raw
	b.FirstTimestamp, b.MaxTimestamp, b.ProducerID, b.ProducerEpoch = now, now, h.producer, h.epoch
	bytes := b.AppendTo(nil)
	binary.BigEndian.PutUint32(bytes[8:], uint32(len(bytes)-12))
	binary.BigEndian.PutUint32(bytes[17:], crc32.Checksum(bytes[21:], crc32.MakeTable(crc32.Castagnoli)))
	have, err := h.adm.ListTopics(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		req := kmsg.NewPtrProduceRequest()
		req.TransactionID, req.Acks, req.TimeoutMillis = &h.id, -1, 10_000
		p := kmsg.NewProduceRequestTopicPartition()
		p.Partition, p.Records = partition, bytes
		topic := kmsg.NewProduceRequestTopic()
		topic.Topic, topic.TopicID, topic.Partitions = name, have[name].ID, append(topic.Partitions, p)
		req.Topics = append(req.Topics, topic)
		resp, err := cl.Broker(1).Request(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		answer := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if err = kerr.ErrorForCode(answer.ErrorCode); err == nil {
			return answer.BaseOffset
		}
		if !errors.Is(err, kerr.ConcurrentTransactions) || time.Now().After(deadline) {
			t.Fatalf("producing to %s partition %d: %v", name, partition, err)
		}
	}
}

// end ends the transaction as far as the coordinator knows of it.
func (h *hangingRig) end(t *testing.T, commit bool) {
	t.Helper()
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = h.id, h.producer, h.epoch, commit
	resp, err := req.RequestWith(t.Context(), h.known)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		t.Fatalf("ending the transaction of %s: %v", h.id, err)
	}
}

// forgotten lets the coordinator go on, until it says nothing of the transaction any
// more.
func (h *hangingRig) forgotten(t *testing.T) {
	t.Helper()
	for range 3 {
		initProducerID(t, h.known, h.id)
	}
}

// anyOpen reports whether a transaction is open in a partition that processors write.
func (h *hangingRig) anyOpen(t *testing.T) bool {
	t.Helper()
	for _, name := range []string{topic.Changelog, topic.Outcomes, topic.Progress} {
		for partition := range int32(kafkatest.Partitions) {
			if h.open(t, name, partition) != nil {
				return true
			}
		}
	}
	offsets := processor.GroupPartition("attribution-processor", 4)
	return h.open(t, topic.DeadLetters, 0) != nil || h.open(t, "__consumer_offsets", offsets) != nil
}

// only leaves a resource to this test's clients; the processor is not among them.
func (h *hangingRig) only(t *testing.T, acl *kadm.ACLBuilder) (restore func()) {
	t.Helper()
	acl = acl.Allow("User:ANONYMOUS").AllowHosts("127.0.0.1").Operations(kadm.OpAll).
		ResourcePatternType(kadm.ACLPatternLiteral)
	made, err := h.adm.CreateACLs(t.Context(), acl)
	for _, r := range made {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		t.Fatalf("taking a right: %v", err)
	}
	time.Sleep(500 * time.Millisecond) // what the controller wrote reaches the authorizer
	return func() {
		t.Helper()
		gone, err := h.adm.DeleteACLs(context.Background(), acl) // the test may be over
		for _, r := range gone {
			err = errors.Join(err, r.Err)
		}
		if err != nil {
			t.Fatalf("giving a right back: %v", err)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// open lists what is open in a partition.
func (h *hangingRig) open(t *testing.T, name string, partition int32) (open []int64) {
	t.Helper()
	described, err := h.adm.DescribeProducers(t.Context(), kadm.TopicsSet{name: {partition: {}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range described.SortedProducers() {
		if p.CurrentTxnStartOffset >= 0 {
			open = append(open, p.CurrentTxnStartOffset)
		}
	}
	return open
}

// process runs slot-0 on a fresh disk, from the address that lacks rights, and returns
// what it logs.
func (h *hangingRig) process(t *testing.T, dir string) (p *processor.Processor, log *notes, stop func()) {
	t.Helper()
	log = &notes{}
	k := kafka.DefaultConfig()
	k.Brokers = h.brokers
	k.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(deniedHost)}}).DialContext(ctx, network, addr)
	}
	var out io.Writer = log
	if os.Getenv("PARTNERS_TEST_LOG") != "" {
		out = io.MultiWriter(log, os.Stderr)
	}
	logger := slog.New(slog.NewTextHandler(out, nil))
	env := processor.DefaultEnv()
	env.TransactionTimeout = 2 * time.Second // what is open for longer, and 10 s, must have ended
	env.Now = clockOf(h.brokers).now
	p, err := processor.NewIn(env, config(dir), k, codec, logger, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return p, log, start(t, p)
}

// visible reports whether a key is among the committed records of a topic.
func (h *hangingRig) visible(t *testing.T, name, key string) bool {
	t.Helper()
	return slices.ContainsFunc(kafkatest.Consume(t, h.brokers, name), func(r *kgo.Record) bool {
		return string(r.Key) == key
	})
}

// On Apache Kafka: each source decides how a hanging transaction ended, once those
// before it know nothing, and its marker goes into every partition where it is open.
// One slot made it and is gone; another, which has the right to nothing but its own,
// finds it.
func TestRealHanging(t *testing.T) {
	h := newHangingRig(t)
	const (
		gone      = "slot-9"
		changelog = topic.Changelog
		markers   = "the markers in other partitions"
	)
	for i, c := range []struct {
		name    string
		prepare func(t *testing.T, key string)
		noLog   bool // the processor may not read __transaction_state
		noRight bool // it may not write markers
		commit  bool
		source  string
		voided  bool // a void row is written
		guessed bool // it counts as aborted, as no marker is found
	}{
		{name: "its own, of which the coordinator knows", commit: true, source: "what was known before",
			prepare: func(t *testing.T, key string) {
				h.begin(t, "slot-0")
				h.put(t, h.known, changelog, 1, key, "x")
				h.put(t, h.unknown, changelog, 2, key, "x")
				h.put(t, h.unknown, changelog, 3, key, "x")
				h.end(t, true)
			}},
		{name: "its own, aborted", source: "what was known before", noRight: true,
			prepare: func(t *testing.T, key string) {
				h.begin(t, "slot-0")
				h.put(t, h.known, changelog, 1, key, "x")
				h.put(t, h.unknown, changelog, 2, key, "x")
				h.commitOffset(t, h.unknown)
				h.end(t, false)
			}, voided: true},
		{name: "the coordinator: aborted", source: "the coordinator", noLog: true, noRight: true,
			prepare: func(t *testing.T, key string) {
				h.begin(t, gone)
				h.put(t, h.known, changelog, 1, key, "x")
				h.put(t, h.unknown, changelog, 2, key, "x")
				h.put(t, h.unknown, topic.Outcomes, 2, key, "x")
				h.end(t, false)
			}, voided: true},
		{name: "the coordinator: committed", commit: true, source: "the coordinator", noLog: true,
			prepare: func(t *testing.T, key string) {
				h.begin(t, gone)
				h.put(t, h.known, changelog, 1, key, "x")
				h.put(t, h.unknown, changelog, 2, key, "x")
				h.end(t, true)
			}},
		{name: "its log: committed", commit: true, source: "the coordinator's log",
			prepare: func(t *testing.T, key string) {
				h.begin(t, gone)
				h.put(t, h.known, changelog, 1, key, "x")
				h.put(t, h.unknown, changelog, 2, key, "x")
				h.end(t, true)
				h.forgotten(t)
			}},
		{name: "its log: aborted", source: "the coordinator's log", noRight: true,
			prepare: func(t *testing.T, key string) {
				h.begin(t, gone)
				h.put(t, h.known, changelog, 1, key, "x")
				h.put(t, h.unknown, changelog, 2, key, "x")
				h.end(t, false)
				h.forgotten(t)
			}, voided: true},
		{name: "a marker elsewhere: committed", commit: true, noLog: true, source: markers,
			prepare: func(t *testing.T, key string) {
				h.begin(t, gone)
				h.put(t, h.known, changelog, 5, key, "x")
				h.put(t, h.unknown, changelog, 2, key, "x")
				h.put(t, h.unknown, changelog, 3, key, "x")
				h.end(t, true)
				h.forgotten(t)
			}},
		{name: "a marker elsewhere: aborted", noLog: true, noRight: true, source: markers,
			prepare: func(t *testing.T, key string) {
				h.begin(t, gone)
				h.put(t, h.known, topic.Progress, 5, "5", "x")
				h.put(t, h.unknown, changelog, 2, key, "x")
				h.end(t, false)
				h.forgotten(t)
			}, voided: true},
		{name: "no marker anywhere", noLog: true, noRight: true, source: markers,
			prepare: func(t *testing.T, key string) {
				h.begin(t, gone)
				h.put(t, h.unknown, changelog, 2, key, "x")
				h.put(t, h.unknown, topic.Outcomes, 4, key, "x")
				h.put(t, h.unknown, topic.DeadLetters, 0, key, "x")
				h.commitOffset(t, h.unknown)
				h.forgotten(t)
			}, voided: true, guessed: true},
		{name: "no marker anywhere, and the id has another producer", source: markers,
			prepare: func(t *testing.T, key string) {
				h.id, h.producer, h.epoch = "attribution-processor-"+gone, 1_000_000, 32_766
				h.put(t, h.unknown, changelog, 2, key, "x")
				h.put(t, h.unknown, changelog, 3, key, "x")
			}, voided: true, guessed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			key := fmt.Sprintf("hung-%d", i)
			from := make(map[string]int64)
			for _, r := range kafkatest.Consume(t, h.brokers, changelog) {
				from[fmt.Sprint(r.Partition)] = r.Offset + 1
			}
			c.prepare(t, key)
			if len(h.open(t, changelog, 2)) != 1 || h.visible(t, changelog, key) && !c.commit {
				t.Fatalf("nothing hangs: open from %v", h.open(t, changelog, 2))
			}
			if c.noLog {
				t.Cleanup(h.only(t, kadm.NewACLs().Topics("__transaction_state")))
			}
			if c.noRight {
				t.Cleanup(h.only(t, kadm.NewACLs().Clusters()))
			}
			p, log, stop := h.process(t, t.TempDir())
			eventually(t, "all partitions are restored", func() bool {
				return strings.Count(log.String(), "partition restored") == kafkatest.Partitions
			})
			stop()
			// The markers of the processor's own last transaction may still be on their
			// way.
			eventually(t, "no transaction is open anywhere", func() bool { return !h.anyOpen(t) })
			if got := h.visible(t, changelog, key); got != c.commit {
				t.Errorf("its rows are visible: %v", got)
			}
			for _, hidden := range []string{key, "aborted"} {
				if h.visible(t, topic.Outcomes, hidden) || hidden == "aborted" && h.visible(t, changelog, hidden) {
					t.Errorf("a row %q is visible that was aborted", hidden)
				}
			}
			if !strings.Contains(log.String(), fmt.Sprintf("known_by=%q", c.source)) {
				t.Errorf("not decided by %s:\n%s", c.source, log)
			}
			if guessed := strings.Contains(log.String(), "left no marker anywhere"); guessed != c.guessed {
				t.Errorf("decided for want of a marker: %v", guessed)
			}
			voided := slices.ContainsFunc(kafkatest.Consume(t, h.brokers, changelog), func(r *kgo.Record) bool {
				_, ok := event.ParseVoid(r.Key)
				return ok && r.Partition == 2 && r.Offset >= from["2"]
			})
			if voided != c.voided || p.Hanging() == 0 {
				t.Errorf("a void row: %v, want %v; markers written: %v", voided, c.voided, p.Hanging())
			}
		})
	}
	_, _, stop := h.process(t, t.TempDir())
	h.story(20)
	h.settle(grace)
	h.conserved()
	stop()
}

// commitOffset puts an offset of the group into the transaction.
func (h *hangingRig) commitOffset(t *testing.T, cl *kgo.Client) {
	t.Helper()
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = h.id, h.producer, h.epoch
	req.Group = "attribution-processor"
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset, p.LeaderEpoch = 0, 1<<40, -1
	c := kmsg.NewTxnOffsetCommitRequestTopic()
	c.Topic, c.Partitions = topic.Clicks, append(c.Partitions, p)
	req.Topics = append(req.Topics, c)
	resp, err := req.RequestWith(t.Context(), cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("committing an offset: %v", err)
	}
}

// On Apache Kafka: without the right to write markers a committed transaction cannot be
// healed. The processor says which right lacks, goes on with what it can, and with the
// rest as soon as it has the right.
func TestRealHangingWithoutTheRight(t *testing.T) {
	h := newHangingRig(t)
	h.begin(t, "slot-9")
	h.put(t, h.known, topic.Changelog, 1, "hung", "x")
	h.put(t, h.unknown, topic.Changelog, 2, "hung", "x")
	h.end(t, true)
	give := h.only(t, kadm.NewACLs().Clusters())
	p, log, _ := h.process(t, t.TempDir())
	eventually(t, "all partitions but one are restored", func() bool {
		return strings.Count(log.String(), "partition restored") == kafkatest.Partitions-1
	})
	eventually(t, "it says what it waits for", func() bool {
		return strings.Contains(log.String(), "the right to ALTER (or CLUSTER_ACTION on) the cluster")
	})
	rows := tail(h.world)
	h.story(60)
	rows.wait(nil, kafkatest.Partitions-1)
	if n := p.WaitingForMarkers(); n != 1 {
		t.Errorf("%v partitions wait for markers", n)
	}
	if n := strings.Count(log.String(), "waiting for transactions that hold partitions back"); n != 1 {
		t.Errorf("said %d times within a minute", n)
	}
	give()
	h.settle(grace)
	h.conserved()
	if n := p.WaitingForMarkers(); n != 0 || !h.visible(t, topic.Changelog, "hung") {
		t.Errorf("%v partitions still wait for markers", n)
	}
}

// On Apache Kafka: where a log no longer reaches back to the transaction, that no
// marker is found says nothing. The partition waits, and goes on when a person has
// decided.
func TestRealHangingUndecided(t *testing.T) {
	h := newHangingRig(t)
	_, _, stop := h.process(t, t.TempDir())
	h.story(60)
	h.settle(grace)
	stop()
	h.begin(t, "slot-9")
	at := h.put(t, h.unknown, topic.Changelog, 2, "hung", "x")
	h.forgotten(t)
	ends, err := h.adm.ListEndOffsets(t.Context(), topic.Outcomes)
	if err == nil {
		_, err = h.adm.DeleteRecords(t.Context(), ends.Offsets())
	}
	if err != nil {
		t.Fatal(err)
	}
	p, log, _ := h.process(t, t.TempDir())
	eventually(t, "it says what it waits for", func() bool {
		return strings.Contains(log.String(), "does not reach back to the transaction's start any more")
	})
	if n := strings.Count(log.String(), "partition restored"); n != kafkatest.Partitions-1 ||
		p.WaitingForMarkers() != 1 {
		t.Errorf("%d partitions are restored, %v wait", n, p.WaitingForMarkers())
	}
	if open := h.open(t, topic.Changelog, 2); !slices.Equal(open, []int64{at}) {
		t.Errorf("the transaction is not left alone: open from %v", open)
	}
	_, err = h.adm.WriteTxnMarkers(t.Context(), kadm.TxnMarkers{ProducerID: h.producer, ProducerEpoch: h.epoch,
		Topics: kadm.TopicsSet{topic.Changelog: {2: {}}}}) // as kafka-transactions.sh does
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on by itself", func() bool {
		return strings.Count(log.String(), "partition restored") == kafkatest.Partitions && p.WaitingForMarkers() == 0
	})
}

// On Apache Kafka: a state that has applied what was aborted afterwards is wiped when
// it is opened, however late, and also when the rows of the transaction were the last
// that it applied.
func TestRealVoidedState(t *testing.T) {
	h := newHangingRig(t)
	const voided, ahead = 2, 4
	old, dir := t.TempDir(), t.TempDir()
	_, _, stop := h.process(t, old)
	h.story(60)
	h.settle(grace)
	stop()
	h.begin(t, "slot-9")
	at := h.put(t, h.unknown, topic.Changelog, voided, "hung", "x")
	h.forgotten(t)
	// As if End had been taken for success: a totals row that never was committed.
	apply := func(partition int, change func(meta map[string]any)) {
		t.Helper()
		cache := state.NewCache(1 << 20)
		defer cache.Close()
		s, err := state.OpenDir(fmt.Sprintf("%s/p%05d/journeys", old, partition), cache, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		row, _, err := s.Get([]byte("M"), nil)
		var meta map[string]any
		if err = errors.Join(err, json.Unmarshal(row, &meta)); err != nil {
			t.Fatal(err)
		}
		if meta["input"] == nil {
			t.Errorf("the state of partition %d does not say which inputs it has applied: %s", partition, row)
		}
		change(meta)
		row, err = json.Marshal(meta)
		totals := []byte{1, 99, 99, 99, 99, 99, 99, 99, 1}
		if err = errors.Join(err, s.Set([]byte("M"), row), s.Set([]byte("T"), totals), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	apply(voided, func(meta map[string]any) { meta["position"] = at + 1; delete(meta, "input") })
	apply(ahead, func(meta map[string]any) { meta["input"] = map[string]any{"clicks": 1 << 40, "conversions": 0} })

	_, log, stop := h.process(t, dir)
	h.story(60)
	h.settle(grace)
	stop()
	if !strings.Contains(log.String(), "left no marker anywhere") {
		t.Errorf("the transaction was not aborted for want of markers:\n%s", log)
	}
	_, log, _ = h.process(t, old)
	h.story(60)
	h.settle(grace)
	h.conserved()
	for partition, reason := range map[int]string{
		voided: fmt.Sprintf("what was written from %d on was aborted", at),
		ahead:  "it has applied inputs up to",
	} {
		rebuilt := fmt.Sprintf("rebuilding a partition's state from the log\" partition=%d", partition)
		if !strings.Contains(log.String(), rebuilt) || !strings.Contains(log.String(), reason) {
			t.Errorf("partition %d was not wiped for %q:\n%s", partition, reason, log)
		}
	}
	if n := strings.Count(log.String(), "rebuilding a partition's state"); n != 2 {
		t.Errorf("%d partitions were rebuilt", n)
	}
}

// On Apache Kafka: the only node of a cluster is SIGKILLed again and again, in
// transactions of two seconds that it aborts within a second when it is back: whatever
// markers it loses, nobody has to do anything.
func TestRealBrokerKills(t *testing.T) {
	kills := 3
	if os.Getenv("PARTNERS_TEST_LONG") == "1" {
		kills = 50
	}
	w, b := realWorld(t)
	env := processor.DefaultEnv()
	env.TransactionTimeout = 2 * time.Second
	env.Now = clockOf(w.brokers).now
	var die atomic.Pointer[string]
	reached, goOn := make(chan struct{}), make(chan struct{})
	env.Step = func(step string) {
		if at := die.Load(); at != nil && *at == step && die.CompareAndSwap(at, nil) {
			reached <- struct{}{}
			<-goOn
		}
	}
	ended := make(chan error, 2)
	var slots []*processor.Processor
	ctx, cancel := context.WithCancel(t.Context())
	for i := range 2 {
		cfg := config(t.TempDir())
		cfg.Instance = fmt.Sprint("slot-", i)
		k := kafka.DefaultConfig()
		k.Brokers = w.brokers
		var out io.Writer = io.Discard
		if os.Getenv("PARTNERS_TEST_LOG") != "" {
			out = os.Stderr
		}
		logger := slog.New(slog.NewTextHandler(out, nil)).With("slot", i)
		p, err := processor.NewIn(env, cfg, k, codec, logger, prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		slots = append(slots, p)
		go func() { ended <- p.Run(ctx) }()
	}
	rows := tail(w)
	// Not under way while the broker is away: see brokenBroker.
	stopTraffic := w.traffic(10, 50*time.Millisecond)
	rows.everywhere(rows.mark())
	steps := []string{processor.StepEnded, processor.StepProduced, processor.StepApplied,
		processor.StepFlushed, processor.StepJudged}
	var took []time.Duration
	for i := range kills {
		die.Store(&steps[i%len(steps)])
		<-reached
		stopTraffic()
		time.Sleep(time.Duration(rand.IntN(15)) * time.Millisecond)
		b.Kill()
		goOn <- struct{}{}
		b.Start()
		back, mark := time.Now(), rows.mark()
		stopTraffic = w.traffic(10, 50*time.Millisecond)
		rows.everywhere(mark)
		took = append(took, time.Since(back).Round(time.Millisecond))
		t.Logf("kill %d, at %s: a new outcome in every partition %v after the broker was back",
			i+1, steps[i%len(steps)], took[i])
		select {
		case err := <-ended:
			t.Fatalf("a processor ended by itself: %v", err)
		default:
		}
	}
	stopTraffic()
	w.settle(grace)
	w.conserved()
	slices.Sort(took)
	t.Logf("%d kills: a new outcome in every partition after %v (median), %v (worst); markers written: %v and %v",
		kills, took[len(took)/2], took[len(took)-1], slots[0].Hanging(), slots[1].Hanging())
	cancel()
	for range slots {
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}
