//go:build linux

package blackbox

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/signature"
	"golang.org/x/time/rate"
)

// trafficLoad is a load of visitors and merchants. A visitor does not repeat a failed
// request. A merchant repeats an event until it is accepted, while the load runs.
type trafficLoad struct {
	t                   *testing.T
	redirector, gateway string // host:port
	secrets             map[string]signature.Secret
	transport           *http.Transport
	longLinks           atomic.Bool // visitors send long sub-ids, to fill a spool sooner

	visits, redirects atomic.Int64 // requests that were sent to the redirector; 302s
	accepts           atomic.Int64 // 202s
	inFlight          atomic.Int64 // posts that were sent and have no answer yet
	unanswered        atomic.Int64 // posts that were sent and never answered
	unavailable       atomic.Int64 // 503s
	lost              int          // clicks that the redirector counted as lost

	mu          sync.Mutex
	tokens      map[string]bool  // of 302s
	recent      []visibleToken   // the newest tokens
	accepted    map[eventID]bool // answered 202
	sales       []sale           // accepted ones, for refunds
	eventNumber int              // number of the next event
	redirected  func()           // called at each 302, if not nil
}

// visibleToken is a token that a visitor has seen.
type visibleToken struct{ workspace, token string }

type eventID struct{ token, id string }

type sale struct {
	visibleToken
	id string
}

// links are those of the rig's catalog. All of them show tokens.
var links = []struct{ workspace, host, path string }{
	{"acme", "go.acme.com", "/nomura"},
	{"acme", "go.acme.com", "/creator?sub1=a"},
	{"acme", "go.acme.com", "/plain"},
	{"globex", "go.globex.com", "/hank?nr=qr"},
}

func newTrafficLoad(t *testing.T, redirector, gateway string, secrets map[string]signature.Secret) *trafficLoad {
	l := &trafficLoad{t: t, redirector: redirector, gateway: gateway, secrets: secrets, tokens: make(map[string]bool),
		accepted: make(map[eventID]bool),
		transport: &http.Transport{
			MaxIdleConnsPerHost:   64,
			DisableCompression:    true,
			ResponseHeaderTimeout: 30 * time.Second,
			DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		}}
	t.Cleanup(l.transport.CloseIdleConnections)
	return l
}

// start sends up to so many requests per second until stop is called. stop returns
// after the last answer.
func (l *trafficLoad) start(visits, events int) (stop func()) {
	ctx, cancel := context.WithCancel(l.t.Context())
	var wg sync.WaitGroup
	work := func(workers, perSecond int, do func(context.Context) bool) {
		limit := rate.NewLimiter(rate.Limit(perSecond), max(1, perSecond/20))
		for range workers {
			wg.Go(func() {
				for limit.Wait(ctx) == nil {
					if !do(ctx) {
						sleepContext(ctx, 20*time.Millisecond)
					}
				}
			})
		}
	}
	work(24, visits, func(context.Context) bool { return l.visitRandomLink() })
	if events > 0 {
		work(24, events, l.sendEvent)
	}
	stop = func() { cancel(); wg.Wait() }
	l.t.Cleanup(stop)
	return stop
}

func sleepContext(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// answeredCount returns the number of redirected visits and accepted events.
func (l *trafficLoad) answeredCount() int64 { return l.redirects.Load() + l.accepts.Load() }

// visitRandomLink follows a link and reports whether it was redirected. The request is
// never cancelled: once it is sent, its click may be recorded.
func (l *trafficLoad) visitRandomLink() bool {
	link := links[rand.IntN(len(links))]
	if l.longLinks.Load() {
		link = links[0]
		link.path = longPath()
	}
	_, ok := l.followLink(link.workspace, link.host, link.path)
	return ok
}

// longPath returns a link with the longest allowed sub-ids.
func longPath() string {
	path := links[0].path + "?"
	for n := range 5 {
		path += fmt.Sprintf("sub%d=%s&", n+1, (crand.Text() + crand.Text() + crand.Text())[:64])
	}
	return path
}

func (l *trafficLoad) followLink(workspace, host, path string) (token string, ok bool) {
	req, err := http.NewRequest(http.MethodGet, "http://"+l.redirector+path, nil)
	if err != nil {
		l.t.Error(err)
		return "", false
	}
	req.Host = host
	l.visits.Add(1)
	res, err := l.transport.RoundTrip(req)
	if err != nil {
		return "", false
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	if res.StatusCode != http.StatusFound {
		l.t.Errorf("GET %s%s: status %d, want 302", host, path, res.StatusCode)
		return "", false
	}
	to, err := url.Parse(res.Header.Get("Location"))
	if err != nil || to.Query().Get("nim_ct") == "" {
		l.t.Errorf("GET %s%s: location %q shows no token", host, path, res.Header.Get("Location"))
		return "", false
	}
	l.redirects.Add(1)
	token = to.Query().Get("nim_ct")
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tokens[token] {
		l.t.Errorf("token %s was shown twice", token)
	}
	l.tokens[token] = true
	if l.recent = append(l.recent, visibleToken{workspace, token}); len(l.recent) > 2000 {
		l.recent = slices.Clone(l.recent[1000:])
	}
	if l.redirected != nil {
		l.redirected()
	}
	return token, true
}

// drawEvent draws an event for a recent token: a sale, a lead, a refund of a sale, or
// an event that was sent before.
func (l *trafficLoad) drawEvent() (of visibleToken, id string, body []byte, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.recent) == 0 {
		return visibleToken{}, "", nil, false
	}
	of = l.recent[len(l.recent)-1-rand.IntN(min(len(l.recent), 500))]
	l.eventNumber++
	id = "e" + strconv.Itoa(l.eventNumber)
	fields := map[string]any{
		"type":     "sale",
		"amount":   fmt.Sprintf("%d.%02d", 1+l.eventNumber%200, l.eventNumber%100),
		"currency": "EUR",
		"order_id": id,
	}
	var earlier *sale
	if len(l.sales) > 0 {
		earlier = &l.sales[rand.IntN(len(l.sales))]
	}
	switch kind := rand.IntN(100); {
	case kind < 15:
		fields = map[string]any{"type": "lead", "name": "signup"}
	case kind < 45 && earlier != nil:
		of = earlier.visibleToken
		fields = map[string]any{"type": "refund", "parent_event_id": earlier.id}
		if kind < 35 {
			fields["amount"], fields["currency"] = "0.50", "EUR"
		}
	case kind < 50 && earlier != nil: // the id of a sale with another amount
		of, id = earlier.visibleToken, earlier.id
	case kind < 53: // a refund without a sale: it waits, and its parent never comes
		fields = map[string]any{"type": "refund", "parent_event_id": "none", "amount": "1.00", "currency": "EUR"}
	}
	fields["event_id"], fields["click_token"] = id, of.token
	fields["occurred_at"] = time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	body, err := json.Marshal(fields)
	if err != nil {
		l.t.Error(err)
		return visibleToken{}, "", nil, false
	}
	return of, id, body, true
}

// sendEvent sends an event until it is accepted or ctx ends.
func (l *trafficLoad) sendEvent(ctx context.Context) bool {
	of, id, body, ok := l.drawEvent()
	if !ok {
		return false
	}
	for {
		status, header, err := l.postOnce(of.workspace, body)
		switch {
		case err != nil:
		case status == http.StatusAccepted:
			l.accepts.Add(1)
			l.mu.Lock()
			l.accepted[eventID{of.token, id}] = true
			if l.sales = append(l.sales, sale{of, id}); len(l.sales) > 500 {
				l.sales = slices.Clone(l.sales[250:])
			}
			l.mu.Unlock()
			return true
		case status == http.StatusServiceUnavailable:
			l.unavailable.Add(1)
			if seconds, err := strconv.Atoi(header.Get("Retry-After")); err != nil || seconds < 1 {
				l.t.Errorf("status 503 with Retry-After %q, want seconds", header.Get("Retry-After"))
			}
			sleepContext(ctx, 500*time.Millisecond)
		default:
			l.t.Errorf("posting %s: status %d", body, status)
			return false
		}
		sleepContext(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return false
		}
	}
}

// postOnce signs and sends one request.
func (l *trafficLoad) postOnce(workspace string, body []byte) (status int, header http.Header, err error) {
	var wrote atomic.Bool
	trace := &httptrace.ClientTrace{WroteRequest: func(info httptrace.WroteRequestInfo) {
		if info.Err == nil && !wrote.Swap(true) {
			l.inFlight.Add(1)
		}
	}}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), http.MethodPost,
		"http://"+l.gateway+"/v1/workspaces/"+workspace+"/events", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.GetBody = nil // so that the transport does not repeat the request
	req.Header.Set("Content-Type", "application/json")
	if err := signature.SignRequest(req, fmt.Sprintf("m-%d", rand.Uint64()), time.Now(), body,
		l.secrets[workspace]); err != nil {
		return 0, nil, err
	}
	res, err := l.transport.RoundTrip(req)
	if wrote.Load() {
		l.inFlight.Add(-1)
	}
	if err != nil {
		if wrote.Load() && !errors.Is(err, syscall.ECONNREFUSED) {
			l.unanswered.Add(1)
		}
		return 0, nil, err
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	return res.StatusCode, res.Header, nil
}

// onRedirect calls f at every 302 until the returned function is called.
func (l *trafficLoad) onRedirect(f func()) (off func()) {
	set := func(f func()) { l.mu.Lock(); l.redirected = f; l.mu.Unlock() }
	set(f)
	return func() { set(nil) }
}

// checkAnswers compares the answers with the recorded clicks and events.
func (l *trafficLoad) checkAnswers(clicks map[string]recordPosition, events map[eventID]bool) {
	l.t.Helper()
	missing := 0
	for token := range l.tokens {
		if _, ok := clicks[token]; !ok {
			missing++
		}
	}
	if missing != l.lost {
		l.t.Errorf("%d of %d clicks that were answered 302 are not recorded; the redirector counts %d as lost",
			missing, len(l.tokens), l.lost)
	}
	for id := range l.accepted {
		if !events[id] {
			l.t.Errorf("event %s of %s was accepted and is not recorded", id.id, id.token)
		}
	}
	l.t.Logf("%d requests to the redirector, %d answered 302", l.visits.Load(), l.redirects.Load())
	l.t.Logf("%d events accepted, %d requests to the gateway answered 503, %d never answered",
		l.accepts.Load(), l.unavailable.Load(), l.unanswered.Load())
}
