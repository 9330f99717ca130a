package report

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
)

// MaxSame is how many records with one event id or order id an answer names, and how many
// refusals.
const MaxSame = 20

// maxNamed is how many events of its chains are looked for in negatives.
const maxNamed = 1000

// Answer is all that is known about an event id, or about an order id.
type Answer struct {
	Workspace   string    // id
	Column      KeyColumn // of what was asked for
	Key         string    // that was asked for
	Records     []*Record // with this id, in the order of receipt: at most MaxSame
	More        bool      // there are more records than these
	Refused     []Refusal // by the gateway, the newest first: at most MaxSame
	MoreRefused bool      // there are more refusals than these
	Tokens      int       // under which an event id has effect; several: it counts several times
	// Negatives that were received without effect and belong to the records, to the
	// events of their chains, or to their orders: at most MaxNegatives.
	Negatives     []*Negative
	MoreNegatives bool         // there are, or may be, more negatives than these
	Counted       []OrderCount // of the records' orders, those that count several times
	// Similar is what may have been meant, if nothing is known about the key.
	Similar []Question
	// Dropped says which rows are gone: records, chains, counts and negatives are of the
	// rest.
	Dropped ledger.Dropped
}

// IsEmpty reports whether nothing is known about what was asked for.
func (a *Answer) IsEmpty() bool {
	return len(a.Records) == 0 && len(a.Refused) == 0 && len(a.Negatives) == 0
}

// Record is one record with the asked id, and why it counts as it does.
type Record struct {
	*Event
	Snapshot  *Click       // the click, that of the verdict where there is one; nil: unknown here
	Wait      *Wait        // what the event waits for; nil once there is a verdict
	Named     *Naming      // what the event named; nil: it is not known
	Elsewhere []*Event     // of what found no parent, under other tokens: the parent, else sales of its order
	Differs   []Difference // of a conflict: from the first event of its id
	Chain     []ChainStep  // from the root down, depth first; empty for a duplicate or conflict
	ChainCut  bool         // the chain is longer than MaxChain or MaxDepth: no standing amount is known
}

// Naming is what an event named, as the merchant sent it.
type Naming struct{ Parent, Order string }

// Standing is what is left of an event: an amount, or, without one, one unit or none.
type Standing struct {
	Money *Money // nil: the event has no amount
	Unit  bool   // something is left
}

// Why collects what is known about an event id, or about an order id.
func (r *Reader) Why(ctx context.Context, workspace string, column KeyColumn, key string) (*Answer, error) {
	answer := &Answer{Workspace: workspace, Column: column, Key: key}
	var judged, received []*Event
	asking, groupCtx := errgroup.WithContext(ctx)
	asking.Go(func() (err error) {
		answer.Dropped, err = r.Dropped(groupCtx)
		return err
	})
	asking.Go(func() (err error) {
		judged, received, err = r.readSame(groupCtx, workspace, column, key)
		return err
	})
	asking.Go(func() (err error) {
		answer.Refused, err = r.Refusals(groupCtx, workspace, column, []string{key}, MaxSame+1)
		return err
	})
	err := asking.Wait()
	if err != nil {
		return nil, err
	}
	if column == ByEventID {
		if answer.Tokens, err = r.countTokens(ctx, workspace, key, judged); err != nil {
			return nil, err
		}
	}
	events := mergeRecords(judged, received)
	if len(events) > MaxSame {
		events = events[:MaxSame]
		answer.More = true
	}
	if len(answer.Refused) > MaxSame {
		answer.Refused = answer.Refused[:MaxSame]
		answer.MoreRefused = true
	}
	if err := r.explainRecords(ctx, answer, events); err != nil {
		return nil, err
	}
	sent := map[recordPosition]*Event{}
	for _, e := range received {
		sent[e.position()] = e
	}
	for _, record := range answer.Records {
		record.Named = namingOf(record.Event, sent[record.position()])
	}
	if err := r.addNegatives(ctx, answer); err != nil {
		return nil, err
	}
	if answer.IsEmpty() {
		answer.Similar, err = r.readSimilar(ctx, workspace, Question{column, key})
	}
	return answer, err
}

// explainRecords makes records of events.
func (r *Reader) explainRecords(ctx context.Context, answer *Answer, events []*Event) error {
	var tokens []string
	for _, e := range events {
		tokens = append(tokens, e.ClickToken)
	}
	var clicks map[string]*Click
	var around *surroundings
	var contents contentsByPosition
	var journeys *journeys
	asking, groupCtx := errgroup.WithContext(ctx)
	asking.Go(func() (err error) {
		clicks, err = r.Clicks(groupCtx, answer.Workspace, tokens)
		return err
	})
	asking.Go(func() (err error) {
		around, err = r.readSurroundings(groupCtx, answer.Workspace, events)
		return err
	})
	asking.Go(func() (err error) {
		contents, err = r.readContents(groupCtx, answer.Workspace, events)
		return err
	})
	asking.Go(func() (err error) {
		journeys, err = r.readJourneys(groupCtx, answer.Workspace, events)
		return err
	})
	asking.Go(func() error { return r.countOrdersOf(groupCtx, answer, events) })
	if err := asking.Wait(); err != nil {
		return err
	}
	for _, e := range events {
		record := &Record{Event: e, Snapshot: clicks[e.ClickToken]}
		if e.At != nil {
			record.Snapshot = &e.Click
		}
		switch event.Verdict(e.Verdict) {
		case "":
			record.Wait = around.waitOf(e)
		case event.Conflict:
			record.Differs = differences(contents.firstOf(e), contents[e.position()])
		case event.Unattributed:
			record.Elsewhere = around.elsewhere(e)
		}
		answer.Records = append(answer.Records, record)
	}
	return r.addChains(ctx, answer, journeys)
}

// countOrdersOf adds the orders of events that count several times.
func (r *Reader) countOrdersOf(ctx context.Context, answer *Answer, events []*Event) error {
	var orders []string
	for _, e := range events {
		if e.OrderID != "" {
			orders = append(orders, e.OrderID)
		}
	}
	counts, err := r.CountOrders(ctx, answer.Workspace, orders)
	for _, order := range slices.Sorted(maps.Keys(counts)) {
		if counts[order].Times() > 1 {
			answer.Counted = append(answer.Counted, counts[order])
		}
	}
	return err
}

// addNegatives adds to an answer the negatives without effect, which make its standing
// amounts doubtful.
func (r *Reader) addNegatives(ctx context.Context, answer *Answer) error {
	named := NewNamed()
	named.AddKey(answer.Column, answer.Key)
	cut := false
	for _, record := range answer.Records {
		named.AddEvent(record.Event)
		for _, step := range record.Chain {
			if len(named.ids) >= maxNamed {
				cut = true
				break
			}
			if step.Effect != 0 {
				named.AddEvent(step.Event)
			}
		}
	}
	negatives, err := r.Negatives(ctx, answer.Workspace, named)
	if err != nil {
		return err
	}
	answer.Negatives, answer.MoreNegatives = negatives.Of(named)
	answer.MoreNegatives = answer.MoreNegatives || cut
	return nil
}

// namingOf is what an event named, if it is a negative or follows another. sent is its
// record in `conversions`, nil if that is not at hand: then only rows without a parent
// that was found say it.
func namingOf(e, sent *Event) *Naming {
	switch {
	case e.isPositive() && e.ParentEventID == "":
		return nil
	case sent != nil:
		return &Naming{sent.ParentEventID, sent.OrderID}
	case e.Effect == 0 && e.ParentType == "":
		return &Naming{e.ParentEventID, e.OrderID}
	}
	return nil
}

// readSame reads the records with an event id or order id, in the order of receipt: of
// those that are judged and of those that were received at most MaxSame + 1.
func (r *Reader) readSame(ctx context.Context, workspace string, column KeyColumn, key string) (judged,
	received []*Event, err error) {
	args := []any{clickhouse.Named("keys", []string{key}), clickhouse.Named("n", MaxSame+1)}
	having := string(column) + " IN {keys:Array(String)}"
	asking, groupCtx := errgroup.WithContext(ctx)
	asking.Go(func() (err error) {
		judged, err = r.readOutcomes(groupCtx, workspace, outcomesOf(ofKeys)+having+`
ORDER BY received_at, event_partition, event_offset
LIMIT {n:UInt32}`, args...)
		return err
	})
	asking.Go(func() (err error) {
		received, err = r.readConversions(groupCtx, workspace, conversionsOf(ofKeys)+having+`
ORDER BY received_at, src_partition, src_offset
LIMIT {n:UInt32}`, args...)
		return err
	})
	err = asking.Wait()
	return judged, received, err
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

// countTokens returns under how many tokens an event id has effect. judged are its rows,
// as readSame reads them.
func (r *Reader) countTokens(ctx context.Context, workspace, eventID string, judged []*Event) (int, error) {
	if len(judged) <= MaxSame {
		tokens := map[string]bool{}
		for _, e := range judged {
			if e.Effect != 0 {
				tokens[e.ClickToken] = true
			}
		}
		return len(tokens), nil
	}
	var found []struct {
		Tokens uint64 `ch:"tokens"`
	}
	err := r.conn.Select(ctx, &found, `
SELECT uniqExact(click_token) AS tokens
FROM outcomes
WHERE workspace_id = {w:String} AND `+outcomesOf("[{id:String}]")+`event_id = {id:String} AND effect != 0`,
		clickhouse.Named("w", workspace), clickhouse.Named("id", eventID))
	if err != nil {
		return 0, fmt.Errorf("counting tokens: %w", err)
	}
	return int(found[0].Tokens), nil
}

// maxChains is how many chains are read at the same time.
const maxChains = 4

// addChains fills in the chains of the records.
func (r *Reader) addChains(ctx context.Context, answer *Answer, journeys *journeys) error {
	asking, groupCtx := errgroup.WithContext(ctx)
	asking.SetLimit(maxChains)
	for _, record := range answer.Records {
		if !hasChain(record.Event) {
			continue
		}
		if root, children, ok := journeys.chainOf(record.Event); ok {
			record.Chain = layOutChain(root, record.Event, children)
			addStandingAmounts(record.Chain)
			continue
		}
		asking.Go(func() error {
			if err := r.addChain(groupCtx, answer.Workspace, record); err != nil {
				return fmt.Errorf("explaining conversions %d/%d: %w", record.Partition, record.Offset, err)
			}
			return nil
		})
	}
	return asking.Wait()
}

// hasChain reports whether an event has a chain of its own. That of a duplicate or
// conflict is the chain of the first event with its id.
func hasChain(e *Event) bool {
	verdict := event.Verdict(e.Verdict)
	return verdict != event.Duplicate && verdict != event.Conflict
}

// addChain searches the chain of an event whose journey is too long to be read whole.
func (r *Reader) addChain(ctx context.Context, workspace string, record *Record) error {
	root, cutAbove, err := climb(record.Event, func(key EventKey) (*Event, error) {
		return r.readFirst(ctx, workspace, key)
	})
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
