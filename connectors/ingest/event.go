package ingest

import (
	"bytes"
	"errors"
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
	// maxWithdrawn is how long after a currency was withdrawn a negative may use it: the
	// oldest sale that it can take back was made and reported before.
	maxWithdrawn = 800 * 24 * time.Hour
)

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

// jsonType is the JSON type that the field must have, for people.
func (f field) jsonType() string {
	switch f {
	case fieldQuantity:
		return "an integer"
	case fieldMetadata:
		return "an object of strings"
	}
	return "a string"
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

// isID reports whether the field names an event or an order, by which its refusal is
// looked for.
func (f field) isID() bool {
	return f == fieldEventID || f == fieldOrderID || f == fieldParentEventID
}

// A draft is an event as it was sent. Its fields are not checked yet.
type draft struct {
	alone      bool                      // not in a batch: it may have the member dry_run
	dryRun     dryRun                    // that member, if it is alone
	fault      *fault                    // it is not strict JSON; the rest is what could be read
	object     bool                      // the value was a JSON object
	kinds      [fieldCount]jsontext.Kind // of the values; 0: absent, or null where it may be absent
	texts      [fieldCount]string        // of strings; of a quantity, and an id that is a number, the literal
	pairs      map[string]string         // metadata
	notString  jsontext.Kind             // of the first value in metadata that was no string; 0: none
	unknown    string                    // name of the first member that is no field
	hasUnknown bool
}

// eventID returns the id as far as it could be read, for answers.
func (d *draft) eventID() string { return d.textOf(fieldEventID) }

// textOf returns a text as far as it could be read. d may be nil.
func (d *draft) textOf(f field) string {
	if d == nil {
		return ""
	}
	if d.kinds[f] != '"' {
		return ""
	}
	return d.texts[f]
}

// recordedID returns an id as its refusal is found by it: also one that was sent as a
// number, and without the blanks at its ends, for which it may have been refused and
// which nobody sees who looks for it. d may be nil.
func (d *draft) recordedID(f field) string {
	if d == nil || d.kinds[f] != '"' && d.kinds[f] != '0' {
		return ""
	}
	return strings.TrimSpace(truncateText(strings.TrimSpace(d.texts[f])))
}

// parseEvent reads a body that is one event.
func parseEvent(body []byte) draft { return parseDraft(body, 0, true) }

// parseDraft reads a text that is one event. It begins at byte start of the body.
func parseDraft(text []byte, start int64, alone bool) draft {
	d := draft{alone: alone}
	dec := newDecoder(text)
	err := d.readFrom(dec)
	if err == nil {
		err = readEnd(dec)
	}
	if err == nil {
		return d
	}
	faulty := draft{alone: alone, fault: newFault(err, text, start)}
	faulty.readReadable(text)
	return faulty
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
			if d.alone && name == dryRunName {
				d.dryRun = dryRun(dec.PeekKind())
				return dec.SkipValue()
			}
			if !d.hasUnknown {
				d.unknown, d.hasUnknown = name, true
			}
			return dec.SkipValue()
		}
		kind := dec.PeekKind()
		if kind == 'n' && f > fieldOccurredAt {
			return dec.SkipValue() // the same as absent
		}
		d.kinds[f] = kind
		if kind != f.jsonKind() && (kind != '0' || !f.isID()) {
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
		if kind := dec.PeekKind(); kind != '"' {
			if d.notString == 0 {
				d.notString = kind
			}
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

// toConversion checks all fields but the token's signature, in the documented order.
// The result lacks what the gateway adds. truncated names the texts that were too long.
func (d *draft) toConversion(now time.Time) (c event.Conversion, truncated []string, ref *refusal) {
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
			return event.Conversion{}, nil, ref
		}
	}
	return c, d.truncateContext(&c), nil
}

func invalidField(f field, detail string) *refusal {
	return newRefusal(codeInvalidField, f.String(), detail)
}

// checkShape checks names and JSON types.
func (d *draft) checkShape(*event.Conversion) *refusal {
	switch {
	case d.fault != nil:
		return d.fault.refusal()
	case !d.object:
		return newRefusal(codeInvalidField, "", "an event is a JSON object")
	case d.hasUnknown && d.unknown == dryRunName:
		return newRefusal(codeUnknownField, dryRunName, "in a batch it is beside events, not in an event")
	case d.hasUnknown:
		return newRefusal(codeUnknownField, truncateText(d.unknown), "a member that the API does not know")
	}
	if ref := d.dryRun.check(); ref != nil {
		return ref
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
			return invalidField(f, f.jsonType()+", not "+kindName(kind))
		}
	}
	return nil
}

// kindName names a JSON type for people.
func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '{':
		return "an object"
	case '[':
		return "an array"
	}
	return "true or false"
}

func (d *draft) checkIdentity(c *event.Conversion) *refusal {
	id := d.texts[fieldEventID]
	if id == "" || !canBeID(id) || hasOuterBlank(id) {
		return invalidField(fieldEventID,
			"1 to 128 characters of printable ASCII, without a blank at the beginning or end")
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

// canBeID reports whether an event could ever have the id. Earlier releases also took
// ids with blanks at their ends.
func canBeID(id string) bool {
	return len(id) <= maxText && !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' })
}

func hasOuterBlank(text string) bool { return strings.TrimSpace(text) != text }

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
	iso, ref := d.findCurrency(c)
	if ref != nil {
		return ref
	}
	minor, ok := minorUnits(d.texts[fieldAmount], iso.Digits)
	if !ok {
		return newRefusal(codeBadAmount, fieldAmount.String(),
			"a decimal that is not negative, with at most the currency's digits ("+strconv.Itoa(int(iso.Digits))+
				") and zeros after the point, within 64 bits")
	}
	c.AmountMinor = &minor
	c.Currency, c.Exponent = iso.Code, iso.Digits
	return nil
}

// findCurrency reads a currency that the event may have. Type and time are those of c.
func (d *draft) findCurrency(c *event.Conversion) (*currency.Currency, *refusal) {
	bad := func(detail string) (*currency.Currency, *refusal) {
		return nil, newRefusal(codeBadCurrency, fieldCurrency.String(), detail)
	}
	iso, ok := currency.Lookup(upperASCII(d.texts[fieldCurrency]))
	at := c.OccurredAt.Time()
	switch {
	case !ok:
		return bad("not an ISO 4217 code")
	case !c.Type.Positive() && !iso.InForce(at.Add(-maxWithdrawn), at):
		return bad("an ISO 4217 code that was not in force in the 800 days before occurred_at")
	case c.Type.Positive() && !iso.Money:
		return bad("a funds code, metal or test code of ISO 4217, in which " +
			"only an event that takes something back may be")
	case c.Type.Positive() && !iso.InForce(at, at):
		return bad("an ISO 4217 code that was not in force on the day of occurred_at")
	}
	return iso, nil
}

// upperASCII turns a to z into capitals, and nothing else: ſ is no S.
func upperASCII(text string) string {
	for i := range len(text) {
		if text[i] >= 'a' && text[i] <= 'z' {
			upper := []byte(text)
			for j := range upper {
				if upper[j] >= 'a' && upper[j] <= 'z' {
					upper[j] -= 'a' - 'A'
				}
			}
			return string(upper)
		}
	}
	return text
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
	c.OrderID = d.texts[fieldOrderID]
	c.ParentEventID = d.texts[fieldParentEventID]
	c.EventName = d.texts[fieldName]
	c.ReasonText = d.texts[fieldReason]
	c.CustomerRef = d.texts[fieldCustomerRef]
	switch {
	case utf8.RuneCountInString(c.OrderID) > maxText:
		return invalidField(fieldOrderID, "more than 128 characters")
	case hasOuterBlank(c.OrderID):
		return invalidField(fieldOrderID, "a blank at the beginning or end")
	case !canBeID(c.ParentEventID):
		return invalidField(fieldParentEventID, "no event can have this id: at most 128 characters of printable ASCII")
	case utf8.RuneCountInString(c.CustomerRef) > maxText:
		return invalidField(fieldCustomerRef, "more than 128 characters")
	}
	return nil
}

// truncateContext cuts the texts that are context and no ids, and returns the names of
// those that were too long.
func (d *draft) truncateContext(c *event.Conversion) (truncated []string) {
	for _, t := range []struct {
		field field
		text  *string
	}{
		{fieldName, &c.EventName},
		{fieldReason, &c.ReasonText},
	} {
		if short := truncateText(*t.text); len(short) < len(*t.text) {
			*t.text = short
			truncated = append(truncated, t.field.String())
		}
	}
	return truncated
}

func (d *draft) checkMetadata(c *event.Conversion) *refusal {
	size := 0
	for k, v := range d.pairs {
		size += len(k) + len(v)
	}
	if d.notString != 0 {
		return invalidField(fieldMetadata, "the value of a pair is a string, not "+kindName(d.notString))
	}
	if len(d.pairs) > maxPairs || size > maxMetadataBytes {
		return invalidField(fieldMetadata, "at most 20 pairs of strings, together at most 2 kB")
	}
	c.Metadata = d.pairs
	return nil
}

// truncateText shortens a text to 128 characters, which are code points.
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
