package export

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/ddl"
)

// Config is one export.
type Config struct {
	Filters // without Timezone, it is the workspace's
	// Dir is where the files go; "-" writes the CSV to Stdout and no manifest.
	Dir    string
	Stdout io.Writer
	// AsOf and Since are manifests of earlier exports, nil if there are none.
	AsOf, Since *Manifest
	// Provisional says so in name and manifest whether or not the joined watermark has
	// passed the last day.
	Provisional bool
	// Raw leaves texts as they came.
	Raw bool
	// Progress, if not nil, is called now and then with the rows written, and all that
	// there are.
	Progress func(rows, of int64)
	Log      *slog.Logger
	// Metrics may be nil.
	Metrics *Metrics

	final    bool          // write nothing that is provisional
	patience time.Duration // with rows that batches have and tables do not show yet; a minute if zero
	watch    *outage.Watch // over ClickHouse, of a schedule
}

// ErrBusy: another run writes into the same directory.
var ErrBusy = errors.New("another export is running in this directory")

// ErrUnknown is a workspace, partner, program or link that the catalog does not have.
// It may come: a fresh install's tables fill up.
var ErrUnknown = errors.New("the catalog does not have it")

// ErrRowsMissing is a table that lacks rows which finished batches inserted: a replica
// that is behind, or rows were removed.
var ErrRowsMissing = errors.New("rows are missing")

// errBehind is a final export whose last day the joined watermark has not passed.
var errBehind = errors.New("the joined watermark has not passed the last day")

// known values of filters.
var (
	Types    = []string{"lead", "sale", "refund", "cancellation", "reversal"}
	Verdicts = []string{"attributed", "reversed", "duplicate", "conflict", "unattributed"}
	Reviews  = []string{"clear", "review"}
)

// Validate reports what cannot be, by flag. An empty Verdict becomes the default.
func (c *Config) Validate() error {
	if c.Workspace == "" {
		return errors.New("-workspace is required")
	}
	if c.Dir == "" {
		return errors.New("-out is required: a directory, or - for standard output")
	}
	for _, d := range [][2]string{{"-from", c.From}, {"-to", c.To}} {
		if _, err := time.Parse(time.DateOnly, d[1]); err != nil {
			return fmt.Errorf("%s: %q is not a day such as 2026-03-14", d[0], d[1])
		}
	}
	if c.To < c.From {
		return fmt.Errorf("-to: %s is before -from, %s", c.To, c.From)
	}
	if len(c.Verdict) == 0 {
		c.Verdict = DefaultVerdicts()
	}
	if slices.Equal(c.Verdict, []string{"all"}) {
		c.Verdict = slices.Clone(Verdicts)
	}
	for _, x := range []struct {
		flag        string
		have, known []string
	}{{"-type", c.Type, Types}, {"-verdict", c.Verdict, Verdicts}, {"-review", c.Review, Reviews}} {
		for _, v := range x.have {
			if !slices.Contains(x.known, v) {
				return fmt.Errorf("%s: %q is not one of %s", x.flag, v, strings.Join(x.known, ", "))
			}
		}
	}
	return nil
}

// Run writes one export and returns its manifest.
func Run(ctx context.Context, conn *clickhouse.Conn, cfg Config) (m *Manifest, err error) {
	began := time.Now()
	defer func() { cfg.Metrics.done(err, m, time.Since(began)) }()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Dir != "-" {
		unlock, err := lock(cfg.Dir)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	e := &export{conn: conn, cfg: cfg}
	m, err = e.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("exporting %s, %s to %s: %w", cfg.Workspace, cfg.From, cfg.To, err)
	}
	return m, nil
}

// lock keeps other runs out of a directory, and removes what a killed one left there.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("-out: %w", err)
	}
	l := flock.New(filepath.Join(dir, ".export.lock"))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("-out: %w", err)
	}
	if !ok {
		return nil, fmt.Errorf("-out %s: %w", dir, ErrBusy)
	}
	// renameio names them so, with a random number behind
	for _, ending := range []string{"csv", "manifest.json"} {
		left, _ := filepath.Glob(filepath.Join(dir, ".*."+ending+"[0-9]*"))
		for _, file := range left {
			err = errors.Join(err, os.Remove(file))
		}
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("-out: %w", err)
	}
	return func() { l.Close() }, nil
}

type export struct {
	conn       *clickhouse.Conn
	cfg        Config
	start, end time.Time // of the days, in UTC
	m          *Manifest
}

func (e *export) run(ctx context.Context) (*Manifest, error) {
	e.m = &Manifest{
		Sums:           map[string]map[string]string{},
		ReusedEventIDs: []string{},
		SchemaVersion:  SchemaVersion,
		ToolVersion:    toolVersion(),
		Raw:            e.cfg.Raw,
		RulesVersions:  []uint16{},
	}
	if e.cfg.AsOf != nil {
		e.m.AsOf, e.cfg.Timezone = e.cfg.AsOf.AsOf, e.cfg.AsOf.Filters.Timezone
		if flag := differs(e.cfg.Filters, e.cfg.AsOf.Filters); flag != "" {
			return nil, fmt.Errorf("%w: -as-of is of an export with another %s: repeat the same command",
				ErrManifest, flag)
		}
		if e.cfg.Raw != e.cfg.AsOf.Raw {
			return nil, fmt.Errorf("%w: -as-of is of an export with another -raw: repeat the same command", ErrManifest)
		}
		e.m.Provisional, e.m.Since = e.cfg.AsOf.Provisional, e.cfg.AsOf.Since
	}
	var watermark time.Time
	if e.cfg.AsOf == nil {
		// Before the ends: a watermark that passes the last day between the two would
		// call a file final that lacks rows of it.
		var err error
		if watermark, err = joinedWatermark(ctx, e.conn); err != nil {
			return nil, err
		}
		if err := e.now(ctx); err != nil {
			return nil, err
		}
		if err := e.whole(ctx); err != nil {
			return nil, err
		}
	}
	if e.cfg.Since != nil {
		if err := e.continues(e.cfg.Since); err != nil {
			return nil, err
		}
	}
	if err := e.days(ctx); err != nil {
		return nil, err
	}
	e.m.Filters = e.cfg.Filters
	if e.cfg.AsOf == nil {
		e.m.Provisional = e.cfg.Provisional || watermark.Before(e.end)
		if e.m.Provisional && e.cfg.final {
			return nil, errBehind
		}
	}
	if err := e.around(ctx); err != nil {
		return nil, err
	}
	if e.m.Rows == 0 && e.cfg.AsOf == nil && e.cfg.Since == nil {
		if err := e.known(ctx); err != nil {
			return nil, err
		}
	}
	if e.cfg.Dir == "-" {
		return e.m, e.write(ctx, e.cfg.Stdout)
	}
	return e.m, e.files(ctx)
}

// continues makes this export the delta of another one: of the same rows, by days of
// the same zone, or what lies between the two would be in neither.
func (e *export) continues(since *Manifest) error {
	if since.Filters.Workspace != e.cfg.Workspace {
		return fmt.Errorf("%w: -since is of workspace %s", ErrManifest, since.Filters.Workspace)
	}
	e.m.Since = &since.AsOf
	if e.cfg.AsOf != nil {
		if !reflect.DeepEqual(e.cfg.AsOf.Since, e.m.Since) {
			return fmt.Errorf("%w: -as-of is of an export with another -since: repeat the same command", ErrManifest)
		}
		return nil
	}
	e.cfg.Timezone = since.Filters.Timezone
	if flag := differs(e.cfg.Filters, since.Filters); flag != "" {
		return fmt.Errorf("%w: -since is of an export with another %s: its delta needs the same", ErrManifest, flag)
	}
	for _, x := range []struct {
		topic     string
		then, now map[uint32]uint64
	}{
		{"outcomes", since.AsOf.Outcomes, e.m.AsOf.Outcomes},
		{"conversions", since.AsOf.Conversions, e.m.AsOf.Conversions},
	} {
		for p, end := range x.then {
			if x.now[p] < end {
				return fmt.Errorf("%w: -since: it knows %s partition %d up to offset %d, and the tables only up "+
					"to %d: were they restored, and are not filled again?", ErrManifest, x.topic, p, end, x.now[p])
			}
		}
	}
	return nil
}

// now notes how far the tables go.
func (e *export) now(ctx context.Context) error {
	var ends []struct {
		Topic     string `ch:"topic"`
		Partition uint32 `ch:"partition"`
		End       uint64 `ch:"end_offset"`
	}
	if err := e.conn.Select(ctx, &ends, "SELECT topic, partition, end_offset FROM tiled_ends WHERE topic IN "+
		"('outcomes', 'conversions', 'catalog')"); err != nil {
		return fmt.Errorf("reading how far the tables go: %w", err)
	}
	e.m.AsOf = AsOf{Outcomes: map[uint32]uint64{}, Conversions: map[uint32]uint64{},
		At: time.Now().UTC().Truncate(time.Millisecond)}
	for _, x := range ends {
		switch x.Topic {
		case "outcomes":
			e.m.AsOf.Outcomes[x.Partition] = x.End
		case "conversions":
			e.m.AsOf.Conversions[x.Partition] = x.End
		case "catalog":
			e.m.AsOf.Catalog = x.End
		}
	}
	return nil
}

// whole waits until the tables have all rows of the batches below the ends. Each table
// of a replica catches up on its own, so batches may be ahead of the rows that they
// count.
func (e *export) whole(ctx context.Context) error {
	var may []struct {
		All bool `ch:"all"`
	}
	if err := e.conn.Select(ctx, &may, "SELECT NOT has(enabledRoles(), {reader:String}) OR hasAny(enabledRoles(), "+
		"{whole:Array(String)}) AS all",
		clickhouse.Named("reader", ddl.RoleReader),
		clickhouse.Named("whole", []string{ddl.RoleWriter, ddl.RoleEveryWorkspace})); err != nil {
		return fmt.Errorf("reading the roles: %w", err)
	}
	if !may[0].All { // batches count the rows of all workspaces
		e.cfg.Log.Warn("this user does not see all workspaces, so that nobody checks whether this replica has all rows")
		return nil
	}
	const every = 2 * time.Second
	for end := time.Now().Add(cmp.Or(e.cfg.patience, time.Minute)); ; {
		err := e.lacks(ctx)
		if !errors.Is(err, ErrRowsMissing) || !time.Now().Add(every).Before(end) {
			return err
		}
		e.cfg.Log.Info("waiting for rows that this replica does not have yet", "error", err)
		if !sleep(ctx, every) {
			return context.Cause(ctx)
		}
	}
}

// lacks reports a partition of a table that has fewer rows than its batches of the last
// day: what replicas lag by is younger, and rows that somebody removed later, for a
// person's sake or because they are old, are to hold up no export for ever.
func (e *export) lacks(ctx context.Context) error {
	catalog := map[uint32]uint64{0: e.m.AsOf.Catalog}
	for _, x := range []struct {
		topic, table string
		ends         map[uint32]uint64
	}{
		{"outcomes", "outcomes", e.m.AsOf.Outcomes},
		{"conversions", "conversions", e.m.AsOf.Conversions},
		{"catalog", "catalog_versions", catalog},
	} {
		ends := clickhouse.Named("ends", list(x.ends))
		var batches []struct {
			Partition uint32 `ch:"partition"`
			First     uint64 `ch:"first"`
			Rows      uint64 `ch:"rows"`
		}
		if err := e.conn.Select(ctx, &batches, "SELECT partition, min(start_offset) AS first, sum(n) AS rows FROM "+
			"(SELECT partition, start_offset, end_offset, max(rows) AS n FROM batches WHERE topic = "+
			"{topic:String} AND inserted_at > now() - INTERVAL 1 DAY AND "+
			below("partition", "end_offset - 1",
				"ends")+" GROUP BY partition, start_offset, end_offset) GROUP BY partition ORDER BY partition",
			clickhouse.Named("topic", x.topic), ends); err != nil {
			return fmt.Errorf("counting the batches of %s: %w", x.topic, err)
		}
		if len(batches) == 0 {
			continue
		}
		firsts := map[uint32]uint64{}
		for _, b := range batches {
			firsts[b.Partition] = b.First
		}
		var counted []struct {
			Partition uint32 `ch:"partition"`
			Rows      uint64 `ch:"rows"`
		}
		if err := e.conn.Select(ctx, &counted, "SELECT src_partition AS partition, count() AS rows FROM "+x.table+
			" WHERE "+below("src_partition", "src_offset", "ends")+" AND NOT ("+
			below("src_partition", "src_offset", "firsts")+") GROUP BY partition",
			ends, clickhouse.Named("firsts", list(firsts))); err != nil {
			return fmt.Errorf("counting the rows of %s: %w", x.table, err)
		}
		rows := map[uint32]uint64{}
		for _, c := range counted {
			rows[c.Partition] = c.Rows
		}
		for _, b := range batches {
			if rows[b.Partition] < b.Rows {
				return fmt.Errorf("%w: of partition %d the table %s has %d rows from offset %d on, its batches "+
					"have %d: this replica is behind, or rows were removed", ErrRowsMissing, b.Partition, x.table,
					rows[b.Partition], b.First, b.Rows)
			}
		}
	}
	return nil
}

// days finds the first instant of the first day and the one behind the last: in the
// zone of what this export repeats or continues, else in the workspace's as of the
// export.
func (e *export) days(ctx context.Context) (err error) {
	if e.cfg.Timezone == "" {
		e.cfg.Timezone, err = Zone(ctx, e.conn, e.cfg.Workspace, e.m.AsOf.Catalog)
		if errors.Is(err, ErrUnknown) && !e.cfg.final {
			err = e.withoutCatalog(ctx, err)
		}
		if err != nil {
			return err
		}
	}
	loc, err := time.LoadLocation(e.cfg.Timezone)
	if err != nil {
		return fmt.Errorf("the workspace's timezone: %w", err)
	}
	first, _ := time.Parse(time.DateOnly, e.cfg.From)
	last, _ := time.Parse(time.DateOnly, e.cfg.To)
	e.start, e.end = firstInstant(first, loc), firstInstant(last.AddDate(0, 0, 1), loc)
	return nil
}

// firstInstant of a day. Where clocks go forward at midnight, time.Date may answer with
// an instant of the day before: then the day begins when they have. Where they go back
// over midnight, it comes twice, and time.Date may answer with the second.
func firstInstant(day time.Time, loc *time.Location) time.Time {
	t := time.Date(day.Year(), day.Month(), day.Day(), 0, 0, 0, 0, loc)
	if changed, _ := t.ZoneBounds(); !changed.IsZero() {
		_, offset := t.Zone()
		_, before := changed.Add(-time.Second).Zone()
		if first := t.Add(time.Duration(offset-before) * time.Second); first.Before(changed) &&
			first.Day() == day.Day() {
			t = first
		}
	}
	for t.Day() != day.Day() {
		t = t.Add(15 * time.Minute).Truncate(15 * time.Minute)
	}
	return t.UTC()
}

// withoutCatalog lets a workspace that has events, but stands in no catalog here, be
// exported all the same, by days of UTC. A workspace without either is a wrong name.
func (e *export) withoutCatalog(ctx context.Context, unknown error) error {
	var events []struct {
		N uint64 `ch:"n"`
	}
	if err := e.conn.Select(ctx, &events, "SELECT count() AS n FROM (SELECT 1 FROM conversions WHERE workspace_id "+
		"= {w:String} LIMIT 1 UNION ALL SELECT 1 FROM outcomes WHERE workspace_id = {w:String} LIMIT 1)",
		clickhouse.Named("w", e.cfg.Workspace)); err != nil {
		return fmt.Errorf("looking for the workspace: %w", err)
	}
	if events[0].N == 0 {
		return unknown
	}
	e.cfg.Log.Warn("the catalog does not have this workspace: its days are taken as those of UTC",
		"workspace", e.cfg.Workspace)
	e.cfg.Timezone = "UTC"
	return nil
}

// known reports filters that select nothing because no such id was ever in the catalog.
func (e *export) known(ctx context.Context) error {
	for _, x := range []struct{ kind, id string }{
		{"partner", e.cfg.Partner},
		{"program", e.cfg.Program},
		{"link", e.cfg.Link},
	} {
		if x.id == "" {
			continue
		}
		var versions []struct {
			N uint64 `ch:"n"`
		}
		if err := e.conn.Select(ctx, &versions, "SELECT count() AS n FROM catalog_versions WHERE workspace_id = "+
			"{w:String} AND kind = {kind:String} AND JSONExtractString(json, 'id') = {id:String} AND src_offset < "+
			"{catalog:UInt64}",
			clickhouse.Named("w", e.cfg.Workspace), clickhouse.Named("kind", x.kind), clickhouse.Named("id", x.id),
			clickhouse.Named("catalog", e.m.AsOf.Catalog)); err != nil {
			return fmt.Errorf("looking for the %s: %w", x.kind, err)
		}
		if versions[0].N == 0 {
			return fmt.Errorf("-%s %q: %w; filters take ids", x.kind, x.id, ErrUnknown)
		}
	}
	return nil
}

// WholeCatalog is behind every offset of the catalog.
const WholeCatalog = math.MaxUint64

// Zone is a workspace's timezone in the catalog before an offset.
func Zone(ctx context.Context, conn *clickhouse.Conn, workspace string, before uint64) (string, error) {
	var found []struct {
		Versions uint64 `ch:"versions"`
		Zone     string `ch:"zone"`
	}
	if err := conn.Select(ctx, &found, "SELECT count() AS versions, JSONExtractString(argMax(json, src_offset), "+
		"'timezone') AS zone FROM catalog_versions WHERE kind = 'workspace' AND key = {key:String} AND src_offset "+
		"< {before:UInt64}",
		clickhouse.Named("key", "workspace/"+workspace), clickhouse.Named("before", before)); err != nil {
		return "", fmt.Errorf("reading the workspace's timezone: %w", err)
	}
	if found[0].Versions == 0 {
		return "", fmt.Errorf("-workspace %q: %w", workspace, ErrUnknown)
	}
	return cmp.Or(found[0].Zone, "UTC"), nil
}

// joinedWatermark is the instant up to which all events are joined; the zero time if
// nothing says so yet.
func joinedWatermark(ctx context.Context, conn *clickhouse.Conn) (time.Time, error) {
	var at []struct {
		Watermark time.Time `ch:"joined_watermark"`
	}
	if err := conn.Select(ctx, &at, "SELECT joined_watermark FROM freshness"); err != nil {
		return time.Time{}, fmt.Errorf("reading the joined watermark: %w", err)
	}
	if len(at) != 1 {
		return time.Time{}, nil
	}
	return at[0].Watermark, nil
}

// Joined says whether the joined watermark has passed an instant.
func Joined(ctx context.Context, conn *clickhouse.Conn, end time.Time) (bool, error) {
	at, err := joinedWatermark(ctx, conn)
	return err == nil && !at.Before(end), err
}

// list lays out ends by partition.
func list(ends map[uint32]uint64) []uint64 {
	out := []uint64{}
	for p, end := range ends {
		for uint32(len(out)) <= p {
			out = append(out, 0)
		}
		out[p] = end
	}
	return out
}

// below is the condition on rows of a topic that had arrived. Both arguments are names
// of this package.
func below(partition, offset, ends string) string {
	return offset + " < if(" + partition + " < length({" + ends + ":Array(UInt64)}), {" + ends + ":Array(UInt64)}[" +
		partition + " + 1], 0)"
}

// query begins with what all queries over the rows share, and returns their arguments.
func (e *export) query() (with, where string, args []any) {
	outcomes := below("src_partition", "src_offset", "outcomes")
	partners := "partners AS (SELECT JSONExtractString(argMax(json, src_offset) AS last, 'id') AS id, " +
		"JSONExtractString(last, 'relationship') AS relationship FROM catalog_versions WHERE kind = 'partner' AND " +
		"catalog_versions.workspace_id = {w:String} AND src_offset < {catalog:UInt64} GROUP BY key HAVING last != '')"
	args = []any{clickhouse.Named("w", e.cfg.Workspace), clickhouse.Named("catalog", e.m.AsOf.Catalog),
		clickhouse.Named("outcomes", list(e.m.AsOf.Outcomes)),
		clickhouse.Named("start", e.start.UnixMilli()), clickhouse.Named("end", e.end.UnixMilli()),
		clickhouse.Named("verdicts", e.cfg.Verdict)}
	where = "workspace_id = {w:String} AND " + outcomes + " AND occurred_at >= " +
		"fromUnixTimestamp64Milli({start:Int64}, 'UTC') AND occurred_at < fromUnixTimestamp64Milli({end:Int64}, " +
		"'UTC') AND verdict IN {verdicts:Array(String)}"
	and := func(sql, name string, value any) {
		where += " AND " + sql
		args = append(args, clickhouse.Named(name, value))
	}
	if e.cfg.Partner != "" {
		and("partner_id = {partner:String}", "partner", e.cfg.Partner)
	}
	if e.cfg.Program != "" {
		and("program_id = {program:String}", "program", e.cfg.Program)
	}
	if e.cfg.Link != "" {
		and("link_id = {link:String}", "link", e.cfg.Link)
	}
	if len(e.cfg.Type) > 0 {
		and("type IN {types:Array(String)}", "types", e.cfg.Type)
	}
	if len(e.cfg.Review) > 0 {
		and("review IN {reviews:Array(String)}", "reviews", e.cfg.Review)
	}
	if e.m.Since != nil {
		and("NOT ("+below("src_partition", "src_offset", "since")+")", "since", list(e.m.Since.Outcomes))
	}
	// An id's other tokens may be anywhere in the workspace's history, but only ids of
	// these rows are asked for.
	with = "WITH reused AS (SELECT event_id FROM outcomes WHERE workspace_id = {w:String} AND effect != 0 AND " +
		outcomes + " AND event_id IN (SELECT event_id FROM outcomes WHERE " + where +
		") GROUP BY event_id HAVING uniqExact(click_token) > 1), " + partners
	return with, where, args
}

// maxReused is how many ids a manifest names.
const maxReused = 1000

// around reads what the manifest says beside the rows: conservation, reused ids, rules,
// and how many rows there will be.
func (e *export) around(ctx context.Context) error {
	with, where, args := e.query()
	var about []struct {
		Rows   uint64   `ch:"n"`
		Rules  []uint16 `ch:"rules"`
		Reused uint64   `ch:"reused_total"`
	}
	if err := e.conn.Select(ctx, &about, with+" SELECT count() AS n, arraySort(groupUniqArray(rules_version)) AS "+
		"rules, uniqExactIf(event_id, event_id IN (SELECT event_id FROM reused)) AS reused_total FROM outcomes WHERE "+
		where, args...); err != nil {
		return fmt.Errorf("counting: %w", err)
	}
	e.m.Rows, e.m.ReusedTotal = int64(about[0].Rows), about[0].Reused
	if e.m.RulesVersions = append(e.m.RulesVersions, about[0].Rules...); len(about[0].Rules) > 0 {
		e.m.RulesVersion = slices.Max(about[0].Rules)
	}
	if e.m.ReusedTotal > 0 {
		var ids []struct {
			ID string `ch:"event_id"`
		}
		if err := e.conn.Select(ctx, &ids, with+fmt.Sprintf(" SELECT DISTINCT event_id FROM outcomes WHERE %s AND "+
			"event_id IN (SELECT event_id FROM reused) ORDER BY event_id LIMIT %d", where, maxReused),
			args...); err != nil {
			return fmt.Errorf("reading reused event ids: %w", err)
		}
		for _, x := range ids {
			e.m.ReusedEventIDs = append(e.m.ReusedEventIDs, x.ID)
		}
	}
	var sums []Conservation
	if err := e.conn.Select(ctx, &sums, `SELECT toUInt64(sum(events)) AS received, toUInt64(sum(of_attributed)) AS attributed, toUInt64(sum(of_reversed)) AS reversed, toUInt64(sum(of_duplicate)) AS duplicate,
			toUInt64(sum(of_conflict)) AS conflict, toUInt64(sum(of_unattributed)) AS unattributed, toUInt64(countIf(events > 0 AND rows = 0)) AS waiting,
			toInt64(sum(if(events = 0, toInt64(rows), abs(toInt64(events) - 1) + greatest(toInt64(rows) - 1, 0)))) AS difference
		FROM (
			SELECT event_partition, event_offset, countIf(verdict = '') AS events, countIf(verdict != '') AS rows, countIf(verdict = 'attributed') AS of_attributed, countIf(verdict = 'reversed') AS of_reversed,
				countIf(verdict = 'duplicate') AS of_duplicate, countIf(verdict = 'conflict') AS of_conflict, countIf(verdict = 'unattributed') AS of_unattributed
			FROM (
				SELECT src_partition AS event_partition, src_offset AS event_offset, '' AS verdict FROM conversions WHERE workspace_id = {w:String} AND `+below("src_partition", "src_offset", "conversions")+`
				UNION ALL
				SELECT event_partition, event_offset, toString(verdict) AS verdict FROM outcomes WHERE workspace_id = {w:String} AND `+below("src_partition", "src_offset", "outcomes")+` AND `+below("event_partition", "event_offset", "conversions")+`
			) GROUP BY event_partition, event_offset
		)`, clickhouse.Named("w", e.cfg.Workspace), clickhouse.Named("outcomes", list(e.m.AsOf.Outcomes)), clickhouse.Named("conversions", list(e.m.AsOf.Conversions))); err != nil {
		return fmt.Errorf("reading conservation: %w", err)
	}
	e.m.Conservation = sums[0]
	return nil
}

// row is a line with what is summed of it.
type row struct {
	Line     string `ch:"line"`
	Type     string `ch:"t"`
	Currency string `ch:"c"`
	Exponent uint8  `ch:"e"`
	Net      *int64 `ch:"net"`
}

type sumKey struct {
	currency, kind string
	exponent       uint8
}

// write streams the CSV, and completes the manifest.
func (e *export) write(ctx context.Context, to io.Writer) error {
	with, where, args := e.query()
	// Lines are made before they are sorted, by as many threads as there are: after it
	// one would make them all. Rows come in blocks of 8192, some 5 MB: the client holds
	// a few of them, and with blocks of the usual 65,536 rows an exporter's memory was
	// whatever the garbage collector had not got round to, up to 416 MB.
	query := with + ", " + cleanSQL + " AS clean, " + guardSQL + " AS guard, " + quoteSQL + " AS quote, " + stampSQL +
		" AS stamp SELECT " + line(e.cfg.Raw) + " AS line, toString(o.type) AS t, toString(o.currency) AS c, " +
		"o.exponent AS e, o.effect * o.amount_minor AS net " +
		"FROM (SELECT *, reward_exponent FROM outcomes WHERE " + where +
		") AS o LEFT JOIN partners AS n ON n.id = o.partner_id " +
		"ORDER BY o.occurred_at, o.event_id, o.event_partition, o.event_offset SETTINGS join_use_nulls = 0, " +
		"max_bytes_before_external_sort = 2000000000, query_plan_execute_functions_after_sorting = 0, " +
		"max_block_size = 8192"
	rows, err := e.conn.Rows(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("reading rows: %w", err)
	}
	defer rows.Close()
	hash := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(to, hash), 1<<20)
	out.WriteString(Header() + "\n")
	var written int64
	sums := map[sumKey]*big.Int{}
	var r row
	for rows.Next() {
		r.Net = nil
		if err := rows.Scan(&r.Line, &r.Type, &r.Currency, &r.Exponent, &r.Net); err != nil {
			return fmt.Errorf("reading rows: %w", err)
		}
		out.WriteString(r.Line)
		if err := out.WriteByte('\n'); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
		if r.Net != nil {
			k := sumKey{r.Currency, r.Type, r.Exponent}
			if sums[k] == nil {
				sums[k] = new(big.Int)
			}
			sums[k].Add(sums[k], big.NewInt(*r.Net))
		}
		if written++; written%(1<<14) == 0 {
			if e.cfg.Progress != nil {
				e.cfg.Progress(written, e.m.Rows)
			}
			if ctx.Err() != nil { // what is buffered would still come
				return context.Cause(ctx)
			}
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading rows: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	if written != e.m.Rows {
		return fmt.Errorf("%d rows came, %d were counted below the same offsets: rows were removed meanwhile",
			written, e.m.Rows)
	}
	if e.cfg.Progress != nil {
		e.cfg.Progress(written, e.m.Rows)
	}
	e.m.SHA256 = hex.EncodeToString(hash.Sum(nil))
	e.m.Sums = total(sums)
	if then := e.cfg.AsOf; then != nil && then.SHA256 != e.m.SHA256 {
		return fmt.Errorf("%w: -as-of: it is of %d rows with sha256 %s, these are %d rows with %s: rows were "+
			"removed since, or restored tables are not filled again, or another version of this program wrote them",
			ErrManifest, then.Rows, then.SHA256, e.m.Rows, e.m.SHA256)
	}
	return nil
}

// total writes sums as decimals; amounts of one currency and type with different digits
// are brought to the larger number of them.
func total(sums map[sumKey]*big.Int) map[string]map[string]string {
	digits := map[[2]string]uint8{}
	for k := range sums {
		at := [2]string{k.currency, k.kind}
		digits[at] = max(digits[at], k.exponent)
	}
	all := map[[2]string]*big.Int{}
	for k, v := range sums {
		at := [2]string{k.currency, k.kind}
		if all[at] == nil {
			all[at] = new(big.Int)
		}
		scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits[at]-k.exponent)), nil)
		all[at].Add(all[at], new(big.Int).Mul(v, scale))
	}
	out := map[string]map[string]string{}
	for at, v := range all {
		if out[at[0]] == nil {
			out[at[0]] = map[string]string{}
		}
		text, n := new(big.Int).Abs(v).String(), int(digits[at])
		if n > 0 {
			if len(text) <= n {
				text = strings.Repeat("0", n-len(text)+1) + text
			}
			text = text[:len(text)-n] + "." + text[len(text)-n:]
		}
		if v.Sign() < 0 {
			text = "-" + text
		}
		out[at[0]][at[1]] = text
	}
	return out
}

// files writes CSV and manifest, each at once and whole, the manifest last.
func (e *export) files(ctx context.Context) error {
	base := filepath.Join(e.cfg.Dir, name(e.m.Filters, e.m.Since, &e.m.AsOf, e.m.Provisional, e.m.Raw))
	csv, err := renameio.NewPendingFile(base+".csv", renameio.WithTempDir(e.cfg.Dir), renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("-out: %w", err)
	}
	defer csv.Cleanup()
	if err := e.write(ctx, csv); err != nil {
		return err
	}
	text, err := json.MarshalIndent(e.m, "", "  ")
	if err != nil {
		return err
	}
	manifest, err := renameio.NewPendingFile(base+".manifest.json", renameio.WithTempDir(e.cfg.Dir),
		renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("-out: %w", err)
	}
	defer manifest.Cleanup()
	if _, err := manifest.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("-out: %w", err)
	}
	// A manifest of an earlier run under this name would for a moment stand beside the
	// new CSV.
	if err := os.Remove(base + ".manifest.json"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("-out: %w", err)
	}
	if err := csv.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("-out: %w", err)
	}
	if !e.m.Provisional { // before the manifest, so that a day is done only when nobody can count it twice
		for _, ending := range []string{".csv", ".manifest.json"} {
			if err := os.Remove(base + "_provisional" + ending); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("-out: removing the provisional file: %w", err)
			}
		}
	}
	if err := manifest.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("-out: %w", err)
	}
	if err := syncDir(e.cfg.Dir); err != nil {
		return fmt.Errorf("-out: %w", err)
	}
	e.cfg.Log.Info("exported", "file", base+".csv", "rows", e.m.Rows, "sha256", e.m.SHA256,
		"provisional", e.m.Provisional, "currencies", slices.Sorted(maps.Keys(e.m.Sums)))
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
