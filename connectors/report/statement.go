package report

import (
	"cmp"
	"context"
	"fmt"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/calendar"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/statement"
)

// StatementFilter selects what a statement of account is about.
type StatementFilter struct {
	Month   statement.Month
	Partner string // id; "": all
	Program string // id; "": all
}

// ZoneOf is the time zone of a workspace's days, as the catalog has it now. It is that of
// all days, also of those before the workspace had it: each instant is on one day.
func ZoneOf(ws *catalog.Workspace) (calendar.Zone, error) {
	zone, err := calendar.LoadZone(cmp.Or(ws.Timezone, catalog.DefaultTimezone))
	if err != nil {
		return zone, fmt.Errorf("the timezone of workspace %s: %w", ws.ID, err)
	}
	return zone, nil
}

// StatementHead says what the statement of a month is of, and whether it can change. It
// comes before the accounts: what it calls final stays final while they are read.
func (r *Reader) StatementHead(ctx context.Context, ws *catalog.Workspace, month statement.Month) (h statement.Head,
	err error) {
	zone, err := ZoneOf(ws)
	if err != nil {
		return h, err
	}
	_, end := month.Bounds(zone)
	var found []statement.Closing
	if err := r.conn.Select(ctx, &found, statement.ClosingQuery,
		clickhouse.Named("end", end.UnixMilli())); err != nil {
		return h, fmt.Errorf("reading how far all events are judged: %w", err)
	}
	return statement.NewHead(ws.ID, month, zone, found[0]), nil
}

// Accounts calls each for the accounts of a statement, in the order of partner and
// currency.
func (r *Reader) Accounts(ctx context.Context, h statement.Head, f StatementFilter,
	each func(*statement.Account) error) error {
	c := inWorkspace(h.WorkspaceID)
	Filter{Partner: f.Partner, Program: f.Program}.addDimensions(c)
	query := statement.Query(c.sql(), `
SELECT partner_id AS id, partner_key, partner_name
FROM partners_now
WHERE workspace_id = {w:String}`)
	args := append(c.args,
		clickhouse.Named("start", h.Start.UnixMilli()),
		clickhouse.Named("end", h.End.UnixMilli()))
	return statement.Collect(h, func(each func(*statement.Sums) error) error {
		return scanRows(ctx, r.conn, "the statement", query, args, each)
	}, each)
}
