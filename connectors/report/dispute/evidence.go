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
	waits    map[*report.Event]*report.Wait      // of those of waiting that can decide a claim
	refused  map[string]report.Refusal           // by event id or order id
	clicks   map[string]*report.Click            // by token, of what waits or found no click
	children map[report.EventKey][]*report.Event // by parent, of what is attributed
	counts   map[string]report.OrderCount        // by order, of the orders of what is attributed
	// without effect, of the keys and of what is attributed with everything below it
	negatives *report.NegativeList
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
	}
	if ev.waits, err = d.reader.Waits(ctx, d.workspace, ev.decidingWaits()); err != nil {
		return nil, err
	}
	if err := d.readClicks(ctx, tokens, ev); err != nil {
		return nil, err
	}
	if err := d.readChildren(ctx, roots, ev); err != nil {
		return nil, err
	}
	return ev, d.readWarnings(ctx, column, keys, roots, ev)
}

// readWarnings reads what makes the money of the keys doubtful. roots is what is
// attributed.
func (d *Dispute) readWarnings(ctx context.Context, column report.KeyColumn, keys []string, roots []*report.Event,
	ev *evidence) (err error) {
	named := report.NewNamed()
	for _, key := range keys {
		named.AddKey(column, key)
	}
	var orders []string
	for _, root := range roots {
		for _, e := range report.WithDescendants(root, ev.children) {
			named.AddEvent(e)
		}
		if root.OrderID != "" {
			orders = append(orders, root.OrderID)
		}
	}
	if ev.negatives, err = d.reader.Negatives(ctx, d.workspace, named); err != nil {
		return err
	}
	ev.counts, err = d.reader.CountOrders(ctx, d.workspace, orders)
	return err
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
		if err := d.readRefusals(ctx, column, keys[:n], ev); err != nil {
			return nil, nil, err
		}
		keys = keys[n:]
	}
	return judged, waiting, nil
}

// readRefusals adds the newest refusals of keys to the evidence. A refused negative of an
// order is no answer to a claim of that order.
func (d *Dispute) readRefusals(ctx context.Context, column report.KeyColumn, keys []string, ev *evidence) error {
	refused, err := d.reader.Refusals(ctx, d.workspace, column, keys, report.MaxSame)
	if err != nil {
		return err
	}
	for _, refusal := range slices.Backward(refused) { // the newest last
		switch {
		case column == report.ByEventID:
			ev.refused[refusal.EventID] = refusal
		case !refusal.IsNegative():
			ev.refused[refusal.OrderID] = refusal
		}
	}
	return nil
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

// decidingWaits are of each key the first event that waits, and the first sale or lead.
func (ev *evidence) decidingWaits() (events []*report.Event) {
	for _, waiting := range ev.waiting {
		events = append(events, waiting[0])
		if sale := slices.IndexFunc(waiting, isPositive); sale > 0 {
			events = append(events, waiting[sale])
		}
	}
	return events
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
