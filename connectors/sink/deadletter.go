package sink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The reasons for a dead letter are those of the codec (event.Unreadable), text that is
// no click token (token.ErrMalformed), a record in another partition than its token's
// (kafka.ErrMisplaced), and these.
var (
	errKey     = errors.New("key differs from click token")
	errCatalog = errors.New("malformed catalog record")
)

// isUnreadable reports whether err is a reason for a dead letter: the record alone, by its
// bytes or its place, is useless, and decoding it again would fail again.
func isUnreadable(err error) bool {
	return event.Unreadable(err) || errors.Is(err, errKey) || errors.Is(err, token.ErrMalformed) ||
		errors.Is(err, errCatalog) || errors.Is(err, kafka.ErrMisplaced)
}

// decidePlaces finds the records of a batch that lie in another partition than that of
// their token. Once it has, the answer stays, whatever attempt asks.
func (p *partition) decidePlaces(ctx context.Context, b *batch) error {
	if b.misplaced != nil {
		return nil
	}
	if b.formedAt.IsZero() {
		b.formedAt = time.Now()
	}
	misplaced := make(map[int64]error)
	for _, r := range b.records {
		err := p.checkPlace(ctx, b, r)
		switch {
		case errors.Is(err, kafka.ErrMisplaced):
			misplaced[r.Offset] = err
		case err != nil:
			return err
		}
	}
	b.misplaced = misplaced
	return nil
}

// checkPlace returns kafka.ErrMisplaced if a record lies in another partition than that of
// its token. It waits until topic catalog was read so far that this is certain. A key that
// is no token is left to decoding.
func (p *partition) checkPlace(ctx context.Context, b *batch, r *kgo.Record) error {
	raw, err := token.Parse(string(r.Key))
	if !p.mapping.bound || err != nil {
		return nil
	}
	key, minted := string(r.Key), token.Time(&raw)
	for {
		switch p.sink.install.Placement(r, key, minted, b.formedAt) {
		case kafka.Placed:
			return nil
		case kafka.Misplaced:
			return p.sink.install.MisplacedError(r, key, minted)
		}
		if err := p.sink.install.Await(ctx, b.formedAt); err != nil {
			return fmt.Errorf("%w: offset %d may be misplaced: %w", errKafka, r.Offset, err)
		}
	}
}

// unreadableRecord is a record that goes to the dead letters.
type unreadableRecord struct {
	record *kgo.Record
	reason error
}

// produceDeadLetters sends the unreadable records of a batch to the dead letters,
// before the batch is recorded as finished. If an earlier attempt or process may have
// sent some, it first reads which of them are there. Two sinks that repeat one batch at
// the same moment can still send a dead letter twice: both have the same key and the
// same source headers. Every warehouse meets the same records: only the first one's sinks,
// whose group has no suffix, send them.
func (p *partition) produceDeadLetters(ctx context.Context, b *batch) error {
	if len(b.unreadable) == 0 || p.sink.kafka.GroupSuffix != "" {
		b.reached = stepDeadLettersSent
		return nil
	}
	var existing map[int64]bool
	if b.mayHaveReached >= stepDeadLettersSent {
		var err error
		if existing, err = p.readExistingDeadLetters(ctx, b); err != nil {
			return err
		}
	}
	b.beginStep(stepDeadLettersSent)
	var letters []*kgo.Record
	now := time.Now()
	for _, x := range b.unreadable {
		if existing[x.record.Offset] {
			continue
		}
		letters = append(letters, kafka.NewDeadLetter(p.sink.kafka.Topic(topic.DeadLetters), x.record, x.reason, now))
	}
	if err := p.sink.client.ProduceSync(ctx, letters...).FirstErr(); err != nil {
		return fmt.Errorf("%w: sending dead letters: %w", errKafka, err)
	}
	for _, x := range b.unreadable {
		p.log.Warn("an unreadable record went to the dead letters", "offset", x.record.Offset, "error", x.reason)
	}
	return p.reachStep(b, stepDeadLettersSent)
}

// readExistingDeadLetters returns the offsets of the batch's records that are in the
// dead letters already. It reads those that were written since the batch was declared.
func (p *partition) readExistingDeadLetters(ctx context.Context, b *batch) (map[int64]bool, error) {
	name := p.sink.kafka.Topic(topic.DeadLetters)
	since := b.intent.declaredAt.Add(-clockSkew)
	ranges, err := kafka.ListRangesSince(ctx, kadm.NewClient(p.sink.client), name, since)
	if err != nil {
		return nil, fmt.Errorf("%w: looking for dead letters of the batch: %w", errKafka, err)
	}
	source := p.sink.kafka.Topic(p.mapping.topic)
	existing := make(map[int64]bool)
	reader := kafka.RangeReader{Kafka: p.sink.kafka, Log: p.sink.log}
	err = reader.Each(ctx, func(records []*kgo.Record) error {
		for _, r := range records {
			letter, err := kafka.ParseDeadLetter(r)
			if err != nil {
				continue // not written by this project
			}
			if letter.Source.Topic == source && letter.Source.Partition == b.partition {
				existing[letter.Source.Offset] = true
			}
		}
		return nil
	}, ranges...)
	if err != nil {
		return nil, fmt.Errorf("%w: looking for dead letters of the batch: %w", errKafka, err)
	}
	return existing, nil
}
