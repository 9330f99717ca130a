package attribution

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/nimriz/partners/schemas/event"
)

// A journey begun under version 1 of the rules is finished under version 2.

// storedEvent is a kept event with its id.
type storedEvent struct {
	id string
	event.JourneyEvent
}

// indexAnew finds from the event rows what a head of version 1 and the rows below it do
// not tell: the verdicts of the positives, by order too, and of how many reversals of
// each event something stands. It runs once in a journey, because it writes a head of
// version 2, and rewrites only rows that say less than the rules need: of an order with
// one sale, or lead, the old row stays.
func (j *journey) indexAnew() error {
	j.head.Old = false
	j.headChanged = true
	if j.head.Kept == 0 {
		return nil
	}
	events, err := j.scanKept()
	if err != nil {
		return fmt.Errorf("indexing a journey of version 1: %w", err)
	}
	changed := make(map[string]*storedEvent)
	for _, e := range events {
		if e.Type.Positive() {
			j.headPositives(e.Type).Class(e.Effect).Add(e.id)
		} else if parent := events[e.Parent]; e.Type == event.Reversal && e.Effect != 0 && e.Standing() > 0 {
			if parent == nil {
				return fmt.Errorf("%w: event %q has a parent %q without a row", event.ErrJourney, e.id, e.Parent)
			}
			parent.Reversals++
			changed[parent.id] = parent
		}
	}
	for _, typ := range []event.Type{event.Sale, event.Lead} {
		if err := j.indexOrders(typ, events, changed); err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(changed)) {
		if err := j.writeEvent(id, &changed[id].JourneyEvent); err != nil {
			return err
		}
	}
	return nil
}

// scanKept reads the rows of all kept events.
func (j *journey) scanKept() (map[string]*storedEvent, error) {
	events := make(map[string]*storedEvent)
	prefix := slices.Clone(j.journeyKey(event.KindEvent, ""))
	var decodeErr error
	err := j.rows.Scan(prefix, func(key, value []byte) bool {
		e := &storedEvent{id: string(key[len(prefix):])}
		if decodeErr = event.DecodeEvent(value, &e.JourneyEvent); decodeErr != nil {
			return false
		}
		if !e.Waiting {
			events[e.id] = e
		}
		return true
	})
	if err == nil {
		err = decodeErr
	}
	return events, err
}

// indexOrders writes the rows of the orders that have several sales, or leads. Attributed
// sales that share an order are marked, and added to changed.
func (j *journey) indexOrders(typ event.Type, events, changed map[string]*storedEvent) error {
	orders := make(map[string][]*storedEvent)
	for _, e := range events {
		if e.Type == typ && e.Order != "" {
			orders[e.Order] = append(orders[e.Order], e)
		}
	}
	for _, order := range slices.Sorted(maps.Keys(orders)) {
		list := orders[order]
		if len(list) == 1 {
			continue
		}
		slices.SortFunc(list, func(a, b *storedEvent) int { return cmp.Compare(a.Offset, b.Offset) })
		var o event.JourneyOrder
		for _, e := range list {
			o.Class(e.Effect).Add(e.id, e.Offset)
		}
		for _, e := range list {
			if typ != event.Sale || e.Effect == 0 || o.Attributed.Count == 1 {
				continue
			}
			e.SharesOrder = true
			changed[e.id] = e
			if e.Standing() > 0 {
				o.Standing++
			}
		}
		if err := j.writeOrder(typ, order, &o); err != nil {
			return err
		}
	}
	return nil
}
