package event

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
)

// ContentHash returns the SHA-256 of the canonical event: everything that the merchant
// sent, and nothing that the gateway added. The order of keys, trailing zeros of the
// amount and the time zone do not matter. An absent text equals an empty one; an absent
// quantity is not 1.
//
// Canonical form, version 1: the byte 1, then each field as length (uvarint) and bytes,
// in this order: event_id, type, click_token, occurred_at (unix ms, decimal), amount in
// minor units (decimal, empty if none), currency, quantity (decimal, empty if none),
// order_id, parent_event_id, name, reason, customer_ref, then key and value of each
// metadata entry, sorted by key.
func (c *Conversion) ContentHash() [32]byte {
	b := make([]byte, 1, 512)
	b[0] = 1
	text := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	number := func(v int64) { text(formatInt(v)) }
	text(c.EventID)
	text(string(c.Type))
	text(c.ClickToken)
	number(int64(c.OccurredAt))
	if c.AmountMinor == nil {
		text("")
	} else {
		number(*c.AmountMinor)
	}
	text(c.Currency)
	if c.Quantity == nil {
		text("")
	} else {
		number(int64(*c.Quantity))
	}
	for _, s := range []string{c.OrderID, c.ParentEventID, c.EventName, c.ReasonText, c.CustomerRef} {
		text(s)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Metadata)) {
		text(k)
		text(c.Metadata[k])
	}
	return sha256.Sum256(b)
}

// MoneyHash returns 8 bytes of the SHA-256 of what the merchant said about money: type,
// amount, currency, order_id and parent_event_id. It tells whether two events with one
// id differ in that.
//
// Form, version 1: the byte 1, then each field as length (uvarint) and bytes, as in
// ContentHash.
func (c *Conversion) MoneyHash() (short [8]byte) {
	var digits [20]byte
	amount := digits[:0]
	if c.AmountMinor != nil {
		amount = strconv.AppendInt(amount, *c.AmountMinor, 10)
	}
	b := append(make([]byte, 0, 256), 1)
	b = appendText(b, string(c.Type))
	b = append(binary.AppendUvarint(b, uint64(len(amount))), amount...)
	for _, s := range [...]string{c.Currency, c.OrderID, c.ParentEventID} {
		b = appendText(b, s)
	}
	hash := sha256.Sum256(b)
	copy(short[:], hash[:])
	return short
}

func formatInt(v int64) string { return Decimal(v, 0) }
