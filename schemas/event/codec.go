package event

import (
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/linkedin/goavro/v2"
	"github.com/twmb/avro"
)

//go:embed ids.json
var defaultIDs []byte

// FramingLen is the length of Confluent framing, in bytes.
const FramingLen = 5

// Errors of the decoders. Each means that the record's bytes cannot be used; Unreadable
// recognizes them.
var (
	ErrFraming       = errors.New("not in Confluent framing (0x00 and a 4-byte schema id)")
	ErrUnknownSchema = errors.New("unknown schema id")
	ErrWrongRecord   = errors.New("schema id of another record")
	ErrMalformed     = errors.New("malformed Avro")
	ErrTooLarge      = errors.New("record is too large")
)

// MaxConversionBytes is the size of the largest conversion, with framing, that counts
// as readable. Its outcome contains the event, the click and, if a parent was inferred,
// the id of another event; a changelog row contains two ids. All of these must fit a
// broker's usual limit of 1 MB. The gateway accepts less.
const MaxConversionBytes = 480 << 10

// Unreadable reports whether err means that a record's bytes cannot be used, so that
// another attempt would fail, too.
func Unreadable(err error) bool {
	return errors.Is(err, ErrFraming) || errors.Is(err, ErrUnknownSchema) || errors.Is(err, ErrWrongRecord) ||
		errors.Is(err, ErrMalformed) || errors.Is(err, ErrTooLarge)
}

// ID binds a schema id on the wire to a version of a record.
type ID struct {
	ID      uint32 `json:"id"`      // in the framing
	Record  string `json:"record"`  // such as Click
	Version int    `json:"version"` // of the record's schema, from 1
}

// DefaultIDs returns the ids of the built-in lock file.
func DefaultIDs() []ID {
	ids, err := ParseIDs(defaultIDs)
	if err != nil {
		panic("event: built-in ids.json: " + err.Error())
	}
	return ids
}

// WithBuiltIn puts the built-in ids before those of a lock file that lacks some of them:
// before there was a file, all programs wrote with them. Where the file means another
// record by one of them, its topics were empty when it was made, and it stays as it is.
func WithBuiltIn(have []ID) []ID {
	var missing []ID
	for _, id := range DefaultIDs() {
		i := slices.IndexFunc(have, func(x ID) bool { return x.ID == id.ID })
		switch {
		case i < 0:
			missing = append(missing, id)
		case have[i] != id:
			return have
		}
	}
	return append(missing, have...)
}

// ParseIDs reads a lock file: a JSON array of {"id":1,"record":"Click","version":1}.
func ParseIDs(file []byte) ([]ID, error) {
	var ids []ID
	if err := json.Unmarshal(file, &ids); err != nil {
		return nil, fmt.Errorf("parsing schema ids: %w", err)
	}
	return ids, nil
}

// Codec encodes and decodes records in Confluent framing. Decoded records do not share
// memory with their input (see Aliasing). It is safe for concurrent use.
type Codec struct {
	click, conversion, outcome typedRecord
	progress, rejection        genericRecord
	clickFields, outcomeFields []Field                 // see FieldTable
	schemas                    map[uint32]schemaReader // by the id on the wire
	aliasing                   bool
}

// typedRecord is how a frequent record is written, by twmb/avro.
type typedRecord struct {
	id     uint32
	schema *avro.Schema
}

// genericRecord is how a rare record is written, by goavro.
type genericRecord struct {
	id    uint32
	codec *goavro.Codec
}

// schemaReader is how records of one schema id are read.
type schemaReader struct {
	record     string
	schema     *avro.Schema  // the writer's, resolved into today's type
	text       *goavro.Codec // the writer's
	visitTexts []bool        // of a click: see LinkPart
}

// NewCodec makes a codec for the given ids. Each record needs an id for its newest
// version; an id of an unknown record or version is an error.
func NewCodec(ids []ID) (*Codec, error) {
	c := &Codec{schemas: make(map[uint32]schemaReader)}
	newest := make(map[string]Schema)
	byVersion := make(map[string]Schema)
	for _, s := range Schemas() {
		newest[s.Record] = s
		byVersion[fmt.Sprintf("%s/%d", s.Record, s.Version)] = s
	}
	writes := make(map[string]uint32)
	for _, id := range ids {
		s, ok := byVersion[fmt.Sprintf("%s/%d", id.Record, id.Version)]
		if !ok {
			return nil, fmt.Errorf("schema id %d: this version of the program does not know record %q version %d",
				id.ID, id.Record, id.Version)
		}
		if _, ok := c.schemas[id.ID]; ok {
			return nil, fmt.Errorf("schema id %d is given twice", id.ID)
		}
		writer, err := avro.Parse(s.JSON)
		if err != nil {
			return nil, fmt.Errorf("parsing schema %s version %d: %w", s.Record, s.Version, err)
		}
		if s != newest[s.Record] {
			reader, err := avro.Parse(newest[s.Record].JSON)
			if err != nil {
				return nil, fmt.Errorf("parsing schema %s: %w", s.Record, err)
			}
			if writer, err = avro.Resolve(writer, reader); err != nil {
				return nil, fmt.Errorf("resolving %s version %d: %w", s.Record, s.Version, err)
			}
		} else {
			writes[s.Record] = id.ID
		}
		text, err := goavro.NewCodec(s.JSON)
		if err != nil {
			return nil, fmt.Errorf("parsing schema %s version %d: %w", s.Record, s.Version, err)
		}
		texts, err := visitTexts(s)
		if err != nil {
			return nil, fmt.Errorf("schema %s version %d: %w", s.Record, s.Version, err)
		}
		c.schemas[id.ID] = schemaReader{record: s.Record, schema: writer, text: text, visitTexts: texts}
	}
	for _, s := range newest {
		id, ok := writes[s.Record]
		if !ok {
			return nil, fmt.Errorf("schema ids: none for record %s version %d", s.Record, s.Version)
		}
		r := c.schemas[id]
		var err error
		switch s.Record {
		case "Click":
			c.click = typedRecord{id, r.schema}
			c.clickFields, err = newFieldTable(s)
		case "Conversion":
			c.conversion = typedRecord{id, r.schema}
		case "Outcome":
			c.outcome = typedRecord{id, r.schema}
			c.outcomeFields, err = newFieldTable(s)
		case "Progress":
			c.progress = genericRecord{id, r.text}
		case "Rejection":
			c.rejection = genericRecord{id, r.text}
		}
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// DefaultCodec returns the codec of the built-in lock file.
func DefaultCodec() *Codec {
	c, err := NewCodec(DefaultIDs())
	if err != nil {
		panic("event: built-in schemas: " + err.Error())
	}
	return c
}

// Aliasing returns a codec whose decoded texts point into their input. The input must
// not be modified while a decoded record is in use, and stays in memory as long.
func (c *Codec) Aliasing() *Codec {
	alias := *c
	alias.aliasing = true
	return &alias
}

func appendFraming(dst []byte, id uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0), id)
}

func (h typedRecord) appendEncoded(dst []byte, v any) ([]byte, error) {
	b, err := h.schema.AppendEncode(appendFraming(dst, h.id), v)
	if err != nil {
		return dst, fmt.Errorf("encoding: %w", err)
	}
	return b, nil
}

// bodyOf returns the Avro binary of a record in wire form, if it is of this very schema.
func (h typedRecord) bodyOf(b []byte) ([]byte, bool) {
	if len(b) < FramingLen || b[0] != 0 || binary.BigEndian.Uint32(b[1:]) != h.id {
		return nil, false
	}
	return b[FramingLen:], true
}

// parseFraming checks the framing of b. It returns the reader of b's schema and the
// Avro binary after the framing. record "" accepts every record.
func (c *Codec) parseFraming(b []byte, record string) (schemaReader, []byte, error) {
	if len(b) < FramingLen || b[0] != 0 {
		return schemaReader{}, nil, ErrFraming
	}
	id := binary.BigEndian.Uint32(b[1:])
	r, ok := c.schemas[id]
	if !ok {
		return schemaReader{}, nil, fmt.Errorf("%w %d", ErrUnknownSchema, id)
	}
	if record != "" && r.record != record {
		return schemaReader{}, nil, fmt.Errorf("%w: %d is %s, not %s", ErrWrongRecord, id, r.record, record)
	}
	return r, b[FramingLen:], nil
}

func (c *Codec) decodeTyped(b []byte, record string, v any) error {
	r, body, err := c.parseFraming(b, record)
	if err != nil {
		return err
	}
	var options []avro.Opt
	if c.aliasing {
		options = append(options, avro.AliasInput())
	}
	rest, err := r.schema.Decode(body, v, options...)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrMalformed, record, err)
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: %s: %d bytes behind the record", ErrMalformed, record, len(rest))
	}
	return nil
}

// DecodeClick reads a click from wire form.
func (c *Codec) DecodeClick(b []byte, k *Click) error {
	*k = Click{}
	if body, ok := c.click.bodyOf(b); ok {
		r := newFieldReader(body, c.aliasing)
		if r.readClick(k); r.done() {
			return nil
		}
		*k = Click{}
	}
	return c.decodeTyped(b, "Click", k)
}

// AppendConversion appends v in wire form.
func (c *Codec) AppendConversion(dst []byte, v *Conversion) ([]byte, error) {
	return c.conversion.appendEncoded(dst, v)
}

// DecodeConversion reads a conversion from wire form.
func (c *Codec) DecodeConversion(b []byte, v *Conversion) error {
	*v = Conversion{}
	if len(b) > MaxConversionBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(b), MaxConversionBytes)
	}
	if !c.readConversion(b, v) {
		if err := c.decodeTyped(b, "Conversion", v); err != nil {
			return err
		}
	}
	if v.EnteredAt == 0 { // version 1
		v.EnteredAt = v.ReceivedAt
	}
	return nil
}

// readConversion reads one of today's schema by hand. It reports whether it could.
func (c *Codec) readConversion(b []byte, v *Conversion) bool {
	body, ok := c.conversion.bodyOf(b)
	if !ok {
		return false
	}
	r := newFieldReader(body, c.aliasing)
	if r.readConversion(v); r.done() {
		return true
	}
	*v = Conversion{}
	return false
}

// AppendOutcome appends o in wire form. If click is not nil, it is the wire form of the
// snapshot and o.Click is ignored. Its bytes are copied if its schema is the one that
// outcomes embed; otherwise it is decoded and encoded again.
func (c *Codec) AppendOutcome(dst []byte, o *Outcome, click []byte) ([]byte, error) {
	b, err := c.appendOutcome(dst, o)
	if err != nil {
		return dst, err
	}
	// click is the last field, a union of null and Click: 0 selects null, 2 (zigzag of 1)
	// selects Click.
	k := o.Click
	if click != nil {
		if body, ok := c.click.bodyOf(click); ok && len(body) > 0 {
			return append(append(b, 2), body...), nil
		}
		k = new(Click)
		if err := c.DecodeClick(click, k); err != nil {
			return dst, fmt.Errorf("encoding an outcome: its click: %w", err)
		}
	}
	if k == nil {
		return append(b, 0), nil
	}
	b, err = appendClick(append(b, 2), k)
	if err != nil {
		return dst, err
	}
	return b, nil
}

// DecodeOutcome reads an outcome from wire form.
func (c *Codec) DecodeOutcome(b []byte, o *Outcome) error {
	*o = Outcome{}
	if body, ok := c.outcome.bodyOf(b); ok {
		r := newFieldReader(body, c.aliasing)
		if r.readOutcome(o); r.done() {
			return nil
		}
		*o = Outcome{}
	}
	return c.decodeTyped(b, "Outcome", o)
}

// Text returns the name of a record in wire form and its Avro JSON encoding.
func (c *Codec) Text(b []byte) (record string, text []byte, err error) {
	r, body, err := c.parseFraming(b, "")
	if err != nil {
		return "", nil, err
	}
	native, err := r.decodeNative(body)
	if err != nil {
		return r.record, nil, err
	}
	text, err = r.text.TextualFromNative(nil, native)
	if err != nil {
		return r.record, nil, fmt.Errorf("printing a %s: %w", r.record, err)
	}
	return r.record, text, nil
}

// decodeNative decodes with goavro, but first with twmb/avro: goavro trusts a block's
// count of items, so 30 bytes can make it allocate gigabytes.
func (r schemaReader) decodeNative(body []byte) (any, error) {
	var read any
	if _, err := r.schema.Decode(body, &read, avro.AliasInput()); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, r.record, err)
	}
	native, rest, err := r.text.NativeFromBinary(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, r.record, err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %s: %d bytes behind the record", ErrMalformed, r.record, len(rest))
	}
	return native, nil
}
