package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// A fault says why a body, or one event of a batch, is not the strict JSON that the API
// reads.
type fault struct {
	detail string // for people; nothing of what was sent
	field  string // the member of the event in which it is, if that is known
	offset int64  // in the body, in bytes
	index  *int   // of the event at which a batch breaks off; nil elsewhere
}

var errTrailing = errors.New("data after the JSON value")

// newFault explains an error of reading text, which begins at byte start of the body.
func newFault(err error, text []byte, start int64) *fault {
	f := &fault{offset: start + int64(len(text))}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		f.offset = start + syntactic.ByteOffset
		f.field = memberOf(syntactic.JSONPointer)
	}
	_, deep := flatten(text)
	switch {
	case deep >= 0 && f.offset == start+int64(deep):
		f.detail = depthDetail(f.offset)
		return f
	case errors.Is(err, errTrailing):
		f.detail = "data after the JSON value"
	case errors.Is(err, jsontext.ErrDuplicateName):
		f.detail = "a name twice in one object"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		f.detail = "the JSON ends early"
	case checkLexical(text) == nil:
		f.detail = "bytes or an escape that are no UTF-8"
	default:
		f.detail = "not JSON"
	}
	f.detail += fmt.Sprintf(", at byte %d of the body", f.offset)
	return f
}

func (f *fault) refusal() *refusal {
	return &refusal{code: codeMalformedJSON, field: f.field, detail: f.detail, offset: &f.offset, index: f.index}
}

// memberOf returns the first name of a pointer if it is a field of an event.
func memberOf(p jsontext.Pointer) string {
	for name := range p.Tokens() {
		if f, ok := fieldOf(name); ok {
			return f.String()
		}
		break
	}
	return ""
}

// newLenientDecoder reads whatever has the form of JSON: names may repeat, and texts may
// have bytes that are no UTF-8.
func newLenientDecoder(text []byte) *jsontext.Decoder {
	return jsontext.NewDecoder(bytes.NewBuffer(text), jsontext.AllowDuplicateNames(true),
		jsontext.AllowInvalidUTF8(true))
}

// checkLexical returns nil for a text that is one value to a lenient decoder.
func checkLexical(text []byte) error {
	dec := newLenientDecoder(text)
	if err := dec.SkipValue(); err != nil {
		return err
	}
	return readEnd(dec)
}

// readReadable reads the texts of an event that is not strict JSON, as far as they can
// be read, for the record of its refusal. Of a name that repeats it reads the first.
func (d *draft) readReadable(text []byte) {
	dec := newLenientDecoder(text)
	if dec.PeekKind() != '{' {
		return
	}
	// Where it fails ends what can be read: that is the fault, or lies behind it.
	_ = eachLenientMember(dec, func(name string) error {
		value, err := dec.ReadValue()
		f, ok := fieldOf(name)
		if err != nil || !ok || d.kinds[f] != 0 || value.Kind() != '"' {
			return err
		}
		if text, err := jsontext.AppendUnquote(nil, value); err == nil {
			d.kinds[f], d.texts[f] = '"', string(text)
		}
		return nil
	})
}

// eachLenientMember is eachMember for a lenient decoder. A name that is no UTF-8 is
// passed as "".
func eachLenientMember(dec *jsontext.Decoder, read func(name string) error) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != '}' {
		quoted, err := dec.ReadValue()
		if err != nil {
			return err
		}
		name, err := jsontext.AppendUnquote(nil, quoted)
		if err != nil {
			name = nil
		}
		if err := read(string(name)); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}
