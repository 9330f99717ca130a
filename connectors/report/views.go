package report

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nimriz/partners/schemas/ledger"
)

// Freshness says how far the tables go.
type Freshness struct {
	// up to which all events are joined
	JoinedWatermark time.Time `ch:"joined_watermark" json:"joined_watermark"`
	// events, of all workspaces
	Waiting    uint64 `ch:"waiting" json:"waiting"`
	Partitions uint64 `ch:"partitions" json:"partitions"` // of the topics
	// that have not caught up
	Behind uint64 `ch:"partitions_behind" json:"partitions_behind"`
	// nil: no event waits
	OldestWaiting *time.Time `ch:"oldest_waiting" json:"oldest_waiting_received_at"`
}

// Freshness reads the view of that name.
func (r *Reader) Freshness(ctx context.Context) (*Freshness, error) {
	var found []Freshness
	if err := r.conn.Select(ctx, &found, `
SELECT
	joined_watermark,
	toUInt64(waiting) AS waiting,
	partitions,
	partitions_behind,
	toNullable(oldest_waiting_received_at) AS oldest_waiting
FROM freshness`); err != nil {
		return nil, fmt.Errorf("reading freshness: %w", err)
	}
	if len(found) == 0 {
		return &Freshness{}, nil
	}
	return &found[0], nil
}

// Conservation is a row of the view workspace_conservation_days.
type Conservation struct {
	WorkspaceID string `ch:"workspace_id" json:"workspace_id"`
	Day         string `ch:"day" json:"day"`           // of receipt
	Timezone    string `ch:"timezone" json:"timezone"` // of the day: an IANA name
	ledger.Conservation
}

// Key is the row's place in the list, for Page.After.
func (c *Conservation) Key() []string { return []string{c.Day} }

// Conservation calls each for the days of receipt of a workspace, in order.
func (r *Reader) Conservation(ctx context.Context, workspace string, f Filter, page Page,
	each func(*Conservation) error) error {
	c := inWorkspace(workspace)
	f.addDays(c, "v.day")
	c.args = append(c.args, f.zoneArg())
	if page.After != nil {
		if len(page.After) != 1 {
			return errCursor()
		}
		if _, err := time.Parse(time.DateOnly, page.After[0]); err != nil {
			return errCursor()
		}
		c.andArg("v.day > toDate({a0:String})", "a0", page.After[0])
	}
	query := `
SELECT workspace_id, toString(v.day) AS day, {tz:String} AS timezone, ` + ledger.ConservationColumns() + `
FROM workspace_conservation_days(tz = {tz:String}) AS v
WHERE ` + c.sql() + `
ORDER BY v.day`
	if page.Limit > 0 {
		query += "\nLIMIT " + strconv.Itoa(page.Limit)
	}
	return scanRows(ctx, r.conn, "conservation", query, c.args, each)
}

// TotalConservation sums the days of receipt that f selects. days is how many there
// are.
func (r *Reader) TotalConservation(ctx context.Context, workspace string, f Filter) (total ledger.Conservation,
	days int, err error) {
	f = Filter{Zone: f.Zone, From: f.From, To: f.To}
	err = r.Conservation(ctx, workspace, f, Page{}, func(c *Conservation) error {
		days++
		total.Add(c.Conservation)
		return nil
	})
	return total, days, err
}
