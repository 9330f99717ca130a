package processor

import (
	"time"

	"github.com/nimriz/partners/pipeline/engine"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// minProgressInterval bounds how often a busy partition reports.
	minProgressInterval = time.Second
	// maxProgressInterval is how often an idle one does.
	maxProgressInterval = 10 * time.Second
)

func (t *task) wantsProgress() bool {
	age := time.Since(t.lastProgress)
	return age >= maxProgressInterval || age >= minProgressInterval && (t.progressDirty || t.part.Moved())
}

// writeProgress reports how far the partition has come.
func (t *task) writeProgress(tx *engine.Tx) error {
	oldest, err := t.oldestWaiting()
	if err != nil {
		return err
	}
	b, err := t.codec.AppendProgress(nil, &event.Progress{
		Partition:               t.part.ID,
		At:                      event.MillisOf(tx.Now()),
		ClicksPosition:          t.part.LeadingNext(),
		ConversionsPosition:     t.part.FollowingNext(),
		ClicksMaxAt:             t.part.LeadingNewest(),
		ConversionsMaxAt:        t.part.FollowingNewest(),
		OutcomesEnd:             t.totals.outcomesEnd,
		Read:                    t.totals.read,
		Attributed:              t.totals.attributed,
		Reversed:                t.totals.reversed,
		Duplicate:               t.totals.duplicate,
		Conflict:                t.totals.conflict,
		Unattributed:            t.totals.unattributed,
		Unreadable:              t.totals.unreadable,
		Waiting:                 t.rows.waiting,
		OldestWaitingReceivedAt: oldest,
		CaughtUp:                t.part.CaughtUp(),
		GraceMs:                 t.cfg.Grace.Milliseconds(),
	})
	if err != nil {
		return err
	}
	err = tx.Produce(&kgo.Record{
		Topic:     t.kafka.Topic(topic.Progress),
		Partition: t.part.ID,
		Key:       []byte(t.part.Label),
		Value:     b,
	})
	t.lastProgress, t.progressDirty = time.Now(), false
	return err
}

// oldestWaiting is the receipt of the event that has waited longest.
func (t *task) oldestWaiting() (*event.Millis, error) {
	if t.rows.waiting == 0 {
		return nil, nil
	}
	end, ok, err := t.rows.firstDeadline()
	if err != nil || !ok {
		return nil, err
	}
	received := end.Add(-t.cfg.Grace)
	return &received, nil
}
