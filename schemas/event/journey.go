package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// A journey is what is remembered of one token: its frozen click and its events. It is
// kept as rows, in the compacted topic `attribution-changelog` and in the processor's
// store. All rows of a token have the prefix 'J' token; one index over all tokens of a
// partition has the prefix 'D'.
//
//	head        'J' | token 20 B | 'h'                                            → JourneyHead
//	event       'J' | token 20 B | 'e' | event id                                 → JourneyEvent: kept, or waiting for a parent
//	order       'J' | token 20 B | 'o' | 's' or 'l' | order id                    → JourneyOrder: sales or leads of an order, from the journey's second one on
//	wait        'J' | token 20 B | 'c' or 'w' | end ms 8 B BE | offset 8 B BE     → the event that waits for its click ('c') or for a parent ('w')
//	wait index  'J' | token 20 B | 'p', 's' or 'a' | n 1 B | id n B | offset 8 B BE → end ms of the wait ('w'): by what would end it
//	deadline    'D' | end ms 8 B BE | token 20 B | offset 8 B BE                  → 'c' or 'w'; one row per waiting event
//
// One row is of no journey, and stands in the changelog alone: what was written from an
// offset on by a transaction that hung there was aborted afterwards.
//
//	void        'V' | offset 8 B BE                                               → nothing more
//
// Every value but the deadline's begins with the version of its form, 1. Integers are
// varints (encoding/binary; signed ones zigzag), texts a length and bytes.
const (
	prefixJourney  = 'J'
	prefixDeadline = 'D'
	prefixVoid     = 'V'
	journeyVersion = 1
	journeyKeyLen  = 1 + 20 + 1
)

// Kinds of journey rows: the byte behind the token.
const (
	KindHead        byte = 'h'
	KindEvent       byte = 'e'
	KindOrder       byte = 'o'
	KindWaitClick   byte = 'c' // an event that waits for its click
	KindWaitParent  byte = 'w' // a negative that waits for its parent
	KindForEvent    byte = 'p' // waits for the event with this id
	KindForSale     byte = 's' // waits for a sale of this order; empty id: for any
	KindForPositive byte = 'a' // waits for a sale or lead of this order; empty id: for any
)

// ErrJourney classifies every failure to read a journey row: the store is damaged, or
// was written by a newer program.
var ErrJourney = errors.New("malformed journey row")

// JourneyPrefix is the prefix of all rows of a token's journey.
func JourneyPrefix(token *[20]byte) []byte {
	return append(append(make([]byte, 0, 21), prefixJourney), token[:]...)
}

// AppendJourneyKey appends the key of a row, or the prefix of rows, of one kind: of the
// head and of all wait rows with an empty id, of an event with its id.
func AppendJourneyKey(dst []byte, token *[20]byte, kind byte, id string) []byte {
	dst = append(append(append(dst, prefixJourney), token[:]...), kind)
	return append(dst, id...)
}

// HeadKey is the key of a journey's head.
func HeadKey(token *[20]byte) []byte { return AppendJourneyKey(nil, token, KindHead, "") }

// AppendOrderKey appends the key of the order index: of sales or of leads.
func AppendOrderKey(dst []byte, token *[20]byte, of Type, order string) []byte {
	return append(append(AppendJourneyKey(dst, token, KindOrder, ""), orderClass(of)), order...)
}

func orderClass(of Type) byte {
	if of == Lead {
		return 'l'
	}
	return 's'
}

// AppendWaitKey appends the key of a waiting event (KindWaitClick or KindWaitParent):
// waits sort by their end, then by order of record.
func AppendWaitKey(dst []byte, token *[20]byte, kind byte, end Millis, offset int64) []byte {
	dst = AppendJourneyKey(dst, token, kind, "")
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, uint64(end)), uint64(offset))
}

// ParseWaitKey reads the end and offset in a key made by AppendWaitKey.
func ParseWaitKey(key []byte) (end Millis, offset int64, err error) {
	if len(key) != journeyKeyLen+16 || key[0] != prefixJourney {
		return 0, 0, fmt.Errorf("%w: wait key of %d bytes", ErrJourney, len(key))
	}
	return Millis(binary.BigEndian.Uint64(key[journeyKeyLen:])), int64(binary.BigEndian.Uint64(key[journeyKeyLen+8:])),
		nil
}

// AppendIndexPrefix appends the prefix of the wait index rows (KindForEvent,
// KindForSale, KindForPositive) of one id, at most 255 bytes of it.
func AppendIndexPrefix(dst []byte, token *[20]byte, kind byte, id string) []byte {
	id = id[:min(len(id), 255)]
	dst = AppendJourneyKey(dst, token, kind, "")
	return append(append(dst, byte(len(id))), id...)
}

// AppendIndexKey appends the key of a wait index row.
func AppendIndexKey(dst []byte, token *[20]byte, kind byte, id string, offset int64) []byte {
	return binary.BigEndian.AppendUint64(AppendIndexPrefix(dst, token, kind, id), uint64(offset))
}

// ParseIndex reads the offset in the key and the end in the value of a wait index row.
func ParseIndex(key, value []byte) (end Millis, offset int64, err error) {
	if len(key) < journeyKeyLen+1+8 || len(key) != journeyKeyLen+1+int(key[journeyKeyLen])+8 {
		return 0, 0, fmt.Errorf("%w: wait index key of %d bytes", ErrJourney, len(key))
	}
	r := journeyReader{b: value}
	r.version()
	end = Millis(r.signed())
	return end, int64(binary.BigEndian.Uint64(key[len(key)-8:])), r.end("wait index")
}

// AppendIndex appends the value of a wait index row.
func AppendIndex(dst []byte, end Millis) []byte {
	return binary.AppendVarint(append(dst, journeyVersion), int64(end))
}

// ParseJourneyKey reads the token and the kind of any journey row; ok is false for
// other rows.
func ParseJourneyKey(key []byte) (token [20]byte, kind byte, ok bool) {
	if len(key) < journeyKeyLen || key[0] != prefixJourney {
		return token, 0, false
	}
	copy(token[:], key[1:21])
	return token, key[21], true
}

// AppendDeadlineKey appends the key of a row of the deadline index. Its value is one
// byte: the kind of wait.
func AppendDeadlineKey(dst []byte, end Millis, token *[20]byte, offset int64) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, prefixDeadline), uint64(end))
	return binary.BigEndian.AppendUint64(append(dst, token[:]...), uint64(offset))
}

// DeadlineKey is the key of a row of the deadline index: end is the last moment at
// which the wait still lasts.
func DeadlineKey(end Millis, token *[20]byte, offset int64) []byte {
	return AppendDeadlineKey(make([]byte, 0, 37), end, token, offset)
}

// ParseDeadline reads a key made by DeadlineKey; ok is false for other rows.
func ParseDeadline(key []byte) (end Millis, token [20]byte, offset int64, ok bool) {
	if len(key) != 37 || key[0] != prefixDeadline {
		return 0, token, 0, false
	}
	copy(token[:], key[9:29])
	return Millis(binary.BigEndian.Uint64(key[1:])), token, int64(binary.BigEndian.Uint64(key[29:])), true
}

// VoidRow says to whoever applied the changelog beyond the offset that a transaction
// which was open from there was aborted: its state has what never was. The offset is in
// the key, so that compaction keeps the row of each event: a state that is older than
// one of them must meet it, however many come after.
func VoidRow(offset int64) (key, value []byte) {
	return binary.BigEndian.AppendUint64([]byte{prefixVoid}, uint64(offset)), []byte{journeyVersion}
}

// ParseVoid reads the offset in a key made by VoidRow; ok is false for other rows.
func ParseVoid(key []byte) (offset int64, ok bool) {
	if len(key) != 9 || key[0] != prefixVoid {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(key[1:])), true
}

// JourneyHead is the row that a journey has as long as an event is kept or waits.
//
//	+---+-------+------+-------------+-------------+--------------------------+-----------+
//	| 1 | flags | kept | waits ('w') | waits ('c') | waits to, if waits ('c') | last kept |
//	+---+-------+------+-------------+-------------+--------------------------+-----------+
//	| sales | leads | sale, if sales=1 | lead, if leads=1 | click at | click wire |
//	+-------+-------+------------------+------------------+----------+------------+
//	flags: 1 there is a click (the last two fields), 2 passed
type JourneyHead struct {
	// the frozen click, wire form; nil while it is unknown. A decoded head shares the
	// row's memory
	Click   []byte
	ClickAt Millis // when the click reached Kafka
	// an event that was received after the click reached Kafka has been read: the click
	// stands before all to come
	Passed     bool
	Kept       int64 // events with a verdict that stays in the journey
	WaitParent int64 // events that wait for a parent
	WaitClick  int64 // events that wait for the click; then nothing is kept
	// while WaitClick > 0: the largest end of those waits; 0 if, without a click, all
	// have been found ended. Behind ones are left out
	WaitsTo Millis
	// largest received_at of kept events. Waiting events are not in it, so that closing
	// one needs no search for the next
	LastKept Millis
	Sales    int64 // kept sales, whatever their verdict
	Leads    int64
	Sale     string // event id of the only sale
	Lead     string // event id of the only lead
}

// Empty reports whether nothing is kept or waits: the journey does not exist.
func (h *JourneyHead) Empty() bool { return h.Kept == 0 && h.WaitParent == 0 && h.WaitClick == 0 }

// Last is the largest received_at of the journey's events, from which its life counts.
// It is not known (false) while an event waits: then the journey does not end.
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
	dst = append(dst, journeyVersion, flags)
	dst = binary.AppendUvarint(dst, uint64(h.Kept))
	dst = binary.AppendUvarint(dst, uint64(h.WaitParent))
	dst = binary.AppendUvarint(dst, uint64(h.WaitClick))
	if h.WaitClick > 0 {
		dst = binary.AppendVarint(dst, int64(h.WaitsTo))
	}
	dst = binary.AppendVarint(dst, int64(h.LastKept))
	dst = binary.AppendUvarint(dst, uint64(h.Sales))
	dst = binary.AppendUvarint(dst, uint64(h.Leads))
	if h.Sales == 1 {
		dst = appendText(dst, h.Sale)
	}
	if h.Leads == 1 {
		dst = appendText(dst, h.Lead)
	}
	if h.Click != nil {
		dst = append(binary.AppendVarint(dst, int64(h.ClickAt)), h.Click...)
	}
	return dst
}

// DecodeHead reads a head row. Click shares b's memory.
func DecodeHead(b []byte, h *JourneyHead) error {
	r := journeyReader{b: b}
	r.version()
	flags := r.flags(3)
	*h = JourneyHead{Passed: flags&2 != 0, Kept: r.count(), WaitParent: r.count(), WaitClick: r.count()}
	if h.WaitClick > 0 {
		h.WaitsTo = Millis(r.signed())
	}
	h.LastKept, h.Sales, h.Leads = Millis(r.signed()), r.count(), r.count()
	if h.Sales == 1 {
		h.Sale = r.text()
	}
	if h.Leads == 1 {
		h.Lead = r.text()
	}
	if flags&1 != 0 {
		h.ClickAt = Millis(r.signed())
		h.Click, r.b = r.b, r.b[len(r.b):]
		if len(h.Click) == 0 {
			r.fail()
		}
	}
	return r.end("head")
}

// JourneyEvent is an event that is kept (it has a verdict that stays), or whose id is
// taken by an event that waits for a parent.
//
//	+---+-------+------+--------+---------+------------------------------------------------------------------------------------------------+
//	| 1 | flags | type | offset | SHA-256 | waiting: end. Kept: amount, currency, exponent (flag 2) | order | parent | root | sum high | sum low |
//	+---+-------+------+--------+---------+------------------------------------------------------------------------------------------------+
//	flags: 1 waiting, 2 has an amount, 4 takes, 8 effect +1, 16 effect −1; type: index in Types
type JourneyEvent struct {
	Waiting bool
	Type    Type
	Offset  int64    // its record in conversions
	Content [32]byte // what the merchant said (Conversion.Content)
	End     Millis   // of a waiting event: the end of its wait

	// Of a kept event:
	Effect    int32 // +1, −1, or 0: it has no effect and nothing below it can have one
	HasAmount bool  // false: it counts as one unit
	Amount    int64 // minor units
	Currency  string
	Exponent  int32
	Order     string // of a positive
	Parent    string // of an event that takes something back: what it takes from
	Root      string // the positive at the top of its chain; empty: Parent
	Takes     bool   // its amount is taken from what stands of Parent (same currency)
	Sum       Sum    // what stands of its children that take
}

// Standing is what stands of e: its amount, or one unit, less what stands of its
// children that take; never less than 0.
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

// RootID is the positive at the top of e's chain; empty for a positive.
func (e *JourneyEvent) RootID() string {
	if e.Root != "" {
		return e.Root
	}
	return e.Parent
}

// Sum is an unsigned 128-bit sum: 100,000 children of the largest amount need 80 bits.
type Sum struct{ High, Low uint64 }

// Replace returns s with one summand of the value was changed to now. Both are at least
// 0, and was is part of s.
func (s Sum) Replace(was, now int64) Sum {
	low, borrow := bits.Sub64(s.Low, uint64(was), 0)
	high := s.High - borrow
	low, carry := bits.Add64(low, uint64(now), 0)
	return Sum{High: high + carry, Low: low}
}

// AppendEvent appends the value of an event row.
func AppendEvent(dst []byte, e *JourneyEvent) []byte {
	var flags byte
	if e.Waiting {
		flags |= 1
	}
	if e.HasAmount {
		flags |= 2
	}
	if e.Takes {
		flags |= 4
	}
	switch e.Effect {
	case 1:
		flags |= 8
	case -1:
		flags |= 16
	}
	dst = append(dst, journeyVersion, flags, typeByte(e.Type))
	dst = binary.AppendUvarint(dst, uint64(e.Offset))
	dst = append(dst, e.Content[:]...)
	if e.Waiting {
		return binary.AppendVarint(dst, int64(e.End))
	}
	if e.HasAmount {
		dst = appendAmount(dst, e.Amount, e.Currency, e.Exponent)
	}
	dst = appendText(appendText(appendText(dst, e.Order), e.Parent), e.Root)
	return binary.AppendUvarint(binary.AppendUvarint(dst, e.Sum.High), e.Sum.Low)
}

// DecodeEvent reads an event row.
func DecodeEvent(b []byte, e *JourneyEvent) error {
	r := journeyReader{b: b}
	r.version()
	flags := r.flags(31)
	*e = JourneyEvent{
		Waiting:   flags&1 != 0,
		HasAmount: flags&2 != 0,
		Takes:     flags&4 != 0,
		Type:      r.typ(),
		Offset:    r.count(),
	}
	switch flags & 24 {
	case 8:
		e.Effect = 1
	case 16:
		e.Effect = -1
	case 24:
		r.fail()
	}
	r.copy(e.Content[:])
	if e.Waiting {
		e.End = Millis(r.signed())
		if flags != 1 {
			r.fail()
		}
		return r.end("event")
	}
	if e.HasAmount {
		e.Amount, e.Currency, e.Exponent = r.amount()
	}
	e.Order, e.Parent, e.Root = r.text(), r.text(), r.text()
	e.Sum = Sum{High: r.unsigned(), Low: r.unsigned()}
	return r.end("event")
}

// JourneyOrder says which sale (or lead) of an order came last.
//
//	+---+-------------------+----------------+
//	| 1 | flags: 1 several  | event id       |
//	+---+-------------------+----------------+
type JourneyOrder struct {
	Latest  string
	Several bool
}

// AppendOrder appends the value of an order row.
func AppendOrder(dst []byte, o *JourneyOrder) []byte {
	var flags byte
	if o.Several {
		flags = 1
	}
	return append(append(dst, journeyVersion, flags), o.Latest...)
}

// DecodeOrder reads an order row.
func DecodeOrder(b []byte, o *JourneyOrder) error {
	r := journeyReader{b: b}
	r.version()
	flags := r.flags(1)
	*o = JourneyOrder{Several: flags == 1, Latest: string(r.b)}
	r.b = nil
	return r.end("order")
}

// JourneyWait is a waiting event: all of it that its verdict will need. Event's
// ClickToken is not stored (it is in the key), nor are metadata and the signing key's
// id.
//
//	+---+-------+------+-----------+----------+----------+--------------------------------------+-------------------+---------+
//	| 1 | flags | type | partition | received | occurred | amount, currency, exponent (flag 1) | quantity (flag 2) | SHA-256 |
//	+---+-------+------+-----------+----------+----------+--------------------------------------+-------------------+---------+
//	| workspace | event id | name | order | parent | reason | customer |
//	+-----------+----------+------+-------+--------+--------+----------+
//	flags: 4 behind
type JourneyWait struct {
	Event     Conversion
	Partition int32 // of its record in conversions; the offset is in the key
	// it waits for a click only because it was not known yet that all waits before it
	// had ended: without a click, it finds no journey
	Behind bool
}

// AppendWait appends the value of a wait row.
func AppendWait(dst []byte, c *Conversion, partition int32, behind bool) []byte {
	var flags byte
	if c.AmountMinor != nil {
		flags |= 1
	}
	if c.Quantity != nil {
		flags |= 2
	}
	if behind {
		flags |= 4
	}
	dst = append(dst, journeyVersion, flags, typeByte(c.Type))
	dst = binary.AppendVarint(dst, int64(partition))
	dst = binary.AppendVarint(dst, int64(c.ReceivedAt))
	dst = binary.AppendVarint(dst, int64(c.OccurredAt))
	if c.AmountMinor != nil {
		dst = appendAmount(dst, *c.AmountMinor, c.Currency, c.Exponent)
	}
	if c.Quantity != nil {
		dst = binary.AppendVarint(dst, int64(*c.Quantity))
	}
	dst = append(dst, c.ContentSHA256[:]...)
	for _, s := range [...]string{c.WorkspaceID, c.EventID, c.EventName, c.OrderID, c.ParentEventID, c.ReasonText,
		c.CustomerRef} {
		dst = appendText(dst, s)
	}
	return dst
}

// DecodeWait reads a wait row.
func DecodeWait(b []byte, w *JourneyWait) error {
	r := journeyReader{b: b}
	r.version()
	flags := r.flags(7)
	*w = JourneyWait{Behind: flags&4 != 0, Event: Conversion{Type: r.typ()}}
	c := &w.Event
	w.Partition, c.ReceivedAt, c.OccurredAt = r.small(), Millis(r.signed()), Millis(r.signed())
	if flags&1 != 0 {
		amount, currency, exponent := r.amount()
		c.AmountMinor, c.Currency, c.Exponent = &amount, currency, exponent
	}
	if flags&2 != 0 {
		quantity := r.small()
		c.Quantity = &quantity
	}
	r.copy(c.ContentSHA256[:])
	for _, s := range [...]*string{&c.WorkspaceID, &c.EventID, &c.EventName, &c.OrderID, &c.ParentEventID,
		&c.ReasonText, &c.CustomerRef} {
		*s = r.text()
	}
	return r.end("wait")
}

func typeByte(t Type) byte { return byte(slices.Index(Types(), t)) }

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendAmount(dst []byte, minor int64, currency string, exponent int32) []byte {
	dst = appendText(binary.AppendVarint(dst, minor), currency)
	return binary.AppendVarint(dst, int64(exponent))
}

// journeyReader reads a row from front to back; after the first failure it reads zeros.
type journeyReader struct {
	b   []byte
	bad bool
}

func (r *journeyReader) fail() { r.b, r.bad = nil, true }

func (r *journeyReader) end(what string) error {
	if r.bad || len(r.b) > 0 {
		return fmt.Errorf("%w: %s", ErrJourney, what)
	}
	return nil
}

func (r *journeyReader) byte() (v byte) {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v, r.b = r.b[0], r.b[1:]
	return v
}

func (r *journeyReader) version() {
	if r.byte() != journeyVersion {
		r.fail()
	}
}

func (r *journeyReader) flags(known byte) byte {
	v := r.byte()
	if v&^known != 0 {
		r.fail()
		return 0
	}
	return v
}

func (r *journeyReader) typ() Type {
	v, types := r.byte(), Types()
	if int(v) >= len(types) {
		r.fail()
		return ""
	}
	return types[v]
}

func (r *journeyReader) unsigned() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *journeyReader) signed() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// count reads a number that is at least 0 and fits int64.
func (r *journeyReader) count() int64 {
	v := r.unsigned()
	if v > 1<<63-1 {
		r.fail()
		return 0
	}
	return int64(v)
}

// small reads a signed number that fits int32.
func (r *journeyReader) small() int32 {
	v := r.signed()
	if int64(int32(v)) != v {
		r.fail()
		return 0
	}
	return int32(v)
}

func (r *journeyReader) amount() (minor int64, currency string, exponent int32) {
	return r.signed(), r.text(), r.small()
}

func (r *journeyReader) text() string {
	n := r.unsigned()
	if n > uint64(len(r.b)) {
		r.fail()
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *journeyReader) copy(dst []byte) {
	if len(r.b) < len(dst) {
		r.fail()
		return
	}
	r.b = r.b[copy(dst, r.b):]
}
