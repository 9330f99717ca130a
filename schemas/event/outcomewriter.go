package event

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// The processor writes an outcome for each event, so appendOutcome does it by hand, as
// AppendClick does. A test compares the bytes with twmb/avro's over all fields.

// appendOutcome appends o in wire form, up to its click. Metadata go in the order in
// which the map yields them, as with the library.
func (c *Codec) appendOutcome(dst []byte, o *Outcome) ([]byte, error) {
	verdict, review := slices.Index(verdicts, o.Verdict), slices.Index(reviews, o.Review)
	typ := slices.Index(types, o.Type)
	if verdict < 0 || review < 0 || typ < 0 {
		return dst, fmt.Errorf("encoding: verdict %q, review %q, type %q: unknown symbol", o.Verdict, o.Review, o.Type)
	}
	b := appendFraming(dst, c.outcome.id)
	b = appendStrings(b, o.WorkspaceID, o.EventID, o.ClickToken)
	b = append(b, byte(verdict<<1))
	b = appendString(b, o.Reason)
	b = appendTexts(b, o.Flags)
	b = append(b, byte(review<<1), byte(typ<<1))
	b = appendString(b, o.EventName)
	b = binary.AppendVarint(b, int64(o.Effect))
	b = binary.AppendVarint(b, int64(o.OccurredAt))
	b = binary.AppendVarint(b, int64(o.ReceivedAt))
	b = binary.AppendVarint(b, int64(o.DecidedAt))
	b = appendOptional(b, o.AmountMinor)
	b = appendString(b, o.Currency)
	b = binary.AppendVarint(b, int64(o.Exponent))
	b = appendOptional(b, o.Quantity)
	b = appendStrings(b, o.OrderID, o.ParentEventID, o.ParentType, o.ReasonText, o.CustomerRef)
	b = appendOptional(b, o.EstimatedRewardMinor)
	b = appendString(b, o.RewardCurrency)
	b = append(b, o.ContentSHA256[:]...)
	b = binary.AppendVarint(b, int64(o.EventPartition))
	b = binary.AppendVarint(b, o.EventOffset)
	b = appendOptional(b, o.FirstOffset)
	b = binary.AppendVarint(b, int64(o.RulesVersion))
	b = appendOptional(b, o.StandingChangeMinor)
	b = appendPairs(b, o.Metadata)
	return appendString(b, string(o.ResolvedBy)), nil
}

// appendOptional appends a union of null and a number: 0 selects null, 2 (zigzag of 1) the
// number.
func appendOptional[T int32 | int64](b []byte, v *T) []byte {
	if v == nil {
		return append(b, 0)
	}
	return binary.AppendVarint(append(b, 2), int64(*v))
}

// appendTexts appends an array in one block.
func appendTexts(b []byte, texts []string) []byte {
	b = binary.AppendVarint(b, int64(len(texts)))
	if len(texts) == 0 {
		return b
	}
	return append(appendStrings(b, texts...), 0)
}

// appendPairs appends a map in one block.
func appendPairs(b []byte, pairs map[string]string) []byte {
	b = binary.AppendVarint(b, int64(len(pairs)))
	if len(pairs) == 0 {
		return b
	}
	for key, value := range pairs {
		b = appendString(appendString(b, key), value)
	}
	return append(b, 0)
}
