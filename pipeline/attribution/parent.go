package attribution

import (
	"github.com/nimriz/partners/schemas/event"
)

// parent is what a negative takes back, as far as the journey knows it.
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
	parentIsItself                     // the negative names itself
)

// findParent finds the parent by its id, or else by its order, or else as the journey's
// only positive. Unattributed positives are candidates too.
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
		err := j.findLatestOfOrder(event.Sale, ev.OrderID, p)
		if err == nil && p.state == parentAbsent && ev.Type == event.Cancellation {
			err = j.findLatestOfOrder(event.Lead, ev.OrderID, p)
		}
		return err
	case j.head.Sales > 1, j.head.Sales == 0 && ev.Type == event.Cancellation && j.head.Leads > 1:
		p.state = parentAmbiguous
		return nil
	case j.head.Sales == 1:
		p.id = j.head.Sale
	case ev.Type == event.Cancellation && j.head.Leads == 1:
		p.id = j.head.Lead
	default:
		return nil
	}
	p.state = parentFound
	p.inferred = true
	return j.readReferencedEvent(p.id, &p.event)
}

// findLatestOfOrder finds the latest sale, or lead, of an order.
func (j *journey) findLatestOfOrder(typ event.Type, order string, p *parent) error {
	count, only := j.headPositives(typ)
	switch *count {
	case 0:
		return nil
	case 1:
		// the order index begins with the journey's second sale, or lead
		if err := j.readReferencedEvent(*only, &p.event); err != nil {
			return err
		}
		if p.event.Order == order {
			p.state = parentFound
			p.id = *only
		}
		return nil
	}
	var latest event.JourneyOrder
	if ok, err := j.readOrder(typ, order, &latest); err != nil || !ok {
		return err
	}
	p.state = parentFound
	p.id = latest.Latest
	p.inferred = latest.Several
	return j.readReferencedEvent(p.id, &p.event)
}

// headPositives points to the head's count of sales, or leads, and to the id of the
// only one.
func (j *journey) headPositives(typ event.Type) (count *int64, only *string) {
	if typ == event.Lead {
		return &j.head.Leads, &j.head.Lead
	}
	return &j.head.Sales, &j.head.Sale
}

// indexPositive lets negatives that do not name this positive find it. Most journeys
// have one sale: then the head has its id, and the order index has no rows.
func (j *journey) indexPositive(ev *event.Conversion) error {
	count, only := j.headPositives(ev.Type)
	*count++
	if *count == 1 {
		*only = ev.EventID
		return nil
	}
	if *count == 2 {
		var first event.JourneyEvent
		if err := j.readReferencedEvent(*only, &first); err != nil {
			return err
		}
		if first.Order != "" {
			if err := j.writeOrder(ev.Type, first.Order, event.JourneyOrder{Latest: *only}); err != nil {
				return err
			}
		}
		*only = ""
	}
	if ev.OrderID == "" {
		return nil
	}
	var before event.JourneyOrder
	several, err := j.readOrder(ev.Type, ev.OrderID, &before)
	if err != nil {
		return err
	}
	return j.writeOrder(ev.Type, ev.OrderID, event.JourneyOrder{Latest: ev.EventID, Several: several})
}
