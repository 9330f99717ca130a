package export

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/bits"

	"github.com/nimriz/partners/schemas/ledger"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
)

const (
	// moneyDigits and moneyScale are of every amount in a Parquet file, whatever its
	// currency: no currency has more than four digits after the point.
	moneyDigits = 38
	moneyScale  = 4
	moneyBytes  = 16 // of a decimal of so many digits
	// rowGroupRows is how many rows are held in memory until their columns are written:
	// some 100 MB, whatever the number of rows.
	rowGroupRows = 1 << 14
	// dictionaryBytes is how large a column's dictionary becomes before its texts are
	// written as they are.
	dictionaryBytes = 256 << 10
)

// parquetSchema has the columns of a version, in their order.
func parquetSchema(version int) *parquet.Schema {
	columns := orderedGroup{Group: parquet.Group{}}
	for _, c := range ledger.ColumnsOf(version) {
		columns.Group[c.Name] = parquetNode(c)
		columns.order = append(columns.order, c.Name)
	}
	return parquet.NewSchema("events", columns)
}

func parquetNode(c ledger.Column) parquet.Node {
	var node parquet.Node
	switch c.Kind {
	case ledger.List:
		return parquet.List(parquet.Encoded(parquet.String(), &parquet.RLEDictionary))
	case ledger.Time:
		node = parquet.Timestamp(parquet.Millisecond)
	case ledger.Integer:
		node = parquet.Int(64)
	case ledger.Decimal:
		node = parquet.Decimal(moneyScale, moneyDigits, newMoneyType())
	case ledger.Bool:
		node = parquet.Leaf(parquet.BooleanType)
	default:
		node = parquet.Encoded(parquet.String(), &parquet.RLEDictionary)
	}
	if c.Nullable {
		node = parquet.Optional(node)
	}
	return node
}

// orderedGroup is a group whose fields have an order of their own, not that of their
// names.
type orderedGroup struct {
	parquet.Group
	order []string
}

// Fields implements parquet.Node.
func (g orderedGroup) Fields() []parquet.Field {
	byName := map[string]parquet.Field{}
	for _, field := range g.Group.Fields() {
		byName[field.Name()] = field
	}
	var fields []parquet.Field
	for _, name := range g.order {
		fields = append(fields, byName[name])
	}
	return fields
}

// decimalValue is an amount in smallest units, of which so many digits are after the
// point, as two's complement, big endian.
func decimalValue(minor int64, digits uint8) (parquet.Value, error) {
	size := uint64(minor)
	if minor < 0 {
		size = -size
	}
	var high uint64
	for ; digits < moneyScale; digits++ {
		carry, low := bits.Mul64(size, 10)
		high, size = 10*high+carry, low
	}
	for ; digits > moneyScale && size%10 == 0 && size > 0; digits-- {
		size /= 10
	}
	if digits > moneyScale && size > 0 {
		return parquet.Value{}, fmt.Errorf("amount %s has more than %d digits after the point",
			ledger.AppendDecimal(nil, minor, digits), moneyScale)
	}
	if minor < 0 {
		var borrow uint64
		size, borrow = bits.Sub64(0, size, 0)
		high, _ = bits.Sub64(0, high, borrow)
	}
	value := binary.BigEndian.AppendUint64(make([]byte, 0, moneyBytes), high)
	return parquet.FixedLenByteArrayValue(binary.BigEndian.AppendUint64(value, size)), nil
}

// parquetFile is a Parquet file that is being written.
type parquetFile struct {
	out     *parquet.GenericWriter[any]
	columns []ledger.Column
	rows    int64 // written
}

func newParquetFile(to io.Writer, version int) *parquetFile {
	return &parquetFile{columns: ledger.ColumnsOf(version), out: parquet.NewGenericWriter[any](to,
		parquetSchema(version),
		parquet.CreatedBy("nimriz-partners", "1", ""), // not a version: a repeated file has the same bytes
		parquet.Compression(&zstd.Codec{Concurrency: 1}),
		parquet.DictionaryMaxBytes(dictionaryBytes))}
}

// encode implements encoder.
func (f *parquetFile) encode(b *block) error {
	for i := range f.columns {
		if err := b.appendValues(&f.columns[i], i, &b.cells[i]); err != nil {
			return fmt.Errorf("writing the Parquet file: %w", err)
		}
	}
	b.ends = append(b.ends, len(b.values))
	return nil
}

// appendValues appends a cell of the column with an index: of a list its texts, or a null
// if there are none.
func (b *block) appendValues(of *ledger.Column, index int, c *cell) error {
	if of.Kind == ledger.List {
		for i, text := range c.list {
			b.values = append(b.values, parquet.ValueOf(ledger.CleanText(text)).Level(min(i, 1), 1, index))
		}
		if len(c.list) == 0 {
			b.values = append(b.values, parquet.NullValue().Level(0, 0, index))
		}
		return nil
	}
	var value parquet.Value
	var err error
	level := 0
	if of.Nullable {
		level = 1
	}
	switch {
	case c.null:
		value, level = parquet.NullValue(), 0
	case of.Kind == ledger.Bool:
		value = parquet.BooleanValue(c.number != 0)
	case of.Kind == ledger.Integer, of.Kind == ledger.Time:
		value = parquet.Int64Value(c.number)
	case of.Kind == ledger.Decimal:
		value, err = decimalValue(c.number, c.digits)
	default:
		value = parquet.ValueOf(ledger.CleanText(c.text))
	}
	b.values = append(b.values, value.Level(0, level, index))
	return err
}

// write implements encoder. Rows are written one by one: of how many are written at once
// the pages depend.
func (f *parquetFile) write(b *block) error {
	start := 0
	for _, end := range b.ends {
		_, err := f.out.WriteRows([]parquet.Row{parquet.Row(b.values[start:end])})
		f.rows++
		if err == nil && f.rows%rowGroupRows == 0 {
			err = f.out.Flush()
		}
		if err != nil {
			return fmt.Errorf("writing the Parquet file: %w", err)
		}
		start = end
	}
	return nil
}

// writeParquet writes the events of a plan as a Parquet file.
func (e *exporter) writeParquet(ctx context.Context, p plan, s summary, to io.Writer) (w written, err error) {
	hash := sha256.New()
	file := newParquetFile(io.MultiWriter(to, hash), p.version)
	if w, err = e.writeRows(ctx, p, s, file); err != nil {
		return w, err
	}
	if err := file.out.Close(); err != nil {
		return w, fmt.Errorf("writing the Parquet file: %w", err)
	}
	w.sha256 = hex.EncodeToString(hash.Sum(nil))
	return w, checkSameBytes(p.repeats, w)
}
