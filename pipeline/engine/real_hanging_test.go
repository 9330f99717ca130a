package engine_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/engine"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
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

// On Apache Kafka: the engine decides how hanging transactions ended, and ends them.
// All of these share a broker, each with topics, a group and an address of its own.
func TestRealHanging(t *testing.T) {
	t.Parallel()
	broker := kafkatest.Real(t,
		"transaction.partition.verification.enable=false",
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"allow.everyone.if.no.acl.found=true")
	allowEverything(t, broker)
	address := 1
	run := func(name string, test func(*hangingRig)) {
		address++
		host := fmt.Sprint("127.0.0.", address)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(newHangingRig(t, broker, host))
		})
	}
	for _, c := range hangingCases {
		run(c.name, c.test)
	}
	run("without the right", testWithoutTheRight)
	run("undecided", testUndecided)
	run("voided state", testVoidedState)
	run("the group's partition", testGroupPartition)
}

// hangingRig is a world in which transactions can be made to hang, and rights be taken
// from an engine: it connects from an address of its own.
type hangingRig struct {
	*world
	adm            *kadm.Client
	known, unknown *kgo.Client // what they produce is known to the coordinator, or not
	host           string      // from which the engine connects
	denied         *kadm.Client
	producer       int64
	epoch          int16
	id             string
}

func newHangingRig(t *testing.T, broker *kafkatest.RealBroker, host string) *hangingRig {
	t.Helper()
	if l, err := net.Listen("tcp", host+":0"); err != nil {
		t.Skipf("SKIP: %s is no address of this machine: %v", host, err)
	} else {
		l.Close()
	}
	w := newWorld(t, broker)
	unknown := kafkatest.Client(t, w.Brokers, kgo.MaxVersions(kversion.V3_8_0()))
	fromHost := kafkatest.Client(t, w.Brokers, kgo.Dialer(dialFrom(host)))
	return &hangingRig{world: w, adm: kadm.NewClient(w.client), known: w.client, unknown: unknown, host: host,
		denied: kadm.NewClient(fromHost)}
}

const (
	anyone    = "User:ANONYMOUS"
	txnState  = "__transaction_state"
	changelog = topic.Changelog
	gone      = "slot-9" // made what hangs, and is gone
)

// allowEverything gives everyone what deny takes away: where a resource has a rule,
// nobody has a right without one.
func allowEverything(t *testing.T, broker *kafkatest.RealBroker) {
	t.Helper()
	adm := kadm.NewClient(kafkatest.Client(t, broker.Brokers()))
	for _, resource := range []*kadm.ACLBuilder{kadm.NewACLs().Clusters(), kadm.NewACLs().Topics(txnState)} {
		made, err := adm.CreateACLs(t.Context(), resource.Allow(anyone).AllowHosts("*").Operations(kadm.OpAll).
			ResourcePatternType(kadm.ACLPatternLiteral))
		for _, r := range made {
			err = errors.Join(err, r.Err)
		}
		if err != nil {
			t.Fatalf("giving rights: %v", err)
		}
	}
}

// denyCluster takes every right to the cluster from the engine, that to write markers
// among them.
func (h *hangingRig) denyCluster() (restore func()) {
	h.Helper()
	return h.deny(kadm.NewACLs().Clusters(), func() error {
		described, err := h.denied.DescribeACLs(h.Context(), kadm.NewACLs().Clusters().Operations(kadm.OpAny).
			Allow().AllowHosts().ResourcePatternType(kadm.ACLPatternAny))
		for _, d := range described {
			err = errors.Join(err, d.Err)
		}
		return err
	})
}

// denyTxnState takes the right to read the coordinator's log from it.
func (h *hangingRig) denyTxnState() {
	h.Helper()
	h.deny(kadm.NewACLs().Topics(txnState), func() error {
		have, err := h.denied.ListTopics(h.Context(), txnState)
		return errors.Join(err, have[txnState].Err)
	})
}

// deny takes a resource from the engine, and waits until use, which is done from its
// address, is refused.
func (h *hangingRig) deny(resource *kadm.ACLBuilder, use func() error) (restore func()) {
	h.Helper()
	rule := resource.Deny(anyone).DenyHosts(h.host).Operations(kadm.OpAll).
		ResourcePatternType(kadm.ACLPatternLiteral)
	made, err := h.adm.CreateACLs(h.Context(), rule)
	for _, r := range made {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		h.Fatalf("taking a right: %v", err)
	}
	h.eventually("the right is gone", func() bool { return isDenied(use()) })
	return func() {
		h.Helper()
		deleted, err := h.adm.DeleteACLs(h.Context(), rule)
		for _, r := range deleted {
			err = errors.Join(err, r.Err)
		}
		if err != nil {
			h.Fatalf("giving a right back: %v", err)
		}
		h.eventually("the right is back", func() bool { return use() == nil })
	}
}

func isDenied(err error) bool {
	return errors.Is(err, kerr.ClusterAuthorizationFailed) || errors.Is(err, kerr.TopicAuthorizationFailed)
}

// begin takes a slot's transactional id.
func (h *hangingRig) begin(slot string) {
	h.Helper()
	h.id = h.Group(topic.ProcessorGroup) + "-" + slot
	h.producer, h.epoch = initProducerID(h.T, h.known, h.id)
}

// put writes a record of the transaction into a partition.
func (h *hangingRig) put(cl *kgo.Client, name string, partition int32, key, value string) (offset int64) {
	h.Helper()
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
	name = h.Topic(name)
	have, err := h.adm.ListTopics(h.Context(), name)
	if err != nil {
		h.Fatal(err)
	}
	for deadline := time.Now().Add(hang); ; time.Sleep(20 * time.Millisecond) {
		req := kmsg.NewPtrProduceRequest()
		req.TransactionID, req.Acks, req.TimeoutMillis = &h.id, -1, 10_000
		p := kmsg.NewProduceRequestTopicPartition()
		p.Partition, p.Records = partition, bytes
		to := kmsg.NewProduceRequestTopic()
		to.Topic, to.TopicID, to.Partitions = name, have[name].ID, append(to.Partitions, p)
		req.Topics = append(req.Topics, to)
		resp, err := cl.Broker(1).Request(h.Context(), req)
		if err != nil {
			h.Fatal(err)
		}
		answer := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if err = kerr.ErrorForCode(answer.ErrorCode); err == nil {
			return answer.BaseOffset
		}
		if !errors.Is(err, kerr.ConcurrentTransactions) || time.Now().After(deadline) {
			h.Fatalf("producing to %s partition %d: %v", name, partition, err)
		}
	}
}

// end ends the transaction as far as the coordinator knows of it.
func (h *hangingRig) end(commit bool) {
	h.Helper()
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = h.id, h.producer, h.epoch, commit
	resp, err := req.RequestWith(h.Context(), h.known)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		h.Fatalf("ending the transaction of %s: %v", h.id, err)
	}
}

// forgotten lets the coordinator go on, until it says nothing of the transaction any
// more.
func (h *hangingRig) forgotten() {
	h.Helper()
	for range 3 {
		initProducerID(h.T, h.known, h.id)
	}
}

// commitOffset puts an offset of the group into the transaction.
func (h *hangingRig) commitOffset(cl *kgo.Client) {
	h.Helper()
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = h.id, h.producer, h.epoch
	req.Group = h.Group(topic.ProcessorGroup)
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset, p.LeaderEpoch = 0, 1<<40, -1
	c := kmsg.NewTxnOffsetCommitRequestTopic()
	c.Topic, c.Partitions = h.Topic(topic.Clicks), append(c.Partitions, p)
	req.Topics = append(req.Topics, c)
	resp, err := req.RequestWith(h.Context(), cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		h.Fatalf("committing an offset: %v", err)
	}
}

// open lists where the transaction is open in a partition of a topic, given by its full
// name.
func (h *hangingRig) open(name string, partition int32) (open []int64) {
	h.Helper()
	described, err := h.adm.DescribeProducers(h.Context(), kadm.TopicsSet{name: {partition: {}}})
	if err != nil {
		h.Fatal(err)
	}
	for _, p := range described.SortedProducers() {
		if p.ProducerID == h.producer && p.CurrentTxnStartOffset >= 0 {
			open = append(open, p.CurrentTxnStartOffset)
		}
	}
	return open
}

// anyOpen reports whether it is open in a partition that engines write.
func (h *hangingRig) anyOpen() bool {
	h.Helper()
	for _, name := range []string{changelog, topic.Outcomes, topic.Progress} {
		for partition := range int32(kafkatest.Partitions) {
			if h.open(h.Topic(name), partition) != nil {
				return true
			}
		}
	}
	offsets := engine.GroupPartition(h.Group(topic.ProcessorGroup), 4)
	return h.open(h.Topic(topic.DeadLetters), 0) != nil || h.open("__consumer_offsets", offsets) != nil
}

// process runs slot-0 from the address that lacks rights.
func (h *hangingRig) process(dir string) *running {
	h.Helper()
	return h.start(dir, h.host)
}

// visible reports whether a key is among the committed records of a topic.
func (h *hangingRig) visible(name, key string) bool {
	h.Helper()
	return slices.ContainsFunc(kafkatest.Consume(h, h.Brokers, h.Topic(name)), func(r *kgo.Record) bool {
		return string(r.Key) == key
	})
}

// hangingCase is a transaction that hangs, and what is known of its end.
type hangingCase struct {
	name    string
	prepare func(h *hangingRig, key string)
	noLog   bool // the engine may not read __transaction_state
	noRight bool // it may not write markers
	commit  bool
	source  string
	voided  bool // a void row is written
	guessed bool // it counts as aborted, as no marker is found
	patient bool // before that it may still be running, for all that is known
}

const fromMarkers = "the markers in other partitions"

// hangingCases: each source decides, once those before it know nothing, and the marker
// goes into every partition where the transaction is open. One slot made it and is
// gone; another, which has the right to nothing but its own, finds it.
var hangingCases = []hangingCase{
	{name: "its own, of which the coordinator knows", commit: true, source: "what was known before",
		prepare: func(h *hangingRig, key string) {
			h.begin("slot-0")
			h.put(h.known, changelog, 1, key, "x")
			h.put(h.unknown, changelog, 2, key, "x")
			h.put(h.unknown, changelog, 3, key, "x")
			h.end(true)
		}},
	{name: "its own, aborted", source: "what was known before", noRight: true,
		prepare: func(h *hangingRig, key string) {
			h.begin("slot-0")
			h.put(h.known, changelog, 1, key, "x")
			h.put(h.unknown, changelog, 2, key, "x")
			h.commitOffset(h.unknown)
			h.end(false)
		}, voided: true},
	{name: "the coordinator: aborted", source: "the coordinator", noLog: true, noRight: true,
		prepare: func(h *hangingRig, key string) {
			h.begin(gone)
			h.put(h.known, changelog, 1, key, "x")
			h.put(h.unknown, changelog, 2, key, "x")
			h.put(h.unknown, topic.Outcomes, 2, key, "x")
			h.end(false)
		}, voided: true},
	{name: "the coordinator: committed", commit: true, source: "the coordinator", noLog: true,
		prepare: func(h *hangingRig, key string) {
			h.begin(gone)
			h.put(h.known, changelog, 1, key, "x")
			h.put(h.unknown, changelog, 2, key, "x")
			h.end(true)
		}},
	{name: "its log: committed", commit: true, source: "the coordinator's log",
		prepare: func(h *hangingRig, key string) {
			h.begin(gone)
			h.put(h.known, changelog, 1, key, "x")
			h.put(h.unknown, changelog, 2, key, "x")
			h.end(true)
			h.forgotten()
		}},
	{name: "its log: aborted", source: "the coordinator's log", noRight: true,
		prepare: func(h *hangingRig, key string) {
			h.begin(gone)
			h.put(h.known, changelog, 1, key, "x")
			h.put(h.unknown, changelog, 2, key, "x")
			h.end(false)
			h.forgotten()
		}, voided: true},
	{name: "a marker elsewhere: committed", commit: true, noLog: true, source: fromMarkers,
		prepare: func(h *hangingRig, key string) {
			h.begin(gone)
			h.put(h.known, changelog, 5, key, "x")
			h.put(h.unknown, changelog, 2, key, "x")
			h.put(h.unknown, changelog, 3, key, "x")
			h.end(true)
			h.forgotten()
		}},
	{name: "a marker elsewhere: aborted", noLog: true, noRight: true, source: fromMarkers,
		prepare: func(h *hangingRig, key string) {
			h.begin(gone)
			h.put(h.known, topic.Progress, 5, "5", "x")
			h.put(h.unknown, changelog, 2, key, "x")
			h.end(false)
			h.forgotten()
		}, voided: true},
	{name: "no marker anywhere", noLog: true, noRight: true, source: fromMarkers,
		prepare: func(h *hangingRig, key string) {
			h.begin(gone)
			h.put(h.unknown, changelog, 2, key, "x")
			h.put(h.unknown, topic.Outcomes, 4, key, "x")
			h.put(h.unknown, topic.DeadLetters, 0, key, "x")
			h.commitOffset(h.unknown)
			h.forgotten()
		}, voided: true, guessed: true},
	{name: "no marker anywhere, and the id has another producer", source: fromMarkers,
		prepare: func(h *hangingRig, key string) {
			h.id, h.producer, h.epoch = h.Group(topic.ProcessorGroup)+"-"+gone, 1_000_000, 32_766
			h.put(h.unknown, changelog, 2, key, "x")
			h.put(h.unknown, changelog, 3, key, "x")
		}, voided: true, guessed: true, patient: true},
}

func (c hangingCase) test(h *hangingRig) {
	const key = "hung"
	c.prepare(h, key)
	if len(h.open(h.Topic(changelog), 2)) != 1 || h.visible(changelog, key) && !c.commit {
		h.Fatalf("nothing hangs: open from %v", h.open(h.Topic(changelog), 2))
	}
	if c.noLog {
		h.denyTxnState()
	}
	if c.noRight {
		h.denyCluster()
	}
	e := h.process(h.TempDir())
	h.eventually("all partitions are restored", func() bool { return e.restored() == kafkatest.Partitions })
	h.eventually("the transaction is open nowhere", func() bool { return !h.anyOpen() })
	if got := h.visible(changelog, key); got != c.commit {
		h.Errorf("its rows are visible: %v", got)
	}
	for _, hidden := range []string{key, "aborted"} {
		if h.visible(topic.Outcomes, hidden) || hidden == "aborted" && h.visible(changelog, hidden) {
			h.Errorf("a row %q is visible that was aborted", hidden)
		}
	}
	if !strings.Contains(e.log.String(), fmt.Sprintf("known_by=%q", c.source)) {
		h.Errorf("not decided by %s:\n%s", c.source, e.log)
	}
	if guessed := strings.Contains(e.log.String(), "left no marker anywhere"); guessed != c.guessed {
		h.Errorf("decided for want of a marker: %v", guessed)
	}
	if patient := strings.Contains(e.log.String(), "it may still be running"); patient != c.patient {
		h.Errorf("decided after it must have ended: %v", patient)
	}
	voided := slices.ContainsFunc(kafkatest.Consume(h, h.Brokers, h.Topic(changelog)), func(r *kgo.Record) bool {
		_, ok := event.ParseVoid(r.Key)
		return ok && r.Partition == 2
	})
	if healed := valueOf(h.T, e.HangingTransactions()); voided != c.voided || healed == 0 {
		h.Errorf("a void row: %v, want %v; markers written: %v", voided, c.voided, healed)
	}
	h.send(60)
	h.settle()
}

// Without the right to write markers a committed transaction cannot be healed. The
// engine says which right lacks, goes on with what it can, and with the rest as soon as
// it has the right.
func testWithoutTheRight(h *hangingRig) {
	h.begin(gone)
	h.put(h.known, changelog, 1, "hung", "x")
	h.put(h.unknown, changelog, 2, "hung", "x")
	h.end(true)
	give := h.denyCluster()
	e := h.process(h.TempDir())
	h.eventually("all partitions but one are restored", func() bool { return e.restored() == kafkatest.Partitions-1 })
	h.eventually("it says what it waits for", func() bool {
		return strings.Contains(e.log.String(), "the right to ALTER (or CLUSTER_ACTION on) the cluster")
	})
	h.send(60)
	h.eventually("all partitions but one go on", func() bool {
		_, rows := h.counts()
		return rows == 60-60/kafkatest.Partitions
	})
	if n := valueOf(h.T, e.HeldBack()); n != 1 {
		h.Errorf("%v partitions wait for markers", n)
	}
	if n := strings.Count(e.log.String(), "waiting for transactions that hold partitions back"); n != 1 {
		h.Errorf("said %d times within a minute", n)
	}
	give()
	h.settle()
	if n := valueOf(h.T, e.HeldBack()); n != 0 || !h.visible(changelog, "hung") {
		h.Errorf("%v partitions still wait for markers", n)
	}
}

// Where a log no longer reaches back to the transaction, that no marker is found says
// nothing. The partition waits, and goes on when a person has decided.
func testUndecided(h *hangingRig) {
	e := h.process(h.TempDir())
	h.send(60)
	h.settle()
	e.stop()
	h.begin(gone)
	at := h.put(h.unknown, changelog, 2, "hung", "x")
	h.forgotten()
	ends, err := h.adm.ListEndOffsets(h.Context(), h.Topic(topic.Outcomes))
	if err == nil {
		_, err = h.adm.DeleteRecords(h.Context(), ends.Offsets())
	}
	if err != nil {
		h.Fatal(err)
	}
	e = h.process(h.TempDir())
	h.eventually("it says what it waits for", func() bool {
		return strings.Contains(e.log.String(), "does not reach back to the transaction's start any more")
	})
	if held := valueOf(h.T, e.HeldBack()); e.restored() != kafkatest.Partitions-1 || held != 1 {
		h.Errorf("%d partitions are restored, %v wait", e.restored(), held)
	}
	if open := h.open(h.Topic(changelog), 2); !slices.Equal(open, []int64{at}) {
		h.Errorf("the transaction is not left alone: open from %v", open)
	}
	_, err = h.adm.WriteTxnMarkers(h.Context(), kadm.TxnMarkers{ProducerID: h.producer, ProducerEpoch: h.epoch,
		Topics: kadm.TopicsSet{h.Topic(changelog): {2: {}}}}) // as kafka-transactions.sh does
	if err != nil {
		h.Fatal(err)
	}
	h.eventually("it goes on by itself", func() bool {
		return e.restored() == kafkatest.Partitions && valueOf(h.T, e.HeldBack()) == 0
	})
}

// A state that has applied what was aborted afterwards is wiped when it is opened,
// however late, and also when the rows of the transaction were the last that it
// applied.
func testVoidedState(h *hangingRig) {
	const voided, ahead = 2, 4
	old, dir := h.TempDir(), h.TempDir()
	e := h.process(old)
	h.send(60)
	h.settle()
	e.stop()
	h.begin(gone)
	at := h.put(h.unknown, changelog, voided, "hung", "x")
	h.forgotten()
	// As if End had been taken for success: a count that never was committed.
	h.changeState(old, voided, func(identity map[string]any) {
		identity["position"] = at + 1
		delete(identity, "input")
	})
	h.changeState(old, ahead, func(identity map[string]any) {
		identity["input"] = map[string]any{"clicks": 1 << 40, "conversions": 0}
	})

	e = h.process(dir)
	h.send(60)
	h.settle()
	e.stop()
	if !strings.Contains(e.log.String(), "left no marker anywhere") {
		h.Errorf("the transaction was not aborted for want of markers:\n%s", e.log)
	}
	e = h.process(old)
	h.send(60)
	h.settle()
	for partition, reason := range map[int]string{
		voided: fmt.Sprintf("what was written from %d on was aborted", at),
		ahead:  "it has applied inputs up to",
	} {
		rebuilt := fmt.Sprintf("rebuilding a partition's state from the log\" partition=%d", partition)
		if !strings.Contains(e.log.String(), rebuilt) || !strings.Contains(e.log.String(), reason) {
			h.Errorf("partition %d was not wiped for %q:\n%s", partition, reason, e.log)
		}
	}
	if n := strings.Count(e.log.String(), "rebuilding a partition's state"); n != 2 {
		h.Errorf("%d partitions were rebuilt", n)
	}
}

// changeState changes the position row of a partition's state on disk, and all of its
// counts.
func (h *hangingRig) changeState(dir string, partition int32, change func(identity map[string]any)) {
	h.Helper()
	cache := state.NewCache(1 << 20)
	defer cache.Close()
	s, err := state.OpenDir(filepath.Join(dir, engine.PartitionDir(partition), engine.StoreDir), cache,
		slog.New(slog.DiscardHandler))
	if err != nil {
		h.Fatal(err)
	}
	row, _, err := s.Get([]byte("M"), nil)
	var identity map[string]any
	if err = errors.Join(err, json.Unmarshal(row, &identity)); err != nil {
		h.Fatal(err)
	}
	if identity["input"] == nil {
		h.Errorf("the state of partition %d does not say which inputs it has applied: %s", partition, row)
	}
	change(identity)
	row, err = json.Marshal(identity)
	err = errors.Join(err, s.Set([]byte("M"), row))
	for n := range keysEach {
		err = errors.Join(err, s.Set(countKey(countedKey(partition, n)), []byte("99")))
	}
	if err = errors.Join(err, s.Close()); err != nil {
		h.Fatal(err)
	}
}

// The partition in which the engine looks for a group's offsets is the one in which
// Kafka keeps them.
func testGroupPartition(h *hangingRig) {
	for _, group := range []string{h.Group(topic.ProcessorGroup), h.Prefix + "a", "some group",
		"attribution-processor-slot-9", "test-with.a-prefix_attribution-processor"} {
		var at kadm.Offsets
		at.AddOffset(h.Topic(topic.Clicks), 0, 0, -1)
		if err := h.adm.CommitAllOffsets(h.Context(), group, at); err != nil {
			h.Fatal(err)
		}
		partition := engine.GroupPartition(group, 4)
		cl := kafkatest.Client(h, h.Brokers, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
			"__consumer_offsets": {partition: kgo.NewOffset().AtStart()}}))
		ctx, cancel := context.WithTimeout(h.Context(), hang)
		for found := false; !found; {
			for _, r := range cl.PollFetches(ctx).Records() {
				key := kmsg.NewOffsetCommitKey()
				found = found || key.ReadFrom(r.Key) == nil && key.Group == group
			}
			if ctx.Err() != nil {
				h.Fatalf("the offsets of group %q are not in partition %d", group, partition)
			}
		}
		cancel()
		cl.Close()
	}
}
