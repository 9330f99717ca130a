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
)

// Reader asks the warehouse. It is safe for concurrent use.
type Reader struct{ conn *clickhouse.Conn }

// New returns a Reader on a database that is migrated.
func New(conn *clickhouse.Conn) *Reader { return &Reader{conn} }

// Event is one record of `conversions` and what became of it. The fields are the
// columns of the tables.
type Event struct {
	EventID       string    `ch:"event_id"`
	ClickToken    string    `ch:"click_token"`
	Type          string    `ch:"type"`
	EventName     string    `ch:"event_name"`
	OccurredAt    time.Time `ch:"occurred_at"`
	ReceivedAt    time.Time `ch:"received_at"`
	AmountMinor   *int64    `ch:"amount_minor"`
	Currency      string    `ch:"currency"`
	Exponent      uint8     `ch:"exponent"`
	OrderID       string    `ch:"order_id"`
	ParentEventID string    `ch:"parent_event_id"` // of a judged event, the parent that was found
	ReasonText    string    `ch:"reason_text"`
	Partition     uint32    `ch:"event_partition"` // the record in `conversions`
	Offset        uint64    `ch:"event_offset"`

	// What follows is zero while there is no verdict.
	Verdict        string    `ch:"verdict"`
	Reason         string    `ch:"reason"`
	Flags          []string  `ch:"flags"`
	Review         string    `ch:"review"`
	Effect         int8      `ch:"effect"`
	DecidedAt      time.Time `ch:"decided_at"`
	RewardMinor    *int64    `ch:"estimated_reward_minor"`
	RewardCurrency string    `ch:"reward_currency"`
	RewardExponent uint8     `ch:"reward_exponent"`
	// duplicate, conflict: of the first event with this id, in the same partition
	FirstOffset      *uint64 `ch:"first_offset"`
	OutcomePartition uint32  `ch:"src_partition"`
	OutcomeOffset    uint64  `ch:"src_offset"`
	Click
}

// Click is a click as it was frozen. At is nil where none may be shown.
type Click struct {
	At                  *time.Time `ch:"clicked_at"`
	LinkID              string     `ch:"link_id"`
	Domain              string     `ch:"domain"`
	Slug                string     `ch:"slug"`
	TokenStatus         string     `ch:"token_status"`
	TokenReason         string     `ch:"token_reason"`
	PartnerID           string     `ch:"partner_id"`
	PartnerName         string     `ch:"partner_name"`
	PartnerRelationship string     `ch:"partner_relationship"`
	PartnerLifecycle    string     `ch:"partner_lifecycle"`
	ProgramID           string     `ch:"program_id"`
	ProgramName         string     `ch:"program_name"`
	WindowMs            uint64     `ch:"window_ms"`
	RewardTerms         string     `ch:"reward_terms"`
	IsBot               bool       `ch:"is_bot"`
	BotReason           string     `ch:"bot_reason"`
}

// Amount is nil for an event without one.
func (e *Event) Amount() *Money {
	if e.AmountMinor == nil {
		return nil
	}
	return &Money{minor(*e.AmountMinor, e.Exponent), e.Currency}
}

// Net is effect × amount, nil where there is none.
func (e *Event) Net() *Money {
	m := e.Amount()
	switch {
	case m == nil || e.Effect == 0:
		return nil
	case e.Effect < 0:
		m.Amount = Decimal{}.Minus(m.Amount)
	}
	return m
}

// EstimatedReward is nil where there is none.
func (e *Event) EstimatedReward() *Money {
	if e.RewardMinor == nil {
		return nil
	}
	return &Money{minor(*e.RewardMinor, e.RewardExponent), e.RewardCurrency}
}

// TooLate is by how much the event missed the click's window; 0 if it did not, or if no
// click is shown.
func (e *Event) TooLate() time.Duration {
	if e.At == nil {
		return 0
	}
	return max(0, e.OccurredAt.Sub(*e.At)-time.Duration(e.WindowMs)*time.Millisecond)
}

func (e *Event) positive() bool { return event.Type(e.Type).Positive() }

const (
	clickColumns = `link_id, domain, slug, token_status, token_reason, partner_id, partner_name, partner_relationship, partner_lifecycle,
	program_id, program_name, window_ms, reward_terms, is_bot, bot_reason`
	bodyColumns    = `event_id, click_token, type, event_name, occurred_at, received_at, amount_minor, currency, exponent, order_id, parent_event_id, reason_text`
	outcomeColumns = bodyColumns + `, event_partition, event_offset, verdict, reason, flags, review, effect, decided_at, estimated_reward_minor, reward_currency, reward_exponent,
	first_offset, src_partition, src_offset, clicked_at, ` + clickColumns
	conversionColumns = bodyColumns + `, src_partition AS event_partition, src_offset AS event_offset`
)

// outcomes runs a query for judged events; where may use {w:String}, the workspace.
func (r *Reader) outcomes(ctx context.Context, workspace, where string, args ...any) (found []*Event, err error) {
	err = r.events(ctx, &found, "SELECT "+outcomeColumns+" FROM outcomes WHERE workspace_id = {w:String} AND "+where,
		workspace, args)
	return found, err
}

// conversions runs a query for records, judged or not.
func (r *Reader) conversions(ctx context.Context, workspace, where string, args ...any) (found []*Event, err error) {
	err = r.events(ctx, &found, "SELECT "+conversionColumns+" FROM conversions WHERE workspace_id = {w:String} AND "+
		where, workspace, args)
	return found, err
}

func (r *Reader) events(ctx context.Context, found *[]*Event, query, workspace string, args []any) error {
	rows, err := r.conn.Rows(ctx, query, append(slices.Clone(args), clickhouse.Named("w", workspace))...)
	if err != nil {
		return fmt.Errorf("reading events: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var e Event
		if err := rows.ScanStruct(&e); err != nil {
			return fmt.Errorf("reading events: %w", err)
		}
		*found = append(*found, &e)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading events: %w", err)
	}
	return nil
}

// clicks finds the clicks of tokens.
func (r *Reader) clicks(ctx context.Context, workspace string, tokens []string) (map[string]*Click, error) {
	if len(tokens) == 0 {
		return nil, nil
	}
	var found []struct {
		Token string `ch:"click_token"`
		Click
	}
	err := r.conn.Select(ctx, &found, "SELECT click_token, toNullable(clicked_at) AS clicked_at, "+clickColumns+
		" FROM clicks WHERE workspace_id = {w:String} AND click_token IN {tokens:Array(String)} ORDER BY "+
		"src_offset LIMIT 1 BY click_token",
		clickhouse.Named("w", workspace), clickhouse.Named("tokens", tokens))
	if err != nil {
		return nil, fmt.Errorf("reading clicks: %w", err)
	}
	byToken := make(map[string]*Click, len(found))
	for i := range found {
		byToken[found[i].Token] = &found[i].Click
	}
	return byToken, nil
}

// Refusal is what the gateway answered instead of accepting an event.
type Refusal struct {
	EventID    string    `ch:"event_id"`
	ClickToken string    `ch:"click_token"`
	ReceivedAt time.Time `ch:"received_at"`
	Status     uint16    `ch:"status"`
	Code       string    `ch:"code"`
	Field      string    `ch:"field"`
	Detail     string    `ch:"detail"`
}

// refusals are the newest of each event id, the newest first.
func (r *Reader) refusals(ctx context.Context, workspace string, ids []string, each int) (found []Refusal, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	err = r.conn.Select(ctx, &found, `SELECT event_id, click_token, received_at, status, code, field, detail FROM rejections
		WHERE workspace_id = {w:String} AND event_id IN {ids:Array(String)} ORDER BY received_at DESC, src_offset DESC LIMIT {each:UInt32} BY event_id`,
		clickhouse.Named("w", workspace), clickhouse.Named("ids", ids), clickhouse.Named("each", each))
	if err != nil {
		return nil, fmt.Errorf("reading rejections: %w", err)
	}
	return found, nil
}

// grace is how long events of a partition may wait, by its newest Progress; 0 if there
// is none.
func (r *Reader) grace(ctx context.Context, partition uint32) (time.Duration, error) {
	var found []struct {
		GraceMs uint64 `ch:"grace_ms"`
	}
	err := r.conn.Select(ctx, &found, "SELECT grace_ms FROM progress WHERE partition = {p:UInt32} ORDER BY "+
		"src_offset DESC LIMIT 1", clickhouse.Named("p", partition))
	if err != nil {
		return 0, fmt.Errorf("reading progress: %w", err)
	}
	if len(found) == 0 {
		return 0, nil
	}
	return time.Duration(found[0].GraceMs) * time.Millisecond, nil
}

// MaxChain is the most events of one chain that are read, and MaxDepth how many steps
// it is followed up or down.
const (
	MaxChain = 100_000
	MaxDepth = 1000
)

// key names an event within a workspace.
type key struct{ token, id string }

func (e *Event) key() key { return key{e.ClickToken, e.EventID} }

// below reads everything that was judged to take something back, or to have wanted to,
// from the given events, and from those, by its parent. The search ends at MaxDepth or
// MaxChain: then cut is true.
func (r *Reader) below(ctx context.Context, workspace string, roots []*Event) (children map[key][]*Event, cut bool,
	err error) {
	children = map[key][]*Event{}
	seen := map[key]bool{}
	// A query finds what is below every pair of its tokens and ids, so also what was
	// found before, or is below none of the roots.
	taken := map[place]bool{}
	total := 0
	for depth := 0; len(roots) > 0; depth++ {
		if depth == MaxDepth || total > MaxChain {
			return children, true, nil
		}
		var tokens, ids []string
		for _, e := range roots {
			if !seen[e.key()] {
				seen[e.key()] = true
				tokens, ids = append(tokens, e.ClickToken), append(ids, e.EventID)
			}
		}
		roots = nil
		for len(ids) > 0 {
			n := min(fit(ids), fit(tokens))
			found, err := r.outcomes(ctx, workspace, `click_token IN {tokens:Array(String)} AND parent_event_id IN {ids:Array(String)} AND verdict IN ('reversed', 'unattributed')
				ORDER BY event_partition, event_offset LIMIT {n:UInt32}`,
				clickhouse.Named("tokens", tokens[:n]), clickhouse.Named("ids", ids[:n]),
				clickhouse.Named("n", MaxChain+1-min(total, MaxChain)))
			if err != nil {
				return nil, false, err
			}
			tokens, ids, total = tokens[n:], ids[n:], total+len(found)
			for _, e := range found {
				parent := key{e.ClickToken, e.ParentEventID}
				if at := (place{e.Partition, e.Offset}); seen[parent] && !taken[at] {
					taken[at] = true
					children[parent] = append(children[parent], e)
					roots = append(roots, e)
				}
			}
		}
		roots = slices.DeleteFunc(roots, func(e *Event) bool { return seen[e.key()] })
	}
	return children, false, nil
}

// One query names at most maxKeys ids and tokens in a parameter, and at most maxEncoded
// bytes: ClickHouse over HTTP takes 128 KiB as they are encoded
// (http_max_field_value_size), and 128 characters of an order id can be 1,536 bytes.
const (
	maxKeys    = 200
	maxEncoded = 120 << 10
)

// fit returns how many of the first keys one parameter can name.
func fit(keys []string) int {
	size := 0
	for i, k := range keys {
		size += len("%27%27%2C") + len(url.QueryEscape(quotes.Replace(k)))
		if i == maxKeys || i > 0 && size > maxEncoded {
			return i
		}
	}
	return len(keys)
}

// quotes writes a text as between quotes in an array.
var quotes = strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\x00", `\0`)

// standing is what is left of every event that has effect, in minor units, or in units
// where there is no amount.
func standing(events []*Event) map[*Event]int64 {
	// A row of a child is written after its parent's, whatever the order of their
	// events is.
	events = slices.Clone(events)
	slices.SortFunc(events, func(a, b *Event) int {
		switch {
		case a.OutcomeOffset == b.OutcomeOffset:
			return strings.Compare(a.EventID, b.EventID)
		case a.OutcomeOffset > b.OutcomeOffset:
			return -1
		}
		return 1
	})
	left := map[*Event]int64{}
	parents := map[key]*Event{}
	for _, e := range events {
		if e.Effect != 0 {
			parents[e.key()] = e
			left[e] = 1
			if e.AmountMinor != nil {
				left[e] = *e.AmountMinor
			}
		}
	}
	for _, e := range events {
		parent := parents[key{e.ClickToken, e.ParentEventID}]
		if e.Effect == 0 || e.ParentEventID == "" || parent == nil || parent == e ||
			(e.AmountMinor == nil) != (parent.AmountMinor == nil) || e.Currency != parent.Currency {
			continue
		}
		left[parent] -= min(left[parent], left[e])
	}
	return left
}
