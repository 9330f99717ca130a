package report

import (
	"cmp"
	"context"
	"slices"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// MaxChain is the most events of one chain that are read, and MaxDepth how many steps
// it is followed up or down.
const (
	MaxChain = 100_000
	MaxDepth = 1000
)

// Below reads everything that was judged to take something back from the given events,
// or to have wanted to, and from those, by its parent. The search ends at MaxDepth or
// MaxChain: cut is true then.
func (r *Reader) Below(ctx context.Context, workspace string, roots []*Event) (children map[EventKey][]*Event,
	cut bool, err error) {
	s := chainSearch{
		reader:    r,
		workspace: workspace,
		children:  map[EventKey][]*Event{},
		opened:    map[EventKey]bool{},
		found:     map[recordPosition]bool{},
	}
	for depth := 0; len(roots) > 0; depth++ {
		if depth == MaxDepth || s.total > MaxChain {
			return s.children, true, nil
		}
		if roots, err = s.readChildren(ctx, roots); err != nil {
			return nil, false, err
		}
	}
	return s.children, false, nil
}

// chainSearch reads chains downwards, one step of all at a time.
type chainSearch struct {
	reader    *Reader
	workspace string
	children  map[EventKey][]*Event   // by the parent's key
	opened    map[EventKey]bool       // whose children are read
	found     map[recordPosition]bool // a row can be found by several queries
	total     int                     // rows that were read
}

// readChildren reads the children of parents, and returns those that may have children
// themselves.
func (s *chainSearch) readChildren(ctx context.Context, parents []*Event) (next []*Event, err error) {
	var tokens, ids []string
	for _, e := range parents {
		if !s.opened[e.Key()] {
			s.opened[e.Key()] = true
			tokens = append(tokens, e.ClickToken)
			ids = append(ids, e.EventID)
		}
	}
	for len(ids) > 0 {
		n := min(FitKeys(ids), FitKeys(tokens))
		rows, err := s.reader.readOutcomes(ctx, s.workspace, outcomesOf(ofTokens)+`click_token IN {tokens:Array(String)}
	AND parent_event_id IN {ids:Array(String)}
	AND verdict IN ('reversed', 'unattributed')
ORDER BY event_partition, event_offset
LIMIT {n:UInt32}`,
			clickhouse.Named("tokens", tokens[:n]),
			clickhouse.Named("ids", ids[:n]),
			clickhouse.Named("n", MaxChain+1-min(s.total, MaxChain)))
		if err != nil {
			return nil, err
		}
		tokens = tokens[n:]
		ids = ids[n:]
		s.total += len(rows)
		next = append(next, s.addRows(rows)...)
	}
	return slices.DeleteFunc(next, func(e *Event) bool { return s.opened[e.Key()] }), nil
}

// addRows adds the rows of a query, and returns those that are new. A query finds the
// children of every pair of its tokens and ids, so also rows that were found before, or
// are below none of the roots.
func (s *chainSearch) addRows(rows []*Event) (added []*Event) {
	for _, e := range rows {
		if s.opened[e.parentKey()] && !s.found[e.position()] {
			s.found[e.position()] = true
			s.children[e.parentKey()] = append(s.children[e.parentKey()], e)
			added = append(added, e)
		}
	}
	return added
}

// StandingAmounts returns the standing amount of every event that has effect, in minor
// units, or in units where it has no amount: its amount less the standing amounts of
// what took back from it in the same currency, never below 0.
func StandingAmounts(events []*Event) map[*Event]int64 {
	// A child's row is written after its parent's, whatever the order of their events
	// is. So in descending order every child is complete before its parent.
	events = slices.Clone(events)
	slices.SortFunc(events, func(a, b *Event) int {
		return cmp.Or(cmp.Compare(b.OutcomeOffset, a.OutcomeOffset), cmp.Compare(a.EventID, b.EventID))
	})
	left := map[*Event]int64{}
	parents := map[EventKey]*Event{}
	for _, e := range events {
		if e.Effect == 0 {
			continue
		}
		parents[e.Key()] = e
		left[e] = 1
		if e.AmountMinor != nil {
			left[e] = *e.AmountMinor
		}
	}
	for _, e := range events {
		if parent := parents[e.parentKey()]; e.Effect != 0 && takesBackFrom(e, parent) {
			left[parent] -= min(left[parent], left[e])
		}
	}
	return left
}

// takesBackFrom reports whether e reduces the standing amount of parent.
func takesBackFrom(e, parent *Event) bool {
	return parent != nil && parent != e &&
		e.ParentEventID != "" &&
		(e.AmountMinor == nil) == (parent.AmountMinor == nil) &&
		e.Currency == parent.Currency
}

// readFirst returns the row that others mean by an id: the one with effect, else the
// first of the log; nil if there is none.
func (r *Reader) readFirst(ctx context.Context, workspace string, key EventKey) (*Event, error) {
	found, err := r.readOutcomes(ctx, workspace, outcomesOf("[{id:String}]")+`click_token = {token:String}
	AND event_id = {id:String}
	AND verdict NOT IN ('duplicate', 'conflict')
ORDER BY effect != 0 DESC, event_partition, event_offset
LIMIT 1`, clickhouse.Named("token", key.Token), clickhouse.Named("id", key.ID))
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// climb goes from an event to the topmost one that find knows. A positive is one: what it
// names it follows, and takes nothing from. Events that wait can name each other in a
// circle. cut is true if it ended at MaxDepth.
func climb(e *Event, find func(EventKey) (*Event, error)) (root *Event, cut bool, err error) {
	seen := map[string]bool{e.EventID: true}
	for e.ParentEventID != "" && !e.isPositive() && !seen[e.ParentEventID] {
		if len(seen) == MaxDepth {
			return e, true, nil
		}
		seen[e.ParentEventID] = true
		parent, err := find(e.parentKey())
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

// ChainStep is an event in a chain.
type ChainStep struct {
	*Event
	Depth    int       // below the root
	Standing *Standing // what is left of the event; nil without effect
}

// layOutChain lays out the tree below root depth first. this is the event that the
// chain is shown for: it appears as itself, and if it has no verdict, last below its
// parent.
func layOutChain(root, this *Event, children map[EventKey][]*Event) (steps []ChainStep) {
	seen := map[recordPosition]bool{}
	opened := map[EventKey]bool{}
	todo := []ChainStep{{Event: root}}
	for len(todo) > 0 {
		step := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if step.position() == this.position() {
			step.Event = this
		}
		if seen[step.position()] {
			continue
		}
		seen[step.position()] = true
		steps = append(steps, step)
		if opened[step.Key()] {
			continue
		}
		opened[step.Key()] = true
		below := children[step.Key()]
		if this.Verdict == "" && this.ParentEventID == step.EventID && this != step.Event {
			below = append(slices.Clone(below), this)
		}
		for _, e := range slices.Backward(below) {
			todo = append(todo, ChainStep{Event: e, Depth: step.Depth + 1})
		}
	}
	return steps
}
