package export

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/schemas/ledger"
)

// SchemaVersion is the newest version of the CSV's columns and of the manifest. Version
// 1 has neither standing_change nor StandingSums and Columns.
const SchemaVersion = ledger.Version

// Filters is what is exported. An empty filter selects everything.
type Filters struct {
	Workspace string   `json:"workspace"`         // id
	From      string   `json:"from"`              // first day, inclusive, in Timezone
	To        string   `json:"to"`                // last day, inclusive, in Timezone
	Timezone  string   `json:"timezone"`          // IANA name; empty in a Config: the workspace's
	Partner   string   `json:"partner,omitempty"` // id
	Program   string   `json:"program,omitempty"` // id
	Link      string   `json:"link,omitempty"`    // id
	Type      []string `json:"type,omitempty"`    // event types, any of them
	Verdict   []string `json:"verdict"`           // verdicts, any of them
	Review    []string `json:"review,omitempty"`  // review states, any of them
	// Statement is a month such as 2026-11: its statement of account, and not its events.
	// From and To are its days, by received_at.
	Statement string `json:"statement,omitempty"`
}

// AsOf bounds an export: rows at or above these offsets had not arrived.
type AsOf struct {
	Outcomes    map[uint32]uint64 `json:"outcomes"`    // next offset by partition
	Conversions map[uint32]uint64 `json:"conversions"` // next offset by partition
	// Progress is the next offset by partition, for the conservation. A manifest that
	// lacks it counts every event without a row as waiting.
	Progress map[uint32]uint64 `json:"progress,omitempty"`
	Catalog  uint64            `json:"catalog"` // next offset
	At       time.Time         `json:"at"`      // when the offsets were read
}

// Manifest is NAME.manifest.json of NAME.csv, NAME.parquet.manifest.json of NAME.parquet.
type Manifest struct {
	SHA256 string `json:"sha256"` // of the file, in hex
	Rows   int64  `json:"rows"`   // of the file, a CSV's header not counted
	// of net_amount, by currency, then type; nil in a statement
	Sums map[string]map[string]string `json:"sums,omitzero"`
	// of standing_change, by currency, then type; nil in version 1
	StandingSums map[string]map[string]string `json:"standing_sums,omitzero"`
	// of a statement: of its accounts, by currency, then column; else nil
	Totals         map[string]map[string]string `json:"totals,omitzero"`
	Conservation   ledger.Conservation          `json:"conservation"` // of the whole workspace within AsOf
	ReusedEventIDs []string                     `json:"reused_event_ids"`
	// ReusedEventIDs has the first 1000
	ReusedTotal uint64 `json:"reused_event_ids_total"`
	// of the command, with the timezone
	Filters Filters `json:"filters"`
	AsOf    AsOf    `json:"as_of"` // how far the tables went
	// of the export that this one continues
	Since         *AsOf `json:"since,omitempty"`
	SchemaVersion int   `json:"schema_version"`
	// the newest by which a row was judged
	RulesVersion  uint16   `json:"rules_version"`
	RulesVersions []uint16 `json:"rules_versions"` // all of them, ascending
	// of the program that wrote the file first
	ToolVersion string `json:"tool_version"`
	// events that still wait may add rows
	Provisional bool `json:"provisional"`
	Raw         bool `json:"raw"` // no formula is escaped
	// Format is FormatParquet, or empty for a CSV.
	Format string `json:"format,omitzero"`
	BOM    bool   `json:"bom,omitzero"` // the CSV begins with a byte order mark
	// of the file, in order; nil in version 1
	Columns []Column `json:"columns,omitzero"`
}

// Column says how a column of a CSV is to be read. In a Parquet file types are the file's own.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"` // text, list (of texts, joined with |), time, integer, decimal or bool
	// an empty cell is no value; of other columns it is an empty text or list
	Nullable bool `json:"nullable"`
	// formulas are escaped, see ledger.EscapeFormula
	Guarded bool `json:"guarded"`
}

// describeColumns describes the columns of a CSV for the manifest.
func describeColumns(columns []ledger.Column, raw bool) (out []Column) {
	for _, c := range columns {
		out = append(out, Column{c.Name, c.Kind.String(), c.Nullable, c.IsGuarded() && !raw})
	}
	return out
}

// fileFormat is the format of the manifest's file.
func (m *Manifest) fileFormat() string { return cmp.Or(m.Format, FormatCSV) }

// ErrManifest means that a file is no manifest, or not one of this command.
var ErrManifest = errors.New("manifest")

// maxPartitions bounds what a manifest can make us lay out in memory.
const maxPartitions = 1 << 16

// ReadManifest reads the manifest of an earlier export.
func ReadManifest(file string) (*Manifest, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	m := &Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrManifest, file, err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrManifest, file, err)
	}
	return m, nil
}

func (m *Manifest) check() error {
	if m.SHA256 == "" || m.AsOf.Outcomes == nil || m.Filters.Workspace == "" {
		return errors.New("this is not a manifest of an export: sha256, as_of.outcomes or filters.workspace is missing")
	}
	if m.SchemaVersion < 1 || m.SchemaVersion > SchemaVersion {
		return fmt.Errorf("it has schema_version %d, this program writes 1 to %d", m.SchemaVersion, SchemaVersion)
	}
	if f := m.fileFormat(); f != FormatCSV && f != FormatParquet {
		return fmt.Errorf("it is of a file in the format %q, which this program does not know", f)
	}
	for _, ends := range []map[uint32]uint64{m.AsOf.Outcomes, m.AsOf.Conversions, m.AsOf.Progress} {
		for p := range ends {
			if p >= maxPartitions {
				return fmt.Errorf("as_of names partition %d", p)
			}
		}
	}
	return nil
}

var unsafeInName = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// fileName is the name of an export's files without ending. It has the workspace and
// the days or the statement's month, and a hash of the other filters; a delta's also has
// the times of what it continues and of its own as_of.
func fileName(f Filters, since, asOf *AsOf, provisional, raw, bom bool) string {
	n := unsafeInName.ReplaceAllString(f.Workspace, "-") + "_" + f.From + "_" + f.To
	if f.Statement != "" {
		n = unsafeInName.ReplaceAllString(f.Workspace, "-") + "_statement_" + f.Statement
	}
	if f.Partner+f.Program+f.Link != "" || len(f.Type)+len(f.Review) > 0 ||
		!slices.Equal(f.Verdict, DefaultVerdicts()) {
		b, _ := json.Marshal(f) // texts only
		sum := sha256.Sum256(b)
		n += "_" + hex.EncodeToString(sum[:4])
	}
	if since != nil { // to the millisecond: deltas of one manifest have names of their own
		n += "_since-" + nameTime(since.At) + "-to-" + nameTime(asOf.At)
	}
	if raw {
		n += "_raw"
	}
	if bom {
		n += "_bom"
	}
	if provisional {
		n += "_provisional"
	}
	return n
}

// nameTime writes a time without characters that a file name cannot have.
func nameTime(t time.Time) string {
	return strings.Replace(t.UTC().Format("20060102T150405.000Z"), ".", "", 1)
}

// toolVersion is the module's version, or the commit that it was built from.
func toolVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "devel"
}

// series is what a directory has of the daily files of a schedule.
type series struct {
	days   map[string]bool
	zone   string    // of the days of its newest file; empty if there is none
	newest time.Time // when the last file was written
}

// readSeries reads the series that a schedule's next file continues: the manifests of
// one day each with the same filters. Provisional ones belong to a provisional series
// only.
func readSeries(cfg Config) (s series, err error) {
	files, err := fs.Glob(os.DirFS(cfg.Dir), "*.manifest.json")
	if err != nil {
		return s, err
	}
	s.days = map[string]bool{}
	last := ""
	for _, file := range files {
		m, err := ReadManifest(cfg.Dir + "/" + file)
		if err != nil || !inSeries(m, cfg) {
			continue // another program's or another version's file says nothing about this series
		}
		s.days[m.Filters.From] = true
		if m.Filters.From > last {
			last = m.Filters.From
			s.zone = m.Filters.Timezone
		}
		if m.AsOf.At.After(s.newest) {
			s.newest = m.AsOf.At
		}
	}
	return s, nil
}

// inSeries reports whether a manifest is of one day of a schedule.
func inSeries(m *Manifest, cfg Config) bool {
	f := m.Filters
	f.From = cfg.From
	f.To = cfg.To
	f.Timezone = cfg.Timezone
	return differingFilter(f, cfg.Filters) == "" &&
		m.Filters.From == m.Filters.To &&
		(!m.Provisional || cfg.Provisional) &&
		m.Raw == (cfg.Raw || cfg.Format == FormatParquet) &&
		m.fileFormat() == cmp.Or(cfg.Format, FormatCSV) &&
		m.BOM == cfg.BOM &&
		m.Since == nil
}
