package event

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strings"
)

// FieldKind is how a field is coded.
type FieldKind uint8

// The kinds of fields.
const (
	FieldText       FieldKind = iota + 1
	FieldLong                 // a time, too
	FieldInt                  // of 32 bits
	FieldSymbol               // of an enum
	FieldFlag                 // a boolean
	FieldMaybeLong            // a union of null and long
	FieldMaybeInt             // a union of null and int
	FieldFixed                // bytes of a fixed size
	FieldTexts                // an array of texts
	FieldPairs                // a map of texts
	fieldMaybeClick           // a union of null and Click, whose fields follow
)

// Field is a field of a record's newest schema.
type Field struct {
	// Name is that of the schema. Those of a click in another record begin with "click.".
	Name    string
	Kind    FieldKind
	Symbols []string // of FieldSymbol
	size    int      // of FieldFixed
}

// FieldValue is what a record says in one field. Texts, fixed bytes and the items of an
// array or map are record[From:To].
type FieldValue struct {
	// Number is a number, the index of a symbol, 1 for true, or the count of items.
	Number   int64
	From, To int32
	IsNull   bool // the union is null, or the click that has the field is
}

// FieldTable reads records of one schema field by field, without making a value of any.
// It gives up on whatever is unusual: the codec then reads the record, or says what is
// wrong with it. FuzzFields compares both.
type FieldTable struct {
	id     uint32
	fields []Field
}

// ClickFields returns the table of clicks in today's schema.
func (c *Codec) ClickFields() *FieldTable { return &FieldTable{c.click.id, c.clickFields} }

// OutcomeFields returns the table of outcomes in today's schema.
func (c *Codec) OutcomeFields() *FieldTable { return &FieldTable{c.outcome.id, c.outcomeFields} }

// Fields returns the fields before a click's link part (see LinkPart), in the record's
// order.
func (t *FieldTable) Fields() []Field { return t.fields }

// Read reads a record in wire form into values, one for each of Fields. The link part,
// which it does not look into, begins at linkFrom; that is len(b) for an outcome without a
// click. If ok is false, values are meaningless.
func (t *FieldTable) Read(b []byte, values []FieldValue) (linkFrom int, ok bool) {
	if len(b) < FramingLen || len(b) > math.MaxInt32 || b[0] != 0 || binary.BigEndian.Uint32(b[1:]) != t.id {
		return 0, false
	}
	at := FramingLen
	values = values[:len(t.fields)]
	for i := range t.fields {
		v := &values[i]
		// Most fields are texts of less than 64 bytes.
		if t.fields[i].Kind == FieldText && at < len(b) && b[at] < 0x80 {
			n := int(b[at])
			if end := at + 1 + n>>1; n&1 == 0 && end <= len(b) {
				*v = FieldValue{From: int32(at + 1), To: int32(end)}
				at = end
				continue
			}
			return 0, false
		}
		r := fieldReader{rest: unsafeText(b[at:])}
		*v = FieldValue{}
		r.readField(&t.fields[i], v, int32(at))
		if r.failed {
			return 0, false
		}
		at = len(b) - len(r.rest)
		if t.fields[i].Kind == fieldMaybeClick && v.IsNull {
			for j := range values[i:] {
				values[i+j] = FieldValue{IsNull: true}
			}
			return at, at == len(b)
		}
	}
	return at, at < len(b)
}

// readField reads a field that begins at offset from of the record.
func (r *fieldReader) readField(f *Field, v *FieldValue, from int32) {
	before := len(r.rest)
	switch f.Kind {
	case FieldText:
		v.Number = int64(len(r.readText()))
		v.From = from + int32(before-len(r.rest)) - int32(v.Number)
	case FieldLong:
		v.Number = r.readLong()
	case FieldInt:
		v.Number = int64(r.readInt())
	case FieldSymbol:
		b := r.readByte()
		v.Number = int64(b >> 1)
		r.failed = r.failed || b&1 != 0 || int(b>>1) >= len(f.Symbols)
	case FieldFlag:
		if r.readFlag() {
			v.Number = 1
		}
	case FieldMaybeLong:
		if v.IsNull = !r.readIsSet(); !v.IsNull {
			v.Number = r.readLong()
		}
	case FieldMaybeInt:
		if v.IsNull = !r.readIsSet(); !v.IsNull {
			v.Number = int64(r.readInt())
		}
	case FieldFixed:
		v.From = from
		if r.failed = len(r.rest) < f.size; !r.failed {
			r.rest = r.rest[f.size:]
		}
	case FieldTexts, FieldPairs:
		r.readItems(f, v, from)
		return
	case fieldMaybeClick:
		v.IsNull = !r.readIsSet()
	}
	v.To = from + int32(before-len(r.rest))
}

// maxTablePairs bounds the pairs of a map that a FieldTable reads; events have at most 20.
const maxTablePairs = 32

// readItems reads an array or map that has at most one block, and no key twice.
func (r *fieldReader) readItems(f *Field, v *FieldValue, from int32) {
	before := len(r.rest)
	size := 1
	if f.Kind == FieldPairs {
		size = 2
	}
	count := r.readCount(size)
	v.Number = int64(count)
	v.From = from + int32(before-len(r.rest))
	if f.Kind == FieldPairs && count > maxTablePairs {
		r.failed = true
		return
	}
	var keys [maxTablePairs]string
	for i := range count {
		text := r.readText()
		if f.Kind == FieldTexts {
			continue
		}
		for _, key := range keys[:i] {
			r.failed = r.failed || key == text
		}
		keys[i] = text
		r.readText()
	}
	v.To = from + int32(before-len(r.rest))
	if count > 0 {
		r.failed = r.readByte() != 0 || r.failed // no further block
	}
}

// NextText cuts the first text off items, which a FieldTable has read.
func NextText(items []byte) (text, rest []byte) {
	n, size := binary.Varint(items)
	end := size + int(n)
	return items[size:end], items[end:]
}

// newFieldTable lists the fields of a schema up to a click's link part.
func newFieldTable(s Schema) ([]Field, error) {
	var record schemaRecord
	if err := json.Unmarshal([]byte(s.JSON), &record); err != nil {
		return nil, err
	}
	fields, err := appendFields(nil, record, "")
	if err != nil {
		return nil, fmt.Errorf("schema %s version %d: %w", s.Record, s.Version, err)
	}
	return fields, nil
}

// schemaRecord is a record in a schema.
type schemaRecord struct {
	Name   string `json:"name"`
	Fields []struct {
		Name string          `json:"name"`
		Type json.RawMessage `json:"type"`
	} `json:"fields"`
}

func appendFields(fields []Field, record schemaRecord, prefix string) ([]Field, error) {
	for _, f := range record.Fields {
		if record.Name == "Click" && f.Name == linkPartFrom {
			return fields, nil
		}
		field, click, err := fieldOf(f.Type)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", f.Name, err)
		}
		field.Name = prefix + f.Name
		fields = append(fields, field)
		if click != nil {
			return appendFields(fields, *click, f.Name+".") // it is the last field
		}
	}
	return fields, nil
}

// fieldOf returns the field of a type in a schema, and the Click in it, if it has one.
func fieldOf(raw json.RawMessage) (Field, *schemaRecord, error) {
	var plain string
	if json.Unmarshal(raw, &plain) == nil {
		switch plain {
		case "string":
			return Field{Kind: FieldText}, nil, nil
		case "long":
			return Field{Kind: FieldLong}, nil, nil
		case "int":
			return Field{Kind: FieldInt}, nil, nil
		case "boolean":
			return Field{Kind: FieldFlag}, nil, nil
		}
		return Field{}, nil, fmt.Errorf("type %s is unknown", plain)
	}
	if strings.HasPrefix(string(raw), "[") {
		return unionFieldOf(raw)
	}
	var named struct {
		Type    string   `json:"type"`
		Symbols []string `json:"symbols"`
		Size    int      `json:"size"`
		Items   string   `json:"items"`
		Values  string   `json:"values"`
	}
	if err := json.Unmarshal(raw, &named); err != nil {
		return Field{}, nil, err
	}
	switch {
	case named.Type == "long":
		return Field{Kind: FieldLong}, nil, nil
	case named.Type == "enum":
		return Field{Kind: FieldSymbol, Symbols: named.Symbols}, nil, nil
	case named.Type == "fixed":
		return Field{Kind: FieldFixed, size: named.Size}, nil, nil
	case named.Type == "array" && named.Items == "string":
		return Field{Kind: FieldTexts}, nil, nil
	case named.Type == "map" && named.Values == "string":
		return Field{Kind: FieldPairs}, nil, nil
	}
	return Field{}, nil, fmt.Errorf("type %s is unknown", raw)
}

// unionFieldOf is fieldOf for a union of null and something.
func unionFieldOf(raw json.RawMessage) (Field, *schemaRecord, error) {
	var union []json.RawMessage
	if err := json.Unmarshal(raw, &union); err != nil {
		return Field{}, nil, err
	}
	if len(union) != 2 || string(union[0]) != `"null"` {
		return Field{}, nil, fmt.Errorf("type %s is unknown", raw)
	}
	switch string(union[1]) {
	case `"long"`:
		return Field{Kind: FieldMaybeLong}, nil, nil
	case `"int"`:
		return Field{Kind: FieldMaybeInt}, nil, nil
	}
	var record schemaRecord
	if err := json.Unmarshal(union[1], &record); err != nil {
		return Field{}, nil, err
	}
	if record.Name != "Click" {
		return Field{}, nil, fmt.Errorf("type %s is unknown", raw)
	}
	return Field{Kind: fieldMaybeClick}, &record, nil
}
