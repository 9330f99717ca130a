package attribution

import (
	"github.com/nimriz/partners/schemas/event"
)

// parent is what a negative takes back, or what a positive after the window follows, as
// far as the journey knows it.
type parent struct {
	state    parentState
	id       string             // if state is parentFound
	event    event.JourneyEvent // the row of id
	inferred bool               // chosen among several of an order, or without any id
}

type parentState uint8

const (
	parentAbsent    parentState = iota // unknown, or itself waiting
	parentFound                        // judged, whatever its verdict
	parentAmbiguous                    // several are possible
	parentIsItself                     // the event names itself
)

// findParent finds the parent by its id, or else by its order, or else as the journey's
// only positive. Attributed positives are preferred; unattributed ones are candidates,
// too, and waiting ones are not.
func (j *journey) findParent(ev *event.Conversion, p *parent) error {
	switch {
	case ev.ParentEventID == ev.EventID:
		p.state = parentIsItself
		return nil
	case ev.ParentEventID != "":
		ok, err := j.readEvent(ev.ParentEventID, &p.event)
		if ok && !p.event.Waiting {
			p.state = parentFound
			p.id = ev.ParentEventID
		}
		return err
	case ev.OrderID != "":
		saleWaits, err := j.findLatestOfOrder(event.Sale, ev.OrderID, p)
		if err == nil && p.state == parentAbsent && ev.Type == event.Cancellation && !saleWaits {
			_, err = j.findLatestOfOrder(event.Lead, ev.OrderID, p)
		}
		return err
	}
	from := &j.head.Sales
	if ev.Type == event.Cancellation && from.Count() == 0 && j.head.WaitSales == 0 {
		from = &j.head.Leads
	}
	class := &from.Attributed
	if class.Count == 0 {
		class = &from.Unattributed
	}
	switch class.Count {
	case 0:
		return nil
	case 1:
		p.state = parentFound
		p.id = class.Only
		p.inferred = true
		return j.readReferencedEvent(p.id, &p.event)
	}
	p.state = parentAmbiguous
	return nil
}

// findLatestOfOrder finds the latest sale, or lead, of an order: of the attributed
// ones, or else of the others. waits reports whether a sale of the order waits.
func (j *journey) findLatestOfOrder(typ event.Type, order string, p *parent) (waits bool, err error) {
	var o event.JourneyOrder
	h := j.headPositives(typ)
	if h.Count() > 1 || typ == event.Sale && j.head.WaitSales > 0 {
		if err := j.readOrder(typ, order, &o); err != nil {
			return false, err
		}
	}
	if h.Count() == 1 { // the order rows begin with the second
		id := h.Only()
		if err := j.readReferencedEvent(id, &p.event); err != nil {
			return false, err
		}
		if p.event.Order == order {
			p.state = parentFound
			p.id = id
		}
		return o.Waiting > 0, nil
	}
	class := &o.Attributed
	if class.Count == 0 {
		class = &o.Unattributed
	}
	if class.Count == 0 {
		return o.Waiting > 0, nil
	}
	p.state = parentFound
	p.id = class.Latest
	p.inferred = class.Count > 1
	return o.Waiting > 0, j.readReferencedEvent(p.id, &p.event)
}

// headPositives are the head's counts of sales, or leads.
func (j *journey) headPositives(typ event.Type) *event.Positives {
	if typ == event.Lead {
		return &j.head.Leads
	}
	return &j.head.Sales
}

// readOwnOrder reads the order of a positive that is about to be kept: what its type
// has in that order so far. Most journeys have one sale: then the head has its id, and
// there are no order rows. The second one writes the first one's.
func (j *journey) readOwnOrder(ev *event.Conversion, o *event.JourneyOrder) error {
	h := j.headPositives(ev.Type)
	if h.Count() == 0 {
		return nil
	}
	if h.Count() == 1 {
		if err := j.indexOnly(ev.Type, h.Only()); err != nil {
			return err
		}
	}
	if ev.OrderID == "" {
		return nil
	}
	return j.readOrder(ev.Type, ev.OrderID, o)
}

// indexOnly writes the order row of the journey's only sale, or lead.
func (j *journey) indexOnly(typ event.Type, id string) error {
	var only event.JourneyEvent
	if err := j.readReferencedEvent(id, &only); err != nil || only.Order == "" {
		return err
	}
	var o event.JourneyOrder
	if err := j.readOrder(typ, only.Order, &o); err != nil {
		return err
	}
	o.Class(only.Effect).Add(id, only.Offset)
	return j.writeOrder(typ, only.Order, &o)
}

// indexPositive lets negatives that do not name this positive find it, and later sales
// of its order see whether it stands. e is its row, which is not written yet; o is what
// readOwnOrder has read.
func (j *journey) indexPositive(ev *event.Conversion, e *event.JourneyEvent, o *event.JourneyOrder) error {
	h := j.headPositives(ev.Type)
	isIndexed := h.Count() > 0 && ev.OrderID != ""
	h.Class(e.Effect).Add(ev.EventID)
	if !isIndexed {
		return nil
	}
	if ev.Type == event.Sale && e.Effect != 0 {
		if err := j.shareOrder(e, o); err != nil {
			return err
		}
	}
	o.Class(e.Effect).Add(ev.EventID, e.Offset)
	return j.writeOrder(ev.Type, ev.OrderID, o)
}

// shareOrder counts an attributed sale among those of its order that stand, if it is
// not the order's only one. The second one adds the first.
func (j *journey) shareOrder(e *event.JourneyEvent, o *event.JourneyOrder) error {
	if o.Attributed.Count == 0 {
		return nil
	}
	if o.Attributed.Count == 1 {
		var first event.JourneyEvent
		if err := j.readReferencedEvent(o.Attributed.Latest, &first); err != nil {
			return err
		}
		first.SharesOrder = true
		if first.Standing() > 0 {
			o.Standing++
		}
		if err := j.writeEvent(o.Attributed.Latest, &first); err != nil {
			return err
		}
	}
	e.SharesOrder = true
	if e.Standing() > 0 {
		o.Standing++
	}
	return nil
}

// repeatsOrder reports whether an attributed sale would be the second of its order, of
// which an earlier one still stands, unless it names one of them. o is what
// readOwnOrder has read.
func (j *journey) repeatsOrder(ev *event.Conversion, o *event.JourneyOrder) (bool, error) {
	if ev.Type != event.Sale || o.Attributed.Count == 0 {
		return false, nil
	}
	stands := o.Standing > 0
	if o.Attributed.Count == 1 {
		var only event.JourneyEvent
		if err := j.readReferencedEvent(o.Attributed.Latest, &only); err != nil {
			return false, err
		}
		stands = only.Standing() > 0
	}
	if !stands || ev.ParentEventID == "" {
		return stands, nil
	}
	var named event.JourneyEvent
	ok, err := j.readEvent(ev.ParentEventID, &named)
	isOfOrder := ok && named.Type == event.Sale && named.Effect != 0 && named.Order == ev.OrderID
	return !isOfOrder, err
}

// countWaitingSale counts a sale that begins or ends to wait for its parent.
func (j *journey) countWaitingSale(order string, by int64) error {
	j.head.WaitSales += by
	if order == "" {
		return nil
	}
	var o event.JourneyOrder
	if err := j.readOrder(event.Sale, order, &o); err != nil {
		return err
	}
	o.Waiting += by
	return j.writeOrder(event.Sale, order, &o)
}
