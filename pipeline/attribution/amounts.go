package attribution

import (
	"fmt"

	"github.com/nimriz/partners/schemas/event"
)

// reverse is line 14: what the negative ev takes from p, its row o and its event row e.
// The parent and all above it that stand differently afterwards are written.
func (j *journey) reverse(ev *event.Conversion, o *event.Outcome, e *event.JourneyEvent, p *parent) error {
	e.Effect, e.Parent, e.Takes = -p.row.Effect, p.id, true
	if !p.row.Type.Positive() {
		e.Root = p.row.RootID()
	}
	standing := p.row.Standing()
	var over, mismatch, missing bool
	switch {
	case ev.AmountMinor == nil && !p.row.HasAmount:
		over = standing == 0
	case ev.AmountMinor == nil:
		missing, over = true, standing == 0 && p.row.Amount > 0
		e.HasAmount, e.Amount, e.Currency, e.Exponent = true, standing, p.row.Currency, p.row.Exponent
	default:
		e.HasAmount, e.Amount, e.Currency, e.Exponent = true, *ev.AmountMinor, ev.Currency, ev.Exponent
		mismatch = !p.row.HasAmount || p.row.Currency != e.Currency || p.row.Exponent != e.Exponent
		e.Takes, over = !mismatch, !mismatch && e.Amount > standing
	}
	o.Effect = e.Effect
	if e.HasAmount {
		j.amount = e.Amount
		o.AmountMinor, o.Currency, o.Exponent = &j.amount, e.Currency, e.Exponent
	}
	flag := func(name string, is bool) {
		if is {
			o.Flags = append(o.Flags, name)
		}
	}
	flag(event.FlagOverReversed, over)
	flag(event.FlagCurrencyMismatch, mismatch)
	flag(event.FlagAmountMissing, missing)
	flag(event.FlagParentInferred, p.inferred)

	root, before, after, err := j.carry(e, p)
	if err != nil {
		return err
	}
	j.setReward(o, &root, before, after)
	return nil
}

// carry adds what stands of the new child e to its parent, and the change of what
// stands of that to the next one up, until the root, or a link of the chain that
// changes nothing. It returns the root with what stood of it before and after.
func (j *journey) carry(e *event.JourneyEvent, p *parent) (root event.JourneyEvent, before, after int64, err error) {
	id, node := p.id, p.row
	was, now, takes := int64(0), e.Standing(), e.Takes
	for {
		before = node.Standing()
		after = before
		if takes && was != now {
			node.Sum = node.Sum.Replace(was, now)
			after = node.Standing()
			if err := j.putEvent(id, &node); err != nil {
				return root, 0, 0, err
			}
		}
		if node.Type.Positive() {
			return node, before, after, nil
		}
		was, now, takes = before, after, node.Takes
		if id = node.Parent; !takes || was == now {
			id = e.RootID() // nothing changes above: only its terms are needed
		}
		top := id == node.RootID()
		if err := j.mustEvent(id, &node); err != nil {
			return root, 0, 0, err
		}
		if top && !node.Type.Positive() {
			return root, 0, 0, fmt.Errorf("%w: root %q is a negative", event.ErrJourney, id)
		}
	}
}
