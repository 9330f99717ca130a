package attribution

import (
	"container/heap"
	"fmt"

	"github.com/nimriz/partners/schemas/event"
)

// The cascade: an event waits for its parent (waitForParent), a judged event wakes
// those that wait for it (wakeForPositive, wakeWaiting), and judgeWoken judges them.
// Each of them may wake others.
//
// An index is read only when its events can be judged, and once in a cascade. That is
// enough: nothing begins to wait in a cascade, sales and leads only become more, and
// waiting sales fewer. So what can be judged can be judged until its turn comes, if only
// as parent_ambiguous.

// waitForParent is lines 8c and 12: the event takes its id and a place in the journey,
// and waits.
func (j *journey) waitForParent(ev *event.Conversion, src Source) error {
	end := j.waitEnd(ev.EnteredAt)
	if err := j.writeWait(event.KindWaitParent, end, ev, src, false); err != nil {
		return err
	}
	e := newRow(ev, src)
	e.Waiting = true
	e.End = end
	if err := j.writeEvent(ev.EventID, &e); err != nil {
		return err
	}
	j.head.WaitParent++
	j.headChanged = true
	if ev.Type == event.Sale {
		if err := j.countWaitingSale(ev.OrderID, 1); err != nil {
			return err
		}
	}
	return j.writeParentIndex(ev, src.Offset, end)
}

// leaveParentWait undoes waitForParent, but for the wait's rows and the event's own.
func (j *journey) leaveParentWait(ev *event.Conversion, offset int64) error {
	j.head.WaitParent--
	j.headChanged = true
	if ev.Type == event.Sale {
		if err := j.countWaitingSale(ev.OrderID, -1); err != nil {
			return err
		}
	}
	return j.deleteParentIndex(ev, offset)
}

// wakeForPositive wakes the events that wait for this positive: for its id, for its
// order, or for any.
func (j *journey) wakeForPositive(ev *event.Conversion) error {
	if j.head.WaitParent == 0 {
		return nil
	}
	if err := j.wakeWaiting(event.KindForEvent, ev.EventID); err != nil {
		return err
	}
	if err := j.wakeForOrder(ev.Type, ""); err != nil {
		return err
	}
	if ev.OrderID == "" {
		return nil
	}
	return j.wakeForOrder(ev.Type, ev.OrderID)
}

// wakeForOrder wakes the events that wait for a positive of this type and order. An
// empty order finds the events that wait without naming one.
func (j *journey) wakeForOrder(typ event.Type, order string) error {
	if typ == event.Sale {
		if err := j.wakeWaiting(event.KindForSale, order); err != nil {
			return err
		}
	} else if mayCome, err := j.saleMayCome(order); err != nil || mayCome {
		return err
	}
	return j.wakeWaiting(event.KindForPositive, order)
}

// saleMayCome reports whether cancellations of this order do not turn to the leads,
// because a sale that might be theirs waits and none is known.
func (j *journey) saleMayCome(order string) (bool, error) {
	if j.head.WaitSales == 0 {
		return false, nil
	}
	if order == "" {
		return j.head.Sales.Count() == 0, nil
	}
	var sale parent
	saleWaits, err := j.findLatestOfOrder(event.Sale, order, &sale)
	return saleWaits && sale.state == parentAbsent, err
}

// wakeForEndedSale wakes the cancellations that may turn to the leads, because the last
// sale that might have been theirs has ended its wait.
func (j *journey) wakeForEndedSale(ev *event.Conversion) error {
	if ev.Type != event.Sale || j.head.Leads.Count() == 0 {
		return nil
	}
	if j.head.WaitSales == 0 {
		if err := j.wakeWaiting(event.KindForPositive, ""); err != nil {
			return err
		}
	}
	if ev.OrderID == "" {
		return nil
	}
	if j.head.WaitSales > 0 {
		var sales event.JourneyOrder
		if err := j.readOrder(event.Sale, ev.OrderID, &sales); err != nil || sales.Waiting > 0 {
			return err
		}
	}
	var lead parent
	if _, err := j.findLatestOfOrder(event.Lead, ev.OrderID, &lead); err != nil || lead.state == parentAbsent {
		return err
	}
	return j.wakeWaiting(event.KindForPositive, ev.OrderID)
}

// wakeWaiting adds the events of one parent index to those that judgeWoken will judge.
// Of orders, an index is read once in a cascade; of an event, it could not be read
// twice.
func (j *journey) wakeWaiting(kind byte, id string) error {
	index := parentIndex{kind, id}
	if j.head.WaitParent == 0 || j.scanned[index] {
		return nil
	}
	if kind != event.KindForEvent {
		if j.scanned == nil {
			j.scanned = make(map[parentIndex]bool)
		}
		j.scanned[index] = true
	}
	j.key = event.AppendIndexPrefix(j.key[:0], &j.token, kind, id)
	var parseErr error
	err := j.rows.Scan(j.key, func(key, value []byte) bool {
		var w wokenWait
		if w.end, w.offset, parseErr = event.ParseIndex(key, value); parseErr != nil {
			return false
		}
		heap.Push(&j.woken, w)
		return true
	})
	if err == nil {
		err = parseErr
	}
	if err != nil {
		return fmt.Errorf("reading the index of waiting events: %w", err)
	}
	return nil
}

// judgeWoken judges the woken events until none is left, always the first in order of
// record. An event that still lacks its parent goes on waiting.
func (j *journey) judgeWoken() error {
	for len(j.woken) > 0 {
		w := heap.Pop(&j.woken).(wokenWait)
		j.key = event.AppendWaitKey(j.key[:0], &j.token, event.KindWaitParent, w.end, w.offset)
		row, err := j.rows.Get(j.key)
		if err != nil {
			return err
		}
		if row == nil && j.judged[w.offset] {
			continue
		}
		var waited event.JourneyWait
		if err := event.DecodeWait(row, &waited); err != nil {
			return err
		}
		ev := &waited.Event
		ev.ClickToken = j.tokenText()
		var p parent
		if err := j.findParent(ev, &p); err != nil {
			return err
		}
		if p.state == parentAbsent {
			continue
		}
		if err := j.deleteWait(event.KindWaitParent, w.end, w.offset); err != nil {
			return err
		}
		if err := j.leaveParentWait(ev, w.offset); err != nil {
			return err
		}
		if j.judged == nil {
			j.judged = make(map[int64]bool)
		}
		j.judged[w.offset] = true
		src := Source{Partition: waited.Partition, Offset: w.offset}
		if ev.Type.Positive() {
			err = j.settlePositive(ev, src, &p)
		} else {
			err = j.settleNegative(ev, src, &p, true)
		}
		if err != nil {
			return err
		}
	}
	j.scanned, j.judged = nil, nil
	return nil
}

// parentIndex names the index of the events that wait for one event, or for a sale or
// any positive of one order. Orders that are the same in their first 255 bytes share
// their rows (event.AppendIndexPrefix).
type parentIndex struct {
	kind byte
	id   string
}

// wokenWait names the wait row of a woken event.
type wokenWait struct {
	end    event.Millis
	offset int64
}

// wokenHeap is a heap.Interface, the smallest offset first.
type wokenHeap []wokenWait

// Len implements heap.Interface.
func (h wokenHeap) Len() int { return len(h) }

// Less implements heap.Interface.
func (h wokenHeap) Less(a, b int) bool { return h[a].offset < h[b].offset }

// Swap implements heap.Interface.
func (h wokenHeap) Swap(a, b int) { h[a], h[b] = h[b], h[a] }

// Push implements heap.Interface.
func (h *wokenHeap) Push(w any) { *h = append(*h, w.(wokenWait)) }

// Pop implements heap.Interface.
func (h *wokenHeap) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	*h = (*h)[:last]
	return w
}
