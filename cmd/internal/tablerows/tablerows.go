// Package tablerows reads rows of the table outcomes back into the records that they
// were made from, field by field, for programs that compare the two.
package tablerows

import (
	"context"
	"reflect"
	"strings"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
)

// EachOutcome calls do with each row of outcomes that meets a condition, in any order,
// and where its record is in the topic. It reads every field of a record, so that a
// comparison omits none. The outcome is valid during the call.
func EachOutcome(ctx context.Context, wh *clickhouse.Conn, condition string, args []any,
	do func(partition uint32, offset uint64, o *event.Outcome) error) error {
	fields := ledger.OutcomeFields()
	columns := []string{"src_partition", "src_offset"}
	for _, f := range fields {
		columns = append(columns, fieldSQL(f))
	}
	rows, err := wh.Rows(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM outcomes WHERE "+condition, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	var partition uint32
	var offset uint64
	for rows.Next() {
		o := event.Outcome{Click: &event.Click{}}
		targets := []any{&partition, &offset}
		for _, f := range fields {
			targets = append(targets, scanTarget(f.Value(&o)))
		}
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		if len(o.Flags) == 0 {
			o.Flags = nil
		}
		if *o.Click == (event.Click{}) { // the outcome has no snapshot
			o.Click = nil
		} else {
			o.Click.WorkspaceID = o.WorkspaceID
			o.Click.ClickToken = o.ClickToken
		}
		if err := do(partition, offset, &o); err != nil {
			return err
		}
	}
	return rows.Err()
}

// fieldSQL returns the SQL expression that reads a field's column in the field's type.
func fieldSQL(f ledger.Field) string {
	switch t := f.Type(); {
	case t == reflect.TypeFor[event.Millis]():
		return "toInt64(toUnixTimestamp64Milli(ifNull(" + f.Name + ", fromUnixTimestamp64Milli(0))))"
	case t == reflect.TypeFor[int32](), t == reflect.TypeFor[*int32]():
		return "toInt32(" + f.Name + ")"
	case t == reflect.TypeFor[int64](), t == reflect.TypeFor[*int64]():
		return "toInt64(" + f.Name + ")"
	}
	return f.Name
}

// scanTarget returns a pointer to a field in a type that the ClickHouse client knows:
// *string for a field of type event.Verdict.
func scanTarget(field reflect.Value) any {
	switch field.Kind() {
	case reflect.String:
		return field.Addr().Convert(reflect.TypeFor[*string]()).Interface()
	case reflect.Int64:
		return field.Addr().Convert(reflect.TypeFor[*int64]()).Interface()
	}
	return field.Addr().Interface()
}
