package engine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// logEntry is one record of a partition's log, committed or not.
type logEntry struct {
	producer int64
	epoch    int16
	marker   string // commit or abort; empty: data
}

func (e logEntry) String() string { return fmt.Sprintf("%s%d/%d", e.marker, e.producer, e.epoch) }

// readLog reads a partition from offset from to its end, open transactions and markers
// included.
func readLog(t *testing.T, brokers []string, name string, partition int32, from int64) (log []logEntry) {
	t.Helper()
	cl := kafkatest.Client(t, brokers, kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {partition: kgo.NewOffset().At(from)}}))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, name)
	end, ok := ends.Lookup(name, partition)
	if err != nil || !ok {
		t.Fatal(err)
	}
	for at := from; at < end.Offset; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("reading %s partition %d at %d: %v", name, partition, at, err)
		}
		for _, r := range fetches.Records() {
			e := logEntry{producer: r.ProducerID, epoch: r.ProducerEpoch}
			if r.Attrs.IsControl() {
				e.marker = map[uint16]string{0: "abort", 1: "commit"}[binary.BigEndian.Uint16(r.Key[2:])]
			}
			log = append(log, e)
			at = r.Offset + 1
		}
	}
	return log
}

// coordinatorLog reads what __transaction_state says of a transactional id, from its
// first record.
func coordinatorLog(t *testing.T, brokers []string, id string) (states []kmsg.TxnMetadataValue) {
	t.Helper()
	const name = "__transaction_state"
	from := map[int32]kgo.Offset{}
	for p := range int32(4) {
		from[p] = kgo.NewOffset().AtStart()
	}
	cl := kafkatest.Client(t, brokers, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: from}))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatalf("reading %s: %v", name, err)
		}
		for _, r := range fetches.Records() {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			key, value := kmsg.NewTxnMetadataKey(), kmsg.NewTxnMetadataValue()
			if err := errors.Join(key.ReadFrom(r.Key), value.ReadFrom(r.Value)); err != nil {
				t.Fatalf("%s partition %d offset %d: %v", name, r.Partition, r.Offset, err)
			}
			if key.TransactionalID == id {
				states = append(states, value)
			}
		}
	}
	return states
}

// On Apache Kafka: the epochs that markers carry, on which every decision about a
// hanging transaction rests. Kafka raises the epoch with the end of each transaction
// (KIP-890), and the marker carries the epoch after that: one more than the records
// that it closes. What an operator's kafka-transactions.sh writes carries the epoch of
// the records themselves.
func TestRealMarkerEpochs(t *testing.T) {
	t.Parallel()
	b := kafkatest.Real(t)
	kafkatest.Topics(t, b.Brokers())
	const id = "measured"
	client := func(timeout time.Duration) *kgo.Client {
		return kafkatest.Client(t, b.Brokers(), kgo.TransactionalID(id), kgo.TransactionTimeout(timeout))
	}
	adm := kadm.NewClient(kafkatest.Client(t, b.Brokers()))
	write := func(cl *kgo.Client) {
		t.Helper()
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		r := &kgo.Record{Topic: topic.Outcomes, Value: []byte("x")}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	next := int64(0)
	settled := func(what, state, marker string) {
		t.Helper()
		var d kadm.DescribedTransaction
		for deadline := time.Now().Add(hang); ; time.Sleep(20 * time.Millisecond) {
			described, err := adm.DescribeTransactions(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if d = described[id]; d.State == state {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: the coordinator says %s, want %s", what, d.State, state)
			}
		}
		log := readLog(t, b.Brokers(), topic.Outcomes, 0, next)
		next += int64(len(log))
		states := coordinatorLog(t, b.Brokers(), id)
		var history []string
		for _, s := range states[max(0, len(states)-4):] {
			history = append(history, fmt.Sprintf("%v %d/%d prev %d next %d", s.State, s.ProducerID, s.ProducerEpoch,
				s.PreviousProducerID, s.NextProducerID))
		}
		producers, err := adm.DescribeProducers(t.Context(), kadm.TopicsSet{topic.Outcomes: {0: {}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: log %v; coordinator %s %d/%d; its log %v; partition %+v",
			what, log, d.State, d.ProducerID, d.ProducerEpoch, history, producers.SortedProducers())
		if len(log) != 2 || log[0].marker != "" || log[1] != (logEntry{log[0].producer, log[0].epoch + 1, marker}) {
			t.Fatalf("%s: the log holds %v, want a record and the %s marker of its producer with the next epoch",
				what, log, marker)
		}
		ended := func(s kmsg.TxnMetadataValue) bool {
			state := kmsg.TransactionStatePrepareCommit
			if marker == "abort" {
				state = kmsg.TransactionStatePrepareAbort
			}
			return s.State == state && s.ProducerID == log[1].producer && s.ProducerEpoch == log[1].epoch
		}
		if !slices.ContainsFunc(states, ended) {
			t.Errorf("%s: the coordinator's log does not say so with the marker's epoch: %v", what, history)
		}
	}
	a := client(time.Minute)
	write(a)
	if err := a.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	settled("commit", "CompleteCommit", "commit")
	write(a)
	if err := a.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	settled("abort", "CompleteAbort", "abort")
	write(a)
	fencing := client(2 * time.Second)
	if _, _, err := fencing.ProducerID(t.Context()); err != nil {
		t.Fatal(err)
	}
	settled("fenced", "Empty", "abort")
	write(fencing)
	settled("timeout", "CompleteAbort", "abort")
	fencing.Close()

	// A producer id has 32,767 epochs: at 100 ms a transaction they last 55 minutes.
	// Each initialising takes one too, and that needs some seconds.
	began := time.Now()
	cl := kafkatest.Client(t, b.Brokers())
	producer, epoch := initProducerID(t, cl, id)
	for epoch < 32765 {
		_, epoch = initProducerID(t, cl, id)
	}
	t.Logf("epoch %d of producer %d reached after %v", epoch, producer, time.Since(began).Round(time.Millisecond))
	last := client(time.Minute)
	write(last)
	if err := last.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	settled("commit at the last epoch", "CompleteCommit", "commit")
	write(last)
	if err := last.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	settled("commit after the roll-over", "CompleteCommit", "commit")
	if now, e, err := last.ProducerID(t.Context()); err != nil || now == producer || e > 3 {
		t.Errorf("the client has producer %d, epoch %d, %v: no roll-over of %d", now, e, err, producer)
	}
}

// initProducerID initialises a transactional id, which ends what it has open, and takes
// the next epoch.
func initProducerID(t *testing.T, cl *kgo.Client, id string) (producer int64, epoch int16) {
	t.Helper()
	for deadline := time.Now().Add(hang); ; time.Sleep(time.Millisecond) {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis = &id, 60_000
		resp, err := req.RequestWith(t.Context(), cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err == nil {
			return resp.ProducerID, resp.ProducerEpoch
		}
		if !kerr.IsRetriable(err) && !errors.Is(err, kerr.ConcurrentTransactions) || time.Now().After(deadline) {
			t.Fatalf("initialising %s: %v", id, err)
		}
	}
}
