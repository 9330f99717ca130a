package ingest

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// A batch is a body {"events":[…]} as it was sent.
type batch struct {
	items      []draft // at most MaxBatchEvents; those in front of a fault
	count      int     // of all that were sent; 0 also if events is missing or not a list
	unknown    string  // name of the first other member
	hasUnknown bool
	dryRun     dryRun // the member dry_run
	fault      *fault // of the batch, not of one event
}

// parseBatch reads a body that is a batch. An event that has the form of JSON and is not
// strict, or too deep, has a fault of its own. All else that is no strict JSON is a fault
// of the batch.
func parseBatch(body []byte) batch {
	var b batch
	dec := newDecoder(body)
	err := b.readFrom(dec)
	if err == nil {
		err = readEnd(dec)
	}
	if err == nil {
		return b
	}
	var again batch
	again.readFaulty(body)
	return again
}

func (b *batch) readFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != '{' {
		return dec.SkipValue()
	}
	return eachMember(dec, func(name string) error {
		switch {
		case name == "events" && dec.PeekKind() == '[':
			return b.readItems(dec)
		case name == dryRunName:
			b.dryRun = dryRun(dec.PeekKind())
		case name != "events" && !b.hasUnknown:
			b.unknown, b.hasUnknown = name, true
		}
		return dec.SkipValue()
	})
}

func (b *batch) readItems(dec *jsontext.Decoder) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != ']' {
		if b.count++; b.count > MaxBatchEvents {
			if err := dec.SkipValue(); err != nil {
				return err
			}
			continue
		}
		b.items = append(b.items, draft{})
		if err := b.items[len(b.items)-1].readFrom(dec); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// readFaulty reads a body that is not strict JSON a second time, to find out whether
// only events are at fault.
func (b *batch) readFaulty(body []byte) {
	mask := bytes.Clone(body)
	inEvents := false
	flat, _ := flatten(body)
	dec := newLenientDecoder(flat)
	err := b.readRawItems(dec, mask, &inEvents)
	if err == nil {
		err = readEnd(dec)
	}
	if err == nil {
		// What surrounds the events must be strict all the same.
		var envelope batch
		strict := newDecoder(mask)
		if err = envelope.readFrom(strict); err == nil {
			err = readEnd(strict)
		}
		b.unknown, b.hasUnknown = envelope.unknown, envelope.hasUnknown
	}
	if err == nil {
		return
	}
	b.fault = newFault(err, mask, 0)
	b.fault.field = ""
	if inEvents {
		index := b.count
		b.fault.index = &index
		b.fault.detail += fmt.Sprintf(", at event %d of the batch", index)
	}
}

// readRawItems reads the events with a lenient decoder of the flattened body. In mask,
// which begins as a copy of the body, it writes a number over each. inEvents is true
// while their list is read.
func (b *batch) readRawItems(dec *jsontext.Decoder, mask []byte, inEvents *bool) error {
	if dec.PeekKind() != '{' {
		return dec.SkipValue()
	}
	return eachLenientMember(dec, func(name string) error {
		if name == dryRunName && b.dryRun == 0 {
			b.dryRun = dryRun(dec.PeekKind())
		}
		if name != "events" || dec.PeekKind() != '[' {
			return dec.SkipValue()
		}
		if _, err := dec.ReadToken(); err != nil {
			return err
		}
		*inEvents = true
		for dec.PeekKind() != ']' {
			value, err := dec.ReadValue()
			if err != nil {
				return err
			}
			end := dec.InputOffset()
			start := end - int64(len(value))
			if b.count++; b.count <= MaxBatchEvents {
				b.items = append(b.items, parseItem(value, mask[start:end], start))
			}
			writeNumber(mask[start:end])
		}
		*inEvents = false
		_, err := dec.ReadToken()
		return err
	})
}

// checkWhole checks the batch as a whole, not its events.
func (b *batch) checkWhole() *refusal {
	switch {
	case b.fault != nil:
		return b.fault.refusal()
	case b.count > MaxBatchEvents:
		return newRefusal(codeTooLarge, "", "a batch has at most 500 events")
	case b.hasUnknown:
		return newRefusal(codeUnknownField, truncateText(b.unknown), "a member that the API does not know")
	}
	if ref := b.dryRun.check(); ref != nil {
		return ref
	}
	if b.count == 0 {
		return newRefusal(codeInvalidField, "events", "a batch is an object whose events are a list of 1 to 500")
	}
	return nil
}

// refuseAll lists the events with a readable id that were refused with their batch, so
// that each can be found. Without one the list has the refusal alone.
func (b *batch) refuseAll(ref *refusal) (list []refused) {
	for i := range b.items {
		if d := &b.items[i]; d.recordedID(fieldEventID) != "" {
			list = append(list, refused{ref, d})
		}
	}
	if len(list) == 0 {
		list = []refused{{refusal: ref}}
	}
	return list
}
