package attribution

import (
	"fmt"
	"slices"

	"github.com/nimriz/partners/schemas/event"
)

// parent is what a negative takes back, as far as the journey knows.
type parent struct {
	state    parentState
	id       string
	row      event.JourneyEvent
	inferred bool // chosen among several, or for want of any id
}

type parentState uint8

const (
	absent parentState = iota // unknown, or itself waiting
	found
	ambiguous
	itself
)

// findParent looks for the parent: by its id, else by order, else the journey's only
// positive. Unattributed positives count.
func (j *journey) findParent(ev *event.Conversion, p *parent) error {
	switch {
	case ev.ParentEventID == ev.EventID:
		p.state = itself
		return nil
	case ev.ParentEventID != "":
		ok, err := j.event(ev.ParentEventID, &p.row)
		if ok && !p.row.Waiting {
			p.state, p.id = found, ev.ParentEventID
		}
		return err
	case ev.OrderID != "":
		err := j.latestOf(event.Sale, ev.OrderID, p)
		if err == nil && p.state == absent && ev.Type == event.Cancellation {
			err = j.latestOf(event.Lead, ev.OrderID, p)
		}
		return err
	case j.head.Sales > 1, j.head.Sales == 0 && ev.Type == event.Cancellation && j.head.Leads > 1:
		p.state = ambiguous
		return nil
	case j.head.Sales == 1:
		p.state, p.id, p.inferred = found, j.head.Sale, true
	case ev.Type == event.Cancellation && j.head.Leads == 1:
		p.state, p.id, p.inferred = found, j.head.Lead, true
	default:
		return nil
	}
	return j.mustEvent(p.id, &p.row)
}

// latestOf finds the latest sale, or lead, of an order.
func (j *journey) latestOf(typ event.Type, order string, p *parent) error {
	count, only := j.positives(typ)
	switch *count {
	case 0:
		return nil
	case 1:
		// the order index begins with the second one
		if err := j.mustEvent(*only, &p.row); err != nil {
			return err
		}
		if p.row.Order == order {
			p.state, p.id = found, *only
		}
		return nil
	}
	var latest event.JourneyOrder
	if ok, err := j.order(typ, order, &latest); err != nil || !ok {
		return err
	}
	p.state, p.id, p.inferred = found, latest.Latest, latest.Several
	return j.mustEvent(p.id, &p.row)
}

// positives are the head's count of sales or leads, and the id of the only one.
func (j *journey) positives(typ event.Type) (count *int64, only *string) {
	if typ == event.Lead {
		return &j.head.Leads, &j.head.Lead
	}
	return &j.head.Sales, &j.head.Sale
}

// indexPositive makes a kept positive findable for negatives that do not name it. Most
// journeys have one sale: then the head names it, and the order index has no rows.
func (j *journey) indexPositive(ev *event.Conversion) error {
	count, only := j.positives(ev.Type)
	*count++
	if *count == 1 {
		*only = ev.EventID
		return nil
	}
	if *count == 2 {
		var first event.JourneyEvent
		if err := j.mustEvent(*only, &first); err != nil {
			return err
		}
		if first.Order != "" {
			if err := j.putOrder(ev.Type, first.Order, event.JourneyOrder{Latest: *only}); err != nil {
				return err
			}
		}
		*only = ""
	}
	if ev.OrderID == "" {
		return nil
	}
	var before event.JourneyOrder
	several, err := j.order(ev.Type, ev.OrderID, &before)
	if err != nil {
		return err
	}
	return j.putOrder(ev.Type, ev.OrderID, event.JourneyOrder{Latest: ev.EventID, Several: several})
}

func (j *journey) order(typ event.Type, order string, o *event.JourneyOrder) (ok bool, err error) {
	j.key = event.AppendOrderKey(j.key[:0], &j.token, typ, order)
	row, err := j.rows.Get(j.key)
	if err != nil || row == nil {
		return false, err
	}
	return true, event.DecodeOrder(row, o)
}

func (j *journey) putOrder(typ event.Type, order string, o event.JourneyOrder) error {
	j.key = event.AppendOrderKey(j.key[:0], &j.token, typ, order)
	j.value = event.AppendOrder(j.value[:0], &o)
	return j.rows.Put(j.key, j.value)
}

// indexKey is the key of the one index row of a negative that waits for a parent: what
// would end its wait.
func indexKey(dst []byte, raw *[20]byte, ev *event.Conversion, offset int64) []byte {
	kind, id := event.KindForSale, ev.OrderID
	switch {
	case ev.ParentEventID != "":
		kind, id = event.KindForEvent, ev.ParentEventID
	case ev.Type == event.Cancellation:
		kind = event.KindForPositive
	}
	return event.AppendIndexKey(dst, raw, kind, id, offset)
}

func (j *journey) dropIndex(ev *event.Conversion, offset int64) error {
	j.key = indexKey(j.key[:0], &j.token, ev, offset)
	return j.rows.Put(j.key, nil)
}

// wakePositive makes ready what waited for this positive: by its id, its order, or any.
func (j *journey) wakePositive(ev *event.Conversion) error {
	if j.head.WaitParent == 0 {
		return nil
	}
	if err := j.wake(event.KindForEvent, ev.EventID); err != nil {
		return err
	}
	orders := [...]string{"", ev.OrderID}
	for _, order := range slices.Compact(orders[:]) {
		if err := j.wake(event.KindForPositive, order); err != nil {
			return err
		}
		if ev.Type == event.Sale {
			if err := j.wake(event.KindForSale, order); err != nil {
				return err
			}
		}
	}
	return nil
}

// wake makes ready the events with this index.
func (j *journey) wake(kind byte, id string) (err error) {
	if j.head.WaitParent == 0 {
		return nil
	}
	j.key = event.AppendIndexPrefix(j.key[:0], &j.token, kind, id)
	scan := j.rows.Scan(j.key, func(key, value []byte) bool {
		var w waiting
		if w.end, w.offset, err = event.ParseIndex(key, value); err != nil {
			return false
		}
		j.ready.push(w)
		return true
	})
	if err != nil || scan != nil {
		return fmt.Errorf("reading waiting events: %w", firstError(err, scan))
	}
	return nil
}

// settle judges what can now be judged: always the first in order of record, until
// nothing is ready.
func (j *journey) settle() error {
	for len(j.ready) > 0 {
		w := j.ready.pop()
		j.key = event.AppendWaitKey(j.key[:0], &j.token, event.KindWaitParent, w.end, w.offset)
		row, err := j.rows.Get(j.key)
		if err != nil {
			return err
		}
		var waited event.JourneyWait
		if err := event.DecodeWait(row, &waited); err != nil {
			return err
		}
		ev, src := &waited.Event, Source{Partition: waited.Partition, Offset: w.offset}
		ev.ClickToken = j.tokenText()
		var p parent
		if err := j.findParent(ev, &p); err != nil {
			return err
		}
		if p.state == absent {
			continue
		}
		if err := j.dropWait(event.KindWaitParent, w.end, w.offset); err != nil {
			return err
		}
		if err := j.dropIndex(ev, w.offset); err != nil {
			return err
		}
		j.head.WaitParent--
		if err := j.resolve(ev, src, &p); err != nil {
			return err
		}
	}
	return nil
}

// waiting names a wait row.
type waiting struct {
	end    event.Millis
	offset int64
}

// waitHeap is a binary heap, the smallest offset first.
type waitHeap []waiting

func (h *waitHeap) push(w waiting) {
	s := append(*h, w)
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if s[up].offset <= s[i].offset {
			break
		}
		s[up], s[i] = s[i], s[up]
		i = up
	}
	*h = s
}

func (h *waitHeap) pop() waiting {
	s := *h
	top, last := s[0], len(s)-1
	s[0] = s[last]
	s = s[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if s[child].offset < s[least].offset {
				least = child
			}
		}
		if least == i {
			break
		}
		s[i], s[least] = s[least], s[i]
		i = least
	}
	*h = s
	return top
}
