package export

import (
	"encoding/csv"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nimriz/partners/schemas/ledger"
	"github.com/shopspring/decimal"
)

// oddRows inserts rows with texts of all kinds, formulas and broken characters among
// them, and with amounts of all signs and digits.
func (r *rig) oddRows(n int) {
	r.Helper()
	r.exec(`INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, reason, flags, review, type, event_name,
		effect, occurred_at, received_at, amount_minor, currency, exponent, quantity, order_id, parent_event_id,
		reason_text, estimated_reward_minor, reward_currency, event_partition, event_offset, rules_version,
		standing_change_minor, clicked_at, partner_id, partner_name, sub1, sub2, utm_term, is_bot, src_partition,
		src_offset)
	WITH ['', 'a', '=', '-', '＝', ';', ',', '\t', '\r', '\n', '"', '\'', ' ', '\xE2\x80\xA8', '\xE2', '\xEF\xBB\xBF',
		'\xff', '\0', 'é', '\xF0\x9F', '\xC2\x85', '\xC3', '|', '1'] AS pieces,
		(n -> arrayStringConcat(arrayMap(i -> pieces[1 + cityHash64(n, i) %% 24], range(n %% 7)))) AS text
	SELECT 'acme', concat('n', text(number)), 'tok', 'attributed', text(number + 1), [text(number + 2),
		text(number + 3)], 'clear', 'sale', text(number + 4), 1, toDateTime64('2026-03-14 20:00:00', 3, 'UTC') + 7 *
		number, toDateTime64('2026-03-15 00:00:00.009', 3, 'UTC') + number / 1000, [NULL, 0, 1, -1, 99, -100,
		9223372036854775807, -9223372036854775807, 123456, -5][1 + number %% 10] AS amount_minor, 'EUR',
		[0, 2, 3, 4][1 + number %% 4], if(number %% 2 = 0, NULL, -number), text(number + 5), text(number + 6),
		text(number + 7), if(number %% 3 = 0, NULL, -777), ['', 'USD', 'JPY', 'KWD', 'CLF'][1 + number %% 5], 7,
		number, 2, amount_minor, if(number %% 6 = 0, NULL, toDateTime64('2026-03-14 10:00:00.5', 3, 'UTC')), 'p1',
		text(number + 9), text(number + 11), text(number + 12), text(number + 14), number %% 10 = 0, 7, number
	FROM numbers(%d)`, n)
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES ('x', 'outcomes', "+
		"7, 0, %d, %d)", n, n)
}

// Each line that this process writes is the one that ClickHouse would have written, and
// the files of earlier releases were written by ClickHouse.
func TestLinesAreClickHouses(t *testing.T) {
	r := newRig(t)
	r.rows(400, true)
	r.oddRows(9000) // more blocks than there are
	for _, c := range []struct {
		version int
		raw     bool
	}{{SchemaVersion, false}, {1, true}} {
		cfg := config(t.TempDir())
		cfg.Raw = c.raw
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		e := &exporter{conn: r.conn, cfg: cfg}
		b, err := e.readBounds(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p, err := newPlan(cfg, b, "Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		p.version = c.version
		s, err := e.readSummary(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		selected := newSelection(p)
		lines := strings.Replace(rowsQuery(selected, p.version), rowSQL(p.version)+" AS row",
			ledger.CSVLine(p.version, p.raw, columnSQL)+" AS line", 1)
		lines = strings.Replace(lines, "WITH "+selected.with, "WITH "+selected.with+","+ledger.Functions, 1)
		rows, err := r.conn.Rows(t.Context(), lines, selected.args...)
		if err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		want.WriteString(p.header() + "\n")
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			want.WriteString(line + "\n")
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		w, err := e.writeEvents(t.Context(), p, s, &got)
		if err != nil || w.rows < 9300 {
			t.Fatal(w.rows, err)
		}
		checkSums(t, want.String(), w.sums)
		if got, want := got.String(), want.String(); got != want {
			at := 0
			for at < len(want) && at < len(got) && got[at] == want[at] {
				at++
			}
			t.Errorf("version %d, raw %t: from byte %d on %.80q, want %.80q", c.version, c.raw, at, got[at:], want[at:])
		}
	}
}

// checkSums adds up the net amounts of a CSV.
func checkSums(t *testing.T, text string, sums map[string]map[string]string) {
	t.Helper()
	records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	kind, code := slices.Index(records[0], "type"), slices.Index(records[0], "currency")
	net := slices.Index(records[0], "net_amount")
	want := map[string]decimal.Decimal{}
	for _, record := range records[1:] {
		if amount, err := decimal.NewFromString(record[net]); err == nil {
			want[record[code]+record[kind]] = want[record[code]+record[kind]].Add(amount)
		}
	}
	for code, byKind := range sums {
		for kind, sum := range byKind {
			if got, err := decimal.NewFromString(sum); err != nil || !got.Equal(want[code+kind]) {
				t.Errorf("%s %s: the sum is %s, of the lines %s", code, kind, sum, want[code+kind])
			}
			delete(want, code+kind)
		}
	}
	if len(want) > 0 {
		t.Errorf("no sum of %v", want)
	}
}

// A row that is cut off or goes on is an error, not other values.
func TestDecodeRow(t *testing.T) {
	columns := []ledger.Column{
		{Kind: ledger.Text},
		{Kind: ledger.List},
		{Kind: ledger.Time, Nullable: true},
		{Kind: ledger.Decimal, Nullable: true},
		{Kind: ledger.Bool},
		{Kind: ledger.Integer},
	}
	long := strings.Repeat("x", 300)
	row := "\xac\x02" + long + "\x02\x01a\x00" + "\x01" + "\x00\xff\xff\xff\xff\xff\xff\xff\xff\x02" + "\x01" +
		"\x07\x00\x00\x00\x00\x00\x00\x00"
	cells := make([]cell, len(columns))
	if err := decodeRow(columns, row, cells); err != nil {
		t.Fatal(err)
	}
	if cells[0].text != long || len(cells[1].list) != 2 || cells[1].list[0] != "a" || !cells[2].null ||
		cells[3].number != -1 || cells[3].digits != 2 || cells[4].number != 1 || cells[5].number != 7 {
		t.Errorf("cells %+v", cells)
	}
	for end := range len(row) {
		if err := decodeRow(columns, row[:end], cells); !errors.Is(err, errRow) {
			t.Fatalf("%d bytes of %d: %v", end, len(row), err)
		}
	}
	tooLong := strings.Repeat("\xff", 9) + "\x01"
	for _, other := range []string{row + "\x00", strings.Repeat("\xff", 12), tooLong} {
		if err := decodeRow(columns, other, cells); !errors.Is(err, errRow) {
			t.Errorf("%d bytes: %v", len(other), err)
		}
	}
}

// A file that cannot be written ends an export with that error, and no goroutine of it
// stays behind: the next export runs.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	r := newRig(t)
	r.rows(6000, true) // more blocks than there are
	cfg := config("-")
	for _, cfg.Format = range []string{FormatCSV, FormatParquet} {
		cfg.Stdout = full
		if _, err := Run(t.Context(), r.conn, cfg); err == nil || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("%s: %v", cfg.Format, err)
		}
	}
	cfg.Dir = t.TempDir()
	if _, err := Run(t.Context(), r.conn, cfg); err != nil {
		t.Error(err)
	}
	if files, err := filepath.Glob(filepath.Join(cfg.Dir, "*.parquet")); err != nil || len(files) != 1 {
		t.Error(files, err)
	}
}
