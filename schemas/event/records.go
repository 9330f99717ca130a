package event

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Millis is a time in unix milliseconds, UTC.
type Millis int64

// MillisOf truncates t to milliseconds.
func MillisOf(t time.Time) Millis { return Millis(t.UnixMilli()) }

// Time returns m as a time in UTC.
func (m Millis) Time() time.Time { return time.UnixMilli(int64(m)).UTC() }

// Add returns m + d, truncated to milliseconds.
func (m Millis) Add(d time.Duration) Millis { return m + Millis(d.Milliseconds()) }

// RulesVersion is the version of the attribution rules. Each Outcome records it.
const RulesVersion = 2

// MaxClickBytes is the largest size of an encoded Click, without framing.
const MaxClickBytes = 512

// Type is what a merchant reports.
type Type string

// The types of events. Lead and Sale are positives; the others take something back.
const (
	Lead         Type = "lead"
	Sale         Type = "sale"
	Refund       Type = "refund"
	Cancellation Type = "cancellation"
	Reversal     Type = "reversal"
)

// Positive reports whether t is a lead or a sale.
func (t Type) Positive() bool { return t == Lead || t == Sale }

// Verdict is what became of an event.
type Verdict string

// The verdicts.
const (
	Attributed   Verdict = "attributed"
	Reversed     Verdict = "reversed"
	Duplicate    Verdict = "duplicate"
	Conflict     Verdict = "conflict"
	Unattributed Verdict = "unattributed"
)

// Reasons of Unattributed.
const (
	ReasonExpired            = "expired"
	ReasonClickNotFound      = "click_not_found"
	ReasonGivenUp            = "given_up" // by an operator, as the journey cannot be read
	ReasonWorkspaceMismatch  = "workspace_mismatch"
	ReasonTokenFull          = "token_full"
	ReasonBeforeClick        = "before_click"
	ReasonOutsideWindow      = "outside_window"
	ReasonWrongParent        = "wrong_parent"
	ReasonParentAmbiguous    = "parent_ambiguous"
	ReasonParentNotFound     = "parent_not_found"
	ReasonParentUnattributed = "parent_unattributed"
	ReasonOrderRepeated      = "order_repeated"
)

// Flags of an Outcome, in the order in which a row lists them.
const (
	FlagBotClick         = "bot_click"
	FlagPartnerReview    = "partner_review"
	FlagNoPartner        = "no_partner"
	FlagTooFast          = "too_fast"
	FlagOverReversed     = "over_reversed"
	FlagCurrencyMismatch = "currency_mismatch"
	FlagAmountMissing    = "amount_missing"
	FlagParentInferred   = "parent_inferred"
	FlagWithoutEffect    = "without_effect"
	FlagMoneyDiffers     = "money_differs"
	FlagOrderRepeated    = "order_repeated"
	FlagDatedBack        = "dated_back"
)

// Review says whether a person should look at a row.
type Review string

// The values of Review.
const (
	ReviewClear  Review = "clear"
	ReviewNeeded Review = "review"
)

// TokenStatus says whether the visitor got the click's token.
type TokenStatus string

// The values of TokenStatus. Only an appended token can bring conversions back.
const (
	TokenAppended TokenStatus = "appended"
	TokenWithheld TokenStatus = "withheld"
	TokenOff      TokenStatus = "off"
)

// ResolvedBy is how the click token of an event was found.
type ResolvedBy string

// The values of ResolvedBy.
const (
	ResolvedByToken    ResolvedBy = "token"    // the event named it
	ResolvedByOrder    ResolvedBy = "order"    // by its order id
	ResolvedByCustomer ResolvedBy = "customer" // by its customer
	ResolvedByNone     ResolvedBy = "none"     // not found
)

// Trigger is how the visitor reached the short link.
type Trigger string

// The values of Trigger.
const (
	TriggerLink Trigger = "link"
	TriggerQR   Trigger = "qr"
)

// Click is one redirect with the commercial context frozen at that moment. The
// redirector writes it; partner, program and link fields are the catalog's of then.
type Click struct {
	// of the visit

	ClickToken  string      `avro:"click_token"`  // 27 base62 characters; the record's key
	ClickedAt   Millis      `avro:"clicked_at"`   // the redirector's clock
	TokenStatus TokenStatus `avro:"token_status"` // whether the visitor got the token
	TokenReason string      `avro:"token_reason"` // why not; empty if they did
	Trigger     Trigger     `avro:"trigger"`      // link or QR code
	// this and the next four: query parameters of the visited URL
	Sub1         string `avro:"sub1"`
	Sub2         string `avro:"sub2"`
	Sub3         string `avro:"sub3"`
	Sub4         string `avro:"sub4"`
	Sub5         string `avro:"sub5"`
	ReferrerHost string `avro:"referrer_host"` // host of the Referer header
	Country      string `avro:"country"`       // of the address, ISO 3166 alpha-2; empty: unknown
	// this and the next two: parsed from the User-Agent
	Device    string `avro:"device"`
	OS        string `avro:"os"`
	Browser   string `avro:"browser"`
	IsBot     bool   `avro:"is_bot"`     // its conversions need review
	BotReason string `avro:"bot_reason"` // how it was recognized

	// of the link: the same for all visits that one catalog record resolves

	WorkspaceID string `avro:"workspace_id"` // owner of the host
	WindowMs    int64  `avro:"window_ms"`    // attribution window of a positive
	// how long after its origin a positive that follows another counts; 0: none does
	FollowMs            int64  `avro:"follow_ms"`
	OneSalePerOrder     bool   `avro:"one_sale_per_order"`   // a second sale of one order is unattributed
	LinkID              string `avro:"link_id"`              // in the workspace
	Domain              string `avro:"domain"`               // of the link, also if visited by an alias
	Slug                string `avro:"slug"`                 // of the link
	Destination         string `avro:"destination"`          // as configured, without query and fragment
	PartnerID           string `avro:"partner_id"`           // empty: the link has no partner
	PartnerKey          string `avro:"partner_key"`          // the workspace's own name for it
	PartnerName         string `avro:"partner_name"`         // for people
	PartnerRelationship string `avro:"partner_relationship"` // other than approved: review
	PartnerLifecycle    string `avro:"partner_lifecycle"`    // other than active: review
	ProgramID           string `avro:"program_id"`           // empty: the link has no program
	ProgramKey          string `avro:"program_key"`          // the workspace's own name for it
	ProgramName         string `avro:"program_name"`         // for people
	ProgramStatus       string `avro:"program_status"`       // active, paused, archived
	AssignmentID        string `avro:"assignment_id"`        // of the link to the partner
	AssignedAt          Millis `avro:"assigned_at"`          // 0 if there is no assignment
	RewardTerms         string `avro:"reward_terms"`         // "10%" or "5.00 USD"; empty: none
	UTMSource           string `avro:"utm_source"`           // this and the next four: the program's
	UTMMedium           string `avro:"utm_medium"`
	UTMCampaign         string `avro:"utm_campaign"`
	UTMTerm             string `avro:"utm_term"`
	UTMContent          string `avro:"utm_content"`
	Experiment          string `avro:"experiment"`     // the link's
	Variant             string `avro:"variant"`        // the link's
	CatalogOffset       int64  `avro:"catalog_offset"` // newest catalog record this was resolved from
}

// truncatableTexts returns the fields that Fit may truncate. Ids, keys, statuses and
// terms are never truncated: by the catalog's rules they have at most 40 bytes, and
// together with a workspace id of 64 bytes they leave room for the texts.
func (c *Click) truncatableTexts() []*string {
	return []*string{
		&c.Destination, &c.ReferrerHost, &c.PartnerName, &c.ProgramName, &c.Slug, &c.Domain,
		&c.UTMSource, &c.UTMMedium, &c.UTMCampaign, &c.UTMTerm, &c.UTMContent,
		&c.Sub1, &c.Sub2, &c.Sub3, &c.Sub4, &c.Sub5,
		&c.Experiment, &c.Variant, &c.Device, &c.OS, &c.Browser, &c.BotReason,
	}
}

// Fit truncates texts until the encoded click has at most MaxClickBytes: always the
// longest text first, and between characters. It returns the number of texts that it
// truncated.
func (c *Click) Fit() (truncated int) {
	excess := c.encodedSize() - MaxClickBytes
	if excess <= 0 {
		return 0
	}
	texts := c.truncatableTexts()
	touched := make(map[*string]bool)
	for excess > 0 {
		longest := slices.MaxFunc(texts, func(a, b *string) int { return len(*a) - len(*b) })
		if *longest == "" {
			return len(touched) // only ids are left, which the catalog's limits make impossible
		}
		// A few bytes at a time, so that several long texts shrink together.
		keep := len(*longest) - min(excess, max(1, len(*longest)/8))
		for keep > 0 && !utf8.RuneStart((*longest)[keep]) {
			keep--
		}
		*longest = (*longest)[:keep]
		touched[longest] = true
		excess = c.encodedSize() - MaxClickBytes
	}
	return len(touched)
}

// encodedSize returns the length of c's Avro binary form, framing not counted. A test
// compares it with the encoder.
func (c *Click) encodedSize() int {
	n := 4 // token_status, trigger, is_bot and one_sale_per_order, a byte each
	for _, s := range []string{
		c.WorkspaceID, c.ClickToken, c.TokenReason, c.LinkID,
		c.PartnerID, c.PartnerKey, c.PartnerRelationship, c.PartnerLifecycle,
		c.ProgramID, c.ProgramKey, c.ProgramStatus, c.AssignmentID, c.RewardTerms, c.Country,
	} {
		n += encodedTextSize(s)
	}
	for _, s := range c.truncatableTexts() {
		n += encodedTextSize(*s)
	}
	for _, v := range []int64{int64(c.ClickedAt), c.WindowMs, c.FollowMs, int64(c.AssignedAt), c.CatalogOffset} {
		n += encodedLongSize(v)
	}
	return n
}

func encodedTextSize(s string) int { return encodedLongSize(int64(len(s))) + len(s) }

// encodedLongSize returns the length of v as a zigzag varint.
func encodedLongSize(v int64) int {
	n := 1
	for u := uint64(v<<1) ^ uint64(v>>63); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}

// Conversion is one merchant event that the gateway verified and accepted. The gateway
// writes it; what the merchant did not send is empty or nil.
type Conversion struct {
	WorkspaceID   string            `avro:"workspace_id"`    // from the URL; its secret signed the request
	EventID       string            `avro:"event_id"`        // the merchant's; unique within a click token
	ClickToken    string            `avro:"click_token"`     // of this workspace; the record's key
	Type          Type              `avro:"type"`            // one of Types
	EventName     string            `avro:"event_name"`      // free text
	OccurredAt    Millis            `avro:"occurred_at"`     // the merchant's clock
	ReceivedAt    Millis            `avro:"received_at"`     // the gateway's clock
	AmountMinor   *int64            `avro:"amount_minor"`    // minor units, at least 0; nil: no amount
	Currency      string            `avro:"currency"`        // ISO 4217; empty: no amount
	Exponent      int32             `avro:"exponent"`        // digits of Currency after the point
	Quantity      *int32            `avro:"quantity"`        // at least 1
	OrderID       string            `avro:"order_id"`        // by which a refund can find its sale
	ParentEventID string            `avro:"parent_event_id"` // the event it takes back, or follows
	ReasonText    string            `avro:"reason_text"`     // free text
	CustomerRef   string            `avro:"customer_ref"`    // the merchant's name for the customer
	Metadata      map[string]string `avro:"metadata"`        // at most 20 pairs
	ContentSHA256 [32]byte          `avro:"content_sha256"`  // ContentHash
	KeyID         string            `avro:"key_id"`          // of the secret that signed the request
	// EnteredAt is when the event entered the log: ReceivedAt or, if it was forwarded for
	// a reference, the time of forwarding. Waits and lives are measured from it.
	EnteredAt          Millis     `avro:"entered_at"`
	CustomerHash       []byte     `avro:"customer_hash"`       // of CustomerRef, 16 bytes; nil: none
	References         []string   `avro:"references"`          // kinds that were on at receipt: order, customer
	ResolvedBy         ResolvedBy `avro:"resolved_by"`         // how ClickToken was found
	ReferenceAmbiguous bool       `avro:"reference_ambiguous"` // several tokens made the reference
}

// Outcome is the verdict on one record of `conversions`. The processor writes it, once.
type Outcome struct {
	WorkspaceID          string   `avro:"workspace_id"`           // of the event
	EventID              string   `avro:"event_id"`               // of the event
	ClickToken           string   `avro:"click_token"`            // of the event; the record's key
	Verdict              Verdict  `avro:"verdict"`                // one of the verdicts
	Reason               string   `avro:"reason"`                 // of unattributed; else empty
	Flags                []string `avro:"flags"`                  // in the order of the constants
	Review               Review   `avro:"review"`                 // whether a person should look at it
	Type                 Type     `avro:"type"`                   // of the event
	EventName            string   `avro:"event_name"`             // of the event
	Effect               int32    `avro:"effect"`                 // how the amount counts: +1, 0 or −1
	OccurredAt           Millis   `avro:"occurred_at"`            // of the event: the merchant's clock
	ReceivedAt           Millis   `avro:"received_at"`            // of the event: the gateway's clock
	DecidedAt            Millis   `avro:"decided_at"`             // the processor's clock
	AmountMinor          *int64   `avro:"amount_minor"`           // minor units; nil: no amount
	Currency             string   `avro:"currency"`               // of AmountMinor
	Exponent             int32    `avro:"exponent"`               // digits of Currency after the point
	Quantity             *int32   `avro:"quantity"`               // of the event
	OrderID              string   `avro:"order_id"`               // of the event
	ParentEventID        string   `avro:"parent_event_id"`        // as found, else as the event named it
	ParentType           string   `avro:"parent_type"`            // of the parent found
	ReasonText           string   `avro:"reason_text"`            // of the event
	CustomerRef          string   `avro:"customer_ref"`           // of the event
	EstimatedRewardMinor *int64   `avro:"estimated_reward_minor"` // of a negative: the change
	RewardCurrency       string   `avro:"reward_currency"`        // of EstimatedRewardMinor
	ContentSHA256        [32]byte `avro:"content_sha256"`         // of the event
	EventPartition       int32    `avro:"event_partition"`        // where the event is in conversions
	EventOffset          int64    `avro:"event_offset"`           // where the event is in conversions
	FirstOffset          *int64   `avro:"first_offset"`           // of a repeat: of the first event
	RulesVersion         int32    `avro:"rules_version"`          // of the rules that judged it
	// StandingChangeMinor is what the row changes of its root's standing amount, in the
	// root's currency. Nil: no effect, rules version 1, or a root without amount.
	StandingChangeMinor *int64            `avro:"standing_change_minor"`
	Metadata            map[string]string `avro:"metadata"`    // of the event
	ResolvedBy          ResolvedBy        `avro:"resolved_by"` // of the event
	Click               *Click            `avro:"click"`       // nil if it may not be shown
}

// Progress says how far one partition is processed. The processor writes it with each
// transaction; counts are totals since the partition's beginning.
type Progress struct {
	Partition               int32
	At                      Millis  // the processor's clock
	ClicksPosition          int64   // next offset of clicks
	ConversionsPosition     int64   // next offset of conversions
	ClicksMaxAt             Millis  // largest Kafka timestamp read of clicks
	ConversionsMaxAt        Millis  // largest Kafka timestamp judged of conversions
	OutcomesEnd             int64   // end of outcomes after this transaction
	Read                    int64   // records of conversions; equals the sum of the next seven
	Attributed              int64   // outcomes with this verdict
	Reversed                int64   // outcomes with this verdict
	Duplicate               int64   // outcomes with this verdict
	Conflict                int64   // outcomes with this verdict
	Unattributed            int64   // outcomes with this verdict
	Unreadable              int64   // dead letters
	Waiting                 int64   // events that wait now, counted from their rows
	OldestWaitingReceivedAt *Millis // the earliest end of a wait less GraceMs; nil if none waits
	CaughtUp                bool    // both inputs were read to their ends a moment ago
	GraceMs                 int64   // how long an event waits for its click or parent
	// Watermark: every event and click that reached Kafka before it is judged or waits.
	// 0: unknown.
	Watermark     Millis
	ClickLifeMs   int64 // how long a click may bring its first event; 0: unknown
	JourneyLifeMs int64 // how long a journey accepts more events; 0: unknown
}

// Rejection is a signed request, or one event of a batch, that the gateway refused. It
// never contains the body.
type Rejection struct {
	WorkspaceID string   // whose secret signed the request; the record's key
	WebhookID   string   // header webhook-id
	EventID     string   // as far as it could be read, as the ids below
	ClickToken  string   // as far as it could be read, truncated to 128 characters
	ReceivedAt  Millis   // the gateway's clock
	Status      int32    // HTTP status
	Code        string   // of the events API
	Field       string   // the faulty member of the event, if it is one
	Detail      string   // for people, in the gateway's own words
	BodySHA256  [32]byte // of the whole body
	KeyID       string   // of the secret that signed the request
	// The following are of the event, as far as they could be read. Ids are without blanks
	// at their ends, truncated to 128 characters; one that was sent as a number is its text.

	Type          string
	OrderID       string
	ParentEventID string
	CustomerHash  []byte // as in Conversion
}

// Decimal prints minor units with the given number of digits after the point:
// Decimal(-1050, 2) is "-10.50".
func Decimal(minor int64, exponent int32) string {
	s := strconv.FormatInt(minor, 10)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	e := int(exponent)
	if e <= 0 {
		return sign + s
	}
	if len(s) <= e {
		s = strings.Repeat("0", e-len(s)+1) + s
	}
	return sign + s[:len(s)-e] + "." + s[len(s)-e:]
}
