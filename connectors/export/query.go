package export

import (
	"context"
	"fmt"
	"strings"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/ledger"
)

// endsByPartition lays out offsets by partition, for a parameter of a query. A
// partition that is missing has 0.
func endsByPartition(ends map[uint32]uint64) []uint64 {
	out := []uint64{}
	for p, end := range ends {
		for uint32(len(out)) <= p {
			out = append(out, 0)
		}
		out[p] = end
	}
	return out
}

// belowEnds is the condition on rows that had arrived. partition and offset are SQL,
// ends is the name of a parameter made by endsByPartition.
func belowEnds(partition, offset, ends string) string {
	return strings.NewReplacer("PARTITION", partition, "OFFSET", offset, "ENDS", "{"+ends+":Array(UInt64)}").Replace(
		"OFFSET < if(PARTITION < length(ENDS), ENDS[PARTITION + 1], 0)")
}

// selection is the part that the queries for the rows of an export have in common.
type selection struct {
	with  string // clause without WITH: the tables reused and partners
	where string // condition on rows of outcomes
	args  []any
}

// newSelection selects the rows of a plan: of a statement those of its month.
//
// The table reused has the event ids of these rows that have effect under several
// tokens, within as_of. Their other tokens may be anywhere in the workspace's history.
// The table partners has the relationship of each partner, as of the catalog's end.
func newSelection(p plan) selection {
	arrived := belowEnds("src_partition", "src_offset", "outcomes")
	day := "occurred_at"
	if p.filters.Statement != "" {
		day = "received_at"
	}
	s := selection{args: []any{
		clickhouse.Named("w", p.filters.Workspace),
		clickhouse.Named("catalog", p.asOf.Catalog),
		clickhouse.Named("outcomes", endsByPartition(p.asOf.Outcomes)),
		clickhouse.Named("start", p.start.UnixMilli()),
		clickhouse.Named("end", p.end.UnixMilli()),
		clickhouse.Named("verdicts", p.filters.Verdict),
	}}
	s.where = `workspace_id = {w:String}
	AND ` + arrived + `
	AND ` + day + ` >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
	AND ` + day + ` < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
	AND verdict IN {verdicts:Array(String)}`
	s.addFilters(p)
	s.with = `
reused AS (
	SELECT event_id
	FROM outcomes
	WHERE workspace_id = {w:String} AND effect != 0 AND ` + arrived + `
		AND event_id IN (SELECT event_id FROM outcomes WHERE ` + s.where + `)
	GROUP BY event_id
	HAVING uniqExact(click_token) > 1
),
partners AS (
	SELECT
		JSONExtractString(argMax(json, src_offset) AS last, 'id') AS id,
		JSONExtractString(last, 'relationship') AS relationship
	FROM catalog_versions
	WHERE kind = 'partner' AND catalog_versions.workspace_id = {w:String} AND src_offset < {catalog:UInt64}
	GROUP BY key
	HAVING last != ''
)`
	return s
}

// addFilters adds the conditions of the filters that are set.
func (s *selection) addFilters(p plan) {
	and := func(condition, name string, value any) {
		s.where += "\n\tAND " + condition
		s.args = append(s.args, clickhouse.Named(name, value))
	}
	if p.filters.Partner != "" {
		and("partner_id = {partner:String}", "partner", p.filters.Partner)
	}
	if p.filters.Program != "" {
		and("program_id = {program:String}", "program", p.filters.Program)
	}
	if p.filters.Link != "" {
		and("link_id = {link:String}", "link", p.filters.Link)
	}
	if len(p.filters.Type) > 0 {
		and("type IN {types:Array(String)}", "types", p.filters.Type)
	}
	if len(p.filters.Review) > 0 {
		and("review IN {reviews:Array(String)}", "reviews", p.filters.Review)
	}
	if p.since != nil {
		and("NOT ("+belowEnds("src_partition", "src_offset", "since")+")",
			"since", endsByPartition(p.since.Outcomes))
	}
}

// columnSQL is the expression for a column over o, a row of outcomes, and n, its
// partner now.
func columnSQL(c ledger.Column) string {
	switch c.Name {
	case "partner_relationship_now":
		return "n.relationship"
	case "flags":
		return "if(o.event_id IN (SELECT event_id FROM reused), arrayPushBack(o.flags, 'event_id_reused'), o.flags)"
	}
	return c.SQL()
}

// maxReused is how many ids a manifest names.
const maxReused = 1000

// summary is what a manifest says beside the file.
type summary struct {
	rows          int64    // that the file will have
	rulesVersions []uint16 // by which rows were judged, ascending
	reused        []string // event ids of rows that have effect under several tokens: the first maxReused
	reusedTotal   uint64   // how many such ids there are
	conservation  ledger.Conservation
}

// readSummary reads what the manifest of a plan says beside the file.
func (e *exporter) readSummary(ctx context.Context, p plan) (s summary, err error) {
	selected := newSelection(p)
	var counts []struct {
		Rows    uint64   `ch:"n"`
		Rules   []uint16 `ch:"rules"`
		Reused  uint64   `ch:"reused_total"`
		Pending uint64   `ch:"pending"`
	}
	query := `
WITH ` + selected.with + `
SELECT
	count() AS n,
	arraySort(groupUniqArray(rules_version)) AS rules,
	uniqExactIf(event_id, event_id IN (SELECT event_id FROM reused)) AS reused_total,
	countIf(standing_basis = 'pending') AS pending
FROM outcomes
WHERE ` + selected.where
	if err := e.conn.Select(ctx, &counts, query, selected.args...); err != nil {
		return s, fmt.Errorf("counting the rows: %w", err)
	}
	if counts[0].Pending > 0 && p.version >= 2 {
		return s, pendingError(counts[0].Pending)
	}
	s.rows = int64(counts[0].Rows)
	s.rulesVersions = counts[0].Rules
	s.reusedTotal = counts[0].Reused
	if s.reusedTotal > 0 {
		if s.reused, err = e.readReused(ctx, selected); err != nil {
			return s, err
		}
	}
	s.conservation, err = e.readConservation(ctx, p)
	return s, err
}

// pendingError says how many standing changes are missing.
func pendingError(events uint64) error {
	return fmt.Errorf("%w: of %d events that an older processor judged: stop it, and run `ctl rollup rebuild`",
		ErrStandingPending, events)
}

// readReused reads the first event ids of the rows that have effect under several
// tokens.
func (e *exporter) readReused(ctx context.Context, selected selection) (ids []string, err error) {
	var found []struct {
		ID string `ch:"event_id"`
	}
	query := fmt.Sprintf(`
WITH %s
SELECT DISTINCT event_id
FROM outcomes
WHERE %s
	AND event_id IN (SELECT event_id FROM reused)
ORDER BY event_id
LIMIT %d`, selected.with, selected.where, maxReused)
	if err := e.conn.Select(ctx, &found, query, selected.args...); err != nil {
		return nil, fmt.Errorf("reading reused event ids: %w", err)
	}
	for _, x := range found {
		ids = append(ids, x.ID)
	}
	return ids, nil
}

// readConservation counts what became of all events of the workspace within as_of. A
// row whose event has not arrived is left out. Which events are overdue follows from
// the Progress within as_of: of none, if as_of is of a manifest that lacks its ends.
func (e *exporter) readConservation(ctx context.Context, p plan) (ledger.Conservation, error) {
	var found []ledger.Conservation
	query := ledger.ConservationQuery(`
			SELECT src_partition AS event_partition, src_offset AS event_offset, entered_at
			FROM events_and_rows
			WHERE NOT judged AND workspace_id = {w:String}
				AND `+belowEnds("src_partition", "src_offset", "conversions")+`
		`, `
			SELECT event_partition, event_offset, verdict
			FROM events_and_rows
			WHERE judged AND workspace_id = {w:String}
				AND `+belowEnds("src_partition", "src_offset", "outcomes")+`
				AND `+belowEnds("event_partition", "event_offset", "conversions")+`
		`, `
			SELECT partition, src_offset, at, conversions_position, watermark, grace_ms
			FROM progress
			WHERE `+belowEnds("src_partition", "src_offset", "progress")+`
				AND `+belowEnds("partition", "conversions_position - 1", "conversions")+`
				AND `+belowEnds("partition", "outcomes_end - 1", "outcomes")+`
		`)
	if err := e.conn.Select(ctx, &found, query,
		clickhouse.Named("w", p.filters.Workspace),
		clickhouse.Named("outcomes", endsByPartition(p.asOf.Outcomes)),
		clickhouse.Named("conversions", endsByPartition(p.asOf.Conversions)),
		clickhouse.Named("progress", endsByPartition(p.asOf.Progress))); err != nil {
		return ledger.Conservation{}, fmt.Errorf("reading conservation: %w", err)
	}
	return found[0], nil
}

// checkFiltersExist reports a filter that selects nothing because the catalog never had
// such an id before an offset.
func (e *exporter) checkFiltersExist(ctx context.Context, before uint64) error {
	if err := e.checkExists(ctx, "partner", e.cfg.Partner, before); err != nil {
		return err
	}
	if err := e.checkExists(ctx, "program", e.cfg.Program, before); err != nil {
		return err
	}
	return e.checkExists(ctx, "link", e.cfg.Link, before)
}

func (e *exporter) checkExists(ctx context.Context, kind, id string, before uint64) error {
	if id == "" {
		return nil
	}
	var versions []struct {
		N uint64 `ch:"n"`
	}
	const query = `
SELECT count() AS n
FROM catalog_versions
WHERE workspace_id = {w:String}
	AND kind = {kind:String}
	AND JSONExtractString(json, 'id') = {id:String}
	AND src_offset < {before:UInt64}`
	if err := e.conn.Select(ctx, &versions, query,
		clickhouse.Named("w", e.cfg.Workspace),
		clickhouse.Named("kind", kind),
		clickhouse.Named("id", id),
		clickhouse.Named("before", before)); err != nil {
		return fmt.Errorf("looking for the %s: %w", kind, err)
	}
	if versions[0].N == 0 {
		return fmt.Errorf("-%s %q: %w; filters take ids", kind, id, ErrUnknown)
	}
	return nil
}
