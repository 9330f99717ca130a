package report

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
)

// OrderCount is how often an order counts.
type OrderCount struct {
	OrderID string
	// Sales that count for the order, in the order of receipt: at most MaxSame.
	Sales    []*Event
	More     bool // there are more
	Standing int  // of how many of Sales something stands
}

// Times is how often the order counts; if there are more sales, at least so often.
func (c OrderCount) Times() int { return len(c.Sales) }

// CountOrders tells how often orders count, in the whole workspace. Orders without a sale
// that has effect are not in the answer.
func (r *Reader) CountOrders(ctx context.Context, workspace string, orders []string) (map[string]OrderCount, error) {
	sales := map[string][]*Event{}
	var several []*Event
	err := inChunks(orders, func(orders []string) error {
		rows, err := r.readOutcomes(ctx, workspace, outcomesOf(ofKeys)+`order_id IN {keys:Array(String)}
	AND type = 'sale'
	AND verdict = 'attributed'
ORDER BY received_at, event_partition, event_offset
LIMIT {each:UInt64} BY order_id`, clickhouse.Named("keys", orders), clickhouse.Named("each", MaxSame+1))
		for _, e := range rows {
			sales[e.OrderID] = append(sales[e.OrderID], e)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, all := range sales {
		if len(all) > 1 {
			several = append(several, all...)
		}
	}
	children, _, err := r.Below(ctx, workspace, several)
	if err != nil {
		return nil, err
	}
	counts := map[string]OrderCount{}
	for order, all := range sales {
		counts[order] = CountSales(order, all, children)
	}
	return counts, nil
}

// CountSales is the count of sales of an order, or of another group of events.
func CountSales(order string, sales []*Event, children map[EventKey][]*Event) OrderCount {
	c := OrderCount{OrderID: order, Sales: countedSales(sales, children)}
	if c.More = len(sales) > MaxSame; len(c.Sales) > MaxSame {
		c.Sales = c.Sales[:MaxSame]
	}
	for _, sale := range c.Sales {
		if IsLeft(sale, WithDescendants(sale, children)) {
			c.Standing++
		}
	}
	return c
}

// countedSales returns which of the sales of one order count for it, in the order of
// receipt: not those that follow an earlier one under their token, nor those of which
// nothing stood any more when the next one came, and nothing stands now. children are
// what was taken back of them. Of what stands, it is the view order_reuse.
func countedSales(sales []*Event, children map[EventKey][]*Event) (counted []*Event) {
	sales = slices.Clone(sales)
	slices.SortFunc(sales, func(a, b *Event) int {
		return cmp.Or(a.ReceivedAt.Compare(b.ReceivedAt), cmp.Compare(a.Partition, b.Partition),
			cmp.Compare(a.Offset, b.Offset))
	})
	for i, sale := range sales {
		follows := sale.ParentEventID != "" && slices.ContainsFunc(sales, func(other *Event) bool {
			return other.Key() == sale.parentKey() && other.Offset < sale.Offset
		})
		if follows {
			continue
		}
		stood := slices.Contains(sale.Flags, event.FlagOrderRepeated) ||
			slices.ContainsFunc(sales[:i], func(before *Event) bool {
				return stoodAt(before, children, sale.ReceivedAt)
			})
		if !stood { // it takes the place of what was taken back, and not given back since
			counted = slices.DeleteFunc(counted, func(before *Event) bool {
				return !IsLeft(before, WithDescendants(before, children))
			})
		}
		counted = append(counted, sale)
	}
	return counted
}

// stoodAt reports whether anything of a sale stood at a time.
func stoodAt(sale *Event, children map[EventKey][]*Event, at time.Time) bool {
	var until []*Event
	for _, e := range WithDescendants(sale, children) {
		if e == sale || e.ReceivedAt.Before(at) {
			until = append(until, e)
		}
	}
	return IsLeft(sale, until)
}

// WithDescendants is an event with all that has effect below it. It ends: only one row of
// an id has effect, and no event is its own ancestor.
func WithDescendants(root *Event, children map[EventKey][]*Event) []*Event {
	all := []*Event{root}
	for i := 0; i < len(all); i++ {
		for _, e := range children[all[i].Key()] {
			if e.Effect != 0 {
				all = append(all, e)
			}
		}
	}
	return all
}

// IsLeft reports whether something of root is left after everything that took back from
// it: all is root with that. Of an amount of 0 nothing is, as in the rules.
func IsLeft(root *Event, all []*Event) bool { return StandingAmounts(all)[root] > 0 }
