package report

import (
	"context"
	"fmt"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
)

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
	Until       *time.Time // entered_at and the grace; nil: no Progress says how long the grace is
	Read        bool       // the processor was past this event when the tables were last complete
	Overdue     bool       // the wait is over, and the row is missing: it is lost
	Parent      string     // that the event names; "": the latest sale of Order, or the token's only one
	Order       string     // that the event names; may be empty
	ParentWaits bool       // the parent was received, and waits itself
	Elsewhere   []*Event   // under other tokens: the parent, else sales of Order
	Withheld    bool       // the click is known, but its token was never shown, so it counts as unknown
	TokenReason string     // why it was not shown
}

// surroundings are what the tables hold around events that wait, or found no parent.
type surroundings struct {
	clicks  map[string]*Click          // by token
	parents map[string][]*Event        // by event id, of what negatives name, under any token
	sales   map[string][]*Event        // by order id, of what negatives name, under any token
	ends    map[recordPosition]waitEnd // of events without verdict
	graces  map[uint32]time.Duration   // by partition
}

// waitEnd says how far the processor was beyond an event.
type waitEnd struct {
	EventID   string `ch:"event_id"`
	Partition uint32 `ch:"src_partition"`
	Offset    uint64 `ch:"src_offset"`
	Read      bool   `ch:"read"`    // see Wait
	Overdue   bool   `ch:"overdue"` // see Wait
}

// Waits says what events without verdict wait for.
func (r *Reader) Waits(ctx context.Context, workspace string, events []*Event) (map[*Event]*Wait, error) {
	around, err := r.readSurroundings(ctx, workspace, events)
	if err != nil {
		return nil, err
	}
	waits := map[*Event]*Wait{}
	for _, e := range events {
		waits[e] = around.waitOf(e)
	}
	return waits, nil
}

// readSurroundings reads what is around the events that have no effect.
func (r *Reader) readSurroundings(ctx context.Context, workspace string, events []*Event) (*surroundings, error) {
	s := &surroundings{
		parents: map[string][]*Event{},
		sales:   map[string][]*Event{},
		ends:    map[recordPosition]waitEnd{},
		graces:  map[uint32]time.Duration{},
	}
	var tokens, waiting, parents, orders []string
	for _, e := range events {
		if e.Verdict == "" {
			tokens = append(tokens, e.ClickToken)
			waiting = append(waiting, e.EventID)
			if _, ok := s.graces[e.Partition]; !ok {
				grace, err := r.Grace(ctx, e.Partition)
				if err != nil {
					return nil, err
				}
				s.graces[e.Partition] = grace
			}
		}
		if e.Effect != 0 || e.isPositive() {
			continue
		}
		if e.ParentEventID != "" {
			parents = append(parents, e.ParentEventID)
		}
		if e.OrderID != "" {
			orders = append(orders, e.OrderID)
		}
	}
	var err error
	if s.clicks, err = r.readClicks(ctx, workspace, tokens); err != nil {
		return nil, err
	}
	if err := r.readEnds(ctx, workspace, waiting, s.ends); err != nil {
		return nil, err
	}
	if err := r.readParents(ctx, workspace, parents, s.parents); err != nil {
		return nil, err
	}
	return s, r.readSales(ctx, workspace, orders, s.sales)
}

// readClicks is Clicks for any number of tokens.
func (r *Reader) readClicks(ctx context.Context, workspace string, tokens []string) (map[string]*Click, error) {
	all := map[string]*Click{}
	err := inChunks(tokens, func(tokens []string) error {
		clicks, err := r.Clicks(ctx, workspace, tokens)
		for token, click := range clicks {
			all[token] = click
		}
		return err
	})
	return all, err
}

// readParents reads the events with ids, judged or waiting, under any token.
func (r *Reader) readParents(ctx context.Context, workspace string, ids []string, into map[string][]*Event) error {
	return inChunks(ids, func(ids []string) error {
		args := []any{clickhouse.Named("keys", ids)}
		judged, err := r.readOutcomes(ctx, workspace, outcomesOf(ofKeys)+`event_id IN {keys:Array(String)}
	AND verdict NOT IN ('duplicate', 'conflict')
ORDER BY effect != 0 DESC, event_partition, event_offset
LIMIT 20 BY event_id`, args...)
		if err != nil {
			return err
		}
		const having = "event_id IN {keys:Array(String)}"
		waiting, err := r.readWaiting(ctx, workspace, conversionsOf(ofKeys)+having, outcomesOf(ofKeys)+having,
			"\nLIMIT 20 BY event_id", args...)
		for _, e := range append(judged, waiting...) {
			into[e.EventID] = append(into[e.EventID], e)
		}
		return err
	})
}

// readSales reads the judged sales of orders, and their leads, under any token, those that
// count first.
func (r *Reader) readSales(ctx context.Context, workspace string, orders []string, into map[string][]*Event) error {
	return inChunks(orders, func(orders []string) error {
		sales, err := r.readOutcomes(ctx, workspace, outcomesOf(ofKeys)+`order_id IN {keys:Array(String)}
	AND type IN ('lead', 'sale')
	AND verdict IN ('attributed', 'unattributed')
ORDER BY effect DESC, type DESC, received_at, event_partition, event_offset
LIMIT 20 BY order_id`, clickhouse.Named("keys", orders))
		for _, e := range sales {
			into[e.OrderID] = append(into[e.OrderID], e)
		}
		return err
	})
}

// readEnds reads how far the processor was beyond the events without verdict that have
// one of the ids, by the newest Progress that the tables have reached.
func (r *Reader) readEnds(ctx context.Context, workspace string, ids []string, into map[recordPosition]waitEnd) error {
	var overdue []string
	err := inChunks(ids, func(ids []string) error {
		return scanRows(ctx, r.conn, "ends of waits", `
SELECT
	event_id,
	src_partition,
	src_offset,
	CAST(src_offset < ends.conversions_position, 'Bool') AS read,
	CAST(read AND entered_at < ends.overdue_before
		AND NOT arrayExists(span -> entered_at BETWEEN span.1 AND span.2, ends.longer_waits), 'Bool') AS overdue
FROM
(
	SELECT event_id, src_partition, src_offset, entered_at
	FROM conversions
	WHERE workspace_id = {w:String} AND `+conversionsOf(ofIDs)+`event_id IN {ids:Array(String)}
) AS events
INNER JOIN wait_ends AS ends ON ends.partition = events.src_partition`,
			[]any{clickhouse.Named("w", workspace), clickhouse.Named("ids", ids)},
			func(end *waitEnd) error {
				into[recordPosition{end.Partition, end.Offset}] = *end
				if end.Overdue {
					overdue = append(overdue, end.EventID)
				}
				return nil
			})
	})
	if err != nil {
		return err
	}
	// A batch may have come between the query that found no row and this one, and with
	// it a Progress: only what still has no row is lost.
	return inChunks(overdue, func(ids []string) error {
		rows, err := r.readOutcomes(ctx, workspace, outcomesOf(ofIDs)+"event_id IN {ids:Array(String)}",
			clickhouse.Named("ids", ids))
		for _, e := range rows {
			end := into[e.position()]
			end.Overdue = false
			into[e.position()] = end
		}
		return err
	})
}

// Grace returns how long events of a partition may wait, by its newest Progress; 0 if
// there is none.
func (r *Reader) Grace(ctx context.Context, partition uint32) (time.Duration, error) {
	var found []struct {
		GraceMs uint64 `ch:"grace_ms"`
	}
	err := r.conn.Select(ctx, &found, `
SELECT grace_ms
FROM progress
WHERE partition = {p:UInt32}
ORDER BY src_offset DESC
LIMIT 1`, clickhouse.Named("p", partition))
	if err != nil {
		return 0, fmt.Errorf("reading progress: %w", err)
	}
	if len(found) == 0 {
		return 0, nil
	}
	return time.Duration(found[0].GraceMs) * time.Millisecond, nil
}

// waitOf is what an event without verdict lacks.
func (s *surroundings) waitOf(e *Event) *Wait {
	end := s.ends[e.position()]
	w := &Wait{For: WaitsForProcessor, Read: end.Read, Overdue: end.Overdue}
	if grace := s.graces[e.Partition]; grace > 0 {
		until := e.EnteredAt.Add(grace)
		w.Until = &until
	}
	click := s.clicks[e.ClickToken]
	switch {
	case click == nil:
		w.For = WaitsForClick
		return w
	case click.TokenStatus != string(event.TokenAppended):
		w.For = WaitsForClick
		w.Withheld = true
		w.TokenReason = click.TokenReason
		return w
	case e.isPositive():
		return w
	}
	w.Parent = e.ParentEventID
	w.Order = e.OrderID
	w.Elsewhere = s.elsewhere(e)
	switch parent := s.here(e); {
	case parent == nil:
		w.For = WaitsForParent
	case parent.Verdict == "":
		w.For = WaitsForParent
		w.ParentWaits = true
	}
	return w
}

// here is what a negative takes back, as far as it names that, under its own token; a
// judged event comes before one that waits.
func (s *surroundings) here(e *Event) *Event {
	for _, candidate := range s.candidates(e) {
		if candidate.ClickToken == e.ClickToken {
			return candidate
		}
	}
	return nil
}

// elsewhere are the candidates under other tokens, if there is none under the negative's
// own.
func (s *surroundings) elsewhere(e *Event) (found []*Event) {
	if e.isPositive() || s.here(e) != nil {
		return nil
	}
	for _, candidate := range s.candidates(e) {
		if candidate.ClickToken != e.ClickToken {
			found = append(found, candidate)
		}
	}
	if e.ParentEventID == "" || len(found) > 0 {
		return found
	}
	for _, sale := range s.sales[e.OrderID] {
		if sale.ClickToken == e.ClickToken {
			return nil // the parent is misspelt, the token is right
		}
		found = append(found, sale)
	}
	return found
}

// candidates are what a negative may take back, under any token: what it names, else the
// sales of its order.
func (s *surroundings) candidates(e *Event) []*Event {
	if e.ParentEventID != "" {
		return s.parents[e.ParentEventID]
	}
	return s.sales[e.OrderID]
}
