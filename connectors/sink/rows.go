package sink

import (
	"bytes"
	"slices"
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

// maxShared bounds the keys that sharedColumns remember. A click takes at most half a
// kilobyte.
const maxShared = 4096

// sharedColumns are columns that follow from a part of a record, its key, which many
// records have in common. They have a row for each key, not for each record.
type sharedColumns[T any] struct {
	columns []namedColumn[T]
	rowOf   map[string]uint32 // the row of a key, of at most maxShared keys
	rows    uint32
	picks   []uint32 // of each record: its row
}

// pick adds a record with a row that is there.
func (s *sharedColumns[T]) pick(row uint32) { s.picks = append(s.picks, row) }

// endRow adds a record, to whose row each column has appended. A nil key is none.
func (s *sharedColumns[T]) endRow(key []byte) {
	if key != nil && len(s.rowOf) < maxShared {
		s.rowOf[string(key)] = s.rows
	}
	s.picks = append(s.picks, s.rows)
	s.rows++
}

func (s *sharedColumns[T]) addTo(b *clickhouse.Block) {
	for _, c := range s.columns {
		b.AddPicked(c.name, c.column(), &s.picks)
	}
}

func (s *sharedColumns[T]) reset() {
	for _, c := range s.columns {
		c.resetColumn()
	}
	clear(s.rowOf)
	s.rows, s.picks = 0, s.picks[:0]
}

// typedRows is a rowBuffer for records that decode to a T.
//
// Records of today's schema are read by their fields, and the bytes of each go into its
// column. Many of them end with the same bytes, their tail: all clicks of a link do, and
// all outcomes of such clicks. Many have the same visitor, too: browser, country, and so
// on. A row of what follows from the tail comes from a record that the codec has read, as
// do all rows of records that are not read by their fields.
type typedRows[T any] struct {
	decode        func(*kgo.Record, *T) error
	timeOf        func(*T) event.Millis                                  // of a row
	latencyStart  func(*kgo.Record, *T) (start event.Millis, isSet bool) // nil: not measured
	summedAt      func(*T) event.Millis                                  // nil: not summed
	sourceColumns []namedColumn[kgo.Record]                              // where the record was in Kafka
	columns       []namedColumn[T]
	visitor, tail sharedColumns[T]
	fields        *recordFields[T] // nil: the codec reads every record
	all           clickhouse.Block // of all columns

	value   T // of the record that was read last; perhaps only what fields sets
	summary batchSummary
}

func newTypedRows[T any](decode func(*kgo.Record, *T) error, timeOf func(*T) event.Millis,
	columns []namedColumn[T]) *typedRows[T] {
	r := &typedRows[T]{
		decode:        decode,
		timeOf:        timeOf,
		sourceColumns: newSourceColumns(),
		columns:       columns,
		visitor:       sharedColumns[T]{rowOf: make(map[string]uint32)},
		tail:          sharedColumns[T]{rowOf: make(map[string]uint32)},
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
	r.visitor.addTo(&b)
	r.tail.addTo(&b)
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
	// own and visitor are the fields with a column, in the order of typedRows' columns and
	// of its visitor columns.
	own, visitor []int
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

// visitorColumns are the columns of the visitor: the fields of a click that precede its
// link part, and follow one another in its schema.
var visitorColumns = []string{"referrer_host", "country", "device", "os", "browser", "is_bot", "bot_reason"}

// readFields makes r read records by their fields, each into the column of its name; of
// some it also sets times. Columns without a field follow from the tail.
func (r *typedRows[T]) readFields(table *event.FieldTable, times map[string]func(*T, event.Millis)) {
	fields := &recordFields[T]{table: table, key: -1, values: make([]event.FieldValue, len(table.Fields()))}
	own := make(map[string]bool)
	for i, f := range table.Fields() {
		if own[f.Name] = true; f.Name == "click_token" {
			fields.key = i
		}
		if set := times[f.Name]; set != nil {
			fields.times = append(fields.times, timeField[T]{i, set})
		}
	}
	columns := r.columns
	r.columns = nil
	for i, f := range table.Fields() {
		// A record's own field goes before the one of its click.
		name, ofClick := strings.CutPrefix(f.Name, "click.")
		at := slices.IndexFunc(columns, func(c namedColumn[T]) bool { return c.name == name })
		switch {
		case at < 0 || ofClick && own[name]:
			continue
		case slices.Contains(visitorColumns, name):
			fields.visitor = append(fields.visitor, i)
			r.visitor.columns = append(r.visitor.columns, columns[at])
		default:
			fields.own = append(fields.own, i)
			r.columns = append(r.columns, columns[at])
		}
		columns = slices.Delete(columns, at, at+1)
	}
	r.tail.columns = columns
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
		r.appendValues()
	}
	if tailRow >= 0 {
		r.tail.pick(uint32(tailRow))
	} else if len(r.tail.columns) > 0 {
		for i := range r.tail.columns {
			r.tail.columns[i].appendValue(&r.value)
		}
		r.tail.endRow(tail)
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

// readRecord reads a record, byFields if that is possible; else tail is nil. If tailRow is
// not negative, it is the row of the tail, and value lacks what that says.
func (r *typedRows[T]) readRecord(record *kgo.Record) (tail []byte, tailRow int, byFields bool, err error) {
	if r.fields != nil {
		if tail, byFields = r.fields.read(record, &r.value); byFields {
			if row, ok := r.tail.rowOf[string(tail)]; ok {
				key := r.fields.values[r.fields.key]
				if token := record.Value[key.From:key.To]; !bytes.Equal(token, record.Key) {
					err = checkKey(record, string(token))
				}
				return tail, int(row), true, err
			}
		}
	}
	return tail, -1, byFields, r.decode(record, &r.value)
}

// appendFields appends what a record's fields say, which were read.
func (r *typedRows[T]) appendFields(record []byte) {
	fields, values := r.fields.table.Fields(), r.fields.values
	for i, field := range r.fields.own {
		r.columns[i].appendField(record, &fields[field], &values[field])
	}
	if len(r.fields.visitor) == 0 {
		return
	}
	// The visitor's fields follow one another, from the end of the one before. Without a
	// click they have no bytes.
	from := values[r.fields.visitor[0]-1].To
	key := record[from:values[r.fields.visitor[len(r.fields.visitor)-1]].To]
	if row, ok := r.visitor.rowOf[string(key)]; ok {
		r.visitor.pick(row)
		return
	}
	for i, field := range r.fields.visitor {
		r.visitor.columns[i].appendField(record, &fields[field], &values[field])
	}
	r.visitor.endRow(key)
}

// appendValues appends the record that the codec has read, without its tail.
func (r *typedRows[T]) appendValues() {
	for i := range r.columns {
		r.columns[i].appendValue(&r.value)
	}
	if len(r.visitor.columns) > 0 {
		for i := range r.visitor.columns {
			r.visitor.columns[i].appendValue(&r.value)
		}
		r.visitor.endRow(nil)
	}
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
	r.visitor.reset()
	r.tail.reset()
	var zero T
	r.value = zero
	r.summary = batchSummary{}
}
