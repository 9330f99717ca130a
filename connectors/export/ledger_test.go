package export

import (
	"encoding/hex"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/ledger"
)

// The view conversion_rows, on a migrated database, has the columns of the ledger, in
// order, of the kinds that the ledger says.
func TestViewHasTheLedgersColumns(t *testing.T) {
	r := newRig(t)
	var columns []struct {
		Name string `ch:"name"`
		Type string `ch:"type"`
	}
	if err := r.conn.Select(t.Context(), &columns, `
SELECT name, type
FROM system.columns
WHERE database = currentDatabase() AND table = 'conversion_rows'
ORDER BY position`); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range columns {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, ledger.Names()) {
		t.Fatalf("the view has\n%v\nthe ledger has\n%v", names, ledger.Names())
	}
	starts := map[ledger.Kind][]string{
		ledger.Text:    {"String"},
		ledger.List:    {"Array(String)"},
		ledger.Time:    {"DateTime64(3, 'UTC')"},
		ledger.Integer: {"Int", "UInt"},
		ledger.Decimal: {"String"},
		ledger.Bool:    {"Bool"},
	}
	for i, c := range ledger.Columns() {
		kind := strings.ReplaceAll(columns[i].Type, "LowCardinality(String)", "String")
		inner, nullable := strings.CutPrefix(kind, "Nullable(")
		if nullable != c.Nullable || !slices.ContainsFunc(starts[c.Kind], func(start string) bool {
			return strings.HasPrefix(inner, start)
		}) {
			t.Errorf("%s: the view has %s, the ledger kind %d, nullable %t",
				c.Name, columns[i].Type, c.Kind, c.Nullable)
		}
	}
}

// What ClickHouse writes is what Go writes.
func TestFunctionsWriteAsGo(t *testing.T) {
	r := newRig(t)
	ask := func(expression string, args ...any) string {
		t.Helper()
		var got []struct {
			Value string `ch:"value"`
		}
		if err := r.conn.Select(t.Context(), &got, "WITH "+ledger.Functions+" SELECT "+expression+" AS value",
			args...); err != nil {
			t.Fatalf("%s: %v", expression, err)
		}
		return got[0].Value
	}
	for _, text := range []string{"", "=1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "plain", " =1", "'=1", "é",
		"\u00a0=1", "x;=1", "x;\t\t=1", "x,\r=1", "x\r\n=1", "＠;－", "\"=1", "a|'-b", ";\u200b+", "\x01=",
		"\u2060\u202f﹦1"} {
		hexText := clickhouse.Named("s", hex.EncodeToString([]byte(text)))
		for version, function := range map[int]string{1: "escape_formula_1", ledger.Version: "escape_formula"} {
			got := ask(function+"(unhex({s:String}))", hexText)
			if want := ledger.EscapeFormula(version, text); got != want {
				t.Errorf("%s of %q: %q, want %q", function, text, got, want)
			}
		}
	}
	for _, text := range []string{"", "é", "\xff", "\xff\xfex", "a\x00b", "\xe2\x82x", "\xf0\x9f,"} {
		// A line ends with numbers, see ledger.CSVLine.
		got := ask("clean_text(concat(unhex({s:String}), ',1,2'))",
			clickhouse.Named("s", hex.EncodeToString([]byte(text))))
		if want := ledger.CleanText(text + ",1,2"); got != want {
			t.Errorf("clean_text of %q: %q, want %q", text, got, want)
		}
	}
	for _, minor := range []int64{0, 1, -1, 99, -100, 1050, -123456, math.MaxInt64, math.MinInt64 + 1} {
		for _, digits := range []uint8{0, 2, 3, 4} {
			got := ask("format_decimal({minor:Int64}, {digits:UInt8})",
				clickhouse.Named("minor", minor), clickhouse.Named("digits", digits))
			if want := ledger.FormatDecimal(ledger.MinorUnits(minor, digits)); got != want {
				t.Errorf("format_decimal of %d, %d digits: %q, want %q", minor, digits, got, want)
			}
		}
	}
	for _, at := range []time.Time{time.UnixMilli(0), time.UnixMilli(1773480600007), time.UnixMilli(4102444799999)} {
		got := ask("format_time(fromUnixTimestamp64Milli({at:Int64}, 'UTC'))", clickhouse.Named("at", at.UnixMilli()))
		if want := ledger.FormatTime(at); got != want {
			t.Errorf("format_time: %q, want %q", got, want)
		}
	}
}

// All texts of up to four pieces are escaped by ClickHouse as by Go, and none that is
// escaped passes the look at its line.
func TestEscapesAsGo(t *testing.T) {
	r := newRig(t)
	var rows []struct {
		Text    string `ch:"t"`
		Escaped string `ch:"escaped"`
		Formula bool   `ch:"formula"`
	}
	if err := r.conn.Select(t.Context(), &rows, "WITH "+ledger.Functions+`,
	['', 'a', '=', '-', '＝', ';', ',', '\t', '\r', '\n', '"', '\'', ' ', '\xE2\x80\xA8', '\xE2', '\xEF\xBB\xBF'] AS pieces,
	arrayStringConcat(arrayMap(i -> pieces[1 + intDiv(number, intExp2(4 * i)) % 16], range(4))) AS t
SELECT t, escape_formula(t) AS escaped, has_formula(concat('x,', quote_cell(t), ',1')) AS formula
FROM numbers(65536)`); err != nil {
		t.Fatal(err)
	}
	escaped := 0
	for _, row := range rows {
		if want := ledger.EscapeFormula(ledger.Version, row.Text); row.Escaped != want {
			t.Fatalf("%q: %q, want %q", row.Text, row.Escaped, want)
		}
		if row.Escaped != row.Text {
			escaped++
			if !row.Formula {
				t.Fatalf("the line of %q passes for one without formula", row.Text)
			}
		}
	}
	if len(rows) != 1<<16 || escaped < 1<<14 {
		t.Errorf("%d texts, %d of them escaped", len(rows), escaped)
	}
}

// Each character that is skipped in front of a formula, or begins one, is so for
// ClickHouse as for Go, and those beside it in Unicode are, too, or are not.
func TestKnowsTheCharactersAsGo(t *testing.T) {
	r := newRig(t)
	var hexes []string
	for c := rune(1); c <= unicode.MaxRune-1; c++ {
		if unicode.In(c, unicode.Zs, unicode.Cf, unicode.Cc) || strings.ContainsRune("=+-@＝＋－＠﹦﹢﹣﹫−\"'", c) {
			for beside := c - 1; beside <= c+1; beside++ {
				hexes = append(hexes, hex.EncodeToString([]byte(string(beside))))
			}
		}
	}
	slices.Sort(hexes)
	hexes = slices.Compact(hexes)
	var rows []struct {
		Text    string `ch:"t"`
		Escaped string `ch:"escaped"`
		Formula bool   `ch:"formula"`
	}
	if err := r.conn.Select(t.Context(), &rows, "WITH "+ledger.Functions+`,
	arrayJoin(arrayMap(h -> unhex(h), splitByChar(',', {hexes:String}))) AS c,
	arrayJoin([concat(c, '=1'), concat('x;', c, '=1'), concat(c, '1'), concat('x,', c, 'y')]) AS t
SELECT t, escape_formula(t) AS escaped, has_formula(t) AS formula`,
		clickhouse.Named("hexes", strings.Join(hexes, ","))); err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		want := ledger.EscapeFormula(ledger.Version, row.Text)
		if row.Escaped != want || (want != row.Text && !row.Formula) {
			t.Errorf("%q: %q, has a formula: %t, want %q", row.Text, row.Escaped, row.Formula, want)
		}
	}
	if len(rows) != 4*len(hexes) || len(hexes) < 250 {
		t.Errorf("%d texts of %d characters", len(rows), len(hexes))
	}
}

// The manifest's conservation is the sum of the view's days, also where events wait and
// rows are there twice.
func TestConservationIsTheViews(t *testing.T) {
	r := newRig(t)
	const at = "toDateTime64('2026-03-20 00:00:00', 3, 'UTC') + 40000 * "
	r.exec("INSERT INTO conversions (workspace_id, event_id, received_at, src_partition, src_offset) " +
		"SELECT 'acme', toString(number), " + at + "number, 1, number FROM numbers(9)")
	// Of the nine events 3 and 7 wait, and 2 has two rows.
	for i, row := range []string{"'conflict', 0", "'conflict', 1", "'duplicate', 2", "'attributed', 2",
		"'reversed', 4", "'unattributed', 5", "'attributed', 6", "'attributed', 8"} {
		r.exec("INSERT INTO outcomes (workspace_id, verdict, received_at, event_partition, event_offset, "+
			"src_partition, src_offset) SELECT 'acme', c1, "+at+
			"c2, 1, c2, 1, %d FROM VALUES('c1 String, c2 UInt64', (%s))", i, row)
	}
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES " +
		"('x', 'conversions', 1, 0, 9, 9), ('x', 'outcomes', 1, 0, 8, 8)")
	check := func(waiting uint64, difference int64) *Manifest {
		t.Helper()
		_, file, _ := r.run(config(t.TempDir()))
		m, err := ReadManifest(file)
		if err != nil {
			t.Fatal(err)
		}
		var view []ledger.Conservation
		if err := r.conn.Select(t.Context(), &view, "SELECT "+ledger.ConservationSums("v")+
			" FROM workspace_conservation AS v WHERE v.workspace_id = 'acme'"); err != nil {
			t.Fatal(err)
		}
		if m.Conservation != view[0] || m.Conservation.Received != 9 || m.Conservation.Waiting != waiting ||
			m.Conservation.Difference != difference {
			t.Errorf("the manifest says %s\nthe view says     %s", m.Conservation, view[0])
		}
		return m
	}
	unknown := check(2, 1)

	// Event 3 entered on the 21st at 09:20 and ended an hour later; event 7 entered on the
	// 23rd. The Progress of the 22nd is not reached yet, that of the 21st is.
	r.exec("INSERT INTO progress (src_partition, src_offset, partition, at, conversions_position, outcomes_end, " +
		"watermark, grace_ms) VALUES (1, 0, 1, '2026-03-20 00:00:00', 0, 0, '2026-03-20 00:00:00', 86400000), " +
		"(1, 1, 1, '2026-03-21 10:00:00', 5, 8, '2026-03-21 10:25:00.000', 3600000), " +
		"(1, 2, 1, '2026-03-23 23:00:00', 9, 9, '2026-03-23 23:00:00', 3600000)")
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES " +
		"('x', 'progress', 1, 0, 3, 3)")
	early := check(2, 1)
	r.exec("INSERT INTO progress (src_partition, src_offset, partition, at, conversions_position, outcomes_end, " +
		"watermark, grace_ms) VALUES (1, 3, 1, '2026-03-21 10:00:00', 7, 8, '2026-03-21 10:25:00.001', 3600000)")
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES " +
		"('x', 'progress', 1, 3, 4, 1)")
	late := check(1, 2)

	// Whatever was learned since, a manifest says the same again; also one that was
	// written before as_of had the ends of progress.
	old := *unknown
	old.AsOf.Progress = nil
	for name, then := range map[string]*Manifest{"unknown": unknown, "early": early, "late": late, "old": &old} {
		cfg := config(t.TempDir())
		cfg.AsOf = then
		if again, _, _ := r.run(cfg); again.Conservation != then.Conservation {
			t.Errorf("%s: again %s\nwas %s", name, again.Conservation, then.Conservation)
		}
	}
}
