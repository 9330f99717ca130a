package report

import (
	"context"
	"fmt"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/ledger"
)

// Diagnosis explains why a selection has no rows, or no events.
type Diagnosis struct {
	Clicks          ClickCounts         // of the selection
	OtherClicks     uint64              // of the workspace, outside of the selection
	WithheldReasons []ReasonCount       // clicks of the selection without a token
	Received        ledger.Conservation // events received on the selected days
	Reasons         []ReasonCount       // unattributed events of the selection
	RefusedReasons  []ReasonCount       // events refused on the selected days, by code
}

// ClickCounts counts clicks by what became of their tokens.
type ClickCounts struct {
	All      uint64 `ch:"clicks"`   // once each
	Tokened  uint64 `ch:"tokened"`  // the merchant was shown the token
	Withheld uint64 `ch:"withheld"` // the destination could not take it
	Off      uint64 `ch:"off"`      // the link has no tracking
}

// ReasonCount counts what has one reason.
type ReasonCount struct {
	Reason string `ch:"name"`
	Count  uint64 `ch:"n"`
}

// Diagnose counts what there is around a selection without rows.
func (r *Reader) Diagnose(ctx context.Context, workspace string, f Filter) (*Diagnosis, error) {
	d := &Diagnosis{}
	if err := r.diagnoseClicks(ctx, workspace, f, d); err != nil {
		return nil, fmt.Errorf("counting clicks: %w", err)
	}
	if err := r.diagnoseEvents(ctx, workspace, f, d); err != nil {
		return nil, fmt.Errorf("counting events: %w", err)
	}
	return d, nil
}

func (r *Reader) diagnoseClicks(ctx context.Context, workspace string, f Filter, d *Diagnosis) error {
	c := inWorkspace(workspace)
	f.addDimensions(c)
	f.addTimes(c, "clicked_at")
	var counts []ClickCounts
	if err := r.conn.Select(ctx, &counts, `
SELECT
	count() AS clicks,
	countIf(token_status = 'appended') AS tokened,
	countIf(token_status = 'withheld') AS withheld,
	countIf(token_status = 'off') AS off
FROM clicks
WHERE `+c.sql(), c.args...); err != nil {
		return err
	}
	d.Clicks = counts[0]
	if err := r.conn.Select(ctx, &d.WithheldReasons, `
SELECT toString(token_reason) AS name, count() AS n
FROM clicks
WHERE token_status != 'appended' AND `+c.sql()+`
GROUP BY name
ORDER BY n DESC, name
LIMIT 6`, c.args...); err != nil {
		return err
	}
	var all []ReasonCount
	if err := r.conn.Select(ctx, &all, "SELECT '' AS name, count() AS n FROM clicks WHERE workspace_id = {w:String}",
		clickhouse.Named("w", workspace)); err != nil {
		return err
	}
	if all[0].Count > d.Clicks.All { // clicks may arrive between the two queries
		d.OtherClicks = all[0].Count - d.Clicks.All
	}
	return nil
}

func (r *Reader) diagnoseEvents(ctx context.Context, workspace string, f Filter, d *Diagnosis) (err error) {
	events := f.ofEvents(workspace)
	if err := r.conn.Select(ctx, &d.Reasons, `
SELECT toString(reason) AS name, count() AS n
FROM outcomes
WHERE verdict = 'unattributed' AND `+events.sql()+`
GROUP BY name
ORDER BY n DESC, name
LIMIT 8`, events.args...); err != nil {
		return err
	}
	received := inWorkspace(workspace)
	f.addTimes(received, "received_at")
	if err := r.conn.Select(ctx, &d.RefusedReasons, `
SELECT toString(code) AS name, count() AS n
FROM rejections
WHERE `+received.sql()+`
GROUP BY name
ORDER BY n DESC, name
LIMIT 6`, received.args...); err != nil {
		return err
	}
	d.Received, _, err = r.TotalConservation(ctx, workspace, f)
	return err
}
