package export

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/schemas/ledger"
	"github.com/nimriz/partners/schemas/statement"
)

// plan is what an export will write. It is complete before the first row is read, and
// does not change.
type plan struct {
	filters     Filters   // with the timezone
	start, end  time.Time // of the days, in UTC; end is behind the last
	asOf        AsOf      // rows at or above these ends are left out
	since       *AsOf     // rows below these ends are left out, too; nil: none
	provisional bool      // events that still wait may add rows
	raw         bool      // no formula is escaped
	format      string    // FormatCSV or FormatParquet
	bom         bool      // the CSV begins with a byte order mark
	version     int       // of the columns and of the manifest
	repeats     *Manifest // whose bytes are written again; nil: none
}

// checkManifests reports a -as-of or -since that is of another command. A repeated
// export needs the filters of the first; so does a delta, or rows between the two would
// be in neither.
func checkManifests(cfg Config) error {
	if then := cfg.AsOf; then != nil {
		if err := checkSameFilters("-as-of", cfg, then); err != nil {
			return err
		}
		if cmp.Or(cfg.Format, FormatCSV) != then.fileFormat() {
			return fmt.Errorf("%w: -as-of: the manifest was written with -format %s: repeat the same command",
				ErrManifest, then.fileFormat())
		}
		if cfg.Raw != then.Raw || cfg.BOM != then.BOM {
			return fmt.Errorf("%w: -as-of: the manifest was written with -raw=%t -bom=%t: repeat the same command",
				ErrManifest, then.Raw, then.BOM)
		}
	}
	if cfg.Since == nil {
		return nil
	}
	if cfg.AsOf == nil {
		return checkSameFilters("-since", cfg, cfg.Since)
	}
	if !reflect.DeepEqual(cfg.AsOf.Since, &cfg.Since.AsOf) {
		return fmt.Errorf("%w: -as-of: the manifest was written with another -since: repeat the same command",
			ErrManifest)
	}
	return nil
}

// checkSameFilters compares the filters of an export with those of a manifest, all but
// the timezone, which is the manifest's.
func checkSameFilters(flag string, cfg Config, then *Manifest) error {
	now := cfg.Filters
	now.Timezone = then.Filters.Timezone
	differs := differingFilter(now, then.Filters)
	if differs == "" {
		return nil
	}
	return fmt.Errorf("%w: %s: the manifest was written %s: run with the same filters",
		ErrManifest, flag, then.Filters.describe(differs))
}

// newPlan decides what an export writes, from its configuration, from how far the
// tables go, and in days of a timezone.
func newPlan(cfg Config, b bounds, zone string) (plan, error) {
	p := plan{filters: cfg.Filters, asOf: b.ends, raw: cfg.Raw, bom: cfg.BOM, format: cfg.Format, repeats: cfg.AsOf}
	p.version = SchemaVersion
	p.filters.Timezone = zone
	var err error
	if p.start, p.end, err = resolveDays(p.filters); err != nil {
		return p, err
	}
	if then := cfg.AsOf; then != nil {
		p.since, p.provisional = then.Since, then.Provisional
		p.version = then.SchemaVersion
		return p, nil
	}
	if cfg.Since != nil {
		p.since = &cfg.Since.AsOf
		if err := checkNotBehind(*p.since, b.ends); err != nil {
			return p, err
		}
	}
	final := !b.watermark.Before(p.end)
	if cfg.Statement != "" { // the end is another if the zone changed meanwhile
		final = b.closing.IsFinal() && b.closingOf.Equal(p.end)
	}
	p.provisional = cfg.Provisional || !final
	if p.provisional && cfg.finalOnly {
		return p, ErrWatermarkBehind
	}
	return p, nil
}

// checkNotBehind reports tables that do not go as far as they did for an earlier
// export.
func checkNotBehind(then, now AsOf) error {
	check := func(topic string, then, now map[uint32]uint64) error {
		for p, end := range then {
			if now[p] < end {
				return fmt.Errorf("%w: -since: it knows %s partition %d up to offset %d, and the tables only up "+
					"to %d: were they restored and are not filled again?", ErrManifest, topic, p, end, now[p])
			}
		}
		return nil
	}
	if err := check("outcomes", then.Outcomes, now.Outcomes); err != nil {
		return err
	}
	return check("conversions", then.Conversions, now.Conversions)
}

// manifest describes the file that was written by the plan.
func (p plan) manifest(s summary, w written) *Manifest {
	m := &Manifest{
		SHA256:         w.sha256,
		Rows:           w.rows,
		Sums:           w.sums,
		Totals:         w.totals,
		Conservation:   s.conservation,
		ReusedEventIDs: append([]string{}, s.reused...), // [] in JSON, not null
		ReusedTotal:    s.reusedTotal,
		Filters:        p.filters,
		AsOf:           p.asOf,
		Since:          p.since,
		SchemaVersion:  p.version,
		RulesVersions:  append([]uint16{}, s.rulesVersions...),
		ToolVersion:    toolVersion(),
		Provisional:    p.provisional,
		Raw:            p.raw,
		BOM:            p.bom,
	}
	if p.format == FormatParquet {
		m.Format = p.format
	}
	if len(s.rulesVersions) > 0 {
		m.RulesVersion = slices.Max(s.rulesVersions)
	}
	if p.version >= 2 {
		m.StandingSums = w.standing
		m.Columns = describeColumns(p.columns(), p.raw)
	}
	if p.repeats != nil {
		m.ToolVersion = p.repeats.ToolVersion
	}
	return m
}

// fileName is the name of the plan's files, without ending.
func (p plan) fileName() string {
	return fileName(p.filters, p.since, &p.asOf, p.provisional, p.raw && p.format != FormatParquet, p.bom)
}

// endings are those of the plan's file and of its manifest.
func (p plan) endings() [2]string {
	if p.format == FormatParquet {
		return [2]string{".parquet", ".parquet.manifest.json"}
	}
	return [2]string{".csv", ".manifest.json"}
}

// columns are those of the file.
func (p plan) columns() []ledger.Column {
	if p.filters.Statement != "" {
		return statement.Columns()
	}
	return ledger.ColumnsOf(p.version)
}

// header is what the CSV begins with, without a line's end.
func (p plan) header() string {
	header := ledger.Header(p.version)
	if p.filters.Statement != "" {
		header = statement.CSVHeader()
	}
	if p.bom {
		return ledger.ByteOrderMark + header
	}
	return header
}

// differingFilter is the JSON name of the first filter in which two exports differ; it
// is also the name of its flag. Empty if there is none.
func differingFilter(a, b Filters) string {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		if !reflect.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			name, _, _ := strings.Cut(x.Type().Field(i).Tag.Get("json"), ",")
			return name
		}
	}
	return ""
}

// describe says how a command line sets a filter: with -partner p0, without -partner.
func (f Filters) describe(name string) string {
	v := reflect.ValueOf(f)
	for i := range v.NumField() {
		if tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ","); tag != name {
			continue
		}
		value := fmt.Sprint(v.Field(i).Interface())
		if list, ok := v.Field(i).Interface().([]string); ok {
			value = strings.Join(list, ",")
		}
		if value != "" {
			return "with -" + name + " " + value
		}
	}
	return "without -" + name
}
