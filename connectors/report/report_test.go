package report_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/connectors/report/dispute"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
)

// Rows made by hand, and what is said about them: testdata/answers. `exec` runs
// statements, `why` and `dispute` print an answer's structure.
func TestAnswers(t *testing.T) {
	datadriven.Walk(t, "testdata/answers", func(t *testing.T, path string) {
		conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
		reader := report.New(conn)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			workspace, partner := "acme", ""
			d.MaybeScanArgs(t, "workspace", &workspace)
			d.MaybeScanArgs(t, "partner", &partner)
			switch d.Cmd {
			case "exec":
				for _, statement := range strings.Split(d.Input, ";\n") {
					if err := conn.Exec(t.Context(), strings.TrimSuffix(statement, ";")); err != nil {
						t.Fatalf("%s: %v", d.Pos, err)
					}
				}
			case "why":
				for _, id := range strings.Fields(d.Input) {
					answer, err := reader.Why(t.Context(), workspace, id)
					if err != nil {
						t.Fatalf("%s: %v", d.Pos, err)
					}
					writeAnswer(&out, answer)
				}
			case "dispute":
				writeDispute(t, &out, dispute.New(reader, workspace, partner), d.Input)
			default:
				t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
			}
			return out.String()
		})
	})
}

func writeAnswer(out *strings.Builder, a *report.Answer) {
	fmt.Fprintf(out, "%s: %d events, %d refused, effect under %d tokens\n", a.EventID, len(a.Records), len(a.Refused),
		a.Tokens)
	for _, r := range a.Refused {
		fmt.Fprintf(out, "  refused %s %d %s\n", ledger.FormatTime(r.ReceivedAt), r.Status, r.Words())
	}
	for _, e := range a.Records {
		fmt.Fprintf(out, "  %d/%d %s %s: %s\n", e.Partition, e.Offset, e.Verdict, e.Reason, e.Words())
		if e.Snapshot != nil {
			fmt.Fprintf(out, "    click %s link %q partner %q program %q\n", ledger.FormatTime(*e.Snapshot.At),
				e.Snapshot.LinkID,
				e.Snapshot.PartnerID, e.Snapshot.ProgramID)
		}
		if e.Wait != nil {
			fmt.Fprintf(out, "    wait %s\n", e.Wait.Words())
		}
		for _, l := range e.Chain {
			standing := "no effect"
			if l.Standing != nil {
				standing = l.Standing.String()
			}
			this := ""
			if l.Event == e.Event {
				this = " ← this"
			}
			fmt.Fprintf(out, "    %s%s %s %s: %s%s\n", strings.Repeat("  ", l.Depth), l.EventID, l.Type, l.Verdict,
				standing, this)
		}
	}
}

func writeDispute(t *testing.T, out *strings.Builder, d *dispute.Dispute, list string) {
	claims, err := dispute.ReadClaims(strings.NewReader(list), "list.csv")
	var batch []dispute.Claim
	for err == nil {
		var claim dispute.Claim
		if claim, err = claims.Next(); err == nil {
			batch = append(batch, claim)
		}
	}
	findings, judging := d.Answer(t.Context(), batch)
	if judging != nil {
		t.Fatal(judging)
	}
	for _, f := range findings {
		text := func(d *decimal.Decimal) string {
			if d == nil {
				return "-"
			}
			return ledger.FormatDecimal(*d)
		}
		fmt.Fprintf(out, "%d: %s | partner %q | confirmed %s %s | difference %s\n", f.Line, f.Words, f.Partner,
			text(f.Confirmed), f.Currency, text(f.Difference))
		if !strings.HasPrefix(f.Words, string(f.Verdict)) && f.Words != "attributed to no partner" {
			t.Errorf("the words %q are not about %q", f.Words, f.Verdict)
		}
	}
	if !errors.Is(err, io.EOF) {
		fmt.Fprintln(out, err)
	}
	for _, total := range d.Totals() {
		fmt.Fprintf(out, "%s: claimed %s confirmed %s difference %s unpriced %s\n", total.Currency,
			ledger.FormatDecimal(total.Claimed), ledger.FormatDecimal(total.Confirmed),
			ledger.FormatDecimal(total.Difference), ledger.FormatDecimal(total.Unpriced))
	}
}
