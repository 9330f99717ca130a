package verify

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
)

// digest is of every field of an outcome but decided_at.
type digest [16]byte

// digester makes digests. Its buffers are reused.
type digester struct {
	codec  *event.Codec
	buffer []byte
}

// digestOutcome returns the digest of an outcome. click is the wire form of its
// snapshot, or nil if o has it.
func (d *digester) digestOutcome(o *event.Outcome, click []byte) (short digest, err error) {
	bare := *o
	bare.DecidedAt = 0
	bare.Metadata = nil // its order is random in Avro
	if d.buffer, err = d.codec.AppendOutcome(d.buffer[:0], &bare, click); err != nil {
		return short, err
	}
	for _, k := range slices.Sorted(maps.Keys(o.Metadata)) {
		d.buffer = fmt.Appendf(d.buffer, "%q%q", k, o.Metadata[k])
	}
	sum := sha256.Sum256(d.buffer)
	copy(short[:], sum[:])
	return short, nil
}

// FieldDifference is a field in which a row differs.
type FieldDifference struct {
	Field   string `json:"field"`   // as the column is called
	Derived string `json:"derived"` // what the rules say
	Found   string `json:"found"`   // what the row says
}

// diffOutcomes lists the fields, but decided_at, in which a row differs from what was
// derived.
func diffOutcomes(derived, found *event.Outcome) (fields []FieldDifference) {
	if derived.Click == nil != (found.Click == nil) {
		fields = append(fields, FieldDifference{
			Field:   "click",
			Derived: describePresence(derived.Click),
			Found:   describePresence(found.Click),
		})
	}
	for _, f := range ledger.OutcomeFields() {
		if f.Name == "decided_at" || f.InClick && (derived.Click == nil || found.Click == nil) {
			continue
		}
		a, b := describeValue(f.Value(derived)), describeValue(f.Value(found))
		if a != b {
			fields = append(fields, FieldDifference{Field: f.Name, Derived: a, Found: b})
		}
	}
	if k, l := derived.Click, found.Click; k != nil && l != nil {
		for _, repeated := range []FieldDifference{
			{"click.workspace_id", k.WorkspaceID, l.WorkspaceID},
			{"click.click_token", k.ClickToken, l.ClickToken},
		} {
			if repeated.Derived != repeated.Found {
				fields = append(fields, repeated)
			}
		}
	}
	return fields
}

func describePresence(k *event.Click) string {
	if k == nil {
		return "none"
	}
	return "shown"
}

// describeValue writes the value of a field: absent numbers as nothing, lists with |,
// times as CSVs do.
func describeValue(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return ""
		}
		v = v.Elem()
	}
	switch x := v.Interface().(type) {
	case event.Millis:
		return ledger.FormatTime(x.Time())
	case []string:
		return strings.Join(x, "|")
	case [32]byte:
		return fmt.Sprintf("%x", x)
	case map[string]string:
		var pairs []string
		for _, k := range slices.Sorted(maps.Keys(x)) {
			pairs = append(pairs, fmt.Sprintf("%q: %q", k, x[k]))
		}
		return strings.Join(pairs, ", ")
	default:
		return fmt.Sprint(x)
	}
}
