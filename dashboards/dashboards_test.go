package dashboards

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
)

type dashboard struct {
	UID, Title, Description string
	Panels                  []panel
	Templating              struct {
		List []struct {
			Name, Type, Query string
			IncludeAll        bool
		}
	}
}

type panel struct {
	Type, Title, Description string
	Datasource               struct{ Type, UID string }
	Targets                  []struct{ RawSQL, Expr string }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	GridPos                  struct{ X, Y, W, H int }
}

func loadDashboards(t *testing.T) map[string]*dashboard {
	t.Helper()
	files, err := filepath.Glob("*.json")
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	all := map[string]*dashboard{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := &dashboard{}
		if err := json.Unmarshal(b, d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[file] = d
	}
	return all
}

// Every dashboard and panel has a description and a unit, names its data source by a
// variable, and covers no other panel.
func TestForm(t *testing.T) {
	uids := map[string]bool{}
	for file, d := range loadDashboards(t) {
		if !strings.HasPrefix(d.UID, "nimriz-") || uids[d.UID] || d.Title == "" || d.Description == "" {
			t.Errorf("%s: uid %q, title %q, description %q", file, d.UID, d.Title, d.Description)
		}
		uids[d.UID] = true
		sources := map[string]string{}
		for _, v := range d.Templating.List {
			if v.Type == "datasource" {
				sources["${"+v.Name+"}"] = v.Query
			}
		}
		taken := map[[2]int]string{}
		for _, p := range d.Panels {
			if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
				t.Errorf("%s: panel %q lacks a title, a description, a unit or a query", file, p.Title)
			}
			if kind := sources[p.Datasource.UID]; kind == "" || kind != p.Datasource.Type {
				t.Errorf("%s: panel %q asks %+v, which is no variable of this dashboard", file, p.Title, p.Datasource)
			}
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
						t.Fatalf("%s: panel %q covers %q, or lies outside the grid", file, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
		}
	}
}

var conditional = regexp.MustCompile(`\$__conditionalAll\(((?:[^()]|\([^()]*\))*),\s*\$(\w+)\)`)

// expandMacros expands a query's macros and variables as the ClickHouse data source
// does (grafana/clickhouse-datasource, README "Macros"), for March 2026. With all,
// every variable that has the choice All is set to it.
func expandMacros(query string, all bool) string {
	query = conditional.ReplaceAllStringFunc(query, func(m string) string {
		if all {
			return "1=1"
		}
		return conditional.FindStringSubmatch(m)[1]
	})
	query = regexp.MustCompile(`\$__timeFilter\(([^()]+)\)`).ReplaceAllString(query,
		"$1 >= toDateTime(1772323200) AND $1 <= toDateTime(1775001599)")
	query = regexp.MustCompile(`\$__dateFilter\(([^()]+)\)`).ReplaceAllString(query,
		"$1 >= toDate('2026-03-01') AND $1 <= toDate('2026-03-31')")
	query = strings.NewReplacer("$__fromTime", "toDateTime(1772323200)", "$__toTime", "toDateTime(1775001599)").
		Replace(query)
	for name, values := range map[string]string{
		"workspace": "'acme'",
		"zone":      "'Europe/Berlin'",
		"clicks":    "'human'",
		"partner":   "'p0','p1'",
		"program":   "'g0','none'",
		"link":      "'l0','l1','l2'",
		"type":      "'sale','lead','refund'",
	} {
		query = strings.ReplaceAll(query, "${"+name+":sqlstring}", values)
	}
	return query
}

// Prometheus's own parser accepts every expression.
func TestPromQL(t *testing.T) {
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: panels\n    rules:\n")
	n := 0
	for _, d := range loadDashboards(t) {
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				if target.Expr != "" {
					n++
					quoted, _ := json.Marshal(target.Expr)
					fmt.Fprintf(&rules, "      - {record: \"panel:%d\", expr: %s}\n", n, quoted)
				}
			}
		}
	}
	file := filepath.Join(t.TempDir(), "panels.yaml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o644); err != nil || n < 20 {
		t.Fatal(n, err)
	}
	runPromtool(t, "check", "rules", file)
}

// The SQL of every panel and variable runs and returns rows, with everything selected
// and with a selection.
func TestSQL(t *testing.T) {
	dsn := clickhousetest.ForTest(t)
	conn := clickhousetest.OpenMigrated(t, dsn)
	rowsSQL, err := os.ReadFile("testdata/rows.sql")
	if err != nil {
		t.Fatal(err)
	}
	for statement := range strings.SplitSeq(strings.TrimSpace(string(rowsSQL)), ";\n") {
		if err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%v: %.80s", err, statement)
		}
	}
	to, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	rows := func(query string) (int, string) {
		res, err := http.Post("http://"+to.Host+"/?database="+strings.TrimPrefix(to.Path, "/"),
			"text/plain", strings.NewReader(query+" FORMAT JSONEachRow"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			return 0, string(b)
		}
		return strings.Count(string(b), "\n"), string(b)
	}
	asked := 0
	for file, d := range loadDashboards(t) {
		for _, v := range d.Templating.List {
			if v.Type == "query" {
				if n, text := rows(expandMacros(v.Query, true)); n == 0 {
					t.Errorf("%s: variable %s: %s", file, v.Name, text)
				}
			}
		}
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				if target.RawSQL == "" {
					continue
				}
				for _, all := range []bool{true, false} {
					asked++
					query := expandMacros(target.RawSQL, all)
					if strings.Contains(query, "$") {
						t.Errorf("%s: panel %q: a macro or variable is left in %s", file, p.Title, query)
					}
					if n, text := rows(query); n == 0 {
						t.Errorf("%s: panel %q: %s\n%s", file, p.Title, text, query)
					}
				}
			}
		}
	}
	if asked < 30 {
		t.Errorf("only %d queries", asked)
	}
	for title, want := range map[string][]string{
		"Taken back by partner": {`"partner":"Nomura (p0)"`, `"partner":"Nomura (p2)","refunds":1`,
			`"partner":"p3","refunds":1`, `"partner":"p4","refunds":1`},
		"Partners": {`"partner_name":"Nomura","partner_id":"p2","status":"review"`, `"partner_id":"p3"`,
			`"partner_id":"p4"`},
		"Revenue by currency": {`"currency":"KWD","gross":0,"taken_back":-63,"given_back":0,"net":-21,"taken_beyond":42,` +
			`"given_beyond":0,`},
	} {
		for _, p := range loadDashboards(t)["partner-performance.json"].Panels {
			if p.Title != title {
				continue
			}
			_, text := rows(expandMacros(p.Targets[0].RawSQL, true))
			for _, w := range want {
				if !strings.Contains(strings.ReplaceAll(text, `"1"`, "1"), w) {
					t.Errorf("panel %q lacks %s:\n%s", title, w, text)
				}
			}
		}
	}
}
