package report

import (
	"context"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// Performance is a row of the view partner_performance: one day of a partner's link, in
// one currency. Clicks and events without an amount stand on the line with currency "".
type Performance struct {
	WorkspaceID         string   `ch:"workspace_id" json:"workspace_id"`
	Day                 string   `ch:"day" json:"day"`
	PartnerID           string   `ch:"partner_id" json:"partner_id"`
	PartnerKey          string   `ch:"partner_key" json:"partner_key"`
	PartnerName         string   `ch:"partner_name" json:"partner_name"`
	PartnerRelationship string   `ch:"partner_relationship" json:"partner_relationship"`
	PartnerLifecycle    string   `ch:"partner_lifecycle" json:"partner_lifecycle"`
	ProgramID           string   `ch:"program_id" json:"program_id"`
	ProgramKey          string   `ch:"program_key" json:"program_key"`
	ProgramName         string   `ch:"program_name" json:"program_name"`
	ProgramStatus       string   `ch:"program_status" json:"program_status"`
	LinkID              string   `ch:"link_id" json:"link_id"`
	Currency            string   `ch:"currency" json:"currency"`
	Exponent            uint8    `ch:"exponent" json:"exponent"`
	Clicks              uint64   `ch:"clicks" json:"clicks"`
	HumanClicks         uint64   `ch:"human_clicks" json:"human_clicks"`
	TokenedClicks       uint64   `ch:"tokened_clicks" json:"tokened_clicks"`
	Leads               uint64   `ch:"leads" json:"leads"`
	Sales               uint64   `ch:"sales" json:"sales"`
	Refunds             uint64   `ch:"refunds" json:"refunds"`
	Cancellations       uint64   `ch:"cancellations" json:"cancellations"`
	Reversals           uint64   `ch:"reversals" json:"reversals"`
	GrossMinor          *big.Int `ch:"gross_minor" json:"gross_minor"`
	NegativeMinor       *big.Int `ch:"negative_minor" json:"negative_minor"`
	NetMinor            *big.Int `ch:"net_minor" json:"net_minor"`
	RewardMinor         *big.Int `ch:"reward_minor" json:"reward_minor"`
}

func (p *Performance) key() []string {
	return []string{p.Day, p.PartnerID, p.ProgramID, p.LinkID, p.Currency, strconv.Itoa(int(p.Exponent))}
}

var performanceColumns = strings.Fields(`workspace_id day partner_id partner_key partner_name partner_relationship partner_lifecycle program_id program_key program_name program_status
	link_id currency exponent clicks human_clicks tokened_clicks leads sales refunds cancellations reversals gross_minor negative_minor net_minor reward_minor`)

// sums are what lines of one key are added up to.
const sums = `sum(x.clicks) AS clicks, sum(x.human_clicks) AS human_clicks, sum(x.tokened_clicks) AS tokened_clicks, sum(x.leads) AS leads, sum(x.sales) AS sales, sum(x.refunds) AS refunds,
	sum(x.cancellations) AS cancellations, sum(x.reversals) AS reversals, sum(x.gross_minor) AS gross_minor, sum(x.negative_minor) AS negative_minor, sum(x.net_minor) AS net_minor, sum(x.reward_minor) AS reward_minor`

// lines is a subquery with the columns of partner_daily for one workspace and what f
// selects. The rollup answers where it can; where events are selected by their kind, or
// put on the day of their click, the rows themselves are added up, as the rollup adds
// them.
func (f Filter) lines(workspace string) (query string, args []any) {
	c := &condition{}
	c.and("workspace_id = {w:String}", "w", workspace)
	f.who(c)
	f.days(c, "day")
	if len(f.Type) == 0 && len(f.Verdict) == 0 && len(f.Review) == 0 && !f.ByClick {
		return "SELECT * FROM partner_daily WHERE " + c.text(), c.args
	}
	e := &condition{} // the names of its arguments are the same, their values too
	e.and("workspace_id = {w:String}", "", nil)
	f.who(e)
	day := "toDate(occurred_at)"
	if f.ByClick {
		day = "assumeNotNull(toDate(clicked_at))"
		e.and("clicked_at IS NOT NULL", "", nil)
	}
	f.days(e, day)
	kinds := &condition{}
	f.kinds(kinds)
	kinds.and("verdict IN ('attributed', 'reversed')", "", nil)
	return `SELECT workspace_id, day, partner_id, program_id, link_id, currency, exponent, ` + sums + ` FROM (
		SELECT workspace_id, day, partner_id, program_id, link_id, '' AS currency, toUInt8(0) AS exponent, clicks, human_clicks, tokened_clicks, toUInt64(0) AS leads, toUInt64(0) AS sales, toUInt64(0) AS refunds,
			toUInt64(0) AS cancellations, toUInt64(0) AS reversals, toInt128(0) AS gross_minor, toInt128(0) AS negative_minor, toInt128(0) AS net_minor, toInt128(0) AS reward_minor
		FROM partner_daily WHERE clicks > 0 AND ` + c.text() + `
		UNION ALL
		SELECT workspace_id, ` + day + ` AS day, partner_id, program_id, link_id, line.1 AS currency, line.2 AS exponent, toUInt64(0), toUInt64(0), toUInt64(0),
			toUInt64(line.3 AND verdict = 'attributed' AND type = 'lead'), toUInt64(line.3 AND verdict = 'attributed' AND type = 'sale'), toUInt64(line.3 AND verdict = 'reversed' AND type = 'refund'),
			toUInt64(line.3 AND verdict = 'reversed' AND type = 'cancellation'), toUInt64(line.3 AND verdict = 'reversed' AND type = 'reversal'),
			if(line.3 AND verdict = 'attributed', amount, toInt128(0)), if(line.3 AND verdict = 'reversed', effect * amount, toInt128(0)), if(line.3, effect * amount, toInt128(0)), if(line.4, reward, toInt128(0))
		FROM (
			SELECT *, toInt128(ifNull(amount_minor, 0)) AS amount, toInt128(ifNull(estimated_reward_minor, 0)) AS reward,
				arrayJoin(if(estimated_reward_minor IS NULL OR (reward_currency = currency AND reward_exponent = exponent),
					[(toString(currency), exponent, true, true)],
					[(toString(currency), exponent, true, false), (toString(reward_currency), reward_exponent, false, true)])) AS line
			FROM (SELECT *, reward_exponent FROM outcomes WHERE ` + e.text() + ` AND ` + kinds.text() + `)
		)
	) AS x GROUP BY workspace_id, day, partner_id, program_id, link_id, currency, exponent`, append(c.args, kinds.args...)
}

// named adds the names and states of today to lines.
func named(lines string) string {
	return `SELECT l.*, partner_key, partner_name, partner_relationship, partner_lifecycle, program_key, program_name, program_status FROM (` + lines + `) AS l
		LEFT JOIN (SELECT workspace_id AS partner_w, partner_id AS partner_i, partner_key, partner_name, partner_relationship, partner_lifecycle FROM partners_now) AS a ON a.partner_w = l.workspace_id AND a.partner_i = l.partner_id
		LEFT JOIN (SELECT workspace_id AS program_w, program_id AS program_i, program_key, program_name, program_status FROM programs_now) AS b ON b.program_w = l.workspace_id AND b.program_i = l.program_id`
}

// Performance calls each for the rows of the view partner_performance that f selects,
// in the order of day, partner, program, link and currency; at most limit, if that is
// not 0.
func (r *Reader) Performance(ctx context.Context, workspace string, f Filter, limit int,
	each func(*Performance) error) error {
	lines, args := f.lines(workspace)
	query := "SELECT workspace_id, toString(day) AS day, " + strings.Join(performanceColumns[2:], ", ") + " FROM (" +
		named(lines) + ") AS p"
	if len(f.after) > 0 {
		if len(f.after) != 6 {
			return &BadParameter{"cursor", "not one of this list"}
		}
		if _, err := time.Parse(time.DateOnly, f.after[0]); err != nil {
			return &BadParameter{"cursor", "not one of this list"}
		}
		exponent, err := strconv.ParseUint(f.after[5], 10, 8)
		if err != nil {
			return &BadParameter{"cursor", "not one of this list"}
		}
		query += " WHERE (p.day, partner_id, program_id, link_id, currency, exponent) > (toDate({a0:String}), " +
			"{a1:String}, {a2:String}, {a3:String}, {a4:String}, {a5:UInt8})"
		for i, v := range f.after[:5] {
			args = append(args, clickhouse.Named("a"+strconv.Itoa(i), v))
		}
		args = append(args, clickhouse.Named("a5", exponent))
	}
	query += " ORDER BY p.day, partner_id, program_id, link_id, currency, exponent"
	if limit > 0 {
		query += " LIMIT " + strconv.Itoa(limit)
	}
	return stream(ctx, r.conn, "reading performance", query+" SETTINGS join_use_nulls = 0", args, each)
}

// stream scans the rows of a query one by one.
func stream[T any](ctx context.Context, conn *clickhouse.Conn, what, query string, args []any,
	each func(*T) error) error {
	rows, err := conn.Rows(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer rows.Close()
	for rows.Next() {
		var row T
		if err := rows.ScanStruct(&row); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if err := each(&row); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Conversion is a row of the view conversion_rows: a judged event in the shape in which
// it is exported.
type Conversion struct {
	WorkspaceID            string     `ch:"workspace_id" json:"workspace_id"`
	PartnerID              string     `ch:"partner_id" json:"partner_id"`
	PartnerKey             string     `ch:"partner_key" json:"partner_key"`
	PartnerName            string     `ch:"partner_name" json:"partner_name"`
	PartnerRelationship    string     `ch:"partner_relationship" json:"partner_relationship"`
	PartnerRelationshipNow string     `ch:"partner_relationship_now" json:"partner_relationship_now"`
	ProgramID              string     `ch:"program_id" json:"program_id"`
	ProgramKey             string     `ch:"program_key" json:"program_key"`
	ProgramName            string     `ch:"program_name" json:"program_name"`
	AssignmentID           string     `ch:"assignment_id" json:"assignment_id"`
	LinkID                 string     `ch:"link_id" json:"link_id"`
	Domain                 string     `ch:"domain" json:"domain"`
	Slug                   string     `ch:"slug" json:"slug"`
	Destination            string     `ch:"destination" json:"destination"`
	ClickedAt              *time.Time `ch:"clicked_at" json:"clicked_at"`
	OccurredAt             time.Time  `ch:"occurred_at" json:"occurred_at"`
	ReceivedAt             time.Time  `ch:"received_at" json:"received_at"`
	EventID                string     `ch:"event_id" json:"event_id"`
	Type                   string     `ch:"type" json:"type"`
	EventName              string     `ch:"event_name" json:"event_name"`
	Verdict                string     `ch:"verdict" json:"verdict"`
	Reason                 string     `ch:"reason" json:"reason"`
	Effect                 int8       `ch:"effect" json:"effect"`
	Amount                 *string    `ch:"amount" json:"amount"`
	NetAmount              *string    `ch:"net_amount" json:"net_amount"`
	Currency               string     `ch:"currency" json:"currency"`
	AmountMinor            *int64     `ch:"amount_minor" json:"amount_minor"`
	Quantity               *int32     `ch:"quantity" json:"quantity"`
	OrderID                string     `ch:"order_id" json:"order_id"`
	ParentEventID          string     `ch:"parent_event_id" json:"parent_event_id"`
	ParentType             string     `ch:"parent_type" json:"parent_type"`
	ReasonText             string     `ch:"reason_text" json:"reason_text"`
	Clawback               string     `ch:"clawback" json:"clawback"`
	Review                 string     `ch:"review" json:"review"`
	Flags                  []string   `ch:"flags" json:"flags"`
	EstimatedReward        *string    `ch:"estimated_reward" json:"estimated_reward"`
	RewardCurrency         string     `ch:"reward_currency" json:"reward_currency"`
	RewardTerms            string     `ch:"reward_terms" json:"reward_terms"`
	UTMSource              string     `ch:"utm_source" json:"utm_source"`
	UTMMedium              string     `ch:"utm_medium" json:"utm_medium"`
	UTMCampaign            string     `ch:"utm_campaign" json:"utm_campaign"`
	UTMTerm                string     `ch:"utm_term" json:"utm_term"`
	UTMContent             string     `ch:"utm_content" json:"utm_content"`
	Sub1                   string     `ch:"sub1" json:"sub1"`
	Sub2                   string     `ch:"sub2" json:"sub2"`
	Sub3                   string     `ch:"sub3" json:"sub3"`
	Sub4                   string     `ch:"sub4" json:"sub4"`
	Sub5                   string     `ch:"sub5" json:"sub5"`
	Experiment             string     `ch:"experiment" json:"experiment"`
	Variant                string     `ch:"variant" json:"variant"`
	Country                string     `ch:"country" json:"country"`
	Device                 string     `ch:"device" json:"device"`
	IsBot                  bool       `ch:"is_bot" json:"is_bot"`
	ClickToken             string     `ch:"click_token" json:"click_token"`
	EventPartition         uint32     `ch:"event_partition" json:"event_partition"`
	EventOffset            uint64     `ch:"event_offset" json:"event_offset"`
}

func (c *Conversion) key() []string {
	return []string{strconv.FormatInt(c.OccurredAt.UnixMilli(), 10), c.EventID,
		strconv.FormatUint(uint64(c.EventPartition), 10), strconv.FormatUint(c.EventOffset, 10)}
}

// events is the condition on rows of conversion_rows.
func (f Filter) events(workspace string) *condition {
	c := &condition{}
	c.and("workspace_id = {w:String}", "w", workspace)
	f.who(c)
	if f.ByClick {
		c.and("clicked_at IS NOT NULL", "", nil)
		f.days(c, "toDate(clicked_at)")
	} else {
		f.days(c, "toDate(occurred_at)")
	}
	f.kinds(c)
	return c
}

// Conversions calls each for the judged events that f selects: the oldest first, or the
// newest. limit 0 is none.
func (r *Reader) Conversions(ctx context.Context, workspace string, f Filter, newest bool, limit int,
	each func(*Conversion) error) error {
	c := f.events(workspace)
	if len(f.after) > 0 {
		var numbers [4]uint64
		for _, i := range []int{0, 2, 3} {
			var err error
			if len(f.after) == 4 {
				numbers[i], err = strconv.ParseUint(f.after[i], 10, 63)
			}
			if len(f.after) != 4 || err != nil {
				return &BadParameter{"cursor", "not one of this list"}
			}
		}
		c.and("(occurred_at, event_id, event_partition, event_offset) > (fromUnixTimestamp64Milli({a0:Int64}, "+
			"'UTC'), {a1:String}, {a2:UInt32}, {a3:UInt64})", "a0", int64(numbers[0]))
		c.args = append(c.args, clickhouse.Named("a1", f.after[1]), clickhouse.Named("a2", numbers[2]),
			clickhouse.Named("a3", numbers[3]))
	}
	query := "SELECT * FROM conversion_rows WHERE " + c.text() +
		" ORDER BY occurred_at, event_id, event_partition, event_offset"
	if newest {
		query = "SELECT * FROM conversion_rows WHERE " + c.text() +
			" ORDER BY occurred_at DESC, event_id DESC, event_partition DESC, event_offset DESC"
	}
	if limit > 0 {
		query += " LIMIT " + strconv.Itoa(limit)
	}
	return stream(ctx, r.conn, "reading conversions", query, c.args, each)
}

// Freshness says how far the tables go.
type Freshness struct {
	JoinedWatermark time.Time  `ch:"joined_watermark" json:"joined_watermark"`
	Waiting         uint64     `ch:"waiting" json:"waiting"`
	Partitions      uint64     `ch:"partitions" json:"partitions"`
	Behind          uint64     `ch:"partitions_behind" json:"partitions_behind"`
	OldestWaiting   *time.Time `ch:"oldest_waiting" json:"oldest_waiting_received_at"`
}

// Freshness reads the view of that name.
func (r *Reader) Freshness(ctx context.Context) (*Freshness, error) {
	var found []Freshness
	if err := r.conn.Select(ctx, &found, "SELECT joined_watermark, toUInt64(waiting) AS waiting, partitions, "+
		"partitions_behind, toNullable(oldest_waiting_received_at) AS oldest_waiting FROM freshness"); err != nil {
		return nil, fmt.Errorf("reading freshness: %w", err)
	}
	if len(found) == 0 {
		return &Freshness{}, nil
	}
	return &found[0], nil
}

// Conservation is a row of the view workspace_conservation.
type Conservation struct {
	WorkspaceID  string `ch:"workspace_id" json:"workspace_id"`
	Day          string `ch:"day" json:"day"`
	Received     uint64 `ch:"received" json:"received"`
	Attributed   uint64 `ch:"attributed" json:"attributed"`
	Reversed     uint64 `ch:"reversed" json:"reversed"`
	Duplicate    uint64 `ch:"duplicate" json:"duplicate"`
	Conflict     uint64 `ch:"conflict" json:"conflict"`
	Unattributed uint64 `ch:"unattributed" json:"unattributed"`
	Waiting      uint64 `ch:"waiting" json:"waiting"`
	Difference   int64  `ch:"difference" json:"difference"`
}

// Conservation calls each for the days of receipt of a workspace, in order.
func (r *Reader) Conservation(ctx context.Context, workspace string, f Filter, limit int,
	each func(*Conservation) error) error {
	c := &condition{}
	c.and("workspace_id = {w:String}", "w", workspace)
	f.days(c, "v.day")
	if len(f.after) > 0 {
		if _, err := time.Parse(time.DateOnly, f.after[0]); err != nil || len(f.after) != 1 {
			return &BadParameter{"cursor", "not one of this list"}
		}
		c.and("v.day > toDate({a0:String})", "a0", f.after[0])
	}
	return stream(ctx, r.conn, "reading conservation", `SELECT workspace_id, toString(v.day) AS day, toUInt64(received) AS received, toUInt64(attributed) AS attributed, toUInt64(reversed) AS reversed,
		toUInt64(duplicate) AS duplicate, toUInt64(conflict) AS conflict, toUInt64(unattributed) AS unattributed, toUInt64(waiting) AS waiting, toInt64(difference) AS difference
		FROM workspace_conservation AS v WHERE `+c.text()+" ORDER BY v.day LIMIT "+strconv.Itoa(limit), c.args, each)
}

// Coverage is a row of the view token_coverage.
type Coverage struct {
	WorkspaceID string            `ch:"workspace_id" json:"workspace_id"`
	LinkID      string            `ch:"link_id" json:"link_id"`
	Domain      string            `ch:"domain" json:"domain"`
	Slug        string            `ch:"slug" json:"slug"`
	Clicks      uint64            `ch:"clicks" json:"clicks"`
	Tokened     uint64            `ch:"tokened_clicks" json:"tokened_clicks"`
	Coverage    float64           `ch:"coverage" json:"coverage"`
	Withheld    uint64            `ch:"withheld_clicks" json:"withheld_clicks"`
	Off         uint64            `ch:"off_clicks" json:"off_clicks"`
	Reasons     map[string]uint64 `ch:"reasons" json:"reasons"`
}

// Coverage calls each for the links of a workspace, in order.
func (r *Reader) Coverage(ctx context.Context, workspace string, f Filter, limit int,
	each func(*Coverage) error) error {
	c := &condition{}
	c.and("workspace_id = {w:String}", "w", workspace)
	if f.Link != "" {
		c.and("link_id = {link:String}", "link", f.Link)
	}
	if len(f.after) > 0 {
		if len(f.after) != 1 {
			return &BadParameter{"cursor", "not one of this list"}
		}
		c.and("link_id > {a0:String}", "a0", f.after[0])
	}
	return stream(ctx, r.conn, "reading token coverage", "SELECT workspace_id, link_id, domain, slug, clicks, "+
		"tokened_clicks, coverage, withheld_clicks, off_clicks, reasons FROM token_coverage WHERE "+c.text()+
		" ORDER BY link_id LIMIT "+strconv.Itoa(limit), c.args, each)
}
