package traffic

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
)

// Refusals that several requests must get.
var (
	malformed    = expectedRefusal{400, "malformed_json"}
	badAmount    = expectedRefusal{422, "bad_amount"}
	invalid      = expectedRefusal{422, "invalid_field"}
	tokenInvalid = expectedRefusal{422, "token_invalid"}
)

// sendRefused sends the requests that must fail: links that do not exist, and events
// that are unsigned, unreadable or not allowed.
func (r *generator) sendRefused(ctx context.Context) error {
	if err := r.requestDeadLinks(ctx); err != nil {
		return err
	}
	tok, target, err := r.clickForKind(ctx, "percent")
	if err != nil {
		return err
	}
	if tok != "" {
		if err := r.sendBadSignatures(ctx, target.workspace.ID, tok); err != nil {
			return err
		}
		if err := r.sendBadEvents(ctx, target.workspace.ID, tok); err != nil {
			return err
		}
	}
	return r.sendNotEntitled(ctx, tok)
}

// requestDeadLinks sends the requests that the redirector must not redirect.
func (r *generator) requestDeadLinks(ctx context.Context) error {
	first := r.targets[0]
	ask := func(method, host, path string, want int) error {
		status, header, body, err := r.client.roundTrip(ctx, &http.Request{Method: method, Host: host,
			Header: http.Header{"User-Agent": {browsers[0]}},
			URL:    &url.URL{Scheme: r.client.redirector.Scheme, Host: r.client.redirector.Host, Opaque: path}})
		if err != nil {
			return err
		}
		if status != want || header.Get("Location") != "" {
			return fmt.Errorf("%s %s%s: status %d, Location %q, %s; want %d",
				method, host, path, status, header.Get("Location"), body, want)
		}
		return nil
	}
	if err := ask(http.MethodGet, first.link.Domain, "/no-such-link", http.StatusNotFound); err != nil {
		return err
	}
	if err := ask(http.MethodGet, "no-such-domain.example", first.path, http.StatusNotFound); err != nil {
		return err
	}
	if err := ask(http.MethodPost, first.link.Domain, first.path, http.StatusMethodNotAllowed); err != nil {
		return err
	}
	for _, w := range r.workspaces {
		for _, l := range w.Links {
			if l.Status == catalog.StatusArchived {
				if err := ask(http.MethodGet, l.Domain, (&url.URL{Path: "/" + l.Slug}).EscapedPath(),
					http.StatusGone); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// refusalCase is a request with exactly one mistake.
type refusalCase struct {
	name      string // part of the event id and of errors
	want      expectedRefusal
	onRecord  string // yes, no or either
	body      string // "" for a valid one; $ID becomes the event id
	change    func(header http.Header, body []byte)
	method    string // "" for POST
	workspace string // "" for the token's
}

func (r *generator) sendBadSignatures(ctx context.Context, workspace, tok string) error {
	now := r.cfg.Now()
	resign := func(key []byte, at time.Time) func(http.Header, []byte) {
		return func(h http.Header, body []byte) { maps.Copy(h, signatureHeaders(key, h.Get("Webhook-Id"), at, body)) }
	}
	key := r.client.secrets[workspace].key
	return r.sendRefusalCases(ctx, workspace, tok, []refusalCase{
		{
			name:     "no-signature",
			want:     expectedRefusal{401, "missing_signature"},
			onRecord: "no",
			change:   func(h http.Header, _ []byte) { h.Del("Webhook-Signature") },
		},
		{
			name:     "wrong-key",
			want:     expectedRefusal{401, "bad_signature"},
			onRecord: "no",
			change:   resign([]byte("no workspace has this secret"), now),
		},
		{
			name:      "no-such-workspace",
			want:      expectedRefusal{401, "bad_signature"},
			onRecord:  "no",
			workspace: "no-such-workspace",
		},
		{
			name:     "changed-on-the-way",
			want:     expectedRefusal{401, "bad_signature"},
			onRecord: "no",
			change:   func(h http.Header, _ []byte) { h.Set("Webhook-Id", h.Get("Webhook-Id")+"x") },
		},
		{
			name:     "stale",
			want:     expectedRefusal{401, "stale_timestamp"},
			onRecord: "either",
			change:   resign(key, now.Add(-10*time.Minute)),
		},
		{
			name:     "ahead",
			want:     expectedRefusal{401, "future_timestamp"},
			onRecord: "either",
			change:   resign(key, now.Add(10*time.Minute)),
		},
		{
			name:     "form",
			want:     expectedRefusal{415, "unsupported_media_type"},
			onRecord: "no",
			change:   func(h http.Header, _ []byte) { h.Set("Content-Type", "text/plain") },
		},
		{name: "put", want: expectedRefusal{405, "method_not_allowed"}, onRecord: "no", method: http.MethodPut},
	})
}

func (r *generator) sendBadEvents(ctx context.Context, workspace, tok string) error {
	at := func(d time.Duration) string { return r.cfg.Now().Add(d).UTC().Format(time.RFC3339) }
	with := func(fields string) string {
		return fmt.Sprintf(`{"event_id":"$ID","type":"sale","click_token":%q,"occurred_at":%q%s}`, tok, at(0), fields)
	}
	raw, err := token.Parse(tok)
	if err != nil {
		return err
	}
	raw[19] ^= 0x80
	forged := token.Text(&raw)
	swap := func(old, new string) string { return strings.Replace(with(""), old, new, 1) }
	cases := []refusalCase{
		{name: "cut", want: malformed, body: `{"event_id":"$ID","type":"sa`},
		{name: "twice", want: malformed, body: with(`,"event_id":"$ID"`)},
		{name: "unknown-field", want: expectedRefusal{400, "unknown_field"}, body: with(`,"amonut":"10.00"`)},
		{name: "number", want: badAmount, body: with(`,"amount":10.00,"currency":"EUR"`)},
		{name: "half-a-yen", want: badAmount, body: with(`,"amount":"10.5","currency":"JPY"`)},
		{name: "negative", want: badAmount, body: with(`,"amount":"-10.00","currency":"EUR"`)},
		{
			name: "no-such-currency",
			want: expectedRefusal{422, "bad_currency"},
			body: with(`,"amount":"10.00","currency":"EUX"`),
		},
		{name: "amount-alone", want: invalid, body: with(`,"amount":"10.00"`)},
		{name: "order-with-blank", want: invalid, body: with(`,"order_id":" o"`)},
		{name: "no-such-type", want: invalid, body: swap(`"sale"`, `"gift"`)},
		{name: "short-token", want: expectedRefusal{422, "token_malformed"}, body: swap(tok, tok[1:])},
		{name: "forged-token", want: tokenInvalid, body: swap(tok, forged)},
		{name: "tomorrow", want: expectedRefusal{422, "occurred_in_future"}, body: swap(at(0), at(24*time.Hour))},
		{name: "long-ago", want: expectedRefusal{422, "occurred_too_old"}, body: swap(at(0), at(-401*24*time.Hour))},
	}
	for i := range cases {
		cases[i].onRecord = "yes"
	}
	return r.sendRefusalCases(ctx, workspace, tok, cases)
}

// validEventBody returns a valid event, for requests whose headers are wrong.
func (r *generator) validEventBody(tok, id string) string {
	m := message{Conversion: event.Conversion{
		EventID:    id,
		Type:       event.Lead,
		ClickToken: tok,
		OccurredAt: event.MillisOf(r.cfg.Now()).Add(time.Second),
	}}
	return string(m.appendJSON(nil))
}

func (r *generator) sendRefusalCases(ctx context.Context, workspace, tok string, cases []refusalCase) error {
	for _, c := range cases {
		id := "msg-" + r.eventIDPrefix + "-" + c.name
		body := []byte(strings.ReplaceAll(c.body, "$ID", r.eventIDPrefix+"-"+c.name))
		if c.body == "" {
			body = []byte(r.validEventBody(tok, id))
		}
		space, method := workspace, http.MethodPost
		if c.workspace != "" {
			space = c.workspace
		}
		if c.method != "" {
			method = c.method
		}
		var header http.Header
		status, answer, _, err := r.client.postUntilAnswered(ctx, method, space, "events", body, func() http.Header {
			header = r.client.headerSigner(workspace, id, body)()
			if c.change != nil {
				c.change(header, body)
			}
			return header
		})
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if err := r.client.checkRefusal(c.want, space, status, answer, body); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		r.ledger.recordRefusal(expectedRejection{
			workspace:  space,
			webhookID:  header.Get("Webhook-Id"),
			code:       c.want.code,
			status:     c.want.status,
			body:       sha256.Sum256(body),
			unrecorded: c.onRecord == "no",
			either:     c.onRecord == "either",
		})
	}
	return nil
}

// sendNotEntitled sends events of the workspaces whose visitors see no tokens. Without
// conversion tracking the gateway refuses them. A smaller plan alone refuses nothing:
// its merchants only have no token to send. tok is another workspace's token, "" if
// there is none.
func (r *generator) sendNotEntitled(ctx context.Context, tok string) error {
	seen := make(map[string]bool)
	for i := range r.targets {
		w := r.targets[i].workspace
		if _, ok := r.client.secrets[w.ID]; !ok || seen[w.ID] || w.Entitled() && w.Access.ConversionTracking {
			continue
		}
		seen[w.ID] = true
		t := r.newPlayer(r.eventIDPrefix+"-"+w.ID, w.ID, tok, nil)
		if tok != "" && w.Access.ConversionTracking {
			m, err := t.nextEvent(step{id: "stolen", typ: event.Lead, refused: &tokenInvalid})
			if err == nil {
				err = r.client.sendEvent(ctx, m, "msg-"+m.EventID)
			}
			if err != nil {
				return err
			}
		}
		if r.cfg.Keys == nil || !r.cfg.Keys.Has(w.ID) {
			continue
		}
		raw, err := r.cfg.Keys.Mint(w.ID, r.cfg.Now(), newTokenSource(r.cfg.Seed))
		if err != nil {
			return err
		}
		t.token = token.Text(&raw)
		own := step{id: "own", typ: event.Lead, want: "unattributed click_not_found"}
		if !w.Access.ConversionTracking {
			own.refused, own.want = &expectedRefusal{403, "not_entitled"}, ""
		}
		if err := r.playSteps(ctx, &scenario{name: "workspace " + w.ID + " without entitlement"}, t,
			[]step{own}); err != nil {
			return err
		}
	}
	return nil
}
