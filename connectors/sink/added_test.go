package sink

import (
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Partitions that are added while a sink runs are read from their start, and hold the
// watermark, and with it what is final, from before the first report of the new epoch until
// they report themselves.
func TestAddedPartitionsCount(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	run := r.start(r.sink(r.wh))
	report := func(partition int32) *kgo.Record {
		now := event.MillisOf(time.Now())
		value, err := r.codec.AppendProgress(nil, &event.Progress{Partition: partition, At: now, Watermark: now,
			CaughtUp: true, GraceMs: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return &kgo.Record{Topic: topic.Progress, Partition: partition, Key: []byte{byte(partition)}, Value: value}
	}
	joined := func() time.Time {
		t.Helper()
		var found []struct {
			At time.Time `ch:"at"`
		}
		if err := r.wh.Select(t.Context(), &found, "SELECT joined_watermark AS at FROM freshness"); err != nil {
			t.Fatal(err)
		}
		return found[0].At
	}
	for p := range int32(kafkatest.Partitions) {
		r.produce("progress", report(p))
	}
	r.arrived()
	if at := joined(); at.Unix() <= 0 {
		t.Fatalf("before: %v", at)
	}

	want := kafka.DefaultGrowConfig()
	want.Partitions, want.Lead = kafkatest.Partitions+2, 0
	want.At = time.Now().Add(time.Second).Truncate(time.Second)
	cfg := kafka.DefaultConfig()
	cfg.Brokers = r.brokers
	client := kafkatest.Client(t, r.brokers)
	if _, err := kafka.Grow(t.Context(), client, cfg, want, discard()); err != nil {
		t.Fatal(err)
	}
	r.want["catalog_versions"] = nil // compared elsewhere
	time.Sleep(time.Until(want.At))
	behind := kadm.NewClient(kafkatest.Client(t, r.brokers))
	ends := func() int64 {
		offsets, err := kafka.ListOffsets(t.Context(), behind, topic.Progress)
		if err != nil {
			t.Fatal(err)
		}
		at, err := offsets.Of(topic.Progress, 0)
		if err != nil {
			t.Fatal(err)
		}
		return at.End
	}
	kafkatest.Produce(t, r.brokers, report(0))
	r.awaitNumber(t, "SELECT count() AS n FROM progress WHERE src_partition = 0", uint64(ends()))
	if at := joined(); at.Unix() != 0 {
		t.Errorf("what was added has not reported, and everything is joined up to %v", at)
	}
	for p := range want.Partitions {
		kafkatest.Produce(t, r.brokers, report(p))
	}
	r.awaitNumber(t, "SELECT uniqExact(src_partition) AS n FROM progress", uint64(want.Partitions))
	if at := joined(); at.Unix() <= 0 {
		t.Errorf("everything has reported, and it is joined up to %v", at)
	}
	run.stop(t)
}

// awaitNumber waits until a query for a number n gives it.
func (r *rig) awaitNumber(t *testing.T, query string, want uint64) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		var found []struct {
			N uint64 `ch:"n"`
		}
		if err := r.wh.Select(t.Context(), &found, query); err != nil {
			t.Fatal(err)
		}
		if found[0].N >= want {
			return
		}
		if time.Since(began) > hang {
			t.Fatalf("%s: %d, want %d", query, found[0].N, want)
		}
	}
}
