package export

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nimriz/partners/schemas/ledger"
)

// asFirstVersion rewrites a CSV and its manifest as the first release wrote them, and
// returns the manifest's file and both contents.
func (r *rig) asFirstVersion(m *Manifest, content []byte) (file string, text, lines []byte) {
	r.Helper()
	records, err := csv.NewReader(bytes.NewReader(content)).ReadAll()
	if err != nil {
		r.Fatal(err)
	}
	added := slices.Index(records[0], "standing_change")
	for i := range records {
		records[i] = slices.Delete(records[i], added, added+1)
		for j, cell := range records[i] {
			if c := ledger.ColumnsOf(1)[j]; c.IsGuarded() {
				records[i][j] = ledger.EscapeFormula(1, ledger.UnescapeFormula(cell))
			}
		}
	}
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	if err := w.WriteAll(records); err != nil {
		r.Fatal(err)
	}
	first := *m
	sum := sha256.Sum256(out.Bytes())
	first.SHA256 = hex.EncodeToString(sum[:])
	first.SchemaVersion = 1
	first.ToolVersion = "v1.0.0"
	first.StandingSums = nil
	first.Columns = nil
	if text, err = json.MarshalIndent(first, "", "  "); err != nil {
		r.Fatal(err)
	}
	text = append(text, '\n')
	file = filepath.Join(r.TempDir(), fileName(m.Filters, nil, &m.AsOf, m.Provisional, false, false)+".manifest.json")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		r.Fatal(err)
	}
	return file, text, out.Bytes()
}

// A manifest of version 1 writes its CSV and itself again, byte for byte. What continues
// it is a new file, of the newest version.
func TestManifestOfTheFirstVersion(t *testing.T) {
	r := newRig(t)
	r.rows(200, true)
	cfg := config(t.TempDir())
	cfg.Verdict = []string{"attributed"}
	// encoding/csv quotes some cells that the export does not, and writes \r\n as \n
	r.exec("ALTER TABLE outcomes UPDATE order_id = 'plain' WHERE order_id LIKE '\\t%%' OR order_id LIKE '\\r%%' " +
		"OR order_id LIKE ' %%' SETTINGS mutations_sync = 2")
	r.exec("ALTER TABLE outcomes UPDATE order_id = 'x;=1' WHERE order_id = 'a,b' SETTINGS mutations_sync = 2")
	m, _, content := r.run(cfg)
	file, text, lines := r.asFirstVersion(m, content)
	if bytes.Contains(text, []byte("standing")) || bytes.Contains(text, []byte("columns")) ||
		bytes.Contains(lines, []byte("standing")) {
		t.Fatal("this is not of version 1")
	}
	if !bytes.Contains(content, []byte(",x;'=1,")) || !bytes.Contains(lines, []byte(",x;=1,")) {
		t.Error("version 2 does not escape within a text, or version 1 does")
	}
	r.rows(100, true)
	then, err := ReadManifest(file)
	if err != nil {
		t.Fatal(err)
	}
	again := cfg
	again.Dir, again.AsOf = t.TempDir(), then
	if _, err := Run(t.Context(), r.conn, again); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{
		filepath.Base(file): text,
		strings.TrimSuffix(filepath.Base(file), ".manifest.json") + ".csv": lines,
	} {
		got, err := os.ReadFile(filepath.Join(again.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
		}
	}

	delta := cfg
	delta.Dir, delta.Since = t.TempDir(), then
	next, _, rest := r.run(delta)
	if header, rows := r.records(rest); next.SchemaVersion != SchemaVersion || next.StandingSums == nil ||
		!slices.Contains(header, "standing_change") || len(rows) == 0 {
		t.Errorf("the delta has version %d, %d rows, and the header %q", next.SchemaVersion, len(rows), header)
	}

	newer := *then
	newer.SchemaVersion = SchemaVersion + 1
	if err := newer.check(); err == nil || !strings.Contains(err.Error(), "this program writes 1 to 2") {
		t.Errorf("a manifest of a newer version: %v", err)
	}
}

// A byte order mark is part of the bytes, of the name and of the manifest, and -as-of
// writes it again. The manifest's columns are the header's.
func TestByteOrderMark(t *testing.T) {
	r := newRig(t)
	r.rows(40, true)
	plain, _, without := r.run(config(t.TempDir()))
	cfg := config(t.TempDir())
	cfg.BOM = true
	m, file, content := r.run(cfg)
	if !strings.HasSuffix(file, "_bom_provisional.manifest.json") || !m.BOM || plain.BOM ||
		string(content) != ledger.ByteOrderMark+string(without) {
		t.Errorf("%s, manifest %t and %t, bytes %.20q", file, m.BOM, plain.BOM, content)
	}
	again := cfg
	again.Dir, again.AsOf = t.TempDir(), m
	if _, _, repeated := r.run(again); !bytes.Equal(repeated, content) {
		t.Error("-as-of writes other bytes")
	}
	again.BOM = false
	if _, err := Run(t.Context(), r.conn, again); err == nil || !strings.Contains(err.Error(), "-raw=false -bom=true") {
		t.Errorf("repeated without the mark: %v", err)
	}
	cfg.Raw = true
	raw, _, _ := r.run(cfg)
	for i, c := range ledger.Columns() {
		want := Column{c.Name, c.Kind.String(), c.Nullable, c.IsGuarded()}
		if got := m.Columns[i]; got != want || raw.Columns[i].Guarded || raw.Columns[i].Type != got.Type {
			t.Errorf("column %+v, want %+v; raw %+v", got, want, raw.Columns[i])
		}
	}
	if len(m.Columns) != len(ledger.Columns()) {
		t.Errorf("%d columns", len(m.Columns))
	}
}

// Rows whose standing change will be computed later are in no file of version 2: it could
// not be written again.
func TestStandingPending(t *testing.T) {
	r := newRig(t)
	r.rows(40, true)
	r.run(config(t.TempDir()))
	r.exec("ALTER TABLE outcomes UPDATE standing_basis = 'pending' WHERE workspace_id = 'acme' AND " +
		"src_offset = 4 SETTINGS mutations_sync = 2")
	if _, err := Run(t.Context(), r.conn, config(t.TempDir())); !errors.Is(err, ErrStandingPending) ||
		!strings.Contains(err.Error(), "of 2 events") || !retryable(err) {
		t.Errorf("two rows are pending: %v", err)
	}
}
