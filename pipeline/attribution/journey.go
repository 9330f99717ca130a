package attribution

import (
	"fmt"
	"slices"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// journey is one call's view of one token. The head is in memory from open to close;
// all other rows are read and written at once.
type journey struct {
	rules *Rules
	rows  Rows
	emit  Emit
	token [20]byte
	text  string // the token's text, once needed

	head   event.JourneyHead
	stored bool // the head has a row
	dirty  bool // the head differs from its row

	known bool // the click is known: the next four are set
	click event.Click
	wire  []byte
	at    event.Millis
	terms terms

	ready waitHeap // waiting events that can now be judged

	out    event.Outcome // what emit is given
	flags  [8]string
	amount int64
	reward int64
	first  int64

	key, value []byte // scratch
}

// wait is a waiting event, taken out of its row.
type wait struct {
	end event.Millis
	src Source
	event.JourneyWait
}

func byOffset(a, b wait) int {
	if a.src.Offset < b.src.Offset {
		return -1
	}
	return 1
}

// reset drops everything but the memory that the next call can use.
func (j *journey) reset() {
	*j = journey{wire: j.wire[:0], ready: j.ready[:0], key: j.key[:0], value: j.value[:0]}
}

func (j *journey) open() error {
	row, err := j.rows.Get(j.keyOf(event.KindHead, ""))
	if err != nil || row == nil {
		return err
	}
	if err := event.DecodeHead(row, &j.head); err != nil {
		return err
	}
	j.stored = true
	if j.head.Click != nil {
		j.wire = append(j.wire[:0], j.head.Click...) // the row may move
		j.head.Click = j.wire
	}
	return nil
}

func (j *journey) close() error {
	if j.head.Empty() {
		if !j.stored {
			return nil
		}
		return j.rows.Put(j.keyOf(event.KindHead, ""), nil)
	}
	if !j.dirty {
		return nil
	}
	j.head.Click, j.head.ClickAt = nil, 0
	if j.known {
		j.head.Click, j.head.ClickAt = j.wire, j.at
	}
	j.value = event.AppendHead(j.value[:0], &j.head)
	return j.rows.Put(j.keyOf(event.KindHead, ""), j.value)
}

// findClick makes the click known: the journey's own, else the one that clicks has, if
// its token was shown and it came in time for anything.
func (j *journey) findClick(clicks Clicks) (known bool, err error) {
	if j.known {
		return true, nil
	}
	if j.head.Click != nil {
		if err := j.rules.codec.DecodeClick(j.head.Click, &j.click); err != nil {
			return false, fmt.Errorf("reading the journey's click: %w", err)
		}
		j.know(j.head.ClickAt)
		return true, nil
	}
	if j.head.Kept > 0 || j.head.WaitParent > 0 || clicks == nil {
		return false, fmt.Errorf("%w: a head without click has kept events", event.ErrJourney)
	}
	wire, at, ok, err := clicks(&j.token)
	if err != nil {
		return false, fmt.Errorf("looking up the click: %w", err)
	}
	if !ok || at > j.waitEnd(j.lifeEnd()) {
		// So late a click cannot bring anything: all events received within the click
		// life have ended their waits, and all others find no journey.
		return false, nil
	}
	if err := j.rules.codec.DecodeClick(wire, &j.click); err != nil {
		if event.Unreadable(err) {
			return false, nil // its dead letter is the sink's business
		}
		return false, fmt.Errorf("reading the click: %w", err)
	}
	if j.click.TokenStatus != event.TokenAppended || j.click.ClickToken != j.tokenText() {
		return false, nil
	}
	j.wire = append(j.wire[:0], wire...)
	j.know(at)
	return true, nil
}

func (j *journey) know(at event.Millis) {
	j.known, j.at = true, at
	j.terms = parseTerms(j.click.RewardTerms)
}

func (j *journey) tokenText() string {
	if j.text == "" {
		j.text = token.Text(&j.token)
	}
	return j.text
}

// lifeEnd is the last moment at which the token can begin a journey.
func (j *journey) lifeEnd() event.Millis {
	return event.MillisOf(token.Time(&j.token)).Add(j.rules.cfg.ClickLife)
}

// waitEnd is the last moment of the wait of an event received at the given time. Keys
// sort by it, so it is never negative.
func (j *journey) waitEnd(received event.Millis) event.Millis {
	return max(0, received.Add(j.rules.cfg.Grace))
}

// withoutClick takes an event whose click is unknown: line 1, then it waits. A journey
// is there while a wait before it lasts; but that one has ended is only known when the
// clicks have been read past its end. Until then an event that would find no journey
// waits behind it.
func (j *journey) withoutClick(ev *event.Conversion, src Source) error {
	late := ev.ReceivedAt > j.lifeEnd()
	if late && j.head.WaitClick == 0 {
		return j.send(j.row(ev, src, event.Unattributed, event.ReasonExpired), false)
	}
	if ev.ReceivedAt > j.head.WaitsTo {
		j.head.WaitsTo = 0 // without a click, this event finds all of them ended
	}
	end, behind := j.waitEnd(ev.ReceivedAt), late && j.head.WaitsTo == 0
	if err := j.putWait(event.KindWaitClick, end, ev, src, behind); err != nil {
		return err
	}
	if !behind {
		j.head.WaitsTo = max(j.head.WaitsTo, end)
	}
	j.head.WaitClick++
	j.dirty = true
	return nil
}

// replay lets all events that waited for the click arrive again, now that it is known.
func (j *journey) replay() error {
	waits, err := j.takeWaits(event.KindWaitClick, func(*wait) bool { return true })
	if err != nil {
		return err
	}
	j.head.WaitClick, j.head.WaitsTo, j.dirty = 0, 0, true
	for i := range waits {
		if err := j.arrive(&waits[i].Event, waits[i].src); err != nil {
			return err
		}
	}
	return nil
}

// endClickWaits closes the click waits that ended before the given time, and those
// behind them.
func (j *journey) endClickWaits(through event.Millis) error {
	waits, err := j.takeWaits(event.KindWaitClick, func(w *wait) bool { return w.end < through || w.Behind })
	if err != nil {
		return err
	}
	for i := range waits {
		reason := event.ReasonClickNotFound
		if waits[i].Behind {
			reason = event.ReasonExpired
		}
		j.head.WaitClick--
		j.dirty = true
		if err := j.send(j.row(&waits[i].Event, waits[i].src, event.Unattributed, reason), false); err != nil {
			return err
		}
	}
	return nil
}

// endParentWaits closes the parent waits that ended before the given time. They leave
// no trace.
func (j *journey) endParentWaits(through event.Millis) error {
	if j.head.WaitParent == 0 {
		return nil
	}
	waits, err := j.takeWaits(event.KindWaitParent, func(w *wait) bool { return w.end < through })
	if err != nil {
		return err
	}
	for i := range waits {
		w := &waits[i]
		if err := j.dropIndex(&w.Event, w.src.Offset); err != nil {
			return err
		}
		if err := j.rows.Put(j.keyOf(event.KindEvent, w.Event.EventID), nil); err != nil {
			return err
		}
		j.head.WaitParent--
		j.dirty = true
		o := j.row(&w.Event, w.src, event.Unattributed, event.ReasonParentNotFound)
		if err := j.send(o, true); err != nil {
			return err
		}
	}
	return nil
}

// takeWaits takes waiting events out of their rows, from the earliest end on as long as
// want says so, and returns them in order of record.
func (j *journey) takeWaits(kind byte, want func(*wait) bool) (waits []wait, err error) {
	scan := j.rows.Scan(j.keyOf(kind, ""), func(key, value []byte) bool {
		var w wait
		if w.end, w.src.Offset, err = event.ParseWaitKey(key); err != nil {
			return false
		}
		if err = event.DecodeWait(value, &w.JourneyWait); err != nil || !want(&w) {
			return false
		}
		w.src.Partition = w.Partition
		waits = append(waits, w)
		return true
	})
	if err != nil || scan != nil {
		return nil, fmt.Errorf("reading waiting events: %w", firstError(err, scan))
	}
	slices.SortFunc(waits, byOffset)
	text := ""
	if len(waits) > 0 {
		text = j.tokenText()
	}
	for i := range waits {
		waits[i].Event.ClickToken = text
		if err := j.dropWait(kind, waits[i].end, waits[i].src.Offset); err != nil {
			return nil, err
		}
	}
	return waits, nil
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// putWait writes the two rows that every waiting event has.
func (j *journey) putWait(kind byte, end event.Millis, ev *event.Conversion, src Source, behind bool) error {
	j.key = event.AppendWaitKey(j.key[:0], &j.token, kind, end, src.Offset)
	j.value = event.AppendWait(j.value[:0], ev, src.Partition, behind)
	if err := j.rows.Put(j.key, j.value); err != nil {
		return err
	}
	j.key = event.AppendDeadlineKey(j.key[:0], end, &j.token, src.Offset)
	return j.rows.Put(j.key, append(j.value[:0], kind))
}

func (j *journey) dropWait(kind byte, end event.Millis, offset int64) error {
	j.key = event.AppendWaitKey(j.key[:0], &j.token, kind, end, offset)
	if err := j.rows.Put(j.key, nil); err != nil {
		return err
	}
	j.key = event.AppendDeadlineKey(j.key[:0], end, &j.token, offset)
	return j.rows.Put(j.key, nil)
}

// keyOf builds a key in the scratch buffer: it is good until the next key is built.
func (j *journey) keyOf(kind byte, id string) []byte {
	j.key = event.AppendJourneyKey(j.key[:0], &j.token, kind, id)
	return j.key
}

// event reads the row of an event id; ok is false if the id is neither kept nor waits
// for a parent.
func (j *journey) event(id string, e *event.JourneyEvent) (ok bool, err error) {
	row, err := j.rows.Get(j.keyOf(event.KindEvent, id))
	if err != nil || row == nil {
		return false, err
	}
	return true, event.DecodeEvent(row, e)
}

// mustEvent reads the row of an event that another row names.
func (j *journey) mustEvent(id string, e *event.JourneyEvent) error {
	ok, err := j.event(id, e)
	if err == nil && !ok {
		err = fmt.Errorf("%w: event %q is named and has no row", event.ErrJourney, id)
	}
	return err
}

func (j *journey) putEvent(id string, e *event.JourneyEvent) error {
	j.value = event.AppendEvent(j.value[:0], e)
	return j.rows.Put(j.keyOf(event.KindEvent, id), j.value)
}
