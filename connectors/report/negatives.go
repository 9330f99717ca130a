package report

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
)

// MaxNegatives is how many negatives without effect are read of one table for one event,
// order or token, and how many one answer lists.
const MaxNegatives = 50

// Negative is a negative that was received and takes nothing back. The event is as it
// was received; of a refused one it is what could be read of it.
type Negative struct {
	*Event
	Refusal *Refusal // nil: it was accepted
	Wait    *Wait    // nil: it was refused, or has a verdict
	Differs []Difference
	// Repetition: it is a conflict, but the first event of its id is the same negative, as far
	// as money goes. Nothing is missing.
	Repetition bool
	Elsewhere  []*Event // under other tokens: the parent that it names, else sales of its order
	Sales      []*Event // of the order that it names, under its own token
	// Astray: it names nothing, or nothing that is in the workspace, so it may be of any
	// positive of its token.
	Astray bool
	// the order that it names has sales in the workspace
	orderKnown bool
}

// Named are events and orders that negatives may name.
type Named struct {
	ids    map[string]bool
	orders map[string]bool
	tokens map[string]bool // of positives: what is astray may be of them
}

// NewNamed returns an empty set.
func NewNamed() *Named {
	return &Named{ids: map[string]bool{}, orders: map[string]bool{}, tokens: map[string]bool{}}
}

// AddKey adds an event id, or an order id.
func (n *Named) AddKey(column KeyColumn, key string) {
	if column == ByOrderID {
		n.orders[key] = true
		return
	}
	n.ids[key] = true
}

// AddEvent adds an event and its order.
func (n *Named) AddEvent(e *Event) {
	n.ids[e.EventID] = true
	if e.OrderID != "" {
		n.orders[e.OrderID] = true
	}
	if e.isPositive() && e.Effect != 0 {
		n.tokens[e.ClickToken] = true
	}
}

// has reports whether a negative names one of the events or orders, has the id of one
// and names no other order, or is astray under the token of one.
func (n *Named) has(negative *Negative) bool {
	return n.ids[negative.ParentEventID] || n.orders[negative.OrderID] ||
		n.ids[negative.EventID] && !negative.orderKnown ||
		negative.Astray && n.tokens[negative.ClickToken]
}

// namedKey is a key of a query for negatives.
type namedKey struct{ column, key string }

// columns are the keys by the column that holds them.
func (n *Named) columns() map[string]map[string]bool {
	return map[string]map[string]bool{
		"event_id":        n.ids,
		"parent_event_id": n.ids,
		"order_id":        n.orders,
		"click_token":     n.tokens,
	}
}

// NegativeList is what Reader.Negatives found.
type NegativeList struct {
	found []*Negative
	full  map[namedKey]bool // of which there are more than were read
}

// Of returns the negatives that belong to some of what was asked for, in the order of
// receipt, at most MaxNegatives. more: there are others.
func (l *NegativeList) Of(named *Named) (list []*Negative, more bool) {
	for _, n := range l.found {
		if named.has(n) {
			list = append(list, n)
		}
	}
	for column, keys := range named.columns() {
		for key := range keys {
			more = more || l.full[namedKey{column, key}]
		}
	}
	if len(list) > MaxNegatives {
		return list[:MaxNegatives], true
	}
	return list, more
}

// Negatives finds the negatives of a workspace that have no effect and belong to events
// and orders: of each at most MaxNegatives of one table. A duplicate is not among them,
// the event that it repeats may be; nor is what was sent again under its id and has
// effect since, or is there as it was accepted.
func (r *Reader) Negatives(ctx context.Context, workspace string, named *Named) (*NegativeList, error) {
	s := &negativeSearch{
		reader:    r,
		workspace: workspace,
		named:     named,
		seen:      map[recordPosition]bool{},
		refused:   map[Refusal]bool{},
		counts:    map[namedKey]int{},
	}
	ids := slices.Sorted(maps.Keys(named.ids))
	orders := slices.Sorted(maps.Keys(named.orders))
	tokens := slices.Sorted(maps.Keys(named.tokens))
	for len(ids)+len(orders)+len(tokens) > 0 {
		i, o, t := FitKeys(ids), FitKeys(orders), FitKeys(tokens)
		if err := s.readKeys(ctx, ids[:i], orders[:o], tokens[:t]); err != nil {
			return nil, err
		}
		ids, orders, tokens = ids[i:], orders[o:], tokens[t:]
	}
	if err := s.explainNegatives(ctx); err != nil {
		return nil, err
	}
	if err := s.dropMended(ctx); err != nil {
		return nil, err
	}
	slices.SortStableFunc(s.found, func(a, b *Negative) int {
		return cmp.Or(a.ReceivedAt.Compare(b.ReceivedAt), cmp.Compare(a.EventID, b.EventID),
			cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	full := map[namedKey]bool{}
	for key, n := range s.counts {
		full[key] = n > MaxNegatives
	}
	return &NegativeList{s.found, full}, nil
}

// negativeSearch collects negatives without effect.
type negativeSearch struct {
	reader    *Reader
	workspace string
	named     *Named
	found     []*Negative
	around    *surroundings
	seen      map[recordPosition]bool // an accepted one can be found by several columns
	refused   map[Refusal]bool        // as is a refused one
	counts    map[namedKey]int        // rows of one table, the most of any
}

const (
	negativeTypes = `type IN ('refund', 'cancellation', 'reversal')`
	// byKeys selects what has a key in a column, each column by an index of its own.
	byKeys = `(event_id IN {ids:Array(String)} OR parent_event_id IN {ids:Array(String)}
		OR order_id IN {orders:Array(String)} OR click_token IN {tokens:Array(String)})`
	// eachKey repeats a row for each of the keys that it has, so that of each key one more
	// than is listed can be read.
	eachKey = `arrayJoin(arrayFilter(k -> k.1 != 0, [
			(toUInt8(event_id IN {ids:Array(String)}), 1, event_id),
			(toUInt8(parent_event_id IN {ids:Array(String)}), 2, parent_event_id),
			(toUInt8(order_id IN {orders:Array(String)}), 3, order_id),
			(toUInt8(click_token IN {tokens:Array(String)}), 4, click_token)])) AS matched`
	limitByKey = "\nLIMIT {each:UInt64} BY matched"
	// ofAllKeys are the keys of byKeys.
	ofAllKeys = "arrayConcat({ids:Array(String)}, {orders:Array(String)}, {tokens:Array(String)})"
)

// readKeys reads the negatives without effect that name, or have, one of the ids, name one
// of the orders, or have one of the tokens. One query of each table does it: each costs
// the look at the indexes of all parts. Whose a conflict is says the first event of its
// id, and not its token.
func (s *negativeSearch) readKeys(ctx context.Context, ids, orders, tokens []string) error {
	args := []any{
		clickhouse.Named("w", s.workspace),
		clickhouse.Named("ids", notNil(ids)),
		clickhouse.Named("orders", notNil(orders)),
		clickhouse.Named("tokens", notNil(tokens)),
		clickhouse.Named("each", MaxNegatives+1),
	}
	var judged, waiting []*Event
	var refused []Refusal
	asking, groupCtx := errgroup.WithContext(ctx)
	asking.Go(func() (err error) {
		judged, err = s.reader.readEvents(groupCtx, s.workspace, `
SELECT `+outcomeColumns+`
FROM
(
	SELECT `+outcomeColumns+`, `+eachKey+`
	FROM outcomes
	WHERE workspace_id = {w:String}
		AND `+negativeTypes+`
		AND verdict IN ('unattributed', 'conflict')
		AND `+outcomesOf(ofAllKeys)+byKeys+`
)
WHERE verdict != 'conflict' OR matched.2 != 4
ORDER BY received_at, event_partition, event_offset`+limitByKey, args)
		return err
	})
	asking.Go(func() (err error) {
		waiting, err = s.reader.readEvents(groupCtx, s.workspace, `
SELECT * EXCEPT matched
FROM
(
	SELECT `+conversionColumns+`, `+eachKey+`
	FROM conversions
	WHERE workspace_id = {w:String}
		AND `+negativeTypes+`
		AND `+conversionsOf(ofAllKeys)+byKeys+`
		AND (src_partition, src_offset) NOT IN
		(
			SELECT event_partition, event_offset
			FROM outcomes
			WHERE workspace_id = {w:String} AND `+outcomesOf(ofAllKeys)+byKeys+`
		)
)
ORDER BY received_at, event_partition, event_offset`+limitByKey, args)
		return err
	})
	asking.Go(func() (err error) {
		refused, err = s.reader.refusedNegatives(groupCtx, args)
		return err
	})
	if err := asking.Wait(); err != nil {
		return err
	}
	s.addAccepted(judged)
	s.addAccepted(waiting)
	s.addRefused(refused)
	return nil
}

func isNegativeType(kind string) bool {
	return slices.Contains(event.Types(), event.Type(kind)) && !event.Type(kind).Positive()
}

// notNil makes an empty array of no keys, for a parameter.
func notNil(keys []string) []string { return append([]string{}, keys...) }

// addAccepted adds the events that one table has, each of them once.
func (s *negativeSearch) addAccepted(events []*Event) {
	var found []*Event
	for _, e := range events {
		if !s.seen[e.position()] {
			s.seen[e.position()] = true
			found = append(found, e)
			s.found = append(s.found, &Negative{Event: e})
		}
	}
	s.countKeys(found)
}

func (s *negativeSearch) addRefused(refused []Refusal) {
	var found []*Event
	for i := range refused {
		if !s.refused[refused[i]] {
			s.refused[refused[i]] = true
			n := &Negative{Event: refused[i].event(), Refusal: &refused[i]}
			found = append(found, n.Event)
			s.found = append(s.found, n)
		}
	}
	s.countKeys(found)
}

// countKeys counts the rows of one table by the keys that they have.
func (s *negativeSearch) countKeys(found []*Event) {
	counts := map[namedKey]int{}
	for column, keys := range s.named.columns() {
		for _, e := range found {
			key := namedKey{column, valueOf(e, column)}
			if keys[key.key] && (column != "click_token" || e.Verdict != string(event.Conflict)) {
				counts[key]++
				s.counts[key] = max(s.counts[key], counts[key])
			}
		}
	}
}

// valueOf is an event's value in a column by which negatives are found.
func valueOf(e *Event, column string) string {
	switch column {
	case "event_id":
		return e.EventID
	case "parent_event_id":
		return e.ParentEventID
	case "order_id":
		return e.OrderID
	}
	return e.ClickToken
}

// dropMended drops what has effect after all, under the same id: it was sent again, or
// is a refused repetition of what was accepted. What was refused for a type that does not
// exist may have been meant as a sale.
func (s *negativeSearch) dropMended(ctx context.Context) error {
	accepted := map[string][]*Event{} // by event id
	var ids []string
	for _, n := range s.found {
		if n.EventID != "" && n.Verdict != string(event.Conflict) {
			ids = append(ids, n.EventID)
		}
		if n.Refusal == nil {
			accepted[n.EventID] = append(accepted[n.EventID], n.Event)
		}
	}
	effective := map[string][]*Event{} // by event id
	err := inChunks(ids, func(ids []string) error {
		rows, err := s.reader.readOutcomes(ctx, s.workspace, outcomesOf(ofIDs)+`event_id IN {ids:Array(String)}
	AND effect != 0
ORDER BY event_partition, event_offset
LIMIT 20 BY event_id, type`, clickhouse.Named("ids", ids))
		for _, e := range rows {
			effective[e.EventID] = append(effective[e.EventID], e)
		}
		return err
	})
	s.found = slices.DeleteFunc(s.found, func(n *Negative) bool {
		isSame := func(e *Event) bool {
			return (!e.isPositive() || !isNegativeType(n.Type)) && s.isOfSame(n.Event, e)
		}
		switch {
		case n.Verdict == string(event.Conflict):
			return false
		case n.Refusal != nil && slices.ContainsFunc(accepted[n.EventID], isSame):
			return true
		}
		return slices.ContainsFunc(effective[n.EventID], isSame)
	})
	return err
}

// isOfSame reports whether e, with the id of a negative without effect, is meant for the
// same: senders exist that give one id to the refunds of all their orders.
func (s *negativeSearch) isOfSame(n, e *Event) bool {
	switch {
	case n.EventID == "":
		return false
	case n.OrderID != "" && e.OrderID != "":
		return n.OrderID == e.OrderID
	case n.ClickToken == e.ClickToken, n.ParentEventID != "" && n.ParentEventID == e.ParentEventID:
		return true
	}
	return slices.ContainsFunc(s.around.sales[n.OrderID], func(sale *Event) bool { return sale.Key() == e.parentKey() })
}

// explainNegatives fills in what each negative waits for, differs in, and could take
// back.
func (s *negativeSearch) explainNegatives(ctx context.Context) error {
	events := make([]*Event, len(s.found))
	for i, n := range s.found {
		events[i] = n.Event
	}
	around, err := s.reader.readSurroundings(ctx, s.workspace, events)
	if err != nil {
		return err
	}
	s.around = around
	contents, err := s.reader.readContents(ctx, s.workspace, events)
	if err != nil {
		return err
	}
	for _, n := range s.found {
		n.Elsewhere = around.elsewhere(n.Event)
		n.orderKnown = len(around.sales[n.OrderID]) > 0
		n.Astray = n.Verdict != string(event.Conflict) &&
			len(around.parents[n.ParentEventID]) == 0 && !n.orderKnown
		for _, sale := range around.sales[n.OrderID] {
			if sale.ClickToken == n.ClickToken && sale.Effect != 0 {
				n.Sales = append(n.Sales, sale)
			}
		}
		switch n.Verdict {
		case "":
			n.Wait = around.waitOf(n.Event)
		case string(event.Conflict):
			first, this := contents.firstOf(n.Event), contents[n.position()]
			n.Differs = differences(first, this)
			n.Repetition = isRepetition(first, this)
		}
	}
	return nil
}

// inChunks calls each for the keys, as many at a time as one parameter can hold.
func inChunks(keys []string, each func(keys []string) error) error {
	keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	for len(keys) > 0 {
		n := FitKeys(keys)
		if err := each(keys[:n]); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// Refusal is what the gateway answered instead of accepting an event.
type Refusal struct {
	EventID       string    `ch:"event_id"`        // may be empty, as the texts below
	ClickToken    string    `ch:"click_token"`     // as it was sent
	Type          string    `ch:"type"`            // as it was sent
	OrderID       string    `ch:"order_id"`        // as it was sent
	ParentEventID string    `ch:"parent_event_id"` // as it was sent
	ReceivedAt    time.Time `ch:"received_at"`     // by the gateway
	Status        uint16    `ch:"status"`          // of the HTTP response
	Code          string    `ch:"code"`            // of the problem
	Field         string    `ch:"field"`           // that is to blame; may be empty
	Detail        string    `ch:"detail"`          // in words; may be empty
}

const refusalColumns = `event_id, click_token, type, order_id, parent_event_id, received_at, status, code, field,
	detail`

// IsNegative reports whether a refused event would have been one that takes something
// back, as far as its type could be read. A type that does not exist is taken for one,
// but for Sale and LEAD.
func (r *Refusal) IsNegative() bool {
	kind := strings.ToLower(strings.TrimSpace(r.Type))
	return kind != "" && !event.Type(kind).Positive()
}

// verdictRefused stands in for the verdict of what was never accepted.
const verdictRefused = "refused"

func (r *Refusal) event() *Event {
	return &Event{
		Verdict:       verdictRefused,
		EventID:       r.EventID,
		ClickToken:    r.ClickToken,
		Type:          r.Type,
		OrderID:       r.OrderID,
		ParentEventID: r.ParentEventID,
		ReceivedAt:    r.ReceivedAt,
	}
}

// Refusals returns the newest refusals of each key of a column, at most so many, the
// newest first. A key that is longer than an id can be finds what was recorded of it.
func (r *Reader) Refusals(ctx context.Context, workspace string, column KeyColumn, keys []string, each int) (
	found []Refusal, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	err = r.conn.Select(ctx, &found, `
SELECT `+refusalColumns+`
FROM rejections
WHERE workspace_id = {w:String} AND `+string(column)+` IN {keys:Array(String)}
ORDER BY received_at DESC, src_offset DESC
LIMIT {each:UInt32} BY `+string(column),
		clickhouse.Named("w", workspace), clickhouse.Named("keys", recordedIDs(keys)), clickhouse.Named("each", each))
	if err != nil {
		return nil, fmt.Errorf("reading rejections: %w", err)
	}
	return found, nil
}

// refusedNegatives reads refused negatives: of those that look the same the newest.
func (r *Reader) refusedNegatives(ctx context.Context, args []any) (found []Refusal, err error) {
	err = r.conn.Select(ctx, &found, `
SELECT `+refusalColumns+`
FROM
(
	SELECT `+refusalColumns+`, `+eachKey+`
	FROM
	(
		SELECT `+refusalColumns+`
		FROM rejections
		WHERE workspace_id = {w:String}
			AND lower(trimBoth(type)) NOT IN ('', 'lead', 'sale')
			AND `+byKeys+`
		ORDER BY received_at DESC, src_offset DESC
		LIMIT 1 BY event_id, click_token, type, order_id, parent_event_id
	)
)
ORDER BY received_at DESC, event_id`+limitByKey, args...)
	if err != nil {
		return nil, fmt.Errorf("reading rejections: %w", err)
	}
	return found, nil
}
