package report

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
)

// BatchClaims is the most claims that are judged at a time.
const BatchClaims = maxKeys

// ClaimVerdict is what stands behind a claim.
type ClaimVerdict string

// The verdicts on a claim. The first that applies counts.
const (
	ClaimAttributed ClaimVerdict = "attributed here"
	// attributed, and taken back until nothing stands
	ClaimReversed ClaimVerdict = "reversed"
	// of an earlier line, or of another event
	ClaimDuplicate     ClaimVerdict = "duplicate"
	ClaimOtherPartner  ClaimVerdict = "attributed to another partner" // or to none
	ClaimWaiting       ClaimVerdict = "waiting"                       // no verdict yet
	ClaimOutsideWindow ClaimVerdict = "outside the window"            //
	// the click is known, the merchant was never shown its token
	ClaimWithheld      ClaimVerdict = "token withheld"
	ClaimUnattributed  ClaimVerdict = "not attributed"         // for another reason
	ClaimRefused       ClaimVerdict = "refused by the gateway" //
	ClaimNeverReceived ClaimVerdict = "never received"
)

// Finding is the answer to one claim.
type Finding struct {
	Claim
	Verdict ClaimVerdict
	// Words begins with the verdict and goes on with its details.
	Words string
	// Partner is the id of the click's partner, "" if none is known.
	Partner string
	// Net is what this ledger confirms, in Currency: the claim's, else that of the
	// events. Nil if there is no amount on either side.
	Net      *Decimal
	Currency string
	// Difference is claimed − net; nil if nothing was claimed.
	Difference *Decimal
	// Other is what the events net in other currencies.
	Other []Money
}

// Total sums a list in one currency.
type Total struct {
	Currency string
	// Claimed, Confirmed and Difference are over the claims that say an amount.
	Claimed, Confirmed, Difference Decimal
	// Unpriced is what is confirmed beyond them: for claims without amount, and in
	// another currency than the claim's.
	Unpriced Decimal
}

// Dispute judges the claims of one list. It remembers what was claimed, so an order
// counts once; it is not safe for concurrent use.
type Dispute struct {
	reader    *Reader
	workspace string
	partner   string
	claimed   map[key]int // line of the first claim
	totals    map[string]*Total
	graces    map[uint32]time.Duration
}

// Dispute begins a list. With a partner's id, only what is attributed to that partner
// is "attributed here"; with "", to any partner.
func (r *Reader) Dispute(workspace, partner string) *Dispute {
	return &Dispute{
		reader:    r,
		workspace: workspace,
		partner:   partner,
		claimed:   map[key]int{},
		totals:    map[string]*Total{},
		graces:    map[uint32]time.Duration{},
	}
}

// Totals are in the order of their currencies.
func (d *Dispute) Totals() []Total {
	var out []Total
	for _, t := range d.totals {
		out = append(out, *t)
	}
	slices.SortFunc(out, func(a, b Total) int { return strings.Compare(a.Currency, b.Currency) })
	return out
}

// evidence is what the warehouse knows about a batch of claims, by event id or order
// id.
type evidence struct {
	judged, waiting map[string][]*Event
	refused         map[string]Refusal
	clicks          map[string]*Click
	children        map[key][]*Event
}

// Judge answers at most BatchClaims claims, in their order.
func (d *Dispute) Judge(ctx context.Context, claims []Claim) ([]Finding, error) {
	if len(claims) > BatchClaims {
		return nil, fmt.Errorf("%d claims at a time, at most %d", len(claims), BatchClaims)
	}
	var ids, orders []string
	for _, c := range claims {
		if c.EventID != "" {
			ids = append(ids, c.EventID)
		} else {
			orders = append(orders, c.OrderID)
		}
	}
	byID, err := d.gather(ctx, "event_id", ids, func(e *Event) string { return e.EventID })
	if err != nil {
		return nil, err
	}
	byOrder, err := d.gather(ctx, "order_id", orders, func(e *Event) string { return e.OrderID })
	if err != nil {
		return nil, err
	}
	findings := make([]Finding, len(claims))
	for i, c := range claims {
		if c.EventID != "" {
			findings[i] = d.judge(c, c.EventID, byID)
		} else {
			findings[i] = d.judge(c, c.OrderID, byOrder)
		}
		d.count(&findings[i])
	}
	return findings, nil
}

// ErrTooMany is a list that concerns more events than are read for one answer.
var ErrTooMany = errors.New("too many events")

// gather collects the evidence for keys of one column, which is a constant of this
// package.
func (d *Dispute) gather(ctx context.Context, column string, keys []string, of func(*Event) string) (*evidence, error) {
	ev := &evidence{
		judged:  map[string][]*Event{},
		waiting: map[string][]*Event{},
		refused: map[string]Refusal{},
		clicks:  map[string]*Click{},
	}
	if len(keys) == 0 {
		return ev, nil
	}
	slices.Sort(keys)
	keys = slices.Compact(keys) // a key in two queries would bring its events twice
	var judged, waiting []*Event
	for len(keys) > 0 {
		n := fit(keys)
		if err := d.named(ctx, column, keys[:n], &judged, &waiting); err != nil {
			return nil, err
		}
		// an order_id that a sender gives to all its orders
		for _, found := range [][]*Event{judged, waiting} {
			if len(found) > MaxChain {
				return nil, fmt.Errorf("%w: more than %d events have an %s of this list, such as %q: take it out "+
					"of the list", ErrTooMany, MaxChain, column, of(found[len(found)-1]))
			}
		}
		if column == "event_id" {
			refused, err := d.reader.refusals(ctx, d.workspace, keys[:n], 1)
			if err != nil {
				return nil, err
			}
			for _, refusal := range refused {
				ev.refused[refusal.EventID] = refusal
			}
		}
		keys = keys[n:]
	}
	var roots []*Event
	var tokens []string
	for _, e := range judged {
		ev.judged[of(e)] = append(ev.judged[of(e)], e)
		switch {
		case e.Verdict == string(event.Attributed):
			roots = append(roots, e)
		case e.Reason == event.ReasonClickNotFound:
			tokens = append(tokens, e.ClickToken)
		}
	}
	for _, e := range waiting {
		ev.waiting[of(e)] = append(ev.waiting[of(e)], e)
		tokens = append(tokens, e.ClickToken)
		if _, ok := d.graces[e.Partition]; !ok {
			grace, err := d.reader.grace(ctx, e.Partition)
			if err != nil {
				return nil, err
			}
			d.graces[e.Partition] = grace
		}
	}
	for len(tokens) > 0 {
		n := fit(tokens)
		clicks, err := d.reader.clicks(ctx, d.workspace, tokens[:n])
		if err != nil {
			return nil, err
		}
		maps.Copy(ev.clicks, clicks)
		tokens = tokens[n:]
	}
	children, cut, err := d.reader.below(ctx, d.workspace, roots)
	if err != nil {
		return nil, err
	}
	if cut {
		return nil, fmt.Errorf("%w: what was taken back from %d events such as %q are more than %d events or %d "+
			"steps: look at them one by one", ErrTooMany, len(roots), roots[0].EventID, MaxChain, MaxDepth)
	}
	ev.children = children
	return ev, nil
}

// named appends the events that the keys of one query name.
func (d *Dispute) named(ctx context.Context, column string, keys []string, judged, waiting *[]*Event) error {
	named, most := clickhouse.Named("keys", keys), clickhouse.Named("n", MaxChain+1)
	found, err := d.reader.outcomes(ctx, d.workspace, column+` IN {keys:Array(String)}
		ORDER BY src_partition, src_offset LIMIT 20 BY event_id, click_token, verdict LIMIT {n:UInt64}`, named, most)
	if err != nil {
		return err
	}
	*judged = append(*judged, found...)
	found, err = d.reader.conversions(ctx, d.workspace, column+` IN {keys:Array(String)} AND (src_partition, src_offset) NOT IN
		(SELECT event_partition, event_offset FROM outcomes WHERE workspace_id = {w:String} AND `+column+` IN {keys:Array(String)})
		ORDER BY src_partition, src_offset LIMIT 20 BY event_id, click_token LIMIT {n:UInt64}`, named, most)
	if err != nil {
		return err
	}
	*waiting = append(*waiting, found...)
	return nil
}

// here reports whether what is attributed to a partner counts for the one whose list
// this is.
func (d *Dispute) here(partner string) bool {
	return partner != "" && (d.partner == "" || partner == d.partner)
}

func (d *Dispute) judge(c Claim, id string, ev *evidence) Finding {
	f := Finding{Claim: c}
	var mine, others, negatives, unattributed, copies []*Event
	for _, e := range ev.judged[id] {
		switch event.Verdict(e.Verdict) {
		case event.Attributed:
			if d.here(e.PartnerID) {
				mine = append(mine, e)
			} else {
				others = append(others, e)
			}
		case event.Reversed:
			negatives = append(negatives, e)
		case event.Unattributed:
			unattributed = append(unattributed, e)
		default:
			copies = append(copies, e)
		}
	}
	waiting := ev.waiting[id]
	refusal, refused := ev.refused[id]
	switch {
	case len(mine) > 0:
		d.attributed(&f, mine, ev.children)
	case len(others) > 0:
		f.is(ClaimOtherPartner, others[0].PartnerID, "")
		if f.Partner == "" {
			f.Words = "attributed to no partner"
		}
	case len(negatives) > 0:
		e := negatives[0]
		if !d.here(e.PartnerID) {
			f.is(ClaimOtherPartner, e.PartnerID, "")
			break
		}
		f.is(ClaimDuplicate, e.PartnerID, fmt.Sprintf(" of %s: this %s of it is in its net amount",
			e.ParentEventID, e.Type))
	case len(waiting) > 0:
		d.waits(&f, waiting[0], ev.clicks[waiting[0].ClickToken])
	case len(unattributed) > 0:
		f.unattributed(unattributed[len(unattributed)-1], ev.clicks)
	case len(copies) > 0:
		e := copies[0]
		f.is(ClaimDuplicate, e.PartnerID, fmt.Sprintf(" of event %s (conversions %d/%s)",
			e.EventID, e.Partition, offset(e.FirstOffset)))
		if e.Verdict == string(event.Conflict) {
			f.Words += ", with other content"
		}
	case refused:
		f.is(ClaimRefused, "", " because "+refusal.Words()+", "+stamp(refusal.ReceivedAt))
	default:
		f.is(ClaimNeverReceived, "", "")
	}
	for _, e := range slices.Concat(ev.judged[id], waiting) {
		f.Currency = cmp.Or(f.Currency, f.Claim.Currency, e.Currency)
	}
	f.price()
	return f
}

func (f *Finding) is(v ClaimVerdict, partner, details string) {
	f.Verdict, f.Partner, f.Words = v, partner, string(v)+details
}

// attributed judges a claim for events that are attributed to the partner whose list
// this is.
func (d *Dispute) attributed(f *Finding, mine []*Event, children map[key][]*Event) {
	var fresh []*Event
	tokens := map[string]bool{}
	for _, e := range mine {
		if _, before := d.claimed[e.key()]; !before {
			fresh = append(fresh, e)
		}
		tokens[e.ClickToken] = true
	}
	if len(fresh) == 0 {
		f.is(ClaimDuplicate, mine[0].PartnerID, fmt.Sprintf(" of line %d", d.claimed[mine[0].key()]))
		return
	}
	nets, stands := purse{}, false
	var against []string
	for _, root := range fresh {
		d.claimed[root.key()] = f.Line
		all := []*Event{root}
		// only one row of an id has effect, and no event is its own ancestor
		for i := 0; i < len(all); i++ {
			for _, e := range children[all[i].key()] {
				if e.Effect != 0 {
					all = append(all, e)
				}
			}
		}
		stands = stands || standing(all)[root] > 0 || root.AmountMinor != nil && *root.AmountMinor == 0 && len(all) == 1
		for _, e := range all {
			if m := e.Net(); m != nil {
				nets.add(*m)
			}
			if e.Effect < 0 {
				against = append(against, e.EventID)
			}
		}
	}
	f.is(ClaimAttributed, fresh[0].PartnerID, "")
	switch {
	case !stands && len(against) > 0:
		f.is(ClaimReversed, fresh[0].PartnerID, " by "+several(against))
	case len(against) > 0:
		f.Words += "; in part taken back by " + several(against)
	}
	if len(fresh) > 1 {
		f.Words += fmt.Sprintf("; %d events", len(fresh))
	}
	if len(fresh) < len(mine) {
		f.Words += "; others of it were claimed before"
	}
	if f.EventID != "" && len(tokens) > 1 {
		f.Words += fmt.Sprintf("; sent with %d tokens, so it counts %d times", len(tokens), len(tokens))
	}
	f.choose(nets, fresh)
}

// choose puts the nets into the finding: the claim's currency, else the first event's.
func (f *Finding) choose(nets purse, events []*Event) {
	f.Currency = f.Claim.Currency
	for _, e := range events {
		f.Currency = cmp.Or(f.Currency, e.Currency)
	}
	if net, ok := nets[f.Currency]; ok {
		f.Net = &net
	}
	for currency, net := range nets {
		if currency != f.Currency {
			f.Other = append(f.Other, Money{net, currency})
		}
	}
	slices.SortFunc(f.Other, func(a, b Money) int { return strings.Compare(a.Currency, b.Currency) })
	for _, m := range f.Other {
		f.Words += "; also " + m.String()
	}
}

func (d *Dispute) waits(f *Finding, e *Event, click *Click) {
	partner := ""
	if click != nil {
		partner = click.PartnerID
	}
	until := " until its grace ends"
	if grace := d.graces[e.Partition]; grace > 0 {
		until = " until " + stamp(e.ReceivedAt.Add(grace))
	}
	f.is(ClaimWaiting, partner, until)
}

func (f *Finding) unattributed(e *Event, clicks map[string]*Click) {
	click := clicks[e.ClickToken]
	switch {
	case e.Reason == event.ReasonOutsideWindow:
		f.is(ClaimOutsideWindow, e.PartnerID, " by "+Span(e.TooLate()))
	case e.Reason == event.ReasonClickNotFound && click != nil && click.TokenStatus != string(event.TokenAppended):
		f.is(ClaimWithheld, click.PartnerID, " because "+TokenWords(click.TokenReason))
	default:
		f.is(ClaimUnattributed, e.PartnerID, ": "+ReasonWords(e.Reason))
	}
}

// price fills in what is left: nothing is confirmed of a claim that has no net.
func (f *Finding) price() {
	f.Currency = cmp.Or(f.Currency, f.Claim.Currency)
	if f.Amount == nil {
		return
	}
	if f.Net == nil {
		zero := Decimal{digits: f.Amount.digits}
		f.Net = &zero
	}
	difference := f.Amount.Minus(*f.Net)
	f.Difference = &difference
}

func (d *Dispute) total(currency string) *Total {
	if d.totals[currency] == nil {
		d.totals[currency] = &Total{Currency: currency}
	}
	return d.totals[currency]
}

func (d *Dispute) count(f *Finding) {
	switch {
	case f.Amount != nil:
		t := d.total(f.Currency)
		t.Claimed, t.Confirmed, t.Difference = t.Claimed.Plus(*f.Amount), t.Confirmed.Plus(*f.Net), t.Difference.Plus(
			*f.Difference)
	case f.Net != nil:
		t := d.total(f.Currency)
		t.Unpriced = t.Unpriced.Plus(*f.Net)
	}
	for _, m := range f.Other {
		t := d.total(m.Currency)
		t.Unpriced = t.Unpriced.Plus(m.Amount)
	}
}
