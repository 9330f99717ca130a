package report

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/schemas/ledger"
)

// openMigrated opens a migrated database with one sale, e1, and one lead without amount
// and click, e2.
func openMigrated(t *testing.T) *clickhouse.Conn {
	t.Helper()
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	if err := conn.Exec(t.Context(), `
INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, review, flags, type, effect, amount_minor,
	standing_change_minor, currency, exponent, quantity, utm_term, utm_content, is_bot, occurred_at, received_at, clicked_at,
	event_partition, event_offset, src_partition, src_offset)
VALUES
	('acme', 'e1', 't1', 'attributed', 'review', ['too_fast', 'no_partner'], 'sale', 1, 1050, 1040, 'EUR', 2, 3, 'a "term"',
		'=content', true, '2026-03-14 10:00:00.007', '2026-03-14 10:00:01', '2026-03-13 09:00:00', 4, 17, 0, 0),
	('acme', 'e2', 't2', 'unattributed', 'clear', [], 'lead', 0, NULL, NULL, '', 0, NULL, '',
		'', false, '2026-03-14 11:00:00', '2026-03-14 11:00:01', NULL, 5, 18, 0, 1)`); err != nil {
		t.Fatal(err)
	}
	return conn
}

// readAll reads both events as JSON, as lines and as a page shows them.
func readAll(t *testing.T, conn *clickhouse.Conn) (rows, lines []string, recent []*RecentEvent) {
	t.Helper()
	r := New(conn)
	if err := r.Conversions(t.Context(), "acme", Filter{}, Page{}, func(c *Conversion) error {
		b, err := json.Marshal(c)
		rows = append(rows, string(b))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := r.ConversionLines(t.Context(), "acme", Filter{}, func(line string) error {
		lines = append(lines, line)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	recent, err := r.RecentEvents(t.Context(), "acme", Filter{}, 10, 0)
	if err != nil {
		t.Fatal(err)
	}
	return rows, lines, recent
}

// A conversion has every column of the ledger, in JSON under its name and in a line in
// its place.
func TestConversionHasTheLedgersColumns(t *testing.T) {
	rows, lines, recent := readAll(t, openMigrated(t))
	if len(rows) != 2 || len(lines) != 2 || len(recent) != 2 {
		t.Fatalf("%d rows, %d lines, %d events", len(rows), len(lines), len(recent))
	}
	for _, want := range []string{`{"workspace_id":"acme","partner_id":"",`, `"clicked_at":"2026-03-13T09:00:00Z",` +
		`"occurred_at":"2026-03-14T10:00:00.007Z",`, `"effect":1,"amount":"10.50","net_amount":"10.50",` +
		`"standing_change":"10.40","currency":"EUR","amount_minor":1050,"quantity":3,`, `"flags":["too_fast","no_partner"],` +
		`"estimated_reward":null,`, `"utm_term":"a \"term\"","utm_content":"=content",`, `"is_bot":true,` +
		`"click_token":"t1","event_partition":4,"event_offset":17}`} {
		if !strings.Contains(rows[0], want) {
			t.Errorf("no %s in\n%s", want, rows[0])
		}
	}
	if want := `"clicked_at":null,`; !strings.Contains(rows[1], want) || !strings.Contains(rows[1], `"flags":[],`) {
		t.Errorf("no %s, or no empty flags, in\n%s", want, rows[1])
	}
	decoder := json.NewDecoder(strings.NewReader(rows[0]))
	var keys []string
	for depth := 0; ; {
		token, err := decoder.Token()
		if err != nil {
			break
		}
		switch d, ok := token.(json.Delim); {
		case ok && (d == '[' || d == '{'):
			depth++
		case ok:
			depth--
		case depth == 1:
			keys = append(keys, fmt.Sprint(token))
			var value any
			if err := decoder.Decode(&value); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := strings.Join(keys, ","); got != ledger.Header(ledger.Version) {
		t.Errorf("keys\n%s\nwant\n%s", got, ledger.Header(ledger.Version))
	}
	const cells = `sale,,attributed,,1,10.50,10.50,10.40,EUR,1050,3,,,,,,review,too_fast|no_partner,,,,,,,` +
		`"a ""term""",'=content,`
	if !strings.Contains(lines[0], cells) ||
		!strings.HasPrefix(lines[1], "acme,,,,,,,,,,,,,,,2026-03-14T11:00:00.000Z,") ||
		!strings.HasSuffix(lines[0], ",true,t1,4,17") {
		t.Errorf("lines\n%s\n%s", lines[0], lines[1])
	}
	if e := recent[1]; e.EventID != "e1" || e.NetAmount == nil || *e.NetAmount != "10.50" ||
		e.Change == nil || *e.Change != "10.40" || e.Effect != 1 ||
		!e.OccurredAt.Equal(time.Date(2026, 3, 14, 10, 0, 0, 7e6, time.UTC)) {
		t.Errorf("the newest but one is %+v", e)
	}
}

// A migration of a newer release adds a column to the view while this process runs: it
// goes on as before.
func TestViewWithOneMoreColumn(t *testing.T) {
	conn := openMigrated(t)
	rows, lines, _ := readAll(t, conn)
	var view []struct {
		Query string `ch:"query"`
	}
	if err := conn.Select(t.Context(), &view, `
SELECT as_select AS query
FROM system.tables
WHERE database = currentDatabase() AND name = 'conversion_rows'`); err != nil {
		t.Fatal(err)
	}
	newer := "CREATE OR REPLACE VIEW conversion_rows AS SELECT 'x' AS added_later, * FROM (" + view[0].Query + ")"
	if err := conn.Exec(t.Context(), newer); err != nil {
		t.Fatal(err)
	}
	var columns []struct {
		N uint64 `ch:"n"`
	}
	if err := conn.Select(t.Context(), &columns, `
SELECT count() AS n
FROM system.columns
WHERE database = currentDatabase() AND table = 'conversion_rows'`); err != nil {
		t.Fatal(err)
	}
	if columns[0].N != uint64(len(ledger.Columns())+1) {
		t.Fatalf("the view has %d columns", columns[0].N)
	}
	rowsNow, linesNow, _ := readAll(t, conn)
	if strings.Join(rowsNow, "\n") != strings.Join(rows, "\n") ||
		strings.Join(linesNow, "\n") != strings.Join(lines, "\n") {
		t.Errorf("rows\n%s\nwere\n%s\nlines\n%s\nwere\n%s", rowsNow, rows, linesNow, lines)
	}
}

// A page has the rows of the view, in its order and with its flags, wherever the other
// row of a reused id is; so has what a page of the report shows, the newest first.
func TestPagesAreTheView(t *testing.T) {
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	if err := conn.Exec(t.Context(), `
INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, type, effect, flags, amount_minor, currency,
	exponent, occurred_at, arrived_at, event_partition, event_offset, src_partition, src_offset, partner_id)
SELECT if(number % 7 = 0, 'zeta', 'acme'), concat('e', toString(number % 19)), concat('t', toString(number % 23)),
	'attributed', 'sale', number % 5 != 0, ['too_fast'], 100 + number, 'EUR', 2,
	toDateTime64('2026-03-14 10:00:00', 3, 'UTC') + 43200 * intDiv(number, 2) AS at, at, number % 2, number, number % 2,
	number, concat('p', toString(number % 3))
FROM numbers(41)`); err != nil {
		t.Fatal(err)
	}
	r := New(conn)
	for name, f := range map[string]Filter{
		"all":     {},
		"partner": {Partner: "p1"},
		"days": {From: time.Date(2026, 3, 16, 0, 0, 0, 0, time.UTC), To: time.Date(2026, 3, 20, 0, 0, 0, 0, time.UTC),
			Type: []string{"sale"}},
	} {
		var all, paged []string
		add := func(to *[]string, last *[]string) func(*Conversion) error {
			return func(c *Conversion) error {
				b, err := json.Marshal(c)
				*to, *last = append(*to, string(b)), c.Key()
				return err
			}
		}
		var after []string
		if err := r.Conversions(t.Context(), "acme", f, Page{}, add(&all, &after)); err != nil {
			t.Fatal(err)
		}
		after = nil
		for more := true; more; {
			had := len(paged)
			page := Page{Limit: 4, After: after}
			if err := r.Conversions(t.Context(), "acme", f, page, add(&paged, &after)); err != nil {
				t.Fatal(err)
			}
			more = len(paged) == had+4
		}
		if diff := cmp.Diff(all, paged); diff != "" {
			t.Errorf("%s (-view +pages):\n%s", name, diff)
		}
		text := strings.Join(all, "\n")
		if strings.Count(text, "event_id_reused") < 2 || strings.Count(text, `"flags":["too_fast"]`) < 1 {
			t.Errorf("%s: no reused id, or only such:\n%s", name, text)
		}
		recent, err := r.RecentEvents(t.Context(), "acme", f, 100, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range recent {
			row := all[len(all)-1-i]
			flags, err := json.Marshal(e.Flags)
			if err != nil || len(recent) != len(all) || !strings.Contains(row, `"event_id":"`+e.EventID+`"`) ||
				!strings.Contains(row, `"flags":`+string(flags)) {
				t.Errorf("%s: event %d of %d is %s with flags %s, %v; the view has\n%s", name, i, len(recent),
					e.EventID, flags, err, row)
			}
		}
	}
}
