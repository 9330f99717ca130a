package sink

import (
	"bytes"
	"maps"
	"slices"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Rows on their way into a table are columns of bytes in ClickHouse's format. A row comes
// from the record's bytes, field by field, or from the record that the codec has read:
// the bytes are the same.

// columnBuffer collects the values of one column for rows that are made from an R.
type columnBuffer[R any] interface {
	appendValue(*R)
	// appendField appends what a record's bytes say in the column's field.
	appendField(record []byte, f *event.Field, v *event.FieldValue)
	// column returns what was collected.
	column() clickhouse.Column
	resetColumn()
}

// numberBuffer is a column of integers, booleans or times.
type numberBuffer[R any] struct {
	valueOf   func(*R) int64
	collected *clickhouse.Numbers
}

func (b *numberBuffer[R]) appendValue(r *R) { b.collected.Add(b.valueOf(r)) }
func (b *numberBuffer[R]) appendField(_ []byte, _ *event.Field, v *event.FieldValue) {
	b.collected.Add(v.Number)
}
func (b *numberBuffer[R]) column() clickhouse.Column { return b.collected }
func (b *numberBuffer[R]) resetColumn()              { b.collected.Reset() }

// maybeNumberBuffer is a numberBuffer with nulls. If its field cannot be null, zero is.
type maybeNumberBuffer[R any] struct {
	valueOf   func(*R) (v int64, isSet bool)
	collected *clickhouse.MaybeNumbers
}

func (b *maybeNumberBuffer[R]) appendValue(r *R) {
	v, isSet := b.valueOf(r)
	b.append(v, !isSet)
}

func (b *maybeNumberBuffer[R]) appendField(_ []byte, f *event.Field, v *event.FieldValue) {
	b.append(v.Number, v.IsNull || f.Kind == event.FieldLong && v.Number == 0)
}

func (b *maybeNumberBuffer[R]) append(v int64, isNull bool) {
	if isNull {
		b.collected.AddNull()
	} else {
		b.collected.Add(v)
	}
}

func (b *maybeNumberBuffer[R]) column() clickhouse.Column { return b.collected }
func (b *maybeNumberBuffer[R]) resetColumn()              { b.collected.Reset() }

// stringBuffer is a column of texts that seldom recur.
type stringBuffer[R any] struct {
	valueOf   func(*R) string
	collected *clickhouse.Strings
}

func (b *stringBuffer[R]) appendValue(r *R) { b.collected.Add(b.valueOf(r)) }
func (b *stringBuffer[R]) appendField(record []byte, _ *event.Field, v *event.FieldValue) {
	b.collected.AddBytes(record[v.From:v.To])
}
func (b *stringBuffer[R]) column() clickhouse.Column { return b.collected }
func (b *stringBuffer[R]) resetColumn()              { b.collected.Reset() }

// textBuffer is a column of recurring texts: a LowCardinality(String).
type textBuffer[R any] struct {
	valueOf   func(*R) string
	collected *clickhouse.Texts
}

func (b *textBuffer[R]) appendValue(r *R) { b.collected.Add(b.valueOf(r)) }
func (b *textBuffer[R]) appendField(record []byte, f *event.Field, v *event.FieldValue) {
	if f.Kind == event.FieldSymbol && !v.IsNull {
		b.collected.Add(f.Symbols[v.Number])
	} else {
		b.collected.AddBytes(record[v.From:v.To])
	}
}
func (b *textBuffer[R]) column() clickhouse.Column { return b.collected }
func (b *textBuffer[R]) resetColumn()              { b.collected.Reset() }

// hashBuffer is a column of SHA-256 sums.
type hashBuffer[R any] struct {
	valueOf   func(*R) *[32]byte
	collected *clickhouse.FixedStrings
}

func (b *hashBuffer[R]) appendValue(r *R) { b.collected.AddBytes(b.valueOf(r)[:]) }
func (b *hashBuffer[R]) appendField(record []byte, _ *event.Field, v *event.FieldValue) {
	b.collected.AddBytes(record[v.From:v.To])
}
func (b *hashBuffer[R]) column() clickhouse.Column { return b.collected }
func (b *hashBuffer[R]) resetColumn()              { b.collected.Reset() }

// listBuffer is a column of lists of texts.
type listBuffer[R any] struct {
	valueOf   func(*R) []string
	collected *clickhouse.Lists
}

func (b *listBuffer[R]) appendValue(r *R) {
	for _, item := range b.valueOf(r) {
		b.collected.AddItem([]byte(item))
	}
	b.collected.EndRow()
}

func (b *listBuffer[R]) appendField(record []byte, _ *event.Field, v *event.FieldValue) {
	items := record[v.From:v.To]
	for range v.Number {
		var item []byte
		item, items = event.NextText(items)
		b.collected.AddItem(item)
	}
	b.collected.EndRow()
}

func (b *listBuffer[R]) column() clickhouse.Column { return b.collected }
func (b *listBuffer[R]) resetColumn()              { b.collected.Reset() }

// pairsBuffer is a column of maps of texts, each in the order of its keys.
type pairsBuffer[R any] struct {
	valueOf   func(*R) map[string]string
	collected *clickhouse.Pairs
	pairs     []pair // scratch
}

type pair struct{ key, value []byte }

func (b *pairsBuffer[R]) appendValue(r *R) {
	pairs := b.valueOf(r)
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		b.collected.AddPair([]byte(key), []byte(pairs[key]))
	}
	b.collected.EndRow()
}

func (b *pairsBuffer[R]) appendField(record []byte, _ *event.Field, v *event.FieldValue) {
	items := record[v.From:v.To]
	b.pairs = b.pairs[:0]
	for range v.Number {
		var p pair
		p.key, items = event.NextText(items)
		p.value, items = event.NextText(items)
		b.pairs = append(b.pairs, p)
	}
	slices.SortFunc(b.pairs, func(p, q pair) int { return bytes.Compare(p.key, q.key) })
	for _, p := range b.pairs {
		b.collected.AddPair(p.key, p.value)
	}
	b.collected.EndRow()
}

func (b *pairsBuffer[R]) column() clickhouse.Column { return b.collected }
func (b *pairsBuffer[R]) resetColumn() {
	b.collected.Reset()
	clear(b.pairs[:cap(b.pairs)]) // they are parts of records
}

// namedColumn is a column with its name in the table.
type namedColumn[R any] struct {
	name string
	columnBuffer[R]
}

// numberColumn is a column of one of the types of clickhouse.Numbers.
func numberColumn[R any](name, typeName string, valueOf func(*R) int64) namedColumn[R] {
	return namedColumn[R]{name, &numberBuffer[R]{valueOf, clickhouse.NewNumbers(typeName)}}
}

func flagColumn[R any](name string, valueOf func(*R) bool) namedColumn[R] {
	return numberColumn(name, clickhouse.Bool, func(r *R) int64 {
		if valueOf(r) {
			return 1
		}
		return 0
	})
}

func timeColumn[R any](name string, valueOf func(*R) event.Millis) namedColumn[R] {
	return numberColumn(name, clickhouse.Millis, func(r *R) int64 { return int64(valueOf(r)) })
}

// maybeTimeColumn is a column of times of which 0 is null.
func maybeTimeColumn[R any](name string, valueOf func(*R) event.Millis) namedColumn[R] {
	return namedColumn[R]{name, &maybeNumberBuffer[R]{
		valueOf: func(r *R) (int64, bool) {
			v := valueOf(r)
			return int64(v), v != 0
		},
		collected: clickhouse.NewMaybeNumbers(clickhouse.Millis),
	}}
}

// maybeNumberColumn is numberColumn for numbers that may be nil.
func maybeNumberColumn[R any, V int64 | int32 | event.Millis](name, typeName string,
	valueOf func(*R) *V) namedColumn[R] {
	return namedColumn[R]{name, &maybeNumberBuffer[R]{
		valueOf: func(r *R) (int64, bool) {
			v := valueOf(r)
			if v == nil {
				return 0, false
			}
			return int64(*v), true
		},
		collected: clickhouse.NewMaybeNumbers(typeName),
	}}
}

func stringColumn[R any](name string, valueOf func(*R) string) namedColumn[R] {
	return namedColumn[R]{name, &stringBuffer[R]{valueOf, new(clickhouse.Strings)}}
}

// textColumn is stringColumn for texts that recur.
func textColumn[R any](name string, valueOf func(*R) string) namedColumn[R] {
	return namedColumn[R]{name, &textBuffer[R]{valueOf, clickhouse.NewTexts()}}
}

func hashColumn[R any](name string, valueOf func(*R) *[32]byte) namedColumn[R] {
	return namedColumn[R]{name, &hashBuffer[R]{valueOf, clickhouse.NewFixedStrings(32)}}
}

func listColumn[R any](name string, valueOf func(*R) []string) namedColumn[R] {
	return namedColumn[R]{name, &listBuffer[R]{valueOf, clickhouse.NewLists()}}
}

func pairsColumn[R any](name string, valueOf func(*R) map[string]string) namedColumn[R] {
	return namedColumn[R]{name, &pairsBuffer[R]{valueOf: valueOf, collected: clickhouse.NewPairs()}}
}

// nestedBuffer is a column of an R that is a part of an S.
type nestedBuffer[S, R any] struct {
	partOf func(*S) *R
	nested columnBuffer[R]
}

func (b nestedBuffer[S, R]) appendValue(s *S) { b.nested.appendValue(b.partOf(s)) }
func (b nestedBuffer[S, R]) appendField(record []byte, f *event.Field, v *event.FieldValue) {
	b.nested.appendField(record, f, v)
}
func (b nestedBuffer[S, R]) column() clickhouse.Column { return b.nested.column() }
func (b nestedBuffer[S, R]) resetColumn()              { b.nested.resetColumn() }

// nestColumns makes columns of S from the columns of a part of S.
func nestColumns[S, R any](partOf func(*S) *R, columns []namedColumn[R]) []namedColumn[S] {
	out := make([]namedColumn[S], len(columns))
	for i, c := range columns {
		out[i] = namedColumn[S]{name: c.name, columnBuffer: nestedBuffer[S, R]{partOf, c.columnBuffer}}
	}
	return out
}

func newSourceColumns() []namedColumn[kgo.Record] {
	return []namedColumn[kgo.Record]{
		numberColumn("src_partition", clickhouse.UInt32, func(r *kgo.Record) int64 { return int64(r.Partition) }),
		numberColumn("src_offset", clickhouse.UInt64, func(r *kgo.Record) int64 { return r.Offset }),
		numberColumn("arrived_at", clickhouse.Millis, func(r *kgo.Record) int64 { return r.Timestamp.UnixMilli() }),
	}
}
