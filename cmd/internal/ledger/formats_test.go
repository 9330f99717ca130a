package ledger

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse/clienttest"
)

// Money leaves every view in every format as a number: what other people's readers add up
// is what the rows of the ledger add up to.
func TestMoneyInEveryFormat(t *testing.T) {
	server, err := url.Parse(calendarWarehouse(t))
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/formats.py")
	if err != nil {
		t.Fatal(err)
	}
	out := clienttest.RunPython(t, string(script), server.Hostname(), server.Port(), strings.Trim(server.Path, "/"),
		filepath.Join(t.TempDir(), "view.parquet"))
	var sums map[string]map[string]map[string]string // by view, column, reader
	if err := json.Unmarshal([]byte(out), &sums); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, view := range slices.Sorted(maps.Keys(sums)) {
		for column, byReader := range sums[view] {
			values := slices.Sorted(maps.Values(byReader))
			if len(slices.Compact(values)) != 1 {
				t.Errorf("%s, %s: readers find %v", view, column, byReader)
			}
		}
	}
	b := newCalendarBook(t)
	var want []struct {
		Gross    string `ch:"gross"`
		Net      string `ch:"net"`
		Standing string `ch:"standing"`
		Rows     string `ch:"n"`
	}
	if err := b.conn.Select(t.Context(), &want, `
SELECT
	toString(sumIf(amount_minor, verdict = 'attributed')) AS gross,
	toString(sum(effect * amount_minor)) AS net,
	toString(sum(standing_change_minor)) AS standing,
	toString(count()) AS n
FROM outcomes`); err != nil {
		t.Fatal(err)
	}
	if len(sums) < 24 || want[0].Gross == "0" || want[0].Standing == "0" {
		t.Fatalf("%d views, sums %+v", len(sums), want[0])
	}
	for _, view := range []string{"partner_daily", "partner_performance", "partner_days", "partner_performance_days"} {
		got := sums[view]
		if got["gross_minor"]["duckdb"] != want[0].Gross || got["net_minor"]["polars"] != want[0].Net ||
			got["standing_minor"]["pandas"] != want[0].Standing {
			t.Errorf("%s: %v, want %+v", view, got, want[0])
		}
	}
	if got := sums["conversion_rows"]["rows"]["csv"]; got != want[0].Rows {
		t.Errorf("conversion_rows has %s rows, want %s", got, want[0].Rows)
	}
}

// asker returns a function that asks the calendar's warehouse with settings, as parameters
// of a URL.
func asker(t *testing.T) func(settings, query string) string {
	t.Helper()
	server, err := url.Parse(calendarWarehouse(t))
	if err != nil {
		t.Fatal(err)
	}
	return func(settings, query string) string {
		t.Helper()
		response, err := http.Post("http://"+server.Host+"/?database="+strings.Trim(server.Path, "/")+"&"+settings, "",
			strings.NewReader(query))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Errorf("%s %s: %s %v", settings, query, body, err)
		}
		return string(body)
	}
}

// An analyst divides a sum by 100 and has its cents, and as text the sum is an integer.
func TestMoneyInViewsIsDivided(t *testing.T) {
	ask := asker(t)
	want := strings.TrimSpace(ask("", "SELECT sumIf(amount_minor, verdict = 'attributed') FROM outcomes"))
	integer := regexp.MustCompile(`(^|[^0-9.])` + want + `($|[^0-9.])`)
	for _, view := range []string{
		"partner_daily", "partner_performance", "partner_days(tz = 'UTC')", "partner_performance_days(tz = 'UTC')",
	} {
		got := ask("", "SELECT countIf(toInt128(gross_minor) % 100 != 0) > 0, "+
			"countIf(arrayExists(m -> m / 100 * 100 != m, [gross_minor, negative_minor, net_minor, standing_minor, "+
			"taken_beyond_minor, given_beyond_minor, reward_minor])) FROM "+view)
		if got != "1\t0\n" {
			t.Errorf("%s: divided by 100, sums have cents, and rows have lost them: %s", view, got)
		}
		for _, format := range []string{
			"TSV", "CSV", "JSON", "JSONEachRow", "JSONStrings", "XML", "Values", "Markdown", "Vertical",
			"PrettyCompact",
		} {
			got := ask("", "SELECT sum(gross_minor) AS g FROM "+view+" FORMAT "+format)
			if !integer.MatchString(got) {
				t.Errorf("%s as %s: %s, want %s", view, format, got, want)
			}
		}
	}
	if columns := ask("", "DESCRIBE TABLE order_reuse"); !strings.Contains(columns, "minor Decimal(38, 4)") {
		t.Errorf("order_reuse: %s", columns)
	}
}

// Views say the same whatever a profile sets of how a query is read.
func TestViewsUnderSettings(t *testing.T) {
	ask := asker(t)
	views := strings.Fields(ask("",
		"SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View'"))
	if len(views) < 24 {
		t.Fatalf("%d views", len(views))
	}
	for _, view := range views {
		if strings.HasSuffix(view, "_days") {
			view += "(tz = 'Europe/Berlin')"
		}
		query := "SELECT * FROM " + view + " ORDER BY ALL FORMAT TSVWithNamesAndTypes"
		want := ask("", query)
		for _, settings := range []string{
			"enable_analyzer=0", "prefer_column_name_to_alias=1", "enable_analyzer=0&prefer_column_name_to_alias=1",
			"readonly=1", "join_use_nulls=1",
		} {
			if got := ask(settings, query); got != want {
				t.Errorf("%s under %s: %d bytes, want %d", view, settings, len(got), len(want))
			}
		}
	}
}
