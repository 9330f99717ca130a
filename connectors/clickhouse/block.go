package clickhouse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	chproto "github.com/ClickHouse/ch-go/proto"
	driver "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
)

// Column holds the rows of one column in ClickHouse's Native format. See columns.go.
type Column interface {
	// Type is ClickHouse's name of the values' type. The server converts values where
	// a table has another.
	Type() string
	// Len returns the number of rows.
	Len() int
	// encode adds the rows, or those of them that e picks.
	encode(e *blockEncoder)
}

// Block is the rows of one insert, column by column, as they are sent: over HTTP nothing
// of them is copied but into the socket. Its memory is reused from one insert to the next.
// It is not safe for concurrent use.
type Block struct {
	names   []string
	columns []Column
	picks   []*[]uint32 // of each column; nil: its own rows
	encoder blockEncoder
}

// Add adds a column.
func (b *Block) Add(name string, c Column) { b.add(name, c, nil) }

// AddPicked adds a column whose i-th row is row picks[i] of c, which is Texts, Numbers or
// MaybeNumbers. Several columns may share picks.
func (b *Block) AddPicked(name string, c Column, picks *[]uint32) { b.add(name, c, picks) }

func (b *Block) add(name string, c Column, picks *[]uint32) {
	b.names = append(b.names, name)
	b.columns = append(b.columns, c)
	b.picks = append(b.picks, picks)
}

// Columns returns the name and type of each column, as "name Type".
func (b *Block) Columns() []string {
	columns := make([]string, len(b.columns))
	for i, c := range b.columns {
		columns[i] = b.names[i] + " " + c.Type()
	}
	return columns
}

// Rows returns the number of rows, by the first column.
func (b *Block) Rows() int {
	if len(b.columns) == 0 {
		return 0
	}
	return b.len(0)
}

// len returns the number of rows of the i-th column.
func (b *Block) len(i int) int {
	if b.picks[i] != nil {
		return len(*b.picks[i])
	}
	return b.columns[i].Len()
}

// AppendNative appends the block in the Native format.
func (b *Block) AppendNative(dst []byte) []byte {
	for _, part := range b.encode() {
		dst = append(dst, part...)
	}
	return dst
}

// encode returns the block in the Native format, in parts. They are valid until the next
// call, and until a column changes.
//
//	number of columns, number of rows    uvarints
//	for each column: name, type, rows    the first two: length uvarint, bytes
func (b *Block) encode() [][]byte {
	e := &b.encoder
	e.reset()
	e.scratch = binary.AppendUvarint(e.scratch, uint64(len(b.columns)))
	e.scratch = binary.AppendUvarint(e.scratch, uint64(b.Rows()))
	for i := range b.columns {
		e.scratch = appendNativeText(e.scratch, b.names[i])
		e.scratch = appendNativeText(e.scratch, b.columns[i].Type())
		b.encodeColumn(i)
	}
	e.cut()
	return e.parts
}

// encodeColumn adds the rows of the i-th column.
func (b *Block) encodeColumn(i int) {
	b.encoder.isPicked = b.picks[i] != nil
	if b.encoder.isPicked {
		b.encoder.picks = *b.picks[i]
	}
	b.columns[i].encode(&b.encoder)
}

// check refuses a block that must not be sent.
func (b *Block) check() error {
	for i := range b.columns {
		if b.len(i) != b.Rows() {
			return fmt.Errorf("column %s has %d rows, column %s has %d", b.names[i], b.len(i), b.names[0], b.Rows())
		}
	}
	if b.Rows() > MaxInsertRows {
		return fmt.Errorf("more than %d rows would not stay one block", MaxInsertRows)
	}
	return nil
}

func appendNativeText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// blockEncoder collects the parts of a block. What no column holds is in scratch.
type blockEncoder struct {
	parts    [][]byte
	scratch  []byte
	cutAt    int // scratch[cutAt:] is no part yet
	isPicked bool
	picks    []uint32 // the rows of the column that is encoded; unless isPicked: all
}

func (e *blockEncoder) reset() {
	clear(e.parts)
	e.parts, e.scratch, e.cutAt = e.parts[:0], e.scratch[:0], 0
}

// cut makes a part of what was appended to scratch. A scratch that grows leaves earlier
// parts where they are.
func (e *blockEncoder) cut() {
	if e.cutAt < len(e.scratch) {
		e.parts = append(e.parts, e.scratch[e.cutAt:len(e.scratch):len(e.scratch)])
	}
	e.cutAt = len(e.scratch)
}

// extend appends n bytes to scratch, which the caller sets.
func (e *blockEncoder) extend(n int) []byte {
	from := len(e.scratch)
	e.scratch = slices.Grow(e.scratch, n)[:from+n]
	return e.scratch[from:]
}

// addPart adds bytes that stay where they are.
func (e *blockEncoder) addPart(p []byte) {
	e.cut()
	if len(p) > 0 {
		e.parts = append(e.parts, p)
	}
}

// InsertBlock is Insert for rows in a Block, whose names are the columns; those of into
// are ignored. It calls sending once, before the rows leave.
func (c *Conn) InsertBlock(ctx context.Context, into Insert, b *Block, sending func() error) error {
	into.Columns = b.names
	err := b.check()
	if err == nil && c.opts.Protocol == driver.HTTP && !c.compressesBlocks() {
		err = c.streamBlock(ctx, into, b, sending)
	} else if err == nil {
		_, err = c.insertBatch(ctx, into, func(batch *Batch) error {
			if err := b.load(batch); err != nil {
				return err
			}
			return sending()
		})
	}
	if err != nil {
		c.forgetColumns(into.Table)
		return fmt.Errorf("inserting %d rows into %s: %w", b.Rows(), into.Table, wrapError(err))
	}
	return nil
}

// compressesBlocks reports whether blocks are compressed, which clickhouse-go does only
// for those that it has encoded itself.
func (c *Conn) compressesBlocks() bool {
	return c.opts.Compression != nil && (c.opts.Compression.Method == driver.CompressionLZ4 ||
		c.opts.Compression.Method == driver.CompressionZSTD)
}

func (c *Conn) streamBlock(ctx context.Context, into Insert, b *Block, sending func() error) error {
	statement, err := into.insertSQL()
	if err != nil {
		return err
	}
	settings, err := c.insertSettings(ctx, into.Token)
	if err != nil {
		return err
	}
	if _, err := c.columnTypes(ctx, into); err != nil { // its errors are plainer than the server's
		return err
	}
	if err := sending(); err != nil || b.Rows() == 0 {
		return err
	}
	body := &partsReader{parts: b.encode()}
	defer body.detach()
	return c.pool.InsertFormat(driver.Context(ctx, driver.WithSettings(settings)), "Native", statement, body)
}

// load copies the block into the columns of a batch.
func (b *Block) load(batch *Batch) error {
	for i, to := range batch.columns {
		b.encoder.reset()
		b.encodeColumn(i)
		b.encoder.cut()
		if err := b.loadColumn(i, to); err != nil {
			return fmt.Errorf("column %s: %w", b.names[i], err)
		}
	}
	return nil
}

// loadColumn copies the i-th column, which is encoded, into one of clickhouse-go's.
func (b *Block) loadColumn(i int, to column.Interface) error {
	if b.len(i) == 0 {
		return nil
	}
	from, differs := to, string(to.Type()) != b.columns[i].Type()
	if differs {
		var err error
		if from, err = column.Type(b.columns[i].Type()).Column(b.names[i], &column.ServerContext{}); err != nil {
			return err
		}
	}
	r := chproto.NewReader(&partsReader{parts: b.encoder.parts})
	if prefixed, ok := from.(column.CustomSerialization); ok {
		if err := prefixed.ReadStatePrefix(r); err != nil {
			return err
		}
	}
	if err := from.Decode(r, b.len(i)); err != nil || !differs {
		return err
	}
	for row := range b.len(i) {
		if err := to.AppendRow(from.Row(row, false)); err != nil {
			return err
		}
	}
	return nil
}

var errDetached = errors.New("the insert has ended")

// partsReader reads parts one after another.
type partsReader struct {
	mu    sync.Mutex // net/http may still read when it has returned
	parts [][]byte
	done  bool
}

// Read implements io.Reader.
func (r *partsReader) Read(p []byte) (n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return 0, errDetached
	}
	for n < len(p) && len(r.parts) > 0 {
		copied := copy(p[n:], r.parts[0])
		n += copied
		if r.parts[0] = r.parts[0][copied:]; len(r.parts[0]) == 0 {
			r.parts = r.parts[1:]
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// detach ends reading: the parts may change from now on.
func (r *partsReader) detach() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = true
}
