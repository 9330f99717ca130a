package ingest

import "github.com/go-json-experiment/json/jsontext"

// A batch is a body {"events":[…]} as it was sent.
type batch struct {
	items      []draft // at most MaxBatchEvents
	count      int     // of all that were sent; 0 also if events is missing or not a list
	unknown    string  // name of the first other member
	hasUnknown bool
}

// parseBatch reads a body that is a batch. An error means that the body is not strict
// JSON.
func parseBatch(body []byte) (batch, error) {
	var b batch
	dec := newDecoder(body)
	if err := b.readFrom(dec); err != nil {
		return b, err
	}
	return b, readEnd(dec)
}

func (b *batch) readFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != '{' {
		return dec.SkipValue()
	}
	return eachMember(dec, func(name string) error {
		switch {
		case name == "events" && dec.PeekKind() == '[':
			return b.readItems(dec)
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

// checkWhole checks the batch as a whole, not its events.
func (b *batch) checkWhole() *refusal {
	switch {
	case b.count > MaxBatchEvents:
		return newRefusal(codeTooLarge, "", "a batch has at most 500 events")
	case b.hasUnknown:
		return newRefusal(codeUnknownField, truncateText(b.unknown), "a member that the API does not know")
	case b.count == 0:
		return newRefusal(codeInvalidField, "events", "a batch is an object whose events are a list of 1 to 500")
	}
	return nil
}
