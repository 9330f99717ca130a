package event

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// JourneyWait is a waiting event with everything that its verdict and its outcome need.
// The token is in the key, not in the row; the key id is not stored.
//
//	+---+-------+------+-----------+----------+----------+------------------+
//	| 2 | flags | type | partition | received | occurred | entered (flag 8) |
//	+---+-------+------+-----------+----------+----------+------------------+
//	| amount, currency, exponent (flag 1) | quantity (flag 2) | SHA-256     |
//	+-----------+----------+------+-------+--------+--------+----------+----+
//	| workspace | event id | name | order | parent | reason | customer |
//	+-----------+----------+------+-------+--------+--------+----------+------------+
//	| resolved by | customer hash | n, n references | n, n keys, values of metadata |
//	+-------------+---------------+-----------------+-------------------------------+
//	flags: 1 has an amount, 2 has a quantity, 4 behind, 8 entered is not received,
//	  16 the reference is ambiguous
//
// Version 1 ends with customer and has the first three flags. Its events named their
// token, entered when they were received, and have lost their metadata.
type JourneyWait struct {
	Event     Conversion // without ClickToken and KeyID
	Partition int32      // of its record in conversions; the offset is in the key
	// Behind: the event waits for a click only because it was not yet known that all
	// waits before it had ended. Without a click, it finds no journey.
	Behind bool
}

// Flags of a wait row.
const (
	waitHasAmount = 1 << iota
	waitHasQuantity
	waitBehind
	waitEntered
	waitAmbiguous
)

// AppendWait appends the value of a wait row.
func AppendWait(dst []byte, c *Conversion, partition int32, behind bool) []byte {
	var flags byte
	for i, isSet := range [...]bool{
		c.AmountMinor != nil, c.Quantity != nil, behind, c.EnteredAt != c.ReceivedAt, c.ReferenceAmbiguous,
	} {
		if isSet {
			flags |= 1 << i
		}
	}
	dst = append(dst, journeyVersion, flags, typeIndex(c.Type))
	dst = binary.AppendVarint(dst, int64(partition))
	dst = binary.AppendVarint(dst, int64(c.ReceivedAt))
	dst = binary.AppendVarint(dst, int64(c.OccurredAt))
	if c.EnteredAt != c.ReceivedAt {
		dst = binary.AppendVarint(dst, int64(c.EnteredAt))
	}
	if c.AmountMinor != nil {
		dst = appendAmount(dst, *c.AmountMinor, c.Currency, c.Exponent)
	}
	if c.Quantity != nil {
		dst = binary.AppendVarint(dst, int64(*c.Quantity))
	}
	dst = append(dst, c.ContentSHA256[:]...)
	for _, s := range [...]string{
		c.WorkspaceID, c.EventID, c.EventName, c.OrderID, c.ParentEventID, c.ReasonText, c.CustomerRef,
		string(c.ResolvedBy), string(c.CustomerHash),
	} {
		dst = appendText(dst, s)
	}
	dst = binary.AppendUvarint(dst, uint64(len(c.References)))
	for _, s := range c.References {
		dst = appendText(dst, s)
	}
	dst = binary.AppendUvarint(dst, uint64(len(c.Metadata)))
	for _, k := range slices.Sorted(maps.Keys(c.Metadata)) {
		dst = appendText(appendText(dst, k), c.Metadata[k])
	}
	return dst
}

// DecodeWait reads a wait row.
func DecodeWait(b []byte, w *JourneyWait) error {
	r := journeyReader{b: b}
	old, known := r.readVersion() == 1, uint64(2*waitAmbiguous-1)
	if old {
		known = waitEntered - 1
	}
	flags := r.readFlags(known)
	*w = JourneyWait{Behind: flags&waitBehind != 0, Event: Conversion{Type: r.readType()}}
	c := &w.Event
	w.Partition = r.readInt32()
	c.ReceivedAt = Millis(r.readVarint())
	c.OccurredAt = Millis(r.readVarint())
	c.EnteredAt = c.ReceivedAt
	if flags&waitEntered != 0 {
		c.EnteredAt = Millis(r.readVarint())
	}
	if flags&waitHasAmount != 0 {
		amount, currency, exponent := r.readAmount()
		c.AmountMinor = &amount
		c.Currency, c.Exponent = currency, exponent
	}
	if flags&waitHasQuantity != 0 {
		quantity := r.readInt32()
		c.Quantity = &quantity
	}
	r.readInto(c.ContentSHA256[:])
	for _, s := range [...]*string{
		&c.WorkspaceID, &c.EventID, &c.EventName, &c.OrderID, &c.ParentEventID, &c.ReasonText, &c.CustomerRef,
	} {
		*s = r.readText()
	}
	c.ResolvedBy = ResolvedByToken
	if !old {
		c.ReferenceAmbiguous = flags&waitAmbiguous != 0
		r.readReferences(c)
	}
	return r.finish("wait")
}

// readReferences reads what version 1 of a wait row does not have.
func (r *journeyReader) readReferences(c *Conversion) {
	c.ResolvedBy = ResolvedBy(r.readText())
	if hash := r.readText(); hash != "" {
		c.CustomerHash = []byte(hash)
	}
	for n := r.readCount(); n > 0 && !r.bad; n-- {
		c.References = append(c.References, r.readText())
	}
	if n := r.readCount(); n > 0 {
		c.Metadata = make(map[string]string)
		for ; n > 0 && !r.bad; n-- {
			key := r.readText()
			c.Metadata[key] = r.readText()
		}
	}
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
	b     []byte
	bad   bool
	newer byte // the row's version, if this program does not know it
}

func (r *journeyReader) markBad() { r.b, r.bad = nil, true }

func (r *journeyReader) finish(what string) error {
	switch {
	case r.newer != 0:
		return fmt.Errorf("journey row %q of version %d: %w", what, r.newer, ErrNewer)
	case r.bad || len(r.b) > 0:
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

// readVersion reads the version of a row's form, 1 or 2.
func (r *journeyReader) readVersion() byte {
	v := r.readByte()
	if v > journeyVersion {
		r.newer = v
	}
	if v == 0 || v > journeyVersion {
		r.markBad()
	}
	return v
}

// readFlags reads a set of flags. One that is not known is a failure.
func (r *journeyReader) readFlags(known uint64) uint64 {
	v := r.readUvarint()
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
