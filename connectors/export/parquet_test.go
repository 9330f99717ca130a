package export

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse/clienttest"
	"github.com/nimriz/partners/schemas/currency"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/parquet-go/parquet-go"
	"github.com/shopspring/decimal"
)

// runParquet exports and returns the manifest, its file, and the Parquet file.
func (r *rig) runParquet(cfg Config) (m *Manifest, manifest, file string) {
	r.Helper()
	cfg.Format = FormatParquet
	m, err := Run(r.Context(), r.conn, cfg)
	if err != nil {
		r.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(cfg.Dir, "*.parquet.manifest.json"))
	if err != nil || len(found) != 1 {
		r.Fatalf("manifests %v %v", found, err)
	}
	return m, found[0], strings.TrimSuffix(found[0], ".manifest.json")
}

// cellsOf reads a Parquet file back into the cells of a raw CSV.
func (r *rig) cellsOf(file string) (header []string, rows [][]string) {
	r.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		r.Fatal(err)
	}
	read, err := parquet.OpenFile(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		r.Fatal(err)
	}
	for _, field := range read.Schema().Fields() {
		header = append(header, field.Name())
	}
	columns := ledger.Columns()
	reader := parquet.NewReader(bytes.NewReader(content))
	defer reader.Close()
	buffer := make([]parquet.Row, 100)
	for {
		n, err := reader.ReadRows(buffer)
		for _, row := range buffer[:n] {
			cells := make([]string, len(columns))
			for _, v := range row {
				if v.IsNull() {
					continue
				}
				c := v.Column()
				if columns[c].Kind == ledger.List && cells[c] != "" {
					cells[c] += "|"
				}
				cells[c] += cellText(columns[c].Kind, v)
			}
			rows = append(rows, cells)
		}
		if err != nil {
			return header, rows
		}
	}
}

func TestParquetIsTheCSV(t *testing.T) {
	r := newRig(t)
	r.rows(10_300, true) // more than a row group
	raw := config(t.TempDir())
	raw.Raw = true
	csvManifest, _, content := r.run(raw)
	records, err := csv.NewReader(bytes.NewReader(content)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t.TempDir())
	m, manifest, file := r.runParquet(cfg)
	header, rows := r.cellsOf(file)
	if !slices.Equal(header, records[0]) {
		t.Fatalf("columns\n%v\nwant\n%v", header, records[0])
	}
	if len(rows) != len(records)-1 || m.Rows != int64(len(rows)) || m.Rows != csvManifest.Rows {
		t.Fatalf("%d rows, the CSV has %d, the manifests say %d and %d", len(rows), len(records)-1, m.Rows,
			csvManifest.Rows)
	}
	for i, cells := range rows {
		for j, got := range cells {
			want := records[i+1][j]
			if ledger.Columns()[j].Kind == ledger.Decimal {
				want = withScale(t, want)
			}
			if got != want {
				t.Fatalf("row %d, %s: %q, the CSV has %q", i, header[j], got, want)
			}
		}
	}
	if a, b := mustJSON(t, m.Sums, m.StandingSums), mustJSON(t, csvManifest.Sums, csvManifest.StandingSums); a != b {
		t.Errorf("sums %s, the CSV's are %s", a, b)
	}
	if m.Format != FormatParquet || m.SHA256 != sha256Of(t, file) || !m.Raw {
		t.Errorf("manifest %+v, the file's hash is %s", m, sha256Of(t, file))
	}

	// The same bytes again, whatever has come since.
	r.rows(100, true)
	then, err := ReadManifest(manifest)
	if err != nil {
		t.Fatal(err)
	}
	again := config(t.TempDir())
	again.AsOf = then
	_, manifestAgain, fileAgain := r.runParquet(again)
	if sha256Of(t, fileAgain) != m.SHA256 || sha256Of(t, manifestAgain) != sha256Of(t, manifest) {
		t.Error("repeated, it has other bytes")
	}
	since := config(t.TempDir())
	since.Since = then
	if delta, _, _ := r.runParquet(since); delta.Rows != 160 {
		t.Errorf("the delta has %d rows, want 160", delta.Rows)
	}
	again.Format, again.Dir = FormatCSV, t.TempDir()
	if _, err := Run(t.Context(), r.conn, again); !errors.Is(err, ErrManifest) ||
		!strings.Contains(err.Error(), "with -format parquet") {
		t.Errorf("a CSV as of a Parquet's manifest: %v", err)
	}
	month := Config{Filters: Filters{Workspace: "acme", Statement: "2026-03"}, Dir: t.TempDir(), Format: FormatParquet}
	if err := month.Validate(); err == nil || !strings.HasPrefix(err.Error(), "-format: a statement") {
		t.Errorf("a statement: %v", err)
	}
	marked := Config{Filters: Filters{Workspace: "acme"}, Dir: t.TempDir(), Format: FormatParquet, BOM: true}
	if err := marked.Validate(); err == nil || !strings.HasPrefix(err.Error(), "-bom: a Parquet file") {
		t.Errorf("a byte order mark: %v", err)
	}
	day := *m
	day.Filters.To = day.Filters.From
	daily := Config{Filters: day.Filters, Format: FormatParquet, Provisional: true} // as a schedule has it
	daily.From, daily.To, daily.Timezone = "", "", ""
	if !inSeries(&day, daily) {
		t.Error("a schedule does not know its own file")
	}
	if daily.Format = FormatCSV; inSeries(&day, daily) {
		t.Error("a schedule of CSVs takes a Parquet file for its own")
	}
	odd := config(t.TempDir())
	odd.Format = "orc"
	if err := odd.Validate(); err == nil || !strings.HasPrefix(err.Error(), `-format: "orc" is neither`) {
		t.Errorf("another format: %v", err)
	}
}

func cellText(kind ledger.Kind, v parquet.Value) string {
	switch kind {
	case ledger.Time:
		return ledger.FormatTime(time.UnixMilli(v.Int64()))
	case ledger.Decimal:
		return ledger.FormatDecimal(decimal.NewFromBigInt(unscaled(v), -moneyScale))
	}
	return v.String()
}

// unscaled is a decimal without its point.
func unscaled(v parquet.Value) *big.Int {
	n := new(big.Int).SetBytes(v.ByteArray())
	if n.Bit(8*moneyBytes-1) == 1 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), 8*moneyBytes))
	}
	return n
}

func sha256Of(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

func mustJSON(t *testing.T, values ...any) string {
	t.Helper()
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// withScale writes a number with the digits of an amount in a Parquet file.
func withScale(t *testing.T, text string) string {
	t.Helper()
	if text == "" {
		return ""
	}
	number, err := decimal.NewFromString(text)
	if err != nil {
		t.Fatal(err)
	}
	return number.StringFixed(moneyScale)
}

// A file that was written once can be written again by a later release: another encoder
// would break that, so its bytes are held here.
func TestParquetBytes(t *testing.T) {
	r := newRig(t)
	r.rows(100, true)
	m, _, _ := r.runParquet(config(t.TempDir()))
	if want := "a36dabd672ddcf5a8c6d5a8835f262227fa8809d88986313522764bd9380e565"; m.SHA256 != want {
		t.Errorf("sha256 %s, want %s", m.SHA256, want)
	}
}

// A column holds the amounts of all currencies.
func TestMoneyScale(t *testing.T) {
	for _, code := range []string{"CLF", "UYW", "BHD", "EUR", "JPY"} {
		if c, ok := currency.Lookup(code); !ok || c.Digits > moneyScale {
			t.Errorf("%s: %v", code, c)
		}
	}
	for _, c := range []struct {
		minor  int64
		digits uint8
		want   string
	}{
		{0, 2, "0"}, {-1, 2, "-100"}, {-1, 4, "-1"}, {1050, 5, "105"}, {0, 9, "0"},
		{math.MaxInt64, 1, "9223372036854775807000"},
		{math.MinInt64, 0, "-92233720368547758080000"},
	} {
		v, err := decimalValue(c.minor, c.digits)
		if got := unscaled(v).String(); err != nil || got != c.want {
			t.Errorf("%d, %d digits, is %s %v, want %s", c.minor, c.digits, got, err, c.want)
		}
	}
	if _, err := decimalValue(1, 5); err == nil {
		t.Error("a fifth digit gets lost")
	}
}

// Readers of other people find the manifest's sums in the file, by its own types.
func TestParquetReaders(t *testing.T) {
	r := newRig(t)
	r.rows(1000, true)
	m, _, file := r.runParquet(config(t.TempDir()))
	out := clienttest.RunPython(t, readersScript, file)
	var got map[string]map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, reader := range []string{"duckdb", "polars", "pandas"} {
		rows, first := got[reader]["rows"], got[reader]["first"]
		const money = "amount,net_amount,standing_change,estimated_reward"
		types := got[reader]["types"]
		if rows != float64(m.Rows) || first != "2026-03-14 20:06:39+00:00" || types != money {
			t.Errorf("%s: %v rows of %d, the first of %v, decimals are %v", reader, rows, m.Rows, first, types)
		}
		for _, code := range []string{"EUR", "JPY", "KWD"} {
			if sum, want := got[reader][code], withScale(t, m.Sums[code]["sale"]); sum != want {
				t.Errorf("%s: sales of %v %s, the manifest says %s", reader, sum, code, want)
			}
		}
	}
}

const readersScript = `
import json, sys
import duckdb, pandas, polars
from decimal import Decimal
name, out = sys.argv[1], {}
CODES = ("EUR", "JPY", "KWD")

d = duckdb.connect()
d.execute("SET TimeZone = 'UTC'")
money = [c for c, t in d.execute(f"SELECT column_name, column_type FROM (DESCRIBE FROM '{name}')").fetchall() if t == "DECIMAL(38,4)"]
out["duckdb"] = {"rows": d.execute(f"SELECT count(*) FROM '{name}'").fetchone()[0], "types": ",".join(money),
    "first": d.execute(f"SELECT min(occurred_at)::VARCHAR FROM '{name}'").fetchone()[0].replace("+00", "+00:00")}
for code in CODES:
    out["duckdb"][code] = str(d.execute(f"SELECT sum(net_amount) FROM '{name}' WHERE currency = ? AND type = 'sale'", [code]).fetchone()[0])

p = polars.read_parquet(name)
out["polars"] = {"rows": p.height, "first": str(p["occurred_at"].min()),
    "types": ",".join(c for c, t in p.schema.items() if t == polars.Decimal(38, 4))}
for code in CODES:
    of = p.filter((polars.col("currency") == code) & (polars.col("type") == "sale"))
    out["polars"][code] = str(of["net_amount"].sum())

f = pandas.read_parquet(name)
out["pandas"] = {"rows": len(f), "first": str(f["occurred_at"].min()),
    "types": ",".join(c for c in f if any(isinstance(v, Decimal) for v in f[c]))}
for code in CODES:
    out["pandas"][code] = str(sum(f[(f.currency == code) & (f.type == "sale")].net_amount.dropna(), Decimal(0)))
print(json.dumps(out))
`

// What a Parquet file holds in memory does not grow with its rows, but for the footer,
// which names each column of each row group.
func TestParquetHeap(t *testing.T) {
	const room = 64 << 20 // three row groups that are kept take 240 MB; buffers grow a little more
	f, b := newParquetFile(io.Discard, SchemaVersion), newTestBlock()
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	groups := func(from, to int64) {
		for n := from*rowGroupRows + 1; n <= to*rowGroupRows; n++ {
			for i := range b.cells {
				b.cells[i].text, b.cells[i].number = strconv.FormatInt(n, 10), n
			}
			writeCells(t, f, b)
		}
	}
	groups(0, 3)
	before := heap()
	groups(3, 6)
	if grown := heap() - before; grown > room {
		t.Errorf("three row groups more, and %d kB more in memory, from %d kB", grown>>10, before>>10)
	} else {
		t.Logf("three row groups more, and %d kB more in memory, from %d kB", grown>>10, before>>10)
	}
	runtime.KeepAlive(f)
}
