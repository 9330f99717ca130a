package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// produceTransaction writes one record for each value to partition 0 of the outcomes.
func produceTransaction(t *testing.T, cl *kgo.Client, end kgo.TransactionEndTry, values ...string) {
	t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		r := &kgo.Record{Topic: topic.Outcomes, Partition: 0, Value: []byte(v)}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := cl.EndTransaction(t.Context(), end); err != nil {
		t.Fatal(err)
	}
}

// A range is read to its end and no further: also if its last records were aborted, or
// are markers.
func TestRangeReader(t *testing.T) {
	_, brokers := kafkatest.Cluster(t)
	cl := kafkatest.Client(t, brokers, kgo.TransactionalID("test"))
	produceTransaction(t, cl, kgo.TryCommit, "a", "b") // offsets 0 and 1, marker at 2
	produceTransaction(t, cl, kgo.TryAbort, "x", "y")  // 3 and 4, marker at 5
	produceTransaction(t, cl, kgo.TryCommit, "c")      // 6, marker at 7
	produceTransaction(t, cl, kgo.TryAbort, "z")       // 8, marker at 9
	read := func(name string, r kafka.RangeReader, from, to int64, want string) {
		t.Helper()
		r.Kafka = config(brokers)
		r.Log = discard
		var got []string
		err := r.Each(t.Context(), func(records []*kgo.Record) error {
			for _, rec := range records {
				if rec.Attrs.IsControl() {
					got = append(got, "marker")
				} else {
					got = append(got, string(rec.Value))
				}
			}
			return nil
		}, kafka.Range{Topic: topic.Outcomes, From: from, To: to})
		if text := strings.Join(got, " "); err != nil || text != want {
			t.Errorf("%s: read %q, want %q, %v", name, text, want, err)
		}
	}
	committed := kafka.RangeReader{Isolation: kgo.ReadCommitted()}
	read("all", committed, 0, 10, "a b c")
	read("up to an offset", committed, 1, 6, "b")
	read("only what was aborted", committed, 8, 10, "")
	read("nothing", committed, 4, 4, "")
	committed.Markers = true
	read("with markers", committed, 1, 8, "b marker marker c marker")
	read("uncommitted", kafka.RangeReader{}, 1, 7, "b x y c")
}

// Several ranges are read side by side; an error of the function ends them all.
func TestRangesOfSeveralPartitions(t *testing.T) {
	_, brokers := kafkatest.Cluster(t)
	var ranges []kafka.Range
	for p := range int32(3) {
		for i := range 5 {
			kafkatest.Produce(t, brokers, &kgo.Record{
				Topic:     topic.Clicks,
				Partition: p,
				Value:     fmt.Appendf(nil, "%d/%d", p, i),
			})
		}
		ranges = append(ranges, kafka.Range{Topic: topic.Clicks, Partition: p, From: int64(p), To: 4})
	}
	reader := kafka.RangeReader{Kafka: config(brokers), Log: discard}
	var got []string
	err := reader.Each(t.Context(), func(records []*kgo.Record) error {
		for _, r := range records {
			got = append(got, string(r.Value))
		}
		return nil
	}, ranges...)
	slices.Sort(got)
	if text := strings.Join(got, " "); err != nil || text != "0/0 0/1 0/2 0/3 1/1 1/2 1/3 2/2 2/3" {
		t.Errorf("read %s, %v", text, err)
	}
	errFull := errors.New("the disk is full")
	if err := reader.Each(t.Context(), func([]*kgo.Record) error {
		return errFull
	}, ranges...); !errors.Is(err, errFull) {
		t.Errorf("the function's error came back as %v", err)
	}
}

// A fetch that a broker refuses is an error that names the range and the reason, at
// once. So is a range that the log no longer has.
func TestRefusedFetch(t *testing.T) {
	cluster, brokers := kafkatest.Cluster(t)
	for range 4 {
		kafkatest.Produce(t, brokers, &kgo.Record{Topic: topic.Clicks, Partition: 2, Value: []byte("v")})
	}
	if err := cluster.DeleteRecords(topic.Clicks, 2, 3); err != nil {
		t.Fatal(err)
	}
	read := func(from int64, want error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), hang)
		defer cancel()
		reader := kafka.RangeReader{Kafka: config(brokers), Log: discard}
		err := reader.Each(ctx, func([]*kgo.Record) error { return nil },
			kafka.Range{Topic: topic.Clicks, Partition: 2, From: from, To: 4})
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "clicks partition 2, offsets [") {
			t.Errorf("from %d: %v, want %v", from, err, want)
		}
	}
	read(1, kerr.OffsetOutOfRange)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.TopicAuthorizationFailed, Count: 100})
	read(3, kerr.TopicAuthorizationFailed)
}

// Start, last stable offset and end differ when records were deleted and a transaction
// is open. An unknown topic or partition is an error of its own.
func TestListOffsets(t *testing.T) {
	cluster, brokers := kafkatest.Cluster(t)
	for range 5 {
		kafkatest.Produce(t, brokers, &kgo.Record{Topic: topic.Outcomes, Partition: 1, Value: []byte("v")})
	}
	if err := cluster.DeleteRecords(topic.Outcomes, 1, 2); err != nil {
		t.Fatal(err)
	}
	cl := kafkatest.Client(t, brokers, kgo.TransactionalID("test"))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	open := &kgo.Record{Topic: topic.Outcomes, Partition: 1, Value: []byte("open")}
	if err := cl.ProduceSync(t.Context(), open).FirstErr(); err != nil {
		t.Fatal(err)
	}
	adm := kadm.NewClient(kafkatest.Client(t, brokers))
	offsets, err := kafka.ListOffsets(t.Context(), adm, topic.Outcomes, topic.Catalog)
	if err != nil || offsets.Error() != nil {
		t.Fatal(err, offsets.Error())
	}
	at, err := offsets.Of(topic.Outcomes, 1)
	if want := (kafka.LogOffsets{Start: 2, Stable: 5, End: 6}); err != nil || at != want {
		t.Errorf("listed %+v, want %+v, %v", at, want, err)
	}
	if n := len(offsets.Partitions(topic.Outcomes)); n != kafkatest.Partitions {
		t.Errorf("listed %d partitions, want %d", n, kafkatest.Partitions)
	}
	if _, err := offsets.Of(topic.Outcomes, 99); err == nil || !strings.Contains(err.Error(), "partition 99") {
		t.Errorf("partition 99: %v", err)
	}
	offsets, err = kafka.ListOffsets(t.Context(), adm, "nosuch", topic.Outcomes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := offsets.Of("nosuch", 0); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("an unknown topic: %v", err)
	}
	if _, err := offsets.Of(topic.Outcomes, 1); err != nil {
		t.Errorf("a topic beside an unknown one: %v", err)
	}
	if err := offsets.Error(); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("all of them: %v", err)
	}
}

// ListRangesSince begins one record before the time.
func TestListRangesSince(t *testing.T) {
	_, brokers := kafkatest.Cluster(t)
	now := time.Now().Truncate(time.Millisecond)
	for i := range 4 {
		kafkatest.Produce(t, brokers, &kgo.Record{
			Topic:     topic.Clicks,
			Partition: 0,
			Value:     []byte("v"),
			Timestamp: now.Add(time.Duration(i) * time.Hour),
		})
	}
	adm := kadm.NewClient(kafkatest.Client(t, brokers))
	since := func(at time.Time) kafka.Range {
		t.Helper()
		ranges, err := kafka.ListRangesSince(t.Context(), adm, topic.Clicks, at)
		if err != nil || len(ranges) != kafkatest.Partitions {
			t.Fatal(ranges, err)
		}
		i := slices.IndexFunc(ranges, func(r kafka.Range) bool { return r.Partition == 0 })
		return ranges[i]
	}
	if got := since(now.Add(2 * time.Hour)); got.From != 1 || got.To != 4 {
		t.Errorf("from the third record on: %+v, want [1, 4)", got)
	}
	if got := since(now.Add(-time.Hour)); got.From != 0 || got.To != 4 {
		t.Errorf("from before the log: %+v, want [0, 4)", got)
	}
	if _, err := kafka.ListRangesSince(t.Context(), adm, "nosuch", now); err == nil {
		t.Error("listed a topic that does not exist")
	}
}
