package sink

import (
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A row on its way into a table is appended to slices, one for each column, which go to
// the client as they are: several times cheaper than rows of values.

// column collects one column of rows that are made of an R.
type column[R any] interface {
	add(*R)
	values() any // as Batch.Column takes them
	reset()
}

// list is a column of Vs.
type list[R, V any] struct {
	of func(*R) V
	v  []V
}

func (l *list[R, V]) add(r *R)    { l.v = append(l.v, l.of(r)) }
func (l *list[R, V]) values() any { return l.v }
func (l *list[R, V]) reset() {
	clear(l.v) // the texts of a batch must not live until the next one is as long
	l.v = l.v[:0]
}

// texts is a column whose texts recur: a LowCardinality(String).
type texts[R any] struct {
	of func(*R) string
	v  *clickhouse.Texts
}

func (t *texts[R]) add(r *R)    { t.v.Add(t.of(r)) }
func (t *texts[R]) values() any { return t.v }
func (t *texts[R]) reset()      { t.v.Reset() }

// named is a column with its name in the table.
type named[R any] struct {
	name string
	column[R]
}

func of[R, V any](name string, get func(*R) V) named[R] {
	return named[R]{name, &list[R, V]{of: get}}
}

func recurring[R any](name string, get func(*R) string) named[R] {
	return named[R]{name, &texts[R]{of: get, v: clickhouse.NewTexts()}}
}

// inner is a column of something that hangs below an S.
type inner[S, R any] struct {
	of func(*S) *R
	c  column[R]
}

func (i inner[S, R]) add(s *S)    { i.c.add(i.of(s)) }
func (i inner[S, R]) values() any { return i.c.values() }
func (i inner[S, R]) reset()      { i.c.reset() }

func below[S, R any](get func(*S) *R, columns []named[R]) []named[S] {
	out := make([]named[S], len(columns))
	for i, c := range columns {
		out[i] = named[S]{c.name, inner[S, R]{get, c.column}}
	}
	return out
}

// rows collects the rows of one batch. It is made once and reused.
type rows interface {
	// add decodes a record and appends its row, unless skip, asked once the record has
	// turned out readable, says no. An error means that the record is unreadable.
	add(record *kgo.Record, skip func() bool) error
	// result says what came together; fill sends it.
	result() summary
	fill(*clickhouse.Batch) error
	reset()
	names() []string
}

// summary is what a batch holds.
type summary struct {
	rows   int
	oldest event.Millis // of the rows' own times
	// since are the rows' times from which the way to the tables is measured, where it
	// is.
	since []event.Millis
}

// rowsOf is rows made of Ts.
type rowsOf[T any] struct {
	decode  func(*kgo.Record, *T) error
	at      func(*T) event.Millis
	since   func(*kgo.Record, *T) (at event.Millis, ok bool) // nil: not measured
	source  []named[kgo.Record]
	columns []named[T]

	value T
	sum   summary
}

func newRows[T any](decode func(*kgo.Record, *T) error, at func(*T) event.Millis, columns ...[]named[T]) *rowsOf[T] {
	r := &rowsOf[T]{decode: decode, at: at, source: sourceColumns()}
	for _, c := range columns {
		r.columns = append(r.columns, c...)
	}
	return r
}

// measured also notes from when on a row is on its way, if it says so.
func (r *rowsOf[T]) measured(since func(*kgo.Record, *T) (event.Millis, bool)) *rowsOf[T] {
	r.since = since
	return r
}

func (r *rowsOf[T]) add(record *kgo.Record, skip func() bool) error {
	if err := r.decode(record, &r.value); err != nil {
		return err
	}
	if skip != nil && skip() {
		return nil
	}
	for i := range r.source {
		r.source[i].add(record)
	}
	for i := range r.columns {
		r.columns[i].add(&r.value)
	}
	if at := r.at(&r.value); r.sum.rows == 0 || at < r.sum.oldest {
		r.sum.oldest = at
	}
	if r.since != nil {
		if at, ok := r.since(record, &r.value); ok {
			r.sum.since = append(r.sum.since, at)
		}
	}
	r.sum.rows++
	return nil
}

func (r *rowsOf[T]) result() summary { return r.sum }

func (r *rowsOf[T]) fill(b *clickhouse.Batch) error {
	for i, c := range r.source {
		if err := b.Column(i, c.values()); err != nil {
			return err
		}
	}
	for i, c := range r.columns {
		if err := b.Column(len(r.source)+i, c.values()); err != nil {
			return err
		}
	}
	return nil
}

func (r *rowsOf[T]) reset() {
	for _, c := range r.source {
		c.reset()
	}
	for _, c := range r.columns {
		c.reset()
	}
	var zero T
	r.value, r.sum = zero, summary{}
}

func (r *rowsOf[T]) names() []string {
	var out []string
	for _, c := range r.source {
		out = append(out, c.name)
	}
	for _, c := range r.columns {
		out = append(out, c.name)
	}
	return out
}

func sourceColumns() []named[kgo.Record] {
	return []named[kgo.Record]{
		of("src_partition", func(r *kgo.Record) uint32 { return uint32(r.Partition) }),
		of("src_offset", func(r *kgo.Record) uint64 { return uint64(r.Offset) }),
		of("arrived_at", func(r *kgo.Record) int64 { return r.Timestamp.UnixMilli() }),
	}
}
