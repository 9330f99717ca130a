package verify

import (
	"context"
	"fmt"
	"strings"

	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
)

// maxSuspects is how many rows of a partition are looked at twice. More of them have one
// cause, and count as differing.
const maxSuspects = 10_000

// outcomeReader compares the rows of outcomes one by one.
type outcomeReader struct {
	*partitionRun
	row    event.Outcome
	offset int64
	// sawRules: a row of today's rules version came already. A partition that one
	// version has judged is never judged by an earlier one again.
	sawRules bool
	newer    []int // entries with a row of a newer version, since the last of today's
}

// compareOutcomes reads the rows of outcomes and compares each with what was derived.
func (r *partitionRun) compareOutcomes(ctx context.Context) error {
	c := &outcomeReader{partitionRun: r}
	return r.eachRecord(ctx, topic.Outcomes, func(record *Record) error {
		c.offset = record.Offset
		if err := r.codec.DecodeOutcome(record.Value, &c.row); err != nil {
			if !event.Unreadable(err) {
				return err
			}
			return r.outcomes.addDifference(Difference{
				Kind: Surplus,
				Row:  c.place(),
				Note: "the row cannot be read: " + err.Error(),
			}, nil)
		}
		if string(record.Key) != c.row.ClickToken {
			return c.addSurplus("the record's key is not its click_token")
		}
		return c.compareRow()
	})
}

func (c *outcomeReader) place() *Place { return &Place{c.part.ID, c.offset} }

// addSurplus counts the row as one that is about no event, if it is the workspace's.
func (c *outcomeReader) addSurplus(note string) error {
	if c.row.WorkspaceID != c.Workspace || !c.isInRange(c.row.OccurredAt) {
		return nil
	}
	c.outcomes.Rows++
	return c.outcomes.addDifference(Difference{
		Kind:    Surplus,
		EventID: strings.Clone(c.row.EventID),
		Event:   &Place{c.row.EventPartition, c.row.EventOffset},
		Row:     c.place(),
		Note:    note,
	}, nil)
}

func (c *outcomeReader) compareRow() error {
	o := &c.row
	if o.RulesVersion == event.RulesVersion {
		c.sawRules = true
		c.suspectNewer()
	}
	if o.EventPartition != c.part.ID {
		return c.addSurplus("its event is in another partition than its own")
	}
	i, found := findEvent(c.entries, o.EventOffset)
	if !found {
		if o.EventOffset >= c.part.Conversions.Start {
			return c.addSurplus("conversions has no readable event of the workspace there")
		}
		if o.WorkspaceID == c.Workspace && c.isInRange(o.OccurredAt) {
			c.outcomes.Rows++
			c.outcomes.addUnproved(EventsExpired, Place{o.EventPartition, o.EventOffset}, *c.place())
		}
		return nil
	}
	e := &c.entries[i]
	if !e.has(inRange) {
		return c.addSurplus(outOfRange)
	}
	c.outcomes.Rows++
	if e.seenRow > 0 {
		return c.outcomes.addDifference(Difference{
			Kind:    Doubled,
			EventID: strings.Clone(o.EventID),
			Event:   c.eventPlace(e),
			Row:     c.place(),
			Note:    fmt.Sprintf("the first is outcomes %d/%d", c.part.ID, e.row),
		}, nil)
	}
	e.seenRow, e.row = 1, c.offset
	return c.compareEntry(i, e)
}

// compareEntry compares the row with the entry of its event.
func (c *outcomeReader) compareEntry(i int, e *entry) error {
	version := c.row.RulesVersion
	if version < event.RulesVersion && !c.sawRules {
		c.part.OlderRules = max(c.part.OlderRules, e.event+1)
	}
	if e.why == Derivable {
		e.why = c.classifyRow(e)
	}
	if version > event.RulesVersion && e.why == Derivable {
		e.why = NewerRules
		if len(c.newer) < maxSuspects {
			c.newer = append(c.newer, i)
		}
	}
	if e.why != Derivable {
		c.outcomes.addUnproved(e.why, *c.eventPlace(e), *c.place())
		return nil
	}
	got, err := c.digester.digestOutcome(&c.row, nil)
	if err != nil {
		return fmt.Errorf("offset %d: %w", c.offset, err)
	}
	if got == e.want && e.has(isDue) {
		c.outcomes.Equal++
		return nil
	}
	c.suspect(i)
	return nil
}

// classifyRow says why an entry cannot be derived, as far as its row tells.
func (c *outcomeReader) classifyRow(e *entry) Reason {
	times := c.part.Times[e.times]
	switch {
	case e.first < c.part.OlderRules:
		return OlderRules
	case times.Last != c.part.newestPosition() && e.row >= times.LastOutcomes:
		return TimesChanged
	}
	return Derivable
}

func (r *partitionRun) suspect(i int) {
	if len(r.suspects) < maxSuspects {
		r.suspects = append(r.suspects, i)
	} else {
		r.unheld++
	}
}

// suspectNewer takes back that rows of a newer version cannot be derived: a row of
// today's version came behind them, so no newer program had taken over.
func (c *outcomeReader) suspectNewer() {
	for _, i := range c.newer {
		e := &c.entries[i]
		e.why = Derivable
		c.outcomes.NotDerivable[NewerRules]--
		c.suspect(i)
	}
	if len(c.newer) > 0 {
		kept := c.outcomes.Unproved[:0]
		for _, u := range c.outcomes.Unproved {
			if j, found := findEvent(c.entries, u.Event.Offset); u.Reason != NewerRules ||
				u.Event.Partition != c.part.ID || !found || c.entries[j].why == NewerRules {
				kept = append(kept, u)
			}
		}
		c.outcomes.Unproved = kept
		c.newer = c.newer[:0]
	}
}

// explainSuspects looks at the whole token of each row that is not what was derived.
func (r *partitionRun) explainSuspects(ctx context.Context) error {
	r.outcomes.Differing += r.unheld
	if len(r.suspects) == 0 {
		return nil
	}
	x := &suspectTokens{partitionRun: r, rows: make(map[int64]*event.Outcome), tokens: make(map[int64]bool)}
	buckets := make(map[uint8]bool)
	for _, i := range r.suspects {
		e := &r.entries[i]
		x.tokens[e.first] = true
		buckets[e.bucket] = true
	}
	if err := r.eachRecord(ctx, topic.Outcomes, x.keepRow); err != nil {
		return err
	}
	for bucket := range buckets {
		if err := r.spill.eachHistory(int(bucket), func(h *history) error {
			if !x.tokens[h.events[0].offset] {
				return nil
			}
			return x.explainToken(h)
		}); err != nil {
			return err
		}
	}
	return nil
}

// suspectTokens are the tokens of suspects, by the offset of their first event, and all
// their rows, by the offset of their event.
type suspectTokens struct {
	*partitionRun
	tokens map[int64]bool
	rows   map[int64]*event.Outcome
}

func (x *suspectTokens) keepRow(record *Record) error {
	var o event.Outcome
	if err := x.digester.codec.DecodeOutcome(record.Value, &o); err != nil {
		return nil // it was counted when it was compared
	}
	i, found := findEvent(x.entries, o.EventOffset)
	if found && x.entries[i].row == record.Offset && x.tokens[x.entries[i].first] {
		x.rows[o.EventOffset] = &o
	}
	return nil
}

// explainToken decides about the rows of one token that are not what was derived.
func (x *suspectTokens) explainToken(h *history) error {
	var own []*entry
	rows := make(map[int64]*event.Outcome)
	for i := range h.events {
		if j, found := findEvent(x.entries, h.events[i].offset); found {
			e := &x.entries[j]
			own = append(own, e)
			if o := x.rows[e.event]; o != nil {
				rows[e.event] = o
			}
		}
	}
	derived := make(map[int64]*event.Outcome)
	err := x.deriver.deriveToken(h, int(own[0].times), func(o *event.Outcome, click []byte, _ bool) (err error) {
		derived[o.EventOffset], err = copyOutcome(x.digester.codec, o, click)
		return err
	})
	if err != nil {
		return err
	}
	var differing []*entry
	for _, e := range own {
		row := rows[e.event]
		if row == nil || e.why != Derivable || !e.has(inRange) {
			continue
		}
		got, err := x.digester.digestOutcome(row, nil)
		switch {
		case err != nil:
			return err
		case got == e.want && e.has(isDue): // another row of the token is the suspect
		case got == e.want && row.DecidedAt > x.waitEnd(h, e):
			x.outcomes.Equal++
		default:
			differing = append(differing, e)
		}
	}
	if len(differing) == 0 {
		return nil
	}
	if isLate, err := x.explainLate(h, own, rows); err != nil || isLate {
		x.outcomes.Late += int64(len(differing))
		return err
	}
	for _, e := range differing {
		if err := x.outcomes.addDifference(Difference{
			Kind:    Differs,
			EventID: strings.Clone(derived[e.event].EventID),
			Event:   x.eventPlace(e),
			Row:     &Place{x.part.ID, e.row},
		}, func(d *Difference) error {
			d.Fields = diffOutcomes(derived[e.event], rows[e.event])
			if len(d.Fields) == 0 {
				d.Note = "it says that a wait had ended, and was decided before the wait's end"
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// waitEnd is the last moment of the wait of an event of the token.
func (x *suspectTokens) waitEnd(h *history, e *entry) event.Millis {
	for i := range h.events {
		if h.events[i].offset != e.event {
			continue
		}
		var ev event.Conversion
		if x.codec.DecodeConversion(h.events[i].value, &ev) == nil {
			return ev.EnteredAt + event.Millis(x.part.Times[e.times].GraceMs)
		}
	}
	return forever
}

// explainLate reports whether a record that came too late explains the rows of a token.
// Then these rows are what the warehouse and the CSV are compared with.
func (x *suspectTokens) explainLate(h *history, own []*entry, rows map[int64]*event.Outcome) (bool, error) {
	isLedger := func(derived map[int64]*event.Outcome) bool {
		for _, e := range own {
			row := rows[e.event]
			if row == nil {
				if e.has(isDue) {
					return false
				}
				continue
			}
			if o := derived[e.event]; o == nil || len(diffOutcomes(o, row)) > 0 {
				return false
			}
		}
		return true
	}
	derived, err := x.deriver.deriveLate(h, int(own[0].times), rows, isLedger)
	if err != nil {
		return false, ignoreTooLate(err)
	}
	for _, e := range own {
		o := derived[e.event]
		if o == nil {
			continue
		}
		late, err := x.digester.digestOutcome(o, nil)
		if err != nil {
			return false, err
		}
		if late == e.want {
			continue
		}
		e.want = late
		e.marks |= isLate
		x.late[e.event] = o
		if x.Export == nil {
			continue
		}
		i, _ := findEvent(x.entries, e.event)
		if err := x.deriveLine(e, &x.lines[i], o, nil); err != nil {
			return false, err
		}
	}
	return true, nil
}

// countMissing counts the events that must have a row and have none, and those that
// wait.
func (r *partitionRun) countMissing(context.Context) error {
	for i := range r.entries {
		e := &r.entries[i]
		switch {
		case !e.has(inRange) || e.seenRow > 0:
		case e.why != Derivable || !e.has(isDue):
			r.report.Waiting++
		case e.has(isOld):
			r.outcomes.NotDerivable[RowExpired]++
		default:
			if err := r.addMissing(r.outcomes, e, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// addMissing counts a row that is not there. row is where it is in outcomes, nil if it
// is not there either.
func (r *partitionRun) addMissing(t *Tally, e *entry, row *Place) error {
	return t.addDifference(Difference{Kind: Missing, Event: r.eventPlace(e), Row: row}, func(d *Difference) error {
		if e.why != Derivable {
			d.Note = "outcomes has its row, which is not re-derivable: " + e.why.String()
			return nil
		}
		o, err := r.deriveEvent(e)
		if err != nil {
			return err
		}
		d.EventID = strings.Clone(o.EventID)
		d.Note = "derived: " + strings.TrimSpace(string(o.Verdict)+" "+o.Reason)
		return nil
	})
}
