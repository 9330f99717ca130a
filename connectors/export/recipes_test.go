package export

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nimriz/partners/schemas/ledger"
)

// pythonWith is a command for an interpreter that has a module, and its environment: the
// first in PATH need not be the one that Debian's packages are for, and wheels may lie in
// the cache. Where there is none, the test is skipped, or fails if variable is 1.
func pythonWith(t *testing.T, module, variable string) (python string, env []string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	wheels, _ := filepath.Glob(filepath.Join(cache, "nimriz-partners", "python-*"))
	for _, dir := range append([]string{""}, wheels...) {
		env = append(os.Environ(), "TZ=UTC", "PYTHONDONTWRITEBYTECODE=1")
		if dir != "" {
			env = append(env, "PYTHONPATH="+dir)
		}
		for _, python := range []string{"python3", "/usr/bin/python3"} {
			cmd := exec.Command(python, "-c", "import "+module)
			if cmd.Env = env; cmd.Run() == nil {
				return python, env
			}
		}
	}
	if os.Getenv(variable) == "1" {
		t.Fatalf("%s=1, and there is no python3 with %s", variable, module)
	}
	t.Skipf("SKIP: there is no python3 with %s (python3 -m pip install --target %s %s)", module,
		filepath.Join(cache, "nimriz-partners", "python-own"), module)
	return "", nil
}

// recipe is a block of code of the README.
func recipe(t *testing.T, heading string) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)\n## " + heading + "\n\n```python\n(.*?)```").FindSubmatch(text)
	if found == nil {
		t.Fatalf("README.md has no recipe for %s", heading)
	}
	return string(found[1])
}

// What a recipe reads is what is in the ledger: ids and texts to the byte, money exactly.
func TestRecipes(t *testing.T) {
	r := newRig(t)
	r.rows(200, true)
	r.exec("ALTER TABLE outcomes UPDATE order_id = ['0001', '', 'NA', 'null', 'x;=1', '''=1'][1 + src_offset %% 6], " +
		"reason_text = concat('a;\t=1', char(13), char(10), '-b\t\t+', toString(src_offset)), " +
		"is_bot = src_offset %% 3 = 0 WHERE src_offset > 40 SETTINGS mutations_sync = 2")
	cfg := config(t.TempDir())
	cfg.BOM = true
	m, file, _ := r.run(cfg)
	raw := cfg
	raw.Dir, raw.Raw, raw.BOM = t.TempDir(), true, false
	_, _, content := r.run(raw)
	_, rows := r.records(content)
	for _, tool := range []struct{ heading, module, variable, check string }{
		{"pandas", "pandas", "PARTNERS_REQUIRE_PANDAS", `
sales = d[(d.type == "sale") & (d.currency == "EUR")]
out = {"sum": str(sales.net_amount.dropna().sum()), "texts": {n: d[n].tolist() for n in texts},
       "nulls": int(d.amount_minor.isna().sum()), "minor": int(d.amount_minor.sum()),
       "first": str(d.occurred_at.min().isoformat()), "bots": int(d.is_bot.sum())}`},
		{"Polars", "polars", "PARTNERS_REQUIRE_DATAFRAMES", `
sales = d.filter((polars.col("type") == "sale") & (polars.col("currency") == "EUR"))
out = {"sum": str(sales["net_amount"].sum()), "texts": {n: d[n].to_list() for n in texts},
       "nulls": d["amount_minor"].null_count(), "minor": d["amount_minor"].sum(),
       "first": d["occurred_at"].min().isoformat(), "bots": int(d["is_bot"].sum())}`},
		{"DuckDB", "duckdb", "PARTNERS_REQUIRE_DATAFRAMES", `
one = lambda what, where="true": d.filter(where).aggregate(what).fetchall()[0][0]
out = {"sum": str(one("sum(net_amount)", "type = 'sale' AND currency = 'EUR'")),
       "texts": {n: [row[0] for row in d.project(n).fetchall()] for n in texts},
       "nulls": one("count(*)", "amount_minor IS NULL"), "minor": int(one("sum(amount_minor)")),
       "first": one("strftime(min(occurred_at)::TIMESTAMP, '%Y-%m-%dT%H:%M:%S+00:00')"),
       "bots": one("count(*)", "is_bot")}`},
	} {
		t.Run(tool.heading, func(t *testing.T) {
			python, env := pythonWith(t, tool.module, tool.variable)
			script := recipe(t, tool.heading) + `
texts = ["event_id", "order_id", "reason_text", "sub1", "partner_name", "flags"]` + tool.check + `
print(json.dumps(out))`
			cmd := exec.Command(python, "-c", script, strings.TrimSuffix(file, ".manifest.json"))
			cmd.Env = env
			cmd.Stderr = os.Stderr
			text, err := cmd.Output()
			var got struct {
				Sum                string
				Texts              map[string][]string
				Nulls, Minor, Bots int64
				First              string
			}
			if err != nil || json.Unmarshal(text, &got) != nil {
				t.Fatalf("%v: %s", err, text)
			}
			checkRecipe(t, m, rows, got.Sum, got.Texts)
			nulls, bots := int64(0), int64(0)
			for _, row := range rows {
				if row["amount_minor"] == "" {
					nulls++
				}
				if row["is_bot"] == "true" {
					bots++
				}
			}
			if got.Nulls != nulls || got.Bots != bots || nulls == 0 || bots == 0 || got.Minor == 0 ||
				!strings.HasPrefix(got.First, strings.TrimSuffix(rows[0]["occurred_at"], ".000Z")) {
				t.Errorf("%d amounts of %d are null, %d clicks are bots, the first event is of %s; want %d, %d, %s",
					got.Nulls, got.Minor, got.Bots, got.First, nulls, bots,
					rows[0]["occurred_at"])
			}
		})
	}
}

// checkRecipe compares what a recipe read with the manifest and with the raw export.
func checkRecipe(t *testing.T, m *Manifest, rows []map[string]string, sum string, texts map[string][]string) {
	t.Helper()
	if strings.TrimRight(sum, "0") != strings.TrimRight(m.Sums["EUR"]["sale"], "0") {
		t.Errorf("sales of %s EUR, the manifest says %s", sum, m.Sums["EUR"]["sale"])
	}
	escaped := 0
	for name, cells := range texts {
		if len(cells) != len(rows) {
			t.Fatalf("%s: %d cells, %d rows", name, len(cells), len(rows))
		}
		for i, cell := range cells {
			want := rows[i][name]
			// Go's reader gives \n for \r\n
			if got := strings.ReplaceAll(cell, "\r\n", "\n"); got != want {
				t.Fatalf("%s of row %d: %q, want %q", name, i, got, want)
			}
			if ledger.EscapeFormula(ledger.Version, cell) != cell {
				escaped++
			}
		}
	}
	if escaped < len(rows) {
		t.Errorf("only %d cells had a formula", escaped)
	}
}
