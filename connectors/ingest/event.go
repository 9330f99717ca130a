package ingest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/nimriz/partners/schemas/currency"
	"github.com/nimriz/partners/schemas/event"
)

const (
	maxText          = 128                  // of a text, in characters; of event_id, in bytes
	maxPairs         = 20                   // of metadata
	maxMetadataBytes = 2 << 10              // keys and values together
	maxAhead         = 5 * time.Minute      // of occurred_at before the gateway's clock
	maxAge           = 400 * 24 * time.Hour // of occurred_at
)

var errTrailing = errors.New("data after the JSON value")

// A field is a member of an event, in the documented order, which is the order of the
// checks.
type field int

const (
	fieldEventID field = iota
	fieldType
	fieldClickToken
	fieldOccurredAt
	fieldAmount
	fieldCurrency
	fieldQuantity
	fieldOrderID
	fieldParentEventID
	fieldName
	fieldReason
	fieldCustomerRef
	fieldMetadata
	fieldCount
)

var fieldNames = [fieldCount]string{
	"event_id", "type", "click_token", "occurred_at", "amount", "currency", "quantity",
	"order_id", "parent_event_id", "name", "reason", "customer_ref", "metadata",
}

// String returns the name of the member.
func (f field) String() string { return fieldNames[f] }

func fieldOf(name string) (field, bool) {
	i := slices.Index(fieldNames[:], name)
	return field(i), i >= 0
}

// jsonKind returns the JSON type that the field must have.
func (f field) jsonKind() jsontext.Kind {
	switch f {
	case fieldQuantity:
		return '0'
	case fieldMetadata:
		return '{'
	}
	return '"'
}

// A draft is an event as it was sent: its JSON is correct, its fields are not checked
// yet.
type draft struct {
	object     bool                      // the value was a JSON object
	kinds      [fieldCount]jsontext.Kind // of the values; 0: absent
	texts      [fieldCount]string        // of strings; of a number, its literal
	pairs      map[string]string         // metadata
	notStrings bool                      // a value in metadata was no string
	unknown    string                    // name of the first member that is no field
	hasUnknown bool
}

// eventID and clickToken return the ids as far as they could be read, for answers and
// for the record of a refusal.
func (d *draft) eventID() string    { return d.textOf(fieldEventID) }
func (d *draft) clickToken() string { return d.textOf(fieldClickToken) }

func (d *draft) textOf(f field) string {
	if d.kinds[f] != '"' {
		return ""
	}
	return d.texts[f]
}

// parseEvent reads a body that is one event. An error means that the body is not strict
// JSON; the draft then holds what came before.
func parseEvent(body []byte) (draft, error) {
	var d draft
	dec := newDecoder(body)
	if err := d.readFrom(dec); err != nil {
		return d, err
	}
	return d, readEnd(dec)
}

// newDecoder reads body in place. Its defaults are strict: it refuses repeated names in
// an object, invalid UTF-8 and unbounded depth, and keeps literals exact.
func newDecoder(body []byte) *jsontext.Decoder { return jsontext.NewDecoder(bytes.NewBuffer(body)) }

// readFrom reads the next value. It reads the whole value, of whatever type, so that
// the syntax of the body is checked before its contents.
func (d *draft) readFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != '{' {
		return dec.SkipValue()
	}
	d.object = true
	return eachMember(dec, func(name string) error {
		f, ok := fieldOf(name)
		if !ok {
			if !d.hasUnknown {
				d.unknown, d.hasUnknown = name, true
			}
			return dec.SkipValue()
		}
		d.kinds[f] = dec.PeekKind()
		if d.kinds[f] != f.jsonKind() {
			return dec.SkipValue()
		}
		if f == fieldMetadata {
			return d.readPairs(dec)
		}
		text, err := readText(dec)
		d.texts[f] = text
		return err
	})
}

func (d *draft) readPairs(dec *jsontext.Decoder) error {
	d.pairs = make(map[string]string)
	return eachMember(dec, func(name string) error {
		if dec.PeekKind() != '"' {
			d.notStrings = true
			return dec.SkipValue()
		}
		text, err := readText(dec)
		d.pairs[name] = text
		return err
	})
}

// eachMember reads an object. It calls read for each member, which must read the value.
func eachMember(dec *jsontext.Decoder, read func(name string) error) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != '}' {
		name, err := readText(dec)
		if err != nil {
			return err
		}
		if err := read(name); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// readText reads a string, or the literal of a number.
func readText(dec *jsontext.Decoder) (string, error) {
	v, err := dec.ReadValue()
	if err != nil {
		return "", err
	}
	if v.Kind() != '"' {
		return string(v), nil
	}
	inner := v[1 : len(v)-1]
	if bytes.IndexByte(inner, '\\') >= 0 {
		text, err := jsontext.AppendUnquote(nil, v)
		return string(text), err
	}
	for _, name := range fieldNames { // most texts are field names, which need no copy
		if string(inner) == name {
			return name, nil
		}
	}
	return string(inner), nil
}

// readEnd checks that only white space is left of the body.
func readEnd(dec *jsontext.Decoder) error {
	_, err := dec.ReadToken()
	switch err {
	case io.EOF:
		return nil
	case nil:
		return errTrailing
	}
	return err
}

// toConversion checks all fields but the token's signature, in the documented order.
// The result lacks what the gateway adds.
func (d *draft) toConversion(now time.Time) (event.Conversion, *refusal) {
	var c event.Conversion
	for _, check := range []func(*event.Conversion) *refusal{
		d.checkShape,
		d.checkIdentity,
		func(c *event.Conversion) *refusal { return d.checkTime(c, now) },
		d.checkMoney,
		d.checkQuantity,
		d.checkTexts,
		d.checkMetadata,
	} {
		if ref := check(&c); ref != nil {
			return event.Conversion{}, ref
		}
	}
	return c, nil
}

func invalidField(f field, detail string) *refusal {
	return newRefusal(codeInvalidField, f.String(), detail)
}

// checkShape checks names and JSON types.
func (d *draft) checkShape(*event.Conversion) *refusal {
	if !d.object {
		return newRefusal(codeInvalidField, "", "an event is a JSON object")
	}
	if d.hasUnknown {
		return newRefusal(codeUnknownField, truncateText(d.unknown), "a member that the API does not know")
	}
	for f := range fieldCount {
		kind := d.kinds[f]
		switch {
		case kind == 0 && f <= fieldOccurredAt:
			return invalidField(f, "required")
		case kind == 0 || kind == f.jsonKind():
		case f == fieldAmount && kind == '0':
			return newRefusal(codeBadAmount, f.String(), "a decimal as a string, not a JSON number")
		default:
			return invalidField(f, "of a wrong JSON type")
		}
	}
	return nil
}

func (d *draft) checkIdentity(c *event.Conversion) *refusal {
	id := d.texts[fieldEventID]
	if len(id) < 1 || len(id) > maxText || strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' }) {
		return invalidField(fieldEventID, "1 to 128 characters of printable ASCII")
	}
	c.EventID, c.ClickToken = id, d.texts[fieldClickToken]
	for _, t := range event.Types() {
		if string(t) == d.texts[fieldType] {
			c.Type = t
			return nil
		}
	}
	return invalidField(fieldType, "one of "+strings.Join(event.Texts(event.Types()), ", "))
}

func (d *draft) checkTime(c *event.Conversion, now time.Time) *refusal {
	at, err := parseTime(d.texts[fieldOccurredAt])
	if err != nil {
		return invalidField(fieldOccurredAt, "a time by RFC 3339 with offset, such as 2026-03-01T09:30:00+01:00")
	}
	c.OccurredAt = event.MillisOf(at)
	switch received := event.MillisOf(now); {
	case c.OccurredAt > received.Add(maxAhead):
		return newRefusal(codeOccurredInFuture, fieldOccurredAt.String(),
			"more than 5 minutes ahead of the gateway's clock")
	case c.OccurredAt < received.Add(-maxAge):
		return newRefusal(codeOccurredTooOld, fieldOccurredAt.String(), "more than 400 days back")
	}
	return nil
}

var errTime = errors.New("not a time by RFC 3339")

// parseTime reads exactly the date-time of RFC 3339, without leap seconds. time.Parse
// alone would also accept a comma, one-digit hours and offsets of a day.
//
//	0    5  8  11 14 17  19
//	yyyy-mm-ddThh:mm:ss[.f…](Z|±hh:mm)
func parseTime(text string) (time.Time, error) {
	text = strings.ToUpper(text) // RFC 3339 §5.6: t and z may be lower case
	const head = len("2006-01-02T15:04:05")
	if len(text) <= head || !hasShape(text[:head], "0000-00-00T00:00:00") {
		return time.Time{}, errTime
	}
	rest := text[head:]
	if rest[0] == '.' {
		digits := strings.TrimLeft(rest[1:], "0123456789")
		if len(digits) == len(rest)-1 {
			return time.Time{}, errTime
		}
		rest = digits
	}
	if rest != "Z" && (!hasShape(rest, "+00:00") && !hasShape(rest, "-00:00") || rest[1:3] > "23" || rest[4:] > "59") {
		return time.Time{}, errTime
	}
	return time.Parse(time.RFC3339Nano, text)
}

// hasShape compares byte by byte; a 0 in shape matches any digit.
func hasShape(text, shape string) bool {
	if len(text) != len(shape) {
		return false
	}
	for i := range len(shape) {
		same := text[i] == shape[i]
		if shape[i] == '0' {
			same = text[i] >= '0' && text[i] <= '9'
		}
		if !same {
			return false
		}
	}
	return true
}

func (d *draft) checkMoney(c *event.Conversion) *refusal {
	hasAmount, hasCurrency := d.kinds[fieldAmount] != 0, d.kinds[fieldCurrency] != 0
	switch {
	case !hasAmount && !hasCurrency:
		return nil
	case !hasCurrency:
		return invalidField(fieldCurrency, "required with amount")
	case !hasAmount:
		return invalidField(fieldAmount, "required with currency")
	}
	iso, ok := currency.Lookup(d.texts[fieldCurrency])
	if !ok {
		return newRefusal(codeBadCurrency, fieldCurrency.String(), "not an ISO 4217 code")
	}
	digits := iso.Digits
	minor, ok := minorUnits(d.texts[fieldAmount], digits)
	if !ok {
		return newRefusal(codeBadAmount, fieldAmount.String(),
			"a decimal that is not negative, with at most the currency's digits ("+strconv.Itoa(int(digits))+
				") after the point, within 64 bits")
	}
	c.AmountMinor = &minor
	c.Currency, c.Exponent = d.texts[fieldCurrency], digits
	return nil
}

func (d *draft) checkQuantity(c *event.Conversion) *refusal {
	if d.kinds[fieldQuantity] == 0 {
		return nil
	}
	n, err := strconv.ParseInt(d.texts[fieldQuantity], 10, 32)
	if err != nil || n < 1 {
		return invalidField(fieldQuantity, "an integer from 1 to 2147483647")
	}
	quantity := int32(n)
	c.Quantity = &quantity
	return nil
}

func (d *draft) checkTexts(c *event.Conversion) *refusal {
	for f := fieldOrderID; f <= fieldCustomerRef; f++ {
		if utf8.RuneCountInString(d.texts[f]) > maxText {
			return invalidField(f, "more than 128 characters")
		}
	}
	if c.Type.Positive() && d.texts[fieldParentEventID] != "" {
		return invalidField(fieldParentEventID, "only an event that takes something back has one")
	}
	c.OrderID = d.texts[fieldOrderID]
	c.ParentEventID = d.texts[fieldParentEventID]
	c.EventName = d.texts[fieldName]
	c.ReasonText = d.texts[fieldReason]
	c.CustomerRef = d.texts[fieldCustomerRef]
	return nil
}

func (d *draft) checkMetadata(c *event.Conversion) *refusal {
	size := 0
	for k, v := range d.pairs {
		size += len(k) + len(v)
	}
	if d.notStrings || len(d.pairs) > maxPairs || size > maxMetadataBytes {
		return invalidField(fieldMetadata, "at most 20 pairs of strings, together at most 2 kB")
	}
	c.Metadata = d.pairs
	return nil
}

// truncateText shortens a text of a refused request to the length of a valid one, for
// the answer and for the record of the refusal.
func truncateText(s string) string {
	n := 0
	for i := range s {
		if n == maxText {
			return s[:i]
		}
		n++
	}
	return s
}
