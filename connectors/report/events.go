package report

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
)

// Event is one record of `conversions` and what became of it. The fields are the
// columns of the tables. From Verdict on, they are zero while there is no verdict.
type Event struct {
	EventID       string    `ch:"event_id"`        // the merchant's
	ClickToken    string    `ch:"click_token"`     // of the click
	Type          string    `ch:"type"`            // see event.Types
	EventName     string    `ch:"event_name"`      // the merchant's name for it
	OccurredAt    time.Time `ch:"occurred_at"`     // as the merchant says
	ReceivedAt    time.Time `ch:"received_at"`     // by the gateway
	EnteredAt     time.Time `ch:"entered_at"`      // the log; of a judged event it is not read
	AmountMinor   *int64    `ch:"amount_minor"`    // in the currency's smallest unit; nil: no amount
	Currency      string    `ch:"currency"`        // ISO 4217
	Exponent      uint8     `ch:"exponent"`        // digits of the currency
	OrderID       string    `ch:"order_id"`        // may be empty
	ParentEventID string    `ch:"parent_event_id"` // of a judged event, the parent that was found
	ReasonText    string    `ch:"reason_text"`     // in the merchant's words
	Partition     uint32    `ch:"event_partition"` // of the record in `conversions`
	Offset        uint64    `ch:"event_offset"`    // of the record in `conversions`

	Verdict        string    `ch:"verdict"`                // see event.Verdicts
	Reason         string    `ch:"reason"`                 // of Unattributed
	ParentType     string    `ch:"parent_type"`            // of the parent that decided; may be empty
	Flags          []string  `ch:"flags"`                  // see event.Flags
	Review         string    `ch:"review"`                 // see event.Reviews
	Effect         int8      `ch:"effect"`                 // +1, 0 or −1
	StandingChange *int64    `ch:"standing_change_minor"`  // of its root; nil: none
	DecidedAt      time.Time `ch:"decided_at"`             // by the processor's clock
	RewardMinor    *int64    `ch:"estimated_reward_minor"` // nil: none
	RewardCurrency string    `ch:"reward_currency"`        // ISO 4217
	RewardExponent uint8     `ch:"reward_exponent"`        // digits of the reward's currency
	// duplicate, conflict: of the first event with this id
	FirstOffset      *uint64 `ch:"first_offset"`
	OutcomePartition uint32  `ch:"src_partition"` // of the record in `outcomes`
	OutcomeOffset    uint64  `ch:"src_offset"`    // of the record in `outcomes`
	Click                    // of the verdict
}

// Click is a click as it was frozen.
type Click struct {
	At                  *time.Time `ch:"clicked_at"` // nil where no click may be shown
	LinkID              string     `ch:"link_id"`
	Domain              string     `ch:"domain"`       // of the link
	Slug                string     `ch:"slug"`         // of the link
	TokenStatus         string     `ch:"token_status"` // see event.TokenStatus
	TokenReason         string     `ch:"token_reason"` // why the token was not shown
	PartnerID           string     `ch:"partner_id"`   // "": no partner
	PartnerName         string     `ch:"partner_name"`
	PartnerRelationship string     `ch:"partner_relationship"` // such as approved
	PartnerLifecycle    string     `ch:"partner_lifecycle"`    // such as active
	ProgramID           string     `ch:"program_id"`
	ProgramName         string     `ch:"program_name"`
	WindowMs            uint64     `ch:"window_ms"`    // attribution window
	RewardTerms         string     `ch:"reward_terms"` // such as 10% or 5.00 USD
	IsBot               bool       `ch:"is_bot"`
	BotReason           string     `ch:"bot_reason"` // why it is taken for a bot
}

// EventKey names an event within a workspace.
type EventKey struct{ Token, ID string }

// Key is the event's key.
func (e *Event) Key() EventKey { return EventKey{e.ClickToken, e.EventID} }

// parentKey is the key of the event that e takes something back from.
func (e *Event) parentKey() EventKey { return EventKey{e.ClickToken, e.ParentEventID} }

// recordPosition is where a record is in `conversions`.
type recordPosition struct {
	partition uint32
	offset    uint64
}

func (e *Event) position() recordPosition { return recordPosition{e.Partition, e.Offset} }

// Amount is nil for an event without one.
func (e *Event) Amount() *Money {
	if e.AmountMinor == nil {
		return nil
	}
	return &Money{ledger.MinorUnits(*e.AmountMinor, e.Exponent), e.Currency}
}

// Changed is what the event changes of its root's standing amount; nil where there is
// none.
func (e *Event) Changed() *Money {
	if e.StandingChange == nil {
		return nil
	}
	return &Money{ledger.MinorUnits(*e.StandingChange, e.Exponent), e.Currency}
}

// Beyond is the part of a negative's amount that changed nothing of what stands: more
// than that was taken back, or given back; nil where there is none.
func (e *Event) Beyond() *Money {
	beyond := e.Amount()
	if beyond == nil || e.Verdict != string(event.Reversed) {
		return nil
	}
	if changed := e.Changed(); changed != nil {
		beyond.Amount = beyond.Amount.Sub(changed.Amount.Abs())
	}
	if beyond.Amount.IsZero() {
		return nil
	}
	return beyond
}

// EstimatedReward is nil where there is none.
func (e *Event) EstimatedReward() *Money {
	if e.RewardMinor == nil {
		return nil
	}
	return &Money{ledger.MinorUnits(*e.RewardMinor, e.RewardExponent), e.RewardCurrency}
}

// TooLate is by how much the event missed the click's window; 0 if it did not, or if no
// click is shown. Of a positive that came too late to follow another one it is 0, too:
// the row does not say by how much.
func (e *Event) TooLate() time.Duration {
	if e.At == nil || e.IsLateFollower() {
		return 0
	}
	return max(0, e.OccurredAt.Sub(*e.At)-time.Duration(e.WindowMs)*time.Millisecond)
}

// IsLateFollower reports whether the event came after the window, names a parent that
// counts, and came too late for that as well.
func (e *Event) IsLateFollower() bool {
	return e.Reason == event.ReasonOutsideWindow && e.ParentType != ""
}

func (e *Event) isPositive() bool { return event.Type(e.Type).Positive() }

const (
	clickColumns = `link_id, domain, slug, token_status, token_reason, partner_id, partner_name,
	partner_relationship, partner_lifecycle, program_id, program_name, window_ms, reward_terms, is_bot, bot_reason`
	// bodyColumns are what the merchant sent.
	bodyColumns = `event_id, click_token, type, event_name, occurred_at, received_at, amount_minor, currency,
	exponent, order_id, parent_event_id, reason_text`
	outcomeColumns = bodyColumns + `,
	event_partition, event_offset, verdict, reason, parent_type, flags, review, effect, standing_change_minor,
	decided_at, estimated_reward_minor, reward_currency, reward_exponent, first_offset, src_partition, src_offset,
	clicked_at, ` + clickColumns
	conversionColumns = bodyColumns + `,
	entered_at, src_partition AS event_partition, src_offset AS event_offset`
)

// outcomesOf is a condition on outcomes that is true of all rows with one of the keys, an
// array of SQL, as event id, parent, order or token, and of few others: it names the times
// of these rows, so that the primary key finds them; of the hashes it does only if they
// come from a subquery. No key may be empty but a token's.
func outcomesOf(keys string) string {
	return `occurred_at IN
	(
		SELECT occurred_at
		FROM outcomes_by_key
		WHERE workspace_id = {w:String} AND key IN (SELECT xxHash32(arrayJoin(` + keys + `)))
	)
	AND `
}

// conversionsOf is outcomesOf for conversions.
func conversionsOf(keys string) string {
	return `received_at IN
	(
		SELECT received_at
		FROM conversions_by_key
		WHERE workspace_id = {w:String} AND key IN (SELECT xxHash32(arrayJoin(` + keys + `)))
	)
	AND `
}

// Parameters that hold keys.
const (
	ofKeys   = "{keys:Array(String)}"
	ofIDs    = "{ids:Array(String)}"
	ofTokens = "{tokens:Array(String)}"
)

// readOutcomes reads judged events. condition is SQL of this package and may use
// {w:String}, the workspace.
func (r *Reader) readOutcomes(ctx context.Context, workspace, condition string, args ...any) ([]*Event, error) {
	return r.readEvents(ctx, workspace, `
SELECT `+outcomeColumns+`
FROM outcomes
WHERE workspace_id = {w:String} AND `+condition, args)
}

// readConversions reads received events, judged or not. condition is as in
// readOutcomes.
func (r *Reader) readConversions(ctx context.Context, workspace, condition string, args ...any) ([]*Event, error) {
	return r.readEvents(ctx, workspace, `
SELECT `+conversionColumns+`
FROM conversions
WHERE workspace_id = {w:String} AND `+condition, args)
}

// readWaiting reads received events without verdict. condition is as in readOutcomes and
// selects events; judged is one that selects their rows, and maybe others; limit comes
// after the order.
func (r *Reader) readWaiting(ctx context.Context, workspace, condition, judged, limit string, args ...any) (
	[]*Event, error) {
	return r.readConversions(ctx, workspace, condition+`
	AND (src_partition, src_offset) NOT IN
	(
		SELECT event_partition, event_offset
		FROM outcomes
		WHERE workspace_id = {w:String} AND `+judged+`
	)
ORDER BY received_at, src_partition, src_offset`+limit, args...)
}

func (r *Reader) readEvents(ctx context.Context, workspace, query string, args []any) (found []*Event, err error) {
	args = append(slices.Clone(args), clickhouse.Named("w", workspace))
	err = scanRows(ctx, r.conn, "events", query, args, func(e *Event) error {
		found = append(found, e)
		return nil
	})
	return found, err
}

// KeyColumn is a column by which a claim names events.
type KeyColumn string

// The columns by which a claim names events.
const (
	ByEventID KeyColumn = "event_id"
	ByOrderID KeyColumn = "order_id"
)

// Key is an event's value in the column.
func (c KeyColumn) Key(e *Event) string {
	if c == ByOrderID {
		return e.OrderID
	}
	return e.EventID
}

// FindEvents returns the events that keys of a column name: those that are judged, and
// those that wait, of each at most MaxChain + 1, and 20 with the same event id and
// token. One parameter must be able to hold the keys, see FitKeys.
func (r *Reader) FindEvents(ctx context.Context, workspace string, column KeyColumn, keys []string) (judged,
	waiting []*Event, err error) {
	args := []any{clickhouse.Named("keys", keys), clickhouse.Named("n", MaxChain+1)}
	named := string(column) + " IN {keys:Array(String)}"
	judged, err = r.readOutcomes(ctx, workspace, outcomesOf(ofKeys)+named+`
ORDER BY src_partition, src_offset
LIMIT 20 BY event_id, click_token, verdict
LIMIT {n:UInt64}`, args...)
	if err != nil {
		return nil, nil, err
	}
	waiting, err = r.readWaiting(ctx, workspace, conversionsOf(ofKeys)+named, outcomesOf(ofKeys)+named, `
LIMIT 20 BY event_id, click_token
LIMIT {n:UInt64}`, args...)
	return judged, waiting, err
}

// Clicks finds the clicks of tokens.
func (r *Reader) Clicks(ctx context.Context, workspace string, tokens []string) (map[string]*Click, error) {
	byToken := make(map[string]*Click, len(tokens))
	if len(tokens) == 0 {
		return byToken, nil
	}
	var found []struct {
		Token string `ch:"click_token"`
		Click
	}
	err := r.conn.Select(ctx, &found, `
SELECT click_token, toNullable(clicked_at) AS clicked_at, `+clickColumns+`
FROM clicks
WHERE workspace_id = {w:String} AND click_token IN {tokens:Array(String)}
ORDER BY src_offset
LIMIT 1 BY click_token`,
		clickhouse.Named("w", workspace), clickhouse.Named("tokens", tokens))
	if err != nil {
		return nil, fmt.Errorf("reading clicks: %w", err)
	}
	for i := range found {
		byToken[found[i].Token] = &found[i].Click
	}
	return byToken, nil
}

// One query names at most MaxKeys ids or tokens in a parameter, and at most
// maxParameterBytes of them: ClickHouse over HTTP takes 128 KiB as they are encoded
// (http_max_field_value_size), and 128 characters of an order id can be 1,536 bytes.
const (
	MaxKeys           = 200
	maxParameterBytes = 120 << 10
)

// FitKeys returns how many of the first keys one parameter can hold.
func FitKeys(keys []string) int {
	size := 0
	for i, k := range keys {
		size += len("%27%27%2C") + len(url.QueryEscape(quoteReplacer.Replace(k)))
		if i == MaxKeys || i > 0 && size > maxParameterBytes {
			return i
		}
	}
	return len(keys)
}

// quoteReplacer writes a text as between quotes in an array.
var quoteReplacer = strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\x00", `\0`)
