package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/connectors/report/dispute"
	"github.com/nimriz/partners/connectors/report/sheet"
	"github.com/nimriz/partners/schemas/ledger"
)

func disputeCommands() []command {
	about := "answers a partner's list of orders (CSV with order_id or event_id, and amount, currency, date if " +
		"known; also as Excel saves it) line by line, and sums it by currency on stderr"
	return []command{{"dispute", "FILE.csv", about, func(fs *flag.FlagSet) func(context.Context, *call) error {
		w := defineWarehouse(fs)
		partner := fs.String("partner", "", "`id` of the partner who sent the list: only events of this partner "+
			"count as \"attributed here\", and the answer shows no token and nothing that names another partner or "+
			"their events; if empty, any partner of the workspace counts, and the answer is for the workspace alone")
		var opts sheet.Options
		fs.StringVar(&opts.Separator, "separator", "", "what separates cells: , ; | or tab; if empty, as the list "+
			"says")
		fs.StringVar(&opts.Decimal, "decimal", "", "`mark` before decimals, point or comma; if empty, as the amounts "+
			"say")
		fs.StringVar(&opts.Currency, "currency", "", "`code` of amounts that stand without one, or with a sign such "+
			"as $")
		reportURL := fs.String("report-url", "", "`URL` of the report: the answer gets a column why with links to it")
		return func(ctx context.Context, c *call) error {
			if len(c.args) != 1 {
				return usagef("exactly one FILE.csv is required")
			}
			if err := opts.Validate(); err != nil {
				return usageError{err}
			}
			if u, err := url.Parse(*reportURL); *reportURL != "" && (err != nil || u.Host == "") {
				return usagef("-report-url: %q is not a URL such as https://report.example.com", *reportURL)
			}
			file, err := os.Open(c.args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			claims, err := dispute.ReadClaims(file, c.args[0], opts)
			if err != nil {
				return err
			}
			return w.withReader(ctx, func(r *report.Reader) error {
				return c.answerClaims(ctx, dispute.New(r, w.workspace, *partner), claims, *reportURL)
			})
		}
	}}}
}

// answerClaims writes the answers in batches, and what was assumed of the list before
// them. If a line is bad, it still writes the answers to the lines before it.
func (c *call) answerClaims(ctx context.Context, d *dispute.Dispute, claims *dispute.Claims, reportURL string) error {
	for _, text := range claims.Assumptions() {
		fmt.Fprintln(c.stderr, "assumed:", text)
	}
	answers, err := dispute.NewAnswers(c.stdout, claims, reportURL)
	if err != nil {
		return err
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
		if err := errors.Join(answers.Write(findings), bad); err != nil {
			return err
		}
	}
	if words := d.DroppedWords(); words != "" {
		fmt.Fprintln(c.stderr, words)
	}
	c.printTotals(d.Totals())
	if w := d.Warnings(); w != (dispute.Warnings{}) {
		fmt.Fprintf(c.stderr, "claims of which a negative has no effect: %d; claims whose order counts several times: "+
			"%d\n", w.WithoutEffect, w.Counted)
	}
	return nil
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
