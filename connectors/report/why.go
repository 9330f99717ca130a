package report

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
)

// MaxSame is how many records with one event id an answer names, and how many refusals.
const MaxSame = 20

// Answer is all that is known about an event id.
type Answer struct {
	Workspace, EventID string
	// Events are the records with this id, in the order in which they were received;
	// More says that there are others.
	Events []*Answered
	More   bool
	// Refused is what the gateway refused, the newest first.
	Refused []Refusal
	// Tokens counts the tokens under which the id has effect; more than one is an event
	// that counts twice (event_id_reuse).
	Tokens int
}

// Answered is one record with its story.
type Answered struct {
	*Event
	// Frozen is the click; nil if none is known in this workspace. It is that of the
	// verdict where there is one.
	Frozen *Click
	// Wait is nil once there is a verdict.
	Wait *Wait
	// Chain is the tree from the root down, depth first; this event alone where it
	// takes nothing back and nothing took from it. Empty for a duplicate and a
	// conflict: the chain is that of the first.
	Chain []Link
	// ChainCut says that the chain is longer than MaxChain or MaxDepth: what stands is
	// then unknown, and nil.
	ChainCut bool
}

// Link is an event in a chain.
type Link struct {
	*Event
	Depth int
	// Stands is what is left of the event; nil without effect.
	Stands *Stands
}

// Stands is an amount, or one unit or none of an event without amount.
type Stands struct {
	Money *Money // nil: without amount
	Unit  bool   // something stands
}

// What an event waits for.
const (
	WaitsForClick  = "click"
	WaitsForParent = "parent"
	// WaitsForProcessor: nothing in the tables is missing; it is about to be judged.
	WaitsForProcessor = "processor"
)

// Wait says for what and until when an event has no verdict, as far as the tables tell.
type Wait struct {
	For string
	// Until is received_at and the grace; nil if no Progress says how long that is.
	Until *time.Time
	// Read says that the processor had come past this event when the tables were last
	// complete.
	Read bool
	// Parent is named by the event, or "": then the latest sale of Order, or the only
	// one of the token.
	Parent, Order string
	// ParentWaits: the parent was received, and itself waits.
	ParentWaits bool
	// Withheld: the click is known, but its token was never shown, so it counts as
	// unknown; Reason says why.
	Withheld bool
	Reason   string
}

// Why collects what is known about an event id.
func (r *Reader) Why(ctx context.Context, workspace, eventID string) (*Answer, error) {
	answer := &Answer{Workspace: workspace, EventID: eventID}
	same := []any{clickhouse.Named("id", eventID), clickhouse.Named("n", MaxSame+1)}
	judged, err := r.outcomes(ctx, workspace, "event_id = {id:String} ORDER BY received_at, event_partition, "+
		"event_offset LIMIT {n:UInt32}", same...)
	if err != nil {
		return nil, err
	}
	received, err := r.conversions(ctx, workspace,
		"event_id = {id:String} ORDER BY received_at, src_partition, src_offset LIMIT {n:UInt32}", same...)
	if err != nil {
		return nil, err
	}
	events := merged(judged, received)
	if len(events) > MaxSame {
		events, answer.More = events[:MaxSame], true
	}
	if answer.Tokens, err = r.tokens(ctx, workspace, eventID); err != nil {
		return nil, err
	}
	if answer.Refused, err = r.refusals(ctx, workspace, []string{eventID}, MaxSame); err != nil {
		return nil, err
	}
	var tokens []string
	for _, e := range events {
		tokens = append(tokens, e.ClickToken)
	}
	clicks, err := r.clicks(ctx, workspace, tokens)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		a := &Answered{Event: e, Frozen: clicks[e.ClickToken]}
		if e.At != nil {
			a.Frozen = &e.Click
		}
		if err := r.tell(ctx, workspace, a); err != nil {
			return nil, fmt.Errorf("looking at conversions %d/%d: %w", e.Partition, e.Offset, err)
		}
		answer.Events = append(answer.Events, a)
	}
	return answer, nil
}

// place is that of a record in `conversions`.
type place struct {
	partition uint32
	offset    uint64
}

// merged unites judged events with records that have no verdict, in the order of
// receipt.
func merged(judged, received []*Event) []*Event {
	known := map[place]bool{}
	for _, e := range judged {
		known[place{e.Partition, e.Offset}] = true
	}
	for _, e := range received {
		if !known[place{e.Partition, e.Offset}] {
			judged = append(judged, e)
		}
	}
	slices.SortFunc(judged, func(a, b *Event) int {
		return cmp.Or(a.ReceivedAt.Compare(b.ReceivedAt), cmp.Compare(a.Partition, b.Partition),
			cmp.Compare(a.Offset, b.Offset))
	})
	return judged
}

func (r *Reader) tokens(ctx context.Context, workspace, eventID string) (int, error) {
	var found []struct {
		Tokens uint64 `ch:"tokens"`
	}
	err := r.conn.Select(ctx, &found, "SELECT uniqExact(click_token) AS tokens FROM outcomes WHERE workspace_id = "+
		"{w:String} AND event_id = {id:String} AND effect != 0",
		clickhouse.Named("w", workspace), clickhouse.Named("id", eventID))
	if err != nil {
		return 0, fmt.Errorf("counting tokens: %w", err)
	}
	return int(found[0].Tokens), nil
}

// tell fills in what the event waits for, or its chain.
func (r *Reader) tell(ctx context.Context, workspace string, a *Answered) (err error) {
	switch event.Verdict(a.Verdict) {
	case "":
		if a.Wait, err = r.wait(ctx, workspace, a.Event, a.Frozen); err != nil {
			return err
		}
	case event.Duplicate, event.Conflict:
		return nil
	}
	root, cut, err := r.root(ctx, workspace, a.Event)
	if err != nil {
		return err
	}
	children, deep, err := r.below(ctx, workspace, []*Event{root})
	if err != nil {
		return err
	}
	a.ChainCut = cut || deep
	a.Chain = chain(root, a.Event, children)
	if a.ChainCut {
		return nil
	}
	events := make([]*Event, len(a.Chain))
	for i := range a.Chain {
		events[i] = a.Chain[i].Event
	}
	left := standing(events)
	for i, l := range a.Chain {
		n, ok := left[l.Event]
		if !ok {
			continue
		}
		s := &Stands{Unit: n > 0}
		if l.AmountMinor != nil {
			s.Money = &Money{minor(n, l.Exponent), l.Currency}
		}
		a.Chain[i].Stands = s
	}
	return nil
}

// first is the row that others mean by this id: the one with effect, else the first of
// the log.
func (r *Reader) first(ctx context.Context, workspace, token, id string) (*Event, error) {
	found, err := r.outcomes(ctx, workspace, `click_token = {token:String} AND event_id = {id:String} AND verdict NOT IN ('duplicate', 'conflict')
		ORDER BY effect != 0 DESC, event_partition, event_offset LIMIT 1`, clickhouse.Named("token", token), clickhouse.Named("id", id))
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// root climbs to the topmost event that is known. Events that wait can name each other
// in a circle.
func (r *Reader) root(ctx context.Context, workspace string, e *Event) (root *Event, cut bool, err error) {
	seen := map[string]bool{e.EventID: true}
	for e.ParentEventID != "" && !seen[e.ParentEventID] {
		if len(seen) == MaxDepth {
			return e, true, nil
		}
		seen[e.ParentEventID] = true
		parent, err := r.first(ctx, workspace, e.ClickToken, e.ParentEventID)
		if err != nil {
			return nil, false, err
		}
		if parent == nil {
			break
		}
		e = parent
	}
	return e, false, nil
}

// chain lays the tree out depth first. It keeps this event as itself, and has it where
// no verdict puts it: last, below its parent.
func chain(root, this *Event, children map[key][]*Event) (links []Link) {
	type step struct {
		e     *Event
		depth int
	}
	seen := map[place]bool{}
	opened := map[key]bool{}
	todo := []step{{root, 0}}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		at := place{s.e.Partition, s.e.Offset}
		if at == (place{this.Partition, this.Offset}) {
			s.e = this
		}
		if seen[at] {
			continue
		}
		seen[at] = true
		links = append(links, Link{Event: s.e, Depth: s.depth})
		if opened[s.e.key()] {
			continue
		}
		opened[s.e.key()] = true
		below := children[s.e.key()]
		if this.Verdict == "" && this.ParentEventID == s.e.EventID && this != s.e {
			below = append(slices.Clone(below), this)
		}
		for _, e := range slices.Backward(below) {
			todo = append(todo, step{e, s.depth + 1})
		}
	}
	return links
}

// wait says what an event without verdict lacks.
func (r *Reader) wait(ctx context.Context, workspace string, e *Event, click *Click) (*Wait, error) {
	w := &Wait{For: WaitsForProcessor}
	grace, err := r.grace(ctx, e.Partition)
	if err != nil {
		return nil, err
	}
	if grace > 0 {
		until := e.ReceivedAt.Add(grace)
		w.Until = &until
	}
	var reached []struct {
		Position uint64 `ch:"conversions_position"`
	}
	err = r.conn.Select(ctx, &reached,
		"SELECT conversions_position FROM progress_reached WHERE partition = {p:UInt32}",
		clickhouse.Named("p", e.Partition))
	if err != nil {
		return nil, fmt.Errorf("reading progress: %w", err)
	}
	w.Read = len(reached) > 0 && reached[0].Position > e.Offset
	switch {
	case click == nil:
		w.For = WaitsForClick
		return w, nil
	case click.TokenStatus != string(event.TokenAppended):
		w.For, w.Withheld, w.Reason = WaitsForClick, true, click.TokenReason
		return w, nil
	case e.positive():
		return w, nil
	}
	w.Parent, w.Order = e.ParentEventID, e.OrderID
	if w.Parent == "" {
		w.For = WaitsForParent
		return w, nil
	}
	parent, err := r.first(ctx, workspace, e.ClickToken, w.Parent)
	if err != nil || parent != nil {
		return w, err
	}
	w.For = WaitsForParent
	received, err := r.conversions(ctx, workspace, "click_token = {token:String} AND event_id = {id:String} LIMIT 1",
		clickhouse.Named("token", e.ClickToken), clickhouse.Named("id", w.Parent))
	w.ParentWaits = len(received) > 0
	return w, err
}
