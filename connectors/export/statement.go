package export

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/statement"
)

// setStatement fills in the days of a statement, and reports a filter that it cannot
// have: one under which a chain of events would not be whole, or that is of events.
func (c *Config) setStatement() error {
	if c.Statement == "" {
		return nil
	}
	month, err := statement.ParseMonth(c.Statement)
	if err != nil {
		return fmt.Errorf("-statement: %w", err)
	}
	if len(c.Verdict) == 0 {
		c.Verdict = DefaultVerdicts()
	}
	switch {
	case c.Since != nil:
		return fmt.Errorf("-since: a statement has no delta: write it again when it is final")
	case c.Link != "":
		return fmt.Errorf("-link: a statement is of partners: it takes -partner and -program")
	case len(c.Type)+len(c.Review) > 0 || !slices.Equal(c.Verdict, DefaultVerdicts()):
		return fmt.Errorf("-type, -review, -verdict: a statement has all events that count")
	}
	first, last := month.Days()
	from, to := first.Format(time.DateOnly), last.Format(time.DateOnly)
	if c.From != "" && c.From != from || c.To != "" && c.To != to {
		return fmt.Errorf("-from, -to: a statement is of its month, %s to %s", from, to)
	}
	c.From, c.To = from, to
	return nil
}

// readClosing reads whether the statement is final, and the end of its month in the
// zone that the workspace has now.
func (e *exporter) readClosing(ctx context.Context) (c statement.Closing, end time.Time, err error) {
	f := e.cfg.Filters
	if f.Timezone, err = e.readZone(ctx, WholeCatalog); err != nil {
		return c, end, err
	}
	if _, end, err = resolveDays(f); err != nil {
		return c, end, err
	}
	var found []statement.Closing
	if err := e.conn.Select(ctx, &found, statement.ClosingQuery,
		clickhouse.Named("end", end.UnixMilli())); err != nil {
		return c, end, fmt.Errorf("reading how far all events are judged: %w", err)
	}
	return found[0], end, nil
}

// statementPartners is a query for the partners as of the catalog's end.
const statementPartners = `
SELECT
	JSONExtractString(argMax(json, src_offset) AS last, 'id') AS id,
	JSONExtractString(last, 'key') AS partner_key,
	JSONExtractString(last, 'name') AS partner_name
FROM catalog_versions
WHERE kind = 'partner' AND catalog_versions.workspace_id = {w:String} AND src_offset < {catalog:UInt64}
GROUP BY key
HAVING last != ''`

// historyOf is the condition on rows of outcomes, or of statement_rows, that had arrived and that a
// statement's filters select, of all times.
func historyOf(f Filters) string {
	where := "workspace_id = {w:String} AND " + belowEnds("src_partition", "src_offset", "outcomes")
	if f.Partner != "" {
		where += " AND partner_id = {partner:String}"
	}
	if f.Program != "" {
		where += " AND program_id = {program:String}"
	}
	return where
}

// writeAccounts writes the CSV of a statement. The totals and the hash are of what it
// wrote.
func (e *exporter) writeAccounts(ctx context.Context, p plan, to io.Writer) (w written, err error) {
	history, args := historyOf(p.filters), newSelection(p).args
	if err := e.checkNonePending(ctx, history, args); err != nil {
		return w, err
	}
	hash := sha256.New()
	out := bufio.NewWriter(io.MultiWriter(to, hash))
	out.WriteString(p.header() + "\n") // an error comes back with Flush
	totals := statement.Totals{}
	err = statement.Collect(p.statementHead(), func(each func(*statement.Sums) error) error {
		return e.readSums(ctx, statement.Query(history, statementPartners), args, each)
	}, func(a *statement.Account) error {
		line, err := a.CSVLine(p.raw)
		if err != nil {
			return fmt.Errorf("writing the CSV: %w", err)
		}
		out.WriteString(line + "\n")
		totals.Add(a)
		w.rows++
		return nil
	})
	if err != nil {
		return w, err
	}
	if err := out.Flush(); err != nil {
		return w, fmt.Errorf("writing the CSV: %w", err)
	}
	w.sha256 = hex.EncodeToString(hash.Sum(nil))
	w.totals = formatTotals(totals)
	return w, checkSameBytes(p.repeats, w)
}

// statementHead is what each line of the plan's statement says of the whole.
func (p plan) statementHead() statement.Head {
	h := statement.Head{
		WorkspaceID: p.filters.Workspace,
		Month:       p.filters.Statement,
		Timezone:    p.filters.Timezone,
		Start:       p.start,
		End:         p.end,
		Status:      statement.Final,
	}
	if p.provisional {
		h.Status = statement.Open
	}
	return h
}

// readSums calls each for the rows of a statement's query.
func (e *exporter) readSums(ctx context.Context, query string, args []any, each func(*statement.Sums) error) error {
	rows, err := e.conn.Rows(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("reading the accounts: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var s statement.Sums
		if err := rows.ScanStruct(&s); err != nil {
			return fmt.Errorf("reading the accounts: %w", err)
		}
		if err := each(&s); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading the accounts: %w", err)
	}
	return nil
}

// checkNonePending reports rows before the month's end whose standing change is not
// computed yet: once it is, -as-of would write other bytes.
func (e *exporter) checkNonePending(ctx context.Context, history string, args []any) error {
	var counts []struct {
		Pending uint64 `ch:"pending"`
	}
	query := `
SELECT count() AS pending
FROM outcomes
WHERE ` + history + `
	AND standing_basis = 'pending'
	AND received_at < fromUnixTimestamp64Milli({end:Int64}, 'UTC')`
	if err := e.conn.Select(ctx, &counts, query, args...); err != nil {
		return fmt.Errorf("looking for standing changes that are missing: %w", err)
	}
	if counts[0].Pending > 0 {
		return pendingError(counts[0].Pending)
	}
	return nil
}

// formatTotals writes the totals by currency, then column.
func formatTotals(totals statement.Totals) map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, t := range totals.List() {
		out[t.Currency] = map[string]string{
			"opening":            t.Opening.String(),
			"attributed":         t.Attributed.String(),
			"taken_back":         t.TakenBack.String(),
			"given_back":         t.GivenBack.String(),
			"closing":            t.Closing.String(),
			"attributed_earlier": t.AttributedEarlier.String(),
			"taken_back_earlier": t.TakenBackEarlier.String(),
			"given_back_earlier": t.GivenBackEarlier.String(),
		}
	}
	return out
}
