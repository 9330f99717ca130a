package verify

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nimriz/partners/pipeline/attribution"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// Reason is why a row cannot be derived again.
type Reason uint8

// The reasons. Of several the first in this list counts.
const (
	Derivable Reason = iota
	// ClickExpired: the token is older than what is left of clicks. Its click may be
	// gone, or a first copy of it.
	ClickExpired
	// EventsExpired: the token is older than what is left of conversions. Events of it
	// may be gone.
	EventsExpired
	// OlderRules: an event of the token was read while an earlier version of the rules
	// was in force.
	OlderRules
	// NewerRules: a newer version of the rules judged it.
	NewerRules
	// TimesChanged: grace, click life or journey life changed between the events of the
	// token, or between an event and its row.
	TimesChanged
	// TimesUnknown: no Progress says by which times the token was judged.
	TimesUnknown
	// RowExpired: the event may have had its row in the part of outcomes that is deleted.
	RowExpired
	// TokenGivenUp: an operator gave up the token's journey, as nothing could read it.
	TokenGivenUp

	reasonCount = int(TokenGivenUp) + 1
)

// String says it in words.
func (r Reason) String() string {
	return [...]string{
		Derivable:     "derivable",
		ClickExpired:  "the token is older than what is left of clicks",
		EventsExpired: "the token is older than what is left of conversions",
		OlderRules:    "an earlier version of the rules read an event of the token",
		NewerRules:    "a newer version of the rules judged it",
		TimesChanged:  "grace, click life or journey life changed meanwhile",
		TimesUnknown:  "no progress says by which grace, click life and journey life it was judged",
		TokenGivenUp:  "an operator gave up the token",
		RowExpired:    "its row may be in the part of outcomes that is deleted",
	}[r]
}

// clockSlack is by how much the clocks of redirectors, gateways and brokers may differ.
const clockSlack = event.Millis(5 * time.Minute / time.Millisecond)

// forever is later than every end of a wait.
const forever = event.Millis(1 << 60)

// deriver applies the rules to one token after the other.
type deriver struct {
	partition *Partition
	codec     *event.Codec
	rules     []*attribution.Rules // by the index of Partition.Times; nil: not known
	rows      journeyRows
	event     event.Conversion
}

// newDeriver takes two codecs: texts of the rules' may not point into what they read.
func newDeriver(p *Partition, codec, aliasing *event.Codec) (*deriver, error) {
	d := &deriver{partition: p, codec: aliasing}
	for _, t := range p.Times {
		if t.ClickLifeMs == 0 || t.JourneyLifeMs == 0 {
			d.rules = append(d.rules, nil)
			continue
		}
		rules, err := attribution.New(attribution.Config{
			Grace:       time.Duration(t.GraceMs) * time.Millisecond,
			ClickLife:   time.Duration(t.ClickLifeMs) * time.Millisecond,
			JourneyLife: time.Duration(t.JourneyLifeMs) * time.Millisecond,
		}, codec)
		if err != nil {
			return nil, fmt.Errorf("the times that progress of partition %d names: %w", p.ID, err)
		}
		d.rules = append(d.rules, rules)
	}
	return d, nil
}

// classify returns the index of the times by which a token was judged, or why its rows
// cannot be derived.
func (d *deriver) classify(h *history) (times int, why Reason) {
	first, last := h.events[0].offset, h.events[len(h.events)-1].offset
	minted := event.MillisOf(token.Time(&h.token))
	isOlderThan := func(x *Extent) bool { return x.Start > 0 && minted <= x.FirstAt+clockSlack }
	switch {
	case isOlderThan(&d.partition.Clicks):
		return 0, ClickExpired
	case isOlderThan(&d.partition.Conversions):
		return 0, EventsExpired
	case first < d.partition.OlderRules:
		return 0, OlderRules
	case d.partition.IsGivenUp != nil && d.partition.IsGivenUp(token.Text(&h.token)):
		return 0, TokenGivenUp
	}
	times, ok := d.partition.timesOf(first, last)
	switch {
	case !ok:
		return 0, TimesChanged
	case d.rules[times] == nil:
		return 0, TimesUnknown
	}
	return times, Derivable
}

// derivation is a token on its way through the rules.
type derivation struct {
	*deriver
	rules   *attribution.Rules
	history *history
	rows    *journeyRows
	raw     token.Raw
	emit    attribution.Emit
}

func (d *deriver) begin(h *history, times int, emit attribution.Emit) *derivation {
	d.rows.reset()
	return &derivation{
		deriver: d,
		rules:   d.rules[times],
		history: h,
		rows:    &d.rows,
		raw:     h.token,
		emit:    emit,
	}
}

// lookUpClick is an attribution.ClickLookup. The click is known from the start: when it
// is read changes no row.
func (v *derivation) lookUpClick(*[20]byte) (wire []byte, at event.Millis, ok bool, err error) {
	return v.history.click, v.history.clickAt, v.history.click != nil, nil
}

// noClick is an attribution.ClickLookup for a click that was not read yet.
func noClick(*[20]byte) (wire []byte, at event.Millis, ok bool, err error) { return nil, 0, false, nil }

// judgeEvent passes the i-th event to the rules.
func (v *derivation) judgeEvent(i int, clicks attribution.ClickLookup) error {
	e := &v.history.events[i]
	if err := v.codec.DecodeConversion(e.value, &v.event); err != nil {
		return fmt.Errorf("decoding conversions partition %d offset %d again: %w", v.partition.ID, e.offset, err)
	}
	source := attribution.Source{Partition: v.partition.ID, Offset: e.offset}
	return v.rules.JudgeEvent(v.rows, clicks, &v.event, source, v.emit)
}

func (v *derivation) closeWaits(through event.Millis, clicks attribution.ClickLookup) error {
	return v.rules.CloseWaits(v.rows, clicks, &v.raw, through, through, v.emit)
}

// deriveToken derives the rows of a token. Due ones must be in the ledger. The others
// are of waits that end at or behind the watermark: they may be there.
func (d *deriver) deriveToken(h *history, times int, emit func(o *event.Outcome, click []byte, due bool) error) error {
	due := true
	v := d.begin(h, times, func(o *event.Outcome, click []byte) error { return emit(o, click, due) })
	for i := range h.events {
		if err := v.judgeEvent(i, v.lookUpClick); err != nil {
			return err
		}
	}
	if err := v.closeWaits(d.partition.Watermark, v.lookUpClick); err != nil {
		return err
	}
	due = false
	return v.closeWaits(forever, v.lookUpClick)
}

// copyOutcome returns an outcome that stays valid after the call that was given it.
func copyOutcome(codec *event.Codec, o *event.Outcome, click []byte) (*event.Outcome, error) {
	c := *o
	c.Flags = slices.Clone(o.Flags)
	c.Metadata = maps.Clone(o.Metadata)
	c.AmountMinor = copyNumber(o.AmountMinor)
	c.EstimatedRewardMinor = copyNumber(o.EstimatedRewardMinor)
	c.FirstOffset = copyNumber(o.FirstOffset)
	c.StandingChangeMinor = copyNumber(o.StandingChangeMinor)
	c.Quantity = copyNumber(o.Quantity)
	if click != nil {
		c.Click = new(event.Click)
		return &c, codec.DecodeClick(click, c.Click)
	}
	if o.Click != nil {
		k := *o.Click
		c.Click = &k
	}
	return &c, nil
}

func copyNumber[N any](n *N) *N {
	if n == nil {
		return nil
	}
	v := *n
	return &v
}
