package report

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// Coverage is how many clicks of a link carried a token to the merchant, and why the
// others did not. Without a filter it is a row of the view token_coverage.
type Coverage struct {
	WorkspaceID string  `ch:"workspace_id" json:"workspace_id"`
	LinkID      string  `ch:"link_id" json:"link_id"`
	Domain      string  `ch:"domain" json:"domain"`                   // of the link
	Slug        string  `ch:"slug" json:"slug"`                       // of the link
	Clicks      uint64  `ch:"clicks" json:"clicks"`                   // all; Filter.People: of people
	Tokened     uint64  `ch:"tokened_clicks" json:"tokened_clicks"`   // whose token was appended
	Coverage    float64 `ch:"coverage" json:"coverage"`               // Tokened / Clicks
	Withheld    uint64  `ch:"withheld_clicks" json:"withheld_clicks"` // whose token was withheld
	Off         uint64  `ch:"off_clicks" json:"off_clicks"`           // of links without tracking
	// clicks without token by token_reason
	Reasons map[string]uint64 `ch:"reasons" json:"reasons"`
}

// CoverageSort is the order of a list of links, by the column that it names. Links that
// are equal in it follow each other by their ids.
type CoverageSort string

const (
	CoverageByLink     CoverageSort = "link_id"         // by ids alone
	CoverageByClicks   CoverageSort = "clicks"          // the most first
	CoverageByShare    CoverageSort = "coverage"        // the lowest first
	CoverageByWithheld CoverageSort = "withheld_clicks" // the most first
)

// CoverageSorts are all orders of a list of links.
func CoverageSorts() []CoverageSort {
	return []CoverageSort{CoverageByLink, CoverageByClicks, CoverageByShare, CoverageByWithheld}
}

// value is what the order goes by before the id, as SQL: a Float64, the smallest first.
func (s CoverageSort) value() string {
	switch s {
	case CoverageByClicks, CoverageByWithheld:
		return "-toFloat64(" + string(s) + ")"
	case CoverageByShare:
		return "coverage"
	}
	return "toFloat64(0)"
}

// KeyOf is a row's place in the list in this order, for Page.After.
func (s CoverageSort) KeyOf(c *Coverage) []string {
	value := 0.0
	switch s {
	case CoverageByClicks:
		value = -float64(c.Clicks)
	case CoverageByWithheld:
		value = -float64(c.Withheld)
	case CoverageByShare:
		value = c.Coverage
	}
	return []string{string(cmp.Or(s, CoverageByLink)), strconv.FormatUint(math.Float64bits(value), 10), c.LinkID}
}

// after is the condition on rows behind a key of this order.
func (s CoverageSort) after(key []string) (*condition, error) {
	c := &condition{}
	if len(key) != 3 || key[0] != string(cmp.Or(s, CoverageByLink)) {
		return nil, errCursor()
	}
	bits, err := strconv.ParseUint(key[1], 10, 64) // ClickHouse does not read every decimal exactly
	if err != nil {
		return nil, errCursor()
	}
	c.andArg("("+s.value()+", link_id) > (reinterpretAsFloat64({a0:UInt64}), {a1:String})", "a0", bits)
	c.args = append(c.args, clickhouse.Named("a1", key[2]))
	return c, nil
}

// addSearch adds the condition that a part of a link's address is a text, in any case, or
// its id is this text. address and id are SQL.
func (c *condition) addSearch(address, id, text string) {
	if text != "" {
		c.andArg("(positionCaseInsensitiveUTF8("+address+", {q:String}) > 0 OR "+id+" = {q:String})", "q", text)
	}
}

// coverageQuery is a query for the rows of Coverage of what f selects of clicks.
func (f Filter) coverageQuery(workspace string) (query string, args []any) {
	c := inWorkspace(workspace)
	f.addDimensions(c)
	f.addTimes(c, "clicked_at")
	if f.People {
		c.and("NOT is_bot")
	}
	return `
SELECT
	workspace_id,
	link_id,
	any(c.domain) AS domain,
	any(c.slug) AS slug,
	count() AS clicks,
	countIf(token_status = 'appended') AS tokened_clicks,
	countIf(token_status = 'appended') / count() AS coverage,
	countIf(token_status = 'withheld') AS withheld_clicks,
	countIf(token_status = 'off') AS off_clicks,
	sumMapIf(map(toString(token_reason), toUInt64(1)), token_status != 'appended') AS reasons
FROM clicks AS c
WHERE ` + c.sql() + `
GROUP BY workspace_id, link_id`, c.args
}

// Coverage calls each for the links with clicks that f selects, in an order. search is a
// part of a link's address or its id; "" is every link.
func (r *Reader) Coverage(ctx context.Context, workspace string, f Filter, search string, sort CoverageSort,
	page Page, each func(*Coverage) error) error {
	links, args := f.coverageQuery(workspace)
	c := &condition{}
	c.addSearch("concat(domain, '/', slug)", "link_id", search)
	if page.After != nil {
		after, err := sort.after(page.After)
		if err != nil {
			return err
		}
		c.clauses = append(c.clauses, after.clauses...)
		c.args = append(c.args, after.args...)
	}
	query := `
SELECT ` + strings.Join(ColumnNames[Coverage](), ", ") + `
FROM (` + links + `)`
	if len(c.clauses) > 0 {
		query += "\nWHERE " + c.sql()
	}
	query += "\nORDER BY " + sort.value() + ", link_id"
	if page.Limit > 0 {
		query += "\nLIMIT " + strconv.Itoa(page.Limit)
	}
	return scanRows(ctx, r.conn, "token coverage", query, slices.Concat(args, c.args), each)
}
