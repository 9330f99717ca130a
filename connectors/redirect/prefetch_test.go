package redirect

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Promise: what a browser fetches ahead makes no click, and what a person opens does.
func TestPrefetchesAreDeclined(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	declined, clicks := 0, 0
	f := func(name, value string, ahead bool) {
		t.Helper()
		for _, method := range []string{"GET", "HEAD"} {
			set := func(r *http.Request) { r.Header.Set(name, value) }
			w := s.serveRequest(method, "http://go.acme.com/nomura", set)
			want := http.StatusFound
			if ahead {
				want = http.StatusServiceUnavailable
				declined++
			} else {
				clicks++
			}
			if w.Code != want || w.Header().Get("Cache-Control") != "private, no-store" ||
				(w.Header().Get("Location") == "") != ahead {
				t.Errorf("%s %s: %s: %d %v, want %d", method, name, value, w.Code, w.Header(), want)
			}
		}
	}
	f("Sec-Purpose", "prefetch", true)
	f("Sec-Purpose", "prefetch;prerender", true)
	f("Sec-Purpose", "prefetch; anonymous-client-ip", true)
	f("Sec-Purpose", "prerender", true)
	f("Purpose", "prefetch", true)
	f("Purpose", "Prefetch", true)
	f("X-Moz", "prefetch", true)
	f("X-Purpose", "preview", true)
	f("Sec-Purpose", "prefetch, prefetch;prerender", true)
	f("Sec-Purpose", ", prefetch", true)
	f("Purpose", "other", false)
	f("Purpose", "no-prefetch", false)
	f("Sec-Purpose", "x;prefetch", false)
	f("X-Purpose", "", false)
	f("Accept", "prefetch", false)
	if got := len(s.durableClicks(t)); got != clicks {
		t.Errorf("%d clicks, want %d", got, clicks)
	}
	if got := metricValue(t, s.reg, "partners_redirect_prefetches_declined_total"); int(got) != declined {
		t.Errorf("the metric counts %v, want %d", got, declined)
	}
	// what is not there is not there ahead either
	w := s.serveRequest("GET", "http://go.acme.com/none", func(r *http.Request) { r.Header.Set("Purpose", "prefetch") })
	if w.Code != http.StatusNotFound {
		t.Errorf("an unknown link ahead: %d", w.Code)
	}
}

// In a browser: the page with the link has speculation rules, the browser is declined,
// its user clicks, and that click is a person's and brings the token.
func TestChromiumPrefetches(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("PARTNERS_REQUIRE_CHROMIUM") == "1" {
			t.Fatal("PARTNERS_REQUIRE_CHROMIUM=1, and there is no chromium in PATH")
		}
		t.Skip("SKIP: no chromium in PATH (Debian: apt-get install chromium)")
	}
	for _, action := range []string{"prefetch", "prerender"} {
		t.Run(action, func(t *testing.T) { testChromiumAhead(t, chromium, action) })
	}
}

func testChromiumAhead(t *testing.T, chromium, action string) {
	ahead, shop := make(chan struct{}, 100), make(chan string, 100)
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	s := newTestHandler(t, fmt.Sprintf(`
workspaces:
  - id: acme
    name: Acme
    plan: professional
    access: {conversion_tracking: true}
    domains: [127.0.0.1]
    links:
      - {id: lnk_shop, domain: 127.0.0.1, slug: go/shop, destination: "%s/shop", conversion_tracking: true}
`, server.URL), nil)
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!doctype html><a id=link href="/go/shop">shop</a>
<script type=speculationrules>{%q: [{"urls": ["/go/shop"], "eagerness": "immediate"}]}</script>
<script>fetch("/ahead").then(() => document.getElementById("link").click())</script>`, action)
	})
	mux.HandleFunc("/go/shop", func(w http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(w, r)
		if isPrefetch(r.Header) {
			ahead <- struct{}{}
		}
	})
	// the page's user waits until the browser has asked ahead
	mux.HandleFunc("/ahead", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-ahead:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/shop", func(_ http.ResponseWriter, r *http.Request) { shop <- r.URL.Query().Get("nim_ct") })

	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu",
		"--user-agent="+chromeAgent, "--user-data-dir="+newProfile(t), server.URL+"/page")
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	var token string
	select {
	case token = <-shop:
	case <-ctx.Done():
		t.Fatal("the browser did not come to the shop")
	}
	clicks := s.durableClicks(t)
	if len(clicks) != 1 || clicks[0].IsBot || clicks[0].ClickToken != token {
		t.Errorf("token %q at the shop, clicks: %+v", token, clicks)
	}
	if got := metricValue(t, s.reg, "partners_redirect_prefetches_declined_total"); got < 1 {
		t.Errorf("%v requests ahead were declined", got)
	}
}

// newProfile makes a directory for a browser that will be killed. Its children end a
// moment later and write until then, so the directory is not empty at the first try.
func newProfile(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chromium-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		deadline := time.Now().Add(waitLimit)
		for err := os.RemoveAll(dir); err != nil; err = os.RemoveAll(dir) {
			if time.Now().After(deadline) {
				t.Error(err)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	return dir
}
