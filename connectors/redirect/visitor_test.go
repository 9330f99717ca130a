package redirect

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nimriz/partners/connectors/forwarded"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/topic"
)

func TestUserAgents(t *testing.T) {
	a := newTestAgentParser(t)
	f := func(userAgent, device, os, browser, bot string) {
		t.Helper()
		want := agentInfo{device, os, browser, bot}
		for _, how := range []string{"parsed", "cached"} {
			if got := a.lookUpAgent(userAgent); got != want {
				t.Errorf("%s (%s)\n got %+v\nwant %+v", userAgent, how, got, want)
			}
		}
	}
	const like = "AppleWebKit/537.36 (KHTML, like Gecko)"
	f(chromeAgent, "desktop", "Windows", "Chrome", "")
	f("Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "+
		"Version/17.5 Mobile/15E148 Safari/604.1", "phone", "iOS", "Mobile Safari", "")
	f("Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.6 "+
		"Mobile/15E148 Safari/604.1", "tablet", "iOS", "Mobile Safari", "")
	f("Mozilla/5.0 (Linux; Android 14; Pixel 8) "+like+" Chrome/126.0.0.0 Mobile Safari/537.36",
		"phone", "Android", "Chrome Mobile", "")
	f("Mozilla/5.0 (Linux; Android 13; SM-X900) "+like+" Chrome/126.0.0.0 Safari/537.36",
		"tablet", "Android", "Chrome", "")
	f("Mozilla/5.0 (Linux; Android 11; CUBOT X30) "+like+" Chrome/126.0.0.0 Mobile Safari/537.36",
		"phone", "Android", "Chrome Mobile", "")
	f("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 "+
		"Safari/605.1.15", "desktop", "Mac OS X", "Safari", "")
	f("Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
		"desktop", "Ubuntu", "Firefox", "")
	f("Mozilla/5.0 (Web0S; Linux/SmartTV) "+like+" Chrome/79.0.3945.79 Safari/537.36 WebAppManager",
		"tv", "Web0S", "Chrome", "")
	f("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
		"other", "Other", "Googlebot", "crawler")
	f("facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
		"other", "Other", "FacebookBot", "crawler")
	f("WhatsApp/2.23.20.0 A", "other", "Other", "WhatsApp", "crawler")
	f("TelegramBot (like TwitterBot)", "other", "Other", "TelegramBot", "crawler")
	f("MySecretCompanyBot/7.3", "other", "Other", "Other", "crawler")
	f("UptimeRobot/2.0", "other", "Other", "UptimeRobot", "crawler")
	f("Mozilla/5.0 (X11; Linux x86_64) "+like+" HeadlessChrome/126.0.0.0 Safari/537.36",
		"desktop", "Linux", "HeadlessChrome", "headless")
	f("curl/8.5.0", "other", "Other", "curl", "tool")
	f("python-requests/2.31.0", "other", "Other", "Python Requests", "tool")
	f("Go-http-client/1.1", "other", "Other", "Go-http-client", "tool")
	f("complete garbage", "other", "Other", "Other", "tool")
	f("", "other", "Other", "Other", "")
}

func TestBots(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	f := func(name, value, reason string) {
		t.Helper()
		s.serveRequest("GET", "http://go.acme.com/plain", func(r *http.Request) { r.Header.Set(name, value) })
		if c := s.lastClick(t); c.BotReason != reason || c.IsBot != (reason != "") {
			t.Errorf("%s: %s: bot %v %q, want %q", name, value, c.IsBot, c.BotReason, reason)
		}
	}
	f("Accept", "text/html", "")
	f("Purpose", "other", "")
	f("User-Agent", "", "no_user_agent")
	f("User-Agent", "   ", "no_user_agent")
	f("User-Agent", "-", "no_user_agent")
	f("User-Agent", "curl/8.5.0", "tool")
}

// The cache stays within its bound under a flood of User-Agents, and keeps those in
// use.
func TestUserAgentCacheIsBounded(t *testing.T) {
	cache := newTestAgentParser(t).cache
	hot := agentKey{1, 1}
	cache.Add(hot, agentInfo{os: "hot"})
	for i := range uint64(3 * maxCachedAgents) {
		cache.Add(agentKey{i, 2}, agentInfo{})
		if info, ok := cache.Get(hot); !ok || info.os != "hot" {
			t.Fatalf("an entry in use was evicted after %d others", i)
		}
		if n := cache.Len(); n > maxCachedAgents {
			t.Fatalf("%d entries, the bound is %d", n, maxCachedAgents)
		}
	}
	if _, ok := cache.Get(agentKey{0, 2}); ok {
		t.Error("an entry that was not used for long is still there")
	}
}

// When all parsers are busy, a request waits for parseWait and then does without. Bots
// are still recognized by their words.
func TestBusyParsers(t *testing.T) {
	a := newTestAgentParser(t)
	synctest.Test(t, func(t *testing.T) {
		a.parsing = make(chan struct{}, 1)
		a.parsing <- struct{}{}
		start := time.Now()
		// A parser would name the browser.
		want := agentInfo{deviceOther, otherName, otherName, botCrawler}
		if got := a.lookUpAgent("UptimeRobot/2.0"); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if waited := time.Since(start); waited != parseWait {
			t.Errorf("waited %v", waited)
		}
	})
	a.parsing = make(chan struct{}, 1)
	if got := a.lookUpAgent(chromeAgent); got.browser != "Chrome" {
		t.Errorf("later: %+v", got)
	}
}

func TestReferrerHost(t *testing.T) {
	f := func(referer, want string) {
		t.Helper()
		if got := referrerHost(referer); got != want {
			t.Errorf("%q: got %q, want %q", referer, got, want)
		}
	}
	f("https://News.Example.com/path?q=1", "news.example.com")
	f("https://user:pw@example.com:8443", "example.com")
	f("android-app://com.google.android.gm/", "com.google.android.gm")
	f("https://example.com.", "example.com")
	f("https://example.com\\@evil", "example.com")
	f("https://192.0.2.7/x", "")
	f("https://3221225991/x", "")
	f("https://0xC0.2.1/x", "")
	f("https://[2001:db8::7]:80/x", "")
	f("https:///x", "")
	f("about:blank", "")
	f("https://bü.example/", "")
	f("https://ex ample/", "")
	f("https://"+strings.Repeat("a", 254)+"/", "")
	f("", "")
}

func FuzzReferrerHost(f *testing.F) {
	f.Add("https://user@News.Example.com:80/path")
	f.Add("x://1.2.3.4")
	f.Fuzz(func(t *testing.T, referer string) {
		host := referrerHost(referer)
		if _, err := netip.ParseAddr(host); err == nil {
			t.Errorf("%q gave the address %q", referer, host)
		}
		if strings.ContainsAny(host, "/?#@: ") || len(host) > 253 {
			t.Errorf("%q gave %q", referer, host)
		}
	})
}

func TestCountry(t *testing.T) {
	s := newTestHandler(t, testCatalog, testCountries(t))
	f := func(remote, want string) {
		t.Helper()
		s.serveRequest("GET", "http://go.acme.com/plain", func(r *http.Request) { r.RemoteAddr = remote })
		if got := s.lastClick(t).Country; got != want {
			t.Errorf("%s: country %q, want %q", remote, got, want)
		}
	}
	f("200.1.2.3:4711", "BR")
	f("[::ffff:200.1.2.3]:4711", "BR")
	f("81.2.69.142:4711", "GB")
	f("100.1.2.3:4711", "")
	f("[2001:db8::1]:4711", "")
	f("pipe", "")
	if _, err := OpenCountries(filepath.Join(t.TempDir(), "none")); err == nil ||
		!strings.Contains(err.Error(), "-country-db") {
		t.Errorf("a missing file: %v", err)
	}
	other := filepath.Join(t.TempDir(), "asn.mmdb")
	networks := bytes.ReplaceAll(countryDB(), []byte("iso_code"), []byte("asn_code"))
	if err := os.WriteFile(other, networks, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCountries(other); err == nil || !strings.Contains(err.Error(), `of type "Test" and has no`) {
		t.Errorf("a database without countries: %v", err)
	}
	if got := (*Countries)(nil).Of(netip.MustParseAddr("200.1.2.3")); got != "" {
		t.Errorf("without a database: %q", got)
	}
}

// testCountries is a database in which 128.0.0.0/1 is in BR and 64.0.0.0/3 in GB.
func testCountries(t testing.TB) *Countries {
	t.Helper()
	path := filepath.Join(t.TempDir(), "country.mmdb")
	if err := os.WriteFile(path, countryDB(), 0o600); err != nil {
		t.Fatal(err)
	}
	countries, err := OpenCountries(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { countries.Close() })
	return countries
}

// countryDB is a database of three nodes in MaxMind's format
// (https://maxmind.github.io/MaxMind-DB/).
func countryDB() []byte {
	text := func(s string) []byte { return append([]byte{2<<5 | byte(len(s))}, s...) }
	object := func(n int) []byte { return []byte{7<<5 | byte(n)} }
	entry := func(code string) []byte {
		return slices.Concat(object(1), text("country"), object(1), text("iso_code"), text(code))
	}
	const nodes = 3
	// Two records of 24 bits for each node: the number of a node, the number of nodes for
	// nothing, or that and 16 and the offset in the data.
	b := []byte{
		0, 0, 1, 0, 0, nodes + 16,
		0, 0, nodes, 0, 0, 2,
		0, 0, byte(nodes + 16 + len(entry("BR"))), 0, 0, nodes,
	}
	b = append(b, make([]byte, 16)...)
	b = append(b, entry("BR")...)
	b = append(b, entry("GB")...)
	b = append(b, "\xab\xcd\xefMaxMind.com"...)
	b = append(b, object(9)...)
	addField := func(name string, value []byte) {
		b = append(append(b, text(name)...), value...)
	}
	addField("node_count", []byte{6<<5 | 1, nodes})
	addField("record_size", []byte{5<<5 | 1, 24})
	addField("ip_version", []byte{5<<5 | 1, 4})
	addField("database_type", text("Test"))
	addField("languages", []byte{0, 11 - 7})
	addField("binary_format_major_version", []byte{5<<5 | 1, 2})
	addField("binary_format_minor_version", []byte{5 << 5})
	addField("build_epoch", binary.BigEndian.AppendUint32([]byte{4, 9 - 7}, 1790000000))
	addField("description", object(0))
	return b
}

// Promise: no IP address and no User-Agent gets into the spool, into Kafka, into
// refused records or into a log, by whichever header it arrives.
func TestPrivacy(t *testing.T) {
	brokers, cfg := kafkatest.Broker(t), testConfig(t)
	var logged safeBuffer
	log := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l := startShipper(t, cfg, brokers)
	l.spool.log, l.Shipper.log = log, log
	proxies := trustProxies(t, forwarded.Config{Header: forwarded.HeaderForwarded}, log, "203.0.113.0/24,2001:db8::/32")
	h, err := New(testView(t, testCatalog), testKeys(t, "acme"), codec, l.spool, proxies, nil, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	const marker = "Zx81Marker"
	addresses := []string{"203.0.113.77", "2001:db8:77::99"}
	agents := []string{
		chromeAgent,
		"Mozilla/5.0 (" + marker + "; rv:1) Gecko " + marker + "/3.0",
		marker + "bot/1.0",
		marker,
		strings.Repeat(marker+" ", 300),
	}
	scanSpool := collectSpoolBytes(t, l.spool)
	n := 0
	for _, address := range addresses {
		for _, userAgent := range agents {
			r := httptest.NewRequest("GET", "http://go.acme.com/nomura?x="+address, nil)
			r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(address), 51234).String()
			r.Header.Set("User-Agent", userAgent)
			r.Header.Set("X-Forwarded-For", address)
			r.Header.Set("Forwarded", "for="+address)
			r.Header.Set("Referer", "https://"+strings.ReplaceAll(address, ":", "-")+"/")
			if n%2 == 0 {
				r.Header.Set("Referer", "https://203.0.113.77/")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != 302 {
				t.Fatal(w.Code)
			}
			n++
		}
	}
	scan := func(where string, data []byte) {
		t.Helper()
		secrets := append([]string{marker, chromeAgent, "AppleWebKit"}, addresses...)
		for _, a := range addresses {
			raw := netip.MustParseAddr(a)
			secrets = append(secrets, string(raw.AsSlice()))
		}
		for _, secret := range secrets {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds %q", where, secret)
			}
		}
	}
	scanSpool(scan)
	for _, r := range waitForClicks(t, brokers, n) {
		scan("a record in Kafka", bytes.Join([][]byte{r.Key, r.Value, fmt.Append(nil, r.Headers)}, nil))
	}
	for path, data := range readFiles(t, cfg.SpoolDir) {
		scan(path, data)
	}
	scan("the log", []byte(logged.String()))
	if topicName := topic.Clicks; len(kafkatest.Consume(t, brokers, topicName)) != n {
		t.Error("not all clicks are in Kafka")
	}
}

// collectSpoolBytes collects every byte that is written to the spool, including those
// that are removed again at once. The function that it returns passes them to scan.
func collectSpoolBytes(t testing.TB, s *Spool) func(scan func(string, []byte)) {
	var mu sync.Mutex
	var all []byte
	s.mu.Lock() // the writer reads fsync only after it has seen a record under this lock
	s.fsync = func(f *os.File) error {
		data, err := os.ReadFile(f.Name())
		mu.Lock()
		all = append(all, data...)
		mu.Unlock()
		return errors.Join(err, f.Sync())
	}
	s.mu.Unlock()
	return func(scan func(string, []byte)) {
		mu.Lock()
		defer mu.Unlock()
		if len(all) == 0 {
			t.Error("nothing was written")
		}
		scan("the spool", all)
	}
}

func TestStoreCatalogChanges(t *testing.T) {
	cfg := testConfig(t)
	if err := os.MkdirAll(cfg.SpoolDir, 0o700); err != nil {
		t.Fatal(err)
	}
	view, err := LoadCatalog(cfg, discardLog())
	if err != nil || view.Offset() != -1 {
		t.Fatalf("without a file: offset %d, %v", view.Offset(), err)
	}
	path := filepath.Join(cfg.SpoolDir, catalogFile)
	source := testView(t, testCatalog)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- StoreCatalogChanges(ctx, cfg, view, discardLog()) }()
		time.Sleep(2 * catalogStoreInterval)
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("an empty catalog was stored: %v", err)
		}
		apply := func(from int64) {
			for i, e := range source.Entries() {
				if err := view.Apply(e.Key, e.Value, from+int64(i)); err != nil {
					t.Error(err)
				}
			}
		}
		apply(0)
		time.Sleep(catalogStoreInterval + time.Second)
		first, err := LoadCatalog(cfg, discardLog())
		if err != nil || first.Offset() != view.Offset() {
			t.Errorf("stored offset %d, want %d: %v", first.Offset(), view.Offset(), err)
		}
		apply(1000)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	// A view that has a catalog before the start is stored as well.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := StoreCatalogChanges(ctx, cfg, view, discardLog()); err != nil {
		t.Fatal(err)
	}
	again, err := LoadCatalog(cfg, discardLog())
	if err != nil || again.Offset() != view.Offset() {
		t.Errorf("after the end: stored offset %d, want %d: %v", again.Offset(), view.Offset(), err)
	}
	if _, found := again.Lookup("go.acme.com", "nomura"); found != catalog.Active {
		t.Errorf("the stored catalog says %v", found)
	}

	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data[:len(data)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if view, err := LoadCatalog(cfg, discardLog()); err != nil || view.Offset() != -1 {
		t.Errorf("a damaged file: %v", err)
	}
}
