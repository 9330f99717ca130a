package attribution_test

import (
	"encoding/binary"
	"slices"

	"github.com/nimriz/partners/schemas/event"
	"pgregory.net/rapid"
)

// writeVersion1 rewrites all rows in the form of version 1, as its writer did. What
// that form does not have is lost.
func writeVersion1(t rapid.TB, rows *memoryRows) {
	t.Helper()
	for key, value := range rows.values {
		_, kind, ok := event.ParseJourneyKey([]byte(key))
		if !ok {
			continue // deadlines have no version
		}
		switch kind {
		case event.KindHead:
			value = headVersion1(t, rows, value)
		case event.KindEvent:
			value = eventVersion1(t, value)
		case event.KindOrder:
			value = orderVersion1(t, value)
		case event.KindWaitClick, event.KindWaitParent:
			value = waitVersion1(t, value)
		default:
			value = slices.Concat([]byte{1}, value[1:])
		}
		rows.values[key] = value
	}
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendAmount(b []byte, minor int64, currency string, exponent int32) []byte {
	return binary.AppendVarint(appendText(binary.AppendVarint(b, minor), currency), int64(exponent))
}

func typeIndex(typ event.Type) byte { return byte(slices.Index(event.Types(), typ)) }

func headVersion1(t rapid.TB, rows *memoryRows, value []byte) []byte {
	var h event.JourneyHead
	if value[0] == 1 {
		return value
	}
	must(t, event.DecodeHead(value, &h))
	if h.WaitSales > 0 {
		t.Fatal("version 1 has no sales that wait for a parent")
	}
	flags := byte(0)
	if h.Click != nil {
		flags |= 1
	}
	if h.Passed {
		flags |= 2
	}
	b := []byte{1, flags}
	for _, n := range []int64{h.Kept, h.WaitParent, h.WaitClick} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	if h.WaitClick > 0 {
		b = binary.AppendVarint(b, int64(h.WaitsTo))
	}
	b = binary.AppendVarint(b, int64(h.LastKept))
	b = binary.AppendUvarint(b, uint64(h.Sales.Count()))
	b = binary.AppendUvarint(b, uint64(h.Leads.Count()))
	for _, p := range []event.Positives{h.Sales, h.Leads} {
		if p.Count() == 1 {
			b = appendText(b, p.Only())
		}
	}
	if h.Click != nil {
		b = append(binary.AppendVarint(b, int64(h.ClickArrivedAt)), h.Click...)
	}
	return b
}

func eventVersion1(t rapid.TB, value []byte) []byte {
	var e event.JourneyEvent
	must(t, event.DecodeEvent(value, &e))
	if e.Follows {
		t.Fatal("version 1 has no followers")
	}
	flags := byte(0)
	for i, isSet := range []bool{e.Waiting, e.HasAmount, e.Takes, e.Effect == 1, e.Effect == -1} {
		if isSet {
			flags |= 1 << i
		}
	}
	b := binary.AppendUvarint([]byte{1, flags, typeIndex(e.Type)}, uint64(e.Offset))
	b = append(b, e.Content[:]...)
	if e.Waiting {
		return binary.AppendVarint(b, int64(e.End))
	}
	if e.HasAmount {
		b = appendAmount(b, e.Amount, e.Currency, e.Exponent)
	}
	b = appendText(appendText(appendText(b, e.Order), e.Parent), e.Root)
	return binary.AppendUvarint(binary.AppendUvarint(b, e.Sum.High), e.Sum.Low)
}

func orderVersion1(t rapid.TB, value []byte) []byte {
	if value[0] == 1 {
		return value
	}
	var o event.JourneyOrder
	must(t, event.DecodeOrder(value, &o))
	latest, several := o.Attributed, byte(0)
	if o.Unattributed.Count > 0 && (latest.Count == 0 || o.Unattributed.Offset > latest.Offset) {
		latest = o.Unattributed
	}
	if o.Attributed.Count+o.Unattributed.Count > 1 {
		several = 1
	}
	return append([]byte{1, several}, latest.Latest...)
}

func waitVersion1(t rapid.TB, value []byte) []byte {
	var w event.JourneyWait
	must(t, event.DecodeWait(value, &w))
	c, flags := &w.Event, byte(0)
	for i, isSet := range []bool{c.AmountMinor != nil, c.Quantity != nil, w.Behind} {
		if isSet {
			flags |= 1 << i
		}
	}
	b := []byte{1, flags, typeIndex(c.Type)}
	for _, v := range []int64{int64(w.Partition), int64(c.ReceivedAt), int64(c.OccurredAt)} {
		b = binary.AppendVarint(b, v)
	}
	if c.AmountMinor != nil {
		b = appendAmount(b, *c.AmountMinor, c.Currency, c.Exponent)
	}
	if c.Quantity != nil {
		b = binary.AppendVarint(b, int64(*c.Quantity))
	}
	b = append(b, c.ContentSHA256[:]...)
	for _, s := range []string{
		c.WorkspaceID, c.EventID, c.EventName, c.OrderID, c.ParentEventID, c.ReasonText, c.CustomerRef,
	} {
		b = appendText(b, s)
	}
	return b
}
