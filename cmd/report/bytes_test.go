package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/export"
	"github.com/nimriz/partners/connectors/report/web"
	"github.com/nimriz/partners/schemas/ledger"
)

// nastyRows inserts events whose text columns all differ. The values include formulas,
// quotes, line ends, leading spaces and invalid UTF-8.
const nastyRows = `
INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, reason, flags, review, type, event_name, effect,
	occurred_at, received_at, amount_minor, currency, exponent, quantity, order_id, parent_event_id, parent_type,
	reason_text, estimated_reward_minor, reward_currency, event_partition, event_offset, clicked_at, link_id, domain,
	slug, destination, partner_id, partner_key, partner_name, partner_relationship, program_id, program_key,
	program_name, assignment_id, reward_terms, utm_source, utm_medium, utm_campaign, utm_term, utm_content, sub1, sub2,
	sub3, sub4, sub5, experiment, variant, country, device, is_bot, src_partition, src_offset, rules_version,
	standing_change_minor)
WITH
	['plain', '=1+1', '+4', '-5', '@x', '\ttab', '\rcr', '\nlf', 'a,b', 'say "hi"', 'two\nlines', 'Zoë', 'nul\0',
		'\xff\xfe', '', ' ', ' leading', '\\.', '\xe2'] AS texts,
	(place) -> concat(texts[1 + (number * 7 + place) % length(texts)], '|', toString(place)) AS text
SELECT
	'acme', if(number % 9 = 1, 'reused', concat('e', toString(number))), concat('tok', toString(number % 17)),
	['attributed', 'reversed', 'unattributed', 'duplicate', 'conflict'][1 + number % 5], text(1),
	if(number % 3 = 0, ['too_fast', 'no_partner'], []), if(number % 3 = 0, 'review', 'clear'),
	['sale', 'refund', 'lead', 'reversal', 'cancellation'][1 + number % 5], text(2), [1, -1, 0, 0, 0][1 + number % 5],
	toDateTime64('2026-03-14 20:00:00', 3, 'UTC') + number * 0.007,
	toDateTime64('2026-03-15 00:00:00.1', 3, 'UTC') + number,
	if(number % 7 = 0, NULL, 1234567 * (toInt64(number) % 9 - 4) + number) AS amount_minor,
	if(number % 7 = 0, '', ['EUR', 'JPY', 'KWD'][1 + number % 3]),
	if(number % 7 = 0, 0, [2, 0, 3][1 + number % 3]),
	if(number % 2 = 0, NULL, number), text(3), text(4), text(5), text(6),
	if(number % 4 = 0, 777, NULL), if(number % 4 = 0, 'USD', ''), 1, number,
	if(number % 6 = 0, NULL, toDateTime64('2026-03-14 10:00:00.5', 3, 'UTC')), text(7), text(8), text(9), text(10),
	concat('p', toString(number % 3)), text(11), text(12), text(13), text(14), text(15), text(16), text(17), text(18),
	text(19), text(20), text(21), text(22), text(23), text(24), text(25), text(26), text(27), text(28), text(29),
	text(30), text(31), text(32), number % 2 = 0, 0, number, 2,
	if(number % 5 > 1, NULL, amount_minor - number)
FROM numbers(200)`

// The report's CSV of a workspace's events equals the export's byte for byte: the
// columns have the same names and order, and cells have the same format.
func TestReportHasTheBytesOfAnExport(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	for _, statement := range []string{nastyRows, `
INSERT INTO catalog_versions (workspace_id, kind, key, json, src_partition, src_offset) VALUES
	('acme', 'workspace', 'workspace/acme', '{"plan":"enterprise","access":
		{"partner_reporting":true,"conversion_reporting":true,"exports":true}}', 0, 0),
	('acme', 'partner', 'partner/acme/p0', '{"id":"p0","relationship":"approved"}', 0, 1),
	('acme', 'partner', 'partner/acme/p1', '{"id":"p1","relationship":"banned"}', 0, 2)`, `
INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES
	('x', 'outcomes', 0, 0, 200, 200), ('x', 'catalog', 0, 0, 3, 3)`} {
		if err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%v: %.100s", err, statement)
		}
	}
	dir := t.TempDir()
	if _, err := export.Run(t.Context(), conn, export.Config{
		Filters: export.Filters{Workspace: "acme", From: "2026-03-14", To: "2026-03-14", Verdict: []string{"all"}},
		Dir:     dir,
		Log:     quiet,
	}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.csv"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	want, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	got := downloadOutcomes(t, conn)
	wantLines, gotLines := strings.SplitAfter(string(want), "\n"), strings.SplitAfter(got, "\n")
	if wantLines[0] != ledger.Header(ledger.Version)+"\n" || len(wantLines) < 200 {
		t.Fatalf("the export has %d lines, the first is %s", len(wantLines), wantLines[0])
	}
	for i := range min(len(wantLines), len(gotLines)) {
		if gotLines[i] != wantLines[i] {
			t.Fatalf("line %d is\n%q\nin the report, and\n%q\nin the export", i+1, gotLines[i], wantLines[i])
		}
	}
	if len(gotLines) != len(wantLines) {
		t.Errorf("%d lines, the export has %d", len(gotLines), len(wantLines))
	}
}

// downloadOutcomes returns the report's answer to outcomes.csv.
func downloadOutcomes(t *testing.T, conn *clickhouse.Conn) string {
	t.Helper()
	sum := sha256.Sum256([]byte("secret"))
	tokens, err := web.LoadReaderTokens(fstest.MapFS{
		"acme": {Data: []byte("alice:" + hex.EncodeToString(sum[:]) + "\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(web.New(conn, tokens, nil, slog.New(slog.DiscardHandler), nil))
	defer server.Close()
	req, err := http.NewRequest(http.MethodGet,
		server.URL+"/v1/workspaces/acme/outcomes.csv?from=2026-03-14&to=2026-03-14", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer secret")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v %.300s", res.Status, err, body)
	}
	return string(body)
}
