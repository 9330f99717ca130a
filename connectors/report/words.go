package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
)

// Span writes a duration with days, to the millisecond: 1d2h, 1ms.
func Span(d time.Duration) string {
	d = d.Truncate(time.Millisecond)
	days := d / (24 * time.Hour)
	rest := d % (24 * time.Hour)
	text := rest.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	switch {
	case days == 0:
		return text
	case rest == 0:
		return fmt.Sprintf("%dd", days)
	}
	return fmt.Sprintf("%dd%s", days, text)
}

// offsetText is an offset, or ? if it is not known.
func offsetText(o *uint64) string {
	if o == nil {
		return "?"
	}
	return fmt.Sprint(*o)
}

// ReasonWords explains a reason of an unattributed event.
func ReasonWords(reason string) string {
	switch reason {
	case event.ReasonExpired:
		return "it came when the click, or the last event of its token, was too old to be answered for"
	case event.ReasonClickNotFound:
		return "no click with this token came in time"
	case event.ReasonWorkspaceMismatch:
		return "the click belongs to another workspace"
	case event.ReasonTokenFull:
		return "its token already has as many events as one may have"
	case event.ReasonBeforeClick:
		return "it happened more than 5 minutes before the click"
	case event.ReasonOutsideWindow:
		return "it happened after the click's window"
	case event.ReasonWrongParent:
		return "it names itself, or something that takes back, and is no reversal"
	case event.ReasonParentAmbiguous:
		return "it names no parent, and several events could be it"
	case event.ReasonParentNotFound:
		return "the event that it names did not come in time"
	case event.ReasonParentUnattributed:
		return "the event that it names is itself not attributed"
	case event.ReasonGivenUp:
		return "an operator gave up the journey of its token, which could not be read"
	case event.ReasonOrderRepeated:
		return "its order has a sale already, and the program counts one for each order"
	}
	return reason
}

// Words explains the verdict of an event.
func (e *Event) Words() string {
	switch event.Verdict(e.Verdict) {
	case event.Attributed:
		if e.PartnerID == "" {
			return "it counts, for a link without partner"
		}
		return "it counts for the click's partner"
	case event.Reversed:
		if e.Effect > 0 {
			return "it takes back what had taken something back, so it counts again"
		}
		return "it takes back from " + e.ParentEventID
	case event.Duplicate:
		return fmt.Sprintf("the same event, with the same content, is at conversions %d/%s",
			e.Partition, offsetText(e.FirstOffset))
	case event.Conflict:
		return fmt.Sprintf("an event with this id and other content is at conversions %d/%s, and stays",
			e.Partition, offsetText(e.FirstOffset))
	case event.Unattributed:
		words := ReasonWords(e.Reason)
		switch late := e.TooLate(); {
		case e.IsLateFollower():
			words += ", and too late to follow " + e.ParentEventID
		case e.Reason == event.ReasonOutsideWindow && late > 0:
			words += ", by " + Span(late)
		}
		return words
	}
	return "no verdict yet"
}

// FlagWords explains a flag.
func FlagWords(flag string) string {
	switch flag {
	case event.FlagBotClick:
		return "the click looks like a bot's"
	case event.FlagPartnerReview:
		return "the partner was not approved and active when the link was clicked"
	case event.FlagNoPartner:
		return "the link has no partner"
	case event.FlagTooFast:
		return "it happened less than a second after the click, or before it"
	case event.FlagOverReversed:
		return "it takes back more than was left"
	case event.FlagCurrencyMismatch:
		return "it is in another currency than what it takes back, or only one of the two has an amount: nothing " +
			"is taken from what is left of that"
	case event.FlagAmountMissing:
		return "it came without amount: it takes back what was left"
	case event.FlagParentInferred:
		return "it did not name what it takes back: that was inferred"
	case event.FlagWithoutEffect:
		return "something was taken back, and the ledger did not take it"
	case event.FlagMoneyDiffers:
		return "it differs from the first event of this id in type, amount, currency, order, parent or day"
	case event.FlagOrderRepeated:
		return "its order has an earlier sale that still stands: it may be counted twice"
	case event.FlagDatedBack:
		return "it is dated before the day of what it takes back, or more than 35 days before it was received: " +
			"a closed month may have changed"
	}
	return flag
}

// TokenWords explains why a click's token was not shown to the merchant.
func TokenWords(reason string) string {
	switch reason {
	case "tracking_off":
		return "the link has no conversion tracking"
	case "not_entitled":
		return "the workspace was not entitled to conversion tracking"
	case "signed_url":
		return "the destination is a signed URL, which a parameter would break"
	case "oauth":
		return "the destination is a step of a sign-in, which a parameter could break"
	case "scheme":
		return "the destination is neither http nor https"
	case "semicolon_query":
		return "the destination's query is separated by semicolons"
	case "reserved_present":
		return "the destination already has the parameter"
	case "link_setting":
		return "the link says never"
	case "no_token_key":
		return "the redirector had no token key of the workspace"
	}
	return reason
}

// Words is the code of a refusal, with the field and the detail that the gateway named.
func (r *Refusal) Words() string {
	text := r.Code
	if r.Field != "" {
		text += " in " + r.Field
	}
	if r.Detail != "" {
		text += " (" + r.Detail + ")"
	}
	return text
}

// WordsForPartner is Words without the detail, which quotes what was sent.
func (r *Refusal) WordsForPartner() string {
	public := *r
	public.Detail = ""
	return public.Words()
}

// Words explains what an event waits for, and until when.
func (w *Wait) Words() string {
	if w.Overdue {
		return "its row is missing: its wait is over, the processor is past it, and the tables have no verdict"
	}
	text := w.what()
	if w.Until != nil && w.For != WaitsForProcessor {
		text += ", until " + ledger.FormatTime(*w.Until)
	}
	if !w.Read {
		text += "; as far as the tables go, the processor has not read it yet"
	}
	return text
}

func (w *Wait) what() string {
	switch {
	case w.Withheld:
		return "its click is known, but the token was not shown because " + TokenWords(w.TokenReason) +
			": it waits in vain"
	case w.For == WaitsForClick:
		return "it waits for its click"
	case w.For == WaitsForProcessor:
		return "nothing that it needs is missing: it is about to be judged"
	case w.ParentWaits:
		return "it waits for its parent " + strconv.Quote(w.Parent) + ", which waits itself"
	case len(w.Elsewhere) > 0:
		return elsewhereWords(w.Parent, w.Order, w.Elsewhere) + "; under its own, it waits"
	case w.Parent != "":
		return "it waits for its parent " + strconv.Quote(w.Parent) + ", which has not come"
	case w.Order != "":
		return "it waits for a sale of order " + strconv.Quote(w.Order)
	}
	return "it names no parent, and waits for a sale under its token"
}

// elsewhereWords says under which other tokens the parent of a negative is, or a sale of
// its order.
func elsewhereWords(parent, order string, elsewhere []*Event) string {
	var tokens []string
	for _, e := range elsewhere {
		tokens = append(tokens, e.ClickToken)
	}
	under := "is under another token, " + joinSome(tokens)
	if parent == elsewhere[0].EventID {
		return "its parent " + strconv.Quote(parent) + " " + under
	}
	sale := "a " + elsewhere[0].Type + " of its order " + strconv.Quote(order) + " " + under
	if parent == "" {
		return sale
	}
	return "its parent " + strconv.Quote(parent) + " is nowhere, " + sale
}

// joinSome joins the first of many texts, each once.
func joinSome(texts []string) string {
	const shown = 3
	texts = slices.Compact(slices.Sorted(slices.Values(texts)))
	if len(texts) > shown {
		return fmt.Sprintf("%s and %d more", strings.Join(texts[:shown], ", "), len(texts)-shown)
	}
	return strings.Join(texts, ", ")
}

// String is parent "s1", order "1001", as far as the event named them.
func (n *Naming) String() string {
	switch {
	case n.Parent == "" && n.Order == "":
		return "neither parent nor order"
	case n.Order == "":
		return "parent " + strconv.Quote(n.Parent)
	case n.Parent == "":
		return "order " + strconv.Quote(n.Order)
	}
	return "parent " + strconv.Quote(n.Parent) + ", order " + strconv.Quote(n.Order)
}

// Words explains the verdict of a record, or what it waits for.
func (r *Record) Words() string {
	if r.Wait != nil {
		return r.Wait.Words()
	}
	words := r.Event.Words()
	switch {
	case len(r.Elsewhere) > 0 && r.Reason == event.ReasonParentNotFound:
		words = elsewhereWords(r.ParentEventID, r.OrderID, r.Elsewhere)
	case len(r.Elsewhere) > 0:
		words += "; " + elsewhereWords(r.ParentEventID, r.OrderID, r.Elsewhere)
	case r.Verdict == string(event.Conflict):
		words += differsWords(r.Differs)
	}
	return words
}

// State is how far a record has come, in one word: judged, waiting, or overdue.
func (r *Record) State() string { return r.Wait.state() }

// state is waiting or overdue; of an event that waits for nothing, judged.
func (w *Wait) state() string {
	switch {
	case w == nil:
		return "judged"
	case w.Overdue:
		return "overdue"
	}
	return "waiting"
}

// differsWords names the fields in which a conflict differs, behind its verdict.
func differsWords(list []Difference) string {
	if len(list) == 0 {
		return ""
	}
	var fields []string
	for _, d := range list {
		fields = append(fields, d.Field)
	}
	return ": it differs in " + strings.Join(fields, ", ")
}

// Words is how often an order counts, and by which sales.
func (c OrderCount) Words() string { return c.Counted() + ": " + c.IDs() }

// IDs are the ids of the first sales.
func (c OrderCount) IDs() string {
	tokens := map[string]int{} // by event id
	for _, sale := range c.Sales {
		tokens[sale.EventID]++
	}
	var ids []string
	for id, n := range tokens {
		if n > 1 {
			id += fmt.Sprintf(" under %d tokens", n)
		}
		ids = append(ids, id)
	}
	return joinSome(ids)
}

// Counted is such as counted 2 times, of which 1 stands.
func (c OrderCount) Counted() string {
	text := fmt.Sprintf("counted %d times", c.Times())
	if c.More {
		text = fmt.Sprintf("counted at least %d times", c.Times())
	}
	switch {
	case c.Standing == c.Times():
	case c.Standing == 1:
		text += ", of which 1 stands"
	default:
		text += fmt.Sprintf(", of which %d stand", c.Standing)
	}
	return text
}

// String is such as 70.00 EUR standing, or the like for an event without an amount.
func (s *Standing) String() string { return s.Left() + " standing" }

// Left is what is left: an amount such as 70.00 EUR, or, of an event without an amount,
// all or nothing.
func (s *Standing) Left() string {
	switch {
	case s.Money != nil:
		return s.Money.String()
	case s.Unit:
		return "all"
	}
	return "nothing"
}
