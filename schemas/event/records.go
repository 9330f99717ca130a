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

// MillisOf cuts t to milliseconds.
func MillisOf(t time.Time) Millis { return Millis(t.UnixMilli()) }

// Time returns m as a time in UTC.
func (m Millis) Time() time.Time { return time.UnixMilli(int64(m)).UTC() }

// Add returns m + d, cut to milliseconds.
func (m Millis) Add(d time.Duration) Millis { return m + Millis(d.Milliseconds()) }

// RulesVersion is the version of the attribution rules that an Outcome was judged by.
const RulesVersion = 1

// MaxClickBytes is the largest encoded Click, framing not counted.
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

// Types lists all types, in the order of the schema.
func Types() []Type { return []Type{Lead, Sale, Refund, Cancellation, Reversal} }

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
	ReasonWorkspaceMismatch  = "workspace_mismatch"
	ReasonTokenFull          = "token_full"
	ReasonBeforeClick        = "before_click"
	ReasonOutsideWindow      = "outside_window"
	ReasonWrongParent        = "wrong_parent"
	ReasonParentAmbiguous    = "parent_ambiguous"
	ReasonParentNotFound     = "parent_not_found"
	ReasonParentUnattributed = "parent_unattributed"
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
)

// Review says whether a person should look at a row.
type Review string

// The values of Review.
const (
	ReviewClear  Review = "clear"
	ReviewNeeded Review = "review"
)

// TokenStatus says whether the visitor got to see the click's token.
type TokenStatus string

// The values of TokenStatus. Only an appended token can bring conversions.
const (
	TokenAppended TokenStatus = "appended"
	TokenWithheld TokenStatus = "withheld"
	TokenOff      TokenStatus = "off"
)

// Trigger is how the short link was reached.
type Trigger string

// The values of Trigger.
const (
	TriggerLink Trigger = "link"
	TriggerQR   Trigger = "qr"
)

// Click is one redirect with the commercial context frozen at that moment.
type Click struct {
	WorkspaceID         string      `avro:"workspace_id"`
	ClickToken          string      `avro:"click_token"`
	ClickedAt           Millis      `avro:"clicked_at"`
	WindowMs            int64       `avro:"window_ms"`
	TokenStatus         TokenStatus `avro:"token_status"`
	TokenReason         string      `avro:"token_reason"`
	LinkID              string      `avro:"link_id"`
	Domain              string      `avro:"domain"`
	Slug                string      `avro:"slug"`
	Destination         string      `avro:"destination"`
	Trigger             Trigger     `avro:"trigger"`
	PartnerID           string      `avro:"partner_id"`
	PartnerKey          string      `avro:"partner_key"`
	PartnerName         string      `avro:"partner_name"`
	PartnerRelationship string      `avro:"partner_relationship"`
	PartnerLifecycle    string      `avro:"partner_lifecycle"`
	ProgramID           string      `avro:"program_id"`
	ProgramKey          string      `avro:"program_key"`
	ProgramName         string      `avro:"program_name"`
	ProgramStatus       string      `avro:"program_status"`
	AssignmentID        string      `avro:"assignment_id"`
	AssignedAt          Millis      `avro:"assigned_at"`
	RewardTerms         string      `avro:"reward_terms"`
	UTMSource           string      `avro:"utm_source"`
	UTMMedium           string      `avro:"utm_medium"`
	UTMCampaign         string      `avro:"utm_campaign"`
	UTMTerm             string      `avro:"utm_term"`
	UTMContent          string      `avro:"utm_content"`
	Sub1                string      `avro:"sub1"`
	Sub2                string      `avro:"sub2"`
	Sub3                string      `avro:"sub3"`
	Sub4                string      `avro:"sub4"`
	Sub5                string      `avro:"sub5"`
	Experiment          string      `avro:"experiment"`
	Variant             string      `avro:"variant"`
	ReferrerHost        string      `avro:"referrer_host"`
	Country             string      `avro:"country"`
	Device              string      `avro:"device"`
	OS                  string      `avro:"os"`
	Browser             string      `avro:"browser"`
	IsBot               bool        `avro:"is_bot"`
	BotReason           string      `avro:"bot_reason"`
	CatalogOffset       int64       `avro:"catalog_offset"`
}

// texts are the fields that may be cut. Ids, keys, statuses and terms are short by the
// catalog's rules (at most 40 bytes) and are never cut: together with a workspace id of
// 64 bytes they leave room for the texts.
func (c *Click) texts() []*string {
	return []*string{&c.Destination, &c.ReferrerHost, &c.PartnerName, &c.ProgramName, &c.Slug, &c.Domain,
		&c.UTMSource, &c.UTMMedium, &c.UTMCampaign, &c.UTMTerm, &c.UTMContent, &c.Sub1, &c.Sub2, &c.Sub3, &c.Sub4, &c.Sub5,
		&c.Experiment, &c.Variant, &c.Device, &c.OS, &c.Browser, &c.BotReason}
}

// Fit cuts texts, always the longest first and at a character's border, until the click
// is at most MaxClickBytes encoded, and returns how many fields it cut.
func (c *Click) Fit() (cut int) {
	excess := c.size() - MaxClickBytes
	if excess <= 0 {
		return 0
	}
	texts := c.texts()
	touched := make(map[*string]bool)
	for excess > 0 {
		longest := slices.MaxFunc(texts, func(a, b *string) int { return len(*a) - len(*b) })
		if *longest == "" {
			return len(touched) // only ids are left: the catalog's limits make this impossible
		}
		// a few bytes at a time, so that several long texts shrink together
		keep := len(*longest) - min(excess, max(1, len(*longest)/8))
		for keep > 0 && !utf8.RuneStart((*longest)[keep]) {
			keep--
		}
		*longest = (*longest)[:keep]
		touched[longest] = true
		excess = c.size() - MaxClickBytes
	}
	return len(touched)
}

// size is the length of c's Avro binary form. The texts, a long or a bool by one or
// more bytes each; checked against the encoder by a test.
func (c *Click) size() int {
	n := 3 // token_status, trigger, is_bot
	for _, s := range []string{c.WorkspaceID, c.ClickToken, c.TokenReason, c.LinkID, c.PartnerID, c.PartnerKey,
		c.PartnerRelationship, c.PartnerLifecycle,
		c.ProgramID, c.ProgramKey, c.ProgramStatus, c.AssignmentID, c.RewardTerms, c.Country} {
		n += textSize(s)
	}
	for _, s := range c.texts() {
		n += textSize(*s)
	}
	return n + longSize(int64(c.ClickedAt)) + longSize(c.WindowMs) + longSize(int64(c.AssignedAt)) +
		longSize(c.CatalogOffset)
}

func textSize(s string) int { return longSize(int64(len(s))) + len(s) }

// longSize is the length of a zigzag varint.
func longSize(v int64) int {
	u, n := uint64(v<<1)^uint64(v>>63), 1
	for ; u >= 0x80; u >>= 7 {
		n++
	}
	return n
}

// Conversion is one merchant event that the gateway verified and accepted.
type Conversion struct {
	WorkspaceID   string            `avro:"workspace_id"`
	EventID       string            `avro:"event_id"`
	ClickToken    string            `avro:"click_token"`
	Type          Type              `avro:"type"`
	EventName     string            `avro:"event_name"`
	OccurredAt    Millis            `avro:"occurred_at"`
	ReceivedAt    Millis            `avro:"received_at"`
	AmountMinor   *int64            `avro:"amount_minor"` // nil: no amount, and Currency is empty
	Currency      string            `avro:"currency"`
	Exponent      int32             `avro:"exponent"`
	Quantity      *int32            `avro:"quantity"`
	OrderID       string            `avro:"order_id"`
	ParentEventID string            `avro:"parent_event_id"`
	ReasonText    string            `avro:"reason_text"`
	CustomerRef   string            `avro:"customer_ref"`
	Metadata      map[string]string `avro:"metadata"`
	ContentSHA256 [32]byte          `avro:"content_sha256"`
	KeyID         string            `avro:"key_id"`
}

// Outcome is one verdict on one record of `conversions`.
type Outcome struct {
	WorkspaceID          string   `avro:"workspace_id"`
	EventID              string   `avro:"event_id"`
	ClickToken           string   `avro:"click_token"`
	Verdict              Verdict  `avro:"verdict"`
	Reason               string   `avro:"reason"`
	Flags                []string `avro:"flags"`
	Review               Review   `avro:"review"`
	Type                 Type     `avro:"type"`
	EventName            string   `avro:"event_name"`
	Effect               int32    `avro:"effect"`
	OccurredAt           Millis   `avro:"occurred_at"`
	ReceivedAt           Millis   `avro:"received_at"`
	DecidedAt            Millis   `avro:"decided_at"`
	AmountMinor          *int64   `avro:"amount_minor"`
	Currency             string   `avro:"currency"`
	Exponent             int32    `avro:"exponent"`
	Quantity             *int32   `avro:"quantity"`
	OrderID              string   `avro:"order_id"`
	ParentEventID        string   `avro:"parent_event_id"`
	ParentType           string   `avro:"parent_type"`
	ReasonText           string   `avro:"reason_text"`
	CustomerRef          string   `avro:"customer_ref"`
	EstimatedRewardMinor *int64   `avro:"estimated_reward_minor"`
	RewardCurrency       string   `avro:"reward_currency"`
	ContentSHA256        [32]byte `avro:"content_sha256"`
	EventPartition       int32    `avro:"event_partition"`
	EventOffset          int64    `avro:"event_offset"`
	FirstOffset          *int64   `avro:"first_offset"`
	RulesVersion         int32    `avro:"rules_version"`
	Click                *Click   `avro:"click"` // nil where no snapshot may be shown
}

// Progress is how far one partition's processor has come.
type Progress struct {
	Partition               int32
	At                      Millis
	ClicksPosition          int64 // next offset of clicks
	ConversionsPosition     int64
	ClicksMaxAt             Millis // largest Kafka timestamp read
	ConversionsMaxAt        Millis
	OutcomesEnd             int64
	Read                    int64
	Attributed              int64
	Reversed                int64
	Duplicate               int64
	Conflict                int64
	Unattributed            int64
	Unreadable              int64
	Waiting                 int64
	OldestWaitingReceivedAt *Millis
	CaughtUp                bool
	GraceMs                 int64
}

// Rejection is a signed request, or one event of it, that the gateway refused.
type Rejection struct {
	WorkspaceID string
	WebhookID   string
	EventID     string
	ClickToken  string
	ReceivedAt  Millis
	Status      int32 // HTTP status
	Code        string
	Field       string
	Detail      string
	BodySHA256  [32]byte
	KeyID       string
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
