package export

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// SchemaVersion is the version of the CSV's columns and of the manifest.
const SchemaVersion = 1

// Filters is what is exported. The texts are ids; empty selects everything.
type Filters struct {
	Workspace string   `json:"workspace"`
	From      string   `json:"from"` // days of the workspace's timezone, inclusive
	To        string   `json:"to"`
	Timezone  string   `json:"timezone"`
	Partner   string   `json:"partner,omitempty"`
	Program   string   `json:"program,omitempty"`
	Link      string   `json:"link,omitempty"`
	Type      []string `json:"type,omitempty"`
	Verdict   []string `json:"verdict"`
	Review    []string `json:"review,omitempty"`
}

// AsOf bounds an export: rows at or behind these offsets had not arrived.
type AsOf struct {
	Outcomes    map[uint32]uint64 `json:"outcomes"`
	Conversions map[uint32]uint64 `json:"conversions"`
	Catalog     uint64            `json:"catalog"`
	At          time.Time         `json:"at"`
}

// Conservation says what became of the workspace's events.
type Conservation struct {
	Received     uint64 `ch:"received" json:"received"`
	Attributed   uint64 `ch:"attributed" json:"attributed"`
	Reversed     uint64 `ch:"reversed" json:"reversed"`
	Duplicate    uint64 `ch:"duplicate" json:"duplicate"`
	Conflict     uint64 `ch:"conflict" json:"conflict"`
	Unattributed uint64 `ch:"unattributed" json:"unattributed"`
	Waiting      uint64 `ch:"waiting" json:"waiting"`
	Difference   int64  `ch:"difference" json:"difference"`
}

// Manifest is NAME.manifest.json.
type Manifest struct {
	SHA256         string                       `json:"sha256"`
	Rows           int64                        `json:"rows"`
	Sums           map[string]map[string]string `json:"sums"`
	Conservation   Conservation                 `json:"conservation"`
	ReusedEventIDs []string                     `json:"reused_event_ids"`
	ReusedTotal    uint64                       `json:"reused_event_ids_total"`
	Filters        Filters                      `json:"filters"`
	AsOf           AsOf                         `json:"as_of"`
	Since          *AsOf                        `json:"since,omitempty"`
	SchemaVersion  int                          `json:"schema_version"`
	RulesVersion   uint16                       `json:"rules_version"`
	RulesVersions  []uint16                     `json:"rules_versions"`
	ToolVersion    string                       `json:"tool_version"`
	Provisional    bool                         `json:"provisional"`
	Raw            bool                         `json:"raw"`
}

// ErrManifest is a file that is no manifest, or not one of this command.
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
	for _, ends := range []map[uint32]uint64{m.AsOf.Outcomes, m.AsOf.Conversions} {
		for p := range ends {
			if p >= maxPartitions {
				return nil, fmt.Errorf("%w: %s: as_of names partition %d", ErrManifest, file, p)
			}
		}
	}
	switch {
	case m.SHA256 == "" || m.AsOf.Outcomes == nil || m.Filters.Workspace == "":
		return nil, fmt.Errorf("%w: %s is not a manifest of an export: sha256, as_of.outcomes or "+
			"filters.workspace is missing", ErrManifest, file)
	case m.SchemaVersion != SchemaVersion:
		return nil, fmt.Errorf("%w: %s has schema_version %d, this program writes %d",
			ErrManifest, file, m.SchemaVersion, SchemaVersion)
	}
	return m, nil
}

// differs names the first filter in which two exports differ, by flag.
func differs(a, b Filters) string {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		if !reflect.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			name, _, _ := strings.Cut(x.Type().Field(i).Tag.Get("json"), ",")
			return "-" + name
		}
	}
	return ""
}

var unsafeInName = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// DefaultVerdicts is what is exported if nothing else is asked for.
func DefaultVerdicts() []string { return []string{"attributed", "reversed"} }

// name is the files' name without ending. It names the workspace and the days, other
// filters by a hash; of a delta also what it continues and where it ends.
func name(f Filters, since, asOf *AsOf, provisional, raw bool) string {
	n := unsafeInName.ReplaceAllString(f.Workspace, "-") + "_" + f.From + "_" + f.To
	if f.Partner+f.Program+f.Link != "" || len(f.Type)+len(f.Review) > 0 ||
		!slices.Equal(f.Verdict, DefaultVerdicts()) {
		b, _ := json.Marshal(f) // texts only
		sum := sha256.Sum256(b)
		n += "_" + hex.EncodeToString(sum[:4])
	}
	if since != nil { // to the millisecond: deltas of one base have names of their own
		n += "_since-" + stamp(since.At) + "-to-" + stamp(asOf.At)
	}
	if raw {
		n += "_raw"
	}
	if provisional {
		n += "_provisional"
	}
	return n
}

func stamp(t time.Time) string {
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
	zone   string    // that its newest day was cut in, empty if there is none
	newest time.Time // when the last of them was written
}

// exported reads the series that a schedule's next file continues: the manifests of one
// day with the same filters. A provisional one counts where those are what is asked
// for.
func exported(cfg Config) (s series, err error) {
	files, err := fs.Glob(os.DirFS(cfg.Dir), "*.manifest.json")
	if err != nil {
		return s, err
	}
	s.days = map[string]bool{}
	last := ""
	for _, file := range files {
		m, err := ReadManifest(cfg.Dir + "/" + file)
		if err != nil {
			continue // somebody else's, or an older one's: it says nothing about this series
		}
		day := m.Filters
		day.From, day.To, day.Timezone = cfg.From, cfg.To, cfg.Timezone
		if differs(day, cfg.Filters) != "" || m.Filters.From != m.Filters.To || m.Provisional && !cfg.Provisional ||
			m.Raw != cfg.Raw || m.Since != nil {
			continue
		}
		s.days[m.Filters.From] = true
		if m.Filters.From > last {
			last, s.zone = m.Filters.From, m.Filters.Timezone
		}
		if m.AsOf.At.After(s.newest) {
			s.newest = m.AsOf.At
		}
	}
	return s, nil
}
