package scenario

import (
	"fmt"
	"slices"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

const (
	storyWindow = 10 * time.Second // of a story's click
	storyFollow = time.Minute      // of its program, where followers may come
	noAmount    = -1
)

// story is a journey in the making: a click, and what its merchant says about it.
type story struct {
	*Generator
	click  *event.Click
	events []*event.Conversion
}

// stories are the journeys in which the rules have to choose. Times are those of
// newStory: a positive counts for ten seconds after the click, and a follower for a
// minute after its origin.
var stories = []func(*story){
	(*story).tellFollowers,
	(*story).tellLostFollowers,
	(*story).tellRepeatedOrder,
	(*story).tellChargebacks,
	(*story).tellEarlyCancellation,
	(*story).tellOneIDForTwo,
	(*story).tellWrongParents,
	(*story).tellDatedBack,
	(*story).tellWaitingSale,
	(*story).tellTwoClasses,
	(*story).tellJumble,
}

func (g *Generator) newStory() *story {
	k := g.Click()
	k.WindowMs = storyWindow.Milliseconds()
	if g.Rand.IntN(4) > 0 {
		k.FollowMs = storyFollow.Milliseconds()
	}
	k.OneSalePerOrder = g.Rand.IntN(3) == 0
	k.RewardTerms = []string{"10%", "10%", "2.50 EUR", ""}[g.Rand.IntN(4)]
	return &story{Generator: g, click: k}
}

// say adds an event that happens some time after the click. minor is its amount in
// cents, or noAmount.
func (s *story) say(typ event.Type, minor int64, after time.Duration) *event.Conversion {
	c := s.Sale(s.click, minor)
	c.Type, c.OrderID = typ, ""
	c.OccurredAt = s.click.ClickedAt.Add(after)
	if minor == noAmount {
		c.AmountMinor, c.Currency, c.Exponent = nil, "", 0
	}
	s.events = append(s.events, c)
	return c
}

// sayOf adds an event that names another.
func (s *story) sayOf(parent *event.Conversion, typ event.Type, minor int64, after time.Duration) *event.Conversion {
	c := s.say(typ, minor, after)
	c.ParentEventID = parent.EventID
	return c
}

// sayByOrder adds an event with an order id.
func (s *story) sayByOrder(order string, typ event.Type, minor int64, after time.Duration) *event.Conversion {
	c := s.say(typ, minor, after)
	c.OrderID = order
	return c
}

// sayAgain adds an event with the id of another, and otherwise its content.
func (s *story) sayAgain(first *event.Conversion) *event.Conversion {
	c := *first
	s.events = append(s.events, &c)
	return &c
}

// steps makes the journey: mostly in order, sometimes in any, the click sometimes late
// or missing, and any of the events late.
func (s *story) steps() []Step {
	if s.Rand.IntN(3) == 0 {
		s.Rand.Shuffle(len(s.events), func(i, k int) { s.events[i], s.events[k] = s.events[k], s.events[i] })
	}
	var steps []Step
	for _, c := range s.events {
		if s.Rand.IntN(3) == 0 {
			c.Metadata = map[string]string{"store": fmt.Sprint("s", s.Rand.IntN(3))}
		}
		c.ContentSHA256 = c.ContentHash()
		steps = append(steps, Step{Event: c, Late: s.Rand.IntN(5) == 0})
	}
	switch click := (Step{Click: s.click}); s.Rand.IntN(10) {
	case 0: // missing
	case 1:
		click.Late = true
		steps = slices.Insert(steps, s.Rand.IntN(len(steps)+1), click)
	default:
		steps = slices.Insert(steps, 0, click)
	}
	return steps
}

// tellFollowers: a lead, the sales that follow from it, one of them at the very end of
// the time for it or just after, and a refund in the middle.
func (s *story) tellFollowers() {
	lead := s.say(event.Lead, noAmount, 2*time.Second)
	first := s.sayOf(lead, event.Sale, 1000, 20*time.Second)
	second := s.sayOf(first, event.Sale, 1000, 40*time.Second)
	end := 2*time.Second + storyFollow + time.Duration(s.Rand.IntN(2))*time.Millisecond
	s.sayOf(second, event.Sale, 1000, end)
	s.sayOf(first, event.Refund, []int64{300, noAmount}[s.Rand.IntN(2)], 45*time.Second)
}

// tellLostFollowers: sales after the window that follow nothing that could be followed.
// One of them is sent again with its parent.
func (s *story) tellLostFollowers() {
	sale := s.say(event.Sale, 1000, 5*time.Second)
	refund := s.sayOf(sale, event.Refund, 300, 6*time.Second)
	outside := s.say(event.Sale, 1000, 15*time.Second)
	lost := s.say(event.Sale, 500, 20*time.Second)
	lost.ParentEventID = []string{"typo", refund.EventID, outside.EventID, lost.EventID}[s.Rand.IntN(4)]
	s.sayAgain(lost).ParentEventID = sale.EventID
}

// tellRepeatedOrder: one order under several ids, perhaps cancelled in between, and a
// refund of it.
func (s *story) tellRepeatedOrder() {
	lead := s.say(event.Lead, noAmount, 2*time.Second)
	first := s.sayByOrder("o", event.Sale, 1000, 3*time.Second)
	if s.Rand.IntN(4) == 0 {
		s.sayByOrder("o", event.Cancellation, noAmount, 4*time.Second)
	}
	second := s.sayByOrder("o", event.Sale, 1000, 5*time.Second)
	second.ParentEventID = []string{"", "typo", lead.EventID, first.EventID}[s.Rand.IntN(4)]
	third := s.sayByOrder("o", event.Sale, 1000, 20*time.Second)
	third.ParentEventID = []string{lead.EventID, first.EventID}[s.Rand.IntN(2)]
	s.sayByOrder("o", event.Refund, []int64{400, noAmount}[s.Rand.IntN(2)], 25*time.Second)
}

// tellChargebacks: two negatives that name the order and nothing else. What looks like a
// second chargeback is sent again as what it is, a won one.
func (s *story) tellChargebacks() {
	s.sayByOrder("o", event.Sale, 1000, 3*time.Second)
	amounts := []int64{1000, 400, noAmount}
	first := s.sayByOrder("o", []event.Type{event.Reversal, event.Reversal, event.Refund}[s.Rand.IntN(3)],
		amounts[s.Rand.IntN(3)], 4*time.Second)
	second := s.sayByOrder("o", event.Reversal, amounts[s.Rand.IntN(3)], 5*time.Second)
	s.sayAgain(second).ParentEventID = first.EventID
	s.sayByOrder("o", event.Reversal, amounts[s.Rand.IntN(3)], 6*time.Second)
}

// tellEarlyCancellation: all is taken back before a part is, and some of it given back.
func (s *story) tellEarlyCancellation() {
	sale := s.say(event.Sale, 1000, 3*time.Second)
	s.sayOf(sale, event.Cancellation, noAmount, 4*time.Second)
	refund := s.sayOf(sale, event.Refund, 400, 5*time.Second)
	s.sayOf(sale, event.Refund, 800, 6*time.Second)
	s.sayOf(refund, event.Reversal, []int64{100, noAmount}[s.Rand.IntN(2)], 7*time.Second)
	s.sayOf(sale, event.Refund, 500, 8*time.Second).Currency = "USD"
}

// tellOneIDForTwo: a merchant whose event ids are order ids.
func (s *story) tellOneIDForTwo() {
	sale := s.sayByOrder("o", event.Sale, 1000, 3*time.Second)
	s.sayAgain(sale).Type = event.Refund
	s.sayAgain(sale).ReasonText = "another"
	s.sayAgain(sale).OccurredAt = sale.OccurredAt.Add([]time.Duration{time.Hour, 25 * time.Hour}[s.Rand.IntN(2)])
	s.sayByOrder("p", event.Sale, 500, 4*time.Second)
	refund := s.sayByOrder("o", event.Refund, 100, 5*time.Second)
	s.sayAgain(refund).OrderID = "p"
}

// tellWrongParents: negatives with a parent that cannot be, sent again with one that
// can.
func (s *story) tellWrongParents() {
	sale := s.sayByOrder("o", event.Sale, 1000, 3*time.Second)
	refund := s.sayOf(sale, event.Refund, 300, 4*time.Second)
	wrong := s.sayByOrder("o", event.Refund, 200, 5*time.Second)
	wrong.ParentEventID = []string{"typo", refund.EventID, wrong.EventID}[s.Rand.IntN(3)]
	s.sayAgain(wrong).ParentEventID = sale.EventID
	s.sayOf(wrong, event.Reversal, noAmount, 6*time.Second)
}

// tellDatedBack: a sale that is reported weeks later, and a refund that is dated before it.
func (s *story) tellDatedBack() {
	if s.Rand.IntN(2) == 0 {
		s.click.ClickedAt = s.click.ClickedAt.Add(-36 * 24 * time.Hour)
	}
	sale := s.say(event.Sale, 1000, 3*time.Second)
	s.sayOf(sale, event.Refund, 300, -25*time.Hour)
	s.sayOf(sale, event.Refund, 300, 4*time.Second)
}

// tellWaitingSale: a cancellation that names nothing, beside a sale that waits for what
// it follows, in time, too late, or in vain.
func (s *story) tellWaitingSale() {
	lead := s.sayByOrder("o", event.Lead, noAmount, 2*time.Second)
	sale := s.sayByOrder("o", event.Sale, 1000, 20*time.Second)
	sale.ParentEventID = "typo"
	cancellation := s.sayByOrder([]string{"o", "p", ""}[s.Rand.IntN(3)], event.Cancellation, noAmount, 21*time.Second)
	if s.Rand.IntN(2) == 0 {
		other := s.sayOf(lead, event.Lead, noAmount, 3*time.Second)
		other.OrderID = cancellation.OrderID
		sale.ParentEventID = other.EventID
	}
}

// tellTwoClasses: of two positives one is too late, and a negative says no more than
// their order, or nothing.
func (s *story) tellTwoClasses() {
	positive, negative := event.Sale, event.Refund
	if s.Rand.IntN(2) == 0 {
		positive, negative = event.Lead, event.Cancellation
	}
	s.sayByOrder("o", positive, 1000, 15*time.Second)
	s.sayByOrder("o", positive, 1000, 3*time.Second)
	s.sayByOrder([]string{"o", ""}[s.Rand.IntN(2)], negative, 300, 20*time.Second)
	s.sayByOrder("", event.Reversal, noAmount, 21*time.Second)
}

// tellJumble: anything, of few ids and orders, so that they meet.
func (s *story) tellJumble() {
	types := append(event.Types(), event.Lead, event.Sale, event.Sale)
	id := func() string { return fmt.Sprint("j", s.Rand.IntN(5)) }
	for range 3 + s.Rand.IntN(6) {
		c := s.say(types[s.Rand.IntN(len(types))], []int64{500, 1000, noAmount}[s.Rand.IntN(3)],
			time.Duration(1+s.Rand.IntN(25))*time.Second)
		c.EventID = id()
		c.OrderID = []string{"", "o", "p"}[s.Rand.IntN(3)]
		if s.Rand.IntN(2) == 0 {
			c.ParentEventID = id()
		}
		if s.Rand.IntN(20) == 0 {
			c.WorkspaceID = "globex"
		}
	}
}
