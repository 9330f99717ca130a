package traffic_test

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"go/parser"
	gotoken "go/token"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nimriz/partners/cmd/demo/internal/traffic"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
)

func wantNoFindings(t *testing.T, what string, got []string) {
	t.Helper()
	if got != nil {
		t.Errorf("%s:\n%s", what, strings.Join(got, "\n"))
	}
}

func TestRun(t *testing.T) {
	w := newFakeServers(t)
	cfg := w.trafficConfig()
	var phases []string
	ledger, err := traffic.Run(t.Context(), cfg, w.workspaces, func(done, total int, phase string) {
		if done == total {
			phases = append(phases, fmt.Sprint(phase, " ", total > 0))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"scenarios true", "traffic true", "late events true"}, phases); d != "" {
		t.Error(d)
	}
	wantNoFindings(t, "clicks", ledger.CheckClicks(w.clickRecords()))
	wantNoFindings(t, "conversions", ledger.CheckConversions(w.conversionRecords()))
	wantNoFindings(t, "rejections", ledger.CheckRejections(w.rejections))
	judge := oracle.DefaultConfig()
	judge.Grace = cfg.Grace
	truth := oracle.Judge(judge, w.clicks, w.events, event.MillisOf(time.Now().Add(time.Hour)))
	wantNoFindings(t, "scenarios", ledger.CheckScenarios(truth.Outcomes))

	if ledger.Visits() != len(w.clicks) || ledger.Accepted() != len(w.events) || ledger.Refused() < 20 {
		t.Errorf("%d visits, %d accepted, %d refused", ledger.Visits(), ledger.Accepted(), ledger.Refused())
	}
	counts := make(map[string]int)
	for _, o := range truth.Outcomes {
		counts[string(o.Verdict)]++
		counts[o.Reason]++
		counts[string(o.Type)]++
		counts[o.Currency]++
	}
	for _, must := range []string{"attributed", "reversed", "duplicate", "conflict", "expired",
		"click_not_found", "before_click",
		"wrong_parent", "parent_ambiguous", "parent_not_found", "parent_unattributed",
		"outside_window", "order_repeated",
		"lead", "sale", "refund", "cancellation", "reversal",
		"EUR", "USD", "JPY"} {
		if counts[must] == 0 {
			t.Errorf("nothing is %s", must)
		}
	}
	total := traffic.LinkCount{}
	for _, l := range ledger.Links() {
		total.Visits += l.Visits
		total.Humans += l.Humans
		total.QR += l.QR
		total.WithToken += l.WithToken
	}
	if total.Visits != ledger.Visits() || total.Humans >= total.Visits || total.QR == 0 || total.WithToken == 0 ||
		total.WithToken == total.Visits {
		t.Errorf("links: %+v", total)
	}
}

// Each check finds the mistake that it is for.
func TestChecksFindMistakes(t *testing.T) {
	w := newFakeServers(t)
	cfg := w.trafficConfig()
	cfg.Clicks, cfg.Grace = 500, 0
	ledger, err := traffic.Run(t.Context(), cfg, w.workspaces, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := func(name string, got []string, want string) {
		t.Helper()
		if len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: found %q, want …%s…", name, got, want)
		}
	}
	clicks := func(change func([]event.Click) []event.Click) []string {
		return ledger.CheckClicks(change(w.clickRecords()))
	}
	shown := slices.IndexFunc(w.clicks, func(c oracle.Click) bool { return c.TokenStatus == event.TokenAppended })
	hidden := slices.IndexFunc(w.clicks, func(c oracle.Click) bool { return c.TokenStatus != event.TokenAppended })
	f("a lost click", clicks(func(c []event.Click) []event.Click {
		return slices.Delete(c, shown, shown+1)
	}), "is not on record")
	f("a lost click without token", clicks(func(c []event.Click) []event.Click {
		return slices.Delete(c, hidden, hidden+1)
	}), "1 clicks without a visible token are not on record")
	f("a click twice", clicks(func(c []event.Click) []event.Click { return append(c, c[shown]) }), "on record twice")
	f("a click too many", clicks(func(c []event.Click) []event.Click {
		extra := c[hidden]
		extra.ClickToken = "x"
		return append(c, extra)
	}), "never happened")
	f("another link", clicks(func(c []event.Click) []event.Click { c[shown].LinkID = "lnk_x"; return c }), "lnk_x")
	f("another sub-id", clicks(func(c []event.Click) []event.Click { c[shown].Sub3 = "x"; return c }), `"x"`)
	f("another status", clicks(func(c []event.Click) []event.Click {
		c[shown].TokenStatus = event.TokenWithheld
		return c
	}), "a visitor saw the token")
	f("a status too good", clicks(func(c []event.Click) []event.Click {
		extra := c[shown]
		extra.ClickToken = "x"
		return append(c, extra)
	}), "no visitor saw the token")

	events := func(change func([]event.Conversion) []event.Conversion) []string {
		return ledger.CheckConversions(change(w.conversionRecords()))
	}
	f("a lost event", events(func(e []event.Conversion) []event.Conversion { return e[1:] }), "is on record 0 times")
	f("an event twice", events(func(e []event.Conversion) []event.Conversion {
		return append(e, e[0])
	}), "is on record 2 times")
	f("another key", events(func(e []event.Conversion) []event.Conversion { e[0].KeyID = "x"; return e }), "key_id")
	f("another content", events(func(e []event.Conversion) []event.Conversion {
		e[0].OrderID = "x"
		return e
	}), "content_sha256")
	f("an event from nowhere", events(func(e []event.Conversion) []event.Conversion {
		extra := e[0]
		extra.EventID = "x"
		extra.ContentSHA256 = extra.ContentHash()
		return append(e, extra)
	}), "was not accepted")

	rejections := func(change func([]event.Rejection) []event.Rejection) []string {
		return ledger.CheckRejections(change(slices.Clone(w.rejections)))
	}
	f("a lost rejection", rejections(func(r []event.Rejection) []event.Rejection { return r[1:] }), "is not on record")
	f("a rejection twice", rejections(func(r []event.Rejection) []event.Rejection {
		return append(r, r[0])
	}), "did not happen")
	f("another status", rejections(func(r []event.Rejection) []event.Rejection {
		r[0].Status = 500
		return r
	}), "status is 500")

	if got := ledger.CheckScenarios(nil); len(got) != 21 {
		t.Errorf("no outcomes at all: %q", got)
	}
}

// The same seed gives the same requests, however many workers make them.
func TestSameSeedSameRequests(t *testing.T) {
	now := time.Now()
	requests := func(seed uint64, workers int) []string {
		w := newFakeServers(t)
		cfg := w.trafficConfig()
		cfg.Seed, cfg.Workers = seed, workers
		cfg.Clicks, cfg.Grace = 1200, 0
		cfg.Now = func() time.Time { return now }
		if _, err := traffic.Run(t.Context(), cfg, w.workspaces, nil); err != nil {
			t.Fatal(err)
		}
		slices.Sort(w.requests)
		return w.requests
	}
	one := requests(7, 1)
	if d := cmp.Diff(one, requests(7, 6)); d != "" {
		t.Error(d)
	}
	if slices.Equal(one, requests(8, 6)) {
		t.Error("another seed gave the same requests")
	}
}

func TestUnexpectedAnswers(t *testing.T) {
	f := func(name string, breakWorld func(*fakeServers), want ...string) {
		t.Helper()
		w := newFakeServers(t)
		breakWorld(w)
		cfg := w.trafficConfig()
		cfg.Grace = 0
		_, err := traffic.Run(t.Context(), cfg, w.workspaces, nil)
		for _, text := range want {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: got %v, want …%s…", name, err, text)
			}
		}
	}
	answer := func(status int, location, body string) func(int, http.ResponseWriter) bool {
		return func(n int, rw http.ResponseWriter) bool {
			if n != 40 && status != http.StatusInternalServerError {
				return false
			}
			rw.Header().Set("Location", location)
			rw.WriteHeader(status)
			fmt.Fprint(rw, body)
			return true
		}
	}
	f("the redirector fails", func(w *fakeServers) { w.breakVisit = answer(500, "", "") }, "status 500, want 302")
	f("a destination with one byte changed", func(w *fakeServers) {
		w.breakVisit = answer(302, "https://shop.acme.com/?ref=a+b#top", "")
	}, "https://shop.acme.com/?ref=a+b#top")
	f("the gateway fails", func(w *fakeServers) {
		w.breakPost = answer(500, "", "its disk is full")
	}, "status 500 its disk is full, want 202", `"event_id"`)
	f("another event is acknowledged", func(w *fakeServers) {
		w.breakPost = answer(202, "", `{"status":"accepted","event_id":"other"}`)
	}, "want 202")
	f("the redirector is down", func(w *fakeServers) { w.redirector.Close() }, "connection refused")
}

// Deferred events are sent again. One that was recorded nevertheless is no mistake.
func TestDeferredEventsAreSentAgain(t *testing.T) {
	w := newFakeServers(t)
	rng := rand.New(rand.NewPCG(1, 1))
	w.deferPost = func(int) (int, bool) {
		switch rng.IntN(20) {
		case 0:
			return http.StatusTooManyRequests, false
		case 1:
			return http.StatusServiceUnavailable, false
		case 2:
			return http.StatusServiceUnavailable, true
		}
		return 0, true
	}
	cfg := w.trafficConfig()
	cfg.Grace = 0
	cfg.Clicks = 300
	ledger, err := traffic.Run(t.Context(), cfg, w.workspaces, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantNoFindings(t, "conversions", ledger.CheckConversions(w.conversionRecords()))
	if ledger.Accepted() >= len(w.events) {
		t.Error("no event was recorded and deferred: the test shows nothing")
	}
}

func TestCancelStopsTheRun(t *testing.T) {
	w := newFakeServers(t)
	ctx, cancel := context.WithCancel(t.Context())
	cfg := w.trafficConfig()
	cfg.Clicks = 1_000_000
	_, err := traffic.Run(ctx, cfg, w.workspaces, func(done, _ int, phase string) {
		if phase == traffic.PhaseVolume && done > 0 {
			cancel()
		}
	})
	if err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("got %v", err)
	}
}

func TestValidate(t *testing.T) {
	cfg := traffic.Config{Clicks: -1, Grace: -1, Redirector: "localhost:8080", Gateway: "http://h:1/path"}
	err := cfg.Validate()
	for _, field := range []string{"clicks", "grace", "redirector", "gateway", "workers", "secrets", "now"} {
		if err == nil || !strings.Contains(err.Error(), field+":") {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}

// BenchmarkVolume measures a run per visit, including the servers: a redirector that
// only mints tokens, and the gateway of the tests.
func BenchmarkVolume(b *testing.B) {
	w := newFakeServers(b)
	full := w.redirector.Config.Handler
	w.redirector.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPost || req.Host != "go.acme.com" || req.URL.Path != "/plain" {
			full.ServeHTTP(rw, req)
			return
		}
		raw, err := w.keys.Mint("acme", time.Now(), crand.Reader)
		if err != nil {
			panic(err)
		}
		rw.Header()["Location"] = []string{"https://shop.acme.com/spring?nim_ct=" + token.Text(&raw)}
		rw.WriteHeader(http.StatusFound)
	})
	for i := range w.workspaces {
		for k := range w.workspaces[i].Links {
			if l := &w.workspaces[i].Links[k]; l.Slug != "plain" {
				l.Status = catalog.StatusArchived
			}
		}
	}
	cfg := w.trafficConfig()
	cfg.Clicks, cfg.Workers = b.N, traffic.DefaultConfig().Workers
	cfg.Grace = 0
	b.ReportAllocs()
	b.ResetTimer()
	if _, err := traffic.Run(b.Context(), cfg, w.workspaces, nil); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "visits/s")
}

// The generator shares no code with the pipeline, or it would repeat its mistakes.
func TestImports(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	const project = "github.com/nimriz/partners/"
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(gotoken.NewFileSet(), file.Name(), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range parsed.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			own, ours := strings.CutPrefix(path, project)
			if ours && !strings.HasPrefix(own, "schemas/") && own != "pipeline/token" && own != "pipeline/oracle" {
				t.Errorf("%s imports %s: of the project the traffic imports only schemas/*, pipeline/oracle and "+
					"pipeline/token", file.Name(), path)
			}
		}
	}
}
