package event

import (
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/linkedin/goavro/v2"
	"github.com/twmb/avro"
)

//go:embed click.avsc
var clickSchema string

//go:embed conversion.avsc
var conversionSchema string

//go:embed outcome.avsc
var outcomeSchema string

//go:embed progress.avsc
var progressSchema string

//go:embed rejection.avsc
var rejectionSchema string

//go:embed ids.json
var defaultIDs []byte

// HeadLen is the length of Confluent framing.
const HeadLen = 5

// Errors of the decoders. All of them mean that the bytes alone make the record
// useless: Unreadable tells them from anything else.
var (
	ErrFraming       = errors.New("not in Confluent framing (0x00 and a 4-byte schema id)")
	ErrUnknownSchema = errors.New("unknown schema id")
	ErrWrongRecord   = errors.New("schema id of another record")
	ErrMalformed     = errors.New("malformed Avro")
	ErrTooLarge      = errors.New("record is too large")
)

// MaxConversionBytes is the largest conversion, framing included, that counts as
// readable. Its outcome carries the event, the click and, if a parent was inferred, the
// id of another event; a row of the changelog holds ids of two. All that must fit a
// broker's usual limit of 1 MB. The gateway takes less.
const MaxConversionBytes = 480 << 10

// Unreadable reports whether err says that a record's bytes cannot be used, so that
// another attempt would fail as well.
func Unreadable(err error) bool {
	return errors.Is(err, ErrFraming) || errors.Is(err, ErrUnknownSchema) || errors.Is(err, ErrWrongRecord) ||
		errors.Is(err, ErrMalformed) || errors.Is(err, ErrTooLarge)
}

// ID binds a schema id on the wire to a version of a record.
type ID struct {
	ID      uint32 `json:"id"`
	Record  string `json:"record"`
	Version int    `json:"version"`
}

// DefaultIDs are the ids of the built-in lock file.
func DefaultIDs() []ID {
	ids, err := ParseIDs(defaultIDs)
	if err != nil {
		panic("event: built-in ids.json: " + err.Error())
	}
	return ids
}

// ParseIDs reads a lock file: a JSON array of {"id":1,"record":"Click","version":1}.
func ParseIDs(file []byte) ([]ID, error) {
	var ids []ID
	if err := json.Unmarshal(file, &ids); err != nil {
		return nil, fmt.Errorf("parsing schema ids: %w", err)
	}
	return ids, nil
}

// Schema is one version of a record's Avro schema.
type Schema struct {
	Record  string
	Version int
	JSON    string
}

// Schemas lists every version of every record, oldest first. Append-only: a version
// that was once written must stay readable.
func Schemas() []Schema {
	return []Schema{
		{"Click", 1, clickSchema},
		{"Conversion", 1, conversionSchema},
		{"Outcome", 1, outcomeSchema},
		{"Progress", 1, progressSchema},
		{"Rejection", 1, rejectionSchema},
	}
}

// Codec encodes and decodes records in Confluent framing. What it decodes is a copy
// (see Aliasing). It is safe for concurrent use.
type Codec struct {
	click, conversion, outcome hot
	progress, rejection        cold
	schemas                    map[uint32]reading
	options                    []avro.Opt // of decoding
}

// hot is a record coded by twmb/avro: the writer's schema and id.
type hot struct {
	id     uint32
	schema *avro.Schema
}

// cold is a record coded by goavro.
type cold struct {
	id    uint32
	codec *goavro.Codec
}

// reading is how records of one schema id are read.
type reading struct {
	record string
	schema *avro.Schema  // resolved: what was written into today's type
	text   *goavro.Codec // what was written
}

// NewCodec makes a codec for the given ids. Each record needs an id for its newest
// version; ids of unknown records or versions are an error.
func NewCodec(ids []ID) (*Codec, error) {
	c := &Codec{schemas: make(map[uint32]reading)}
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
		c.schemas[id.ID] = reading{record: s.Record, schema: writer, text: text}
	}
	for _, s := range newest {
		id, ok := writes[s.Record]
		if !ok {
			return nil, fmt.Errorf("schema ids: none for record %s version %d", s.Record, s.Version)
		}
		r := c.schemas[id]
		switch s.Record {
		case "Click":
			c.click = hot{id, r.schema}
		case "Conversion":
			c.conversion = hot{id, r.schema}
		case "Outcome":
			c.outcome = hot{id, r.schema}
		case "Progress":
			c.progress = cold{id, r.text}
		case "Rejection":
			c.rejection = cold{id, r.text}
		}
	}
	return c, nil
}

// DefaultCodec is the codec of the built-in lock file.
func DefaultCodec() *Codec {
	c, err := NewCodec(DefaultIDs())
	if err != nil {
		panic("event: built-in schemas: " + err.Error())
	}
	return c
}

// Aliasing is the same codec, but the texts that it decodes point into the bytes they
// were read from. These must not be modified while any of it is held, and live as long.
func (c *Codec) Aliasing() *Codec {
	alias := *c
	alias.options = []avro.Opt{avro.AliasInput()}
	return &alias
}

func appendHead(dst []byte, id uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0), id)
}

func (h hot) append(dst []byte, v any) ([]byte, error) {
	b, err := h.schema.AppendEncode(appendHead(dst, h.id), v)
	if err != nil {
		return dst, fmt.Errorf("encoding: %w", err)
	}
	return b, nil
}

// frame checks the framing of b and returns the reading of its schema and the Avro
// binary behind it.
func (c *Codec) frame(b []byte, record string) (reading, []byte, error) {
	if len(b) < HeadLen || b[0] != 0 {
		return reading{}, nil, ErrFraming
	}
	id := binary.BigEndian.Uint32(b[1:])
	r, ok := c.schemas[id]
	if !ok {
		return reading{}, nil, fmt.Errorf("%w %d", ErrUnknownSchema, id)
	}
	if record != "" && r.record != record {
		return reading{}, nil, fmt.Errorf("%w: %d is %s, not %s", ErrWrongRecord, id, r.record, record)
	}
	return r, b[HeadLen:], nil
}

func (c *Codec) decode(b []byte, record string, v any) error {
	r, body, err := c.frame(b, record)
	if err != nil {
		return err
	}
	rest, err := r.schema.Decode(body, v, c.options...)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrMalformed, record, err)
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: %s: %d bytes behind the record", ErrMalformed, record, len(rest))
	}
	return nil
}

// AppendClick appends k in wire form. The caller has cut it with Fit.
func (c *Codec) AppendClick(dst []byte, k *Click) ([]byte, error) { return c.click.append(dst, k) }

// DecodeClick reads a click from wire form.
func (c *Codec) DecodeClick(b []byte, k *Click) error {
	*k = Click{}
	return c.decode(b, "Click", k)
}

// AppendConversion appends v in wire form.
func (c *Codec) AppendConversion(dst []byte, v *Conversion) ([]byte, error) {
	return c.conversion.append(dst, v)
}

// DecodeConversion reads a conversion from wire form.
func (c *Codec) DecodeConversion(b []byte, v *Conversion) error {
	*v = Conversion{}
	if len(b) > MaxConversionBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(b), MaxConversionBytes)
	}
	return c.decode(b, "Conversion", v)
}

// AppendOutcome appends o in wire form. If click is given, it is the stored wire form
// of the snapshot and o.Click is not looked at: its bytes are copied when its schema is
// the one that outcomes embed, else it is decoded and written anew.
func (c *Codec) AppendOutcome(dst []byte, o *Outcome, click []byte) ([]byte, error) {
	if click == nil {
		return c.outcome.append(dst, o)
	}
	if len(click) > HeadLen && binary.BigEndian.Uint32(click[1:]) == c.click.id && click[0] == 0 {
		bare := *o
		bare.Click = nil
		b, err := c.outcome.append(dst, &bare)
		if err != nil {
			return dst, err
		}
		// click is the last field, a union of null and Click: 0 selects null, 2 (zigzag
		// of 1) selects Click.
		b[len(b)-1] = 2
		return append(b, click[HeadLen:]...), nil
	}
	whole := *o
	whole.Click = new(Click)
	if err := c.DecodeClick(click, whole.Click); err != nil {
		return dst, fmt.Errorf("encoding an outcome: its click: %w", err)
	}
	return c.outcome.append(dst, &whole)
}

// DecodeOutcome reads an outcome from wire form.
func (c *Codec) DecodeOutcome(b []byte, o *Outcome) error {
	*o = Outcome{}
	return c.decode(b, "Outcome", o)
}

// Text prints any record in wire form as the name of its record and its Avro JSON
// encoding.
func (c *Codec) Text(b []byte) (record string, text []byte, err error) {
	r, body, err := c.frame(b, "")
	if err != nil {
		return "", nil, err
	}
	native, err := r.native(body)
	if err != nil {
		return r.record, nil, err
	}
	text, err = r.text.TextualFromNative(nil, native)
	if err != nil {
		return r.record, nil, fmt.Errorf("printing a %s: %w", r.record, err)
	}
	return r.record, text, nil
}

// native decodes by goavro, but first by twmb/avro: goavro takes a block's count of
// items at its word, and 30 bytes can make it reserve gigabytes.
func (r reading) native(body []byte) (any, error) {
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
