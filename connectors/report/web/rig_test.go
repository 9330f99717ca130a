package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/prometheus/client_golang/prometheus"
)

// seed fills a warehouse with two workspaces that may look, acme and globex, and one
// that may not, initech.
const seed = `
INSERT INTO catalog_versions (workspace_id, kind, key, json, src_partition, src_offset) VALUES
	('acme', 'workspace', 'workspace/acme', '{"name":"Acme","plan":"professional","access":{"conversion_tracking":true,"partner_reporting":true,"conversion_reporting":true,"exports":true}}', 0, 0),
	('globex', 'workspace', 'workspace/globex', '{"name":"Globex","plan":"enterprise","access":{"conversion_tracking":true,"partner_reporting":true,"conversion_reporting":true,"exports":true}}', 0, 1),
	('initech', 'workspace', 'workspace/initech', '{"name":"Initech","plan":"starter","access":{"conversion_tracking":true,"partner_reporting":true,"conversion_reporting":true,"exports":true}}', 0, 2),
	('noexport', 'workspace', 'workspace/noexport', '{"name":"No Export","plan":"enterprise","access":{"conversion_tracking":true,"partner_reporting":true,"conversion_reporting":false,"exports":false}}', 0, 3),
	('nocsv', 'workspace', 'workspace/nocsv', '{"name":"No CSV","plan":"enterprise","access":{"conversion_tracking":true,"partner_reporting":true,"conversion_reporting":true,"exports":false}}', 0, 8),
	('tokyo', 'workspace', 'workspace/tokyo', '{"name":"Tokyo","plan":"enterprise","timezone":"Asia/Tokyo","access":{"conversion_tracking":true,"partner_reporting":true,"conversion_reporting":true,"exports":true}}', 0, 9),
	('acme', 'partner', 'partner/acme/p0', '{"id":"p0","key":"nomura","name":"Nomura & <Studio>","relationship":"approved","lifecycle":"active"}', 0, 4),
	('acme', 'partner', 'partner/acme/p1', '{"id":"p1","key":"creator","name":"Creator Collective","relationship":"review","lifecycle":"paused"}', 0, 5),
	('acme', 'program', 'program/acme/g0', '{"id":"g0","key":"agency","name":"Agency partners","status":"active"}', 0, 6),
	('acme', 'link', 'link/go.acme.com/s0', '{"id":"l0","workspace":"acme"}', 0, 7);
INSERT INTO clicks (workspace_id, click_token, clicked_at, link_id, domain, slug, partner_id, program_id, token_status, token_reason, is_bot, src_partition, src_offset)
	SELECT if(number % 5 = 0, 'globex', 'acme'), concat('tok', toString(number)), toDateTime64('2026-03-01 12:00:00', 3, 'UTC') + 3600 * number, concat('l', toString(number % 3)), 'go.acme.com', concat('s', toString(number % 3)),
		concat('p', toString(number % 2)), if(number % 2 = 0, 'g0', ''), if(number % 7 = 0, 'withheld', 'appended'), if(number % 7 = 0, 'signed_url', ''), number % 10 IN (0, 2), 0, number FROM numbers(300);
INSERT INTO rejections (workspace_id, event_id, received_at, status, code, src_partition, src_offset) VALUES ('acme', 'bad', '2026-03-05 12:00:00', 400, 'amount_invalid', 0, 0);
INSERT INTO progress (partition, at, clicks_max_at, conversions_max_at, waiting, caught_up, src_partition, src_offset) VALUES (0, '2026-03-20 11:59:59', '2026-03-20 11:59:50', '2026-03-20 11:59:50', 9173, 1, 0, 0);
INSERT INTO conversions (workspace_id, event_id, click_token, type, occurred_at, received_at, src_partition, src_offset)
	SELECT if(number % 5 = 0, 'globex', 'acme'), concat('e', toString(number)), concat('tok', toString(number)), 'sale', toDateTime64('2026-03-03 12:00:00', 3, 'UTC') + 1800 * number, toDateTime64('2026-03-03 12:00:05', 3, 'UTC') + 1800 * number, 0, number FROM numbers(200);
INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, reason, flags, review, type, event_name, effect, occurred_at, received_at, decided_at, amount_minor, currency, exponent, order_id, parent_event_id, estimated_reward_minor,
		reward_currency, rules_version, standing_change_minor, event_partition, event_offset, clicked_at, link_id, partner_id, partner_key, partner_name, partner_relationship, program_id, program_name, src_partition, src_offset)
	SELECT if(number % 5 = 0, 'globex', 'acme'), concat('e', toString(number)), concat('tok', toString(if(number % 4 = 3, number - 1, number) % 190)), multiIf(number % 11 = 3, 'unattributed', number % 4 = 3, 'reversed', 'attributed'), if(number % 11 = 3, 'outside_window', ''), if(number % 6 = 0, ['too_fast'], []),
		if(number % 6 = 0, 'review', 'clear'), multiIf(number % 4 = 3, ['refund', 'cancellation', 'reversal'][1 + number % 3], number % 4 = 1, 'lead', 'sale'), if(number = 0, '=cmd()', 'order'), multiIf(number % 11 = 3, 0, number % 4 = 3, -1, 1) AS effect,
		toDateTime64('2026-03-03 12:00:00', 3, 'UTC') + 1800 * number, toDateTime64('2026-03-03 12:00:05', 3, 'UTC') + 1800 * number, toDateTime64('2026-03-03 12:00:06', 3, 'UTC') + 1800 * number, if(number % 4 = 1, NULL, 1000 + number) AS amount_minor, if(number % 4 = 1, '', ['EUR', 'JPY'][1 + number % 2]), if(number % 4 = 1 OR number % 2 = 1, 0, 2),
		concat('o', toString(number)), if(number % 4 = 3, concat('e', toString(number - 1)), ''), if(number % 8 = 0, 500, NULL), if(number % 8 = 0, 'USD', ''), 2, multiIf(effect = 1, amount_minor, effect = -1, 0, NULL), 0, number, toDateTime64('2026-03-01 12:00:00', 3, 'UTC') + 3600 * (number % 190),
		concat('l', toString(number % 3)), concat('p', toString(number % 2)), 'k', 'Partner then', 'approved', if(number % 2 = 0, 'g0', ''), 'Agency', 0, number FROM numbers(200);
INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES ('x', 'clicks', 0, 0, 300, 300), ('x', 'conversions', 0, 0, 200, 200), ('x', 'outcomes', 0, 0, 200, 200)`

type rig struct {
	*testing.T
	*httptest.Server
	conn   *clickhouse.Conn
	server *Server
	doc    *openapi3.T
	logged *testLog
}

// newRig makes a rig on a warehouse that it may only read: all tests share it.
func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigOn(t, sharedWarehouse(t))
}

var sharedWarehouse = clickhousetest.Shared(fillWarehouse)

// newOwnRig makes a rig on a warehouse of its own.
func newOwnRig(t *testing.T) *rig {
	t.Helper()
	dsn := clickhousetest.ForTest(t)
	fillWarehouse(t, dsn)
	return newRigOn(t, dsn)
}

func fillWarehouse(t testing.TB, dsn string) {
	t.Helper()
	execAll(t, clickhousetest.OpenMigrated(t, dsn), seed)
}

func execAll(t testing.TB, conn *clickhouse.Conn, script string) {
	t.Helper()
	for _, statement := range strings.Split(script, ";\n") {
		if err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%v: %.100s", err, statement)
		}
	}
}

// openWarehouse connects to a warehouse that is filled.
func openWarehouse(t testing.TB, dsn string) *clickhouse.Conn {
	t.Helper()
	conn, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: dsn}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// newRigOn makes a rig on a warehouse that is filled.
func newRigOn(t *testing.T, dsn string) *rig {
	t.Helper()
	conn := openWarehouse(t, dsn)
	t.Cleanup(func() { conn.Close() }) // some tests close it themselves
	dir := fstest.MapFS{}
	for _, w := range []string{"acme", "globex", "initech", "noexport", "nocsv", "nowhere", "tokyo"} {
		sum := sha256.Sum256([]byte("secret of " + w))
		dir[w] = &fstest.MapFile{Data: []byte("# people\n\nalice:" + hex.EncodeToString(sum[:]) + "\n")}
	}
	readers, err := LoadReaderTokens(dir)
	if err != nil {
		t.Fatal(err)
	}
	logged := &testLog{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(logged.text)
		}
	})
	s := New(conn, readers, nil, slog.New(slog.NewTextHandler(logged, nil)), prometheus.NewRegistry())
	s.now = func() time.Time { return time.Date(2026, 3, 20, 12, 0, 0, 0, time.UTC) }
	r := &rig{t, httptest.NewServer(s), conn, s, described(t), logged}
	t.Cleanup(r.Close)
	return r
}

type testLog struct {
	mu   sync.Mutex
	text string
}

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text += string(b)
	return len(b), nil
}

func (l *testLog) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text, text)
}

// get asks as a reader of a workspace; "" is nobody.
func (r *rig) get(as, path string) (int, http.Header, string) {
	r.Helper()
	req, err := http.NewRequest(http.MethodGet, r.URL+path, nil)
	if err != nil {
		r.Fatal(err)
	}
	if as != "" {
		req.Header.Set("Authorization", "Bearer secret of "+as)
	}
	return r.do(req)
}

func (r *rig) do(req *http.Request) (int, http.Header, string) {
	r.Helper()
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	r.checkAnswer(req, res.StatusCode, res.Header, string(body))
	return res.StatusCode, res.Header, string(body)
}

// dispute sends a list of claims as a reader of a workspace; origin is the site whose
// page sends it, "" is none. fields are further ones of the form, as NAME=VALUE.
func (r *rig) dispute(as, partner, list, origin string, fields ...string) (int, string) {
	r.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	m.WriteField("partner", partner)
	for _, field := range fields {
		name, value, _ := strings.Cut(field, "=")
		m.WriteField(name, value)
	}
	if list != "" {
		f, _ := m.CreateFormFile("file", "claims.csv")
		io.WriteString(f, list)
	}
	m.Close()
	req, err := http.NewRequest(http.MethodPost, r.URL+"/dispute", &b)
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Content-Type", m.FormDataContentType())
	if as != "" {
		req.Header.Set("Authorization", "Bearer secret of "+as)
	}
	if origin != "" {
		req.Header.Set("Origin", origin)
	}
	code, _, body := r.do(req)
	return code, body
}

// conversion is what tests look at of a judged event.
type conversion struct {
	PartnerID  string     `json:"partner_id"`
	ProgramID  string     `json:"program_id"`
	LinkID     string     `json:"link_id"`
	Type       string     `json:"type"`
	Verdict    string     `json:"verdict"`
	Review     string     `json:"review"`
	OccurredAt time.Time  `json:"occurred_at"`
	ClickedAt  *time.Time `json:"clicked_at"`
}

type answer[T any] struct {
	Rows []T     `json:"rows"`
	AsOf *string `json:"as_of"`
	Zone string  `json:"timezone"`
	Next string  `json:"next_cursor"`
}

func rowsOf[T any](r *rig, path string) (a answer[T]) {
	r.Helper()
	code, _, body := r.get("acme", "/v1/workspaces/acme/"+path)
	if err := json.Unmarshal([]byte(body), &a); code != 200 || err != nil {
		r.Fatalf("%s: %d %v %.300s", path, code, err, body)
	}
	return a
}
