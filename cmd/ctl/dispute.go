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
)

func disputeCommands() []command {
	about := "answers a partner's list of orders (CSV with order_id or event_id, and amount, currency, date if " +
		"known) line by line, and sums it by currency on stderr"
	return []command{{"dispute", "FILE.csv", about, func(fs *flag.FlagSet) func(context.Context, *call) error {
		w := defineWarehouse(fs)
		partner := fs.String("partner", "", "`id` of the partner whose list it is: only what is attributed to "+
			"this partner is \"attributed here\"; any partner of the workspace if empty")
		return func(ctx context.Context, c *call) error {
			if len(c.args) != 1 {
				return usagef("exactly one FILE.csv is required")
			}
			file, err := os.Open(c.args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			claims, err := report.ReadClaims(file, c.args[0])
			if err != nil {
				return err
			}
			return w.ask(ctx, func(r *report.Reader) error {
				return c.dispute(ctx, r.Dispute(w.workspace, *partner), claims)
			})
		}
	}}}
}

// dispute writes the answers batch by batch. Those before a bad line are written.
func (c *call) dispute(ctx context.Context, d *report.Dispute, claims *report.Claims) error {
	added, err := addedColumns(claims)
	if err != nil {
		return err
	}
	out := csv.NewWriter(c.stdout)
	header := slices.Clone(claims.Header())
	for i := range header {
		header[i] = textCell(header[i])
	}
	if err := out.Write(append(header, added...)); err != nil {
		return fmt.Errorf("writing answers: %w", err)
	}
	for end := false; !end; {
		var batch []report.Claim
		var bad error
		for len(batch) < report.BatchClaims && !end {
			claim, err := claims.Next()
			if err != nil {
				end = true
				if !errors.Is(err, io.EOF) {
					bad = err
				}
				break
			}
			batch = append(batch, claim)
		}
		findings, err := d.Judge(ctx, batch)
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
	c.totals(d.Totals())
	return nil
}

// addedColumns are named with _here where the list has such a column itself.
func addedColumns(claims *report.Claims) ([]string, error) {
	place := func(name string) int {
		return slices.IndexFunc(claims.Header(), func(h string) bool {
			return strings.EqualFold(strings.TrimSpace(h), name)
		})
	}
	added := []string{"verdict_here", "partner", "net_amount", "currency", "difference"}
	for i, name := range added {
		if i > 0 && place(name) >= 0 {
			name += "_here"
		}
		if at := place(name); at >= 0 {
			return nil, claims.Refuse(at, "the list already has this column: is it an answer?")
		}
		added[i] = name
	}
	return added, nil
}

func answerCells(f *report.Finding, claims *report.Claims) []string {
	cells := slices.Clone(f.Cells)
	for i, cell := range cells {
		if !claims.Money(i) {
			cells[i] = textCell(cell)
		}
	}
	return append(cells, textCell(f.Words), textCell(f.Partner), number(f.Net), textCell(f.Currency),
		number(f.Difference))
}

func number(d *report.Decimal) string {
	if d == nil {
		return ""
	}
	return d.String()
}

// textCell keeps a spreadsheet from taking a text for a formula.
func textCell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r\n", rune(text[0])) {
		return "'" + text
	}
	return text
}

func (c *call) totals(totals []report.Total) {
	for _, t := range totals {
		currency := t.Currency
		if currency == "" {
			currency = "without currency"
		}
		line := fmt.Sprintf("%s: claimed %s, confirmed %s, difference %s", currency, t.Claimed, t.Confirmed,
			t.Difference)
		if zero := (report.Decimal{}); t.Unpriced.Cmp(zero) != 0 {
			line += fmt.Sprintf("; beyond the amounts claimed, confirmed %s", t.Unpriced)
		}
		fmt.Fprintln(c.stderr, line)
	}
	if len(totals) == 0 {
		fmt.Fprintln(c.stderr, "no amount on either side")
	}
}
