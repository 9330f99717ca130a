package scenario

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

// Ledger is the content of the topics, as a reader of committed records sees it.
type Ledger struct {
	Clicks      []oracle.Click           // readable, in order of record
	ClickBytes  [][]byte                 // the wire form of each of Clicks
	Events      []oracle.Event           // readable
	Outcomes    []event.Outcome          // in order of record within each partition
	Progress    map[int32]event.Progress // the newest of each partition
	Conversions int                      // records of conversions, including unreadable ones
	DeadLetters int
}

// ReadLedger reads the topics to their present ends; if only names topics, just those.
func ReadLedger(ctx context.Context, cfg kafka.Config, only ...string) (*Ledger, error) {
	l := &Ledger{Progress: make(map[int32]event.Progress)}
	codec := event.DefaultCodec()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	for _, name := range []string{topic.Clicks, topic.Conversions, topic.Outcomes, topic.Progress, topic.DeadLetters} {
		if len(only) > 0 && !slices.Contains(only, name) {
			continue
		}
		records, err := kafka.ReadAll(ctx, cfg, log, name)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if err := l.addRecord(codec, r); err != nil {
				return nil, fmt.Errorf("reading %s partition %d offset %d: %w", name, r.Partition, r.Offset, err)
			}
		}
	}
	return l, nil
}

func (l *Ledger) addRecord(codec *event.Codec, r *kgo.Record) error {
	switch r.Topic {
	case topic.Clicks:
		k := oracle.Click{At: event.MillisOf(r.Timestamp)}
		if codec.DecodeClick(r.Value, &k.Click) == nil {
			l.Clicks = append(l.Clicks, k)
			l.ClickBytes = append(l.ClickBytes, r.Value)
		}
	case topic.Conversions:
		l.Conversions++
		e := oracle.Event{Partition: r.Partition, Offset: r.Offset}
		if codec.DecodeConversion(r.Value, &e.Conversion) == nil && string(r.Key) == e.ClickToken {
			l.Events = append(l.Events, e)
		}
	case topic.Outcomes:
		var o event.Outcome
		if err := codec.DecodeOutcome(r.Value, &o); err != nil {
			return err
		}
		if string(r.Key) != o.ClickToken || r.Partition != o.EventPartition {
			return fmt.Errorf("outcome of token %s has the key %q", o.ClickToken, r.Key)
		}
		l.Outcomes = append(l.Outcomes, o)
	case topic.Progress:
		var p event.Progress
		if err := codec.DecodeProgress(r.Value, &p); err != nil {
			return err
		}
		l.Progress[p.Partition] = p
	case topic.DeadLetters:
		l.DeadLetters++
	}
	return nil
}

// Expected returns the oracle's result for the inputs when every wait has ended.
func (l *Ledger) Expected(grace time.Duration) oracle.Result {
	return l.judgeInputs(grace, event.MillisOf(time.Now().Add(100*time.Hour)))
}

// ExpectedUnexpired returns the oracle's result for the inputs while no wait has ended:
// the outcomes that do not depend on time any longer.
func (l *Ledger) ExpectedUnexpired(grace time.Duration) oracle.Result { return l.judgeInputs(grace, 0) }

func (l *Ledger) judgeInputs(grace time.Duration, through event.Millis) oracle.Result {
	cfg := oracle.DefaultConfig()
	cfg.Grace = grace
	return oracle.Judge(cfg, l.Clicks, l.Events, through)
}

// CheckConservation compares the counts in the progress records with each other and
// with the topics. It returns an error for each difference.
func (l *Ledger) CheckConservation() error {
	var sum event.Progress
	var verdicts int64
	for _, p := range l.Progress {
		sum.Read += p.Read
		sum.Waiting += p.Waiting
		sum.Unreadable += p.Unreadable
		verdicts += p.Attributed + p.Reversed + p.Duplicate + p.Conflict + p.Unattributed
	}
	errs := []error{
		compareCounts("records read", sum.Read, int64(l.Conversions)),
		compareCounts("verdicts", verdicts, int64(len(l.Outcomes))),
		compareCounts("unreadable records", sum.Unreadable, int64(l.DeadLetters)),
	}
	if all := verdicts + sum.Unreadable + sum.Waiting; all != sum.Read {
		errs = append(errs, fmt.Errorf("the progress records count %d records read, but %d verdicts, "+
			"unreadable and waiting ones", sum.Read, all))
	}
	return errors.Join(errs...)
}

func compareCounts(what string, progress, topics int64) error {
	if progress == topics {
		return nil
	}
	return fmt.Errorf("%s: the progress records count %d, the topics %d", what, progress, topics)
}
