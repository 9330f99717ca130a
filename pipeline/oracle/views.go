package oracle

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

// Views says, slowly and from the whole history, what the reporting views must say: by
// view, by the row's key, the row as text. Partner names are those of the catalog, by
// workspace and id.
type Views struct {
	Performance           map[string]string // workspace day partner program link currency exponent
	Conversions           map[string]string // event partition/offset
	Reuse                 map[string]string // workspace event-id
	Coverage              map[string]string // workspace link
	Conservation          map[string]string // partition
	WorkspaceConservation map[string]string // workspace day
}

// Partner is what the catalog says about a partner now.
type Partner struct{ Name, Relationship string }

// MakeViews computes them from all clicks, all events and their outcomes.
func MakeViews(clicks []Click, events []Event, r Result, partners map[[2]string]Partner) Views {
	v := Views{
		map[string]string{},
		map[string]string{},
		map[string]string{},
		map[string]string{},
		map[string]string{},
		map[string]string{},
	}
	for _, d := range Daily(clicks, r.Outcomes) {
		p := partners[[2]string{d.WorkspaceID, d.PartnerID}]
		v.Performance[fmt.Sprintf("%+v", d.DailyKey)] = fmt.Sprintf("%s %s %+v", p.Name, p.Relationship, d.DailySums)
	}
	reused := reuse(r.Outcomes)
	for k, tokens := range reused {
		n := 0
		for i := range r.Outcomes {
			if o := &r.Outcomes[i]; o.Effect != 0 && o.WorkspaceID == k[0] && o.EventID == k[1] {
				n++
			}
		}
		v.Reuse[k[0]+" "+k[1]] = fmt.Sprintf("%d tokens %d events", tokens, n)
	}
	for i := range r.Outcomes {
		o := &r.Outcomes[i]
		flags := slices.Clone(o.Flags)
		if reused[[2]string{o.WorkspaceID, o.EventID}] > 1 {
			flags = append(flags, "event_id_reused")
		}
		clawback, partner, now := "", "", ""
		if o.Effect == -1 {
			clawback = "yes"
		}
		if o.Click != nil {
			partner = o.Click.PartnerName
			now = partners[[2]string{o.WorkspaceID, o.Click.PartnerID}].Relationship
		}
		amount, net := "", ""
		if o.AmountMinor != nil {
			amount, net = decimal(*o.AmountMinor, o.Exponent), decimal(int64(o.Effect)**o.AmountMinor, o.Exponent)
		}
		v.Conversions[fmt.Sprintf("%d/%d", o.EventPartition, o.EventOffset)] = strings.Join([]string{o.WorkspaceID,
			o.EventID, string(o.Type), string(o.Verdict), string(o.Reason), fmt.Sprint(
				o.Effect), amount, net, o.Currency, clawback,
			string(o.Review), strings.Join(flags, "|"), partner, now, o.ParentEventID}, ";")
	}
	v.coverage(clicks)
	v.conservation(events, r)
	return v
}

// reuse counts, by workspace and event id, the tokens under which an id has effect,
// where there are several.
func reuse(outcomes []event.Outcome) map[[2]string]int {
	tokens := map[[2]string]map[string]bool{}
	for i := range outcomes {
		if o := &outcomes[i]; o.Effect != 0 {
			k := [2]string{o.WorkspaceID, o.EventID}
			if tokens[k] == nil {
				tokens[k] = map[string]bool{}
			}
			tokens[k][o.ClickToken] = true
		}
	}
	n := map[[2]string]int{}
	for k, of := range tokens {
		if len(of) > 1 {
			n[k] = len(of)
		}
	}
	return n
}

// decimal writes minor units as a decimal.
func decimal(minor int64, exponent int32) string {
	text := new(big.Rat).SetFrac(big.NewInt(minor), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(exponent)),
		nil)).FloatString(int(exponent))
	return text
}

func (v *Views) coverage(clicks []Click) {
	type sums struct{ clicks, tokened, withheld, off int }
	by, seen := map[string]sums{}, map[string]bool{}
	for i := range clicks {
		c := &clicks[i]
		if seen[c.ClickToken] {
			continue
		}
		seen[c.ClickToken] = true
		s := by[c.WorkspaceID+" "+c.LinkID]
		s.clicks++
		switch c.TokenStatus {
		case event.TokenAppended:
			s.tokened++
		case event.TokenWithheld:
			s.withheld++
		default:
			s.off++
		}
		by[c.WorkspaceID+" "+c.LinkID] = s
	}
	for k, s := range by {
		v.Coverage[k] = fmt.Sprintf("%d clicks, %d with token (%.6f), %d withheld, %d off",
			s.clicks, s.tokened, float64(s.tokened)/float64(s.clicks), s.withheld, s.off)
	}
}

func (v *Views) conservation(events []Event, r Result) {
	type sums struct{ received, attributed, reversed, duplicate, conflict, unattributed, waiting int }
	count := func(s *sums, o *event.Outcome) {
		switch o.Verdict {
		case event.Attributed:
			s.attributed++
		case event.Reversed:
			s.reversed++
		case event.Duplicate:
			s.duplicate++
		case event.Conflict:
			s.conflict++
		case event.Unattributed:
			s.unattributed++
		}
	}
	partitions, days := map[int32]*sums{}, map[string]*sums{}
	at := func(e *Event) (a, b *sums) {
		if partitions[e.Partition] == nil {
			partitions[e.Partition] = &sums{}
		}
		day := e.WorkspaceID + " " + e.ReceivedAt.Time().UTC().Format(time.DateOnly)
		if days[day] == nil {
			days[day] = &sums{}
		}
		return partitions[e.Partition], days[day]
	}
	rows := map[string]*event.Outcome{}
	for i := range r.Outcomes {
		o := &r.Outcomes[i]
		rows[fmt.Sprintf("%d/%d", o.EventPartition, o.EventOffset)] = o
	}
	for i := range events {
		e := &events[i]
		a, b := at(e)
		for _, s := range []*sums{a, b} {
			s.received++
			if o := rows[fmt.Sprintf("%d/%d", e.Partition, e.Offset)]; o != nil {
				count(s, o)
			} else {
				s.waiting++
			}
		}
	}
	for p, s := range partitions {
		v.Conservation[fmt.Sprint(p)] = fmt.Sprintf("%+v difference 0", *s)
	}
	for d, s := range days {
		v.WorkspaceConservation[d] = fmt.Sprintf("%+v difference 0", *s)
	}
}
