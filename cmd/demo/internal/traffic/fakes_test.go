package traffic_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nimriz/partners/cmd/demo/internal/traffic"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// fakeServers are a minimal redirector and a minimal gateway, and what they recorded.
type fakeServers struct {
	workspaces          []catalog.Workspace
	keys                *token.Keyring
	redirector, gateway *httptest.Server

	mu         sync.Mutex
	clicks     []oracle.Click
	events     []oracle.Event
	rejections []event.Rejection
	requests   []string // normalized
	visits     int
	posts      int
	// breakVisit and breakPost may answer the nth request in place of the fake.
	breakVisit, breakPost func(n int, w http.ResponseWriter) bool
	// deferPost returns the status of the nth post, 429 or 503 (0: neither), and
	// whether the event is recorded nevertheless.
	deferPost func(n int) (status int, recorded bool)
}

func secretOf(workspace string) string {
	sum := sha256.Sum256([]byte(workspace))
	return "whsec_" + base64.StdEncoding.EncodeToString(sum[:])
}

func newFakeServers(t testing.TB) *fakeServers {
	t.Helper()
	data, err := os.ReadFile("testdata/catalog.yaml")
	if err != nil {
		t.Fatal(err)
	}
	w := &fakeServers{}
	if w.workspaces, err = catalog.Parse("catalog.yaml", data); err != nil {
		t.Fatal(err)
	}
	files := fstest.MapFS{}
	for _, space := range w.workspaces {
		files[space.ID] = &fstest.MapFile{Data: []byte(base64.StdEncoding.EncodeToString([]byte("the token key of " +
			space.ID)))}
	}
	if w.keys, err = token.LoadKeyring(files); err != nil {
		t.Fatal(err)
	}
	w.redirector = httptest.NewServer(http.HandlerFunc(w.serveRedirect))
	w.gateway = httptest.NewServer(http.HandlerFunc(w.serveEvents))
	t.Cleanup(w.redirector.Close)
	t.Cleanup(w.gateway.Close)
	return w
}

func (w *fakeServers) trafficConfig() traffic.Config {
	cfg := traffic.DefaultConfig()
	cfg.Clicks, cfg.Workers = 1500, 8
	cfg.Grace = 500 * time.Millisecond
	cfg.Redirector, cfg.Gateway = w.redirector.URL, w.gateway.URL
	cfg.Secrets, cfg.Keys = secretOf, w.keys
	return cfg
}

var botAgent = regexp.MustCompile(`(?i)bot|externalhit`)

func (w *fakeServers) serveRedirect(rw http.ResponseWriter, req *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, fmt.Sprintln(req.Method, req.Host, req.RequestURI, req.UserAgent(), req.Referer()))
	w.visits++
	if w.breakVisit != nil && w.breakVisit(w.visits, rw) {
		return
	}
	var space *catalog.Workspace
	var link *catalog.Link
	for i := range w.workspaces {
		for k := range w.workspaces[i].Links {
			if l := &w.workspaces[i].Links[k]; l.Domain == req.Host && "/"+l.Slug == req.URL.Path {
				space, link = &w.workspaces[i], l
			}
		}
	}
	switch {
	case req.Method != http.MethodGet && req.Method != http.MethodHead:
		rw.WriteHeader(http.StatusMethodNotAllowed)
		return
	case link == nil:
		rw.WriteHeader(http.StatusNotFound)
		return
	case link.Status == catalog.StatusArchived:
		rw.WriteHeader(http.StatusGone)
		return
	}
	raw, err := w.keys.Mint(space.ID, time.Now(), rand.Reader)
	if err != nil {
		panic(err)
	}
	q := req.URL.Query()
	c := event.Click{
		WorkspaceID:         space.ID,
		ClickToken:          token.Text(&raw),
		ClickedAt:           event.MillisOf(time.Now()),
		LinkID:              link.ID,
		Trigger:             event.TriggerLink,
		WindowMs:            (30 * 24 * time.Hour).Milliseconds(), // unless the program has its own
		TokenStatus:         event.TokenAppended,
		PartnerID:           link.Partner,
		RewardTerms:         "10%",
		PartnerRelationship: "approved",
		PartnerLifecycle:    "active",
		Sub1:                q.Get("sub1"),
		Sub2:                q.Get("sub2"),
		Sub3:                q.Get("sub3"),
		Sub4:                q.Get("sub4"),
		Sub5:                q.Get("sub5"),
		IsBot:               req.Method == http.MethodHead || botAgent.MatchString(req.UserAgent()),
	}
	for _, p := range space.Programs {
		if p.ID == link.Program {
			c.WindowMs, c.FollowMs, c.OneSalePerOrder = p.WindowMs, p.FollowMs, p.OneSalePerOrder
		}
	}
	if q.Get("nr") == "qr" {
		c.Trigger = event.TriggerQR
	}
	if u, err := url.Parse(req.Referer()); err == nil {
		c.ReferrerHost = u.Host
	}
	location := link.Destination
	switch {
	case !link.ConversionTracking || !space.Entitled() || !space.Access.ConversionTracking:
		c.TokenStatus = event.TokenOff
	case strings.Contains(location, "X-Amz"):
		c.TokenStatus = event.TokenWithheld
	default:
		location = destinationWithToken(req, link, c.ClickToken)
	}
	w.clicks = append(w.clicks, oracle.Click{Click: c, At: event.MillisOf(time.Now())})
	rw.Header().Set("Location", location)
	rw.WriteHeader(http.StatusFound)
	fmt.Fprintln(rw, `<a href="…">found</a>`)
}

func destinationWithToken(req *http.Request, link *catalog.Link, tok string) string {
	head, fragment, has := strings.Cut(link.Destination, "#")
	if has {
		fragment = "#" + fragment
	}
	if !strings.Contains(head, "?") {
		head += "?"
	}
	add := func(pair string) {
		if !strings.HasSuffix(head, "?") && !strings.HasSuffix(head, "&") {
			head += "&"
		}
		head += pair
	}
	for pair := range strings.SplitSeq(req.URL.RawQuery, "&") {
		if link.ForwardQuery && pair != "" && !regexp.MustCompile(`^(nr|sub.|nim_ct)=`).MatchString(pair) {
			add(pair)
		}
	}
	add("nim_ct=" + tok)
	return head + fragment
}

var eventsPath = regexp.MustCompile(`^/v1/workspaces/([^/]+)/events(:batch)?$`)

func (w *fakeServers) serveEvents(rw http.ResponseWriter, req *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(err)
	}
	w.posts++
	if w.breakPost != nil && w.breakPost(w.posts, rw) {
		return
	}
	path := eventsPath.FindStringSubmatch(req.URL.Path)
	w.requests = append(w.requests, normalizeRequest(fmt.Sprintln(req.Method, req.URL.Path,
		req.Header.Get("Webhook-Id"),
		string(body))))
	refuse := func(r problem) {
		if r.status != 401 && r.status != 405 && r.status != 415 {
			w.rejections = append(w.rejections, event.Rejection{
				WorkspaceID: path[1],
				WebhookID:   req.Header.Get("Webhook-Id"),
				Status:      int32(r.status),
				Code:        r.code,
				BodySHA256:  sha256.Sum256(body),
			})
		}
		rw.Header().Set("Content-Type", "application/problem+json")
		rw.WriteHeader(r.status)
		fmt.Fprintf(rw, `{"status":%d,"code":%q}`, r.status, r.code)
	}
	if err := w.checkRequest(path[1], req, body); err != (problem{}) {
		refuse(err)
		return
	}
	status, recorded := 0, true
	if w.deferPost != nil {
		status, recorded = w.deferPost(w.posts)
	}
	if status != 0 {
		rw.Header().Set("Retry-After", "0")
		rw.WriteHeader(status)
		if !recorded {
			return
		}
		rw = httptest.NewRecorder()
	}
	if path[2] == "" {
		c, err := w.readEvent(path[1], body)
		if err != (problem{}) {
			refuse(err)
			return
		}
		w.recordEvent(c)
		rw.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(rw, `{"status":"accepted","event_id":%q,"received_at":"2026-03-01T00:00:00Z"}`, c.EventID)
		return
	}
	w.serveBatch(rw, req, path[1], body)
}

func (w *fakeServers) serveBatch(rw http.ResponseWriter, req *http.Request, workspace string, body []byte) {
	var batch struct {
		Events []jsontext.Value `json:"events"`
	}
	if err := json.Unmarshal(body, &batch); err != nil {
		panic(err)
	}
	type result struct {
		Index  int    `json:"index"`
		ID     string `json:"event_id"`
		Status string `json:"status"`
		Code   string `json:"code,omitempty"`
	}
	var answer struct {
		Results []result `json:"results"`
	}
	for i, b := range batch.Events {
		c, err := w.readEvent(workspace, b)
		r := result{Index: i, ID: c.EventID, Status: "accepted"}
		switch {
		case w.deferPost != nil && w.posts%2 == 0 && i%3 == 1:
			r.Status, r.Code = "refused", "unavailable"
			if i%2 == 0 && err == (problem{}) {
				w.recordEvent(c)
			}
		case err != (problem{}):
			r.Status, r.Code = "refused", err.code
			w.rejections = append(w.rejections, event.Rejection{
				WorkspaceID: workspace,
				WebhookID:   req.Header.Get("Webhook-Id"),
				EventID:     c.EventID,
				Status:      int32(err.status),
				Code:        err.code,
			})
		default:
			w.recordEvent(c)
		}
		answer.Results = append(answer.Results, r)
	}
	rw.WriteHeader(http.StatusAccepted)
	stdjson.NewEncoder(rw).Encode(answer)
}

type problem struct {
	status int
	code   string
}

func (w *fakeServers) checkRequest(workspace string, req *http.Request, body []byte) problem {
	if req.Method != http.MethodPost {
		return problem{405, "method_not_allowed"}
	}
	if req.Header.Get("Content-Type") != "application/json" {
		return problem{415, "unsupported_media_type"}
	}
	if req.Header.Get("Webhook-Signature") == "" {
		return problem{401, "missing_signature"}
	}
	known := slices.IndexFunc(w.workspaces, func(x catalog.Workspace) bool { return x.ID == workspace })
	verifier, err := standard.NewWebhook(secretOf(workspace))
	if err != nil {
		panic(err)
	}
	if known < 0 || verifier.VerifyIgnoringTimestamp(body, req.Header) != nil {
		return problem{401, "bad_signature"}
	}
	seconds, _ := strconv.ParseInt(req.Header.Get("Webhook-Timestamp"), 10, 64)
	if at := time.Unix(seconds, 0); time.Since(at) > 5*time.Minute {
		return problem{401, "stale_timestamp"}
	} else if time.Until(at) > 5*time.Minute {
		return problem{401, "future_timestamp"}
	}
	if !w.workspaces[known].Access.ConversionTracking {
		return problem{403, "not_entitled"}
	}
	return problem{}
}

// readEvent decodes and checks one event as a gateway would, as far as the traffic
// needs it.
func (w *fakeServers) readEvent(workspace string, body []byte) (event.Conversion, problem) {
	var e struct {
		ID         string            `json:"event_id"`
		Type       event.Type        `json:"type"`
		Token      string            `json:"click_token"`
		OccurredAt time.Time         `json:"occurred_at"`
		Amount     jsontext.Value    `json:"amount"`
		Currency   string            `json:"currency"`
		Quantity   *int32            `json:"quantity"`
		Order      string            `json:"order_id"`
		Parent     string            `json:"parent_event_id"`
		Name       string            `json:"name"`
		Reason     string            `json:"reason"`
		Customer   string            `json:"customer_ref"`
		Metadata   map[string]string `json:"metadata"`
	}
	err := json.Unmarshal(body, &e, json.RejectUnknownMembers(true))
	sum := sha256.Sum256([]byte(secretOf(workspace)))
	now := event.MillisOf(time.Now())
	c := event.Conversion{
		WorkspaceID:   workspace,
		EventID:       e.ID,
		ClickToken:    e.Token,
		Type:          e.Type,
		EventName:     e.Name,
		OccurredAt:    event.MillisOf(e.OccurredAt),
		ReceivedAt:    now,
		EnteredAt:     now,
		ResolvedBy:    event.ResolvedByToken,
		Currency:      e.Currency,
		Quantity:      e.Quantity,
		OrderID:       e.Order,
		ParentEventID: e.Parent,
		ReasonText:    e.Reason,
		CustomerRef:   e.Customer,
		Metadata:      e.Metadata,
		KeyID:         hex.EncodeToString(sum[:])[:8],
	}
	if err != nil {
		var semantic *json.SemanticError
		if errors.As(err, &semantic) && strings.Contains(err.Error(), "unknown") {
			return c, problem{400, "unknown_field"}
		}
		return c, problem{400, "malformed_json"}
	}
	switch digits, known := map[string]int{"EUR": 2, "USD": 2, "JPY": 0, "": 0}[e.Currency]; {
	case !known:
		return c, problem{422, "bad_currency"}
	case !slices.Contains(event.Types(), e.Type),
		strings.TrimSpace(e.Order) != e.Order,
		(e.Currency == "") != (e.Amount == nil):
		return c, problem{422, "invalid_field"}
	case e.Amount != nil:
		text := strings.Trim(string(e.Amount), `"`)
		r, ok := new(big.Rat).SetString(text)
		if !ok || e.Amount.Kind() != '"' || r.Sign() < 0 {
			return c, problem{422, "bad_amount"}
		}
		r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil)))
		if !r.IsInt() {
			return c, problem{422, "bad_amount"}
		}
		minor := r.Num().Int64()
		c.AmountMinor, c.Exponent = &minor, int32(digits)
	}
	if time.Until(e.OccurredAt) > 5*time.Minute {
		return c, problem{422, "occurred_in_future"}
	} else if time.Since(e.OccurredAt) > 400*24*time.Hour {
		return c, problem{422, "occurred_too_old"}
	}
	if _, err := w.keys.Verify(workspace, e.Token); errors.Is(err, token.ErrMalformed) {
		return c, problem{422, "token_malformed"}
	} else if err != nil {
		return c, problem{422, "token_invalid"}
	}
	c.ContentSHA256 = c.ContentHash()
	return c, problem{}
}

func (w *fakeServers) recordEvent(c event.Conversion) {
	w.events = append(w.events, oracle.Event{Conversion: c, Offset: int64(len(w.events))})
}

// normalizeRequest removes from a request what the redirector or the clock decided.
func normalizeRequest(request string) string {
	request = regexp.MustCompile(`"click_token":"[^"]*"`).ReplaceAllString(request, `"click_token":"T"`)
	request = regexp.MustCompile(`"occurred_at":"[^"]*"`).ReplaceAllString(request, `"occurred_at":"D"`)
	return request
}

func (w *fakeServers) clickRecords() []event.Click {
	var clicks []event.Click
	for _, c := range w.clicks {
		clicks = append(clicks, c.Click)
	}
	return clicks
}

func (w *fakeServers) conversionRecords() []event.Conversion {
	var events []event.Conversion
	for _, e := range w.events {
		e.Metadata = maps.Clone(e.Metadata)
		events = append(events, e.Conversion)
	}
	return events
}
