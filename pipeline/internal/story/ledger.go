package story

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Ledger is what readers of committed records see.
type Ledger struct {
	Clicks      []oracle.Click // shown and readable, in order of record
	Wire        [][]byte       // of Clicks
	Events      []oracle.Event
	Outcomes    []event.Outcome
	Progress    map[int32]event.Progress // newest of each partition
	Conversions int                      // records, unreadable ones included
	DeadLetters int
}

// Read reads the topics as they are now; with names, only those.
func Read(ctx context.Context, cfg kafka.Config, only ...string) (*Ledger, error) {
	l := &Ledger{Progress: make(map[int32]event.Progress)}
	codec := event.DefaultCodec()
	for _, x := range []struct {
		topic string
		take  func(*kgo.Record) error
	}{
		{topic.Clicks, func(r *kgo.Record) error {
			k := oracle.Click{At: event.MillisOf(r.Timestamp)}
			if codec.DecodeClick(r.Value, &k.Click) == nil {
				l.Clicks, l.Wire = append(l.Clicks, k), append(l.Wire, r.Value)
			}
			return nil
		}},
		{topic.Conversions, func(r *kgo.Record) error {
			l.Conversions++
			e := oracle.Event{Partition: r.Partition, Offset: r.Offset}
			if codec.DecodeConversion(r.Value, &e.Conversion) == nil && string(r.Key) == e.ClickToken {
				l.Events = append(l.Events, e)
			}
			return nil
		}},
		{topic.Outcomes, func(r *kgo.Record) error {
			var o event.Outcome
			if err := codec.DecodeOutcome(r.Value, &o); err != nil {
				return err
			}
			if string(r.Key) != o.ClickToken || r.Partition != o.EventPartition {
				return fmt.Errorf("a row of %s stands under key %q", o.ClickToken, r.Key)
			}
			l.Outcomes = append(l.Outcomes, o)
			return nil
		}},
		{topic.Progress, func(r *kgo.Record) error {
			var p event.Progress
			if err := codec.DecodeProgress(r.Value, &p); err != nil {
				return err
			}
			l.Progress[p.Partition] = p
			return nil
		}},
		{topic.DeadLetters, func(*kgo.Record) error {
			l.DeadLetters++
			return nil
		}},
	} {
		if len(only) > 0 && !slices.Contains(only, x.topic) {
			continue
		}
		records, err := kafka.ReadAll(ctx, cfg, slog.New(slog.NewTextHandler(io.Discard, nil)), x.topic)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if err := x.take(r); err != nil {
				return nil, fmt.Errorf("%s partition %d offset %d: %w", x.topic, r.Partition, r.Offset, err)
			}
		}
	}
	return l, nil
}

// Truth is what the oracle makes of the inputs when every wait is over.
func (l *Ledger) Truth(grace time.Duration) oracle.Result {
	return l.judge(grace, event.MillisOf(time.Now().Add(100*time.Hour)))
}

// Decidable is what the oracle makes of the inputs while no wait has ended: rows that
// need no more waiting.
func (l *Ledger) Decidable(grace time.Duration) oracle.Result { return l.judge(grace, 0) }

func (l *Ledger) judge(grace time.Duration, through event.Millis) oracle.Result {
	cfg := oracle.DefaultConfig()
	cfg.Grace = grace
	return oracle.Judge(cfg, l.Clicks, l.Events, through)
}

// Conserved says whether everything that was read is accounted for, in each partition's
// own words and in the topics.
func (l *Ledger) Conserved() error {
	var sum event.Progress
	for _, p := range l.Progress {
		sum.Read += p.Read
		sum.Waiting += p.Waiting
		sum.Unreadable += p.Unreadable
		sum.Attributed += p.Attributed + p.Reversed + p.Duplicate + p.Conflict + p.Unattributed
	}
	var errs []error
	for _, x := range []struct {
		what      string
		got, want int64
	}{
		{"records read", sum.Read, int64(l.Conversions)},
		{"verdicts", sum.Attributed, int64(len(l.Outcomes))},
		{"unreadable records", sum.Unreadable, int64(l.DeadLetters)},
		{"all of them", sum.Attributed + sum.Unreadable + sum.Waiting, sum.Read},
	} {
		if x.got != x.want {
			errs = append(errs, fmt.Errorf("%s: progress says %d, the topics %d", x.what, x.got, x.want))
		}
	}
	return errors.Join(errs...)
}
