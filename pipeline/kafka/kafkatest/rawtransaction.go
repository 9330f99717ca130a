package kafkatest

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// RawTransaction is a transaction whose requests a test makes one by one, so that it can
// hang: a record that a client of before KIP-890 puts into a partition is unknown to the
// coordinator, if the broker does not ask (transaction.partition.verification.enable),
// and gets no marker.
type RawTransaction struct {
	ID       string // transactional id
	Producer int64
	Epoch    int16
}

// rawTimeout is how long a request is repeated while the coordinator is busy.
const rawTimeout = 3 * time.Minute

// BeginRaw takes a transactional id.
func BeginRaw(t testing.TB, cl *kgo.Client, id string) RawTransaction {
	t.Helper()
	for deadline := time.Now().Add(rawTimeout); ; time.Sleep(time.Millisecond) {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis = &id, 60_000
		resp, err := req.RequestWith(t.Context(), cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err == nil {
			return RawTransaction{id, resp.ProducerID, resp.ProducerEpoch}
		}
		if !kerr.IsRetriable(err) && !errors.Is(err, kerr.ConcurrentTransactions) || time.Now().After(deadline) {
			t.Fatalf("initialising %s: %v", id, err)
		}
	}
}

// Put writes a record of the transaction into a partition, on a cluster of one broker.
func (x RawTransaction) Put(t testing.TB, cl *kgo.Client, name string, partition int32, key, value string) {
	t.Helper()
	have, err := kadm.NewClient(cl).ListTopics(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(rawTimeout); ; time.Sleep(20 * time.Millisecond) {
		req := kmsg.NewPtrProduceRequest()
		req.TransactionID, req.Acks, req.TimeoutMillis = &x.ID, -1, 10_000
		p := kmsg.NewProduceRequestTopicPartition()
		p.Partition, p.Records = partition, x.encodeBatch(key, value)
		to := kmsg.NewProduceRequestTopic()
		to.Topic, to.TopicID, to.Partitions = name, have[name].ID, append(to.Partitions, p)
		req.Topics = append(req.Topics, to)
		resp, err := cl.Broker(1).Request(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		err = kerr.ErrorForCode(resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode)
		if err == nil {
			return
		}
		if !errors.Is(err, kerr.ConcurrentTransactions) || time.Now().After(deadline) {
			t.Fatalf("producing to %s partition %d: %v", name, partition, err)
		}
	}
}

// encodeBatch makes a batch of one record, the transaction's first in a partition.
func (x RawTransaction) encodeBatch(key, value string) []byte {
	now := time.Now().UnixMilli()
	body := kmsg.NewRecord()
	body.Key, body.Value = []byte(key), []byte(value)
	raw := body.AppendTo(nil)[1:] // its length, which is still 0, is a varint of one byte
	raw = append(binary.AppendVarint(nil, int64(len(raw))), raw...)
	b := kmsg.NewRecordBatch()
	b.PartitionLeaderEpoch, b.Magic, b.Attributes, b.NumRecords, b.Records = -1, 2, 1<<4, 1, raw
	b.FirstTimestamp, b.MaxTimestamp, b.ProducerID, b.ProducerEpoch = now, now, x.Producer, x.Epoch
	batch := b.AppendTo(nil)
	binary.BigEndian.PutUint32(batch[8:], uint32(len(batch)-12))
	binary.BigEndian.PutUint32(batch[17:], crc32.Checksum(batch[21:], crc32.MakeTable(crc32.Castagnoli)))
	return batch
}

// End ends the transaction as far as the coordinator knows of it.
func (x RawTransaction) End(t testing.TB, cl *kgo.Client, commit bool) {
	t.Helper()
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = x.ID, x.Producer, x.Epoch, commit
	resp, err := req.RequestWith(t.Context(), cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		t.Fatalf("ending the transaction of %s: %v", x.ID, err)
	}
}
