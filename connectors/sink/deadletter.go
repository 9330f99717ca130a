package sink

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// unreadableRecord is a record that is useless by its bytes alone.
type unreadableRecord struct {
	record *kgo.Record
	reason error
}

// produceDeadLetters sends the unreadable records of a batch to the dead letters, before the batch is
// recorded as finished. A batch that is repeated first looks which of its letters are
// there already. Two sinks that repeat one batch at the same moment can still send a
// letter twice: it has the same key and the same source headers.
func (p *partition) produceDeadLetters(ctx context.Context, b *batch) error {
	if len(b.unreadable) == 0 || b.letters {
		return nil
	}
	var sent map[int64]bool
	if b.again {
		var err error
		if sent, err = p.readExistingDeadLetters(ctx, b); err != nil {
			return err
		}
	}
	var letters []*kgo.Record
	now := time.Now()
	for _, x := range b.unreadable {
		if sent[x.record.Offset] {
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
	b.letters = true
	return p.sink.afterStep(stepDeadLettersSent, p)
}

// readExistingDeadLetters returns the offsets of the batch's records that stand in the dead letters,
// looking at those that were written since the batch was declared.
func (p *partition) readExistingDeadLetters(ctx context.Context, b *batch) (map[int64]bool, error) {
	name := p.sink.kafka.Topic(topic.DeadLetters)
	admin := kadm.NewClient(p.sink.client)
	starts, err := admin.ListOffsetsAfterMilli(ctx, b.intent.declaredAt.Add(-clockSkew).UnixMilli(), name)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: listing the dead letters: %w", errKafka, err)
	}
	ends, err := admin.ListEndOffsets(ctx, name)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: listing the dead letters: %w", errKafka, err)
	}
	from, left := map[int32]kgo.Offset{}, map[int32]int64{}
	starts.Each(func(start kadm.ListedOffset) {
		if end, ok := ends.Lookup(name, start.Partition); ok && start.Offset >= 0 && start.Offset < end.Offset {
			from[start.Partition] = kgo.NewOffset().At(start.Offset)
			left[start.Partition] = end.Offset
		}
	})
	found := map[int64]bool{}
	if len(from) == 0 {
		return found, nil
	}
	reader, err := kafka.NewClient(p.sink.kafka, p.sink.log, nil, kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: from}))
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	for len(left) > 0 {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: reading the dead letters: %w", errKafka, ctx.Err())
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if header(r, topic.HeaderSourceTopic) == p.sink.kafka.Topic(p.mapping.topic) &&
				header(r, topic.HeaderSourcePartition) == strconv.Itoa(int(b.partition)) {
				if offset, err := strconv.ParseInt(header(r, topic.HeaderSourceOffset), 10, 64); err == nil {
					found[offset] = true
				}
			}
		})
	}
	return found, nil
}

// header returns the value of the first header with this key.
func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}
