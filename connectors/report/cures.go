package report

import (
	"strconv"

	"github.com/nimriz/partners/schemas/event"
)

// Subject is the negative in a few words, such as refund "r1" of 100.00 EUR.
func (n *Negative) Subject() string {
	text := n.Kind()
	if n.EventID != "" {
		text += " " + strconv.Quote(n.EventID)
	}
	if m := n.Amount(); m != nil {
		text += " of " + m.String()
	}
	return text
}

// Kind is the type of a negative; a refused one may have any.
func (n *Negative) Kind() string {
	if isNegativeType(n.Type) {
		return n.Type
	}
	return "event of type " + strconv.Quote(n.Type)
}

// State is how far the negative has come, in one word: judged, waiting, overdue, or
// refused.
func (n *Negative) State() string {
	if n.Refusal != nil {
		return "refused"
	}
	return n.Wait.state()
}

// Words says why the negative has no effect and what would cure that, with ids and
// tokens: for the workspace's own readers.
func (n *Negative) Words() string {
	advice, detail := n.cure()
	if detail != "" {
		advice += ": " + detail
	}
	named := Naming{n.ParentEventID, n.OrderID}
	names := " (it names " + named.String()
	if n.Astray {
		names += ", so it may be of any sale of its token"
	}
	return "received, without effect: " + n.why() + names + "); " + advice
}

// WordsForPartner is Words without any id or token.
func (n *Negative) WordsForPartner() string {
	advice, _ := n.cure()
	return "received, without effect: " + n.whyForPartner() + "; " + advice
}

// why is the reason, with ids and tokens.
func (n *Negative) why() string {
	switch {
	case n.Refusal != nil:
		return "refused by the gateway: " + n.Refusal.Words()
	case n.Wait != nil && n.Wait.Overdue:
		return n.Wait.Words()
	case n.Wait != nil:
		return "waiting: " + n.Wait.Words()
	case n.Verdict == string(event.Conflict):
		return "conflict: " + n.Event.Words() + differsWords(n.Differs)
	case n.Reason == event.ReasonParentNotFound && len(n.Elsewhere) > 0:
		return n.Reason + ": " + elsewhereWords(n.ParentEventID, n.OrderID, n.Elsewhere)
	case len(n.Elsewhere) > 0:
		return n.Reason + ": " + n.Event.Words() + "; " + elsewhereWords(n.ParentEventID, n.OrderID, n.Elsewhere)
	}
	return n.Reason + ": " + n.Event.Words()
}

func (n *Negative) whyForPartner() string {
	switch {
	case n.Refusal != nil:
		return "refused by the gateway: " + n.Refusal.WordsForPartner()
	case n.Wait != nil && n.Wait.Overdue:
		return "its row is missing"
	case n.Wait != nil && n.Wait.For == WaitsForClick:
		return "waiting for its click"
	case n.Wait != nil && n.Wait.For == WaitsForParent:
		return "waiting for its parent"
	case n.Wait != nil:
		return "waiting for its verdict"
	case n.Verdict == string(event.Conflict):
		return "conflict: an event with its id and other content came first"
	}
	return n.Reason + ": " + ReasonWords(n.Reason)
}

// cure is what would give the negative its effect, and the ids and tokens for that.
func (n *Negative) cure() (advice, detail string) {
	const withToken = "send it again with the token of what it takes back"
	switch {
	case n.Refusal != nil && n.Refusal.Status == 401:
		return "send it again, signed anew", ""
	case n.Refusal != nil:
		return "send it again, mended", ""
	case n.Wait != nil:
		return n.cureOfWait()
	case n.Repetition:
		return "nothing to cure: the first event of its id is the same negative", ""
	case n.Verdict == string(event.Conflict):
		return "send it again under an event_id of its own", ""
	}
	switch n.Reason {
	case event.ReasonParentNotFound:
		return n.cureOfParent("send it again under its id")
	case event.ReasonWrongParent:
		return "send it again under its id, with a parent_event_id that it can take back: a refund or cancellation " +
			"takes back a sale or lead", n.saleIDs()
	case event.ReasonParentAmbiguous:
		return "send it again under its id, with the parent_event_id of what it takes back", n.saleIDs()
	case event.ReasonParentUnattributed:
		return "nothing to cure, unless it means another event: then send it again under another event_id, with the " +
			"parent_event_id of that", n.saleIDs()
	case event.ReasonClickNotFound, event.ReasonWorkspaceMismatch:
		return withToken, n.tokens()
	}
	if len(n.Elsewhere) > 0 {
		return withToken, n.tokens()
	}
	return "nothing can be sent for its token any more: settle it outside of the ledger", ""
}

func (n *Negative) cureOfWait() (advice, detail string) {
	const withToken = "send it again with the token of what it takes back"
	switch {
	case n.Wait.Overdue:
		return "it is lost, and sending it again does not help: the operator has to look at ConservationBroken", ""
	case n.Wait.Withheld:
		return withToken, n.tokens()
	case n.Wait.For == WaitsForClick:
		return "nothing, if its click comes in time; else " + withToken, n.tokens()
	case n.Wait.For == WaitsForProcessor:
		return "nothing to cure yet: wait for its verdict", ""
	case n.Wait.ParentWaits:
		return "nothing, if its parent counts in the end", ""
	}
	return n.cureOfParent("nothing, if its parent comes in time; else, once the wait is over, send it again under " +
		"its id")
}

// cureOfParent is the cure of what names no parent that exists under its token.
func (n *Negative) cureOfParent(again string) (advice, detail string) {
	if len(n.Elsewhere) > 0 {
		return "send it again with the token of its parent", n.tokens()
	}
	return again + ", with the parent_event_id of what it takes back", n.saleIDs()
}

// saleIDs are the sales that a negative may mean.
func (n *Negative) saleIDs() string {
	var ids []string
	for _, sale := range n.Sales {
		ids = append(ids, strconv.Quote(sale.EventID))
	}
	return joinSome(ids)
}

// tokens are those under which the parent is, or a sale of the order.
func (n *Negative) tokens() string {
	var tokens []string
	for _, e := range n.Elsewhere {
		tokens = append(tokens, e.ClickToken)
	}
	return joinSome(tokens)
}
