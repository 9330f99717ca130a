package sink

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/schemas/ddl"
)

// The views over rows made by hand: testdata/views, with every expectation computed by
// hand first. `exec` runs a statement, `query` prints an answer.
func TestViews(t *testing.T) {
	datadriven.Walk(t, "testdata/views", func(t *testing.T, path string) {
		dsn := clickhousetest.ForTest(t)
		conn := clickhousetest.OpenMigrated(t, dsn)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "exec":
				for _, statement := range strings.Split(d.Input, ";\n") {
					if err := conn.Exec(t.Context(), strings.TrimSuffix(statement, ";")); err != nil {
						t.Fatalf("%s: %v", d.Pos, err)
					}
				}
				return ""
			case "query":
				return query(t, dsn, strings.TrimSuffix(d.Input, ";"))
			}
			t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
			return ""
		})
	})
}

// query asks over plain HTTP and returns the answer's text, with columns padded.
func query(t *testing.T, dsn, text string) string {
	t.Helper()
	if !strings.HasPrefix(text, "EXPLAIN") {
		text += " FORMAT TabSeparatedWithNames"
	}
	to, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(fmt.Sprintf("http://%s/?database=%s", to.Host, strings.TrimPrefix(to.Path, "/")),
		"text/plain", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s %v", text, res.Status, body, err)
	}
	var rows [][]string
	width := map[int]int{}
	for _, line := range strings.Split(strings.TrimSuffix(string(body), "\n"), "\n") {
		row := strings.Split(line, "\t")
		for i, cell := range row {
			if cell == "" {
				row[i] = "''"
			}
			width[i] = max(width[i], len(row[i]))
		}
		rows = append(rows, row)
	}
	var out strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			line += fmt.Sprintf("%-*s  ", width[i], cell)
		}
		out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return out.String()
}

// The embedded ClickHouse has no access management, so roles are only parsed here, and
// the readers' policy is tried as a condition.
func TestRoles(t *testing.T) {
	dsn := clickhousetest.ForTest(t)
	tried := 0
	for _, statement := range ddl.Roles("partners") {
		query(t, dsn, "EXPLAIN AST "+strings.ReplaceAll(statement, "\n", " "))
		_, policy, ok := strings.Cut(statement, " USING workspace_id IN ")
		if !ok {
			continue
		}
		policy, _, _ = strings.Cut(policy, " TO ")
		tried++
		roles := "['" + ddl.RoleReader + "', '" + ddl.RoleWorkspace + "acme', '" + ddl.RoleWorkspace + "my-shop']"
		got := query(t, dsn, "SELECT workspace_id FROM values('workspace_id String', 'acme', 'my-shop', 'acme2', "+
			"'') WHERE workspace_id IN "+strings.ReplaceAll(policy, "currentRoles()", roles)+" ORDER BY ALL")
		if got != "workspace_id\nacme\nmy-shop\n" {
			t.Errorf("the policy shows %q", got)
		}
		if got := query(t, dsn, "SELECT count() AS n FROM values('workspace_id String', 'acme', '') WHERE "+
			"workspace_id IN "+policy); got != "n\n0\n" {
			t.Errorf("without roles the policy shows %q", got)
		}
	}
	if tried != 6 {
		t.Errorf("%d policies, want 6", tried)
	}
}
