package web

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

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
		if links, _, body := r.get(as, "/links?"+march); links != code && as != "noexport" || strings.Contains(body,
			"Creator Collective") != (as == "acme") {
			t.Errorf("/links as %q: %d", as, links)
		}
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
		(*r.server.tokens.byWorkspace.Load())["acme"].Values[0].encodeCookie(r.server.now().Add(-time.Second))} {
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
		readers, err := LoadReaderTokens(fstest.MapFS{"acme": {Data: []byte(text)}})
		if err != nil {
			t.Fatal(err)
		}
		found := readers.Findings()
		if err = found.Err(); (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "acme")) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// A token opens one workspace: the file that takes it later cannot be used, and the
// workspace that had it does not notice.
func TestTokenOpensOneWorkspace(t *testing.T) {
	sum := func(token string) string {
		digest := sha256.Sum256([]byte(token))
		return hex.EncodeToString(digest[:])
	}
	dir := fstest.MapFS{"globex": {Data: []byte("alice:" + sum("a"))}, "acme": {Data: []byte("bob:" + sum("b"))}}
	readers, err := LoadReaderTokens(dir)
	if err != nil {
		t.Fatal(err)
	}
	dir["acme"] = &fstest.MapFile{Data: []byte("bob:" + sum("b") + "\nmallory:" + sum("a"))}
	readers.Reload()
	found := readers.Reload()
	want := "acme line 2: it is also in globex, and opens one workspace alone"
	if err := found.Err(); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	for token, want := range map[string]string{"a": "globex", "b": "acme"} {
		if got, ok := readers.find(token); !ok || got.workspace != want {
			t.Errorf("token %s opens %q, want %s", token, got.workspace, want)
		}
	}
}

// Where it is not known who may read a workspace, its readers are told to come again.
// Others notice nothing.
func TestUnreadableReaderTokens(t *testing.T) {
	r := newRig(t)
	dir := fstest.MapFS{"acme": {Data: []byte("alice")}}
	for _, w := range []string{"globex", "initech"} {
		sum := sha256.Sum256([]byte("secret of " + w))
		dir[w] = &fstest.MapFile{Data: []byte("alice:" + hex.EncodeToString(sum[:]) + "\n")}
	}
	session := r.server.tokens.byWorkspace.Load()
	acme := (*session)["acme"].Values[0]
	cookie := acme.encodeCookie(r.server.now().Add(time.Hour))
	readers, err := LoadReaderTokens(dir)
	if err != nil {
		t.Fatal(err)
	}
	r.server.tokens = readers
	for _, c := range []struct {
		as, path string
		want     int
	}{
		{"acme", "/v1/workspaces/acme/performance", 503},
		{"", "/v1/workspaces/acme/performance", 503},
		{"globex", "/v1/workspaces/acme/performance", 403},
		{"globex", "/v1/workspaces/globex/performance", 200},
		{"acme", "/v1/workspaces/globex/performance", 401},
		{"", "/", 401},
		{"globex", "/", 200},
	} {
		code, h, body := r.get(c.as, c.path)
		if code != c.want || (code == 503) != (h.Get("Retry-After") != "") {
			t.Errorf("%s as %q: %d, want %d; Retry-After %q: %.200s", c.path, c.as, code, c.want,
				h.Get("Retry-After"), body)
		}
	}
	req, err := http.NewRequest(http.MethodGet, r.URL+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.AddCookie(&http.Cookie{Name: cookieName, Value: cookie})
	if code, h, body := r.do(req); code != 503 || h.Get("Retry-After") == "" || strings.Contains(body, "<nav") {
		t.Errorf("with a session: %d, or with a menu", code)
	}
	form := url.Values{"workspace": {"acme"}, "token": {"secret of acme"}}
	if req, err = http.NewRequest(http.MethodPost, r.URL+"/session", strings.NewReader(form.Encode())); err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if code, h, body := r.do(req); code != 503 || h.Get("Retry-After") == "" || !strings.Contains(body, "<h1>") ||
		strings.Contains(body, "<nav") {
		t.Errorf("signing in: %d %.200s", code, body)
	}
}
