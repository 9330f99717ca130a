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
	"github.com/nimriz/partners/connectors/report/sheet"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
)

// Rows made by hand, and what is said about them: testdata/answers. `exec` runs
// statements; `events`, `settle` and `watermark` are those of an eventScript; `why`,
// `order` and `dispute` print an answer's structure.
func TestAnswers(t *testing.T) {
	datadriven.Walk(t, "testdata/answers", func(t *testing.T, path string) {
		conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
		reader := report.New(conn)
		script := &eventScript{conn: conn}
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
			case "events":
				if len(script.events) == 0 {
					script.prepare(t)
				}
				for line := range strings.Lines(d.Input) {
					script.add(t, line)
				}
			case "settle":
				for line := range strings.Lines(d.Input) {
					script.settle(t, line)
				}
			case "watermark":
				script.progress(t, 1, strings.TrimSpace(d.Input))
			case "why", "order":
				column := map[string]report.KeyColumn{"why": report.ByEventID, "order": report.ByOrderID}[d.Cmd]
				for _, id := range strings.Fields(d.Input) {
					answer, err := reader.Why(t.Context(), workspace, column, id)
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
	fmt.Fprintf(out, "%s: %d events, %d refused, effect under %d tokens\n", a.Key, len(a.Records), len(a.Refused),
		a.Tokens)
	for _, q := range a.Similar {
		fmt.Fprintf(out, "  there is %s\n", q.Words())
	}
	for _, count := range a.Counted {
		fmt.Fprintf(out, "  order %q %s\n", count.OrderID, count.Words())
	}
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
		if e.Named != nil {
			fmt.Fprintf(out, "    names %s\n", e.Named)
		}
		for _, d := range e.Differs {
			fmt.Fprintf(out, "    differs %s %q %q\n", d.Field, d.First, d.This)
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
	writeNegatives(out, a)
}

func writeNegatives(out *strings.Builder, a *report.Answer) {
	for _, n := range a.Negatives {
		fmt.Fprintf(out, "  ! %s: %s\n", n.Subject(), n.Words())
	}
	if a.MoreNegatives {
		fmt.Fprintf(out, "  ! more than %d\n", len(a.Negatives))
	}
}

func writeDispute(t *testing.T, out *strings.Builder, d *dispute.Dispute, list string) {
	claims, err := dispute.ReadClaims(strings.NewReader(list), "list.csv", sheet.Options{})
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
		fmt.Fprintf(out, "%d: %s | partner %q | confirmed %s %s | difference %s\n", f.Line, f.Words, f.PartnerCell(),
			text(f.Confirmed), f.Currency, text(f.Difference))
		for _, words := range f.WithoutEffectWords() {
			fmt.Fprintf(out, "   ! %s\n", words)
		}
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
