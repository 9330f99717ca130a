package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image/png"
	"io"
	"log/slog"
	"math/big"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/ledger"
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
	('acme', 'partner', 'partner/acme/p0', '{"id":"p0","key":"nomura","name":"Nomura & <Studio>","relationship":"approved","lifecycle":"active"}', 0, 4),
	('acme', 'partner', 'partner/acme/p1', '{"id":"p1","key":"creator","name":"Creator Collective","relationship":"review","lifecycle":"paused"}', 0, 5),
	('acme', 'program', 'program/acme/g0', '{"id":"g0","key":"agency","name":"Agency partners","status":"active"}', 0, 6),
	('acme', 'link', 'link/go.acme.com/s0', '{"id":"l0","workspace":"acme"}', 0, 7);
INSERT INTO clicks (workspace_id, click_token, clicked_at, link_id, domain, slug, partner_id, program_id, token_status, token_reason, is_bot, src_partition, src_offset)
	SELECT if(number % 5 = 0, 'globex', 'acme'), concat('tok', toString(number)), toDateTime64('2026-03-01 12:00:00', 3, 'UTC') + 3600 * number, concat('l', toString(number % 3)), 'go.acme.com', concat('s', toString(number % 3)),
		concat('p', toString(number % 2)), if(number % 2 = 0, 'g0', ''), if(number % 7 = 0, 'withheld', 'appended'), if(number % 7 = 0, 'signed_url', ''), number % 10 = 0, 0, number FROM numbers(300);
INSERT INTO rejections (workspace_id, event_id, received_at, status, code, src_partition, src_offset) VALUES ('acme', 'bad', '2026-03-05 12:00:00', 400, 'amount_invalid', 0, 0);
INSERT INTO progress (partition, at, clicks_max_at, conversions_max_at, waiting, caught_up, src_partition, src_offset) VALUES (0, '2026-03-20 11:59:59', '2026-03-20 11:59:50', '2026-03-20 11:59:50', 9173, 1, 0, 0);
INSERT INTO conversions (workspace_id, event_id, click_token, type, occurred_at, received_at, src_partition, src_offset)
	SELECT if(number % 5 = 0, 'globex', 'acme'), concat('e', toString(number)), concat('tok', toString(number)), 'sale', toDateTime64('2026-03-03 12:00:00', 3, 'UTC') + 1800 * number, toDateTime64('2026-03-03 12:00:05', 3, 'UTC') + 1800 * number, 0, number FROM numbers(200);
INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, reason, flags, review, type, event_name, effect, occurred_at, received_at, decided_at, amount_minor, currency, exponent, order_id, parent_event_id, estimated_reward_minor,
		reward_currency, event_partition, event_offset, clicked_at, link_id, partner_id, partner_key, partner_name, partner_relationship, program_id, program_name, src_partition, src_offset)
	SELECT if(number % 5 = 0, 'globex', 'acme'), concat('e', toString(number)), concat('tok', toString(if(number % 4 = 3, number - 1, number) % 190)), multiIf(number % 11 = 3, 'unattributed', number % 4 = 3, 'reversed', 'attributed'), if(number % 11 = 3, 'outside_window', ''), if(number % 6 = 0, ['too_fast'], []),
		if(number % 6 = 0, 'review', 'clear'), multiIf(number % 4 = 3, ['refund', 'cancellation', 'reversal'][1 + number % 3], number % 4 = 1, 'lead', 'sale'), if(number = 0, '=cmd()', 'order'), multiIf(number % 11 = 3, 0, number % 4 = 3, -1, 1),
		toDateTime64('2026-03-03 12:00:00', 3, 'UTC') + 1800 * number, toDateTime64('2026-03-03 12:00:05', 3, 'UTC') + 1800 * number, toDateTime64('2026-03-03 12:00:06', 3, 'UTC') + 1800 * number, if(number % 4 = 1, NULL, 1000 + number), if(number % 4 = 1, '', ['EUR', 'JPY'][1 + number % 2]), if(number % 4 = 1 OR number % 2 = 1, 0, 2),
		concat('o', toString(number)), if(number % 4 = 3, concat('e', toString(number - 1)), ''), if(number % 8 = 0, 500, NULL), if(number % 8 = 0, 'USD', ''), 0, number, toDateTime64('2026-03-01 12:00:00', 3, 'UTC') + 3600 * (number % 190),
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

func newRig(t *testing.T) *rig {
	t.Helper()
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	for _, statement := range strings.Split(seed, ";\n") {
		if err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%v: %.100s", err, statement)
		}
	}
	dir := fstest.MapFS{}
	for _, w := range []string{"acme", "globex", "initech", "noexport", "nocsv", "nowhere"} {
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
	s := New(conn, readers, slog.New(slog.NewTextHandler(logged, nil)), prometheus.NewRegistry())
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
// page sends it, "" is none.
func (r *rig) dispute(as, partner, list, origin string) (int, string) {
	r.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	m.WriteField("partner", partner)
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

var routes = []string{"performance", "outcomes", "conservation", "coverage", "events?event_id=e1", "performance.csv",
	"outcomes.csv"}

// Nobody gets anything of a workspace that is not theirs, or that may not look, by any
// route and any way of showing who they are.
func TestAccess(t *testing.T) {
	r := newRig(t)
	for _, route := range routes {
		for as, want := range map[string]int{"": 401, "mallory": 401, "globex": 403, "initech": 403, "acme": 200} {
			code, h, body := r.get(as, "/v1/workspaces/acme/"+route)
			if code != want {
				t.Errorf("%s as %q: %d, want %d: %.200s", route, as, code, want, body)
			}
			if code != 200 && (h.Get("Content-Type") != "application/problem+json" || strings.Contains(body, "tok1")) {
				t.Errorf("%s as %q: %s %.200s", route, as, h.Get("Content-Type"), body)
			}
		}
		// The own workspace without plan, without flags, without being in the catalog.
		if code, _, body := r.get("initech", "/v1/workspaces/initech/"+route); code != 403 ||
			!strings.Contains(body, "not_entitled") {
			t.Errorf("%s of a workspace without plan: %d %s", route, code, body)
		}
		if code, _, _ := r.get("nowhere", "/v1/workspaces/nowhere/"+route); code != 403 {
			t.Errorf("%s of a workspace that the catalog does not have: %d", route, code)
		}
		want := 200
		if strings.HasPrefix(route, "outcomes") || strings.HasPrefix(route, "events") ||
			strings.HasSuffix(route, ".csv") {
			want = 403
		}
		if code, _, body := r.get("noexport", "/v1/workspaces/noexport/"+route); code != want {
			t.Errorf("%s with partner_reporting only: %d, want %d: %s", route, code, want, body)
		}
		if code, _, _ := r.get("nocsv", "/v1/workspaces/nocsv/"+route); (code == 403) != strings.HasSuffix(route,
			".csv") {
			t.Errorf("%s with everything but exports: %d", route, code)
		}
		// No parameter leads elsewhere.
		for _, trick := range []string{"workspace=acme", "w=acme", "workspace_id=acme"} {
			path := "/v1/workspaces/globex/" + route
			if strings.Contains(path, "?") {
				path += "&" + trick
			} else {
				path += "?" + trick
			}
			if code, _, _ := r.get("globex", path); code != 400 {
				t.Errorf("%s: %d", path, code)
			}
		}
	}
	// What globex sees is globex's, whatever ids of acme it names.
	for _, path := range []string{"performance", "outcomes?limit=1000", "conservation", "coverage",
		"outcomes?partner=p0&link=l0&program=g0", "events?event_id=e1"} {
		_, _, body := r.get("globex", "/v1/workspaces/globex/"+path)
		if strings.Contains(body, `"workspace_id":"acme"`) || strings.Contains(body, "Nomura") ||
			strings.Contains(path, "events") && !strings.Contains(body, `"rows":[]`) {
			t.Errorf("%s shows another workspace: %.300s", path, body)
		}
	}
	// The pages, too: a page explains itself with counts, and lists names, of its own
	// workspace only. What waits is counted per partition, over all workspaces, so no
	// page says it.
	page := "/?from=2026-03-01&to=2026-03-20&verdict=conflict"
	if _, _, body := r.get("acme", page); !strings.Contains(body, "amount_invalid") ||
		!strings.Contains(body, "240 clicks in these days") || !strings.Contains(body, "go.acme.com/s0") {
		t.Error("acme's page lacks what it should say of acme")
	}
	if _, _, body := r.get("globex", page); strings.Contains(body, "amount_invalid") ||
		!strings.Contains(body, "60 clicks in these days") || strings.Contains(body, "go.acme.com/s0") {
		t.Error("globex's page says what is acme's")
	}
	for _, as := range []string{"acme", "globex"} {
		if _, _, body := r.get(as, "/"); !strings.Contains(body, "Joined up to") ||
			strings.Contains(strings.ReplaceAll(body, "\u202f", ""), "9173") {
			t.Errorf("%s sees how much waits in all workspaces", as)
		}
	}
	for as, want := range map[string]int{
		"":         401,
		"mallory":  401,
		"noexport": 403,
		"initech":  403,
		"nowhere":  403,
		"globex":   200,
		"acme":     200,
	} {
		code, _, _ := r.get(as, "/why?event_id=e1")
		posted, body := r.dispute(as, "p0", "order_id,amount,currency\no4,10.04,EUR\n", "")
		if code != want || posted != want || strings.Contains(body, "attributed here") != (as == "acme") {
			t.Errorf("pages as %q: why %d, dispute %d, want %d", as, code, posted, want)
		}
	}
	for _, path := range []string{"/why?event_id=e1", "/"} {
		if _, _, body := r.get("globex", path); strings.Contains(body, "tok1<") || strings.Contains(body, "Nomura") {
			t.Errorf("%s shows another workspace", path)
		}
	}
	// A scheme that is not Bearer, and a cookie beside a bad token.
	req, _ := http.NewRequest(http.MethodGet, r.URL+"/v1/workspaces/acme/performance", nil)
	req.Header.Set("Authorization", "Basic secret of acme")
	if code, _, _ := r.do(req); code != 401 {
		t.Errorf("Basic: %d", code)
	}
}

// Sign-in: a form without a session, a cookie that no script sees, an end; cookies that
// were made up, changed or have run out are nobody's.
func TestSession(t *testing.T) {
	r := newRig(t)
	code, h, body := r.get("", "/")
	if code != 401 || !strings.Contains(body, `name="workspace"`) || !strings.Contains(body, `name="token"`) ||
		!strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Fatalf("without a session: %d, policy %q", code, h.Get("Content-Security-Policy"))
	}
	signIn := func(workspace, token string, change func(*http.Request)) (int, http.Header, string) {
		req, _ := http.NewRequest(http.MethodPost,
			r.URL+"/session", strings.NewReader(url.Values{"workspace": {workspace}, "token": {token}}.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if change != nil {
			change(req)
		}
		return r.do(req)
	}
	for _, bad := range [][2]string{
		{"acme", "wrong"},
		{"acme", "secret of globex"},
		{"globex", "secret of acme"},
		{"", ""},
	} {
		if code, h, _ := signIn(bad[0], bad[1], nil); code != 401 || h.Get("Set-Cookie") != "" {
			t.Errorf("signing in as %v: %d %s", bad, code, h.Get("Set-Cookie"))
		}
	}
	if code, h, _ := signIn("acme", "secret of acme", func(q *http.Request) {
		q.Header.Set("Origin", "https://evil.example")
	}); code != 403 || h.Get("Set-Cookie") != "" {
		t.Errorf("from another site: %d", code)
	}
	code, h, _ = signIn("acme", "secret of acme", nil)
	set := h.Get("Set-Cookie")
	if code != 303 || !strings.Contains(set, "HttpOnly") || !strings.Contains(set, "SameSite=Lax") ||
		strings.Contains(set, "Secure") {
		t.Fatalf("signing in: %d %s", code, set)
	}
	if _, h, _ := signIn("acme", "secret of acme", func(q *http.Request) {
		q.Header.Set("X-Forwarded-Proto", "https")
	}); !strings.Contains(h.Get("Set-Cookie"), "Secure") {
		t.Error("the cookie is not Secure behind TLS")
	}
	cookie, _, _ := strings.Cut(set, ";")
	with := func(cookie, path string) int {
		req, _ := http.NewRequest(http.MethodGet, r.URL+path, nil)
		req.Header.Set("Cookie", cookie)
		code, _, _ := r.do(req)
		return code
	}
	for path, want := range map[string]int{
		"/":                              200,
		"/v1/workspaces/acme/outcomes":   200,
		"/v1/workspaces/globex/outcomes": 403,
		"/why":                           200,
		"/dispute":                       200,
	} {
		if code := with(cookie, path); code != want {
			t.Errorf("%s with the cookie: %d, want %d", path, code, want)
		}
	}
	value := strings.TrimPrefix(cookie, cookieName+"=")
	for _, forged := range []string{value[:len(value)-2],
		value + "A", "AAAA", readerToken{workspace: "acme", name: "alice"}.encodeCookie(time.Now().Add(time.Hour)),
		(*r.server.tokens.byWorkspace.Load())["acme"][0].encodeCookie(r.server.now().Add(-time.Second))} {
		if code := with(cookieName+"="+forged, "/"); code != 401 {
			t.Errorf("cookie %.20s…: %d", forged, code)
		}
	}
	req, _ := http.NewRequest(http.MethodPost, r.URL+"/session/end", nil)
	req.Header.Set("Cookie", cookie)
	req.Header.Set("Origin", "https://evil.example")
	if code, h, _ := r.do(req); code != 403 || h.Get("Set-Cookie") != "" {
		t.Errorf("signing out from another site: %d", code)
	}
	if code, body := r.dispute("acme", "p0", "order_id\no4\n", "https://evil.example"); code != 403 ||
		strings.Contains(body, "attributed here") {
		t.Errorf("a list from another site: %d", code)
	}
	req.Header.Del("Origin")
	if code, h, _ := r.do(req); code != 303 || !strings.Contains(h.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("signing out: %d %s", code, h.Get("Set-Cookie"))
	}
}

func TestBadParameters(t *testing.T) {
	r := newRig(t)
	for path, field := range map[string]string{
		"performance?from=yesterday": "from", "performance?to=2026-13-01": "to",
		"performance?from=2026-03-02&to=2026-03-01": "to", "outcomes?type=purchase": "type",
		"outcomes?verdict=all": "verdict", "outcomes?review=maybe": "review",
		"outcomes?limit=0": "limit", "outcomes?limit=1001": "limit", "outcomes?limit=ten": "limit",
		"outcomes?cursor=x": "cursor", "outcomes?cursor=WyJhIl0": "cursor", "performance?cursor=WyJhIl0": "cursor",
		"performance?colour=red":  "colour",
		"performance?partner=%00": "partner", "performance?partner=a&partner=b": "partner",
		"performance?basis=month": "basis", "events": "event_id", "events?event_id=": "event_id",
		"events?event_id=a&x=1":   "x",
		"conservation?partner=p0": "partner", "coverage?from=2026-03-01": "from", "outcomes.csv?limit=3": "limit",
		"coverage?cursor=WyJhIiwiYiJd": "cursor", "conservation?cursor=WyJhIl0": "cursor",
	} {
		code, h, body := r.get("acme", "/v1/workspaces/acme/"+path)
		var p problem
		if err := json.Unmarshal([]byte(body), &p); code != 400 ||
			h.Get("Content-Type") != "application/problem+json" || err != nil || p.Field != field ||
			!strings.HasPrefix(p.Detail, field) {
			t.Errorf("%s: %d %s, want field %s", path, code, body, field)
		}
	}
	if code, _, body := r.get("acme", "/?from=x"); code != 400 || !strings.Contains(body, "is not a day") ||
		!strings.Contains(body, "Partner performance") {
		t.Errorf("the page with a bad day: %d", code)
	}
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

// Pages of any size are together the whole list, once, in its order.
func TestPages(t *testing.T) {
	r := newRig(t)
	for _, list := range []string{"performance", "outcomes", "conservation", "coverage", "performance?type=sale,lead",
		"performance?basis=click"} {
		sep := "?"
		if strings.Contains(list, "?") {
			sep = "&"
		}
		whole := rowsOf[json.RawMessage](r, list+sep+"limit=1000")
		if whole.Next != "" || len(whole.Rows) < 3 {
			t.Errorf("%s: %d rows, next %q", list, len(whole.Rows), whole.Next)
		}
		var paged []json.RawMessage
		for next := ""; ; {
			a := rowsOf[json.RawMessage](r, list+sep+"limit=7&cursor="+next)
			paged = append(paged, a.Rows...)
			if next = a.Next; next == "" {
				break
			}
		}
		if !slices.EqualFunc(whole.Rows, paged, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Errorf("%s: %d rows in pages, %d at once", list, len(paged), len(whole.Rows))
		}
	}
}

// The rows, added up as the report does for filters, are what the rollup says; and each
// filter selects what its name says.
func TestFiltersAgree(t *testing.T) {
	r := newRig(t)
	rollup := rowsOf[report.Performance](r, "performance?limit=1000")
	rows := rowsOf[report.Performance](r, "performance?limit=1000&type=lead,sale,refund,cancellation,reversal")
	if a, b := fmt.Sprint(texts(rollup.Rows)), fmt.Sprint(texts(rows.Rows)); a != b {
		t.Errorf("the rollup and the rows differ:\n%s\n%s", a, b)
	}
	all := rowsOf[conversion](r, "outcomes?limit=1000").Rows
	count := func(keep func(*conversion) bool) (n int) {
		for i := range all {
			if keep(&all[i]) {
				n++
			}
		}
		return n
	}
	for query, keep := range map[string]func(*conversion) bool{
		"partner=p1": func(c *conversion) bool {
			return c.PartnerID == "p1"
		}, "program=g0": func(c *conversion) bool {
			return c.ProgramID == "g0"
		}, "link=l2": func(c *conversion) bool { return c.LinkID == "l2" },
		"type=refund,reversal": func(c *conversion) bool {
			return c.Type == "refund" || c.Type == "reversal"
		}, "verdict=unattributed": func(c *conversion) bool {
			return c.Verdict == "unattributed"
		}, "review=review": func(c *conversion) bool { return c.Review == "review" },
		"from=2026-03-05&to=2026-03-06": func(c *conversion) bool {
			d := c.OccurredAt.UTC().Format(time.DateOnly)
			return d >= "2026-03-05" && d <= "2026-03-06"
		}, "partner=nobody": func(*conversion) bool { return false },
	} {
		if got, want := len(rowsOf[conversion](r, "outcomes?limit=1000&"+query).Rows), count(keep); got != want ||
			want == 0 && query != "partner=nobody" {
			t.Errorf("%s selects %d, want %d", query, got, want)
		}
	}
	sales := uint64(0)
	for _, p := range rowsOf[report.Performance](r,
		"performance?limit=1000&type=sale&verdict=attributed&review=review").Rows {
		sales += p.Sales
		if p.Leads+p.Refunds+p.Cancellations+p.Reversals > 0 {
			t.Errorf("other types: %+v", p)
		}
	}
	if want := count(func(c *conversion) bool {
		return c.Type == "sale" && c.Verdict == "attributed" && c.Review == "review"
	}); sales != uint64(want) || want == 0 {
		t.Errorf("%d sales in review, want %d", sales, want)
	}
	byClick := uint64(0)
	for _, p := range rowsOf[report.Performance](r,
		"performance?limit=1000&basis=click&from=2026-03-02&to=2026-03-02").Rows {
		byClick += p.Sales
	}
	if want := count(func(c *conversion) bool {
		return c.Type == "sale" && c.Verdict == "attributed" && c.ClickedAt.UTC().Format(time.DateOnly) == "2026-03-02"
	}); byClick != uint64(want) || want == 0 {
		t.Errorf("%d sales of the clicks of a day, want %d", byClick, want)
	}
	if a := rowsOf[eventRow](r, "events?event_id=e7"); len(a.Rows) != 1 || a.Rows[0].Verdict != "reversed" ||
		a.Rows[0].Why == "" {
		t.Errorf("events: %+v", a.Rows)
	}
}

func texts(rows []report.Performance) (out []string) {
	for _, p := range rows {
		b, _ := json.Marshal(p)
		out = append(out, string(b))
	}
	return out
}

// A CSV has the rows of the list, money as bare numbers, and no text that a spreadsheet
// would run.
func TestCSV(t *testing.T) {
	r := newRig(t)
	code, h, body := r.get("acme", "/v1/workspaces/acme/outcomes.csv")
	records, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	if code != 200 || err != nil || !strings.HasPrefix(h.Get("Content-Type"), "text/csv") || len(records) != 1+160 ||
		!slices.Equal(records[0], ledger.Names()) {
		t.Fatalf("%d %v %d records", code, err, len(records))
	}
	at := func(name string) int { return slices.Index(records[0], name) }
	net := new(big.Rat)
	for _, rec := range records[1:] {
		if rec[at("event_id")] == "e0" {
			t.Error("a row of globex")
		}
		if rec[at("currency")] == "EUR" && rec[at("net_amount")] != "" {
			v, ok := new(big.Rat).SetString(rec[at("net_amount")])
			if !ok {
				t.Errorf("net_amount %q", rec[at("net_amount")])
			} else {
				net.Add(net, v)
			}
		}
	}
	want := new(big.Int)
	for _, p := range rowsOf[report.Performance](r, "performance?limit=1000").Rows {
		if p.Currency == "EUR" {
			want.Add(want, p.NetMinor)
		}
	}
	if got := new(big.Rat).Mul(net, big.NewRat(100, 1)); got.Cmp(new(big.Rat).SetInt(want)) != 0 {
		t.Errorf("the CSV nets %v, the rollup %v", got, want)
	}
	_, _, body = r.get("globex", "/v1/workspaces/globex/outcomes.csv")
	if !strings.Contains(body, ",'=cmd(),") {
		t.Error("a formula got through")
	}
	_, _, body = r.get("acme", "/v1/workspaces/acme/performance.csv")
	if records, err := csv.NewReader(strings.NewReader(body)).ReadAll(); err != nil ||
		!slices.Equal(records[0], report.ColumnNames[report.Performance]()) ||
		len(records) != 1+len(rowsOf[report.Performance](r, "performance?limit=1000").Rows) {
		t.Errorf("performance.csv: %v, %d records", err, len(records))
	}
}

// The page says what the lists say, escapes what people wrote, and explains itself when
// there is nothing.
func TestPage(t *testing.T) {
	r := newRig(t)
	code, h, body := r.get("acme", "/?from=2026-03-01&to=2026-03-20")
	if code != 200 || strings.Contains(h.Get("Content-Security-Policy"), "script") ||
		strings.Contains(body, "<script") || strings.Contains(body, "http://") || strings.Contains(body, "https://") {
		t.Errorf("%d, policy %s", code, h.Get("Content-Security-Policy"))
	}
	sales := uint64(0)
	for _, p := range rowsOf[report.Performance](r, "performance?limit=1000").Rows {
		sales += p.Sales
	}
	for _, want := range []string{"Nomura &amp; &lt;Studio&gt;", "Creator Collective",
		">Approved<", ">Review<", ">Paused<", "Agency partners", fmt.Sprintf("<dt>Attributed sales</dt><dd>%d<",
			sales), "does not approve or pay commissions", "outcomes.csv?from=2026-03-01", "go.acme.com/s0",
		"EUR", "JPY", `<tr class="under">`, "difference 0", `aria-current="page"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not say %s", want)
		}
	}
	_, _, body = r.get("acme", "/?from=2026-01-01&to=2026-01-02")
	for _, want := range []string{"Nothing in this selection", "No clicks in these days; 240 at other times",
		"No events received"} {
		if !strings.Contains(body, want) {
			t.Errorf("the empty page does not say %s", want)
		}
	}
	if _, _, body = r.get("acme", "/?from=2026-03-01&to=2026-03-20&link=l0&verdict=conflict"); !strings.Contains(body,
		"No conversions in this selection") || !strings.Contains(body, "whose token was withheld") {
		t.Error("a page without conversions does not explain itself")
	}
	if code, _, body := r.get("initech", "/"); code != 403 || !strings.Contains(body, "stored all the same") {
		t.Errorf("without the plan: %d", code)
	}
	if _, _, body = r.get("noexport", "/"); strings.Contains(body, ".csv") ||
		strings.Contains(body, "Conversion rows") {
		t.Error("a workspace without exports sees them")
	}
	if code, _, body := r.get("acme", "/why?event_id=e7"); code != 200 || !strings.Contains(body, "tok6") ||
		!strings.Contains(body, "outcomes 0/7") {
		t.Errorf("why: %d", code)
	}
	if _, _, body := r.get("acme", "/why?event_id=%3Cb%3E"); !strings.Contains(body, "never received") ||
		strings.Contains(body, "<b>") {
		t.Error("why of an event that there is not")
	}
}

// A chain has no end by the rules: a chargeback, won, and again. Every row of it is on
// the page, below its parent.
func TestDeepChain(t *testing.T) {
	r := newRig(t)
	if err := r.conn.Exec(t.Context(), `INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, review, type, effect, occurred_at, received_at, decided_at, amount_minor, currency, exponent, parent_event_id,
			event_partition, event_offset, clicked_at, link_id, partner_id, src_partition, src_offset)
		SELECT 'acme', concat('deep', toString(number)), 'tokdeep', if(number = 0, 'attributed', 'reversed'), 'clear', multiIf(number = 0, 'sale', number = 1, 'refund', 'reversal'), if(number % 2 = 0, 1, -1),
			toDateTime64('2026-03-19 12:00:00', 3, 'UTC') + number, toDateTime64('2026-03-19 12:00:00', 3, 'UTC') + number, toDateTime64('2026-03-19 12:00:00', 3, 'UTC') + number, 1000, 'EUR', 2,
			if(number = 0, '', concat('deep', toString(number - 1))), 1, number, toDateTime64('2026-03-18 12:00:00', 3, 'UTC'), 'l0', 'p0', 1, number FROM numbers(8)`); err != nil {
		t.Fatal(err)
	}
	_, _, body := r.get("acme", "/?from=2026-03-19&to=2026-03-19")
	for i, last := 0, -1; i < 8; i++ {
		at := strings.Index(body, fmt.Sprintf(`event_id=deep%d"`, i))
		if at <= last {
			t.Errorf("deep%d is missing, or above its parent", i)
		}
		last = at
	}
}

// section is the part of a page under the heading with an id.
func section(page, id string) string {
	_, after, _ := strings.Cut(page, `aria-labelledby="`+id+`"`)
	inner, _, _ := strings.Cut(after, "</section>")
	return inner
}

// The column Net is net_amount: nothing of what does not count.
func TestNetOfWhatDoesNotCount(t *testing.T) {
	r := newRig(t)
	_, _, body := r.get("acme", "/?from=2026-03-03&to=2026-03-03&verdict=unattributed") // e14, of 10.14 EUR
	if rows := section(body, "events"); !strings.Contains(rows, ">0.00 EUR<") || strings.Contains(rows, "10.14") {
		t.Error(rows)
	}
	_, _, csv := r.get("acme", "/v1/workspaces/acme/outcomes.csv?from=2026-03-03&to=2026-03-03&verdict=unattributed")
	if !strings.Contains(csv, ",0,10.14,0.00,EUR,") {
		t.Error(csv)
	}
}

func TestDisputePage(t *testing.T) {
	r := newRig(t)
	send := func(list string) (int, string) { return r.dispute("acme", "p0", list, "") }
	if code, body := send("order_id,amount,currency\no4,10.04,EUR\nnone,5.00,EUR\n"); code != 200 ||
		!strings.Contains(body, "attributed here") || !strings.Contains(body, "never received") ||
		!strings.Contains(body, "15.04") {
		t.Errorf("%d %s", code, body)
	}
	if _, body := send("order_id\no4\n"); !strings.Contains(section(body, "totals"), "beyond the amounts claimed") ||
		!strings.Contains(section(body, "totals"), ">10.04<") {
		t.Errorf("a list without amounts: %s", section(body, "totals"))
	}
	for list, want := range map[string]string{"": "Choose a CSV file",
		"colour\nred\n": "neither order_id nor event_id", "order_id,amount\no4,ten\n": "is not a number"} {
		if code, body := send(list); code != 400 || !strings.Contains(body, want) {
			t.Errorf("%q: %d, want %s", list, code, want)
		}
	}
	// A sender that has one order_id for everything: a line with it is refused, and
	// does not bring a workspace's events into memory.
	if err := r.conn.Exec(t.Context(), `INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, type, effect, order_id, occurred_at, event_partition, event_offset, src_partition, src_offset)
		SELECT 'acme', toString(number), 't', 'attributed', 'sale', 1, 'N/A', toDateTime64('2026-03-18 12:00:00', 3, 'UTC'), 2, number, 2, number FROM numbers(100001)`); err != nil {
		t.Fatal(err)
	}
	if code, body := send("order_id\no4\nN/A\n"); code != 400 ||
		!strings.Contains(body, "more than 100000 events have an order_id of this list") {
		t.Errorf("one order_id for everything: %d %.300s", code, body)
	}
}

func TestLoadReaderTokens(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		"alice:" + sum:                  "",
		"alice:" + sum + "\nbob:" + sum: "",
		"alice":                         "line 1",
		"alice:" + sum[2:]:              "line 1",
		"# x\nal ice:" + sum:            "line 2",
		"a:" + sum + "\na:" + sum:       "twice",
	} {
		_, err := LoadReaderTokens(fstest.MapFS{"acme": {Data: []byte(text)}})
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "acme")) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := LoadReaderTokens(fstest.MapFS{"acme": {Data: []byte("alice:" + sum)},
		"globex": {Data: []byte("bob:" + sum)}}); err == nil ||
		!strings.Contains(err.Error(), "globex line 1: the token of bob is also in acme") {
		t.Errorf("one token for two workspaces: %v", err)
	}
}

// chromium is how a test has a browser load a page; its answer is what the browser
// prints. The test ends here where there is no browser.
func chromium(t *testing.T) (browse func(args ...string) string) {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("PARTNERS_REQUIRE_CHROMIUM") == "1" {
			t.Fatal("PARTNERS_REQUIRE_CHROMIUM=1, and there is no chromium in PATH")
		}
		t.Skip("SKIP: no chromium in PATH (Debian: apt-get install chromium)")
	}
	dir := t.TempDir()
	return func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, chromium,
			append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--user-data-dir=" +
				filepath.Join(dir, "profile")}, args...)...)
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return string(out)
	}
}

// A browser draws the page, on a phone and on a wide screen, light and dark, without an
// error.
func TestChromium(t *testing.T) {
	browse := chromium(t)
	r := newRig(t)
	// The browser cannot send a bearer token: this is who signs in for it.
	signedIn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		req.Header.Set("Authorization", "Bearer secret of acme")
		r.server.ServeHTTP(w, req)
	}))
	defer signedIn.Close()
	dir := t.TempDir()
	page := signedIn.URL + "/?from=2026-03-01&to=2026-03-20"
	if dom := browse("--dump-dom", page); !strings.Contains(dom, "Nomura") || !strings.Contains(dom, "<svg viewBox") ||
		!strings.Contains(dom, "Conversion rows") {
		t.Errorf("the browser's document is not the page: %.500s", dom)
	}
	for name, args := range map[string][]string{"phone": {"--window-size=380,900"},
		"wide": {"--window-size=1600,1200"}, "dark": {"--window-size=1600,1200",
			"--blink-settings=preferredColorScheme=0"}} {
		file := filepath.Join(dir, name+".png")
		browse(append(args, "--screenshot="+file, page)...)
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		colours := map[[3]uint32]int{}
		for y := 0; y < img.Bounds().Dy(); y += 3 {
			for x := 0; x < img.Bounds().Dx(); x += 3 {
				cr, cg, cb, _ := img.At(x, y).RGBA()
				colours[[3]uint32{cr, cg, cb}]++
			}
		}
		if len(colours) < 50 {
			t.Errorf("%s: only %d colours: nothing was drawn", name, len(colours))
		}
		cr, _, _, _ := img.At(2, img.Bounds().Dy()-2).RGBA()
		if dark := cr < 0x6000; dark != (name == "dark") {
			t.Errorf("%s: the background's red is %x", name, cr)
		}
		if name == "phone" { // beside the cards there is nothing but the background and a faint shadow
			const x = 370
			for y := 130; y < img.Bounds().Dy(); y++ {
				r1, g1, b1, _ := img.At(x, y).RGBA()
				if r1 < 0xea00 || g1 < 0xea00 || b1 < 0xea00 {
					t.Errorf("something sticks out of its card at %d, %d: %x %x %x", x, y, r1, g1, b1)
					break
				}
			}
		}
		if keep := os.Getenv("PARTNERS_TEST_SHOTS"); keep != "" {
			b, _ := os.ReadFile(file)
			if err := os.WriteFile(filepath.Join(keep, name+".png"), b, 0o644); err != nil {
				t.Error(err)
			}
		}
	}
}
