package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// A journey is the frozen click and the events of one token. It is kept as rows, in the
// compacted topic `attribution-changelog` and in the processor's store. All rows of a
// token have the prefix 'J' token. One index over all tokens of a partition has the
// prefix 'D'.
//
//	row         key                                                   value
//	head        'J' | token 20 B | 'h'                                JourneyHead
//	event       'J' | token 20 B | 'e' | event id                     JourneyEvent
//	order       'J' | token 20 B | 'o' | 's' or 'l' | order id        JourneyOrder
//	wait        'J' | token 20 B | 'c' or 'w' | end | offset          JourneyWait
//	wait index  'J' | token 20 B | 'p', 's' or 'a' | n | id | offset  end of the wait
//	deadline    'D' | end | token 20 B | offset                       'c' or 'w'
//
// One row belongs to no journey and is in the changelog alone: what a hanging
// transaction wrote from an offset on was aborted afterwards.
//
//	void        'V' | offset                                          nothing more
//
// An order row is for its sales ('s') or its leads ('l'), and exists from the journey's
// second sale or lead on. An event waits for its click ('c') or for its parent ('w'); a
// wait for a parent has an index row by what would end it ('p', 's' or 'a', see below),
// and every wait has a deadline row.
//
// In keys, end (unix ms) and offset have 8 bytes, big-endian; n is the length of id in
// one byte. Every value but the deadline's begins with the version of its form, 1.
// Integers of values are varints (encoding/binary; signed ones zigzag); a text is its
// length and its bytes.
const (
	prefixJourney  = 'J'
	prefixDeadline = 'D'
	prefixVoid     = 'V'
	journeyVersion = 1
	journeyKeyLen  = 1 + 20 + 1
)

// Kinds of journey rows: the byte after the token.
const (
	KindHead        byte = 'h'
	KindEvent       byte = 'e'
	KindOrder       byte = 'o'
	KindWaitClick   byte = 'c' // an event that waits for its click
	KindWaitParent  byte = 'w' // a negative that waits for its parent
	KindForEvent    byte = 'p' // wait index: for the event with this id
	KindForSale     byte = 's' // wait index: for a sale of this order; empty id: for any sale
	KindForPositive byte = 'a' // wait index: for a sale or lead of this order; empty id: for any
)

// ErrJourney is wrapped by every error about a journey row that cannot be read: the
// store is damaged, or a newer program wrote it.
var ErrJourney = errors.New("malformed journey row")

// JourneysPrefix returns the prefix of the rows of all journeys.
func JourneysPrefix() []byte { return []byte{prefixJourney} }

// JourneyPrefix returns the prefix of all rows of a token's journey.
func JourneyPrefix(token *[20]byte) []byte {
	return append(append(make([]byte, 0, 21), prefixJourney), token[:]...)
}

// AppendJourneyKey appends the key of a row of one kind: of the head with an empty id,
// of an event with its id. With an empty id it is also the prefix of all rows of a
// kind.
func AppendJourneyKey(dst []byte, token *[20]byte, kind byte, id string) []byte {
	dst = append(append(append(dst, prefixJourney), token[:]...), kind)
	return append(dst, id...)
}

// HeadKey returns the key of a journey's head.
func HeadKey(token *[20]byte) []byte { return AppendJourneyKey(nil, token, KindHead, "") }

// AppendOrderKey appends the key of an order row. An order has one for its sales and
// one for its leads.
func AppendOrderKey(dst []byte, token *[20]byte, of Type, order string) []byte {
	return append(append(AppendJourneyKey(dst, token, KindOrder, ""), orderKind(of)), order...)
}

func orderKind(of Type) byte {
	if of == Lead {
		return 'l'
	}
	return 's'
}

// AppendWaitKey appends the key of a waiting event (KindWaitClick or KindWaitParent).
// Waits sort by their end, then by offset.
func AppendWaitKey(dst []byte, token *[20]byte, kind byte, end Millis, offset int64) []byte {
	dst = AppendJourneyKey(dst, token, kind, "")
	dst = binary.BigEndian.AppendUint64(dst, uint64(end))
	return binary.BigEndian.AppendUint64(dst, uint64(offset))
}

// ParseWaitKey reads the end and offset in a key made by AppendWaitKey.
func ParseWaitKey(key []byte) (end Millis, offset int64, err error) {
	if len(key) != journeyKeyLen+16 || key[0] != prefixJourney {
		return 0, 0, fmt.Errorf("%w: wait key of %d bytes", ErrJourney, len(key))
	}
	end = Millis(binary.BigEndian.Uint64(key[journeyKeyLen:]))
	offset = int64(binary.BigEndian.Uint64(key[journeyKeyLen+8:]))
	return end, offset, nil
}

// AppendIndexPrefix appends the prefix of the wait index rows (KindForEvent,
// KindForSale, KindForPositive) of one id. Only the first 255 bytes of the id count.
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
	r.readVersion()
	end = Millis(r.readVarint())
	return end, int64(binary.BigEndian.Uint64(key[len(key)-8:])), r.finish("wait index")
}

// AppendIndex appends the value of a wait index row.
func AppendIndex(dst []byte, end Millis) []byte {
	return binary.AppendVarint(append(dst, journeyVersion), int64(end))
}

// ParseJourneyKey reads token and kind of a journey row's key; ok is false for other
// rows.
func ParseJourneyKey(key []byte) (token [20]byte, kind byte, ok bool) {
	if len(key) < journeyKeyLen || key[0] != prefixJourney {
		return token, 0, false
	}
	copy(token[:], key[1:21])
	return token, key[21], true
}

// DeadlinePrefix returns the prefix of the deadline index.
func DeadlinePrefix() []byte { return []byte{prefixDeadline} }

// AppendDeadlineKey appends the key of a deadline row. end is the last moment of the
// wait. The row's value is one byte: the kind of wait.
func AppendDeadlineKey(dst []byte, end Millis, token *[20]byte, offset int64) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, prefixDeadline), uint64(end))
	return binary.BigEndian.AppendUint64(append(dst, token[:]...), uint64(offset))
}

// DeadlineKey returns the key of a deadline row; see AppendDeadlineKey.
func DeadlineKey(end Millis, token *[20]byte, offset int64) []byte {
	return AppendDeadlineKey(make([]byte, 0, 37), end, token, offset)
}

// ParseDeadline reads a key made by DeadlineKey; ok is false for other rows.
func ParseDeadline(key []byte) (end Millis, token [20]byte, offset int64, ok bool) {
	if len(key) != 37 || key[0] != prefixDeadline {
		return 0, token, 0, false
	}
	end = Millis(binary.BigEndian.Uint64(key[1:]))
	copy(token[:], key[9:29])
	offset = int64(binary.BigEndian.Uint64(key[29:]))
	return end, token, offset, true
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

// JourneyHead is the row of a journey that has an event, be it kept or waiting.
//
//	+---+-------+------+-------------+-------------+-------------------------+-----------+
//	| 1 | flags | kept | waits ('w') | waits ('c') | waits to, if any ('c')  | last kept |
//	+---+-------+------+-------------+-------------+-------------------------+-----------+
//	| sales | leads | sale, if sales=1 | lead, if leads=1 | click arrived at | click wire |
//	+-------+-------+------------------+------------------+------------------+------------+
//	flags: 1 there is a click (the last two fields), 2 passed
type JourneyHead struct {
	// Click is the frozen click in wire form; nil while it is unknown. In a decoded
	// head it shares the row's memory.
	Click []byte
	// ClickArrivedAt is when the click reached Kafka: the record's timestamp. When the
	// visitor clicked is ClickedAt of Click.
	ClickArrivedAt Millis
	// Passed: an event has been read whose ReceivedAt is after ClickArrivedAt. The
	// click comes before all later events.
	Passed     bool
	Kept       int64 // events whose verdict stays in the journey
	WaitParent int64 // events that wait for a parent
	WaitClick  int64 // events that wait for the click; if there is one, Kept is 0
	// WaitsTo is the latest end of the waits for the click, without those that are
	// Behind. It is 0 if none waits, or if without a click all are found to have ended.
	WaitsTo Millis
	// LastKept is the largest ReceivedAt of kept events. Waiting events do not count,
	// so that closing a wait needs no search for the next largest.
	LastKept Millis
	Sales    int64  // kept sales, whatever their verdict
	Leads    int64  // kept leads, whatever their verdict
	Sale     string // event id of the sale, if there is exactly one
	Lead     string // event id of the lead, if there is exactly one
}

// Empty reports whether nothing is kept or waits: the journey does not exist.
func (h *JourneyHead) Empty() bool { return h.Kept == 0 && h.WaitParent == 0 && h.WaitClick == 0 }

// Last returns the largest ReceivedAt of the journey's events, from which its life is
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
		dst = append(binary.AppendVarint(dst, int64(h.ClickArrivedAt)), h.Click...)
	}
	return dst
}

// DecodeHead reads a head row. Click shares b's memory.
func DecodeHead(b []byte, h *JourneyHead) error {
	r := journeyReader{b: b}
	r.readVersion()
	flags := r.readFlags(3)
	*h = JourneyHead{
		Passed:     flags&2 != 0,
		Kept:       r.readCount(),
		WaitParent: r.readCount(),
		WaitClick:  r.readCount(),
	}
	if h.WaitClick > 0 {
		h.WaitsTo = Millis(r.readVarint())
	}
	h.LastKept = Millis(r.readVarint())
	h.Sales = r.readCount()
	h.Leads = r.readCount()
	if h.Sales == 1 {
		h.Sale = r.readText()
	}
	if h.Leads == 1 {
		h.Lead = r.readText()
	}
	if flags&1 != 0 {
		h.ClickArrivedAt = Millis(r.readVarint())
		h.Click, r.b = r.b, r.b[len(r.b):]
		if len(h.Click) == 0 {
			r.markBad()
		}
	}
	return r.finish("head")
}

// JourneyEvent is the row of an event that is kept (its verdict stays in the journey),
// or that waits for a parent and has reserved its id.
//
//	+---+-------+------+--------+---------+------------------------------------------------+
//	| 1 | flags | type | offset | SHA-256 | of a waiting event: end                        |
//	|   |       |      |        |         | of a kept one: amount, currency, exponent, if  |
//	|   |       |      |        |         |   flag 2 | order | parent | root | sum high, low |
//	+---+-------+------+--------+---------+------------------------------------------------+
//	flags: 1 waiting, 2 has an amount, 4 takes, 8 effect +1, 16 effect −1; type: index in Types
type JourneyEvent struct {
	Waiting bool
	Type    Type
	Offset  int64    // of its record in conversions
	Content [32]byte // Conversion.ContentHash
	End     Millis   // end of the wait of a waiting event

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
	dst = append(dst, journeyVersion, flags, typeIndex(e.Type))
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
	r.readVersion()
	flags := r.readFlags(31)
	*e = JourneyEvent{
		Waiting:   flags&1 != 0,
		HasAmount: flags&2 != 0,
		Takes:     flags&4 != 0,
		Type:      r.readType(),
		Offset:    r.readCount(),
	}
	switch flags & 24 {
	case 8:
		e.Effect = 1
	case 16:
		e.Effect = -1
	case 24:
		r.markBad()
	}
	r.readInto(e.Content[:])
	if e.Waiting {
		e.End = Millis(r.readVarint())
		if flags != 1 {
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
	return r.finish("event")
}

// JourneyOrder is the latest sale, or the latest lead, of an order.
//
//	+---+-------------------+----------------+
//	| 1 | flags: 1 several  | event id       |
//	+---+-------------------+----------------+
type JourneyOrder struct {
	Latest  string // event id
	Several bool   // the order has more than one
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
	r.readVersion()
	flags := r.readFlags(1)
	*o = JourneyOrder{Several: flags == 1, Latest: string(r.b)}
	r.b = nil
	return r.finish("order")
}

// JourneyWait is a waiting event with everything that its verdict needs. The token is
// in the key, not in the row; metadata and key id are not stored.
//
//	+---+-------+------+-----------+----------+----------+
//	| 1 | flags | type | partition | received | occurred |
//	+---+-------+------+-----------+----------+----------+
//	| amount, currency, exponent (flag 1) | quantity (flag 2) | SHA-256 |
//	+-----------+----------+------+-------+--------+--------+----------+
//	| workspace | event id | name | order | parent | reason | customer |
//	+-----------+----------+------+-------+--------+--------+----------+
//	flags: 1 has an amount, 2 has a quantity, 4 behind
type JourneyWait struct {
	Event     Conversion // without ClickToken, Metadata and KeyID
	Partition int32      // of its record in conversions; the offset is in the key
	// Behind: the event waits for a click only because it was not yet known that all
	// waits before it had ended. Without a click, it finds no journey.
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
	dst = append(dst, journeyVersion, flags, typeIndex(c.Type))
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
	for _, s := range [...]string{
		c.WorkspaceID, c.EventID, c.EventName, c.OrderID, c.ParentEventID, c.ReasonText, c.CustomerRef,
	} {
		dst = appendText(dst, s)
	}
	return dst
}

// DecodeWait reads a wait row.
func DecodeWait(b []byte, w *JourneyWait) error {
	r := journeyReader{b: b}
	r.readVersion()
	flags := r.readFlags(7)
	*w = JourneyWait{Behind: flags&4 != 0, Event: Conversion{Type: r.readType()}}
	c := &w.Event
	w.Partition = r.readInt32()
	c.ReceivedAt = Millis(r.readVarint())
	c.OccurredAt = Millis(r.readVarint())
	if flags&1 != 0 {
		amount, currency, exponent := r.readAmount()
		c.AmountMinor = &amount
		c.Currency, c.Exponent = currency, exponent
	}
	if flags&2 != 0 {
		quantity := r.readInt32()
		c.Quantity = &quantity
	}
	r.readInto(c.ContentSHA256[:])
	for _, s := range [...]*string{
		&c.WorkspaceID, &c.EventID, &c.EventName, &c.OrderID, &c.ParentEventID, &c.ReasonText, &c.CustomerRef,
	} {
		*s = r.readText()
	}
	return r.finish("wait")
}

func typeIndex(t Type) byte { return byte(slices.Index(Types(), t)) }

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendAmount(dst []byte, minor int64, currency string, exponent int32) []byte {
	dst = appendText(binary.AppendVarint(dst, minor), currency)
	return binary.AppendVarint(dst, int64(exponent))
}

// journeyReader reads a row from front to back; after the first failure it returns
// zeros.
type journeyReader struct {
	b   []byte
	bad bool
}

func (r *journeyReader) markBad() { r.b, r.bad = nil, true }

func (r *journeyReader) finish(what string) error {
	if r.bad || len(r.b) > 0 {
		return fmt.Errorf("%w: %s", ErrJourney, what)
	}
	return nil
}

func (r *journeyReader) readByte() (v byte) {
	if len(r.b) == 0 {
		r.markBad()
		return 0
	}
	v, r.b = r.b[0], r.b[1:]
	return v
}

func (r *journeyReader) readVersion() {
	if r.readByte() != journeyVersion {
		r.markBad()
	}
}

func (r *journeyReader) readFlags(known byte) byte {
	v := r.readByte()
	if v&^known != 0 {
		r.markBad()
		return 0
	}
	return v
}

func (r *journeyReader) readType() Type {
	v, types := r.readByte(), Types()
	if int(v) >= len(types) {
		r.markBad()
		return ""
	}
	return types[v]
}

func (r *journeyReader) readUvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.markBad()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *journeyReader) readVarint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.markBad()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// readCount reads a number that is at least 0 and fits int64.
func (r *journeyReader) readCount() int64 {
	v := r.readUvarint()
	if v > 1<<63-1 {
		r.markBad()
		return 0
	}
	return int64(v)
}

// readInt32 reads a signed number that fits int32.
func (r *journeyReader) readInt32() int32 {
	v := r.readVarint()
	if int64(int32(v)) != v {
		r.markBad()
		return 0
	}
	return int32(v)
}

func (r *journeyReader) readAmount() (minor int64, currency string, exponent int32) {
	return r.readVarint(), r.readText(), r.readInt32()
}

func (r *journeyReader) readText() string {
	n := r.readUvarint()
	if n > uint64(len(r.b)) {
		r.markBad()
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *journeyReader) readInto(dst []byte) {
	if len(r.b) < len(dst) {
		r.markBad()
		return
	}
	r.b = r.b[copy(dst, r.b):]
}
