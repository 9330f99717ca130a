package statement

import (
	"time"

	"github.com/nimriz/partners/schemas/calendar"
)

// Status says whether a statement can still change.
type Status string

// The states, in the order in which a month has them.
const (
	Running Status = "running" // the watermark has not passed the month's end
	Open    Status = "open"    // events of the month may still wait
	Final   Status = "final"   // no event of the month can get a row any more
)

// Statuses are all states.
func Statuses() []Status { return []Status{Running, Open, Final} }

// Closing is the row of ClosingQuery.
type Closing struct {
	// Watermark is the least of all partitions: everything that reached Kafka before it
	// is judged or waits, and is in ClickHouse. 1970: one is not known.
	Watermark time.Time `ch:"watermark"`
	// FinalAt is what the watermark has to pass. 1970: no grace is known.
	FinalAt time.Time `ch:"final_at"`
}

// IsFinal reports whether the watermark has passed what it has to pass.
func (c Closing) IsFinal() bool { return c.FinalAt.UnixMilli() > 0 && !c.Watermark.Before(c.FinalAt) }

// ClosingQuery is a query for the Closing of a month. It has the parameter end, the
// month's end in milliseconds (Int64).
//
// lag is how far the watermark must be past an instant, so that each event that entered
// before it must have a row: as the view wait_ends has it, also for the spans in which a
// longer grace counts. A partition of which something was inserted and that has not
// reported has no watermark.
const ClosingQuery = `
SELECT
	fromUnixTimestamp64Milli(min(at), 'UTC') AS watermark,
	fromUnixTimestamp64Milli(if(max(lag) = 0, 0, {end:Int64} + max(lag)), 'UTC') AS final_at
FROM
(
	SELECT
		toUnixTimestamp64Milli(w.watermark) AS at,
		if(
			at = 0,
			0,
			arrayMax(arrayPushBack(
				arrayMap(
					span -> at - toUnixTimestamp64Milli(span.1),
					arrayFilter(span -> toUnixTimestamp64Milli(span.1) < {end:Int64}, w.longer_waits)),
				at - toUnixTimestamp64Milli(w.overdue_before)))) AS lag
	FROM
	(
		SELECT DISTINCT partition
		FROM batches
		WHERE topic IN ('clicks', 'conversions', 'outcomes', 'progress')
	) AS known
	LEFT JOIN wait_ends AS w ON w.partition = known.partition
	SETTINGS join_use_nulls = 0
)`

// Head says what a statement is of and whether it can change.
type Head struct {
	WorkspaceID string    `json:"workspace_id"`
	Month       string    `json:"month"`    // such as 2026-11
	Timezone    string    `json:"timezone"` // of the month
	Start       time.Time `json:"start"`    // first instant of the month
	End         time.Time `json:"end"`      // first instant behind it
	Status      Status    `json:"status"`
	// FinalAt is what the watermark has to pass, so that the statement is final. nil: no
	// processor has said how long an event waits.
	FinalAt *time.Time `json:"final_at"`
	// Watermark is how far all events are judged or wait. nil: not known.
	Watermark *time.Time `json:"watermark"`
}

// NewHead is the head of a month's statement.
func NewHead(workspace string, month Month, zone calendar.Zone, c Closing) Head {
	h := Head{WorkspaceID: workspace, Month: month.String(), Timezone: zone.Name(), Status: Open}
	h.Start, h.End = month.Bounds(zone)
	if c.FinalAt.UnixMilli() > 0 {
		h.FinalAt = &c.FinalAt
	}
	if c.Watermark.UnixMilli() <= 0 {
		return h
	}
	h.Watermark = &c.Watermark
	switch {
	case c.Watermark.Before(h.End):
		h.Status = Running
	case c.IsFinal():
		h.Status = Final
	}
	return h
}
