package attribution

import (
	"fmt"
	"slices"

	"github.com/nimriz/partners/schemas/event"
)

// Reading and writing the rows of a journey. Each index is beside the rows that it
// indexes. The row formats are in schemas/event (journey.go).

// journeyKey builds a key in the scratch buffer. It is valid until the next key is
// built.
func (j *journey) journeyKey(kind byte, id string) []byte {
	j.key = event.AppendJourneyKey(j.key[:0], &j.token, kind, id)
	return j.key
}

// readEvent reads the row of an event id. ok is false if the id is neither kept nor
// waits for a parent.
func (j *journey) readEvent(id string, e *event.JourneyEvent) (ok bool, err error) {
	row, err := j.rows.Get(j.journeyKey(event.KindEvent, id))
	if err != nil || row == nil {
		return false, err
	}
	return true, event.DecodeEvent(row, e)
}

// readReferencedEvent reads the row of an event that another row refers to. Without
// such a row the store is damaged.
func (j *journey) readReferencedEvent(id string, e *event.JourneyEvent) error {
	ok, err := j.readEvent(id, e)
	if err == nil && !ok {
		err = fmt.Errorf("%w: a row refers to event %q, which has no row", event.ErrJourney, id)
	}
	return err
}

func (j *journey) writeEvent(id string, e *event.JourneyEvent) error {
	j.value = event.AppendEvent(j.value[:0], e)
	return j.rows.Put(j.journeyKey(event.KindEvent, id), j.value)
}

func (j *journey) deleteEvent(id string) error {
	return j.rows.Put(j.journeyKey(event.KindEvent, id), nil)
}

// readOrder reads the order row of the sales, or the leads, of an order. The journey's
// only sale, or lead, is not in it. Without a row, o is empty.
func (j *journey) readOrder(typ event.Type, order string, o *event.JourneyOrder) error {
	*o = event.JourneyOrder{}
	j.key = event.AppendOrderKey(j.key[:0], &j.token, typ, order)
	row, err := j.rows.Get(j.key)
	if err != nil || row == nil {
		return err
	}
	if err := event.DecodeOrder(row, o); err != nil || !o.Old {
		return err
	}
	// indexAnew has left the row: the order has one sale, or lead.
	id := o.Attributed.Latest
	var e event.JourneyEvent
	if err := j.readReferencedEvent(id, &e); err != nil {
		return err
	}
	*o = event.JourneyOrder{}
	o.Class(e.Effect).Add(id, e.Offset)
	return nil
}

// writeOrder writes an order row, or deletes it if it says nothing.
func (j *journey) writeOrder(typ event.Type, order string, o *event.JourneyOrder) error {
	j.key = event.AppendOrderKey(j.key[:0], &j.token, typ, order)
	if *o == (event.JourneyOrder{}) {
		return j.rows.Put(j.key, nil)
	}
	j.value = event.AppendOrder(j.value[:0], o)
	return j.rows.Put(j.key, j.value)
}

// waitingEvent is a waiting event that takeWaits has taken out of its rows.
type waitingEvent struct {
	end event.Millis // the last moment of its wait
	src Source
	event.JourneyWait
	damaged *DamagedWait // set: only the key could be read, JourneyWait is empty
}

func compareOffsets(a, b waitingEvent) int {
	if a.src.Offset < b.src.Offset {
		return -1
	}
	return 1
}

// writeWait writes the two rows that every waiting event has: the event itself, and its
// row in the deadline index.
func (j *journey) writeWait(kind byte, end event.Millis, ev *event.Conversion, src Source, behind bool) error {
	j.key = event.AppendWaitKey(j.key[:0], &j.token, kind, end, src.Offset)
	j.value = event.AppendWait(j.value[:0], ev, src.Partition, behind)
	if err := j.rows.Put(j.key, j.value); err != nil {
		return err
	}
	j.key = event.AppendDeadlineKey(j.key[:0], end, &j.token, src.Offset)
	return j.rows.Put(j.key, append(j.value[:0], kind))
}

func (j *journey) deleteWait(kind byte, end event.Millis, offset int64) error {
	j.key = event.AppendWaitKey(j.key[:0], &j.token, kind, end, offset)
	if err := j.rows.Put(j.key, nil); err != nil {
		return err
	}
	j.key = event.AppendDeadlineKey(j.key[:0], end, &j.token, offset)
	return j.rows.Put(j.key, nil)
}

// takeWaits removes waiting events from their rows, from the earliest end on for as
// long as want returns true. It returns them in order of record.
func (j *journey) takeWaits(kind byte, want func(*waitingEvent) bool) ([]waitingEvent, error) {
	return j.takeDecodedWaits(kind, decodeWait, want)
}

func (j *journey) takeDecodedWaits(kind byte, decode func(key, value []byte, w *waitingEvent) error,
	want func(*waitingEvent) bool) (waits []waitingEvent, err error) {
	var decodeErr error
	err = j.rows.Scan(j.journeyKey(kind, ""), func(key, value []byte) bool {
		var w waitingEvent
		if decodeErr = decode(key, value, &w); decodeErr == errNameless {
			decodeErr = nil
			return true
		}
		if decodeErr != nil || !want(&w) {
			return false
		}
		waits = append(waits, w)
		return true
	})
	if err == nil {
		err = decodeErr
	}
	if err != nil {
		return nil, fmt.Errorf("reading waiting events: %w", err)
	}
	slices.SortFunc(waits, compareOffsets)
	text := ""
	if len(waits) > 0 {
		text = j.tokenText()
	}
	for i := range waits {
		waits[i].Event.ClickToken = text
		if err := j.deleteWait(kind, waits[i].end, waits[i].src.Offset); err != nil {
			return nil, err
		}
	}
	return waits, nil
}

func decodeWait(key, value []byte, w *waitingEvent) (err error) {
	if w.end, w.src.Offset, err = event.ParseWaitKey(key); err != nil {
		return err
	}
	if err := event.DecodeWait(value, &w.JourneyWait); err != nil {
		return err
	}
	w.src.Partition = w.Partition
	return nil
}

// decodeWaitKey reads at least the key of a wait row.
func decodeWaitKey(key, value []byte, w *waitingEvent) error {
	why := decodeWait(key, value, w)
	if why == nil {
		return nil
	}
	end, offset, err := event.ParseWaitKey(key)
	*w = waitingEvent{
		end:     end,
		src:     Source{Offset: offset},
		damaged: &DamagedWait{Offset: offset, Row: slices.Clone(value), Why: why},
	}
	return err
}

// parentIndexKey is the key of the index row of an event that waits for a parent. There
// is one row for each such event: it names what would end the wait.
func parentIndexKey(dst []byte, raw *[20]byte, ev *event.Conversion, offset int64) []byte {
	kind, id := event.KindForSale, ev.OrderID
	switch {
	case ev.ParentEventID != "":
		kind, id = event.KindForEvent, ev.ParentEventID
	case ev.Type == event.Cancellation:
		kind = event.KindForPositive
	}
	return event.AppendIndexKey(dst, raw, kind, id, offset)
}

func (j *journey) writeParentIndex(ev *event.Conversion, offset int64, end event.Millis) error {
	j.key = parentIndexKey(j.key[:0], &j.token, ev, offset)
	j.value = event.AppendIndex(j.value[:0], end)
	return j.rows.Put(j.key, j.value)
}

func (j *journey) deleteParentIndex(ev *event.Conversion, offset int64) error {
	j.key = parentIndexKey(j.key[:0], &j.token, ev, offset)
	return j.rows.Put(j.key, nil)
}
