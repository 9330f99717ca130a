package dispute

import (
	"encoding/csv"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/nimriz/partners/connectors/report/sheet"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
)

// Answers writes findings as a CSV, each beside its line of the list.
type Answers struct {
	out    *csv.Writer
	claims *Claims
	report string // URL of the report that the links to why lead to; "": no links
}

// NewAnswers writes the header: that of the list, and what is added. A name that the list
// has already gets the suffix _here. report is the URL of a report; with "" there is no
// column why.
func NewAnswers(to io.Writer, claims *Claims, report string) (*Answers, error) {
	a := &Answers{csv.NewWriter(to), claims, strings.TrimSuffix(report, "/")}
	added, err := a.addedColumns()
	if err != nil {
		return nil, err
	}
	header := slices.Clone(claims.Header())
	for i := range header {
		header[i] = escapeCell(header[i])
	}
	if err := a.out.Write(append(header, added...)); err != nil {
		return nil, fmt.Errorf("writing answers: %w", err)
	}
	return a, nil
}

func (a *Answers) addedColumns() ([]string, error) {
	columnOf := func(name string) int {
		return slices.IndexFunc(a.claims.Header(), func(h string) bool {
			return strings.EqualFold(strings.TrimSpace(h), name)
		})
	}
	added := []string{"verdict_here", "partner", "confirmed", "currency", "difference", "without_effect",
		"partner_name"}
	if a.report != "" {
		added = append(added, "why")
	}
	for i, name := range added {
		if i > 0 && columnOf(name) >= 0 {
			name += "_here"
		}
		if at := columnOf(name); at >= 0 {
			return nil, a.claims.RefuseColumn(at, "the list already has this column: is it an answer?")
		}
		added[i] = name
	}
	return added, nil
}

// Write writes findings, in their order.
func (a *Answers) Write(findings []Finding) error {
	for i := range findings {
		if err := a.out.Write(a.cells(&findings[i])); err != nil {
			return fmt.Errorf("writing answers: %w", err)
		}
	}
	a.out.Flush()
	if err := a.out.Error(); err != nil {
		return fmt.Errorf("writing answers: %w", err)
	}
	return nil
}

func (a *Answers) cells(f *Finding) []string {
	cells := slices.Clone(f.Cells)
	for i, cell := range cells {
		if !a.claims.Is(i, sheet.Amount) {
			cells[i] = escapeCell(cell)
		}
	}
	cells = append(cells,
		escapeCell(f.Words),
		escapeCell(f.PartnerCell()),
		amountCell(f.Confirmed),
		escapeCell(f.Currency),
		amountCell(f.Difference),
		escapeCell(strings.Join(f.WithoutEffectWords(), " | ")),
		escapeCell(f.PartnerNameCell()))
	if a.report != "" {
		cells = append(cells, a.report+f.WhyPath())
	}
	return cells
}

// escapeCell escapes formulas. A cell of a CSV of ours is escaped already, and comes out
// as it came.
func escapeCell(text string) string {
	return ledger.EscapeFormula(ledger.Version, ledger.UnescapeFormula(text))
}

func amountCell(d *decimal.Decimal) string {
	if d == nil {
		return ""
	}
	return ledger.FormatDecimal(*d)
}

// WhyPath is where the report says why the claim's events count as they do.
func (f *Finding) WhyPath() string {
	return "/why?" + url.Values{string(f.column): {f.key}}.Encode()
}
