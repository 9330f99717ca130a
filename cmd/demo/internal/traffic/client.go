package traffic

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
)

const (
	requestTimeout = 30 * time.Second
	maxAttempts    = 20              // of a request that the gateway answers with 429 or 503
	maxRetryWait   = 5 * time.Second // between two attempts, whatever Retry-After says
)

// client sends requests to the two servers and records their answers in the ledger.
type client struct {
	transport           *http.Transport
	redirector, gateway *url.URL
	secrets             map[string]secret // by workspace
	keys                *token.Keyring    // verifies the redirector's tokens; may be nil
	now                 func() time.Time  // the clock of signatures
	ledger              *Ledger           // gets every answer
}

// secret is a Standard Webhooks signing secret.
type secret struct {
	key   []byte
	keyID string
}

func newClient(cfg Config, workspaces []catalog.Workspace, ledger *Ledger) (*client, error) {
	c := &client{
		secrets: make(map[string]secret),
		keys:    cfg.Keys,
		now:     cfg.Now,
		ledger:  ledger,
		transport: &http.Transport{
			MaxIdleConnsPerHost:   cfg.Workers + 1,
			DisableCompression:    true,
			ResponseHeaderTimeout: requestTimeout,
		},
	}
	c.redirector, _ = url.Parse(cfg.Redirector) // both were parsed by Validate
	c.gateway, _ = url.Parse(cfg.Gateway)
	for i := range workspaces {
		id := workspaces[i].ID
		text := cfg.Secrets(id)
		if text == "" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whsec_"))
		if err != nil {
			return nil, fmt.Errorf("signing secret of workspace %s: not base64", id)
		}
		digest := sha256.Sum256([]byte(text))
		c.secrets[id] = secret{key, hex.EncodeToString(digest[:4])}
	}
	return c, nil
}

func (c *client) closeConnections() { c.transport.CloseIdleConnections() }

// followLink makes the visit and returns the token that the visitor sees, "" if there
// is none.
func (c *client) followLink(ctx context.Context, v *visit) (string, error) {
	header := make(http.Header, 2)
	header["User-Agent"] = []string{v.agent}
	if v.referrer != "" {
		header["Referer"] = []string{v.referrer}
	}
	method := http.MethodGet
	if v.head {
		method = http.MethodHead
	}
	query := v.queryString()
	status, answer, _, err := c.roundTrip(ctx, &http.Request{Method: method, Host: v.link.Domain, Header: header,
		URL: &url.URL{Scheme: c.redirector.Scheme, Host: c.redirector.Host, Opaque: v.path, RawQuery: query}})
	if err != nil {
		return "", err
	}
	location := answer.Get("Location")
	if status != http.StatusFound {
		return "", fmt.Errorf("%s %s%s?%s: status %d, want 302", method, v.link.Domain, v.path, query, status)
	}
	tok, err := v.tokenInLocation(location)
	if err == nil && tok != "" && c.keys != nil {
		_, err = c.keys.Verify(v.workspace.ID, tok)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s%s?%s: %w", method, v.link.Domain, v.path, query, err)
	}
	return tok, c.ledger.recordVisit(tok, v.expectedClick())
}

// roundTrip sends a request and reads the whole answer. It does not follow redirects.
func (c *client) roundTrip(ctx context.Context, req *http.Request) (int, http.Header, []byte, error) {
	req.Proto = "HTTP/1.1"
	req.ProtoMajor, req.ProtoMinor = 1, 1
	res, err := c.transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("%s http://%s%s: %w", req.Method, req.URL.Host, req.URL.RequestURI(), err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusFound {
		// The body is a line of HTML. If it breaks off, the next request fails.
		io.Copy(io.Discard, res.Body)
		return res.StatusCode, res.Header, nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("reading the answer of http://%s%s: %w",
			req.URL.Host, req.URL.RequestURI(), err)
	}
	return res.StatusCode, res.Header, body, nil
}

// signatureHeaders returns the headers of a signed request by Standard Webhooks 1.0.0:
// HMAC-SHA256 over id.timestamp.body.
func signatureHeaders(key []byte, id string, at time.Time, body []byte) http.Header {
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	io.WriteString(mac, id+"."+stamp+".")
	mac.Write(body)
	return http.Header{"Content-Type": {"application/json"}, "Webhook-Id": {id}, "Webhook-Timestamp": {stamp},
		"Webhook-Signature": {"v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))}}
}

// postOnce sends a request to the events API.
func (c *client) postOnce(ctx context.Context, method, workspace, route string, header http.Header,
	body []byte) (status int, answerHeader http.Header, answer []byte, err error) {
	path := "/v1/workspaces/" + workspace + "/" + route
	return c.roundTrip(ctx, &http.Request{
		Method:        method,
		URL:           &url.URL{Scheme: c.gateway.Scheme, Host: c.gateway.Host, Path: path},
		Host:          c.gateway.Host,
		Header:        header,
		Body:          io.NopCloser(bytes.NewReader(body)),
		GetBody:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
		ContentLength: int64(len(body)),
	})
}

// postUntilAnswered repeats a request while the gateway answers 429 or 503. sign
// returns the headers of each attempt. unknown counts the attempts after which the
// event may or may not have been recorded.
func (c *client) postUntilAnswered(ctx context.Context, method, workspace, route string, body []byte,
	sign func() http.Header) (status int, answer []byte, unknown int, err error) {
	for range maxAttempts {
		var header http.Header
		status, header, answer, err = c.postOnce(ctx, method, workspace, route, sign(), body)
		if err != nil {
			return 0, nil, unknown, err
		}
		switch status {
		case http.StatusTooManyRequests:
			c.ledger.recordRateLimited()
		case http.StatusServiceUnavailable:
			unknown++
		default:
			return status, answer, unknown, nil
		}
		seconds, _ := strconv.Atoi(header.Get("Retry-After"))
		wait := min(max(time.Duration(seconds)*time.Second, 100*time.Millisecond), maxRetryWait)
		if err := waitOrDone(ctx, wait); err != nil {
			return 0, nil, unknown, err
		}
	}
	return status, answer, unknown, nil
}

// headerSigner returns a function that signs a body for a workspace with the present
// time.
func (c *client) headerSigner(workspace, id string, body []byte) func() http.Header {
	return func() http.Header { return signatureHeaders(c.secrets[workspace].key, id, c.now(), body) }
}

func waitOrDone(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// sendEvent posts one event and checks that it is accepted, or refused if it must be.
func (c *client) sendEvent(ctx context.Context, m *message, webhookID string) error {
	body := m.appendJSON(nil)
	status, answer, unknown, err := c.postUntilAnswered(ctx, http.MethodPost, m.WorkspaceID, "events", body,
		c.headerSigner(m.WorkspaceID, webhookID, body))
	if err != nil {
		return err
	}
	if m.wantRefusal != nil {
		if err := c.checkRefusal(*m.wantRefusal, m.WorkspaceID, status, answer, body); err != nil {
			return err
		}
		c.ledger.recordRefusal(expectedRejection{
			workspace: m.WorkspaceID,
			webhookID: webhookID,
			code:      m.wantRefusal.code,
			status:    m.wantRefusal.status,
			eventID:   m.EventID,
			body:      sha256.Sum256(body),
		})
		return nil
	}
	var accepted struct {
		Status string `json:"status"`
		ID     string `json:"event_id"`
	}
	if err := json.Unmarshal(answer, &accepted); status != http.StatusAccepted || err != nil ||
		accepted.Status != "accepted" || accepted.ID != m.EventID {
		return fmt.Errorf("posting %s for %s: status %d %s, want 202", body, m.WorkspaceID, status, answer)
	}
	c.ledger.recordAccepted(&m.Conversion, c.secrets[m.WorkspaceID].keyID, unknown)
	return nil
}

// expectedRefusal is the answer that a request must get.
type expectedRefusal struct {
	status int
	code   string
}

// checkRefusal compares an answer with the expected refusal.
func (c *client) checkRefusal(want expectedRefusal, workspace string, status int, answer, body []byte) error {
	var problem struct {
		Code string `json:"code"`
	}
	err := json.Unmarshal(answer, &problem)
	if status != want.status || err != nil || problem.Code != want.code {
		return fmt.Errorf("posting %s for %s: status %d %s, want %d %s", body, workspace, status, answer, want.status,
			want.code)
	}
	return nil
}

// sendBatch posts events in one request and checks the result of each. It repeats the
// items for which the gateway was unavailable or the rate exceeded.
func (c *client) sendBatch(ctx context.Context, workspace, webhookID string, events []*message) error {
	unknown := make(map[*message]int)
	for attempt := range maxAttempts {
		body := []byte(`{"events":[`)
		for i, m := range events {
			if i > 0 {
				body = append(body, ',')
			}
			body = m.appendJSON(body)
		}
		body = append(body, "]}"...)
		id := fmt.Sprint(webhookID, "-", attempt)
		status, answer, more, err := c.postUntilAnswered(ctx, http.MethodPost, workspace, "events:batch", body,
			c.headerSigner(workspace, id, body))
		if err != nil {
			return err
		}
		var results struct {
			Results []struct {
				Index  int    `json:"index"`
				ID     string `json:"event_id"`
				Status string `json:"status"`
				Code   string `json:"code"`
			} `json:"results"`
		}
		if err := json.Unmarshal(answer, &results); status != http.StatusAccepted || err != nil ||
			len(results.Results) != len(events) {
			return fmt.Errorf("posting a batch of %d for %s: status %d %s, want 202 and as many results",
				len(events), workspace, status, answer)
		}
		var retry []*message
		for i, r := range results.Results {
			m := events[i]
			unknown[m] += more
			switch {
			case r.Index != i || r.ID != m.EventID:
				return fmt.Errorf("posting a batch for %s: result %d is for index %d, event %q, want %q",
					workspace, i, r.Index, r.ID, m.EventID)
			case r.Status == "refused" && (r.Code == "unavailable" || r.Code == "rate_limited"):
				if r.Code == "unavailable" {
					unknown[m]++
				} else {
					c.ledger.recordRateLimited()
				}
				retry = append(retry, m)
			case m.wantRefusal == nil && r.Status == "accepted":
				c.ledger.recordAccepted(&m.Conversion, c.secrets[workspace].keyID, unknown[m])
			case m.wantRefusal != nil && r.Status == "refused" && r.Code == m.wantRefusal.code:
				c.ledger.recordRefusal(expectedRejection{
					workspace: workspace,
					webhookID: id,
					code:      r.Code,
					status:    m.wantRefusal.status,
					eventID:   m.EventID,
				})
			default:
				return fmt.Errorf("posting a batch for %s: %s: %s %s", workspace, m.appendJSON(nil), r.Status, r.Code)
			}
		}
		if events = retry; len(events) == 0 {
			return nil
		}
		if err := waitOrDone(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("posting a batch for %s: %d events are not answered after %d attempts",
		workspace, len(events), maxAttempts)
}

// message is an event to be sent to the gateway.
type message struct {
	event.Conversion
	twin        bool             // same content, other JSON form
	wantRefusal *expectedRefusal // nil if the event must be accepted
}

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// appendJSON appends the event as a merchant would write it.
func (m *message) appendJSON(dst []byte) []byte {
	type field struct{ name, value string }
	quote := func(s string) string { b, _ := json.Marshal(s); return string(b) } // strings always marshal
	fields := []field{
		{"event_id", quote(m.EventID)},
		{"type", quote(string(m.Type))},
		{"click_token", quote(m.ClickToken)},
	}
	zone := time.UTC
	if m.twin {
		zone = time.FixedZone("", 2*3600)
	}
	fields = append(fields, field{"occurred_at", quote(m.OccurredAt.Time().In(zone).Format(timeLayout))})
	if m.AmountMinor != nil {
		amount := event.Decimal(*m.AmountMinor, m.Exponent)
		if m.twin && m.Exponent > 0 {
			amount = strings.TrimSuffix(amount, "0")
		}
		fields = append(fields, field{"amount", quote(amount)}, field{"currency", quote(m.Currency)})
	}
	if m.Quantity != nil {
		fields = append(fields, field{"quantity", strconv.Itoa(int(*m.Quantity))})
	}
	for _, text := range []field{
		{"order_id", m.OrderID},
		{"parent_event_id", m.ParentEventID},
		{"name", m.EventName},
		{"reason", m.ReasonText},
		{"customer_ref", m.CustomerRef},
	} {
		if text.value != "" || m.twin && text.name == "customer_ref" {
			fields = append(fields, field{text.name, quote(text.value)})
		}
	}
	if len(m.Metadata) > 0 {
		b, _ := json.Marshal(m.Metadata) // strings always marshal
		fields = append(fields, field{"metadata", string(b)})
	}
	for i := range fields {
		separator := byte(',')
		if i == 0 {
			separator = '{'
		}
		f := fields[i]
		if m.twin {
			f = fields[len(fields)-1-i]
		}
		dst = append(dst, separator)
		dst = append(dst, quote(f.name)...)
		dst = append(dst, ':')
		dst = append(dst, f.value...)
	}
	return append(dst, '}')
}
