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
	j.setReward(o, &change.root, change.before, change.after)
	return nil
}

func setAmount(e *event.JourneyEvent, minor int64, currency string, exponent int32) {
	e.HasAmount = true
	e.Amount = minor
	e.Currency = currency
	e.Exponent = exponent
}

// rootChange is what a negative changes at the root of its chain.
type rootChange struct {
	root          event.JourneyEvent
	before, after int64 // the root's standing amount, minor units
}

// propagateStanding adds the standing amount of the new child e to the sum of its
// parent, and the change of each event's standing amount to the sum of the next one up.
// It ends at the root, or at a link of the chain that changes nothing.
func (j *journey) propagateStanding(e *event.JourneyEvent, p *parent) (rootChange, error) {
	id, node := p.id, p.event
	childBefore, childAfter := int64(0), e.Standing()
	takes := e.Takes
	for {
		if node.Effect == 0 {
			return rootChange{}, fmt.Errorf("%w: event %q is in a chain but has no effect", event.ErrJourney, id)
		}
		before := node.Standing()
		after := before
		if takes && childBefore != childAfter {
			node.Sum = node.Sum.Replace(childBefore, childAfter)
			after = node.Standing()
			if err := j.writeEvent(id, &node); err != nil {
				return rootChange{}, err
			}
		}
		if node.Type.Positive() {
			return rootChange{root: node, before: before, after: after}, nil
		}
		childBefore, childAfter = before, after
		takes = node.Takes
		id = node.Parent
		if !takes || childBefore == childAfter {
			id = e.RootID() // nothing changes above: only the root is needed, for the reward
		}
		atRoot := id == node.RootID()
		if err := j.readReferencedEvent(id, &node); err != nil {
			return rootChange{}, err
		}
		if atRoot && !node.Type.Positive() {
			return rootChange{}, fmt.Errorf("%w: root %q is a negative", event.ErrJourney, id)
		}
	}
}
