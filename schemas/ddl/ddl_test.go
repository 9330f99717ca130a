package ddl_test

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nimriz/partners/schemas/currency"
	"github.com/nimriz/partners/schemas/ddl"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := fs.ReadFile(ddl.Migrations(), name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Files are numbered without gaps, only go up, and every statement can be run again.
func TestMigrations(t *testing.T) {
	names, err := fs.Glob(ddl.Migrations(), "*.sql")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	repeatable := regexp.MustCompile(
		`^(CREATE (TABLE IF NOT EXISTS|MATERIALIZED VIEW IF NOT EXISTS|OR REPLACE VIEW)|DROP VIEW IF EXISTS|` +
			`SELECT throwIf\(.*|ALTER TABLE [a-z_]+\s+(ADD (COLUMN|INDEX) IF NOT EXISTS|DROP INDEX IF EXISTS|MODIFY QUERY|MATERIALIZE INDEX)|` +
			// lines that are there twice are one
			`INSERT INTO (effects_by_event_id|sales_by_order_id|conversions_by_key|outcomes_by_key)|` +
			// only if it has no line
			`INSERT INTO warehouse[^;]*WHERE \(SELECT count\(\) FROM warehouse\) = 0$)(\s|$)`)
	for i, name := range names {
		if !strings.HasPrefix(name, fmt.Sprintf("%04d_", i+1)) {
			t.Errorf("file %d is %s", i+1, name)
		}
		text := read(t, name)
		if !strings.Contains(text, "-- +goose Up\n") || strings.Contains(text, "+goose Down") {
			t.Errorf("%s: wants Up and no Down", name)
		}
		statements := strings.Split(text, "-- +goose StatementBegin\n")[1:]
		for _, s := range statements {
			statement, after, ok := strings.Cut(s, ";\n-- +goose StatementEnd")
			if !ok || strings.Contains(statement, ";") || strings.Contains(after, "CREATE") {
				t.Errorf("%s: a statement does not end where goose thinks: %.80s", name, s)
			}
			if !repeatable.MatchString(statement) ||
				strings.Count(statement, "ADD COLUMN ") != strings.Count(statement, "ADD COLUMN IF NOT EXISTS ") ||
				strings.Count(statement, "ADD INDEX ") != strings.Count(statement, "ADD INDEX IF NOT EXISTS ") {
				t.Errorf("%s: cannot be run again: %.80s", name, statement)
			}
			if strings.Contains(statement, "ENGINE =") && (!strings.Contains(statement, "ENGINE = {{engine ") ||
				!strings.Contains(statement, "    non_replicated_deduplication_window = 100000,\n") ||
				!strings.Contains(statement, "replicated_deduplication_window_seconds = 604800")) {
				t.Errorf("%s: a table without engine template or deduplication windows: %.80s", name, statement)
			}
		}
	}
}

// The digits of reward currencies are those that the gateway uses for amounts.
func TestCurrencyDigits(t *testing.T) {
	text := read(t, "0001_base_tables.sql")
	digits := map[string]int{}
	for _, m := range regexp.MustCompile(
		`reward_currency (?:IN \(([^)]*)\)|= ('[A-Z]+')), ([034])`).FindAllStringSubmatch(text, -1) {
		for _, code := range regexp.MustCompile(`[A-Z]{3}`).FindAllString(m[1]+m[2], -1) {
			digits[code] = int(m[3][0] - '0')
		}
	}
	if len(digits) < 20 {
		t.Fatalf("found only %v", digits)
	}
	var codes []string
	for code := range digits {
		codes = append(codes, code)
	}
	for a := 'A'; a <= 'Z'; a++ {
		for b := 'A'; b <= 'Z'; b++ {
			for c := 'A'; c <= 'Z'; c++ {
				codes = append(codes, string([]rune{a, b, c}))
			}
		}
	}
	for _, code := range codes {
		known, ok := currency.Lookup(code)
		_, named := digits[code]
		if !ok || !known.Money && !named { // the catalog has no rewards in the others
			continue
		}
		got, ok := digits[code]
		if !ok {
			got = 2
		}
		if got != int(known.Digits) {
			t.Errorf("%s has %d digits, the migration says %d", code, known.Digits, got)
		}
	}
}

func TestRoles(t *testing.T) {
	if got := ddl.Roles("x`; DROP DATABASE y"); got != nil {
		t.Errorf("a name that is no identifier: %q", got)
	}
	statements := ddl.Roles("partners")
	all := strings.Join(statements, "\n")
	for _, role := range []string{ddl.RoleWriter, ddl.RoleReader, ddl.RoleEveryWorkspace} {
		if !slices.Contains(statements, "CREATE ROLE IF NOT EXISTS "+role) {
			t.Errorf("no role %s", role)
		}
	}
	for _, s := range statements {
		if strings.Contains(s, "{{") || strings.Contains(s, ";") || strings.Contains(s, "--") {
			t.Errorf("not a statement: %q", s)
		}
	}
	// Every table with a workspace has a policy for readers; without one a reader would
	// see all of it.
	for _, name := range []string{"0001_base_tables.sql", "0002_rollup.sql", "0006_rollup.sql", "0008_lookups.sql",
		"0012_repairs.sql", "0013_warehouse.sql", "0014_dropped_months.sql", "0017_keys.sql"} {
		for _, table := range strings.Split(read(t, name), "CREATE TABLE IF NOT EXISTS ")[1:] {
			table, body, _ := strings.Cut(table, "\n")
			body, _, _ = strings.Cut(body, "ENGINE")
			policy := "CREATE ROW POLICY OR REPLACE partners_own ON `partners`." + table +
				"\n    USING workspace_id IN "
			if strings.Contains(body, " workspace_id ") != strings.Contains(all, policy) {
				t.Errorf("%s: workspace column and policy do not agree", table)
			}
			if !strings.Contains(all, "CREATE ROW POLICY OR REPLACE partners_all ON `partners`."+table+
				" USING 1 TO partners_writer") {
				t.Errorf("%s: the writer has no policy", table)
			}
		}
	}
	if !strings.Contains(all, "startsWith(r, '"+ddl.RoleWorkspace+"')") || len(ddl.RoleWorkspace) != 19 {
		t.Error("the policies cut the workspace role at another place than its prefix ends")
	}
}

// A reader is granted exactly the tables, which have policies, and the views of them:
// ClickHouse reads a materialized view's target without the target's policy, so through
// one a reader would see every workspace.
func TestReadersGrants(t *testing.T) {
	names, err := fs.Glob(ddl.Migrations(), "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	made := regexp.MustCompile(`CREATE (?:TABLE IF NOT EXISTS|OR REPLACE VIEW) ([a-z_]+)`)
	var want []string
	for _, name := range names {
		for _, m := range made.FindAllStringSubmatch(read(t, name), -1) {
			want = append(want, m[1])
		}
	}
	var got []string
	revoked := false
	granted := false
	for _, s := range ddl.Roles("partners") {
		granted = granted || strings.HasPrefix(s, "GRANT")
		if granted && strings.HasPrefix(s, "CREATE ROW POLICY") {
			t.Errorf("until this one is there, what was granted before shows every row: %s", s)
		}
		revoked = revoked || s == "REVOKE SELECT ON `partners`.* FROM "+ddl.RoleReader
		if !strings.HasPrefix(s, "GRANT") || !strings.HasSuffix(s, "TO "+ddl.RoleReader) {
			continue
		}
		if !revoked {
			t.Error("what an earlier version granted is not revoked first")
		}
		for _, m := range regexp.MustCompile("SELECT ON `partners`\\.([a-z_]+|\\*)").FindAllStringSubmatch(s, -1) {
			got = append(got, m[1])
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if want = slices.Compact(want); !slices.Equal(got, want) {
		t.Errorf("granted %v\nwant %v", got, want)
	}
}
