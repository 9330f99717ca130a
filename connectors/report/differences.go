package report

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
)

// Difference is a field in which a conflict differs from the first event of its id.
type Difference struct {
	Field string `json:"field"` // of the events API; metadata.KEY for an entry
	First string `json:"first"` // its value in the first event; "" if it has none
	This  string `json:"this"`  // its value in the conflict; "" if it has none
}

// content is what the merchant said under an event id.
type content struct {
	Partition   uint32            `ch:"src_partition"`
	Offset      uint64            `ch:"src_offset"`
	Type        string            `ch:"type"`
	EventName   string            `ch:"event_name"`
	OccurredAt  time.Time         `ch:"occurred_at"`
	AmountMinor *int64            `ch:"amount_minor"`
	Currency    string            `ch:"currency"`
	Exponent    uint8             `ch:"exponent"`
	Quantity    *int32            `ch:"quantity"`
	OrderID     string            `ch:"order_id"`
	Parent      string            `ch:"parent_event_id"`
	ReasonText  string            `ch:"reason_text"`
	CustomerRef string            `ch:"customer_ref"`
	Metadata    map[string]string `ch:"metadata"`
}

// contentsByPosition are contents by where they are in `conversions`.
type contentsByPosition map[recordPosition]*content

// firstOf is the first event of a conflict's id; nil if it is not in the tables.
func (c contentsByPosition) firstOf(e *Event) *content {
	if e.FirstOffset == nil {
		return nil
	}
	return c[recordPosition{e.Partition, *e.FirstOffset}]
}

// readContents reads what was said by the conflicts among events, and by the first
// events of their ids.
func (r *Reader) readContents(ctx context.Context, workspace string, events []*Event) (contentsByPosition, error) {
	ids := map[string][]uint64{} // offsets
	var keys []string
	for _, e := range events {
		if e.Verdict == string(event.Conflict) && e.FirstOffset != nil {
			ids[e.EventID] = append(ids[e.EventID], e.Offset, *e.FirstOffset)
			keys = append(keys, e.EventID)
		}
	}
	found := contentsByPosition{}
	err := inChunks(keys, func(keys []string) error {
		var offsets []uint64
		for _, id := range keys {
			offsets = append(offsets, ids[id]...)
		}
		return scanRows(ctx, r.conn, "contents", `
SELECT `+joinColumns[content]()+`
FROM conversions
WHERE workspace_id = {w:String} AND `+conversionsOf(ofIDs)+`event_id IN {ids:Array(String)}
	AND src_offset IN {offsets:Array(UInt64)}`,
			[]any{
				clickhouse.Named("w", workspace),
				clickhouse.Named("ids", keys),
				clickhouse.Named("offsets", offsets),
			},
			func(c *content) error {
				found[recordPosition{c.Partition, c.Offset}] = c
				return nil
			})
	})
	return found, err
}

// differences are the fields in which two events with one id differ, in the order of the
// events API; none if one of the two is not known.
func differences(first, this *content) (list []Difference) {
	if first == nil || this == nil {
		return nil
	}
	add := func(field, a, b string) {
		if a != b {
			list = append(list, Difference{field, a, b})
		}
	}
	add("type", first.Type, this.Type)
	add("occurred_at", ledger.FormatTime(first.OccurredAt), ledger.FormatTime(this.OccurredAt))
	add("amount", first.amount(), this.amount())
	add("currency", first.Currency, this.Currency)
	add("quantity", first.quantity(), this.quantity())
	add("order_id", first.OrderID, this.OrderID)
	add("parent_event_id", first.Parent, this.Parent)
	add("name", first.EventName, this.EventName)
	add("reason", first.ReasonText, this.ReasonText)
	add("customer_ref", first.CustomerRef, this.CustomerRef)
	keys := maps.Clone(first.Metadata)
	if keys == nil {
		keys = map[string]string{}
	}
	maps.Copy(keys, this.Metadata)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		add("metadata."+key, first.Metadata[key], this.Metadata[key])
	}
	return list
}

// isRepetition reports whether this says the same of money as first, a negative: not of
// another type, amount, order or parent, nor of another day.
func isRepetition(first, this *content) bool {
	if first == nil || this == nil || event.Type(first.Type).Positive() {
		return false
	}
	apart := first.OccurredAt.Sub(this.OccurredAt).Abs()
	return apart <= 24*time.Hour && first.Type == this.Type && first.amount() == this.amount() &&
		first.Currency == this.Currency && first.OrderID == this.OrderID && first.Parent == this.Parent
}

func (c *content) amount() string {
	if c.AmountMinor == nil {
		return ""
	}
	return ledger.FormatDecimal(ledger.MinorUnits(*c.AmountMinor, c.Exponent))
}

func (c *content) quantity() string {
	if c.Quantity == nil {
		return ""
	}
	return strconv.Itoa(int(*c.Quantity))
}
