package processor

import (
	"encoding/binary"
	"fmt"
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
	first, waits, err := t.rows.firstDeadline()
	if err != nil {
		return err
	}
	var oldest *event.Millis
	watermark := max(t.part.Watermark(), t.reported)
	if waits {
		received := first.Add(-t.cfg.Grace)
		oldest = &received
		// A wait that has ended is closed within a few transactions, not always in the
		// first. Until then nothing is said of what ended later.
		watermark = min(watermark, first)
	}
	if err := t.keepWatermark(watermark); err != nil {
		return err
	}
	b, err := t.codec.AppendProgress(nil, &event.Progress{
		Partition:               t.part.ID,
		At:                      event.MillisOf(tx.Now()),
		ClicksPosition:          t.part.LeadingNext(),
		ConversionsPosition:     t.part.FollowingNext(),
		ClicksMaxAt:             t.part.LeadingNewest(),
		ConversionsMaxAt:        t.part.FollowingNewest(),
		Watermark:               watermark,
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
		ClickLifeMs:             t.cfg.ClickLife.Milliseconds(),
		JourneyLifeMs:           t.journeyLife.Milliseconds(),
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

// watermarkKey is the key of the watermark that was reported last, a table of one row:
//
//	+---------+---------------------------+
//	| 1 B = 1 | 8 B big-endian,           |
//	| version | milliseconds since 1970   |
//	+---------+---------------------------+
//
// The engine's watermark ends with its session. One that was committed stays true: the
// positions below it were committed with it. So a report after a restart does not fall
// behind those before it, while the new session has not read to an end yet.
var watermarkKey = []byte{'W'}

// keepWatermark writes the row of the watermark, if it rose.
func (t *task) keepWatermark(watermark event.Millis) error {
	if watermark <= t.reported {
		return nil
	}
	t.reported = watermark
	return t.rows.Put(watermarkKey, binary.BigEndian.AppendUint64([]byte{1}, uint64(watermark)))
}

// readWatermark reads the watermark that was committed last.
func (t *task) readWatermark() error {
	v, ok, err := t.part.Store.Get(watermarkKey, nil)
	if err != nil || !ok {
		return err
	}
	if len(v) > 0 && v[0] > 1 {
		return fmt.Errorf("watermark row of version %d: %w", v[0], event.ErrNewer)
	}
	if len(v) != 9 || v[0] != 1 {
		return fmt.Errorf("malformed watermark row: %x", v)
	}
	t.reported = event.Millis(binary.BigEndian.Uint64(v[1:]))
	return nil
}
