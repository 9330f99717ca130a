package sink

import (
	"bytes"
	"strings"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

// rowBuffer collects the rows of one batch. It is reused for the next one.
type rowBuffer interface {
	// appendRow reads a record and appends its row. If skip is not nil, it is called
	// once the record has turned out to be readable; if it returns true, the row is
	// left out. An error means that the record is unreadable.
	appendRow(record *kgo.Record, skip func() bool) error
	// sumTime returns the time by which the rollup sums the record that was read last.
	// It must not be called if the topic is not summed.
	sumTime() event.Millis
	// summarize describes the rows collected so far.
	summarize() batchSummary
	// block returns the rows. It is valid until the next row or reset.
	block() *clickhouse.Block
	resetRows()
}

// batchSummary describes the rows of a batch.
type batchSummary struct {
	rows int
	// oldestRow is the least of the rows' own times.
	oldestRow event.Millis
	// latencyStarts are the times from which the latency of rows is measured. Rows
	// whose latency is not measured have none.
	latencyStarts []event.Millis
}

// maxTails bounds the tails that typedRows remembers. A click's tail has at most half a
// kilobyte.
const maxTails = 4096

// typedRows is a rowBuffer for records that decode to a T.
//
// Records of today's schema are read by their fields, and the bytes of each go into its
// column. Many of them end with the same bytes, their tail: all clicks of a link do, and
// all outcomes of such clicks. Columns that follow from the tail have a row for each tail,
// not for each record. Such a row comes from a record that the codec has read, as do all
// rows of other records.
type typedRows[T any] struct {
	decode        func(*kgo.Record, *T) error
	timeOf        func(*T) event.Millis                                  // of a row
	latencyStart  func(*kgo.Record, *T) (start event.Millis, isSet bool) // nil: not measured
	summedAt      func(*T) event.Millis                                  // nil: not summed
	sourceColumns []namedColumn[kgo.Record]                              // where the record was in Kafka
	columns       []namedColumn[T]
	tailColumns   []namedColumn[T]
	fields        *recordFields[T] // nil: the codec reads every record
	all           clickhouse.Block // of all columns

	value   T              // of the record that was read last; perhaps only what fields sets
	tailOf  []uint32       // of each row: its row in tailColumns
	tails   uint32         // rows in tailColumns
	rowOf   map[string]int // the row of a tail in tailColumns, at most maxTails of them
	summary batchSummary
}

func newTypedRows[T any](decode func(*kgo.Record, *T) error, timeOf func(*T) event.Millis,
	columns []namedColumn[T]) *typedRows[T] {
	r := &typedRows[T]{
		decode:        decode,
		timeOf:        timeOf,
		sourceColumns: newSourceColumns(),
		columns:       columns,
		rowOf:         make(map[string]int),
	}
	r.all = r.newBlock()
	return r
}

func (r *typedRows[T]) newBlock() (b clickhouse.Block) {
	for _, c := range r.sourceColumns {
		b.Add(c.name, c.column())
	}
	for _, c := range r.columns {
		b.Add(c.name, c.column())
	}
	for _, c := range r.tailColumns {
		b.AddPicked(c.name, c.column(), &r.tailOf)
	}
	return b
}

// measureLatency sets the time from which the latency of a row is measured, for rows
// for which start returns true.
func (r *typedRows[T]) measureLatency(start func(*kgo.Record, *T) (event.Millis, bool)) *typedRows[T] {
	r.latencyStart = start
	return r
}

// recordFields is how records of today's schema are read by their fields.
type recordFields[T any] struct {
	table  *event.FieldTable
	values []event.FieldValue // of the record that was read last
	// columnOf is the column of each field; -1: none.
	columnOf []int
	// key is the field that is the record's key.
	key   int
	times []timeField[T]
	// usual reports whether the columns follow from the fields one by one; nil: they do.
	usual func([]event.FieldValue) bool
}

// timeField sets a time of a T from a field.
type timeField[T any] struct {
	field int
	set   func(*T, event.Millis)
}

// readFields makes r read records by their fields, each into the column of its name; of
// some it also sets times. Columns without a field follow from the tail.
func (r *typedRows[T]) readFields(table *event.FieldTable, times map[string]func(*T, event.Millis)) {
	fields := &recordFields[T]{table: table, key: -1}
	fields.values = make([]event.FieldValue, len(table.Fields()))
	own := make(map[string]bool)
	for i, f := range table.Fields() {
		if own[f.Name] = true; f.Name == "click_token" {
			fields.key = i
		}
	}
	columns := make(map[string]int)
	for i, c := range r.columns {
		columns[c.name] = i
	}
	var kept []namedColumn[T]
	for i, f := range table.Fields() {
		// A record's own field goes before the one of its click.
		name, ofClick := strings.CutPrefix(f.Name, "click.")
		column, ok := columns[name]
		fields.columnOf = append(fields.columnOf, -1)
		if ok && !(ofClick && own[name]) {
			fields.columnOf[i] = len(kept)
			kept = append(kept, r.columns[column])
			delete(columns, name)
		}
		if set := times[f.Name]; set != nil {
			fields.times = append(fields.times, timeField[T]{i, set})
		}
	}
	for _, c := range r.columns {
		if _, left := columns[c.name]; left {
			r.tailColumns = append(r.tailColumns, c)
		}
	}
	r.columns = kept
	r.fields = fields
	r.all = r.newBlock()
}

// read reads a record and returns its tail. If it returns false, the codec must read it.
func (f *recordFields[T]) read(record *kgo.Record, v *T) (tail []byte, ok bool) {
	from, ok := f.table.Read(record.Value, f.values)
	if !ok || f.usual != nil && !f.usual(f.values) {
		return nil, false
	}
	for _, t := range f.times {
		t.set(v, event.Millis(f.values[t.field].Number))
	}
	return record.Value[from:], true
}

func (r *typedRows[T]) appendRow(record *kgo.Record, skip func() bool) error {
	tail, tailRow, byFields, err := r.readRecord(record)
	if err != nil {
		return err
	}
	if skip != nil && skip() {
		return nil
	}
	for i := range r.sourceColumns {
		r.sourceColumns[i].appendValue(record)
	}
	if byFields {
		r.appendFields(record.Value)
	} else {
		for i := range r.columns {
			r.columns[i].appendValue(&r.value)
		}
	}
	if len(r.tailColumns) > 0 {
		r.appendTail(tail, tailRow, byFields)
	}
	if at := r.timeOf(&r.value); r.summary.rows == 0 || at < r.summary.oldestRow {
		r.summary.oldestRow = at
	}
	if r.latencyStart != nil {
		if at, ok := r.latencyStart(record, &r.value); ok {
			r.summary.latencyStarts = append(r.summary.latencyStarts, at)
		}
	}
	r.summary.rows++
	return nil
}

// readRecord reads a record, byFields if that is possible. If tailRow is not negative, it
// is the row of the record's tail, and value lacks what that says.
func (r *typedRows[T]) readRecord(record *kgo.Record) (tail []byte, tailRow int, byFields bool, err error) {
	if r.fields != nil {
		if tail, byFields = r.fields.read(record, &r.value); byFields {
			if row, ok := r.rowOf[string(tail)]; ok {
				key := r.fields.values[r.fields.key]
				if token := record.Value[key.From:key.To]; !bytes.Equal(token, record.Key) {
					err = checkKey(record, string(token))
				}
				return tail, row, true, err
			}
		}
	}
	return tail, -1, byFields, r.decode(record, &r.value)
}

// appendFields appends the values of the record that was read by its fields.
func (r *typedRows[T]) appendFields(record []byte) {
	fields := r.fields.table.Fields()
	for i, column := range r.fields.columnOf {
		if column >= 0 {
			r.columns[column].appendField(record, &fields[i], &r.fields.values[i])
		}
	}
}

// appendTail appends a row with a tail, which has that row already unless it is negative.
func (r *typedRows[T]) appendTail(tail []byte, row int, byFields bool) {
	if row < 0 {
		row = int(r.tails)
		for i := range r.tailColumns {
			r.tailColumns[i].appendValue(&r.value)
		}
		if byFields && len(r.rowOf) < maxTails {
			r.rowOf[string(tail)] = row
		}
		r.tails++
	}
	r.tailOf = append(r.tailOf, uint32(row))
}

func (r *typedRows[T]) sumTime() event.Millis { return r.summedAt(&r.value) }

func (r *typedRows[T]) summarize() batchSummary { return r.summary }

func (r *typedRows[T]) block() *clickhouse.Block { return &r.all }

func (r *typedRows[T]) resetRows() {
	for _, c := range r.sourceColumns {
		c.resetColumn()
	}
	for _, c := range r.columns {
		c.resetColumn()
	}
	for _, c := range r.tailColumns {
		c.resetColumn()
	}
	var zero T
	r.value = zero
	r.tailOf = r.tailOf[:0]
	r.tails = 0
	clear(r.rowOf)
	r.summary = batchSummary{}
}
