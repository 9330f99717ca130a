package dispute

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/event"
)

// ErrTooMany means that a list concerns more events than are read for one answer.
var ErrTooMany = errors.New("too many events")

// evidence is what the warehouse knows about a batch of claims.
type evidence struct {
	judged   map[string][]*report.Event          // by event id or order id
	waiting  map[string][]*report.Event          // by event id or order id
	refused  map[string]report.Refusal           // by event id
	clicks   map[string]*report.Click            // by token, of what waits or found no click
	children map[report.EventKey][]*report.Event // by parent, of what is attributed
}

// gatherEvidence collects the evidence for keys of one column.
func (d *Dispute) gatherEvidence(ctx context.Context, column report.KeyColumn, keys []string) (*evidence, error) {
	ev := &evidence{
		judged:  map[string][]*report.Event{},
		waiting: map[string][]*report.Event{},
		refused: map[string]report.Refusal{},
		clicks:  map[string]*report.Click{},
	}
	if len(keys) == 0 {
		return ev, nil
	}
	slices.Sort(keys)
	keys = slices.Compact(keys) // a key in two queries would bring its events twice
	judged, waiting, err := d.findEvents(ctx, column, keys, ev)
	if err != nil {
		return nil, err
	}
	var roots []*report.Event
	var tokens []string
	for _, e := range judged {
		key := column.Key(e)
		ev.judged[key] = append(ev.judged[key], e)
		switch {
		case e.Verdict == string(event.Attributed):
			roots = append(roots, e)
		case e.Reason == event.ReasonClickNotFound:
			tokens = append(tokens, e.ClickToken)
		}
	}
	for _, e := range waiting {
		key := column.Key(e)
		ev.waiting[key] = append(ev.waiting[key], e)
		tokens = append(tokens, e.ClickToken)
		if err := d.readGrace(ctx, e.Partition); err != nil {
			return nil, err
		}
	}
	if err := d.readClicks(ctx, tokens, ev); err != nil {
		return nil, err
	}
	return ev, d.readChildren(ctx, roots, ev)
}

// findEvents finds the events that the keys name, and adds the refusals of their ids to
// the evidence.
func (d *Dispute) findEvents(ctx context.Context, column report.KeyColumn, keys []string, ev *evidence) (judged,
	waiting []*report.Event, err error) {
	for len(keys) > 0 {
		n := report.FitKeys(keys)
		j, w, err := d.reader.FindEvents(ctx, d.workspace, column, keys[:n])
		if err != nil {
			return nil, nil, err
		}
		judged = append(judged, j...)
		waiting = append(waiting, w...)
		if err := cmp.Or(checkNotTooMany(column, judged), checkNotTooMany(column, waiting)); err != nil {
			return nil, nil, err
		}
		if column == report.ByEventID {
			refused, err := d.reader.Refusals(ctx, d.workspace, keys[:n], 1)
			if err != nil {
				return nil, nil, err
			}
			for _, refusal := range refused {
				ev.refused[refusal.EventID] = refusal
			}
		}
		keys = keys[n:]
	}
	return judged, waiting, nil
}

// checkNotTooMany reports a key that brings too many events, such as an order_id that a
// sender gives to all its orders.
func checkNotTooMany(column report.KeyColumn, found []*report.Event) error {
	if len(found) <= report.MaxChain {
		return nil
	}
	return fmt.Errorf("%w: more than %d events have an %s of this list, such as %q: take it out of the list",
		ErrTooMany, report.MaxChain, column, column.Key(found[len(found)-1]))
}

// readGrace reads how long events of a partition may wait, once.
func (d *Dispute) readGrace(ctx context.Context, partition uint32) error {
	if _, ok := d.graces[partition]; ok {
		return nil
	}
	grace, err := d.reader.Grace(ctx, partition)
	d.graces[partition] = grace
	return err
}

func (d *Dispute) readClicks(ctx context.Context, tokens []string, ev *evidence) error {
	for len(tokens) > 0 {
		n := report.FitKeys(tokens)
		clicks, err := d.reader.Clicks(ctx, d.workspace, tokens[:n])
		if err != nil {
			return err
		}
		maps.Copy(ev.clicks, clicks)
		tokens = tokens[n:]
	}
	return nil
}

func (d *Dispute) readChildren(ctx context.Context, roots []*report.Event, ev *evidence) error {
	children, cut, err := d.reader.Below(ctx, d.workspace, roots)
	if err != nil {
		return err
	}
	if cut {
		return fmt.Errorf("%w: what was taken back from %d events such as %q are more than %d events or %d steps: "+
			"look at them one by one", ErrTooMany, len(roots), roots[0].EventID, report.MaxChain, report.MaxDepth)
	}
	ev.children = children
	return nil
}
