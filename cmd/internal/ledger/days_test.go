package ledger

import (
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/export"
	"github.com/nimriz/partners/connectors/report/web"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/schemas/event"
)

// calendarDay is a day of a workspace, and the instants at which it begins and ends.
type calendarDay struct{ workspace, zone, day, start, end string }

// calendarDays are days of 23, 24 and 25 hours, and one after a day that was left out.
var calendarDays = []calendarDay{
	{"berlin", "Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},
	{"berlin", "Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},
	{"berlin", "Europe/Berlin", "2026-11-29", "2026-11-28T23:00:00Z", "2026-11-29T23:00:00Z"},
	{"kolkata", "Asia/Kolkata", "2026-11-29", "2026-11-28T18:30:00Z", "2026-11-29T18:30:00Z"},
	{"kathmandu", "Asia/Kathmandu", "2026-11-29", "2026-11-28T18:15:00Z", "2026-11-29T18:15:00Z"},
	{"tokyo", "Asia/Tokyo", "2026-11-29", "2026-11-28T15:00:00Z", "2026-11-29T15:00:00Z"},
	{"apia", "Pacific/Apia", "2026-11-29", "2026-11-28T11:00:00Z", "2026-11-29T11:00:00Z"},
	{"apia", "Pacific/Apia", "2020-09-27", "2020-09-26T11:00:00Z", "2020-09-27T10:00:00Z"},
	{"apia", "Pacific/Apia", "2021-04-04", "2021-04-03T10:00:00Z", "2021-04-04T11:00:00Z"},
	{"apia", "Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"},
}

// calendarBook is a ledger of clicks and judged events at the edges of days, in
// ClickHouse and as the oracle reads it.
type calendarBook struct {
	testing.TB
	conn     *clickhouse.Conn
	clicks   []oracle.Click
	outcomes []event.Outcome
	zones    map[string]string // of the workspaces
}

func instant(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// add adds an event, and a click at the same instant. change is what it changes of what
// stands.
func (b *calendarBook) add(workspace string, at time.Time, kind event.Type, effect int32, amount, change int64,
	currency string) {
	n := int64(len(b.outcomes))
	verdict := event.Attributed
	if kind != event.Sale {
		verdict = event.Reversed
	}
	reward := change / 10
	click := event.Click{
		WorkspaceID: workspace,
		ClickToken:  fmt.Sprint("token", n),
		ClickedAt:   event.MillisOf(at),
		LinkID:      "l",
		PartnerID:   "p",
		ProgramID:   "g",
		TokenStatus: event.TokenAppended,
	}
	b.clicks = append(b.clicks, oracle.Click{Click: click})
	b.outcomes = append(b.outcomes, event.Outcome{
		WorkspaceID:          workspace,
		EventID:              fmt.Sprint("e", n),
		ClickToken:           click.ClickToken,
		Type:                 kind,
		Verdict:              verdict,
		Effect:               effect,
		OccurredAt:           event.MillisOf(at),
		ReceivedAt:           event.MillisOf(at),
		AmountMinor:          &amount,
		StandingChangeMinor:  &change,
		Currency:             currency,
		Exponent:             2,
		EstimatedRewardMinor: &reward,
		RewardCurrency:       currency,
		RulesVersion:         2,
		EventOffset:          n,
		Click:                &click,
	})
}

// insert puts everything into ClickHouse.
func (b *calendarBook) insert() {
	b.Helper()
	var clicks, conversions, outcomes []string
	for i := range b.outcomes {
		o := &b.outcomes[i]
		at := fmt.Sprintf("fromUnixTimestamp64Milli(%d, 'UTC')", int64(o.OccurredAt))
		clicks = append(clicks, fmt.Sprintf("('%s', '%s', %s, 'l', 'p', 'g', 'appended', 0, %d)",
			o.WorkspaceID, o.ClickToken, at, i))
		conversions = append(conversions, fmt.Sprintf("('%s', '%s', '%s', '%s', %s, %s, 0, %d)",
			o.WorkspaceID, o.EventID, o.ClickToken, o.Type, at, at, i))
		outcomes = append(outcomes, fmt.Sprintf("('%s', '%s', '%s', '%s', '%s', %d, %s, %s, %s, %d, %d, '%s', 2, %d, "+
			"'%s', 2, 'clear', 'l', 'p', 'g', %s, 0, %d, 0, %d)", o.WorkspaceID, o.EventID, o.ClickToken, o.Verdict,
			o.Type, o.Effect, at, at, at, *o.AmountMinor, *o.StandingChangeMinor, o.Currency, *o.EstimatedRewardMinor,
			o.RewardCurrency, at, i, i))
	}
	n := len(b.outcomes)
	statements := []string{
		"INSERT INTO clicks (workspace_id, click_token, clicked_at, link_id, partner_id, program_id, token_status, " +
			"src_partition, src_offset) VALUES " + strings.Join(clicks, ", "),
		"INSERT INTO conversions (workspace_id, event_id, click_token, type, occurred_at, received_at, " +
			"src_partition, src_offset) VALUES " + strings.Join(conversions, ", "),
		"INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, type, effect, occurred_at, received_at, " +
			"decided_at, amount_minor, standing_change_minor, currency, exponent, estimated_reward_minor, " +
			"reward_currency, rules_version, review, link_id, partner_id, program_id, clicked_at, event_partition, " +
			"event_offset, src_partition, src_offset) VALUES " + strings.Join(outcomes, ", "),
		fmt.Sprintf("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES "+
			"('x', 'clicks', 0, 0, %d, %d), ('x', 'conversions', 0, 0, %d, %d), ('x', 'outcomes', 0, 0, %d, %d), "+
			"('x', 'catalog', 0, 0, %d, %d)", n, n, n, n, n, n, len(b.zones), len(b.zones)),
	}
	for i, workspace := range slices.Sorted(maps.Keys(b.zones)) {
		statements = append(statements, fmt.Sprintf(`INSERT INTO catalog_versions (workspace_id, kind, key, json, `+
			`src_partition, src_offset) VALUES ('%s', 'workspace', 'workspace/%s', '{"name":"W","plan":"enterprise",`+
			`"timezone":"%s","access":{"conversion_tracking":true,"partner_reporting":true,`+
			`"conversion_reporting":true,"exports":true}}', 0, %d)`, workspace, workspace, b.zones[workspace], i))
	}
	for _, statement := range statements {
		if err := b.conn.Exec(b.Context(), statement); err != nil {
			b.Fatalf("%v: %.200s", err, statement)
		}
	}
}

// newCalendarBook has events a quarter of an hour and a millisecond before and after
// each edge of each day, and an order of 100.00 GBP of 29 November that was refunded at
// 2026-11-28T23:30Z, which is that day in Berlin.
func newCalendarBook(t *testing.T) *calendarBook {
	t.Helper()
	b := makeCalendarBook(t)
	conn, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: calendarWarehouse(t)},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	b.conn = conn
	return b
}

// calendarWarehouse has the book; tests only read it.
var calendarWarehouse = clickhousetest.Shared(func(t testing.TB, dsn string) {
	b := makeCalendarBook(t)
	b.conn = clickhousetest.OpenMigrated(t, dsn)
	b.insert()
})

func makeCalendarBook(t testing.TB) *calendarBook {
	t.Helper()
	b := &calendarBook{TB: t, zones: map[string]string{"acme": "Europe/Berlin"}}
	b.add("acme", instant(t, "2026-11-29T10:00:00Z"), event.Sale, 1, 10000, 10000, "GBP")
	b.add("acme", instant(t, "2026-11-28T23:30:00Z"), event.Refund, -1, 10000, -10000, "GBP")
	for _, d := range calendarDays {
		b.zones[d.workspace] = d.zone
		for _, edge := range []string{d.start, d.end} {
			for _, by := range []time.Duration{-15 * time.Minute, -time.Millisecond, 0, time.Millisecond,
				15*time.Minute - time.Millisecond, 15 * time.Minute} {
				at := instant(t, edge).Add(by)
				n := int64(len(b.outcomes)) // so no two sums of different events are equal
				b.add(d.workspace, at, event.Sale, 1, 100_000+n*n, 100_000+n*n, "EUR")
				b.add(d.workspace, at, event.Refund, -1, 1_000+n*n, -500-n, "EUR")
				b.add(d.workspace, at, event.Reversal, 1, 700+n*n, 300+n, "EUR")
			}
		}
	}
	return b
}

// totals sums the oracle's rows of a workspace by day and currency.
func (b *calendarBook) totals(workspace string, zone *time.Location) map[string]oracle.DaysSums {
	out := map[string]oracle.DaysSums{}
	for _, r := range oracle.Days(b.clicks, b.outcomes, zone) {
		if r.WorkspaceID == workspace {
			out[r.Day+" "+r.Currency] = r.DaysSums
		}
	}
	return out
}

// reader asks the report as a reader of a workspace.
type reader struct {
	testing.TB
	url string
}

func newReader(b *calendarBook) reader {
	b.Helper()
	files := fstest.MapFS{}
	for workspace := range b.zones {
		sum := sha256.Sum256([]byte("secret of " + workspace))
		files[workspace] = &fstest.MapFile{Data: []byte("alice:" + hex.EncodeToString(sum[:]) + "\n")}
	}
	tokens, err := web.LoadReaderTokens(files)
	if err != nil {
		b.Fatal(err)
	}
	server := httptest.NewServer(web.New(b.conn, tokens, nil, slog.New(slog.DiscardHandler), nil))
	b.Cleanup(server.Close)
	return reader{b.TB, server.URL}
}

func (r reader) get(workspace, path string) string {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.url+path, nil)
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer secret of "+workspace)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		r.Fatalf("%s: %d %v %s", path, res.StatusCode, err, body)
	}
	return string(body)
}

// performance reads the list of days, by day and currency, and checks that all of it
// names the zone.
func (r reader) performance(workspace, query, zone string) map[string]oracle.DaysSums {
	r.Helper()
	var answer struct {
		Timezone string
		Rows     []map[string]any
	}
	body := r.get(workspace, "/v1/workspaces/"+workspace+"/performance?limit=1000&"+query)
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		r.Fatal(err)
	}
	if answer.Timezone != zone {
		r.Errorf("%s %s: the answer is of zone %q", workspace, query, answer.Timezone)
	}
	out := map[string]oracle.DaysSums{}
	for _, row := range answer.Rows {
		if row["timezone"] != zone {
			r.Errorf("%s %s: a row of zone %v", workspace, query, row["timezone"])
		}
		out[fmt.Sprint(row["day"], " ", row["currency"])] = sumsOf(func(column string) int64 {
			return int64(row[column].(float64))
		})
	}
	return out
}

// performanceCSV reads the same from the file, whose amounts have all digits of their
// currency.
func (r reader) performanceCSV(workspace, query, zone string) map[string]oracle.DaysSums {
	r.Helper()
	body := r.get(workspace, "/v1/workspaces/"+workspace+"/performance.csv?"+query)
	records, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	if err != nil {
		r.Fatal(err)
	}
	out := map[string]oracle.DaysSums{}
	for _, record := range records[1:] {
		cell := func(column string) string { return record[slices.Index(records[0], column)] }
		if cell("timezone") != zone {
			r.Errorf("%s %s: a line of zone %s", workspace, query, cell("timezone"))
		}
		out[cell("day")+" "+cell("currency")] = sumsOf(func(column string) int64 {
			column = strings.Replace(column, "_minor", "_amount", 1)
			n, ok := new(big.Int).SetString(strings.Replace(cell(column), ".", "", 1), 10)
			if !ok {
				r.Fatalf("%s is %q", column, cell(column))
			}
			return n.Int64()
		})
	}
	return out
}

func sumsOf(column func(string) int64) oracle.DaysSums {
	return oracle.DaysSums{
		DailySums: oracle.DailySums{
			Clicks:           column("clicks"),
			HumanClicks:      column("human_clicks"),
			TokenedClicks:    column("tokened_clicks"),
			Leads:            column("leads"),
			Sales:            column("sales"),
			Refunds:          column("refunds"),
			Cancellations:    column("cancellations"),
			Reversals:        column("reversals"),
			GrossMinor:       column("gross_minor"),
			NegativeMinor:    column("negative_minor"),
			NetMinor:         column("net_minor"),
			StandingMinor:    column("standing_minor"),
			TakenBeyondMinor: column("taken_beyond_minor"),
			GivenBeyondMinor: column("given_beyond_minor"),
			RewardMinor:      column("reward_minor"),
		},
		TakenBack:      column("taken_back"),
		GivenBack:      column("given_back"),
		TakenBackMinor: column("taken_back_minor"),
		GivenBackMinor: column("given_back_minor"),
	}
}

// wantDays compares sums by day and currency.
func wantDays(t *testing.T, what string, got, want map[string]oracle.DaysSums) {
	t.Helper()
	if len(want) == 0 {
		t.Errorf("%s: nothing is wanted", what)
	}
	for day, sums := range want {
		if got[day] != sums {
			t.Errorf("%s, %s:\n got %+v\nwant %+v", what, day, got[day], sums)
		}
	}
	for day := range got {
		if _, ok := want[day]; !ok {
			t.Errorf("%s has %s, the oracle has not", what, day)
		}
	}
}

// The list of days, its file, and both choices of how they are counted are those of the
// oracle, in the workspace's zone and in UTC; the view partner_daily has those of UTC.
func TestDaysAreTheOracles(t *testing.T) {
	b := newCalendarBook(t)
	r := newReader(b)
	for workspace, name := range b.zones {
		for query, zone := range map[string]string{"": name, "tz=UTC": "UTC"} {
			loc, err := time.LoadLocation(zone)
			if err != nil {
				t.Fatal(err)
			}
			want := b.totals(workspace, loc)
			what := workspace + " " + query
			wantDays(t, what, r.performance(workspace, query, zone), want)
			wantDays(t, what+" as CSV", r.performanceCSV(workspace, query, zone), want)
			wantReceived(b, r, workspace, query, zone, loc)
			if zone == "UTC" {
				continue
			}
			wantDays(t, what+" by events", r.performance(workspace, query+"&verdict=attributed,reversed", zone), want)
			wantDays(t, what+" by clicks", r.performance(workspace, query+"&basis=click", zone), want)
		}
	}
	var daily []struct {
		Day      string `ch:"at"`
		Currency string `ch:"currency"`
		Standing int64  `ch:"standing"`
	}
	if err := b.conn.Select(t.Context(), &daily, `
SELECT toString(day) AS at, toString(currency) AS currency, toInt64(sum(standing_minor)) AS standing
FROM partner_daily
WHERE workspace_id = 'berlin'
GROUP BY at, currency`); err != nil {
		t.Fatal(err)
	}
	want := b.totals("berlin", time.UTC)
	if len(daily) != len(want) {
		t.Errorf("partner_daily has %d days, want %d", len(daily), len(want))
	}
	for _, d := range daily {
		if sums := want[d.Day+" "+d.Currency]; sums.StandingMinor != d.Standing {
			t.Errorf("partner_daily, %s: %d, want %d", d.Day, d.Standing, sums.StandingMinor)
		}
	}
}

// wantReceived compares the events by day of receipt.
func wantReceived(b *calendarBook, r reader, workspace, query, zone string, loc *time.Location) {
	b.Helper()
	want, got := map[string]int{}, map[string]int{}
	for i := range b.outcomes {
		if o := &b.outcomes[i]; o.WorkspaceID == workspace {
			want[o.ReceivedAt.Time().In(loc).Format(time.DateOnly)+" "+zone]++
		}
	}
	var answer struct {
		Rows []struct {
			Day, Timezone        string
			Received, Difference int
		}
	}
	body := r.get(workspace, "/v1/workspaces/"+workspace+"/conservation?limit=1000&"+query)
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		b.Fatal(err)
	}
	for _, row := range answer.Rows {
		got[row.Day+" "+row.Timezone] = row.Received
	}
	if !maps.Equal(got, want) {
		b.Errorf("%s %s: received %v, want %v", workspace, query, got, want)
	}
}

var tile = regexp.MustCompile(`<dt>([^<]+)</dt><dd[^>]*>(?:<div[^>]*>)?([^<]*)<`)

// pageTiles reads the figures at the top of the page, as bare numbers.
func (r reader) pageTiles(workspace, query, zone string) map[string]string {
	r.Helper()
	body := r.get(workspace, "/?"+query)
	if !strings.Contains(body, "days in "+zone+"<") || !strings.Contains(body, "Happened, "+zone+"<") {
		r.Errorf("%s: the page does not say that its days are of %s", query, zone)
	}
	tiles := map[string]string{}
	for _, m := range tile.FindAllStringSubmatch(body, -1) {
		tiles[m[1]] = strings.NewReplacer("\u202f", "", "−", "-").Replace(m[2])
	}
	return tiles
}

func hundredths(minor int64) string { return new(big.Rat).SetFrac64(minor, 100).FloatString(2) }

// A day has the same rows on the page, in the report's file and in the export: those of
// the oracle.
func TestPageIsExport(t *testing.T) {
	b := newCalendarBook(t)
	r := newReader(b)
	days := append([]calendarDay{{"acme", "Europe/Berlin", "2026-11-29", "", ""}}, calendarDays...)
	for i, d := range days {
		for _, utc := range []bool{false, true}[:1+(i+1)%2] { // UTC of every second
			zone, query := d.zone, "from="+d.day+"&to="+d.day
			if utc {
				zone, query = "UTC", query+"&tz=UTC"
			}
			t.Run(d.day+"/"+zone+"/"+d.workspace, func(t *testing.T) { b.checkDay(t, r, d, zone, query) })
		}
	}
}

func (b *calendarBook) checkDay(t *testing.T, r reader, d calendarDay, zone, query string) {
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	currency := "EUR"
	if d.workspace == "acme" {
		currency = "GBP"
	}
	want, ok := b.totals(d.workspace, loc)[d.day+" "+currency]
	if !ok {
		t.Fatal("the oracle has nothing on this day")
	}
	tiles := r.pageTiles(d.workspace, query, zone)
	for name, figure := range map[string]string{
		"Net revenue":       hundredths(want.StandingMinor),
		"Attributed sales":  fmt.Sprint(want.Sales),
		"Taken back":        fmt.Sprint(want.TakenBack),
		"Given back":        fmt.Sprint(want.GivenBack),
		"Estimated rewards": hundredths(want.RewardMinor),
	} {
		if name == "Net revenue" && want.StandingMinor == 0 && want.GrossMinor == 0 {
			continue
		}
		if tiles[name] != figure {
			t.Errorf("the page says %s %q, want %q", name, tiles[name], figure)
		}
	}
	dir := t.TempDir()
	m, err := export.Run(t.Context(), b.conn, export.Config{
		Filters: export.Filters{Workspace: d.workspace, From: d.day, To: d.day, Timezone: exportZone(d, zone),
			Verdict: event.Texts(event.Verdicts())},
		Dir: dir,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if m.Filters.Timezone != zone {
		t.Errorf("the manifest names the zone %s", m.Filters.Timezone)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.csv"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	exported, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := r.get(d.workspace, "/v1/workspaces/"+d.workspace+"/outcomes.csv?"+query); got != string(exported) {
		t.Errorf("outcomes.csv:\n%s\nexport:\n%s", got, exported)
	}
	if rows := want.Sales + want.Refunds + want.Reversals; m.Rows != rows {
		t.Errorf("the export has %d rows, want %d", m.Rows, rows)
	}
	sum := new(big.Rat)
	for _, text := range m.StandingSums[currency] {
		x, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatal(text)
		}
		sum.Add(sum, x)
	}
	if got := sum.FloatString(2); got != hundredths(want.StandingMinor) {
		t.Errorf("the export sums to %s, want %s", got, hundredths(want.StandingMinor))
	}
}

// exportZone is the zone that an export is told: none where the workspace's is wanted.
func exportZone(d calendarDay, zone string) string {
	if zone == d.zone {
		return ""
	}
	return zone
}

// A refund at half past eleven in the evening UTC is of the next day in Berlin: page and
// export of that day both sum to nothing, and the day before has nothing.
func TestRefundOfTheNextDay(t *testing.T) {
	b := newCalendarBook(t)
	r := newReader(b)
	for query, want := range map[string]string{
		"from=2026-11-29&to=2026-11-29":        "0.00",
		"from=2026-11-28&to=2026-11-28":        "–",
		"from=2026-11-28&to=2026-11-28&tz=UTC": "-100.00",
		"from=2026-11-29&to=2026-11-29&tz=UTC": "100.00",
	} {
		body := r.get("acme", "/?"+query)
		got := ""
		for _, m := range tile.FindAllStringSubmatch(body, -1) {
			if m[1] == "Net revenue" {
				got = strings.ReplaceAll(m[2], "−", "-")
			}
		}
		if got != want {
			t.Errorf("%s: net revenue %q, want %q", query, got, want)
		}
	}
}
