package export

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse/clienttest"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// newTestBlock is a block of which every cell is null or empty.
func newTestBlock() *block {
	b := &block{}
	for _, c := range ledger.Columns() {
		b.cells = append(b.cells, cell{null: c.Nullable})
	}
	return b
}

// writeCells writes the cells of a block as one row.
func writeCells(t *testing.T, f *parquetFile, b *block) {
	t.Helper()
	b.values, b.ends = b.values[:0], b.ends[:0]
	if err := errors.Join(f.encode(b), f.write(b)); err != nil {
		t.Fatal(err)
	}
}

// writeMoney writes row groups of rows that have nothing but a net amount, in cents, or
// nil for none. It returns the file and the amount's column.
func writeMoney(t *testing.T, groups [][]*int64) (content []byte, column int) {
	t.Helper()
	var out bytes.Buffer
	f := newParquetFile(&out, SchemaVersion)
	b := newTestBlock()
	column = slices.IndexFunc(ledger.Columns(), func(c ledger.Column) bool { return c.Name == "net_amount" })
	for _, cents := range groups {
		for _, amount := range cents {
			b.cells[column] = cell{null: true}
			if amount != nil {
				b.cells[column] = cell{number: *amount, digits: 2}
			}
			writeCells(t, f, b)
		}
		f.rows = 0
		if len(cents)%rowGroupRows != 0 {
			if err := f.out.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.out.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), column
}

// moneyGroups are row groups of amounts of both signs, of one, of none, and in two pages.
func moneyGroups() [][]*int64 {
	long := make([]*int64, rowGroupRows)
	for i := range long {
		long[i] = new(int64(i-14_000) * 7) // the sign changes in the second page
	}
	return [][]*int64{
		{nil, nil},
		{new(int64(-1)), nil, new(int64(0)), new(int64(25_050)), new(int64(1))},
		{new(int64(-500)), new(int64(-25_050))},
		{new(int64(20_000)), new(int64(10_000))},
		long,
	}
}

// Readers skip row groups and pages by their bounds, which are of signed numbers.
func TestMoneyBounds(t *testing.T) {
	content, column := writeMoney(t, moneyGroups())
	file, err := parquet.OpenFile(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	inCents := func(bytes []byte) int64 { return unscaled(parquet.FixedLenByteArrayValue(bytes)).Int64() / 100 }
	for g, group := range moneyGroups() {
		chunk := file.Metadata().RowGroups[g].Columns[column].MetaData
		index := file.ColumnIndexes()[g*len(ledger.Columns())+column]
		pages := file.OffsetIndexes()[g*len(ledger.Columns())+column].PageLocations
		if len(index.MinValues) != len(pages) || len(index.MaxValues) != len(pages) ||
			index.BoundaryOrder != format.Unordered {
			t.Fatalf("row group %d: %d pages, bounds of %d and %d, %v", g, len(pages), len(index.MinValues),
				len(index.MaxValues), index.BoundaryOrder)
		}
		if want := 1 + len(group)/rowGroupRows; len(pages) != want {
			t.Errorf("row group %d has %d pages, want %d", g, len(pages), want)
		}
		for p, page := range pages {
			rows := group[page.FirstRowIndex:]
			if p+1 < len(pages) {
				rows = group[page.FirstRowIndex:pages[p+1].FirstRowIndex]
			}
			low, high, ok := boundsOf(rows)
			if index.NullPages[p] == ok {
				t.Errorf("row group %d, page %d: of nulls alone: %v", g, p, index.NullPages[p])
			}
			if got, end := inCents(index.MinValues[p]), inCents(index.MaxValues[p]); got != low || end != high {
				t.Errorf("row group %d, page %d: %d to %d, want %d to %d", g, p, got, end, low, high)
			}
		}
		low, high, _ := boundsOf(group)
		stats := chunk.Statistics
		if got, end := inCents(stats.MinValue), inCents(stats.MaxValue); got != low || end != high {
			t.Errorf("row group %d: %d to %d, want %d to %d", g, got, end, low, high)
		}
	}
}

// boundsOf returns the least and the largest amount that there is.
func boundsOf(amounts []*int64) (low, high int64, ok bool) {
	for _, amount := range amounts {
		switch {
		case amount == nil:
		case !ok:
			low, high, ok = *amount, *amount, true
		default:
			low, high = min(low, *amount), max(high, *amount)
		}
	}
	return low, high, ok
}

// Readers of other people find every row by its amount.
func TestMoneyFilters(t *testing.T) {
	content, _ := writeMoney(t, moneyGroups())
	name := filepath.Join(t.TempDir(), "money.parquet")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	var got map[string]map[string]int
	out := clienttest.RunPython(t, filtersScript, name)
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for filter, keep := range map[string]func(cents int64) bool{
		"> 100":     func(cents int64) bool { return cents > 10_000 },
		"< 0":       func(cents int64) bool { return cents < 0 },
		"== -250.5": func(cents int64) bool { return cents == -25_050 },
		"== 0":      func(cents int64) bool { return cents == 0 },
	} {
		want := 0
		for _, amount := range slices.Concat(moneyGroups()...) {
			if amount != nil && keep(*amount) {
				want++
			}
		}
		for _, reader := range []string{"duckdb", "polars", "pandas"} {
			if rows := got[reader][filter]; rows != want {
				t.Errorf("%s finds %d rows with net_amount %s, want %d", reader, rows, filter, want)
			}
		}
	}
}

const filtersScript = `
import json, operator, sys
import duckdb, pandas, polars
from decimal import Decimal
name, out = sys.argv[1], {"duckdb": {}, "polars": {}, "pandas": {}}
for text in ("> 100", "< 0", "== -250.5", "== 0"):
    sign, number = text.split()
    compare = {">": operator.gt, "<": operator.lt, "==": operator.eq}[sign]
    out["duckdb"][text] = duckdb.connect().execute(f"SELECT count(*) FROM '{name}' WHERE net_amount {text}").fetchone()[0]
    out["polars"][text] = polars.scan_parquet(name).filter(compare(polars.col("net_amount"), Decimal(number))).collect().height
    out["pandas"][text] = len(pandas.read_parquet(name, filters=[("net_amount", sign, Decimal(number))]))
print(json.dumps(out))
`
