package report

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nimriz/partners/schemas/catalog"
)

// partnerLine is a partner in a program.
type partnerLine struct {
	Performance
	Money    []MoneyLine
	Rate     string
	Coverage string
	Share    int // of the largest partner's clicks, in percent
}

type option struct {
	Value, Text string
	Selected    bool
}

type choice struct {
	Name, Label string
	Options     []option
}

type reportPage struct {
	head
	Filter     Filter
	From, To   string
	Choices    []choice
	Basis      string
	Error      string
	NoRows     bool
	Partners   []partnerLine
	Total      partnerLine
	Days       *chart
	Links      []linkLine
	Events     []*eventLine
	MoreEvents bool
	ShowEvents bool
	CanExport  bool
	CSV, Rows  string // links
	Fresh      *Freshness
	Joined     bool
	Empty      *emptiness
	Ledger     ledger
}

type linkLine struct {
	Performance
	Name     string
	Coverage string
	Rate     string
}

// eventLine is an event with what took back from it below.
type eventLine struct {
	*Conversion
	Net   string
	Down  bool
	Below []*eventLine
	Under string // the parent, where it is not on this page
}

// ledger is the conservation of the days that the page is about.
type ledger struct {
	Conservation
	Any bool
}

// page answers GET /: the sign-in form, or the report of the reader's workspace.
func (s *Server) page(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), s.queryTime)
	defer cancel()
	req = req.WithContext(ctx)
	ws, ok := s.admit(w, req, "Partner performance", partnerReporting)
	if !ok {
		return
	}
	p := &reportPage{head: head{Title: "Partner performance", Workspace: ws.Name, Section: "performance"},
		Basis: "event"}
	f, err := parseFilter(req.URL.Query())
	var bad *BadParameter
	code := http.StatusOK
	if errors.As(err, &bad) {
		code, p.Error = http.StatusBadRequest, bad.Error()
		f = Filter{}
	}
	if f.From.IsZero() && f.To.IsZero() {
		f.To = s.now().UTC().Truncate(24 * time.Hour)
		f.From = f.To.AddDate(0, 0, -29)
	}
	if err := s.fill(req.Context(), p, ws, f); err != nil {
		s.broken(w, req, err)
		return
	}
	s.render(w, code, "performance", p)
}

func (s *Server) fill(ctx context.Context, p *reportPage, ws *catalog.Workspace, f Filter) error {
	p.Filter, p.From, p.To = f, "", ""
	if !f.From.IsZero() {
		p.From = f.From.Format(time.DateOnly)
	}
	if !f.To.IsZero() {
		p.To = f.To.Format(time.DateOnly)
	}
	if f.ByClick {
		p.Basis = "click"
	}
	q := f.values()
	p.Rows = "/v1/workspaces/" + url.PathEscape(ws.ID) + "/outcomes.csv?" + q.Encode()
	p.CSV = "/v1/workspaces/" + url.PathEscape(ws.ID) + "/performance.csv?" + q.Encode()
	p.CanExport = ws.Access.Exports
	p.ShowEvents = ws.Access.ConversionReporting
	partners, programs, links, err := s.reader.names(ctx, ws.ID)
	if err != nil {
		return err
	}
	p.Choices = []choice{pick("partner", "Partner", "All partners", f.Partner, partners),
		pick("program", "Program", "All programs", f.Program, programs), pick("link", "Link", "All links",
			f.Link, links),
		pickWord("type", "Event type", "All types", f.Type, types), pickWord("verdict", "Verdict", "All verdicts",
			f.Verdict, verdicts), pickWord("review", "Review", "Any review", f.Review, reviews)}
	if err := s.fillPartners(ctx, p, ws.ID, f); err != nil {
		return err
	}
	days, err := s.reader.sums(ctx, ws.ID, f, "day")
	if err != nil {
		return err
	}
	p.Days = draw(days, f)
	if p.Links, err = s.links(ctx, ws.ID, f, links); err != nil {
		return err
	}
	if p.ShowEvents {
		if p.Events, p.MoreEvents, err = s.eventLines(ctx, ws.ID, f); err != nil {
			return err
		}
	}
	if p.Fresh, err = s.reader.Freshness(ctx); err != nil {
		return err
	}
	p.Joined = p.Fresh.JoinedWatermark.Unix() > 0
	ledgerDays := Filter{From: f.From, To: f.To}
	if err := s.reader.Conservation(ctx, ws.ID, ledgerDays, 10_000, func(c *Conservation) error {
		p.Ledger.Any = true
		p.Ledger.Received += c.Received
		p.Ledger.Attributed += c.Attributed
		p.Ledger.Reversed += c.Reversed
		p.Ledger.Duplicate += c.Duplicate
		p.Ledger.Conflict += c.Conflict
		p.Ledger.Unattributed += c.Unattributed
		p.Ledger.Waiting += c.Waiting
		p.Ledger.Difference += c.Difference
		return nil
	}); err != nil {
		return err
	}
	if p.NoRows = len(p.Partners) == 0; p.NoRows || p.Total.Leads+p.Total.Sales == 0 {
		p.Empty, err = s.reader.emptiness(ctx, ws.ID, f)
	}
	return err
}

func pick(name, label, all, selected string, list []Name) choice {
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

func pickWord(name, label, all string, selected, list []string) choice {
	c := choice{name, label, []option{{"", all, len(selected) == 0}}}
	if len(selected) > 1 {
		c.Options = append(c.Options, option{strings.Join(selected, ","), strings.Join(selected, ", "), true})
	}
	for _, word := range list {
		c.Options = append(c.Options, option{word, strings.ToUpper(word[:1]) + word[1:], len(selected) == 1 &&
			selected[0] == word})
	}
	return c
}

func (s *Server) fillPartners(ctx context.Context, p *reportPage, workspace string, f Filter) error {
	lines, args := f.lines(workspace)
	type of struct{ partner, program string }
	at := map[of]int{}
	wallets, total := []*purses{}, &purses{}
	err := stream(ctx, s.reader.conn, "reading performance",
		"SELECT partner_id, partner_key, partner_name, partner_relationship, partner_lifecycle, program_id, "+
			"program_key, program_name, program_status, currency, exponent, "+
			"clicks, human_clicks, tokened_clicks, leads, sales, refunds, cancellations, reversals, gross_minor, "+
			"negative_minor, net_minor, reward_minor FROM ("+
			named("SELECT workspace_id, partner_id, program_id, currency, exponent, "+sums+" FROM ("+lines+
				") AS x GROUP BY workspace_id, partner_id, program_id, currency, exponent")+
			") ORDER BY partner_id, program_id, currency, exponent SETTINGS join_use_nulls = 0", args, func(row *Performance) error {
			k := of{row.PartnerID, row.ProgramID}
			i, ok := at[k]
			if !ok {
				i, at[k] = len(p.Partners), len(p.Partners)
				line := partnerLine{Performance: *row}
				line.Clicks, line.HumanClicks, line.TokenedClicks, line.Leads, line.Sales, line.Refunds, line.Cancellations, line.Reversals = 0, 0, 0, 0, 0, 0, 0, 0
				p.Partners, wallets = append(p.Partners, line), append(wallets, &purses{})
			}
			p.Partners[i].add(row)
			p.Total.add(row)
			wallets[i].add(row)
			total.add(row)
			return nil
		})
	if err != nil {
		return err
	}
	largest := uint64(1)
	for i := range p.Partners {
		x := &p.Partners[i]
		x.Money, x.Rate, x.Coverage = wallets[i].lines(), percent(x.Sales, x.Clicks), percent(x.TokenedClicks, x.Clicks)
		largest = max(largest, x.Clicks)
	}
	for i := range p.Partners {
		p.Partners[i].Share = int(100 * p.Partners[i].Clicks / largest)
	}
	p.Total.Money, p.Total.Rate, p.Total.Coverage = total.lines(), percent(p.Total.Sales,
		p.Total.Clicks), percent(p.Total.TokenedClicks, p.Total.Clicks)
	slices.SortStableFunc(p.Partners, func(a, b partnerLine) int {
		return cmp.Or(cmp.Compare(b.Sales, a.Sales), cmp.Compare(b.Clicks, a.Clicks),
			cmp.Compare(a.PartnerName, b.PartnerName))
	})
	return nil
}

// topLinks is how many links a page lists.
const topLinks = 10

func (s *Server) links(ctx context.Context, workspace string, f Filter, names []Name) (out []linkLine, err error) {
	rows, err := s.reader.sums(ctx, workspace, f, "link_id")
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(rows, func(a, b *Performance) int {
		return cmp.Or(cmp.Compare(b.Sales, a.Sales), cmp.Compare(b.Leads, a.Leads), cmp.Compare(b.Clicks, a.Clicks))
	})
	for _, row := range rows[:min(len(rows), topLinks)] {
		if row.LinkID == "" {
			continue
		}
		name := row.LinkID
		if i := slices.IndexFunc(names, func(n Name) bool { return n.ID == row.LinkID }); i >= 0 {
			name = names[i].Name
		}
		out = append(out, linkLine{*row, name, percent(row.TokenedClicks, row.Clicks), percent(row.Sales, row.Clicks)})
	}
	return out, nil
}

// pageEvents is how many events a page lists.
const pageEvents = 100

// eventLines are the newest events, each below its parent where that is among them.
func (s *Server) eventLines(ctx context.Context, workspace string, f Filter) (out []*eventLine, more bool, err error) {
	var rows []*eventLine
	type key struct{ token, id string }
	parents := map[key]*eventLine{}
	err = s.reader.Conversions(ctx, workspace, f, true, pageEvents+1, func(c *Conversion) error {
		line := &eventLine{Conversion: c}
		if c.NetAmount != nil {
			line.Net, line.Down = grouped(*c.NetAmount)+" "+c.Currency, c.Effect < 0
		}
		rows = append(rows, line)
		if k := (key{c.ClickToken, c.EventID}); parents[k] == nil && c.Effect != 0 {
			parents[k] = line
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	if more = len(rows) > pageEvents; more {
		rows = rows[:pageEvents]
	}
	for _, line := range rows {
		parent := parents[key{line.ClickToken, line.ParentEventID}]
		if line.ParentEventID == "" || parent == nil || parent == line || !slices.Contains(rows, parent) {
			if line.ParentEventID != "" {
				line.Under = line.ParentEventID
			}
			out = append(out, line)
			continue
		}
		parent.Below = append(parent.Below, line)
	}
	for _, line := range rows {
		slices.Reverse(line.Below) // in the order in which they happened
	}
	return out, more, nil
}

// Taken is the number of events that took something back.
func (p *Performance) Taken() uint64 { return p.Refunds + p.Cancellations + p.Reversals }
