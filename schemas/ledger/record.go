package ledger

import (
	"reflect"

	"github.com/nimriz/partners/schemas/event"
)

// Field is a field of event.Outcome, or of the click within it, that the sink stores in
// the table outcomes under the field's Avro name.
type Field struct {
	Name    string // of the column
	InClick bool   // it is a field of event.Click
	field   reflect.StructField
}

// Type is the field's type.
func (f Field) Type() reflect.Type { return f.field.Type }

// OutcomeFields are the stored fields of an outcome. Those that the click repeats, its
// workspace and token, are the outcome's.
func OutcomeFields() []Field {
	var fields []Field
	seen := map[string]bool{"click": true} // the click's own fields are columns instead
	add := func(record reflect.Type, inClick bool) {
		for i := range record.NumField() {
			if name := record.Field(i).Tag.Get("avro"); !seen[name] {
				seen[name] = true
				fields = append(fields, Field{name, inClick, record.Field(i)})
			}
		}
	}
	add(reflect.TypeFor[event.Outcome](), false)
	add(reflect.TypeFor[event.Click](), true)
	return fields
}

// Value is the field in an outcome, settable. The outcome's click must not be nil for a
// field of the click.
func (f Field) Value(o *event.Outcome) reflect.Value {
	if f.InClick {
		return reflect.ValueOf(o.Click).Elem().FieldByIndex(f.field.Index)
	}
	return reflect.ValueOf(o).Elem().FieldByIndex(f.field.Index)
}
