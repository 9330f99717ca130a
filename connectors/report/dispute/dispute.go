package dispute

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
)

// MaxBatch is the most claims that are answered at a time.
const MaxBatch = report.MaxKeys

// Verdict is the answer to a claim, in a few words.
type Verdict string

// The verdicts on a claim. The first that applies counts.
const (
	Attributed Verdict = "attributed here"
	// attributed, and a refund was received that takes nothing back; for other types see
	// withoutEffect
	Unrefunded Verdict = "attributed, but a refund of it has no effect"
	// attributed, and taken back until nothing is left
	Reversed      Verdict = "reversed"
	Duplicate     Verdict = "duplicate"                     // of an earlier line, or of another event
	OtherPartner  Verdict = "attributed to another partner" // or to none
	Waiting       Verdict = "waiting"                       // no verdict yet
	Lost          Verdict = "lost"                          // its wait is over, and its row is missing
	OutsideWindow Verdict = "outside the window"            // the event was too late after its click
	Withheld      Verdict = "token withheld"                // the click is known, its token was not shown
	Unattributed  Verdict = "not attributed"                // for another reason
	Refused       Verdict = "refused by the gateway"
	NeverReceived Verdict = "never received"
)

// withoutEffect is Unrefunded for a type of negatives.
func withoutEffect(kind event.Type) Verdict {
	return Verdict(strings.Replace(string(Unrefunded), string(event.Refund), string(kind), 1))
}

// Finding is the answer to one claim.
type Finding struct {
	Claim
	Verdict Verdict
	Words   string // the verdict, with its details, for the claimant's eyes
	Partner string // id of the click's partner; "": none is known
	// PartnerName is the name that the partner has now; "": none is known.
	PartnerName string
	Confirmed   *decimal.Decimal // what stands, in Currency; nil: no amount on either side
	Currency    string           // the claim's, else that of the events
	Difference  *decimal.Decimal // claimed − confirmed; nil: no amount was claimed
	Other       []report.Money   // what stands in other currencies, by currency
	// Not in Confirmed, and never set off against each other, by currency: what was taken
	// back beyond what stood, and what was given back beyond what was taken.
	TakenBeyond []report.Money
	GivenBeyond []report.Money

	// Negatives that belong to the claim and have no effect: at most report.MaxNegatives.
	WithoutEffect     []*report.Negative
	MoreWithoutEffect bool // there are, or may be, more of them
	// Counted is how often the order counts in the workspace; nil: once.
	Counted *report.OrderCount

	claimant string           // id of the partner whose list this is; "": anybody
	tokens   map[string]bool  // of the events that are attributed here
	column   report.KeyColumn // of key
	key      string           // the id by which the claim is answered
}

// PartnerCell is Partner, unless the claimant must not see it.
func (f *Finding) PartnerCell() string {
	if f.claimant != "" && f.Partner != f.claimant {
		return ""
	}
	return f.Partner
}

// PartnerNameCell is PartnerName, unless the claimant must not see it.
func (f *Finding) PartnerNameCell() string {
	if f.PartnerCell() == "" {
		return ""
	}
	return f.PartnerName
}

// WithoutEffectWords says of each negative without effect why it has none and what would
// cure that, for the claimant's eyes. Of an order that is not theirs a partner learns
// nothing.
func (f *Finding) WithoutEffectWords() (words []string) {
	if f.claimant != "" && len(f.tokens) == 0 {
		return nil
	}
	for _, n := range f.WithoutEffect {
		switch {
		case f.claimant == "":
			words = append(words, n.Subject()+": "+n.Words())
		case f.tokens[n.ClickToken]:
			words = append(words, n.Subject()+": "+n.WordsForPartner())
		default:
			words = append(words, n.Kind()+": "+n.WordsForPartner())
		}
	}
	if f.MoreWithoutEffect {
		words = append(words, fmt.Sprintf("there are more than these %d", len(f.WithoutEffect)))
	}
	return words
}

// Total sums a list in one currency.
type Total struct {
	Currency   string
	Claimed    decimal.Decimal // over the claims that say an amount
	Confirmed  decimal.Decimal // over the claims that say an amount
	Difference decimal.Decimal // Claimed − Confirmed
	// Unpriced is what is confirmed beyond them: for claims without amount, and in
	// another currency than the claim's.
	Unpriced decimal.Decimal
}

// Dispute answers the claims of one list. It remembers what was claimed, so an order
// counts once. It is not safe for concurrent use.
type Dispute struct {
	reader    *report.Reader
	workspace string
	partner   string                  // id; "": any
	claimed   map[report.EventKey]int // line of the first claim
	totals    map[string]*Total       // by currency
	names     map[string]string       // of partners, by id; nil until they are read
	hints     int                     // ids that were looked for as numbers
	warnings  Warnings
	dropped   *ledger.Dropped // which rows are gone; nil until it is read
}

// Warnings counts claims whose money is doubtful.
type Warnings struct {
	WithoutEffect int // attributed or reversed, and a negative of it has no effect
	Counted       int // its order counts several times
}

// Warnings are those of the claims that were answered.
func (d *Dispute) Warnings() Warnings { return d.warnings }

// DroppedWords says which rows are gone, so that no claim was answered from them; empty if
// none are.
func (d *Dispute) DroppedWords() string {
	if d.dropped == nil {
		return ""
	}
	return d.dropped.Words()
}

// New begins a list. With a partner's id, only what is attributed to that partner is
// "attributed here"; with "", to any partner.
func New(reader *report.Reader, workspace, partner string) *Dispute {
	return &Dispute{
		reader:    reader,
		workspace: workspace,
		partner:   partner,
		claimed:   map[report.EventKey]int{},
		totals:    map[string]*Total{},
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

// Answer answers at most MaxBatch claims, in their order.
func (d *Dispute) Answer(ctx context.Context, claims []Claim) ([]Finding, error) {
	if len(claims) > MaxBatch {
		return nil, fmt.Errorf("%d claims at a time, at most %d", len(claims), MaxBatch)
	}
	if d.dropped == nil {
		dropped, err := d.reader.Dropped(ctx)
		if err != nil {
			return nil, err
		}
		d.dropped = &dropped
	}
	var ids, orders []string
	for _, c := range claims {
		if c.EventID != "" {
			ids = append(ids, keysOf(c.EventID, c.Exported)...)
		}
	}
	byID, err := d.gatherEvidence(ctx, report.ByEventID, ids)
	if err != nil {
		return nil, err
	}
	for _, c := range claims {
		if c.OrderID != "" && !byID.knows(c.EventID, c.Exported) {
			orders = append(orders, keysOf(c.OrderID, c.Exported)...)
		}
	}
	byOrder, err := d.gatherEvidence(ctx, report.ByOrderID, orders)
	if err != nil {
		return nil, err
	}
	findings := make([]Finding, len(claims))
	for i, c := range claims {
		// An event says more than its order, but a list may have ids of events that are not
		// the merchant's.
		column, id, ev := report.ByEventID, c.EventID, byID
		instead := c.EventID != "" && !byID.knows(c.EventID, c.Exported) && byOrder.knows(c.OrderID, c.Exported)
		if c.EventID == "" || instead {
			column, id, ev = report.ByOrderID, c.OrderID, byOrder
		}
		key, second := ev.chooseKey(id, c.Exported)
		findings[i] = d.answerClaim(c, column, key, ev)
		if instead {
			findings[i].Words += "; by its order, for its event_id is not known here"
		}
		d.warnOfSecond(&findings[i], second, ev)
		d.addToTotals(&findings[i])
	}
	for _, column := range []report.KeyColumn{report.ByEventID, report.ByOrderID} {
		if err := d.addHints(ctx, column, findings); err != nil {
			return nil, err
		}
	}
	return findings, d.addNames(ctx, findings)
}

// addNames adds the names that partners have now.
func (d *Dispute) addNames(ctx context.Context, findings []Finding) error {
	if d.names == nil {
		partners, err := d.reader.Partners(ctx, d.workspace)
		if err != nil {
			return err
		}
		d.names = map[string]string{}
		for _, p := range partners {
			d.names[p.ID] = p.Name
		}
	}
	for i := range findings {
		findings[i].PartnerName = d.names[findings[i].Partner]
	}
	return nil
}

// isHere reports whether what is attributed to a partner counts for the one whose list
// this is.
func (d *Dispute) isHere(partner string) bool {
	return partner != "" && (d.partner == "" || partner == d.partner)
}

// judgedEvents are the judged events that a claim names, by what became of them.
type judgedEvents struct {
	here         []*report.Event // attributed to the partner whose list this is
	elsewhere    []*report.Event // attributed to another partner, or to none
	negatives    []*report.Event // reversed: they took something back
	unattributed []*report.Event
	copies       []*report.Event // duplicates and conflicts
}

func (d *Dispute) sortEvents(events []*report.Event) (s judgedEvents) {
	for _, e := range events {
		switch event.Verdict(e.Verdict) {
		case event.Attributed:
			if d.isHere(e.PartnerID) {
				s.here = append(s.here, e)
			} else {
				s.elsewhere = append(s.elsewhere, e)
			}
		case event.Reversed:
			s.negatives = append(s.negatives, e)
		case event.Unattributed:
			s.unattributed = append(s.unattributed, e)
		default:
			s.copies = append(s.copies, e)
		}
	}
	return s
}

// answerClaim answers a claim by its key.
func (d *Dispute) answerClaim(c Claim, column report.KeyColumn, key string, ev *evidence) Finding {
	f := Finding{Claim: c, claimant: d.partner, column: column, key: key}
	judged := d.sortEvents(ev.judged[key])
	waiting := ev.waiting[key]
	d.addWarnings(&f, column, key, ev)
	switch {
	case len(judged.here) > 0:
		d.answerAttributed(&f, judged, ev.children)
	case len(judged.elsewhere) > 0:
		f.set(OtherPartner, judged.elsewhere[0].PartnerID, "")
		if f.Partner == "" {
			f.Words = "attributed to no partner"
		}
	default:
		d.answerUncounted(&f, judged, ev)
	}
	f.Currency = cmp.Or(f.Currency, f.Claim.Currency)
	for _, e := range slices.Concat(ev.judged[key], waiting) {
		if click := ev.clicks[e.ClickToken]; !d.hides(e) || click != nil && d.isHere(click.PartnerID) {
			f.Currency = cmp.Or(f.Currency, e.Currency)
		}
	}
	f.setDifference()
	return f
}

// answerUncounted answers a claim of which nothing is attributed. What became of its sale
// decides, and only if there is none what should have taken something back: a refund of
// the order names it, too.
func (d *Dispute) answerUncounted(f *Finding, judged judgedEvents, ev *evidence) {
	waiting := ev.waiting[f.key]
	refusal, refused := ev.refused[f.key]
	sale := slices.IndexFunc(waiting, isPositive)
	isNegative := func(e *report.Event) bool { return !isPositive(e) }
	positives := slices.DeleteFunc(slices.Clone(judged.unattributed), isNegative)
	switch {
	case sale >= 0:
		d.answerWaiting(f, waiting[sale], ev)
	case len(positives) > 0:
		d.answerUnattributed(f, positives[len(positives)-1], ev.clicks)
	case refused && f.column == report.ByOrderID: // of a sale: the others are left out there
		d.answerRefused(f, refusal)
	case len(judged.negatives) > 0:
		d.answerNegative(f, judged.negatives[0])
	case len(waiting) > 0:
		d.answerWaiting(f, waiting[0], ev)
	case len(judged.unattributed) > 0:
		d.answerUnattributed(f, judged.unattributed[len(judged.unattributed)-1], ev.clicks)
	case len(judged.copies) > 0:
		d.answerCopy(f, judged.copies[0])
	case refused:
		d.answerRefused(f, refusal)
	default:
		f.set(NeverReceived, "", "")
		if d.dropped.Any() {
			f.Words += "; " + d.dropped.Words()
		}
	}
}

func isPositive(e *report.Event) bool { return event.Type(e.Type).Positive() }

func (d *Dispute) answerRefused(f *Finding, refusal report.Refusal) {
	why := refusal.Words()
	if d.partner != "" { // its owner is unknown, and the detail quotes what was sent
		why = refusal.WordsForPartner()
	}
	f.set(Refused, "", " because "+why+", "+ledger.FormatTime(refusal.ReceivedAt))
}

func (f *Finding) set(v Verdict, partner, details string) {
	f.Verdict = v
	f.Partner = partner
	f.Words = string(v) + details
}

// answerAttributed answers a claim of events that are attributed to the partner whose
// list this is.
func (d *Dispute) answerAttributed(f *Finding, judged judgedEvents, children map[report.EventKey][]*report.Event) {
	here := judged.here
	var unclaimed []*report.Event
	for _, e := range here {
		if _, before := d.claimed[e.Key()]; !before {
			unclaimed = append(unclaimed, e)
		}
	}
	if len(unclaimed) == 0 {
		f.set(Duplicate, here[0].PartnerID, fmt.Sprintf(" of line %d", d.claimed[here[0].Key()]))
		f.WithoutEffect, f.MoreWithoutEffect, f.Counted = nil, false, nil // that line has them
		return
	}
	standing := moneyByCurrency{}
	taken := moneyByCurrency{}
	given := moneyByCurrency{}
	left := false
	var against []string // ids of what took something back
	for _, root := range unclaimed {
		d.claimed[root.Key()] = f.Line
		all := report.WithDescendants(root, children)
		left = left || report.IsLeft(root, all)
		for _, e := range all {
			// a change of 0 may be in another currency than the root
			if m := e.Changed(); m != nil && (e == root || !m.Amount.IsZero()) {
				standing.add(*m)
			}
			beyond := given
			if e.Effect < 0 {
				against = append(against, e.EventID)
				beyond = taken
			}
			if m := e.Beyond(); m != nil {
				beyond.add(*m)
			}
		}
	}
	without := f.kindWithoutEffect()
	switch {
	case !left && len(against) > 0:
		f.set(Reversed, unclaimed[0].PartnerID, " by "+nameSeveral(against))
		if without != "" {
			f.Words += "; a " + string(without) + " of it has no effect"
		}
	case without != "":
		f.set(withoutEffect(without), unclaimed[0].PartnerID, "")
	default:
		f.set(Attributed, unclaimed[0].PartnerID, "")
	}
	if without != "" {
		d.warnings.WithoutEffect++
	}
	if f.Counted != nil {
		d.warnings.Counted++
	}
	if left && len(against) > 0 {
		f.Words += "; in part taken back by " + nameSeveral(against)
	}
	f.Words += d.conflictWords(judged.copies) + d.countedWords(f.Counted)
	if len(unclaimed) > 1 {
		f.Words += fmt.Sprintf("; %d events", len(unclaimed))
	}
	if len(unclaimed) < len(here) {
		f.Words += "; others of it were claimed before"
	}
	f.setConfirmed(standing, unclaimed)
	f.setBeyond(taken, given)
}

func (d *Dispute) answerNegative(f *Finding, e *report.Event) {
	if !d.isHere(e.PartnerID) {
		f.set(OtherPartner, e.PartnerID, "")
		return
	}
	f.set(Duplicate, e.PartnerID, fmt.Sprintf(" of %s: this %s of it is in what stands of it", e.ParentEventID, e.Type))
	if d.dropped.Any() {
		f.Words += "; " + d.dropped.Words()
	}
}

func (d *Dispute) answerWaiting(f *Finding, e *report.Event, ev *evidence) {
	partner := ""
	if click := ev.clicks[e.ClickToken]; click != nil {
		partner = click.PartnerID
	}
	wait := ev.waits[e]
	if wait.Overdue {
		f.set(Lost, partner, ": its wait is over, and its row is missing")
		return
	}
	until := " until its grace ends"
	if wait.Until != nil {
		until = " until " + ledger.FormatTime(*wait.Until)
	}
	if wait.Withheld {
		until += ", in vain: its token was withheld because " + report.TokenWords(wait.TokenReason)
	}
	f.set(Waiting, partner, until)
}

func (d *Dispute) answerUnattributed(f *Finding, e *report.Event, clicks map[string]*report.Click) {
	click := clicks[e.ClickToken]
	switch {
	case e.IsLateFollower() && d.hides(e):
		f.set(OutsideWindow, e.PartnerID, " and too late to follow another event")
	case e.IsLateFollower():
		f.set(OutsideWindow, e.PartnerID, " and too late to follow "+e.ParentEventID)
	case e.Reason == event.ReasonOutsideWindow:
		f.set(OutsideWindow, e.PartnerID, " by "+report.Span(e.TooLate()))
	case e.Reason == event.ReasonClickNotFound && click != nil && click.TokenStatus != string(event.TokenAppended):
		f.set(Withheld, click.PartnerID, " because "+report.TokenWords(click.TokenReason))
	default:
		f.set(Unattributed, e.PartnerID, ": "+report.ReasonWords(e.Reason))
	}
}

func (d *Dispute) answerCopy(f *Finding, e *report.Event) {
	first := "?"
	if e.FirstOffset != nil {
		first = fmt.Sprint(*e.FirstOffset)
	}
	of := "another event"
	if !d.hides(e) {
		of = fmt.Sprintf("event %s (conversions %d/%s)", e.EventID, e.Partition, first)
	}
	f.set(Duplicate, e.PartnerID, " of "+of)
	if e.Verdict == string(event.Conflict) {
		f.Words += ", with other content"
	}
}

// hides reports whether the claimant must not see ids of an event: it is not theirs.
func (d *Dispute) hides(e *report.Event) bool { return d.partner != "" && e.PartnerID != d.partner }

// nameSeveral names a few of many ids.
func nameSeveral(ids []string) string {
	const shown = 3
	if len(ids) <= shown {
		return strings.Join(ids, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(ids[:shown], ", "), len(ids)-shown)
}
