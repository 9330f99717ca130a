package processor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nimriz/partners/pipeline/attribution"
	"github.com/nimriz/partners/pipeline/engine"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func (t *task) isGivenUp(raw *[20]byte) bool { return t.part.Install().IsGivenUp(token.Text(raw)) }

// nameWayOn adds to the error of a journey that cannot be read what else can be done.
func nameWayOn(raw *[20]byte, err error) error {
	if event.Unreadable(err) || errors.Is(err, event.ErrNewer) || errors.Is(err, event.ErrJourney) {
		return fmt.Errorf("%w; if nothing can read it any more, run `ctl token give-up %s`", err, token.Text(raw))
	}
	return err
}

// rereadTimeout is how long one event may take to be read again. The transaction is open
// meanwhile; if it is too short, the session ends and the next one tries again.
const rereadTimeout = 20 * time.Second

// rereadEvent reads the event of a wait row that cannot be read from conversions again. One
// that is not there any more, or cannot be read either, becomes a dead letter: it was read,
// and stays accounted for.
func (t *task) rereadEvent(tx *engine.Tx, raw *[20]byte) attribution.RereadEvent {
	return func(d *attribution.DamagedWait) (*event.Conversion, attribution.Source, error) {
		source := attribution.Source{Partition: t.part.ID, Offset: d.Offset}
		tok := token.Text(raw)
		log := t.log.With("token", tok, "partition", t.part.ID, "offset", d.Offset, "error", d.Why)
		r, err := t.readConversion(d.Offset)
		if err != nil {
			return nil, source, fmt.Errorf("reading offset %d of conversions again: %w", d.Offset, err)
		}
		var ev event.Conversion
		if r == nil || string(r.Key) != tok {
			r = &kgo.Record{Topic: t.kafka.Topic(topic.Conversions), Partition: t.part.ID, Offset: d.Offset,
				Key: []byte(tok), Value: d.Row}
			err = errors.New("conversions does not have it any more, and the value is the wait row's")
		} else if err = t.codec.DecodeConversion(r.Value, &ev); err != nil && !event.Unreadable(err) {
			return nil, source, err
		} else if err == nil && ev.ClickToken != tok {
			err = fmt.Errorf("key %.64q is not the record's click_token", tok)
		}
		if err == nil {
			log.Warn("a waiting event of a given-up token cannot be read: it was read from conversions again")
			return &ev, source, nil
		}
		log.Error("a waiting event of a given-up token cannot be read: it goes to the dead letters")
		return nil, source, t.writeDeadLetter(tx, r, fmt.Errorf("its token was given up while it waited: %w; %w",
			d.Why, err))
	}
}

// readConversion reads one record of the partition's conversions, nil if it is not there
// any more.
func (t *task) readConversion(offset int64) (found *kgo.Record, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), rereadTimeout)
	defer cancel()
	reader := kafka.RangeReader{Kafka: t.kafka, Log: t.log, Isolation: kgo.ReadCommitted()}
	err = reader.Each(ctx, func(records []*kgo.Record) error {
		found = records[0]
		return nil
	}, kafka.Range{Topic: t.kafka.Topic(topic.Conversions), Partition: t.part.ID, From: offset, To: offset + 1})
	if errors.Is(err, kerr.OffsetOutOfRange) {
		return nil, nil
	}
	return found, err
}
