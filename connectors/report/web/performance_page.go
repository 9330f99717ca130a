package web

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/calendar"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
)

const (
	topLinks   = 10  // that a page lists
	pageEvents = 100 // that a page lists
	pageDays   = 30  // that a page is about unless the filter says otherwise
)

type performancePage struct {
	head
	From, To   string              // days; empty: without end
	Zone       string              // of all days and times
	OwnZone    string              // the workspace's now; empty: Zone is it
	Zones      []option            // of the form; nil: there is one only
	Choices    []choice            // of the form
	Basis      string              // event or click
	People     bool                // only people's clicks are counted
	Error      string              // of a parameter; the page then shows the default
	Partners   []partnerLine       // the most sales first
	Total      partnerLine         // of all partners
	NoRows     bool                // no partner has clicks or events
	Days       *chart              // nil: no rows
	Links      []linkLine          // the most sales first
	Events     []*eventLine        // the newest first
	MoreEvents bool                // there are more than these
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
}

// LostReversals are reversals that took something back.
func (l *partnerLine) LostReversals() uint64 { return l.Reversals - min(l.Reversals, l.GivenBack) }

type linkLine struct {
	report.Counts
	Name     string
	Coverage string // clicks with a token, in percent
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
	p := &performancePage{
		head:  head{Title: "Partner performance", Workspace: ws.Name, Section: "performance"},
		Basis: "event",
	}
	f, err := parseFilter(ws, req.URL.Query())
	var bad *report.BadParameter
	code := http.StatusOK
	if errors.As(err, &bad) {
		code = http.StatusBadRequest
		p.Error = bad.Error()
		f, err = parseFilter(ws, nil)
	}
	if err != nil {
		s.renderError(w, req, err)
		return
	}
	if f.From.IsZero() && f.To.IsZero() {
		f.To = f.Zone.DayOf(s.now())
		f.From = f.To.AddDate(0, 0, 1-pageDays)
	}
	if err := s.fillPerformance(ctx, p, ws, f); err != nil {
		s.renderError(w, req, err)
		return
	}
	s.renderPage(w, code, "performance", p)
}

// fillPerformance fills the page with what f selects.
func (s *Server) fillPerformance(ctx context.Context, p *performancePage, ws *catalog.Workspace, f report.Filter) (
	err error) {
	if err := p.setZones(ws, f); err != nil {
		return err
	}
	p.setLinks(ws, f)
	links, err := s.reader.Links(ctx, ws.ID)
	if err != nil {
		return err
	}
	if p.Choices, err = s.readChoices(ctx, ws.ID, f, links); err != nil {
		return err
	}
	if err := s.fillPartners(ctx, p, ws.ID, f); err != nil {
		return err
	}
	days, err := s.reader.DayTotals(ctx, ws.ID, f)
	if err != nil {
		return err
	}
	p.Days = drawChart(days, f)
	if p.Links, err = s.readTopLinks(ctx, ws.ID, f, links); err != nil {
		return err
	}
	if f.People {
		p.hideCoverage()
	}
	if p.ShowEvents {
		events, err := s.reader.RecentEvents(ctx, ws.ID, f, pageEvents+1)
		if err != nil {
			return err
		}
		if p.MoreEvents = len(events) > pageEvents; p.MoreEvents {
			events = events[:pageEvents]
		}
		if p.Events, err = arrangeEvents(events, f.Zone); err != nil {
			return err
		}
	}
	if p.Fresh, err = s.reader.Freshness(ctx); err != nil {
		return err
	}
	p.Joined = p.Fresh.JoinedWatermark.Unix() > 0
	if p.Ledger, p.LedgerDays, err = s.reader.TotalConservation(ctx, ws.ID, f); err != nil {
		return err
	}
	if p.NoRows = len(p.Partners) == 0; p.NoRows || p.Total.Leads+p.Total.Sales == 0 {
		p.Diagnosis, err = s.reader.Diagnose(ctx, ws.ID, f)
	}
	return err
}

// setZones fills in whose days the page has, and the choice of others.
func (p *performancePage) setZones(ws *catalog.Workspace, f report.Filter) error {
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
	p.CanExport = ws.Access.Exports
	p.ShowEvents = ws.Access.ConversionReporting
}

// readChoices returns the fields of the form, with what the workspace has now.
func (s *Server) readChoices(ctx context.Context, workspace string, f report.Filter, links []report.CatalogName) (
	[]choice, error) {
	partners, err := s.reader.Partners(ctx, workspace)
	if err != nil {
		return nil, err
	}
	programs, err := s.reader.Programs(ctx, workspace)
	if err != nil {
		return nil, err
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

// fillPartners fills in the partners, each in each of its programs, and the total.
func (s *Server) fillPartners(ctx context.Context, p *performancePage, workspace string, f report.Filter) error {
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
		p.Partners = append(p.Partners, *lines[k])
	}
	p.Total.finish(total)
	slices.SortStableFunc(p.Partners, func(a, b partnerLine) int {
		return cmp.Or(cmp.Compare(b.Sales, a.Sales), cmp.Compare(b.Clicks, a.Clicks),
			cmp.Compare(a.PartnerName, b.PartnerName))
	})
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
	for i := range p.Links {
		p.Links[i].Coverage = p.Total.Coverage
	}
}

// readTopLinks returns the links with the most sales, leads and clicks.
func (s *Server) readTopLinks(ctx context.Context, workspace string, f report.Filter, names []report.CatalogName) (
	out []linkLine, err error) {
	rows, err := s.reader.LinkTotals(ctx, workspace, f)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(rows, func(a, b *report.Performance) int {
		return cmp.Or(cmp.Compare(b.Sales, a.Sales), cmp.Compare(b.Leads, a.Leads), cmp.Compare(b.Clicks, a.Clicks))
	})
	for _, row := range rows[:min(len(rows), topLinks)] {
		if row.LinkID == "" {
			continue
		}
		name := row.LinkID
		if i := slices.IndexFunc(names, func(n report.CatalogName) bool { return n.ID == row.LinkID }); i >= 0 {
			name = names[i].Name
		}
		out = append(out, linkLine{row.Counts, name, formatPercent(row.TokenedClicks, row.Clicks)})
	}
	return out, nil
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
