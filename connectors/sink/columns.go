package sink

import (
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Rows on their way into a table are appended to slices, one for each column. The
// client takes the slices as they are, which is several times cheaper than rows of
// values.

// columnBuffer collects the values of one column for rows that are made from an R.
type columnBuffer[R any] interface {
	appendValue(*R)
	// repeatValue appends the value of an earlier row.
	repeatValue(row int)
	// columnValues returns what was collected, as Batch.Column takes it.
	columnValues() any
	resetColumn()
}

// valueBuffer is a column of Vs.
type valueBuffer[R, V any] struct {
	valueOf   func(*R) V
	collected []V
}

func (b *valueBuffer[R, V]) appendValue(r *R) { b.collected = append(b.collected, b.valueOf(r)) }
func (b *valueBuffer[R, V]) repeatValue(row int) {
	b.collected = append(b.collected, b.collected[row])
}
func (b *valueBuffer[R, V]) columnValues() any { return b.collected }
func (b *valueBuffer[R, V]) resetColumn() {
	clear(b.collected) // release the texts now, not when a batch of the same length comes
	b.collected = b.collected[:0]
}

// textBuffer is a column of recurring texts: a LowCardinality(String).
type textBuffer[R any] struct {
	valueOf   func(*R) string
	collected *clickhouse.Texts
}

func (b *textBuffer[R]) appendValue(r *R)    { b.collected.Add(b.valueOf(r)) }
func (b *textBuffer[R]) repeatValue(row int) { b.collected.Repeat(row) }
func (b *textBuffer[R]) columnValues() any   { return b.collected }
func (b *textBuffer[R]) resetColumn()        { b.collected.Reset() }

// namedColumn is a column with its name in the table.
type namedColumn[R any] struct {
	name string
	// ofTail: the value follows from the record's tail alone, see typedRows.
	ofTail bool
	columnBuffer[R]
}

func valueColumn[R, V any](name string, valueOf func(*R) V) namedColumn[R] {
	return namedColumn[R]{name: name, columnBuffer: &valueBuffer[R, V]{valueOf: valueOf}}
}

// textColumn is valueColumn for texts that recur.
func textColumn[R any](name string, valueOf func(*R) string) namedColumn[R] {
	return namedColumn[R]{name: name, columnBuffer: &textBuffer[R]{valueOf: valueOf, collected: clickhouse.NewTexts()}}
}

// nestedBuffer is a column of an R that is a part of an S.
type nestedBuffer[S, R any] struct {
	partOf func(*S) *R
	nested columnBuffer[R]
}

func (b nestedBuffer[S, R]) appendValue(s *S)    { b.nested.appendValue(b.partOf(s)) }
func (b nestedBuffer[S, R]) repeatValue(row int) { b.nested.repeatValue(row) }
func (b nestedBuffer[S, R]) columnValues() any   { return b.nested.columnValues() }
func (b nestedBuffer[S, R]) resetColumn()        { b.nested.resetColumn() }

// nestColumns makes columns of S from the columns of a part of S.
func nestColumns[S, R any](partOf func(*S) *R, columns []namedColumn[R]) []namedColumn[S] {
	out := make([]namedColumn[S], len(columns))
	for i, c := range columns {
		out[i] = namedColumn[S]{name: c.name, columnBuffer: nestedBuffer[S, R]{partOf, c.columnBuffer}}
	}
	return out
}

// rowBuffer collects the rows of one batch. It is reused for the next one.
type rowBuffer interface {
	// appendRow decodes a record and appends its row. If skip is not nil, it is called
	// once the record has turned out to be readable; if it returns true, the row is
	// left out. An error means that the record is unreadable.
	appendRow(record *kgo.Record, skip func() bool) error
	// sumTime returns the time by which the rollup sums the record that was decoded
	// last. It must not be called if the topic is not summed.
	sumTime() event.Millis
	// summarize describes the rows collected so far.
	summarize() batchSummary
	fillBatch(*clickhouse.Batch) error
	resetRows()
	columnNames() []string
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
// Many records may end with the same bytes, their tail: all clicks of a link do. The
// columns of a tail that has a row already are copied from there, undecoded.
type typedRows[T any] struct {
	decode        func(*kgo.Record, *T) error
	timeOf        func(*T) event.Millis                                  // of a row
	latencyStart  func(*kgo.Record, *T) (start event.Millis, isSet bool) // nil: not measured
	summedAt      func(*T) event.Millis                                  // nil: not summed
	sourceColumns []namedColumn[kgo.Record]                              // where the record was in Kafka
	columns       []namedColumn[T]
	// decodeHead decodes a record without its tail, and returns that; nil: it could not.
	// decodeHead itself is nil if records have no tails.
	decodeHead func(*kgo.Record, *T) (tail []byte, err error)

	value   T              // of the record that was decoded last; perhaps without its tail
	rowOf   map[string]int // a row of each tail, at most maxTails of them
	summary batchSummary
}

func newTypedRows[T any](decode func(*kgo.Record, *T) error, timeOf func(*T) event.Millis,
	columns []namedColumn[T]) *typedRows[T] {
	return &typedRows[T]{
		decode:        decode,
		timeOf:        timeOf,
		sourceColumns: newSourceColumns(),
		columns:       columns,
	}
}

// measureLatency sets the time from which the latency of a row is measured, for rows
// for which start returns true.
func (r *typedRows[T]) measureLatency(start func(*kgo.Record, *T) (event.Millis, bool)) *typedRows[T] {
	r.latencyStart = start
	return r
}

func (r *typedRows[T]) appendRow(record *kgo.Record, skip func() bool) error {
	tail, sameTail, err := r.decodeRecord(record)
	if err != nil {
		return err
	}
	if skip != nil && skip() {
		return nil
	}
	for i := range r.sourceColumns {
		r.sourceColumns[i].appendValue(record)
	}
	for i := range r.columns {
		if c := &r.columns[i]; c.ofTail && sameTail >= 0 {
			c.repeatValue(sameTail)
		} else {
			c.appendValue(&r.value)
		}
	}
	if tail != nil && sameTail < 0 && len(r.rowOf) < maxTails {
		r.rowOf[string(tail)] = r.summary.rows
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

// decodeRecord decodes a record. If sameTail is not negative, it is a row with the
// record's tail, and value lacks what that says.
func (r *typedRows[T]) decodeRecord(record *kgo.Record) (tail []byte, sameTail int, err error) {
	if r.decodeHead != nil {
		if tail, err = r.decodeHead(record, &r.value); err != nil {
			return nil, -1, err
		}
		if row, ok := r.rowOf[string(tail)]; ok && tail != nil {
			return tail, row, nil
		}
	}
	return tail, -1, r.decode(record, &r.value)
}

func (r *typedRows[T]) sumTime() event.Millis { return r.summedAt(&r.value) }

func (r *typedRows[T]) summarize() batchSummary { return r.summary }

func (r *typedRows[T]) fillBatch(b *clickhouse.Batch) error {
	for i, c := range r.sourceColumns {
		if err := b.Column(i, c.columnValues()); err != nil {
			return err
		}
	}
	for i, c := range r.columns {
		if err := b.Column(len(r.sourceColumns)+i, c.columnValues()); err != nil {
			return err
		}
	}
	return nil
}

func (r *typedRows[T]) resetRows() {
	for _, c := range r.sourceColumns {
		c.resetColumn()
	}
	for _, c := range r.columns {
		c.resetColumn()
	}
	var zero T
	r.value = zero
	clear(r.rowOf)
	r.summary = batchSummary{}
}

func (r *typedRows[T]) columnNames() []string {
	var names []string
	for _, c := range r.sourceColumns {
		names = append(names, c.name)
	}
	for _, c := range r.columns {
		names = append(names, c.name)
	}
	return names
}

func newSourceColumns() []namedColumn[kgo.Record] {
	return []namedColumn[kgo.Record]{
		valueColumn("src_partition", func(r *kgo.Record) uint32 { return uint32(r.Partition) }),
		valueColumn("src_offset", func(r *kgo.Record) uint64 { return uint64(r.Offset) }),
		valueColumn("arrived_at", func(r *kgo.Record) int64 { return r.Timestamp.UnixMilli() }),
	}
}
