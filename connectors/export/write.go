package export

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
)

// progressRows is how many rows are written between two calls of Config.Progress.
const progressRows = 1 << 14

// written is what is known of a file once it is written.
type written struct {
	sha256   string                       // of its bytes, in hex
	rows     int64                        // of it, header not counted
	sums     map[string]map[string]string // of net_amount, by currency, then type
	standing map[string]map[string]string // of standing_change, in the same way
	totals   map[string]map[string]string // of a statement's accounts, by currency, then column
}

// rowsQuery is the query for the rows of an export, in order, each as rowSQL has it.
//
// Rows are made before they are sorted, by all threads; after it, one thread would make
// them all, of columns that were sorted one by one. They come in blocks of 8192 rows,
// some 5 MB, because the client holds a few blocks. With the usual 65,536 rows an
// exporter's memory depended on the garbage collector, and reached 416 MB.
func rowsQuery(selected selection, version int) string {
	return `
WITH ` + selected.with + `
SELECT
	` + rowSQL(version) + ` AS row
FROM (SELECT *, reward_exponent FROM outcomes WHERE ` + selected.where + `) AS o
LEFT JOIN partners AS n ON n.id = o.partner_id
ORDER BY o.occurred_at, o.event_id, o.event_partition, o.event_offset
SETTINGS
	join_use_nulls = 0,
	max_bytes_before_external_sort = 2000000000,
	query_plan_execute_functions_after_sorting = 0,
	max_block_size = 8192`
}

// writeFile writes the file of a plan. The sums and the hash are of what it wrote.
func (e *exporter) writeFile(ctx context.Context, p plan, s summary, to io.Writer) (written, error) {
	if p.format == FormatParquet {
		return e.writeParquet(ctx, p, s, to)
	}
	if p.filters.Statement != "" {
		return e.writeAccounts(ctx, p, to)
	}
	return e.writeEvents(ctx, p, s, to)
}

// writeEvents writes the CSV of events.
func (e *exporter) writeEvents(ctx context.Context, p plan, s summary, to io.Writer) (w written, err error) {
	hash := sha256.New()
	file := newCSVFile(io.MultiWriter(to, hash), p.version, p.raw)
	if err := file.writeText(p.header() + "\n"); err != nil {
		return w, err
	}
	if w, err = e.writeRows(ctx, p, s, file); err != nil {
		return w, err
	}
	w.sha256 = hex.EncodeToString(hash.Sum(nil))
	return w, checkSameBytes(p.repeats, w)
}

// csvFile is a CSV of events that is being written.
type csvFile struct {
	to      io.Writer
	columns []csvColumn
}

// csvColumn is how the cells of a column are written.
type csvColumn struct {
	kind   ledger.Kind
	escape int // the version by which formulas are escaped; 0: they are not
}

func newCSVFile(to io.Writer, version int, raw bool) *csvFile {
	f := &csvFile{to: to}
	for _, c := range ledger.ColumnsOf(version) {
		column := csvColumn{kind: c.Kind}
		if c.IsGuarded() && !raw {
			column.escape = version
		}
		f.columns = append(f.columns, column)
	}
	return f
}

// encode implements encoder.
func (f *csvFile) encode(b *block) error {
	for i := range f.columns {
		if i > 0 {
			b.lines = append(b.lines, ',')
		}
		b.lines = f.columns[i].appendCell(b.lines, &b.cells[i])
	}
	b.lines = append(b.lines, '\n')
	return nil
}

func (of csvColumn) appendCell(line []byte, c *cell) []byte {
	if c.null {
		return line
	}
	switch of.kind {
	case ledger.Time:
		return ledger.AppendTime(line, c.number)
	case ledger.Integer:
		return strconv.AppendInt(line, c.number, 10)
	case ledger.Decimal:
		return ledger.AppendDecimal(line, c.number, c.digits)
	case ledger.Bool:
		return strconv.AppendBool(line, c.number != 0)
	case ledger.List:
		return ledger.AppendList(line, c.list, of.escape)
	}
	return ledger.AppendText(line, c.text, of.escape)
}

// write implements encoder.
func (f *csvFile) write(b *block) error {
	if _, err := f.to.Write(b.lines); err != nil {
		return fmt.Errorf("writing the CSV: %w", err)
	}
	return nil
}

func (f *csvFile) writeText(text string) error { return f.write(&block{lines: []byte(text)}) }

func (e *exporter) reportProgress(rows, of int64) {
	if e.cfg.Progress != nil {
		e.cfg.Progress(rows, of)
	}
}

// checkSameBytes reports a repeated export that has other bytes than the first.
func checkSameBytes(first *Manifest, w written) error {
	if first == nil || first.SHA256 == w.sha256 {
		return nil
	}
	return fmt.Errorf("%w: -as-of: it is of %d rows with sha256 %s, these are %d rows with %s: rows were removed "+
		"since, or restored tables are not filled again, or another version of this program wrote them",
		ErrManifest, first.Rows, first.SHA256, w.rows, w.sha256)
}

// sumKey is what amounts are summed by. Amounts of one currency can have been reported
// with different exponents.
type sumKey struct {
	currency, kind string
	exponent       uint8
}

// sums are in minor units.
type sums map[sumKey]*big.Int

// add adds an amount.
func (s sums) add(key sumKey, minor int64) {
	sum := s[key]
	if sum == nil {
		// Not the texts of a row, which would stay in memory.
		key.currency, key.kind = strings.Clone(key.currency), strings.Clone(key.kind)
		sum = new(big.Int)
		s[key] = sum
	}
	sum.Add(sum, big.NewInt(minor))
}

// addAll adds other sums.
func (s sums) addAll(others sums) {
	for key, other := range others {
		if s[key] == nil {
			s[key] = new(big.Int)
		}
		s[key].Add(s[key], other)
	}
}

// format writes the sums by currency, then type, with the most digits that an amount of
// them had.
func (s sums) format() map[string]map[string]string {
	totals := map[string]map[string]decimal.Decimal{}
	for key, minor := range s {
		if totals[key.currency] == nil {
			totals[key.currency] = map[string]decimal.Decimal{}
		}
		sum := decimal.NewFromBigInt(minor, -int32(key.exponent))
		if before, ok := totals[key.currency][key.kind]; ok {
			sum = sum.Add(before)
		}
		totals[key.currency][key.kind] = sum
	}
	out := map[string]map[string]string{}
	for currency, byKind := range totals {
		out[currency] = map[string]string{}
		for kind, sum := range byKind {
			out[currency][kind] = ledger.FormatDecimal(sum)
		}
	}
	return out
}

// writeFiles writes the file and the manifest of a plan, each at once and whole, and the
// manifest last.
func (e *exporter) writeFiles(ctx context.Context, p plan, s summary) (*Manifest, error) {
	base := filepath.Join(e.cfg.Dir, p.fileName())
	endings := p.endings()
	data, err := e.createFile(base + endings[0])
	if err != nil {
		return nil, err
	}
	defer data.Cleanup()
	w, err := e.writeFile(ctx, p, s, data)
	if err != nil {
		return nil, err
	}
	m := p.manifest(s, w)
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the manifest: %w", err)
	}
	manifest, err := e.createFile(base + endings[1])
	if err != nil {
		return nil, err
	}
	defer manifest.Cleanup()
	if _, err := manifest.Write(append(text, '\n')); err != nil {
		return nil, fmt.Errorf("-out: %w", err)
	}
	if err := e.keepReplacedManifest(base+endings[1], m); err != nil {
		return nil, fmt.Errorf("-out: %w", err)
	}
	if err := replaceFiles(e.cfg.Dir, base, p.provisional, endings, data, manifest); err != nil {
		return nil, fmt.Errorf("-out: %w", err)
	}
	e.cfg.Log.Info("exported", "file", base+endings[0], "rows", m.Rows, "sha256", m.SHA256,
		"provisional", m.Provisional, "currencies", slices.Sorted(maps.Keys(m.Sums)))
	return m, nil
}

func (e *exporter) createFile(name string) (*renameio.PendingFile, error) {
	f, err := renameio.NewPendingFile(name, renameio.WithTempDir(e.cfg.Dir), renameio.WithPermissions(0o644))
	if err != nil {
		return nil, fmt.Errorf("-out: %w", err)
	}
	return f, nil
}

// keepReplacedManifest puts the manifest of a final file that is about to be replaced by
// one of other bytes beside it, under its hash: somebody may have got that file, and
// -as-of writes it again. A schedule does not take it for a file of its series.
func (e *exporter) keepReplacedManifest(file string, now *Manifest) error {
	was, err := ReadManifest(file)
	if err != nil || was.Provisional || was.SHA256 == now.SHA256 {
		return nil // there is none, or nothing is lost
	}
	kept := fmt.Sprintf("%s.%.12s", file, was.SHA256)
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(kept, text, 0o644, renameio.WithTempDir(e.cfg.Dir)); err != nil {
		return err
	}
	e.cfg.Log.Warn("replacing a final file by one of other bytes: -as-of its manifest writes it again",
		"manifest", kept, "rows before", was.Rows, "rows", now.Rows)
	return nil
}

// replaceFiles puts the finished files in place. The order is what a reader relies on:
// a manifest is never beside a CSV that it does not describe, and a final day is
// complete only when its provisional file is gone, so that no row is counted twice.
func replaceFiles(dir, base string, provisional bool, endings [2]string, data, manifest *renameio.PendingFile) error {
	if err := removeIfExists(base + endings[1]); err != nil { // of an earlier run
		return err
	}
	if err := data.CloseAtomicallyReplace(); err != nil {
		return err
	}
	if !provisional {
		for _, ending := range endings {
			if err := removeIfExists(base + "_provisional" + ending); err != nil {
				return fmt.Errorf("removing the provisional file: %w", err)
			}
		}
	}
	if err := manifest.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return syncDirectory(dir)
}

func removeIfExists(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// syncDirectory makes renames within a directory durable.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
