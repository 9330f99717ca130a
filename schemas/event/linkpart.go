package event

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
)

// linkPartFrom is the field of Click with which the link's part begins, since version 2.
const linkPartFrom = "workspace_id"

// LinkPart returns where a click's link part begins in its wire form: from there to the
// end the bytes are the same for all visits that one catalog record resolves. It is
// len(b) for a click of version 1, which has no such order, and for bytes that are not
// a click.
func (c *Codec) LinkPart(b []byte) int {
	if len(b) < FramingLen {
		return len(b)
	}
	at := FramingLen
	for _, isText := range c.schemas[binary.BigEndian.Uint32(b[1:])].visitTexts {
		if at == len(b) {
			return len(b)
		}
		v := uint64(b[at])
		at++
		if v >= 0x80 { // a number, or the length of a text, of several bytes
			var n int
			if v, n = binary.Uvarint(b[at-1:]); n <= 0 {
				return len(b)
			}
			at += n - 1
		}
		if isText {
			length := v >> 1 // zigzag
			if v&1 != 0 || length > uint64(len(b)-at) {
				return len(b)
			}
			at += int(length)
		}
	}
	if at == FramingLen {
		return len(b)
	}
	return at
}

// visitTexts lists the fields before a click's link part: true is a text, false a
// number, an enum or a boolean, which are varints. It is empty for other records, and
// for version 1.
func visitTexts(s Schema) ([]bool, error) {
	if s.Record != "Click" || s.Version < 2 {
		return nil, nil
	}
	var schema struct {
		Fields []struct {
			Name string          `json:"name"`
			Type json.RawMessage `json:"type"`
		} `json:"fields"`
	}
	if err := json.Unmarshal([]byte(s.JSON), &schema); err != nil {
		return nil, err
	}
	var texts []bool
	for _, f := range schema.Fields {
		if f.Name == linkPartFrom {
			return texts, nil
		}
		var kind string
		if err := json.Unmarshal(f.Type, &kind); err != nil {
			var named struct {
				Type string `json:"type"` // of an enum or a time
			}
			if err := json.Unmarshal(f.Type, &named); err != nil {
				return nil, fmt.Errorf("field %s: %w", f.Name, err)
			}
			kind = named.Type
		}
		switch kind {
		case "string":
			texts = append(texts, true)
		case "long", "int", "enum", "boolean":
			texts = append(texts, false)
		default:
			return nil, fmt.Errorf("field %s of the visit is %s, which LinkPart cannot pass over", f.Name, kind)
		}
	}
	return nil, fmt.Errorf("field %s is missing", linkPartFrom)
}
