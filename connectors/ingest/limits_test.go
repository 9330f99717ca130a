package ingest

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/forwarded"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
)

// stoppedRig is a rig with small limits and a clock that only moves by hand.
func stoppedRig(t *testing.T) (r *rig, advance func(time.Duration)) {
	cfg := DefaultConfig()
	cfg.Rate, cfg.Burst, cfg.UnverifiedRate, cfg.UnverifiedBurst = 2, 500, 1, 3
	r = newRigOn(t, kafkatest.Broker(t), cfg, topic.OneEpoch(kafkatest.Partitions))
	now := time.Now()
	r.handler.now = func() time.Time { return now } // requests are made one after another
	return r, func(d time.Duration) { now = now.Add(d) }
}

// A batch counts its events, a workspace has its own budget, and Retry-After is true.
func TestRateOfAWorkspace(t *testing.T) {
	t.Parallel()
	r, advance := stoppedRig(t)
	f := func(c call, status int, retryAfter string) {
		t.Helper()
		if a := r.do(c); a.status != status || a.header.Get("Retry-After") != retryAfter {
			t.Errorf("%d %s Retry-After %q, want %d %q", a.status, a.body, a.header.Get("Retry-After"), status,
				retryAfter)
		}
	}
	batch := func(n int) call { return call{path: batchTo("acme"), body: batchOf(slicesOf(r.event(), n)...)} }
	f(batch(490), 202, "")
	f(batch(20), 429, "5")                             // 10 of 20 are there; 2 a second
	f(batch(9), 202, "")                               // nothing was taken
	f(call{path: batchTo("acme"), body: "{"}, 400, "") // takes the last: nonsense is not free
	f(call{body: r.event()}, 429, "1")
	f(call{body: "{"}, 429, "1")
	// another workspace's budget, and acme's token
	f(call{signer: "globex", path: toWorkspace("globex"), body: r.event()}, 422, "")
	f(call{body: r.event(), signer: "globex"}, 401, "")
	advance(time.Second)
	f(batch(2), 202, "")
	f(call{body: r.event()}, 429, "1")
	limited := 0
	for _, j := range r.rejections() {
		if j.Code == "rate_limited" && j.Status == 429 {
			limited++
		}
	}
	if limited != 4 {
		t.Errorf("%d rejections for the limit, want 4", limited)
	}
}

// Unverified requests of one network have a limit; a genuine one from there is not
// concerned.
func TestRateOfUnverifiedRequests(t *testing.T) {
	t.Parallel()
	r, advance := stoppedRig(t)
	post := func(remote, signer string) int {
		req := r.request(call{body: r.event(), signer: signer})
		req.RemoteAddr = remote
		w := httptest.NewRecorder()
		r.handler.ServeHTTP(w, req)
		if w.Code == 429 && w.Header().Get("Retry-After") != "1" {
			t.Errorf("429 with Retry-After %q", w.Header().Get("Retry-After"))
		}
		return w.Code
	}
	f := func(remote, signer string, want int) {
		t.Helper()
		if got := post(remote, signer); got != want {
			t.Errorf("%s from %s: %d, want %d", signer, remote, got, want)
		}
	}
	f("192.0.2.1:1000", "nobody", 401)
	f("192.0.2.2:1000", "globex", 401)
	f("192.0.2.255:2000", "nobody", 401)
	f("192.0.2.3:1000", "globex", 429)
	f("192.0.2.3:1000", "acme", 202)
	f("192.0.3.1:1000", "nobody", 401)
	f("[::ffff:192.0.2.1]:1000", "nobody", 429)
	advance(time.Second)
	f("192.0.2.3:1000", "nobody", 401)
	f("192.0.2.3:1000", "nobody", 429)
	if n := len(r.rejections()); n != 0 {
		t.Errorf("%d unverified requests are on record", n)
	}
}

// Behind a trusted proxy each sender's network has a limit of its own, and none escapes
// it by writing a header. Senders that the proxy does not know share one. Without the
// proxy's being trusted, all are the proxy.
func TestRateBehindAProxy(t *testing.T) {
	t.Parallel()
	r, _ := stoppedRig(t)
	post := func(header, value string) int {
		t.Helper()
		return r.do(call{body: r.event(), signer: "globex", header: http.Header{header: {value}}}).status
	}
	f := func(header, value string, want int) {
		t.Helper()
		if got := post(header, value); got != want {
			t.Errorf("%s %s: %d, want %d", header, value, got, want)
		}
	}
	const xff = "X-Forwarded-For"
	for _, client := range []string{"192.0.2.1", "192.0.3.1", "192.0.4.1"} {
		f(xff, client, 401)
	}
	f(xff, "192.0.5.1", 429)
	trusted, err := forwarded.ParseProxies("127.0.0.0/8, 10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	if r.handler.proxies, err = forwarded.New(forwarded.Config{TrustedProxies: trusted,
		Header: forwarded.HeaderXForwardedFor}, slog.New(slog.DiscardHandler), nil); err != nil {
		t.Fatal(err)
	}
	for _, client := range []string{"192.0.2.1", "192.0.2.255, 10.0.0.1", "198.51.100.1, [::ffff:192.0.2.9]:4711"} {
		f(xff, client, 401)
	}
	for _, client := range []string{"192.0.2.7", "198.51.100.1, 192.0.2.7", "192.0.9.9, 192.0.2.1, 10.0.0.1"} {
		f(xff, client, 429)
	}
	f(xff, "192.0.3.1", 401)
	f(xff, "2001:db8:1:2::1", 401)
	for _, client := range []string{"unknown", "_hidden", "192.0.3.1, x"} {
		f(xff, client, 401)
	}
	f(xff, "nobody", 429)
	f("Forwarded", "for=192.0.2.1", 429) // of the proxy itself: the three from above
	if got := r.do(call{body: r.event(), header: http.Header{xff: {"192.0.2.7"}}}).status; got != 202 {
		t.Errorf("a genuine request from a network over its limit: %d", got)
	}
}

func TestNetworks(t *testing.T) {
	var proxies *forwarded.Proxies
	f := func(remote, want string) {
		t.Helper()
		if got := networkOf(proxies.ClientOf(&http.Request{RemoteAddr: remote}).Addr).String(); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
	f("192.0.2.77:1", "192.0.2.0/24")
	f("[::ffff:192.0.2.77]:1", "192.0.2.0/24")
	f("[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1::/48")
	f("[fe80::1%eth0]:1", "fe80::/48")
	f("pipe", "invalid Prefix")
	f("", "invalid Prefix")
}

// An attacker with many networks costs a bounded amount of memory.
func TestNetworksAreBounded(t *testing.T) {
	l, err := newRateLimits(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for i := range maxPrefixes + 1000 {
		l.chargeUnverified(netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::1", i&0xffff)), now)
		l.chargeUnverified(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), now)
	}
	if n := l.networks.Len(); n != maxPrefixes {
		t.Errorf("%d networks are kept, want %d", n, maxPrefixes)
	}
}

// More rejections than may wait are lost and counted, and the answers stay what they
// are.
func TestRejectionsAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for r.handler.pendingRejections.enter() {
	}
	if a := r.do(call{body: "{}"}); a.status != 422 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if lost := r.metric("partners_ingest_rejections_lost_total"); lost != 1 {
		t.Errorf("%v lost, want 1", lost)
	}
	for range maxRejections {
		r.handler.pendingRejections.leave()
	}
	r.do(call{body: "{}"})
	if n := len(r.rejections()); n != 1 {
		t.Errorf("%d on record, want 1", n)
	}
	if strings.Contains(r.logged.String(), "level=ERROR") {
		t.Error(r.logged)
	}
}

// A caller with an older clock reading does not refill the same interval twice, and a
// refused caller takes no tokens from others.
func TestBucket(t *testing.T) {
	now := time.Now()
	b := newBucket(500, 2000)
	b.takeTokens(now, 2000)
	granted := 0
	for range 1000 {
		for _, at := range []time.Time{now.Add(20 * time.Millisecond), now} {
			if b.takeTokens(at, 1) == 0 {
				granted++
			}
		}
	}
	if granted != 10 {
		t.Errorf("%d granted in 20 ms at 500/s, want 10", granted)
	}
	b = newBucket(500, 2000)
	b.takeTokens(now, 1900)
	var refused sync.WaitGroup
	for range 16 {
		refused.Go(func() {
			for range 2000 {
				if wait := b.takeTokens(now, 500); wait != 800*time.Millisecond {
					t.Errorf("400 of 500 are missing at 500/s: wait %v", wait)
				}
			}
		})
	}
	refused.Wait()
	if b.takeTokens(now, 100) != 0 {
		t.Error("the refused took something")
	}
	if wait := b.takeTokens(now, 3000); wait < time.Second {
		t.Errorf("more than there ever is: wait %v", wait)
	}
}

// Bodies have so much memory and no more, give it back, and take none by announcing
// themselves.
func TestBodies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := func(status int) {
		t.Helper()
		if a := r.do(call{body: r.event()}); a.status != status {
			t.Errorf("%d %s, want %d", a.status, a.body, status)
		}
	}
	f(202)
	r.handler.bodyBytes.Store(maxBodyMemory)
	f(503)
	if n := r.handler.bodyBytes.Load(); n != maxBodyMemory {
		t.Errorf("%d bytes are taken, want %d", n, maxBodyMemory)
	}
	r.handler.bodyBytes.Store(0)
	f(202)
	body, sender := io.Pipe()
	req := httptest.NewRequest("POST", batchTo("acme"), body)
	req.Header.Set("Content-Type", "application/json")
	done := make(chan int)
	go func() {
		w := httptest.NewRecorder()
		r.handler.ServeHTTP(w, req)
		done <- w.Code
	}()
	io.WriteString(sender, "{")
	if n := r.handler.bodyBytes.Load(); n > 1 {
		t.Errorf("a byte of a batch takes %d", n)
	}
	sender.Close()
	if code := <-done; code != 401 || r.handler.bodyBytes.Load() != 0 {
		t.Errorf("%d, %d bytes are still taken", code, r.handler.bodyBytes.Load())
	}
}
