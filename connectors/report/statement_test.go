package report_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/statement"
)

func november(t testing.TB) report.StatementFilter {
	t.Helper()
	m, err := statement.ParseMonth("2026-11")
	if err != nil {
		t.Fatal(err)
	}
	return report.StatementFilter{Month: m}
}

// accountsOf reads a statement of acme as the lines of its CSV.
func accountsOf(t testing.TB, r *report.Reader, f report.StatementFilter) (h statement.Head, lines []string) {
	t.Helper()
	ws, err := r.Workspace(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if ws == nil {
		ws = &catalog.Workspace{ID: "acme"}
	}
	h, err = r.StatementHead(t.Context(), ws, f.Month)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Accounts(t.Context(), h, f, func(a *statement.Account) error {
		line, err := a.CSVLine(false)
		lines = append(lines, line)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return h, lines
}

func exec(t testing.TB, conn *clickhouse.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%v: %.300s", err, s)
		}
	}
}

// Sums are exact beyond nineteen digits. Amounts of one currency that were sent with
// different numbers of digits are one account, with the most digits. Rows that were
// approximated are counted up to the closing, whatever month they are in. Rows without
// effect, of other workspaces and of later months are in no sum.
func TestStatementSums(t *testing.T) {
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	const columns = "INSERT INTO outcomes (workspace_id, received_at, occurred_at, verdict, type, effect, currency, " +
		"exponent, amount_minor, standing_change_minor, rules_version, standing_basis, partner_id, program_id) VALUES "
	exec(t, conn, columns+`
		('acme', '2026-10-05 00:00:00', '2026-10-05 00:00:00', 'attributed', 'sale', 1, 'EUR', 2, 9223372036854775807, 9223372036854775807, 2, '', 'a', 'p'),
		('acme', '2026-10-06 00:00:00', '2026-10-06 00:00:00', 'attributed', 'sale', 1, 'EUR', 2, 9223372036854775807, 9223372036854775807, 2, '', 'a', 'p'),
		('acme', '2026-10-07 00:00:00', '2026-10-07 00:00:00', 'reversed', 'refund', -1, 'EUR', 2, 5, -5, 1, 'amount', 'a', 'p'),
		('acme', '2026-11-05 00:00:00', '2026-11-05 00:00:00', 'attributed', 'sale', 1, 'EUR', 3, 1, 1, 2, '', 'a', 'q'),
		('acme', '2026-11-06 00:00:00', '2026-10-31 23:59:59', 'reversed', 'refund', -1, 'EUR', 3, 1, -1, 1, 'pending', 'a', 'q'),
		('acme', '2026-11-06 00:00:00', '2026-11-06 00:00:00', 'attributed', 'lead', 1, '', 0, NULL, NULL, 2, '', 'b', 'p'),
		('acme', '2026-11-06 00:00:00', '2026-11-06 00:00:00', 'unattributed', 'sale', 0, 'EUR', 2, 100, NULL, 2, '', 'a', 'p'),
		('acme', '2026-11-06 00:00:00', '2026-11-06 00:00:00', 'conflict', 'sale', 0, 'EUR', 2, 100, NULL, 2, '', 'a', 'p'),
		('acme', '2026-12-01 00:00:00', '2026-11-30 23:59:59', 'attributed', 'sale', 1, 'EUR', 2, 100, 100, 2, '', 'a', 'p'),
		('other', '2026-11-06 00:00:00', '2026-11-06 00:00:00', 'attributed', 'sale', 1, 'EUR', 2, 100, 100, 2, '', 'a', 'p')`)
	r := report.New(conn)
	f := november(t)
	h, lines := accountsOf(t, r, f)
	if h.Status != statement.Open || h.FinalAt != nil || h.Watermark != nil || h.Timezone != "UTC" {
		t.Errorf("without any progress: %+v", h)
	}
	want := []string{
		"acme,2026-11,UTC,false,a,,,EUR,184467440737095516.090,0.001,0.001,0.000,184467440737095516.090," +
			"0.000,0.001,0.000,1,1,0,1,2",
		"acme,2026-11,UTC,false,b,,,,0,0,0,0,0,0,0,0,1,0,0,0,0",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	f.Program = "q"
	if _, lines := accountsOf(t, r, f); !slices.Equal(lines, []string{
		"acme,2026-11,UTC,false,a,,,EUR,0.000,0.001,0.001,0.000,0.000,0.000,0.001,0.000,1,1,0,1,1"}) {
		t.Errorf("of program q: %q", lines)
	}
	f.Program, f.Partner = "", "b"
	if _, lines := accountsOf(t, r, f); !slices.Equal(lines, want[1:]) {
		t.Errorf("of partner b: %q", lines)
	}
}

// A month is final when the watermark of each partition has passed its end + the grace
// that counts + five minutes, and not a millisecond before.
func TestStatementIsFinal(t *testing.T) {
	const hour = 3600_000
	progress := func(offset, partition int, at, watermark string, grace int) string {
		return fmt.Sprintf("INSERT INTO progress (src_partition, src_offset, partition, at, conversions_position, "+
			"outcomes_end, watermark, grace_ms) VALUES (%d, %d, %[1]d, '%[3]s', 1, 1, '%[4]s', %[5]d)",
			partition, offset, at, watermark, grace)
	}
	batches := func(partition int) string {
		return fmt.Sprintf("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES "+
			"('x', 'conversions', %[1]d, 0, 1, 1), ('y', 'outcomes', %[1]d, 0, 1, 1)", partition)
	}
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	for name, c := range map[string]struct {
		statements []string
		status     statement.Status
		finalAt    string
	}{
		"no partition": {nil, statement.Open, ""},
		"the month runs": {[]string{batches(0),
			progress(0, 0, "2026-11-30 12:00:00", "2026-11-30 23:59:59.999", 72*hour)},
			statement.Running, "2026-12-04 00:05:00"},
		"the month is over": {[]string{batches(0),
			progress(0, 0, "2026-12-01 12:00:00", "2026-12-01 00:00:00", 72*hour)},
			statement.Open, "2026-12-04 00:05:00"},
		"a millisecond before": {[]string{batches(0),
			progress(0, 0, "2026-12-04 12:00:00", "2026-12-04 00:04:59.999", 72*hour)},
			statement.Open, "2026-12-04 00:05:00"},
		"on time": {[]string{batches(0),
			progress(0, 0, "2026-12-04 12:00:00", "2026-12-04 00:05:00", 72*hour)},
			statement.Final, "2026-12-04 00:05:00"},
		"one partition is behind": {[]string{batches(0), batches(1),
			progress(0, 0, "2026-12-05 12:00:00", "2026-12-05 00:00:00", 72*hour),
			progress(0, 1, "2026-12-05 12:00:00", "2026-12-04 00:04:59.999", 72*hour)},
			statement.Open, "2026-12-04 00:05:00"},
		"one partition has not reported": {[]string{batches(0), batches(1),
			progress(0, 0, "2026-12-05 12:00:00", "2026-12-05 00:00:00", 72*hour)},
			statement.Open, "2026-12-04 00:05:00"},
		"a watermark is not known": {[]string{batches(0), batches(1),
			progress(0, 0, "2026-12-05 12:00:00", "2026-12-05 00:00:00", 72*hour),
			progress(0, 1, "2026-12-05 12:00:00", "1970-01-01 00:00:00", 72*hour)},
			statement.Open, "2026-12-04 00:05:00"},
		"the tables are behind the newest progress": {[]string{batches(0),
			progress(0, 0, "2026-12-02 12:00:00", "2026-12-02 00:00:00", 72*hour),
			"INSERT INTO progress (src_partition, src_offset, partition, at, conversions_position, outcomes_end, " +
				"watermark, grace_ms) VALUES (0, 1, 0, '2026-12-05 12:00:00', 2, 1, '2026-12-05 00:00:00', 259200000)"},
			statement.Open, "2026-12-04 00:05:00"},
		"a longer grace counts for what entered under it": {[]string{batches(0),
			progress(0, 0, "2026-11-30 23:00:00", "2026-11-30 22:00:00", 72*hour),
			progress(1, 0, "2026-12-03 12:00:00", "2026-12-03 00:00:00", 24*hour)},
			statement.Open, "2026-12-04 00:05:00"},
		"a longer grace of long ago does not": {[]string{batches(0),
			progress(0, 0, "2026-11-20 23:00:00", "2026-11-20 22:00:00", 72*hour),
			progress(1, 0, "2026-12-03 12:00:00", "2026-12-03 00:00:00", 24*hour)},
			statement.Final, "2026-12-02 00:05:00"},
	} {
		t.Run(name, func(t *testing.T) {
			exec(t, conn, append([]string{"TRUNCATE TABLE progress", "TRUNCATE TABLE batches"}, c.statements...)...)
			h, err := report.New(conn).StatementHead(t.Context(), &catalog.Workspace{ID: "acme"}, november(t).Month)
			if err != nil {
				t.Fatal(err)
			}
			finalAt := ""
			if h.FinalAt != nil {
				finalAt = h.FinalAt.UTC().Format("2006-01-02 15:04:05.999")
			}
			if h.Status != c.status || finalAt != c.finalAt {
				t.Errorf("%s at %q, want %s at %q", h.Status, finalAt, c.status, c.finalAt)
			}
		})
	}
}

// cpuTime is what this process, ClickHouse included, has computed so far.
func cpuTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// BenchmarkStatement reads the statement of the last of 24 months, of one of two
// workspaces: 200 partners, three currencies.
func BenchmarkStatement(b *testing.B) {
	rows := 1_000_000
	if text := os.Getenv("PARTNERS_BENCH_ROWS"); text != "" {
		var err error
		if rows, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	conn := clickhousetest.OpenMigrated(b, clickhousetest.ForTest(b))
	for month := range 24 {
		exec(b, conn, fmt.Sprintf(`
			INSERT INTO outcomes (workspace_id, event_id, click_token, arrived_at, received_at, occurred_at, verdict, type, effect, currency, exponent, amount_minor, standing_change_minor, rules_version, partner_id, program_id, src_partition, src_offset)
			SELECT ['acme', 'other'][1 + number %% 2], concat('e', toString(number)), concat('tok', toString(number)), toDateTime64('2024-12-01 00:00:00', 3, 'UTC') + INTERVAL %[1]d MONTH + intDiv(number * 2592000, %[2]d) AS arrived_at, arrived_at, arrived_at - rand() %% 100000,
				if(number %% 5 = 0, 'reversed', 'attributed'), if(number %% 5 = 0, 'refund', 'sale'), if(number %% 5 = 0, -1, 1) AS effect, ['EUR', 'USD', 'JPY'][1 + rand(1) %% 3], 2, rand(2) %% 100000 AS amount_minor, effect * amount_minor, 2, concat('prt_', toString(rand(3) %% 200)), 'prg', number %% 4, number
			FROM numbers(%[2]d)`, month, rows/24))
	}
	r := report.New(conn)
	f := november(b)
	before := cpuTime(b)
	reads := 0
	for b.Loop() {
		if _, lines := accountsOf(b, r, f); len(lines) != 600 {
			b.Fatalf("%d accounts", len(lines))
		}
		reads++
	}
	b.ReportMetric(float64((cpuTime(b)-before).Milliseconds())/float64(reads), "cpu-ms/op")
	var used []struct {
		Bytes uint64 `ch:"bytes"`
	}
	exec(b, conn, "SYSTEM FLUSH LOGS")
	if err := conn.Select(b.Context(), &used, "SELECT max(memory_usage) AS bytes FROM system.query_log "+
		"WHERE type = 'QueryFinish' AND query LIKE '%opening_minor%' AND query NOT LIKE '%query_log%'"); err == nil {
		b.ReportMetric(float64(used[0].Bytes)/1e6, "MB")
	}
}
