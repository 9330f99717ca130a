package rollup

import (
	"slices"

	"github.com/nimriz/partners/schemas/event"
)

// The values of outcomes.standing_basis for rows of rules version 1; see the migration.
const (
	basisChain   = "chain"
	basisAmount  = "amount"
	basisPending = "pending"
)

// chainRow is an outcome with effect.
type chainRow struct {
	offset   uint64 // of the outcome
	eventID  string
	parentID string // of a reversed event
	positive bool   // attributed
	effect   int8   // +1 or −1
	amount   *int64 // minor units; nil: the event counts as one unit
	currency string
	exponent uint8
}

// standingChange is what a row changes of its root's standing amount.
type standingChange struct {
	minor *int64 // nil: the root has no amount
	basis string
}

// offsetGap is [start, end) of a partition of outcomes, of which rows are missing.
type offsetGap struct{ start, end uint64 }

// chainEvent is an event in its chain.
type chainEvent struct {
	chainRow
	parent *chainEvent // nil of a root, and where the parent is missing
	root   *chainEvent // nil where an ancestor is missing
	takes  bool        // it takes from its parent: same currency, or both without amount
	taken  event.Sum   // of the standing amounts of its children that take
}

func (e *chainEvent) standingMinor() int64 {
	whole := int64(1)
	if e.amount != nil {
		whole = *e.amount
	}
	if whole <= 0 || e.taken.High != 0 || e.taken.Low >= uint64(whole) {
		return 0
	}
	return whole - int64(e.taken.Low)
}

// replayToken returns the standing changes of all outcomes with effect of one token, in
// order of their offsets.
func replayToken(rows []chainRow, gaps []offsetGap) []standingChange {
	events := make(map[string]*chainEvent, len(rows))
	changes := make([]standingChange, len(rows))
	for i := range rows {
		e := &chainEvent{chainRow: rows[i]}
		if e.positive {
			e.root = e
		} else if e.parent = events[e.parentID]; e.parent != nil {
			e.root = e.parent.root
			e.takes = (e.amount == nil) == (e.parent.amount == nil) &&
				e.currency == e.parent.currency && e.exponent == e.parent.exponent
		}
		events[e.eventID] = e
		changes[i] = e.addToChain(gaps)
	}
	return changes
}

// addToChain takes e's amount from its ancestors, up to the first that stays as it is.
func (e *chainEvent) addToChain(gaps []offsetGap) standingChange {
	if e.positive {
		return standingChange{e.amount, basisChain}
	}
	if e.root == nil || e.root.missesRows(e.offset, gaps) {
		return standingChange{e.netAmount(), basisAmount}
	}
	rootBefore := e.root.standingMinor()
	before, after := int64(0), e.standingMinor()
	for at := e; at.parent != nil && at.takes && before != after; at = at.parent {
		p := at.parent
		parentBefore := p.standingMinor()
		p.taken = p.taken.Replace(before, after)
		before, after = parentBefore, p.standingMinor()
	}
	if e.root.amount == nil {
		return standingChange{nil, basisChain}
	}
	change := e.root.standingMinor() - rootBefore
	return standingChange{&change, basisChain}
}

// netAmount is effect × amount.
func (e *chainEvent) netAmount() *int64 {
	if e.amount == nil {
		return nil
	}
	net := int64(e.effect) * *e.amount
	return &net
}

// missesRows reports whether rows that may belong to e's chain are missing between e
// and an offset.
func (e *chainEvent) missesRows(until uint64, gaps []offsetGap) bool {
	return slices.ContainsFunc(gaps, func(g offsetGap) bool { return g.end > e.offset && g.start < until })
}
