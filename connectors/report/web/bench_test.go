package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/clickhouse/embedded"
	"github.com/nimriz/partners/schemas/ddl"
	"github.com/prometheus/client_golang/prometheus"
)

// largeLedger is a ledger of 400 days that end on 1 June 2026: 40 workspaces of very
// different sizes, each with 100 partners and 400 links. Every third event is a sale of a
// journey of its own; of the others some are leads, some take back, and some have no
// effect. One order in 1,000 and one event id in 2,000 are used a second time.
type largeLedger struct {
	testing.TB
	rows  int // judged events; there are a third as many clicks
	conn  *clickhouse.Conn
	http  *httptest.Server
	event string // id of one that takes back, in the middle of the largest workspace
}

// largestWorkspace has a sixth of the events.
const largestWorkspace = "w00"

// eventsOfNumbers is a query for the events {from} to {to}, with their verdicts, of so
// many journeys.
const eventsOfNumbers = `
	SELECT
		number AS n,
		intDiv(n, 3) AS j,
		n % 3 AS step,
		cityHash64(n) % 100 AS chance,
		toDateTime64('2025-04-27 00:00:00', 3, 'UTC') + (j * 34560000 / {journeys:UInt64}) AS click,
		leftPad(toString(toUInt32(floor(40 * pow(cityHash64(j) % 1000003 / 1000003, 2)))), 2, '0') AS w,
		concat('w', w) AS workspace,
		concat(hex(toUInt32(toUnixTimestamp64Milli(click) / 1000)), substring(hex(MD5(toString(j))), 1, 19)) AS token,
		toUInt32(cityHash64(token) % 12) AS shard,
		cityHash64(j, 'partner') % 100 AS p,
		p * 4 + cityHash64(j, 'link') % 4 AS l,
		multiIf(step = 0, 'sale', chance < 25, 'refund', chance < 30, 'cancellation', chance < 33, 'reversal',
			chance < 90, 'lead', 'sale') AS kind,
		kind IN ('refund', 'cancellation', 'reversal') AS negative,
		multiIf(step = 0, 'attributed', chance < 2, 'conflict', chance < 4, 'unattributed', chance < 33, 'reversed',
			chance < 80, 'attributed', chance < 85, 'duplicate', 'unattributed') AS outcome,
		multiIf(outcome = 'attributed', 1, outcome = 'reversed', -1, 0) AS counts,
		if(kind = 'lead', NULL, 1000 + cityHash64(j) % 20000) AS amount,
		concat('evt_', hex(cityHash64(j - (step = 1 AND n % 6000 = 1))), '_', toString(step)) AS event,
		concat('order-', toString(100000 + j - (step = 0 AND j % 1000 = 999))) AS buys,
		if(negative, concat('evt_', hex(cityHash64(j)), '_0'), '') AS parent,
		click + step * 86400 + 600 AS at
	FROM numbers({from:UInt64}, {to:UInt64} - {from:UInt64})`

// largeLedgerStatements insert one part of the ledger.
func largeLedgerStatements() []string {
	return []string{`
		INSERT INTO clicks (workspace_id, src_partition, src_offset, arrived_at, clicked_at, click_token, link_id, domain,
			slug, partner_id, program_id, token_status, is_bot, catalog_offset)
		SELECT workspace, shard, n, click, click, token, concat('lnk_', w, '_', toString(l)), 'go.example.com',
			toString(l), concat('prt_', w, '_', toString(p)), concat('prg_', w, '_', toString(p % 3)),
			if(chance < 4, 'withheld', 'appended'), chance > 94, 7
		FROM (` + eventsOfNumbers + `) WHERE step = 0`, `
		INSERT INTO conversions (workspace_id, src_partition, src_offset, arrived_at, event_id, click_token, type,
			event_name, occurred_at, received_at, entered_at, amount_minor, currency, exponent, order_id,
			parent_event_id, content_sha256, key_id)
		SELECT workspace, shard, n, at, event, token, kind, 'order', at, at + 1, at + 1, amount,
			if(amount IS NULL, '', 'EUR'), if(amount IS NULL, 0, 2), if(kind = 'lead', '', buys), parent,
			substring(hex(MD5(event)), 1, 32), 'key'
		FROM (` + eventsOfNumbers + `)`, `
		INSERT INTO outcomes (workspace_id, src_partition, src_offset, arrived_at, event_id, click_token, verdict, reason,
			flags, review, type, event_name, effect, occurred_at, received_at, decided_at, amount_minor,
			standing_change_minor, currency, exponent, order_id, parent_event_id, parent_type, estimated_reward_minor,
			reward_currency, content_sha256, event_partition, event_offset, first_offset, rules_version, clicked_at,
			link_id, domain, slug, token_status, partner_id, partner_key, partner_name, partner_relationship,
			partner_lifecycle, program_id, program_key, program_name, program_status, window_ms, reward_terms, country,
			device, os, browser, catalog_offset)
		SELECT workspace, shard, n, at, event, token, outcome,
			multiIf(outcome != 'unattributed', '', negative, 'parent_not_found', 'outside_window'),
			if(chance < 4, ['without_effect'], []), if(chance < 5, 'review', 'clear'), kind, 'order', counts, at, at + 1,
			at + 2, amount, counts * amount, if(amount IS NULL, '', 'EUR'), if(amount IS NULL, 0, 2),
			if(kind = 'lead', '', buys), parent, if(negative, 'sale', ''), intDiv(counts * amount, 10),
			if(amount IS NULL, '', 'EUR'), substring(hex(MD5(event)), 1, 32), shard, n,
			if(outcome IN ('conflict', 'duplicate'), j * 3, NULL), 2, click, concat('lnk_', w, '_', toString(l)),
			'go.example.com', toString(l), 'appended', concat('prt_', w, '_', toString(p)), toString(p),
			concat('Partner ', toString(p)), 'approved', 'active', concat('prg_', w, '_', toString(p % 3)), 'agency',
			'Agency', 'active', 2592000000, '10%', 'DE', 'phone', 'Android', 'Chrome', 7
		FROM (` + eventsOfNumbers + `)`, `
		INSERT INTO rejections (workspace_id, src_partition, src_offset, arrived_at, event_id, click_token, received_at,
			status, code, field, type, order_id, parent_event_id)
		SELECT workspace, shard, n, at, event, token, at + 1, 422, 'invalid_field', 'currency', kind, buys, parent
		FROM (` + eventsOfNumbers + `) WHERE n % 50 = 0`,
	}
}

// largeCatalogStatements insert the catalog, and how far the tables go.
func largeCatalogStatements() []string {
	return []string{`
		INSERT INTO catalog_versions (workspace_id, kind, key, json, src_offset)
		SELECT concat('w', leftPad(toString(number), 2, '0')) AS w, 'workspace', concat('workspace/', w),
			concat('{"name":"', w, '","plan":"enterprise","access":{"conversion_tracking":true,"partner_reporting":true,' ||
				'"conversion_reporting":true,"exports":true}}'), number
		FROM numbers(40)`, `
		INSERT INTO catalog_versions (workspace_id, kind, key, json, src_offset)
		SELECT concat('w', leftPad(toString(intDiv(number, 400)), 2, '0')) AS w, 'link',
			concat('link/go.example.com/', w, toString(number % 400)),
			concat('{"id":"lnk_', substring(w, 2), '_', toString(number % 400), '","workspace":"', w, '"}'), 1000 + number
		FROM numbers(16000)`, `
		INSERT INTO catalog_versions (workspace_id, kind, key, json, src_offset)
		SELECT concat('w', leftPad(toString(intDiv(number, 100)), 2, '0')) AS w, 'partner',
			concat('partner/', w, '/', toString(number % 100)),
			concat('{"id":"prt_', substring(w, 2), '_', toString(number % 100), '","name":"Partner ',
				toString(number % 100), '","relationship":"approved","lifecycle":"active"}'), 20000 + number
		FROM numbers(4000)`, `
		INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows)
		SELECT 'x', topic, number % 12, intDiv(number, 12) * {rows:UInt64}, (1 + intDiv(number, 12)) * {rows:UInt64}, 0
		FROM numbers(24000) ARRAY JOIN ['clicks', 'conversions', 'outcomes', 'progress'] AS topic`, `
		INSERT INTO progress (partition, src_partition, src_offset, at, clicks_max_at, conversions_max_at, watermark,
			conversions_position, outcomes_end, grace_ms, caught_up)
		SELECT number % 12, number % 12, intDiv(number, 12) AS n,
			toDateTime64('2026-06-01 00:00:00', 3, 'UTC') - 10 * (20000 - n) AS at, at, at, at, {rows:UInt64},
			{rows:UInt64}, 259200000, true
		FROM numbers(240000)`,
	}
}

// newLargeLedger fills a ClickHouse whose data are on disk, and serves the report on it.
func newLargeLedger(b testing.TB, rows int) *largeLedger {
	b.Helper()
	clickhousetest.Need(b)
	cfg := embedded.DefaultConfig()
	cfg.Library = os.Getenv("PARTNERS_LIBCHDB")
	var err error
	if cfg.Library, err = embedded.Prepare(b.Context(), cfg, nil); err != nil {
		b.Fatal(err)
	}
	if cfg.DataDir = os.Getenv("PARTNERS_BENCH_DIR"); cfg.DataDir == "" {
		cfg.DataDir = b.TempDir()
	}
	warehouse, err := embedded.Start(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { warehouse.Close() })
	l := &largeLedger{TB: b, rows: rows, conn: openLargeLedger(b, warehouse.DSN("partners"))}
	if l.filled() < uint64(rows) {
		l.fill()
	}
	l.findEvent()
	sum := sha256.Sum256([]byte("secret"))
	readers, err := LoadReaderTokens(fstest.MapFS{
		largestWorkspace: &fstest.MapFile{Data: []byte("bench:" + hex.EncodeToString(sum[:]) + "\n")},
	})
	if err != nil {
		b.Fatal(err)
	}
	s := New(l.conn, readers, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	s.now = func() time.Time { return time.Date(2026, 5, 25, 12, 0, 0, 0, time.UTC) }
	l.http = httptest.NewServer(s)
	b.Cleanup(l.http.Close)
	return l
}

// openLargeLedger connects to a ClickHouse that is not the one of clickhousetest, of
// which a process can have no second one, and migrates it.
func openLargeLedger(b testing.TB, dsn string) *clickhouse.Conn {
	b.Helper()
	quiet := slog.New(slog.DiscardHandler)
	conn, err := clickhouse.Open(b.Context(), clickhouse.Config{DSN: dsn}, quiet)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	if err := conn.Migrate(b.Context(), ddl.Migrations(), clickhouse.MigrateConfig{Log: quiet}); err != nil {
		b.Fatal(err)
	}
	return conn
}

// filled returns how many events the ledger has, if its directory was given.
func (l *largeLedger) filled() uint64 {
	l.Helper()
	var found []struct {
		Events uint64 `ch:"events"`
	}
	if err := l.conn.Select(l.Context(), &found, "SELECT count() AS events FROM outcomes"); err != nil {
		l.Fatal(err)
	}
	return found[0].Events
}

func (l *largeLedger) fill() {
	l.Helper()
	began := time.Now()
	const part = 600_000
	for from := 0; from < l.rows; from += part {
		for _, statement := range largeLedgerStatements() {
			l.exec(statement, clickhouse.Named("from", from), clickhouse.Named("to", min(from+part, l.rows)))
		}
	}
	for _, statement := range largeCatalogStatements() {
		l.exec(statement)
	}
	l.Logf("%d events in %v", l.rows, time.Since(began).Round(time.Second))
}

// findEvent finds the event that the benchmark asks about.
func (l *largeLedger) findEvent() {
	l.Helper()
	var found []struct {
		Event string `ch:"event_id"`
	}
	err := l.conn.Select(l.Context(), &found, `
		SELECT event_id
		FROM outcomes
		WHERE workspace_id = '`+largestWorkspace+`' AND verdict = 'reversed' AND occurred_at > '2025-11-01 00:00:00'
		ORDER BY occurred_at, event_id
		LIMIT 1`)
	if err != nil || len(found) == 0 {
		l.Fatalf("looking for an event: %v", err)
	}
	l.event = found[0].Event
}

func (l *largeLedger) exec(statement string, args ...any) {
	l.Helper()
	args = append(args, clickhouse.Named("journeys", l.rows/3+1), clickhouse.Named("rows", l.rows))
	if err := l.conn.Exec(l.Context(), statement, args...); err != nil {
		l.Fatalf("%v: %.120s", err, statement)
	}
}

// get asks the report's server as a reader of the largest workspace.
func (l *largeLedger) get(path string) {
	l.Helper()
	req, err := http.NewRequestWithContext(l.Context(), http.MethodGet, l.http.URL+path, nil)
	if err != nil {
		l.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer secret")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		l.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		l.Fatalf("%s: %s %v %.300s", path, res.Status, err, body)
	}
}

// watchMemory returns a function that ends the watch and returns the most memory that
// one query has had meanwhile, in MB.
func (l *largeLedger) watchMemory() (end func() float64) {
	ctx, cancel := context.WithCancel(l.Context())
	peak := make(chan float64)
	go func() {
		most := 0.0
		for ctx.Err() == nil {
			var found []struct {
				Peak int64 `ch:"peak"`
			}
			err := l.conn.Select(ctx, &found,
				"SELECT max(peak_memory_usage) AS peak FROM system.processes WHERE query NOT LIKE '%system.processes%'")
			if err == nil {
				most = max(most, float64(found[0].Peak)/1e6)
			}
			time.Sleep(2 * time.Millisecond)
		}
		peak <- most
	}()
	return func() float64 {
		cancel()
		return <-peak
	}
}

// usedCPU is the processor time of this process, ClickHouse included.
func usedCPU(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// question is what a reader asks the report's server, or an analyst ClickHouse.
type question struct{ name, path, query string }

// questions are asked in the largest workspace, but for those "of all".
func (l *largeLedger) questions() []question {
	list := "/v1/workspaces/" + largestWorkspace
	within := " WHERE workspace_id = '" + largestWorkspace + "'"
	one := " AND event_id = '" + l.event + "'"
	day := " AND toDate(occurred_at) = '2026-05-20'"
	const month = "?from=2026-05-01&to=2026-05-31"
	return []question{
		{name: "page", path: "/" + month},
		{name: "page-by-click", path: "/" + month + "&basis=click"},
		{name: "links", path: "/links" + month + "&sort=coverage"},
		{name: "coverage", path: list + "/coverage" + month + "&sort=withheld_clicks"},
		{name: "performance", path: list + "/performance" + month},
		{name: "outcomes", path: list + "/outcomes"},
		{name: "outcomes-of-a-month", path: list + "/outcomes" + month},
		{name: "events", path: list + "/events?event_id=" + url.QueryEscape(l.event)},
		{name: "rows-of-one-event", query: "SELECT * FROM conversion_rows" + within + one},
		{name: "rows-of-one-event-of-all", query: "SELECT * FROM conversion_rows WHERE event_id = '" + l.event + "'"},
		{name: "rows-of-one-day", query: "SELECT * FROM conversion_rows" + within + day},
		{name: "amounts-of-one-day", query: "SELECT event_id, amount FROM conversion_rows" + within + day},
		{name: "event_id_reuse", query: "SELECT * FROM event_id_reuse" + within},
		{name: "event_id_reuse-of-all", query: "SELECT count() FROM event_id_reuse"},
		{name: "reused_event_ids-of-all", query: "SELECT count() FROM reused_event_ids"},
		{name: "order_reuse", query: "SELECT * FROM order_reuse" + within},
		{name: "order_reuse-of-all", query: "SELECT count() FROM order_reuse"},
		{name: "negatives_without_effect-of-a-month", query: "SELECT * FROM negatives_without_effect" + within +
			" AND received_at >= '2026-05-01 00:00:00' ORDER BY received_at DESC LIMIT 100"},
		{name: "negatives_without_effect-of-all", query: "SELECT count() FROM negatives_without_effect"},
	}
}

// What one waits for in a large ledger, warm. PARTNERS_BENCH_ROWS is the number of judged
// events. The metrics are the slowest answer, the processor time of one, and the most
// memory that one query had.
func BenchmarkLargeLedger(b *testing.B) {
	rows := 300_000
	if text := os.Getenv("PARTNERS_BENCH_ROWS"); text != "" {
		var err error
		if rows, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	l := newLargeLedger(b, rows)
	for _, q := range l.questions() {
		ask := func() { l.get(q.path) }
		if q.query != "" {
			ask = func() { l.exec(q.query + " FORMAT Null") }
		}
		b.Run(q.name, func(b *testing.B) {
			ask() // warm
			spent, asked := usedCPU(b), 0
			var slowest time.Duration
			for b.Loop() {
				began := time.Now()
				ask()
				slowest = max(slowest, time.Since(began))
				asked++
			}
			b.ReportMetric(slowest.Seconds(), "slowest-s")
			b.ReportMetric((usedCPU(b)-spent).Seconds()/float64(asked), "CPU-s")
			peak := l.watchMemory() // after the others: the watch is work, too
			for range 3 {
				ask()
			}
			b.ReportMetric(peak(), "peak-MB")
			b.ReportMetric(0, "ns/op")
		})
	}
}
