package dispute

import (
	"fmt"
	"slices"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/event"
)

// addWarnings puts beside a finding what makes its money doubtful: negatives without
// effect, and that its order counts several times.
func (d *Dispute) addWarnings(f *Finding, column report.KeyColumn, key string, ev *evidence) {
	named := report.NewNamed()
	named.AddKey(column, key)
	f.tokens = map[string]bool{}
	var positives []*report.Event // of an event id, under whatever token
	for _, e := range ev.judged[key] {
		if e.Verdict != string(event.Attributed) {
			continue
		}
		positives = append(positives, e)
		if d.isHere(e.PartnerID) {
			f.tokens[e.ClickToken] = true
		}
		if !d.hides(e) {
			for _, below := range report.WithDescendants(e, ev.children) {
				named.AddEvent(below)
			}
		}
		if count := ev.counts[e.OrderID]; count.Times() > 1 && (f.Counted == nil || count.Times() > f.Counted.Times()) {
			f.Counted = &count
		}
	}
	f.WithoutEffect, f.MoreWithoutEffect = ev.negatives.Of(named)
	if column == report.ByEventID && f.Counted == nil {
		if count := report.CountSales("", positives, ev.children); count.Times() > 1 {
			f.Counted = &count
		}
	}
}

// kindWithoutEffect is the type of the negatives without effect of a finding: a refund if
// one of them is; "" if nothing is missing.
func (f *Finding) kindWithoutEffect() (kind event.Type) {
	for _, n := range f.WithoutEffect {
		switch {
		case n.Repetition:
		case n.Type == string(event.Refund):
			return event.Refund
		case kind != "":
		case n.Type == string(event.Cancellation), n.Type == string(event.Reversal):
			kind = event.Type(n.Type)
		default: // refused for its type
			return event.Refund
		}
	}
	return kind
}

// countedWords says that an order counts several times. A partner learns the ids of
// their own events alone.
func (d *Dispute) countedWords(c *report.OrderCount) string {
	if c == nil {
		return ""
	}
	if d.partner == "" {
		return "; " + c.Words()
	}
	own := *c
	own.Sales = nil
	others := 0
	for _, sale := range c.Sales {
		if d.isHere(sale.PartnerID) {
			own.Sales = append(own.Sales, sale)
		} else {
			others++
		}
	}
	words := "; " + c.Counted()
	if len(own.Sales) > 0 {
		words += ": " + own.IDs()
	}
	if others > 0 {
		words += fmt.Sprintf("; %d of them not of this partner", others)
	}
	return words
}

// conflictWords names what came under the id of a sale with other money, and does not
// count: such as an order that was raised. Negatives are listed elsewhere.
func (d *Dispute) conflictWords(copies []*report.Event) string {
	var others []string
	for _, e := range copies {
		if isPositive(e) && slices.Contains(e.Flags, event.FlagMoneyDiffers) && !d.hides(e) {
			text := e.EventID + " as a " + e.Type
			if m := e.Amount(); m != nil {
				text += " of " + m.String()
			}
			others = append(others, text)
		}
	}
	if len(others) == 0 {
		return ""
	}
	return "; came again with other content, which does not count: " + nameSeveral(others)
}
