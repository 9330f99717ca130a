package web

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/catalog"
)

// linksOfPage is how many links a page of them lists.
const linksOfPage = 25

type linksPage struct {
	head
	zones
	From, To string      // days; empty: without end
	Choices  []choice    // of the form
	Search   string      // of the form
	Basis    string      // event or click
	People   bool        // only people's clicks are counted
	Error    string      // of a parameter; the page then shows the default
	Order    []option    // of the form
	Columns  []column    // of the table
	Links    []*linkLine // of this page
	All      uint64      // links of all pages
	Pager    *pager      // nil: all are on this page
	JSON     string      // link to the coverage of these links as JSON
}

// column is the head of a column.
type column struct {
	Text      string
	Number    bool   // it has numbers
	Href      string // the list in its order; empty: there is none
	Direction string // ascending, descending; empty: the list is in another order
}

// Pages is the pager of the links.
func (p *linksPage) Pages() labelledPager { return labelledPager{"Pages of links", p.Pager} }

// linkLine is a link with what it brought.
type linkLine struct {
	*report.LinkTotal
	Money   []moneyLine          // by currency
	Rate    string               // sales of clicks, in percent
	Share   string               // clicks with a token, in percent
	Missing []report.ReasonCount // clicks without a token by reason, the most first
	Href    string               // the report of this link
}

// serveLinksPage answers GET /links: what each link brought, and how many of its clicks
// carried a token.
func (s *Server) serveLinksPage(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), s.queryTime)
	defer cancel()
	req = req.WithContext(ctx)
	ws, ok := s.admitVisitor(w, req, "Links", partnerReporting)
	if !ok {
		return
	}
	p := &linksPage{head: newHead("Links", "links", ws), Basis: "event"}
	f, query, number, err := parseLinksPage(ws, req.URL.Query())
	var bad *report.BadParameter
	code := http.StatusOK
	if errors.As(err, &bad) {
		code = http.StatusBadRequest
		p.Error = bad.Error()
		f, query, number, err = parseLinksPage(ws, nil)
	}
	if err == nil {
		err = s.fillLinks(ctx, p, ws, s.withDays(f), query, number)
	}
	if err != nil {
		s.renderError(w, req, err)
		return
	}
	s.renderPage(w, code, "links", p)
}

// parseLinksPage reads the parameters of the page of links: a filter, without the kinds
// of events; q, sort and page.
func parseLinksPage(ws *catalog.Workspace, q url.Values) (f report.Filter, query report.LinkQuery, number int,
	err error) {
	number = 1
	query = report.LinkQuery{Sort: report.LinksBySales, Reasons: true}
	f, err = parseParameters(ws, q, func(name, value string) (known bool, err error) {
		switch name {
		case "q":
			query.Search, err = parseSearch(name, value)
		case "sort":
			query.Sort, err = parseWord(name, value, report.LinkSorts())
		case "page":
			number, err = parsePageNumber(name, value)
		default:
			return false, nil
		}
		return true, err
	})
	if byClick := f.ByClick; err == nil {
		f.ByClick = false // a choice of this page, unlike of the list of coverage
		err = refuseKinds(f)
		f.ByClick = byClick
	}
	return f, query, number, err
}

// fillLinks fills the page with the links that the filter and the query select.
func (s *Server) fillLinks(ctx context.Context, p *linksPage, ws *catalog.Workspace, f report.Filter,
	query report.LinkQuery, number int) error {
	if err := p.setZones(ws, f); err != nil {
		return err
	}
	p.From, p.To = formatDay(f.From), formatDay(f.To)
	p.Search, p.People = query.Search, f.People
	if f.ByClick {
		p.Basis = "click"
	}
	partners, programs, err := s.readOwners(ctx, ws.ID)
	if err != nil {
		return err
	}
	p.Choices = []choice{
		chooseName("partner", "Partner", "All partners", f.Partner, partners),
		chooseName("program", "Program", "All programs", f.Program, programs),
	}
	query.Limit = linksOfPage + 1
	query.Offset = (number - 1) * linksOfPage
	if p.Links, err = s.readLinks(ctx, ws.ID, f, query); err != nil {
		return err
	}
	more := len(p.Links) > linksOfPage
	p.Links = p.Links[:min(len(p.Links), linksOfPage)]
	if len(p.Links) > 0 {
		p.All = p.Links[0].All
	}
	p.setLinks(ws, f, query, number, more)
	return nil
}

// setLinks fills in the addresses of the other pages and orders.
func (p *linksPage) setLinks(ws *catalog.Workspace, f report.Filter, query report.LinkQuery, number int, more bool) {
	values := filterValues(f)
	if query.Search != "" {
		values.Set("q", query.Search)
	}
	coverage := maps.Clone(values)
	coverage.Del("basis")
	p.JSON = "/v1/workspaces/" + url.PathEscape(ws.ID) + "/coverage?" + coverage.Encode()
	for _, c := range []struct {
		sort              report.LinkSort
		text, order, goes string
	}{
		{report.LinksByName, "Link", "Address", "ascending"},
		{report.LinksByClicks, "Clicks", "Most clicks", "descending"},
		{report.LinksByLeads, "Leads", "Most leads", "descending"},
		{report.LinksBySales, "Sales", "Most sales", "descending"},
		{report.LinksByRate, "Rate", "Highest rate", "descending"},
		{"", "Net revenue", "", ""}, // of several currencies
		{report.LinksByCoverage, "Tokens", "Fewest tokens", "ascending"},
		{"", "Why without", "", ""},
	} {
		head := column{Text: c.text, Number: c.order != "Address" && c.text != "Why without"}
		if c.sort != "" {
			values.Set("sort", string(c.sort))
			head.Href = "/links?" + values.Encode() + "#links"
			p.Order = append(p.Order, option{string(c.sort), c.order, c.sort == query.Sort})
		}
		if c.sort == query.Sort {
			head.Direction = c.goes
		}
		p.Columns = append(p.Columns, head)
	}
	values.Set("sort", string(query.Sort))
	p.Pager = newPager("/links", values, "page", "links", number, linksOfPage, len(p.Links), more)
	if p.Pager != nil {
		p.Pager.All = p.All
	}
}

// readLinks returns links with their money.
func (s *Server) readLinks(ctx context.Context, workspace string, f report.Filter, query report.LinkQuery) (
	lines []*linkLine, err error) {
	totals, err := s.reader.LinkTotals(ctx, workspace, f, query)
	if err != nil || len(totals) == 0 {
		return nil, err
	}
	money := map[string]moneyTotals{}
	ids := make([]string, len(totals))
	for i, t := range totals {
		ids[i] = t.LinkID
		money[t.LinkID] = moneyTotals{}
	}
	err = s.reader.LinkMoney(ctx, workspace, f, ids, func(row *report.Performance) error {
		money[row.LinkID].add(row)
		return nil
	})
	for _, t := range totals {
		lines = append(lines, newLinkLine(t, f, money[t.LinkID]))
	}
	return lines, err
}

func newLinkLine(t *report.LinkTotal, f report.Filter, money moneyTotals) *linkLine {
	line := &linkLine{
		LinkTotal: t,
		Money:     money.lines(),
		Rate:      formatPercent(t.Sales, t.Clicks),
		Share:     formatPercent(t.Tokened, t.Covered),
	}
	for reason, count := range t.Reasons {
		line.Missing = append(line.Missing, report.ReasonCount{Reason: reason, Count: count})
	}
	slices.SortFunc(line.Missing, func(a, b report.ReasonCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason))
	})
	f.Link = t.LinkID
	line.Href = "/?" + filterValues(f).Encode()
	return line
}
