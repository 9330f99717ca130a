package redirect

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
)

const testCatalog = `
workspaces:
  - id: acme
    name: Acme
    plan: professional
    access: {conversion_tracking: true}
    domains: [go.acme.com, two.acme.com]
    aliases: {127.0.0.1: go.acme.com}
    programs:
      - {id: prg_agency, key: agency, name: Agency partners, status: paused, window: 7d,
         follow: 365d, one_sale_per_order: true,
         reward: {percent: "10"}, utm: {source: partner, medium: agency, campaign: c, term: t, content: k}}
    partners:
      - {id: prt_nomura, key: nomura, name: Nomura Studio, relationship: review, lifecycle: paused}
    links:
      - {id: lnk_nomura, domain: go.acme.com, slug: nomura, destination: "https://shop.acme.com/?ref=a%2Bb#top",
         conversion_tracking: true, partner: prt_nomura, program: prg_agency,
         assignment_id: asg_1, assigned_at: 2026-01-05T00:00:00Z, experiment: exp, variant: b}
      - {id: lnk_two, domain: two.acme.com, slug: nomura, destination: "https://two.acme.com/",
         conversion_tracking: true}
      - {id: lnk_plain, domain: go.acme.com, slug: plain, destination: "https://shop.acme.com/p",
         conversion_tracking: false}
      - {id: lnk_signed, domain: go.acme.com, slug: signed,
         destination: "https://s3.acme.com/f?X-Amz-Signature=ab", conversion_tracking: true}
      - {id: lnk_oauth, domain: go.acme.com, slug: oauth, destination: "https://id.acme.com/cb?code=1&state=2",
         conversion_tracking: true}
      - {id: lnk_always, domain: go.acme.com, slug: always,
         destination: "https://s3.acme.com/f?X-Amz-Signature=ab", conversion_tracking: true, token: always,
         forward_query: true}
      - {id: lnk_semi, domain: go.acme.com, slug: semi, destination: "https://shop.acme.com/?a=1;b=2",
         conversion_tracking: true, token: always}
      - {id: lnk_has, domain: go.acme.com, slug: has, destination: "https://shop.acme.com/?nim_ct=x",
         conversion_tracking: true, token: always}
      - {id: lnk_app, domain: go.acme.com, slug: app, destination: "acmeapp://open/x",
         conversion_tracking: true, token: always}
      - {id: lnk_never, domain: go.acme.com, slug: never, destination: "https://shop.acme.com/",
         conversion_tracking: true, token: never, forward_query: true}
      - {id: lnk_fwd, domain: go.acme.com, slug: fwd, destination: "https://shop.acme.com/x?own=1&A%20b=2#frag",
         conversion_tracking: true, forward_query: true}
      - {id: lnk_fwdsigned, domain: go.acme.com, slug: fwdsigned, destination: "https://shop.acme.com/x?hmac=1",
         conversion_tracking: true, forward_query: true}
      - {id: lnk_old, domain: go.acme.com, slug: old, destination: "https://shop.acme.com/",
         conversion_tracking: true, status: archived}
      - {id: lnk_case, domain: go.acme.com, slug: Case, destination: "https://shop.acme.com/case",
         conversion_tracking: true}
      - {id: lnk_deep, domain: go.acme.com, slug: a/b, destination: "https://shop.acme.com/deep",
         conversion_tracking: true}
      - {id: lnk_umlaut, domain: go.acme.com, slug: "grün", destination: "https://shop.acme.com/gruen",
         conversion_tracking: true}
      - {id: lnk_pct, domain: go.acme.com, slug: "50+25", destination: "https://shop.acme.com/pct",
         conversion_tracking: true}
      - {id: lnk_html, domain: go.acme.com, slug: html,
         destination: "https://shop.acme.com/?q=\"><script>&x='1'", conversion_tracking: true}
  - id: free
    name: Free
    plan: growth
    access: {conversion_tracking: true}
    domains: [go.free.com]
    links: [{id: lnk_free, domain: go.free.com, slug: x, destination: "https://free.com/",
      conversion_tracking: true}]
  - id: noflag
    name: Noflag
    plan: enterprise
    access: {conversion_tracking: false}
    token_parameter: cid
    domains: [go.noflag.com]
    links: [{id: lnk_noflag, domain: go.noflag.com, slug: x, destination: "https://noflag.com/",
      conversion_tracking: true}]
  - id: nokey
    name: No key
    plan: enterprise
    access: {conversion_tracking: true}
    domains: [go.nokey.com]
    links: [{id: lnk_nokey, domain: go.nokey.com, slug: x, destination: "https://nokey.com/",
      conversion_tracking: true}]
`

// In the expected locations, TOKEN is replaced by the token in the click.
func TestRedirect(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	f := func(target, wantLocation string, status event.TokenStatus, reason string) {
		t.Helper()
		w := s.serveRequest("GET", target, nil)
		if w.Code != http.StatusFound {
			t.Fatalf("%s: %d %s", target, w.Code, w.Body)
		}
		c := s.lastClick(t)
		want := strings.ReplaceAll(wantLocation, "TOKEN", c.ClickToken)
		if got := w.Header().Get("Location"); got != want {
			t.Errorf("%s: Location\n got %s\nwant %s", target, got, want)
		}
		if c.TokenStatus != status || c.TokenReason != reason {
			t.Errorf("%s: token %s %q, want %s %q", target, c.TokenStatus, c.TokenReason, status, reason)
		}
		if _, err := s.keys.Verify(c.WorkspaceID, c.ClickToken); err != nil {
			t.Errorf("%s: token %s: %v", target, c.ClickToken, err)
		}
		if w.Header().Get("Cache-Control") != "private, no-store" {
			t.Errorf("%s: Cache-Control %q", target, w.Header().Get("Cache-Control"))
		}
		if body := w.Body.String(); strings.Count(body, "\n") != 1 || !strings.HasPrefix(body, `<a href="`) {
			t.Errorf("%s: body %q is not one line with a link", target, body)
		}
	}
	const base = "http://go.acme.com"
	f(base+"/nomura", "https://shop.acme.com/?ref=a%2Bb&nim_ct=TOKEN#top", event.TokenAppended, "")
	f("http://two.acme.com/nomura", "https://two.acme.com/?nim_ct=TOKEN", event.TokenAppended, "")
	f("http://127.0.0.1:8080/plain", "https://shop.acme.com/p", event.TokenOff, "tracking_off")
	f("http://GO.Acme.com.:8080/plain/", "https://shop.acme.com/p", event.TokenOff, "tracking_off")
	f("http://go.free.com/x", "https://free.com/", event.TokenOff, "not_entitled")
	f("http://go.noflag.com/x", "https://noflag.com/", event.TokenOff, "not_entitled")
	f(base+"/signed", "https://s3.acme.com/f?X-Amz-Signature=ab", event.TokenWithheld, "signed_url")
	f(base+"/oauth", "https://id.acme.com/cb?code=1&state=2", event.TokenWithheld, "oauth")
	f(base+"/always", "https://s3.acme.com/f?X-Amz-Signature=ab&nim_ct=TOKEN", event.TokenAppended, "")
	// token: always concerns only the token; the query is still not forwarded
	f(base+"/always?x=1", "https://s3.acme.com/f?X-Amz-Signature=ab&nim_ct=TOKEN", event.TokenAppended, "")
	f(base+"/semi", "https://shop.acme.com/?a=1;b=2", event.TokenWithheld, "semicolon_query")
	f(base+"/has", "https://shop.acme.com/?nim_ct=x", event.TokenWithheld, "reserved_present")
	f(base+"/app", "acmeapp://open/x", event.TokenWithheld, "scheme")
	f(base+"/never", "https://shop.acme.com/", event.TokenWithheld, "link_setting")
	// slugs
	f(base+"/nomura/", "https://shop.acme.com/?ref=a%2Bb&nim_ct=TOKEN#top", event.TokenAppended, "")
	f(base+"/n%6Fmura", "https://shop.acme.com/?ref=a%2Bb&nim_ct=TOKEN#top", event.TokenAppended, "")
	f(base+"/Case", "https://shop.acme.com/case?nim_ct=TOKEN", event.TokenAppended, "")
	f(base+"/a/b", "https://shop.acme.com/deep?nim_ct=TOKEN", event.TokenAppended, "")
	f(base+"/a%2Fb", "https://shop.acme.com/deep?nim_ct=TOKEN", event.TokenAppended, "")
	f(base+"/gr%C3%BCn", "https://shop.acme.com/gruen?nim_ct=TOKEN", event.TokenAppended, "")
	f(base+"/50%2B25", "https://shop.acme.com/pct?nim_ct=TOKEN", event.TokenAppended, "")
	// queries
	f(base+"/plain?x=1", "https://shop.acme.com/p", event.TokenOff, "tracking_off")
}

func TestRedirectQueries(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	f := func(target, want string) {
		t.Helper()
		w := s.serveRequest("GET", "http://go.acme.com"+target, nil)
		if got := strings.ReplaceAll(w.Header().Get("Location"), s.lastClick(t).ClickToken, "TOKEN"); got != want {
			t.Errorf("%s: Location\n got %s\nwant %s", target, got, want)
		}
	}
	f("/fwd?b=2&c=%2b+&d", "https://shop.acme.com/x?own=1&A%20b=2&b=2&c=%2b+&d&nim_ct=TOKEN#frag")
	f("/fwd?nr=qr&sub1=a&sub5=b&sub6=c&sub0=d", "https://shop.acme.com/x?own=1&A%20b=2&sub6=c&sub0=d&nim_ct=TOKEN#frag")
	f("/fwd?nim_ct=FAKE&n%69m_ct=FAKE&NIM_CT=FAKE&x=1", "https://shop.acme.com/x?own=1&A%20b=2&x=1&nim_ct=TOKEN#frag")
	f("/fwd?x=1;nim_ct=FAKE&y=2;z=3", "https://shop.acme.com/x?own=1&A%20b=2&y=2;z=3&nim_ct=TOKEN#frag")
	f("/fwd?own=9&OWN=9&A+b=9&a%20b=1", "https://shop.acme.com/x?own=1&A%20b=2&OWN=9&a%20b=1&nim_ct=TOKEN#frag")
	f("/fwd?&&x=1&&", "https://shop.acme.com/x?own=1&A%20b=2&x=1&nim_ct=TOKEN#frag")
	f("/fwd?x=1&%zz=2&x=3", "https://shop.acme.com/x?own=1&A%20b=2&x=1&%zz=2&x=3&nim_ct=TOKEN#frag")
	f("/fwd?nim_ct=FAKE", "https://shop.acme.com/x?own=1&A%20b=2&nim_ct=TOKEN#frag")
	f("/fwdsigned?x=1", "https://shop.acme.com/x?hmac=1")
	f("/never?x=1&nim_ct=FAKE", "https://shop.acme.com/?x=1")
	f("/nomura?x=1&nim_ct=FAKE", "https://shop.acme.com/?ref=a%2Bb&nim_ct=TOKEN#top")

	// a client that sends a fragment
	w := s.serveRequest("GET", "http://go.acme.com/fwd", func(r *http.Request) { r.URL.RawQuery = "x=1#y" })
	want := "https://shop.acme.com/x?own=1&A%20b=2&x=1&nim_ct=" + s.lastClick(t).ClickToken + "#frag"
	if got := w.Header().Get("Location"); got != want {
		t.Errorf("fragment in the query: got %s, want %s", got, want)
	}
}

func TestRefusals(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	f := func(method, target string, want int) {
		t.Helper()
		w := s.serveRequest(method, target, nil)
		if w.Code != want || w.Header().Get("Location") != "" {
			t.Errorf("%s %s: %d, Location %q, want %d", method, target, w.Code, w.Header().Get("Location"), want)
		}
		if w.Header().Get("Cache-Control") != "private, no-store" {
			t.Errorf("%s %s: Cache-Control %q", method, target, w.Header().Get("Cache-Control"))
		}
		if allow := w.Header().Get("Allow"); (allow == "GET, HEAD") != (want == 405) {
			t.Errorf("%s %s: Allow %q", method, target, allow)
		}
		if (w.Body.Len() == 0) != (method == "HEAD") {
			t.Errorf("%s %s: body %q", method, target, w.Body)
		}
	}
	f("GET", "http://go.acme.com/old", 410)
	f("HEAD", "http://go.acme.com/old", 410)
	f("GET", "http://go.acme.com/none", 404)
	f("GET", "http://elsewhere.com/nomura", 404)
	f("GET", "http://go.acme.com/", 404)
	f("GET", "http://go.acme.com//", 404)
	f("GET", "http://go.acme.com/case", 404)
	f("GET", "http://go.acme.com/nomura//", 404)
	f("GET", "http://go.acme.com//nomura", 404)
	f("GET", "http://go.acme.com/nomura%2F", 404)
	f("GET", "http://go.acme.com/n%256Fmura", 404) // decoded once only
	f("GET", "http://go.acme.com/50%252B25", 404)
	f("POST", "http://go.acme.com/nomura", 405)
	f("OPTIONS", "http://go.acme.com/nomura", 405)
	f("DELETE", "http://go.acme.com/none", 405)
	if n := len(s.durableClicks(t)); n != 0 {
		t.Errorf("%d clicks were recorded for responses other than 302", n)
	}
	if got := metricValue(t, s.reg, "partners_redirect_responses_total", "405"); got != 3 {
		t.Errorf("counted %v responses 405, want 3", got)
	}
}

func TestClickSnapshot(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	at := time.Date(2026, 3, 1, 12, 0, 0, 123e6, time.UTC)
	s.now = func() time.Time { return at }
	s.serveRequest("GET", "http://go.acme.com/nomura?nr=qr&sub1=one&sub2=%C3%A9t%C3%A9&sub3=a%00b%0Ac&sub4="+
		strings.Repeat("x", 70)+"&sub5=a+b&sub5=second", func(r *http.Request) {
		r.Header.Set("Referer", "https://user:pw@News.Example.com:8443/path?secret=1")
	})
	got := s.lastClick(t)
	want := event.Click{
		WorkspaceID: "acme", ClickToken: got.ClickToken, ClickedAt: event.MillisOf(at),
		WindowMs: (7 * 24 * time.Hour).Milliseconds(), TokenStatus: event.TokenAppended,
		FollowMs: (365 * 24 * time.Hour).Milliseconds(), OneSalePerOrder: true,
		LinkID: "lnk_nomura", Domain: "go.acme.com", Slug: "nomura", Destination: "https://shop.acme.com/",
		Trigger:   event.TriggerQR,
		PartnerID: "prt_nomura", PartnerKey: "nomura", PartnerName: "Nomura Studio",
		PartnerRelationship: "review", PartnerLifecycle: "paused",
		ProgramID: "prg_agency", ProgramKey: "agency", ProgramName: "Agency partners", ProgramStatus: "paused",
		AssignmentID: "asg_1", AssignedAt: event.MillisOf(time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)),
		RewardTerms: "10%",
		UTMSource:   "partner", UTMMedium: "agency", UTMCampaign: "c", UTMTerm: "t", UTMContent: "k",
		Sub1: "one", Sub2: "été", Sub3: "abc", Sub4: strings.Repeat("x", 64), Sub5: "a b",
		Experiment: "exp", Variant: "b",
		ReferrerHost: "news.example.com", Device: "desktop", OS: "Windows", Browser: "Chrome",
		CatalogOffset: got.CatalogOffset,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("click (-want +got):\n%s", diff)
	}
	if got.CatalogOffset <= 0 {
		t.Errorf("catalog offset %d", got.CatalogOffset)
	}

	// without partner and program: the default window, no terms, nothing follows
	s.serveRequest("GET", "http://two.acme.com/nomura?nr=QR", nil)
	got = s.lastClick(t)
	want = event.Click{
		WorkspaceID: "acme", ClickToken: got.ClickToken, ClickedAt: event.MillisOf(at),
		WindowMs: (30 * 24 * time.Hour).Milliseconds(), TokenStatus: event.TokenAppended,
		LinkID: "lnk_two", Domain: "two.acme.com", Slug: "nomura", Destination: "https://two.acme.com/",
		Trigger: event.TriggerLink, Device: "desktop", OS: "Windows", Browser: "Chrome",
		CatalogOffset: got.CatalogOffset,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("click without partner (-want +got):\n%s", diff)
	}
}

// A click that is too long for its record is truncated, but its ids stay complete.
func TestLongClickIsTruncated(t *testing.T) {
	long := fmt.Sprintf(`
workspaces:
  - id: acme
    name: Acme
    plan: professional
    access: {conversion_tracking: true}
    domains: [go.acme.com]
    links: [{id: lnk_long, domain: go.acme.com, slug: long, destination: "https://shop.acme.com/%s",
      conversion_tracking: true}]
`, strings.Repeat("p", 1500))
	s := newTestHandler(t, long, nil)
	w := s.serveRequest("GET", "http://go.acme.com/long?sub1="+strings.Repeat("y", 64), nil)
	c := s.lastClick(t)
	want := "https://shop.acme.com/" + strings.Repeat("p", 1500) + "?nim_ct=" + c.ClickToken
	if w.Header().Get("Location") != want {
		t.Errorf("Location %s", w.Header().Get("Location"))
	}
	if f := readFrames(s.spool); len(f) != 1 || len(f[0].value) > event.FramingLen+event.MaxClickBytes {
		t.Errorf("%d frames, the first of %d bytes", len(f), len(f[0].value))
	}
	if c.LinkID != "lnk_long" || !strings.HasPrefix(c.Destination, "https://shop.acme.com/ppp") {
		t.Errorf("truncated click %+v", c)
	}
	if metricValue(t, s.reg, "partners_redirect_texts_truncated_total") == 0 {
		t.Error("the truncation was not counted")
	}
}

func TestHead(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	w := s.serveRequest("HEAD", "http://go.acme.com/nomura", nil)
	c := s.lastClick(t)
	if w.Code != 302 || w.Body.Len() != 0 ||
		!strings.HasSuffix(w.Header().Get("Location"), "nim_ct="+c.ClickToken+"#top") {
		t.Errorf("HEAD: %d, %q, %q", w.Code, w.Body, w.Header().Get("Location"))
	}
	if !c.IsBot || c.BotReason != "head" {
		t.Errorf("HEAD: bot %v %q", c.IsBot, c.BotReason)
	}
	get := s.serveRequest("GET", "http://go.acme.com/nomura", nil)
	if got, want := w.Header().Get("Content-Length"), fmt.Sprint(get.Body.Len()); got != want {
		t.Errorf("HEAD says Content-Length %s, GET has %s bytes", got, want)
	}
}

func TestBodyIsEscaped(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	w := s.serveRequest("GET", "http://go.acme.com/html", nil)
	want := `https://shop.acme.com/?q="><script>&x='1'&nim_ct=` + s.lastClick(t).ClickToken
	if got := w.Header().Get("Location"); got != want {
		t.Errorf("Location %s, want %s", got, want)
	}
	if body := w.Body.String(); strings.Contains(body, "<script>") || strings.Count(body, `"`) != 2 {
		t.Errorf("body %s", body)
	}
}

// Without a token key the visitor is redirected without token, and the click is kept and
// counted.
func TestNoTokenKey(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	for range 2 {
		w := s.serveRequest("GET", "http://go.nokey.com/x", nil)
		if w.Code != 302 || w.Header().Get("Location") != "https://nokey.com/" {
			t.Errorf("%d %s", w.Code, w.Header().Get("Location"))
		}
	}
	clicks := s.durableClicks(t)
	if len(clicks) != 2 || clicks[0].ClickToken == clicks[1].ClickToken {
		t.Fatalf("%d clicks, want two of their own: %+v", len(clicks), clicks)
	}
	for _, c := range clicks {
		if c.TokenStatus != event.TokenWithheld || c.TokenReason != reasonNoTokenKey || c.LinkID != "lnk_nokey" ||
			c.WorkspaceID != "nokey" {
			t.Errorf("%+v", c)
		}
		if _, err := token.Parse(c.ClickToken); err != nil {
			t.Errorf("%s: %v", c.ClickToken, err)
		}
	}
	if n := metricValue(t, s.reg, "partners_redirect_clicks_without_key_total"); n != 2 {
		t.Errorf("%v clicks counted, want 2", n)
	}
}

// A real server shows what httptest's recorder does not, such as Content-Length.
func TestOverTheWire(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	client := startServer(t, s.Handler)
	get, err := client.Get("http://go.acme.com/nomura")
	if err != nil {
		t.Fatal(err)
	}
	head, err := client.Head("http://go.acme.com/nomura")
	if err != nil {
		t.Fatal(err)
	}
	get.Body.Close()
	head.Body.Close()
	for _, name := range []string{"Cache-Control", "Content-Type", "Content-Length"} {
		if get.Header.Get(name) == "" || get.Header.Get(name) != head.Header.Get(name) {
			t.Errorf("%s: GET %q, HEAD %q", name, get.Header.Get(name), head.Header.Get(name))
		}
	}
	if get.StatusCode != 302 || head.StatusCode != 302 {
		t.Errorf("GET %d, HEAD %d", get.StatusCode, head.StatusCode)
	}
	if c := s.durableClicks(t); len(c) != 2 || c[0].IsBot || !c[1].IsBot {
		t.Errorf("clicks %+v", c)
	}
}

// Before there is a catalog, a link that is not known may still exist: 503, not 404.
func TestNoCatalogYet(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	s.view = catalog.NewView()
	if w := s.serveRequest("GET", "http://go.acme.com/nomura", nil); w.Code != 503 ||
		w.Header().Get("Retry-After") == "" ||
		w.Header().Get("Cache-Control") != "private, no-store" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// Promise: a domain's root and not_found lead on without click and token; /robots.txt
// answers without a click, unless a link has that slug.
func TestWithoutLink(t *testing.T) {
	s := newTestHandler(t, `
workspaces:
  - id: acme
    name: Acme
    plan: professional
    access: {conversion_tracking: true}
    domains: [go.acme.com, {host: home.acme.com, root: "https://acme.com/?a=b%20c", not_found: "https://acme.com/gone",
      slug_case: ignore}]
    aliases: {127.0.0.1: home.acme.com}
    links:
      - {id: lnk_bots, domain: go.acme.com, slug: robots.txt, destination: "https://acme.com/robots.txt"}
      - {id: lnk_old, domain: home.acme.com, slug: old, destination: "https://acme.com/old", status: archived}
`, nil)
	f := func(url string, status int, location string) {
		t.Helper()
		for _, method := range []string{"GET", "HEAD"} {
			w := s.serveRequest(method, url, nil)
			if w.Code != status || w.Header().Get("Location") != location || (w.Body.Len() == 0) != (method == "HEAD") {
				t.Errorf("%s %s: %d %q %q", method, url, w.Code, w.Header().Get("Location"), w.Body)
			}
		}
	}
	f("http://home.acme.com/", 302, "https://acme.com/?a=b%20c")
	f("http://127.0.0.1:8080/?x=1", 302, "https://acme.com/?a=b%20c")
	f("http://home.acme.com//", 404, "")
	f("http://home.acme.com/none?x=1", 302, "https://acme.com/gone")
	f("http://home.acme.com/favicon.ico", 404, "") // each browser asks for it
	f("http://home.acme.com/apple-app-site-association", 404, "")
	f("http://home.acme.com/.well-known/security.txt", 404, "")
	f("http://home.acme.com/OLD", 410, "")
	f("http://home.acme.com/robots.txt", 200, "")
	f("http://go.acme.com/", 404, "")
	f("http://go.acme.com/none", 404, "")
	f("http://none.acme.com/robots.txt", 404, "")
	if n := len(s.durableClicks(t)); n != 0 {
		t.Errorf("%d clicks, want none", n)
	}
	f("http://go.acme.com/robots.txt", 302, "https://acme.com/robots.txt")
	if got := s.serveRequest("GET", "http://home.acme.com/robots.txt", nil).Body.String(); got != robotsText {
		t.Errorf("robots.txt: %q", got)
	}
}
