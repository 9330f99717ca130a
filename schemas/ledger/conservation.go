package ledger

import (
	"fmt"
	"strings"

	"github.com/nimriz/partners/schemas/event"
)

// Conservation counts what became of the events of a workspace. Received is the sum of
// the verdicts and of what waits, as long as Difference is 0. Each verdict counts its
// rows in the table outcomes. The metric partners_ledger_conservation_difference is in
// connectors/sink, ledgermetrics.go.
type Conservation struct {
	Received     uint64 `ch:"received" json:"received"` // events in the table conversions
	Attributed   uint64 `ch:"attributed" json:"attributed"`
	Reversed     uint64 `ch:"reversed" json:"reversed"`
	Duplicate    uint64 `ch:"duplicate" json:"duplicate"`
	Conflict     uint64 `ch:"conflict" json:"conflict"`
	Unattributed uint64 `ch:"unattributed" json:"unattributed"`
	Waiting      uint64 `ch:"waiting" json:"waiting"` // events without a row that are not overdue
	// Difference counts overdue events without a row, rows without an event, and second
	// rows of one event: 0, always.
	Difference int64 `ch:"difference" json:"difference"`
}

// Add adds the counts of other.
func (c *Conservation) Add(other Conservation) {
	c.Received += other.Received
	c.Attributed += other.Attributed
	c.Reversed += other.Reversed
	c.Duplicate += other.Duplicate
	c.Conflict += other.Conflict
	c.Unattributed += other.Unattributed
	c.Waiting += other.Waiting
	c.Difference += other.Difference
}

// String is the equation in words.
func (c Conservation) String() string {
	return fmt.Sprintf("received %d = attributed %d + reversed %d + duplicate %d + conflict %d + unattributed %d "+
		"+ waiting %d, difference %d", c.Received, c.Attributed, c.Reversed, c.Duplicate, c.Conflict,
		c.Unattributed, c.Waiting, c.Difference)
}

// conservationColumns are the columns of Conservation in the view
// workspace_conservation.
var conservationColumns = strings.Fields(
	"received attributed reversed duplicate conflict unattributed waiting difference")

// ConservationColumns are the columns of Conservation, for a query of the view
// workspace_conservation.
func ConservationColumns() string { return strings.Join(conservationColumns, ", ") }

// ConservationSums are the columns of Conservation, summed over rows of the view
// workspace_conservation, which the query calls by an alias.
func ConservationSums(alias string) string {
	var sums []string
	for _, name := range conservationColumns {
		sums = append(sums, fmt.Sprintf("sum(%s.%s) AS %s", alias, name, name))
	}
	return strings.Join(sums, ", ")
}

// ConservationQuery is a query for the Conservation of some rows. events selects
// event_partition, event_offset and entered_at of received events, outcomes
// event_partition, event_offset and verdict of judged ones. progress selects partition,
// src_offset, at, conversions_position, watermark and grace_ms of the Progress that
// counts: up to the newest that both selections have reached. Where it has none of a
// partition, no event without a row is overdue. It counts as the view
// workspace_conservation does: TestConservationIsTheViews of connectors/export holds
// the two together.
func ConservationQuery(events, outcomes, progress string) string {
	var sums, counts strings.Builder
	for _, verdict := range event.Verdicts() {
		fmt.Fprintf(&sums, "\tsum(of_%s) AS %s,\n", verdict, verdict)
		fmt.Fprintf(&counts, ",\n\t\tcountIf(verdict = '%s') AS of_%s", verdict, verdict)
	}
	return `
SELECT
	sum(events) AS received,
` + sums.String() + `	countIf(events > 0 AND rows = 0 AND NOT overdue) AS waiting,
	sum(if(
		events = 0,
		toInt64(rows),
		abs(toInt64(events) - 1) + greatest(toInt64(rows) - 1, 0) + toInt64(rows = 0 AND overdue))) AS difference
FROM
(
	SELECT
		event_partition,
		event_offset,
		countIf(verdict = '') AS events,
		countIf(verdict != '') AS rows,
		max(verdict = '' AND event_offset < judged_end AND entered_at < overdue_before
			AND NOT arrayExists(span -> entered_at BETWEEN span.1 AND span.2, longer_waits)) AS overdue` +
		counts.String() + `
	FROM
	(
		SELECT event_partition, event_offset, entered_at, '' AS verdict FROM (` + events + `)
		UNION ALL
		SELECT
			event_partition,
			event_offset,
			toDateTime64(0, 3, 'UTC') AS entered_at,
			toString(verdict) AS verdict
		FROM (` + outcomes + `)
	) AS r
	LEFT JOIN (` + waitEndsQuery(progress) + `) AS bounds ON bounds.partition = r.event_partition
	GROUP BY event_partition, event_offset
)
SETTINGS join_use_nulls = 0`
}

// waitEndsQuery is a query for which events must have a row, by partition, as the view
// wait_ends says it. progress is as in ConservationQuery.
func waitEndsQuery(progress string) string {
	return `
		SELECT
			partition,
			argMax(position, newest) AS judged_end,
			toUnixTimestamp64Milli(argMax(newest_watermark, newest)) AS watermark,
			fromUnixTimestamp64Milli(
				if(watermark = 0, 0, watermark - 300000 - argMax(grace, newest)), 'UTC') AS overdue_before,
			arrayFilter(
				span -> span.1 <= span.2 AND span.1 < overdue_before AND watermark != 0,
				arrayMap(
					named -> (
						fromUnixTimestamp64Milli(watermark - 300000 - named.1, 'UTC'),
						named.2 + INTERVAL 5 MINUTE),
					groupArray((grace, last_named_at)))) AS longer_waits
		FROM
		(
			SELECT
				partition,
				toInt64(grace_ms) AS grace,
				max(at) AS last_named_at,
				max(src_offset) AS newest,
				argMax(conversions_position, src_offset) AS position,
				argMax(watermark, src_offset) AS newest_watermark
			FROM (` + progress + `)
			GROUP BY partition, grace
		)
		GROUP BY partition`
}
