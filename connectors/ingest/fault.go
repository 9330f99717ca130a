package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"unicode"
	"unicode/utf8"

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

// newFault explains an error of reading text, which begins at byte start of the body.
func newFault(err error, text []byte, start int64) *fault {
	at, detail := int64(len(text)), "the JSON ends early"
	f := &fault{}
	var syntactic *jsontext.SyntacticError
	var trailing *trailingError
	switch {
	case errors.As(err, &trailing):
		at, detail = trailing.offset, "data after the JSON value"
	case errors.As(err, &syntactic):
		at, f.field = syntactic.ByteOffset, memberOf(syntactic.JSONPointer)
		switch {
		case errors.Is(err, jsontext.ErrDuplicateName):
			detail = "a name twice in one object"
		case errors.Is(err, jsontext.ErrNonStringName):
			detail = "a name that is no text in quotes"
		case !errors.Is(err, io.ErrUnexpectedEOF):
			at = wordStart(text, at)
			detail = faultAt(text, int(at))
		}
	}
	f.offset = start + at
	if _, deep := flatten(text); deep >= 0 && at == int64(deep) {
		f.detail = depthDetail(f.offset)
		return f
	}
	if start == 0 {
		if len(bytes.TrimSpace(text)) == 0 {
			f.detail = "the body is empty"
			return f
		}
		if format := formatOf(text); format != "" {
			f.offset, detail = 0, format
		}
	}
	f.detail = fmt.Sprintf("%s, at byte %d of the body", detail, f.offset)
	return f
}

// wordStart returns where the word begins that has a letter at a place outside of texts.
// The decoder stops behind what its word has in common with true, false or null.
func wordStart(text []byte, at int64) int64 {
	letter := func(i int64) bool { return i < int64(len(text)) && unicode.IsLetter(rune(text[i])) && text[i] < 0x80 }
	for at > 0 && letter(at) && letter(at-1) {
		at--
	}
	return at
}

// formatOf names what a body is that is no JSON from its beginning; empty if that is not
// known.
func formatOf(body []byte) string {
	switch {
	case bytes.HasPrefix(body, []byte("\xef\xbb\xbf")):
		return "a byte order mark (BOM) in front of the JSON"
	case bytes.HasPrefix(body, []byte("\xff\xfe")), bytes.HasPrefix(body, []byte("\xfe\xff")),
		len(body) >= 2 && (body[0] == 0) != (body[1] == 0):
		return "UTF-16 in place of UTF-8"
	case formBeginning.Match(body):
		return "a form in place of JSON"
	}
	return ""
}

// formBeginning is that of a form: url-encoded, or in parts.
var formBeginning = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_.%+-]*(\[[A-Za-z0-9_]*\])*=|--[^\r\n]+\r?\nContent-)`)

// halfCharacter is the escape of a surrogate.
var halfCharacter = regexp.MustCompile(`^\\u[dD][89A-Fa-f][0-9A-Fa-f]{2}`)

// faultAt says what is wrong at a place in a text up to which it is JSON.
func faultAt(text []byte, at int) string {
	if at >= len(text) {
		return "the JSON ends early"
	}
	c := text[at]
	r, size := utf8.DecodeRune(text[at:])
	switch noUTF8 := r == utf8.RuneError && size == 1; {
	case noUTF8:
		return "a byte that is no UTF-8, such as one of Latin-1 or Windows-1252"
	case isInText(text, at) && c == '\\':
		if halfCharacter.Match(text[at:]) {
			return "an escape of half a character that is no UTF-8 (\\ud800 to \\udfff come in pairs)"
		}
		return "an escape that JSON does not have"
	case isInText(text, at):
		return "a raw control character in a text: a line break is written \\n, a tab \\t"
	case r == '\'' || r == '“' || r == '”' || r == '‘' || r == '’':
		return "a quote that JSON does not have: texts are in \""
	case c == ',' && bytes.HasSuffix(bytes.TrimRight(text[:at], " \t\r\n"), []byte(":")):
		return "a value is missing"
	case c == ',', (c == '}' || c == ']') && bytes.HasSuffix(bytes.TrimRight(text[:at], " \t\r\n"), []byte(",")):
		return "a comma too many"
	case c == '}', c == ']':
		return "a value is missing, or a bracket does not match"
	case c == '/' || c == '#':
		return "a comment, which JSON does not have"
	case c == '"' || c == '{' || c == '[' || c == '-' || c >= '0' && c <= '9':
		return "a comma, a colon or a name is missing"
	case c == '_' || unicode.IsLetter(r):
		return "a name without quotes, or a word other than true, false and null"
	}
	return "a character that JSON does not have here"
}

// isInText reports whether a place in JSON lies in a text. What is in front of it has
// the form of JSON.
func isInText(text []byte, at int) (inText bool) {
	for i := 0; i < at; i++ {
		switch {
		case text[i] == '"':
			inText = !inText
		case text[i] == '\\':
			i++
		}
	}
	return inText
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

// A trailingError says where data after the JSON value begins, in bytes of the text.
type trailingError struct{ offset int64 }

// Error implements error.
func (e *trailingError) Error() string {
	return fmt.Sprintf("data after the JSON value, at byte %d", e.offset)
}

// readEnd checks that only white space is left of the text, which dec holds as a whole.
func readEnd(dec *jsontext.Decoder) error {
	rest := dec.UnreadBuffer()
	if data := bytes.TrimLeft(rest, " \t\r\n"); len(data) > 0 {
		return &trailingError{dec.InputOffset() + int64(len(rest)-len(data))}
	}
	return nil
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

// readReadable reads the texts and ids of an event that is not strict JSON, as far as they can
// be read, for the record of its refusal. Of a name that repeats it reads the first.
func (d *draft) readReadable(text []byte) {
	dec := newLenientDecoder(text)
	if dec.PeekKind() != '{' {
		return
	}
	// Where it fails ends what can be read: that is the fault, or lies behind it.
	_ = eachLenientMember(dec, func(name string) error {
		value, err := dec.ReadValue()
		if err == nil && d.alone && name == dryRunName && d.dryRun == 0 {
			d.dryRun = dryRun(value.Kind())
		}
		f, ok := fieldOf(name)
		if err == nil && ok && d.kinds[f] == 0 && value.Kind() == '0' && f.isID() {
			d.kinds[f], d.texts[f] = '0', string(value)
		}
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
