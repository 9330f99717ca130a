package attribution_test

import (
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/nimriz/partners/schemas/event"
)

// allowedCells is what the rules allow: each line of the table of verdicts with the
// types of event that it can meet, how these find their parent, and the flags that such
// a row can have.
//
// Types: positive is lead and sale, negative the other three, any all five.
//
// Parents: known comes before the event in the order of record, late after it; both are
// named. missing is named and never arrives. inferred was found although none was
// named. none is a positive inside the window, a row that is decided before a parent is
// looked for, an event that names itself, or one that names nothing and finds nothing.
//
// Flags: "-" is a row without any flag. click means the flags that follow from the
// click, or none of them; later means those of an event after the window. taken means
// those of reversed rows. Combinations that cannot occur:
//   - expired, click_not_found and workspace_mismatch show no snapshot, so no flag
//     follows from it
//   - an event before the click is always too fast; one after the window never is (the
//     shortest window is a second), and so no follower is
//   - every unattributed negative is without effect, every sale with the reason
//     order_repeated has the flag, and so has no such row no flag
//   - the parent of a refund of a refund is named: by order, or without any id, only
//     positives are found
//   - only a parent that was not named can be inferred; with an order of one sale it is
//     found and not flagged
const allowedCells = `
unattributed expired             | positive     | none                | -
unattributed expired             | negative     | none                | without_effect
unattributed click_not_found     | positive     | none                | -
unattributed click_not_found     | negative     | none                | without_effect
unattributed workspace_mismatch  | positive     | none                | -
unattributed workspace_mismatch  | negative     | none                | without_effect
duplicate                        | any          | none                | click
conflict                         | any          | none                | click money_differs
unattributed token_full          | positive     | none                | click
unattributed token_full          | negative     | none                | clicked without_effect
unattributed before_click        | positive     | none                | clicked
unattributed outside_window      | positive     | none known late     | later
unattributed wrong_parent        | positive     | none known late     | later
unattributed parent_not_found    | positive     | missing             | later
unattributed parent_unattributed | positive     | known late          | later
unattributed order_repeated      | sale         | none                | clicked order_repeated
unattributed order_repeated      | sale         | known late          | bot_click partner_review no_partner order_repeated
attributed                       | positive     | none                | click dated_back
attributed                       | positive     | known late          | later dated_back
attributed                       | sale         | none known late     | order_repeated
unattributed wrong_parent        | refund       | known late          | clicked without_effect
unattributed wrong_parent        | cancellation | known late          | clicked without_effect
unattributed wrong_parent        | negative     | none                | clicked without_effect
unattributed parent_ambiguous    | negative     | none                | clicked without_effect
unattributed parent_not_found    | negative     | missing none        | clicked without_effect
unattributed parent_unattributed | negative     | known late inferred | clicked without_effect
reversed                         | negative     | known late          | click taken dated_back
reversed                         | negative     | inferred            | click taken parent_inferred dated_back
`

var shorthand = map[string]string{
	"any":      "lead sale refund cancellation reversal",
	"positive": "lead sale",
	"negative": "refund cancellation reversal",
	"click":    "- bot_click partner_review no_partner too_fast",
	"clicked":  "bot_click partner_review no_partner too_fast",
	"later":    "- bot_click partner_review no_partner",
	"taken":    "over_reversed currency_mismatch amount_missing",
}

var allFlags = append([]string{"-"}, event.Flags()...)

// coverageRow is a row of a scenario. All but its flags name a line of the matrix.
type coverageRow struct {
	verdict string   // and reason
	typ     string   // of event
	parent  string   // how it was found
	flags   []string // "-" if there is none
}

func (c coverageRow) matrixLine() string {
	return fmt.Sprintf("%-32s  %-12s  %-8s", c.verdict, c.typ, c.parent)
}

// recordCoverage adds a row of the script to those that TestCoverage counts.
func (s *scriptPlayer) recordCoverage(o *event.Outcome) {
	c := coverageRow{
		verdict: strings.TrimSpace(string(o.Verdict) + " " + o.Reason),
		typ:     string(o.Type),
		parent:  "none",
		flags:   slices.Clone(o.Flags),
	}
	ev := s.events[o.EventOffset]
	switch {
	case o.ParentType != "" && ev.ParentEventID == "":
		c.parent = "inferred"
	case o.ParentType != "" && s.storedEvent(ev.ParentEventID).Offset < o.EventOffset:
		c.parent = "known"
	case o.ParentType != "":
		c.parent = "late"
	case o.Reason == event.ReasonParentNotFound && ev.ParentEventID != "":
		c.parent = "missing"
	}
	if len(c.flags) == 0 {
		c.flags = []string{"-"}
	}
	s.coverage = append(s.coverage, c)
}

// TestCoverage: the scenarios show every verdict × reason × flag × type × parent that
// the rules allow, and no other. go test -run Coverage -v prints the matrix: how many
// rows of the scenarios are in each cell; a dot is a cell that the rules do not allow.
func TestCoverage(t *testing.T) {
	may := map[string]map[string]bool{}
	var lines []string
	for rule := range strings.Lines(strings.TrimSpace(allowedCells)) {
		f := strings.Split(rule, "|")
		for _, typ := range expandColumn(f[1]) {
			for _, parent := range expandColumn(f[2]) {
				line := coverageRow{verdict: strings.TrimSpace(f[0]), typ: typ, parent: parent}.matrixLine()
				if may[line] == nil {
					may[line] = map[string]bool{}
					lines = append(lines, line)
				}
				for _, flag := range expandColumn(f[3]) {
					if !slices.Contains(allFlags, flag) {
						t.Fatalf("no such flag: %q", flag)
					}
					may[line][flag] = true
				}
			}
		}
	}
	quiet := flag.Lookup("datadriven-quiet").Value // print only the matrix
	was := quiet.String()
	defer func() { _ = quiet.Set(was) }()
	if err := quiet.Set("true"); err != nil {
		t.Fatal(err)
	}
	seen := map[string]map[string]int{}
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if filepath.Ext(path) != ".txt" {
			return
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s := playScript(t, d)
			for _, c := range s.coverage {
				for _, flag := range c.flags {
					if !may[c.matrixLine()][flag] {
						d.Fatalf(t, "the rules do not allow this row: %s %s",
							strings.Join(strings.Fields(c.matrixLine()), " "), flag)
					}
					if seen[c.matrixLine()] == nil {
						seen[c.matrixLine()] = map[string]int{}
					}
					seen[c.matrixLine()][flag]++
				}
			}
			return s.finishAnswer()
		})
	})
	b := &strings.Builder{}
	b.WriteString("\n" + coverageRow{verdict: "verdict, reason", typ: "type", parent: "parent"}.matrixLine())
	for _, flag := range allFlags {
		fmt.Fprintf(b, " %4s", flag)
	}
	b.WriteString("\n")
	cells := 0
	for _, line := range lines {
		b.WriteString(line)
		for _, flag := range allFlags {
			n := "."
			if may[line][flag] {
				cells++
				n = fmt.Sprint(seen[line][flag])
				if seen[line][flag] == 0 {
					t.Errorf("no scenario shows: %s %s", strings.Join(strings.Fields(line), " "), flag)
				}
			}
			fmt.Fprintf(b, " %*s", max(4, len(flag)), n)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(b, "%d lines, %d cells\n", len(lines), cells)
	t.Log(b)
}

// expandColumn splits a column and writes its shorthands out.
func expandColumn(column string) (out []string) {
	for _, w := range strings.Fields(column) {
		if long, ok := shorthand[w]; ok {
			out = append(out, strings.Fields(long)...)
		} else {
			out = append(out, w)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// An unknown word in a column would hide a gap.
func TestCoverageTableIsWellFormed(t *testing.T) {
	known := append(slices.Concat(allFlags, []string{"known", "late", "missing", "inferred", "none"}),
		slices.Collect(maps.Keys(shorthand))...)
	for _, typ := range event.Types() {
		known = append(known, string(typ))
	}
	for rule := range strings.Lines(strings.TrimSpace(allowedCells)) {
		f := strings.Split(rule, "|")
		if len(f) != 4 {
			t.Fatalf("%q has %d columns", rule, len(f))
		}
		for _, column := range f[1:] {
			for _, w := range strings.Fields(column) {
				if !slices.Contains(known, w) {
					t.Errorf("%q: unknown word %q", rule, w)
				}
			}
		}
	}
}
