package event

import (
	"encoding/binary"
	"math/bits"
)

// JourneyHead is the row of a journey that has an event, be it kept or waiting.
//
//	+---+-------+------+-------------+-------------+------------------------+-----------+
//	| 2 | flags | kept | waits ('w') | waits ('c') | waits to, if any ('c') | last kept |
//	+---+-------+------+-------------+-------------+------------------------+-----------+
//	| sales that wait, if flag 4 | sales | leads | click arrived at | click wire |
//	+----------------------------+-------+-------+------------------+------------+
//	flags: 1 there is a click (the last two fields), 2 passed, 4 a sale waits
//	sales, leads: attributed, the id if it is 1, unattributed, the id if it is 1
//
// Version 1 counts sales and leads without their verdicts.
type JourneyHead struct {
	// Click is the frozen click in wire form; nil while it is unknown. In a decoded
	// head it shares the row's memory.
	Click []byte
	// ClickArrivedAt is when the click reached Kafka: the record's timestamp. When the
	// visitor clicked is ClickedAt of Click.
	ClickArrivedAt Millis
	// Passed: an event has been read whose EnteredAt is after ClickArrivedAt. The click
	// comes before all later events.
	Passed     bool
	Kept       int64 // events whose verdict stays in the journey
	WaitParent int64 // events that wait for a parent
	WaitClick  int64 // events that wait for the click; if there is one, Kept is 0
	// WaitsTo is the latest end of the waits for the click, without those that are
	// Behind. It is 0 if none waits, or if without a click all are found to have ended.
	WaitsTo Millis
	// LastKept is the largest EnteredAt of kept events. Waiting events do not count, so
	// that closing a wait needs no search for the next largest.
	LastKept  Millis
	WaitSales int64     // sales among WaitParent
	Sales     Positives // kept sales
	Leads     Positives // kept leads
	// Old: a row of version 1. Sales and Leads are empty, and no order row tells
	// verdicts either: both must be found from the event rows.
	Old bool
}

// Positives counts the kept positives of one type, by verdict.
type Positives struct{ Attributed, Unattributed PositiveClass }

// PositiveClass counts the positives of one type and verdict.
type PositiveClass struct {
	Count int64
	Only  string // event id, if there is exactly one
}

// Add counts one more positive.
func (c *PositiveClass) Add(id string) {
	if c.Count++; c.Count > 1 {
		id = ""
	}
	c.Only = id
}

// Class returns the count that an event with this effect belongs to.
func (p *Positives) Class(effect int32) *PositiveClass {
	if effect != 0 {
		return &p.Attributed
	}
	return &p.Unattributed
}

// Count returns the number of positives.
func (p *Positives) Count() int64 { return p.Attributed.Count + p.Unattributed.Count }

// Only returns the event id of the positive, if there is exactly one.
func (p *Positives) Only() string {
	if p.Attributed.Count > 0 {
		return p.Attributed.Only
	}
	return p.Unattributed.Only
}

// Empty reports whether nothing is kept or waits: the journey does not exist.
func (h *JourneyHead) Empty() bool { return h.Kept == 0 && h.WaitParent == 0 && h.WaitClick == 0 }

// Last returns the largest EnteredAt of the journey's events, from which its life is
// measured. ok is false while an event waits: then the journey does not end.
func (h *JourneyHead) Last() (last Millis, ok bool) {
	return h.LastKept, h.Kept > 0 && h.WaitParent == 0 && h.WaitClick == 0
}

// AppendHead appends the value of a head row.
func AppendHead(dst []byte, h *JourneyHead) []byte {
	var flags byte
	if h.Click != nil {
		flags |= 1
	}
	if h.Passed {
		flags |= 2
	}
	if h.WaitSales > 0 {
		flags |= 4
	}
	dst = append(dst, journeyVersion, flags)
	dst = binary.AppendUvarint(dst, uint64(h.Kept))
	dst = binary.AppendUvarint(dst, uint64(h.WaitParent))
	dst = binary.AppendUvarint(dst, uint64(h.WaitClick))
	if h.WaitClick > 0 {
		dst = binary.AppendVarint(dst, int64(h.WaitsTo))
	}
	dst = binary.AppendVarint(dst, int64(h.LastKept))
	if h.WaitSales > 0 {
		dst = binary.AppendUvarint(dst, uint64(h.WaitSales))
	}
	for _, p := range [...]*Positives{&h.Sales, &h.Leads} {
		for _, c := range [...]*PositiveClass{&p.Attributed, &p.Unattributed} {
			if dst = binary.AppendUvarint(dst, uint64(c.Count)); c.Count == 1 {
				dst = appendText(dst, c.Only)
			}
		}
	}
	if h.Click != nil {
		dst = append(binary.AppendVarint(dst, int64(h.ClickArrivedAt)), h.Click...)
	}
	return dst
}

// DecodeHead reads a head row. Click shares b's memory.
func DecodeHead(b []byte, h *JourneyHead) error {
	r := journeyReader{b: b}
	old := r.readVersion() == 1
	flags := byte(r.readFlags(7))
	*h = JourneyHead{
		Passed:     flags&2 != 0,
		Kept:       r.readCount(),
		WaitParent: r.readCount(),
		WaitClick:  r.readCount(),
		Old:        old,
	}
	if h.WaitClick > 0 {
		h.WaitsTo = Millis(r.readVarint())
	}
	h.LastKept = Millis(r.readVarint())
	if old {
		r.skipOldPositives()
	} else {
		if flags&4 != 0 {
			h.WaitSales = r.readCount()
		}
		for _, p := range [...]*Positives{&h.Sales, &h.Leads} {
			for _, c := range [...]*PositiveClass{&p.Attributed, &p.Unattributed} {
				if c.Count = r.readCount(); c.Count == 1 {
					c.Only = r.readText()
				}
			}
		}
	}
	if flags&1 != 0 {
		h.ClickArrivedAt = Millis(r.readVarint())
		h.Click, r.b = r.b, r.b[len(r.b):]
		if len(h.Click) == 0 {
			r.markBad()
		}
	}
	if old && flags&4 != 0 || !old && (flags&4 != 0) != (h.WaitSales > 0) {
		r.markBad()
	}
	return r.finish("head")
}

// skipOldPositives reads what a head of version 1 has in place of both Positives: the
// number of sales, of leads, and the id of each that is the only one.
func (r *journeyReader) skipOldPositives() {
	sales, leads := r.readCount(), r.readCount()
	if sales == 1 {
		r.readText()
	}
	if leads == 1 {
		r.readText()
	}
}

// JourneyEvent is the row of an event that is kept (its verdict stays in the journey),
// or that waits for a parent and has reserved its id.
//
//	+---+-------+------+--------+---------+------------------+-----------------------+
//	| 2 | flags | type | offset | SHA-256 | occurred | money | of a waiting one: end |
//	+---+-------+------+--------+---------+------------------+-----------------------+
//	| of a kept one: amount, currency, exponent, if flag 2 | order | parent | root    |
//	|   sum high, low | reversals | origin, if flag 64                               |
//	+--------------------------------------------------------------------------------+
//	flags (a varint): 1 waiting, 2 has an amount, 4 takes, 8 effect +1, 16 effect −1,
//	  32 old (no occurred, no money), 64 follows, 128 shares its order
//	type: index in Types
//
// Version 1 has no occurred, money, reversals and origin, and no flag from 32 on.
type JourneyEvent struct {
	Waiting bool
	Type    Type
	Offset  int64    // of its record in conversions
	Content [32]byte // Conversion.ContentHash
	// Old: version 1 wrote the event, and the next two are unknown.
	Old        bool
	OccurredAt Millis  // the merchant's clock
	Money      [8]byte // Conversion.MoneyHash
	End        Millis  // end of the wait of a waiting event

	// The following are of a kept event.

	Effect    int32  // +1, −1, or 0: neither it nor any event below it has an effect
	HasAmount bool   // false: it counts as one unit
	Amount    int64  // minor units
	Currency  string // of Amount, ISO 4217
	Exponent  int32  // digits of Currency after the point
	Order     string // order id of a positive
	Parent    string // event id of a negative's parent
	Root      string // event id of the positive at the top of the chain; empty: it is Parent
	Takes     bool   // its amount reduces the parent's standing amount (same currency)
	Sum       Sum    // of the standing amounts of its children that take
	// Reversals counts the reversals directly below it of which anything, or the unit,
	// stands.
	Reversals int64
	// Follows: a positive after the window, attributed because it follows another.
	// Origin is when that began: OccurredAt of the positive inside the window.
	Follows bool
	Origin  Millis
	// SharesOrder: an attributed sale whose order has another one. The order row counts
	// it while anything of it stands.
	SharesOrder bool
}

// OriginAt returns OccurredAt of the origin of an attributed positive: of itself, or of
// the one inside the window that it follows.
func (e *JourneyEvent) OriginAt() Millis {
	if e.Follows {
		return e.Origin
	}
	return e.OccurredAt
}

// Standing returns the standing amount: the amount, or one unit, less the standing
// amounts of the children that take. It is never negative.
func (e *JourneyEvent) Standing() int64 {
	whole := int64(1)
	if e.HasAmount {
		whole = e.Amount
	}
	if whole <= 0 || e.Sum.High != 0 || e.Sum.Low >= uint64(whole) {
		return 0
	}
	return whole - int64(e.Sum.Low)
}

// RootID returns the event id of the positive at the top of e's chain; "" if e is a
// positive.
func (e *JourneyEvent) RootID() string {
	if e.Root != "" {
		return e.Root
	}
	return e.Parent
}

// Sum is an unsigned 128-bit sum: 100,000 children of the largest amount need 80 bits.
type Sum struct{ High, Low uint64 }

// Replace returns s after one of its summands has changed from was to now. Both are at
// least 0.
func (s Sum) Replace(was, now int64) Sum {
	low, borrow := bits.Sub64(s.Low, uint64(was), 0)
	high := s.High - borrow
	low, carry := bits.Add64(low, uint64(now), 0)
	return Sum{High: high + carry, Low: low}
}

// Flags of an event row, in the order of rowFlags.
const (
	eventWaiting = 1 << iota
	eventHasAmount
	eventTakes
	eventAdds
	eventTakesBack
	eventOld
	eventFollows
	eventSharesOrder
)

func (e *JourneyEvent) rowFlags() (flags uint64) {
	for i, isSet := range [...]bool{
		e.Waiting, e.HasAmount, e.Takes, e.Effect == 1, e.Effect == -1, e.Old, e.Follows, e.SharesOrder,
	} {
		if isSet {
			flags |= 1 << i
		}
	}
	return flags
}

// AppendEvent appends the value of an event row.
func AppendEvent(dst []byte, e *JourneyEvent) []byte {
	dst = binary.AppendUvarint(append(dst, journeyVersion), e.rowFlags())
	dst = binary.AppendUvarint(append(dst, typeIndex(e.Type)), uint64(e.Offset))
	dst = append(dst, e.Content[:]...)
	if !e.Old {
		dst = append(binary.AppendVarint(dst, int64(e.OccurredAt)), e.Money[:]...)
	}
	if e.Waiting {
		return binary.AppendVarint(dst, int64(e.End))
	}
	if e.HasAmount {
		dst = appendAmount(dst, e.Amount, e.Currency, e.Exponent)
	}
	dst = appendText(appendText(appendText(dst, e.Order), e.Parent), e.Root)
	dst = binary.AppendUvarint(binary.AppendUvarint(dst, e.Sum.High), e.Sum.Low)
	dst = binary.AppendUvarint(dst, uint64(e.Reversals))
	if e.Follows {
		dst = binary.AppendVarint(dst, int64(e.Origin))
	}
	return dst
}

// DecodeEvent reads an event row.
func DecodeEvent(b []byte, e *JourneyEvent) error {
	r := journeyReader{b: b}
	old, known := r.readVersion() == 1, uint64(2*eventSharesOrder-1)
	if old {
		known = eventOld - 1
	}
	flags := r.readFlags(known)
	*e = JourneyEvent{
		Waiting:     flags&eventWaiting != 0,
		HasAmount:   flags&eventHasAmount != 0,
		Takes:       flags&eventTakes != 0,
		Old:         old || flags&eventOld != 0,
		Follows:     flags&eventFollows != 0,
		SharesOrder: flags&eventSharesOrder != 0,
		Type:        r.readType(),
		Offset:      r.readCount(),
	}
	switch flags & (eventAdds | eventTakesBack) {
	case eventAdds:
		e.Effect = 1
	case eventTakesBack:
		e.Effect = -1
	case eventAdds | eventTakesBack:
		r.markBad()
	}
	r.readInto(e.Content[:])
	if !e.Old {
		e.OccurredAt = Millis(r.readVarint())
		r.readInto(e.Money[:])
	}
	if e.Waiting {
		e.End = Millis(r.readVarint())
		if flags&^eventOld != eventWaiting {
			r.markBad()
		}
		return r.finish("event")
	}
	if e.HasAmount {
		e.Amount, e.Currency, e.Exponent = r.readAmount()
	}
	e.Order = r.readText()
	e.Parent = r.readText()
	e.Root = r.readText()
	e.Sum = Sum{High: r.readUvarint(), Low: r.readUvarint()}
	if !old {
		e.Reversals = r.readCount()
	}
	if e.Follows {
		e.Origin = Millis(r.readVarint())
	}
	return r.finish("event")
}

// JourneyOrder is what the sales, or the leads, of an order are to other events.
//
//	+---+-------+------------------------------+------------+--------------+
//	| 2 | flags | standing, waiting, if flag 1 | attributed | unattributed |
//	+---+-------+------------------------------+------------+--------------+
//	flags: 1 something stands of several, or waits
//	attributed, unattributed: number, and of the latest, if it is not 0: event id, offset
//
// Version 1 has the latest, whatever its verdict, and whether there are several.
type JourneyOrder struct {
	Attributed   OrderClass
	Unattributed OrderClass
	// Standing is of several attributed sales the number of those of which anything, or
	// the unit, stands. Of a single one its row tells.
	Standing int64
	Waiting  int64 // sales of the order that wait
	// Old: a row of version 1. Attributed is of all, without the offset, and its number
	// is 1 or, for several, 2.
	Old bool
}

// OrderClass is the positives of one order, type and verdict.
type OrderClass struct {
	Count  int64
	Latest string // event id of the last in order of record
	Offset int64  // of Latest
}

// Add counts one more positive.
func (c *OrderClass) Add(id string, offset int64) {
	if c.Count++; c.Count == 1 || offset > c.Offset {
		c.Latest, c.Offset = id, offset
	}
}

// Class returns the class that an event with this effect belongs to.
func (o *JourneyOrder) Class(effect int32) *OrderClass {
	if effect != 0 {
		return &o.Attributed
	}
	return &o.Unattributed
}

// AppendOrder appends the value of an order row.
func AppendOrder(dst []byte, o *JourneyOrder) []byte {
	dst = append(dst, journeyVersion)
	if o.Standing != 0 || o.Waiting != 0 {
		dst = binary.AppendUvarint(append(dst, 1), uint64(o.Standing))
		dst = binary.AppendUvarint(dst, uint64(o.Waiting))
	} else {
		dst = append(dst, 0)
	}
	for _, c := range [...]*OrderClass{&o.Attributed, &o.Unattributed} {
		if dst = binary.AppendUvarint(dst, uint64(c.Count)); c.Count > 0 {
			dst = binary.AppendUvarint(appendText(dst, c.Latest), uint64(c.Offset))
		}
	}
	return dst
}

// DecodeOrder reads an order row.
func DecodeOrder(b []byte, o *JourneyOrder) error {
	r := journeyReader{b: b}
	old := r.readVersion() == 1
	flags := r.readFlags(1)
	*o = JourneyOrder{Old: old}
	if old {
		o.Attributed = OrderClass{Count: 1 + int64(flags), Latest: string(r.b)}
		r.b = nil
		return r.finish("order")
	}
	if flags == 1 {
		o.Standing = r.readCount()
		o.Waiting = r.readCount()
		if o.Standing == 0 && o.Waiting == 0 {
			r.markBad()
		}
	}
	for _, c := range [...]*OrderClass{&o.Attributed, &o.Unattributed} {
		if c.Count = r.readCount(); c.Count > 0 {
			c.Latest = r.readText()
			c.Offset = r.readCount()
		}
	}
	return r.finish("order")
}
