package export

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse/clienttest"
	"github.com/nimriz/partners/schemas/ledger"
)

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
	r.exec("ALTER TABLE outcomes UPDATE " +
		"order_id = ['0001', '', 'NA', 'null', 'x;=1', '''=1', '\x01\u2060=1', '\u202f﹦1'][1 + src_offset %% 8], " +
		"reason_text = concat('a;\t=1', char(13), char(10), '-b\t\t+', toString(src_offset)), " +
		"is_bot = src_offset %% 3 = 0 WHERE src_offset > 40 SETTINGS mutations_sync = 2")
	cfg := config(t.TempDir())
	cfg.BOM = true
	m, file, _ := r.run(cfg)
	raw := cfg
	raw.Dir, raw.Raw, raw.BOM = t.TempDir(), true, false
	_, _, content := r.run(raw)
	_, rows := r.records(content)
	t.Setenv("TZ", "UTC") // of Python
	for _, tool := range []struct{ heading, check string }{
		{"pandas", `
sales = d[(d.type == "sale") & (d.currency == "EUR")]
out = {"sum": str(sales.net_amount.dropna().sum()), "texts": {n: d[n].tolist() for n in texts},
       "nulls": int(d.amount_minor.isna().sum()), "minor": int(d.amount_minor.sum()),
       "first": str(d.occurred_at.min().isoformat()), "bots": int(d.is_bot.sum())}`},
		{"Polars", `
sales = d.filter((polars.col("type") == "sale") & (polars.col("currency") == "EUR"))
out = {"sum": str(sales["net_amount"].sum()), "texts": {n: d[n].to_list() for n in texts},
       "nulls": d["amount_minor"].null_count(), "minor": d["amount_minor"].sum(),
       "first": d["occurred_at"].min().isoformat(), "bots": int(d["is_bot"].sum())}`},
		{"DuckDB", `
one = lambda what, where="true": d.filter(where).aggregate(what).fetchall()[0][0]
out = {"sum": str(one("sum(net_amount)", "type = 'sale' AND currency = 'EUR'")),
       "texts": {n: [row[0] for row in d.project(n).fetchall()] for n in texts},
       "nulls": one("count(*)", "amount_minor IS NULL"), "minor": int(one("sum(amount_minor)")),
       "first": one("strftime(min(occurred_at)::TIMESTAMP, '%Y-%m-%dT%H:%M:%S+00:00')"),
       "bots": one("count(*)", "is_bot")}`},
	} {
		t.Run(tool.heading, func(t *testing.T) {
			script := recipe(t, tool.heading) + `
texts = ["event_id", "order_id", "reason_text", "sub1", "partner_name", "flags"]` + tool.check + `
print(json.dumps(out))`
			text := clienttest.RunPython(t, script, strings.TrimSuffix(file, ".manifest.json"))
			var got struct {
				Sum                string
				Texts              map[string][]string
				Nulls, Minor, Bots int64
				First              string
			}
			if json.Unmarshal([]byte(text), &got) != nil {
				t.Fatal(text)
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
