package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/signature"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
	"github.com/nimriz/partners/schemas/secretdir"
)

// sendTimeout bounds one request. It is longer than any answer of the gateway takes.
const sendTimeout = 30 * time.Second

// eventBody is one event in the form of the events API. This command checks only what
// it needs to send a request, so that users can see the gateway's refusals.
type eventBody struct {
	DryRun        bool              `json:"dry_run,omitzero"` // nothing is recorded
	EventID       string            `json:"event_id"`
	Type          string            `json:"type"`
	ClickToken    string            `json:"click_token"`
	OccurredAt    string            `json:"occurred_at"`
	Amount        string            `json:"amount,omitzero"`
	Currency      string            `json:"currency,omitzero"`
	Quantity      *int              `json:"quantity,omitzero"`
	OrderID       string            `json:"order_id,omitzero"`
	ParentEventID string            `json:"parent_event_id,omitzero"`
	Name          string            `json:"name,omitzero"`
	Reason        string            `json:"reason,omitzero"`
	CustomerRef   string            `json:"customer_ref,omitzero"`
	Metadata      map[string]string `json:"metadata,omitempty"`
}

// sendCommand is the command line of event send.
type sendCommand struct {
	gateway    string    // base URL
	workspace  string    // id
	secretFile string    // with the workspace's signing secrets
	event      eventBody // from the other flags
}

func eventCommands() []command {
	return []command{{"event send", "", "signs one event, posts it to the gateway, and prints the answer; " +
		"only 202 is a success, with -dry-run only 200", func(fs *flag.FlagSet) func(context.Context, *call) error {
		var s sendCommand
		e := &s.event
		fs.StringVar(&s.gateway, "gateway", "", "`URL` of the gateway (required)")
		fs.StringVar(&s.workspace, "workspace", "", "`id` (required)")
		fs.StringVar(&s.secretFile, "secret-file", "", "`file` with the workspace's signing secrets, one a line; "+
			"the first one signs (required)")
		fs.StringVar(&e.ClickToken, "token", "", "click token (required)")
		fs.StringVar(&e.Type, "type", "", "one of "+strings.Join(event.Texts(event.Types()), ", ")+" (required)")
		fs.StringVar(&e.EventID, "event-id", "", "idempotency key; random if empty")
		fs.StringVar(&e.OccurredAt, "occurred-at", "", "`time`, RFC 3339; now if empty")
		fs.StringVar(&e.Amount, "amount", "", "decimal, such as 10.00")
		fs.StringVar(&e.Currency, "currency", "", "ISO 4217 `code`")
		fs.Func("quantity", "pieces sold", func(v string) error {
			n, err := strconv.Atoi(v)
			e.Quantity = &n
			return err
		})
		fs.StringVar(&e.OrderID, "order-id", "", "the merchant's order")
		fs.StringVar(&e.ParentEventID, "parent", "", "`event id` that the event takes back from, or follows")
		fs.StringVar(&e.Name, "name", "", "the merchant's name for this kind of event")
		fs.StringVar(&e.Reason, "reason", "", "why, in words")
		fs.StringVar(&e.CustomerRef, "customer-ref", "", "the merchant's reference to the customer")
		fs.BoolVar(&e.DryRun, "dry-run", false, "the gateway checks the event and records nothing; it does not know "+
			"whether the event will be attributed")
		fs.Func("metadata", "`key=value`; may be repeated", func(v string) error {
			key, value, ok := strings.Cut(v, "=")
			if !ok || key == "" {
				return errors.New("want key=value")
			}
			if e.Metadata == nil {
				e.Metadata = make(map[string]string)
			}
			e.Metadata[key] = value
			return nil
		})
		return s.sendEvent
	}}}
}

func (s *sendCommand) checkRequired() error {
	required := []struct{ flag, value string }{
		{"gateway", s.gateway},
		{"workspace", s.workspace},
		{"secret-file", s.secretFile},
		{"token", s.event.ClickToken},
		{"type", s.event.Type},
	}
	for _, r := range required {
		if r.value == "" {
			return usagef("-%s is required", r.flag)
		}
	}
	return nil
}

// sendEvent posts the event and prints the gateway's answer.
func (s *sendCommand) sendEvent(ctx context.Context, c *call) error {
	if err := s.checkRequired(); err != nil {
		return err
	}
	base, err := url.Parse(s.gateway)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return usagef("-gateway: %q is not an http URL", s.gateway)
	}
	secret, err := firstSecret(s.secretFile)
	if err != nil {
		return err
	}
	if s.event.EventID == "" {
		s.event.EventID = "evt_" + rand.Text()
	}
	if s.event.OccurredAt == "" {
		s.event.OccurredAt = ledger.FormatTime(time.Now())
	}
	text, err := json.Marshal(s.event)
	if err != nil {
		return fmt.Errorf("encoding the event: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost,
		base.JoinPath("v1", "workspaces", url.PathEscape(s.workspace), "events").String(), bytes.NewReader(text))
	if err != nil {
		return usagef("-gateway: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if err := signature.SignRequest(req, "msg_"+rand.Text(), time.Now(), text, secret); err != nil {
		return err
	}
	// A redirect is an answer: the signed event is sent only to the gateway of the
	// flag.
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("-gateway: event %s: %w", s.event.EventID, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("reading the gateway's answer to event %s: %w", s.event.EventID, err)
	}
	c.say("%s\n%s", res.Status, bytes.TrimSpace(answer))
	switch {
	case s.event.DryRun && res.StatusCode != http.StatusOK:
		return fmt.Errorf("event %s would not be accepted: %s", s.event.EventID, res.Status)
	case !s.event.DryRun && res.StatusCode != http.StatusAccepted:
		return fmt.Errorf("event %s was not accepted: %s", s.event.EventID, res.Status)
	}
	return nil
}

// firstSecret reads the first secret of a file in the gateway's format: it skips blank
// lines and lines that begin with #. Errors never contain the secret.
func firstSecret(file string) (signature.Secret, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return signature.Secret{}, fmt.Errorf("-secret-file: %w", err)
	}
	lines := secretdir.Lines(text)
	if len(lines) == 0 {
		return signature.Secret{}, fmt.Errorf("-secret-file %s: the file has no secret", file)
	}
	secret, err := signature.ParseSecret(lines[0].Text)
	if err != nil {
		return signature.Secret{}, fmt.Errorf("-secret-file %s: %w", file, err)
	}
	return secret, nil
}
