package verify

import (
	"context"
	"fmt"
	"strings"

	"github.com/nimriz/partners/schemas/event"
)

// compareTable compares the rows of the warehouse.
func (r *partitionRun) compareTable(ctx context.Context) error {
	if r.Table == nil {
		return nil
	}
	read := int64(0)
	err := r.Table.Each(ctx, r.part.ID, func(place Place, o *event.Outcome) error {
		if read++; read%progressRecords == 0 {
			r.reportProgress(r.stepName("reading ClickHouse"), read, int64(len(r.entries)))
		}
		return r.compareTableRow(place, o)
	})
	if err != nil {
		return fmt.Errorf("reading the table outcomes: %w", err)
	}
	for i := range r.entries {
		e := &r.entries[i]
		if !e.has(inRange) || e.seenTable > 0 || e.row < 0 && (e.why != Derivable || !e.has(isDue)) {
			continue
		}
		var row *Place
		dropped := r.Table.Dropped[r.part.ID]
		if e.row >= 0 && e.row < dropped.Rows || e.row < 0 && e.event < dropped.Events {
			r.table.Dropped++
			continue
		}
		if e.row >= 0 {
			row = &Place{r.part.ID, e.row}
			if e.row >= r.Table.Ends[r.part.ID] {
				r.table.Pending++
				continue
			}
		}
		if err := r.addMissing(r.table, e, row); err != nil {
			return err
		}
	}
	return nil
}

// compareTableRow compares one row of the warehouse. Rows of what the processor did
// after the state that is verified are counted as pending.
func (r *partitionRun) compareTableRow(place Place, o *event.Outcome) error {
	if !r.isInRange(o.OccurredAt) {
		return nil
	}
	if place.Partition == r.part.ID && place.Offset >= r.part.Outcomes.End {
		r.table.Pending++
		return nil
	}
	r.table.Rows++
	d := Difference{
		Kind:    Surplus,
		EventID: strings.Clone(o.EventID),
		Event:   &Place{o.EventPartition, o.EventOffset},
		Row:     &place,
	}
	i, found := findEvent(r.entries, o.EventOffset)
	switch {
	case o.EventPartition != r.part.ID || place.Partition != r.part.ID:
		d.Note = "its event is in another partition than its record, or in one that there is not"
	case !found && o.EventOffset < r.part.Conversions.Start:
		r.table.addUnproved(EventsExpired, *d.Event, place)
		return nil
	case !found:
		d.Note = "conversions has no readable event of the workspace there"
	case !r.entries[i].has(inRange):
		d.Note = outOfRange
	case r.isBehind(&r.entries[i]) && place.Offset < r.part.Outcomes.Start:
		r.table.addUnproved(RowExpired, *d.Event, place)
		return nil
	case r.isBehind(&r.entries[i]):
		d.Note = stillWaits
	default:
		return r.compareTableEntry(&r.entries[i], place, o, d)
	}
	return r.table.addDifference(d, nil)
}

// compareTableEntry compares one row of the warehouse with the entry of its event.
func (r *partitionRun) compareTableEntry(e *entry, place Place, o *event.Outcome, difference Difference) error {
	if e.seenTable > 0 {
		difference.Kind = Doubled
		return r.table.addDifference(difference, nil)
	}
	e.seenTable = 1
	if why := r.whyNotTable(e, o); why != Derivable {
		r.table.addUnproved(why, *difference.Event, place)
		return nil
	}
	// A row that no record can be, such as one of an unknown verdict, has no digest, and
	// is not what the rules say.
	got, err := r.digester.digestOutcome(o, nil)
	if err != nil {
		got = digest{}
	}
	isThere := e.row < 0 || place.Offset == e.row
	switch {
	case got == e.want && isThere && e.has(isLate):
		r.table.Late++
		return nil
	case got == e.want && isThere:
		r.table.Equal++
		return nil
	}
	difference.Kind = Differs
	return r.table.addDifference(difference, func(d *Difference) error {
		derived, err := r.deriveEvent(e)
		if err != nil {
			return err
		}
		d.Fields = diffOutcomes(derived, o)
		if !isThere {
			d.Fields = append(d.Fields, FieldDifference{
				Field:   "src_offset",
				Derived: fmt.Sprint(e.row),
				Found:   fmt.Sprint(place.Offset),
			})
		}
		return nil
	})
}

// Notes of rows that are there and must not be.
const (
	outOfRange = "the event occurred outside of the days"
	stillWaits = "the event waits, and outcomes has no row about it"
)

// whyNotTable says why a row of the warehouse cannot be derived.
func (r *partitionRun) whyNotTable(e *entry, o *event.Outcome) Reason {
	switch isGone := e.row < 0; {
	case e.why != Derivable:
		return e.why
	case isGone && o.RulesVersion < event.RulesVersion, e.first < r.part.OlderRules:
		return OlderRules
	case isGone && o.RulesVersion > event.RulesVersion:
		return NewerRules
	}
	return Derivable
}
