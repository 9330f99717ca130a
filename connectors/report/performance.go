package report

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/event"
)

// Counts are numbers of clicks and events.
type Counts struct {
	Clicks        uint64 `ch:"clicks" json:"clicks"`                 // all, once each; Filter.People: of people
	HumanClicks   uint64 `ch:"human_clicks" json:"human_clicks"`     // by no known bot
	TokenedClicks uint64 `ch:"tokened_clicks" json:"tokened_clicks"` // whose token the merchant was shown
	Leads         uint64 `ch:"leads" json:"leads"`                   // attributed
	Sales         uint64 `ch:"sales" json:"sales"`                   // attributed
	Refunds       uint64 `ch:"refunds" json:"refunds"`               // reversed
	Cancellations uint64 `ch:"cancellations" json:"cancellations"`   // reversed
	Reversals     uint64 `ch:"reversals" json:"reversals"`           // reversed
	TakenBack     uint64 `ch:"taken_back" json:"taken_back"`         // reversed, with effect −1
	GivenBack     uint64 `ch:"given_back" json:"given_back"`         // reversed, with effect +1
	// of the reversed: judged by the first rules, and rows of their chains are gone, so
	// effect × amount stands in for what they changed
	ApproximatedEvents uint64 `ch:"approximated_events" json:"approximated_events"`
}

// Add adds the counts of other.
func (c *Counts) Add(other Counts) {
	c.Clicks += other.Clicks
	c.HumanClicks += other.HumanClicks
	c.TokenedClicks += other.TokenedClicks
	c.Leads += other.Leads
	c.Sales += other.Sales
	c.Refunds += other.Refunds
	c.Cancellations += other.Cancellations
	c.Reversals += other.Reversals
	c.TakenBack += other.TakenBack
	c.GivenBack += other.GivenBack
	c.ApproximatedEvents += other.ApproximatedEvents
}

// Performance is a row of the view partner_days: one day of a partner's link, in one
// currency. Clicks and events without an amount are on the row with currency "". Names
// and states are those of today. Amounts are in minor units.
type Performance struct {
	WorkspaceID         string `ch:"workspace_id" json:"workspace_id"`
	Day                 string `ch:"day" json:"day"`               // such as 2026-03-14
	Timezone            string `ch:"timezone" json:"timezone"`     // of the day: an IANA name
	PartnerID           string `ch:"partner_id" json:"partner_id"` // "": no partner
	PartnerKey          string `ch:"partner_key" json:"partner_key"`
	PartnerName         string `ch:"partner_name" json:"partner_name"`
	PartnerRelationship string `ch:"partner_relationship" json:"partner_relationship"` // such as approved
	PartnerLifecycle    string `ch:"partner_lifecycle" json:"partner_lifecycle"`       // such as active
	ProgramID           string `ch:"program_id" json:"program_id"`                     // "": no program
	ProgramKey          string `ch:"program_key" json:"program_key"`
	ProgramName         string `ch:"program_name" json:"program_name"`
	ProgramStatus       string `ch:"program_status" json:"program_status"` // such as active
	LinkID              string `ch:"link_id" json:"link_id"`
	Currency            string `ch:"currency" json:"currency"` // ISO 4217, or ""
	Exponent            uint8  `ch:"exponent" json:"exponent"` // digits of the currency
	Counts
	GrossMinor *big.Int `ch:"gross_minor" json:"gross_minor"` // of attributed events
	// of reversed: given back − taken back
	NegativeMinor  *big.Int `ch:"negative_minor" json:"negative_minor"`
	TakenBackMinor *big.Int `ch:"taken_back_minor" json:"taken_back_minor"` // with effect −1, ≥ 0
	GivenBackMinor *big.Int `ch:"given_back_minor" json:"given_back_minor"` // with effect +1, ≥ 0
	NetMinor       *big.Int `ch:"net_minor" json:"net_minor"`               // the sum of both
	StandingMinor  *big.Int `ch:"standing_minor" json:"standing_minor"`     // net revenue
	// taken back beyond what stood, ≥ 0
	TakenBeyondMinor *big.Int `ch:"taken_beyond_minor" json:"taken_beyond_minor"`
	// given back beyond what was taken, ≥ 0; net = standing − taken beyond + given beyond
	GivenBeyondMinor *big.Int `ch:"given_beyond_minor" json:"given_beyond_minor"`
	RewardMinor      *big.Int `ch:"reward_minor" json:"reward_minor"` // estimated
}

// Key is the row's place in the list, for Page.After.
func (p *Performance) Key() []string {
	return []string{p.Day, p.PartnerID, p.ProgramID, p.LinkID, p.Currency, strconv.Itoa(int(p.Exponent))}
}

// summedColumn is a column of partner_days that is added up.
type summedColumn struct {
	name      string
	ofClicks  string // its value in a row of partner_days that has clicks
	ofOutcome string // its value in a line of an outcome, see eventLines
}

func summedColumns() []summedColumn {
	clicks := func(name string) summedColumn { return summedColumn{name, name, "toUInt64(0)"} }
	events := func(name string, verdict event.Verdict, t event.Type) summedColumn {
		return summedColumn{name, "toUInt64(0)",
			fmt.Sprintf("toUInt64(has_event AND verdict = '%s' AND type = '%s')", verdict, t)}
	}
	amount := func(name, ofOutcome string) summedColumn { return summedColumn{name, "toInt128(0)", ofOutcome} }
	return []summedColumn{
		clicks("clicks"),
		clicks("human_clicks"),
		clicks("tokened_clicks"),
		events("leads", event.Attributed, event.Lead),
		events("sales", event.Attributed, event.Sale),
		events("refunds", event.Reversed, event.Refund),
		events("cancellations", event.Reversed, event.Cancellation),
		events("reversals", event.Reversed, event.Reversal),
		{"taken_back", "toUInt64(0)", "toUInt64(has_event AND verdict = 'reversed' AND effect < 0)"},
		{"given_back", "toUInt64(0)", "toUInt64(has_event AND verdict = 'reversed' AND effect > 0)"},
		{"approximated_events", "toUInt64(0)",
			"toUInt64(has_event AND verdict = 'reversed' AND standing_basis IN ('amount', 'pending'))"},
		amount("gross_minor", "if(has_event AND verdict = 'attributed', amount, toInt128(0))"),
		amount("negative_minor", "if(has_event AND verdict = 'reversed', effect * amount, toInt128(0))"),
		amount("taken_back_minor", "if(has_event AND verdict = 'reversed' AND effect < 0, amount, toInt128(0))"),
		amount("given_back_minor", "if(has_event AND verdict = 'reversed' AND effect > 0, amount, toInt128(0))"),
		amount("net_minor", "if(has_event, effect * amount, toInt128(0))"),
		amount("standing_minor", "if(has_event, standing_change, toInt128(0))"),
		amount("taken_beyond_minor",
			"if(has_event AND verdict = 'reversed' AND effect < 0, amount + standing_change, toInt128(0))"),
		amount("given_beyond_minor",
			"if(has_event AND verdict = 'reversed' AND effect > 0, amount - standing_change, toInt128(0))"),
		amount("reward_minor", "if(has_reward, reward, toInt128(0))"),
	}
}

// selectSummed lists the summed columns in a SELECT, each as an expression.
func selectSummed(expression func(summedColumn) string) string {
	var list []string
	for _, c := range summedColumns() {
		list = append(list, expression(c)+" AS "+c.name)
	}
	return strings.Join(list, ",\n\t")
}

// sumOfLines lists the sums over a query that is called x.
func sumOfLines() string {
	return selectSummed(func(c summedColumn) string { return "sum(x." + c.name + ")" })
}

// linesQuery is a query with the columns of partner_days for one workspace and what f
// selects. The rollup answers where it can. Where events are selected by their kind, or
// are on the day of their click, the rows themselves are added up as the rollup adds
// them.
func (f Filter) linesQuery(workspace string) (query string, args []any) {
	c := inWorkspace(workspace)
	f.addDimensions(c)
	f.addDays(c, "day")
	c.args = append(c.args, f.zoneArg())
	days := f.daysQuery()
	if !f.selectsEvents() {
		return "SELECT * FROM " + days + " WHERE " + c.sql(), c.args
	}
	events := &condition{} // these arguments have the names and values of those above
	events.and("workspace_id = {w:String}")
	f.addDimensions(events)
	events.args = nil
	f.addEventTimes(events)
	f.addKinds(events)
	events.and("verdict IN ('attributed', 'reversed')")
	return `
SELECT
	workspace_id, day, partner_id, program_id, link_id, currency, exponent,
	` + sumOfLines() + `
FROM
(
	SELECT
		workspace_id, day, partner_id, program_id, link_id, '' AS currency, toUInt8(0) AS exponent,
		` + selectSummed(func(c summedColumn) string { return c.ofClicks }) + `
	FROM ` + days + `
	WHERE clicks > 0 AND ` + c.sql() + `
	UNION ALL
	SELECT
		workspace_id, toDate(` + f.eventTime() + `, {tz:String}) AS day, partner_id, program_id, link_id,
		currency, exponent,
		` + selectSummed(func(c summedColumn) string { return c.ofOutcome }) + `
	FROM (` + eventLines(events) + `)
) AS x
GROUP BY workspace_id, day, partner_id, program_id, link_id, currency, exponent`, append(c.args, events.args...)
}

// daysQuery is the rows of partner_days, with amounts as integers: the view has
// decimals, which other formats can carry. Where people are asked for, clicks are theirs.
func (f Filter) daysQuery() string {
	var replaced []string
	for _, c := range summedColumns() {
		if strings.HasSuffix(c.name, "_minor") {
			replaced = append(replaced, "toInt128("+c.name+") AS "+c.name)
		}
	}
	if f.People {
		replaced = append(replaced, "human_clicks AS clicks")
	}
	return "(SELECT * REPLACE (" + strings.Join(replaced, ", ") + ") FROM partner_days(tz = {tz:String}))"
}

// eventLines is a query for the lines that outcomes touch: that of an event's amount
// (has_event), and that of its reward (has_reward), which may be in another currency.
func eventLines(events *condition) string {
	return `
	SELECT
		* EXCEPT (currency, exponent, line),
		line.1 AS currency,
		line.2 AS exponent,
		line.3 AS has_event,
		line.4 AS has_reward
	FROM
	(
		SELECT
			*,
			toInt128(ifNull(amount_minor, 0)) AS amount,
			toInt128(ifNull(standing_change_minor, 0)) AS standing_change,
			toInt128(ifNull(estimated_reward_minor, 0)) AS reward,
			arrayJoin(if(
				estimated_reward_minor IS NULL OR (reward_currency = currency AND reward_exponent = exponent),
				[(toString(currency), exponent, true, true)],
				[(toString(currency), exponent, true, false), (toString(reward_currency), reward_exponent, false, true)]
			)) AS line
		FROM (SELECT *, reward_exponent FROM outcomes WHERE ` + events.sql() + `)
	)`
}

// withNames adds the names and states of today to the lines of a query.
func withNames(lines string) string {
	return `
SELECT
	l.*,
	partner_key, partner_name, partner_relationship, partner_lifecycle,
	program_key, program_name, program_status
FROM (` + lines + `) AS l
LEFT JOIN
(
	SELECT
		workspace_id AS partner_w, partner_id AS partner_i,
		partner_key, partner_name, partner_relationship, partner_lifecycle
	FROM partners_now
) AS a ON a.partner_w = l.workspace_id AND a.partner_i = l.partner_id
LEFT JOIN
(
	SELECT
		workspace_id AS program_w, program_id AS program_i,
		program_key, program_name, program_status
	FROM programs_now
) AS b ON b.program_w = l.workspace_id AND b.program_i = l.program_id`
}

// Performance calls each for the rows of the view partner_days that f selects, in the
// order of day, partner, program, link and currency.
func (r *Reader) Performance(ctx context.Context, workspace string, f Filter, page Page,
	each func(*Performance) error) error {
	lines, args := f.linesQuery(workspace)
	columns := ColumnNames[Performance]()
	columns[slices.Index(columns, "day")] = "toString(p.day) AS day"
	columns[slices.Index(columns, "timezone")] = "{tz:String} AS timezone"
	query := `
SELECT ` + strings.Join(columns, ", ") + `
FROM (` + withNames(lines) + `) AS p`
	if page.After != nil {
		after, err := afterPerformance(page.After)
		if err != nil {
			return err
		}
		query += "\nWHERE " + after.sql()
		args = append(args, after.args...)
	}
	query += "\nORDER BY p.day, partner_id, program_id, link_id, currency, exponent"
	if page.Limit > 0 {
		query += "\nLIMIT " + strconv.Itoa(page.Limit)
	}
	return scanRows(ctx, r.conn, "performance", query+"\nSETTINGS join_use_nulls = 0", args, each)
}

// afterPerformance is the condition on rows behind a key.
func afterPerformance(key []string) (*condition, error) {
	if len(key) != 6 {
		return nil, errCursor()
	}
	if _, err := time.Parse(time.DateOnly, key[0]); err != nil {
		return nil, errCursor()
	}
	exponent, err := strconv.ParseUint(key[5], 10, 8)
	if err != nil {
		return nil, errCursor()
	}
	c := &condition{}
	c.andArg("(p.day, partner_id, program_id, link_id, currency, exponent) > "+
		"(toDate({a0:String}), {a1:String}, {a2:String}, {a3:String}, {a4:String}, {a5:UInt8})", "a5", exponent)
	for i, v := range key[:5] {
		c.args = append(c.args, clickhouse.Named("a"+strconv.Itoa(i), v))
	}
	return c, nil
}

// PartnerTotals calls each for the sums of each partner in a program and currency, over
// all days and links that f selects. Their Day and LinkID are empty.
func (r *Reader) PartnerTotals(ctx context.Context, workspace string, f Filter, each func(*Performance) error) error {
	lines, args := f.linesQuery(workspace)
	totals := `
SELECT workspace_id, partner_id, program_id, currency, exponent,
	` + sumOfLines() + `
FROM (` + lines + `) AS x
GROUP BY workspace_id, partner_id, program_id, currency, exponent`
	return scanRows(ctx, r.conn, "performance", withNames(totals)+`
ORDER BY partner_id, program_id, currency, exponent
SETTINGS join_use_nulls = 0`, args, each)
}

// DayTotals returns the sums of each day that f selects, in order. Only Day and the
// sums are set.
func (r *Reader) DayTotals(ctx context.Context, workspace string, f Filter) (rows []*Performance, err error) {
	lines, args := f.linesQuery(workspace)
	err = scanRows(ctx, r.conn, "performance", `
SELECT toString(x.day) AS day,
	`+sumOfLines()+`
FROM (`+lines+`) AS x
GROUP BY day
ORDER BY day`, args, func(p *Performance) error {
		rows = append(rows, p)
		return nil
	})
	return rows, err
}
