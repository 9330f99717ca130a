package export

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"strings"

	"github.com/nimriz/partners/schemas/ledger"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/shopspring/decimal"
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

// cellsQuery is the query for the values of a version's columns, in the rows and the
// order of linesQuery, with what is summed of each.
func cellsQuery(selected selection, version int) string {
	var cells []string
	for _, c := range ledger.ColumnsOf(version) {
		value := columnSQL(c)
		switch c.Kind {
		case ledger.Text:
			value = "toString(" + value + ")"
		case ledger.List:
			value = "CAST(" + value + ", 'Array(String)')"
		case ledger.Time:
			value = "toUnixTimestamp64Milli(" + value + ")"
		case ledger.Integer:
			value = "toInt64(" + value + ")"
		}
		cells = append(cells, value+" AS cell_"+c.Name)
	}
	return rowsQuery(selected, strings.Join(cells, ",\n\t"))
}

// cell is where a value of a column is scanned to, and how it becomes values of Parquet.
type cell struct {
	target any
	// values appends the value; column is the index of its leaf.
	values func(row parquet.Row, column int) (parquet.Row, error)
}

func newCell(c ledger.Column) cell {
	switch {
	case c.Kind == ledger.List:
		v := new([]string)
		return cell{v, func(row parquet.Row, column int) (parquet.Row, error) {
			for i, text := range *v {
				row = append(row, parquet.ValueOf(ledger.CleanText(text)).Level(min(i, 1), 1, column))
			}
			if len(*v) == 0 {
				row = append(row, parquet.NullValue().Level(0, 0, column))
			}
			return row, nil
		}}
	case c.Kind == ledger.Bool:
		return newScalarCell(c, func(v bool) (parquet.Value, error) { return parquet.BooleanValue(v), nil })
	case c.Kind == ledger.Integer, c.Kind == ledger.Time:
		return newScalarCell(c, func(v int64) (parquet.Value, error) { return parquet.Int64Value(v), nil })
	case c.Kind == ledger.Decimal:
		return newScalarCell(c, decimalValue)
	}
	return newScalarCell(c, func(v string) (parquet.Value, error) {
		return parquet.ByteArrayValue([]byte(ledger.CleanText(v))), nil
	})
}

// newScalarCell is the cell of a column with at most one value.
func newScalarCell[T any](c ledger.Column, convert func(T) (parquet.Value, error)) cell {
	if !c.Nullable {
		v := new(T)
		return cell{v, func(row parquet.Row, column int) (parquet.Row, error) {
			value, err := convert(*v)
			return append(row, value.Level(0, 0, column)), err
		}}
	}
	v := new(*T)
	return cell{v, func(row parquet.Row, column int) (parquet.Row, error) {
		if *v == nil {
			return append(row, parquet.NullValue().Level(0, 0, column)), nil
		}
		value, err := convert(**v)
		return append(row, value.Level(0, 1, column)), err
	}}
}

// decimalValue is an amount such as -10.50 as two's complement, big endian.
func decimalValue(text string) (parquet.Value, error) {
	amount, err := decimal.NewFromString(text)
	if err != nil {
		return parquet.Value{}, fmt.Errorf("amount %q: %w", text, err)
	}
	scaled := amount.Shift(moneyScale)
	if !scaled.IsInteger() {
		return parquet.Value{}, fmt.Errorf("amount %q has more than %d digits after the point", text, moneyScale)
	}
	unsigned := scaled.BigInt()
	if unsigned.Sign() < 0 {
		unsigned.Add(unsigned, new(big.Int).Lsh(big.NewInt(1), 8*moneyBytes))
	}
	return parquet.FixedLenByteArrayValue(unsigned.FillBytes(make([]byte, moneyBytes))), nil
}

// parquetFile is a Parquet file that is being written.
type parquetFile struct {
	out     *parquet.GenericWriter[any]
	cells   []cell
	targets []any // of the cells, for a scan
	row     parquet.Row
}

func newParquetFile(to io.Writer, version int) *parquetFile {
	f := &parquetFile{out: parquet.NewGenericWriter[any](to,
		parquetSchema(version),
		parquet.CreatedBy("nimriz-partners", "1", ""), // not a version: a repeated file has the same bytes
		parquet.Compression(&zstd.Codec{Concurrency: 1}),
		parquet.DictionaryMaxBytes(dictionaryBytes))}
	for _, c := range ledger.ColumnsOf(version) {
		f.cells = append(f.cells, newCell(c))
		f.targets = append(f.targets, f.cells[len(f.cells)-1].target)
	}
	return f
}

// writeRow writes what was scanned into the targets as the n-th row.
func (f *parquetFile) writeRow(n int64) (err error) {
	f.row = f.row[:0]
	for column, c := range f.cells {
		if f.row, err = c.values(f.row, column); err != nil {
			return err
		}
	}
	if _, err := f.out.WriteRows([]parquet.Row{f.row}); err != nil || n%rowGroupRows != 0 {
		return err
	}
	return f.out.Flush()
}

// writeParquet writes the events of a plan as a Parquet file.
func (e *exporter) writeParquet(ctx context.Context, p plan, s summary, to io.Writer) (w written, err error) {
	hash := sha256.New()
	file := newParquetFile(io.MultiWriter(to, hash), p.version)
	selected := newSelection(p)
	w, err = e.eachRow(ctx, s, cellsQuery(selected, p.version), selected.args, file.targets, func(n int64) error {
		if err := file.writeRow(n); err != nil {
			return fmt.Errorf("writing the Parquet file: %w", err)
		}
		return nil
	})
	if err != nil {
		return w, err
	}
	if err := file.out.Close(); err != nil {
		return w, fmt.Errorf("writing the Parquet file: %w", err)
	}
	w.sha256 = hex.EncodeToString(hash.Sum(nil))
	return w, checkSameBytes(p.repeats, w)
}

// eachRow reads the rows of an export and sums them up. Each value of a row is scanned
// into its target before each is called with the row's number.
func (e *exporter) eachRow(ctx context.Context, s summary, query string, args, targets []any,
	each func(n int64) error) (w written, err error) {
	rows, err := e.conn.Rows(ctx, query, args...)
	if err != nil {
		return w, fmt.Errorf("reading rows: %w", err)
	}
	defer rows.Close()
	var key sumKey
	var net, change *int64
	targets = append(targets, &key.kind, &key.currency, &key.exponent, &net, &change)
	nets, standing := sums{}, sums{}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return w, fmt.Errorf("reading rows: %w", err)
		}
		w.rows++
		if err := each(w.rows); err != nil {
			return w, err
		}
		nets.add(key, net)
		standing.add(key, change)
		if w.rows%progressRows == 0 {
			e.reportProgress(w.rows, s.rows)
			if ctx.Err() != nil { // the rows that are buffered would still come
				return w, context.Cause(ctx)
			}
		}
	}
	if err := rows.Err(); err != nil {
		return w, fmt.Errorf("reading rows: %w", err)
	}
	if w.rows != s.rows {
		return w, fmt.Errorf("%d rows came, %d were counted below the same offsets: rows were removed meanwhile",
			w.rows, s.rows)
	}
	e.reportProgress(w.rows, s.rows)
	w.sums = nets.format()
	w.standing = standing.format()
	return w, nil
}
