package processor_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
)

// grown adds two partitions to a world, for tokens that are minted from now on, and
// returns a click of an added one and its partition.
func (w *world) grown() (k *event.Click, partition int32) {
	w.Helper()
	want := kafka.DefaultGrowConfig()
	// At may have passed when a busy machine gets there: no program places tokens here.
	want.Partitions, want.Lead = kafkatest.Partitions+2, -time.Hour
	want.At = time.Now().Add(time.Second).Truncate(time.Second)
	cfg := kafka.DefaultConfig()
	cfg.Brokers = w.brokers
	if _, err := kafka.Grow(w.Context(), w.client, cfg, want, slog.New(slog.DiscardHandler)); err != nil {
		w.Fatal(err)
	}
	epochs := topic.OneEpoch(kafkatest.Partitions).Grown(topic.Growth{Partitions: want.Partitions, From: want.At})
	time.Sleep(time.Until(want.At))
	w.client.ForceMetadataRefresh()
	for {
		k = w.Click()
		raw, err := token.Parse(k.ClickToken)
		if err != nil {
			w.Fatal(err)
		}
		if partition = epochs.Partition(k.ClickToken, token.Time(&raw)); epochs.IsAdded(partition) {
			return k, partition
		}
	}
}

// tell writes a click and a sale of it into a partition.
func (w *world) tell(k *event.Click, partition int32) {
	w.Helper()
	click, err := w.ClickRecord(k)
	if err != nil {
		w.Fatal(err)
	}
	sale, err := w.EventRecord(w.Sale(k, 1000))
	if err != nil {
		w.Fatal(err)
	}
	click.Partition, sale.Partition = partition, partition
	for w.Context().Err() == nil { // until the client knows of the partition
		if err = w.client.ProduceSync(w.Context(), click, sale).FirstErr(); err == nil {
			return
		}
		click.Timestamp, sale.Timestamp = time.Now(), time.Now()
		time.Sleep(50 * time.Millisecond)
	}
	w.Fatal(err)
}

// A partition that was added begins with its first record, also where that came before any
// processor. One with rows and without a commit has lost it, and is refused.
func TestAddedPartition(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	k, partition := w.grown()
	w.tell(k, partition)
	stop := start(t, newProcessor(t, w.brokers, config(t.TempDir())))
	eventually(w, "what was there before is judged", func() bool { return len(w.outcomes()) == 1 })
	if got := w.outcomes()[0]; got.Verdict != event.Attributed || got.EventPartition != partition {
		t.Errorf("%v in partition %d, want %d", got, got.EventPartition, partition)
	}
	w.conserved()
	stop()

	forget := make(kadm.TopicsSet)
	forget.Add(topic.Clicks, partition)
	forget.Add(topic.Conversions, partition)
	adm := kadm.NewClient(w.client)
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) { // the group's members must be gone
		deleted, err := adm.DeleteOffsets(t.Context(), topic.ProcessorGroup, forget)
		if err = errors.Join(err, deleted.Error()); err == nil {
			break
		}
		if time.Since(began) > hang {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	err := newProcessor(t, w.brokers, config(t.TempDir())).Run(ctx)
	const lost = "which was added, and its changelog has rows"
	if !errors.Is(err, kafka.ErrOffsets) || !strings.Contains(err.Error(), lost) {
		t.Errorf("without its commit: %v", err)
	}
}
