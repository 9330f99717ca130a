package web

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/calendar"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
)

const (
	topLinks     = 10  // that a page lists
	partnersPage = 25  // partners of a page, each once in each of its programs
	eventsPage   = 25  // events of a page
	pageDays     = 30  // that a page is about unless the filter says otherwise
	linkChoices  = 200 // of a form; where there are more, the page of links finds them
)

type performancePage struct {
	head
	zones
	From, To   string              // days; empty: without end
	Choices    []choice            // of the form
	Basis      string              // event or click
	People     bool                // only people's clicks are counted
	Error      string              // of a parameter; the page then shows the default
	Partners   []partnerLine       // of this page of them, the most sales first
	PartnerNav *pager              // nil: all partners are on this page
	Total      partnerLine         // of all partners
	NoRows     bool                // no partner has clicks or events
	Days       *chart              // nil: no rows
	Narrow     *chart              // the same for a phone
	Card       *linkCard           // nil: no link has clicks or events
	Links      []*linkLine         // the most sales first
	AllLinks   string              // the page of links, for the same days
	Events     []*eventLine        // of this page of them, the newest first
	EventNav   *pager              // nil: all events are on this page
	ShowEvents bool                // the workspace has conversion reporting
	CanExport  bool                // the workspace has exports
	CSV        string              // link to the performance as a file
	Rows       string              // link to the judged events as a file
	Fresh      *report.Freshness   // how far the tables go
	Joined     bool                // Fresh has a watermark
	Diagnosis  *report.Diagnosis   // why there is nothing; nil: there is something
	Ledger     ledger.Conservation // of the days that the page is about
	LedgerDays int                 // that have events
}

// zones say whose days a page has.
type zones struct {
	Zone    string   // of all days and times
	OwnZone string   // the workspace's now; empty: Zone is it
	Zones   []option // of the form; nil: there is one only
}

type option struct {
	Value, Text string
	Selected    bool
}

// choice is a field of the form with options.
type choice struct {
	Name, Label string
	Options     []option
}

// partnerLine is a partner in a program, or the total of all.
type partnerLine struct {
	PartnerID           string
	PartnerKey          string
	PartnerName         string
	PartnerRelationship string
	PartnerLifecycle    string
	ProgramID           string
	ProgramName         string
	report.Counts
	Money    []moneyLine // by currency
	Rate     string      // sales of clicks, in percent
	Coverage string      // clicks with a token, in percent
	Share    int         // of the largest partner's clicks, in percent
	Href     string      // the report of this partner in this program
}

// LostReversals are reversals that took something back.
func (l *partnerLine) LostReversals() uint64 { return l.Reversals - min(l.Reversals, l.GivenBack) }

// linkCard is the link that the page is about, or the one with the most sales.
type linkCard struct {
	*linkLine
	Chosen bool   // the filter names it
	CSV    string // link to its events as a file; empty: the workspace has no exports
}

// eventLine is an event with what took back from it below.
type eventLine struct {
	*report.RecentEvent
	At     string       // when it happened, by the clock of the page's zone
	Net    string       // standing_change and currency; empty: it changes no amount
	Beyond string       // what changed nothing of what stands, and currency; empty: nothing
	Down   bool         // it takes something back
	Below  []*eventLine // in the order in which they happened
	Under  string       // the parent, if it is not on this page
}

// servePerformancePage answers GET /: the report of the reader's workspace, or the
// sign-in form.
func (s *Server) servePerformancePage(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), s.queryTime)
	defer cancel()
	req = req.WithContext(ctx)
	ws, ok := s.admitVisitor(w, req, "Partner performance", partnerReporting)
	if !ok {
		return
	}
	p := &performancePage{head: newHead("Partner performance", "performance", ws), Basis: "event"}
	f, numbers, err := parsePerformancePage(ws, req.URL.Query())
	var bad *report.BadParameter
	code := http.StatusOK
	if errors.As(err, &bad) {
		code = http.StatusBadRequest
		p.Error = bad.Error()
		f, numbers, err = parsePerformancePage(ws, nil)
	}
	if err == nil {
		err = s.fillPerformance(ctx, p, ws, s.withDays(f), numbers)
	}
	if err != nil {
		s.renderError(w, req, err)
		return
	}
	s.renderPage(w, code, "performance", p)
}

// PartnerPager is the pager of the partners.
func (p *performancePage) PartnerPager() labelledPager {
	return labelledPager{"Pages of partners", p.PartnerNav}
}

// EventPager is the pager of the judged events.
func (p *performancePage) EventPager() labelledPager {
	return labelledPager{"Pages of events", p.EventNav}
}

// pageNumbers are the pages of the lists of the performance page, from 1.
type pageNumbers struct{ partners, events int }

func parsePerformancePage(ws *catalog.Workspace, q url.Values) (f report.Filter, n pageNumbers, err error) {
	n = pageNumbers{1, 1}
	f, err = parseParameters(ws, q, func(name, value string) (known bool, err error) {
		switch name {
		case "partner_page":
			n.partners, err = parsePageNumber(name, value)
		case "event_page":
			n.events, err = parsePageNumber(name, value)
		default:
			return false, nil
		}
		return true, err
	})
	return f, n, err
}

// withDays selects the last days where a filter of a page has none.
func (s *Server) withDays(f report.Filter) report.Filter {
	if f.From.IsZero() && f.To.IsZero() {
		f.To = f.Zone.DayOf(s.now())
		f.From = f.To.AddDate(0, 0, 1-pageDays)
	}
	return f
}

// fillPerformance fills the page with what f selects.
func (s *Server) fillPerformance(ctx context.Context, p *performancePage, ws *catalog.Workspace, f report.Filter,
	numbers pageNumbers) (err error) {
	if err := p.setZones(ws, f); err != nil {
		return err
	}
	p.setLinks(ws, f)
	// Before the rest: what the page says is joined must be in what it shows.
	if p.Fresh, err = s.reader.Freshness(ctx); err != nil {
		return err
	}
	p.Joined = p.Fresh.JoinedWatermark.Unix() > 0
	asking, groupCtx := errgroup.WithContext(ctx)
	asking.Go(func() (err error) {
		p.Choices, err = s.readChoices(groupCtx, ws.ID, f)
		return err
	})
	asking.Go(func() error { return s.fillPartners(groupCtx, p, ws.ID, f, numbers.partners) })
	asking.Go(func() error {
		days, err := s.reader.DayTotals(groupCtx, ws.ID, f)
		p.Days = drawChart(days, f, chartWidth)
		p.Narrow = drawChart(days, f, chartNarrow)
		return err
	})
	asking.Go(func() error { return s.fillTopLinks(groupCtx, p, ws, f) })
	if p.ShowEvents {
		asking.Go(func() error { return s.fillEvents(groupCtx, p, ws.ID, f, numbers.events) })
	}
	asking.Go(func() (err error) {
		p.Ledger, p.LedgerDays, err = s.reader.TotalConservation(groupCtx, ws.ID, f)
		return err
	})
	if err := asking.Wait(); err != nil {
		return err
	}
	if f.People {
		p.hideCoverage()
	}
	if p.NoRows = p.Total.Counts == (report.Counts{}); p.NoRows || p.Total.Leads+p.Total.Sales == 0 {
		p.Diagnosis, err = s.reader.Diagnose(ctx, ws.ID, f)
	}
	return err
}

// fillEvents fills in one page of the judged events.
func (s *Server) fillEvents(ctx context.Context, p *performancePage, workspace string, f report.Filter,
	number int) error {
	events, err := s.reader.RecentEvents(ctx, workspace, f, eventsPage+1, (number-1)*eventsPage)
	if err != nil {
		return err
	}
	more := len(events) > eventsPage
	events = events[:min(len(events), eventsPage)]
	p.EventNav = newPager("/", filterValues(f), "event_page", "events", number, eventsPage, len(events), more)
	p.Events, err = arrangeEvents(events, f.Zone)
	return err
}

// setZones fills in whose days the page has, and the choice of others.
func (p *zones) setZones(ws *catalog.Workspace, f report.Filter) error {
	own, err := report.ZoneOf(ws)
	if err != nil {
		return err
	}
	p.Zone = f.Zone.Name()
	utc := calendar.Zone{}.Name()
	if own.Name() == utc {
		return nil
	}
	if p.Zone != own.Name() {
		p.OwnZone = own.Name()
	}
	p.Zones = []option{{"", own.Name(), p.Zone == own.Name()}, {utc, utc, p.Zone == utc}}
	return nil
}

// setLinks fills in what follows from the filter and the workspace alone.
func (p *performancePage) setLinks(ws *catalog.Workspace, f report.Filter) {
	p.From = formatDay(f.From)
	p.To = formatDay(f.To)
	if f.ByClick {
		p.Basis = "click"
	}
	p.People = f.People
	lists := "/v1/workspaces/" + url.PathEscape(ws.ID)
	query := filterValues(f)
	query.Set("bom", "1")
	p.CSV = lists + "/performance.csv?" + query.Encode()
	query.Del("clicks")
	p.Rows = lists + "/outcomes.csv?" + query.Encode()
	p.AllLinks = "/links?" + linksValues(f).Encode()
	p.CanExport = ws.Access.Exports
	p.ShowEvents = ws.Access.ConversionReporting
}

// linksValues are the parameters of the page of links for what a filter selects.
func linksValues(f report.Filter) url.Values {
	f.Link = ""
	f.Type, f.Verdict, f.Review = nil, nil, nil
	return filterValues(f)
}

// readOwners returns the workspace's partners and programs.
func (s *Server) readOwners(ctx context.Context, workspace string) (partners, programs []report.CatalogName,
	err error) {
	if partners, err = s.reader.Partners(ctx, workspace); err != nil {
		return nil, nil, err
	}
	programs, err = s.reader.Programs(ctx, workspace)
	return partners, programs, err
}

// readChoices returns the fields of the form, with what the workspace has now.
func (s *Server) readChoices(ctx context.Context, workspace string, f report.Filter) ([]choice, error) {
	partners, programs, err := s.readOwners(ctx, workspace)
	if err != nil {
		return nil, err
	}
	links, err := s.reader.Links(ctx, workspace, linkChoices+1)
	if err != nil {
		return nil, err
	}
	if len(links) > linkChoices {
		links = slices.DeleteFunc(links, func(l report.CatalogName) bool { return l.ID != f.Link })
	}
	return []choice{
		chooseName("partner", "Partner", "All partners", f.Partner, partners),
		chooseName("program", "Program", "All programs", f.Program, programs),
		chooseName("link", "Link", "All links", f.Link, links),
		chooseWord("type", "Event type", "All types", f.Type, event.Texts(event.Types())),
		chooseWord("verdict", "Verdict", "All verdicts", f.Verdict, event.Texts(event.Verdicts())),
		chooseWord("review", "Review", "Any review", f.Review, event.Texts(event.Reviews())),
	}, nil
}

// chooseName is a field for one of several ids. An id that the catalog does not have
// stays selected.
func chooseName(name, label, all, selected string, list []report.CatalogName) choice {
	c := choice{name, label, []option{{"", all, selected == ""}}}
	known := selected == ""
	for _, n := range list {
		c.Options = append(c.Options, option{n.ID, cmp.Or(n.Name, n.ID), n.ID == selected})
		known = known || n.ID == selected
	}
	if !known {
		c.Options = append(c.Options, option{selected, selected, true})
	}
	return c
}

// chooseWord is a field for one of several words. A selection of several words, which
// only a link can have, stays selected.
func chooseWord(name, label, all string, selected, list []string) choice {
	c := choice{name, label, []option{{"", all, len(selected) == 0}}}
	if len(selected) > 1 {
		c.Options = append(c.Options, option{strings.Join(selected, ","), strings.Join(selected, ", "), true})
	}
	for _, word := range list {
		only := len(selected) == 1 && selected[0] == word
		c.Options = append(c.Options, option{word, strings.ToUpper(word[:1]) + word[1:], only})
	}
	return c
}

// fillPartners fills in one page of the partners, each in each of its programs, and the
// total.
func (s *Server) fillPartners(ctx context.Context, p *performancePage, workspace string, f report.Filter,
	number int) error {
	type key struct{ partner, program string }
	lines := map[key]*partnerLine{}
	money := map[key]moneyTotals{}
	var order []key
	total := moneyTotals{}
	err := s.reader.PartnerTotals(ctx, workspace, f, func(row *report.Performance) error {
		k := key{row.PartnerID, row.ProgramID}
		if lines[k] == nil {
			order = append(order, k)
			lines[k] = newPartnerLine(row)
			money[k] = moneyTotals{}
		}
		lines[k].Add(row.Counts)
		p.Total.Add(row.Counts)
		money[k].add(row)
		total.add(row)
		return nil
	})
	if err != nil {
		return err
	}
	largest := uint64(1)
	for _, k := range order {
		largest = max(largest, lines[k].Clicks)
	}
	for _, k := range order {
		lines[k].finish(money[k])
		lines[k].Share = int(100 * lines[k].Clicks / largest)
		own := f
		own.Partner, own.Program = k.partner, cmp.Or(k.program, f.Program)
		lines[k].Href = "/?" + filterValues(own).Encode()
		p.Partners = append(p.Partners, *lines[k])
	}
	p.Total.finish(total)
	slices.SortStableFunc(p.Partners, func(a, b partnerLine) int {
		return cmp.Or(cmp.Compare(b.Sales, a.Sales), cmp.Compare(b.Clicks, a.Clicks),
			cmp.Compare(a.PartnerName, b.PartnerName))
	})
	all := len(p.Partners)
	first := min((number-1)*partnersPage, all)
	p.Partners = p.Partners[first:min(first+partnersPage, all)]
	p.PartnerNav = newPager("/", filterValues(f), "partner_page", "partners", number, partnersPage, len(p.Partners),
		first+partnersPage < all)
	if p.PartnerNav != nil {
		p.PartnerNav.All = uint64(all)
	}
	return nil
}

func newPartnerLine(row *report.Performance) *partnerLine {
	return &partnerLine{
		PartnerID:           row.PartnerID,
		PartnerKey:          row.PartnerKey,
		PartnerName:         row.PartnerName,
		PartnerRelationship: row.PartnerRelationship,
		PartnerLifecycle:    row.PartnerLifecycle,
		ProgramID:           row.ProgramID,
		ProgramName:         row.ProgramName,
	}
}

// finish fills in what follows from the counts, and the money.
func (l *partnerLine) finish(money moneyTotals) {
	l.Money = money.lines()
	l.Rate = formatPercent(l.Sales, l.Clicks)
	l.Coverage = formatPercent(l.TokenedClicks, l.Clicks)
}

// hideCoverage leaves out the share of clicks with a token: the rollup does not know it of
// people's clicks.
func (p *performancePage) hideCoverage() {
	p.Total.Coverage = formatPercent(0, 0)
	for i := range p.Partners {
		p.Partners[i].Coverage = p.Total.Coverage
	}
}

// fillTopLinks fills in the links with the most sales, leads and clicks, and the card.
func (s *Server) fillTopLinks(ctx context.Context, p *performancePage, ws *catalog.Workspace, f report.Filter) (
	err error) {
	p.Links, err = s.readLinks(ctx, ws.ID, f, report.LinkQuery{Sort: report.LinksBySales, Limit: topLinks})
	if err != nil {
		return err
	}
	if f.Link != "" && len(p.Links) > 0 {
		p.Card = newLinkCard(p.Links[0], ws, f)
	}
	p.Links = slices.DeleteFunc(p.Links, func(l *linkLine) bool { return l.Clicks+l.Leads+l.Sales == 0 })
	best := slices.IndexFunc(p.Links, func(l *linkLine) bool { return l.PartnerID != "" })
	if p.Card == nil && best >= 0 {
		p.Card = newLinkCard(p.Links[best], ws, f)
	}
	return nil
}

func newLinkCard(line *linkLine, ws *catalog.Workspace, f report.Filter) *linkCard {
	card := &linkCard{linkLine: line, Chosen: f.Link != ""}
	f.Link = line.LinkID
	query := filterValues(f)
	list := "performance"
	if ws.Access.ConversionReporting {
		list = "outcomes"
		query.Del("clicks")
	}
	if ws.Access.Exports {
		query.Set("bom", "1")
		card.CSV = "/v1/workspaces/" + url.PathEscape(ws.ID) + "/" + list + ".csv?" + query.Encode()
	}
	return card
}

// arrangeEvents puts each negative below its parent if that is among them. events are
// the newest first; their times are shown by the clock of a zone.
func arrangeEvents(events []*report.RecentEvent, zone calendar.Zone) (out []*eventLine, err error) {
	var lines []*eventLine
	parents := map[report.EventKey]*eventLine{}
	for _, e := range events {
		line, err := newEventLine(e, zone)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
		if k := (report.EventKey{Token: e.ClickToken, ID: e.EventID}); parents[k] == nil && e.Effect != 0 {
			parents[k] = line
		}
	}
	for _, line := range lines {
		if event.Type(line.Type).Positive() { // what it names, it follows
			out = append(out, line)
			continue
		}
		parent := parents[report.EventKey{Token: line.ClickToken, ID: line.ParentEventID}]
		if line.ParentEventID == "" || parent == nil || parent == line {
			line.Under = line.ParentEventID
			out = append(out, line)
			continue
		}
		parent.Below = append(parent.Below, line)
	}
	for _, line := range lines {
		slices.Reverse(line.Below)
	}
	return out, nil
}

func newEventLine(e *report.RecentEvent, zone calendar.Zone) (*eventLine, error) {
	line := &eventLine{RecentEvent: e, At: formatLocal(e.OccurredAt, zone.Location()), Down: e.Effect < 0}
	if e.Change != nil {
		line.Net = groupDigits(*e.Change) + " " + e.Currency
	}
	beyond, err := e.Beyond()
	if beyond != "" {
		line.Beyond = groupDigits(beyond) + " " + e.Currency
	}
	return line, err
}
