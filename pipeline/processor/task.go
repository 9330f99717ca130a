package processor

import (
	"errors"
	"fmt"
	"time"

	"github.com/nimriz/partners/pipeline/attribution"
	"github.com/nimriz/partners/pipeline/clicklog"
	"github.com/nimriz/partners/pipeline/engine"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// task joins one partition's clicks and conversions.
type task struct {
	*Processor
	part   *engine.Partition
	clicks *clickStore
	rows   *journeyRows

	totals    totals // with the running transaction
	committed totals // as committed
	outdated  bool   // the committed totals have an earlier version

	lastProgress  time.Time
	progressDirty bool // there is something new to report
	// reported is the largest watermark of a Progress, with the running transaction.
	reported event.Millis
	// expired clocks are how far, in the log's time, clicks and journeys were last
	// expired.
	clicksExpired   event.Millis
	journeysExpired event.Millis

	placement   kafka.Placement // of the event to apply next
	misplaced   int             // dead letters of the running transaction
	latencies   []time.Duration // of its outcomes, from receipt to verdict
	clicksTopic string          // full name
	clicksRead  int             // not in the metric yet
	slabSharers int64           // of the memory for clicks, when the slab was last sized
	buffer      []byte          // of the encoder
}

// openTask opens a partition's click log.
func (p *Processor) openTask(part *engine.Partition) (engine.Task, error) {
	t := &task{
		Processor:   p,
		part:        part,
		rows:        newJourneyRows(part.Rows),
		clicksTopic: p.kafka.Topic(topic.Clicks),
	}
	log, err := p.openClickLog(part)
	if err != nil {
		return engine.Task{}, markCorrupt(err)
	}
	t.clicks = &clickStore{log: log, codec: p.codec}
	return engine.Task{
		SideLog:   engine.SideLog{Next: log.Next, Keep: t.keepClick},
		Restored:  func() error { return markCorrupt(t.readCounters()) },
		Ready:     t.isReady,
		Apply:     func(tx *engine.Tx, r *kgo.Record) error { return markCorrupt(t.applyRecord(tx, r)) },
		Tick:      func(tx *engine.Tx) error { return markCorrupt(t.actOnWatermark(tx)) },
		Finish:    t.finishTransaction,
		Committed: func() error { return markCorrupt(t.afterCommit()) },
		Followed:  func() error { return markCorrupt(t.afterFollowing()) },
		Close:     t.closeClickLog,
	}, nil
}

func (p *Processor) openClickLog(part *engine.Partition) (*clicklog.Log, error) {
	cfg := clicklog.DefaultConfig()
	cfg.SlabBytes = p.slabBytes(part.Sharers())
	id := clicklog.Identity{
		Cluster:   part.Identity.Cluster,
		Topic:     part.Identity.Leading,
		Partition: part.ID,
	}
	return clicklog.Open(p.env.FS, clickDir(p.env.FS, part.Dir), id, cfg, outOfOrderClicks{part.Store}, p.env.Now)
}

// slabBytes is a partition's share of the memory for clicks: one slab gathers while
// another is written.
func (p *Processor) slabBytes(sharers int64) int64 {
	if p.env.SlabBytes > 0 {
		return p.env.SlabBytes
	}
	return max(p.cfg.ClickMemory/2/sharers, 1<<20)
}

// resizeSlab gives the next slab its share of what is split over other partitions now.
func (t *task) resizeSlab() {
	if n := t.part.Sharers(); n != t.slabSharers {
		t.slabSharers = n
		t.clicks.log.Resize(t.slabBytes(n))
	}
}

// readCounters reads the totals and what is remembered about waiting events.
func (t *task) readCounters() error {
	if err := t.rows.readWaiting(t.part.Store); err != nil {
		return err
	}
	v, ok, err := t.part.Store.Get(totalsKey, nil)
	if err == nil && ok {
		t.outdated, err = t.totals.parseRow(v)
	}
	if err != nil {
		return fmt.Errorf("reading totals: %w", err)
	}
	t.committed = t.totals
	if err := t.readWatermark(); err != nil {
		return fmt.Errorf("reading the watermark: %w", err)
	}
	return nil
}

func (t *task) applyRecord(tx *engine.Tx, r *kgo.Record) error {
	if r.Topic == t.clicksTopic {
		return t.applyClick(tx, r)
	}
	return t.applyConversion(tx, r)
}

// keepClick stores a click while its partition is restored, or skips a control record.
func (t *task) keepClick(r *kgo.Record) error {
	_, _, err := t.clicks.keepClick(r)
	return markCorrupt(err)
}

// applyClick stores a click and judges the events that wait for it. The look-up runs
// for every click read, stored or not: an aborted transaction reads again, and its
// verdicts were dropped.
func (t *task) applyClick(tx *engine.Tx, r *kgo.Record) error {
	tok, shown, err := t.clicks.keepClick(r)
	if err != nil {
		return fmt.Errorf("keeping the click: %w", err)
	}
	t.clicksRead++
	if !shown || !t.rows.waitsForClick(&tok) {
		return nil
	}
	// Events that go on waiting for the click are noted again by their rows; an abort
	// ends the session.
	t.rows.forgetClickWait(&tok)
	if t.isGivenUp(&tok) {
		return t.rules.GiveUp(t.rows, t.rereadEvent(tx, &tok), &tok, t.emitTo(tx, noOffset))
	}
	wire, at, ok, err := t.clicks.lookupClick(&tok)
	if err == nil && ok {
		err = t.rules.ApplyClick(t.rows, &tok, wire, at, t.emitTo(tx, noOffset))
	}
	if err != nil {
		return fmt.Errorf("judging what waits for the click: %w", nameWayOn(&tok, err))
	}
	return nil
}

// isReady reports whether an event's placement is decided. One that lies in the wrong
// partition waits until topic catalog was read so far that this is certain.
func (t *task) isReady(r *kgo.Record, polled time.Time) bool {
	t.placement = kafka.Placed
	if raw, err := token.Parse(string(r.Key)); err == nil && !r.Attrs.IsControl() {
		t.placement = t.part.Install().Placement(r, string(r.Key), token.Time(&raw), polled)
	}
	return t.placement != kafka.Undecided
}

// applyConversion gives one record of conversions its verdict, its place among the
// waiting, or its dead letter.
func (t *task) applyConversion(tx *engine.Tx, r *kgo.Record) error {
	t.totals.read++
	t.progressDirty = true
	var ev event.Conversion
	err := t.codec.DecodeConversion(r.Value, &ev)
	if err == nil && string(r.Key) != ev.ClickToken {
		err = fmt.Errorf("key %.64q is not the record's click_token", r.Key)
	} else if err == nil {
		err = t.checkPlace(r)
	} else if !event.Unreadable(err) {
		return err
	}
	if err != nil {
		return t.writeDeadLetter(tx, r, err)
	}
	return t.judge(tx, &ev, r.Offset)
}

func (t *task) writeDeadLetter(tx *engine.Tx, r *kgo.Record, why error) error {
	t.totals.unreadable++
	t.progressDirty = true
	return tx.Produce(kafka.NewDeadLetter(t.kafka.Topic(topic.DeadLetters), r, why, tx.Now()))
}

// judge gives an event its verdict, or its place among the waiting.
func (t *task) judge(tx *engine.Tx, ev *event.Conversion, offset int64) error {
	source, emit := attribution.Source{Partition: t.part.ID, Offset: offset}, t.emitTo(tx, offset)
	raw, err := token.Parse(ev.ClickToken)
	if err != nil {
		return err
	}
	if t.part.Install().IsGivenUp(ev.ClickToken) {
		return t.rules.JudgeGivenUp(t.rows, t.rereadEvent(tx, &raw), ev, source, emit)
	}
	return nameWayOn(&raw, t.rules.JudgeEvent(t.rows, t.clicks.lookupClick, ev, source, emit))
}

// checkPlace returns an error unless an event has a token and lies in its partition.
func (t *task) checkPlace(r *kgo.Record) error {
	raw, err := token.Parse(string(r.Key))
	if err == nil && t.placement == kafka.Misplaced {
		t.misplaced++
		err = t.part.Install().MisplacedError(r, string(r.Key), token.Time(&raw))
	}
	return err
}

// noOffset marks outcomes that no newly read event triggered.
const noOffset = -1

var waitedHeader = []kgo.RecordHeader{{Key: topic.HeaderWaited}}

// emitTo returns the function that writes the outcomes that the rules decide. The
// outcome of the event at offset read is decided on its arrival; every other event
// waited.
func (t *task) emitTo(tx *engine.Tx, read int64) attribution.Emit {
	name := t.kafka.Topic(topic.Outcomes)
	return func(o *event.Outcome, click []byte) error {
		now := tx.Now()
		o.DecidedAt = event.MillisOf(now)
		b, err := t.codec.AppendOutcome(t.buffer[:0], o, click)
		if err != nil {
			return err
		}
		t.buffer = b
		t.totals.countVerdict(o.Verdict)
		t.progressDirty = true
		t.latencies = append(t.latencies, now.Sub(o.ReceivedAt.Time()))
		r := &kgo.Record{
			Topic:     name,
			Partition: t.part.ID,
			Key:       []byte(o.ClickToken),
			Value:     append(make([]byte, 0, len(b)), b...),
		}
		if o.EventOffset != read {
			r.Headers = waitedHeader
		}
		return tx.ProduceOwned(t.part, r)
	}
}

// actOnWatermark closes waits that ended, deletes journeys that no event can reach any
// more, and opens a transaction if there is something to report.
func (t *task) actOnWatermark(tx *engine.Tx) error {
	t.m.clicks.Add(float64(t.clicksRead))
	t.clicksRead = 0
	t.resizeSlab()
	if err := t.closeEndedWaits(tx); err != nil {
		return fmt.Errorf("closing waits: %w", err)
	}
	if err := t.expireJourneys(tx); err != nil {
		return fmt.Errorf("expiring journeys: %w", err)
	}
	if t.wantsProgress() {
		return tx.Begin()
	}
	return nil
}

// maxDue is how many tokens one transaction closes waits of.
const maxDue = 2000

// closeEndedWaits closes waits that ended before the watermark, found through the
// deadline index.
func (t *task) closeEndedWaits(tx *engine.Tx) error {
	watermark := t.part.Watermark()
	tokens, err := t.rows.endedWaits(watermark, maxDue)
	if err != nil || len(tokens) == 0 {
		return err
	}
	if err := tx.Begin(); err != nil {
		return err
	}
	for i := range tokens {
		if err := t.closeWaits(tx, &tokens[i], watermark); err != nil {
			return err
		}
		if err := t.rows.recheckClickWait(&tokens[i]); err != nil {
			return err
		}
	}
	t.progressDirty = true
	return nil
}

func (t *task) closeWaits(tx *engine.Tx, raw *[20]byte, watermark event.Millis) error {
	emit := t.emitTo(tx, noOffset)
	if t.isGivenUp(raw) {
		return t.rules.GiveUp(t.rows, t.rereadEvent(tx, raw), raw, emit)
	}
	return nameWayOn(raw, t.rules.CloseWaits(t.rows, t.clicks.lookupClick, raw, watermark, watermark, emit))
}

// finishTransaction adds the totals to the rows of the running transaction, if they
// changed or have an earlier version, and reports progress. The outcomes are
// acknowledged, so their end is known.
func (t *task) finishTransaction(tx *engine.Tx) error {
	t.totals.outcomesEnd = max(t.totals.outcomesEnd, t.part.OwnedEnd())
	if t.totals != t.committed || t.outdated {
		if err := t.rows.Put(totalsKey, t.totals.appendRow(nil)); err != nil {
			return err
		}
	}
	if t.wantsProgress() {
		return t.writeProgress(tx)
	}
	return nil
}

// afterCommit deletes old clicks, and only here: the events of a failed transaction are
// read again, over days of log if no processor ran for so long, and must still find
// their clicks. Rows and dead letters are counted here as well: those of a failed
// transaction are written again.
func (t *task) afterCommit() error {
	t.m.countTotals(&t.committed, &t.totals)
	for _, latency := range t.latencies {
		t.m.latency.Observe(latency.Seconds())
	}
	t.latencies = t.latencies[:0]
	t.m.misplaced.Add(float64(t.misplaced))
	t.misplaced = 0
	t.committed, t.outdated = t.totals, false
	t.m.waiting.WithLabelValues(t.part.Label).Set(float64(t.rows.waiting))
	return t.expireClicks(t.logTime())
}

// afterFollowing deletes in a standby what the owner deletes without a row in the
// changelog: clicks, and entries of the expiry index. The clock is what the owner has
// committed: all that reached Kafka before its watermark is judged, so what is judged
// next asks for no click that is old by then. Beside it stands the time of the newest
// click, in case the owner's clock was ahead.
func (t *task) afterFollowing() error {
	t.resizeSlab()
	if err := t.readWatermark(); err != nil {
		return fmt.Errorf("reading the watermark: %w", err)
	}
	now := min(t.part.LeadingNewest(), t.reported)
	if err := t.expireClicks(now); err != nil {
		return err
	}
	return t.dropExpiredEntries(now)
}

func (t *task) closeClickLog() error {
	t.m.forgetPartition(t.part.Label)
	if t.clicks == nil {
		return nil
	}
	var errs []error
	if err := t.clicks.log.Seal(); err != nil && !errors.Is(err, clicklog.ErrClosed) {
		errs = append(errs, err)
	}
	errs = append(errs, t.clicks.log.Close())
	t.clicks = nil
	return errors.Join(errs...)
}
