package attribution

import (
	"fmt"

	"github.com/nimriz/partners/schemas/event"
)

// Amounts and standing amounts: section "Amounts" of RULES.md, including over_reversed.

// takeFromParent is line 14: it computes what the negative ev takes from p, and sets
// the amounts of its outcome o and of its event row e. It updates every row up the
// chain whose standing amount changes.
func (j *journey) takeFromParent(ev *event.Conversion, o *event.Outcome, e *event.JourneyEvent, p *parent) error {
	e.Effect = -p.event.Effect
	e.Parent = p.id
	e.Takes = true
	if !p.event.Type.Positive() {
		e.Root = p.event.RootID()
	}
	standing := p.event.Standing()
	switch {
	case ev.AmountMinor == nil && !p.event.HasAmount:
		o.Flags = appendFlag(o.Flags, event.FlagOverReversed, standing == 0)
	case ev.AmountMinor == nil:
		setAmount(e, standing, p.event.Currency, p.event.Exponent)
		o.Flags = appendFlag(o.Flags, event.FlagOverReversed, standing == 0 && p.event.Amount > 0)
		o.Flags = appendFlag(o.Flags, event.FlagAmountMissing, true)
	default:
		setAmount(e, *ev.AmountMinor, ev.Currency, ev.Exponent)
		e.Takes = p.event.HasAmount && p.event.Currency == e.Currency && p.event.Exponent == e.Exponent
		o.Flags = appendFlag(o.Flags, event.FlagOverReversed, e.Takes && e.Amount > standing)
		o.Flags = appendFlag(o.Flags, event.FlagCurrencyMismatch, !e.Takes)
	}
	o.Flags = appendFlag(o.Flags, event.FlagParentInferred, p.inferred)
	o.Flags = appendFlag(o.Flags, event.FlagDatedBack, isDatedBack(ev, p))
	o.Effect = e.Effect
	if e.HasAmount {
		j.amountMinor = e.Amount
		o.AmountMinor = &j.amountMinor
		o.Currency = e.Currency
		o.Exponent = e.Exponent
	}
	change, err := j.propagateStanding(e, p)
	if err != nil {
		return err
	}
	j.setChanges(o, &change)
	return nil
}

// setChanges sets what a row with effect changes of its root: the standing amount, if
// the root has an amount, and the reward.
func (j *journey) setChanges(o *event.Outcome, change *rootChange) {
	if change.root.HasAmount {
		j.standingMinor = change.after - change.before
		o.StandingChangeMinor = &j.standingMinor
	}
	j.setReward(o, change.root, change.before, change.after)
}

func setAmount(e *event.JourneyEvent, minor int64, currency string, exponent int32) {
	e.HasAmount = true
	e.Amount = minor
	e.Currency = currency
	e.Exponent = exponent
}

// rootChange is what a row with effect changes at the root of its chain.
type rootChange struct {
	root          *event.JourneyEvent
	before, after int64 // the root's standing amount, minor units
}

// linkChange is a change of one event's standing amount, as its parent sees it.
type linkChange struct {
	typ           event.Type
	takes         bool // it takes from the parent's standing amount
	before, after int64
}

// isTaken reports whether the change is one of the parent's standing amount, too.
func (c *linkChange) isTaken() bool { return c.takes && c.before != c.after }

// reversals is the change of the parent's number of reversals of which anything stands.
func (c *linkChange) reversals() int64 {
	if c.typ != event.Reversal {
		return 0
	}
	return changeOfWhether(c.before, c.after)
}

// changeOfWhether is 1 if something stands that did not before, and −1 if nothing does
// any more.
func changeOfWhether(before, after int64) int64 {
	switch {
	case before == 0 && after > 0:
		return 1
	case before > 0 && after == 0:
		return -1
	}
	return 0
}

// propagateStanding adds the standing amount of the new child e to the sum of its
// parent, and the change of each event's standing amount to the sum of the next one up.
// It ends at the root, or at a link of the chain that changes nothing. p.event changes
// with its row.
func (j *journey) propagateStanding(e *event.JourneyEvent, p *parent) (rootChange, error) {
	id, node := p.id, &p.event
	child := linkChange{typ: e.Type, takes: e.Takes, after: e.Standing()}
	for {
		if node.Effect == 0 {
			return rootChange{}, fmt.Errorf("%w: event %q is in a chain but has no effect", event.ErrJourney, id)
		}
		before := node.Standing()
		if child.isTaken() {
			node.Sum = node.Sum.Replace(child.before, child.after)
		}
		node.Reversals += child.reversals()
		after := node.Standing()
		if child.isTaken() || child.reversals() != 0 {
			if err := j.writeEvent(id, node); err != nil {
				return rootChange{}, err
			}
		}
		if node.Type.Positive() {
			change := rootChange{root: node, before: before, after: after}
			return change, j.countStanding(&change)
		}
		child = linkChange{typ: node.Type, takes: node.Takes, before: before, after: after}
		id = node.Parent
		if !child.isTaken() && child.reversals() == 0 {
			id = e.RootID() // nothing changes above: only the root is needed, for the reward
		}
		atRoot := id == node.RootID()
		node = new(event.JourneyEvent)
		if err := j.readReferencedEvent(id, node); err != nil {
			return rootChange{}, err
		}
		if atRoot && !node.Type.Positive() {
			return rootChange{}, fmt.Errorf("%w: root %q is a negative", event.ErrJourney, id)
		}
	}
}

// countStanding keeps the count of an order's sales of which something stands, if its
// order row has one.
func (j *journey) countStanding(change *rootChange) error {
	by := changeOfWhether(change.before, change.after)
	if !change.root.SharesOrder || by == 0 {
		return nil
	}
	var o event.JourneyOrder
	if err := j.readOrder(event.Sale, change.root.Order, &o); err != nil {
		return err
	}
	o.Standing += by
	return j.writeOrder(event.Sale, change.root.Order, &o)
}
