package export

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// moneyType is a decimal of moneyBytes whose minima and maxima are those of signed
// numbers. A Parquet file declares that order for decimals, and readers skip row groups
// and pages by it; parquet-go compares the bytes without a sign.
type moneyType struct{ parquet.Type }

func newMoneyType() moneyType { return moneyType{parquet.FixedLenByteArrayType(moneyBytes)} }

// Compare implements parquet.Type.
func (moneyType) Compare(a, b parquet.Value) int { return compareMoney(a.ByteArray(), b.ByteArray()) }

// NewColumnBuffer implements parquet.Type.
func (t moneyType) NewColumnBuffer(column, values int) parquet.ColumnBuffer {
	return moneyBuffer{t.Type.NewColumnBuffer(column, values)}
}

// NewColumnIndexer implements parquet.Type.
func (moneyType) NewColumnIndexer(int) parquet.ColumnIndexer { return &moneyIndexer{} }

// compareMoney compares amounts as decimalValue writes them.
func compareMoney(a, b []byte) int {
	return cmp.Or(cmp.Compare(int8(a[0]), int8(b[0])), bytes.Compare(a, b))
}

// moneyBuffer holds the amounts of a page that is being written.
type moneyBuffer struct{ parquet.ColumnBuffer }

// Page implements parquet.ColumnBuffer.
func (b moneyBuffer) Page() parquet.Page { return moneyPage{b.ColumnBuffer.Page()} }

// moneyPage is a page of amounts, without nulls.
type moneyPage struct{ parquet.Page }

// Slice implements parquet.Page.
func (p moneyPage) Slice(from, to int64) parquet.Page { return moneyPage{p.Page.Slice(from, to)} }

// Bounds implements parquet.Page.
func (p moneyPage) Bounds() (low, high parquet.Value, ok bool) {
	values := p.Data()
	content, _ := values.FixedLenByteArray()
	if len(content) == 0 {
		return low, high, false
	}
	amounts := slices.Collect(slices.Chunk(content, moneyBytes))
	return parquet.FixedLenByteArrayValue(slices.MinFunc(amounts, compareMoney)),
		parquet.FixedLenByteArrayValue(slices.MaxFunc(amounts, compareMoney)), true
}

// moneyIndexer collects the bounds of a column's pages. parquet-go's own leaves out
// pages of nulls alone, so that the bounds of the others are taken for theirs.
type moneyIndexer struct{ index format.ColumnIndex }

// Reset implements parquet.ColumnIndexer.
func (i *moneyIndexer) Reset() { i.index = format.ColumnIndex{} }

// IndexPage implements parquet.ColumnIndexer.
func (i *moneyIndexer) IndexPage(values, nulls int64, low, high parquet.Value) {
	i.index.NullPages = append(i.index.NullPages, values == nulls)
	i.index.NullCounts = append(i.index.NullCounts, nulls)
	i.index.MinValues = append(i.index.MinValues, append([]byte{}, low.ByteArray()...))
	i.index.MaxValues = append(i.index.MaxValues, append([]byte{}, high.ByteArray()...))
}

// ColumnIndex implements parquet.ColumnIndexer.
func (i *moneyIndexer) ColumnIndex() format.ColumnIndex {
	index := i.index
	index.BoundaryOrder = format.Unordered
	return index
}
