package oracle

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

// Views is the expected content of the reporting views, computed slowly from the whole
// history: for each view a map from the row's key to the row, both as text.
type Views struct {
	Performance           map[string]string // by DailyKey
	Conversions           map[string]string // by the event's "partition/offset"
	Reuse                 map[string]string // by "workspace event-id"
	Coverage              map[string]string // by "workspace link"
	Conservation          map[string]string // by partition
	WorkspaceConservation map[string]string // by "workspace day"
}

// Partner is the present state of a partner in the catalog.
type Partner struct{ Name, Relationship string }

// MakeViews computes the views from all clicks, all events and their outcomes. partners
// is the catalog, by workspace and partner id.
func MakeViews(clicks []Click, events []Event, r Result, partners map[[2]string]Partner) Views {
	v := Views{
		Performance:           map[string]string{},
		Conversions:           map[string]string{},
		Reuse:                 map[string]string{},
		Coverage:              map[string]string{},
		Conservation:          map[string]string{},
		WorkspaceConservation: map[string]string{},
	}
	for _, d := range Daily(clicks, r.Outcomes) {
		p := partners[[2]string{d.WorkspaceID, d.PartnerID}]
		v.Performance[fmt.Sprintf("%+v", d.DailyKey)] = fmt.Sprintf("%s %s %+v", p.Name, p.Relationship, d.DailySums)
	}
	reused := countReusedIDs(r.Outcomes)
	v.addReuse(reused, r.Outcomes)
	v.addConversions(reused, r.Outcomes, partners)
	v.addCoverage(clicks)
	v.addConservation(events, r)
	return v
}

func (v *Views) addReuse(reused map[[2]string]int, outcomes []event.Outcome) {
	for k, tokens := range reused {
		n := 0
		for i := range outcomes {
			if o := &outcomes[i]; o.Effect != 0 && o.WorkspaceID == k[0] && o.EventID == k[1] {
				n++
			}
		}
		v.Reuse[k[0]+" "+k[1]] = fmt.Sprintf("%d tokens %d events", tokens, n)
	}
}

func (v *Views) addConversions(reused map[[2]string]int, outcomes []event.Outcome, partners map[[2]string]Partner) {
	for i := range outcomes {
		o := &outcomes[i]
		flags := slices.Clone(o.Flags)
		if reused[[2]string{o.WorkspaceID, o.EventID}] > 1 {
			flags = append(flags, "event_id_reused")
		}
		clawback := ""
		if o.Effect == -1 {
			clawback = "yes"
		}
		name, relationship := "", ""
		if o.Click != nil {
			name = o.Click.PartnerName
			relationship = partners[[2]string{o.WorkspaceID, o.Click.PartnerID}].Relationship
		}
		standing := ""
		if change := standingChange(o); change != nil {
			standing = formatDecimal(*change, o.Exponent)
		}
		amount, net := "", ""
		if o.AmountMinor != nil {
			amount = formatDecimal(*o.AmountMinor, o.Exponent)
			net = formatDecimal(int64(o.Effect)**o.AmountMinor, o.Exponent)
		}
		v.Conversions[fmt.Sprintf("%d/%d", o.EventPartition, o.EventOffset)] = strings.Join([]string{
			o.WorkspaceID,
			o.EventID,
			string(o.Type),
			string(o.Verdict),
			o.Reason,
			fmt.Sprint(o.Effect),
			amount,
			net,
			standing,
			o.Currency,
			clawback,
			string(o.Review),
			strings.Join(flags, "|"),
			name,
			relationship,
			o.ParentEventID,
		}, ";")
	}
}

// countReusedIDs counts the tokens under which an event id has effect, by workspace and
// id. It leaves out ids with one token.
func countReusedIDs(outcomes []event.Outcome) map[[2]string]int {
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
	for k, set := range tokens {
		if len(set) > 1 {
			n[k] = len(set)
		}
	}
	return n
}

// formatDecimal writes minor units as a decimal.
func formatDecimal(minor int64, exponent int32) string {
	return new(big.Rat).SetFrac(big.NewInt(minor), powerOfTen(exponent)).FloatString(int(exponent))
}

func (v *Views) addCoverage(clicks []Click) {
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

// conservationSums counts the events of one partition, or of one workspace and day.
type conservationSums struct{ received, attributed, reversed, duplicate, conflict, unattributed, waiting int }

// countEvent counts an event with its outcome, nil if it waits.
func (s *conservationSums) countEvent(o *event.Outcome) {
	s.received++
	if o == nil {
		s.waiting++
		return
	}
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

func (v *Views) addConservation(events []Event, r Result) {
	outcomes := map[Position]*event.Outcome{}
	for i := range r.Outcomes {
		o := &r.Outcomes[i]
		outcomes[Position{o.EventPartition, o.EventOffset}] = o
	}
	partitions := map[int32]*conservationSums{}
	days := map[string]*conservationSums{}
	for i := range events {
		e := &events[i]
		day := e.WorkspaceID + " " + e.ReceivedAt.Time().UTC().Format(time.DateOnly)
		if partitions[e.Partition] == nil {
			partitions[e.Partition] = &conservationSums{}
		}
		if days[day] == nil {
			days[day] = &conservationSums{}
		}
		o := outcomes[Position{e.Partition, e.Offset}]
		partitions[e.Partition].countEvent(o)
		days[day].countEvent(o)
	}
	for p, s := range partitions {
		v.Conservation[fmt.Sprint(p)] = fmt.Sprintf("%+v difference 0", *s)
	}
	for d, s := range days {
		v.WorkspaceConservation[d] = fmt.Sprintf("%+v difference 0", *s)
	}
}
