package report

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
)

// MaxSame is how many records with one event id an answer names, and how many refusals.
const MaxSame = 20

// Answer is all that is known about an event id.
type Answer struct {
	Workspace string    // id
	EventID   string    // that was asked for
	Records   []*Record // with this id, in the order of receipt: at most MaxSame
	More      bool      // there are more records than these
	Refused   []Refusal // by the gateway, the newest first
	Tokens    int       // under which the id has effect; several: it counts several times
}

// Record is one record with the asked id, and why it counts as it does.
type Record struct {
	*Event
	Snapshot *Click      // the click, that of the verdict where there is one; nil: unknown here
	Wait     *Wait       // what the event waits for; nil once there is a verdict
	Chain    []ChainStep // from the root down, depth first; empty for a duplicate or conflict
	ChainCut bool        // the chain is longer than MaxChain or MaxDepth: no standing amount is known
}

// Standing is what is left of an event: an amount, or, without one, one unit or none.
type Standing struct {
	Money *Money // nil: the event has no amount
	Unit  bool   // something is left
}

// What an event waits for.
const (
	WaitsForClick  = "click"
	WaitsForParent = "parent"
	// WaitsForProcessor: nothing in the tables is missing. The event is about to be
	// judged.
	WaitsForProcessor = "processor"
)

// Wait says for what and until when an event has no verdict, as far as the tables tell.
type Wait struct {
	For         string     // one of the constants above
	Until       *time.Time // received_at and the grace; nil: no Progress says how long the grace is
	Read        bool       // the processor was past this event when the tables were last complete
	Parent      string     // that the event names; "": the latest sale of Order, or the token's only one
	Order       string     // that the event names; may be empty
	ParentWaits bool       // the parent was received, and waits itself
	Withheld    bool       // the click is known, but its token was never shown, so it counts as unknown
	TokenReason string     // why it was not shown
}

// Why collects what is known about an event id.
func (r *Reader) Why(ctx context.Context, workspace, eventID string) (*Answer, error) {
	answer := &Answer{Workspace: workspace, EventID: eventID}
	events, err := r.readSameID(ctx, workspace, eventID)
	if err != nil {
		return nil, err
	}
	if len(events) > MaxSame {
		events = events[:MaxSame]
		answer.More = true
	}
	if answer.Tokens, err = r.countTokens(ctx, workspace, eventID); err != nil {
		return nil, err
	}
	if answer.Refused, err = r.Refusals(ctx, workspace, []string{eventID}, MaxSame); err != nil {
		return nil, err
	}
	var tokens []string
	for _, e := range events {
		tokens = append(tokens, e.ClickToken)
	}
	clicks, err := r.Clicks(ctx, workspace, tokens)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		record := &Record{Event: e, Snapshot: clicks[e.ClickToken]}
		if e.At != nil {
			record.Snapshot = &e.Click
		}
		if err := r.explain(ctx, workspace, record); err != nil {
			return nil, fmt.Errorf("explaining conversions %d/%d: %w", e.Partition, e.Offset, err)
		}
		answer.Records = append(answer.Records, record)
	}
	return answer, nil
}

// readSameID reads the records with an event id, judged or not, in the order of
// receipt: of each at most MaxSame + 1.
func (r *Reader) readSameID(ctx context.Context, workspace, eventID string) ([]*Event, error) {
	args := []any{clickhouse.Named("id", eventID), clickhouse.Named("n", MaxSame+1)}
	judged, err := r.readOutcomes(ctx, workspace, `event_id = {id:String}
ORDER BY received_at, event_partition, event_offset
LIMIT {n:UInt32}`, args...)
	if err != nil {
		return nil, err
	}
	received, err := r.readConversions(ctx, workspace, `event_id = {id:String}
ORDER BY received_at, src_partition, src_offset
LIMIT {n:UInt32}`, args...)
	if err != nil {
		return nil, err
	}
	return mergeRecords(judged, received), nil
}

// mergeRecords unites judged events with the received ones that have no verdict, in the
// order of receipt.
func mergeRecords(judged, received []*Event) []*Event {
	known := map[recordPosition]bool{}
	for _, e := range judged {
		known[e.position()] = true
	}
	for _, e := range received {
		if !known[e.position()] {
			judged = append(judged, e)
		}
	}
	slices.SortFunc(judged, func(a, b *Event) int {
		return cmp.Or(a.ReceivedAt.Compare(b.ReceivedAt), cmp.Compare(a.Partition, b.Partition),
			cmp.Compare(a.Offset, b.Offset))
	})
	return judged
}

// countTokens returns under how many tokens an event id has effect.
func (r *Reader) countTokens(ctx context.Context, workspace, eventID string) (int, error) {
	var found []struct {
		Tokens uint64 `ch:"tokens"`
	}
	err := r.conn.Select(ctx, &found, `
SELECT uniqExact(click_token) AS tokens
FROM outcomes
WHERE workspace_id = {w:String} AND event_id = {id:String} AND effect != 0`,
		clickhouse.Named("w", workspace), clickhouse.Named("id", eventID))
	if err != nil {
		return 0, fmt.Errorf("counting tokens: %w", err)
	}
	return int(found[0].Tokens), nil
}

// explain fills in what the event waits for, or its chain.
func (r *Reader) explain(ctx context.Context, workspace string, record *Record) (err error) {
	switch event.Verdict(record.Verdict) {
	case "":
		if record.Wait, err = r.readWait(ctx, workspace, record.Event, record.Snapshot); err != nil {
			return err
		}
	case event.Duplicate, event.Conflict:
		return nil // the chain is that of the first event with this id
	}
	root, cutAbove, err := r.readRoot(ctx, workspace, record.Event)
	if err != nil {
		return err
	}
	children, cutBelow, err := r.Below(ctx, workspace, []*Event{root})
	if err != nil {
		return err
	}
	record.Chain = layOutChain(root, record.Event, children)
	if record.ChainCut = cutAbove || cutBelow; !record.ChainCut {
		addStandingAmounts(record.Chain)
	}
	return nil
}

// addStandingAmounts fills in what is left of each event of a chain.
func addStandingAmounts(chain []ChainStep) {
	events := make([]*Event, len(chain))
	for i := range chain {
		events[i] = chain[i].Event
	}
	left := StandingAmounts(events)
	for i, step := range chain {
		n, ok := left[step.Event]
		if !ok {
			continue
		}
		chain[i].Standing = &Standing{Unit: n > 0}
		if step.AmountMinor != nil {
			chain[i].Standing.Money = &Money{ledger.MinorUnits(n, step.Exponent), step.Currency}
		}
	}
}

// readWait finds out what an event without verdict lacks.
func (r *Reader) readWait(ctx context.Context, workspace string, e *Event, click *Click) (*Wait, error) {
	w := &Wait{For: WaitsForProcessor}
	grace, err := r.Grace(ctx, e.Partition)
	if err != nil {
		return nil, err
	}
	if grace > 0 {
		until := e.ReceivedAt.Add(grace)
		w.Until = &until
	}
	if w.Read, err = r.wasRead(ctx, e); err != nil {
		return nil, err
	}
	switch {
	case click == nil:
		w.For = WaitsForClick
		return w, nil
	case click.TokenStatus != string(event.TokenAppended):
		w.For = WaitsForClick
		w.Withheld = true
		w.TokenReason = click.TokenReason
		return w, nil
	case e.isPositive():
		return w, nil
	}
	return w, r.addParentWait(ctx, workspace, e, w)
}

// wasRead reports whether the processor was past an event when the tables were last
// complete.
func (r *Reader) wasRead(ctx context.Context, e *Event) (bool, error) {
	var reached []struct {
		Position uint64 `ch:"conversions_position"`
	}
	if err := r.conn.Select(ctx, &reached,
		"SELECT conversions_position FROM progress_reached WHERE partition = {p:UInt32}",
		clickhouse.Named("p", e.Partition)); err != nil {
		return false, fmt.Errorf("reading progress: %w", err)
	}
	return len(reached) > 0 && reached[0].Position > e.Offset, nil
}

// addParentWait fills in which parent a negative waits for, if it waits for one.
func (r *Reader) addParentWait(ctx context.Context, workspace string, e *Event, w *Wait) error {
	w.Parent = e.ParentEventID
	w.Order = e.OrderID
	if w.Parent == "" {
		w.For = WaitsForParent
		return nil
	}
	parent, err := r.readFirst(ctx, workspace, e.parentKey())
	if err != nil || parent != nil {
		return err
	}
	w.For = WaitsForParent
	received, err := r.readConversions(ctx, workspace, `click_token = {token:String}
	AND event_id = {id:String}
LIMIT 1`, clickhouse.Named("token", e.ClickToken), clickhouse.Named("id", w.Parent))
	w.ParentWaits = len(received) > 0
	return err
}
