package processor_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// newerID is the schema id of a click that only a newer program knows.
const newerID = 99

// runToEnd runs a processor that is expected to give up.
func runToEnd(t *testing.T, p *processor.Processor) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	err := p.Run(ctx)
	if err == nil {
		t.Fatal("it runs on")
	}
	return err
}

// checkNewer checks that a processor gave up for a person to upgrade it.
func checkNewer(t *testing.T, err error, words ...string) {
	t.Helper()
	if !errors.Is(err, processor.ErrNewer) || !processor.Fatal(err) {
		t.Errorf("%v, want %v", err, processor.ErrNewer)
	}
	for _, w := range append(words, "upgrade the processor") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

// A click of a schema id that the processor does not know stops it, whether the click
// or its sale is read first: the sale must not become click_not_found. The same state
// goes on under a processor that knows the id.
func TestClickOfNewerSchema(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"the click first", "the sale first"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kafkatest.Broker(t))
			k := w.Click()
			sale := w.Sale(k, 1000)
			click, err := w.ClickRecord(k)
			if err != nil {
				t.Fatal(err)
			}
			click.Value[4] = newerID
			cfg := config(t.TempDir())
			if name == "the click first" {
				w.send(click)
				w.flush()
				w.sendEvent(sale)
			} else {
				w.sendEvent(sale)
				w.flush()
				stop := start(t, newProcessor(t, w.brokers, cfg))
				eventually(t, "the sale waits", func() bool {
					return w.progress()[w.partition(k.ClickToken)].Waiting == 1
				})
				stop()
				w.send(click)
			}
			w.flush()
			checkNewer(t, runToEnd(t, newProcessor(t, w.brokers, cfg)), "unknown schema id 99", "-schema-ids")
			if rows := w.outcomes(); len(rows) != 0 {
				t.Errorf("it has written %d rows", len(rows))
			}

			ids := append(slices.Clone(event.DefaultIDs()), event.ID{ID: newerID, Record: "Click", Version: 2})
			knowing, err := event.NewCodec(ids)
			if err != nil {
				t.Fatal(err)
			}
			start(t, newKnowingProcessor(t, w, cfg, knowing))
			eventually(t, "the sale is judged", func() bool { return len(w.outcomes()) == 1 })
			if o := w.outcomes()[0]; o.Verdict != event.Attributed {
				t.Errorf("the sale is %s %s", o.Verdict, o.Reason)
			}
		})
	}
}

func newKnowingProcessor(t *testing.T, w *world, cfg processor.Config, codec *event.Codec) *processor.Processor {
	t.Helper()
	k := kafka.DefaultConfig()
	k.Brokers = w.brokers
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	p, err := processor.New(cfg, k, codec, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	p.SetNow(clockOf(w.brokers).now)
	return p
}

// A journey row of a version that the processor does not know stops it, when it is
// restored. It does not wipe its state to read the same again.
func TestRowOfNewerVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	cfg := config(t.TempDir())
	stop := start(t, newProcessor(t, w.brokers, cfg))
	k := w.Click()
	w.sendClick(k)
	w.sendEvent(w.Sale(k, 1000))
	w.flush()
	w.judged()
	stop()
	raw, err := token.Parse(k.ClickToken)
	if err != nil {
		t.Fatal(err)
	}
	w.send(&kgo.Record{
		Topic:     topic.Changelog,
		Partition: w.partition(k.ClickToken),
		Key:       event.HeadKey(&raw),
		Value:     []byte{3, 0},
		Timestamp: time.Now(),
	})
	w.flush()
	var logged strings.Builder
	p := newLoggedProcessor(t, w.brokers, cfg, &logged)
	checkNewer(t, runToEnd(t, p), `journey row "head" of version 3`)
	if strings.Contains(logged.String(), "rebuilding") {
		t.Errorf("it rebuilds its state:\n%s", logged.String())
	}
}

// The first transaction that this version commits leaves totals that an earlier one
// refuses, also if it judges nothing: a click alone.
func TestEarlierTotalsAreWrittenAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	cfg := config(t.TempDir())
	k := w.Click()
	partition := w.partition(k.ClickToken)
	w.send(&kgo.Record{
		Topic:     topic.Changelog,
		Partition: partition,
		Key:       []byte{'T'},
		Value:     []byte{1, 0, 0, 0, 0, 0, 0, 0, 0}, // of version 1
		Timestamp: time.Now(),
	})
	w.sendClick(k)
	w.flush()
	start(t, newProcessor(t, w.brokers, cfg))
	eventually(t, "totals of this version", func() bool {
		for _, r := range kafkatest.Consume(t, w.brokers, topic.Changelog) {
			if r.Partition == partition && string(r.Key) == "T" && r.Value[0] == 2 {
				return true
			}
		}
		return false
	})
	if rows := w.outcomes(); len(rows) != 0 {
		t.Errorf("a click alone made %d rows", len(rows))
	}
}
