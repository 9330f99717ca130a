package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gofrs/flock"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/schemas/ledger"
)

type rig struct {
	testing.TB
	conn *clickhouse.Conn
	at   *url.URL
	next int // offset of the next row, in both topics
}

func newRig(t testing.TB) *rig {
	t.Helper()
	dsn := clickhousetest.ForTest(t)
	at, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn := clickhousetest.OpenMigrated(t, dsn)
	r := &rig{TB: t, conn: conn, at: at}
	r.catalog(0, "workspace", "workspace/acme", `{"name":"Acme","timezone":"Europe/Berlin"}`)
	r.catalog(1, "partner", "partner/acme/p0", `{"id":"p0","relationship":"approved"}`)
	r.catalog(2, "partner", "partner/acme/p1", `{"id":"p1","relationship":"review"}`)
	return r
}

func (r *rig) exec(statement string, args ...any) {
	r.Helper()
	if err := r.conn.Exec(r.Context(), fmt.Sprintf(statement, args...)); err != nil {
		r.Fatalf("%v: %.200s", err, statement)
	}
}

// catalog inserts a record of the catalog, or with no text its removal. A workspace that
// says nothing of its plan has exports.
func (r *rig) catalog(offset int, kind, key, text string) {
	r.Helper()
	if kind == "workspace" && text != "" && !strings.Contains(text, `"plan"`) {
		text = `{"plan":"professional","access":{"exports":true},` + strings.TrimPrefix(text, "{")
	}
	r.exec("INSERT INTO catalog_versions (workspace_id, kind, key, json, src_partition, src_offset) VALUES "+
		"('acme', '%s', '%s', '%s', 0, %d)", kind, key, text, offset)
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES ('x', "+
		"'catalog', 0, %d, %d, 1)", offset, offset+1)
}

// rows inserts n events of each of two partitions, from 15 March 2026 on, and records
// them as finished batches unless they are only half there.
func (r *rig) rows(n int, finished bool) {
	r.Helper()
	for p := range 2 {
		r.exec(`INSERT INTO conversions (workspace_id, event_id, click_token, type, occurred_at, received_at, src_partition, src_offset)
			SELECT if(number %% 5 = 0, 'globex', 'acme'), concat('e%d-', toString(number)), 'tok', 'sale', now(), now(), %d, number FROM numbers(%d, %d)`, p, p, r.next, n)
		r.exec(`INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, reason, flags, review, type, event_name, effect, occurred_at, received_at, decided_at, amount_minor, currency, exponent, quantity, order_id, parent_event_id, reason_text,
				estimated_reward_minor, reward_currency, event_partition, event_offset, rules_version, standing_change_minor, standing_basis, clicked_at, link_id, partner_id, partner_name, partner_relationship, program_id, sub1, is_bot, src_partition, src_offset)
			SELECT if(number %% 5 = 0, 'globex', 'acme'), if(number %% 40 = 8, 'reused', concat('e%d-', toString(number))), concat('tok', toString(number %% 17)), ['attributed', 'reversed', 'unattributed', 'duplicate'][1 + number %% 4], '', if(number %% 3 = 0, ['too_fast', 'no_partner'], []),
				if(number %% 3 = 0, 'review', 'clear'), ['sale', 'refund', 'lead', 'reversal'][1 + number %% 4], concat('name', toString(number %% 3)), [1, -1, 0, 0][1 + number %% 4] AS effect, toDateTime64('2026-03-14 20:00:00', 3, 'UTC') + 601 * number %% 300000, toDateTime64('2026-03-15 00:00:00.123', 3, 'UTC') + number,
				now(), if(number %% 7 = 0, NULL, 1234567 * (number %% 9) + number) AS amount_minor, if(number %% 7 = 0, '', ['EUR', 'JPY', 'KWD'][1 + number %% 3]), if(number %% 7 = 0, 0, [2, 0, 3][1 + number %% 3]), if(number %% 2 = 0, NULL, number),
				['=1+1', '+4', '-5', '@x', '\ttab', '\rcr', '\nlf', 'plain', 'a,b', 'say "hi"', 'two\nlines', 'Zoë', 'nul\0', '\xff\xfe', '', ' '][1 + number %% 16], if(number %% 4 = 1, concat('e%d-', toString(number - 1)), ''), repeat('x', if(number = 301, 1000000, number %% 11 * 4)),
				if(number %% 4 = 0, 777, NULL), if(number %% 4 = 0, 'USD', ''), %d, number, 1 + number %% 2, if(number %% 5 = 0 OR effect = 0, NULL, effect * intDiv(amount_minor, 3)), if(number %% 2 = 0, 'chain', ''), if(number %% 6 = 0, NULL, toDateTime64('2026-03-14 10:00:00.5', 3, 'UTC')), concat('l', toString(number %% 3)), concat('p', toString(number %% 3)), 'Partner, "then"', 'approved', concat('g', toString(number %% 2)), '=HYPERLINK("x")', number %% 10 = 0, %d, number
			FROM numbers(%d, %d)`, p, p, p, p, r.next, n)
		if finished {
			for _, topic := range []string{"conversions", "outcomes"} {
				r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES "+
					"('x', '%s', %d, %d, %d, %d)", topic, p, r.next, r.next+n, n)
			}
		}
	}
	if finished {
		r.next += n
	}
}

func config(dir string) Config {
	return Config{Filters: Filters{
		Workspace: "acme",
		From:      "2026-03-14",
		To:        "2026-03-31",
		Verdict:   []string{"all"},
	}, Dir: dir, Log: slog.New(slog.DiscardHandler)}
}

// run exports and returns the manifest, its file, and the CSV.
func (r *rig) run(cfg Config) (m *Manifest, file string, content []byte) {
	r.Helper()
	m, err := Run(r.Context(), r.conn, cfg)
	if err != nil {
		r.Fatal(err)
	}
	file = filepath.Join(cfg.Dir, fileName(m.Filters, m.Since, &m.AsOf, m.Provisional, m.Raw, m.BOM)+".manifest.json")
	content, err = os.ReadFile(strings.TrimSuffix(file, ".manifest.json") + ".csv")
	if err != nil {
		r.Fatal(err)
	}
	read, err := ReadManifest(file)
	if err != nil {
		r.Fatal(err)
	}
	sum := sha256.Sum256(content)
	if read.SHA256 != hex.EncodeToString(sum[:]) || read.Rows != m.Rows || !m.Provisional {
		r.Errorf("the manifest is not of the file: %+v", read)
	}
	return read, file, content
}

func (r *rig) records(content []byte) (header []string, rows []map[string]string) {
	r.Helper()
	all, err := csv.NewReader(bytes.NewReader(content)).ReadAll()
	if err != nil {
		r.Fatal(err)
	}
	for _, rec := range all[1:] {
		m := map[string]string{}
		for i, name := range all[0] {
			m[name] = rec[i]
		}
		rows = append(rows, m)
	}
	return all[0], rows
}

// The CSV says, cell by cell, what the view conversion_rows says; in order; money as
// numbers; texts that no spreadsheet runs. The manifest's sums are the view's.
func TestSaysWhatTheViewSays(t *testing.T) {
	r := newRig(t)
	r.rows(400, true)
	m, _, content := r.run(config(t.TempDir()))
	header, rows := r.records(content)
	if !utf8.Valid(content) || bytes.ContainsRune(content, 0) || !bytes.HasSuffix(content, []byte("\n")) ||
		bytes.Contains(content, []byte("\r\n")) {
		t.Error("the file is not UTF-8 with \\n")
	}
	var view []struct {
		Line string `ch:"line"`
	}
	if err := r.conn.Select(t.Context(), &view, "SELECT toJSONString(map("+func() string {
		var pairs []string
		for _, c := range header {
			value := "ifNull(toString(" + c + "), '')"
			switch c {
			case "flags":
				value = "arrayStringConcat(flags, '|')"
			case "clicked_at", "occurred_at", "received_at":
				value = "ifNull(replaceOne(concat(toString(" + c + "), 'Z'), ' ', 'T'), '')"
			}
			pairs = append(pairs, "'"+c+"'", "replaceAll(toValidUTF8("+value+"), '\\0', '\\xEF\\xBF\\xBD')")
		}
		return strings.Join(pairs, ", ")
	}()+")) AS line FROM conversion_rows WHERE workspace_id = 'acme' AND occurred_at >= '2026-03-13 23:00:00' AND "+
		"occurred_at < '2026-03-31 22:00:00' "+
		"ORDER BY occurred_at, event_id, event_partition, event_offset"); err != nil {
		t.Fatal(err)
	}
	if len(view) != len(rows) || len(rows) < 400 || int(m.Rows) != len(rows) {
		t.Fatalf("%d rows, the view has %d, the manifest says %d", len(rows), len(view), m.Rows)
	}
	guarded := 0
	for i, v := range view {
		want := map[string]string{}
		if err := json.Unmarshal([]byte(v.Line), &want); err != nil {
			t.Fatal(err)
		}
		for _, c := range header {
			got, is := rows[i][c], want[c]
			if is != "" && strings.ContainsRune("=+-@\t\r\n", rune(is[0])) &&
				!slices.Contains([]string{"effect", "amount", "net_amount", "standing_change", "amount_minor",
					"quantity", "estimated_reward"}, c) {
				is = "'" + is
				guarded++
			}
			if strings.ReplaceAll(got, "\r\n", "\n") != strings.ReplaceAll(is, "\r\n", "\n") {
				t.Fatalf("row %d, %s: %q, the view says %q", i, c, got, is)
			}
		}
	}
	if guarded < 500 {
		t.Errorf("only %d cells needed a guard", guarded)
	}
	r.wantSums("sums", m.Sums, rows, "net_amount")
	r.wantSums("standing_sums", m.StandingSums, rows, "standing_change")
	if m.SchemaVersion != 2 || m.RulesVersion != 2 || len(m.RulesVersions) != 2 ||
		m.Conservation.Difference != 0 || m.Conservation.Received != 640 || m.Conservation.Waiting != 0 ||
		m.ReusedTotal != 1 || m.ReusedEventIDs[0] != "reused" {
		t.Errorf("manifest: %+v", m)
	}
	raw := config(t.TempDir())
	raw.Raw = true
	if _, _, content := r.run(raw); !bytes.Contains(content, []byte(`,"=HYPERLINK(""x"")",`)) ||
		bytes.Contains(content, []byte("'=HYPERLINK")) {
		t.Error("-raw changed texts")
	}
}

// wantSums compares sums of a manifest with those of a column of its rows.
func (r *rig) wantSums(name string, got map[string]map[string]string, rows []map[string]string, column string) {
	r.Helper()
	sums := map[string]map[string]*big.Rat{}
	for _, row := range rows {
		if row[column] == "" {
			continue
		}
		v, ok := new(big.Rat).SetString(row[column])
		if !ok {
			r.Fatalf("%s %q is no number", column, row[column])
		}
		if sums[row["currency"]] == nil {
			sums[row["currency"]] = map[string]*big.Rat{}
		}
		if sums[row["currency"]][row["type"]] == nil {
			sums[row["currency"]][row["type"]] = new(big.Rat)
		}
		sums[row["currency"]][row["type"]].Add(sums[row["currency"]][row["type"]], v)
	}
	for currency, byType := range sums {
		for kind, v := range byType {
			if sum, ok := new(big.Rat).SetString(got[currency][kind]); !ok || sum.Cmp(v) != 0 {
				r.Errorf("%s %s %s: %q, the rows make %v", name, currency, kind, got[currency][kind], v)
			}
		}
	}
	if len(got) != len(sums) || len(sums) == 0 {
		r.Errorf("%s: %d currencies, the rows have %d", name, len(got), len(sums))
	}
}

// The conservation counts every verdict, events that wait, and second rows of one
// event.
func TestConservation(t *testing.T) {
	r := newRig(t)
	r.rows(100, true)
	r.exec(
		`INSERT INTO conversions (workspace_id, event_id, src_partition, src_offset) SELECT 'acme', toString(number), 1, number FROM numbers(100, 4)`)
	// none of 103; two of 102
	for offset, row := range []string{"'conflict', 100", "'conflict', 101", "'duplicate', 102", "'attributed', 102"} {
		r.exec("INSERT INTO outcomes (workspace_id, verdict, event_partition, event_offset, src_partition, "+
			"src_offset) SELECT 'acme', c1, 1, c2, 1, %d FROM VALUES('c1 String, c2 UInt64', (%s))", 100+offset, row)
	}
	for _, topic := range []string{"conversions", "outcomes"} {
		r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES ('x', "+
			"'%s', 1, 100, 104, 4)", topic)
	}
	m, _, _ := r.run(config(t.TempDir()))
	want := ledger.Conservation{
		Received:     164,
		Attributed:   41,
		Reversed:     40,
		Duplicate:    41,
		Conflict:     2,
		Unattributed: 40,
		Waiting:      1,
		Difference:   1,
	}
	if m.Conservation != want {
		t.Errorf("got  %+v\nwant %+v", m.Conservation, want)
	}
}

// Whatever arrives, and whatever a partner has become: -as-of writes the same bytes.
// What is half inserted is in no file. -since continues where a file ends.
func TestAsOfAndSince(t *testing.T) {
	r := newRig(t)
	r.rows(300, true)
	first, file, content := r.run(config(t.TempDir()))
	r.rows(50, false) // the sink is in the middle of a batch
	if m, _, again := r.run(config(t.TempDir())); !bytes.Equal(content, again) || m.Rows != first.Rows {
		t.Errorf("half a batch is in the file: %d rows, were %d", m.Rows, first.Rows)
	}
	for p := range 2 {
		for _, topic := range []string{"conversions", "outcomes"} {
			r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES ('x', "+
				"'%s', %d, %d, %d, 50)", topic, p, r.next, r.next+50)
		}
	}
	r.next += 50
	r.rows(200, true)
	r.catalog(3, "partner", "partner/acme/p0", `{"id":"p0","relationship":"banned"}`)
	r.catalog(4, "workspace", "workspace/acme", `{"name":"Acme","timezone":"America/New_York"}`)
	cfg := config(t.TempDir())
	cfg.AsOf, _ = ReadManifest(file)
	second, _, same := r.run(cfg)
	if !bytes.Equal(content, same) {
		t.Error("-as-of wrote other bytes")
	}
	a, b := *first, *second
	if x, y := fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", b); x != y {
		t.Errorf("-as-of wrote another manifest:\n%s\n%s", x, y)
	}
	whole, _, all := r.run(config(t.TempDir()))
	if bytes.Equal(content, all) || !bytes.Contains(all, []byte(",banned,")) ||
		whole.Filters.Timezone != "America/New_York" {
		t.Error("a new export says what the old one said")
	}
	delta := config(t.TempDir())
	delta.Since, _ = ReadManifest(file)
	more, deltaFile, rest := r.run(delta)
	if !strings.Contains(deltaFile, "_since-") || more.Since == nil {
		t.Errorf("delta %s", deltaFile)
	}
	_, old := r.records(content)
	_, fresh := r.records(rest)
	_, everything := r.records(all)
	places := map[string]int{}
	for _, row := range append(old, fresh...) {
		places[row["event_partition"]+"/"+row["event_offset"]]++
	}
	for _, row := range everything {
		if places[row["event_partition"]+"/"+row["event_offset"]] != 1 {
			t.Fatalf("row %v is %d times in the file and its delta",
				row["event_id"], places[row["event_partition"]+"/"+row["event_offset"]])
		}
	}
	if len(fresh) == 0 || len(old)+len(fresh) < len(everything) {
		t.Errorf("%d and %d rows, together %d", len(old), len(fresh), len(everything))
	}
	again := config(t.TempDir())
	again.AsOf, _ = ReadManifest(deltaFile)
	if _, _, same := r.run(again); !bytes.Equal(rest, same) {
		t.Error("-as-of of a delta wrote other bytes")
	}
	other := config(t.TempDir())
	other.AsOf, _ = ReadManifest(deltaFile)
	other.Since, _ = ReadManifest(deltaFile)
	if _, err := Run(t.Context(), r.conn, other); !errors.Is(err, ErrManifest) ||
		!strings.Contains(err.Error(), "-since") {
		t.Errorf("-as-of with another -since: %v", err)
	}
	delta.Dir = filepath.Dir(deltaFile)
	if _, third, _ := r.run(delta); third == deltaFile {
		t.Errorf("two deltas of one manifest are both %s", third)
	}
	since := func(want string, change func(*Config)) {
		t.Helper()
		cfg := config(t.TempDir())
		cfg.Since, _ = ReadManifest(file)
		change(&cfg)
		if _, err := Run(t.Context(), r.conn, cfg); !errors.Is(err, ErrManifest) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("-since with another %s: %v", want, err)
		}
	}
	since("-partner", func(c *Config) { c.Partner = "p0" })
	since("-verdict", func(c *Config) { c.Verdict = []string{"attributed"} })
	since("-from", func(c *Config) { c.From = c.To })
	since("conversions partition 1 up to offset 1000000", func(c *Config) { c.Since.AsOf.Conversions[1] = 1_000_000 })
	wrong := config(t.TempDir())
	wrong.AsOf, _ = ReadManifest(file)
	wrong.Partner = "p0"
	if _, err := Run(t.Context(), r.conn, wrong); !errors.Is(err, ErrManifest) ||
		!strings.Contains(err.Error(), "-partner") {
		t.Errorf("-as-of of another command: %v", err)
	}
	r.exec("ALTER TABLE outcomes DELETE WHERE src_partition = 0 AND src_offset = 9 SETTINGS mutations_sync = 2")
	gone := config(filepath.Dir(file))
	gone.AsOf, _ = ReadManifest(file)
	if _, err := Run(t.Context(), r.conn, gone); !errors.Is(err, ErrManifest) ||
		!strings.Contains(err.Error(), "rows were removed") {
		t.Errorf("-as-of over a table that lacks a row: %v", err)
	}
	if still, err := os.ReadFile(strings.TrimSuffix(file, ".manifest.json") + ".csv"); err != nil ||
		!bytes.Equal(still, content) {
		t.Errorf("the file that cannot be written again is not there as it was: %v", err)
	}
}

// Filters, the days of the zone, and the default verdicts.
func TestFilters(t *testing.T) {
	r := newRig(t)
	r.rows(400, true)
	_, all := r.records(func() []byte { _, _, c := r.run(config(t.TempDir())); return c }())
	for what, c := range map[string]struct {
		set  func(*Config)
		keep func(map[string]string) bool
	}{
		"partner": {func(c *Config) {
			c.Partner = "p1"
		}, func(r map[string]string) bool { return r["partner_id"] == "p1" }},
		"program": {func(c *Config) {
			c.Program = "g1"
		}, func(r map[string]string) bool { return r["program_id"] == "g1" }},
		"link": {func(c *Config) { c.Link = "l2" }, func(r map[string]string) bool { return r["link_id"] == "l2" }},
		"type": {func(c *Config) {
			c.Type = []string{"lead", "sale"}
		}, func(r map[string]string) bool { return r["type"] == "lead" || r["type"] == "sale" }},
		"verdict": {func(c *Config) {
			c.Verdict = nil
		}, func(r map[string]string) bool { return r["verdict"] == "attributed" || r["verdict"] == "reversed" }},
		"review": {func(c *Config) {
			c.Review = []string{"review"}
		}, func(r map[string]string) bool { return r["review"] == "review" }},
		"days": {func(c *Config) { c.From, c.To = "2026-03-15", "2026-03-16" }, func(r map[string]string) bool {
			return r["occurred_at"] >= "2026-03-14T23:00:00.000Z" && r["occurred_at"] < "2026-03-16T23:00:00.000Z"
		}},
	} {
		cfg := config(t.TempDir())
		c.set(&cfg)
		_, _, content := r.run(cfg)
		_, rows := r.records(content)
		want := 0
		for _, row := range all {
			if c.keep(row) {
				want++
			}
		}
		if len(rows) != want || want == 0 || want == len(all) {
			t.Errorf("%s: %d rows, want %d of %d", what, len(rows), want, len(all))
		}
	}
	for flag, set := range map[string]func(*Config){"-workspace": func(c *Config) {
		c.Workspace = ""
	}, "-out": func(c *Config) {
		c.Dir = ""
	}, "-from": func(c *Config) { c.From = "today" }, "-to": func(c *Config) { c.To = "2026-01-01" },
		"-type": func(c *Config) {
			c.Type = []string{"x"}
		}, "-verdict": func(c *Config) {
			c.Verdict = []string{"x"}
		}, "-review": func(c *Config) { c.Review = []string{"x"} }} {
		cfg := config(t.TempDir())
		set(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), flag) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

// A replica whose batches are ahead of a table: the run waits for the rows, and writes
// nothing if they do not come. A batch that was recorded twice counts once, rows above
// the ends are not missed.
func TestReplicaBehind(t *testing.T) {
	r := newRig(t)
	r.rows(100, true)
	r.rows(10, false)
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES ('x', " +
		"'outcomes', 1, 0, 100, 100)")
	whole, _, _ := r.run(config(t.TempDir()))
	for _, table := range []string{"outcomes", "conversions"} {
		r.exec("CREATE TABLE late AS %s", table)
		r.exec("INSERT INTO late SELECT * FROM %s WHERE src_partition = 1 AND src_offset >= 50 AND src_offset < 55",
			table)
		r.exec("DELETE FROM %s WHERE src_partition = 1 AND src_offset >= 50 AND src_offset < 55 SETTINGS "+
			"lightweight_deletes_sync = 2", table)
		cfg := config(t.TempDir())
		cfg.replicaWait = time.Millisecond
		_, err := Run(t.Context(), r.conn, cfg)
		if want := "of partition 1 the table " + table +
			" has 95 rows from offset 0 on, its batches have 100"; !errors.Is(err, ErrRowsMissing) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
		if left, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.csv")); len(left) > 0 {
			t.Errorf("it left %v", left)
		}
		var arrives slog.Handler = onLog(func() {
			r.exec("INSERT INTO %s SELECT * FROM late", table)
			r.exec("DROP TABLE late")
		})
		cfg.replicaWait, cfg.Log = time.Minute, slog.New(arrives)
		m, _, _ := r.run(cfg)
		if m.SHA256 != whole.SHA256 {
			t.Errorf("when the rows of %s have come, the file has %d rows, want %d", table, m.Rows, whole.Rows)
		}
	}
}

// onLog calls a function when something is waited for.
type onLog func()

func (f onLog) Enabled(context.Context, slog.Level) bool { return true }
func (f onLog) WithAttrs([]slog.Attr) slog.Handler       { return f }
func (f onLog) WithGroup(string) slog.Handler            { return f }
func (f onLog) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "waiting for rows") {
		f()
	}
	return nil
}

// What the catalog does not know gives no empty file.
func TestUnknown(t *testing.T) {
	r := newRig(t)
	r.rows(100, true)
	// behind as_of
	r.exec("INSERT INTO catalog_versions (workspace_id, kind, key, json, src_partition, src_offset) VALUES " +
		`('late', 'workspace', 'workspace/late', '{"plan":"enterprise","access":{"exports":true}}', 0, 1000)`)
	r.catalog(3, "partner", "partner/acme/quiet", `{"id":"quiet"}`)
	for want, set := range map[string]func(*Config){
		`-workspace "acmee"`: func(c *Config) { c.Workspace = "acmee" },
		`-workspace "late"`:  func(c *Config) { c.Workspace = "late" },
		`-partner "pO"`:      func(c *Config) { c.Partner = "pO" },
		`-program "agency"`:  func(c *Config) { c.Program = "agency" },
		`-link "nomura"`:     func(c *Config) { c.Link = "nomura" },
	} {
		cfg := config(t.TempDir())
		set(&cfg)
		if _, err := Run(t.Context(), r.conn, cfg); !errors.Is(err, ErrUnknown) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("want an error of %s: %v", want, err)
		}
		if left, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.csv")); len(left) > 0 {
			t.Errorf("%s left %v", want, left)
		}
	}
	quiet := config(t.TempDir())
	quiet.Partner = "quiet"
	if m, _, _ := r.run(quiet); m.Rows != 0 {
		t.Errorf("a partner without events has %d rows", m.Rows)
	}
	orphan := config(t.TempDir())
	orphan.Workspace = "orphan" // its events came before its catalog
	r.exec("INSERT INTO conversions (workspace_id, event_id, src_partition, src_offset) VALUES ('orphan', 'e', 1, 0)")
	if m, _, _ := r.run(orphan); m.Filters.Timezone != "UTC" {
		t.Errorf("days of %q", m.Filters.Timezone)
	}
	quiet.Partner, quiet.Link = "", "l1" // of rows, but no longer in the catalog
	if m, _, _ := r.run(quiet); m.Rows == 0 {
		t.Error("a link with events has no rows")
	}
}

// A run that fails leaves nothing; what a killed one left is removed; two at a time are
// refused; standard output has the same bytes.
func TestFiles(t *testing.T) {
	r := newRig(t)
	r.rows(12_000, true) // more than one step of the progress
	dir := t.TempDir()
	cfg := config(dir)
	ctx, cancel := context.WithCancel(t.Context())
	cfg.Progress = func(rows, of int64) {
		if cancel(); rows == of {
			t.Error("the run was faster than its end")
		}
	}
	if _, err := Run(ctx, r.conn, cfg); err == nil {
		t.Error("a run whose context ended succeeded")
	} else if left, _ := filepath.Glob(filepath.Join(dir, "*.csv")); len(left) > 0 {
		t.Errorf("a run that failed left %v", left)
	}
	if err := os.WriteFile(filepath.Join(dir, ".acme_x.csv123456"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Progress = nil
	_, _, content := r.run(cfg)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 { // CSV, manifest, lock
		t.Errorf("left are %v, %v", left, err)
	}
	l := flock.New(filepath.Join(dir, ".export.lock"))
	if ok, err := l.TryLock(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, err := Run(t.Context(), r.conn, cfg); !errors.Is(err, ErrBusy) {
		t.Errorf("two at a time: %v", err)
	}
	l.Close()
	var out bytes.Buffer
	cfg.Dir, cfg.Stdout = "-", &out
	if _, err := Run(t.Context(), r.conn, cfg); err != nil || !bytes.Equal(out.Bytes(), content) {
		t.Errorf("standard output: %v, %d bytes, the file has %d", err, out.Len(), len(content))
	}
}

func TestMissing(t *testing.T) {
	at := time.Date(2026, 3, 30, 2, 0, 0, 0, time.FixedZone("", 7200))
	for _, c := range []struct {
		done []string
		want string
	}{
		{nil, "2026-03-29"},
		{[]string{"2026-03-29"}, ""},
		{[]string{"2026-03-26", "2026-03-24"}, "2026-03-25 2026-03-27 2026-03-28 2026-03-29"},
		{[]string{"2026-03-30"}, "2026-03-29"},
	} {
		done := map[string]bool{}
		for _, d := range c.done {
			done[d] = true
		}
		if got := strings.Join(Missing(done, at), " "); got != c.want {
			t.Errorf("after %v: %q, want %q", c.done, got, c.want)
		}
	}
	if got := Missing(map[string]bool{"2025-01-01": true}, at); len(got) != maxMissed ||
		got[maxMissed-1] != "2026-03-29" {
		t.Errorf("after a year: %d days", len(got))
	}
	for expr, ok := range map[string]bool{
		"0 2 * * *":  true,
		"@daily":     true,
		"never":      false,
		"61 * * * *": false,
		"":           false,
	} {
		if err := CheckSchedule(expr); (err == nil) != ok {
			t.Errorf("%q: %v", expr, err)
		}
	}
}

// A scheduled run makes up the days since the newest file. A provisional one makes up
// provisional days; a final file takes the place of a provisional one.
func TestDaily(t *testing.T) {
	r := newRig(t)
	r.rows(400, true)
	cfg := config(t.TempDir())
	cfg.From, cfg.To, cfg.Provisional = "", "", true
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, day := range []int{15, 17, 17} { // the run of the 16th was missed
		if err := newSchedule(r.conn, "0 2 * * *", cfg).exportMissing(t.Context(), time.Date(2026, 3, day, 2, 0, 0, 0,
			berlin),
			false); err != nil {
			t.Fatal(err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.csv"))
	if len(files) != 3 || !strings.Contains(files[1], "2026-03-15_2026-03-15") ||
		!strings.HasSuffix(files[1], "_provisional.csv") {
		t.Errorf("files %v", files)
	}
	// The tables have passed those days now.
	r.exec("INSERT INTO progress (partition, at, clicks_max_at, conversions_max_at, caught_up, src_partition, " +
		"src_offset) SELECT number, now64(3), now64(3), now64(3), true, number, 0 FROM numbers(2)")
	r.exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) SELECT 'x', " +
		"'progress', number, 0, 1, 1 FROM numbers(2)")
	cfg.Provisional = false
	for _, day := range []int{17, 20} { // the runs of the 18th and 19th were missed
		if err := newSchedule(r.conn, "0 2 * * *", cfg).exportMissing(t.Context(), time.Date(2026, 3, day, 2, 0, 0, 0,
			berlin), false); err != nil {
			t.Fatal(err)
		}
	}
	for day := 16; day <= 19; day++ {
		if _, err := ReadManifest(filepath.Join(cfg.Dir, fmt.Sprintf("%s.manifest.json", func() string {
			c := cfg
			c.From = fmt.Sprintf("2026-03-%d", day)
			c.To, c.Timezone = c.From, "Europe/Berlin"
			if err := c.Validate(); err != nil {
				t.Error(err)
			}
			return fileName(c.Filters, nil, nil, false, false, c.BOM)
		}()))); err != nil {
			t.Errorf("day %d: %v", day, err)
		}
	}
	for day, want := range map[int]string{14: "_provisional.csv", 15: "_provisional.csv", 16: ".csv", 17: ".csv"} {
		files, _ := filepath.Glob(filepath.Join(cfg.Dir, fmt.Sprintf("*_2026-03-%d_*", day)))
		if len(files) != 2 || !strings.HasSuffix(files[0], want) ||
			strings.HasSuffix(files[0], "_provisional.csv") != (want == "_provisional.csv") {
			t.Errorf("day %d: %v", day, files)
		}
	}
}

// A text becomes a cell that a CSV reader gives back as it was, but for what escapes a
// formula, which has a way back, and for what is no UTF-8.
func FuzzCell(f *testing.F) {
	for _, s := range []string{"", "=1", "a,b", "\"", "\r\n", "\xff", "a\x00b", "-", "'", "é", "\xe2\"", "\xf0\x9f,",
		"\xe2\x82", "=\xff", "\xc3=", "x;=1", "x; \"'=1", "\t\t=1", ";\r=1", "a\u2028＝1", "'=1", "\xe2;-", "\ufeff@"} {
		f.Add(s)
	}
	r := newRig(f)
	f.Fuzz(func(t *testing.T, s string) {
		var got []struct {
			Cell string `ch:"c"`
		}
		if err := r.conn.Select(t.Context(), &got, "WITH unhex({s:String}) AS t,"+ledger.Functions+`,
	concat('x,', quote_cell(t), ',1,2') AS plain, concat('x,', quote_cell(escape_formula(t)), ',1,2') AS escaped
SELECT clean_text(if(has_formula(plain), escaped, plain)) AS c`,
			clickhouse.Named("s", hex.EncodeToString([]byte(s)))); err != nil {
			t.Fatal(err)
		}
		if !utf8.ValidString(got[0].Cell) || strings.ContainsRune(got[0].Cell, 0) {
			t.Errorf("%q: %q is not text", s, got[0].Cell)
		}
		rec, err := csv.NewReader(strings.NewReader(got[0].Cell + "\n")).Read()
		if err != nil || len(rec) != 4 {
			t.Fatalf("%q: %v %q", s, err, got[0].Cell)
		}
		if c := rec[1]; c != "" && strings.ContainsRune("=+-@\t\r\n", rune(c[0])) {
			t.Errorf("%q begins as a formula: %q", s, c)
		}
		if !strings.Contains(s, "\r") {
			want := strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
			if rec[1] != ledger.EscapeFormula(ledger.Version, want) || ledger.UnescapeFormula(rec[1]) != want {
				t.Errorf("%q became %q", s, rec[1])
			}
		}
	})
}
