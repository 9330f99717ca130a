package report

import (
	"context"
	"strconv"

	"github.com/nimriz/partners/connectors/clickhouse"
)

// LinkTotal is what a link brought in the selected days. Its address, partner and program
// are those of today.
type LinkTotal struct {
	LinkID      string `ch:"link_id"`
	Name        string `ch:"name"`         // domain and slug; the id of a link that is not known any more
	Status      string `ch:"status"`       // active, archived; "" like Name's id
	PartnerID   string `ch:"partner_id"`   // "": no partner
	PartnerName string `ch:"partner_name"` // may be empty
	ProgramID   string `ch:"program_id"`   // "": no program
	ProgramName string `ch:"program_name"` // may be empty
	Clicks      uint64 `ch:"clicks"`       // all; Filter.People: of people
	HumanClicks uint64 `ch:"human_clicks"` // by no known bot
	Leads       uint64 `ch:"leads"`        // attributed
	Sales       uint64 `ch:"sales"`        // attributed

	// Covered are the clicks of which it is known whether they carried a token: those of
	// the rollup, or with LinkQuery.Reasons those that are still in the table.
	Covered uint64            `ch:"covered"`
	Tokened uint64            `ch:"tokened"` // whose token was appended
	Reasons map[string]uint64 `ch:"reasons"` // the others by token_reason; LinkQuery.Reasons
	All     uint64            `ch:"links"`   // links that the query selects, on all pages
}

// LinkSort is the order of LinkTotals. Links that are equal in it follow each other by
// their names.
type LinkSort string

const (
	LinksBySales    LinkSort = "sales"    // the most first; of equal ones the most leads, then clicks
	LinksByLeads    LinkSort = "leads"    // the most first
	LinksByClicks   LinkSort = "clicks"   // the most first
	LinksByRate     LinkSort = "rate"     // sales of clicks, the highest first
	LinksByCoverage LinkSort = "coverage" // the lowest first; what has no clicks is last
	LinksByName     LinkSort = "link"
)

// LinkSorts are all orders of LinkTotals; the first is the default.
func LinkSorts() []LinkSort {
	return []LinkSort{LinksBySales, LinksByLeads, LinksByClicks, LinksByRate, LinksByCoverage, LinksByName}
}

// order is the order as SQL.
func (s LinkSort) order() string {
	const last = "name, link_id"
	switch s {
	case LinksByLeads:
		return "leads DESC, sales DESC, clicks DESC, " + last
	case LinksByClicks:
		return "clicks DESC, sales DESC, leads DESC, " + last
	case LinksByRate:
		return "if(clicks = 0, 0, sales / clicks) DESC, sales DESC, clicks DESC, " + last
	case LinksByCoverage:
		return "if(covered = 0, 2, tokened / covered), clicks DESC, " + last
	case LinksByName:
		return last
	}
	return "sales DESC, leads DESC, clicks DESC, " + last
}

// LinkQuery says which of the links that a Filter selects are asked for.
type LinkQuery struct {
	Search  string // a part of the link's address, in any case, or its id; "": every link
	Sort    LinkSort
	Reasons bool // read the clicks themselves, for why they have no token
	Limit   int  // links
	Offset  int  // links before the first
}

// LinkTotals returns links with what they brought. A link of today's catalog is among
// them without clicks too, if its partner and program are those of the filter.
func (r *Reader) LinkTotals(ctx context.Context, workspace string, f Filter, q LinkQuery) (rows []*LinkTotal,
	err error) {
	links, args := f.linksQuery(workspace, q.Reasons)
	c := &condition{args: args}
	c.and("true")
	c.addSearch("name", "link_id", q.Search)
	query := `
SELECT t.*, partner_name, program_name
FROM
(
	SELECT *, count() OVER () AS links
	FROM (` + links + `)
	WHERE ` + c.sql() + `
	ORDER BY ` + q.Sort.order() + `
	LIMIT ` + strconv.Itoa(q.Limit) + ` OFFSET ` + strconv.Itoa(q.Offset) + `
) AS t
LEFT JOIN
(
	SELECT partner_id AS partner_i, partner_name FROM partners_now WHERE workspace_id = {w:String}
) AS a ON a.partner_i = t.partner_id
LEFT JOIN
(
	SELECT program_id AS program_i, program_name FROM programs_now WHERE workspace_id = {w:String}
) AS b ON b.program_i = t.program_id
ORDER BY ` + q.Sort.order() + `
SETTINGS join_use_nulls = 0`
	err = scanRows(ctx, r.conn, "links", query, c.args, func(l *LinkTotal) error {
		rows = append(rows, l)
		return nil
	})
	return rows, err
}

// linksQuery is a query for a row for each link that f selects: what partner_days, the
// clicks if reasons are asked for, and the catalog say of it. Of the three only the
// catalog does not decide alone that a link is listed: its rows also name the links that
// others list.
func (f Filter) linksQuery(workspace string, reasons bool) (query string, args []any) {
	lines, args := f.linesQuery(workspace)
	const noReasons = "CAST(map(), 'Map(String, UInt64)')"
	covered := "clicks AS n_covered, tokened_clicks AS n_tokened"
	if f.People { // the rollup does not know whose clicks had the tokens
		covered = "toUInt64(0) AS n_covered, toUInt64(0) AS n_tokened"
	}
	clicks := ""
	if reasons {
		covered = "toUInt64(0) AS n_covered, toUInt64(0) AS n_tokened"
		coverage, more := f.coverageQuery(workspace)
		args = append(args, more...) // of equal names and values, where there are two
		clicks = `
	SELECT
		link_id, true, concat(domain, '/', slug), '', '', '', '',
		0, 0, 0, 0, clicks, tokened_clicks, reasons
	FROM (` + coverage + `)
	UNION ALL`
	}
	listed := &condition{}
	listed.and("true")
	for _, d := range []struct{ member, clause, id string }{
		{"partner", " = {partner:String}", f.Partner},
		{"program", " = {program:String}", f.Program},
		{"id", " = {link:String}", f.Link},
	} {
		if d.id != "" {
			listed.and("JSONExtractString(json, '" + d.member + "')" + d.clause)
		}
	}
	return `
SELECT
	link_id,
	multiIf(max(now_name) != '', max(now_name), max(click_name) != '', max(click_name), link_id) AS name,
	max(now_status) AS status,
	max(now_partner) AS partner_id,
	max(now_program) AS program_id,
	sum(n_clicks) AS clicks,
	sum(n_human) AS human_clicks,
	sum(n_leads) AS leads,
	sum(n_sales) AS sales,
	sum(n_covered) AS covered,
	sum(n_tokened) AS tokened,
	sumMap(n_reasons) AS reasons
FROM
(
	SELECT
		link_id, true AS listed, '' AS click_name,
		'' AS now_name, '' AS now_status, '' AS now_partner, '' AS now_program,
		clicks AS n_clicks, human_clicks AS n_human, leads AS n_leads, sales AS n_sales, ` + covered + `,
		` + noReasons + ` AS n_reasons
	FROM (` + lines + `)
	UNION ALL` + clicks + `
	SELECT
		JSONExtractString(json, 'id'), ` + listed.sql() + `, '',
		substring(key, 6), JSONExtractString(json, 'status'), JSONExtractString(json, 'partner'),
		JSONExtractString(json, 'program'), 0, 0, 0, 0, 0, 0, ` + noReasons + `
	FROM catalog_now
	WHERE kind = 'link' AND workspace_id = {w:String}
)
WHERE link_id != ''
GROUP BY link_id
HAVING max(listed)`, args
}

// LinkMoney calls each for the sums of each of some links in a currency, over all days
// that f selects. Only LinkID, Currency, Exponent and the sums are set.
func (r *Reader) LinkMoney(ctx context.Context, workspace string, f Filter, ids []string,
	each func(*Performance) error) error {
	lines, args := f.linesQuery(workspace)
	return scanRows(ctx, r.conn, "the revenue of links", `
SELECT link_id, currency, exponent,
	`+sumOfLines()+`
FROM (`+lines+`) AS x
WHERE link_id IN {ids:Array(String)}
GROUP BY link_id, currency, exponent
ORDER BY link_id, currency, exponent`, append(args, clickhouse.Named("ids", ids)), each)
}
