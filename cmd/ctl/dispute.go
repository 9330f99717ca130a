package main

import (
	"context"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/connectors/report/dispute"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
)

func disputeCommands() []command {
	about := "answers a partner's list of orders (CSV with order_id or event_id, and amount, currency, date if " +
		"known) line by line, and sums it by currency on stderr"
	return []command{{"dispute", "FILE.csv", about, func(fs *flag.FlagSet) func(context.Context, *call) error {
		w := defineWarehouse(fs)
		partner := fs.String("partner", "", "`id` of the partner who sent the list: only events of this partner "+
			"count as \"attributed here\", and the answer shows no token and nothing that names another partner or "+
			"their events; if empty, any partner of the workspace counts, and the answer is for the workspace alone")
		return func(ctx context.Context, c *call) error {
			if len(c.args) != 1 {
				return usagef("exactly one FILE.csv is required")
			}
			file, err := os.Open(c.args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			claims, err := dispute.ReadClaims(file, c.args[0])
			if err != nil {
				return err
			}
			return w.withReader(ctx, func(r *report.Reader) error {
				return c.answerClaims(ctx, dispute.New(r, w.workspace, *partner), claims)
			})
		}
	}}}
}

// answerClaims writes the answers in batches. If a line is bad, it still writes the
// answers to the lines before it.
func (c *call) answerClaims(ctx context.Context, d *dispute.Dispute, claims *dispute.Claims) error {
	added, err := addedColumns(claims)
	if err != nil {
		return err
	}
	out := csv.NewWriter(c.stdout)
	header := slices.Clone(claims.Header())
	for i := range header {
		header[i] = ledger.EscapeFormula(ledger.Version, header[i])
	}
	if err := out.Write(append(header, added...)); err != nil {
		return fmt.Errorf("writing answers: %w", err)
	}
	for more := true; more; {
		batch, bad := claims.NextBatch()
		if more = bad == nil; errors.Is(bad, io.EOF) {
			bad = nil
		}
		findings, err := d.Answer(ctx, batch)
		if err != nil {
			return err
		}
		for i := range findings {
			if err := out.Write(answerCells(&findings[i], claims)); err != nil {
				return fmt.Errorf("writing answers: %w", err)
			}
		}
		out.Flush()
		if err := errors.Join(out.Error(), bad); err != nil {
			return err
		}
	}
	c.printTotals(d.Totals())
	if w := d.Warnings(); w != (dispute.Warnings{}) {
		fmt.Fprintf(c.stderr, "claims of which a negative has no effect: %d; claims whose order counts several times: "+
			"%d\n", w.WithoutEffect, w.Counted)
	}
	return nil
}

// addedColumns returns the columns that an answer adds to the list. A name that the
// list has already gets the suffix _here.
func addedColumns(claims *dispute.Claims) ([]string, error) {
	columnOf := func(name string) int {
		return slices.IndexFunc(claims.Header(), func(h string) bool {
			return strings.EqualFold(strings.TrimSpace(h), name)
		})
	}
	added := []string{"verdict_here", "partner", "confirmed", "currency", "difference", "without_effect"}
	for i, name := range added {
		if i > 0 && columnOf(name) >= 0 {
			name += "_here"
		}
		if at := columnOf(name); at >= 0 {
			return nil, claims.RefuseColumn(at, "the list already has this column: is it an answer?")
		}
		added[i] = name
	}
	return added, nil
}

func answerCells(f *dispute.Finding, claims *dispute.Claims) []string {
	cells := slices.Clone(f.Cells)
	for i, cell := range cells {
		if !claims.IsAmount(i) {
			cells[i] = ledger.EscapeFormula(ledger.Version, cell)
		}
	}
	return append(cells,
		ledger.EscapeFormula(ledger.Version, f.Words),
		ledger.EscapeFormula(ledger.Version, f.PartnerCell()),
		amountCell(f.Confirmed),
		ledger.EscapeFormula(ledger.Version, f.Currency),
		amountCell(f.Difference),
		ledger.EscapeFormula(ledger.Version, strings.Join(f.WithoutEffectWords(), " | ")))
}

func amountCell(d *decimal.Decimal) string {
	if d == nil {
		return ""
	}
	return ledger.FormatDecimal(*d)
}

func (c *call) printTotals(totals []dispute.Total) {
	for _, t := range totals {
		currency := t.Currency
		if currency == "" {
			currency = "without currency"
		}
		line := fmt.Sprintf("%s: claimed %s, confirmed %s, difference %s", currency,
			ledger.FormatDecimal(t.Claimed), ledger.FormatDecimal(t.Confirmed), ledger.FormatDecimal(t.Difference))
		if !t.Unpriced.IsZero() {
			line += "; beyond the amounts claimed, confirmed " + ledger.FormatDecimal(t.Unpriced)
		}
		fmt.Fprintln(c.stderr, line)
	}
	if len(totals) == 0 {
		fmt.Fprintln(c.stderr, "no amount on either side")
	}
}
