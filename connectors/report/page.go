package report

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/catalog"
)

//go:embed pages/*.html
var pageFiles embed.FS

var templates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"count": func(n uint64) string { return grouped(strconv.FormatUint(n, 10)) },
		"title": func(s string) string {
			if s == "" {
				return ""
			}
			return strings.ToUpper(s[:1]) + strings.ReplaceAll(s[1:], "_", " ")
		},
		"tone": tone,
		"when": func(t any) string {
			if p, ok := t.(*time.Time); ok {
				t = *p
			}
			return t.(time.Time).UTC().Format("2 Jan 2006 15:04:05")
		},
		"flag":   FlagWords,
		"stamp":  stamp,
		"indent": func(depth int) []int { return make([]int, min(depth, 12)) },
	}).ParseFS(pageFiles, "pages/*.html"))
})

// tone is the colour of a badge.
func tone(state string) string {
	switch state {
	case "approved", "active", "attributed", "clear":
		return "good"
	case "review", "invited", "waiting", "duplicate", "conflict":
		return "warn"
	case "banned", "declined", "reversed":
		return "bad"
	}
	return "mute"
}

// page is what every template gets.
type page interface {
	setNonce(string)
	nonce() string
}

type head struct {
	Title     string
	Nonce     string
	Workspace string // its name; empty when nobody is signed in
	Section   string
}

func (h *head) setNonce(n string) { h.Nonce = n }
func (h *head) nonce() string     { return h.Nonce }

func (s *Server) head(title string) head { return head{Title: title} }

type signInPage struct {
	head
	Workspace string
	Failed    bool
}

// MoneyLine is one currency's sums.
type MoneyLine struct {
	Currency                     string
	Gross, Negative, Net, Reward string
	Down                         bool // the net is below zero
}

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

// emptiness explains why a page has no rows.
type emptiness struct {
	Clicks, Tokened, Withheld, Off  uint64
	Received, Unattributed, Refused uint64
	Waiting                         uint64
	Reasons                         []counted
	OtherClicks                     uint64 // outside of the selected days
	WithheldReasons, RefusedReasons []counted
}

type counted struct {
	Name string `ch:"name"`
	N    uint64 `ch:"n"`
	Text string `ch:"-"`
}

// grouped writes digits in groups of three, with a space that does not break.
func grouped(digits string) string {
	sign, whole := "", digits
	if strings.HasPrefix(whole, "-") {
		sign, whole = "−", whole[1:]
	}
	whole, fraction, _ := strings.Cut(whole, ".")
	var b strings.Builder
	for i, d := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteString("\u202f")
		}
		b.WriteRune(d)
	}
	if fraction != "" {
		fraction = "." + fraction
	}
	return sign + b.String() + fraction
}

func money(units *big.Int, exponent uint8) string {
	if units == nil {
		units = new(big.Int)
	}
	digits := new(big.Int).Abs(units).String()
	if n := int(exponent); n > 0 {
		if len(digits) <= n {
			digits = strings.Repeat("0", n-len(digits)+1) + digits
		}
		digits = digits[:len(digits)-n] + "." + digits[len(digits)-n:]
	}
	if units.Sign() < 0 {
		digits = "-" + digits
	}
	return grouped(digits)
}

func percent(part, whole uint64) string {
	if whole == 0 {
		return "–"
	}
	return strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 1, 64) + "\u202f%"
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
	p := &reportPage{head: head{Title: "Partner performance", Workspace: ws.Name, Section: "performance"}, Basis: "event"}
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

// admit lets a visitor in, or shows the sign-in form, or why the workspace may not look.
func (s *Server) admit(w http.ResponseWriter, req *http.Request, title string, need ...feature) (*catalog.Workspace, bool) {
	ws, err := s.enter(req, "", need...)
	if err == nil {
		return ws, true
	}
	var p *problem
	if !errors.As(err, &p) {
		s.broken(w, req, err)
		return nil, false
	}
	switch p.Status {
	case http.StatusUnauthorized:
		s.render(w, http.StatusUnauthorized, "signin", &signInPage{head: s.head("Sign in")})
	case http.StatusForbidden:
		s.render(w, http.StatusForbidden, "message", &messagePage{head: head{Title: title, Workspace: ws.ID}, Heading: "Not part of this workspace's plan",
			Text: "Partner reports need the Professional or Enterprise plan and this workspace's access to them (" + p.Field + "). Clicks and events are stored all the same and will be here once it is granted."})
	default:
		s.broken(w, req, err)
	}
	return nil, false
}

type messagePage struct {
	head
	Heading, Text string
}

func (s *Server) broken(w http.ResponseWriter, req *http.Request, err error) {
	p := s.asProblem(req, err)
	s.render(w, p.Status, "message", &messagePage{head: head{Title: "Not now", Workspace: " "}, Heading: "This report cannot be shown now", Text: p.Detail})
}

// sums reads lines added up by some of their columns.
func (r *Reader) sums(ctx context.Context, workspace string, f Filter, by string) (rows []*Performance, err error) {
	lines, args := f.lines(workspace)
	dims := by
	if by == "day" {
		dims = "toString(x.day) AS day"
	}
	err = stream(ctx, r.conn, "reading performance", "SELECT "+dims+", "+sums+" FROM ("+lines+") AS x GROUP BY "+by+" ORDER BY "+by, args, func(p *Performance) error {
		rows = append(rows, p)
		return nil
	})
	return rows, err
}

func (p *Performance) add(q *Performance) {
	p.Clicks += q.Clicks
	p.HumanClicks += q.HumanClicks
	p.TokenedClicks += q.TokenedClicks
	p.Leads += q.Leads
	p.Sales += q.Sales
	p.Refunds += q.Refunds
	p.Cancellations += q.Cancellations
	p.Reversals += q.Reversals
}

// purses adds up money by currency; amounts of one currency with different digits are brought to the larger number of them.
type purses struct {
	list []*purseOf
}

type purseOf struct {
	currency                     string
	exponent                     uint8
	gross, negative, net, reward big.Int
}

func (p *purses) add(q *Performance) {
	if q.Currency == "" || q.GrossMinor.Sign() == 0 && q.NegativeMinor.Sign() == 0 && q.RewardMinor.Sign() == 0 {
		return
	}
	i := slices.IndexFunc(p.list, func(x *purseOf) bool { return x.currency == q.Currency })
	if i < 0 {
		i, p.list = len(p.list), append(p.list, &purseOf{currency: q.Currency, exponent: q.Exponent})
	}
	x := p.list[i]
	scale := func(by uint8) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(by)), nil) }
	if q.Exponent > x.exponent {
		for _, sum := range []*big.Int{&x.gross, &x.negative, &x.net, &x.reward} {
			sum.Mul(sum, scale(q.Exponent-x.exponent))
		}
		x.exponent = q.Exponent
	}
	for sum, v := range map[*big.Int]*big.Int{&x.gross: q.GrossMinor, &x.negative: q.NegativeMinor, &x.net: q.NetMinor, &x.reward: q.RewardMinor} {
		sum.Add(sum, new(big.Int).Mul(v, scale(x.exponent-q.Exponent)))
	}
}

func (p *purses) lines() (out []MoneyLine) {
	slices.SortFunc(p.list, func(a, b *purseOf) int { return cmp.Compare(a.currency, b.currency) })
	for _, x := range p.list {
		out = append(out, MoneyLine{Currency: x.currency, Gross: money(&x.gross, x.exponent), Negative: money(&x.negative, x.exponent), Net: money(&x.net, x.exponent), Reward: money(&x.reward, x.exponent), Down: x.net.Sign() < 0})
	}
	return out
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
	p.Choices = []choice{pick("partner", "Partner", "All partners", f.Partner, partners), pick("program", "Program", "All programs", f.Program, programs), pick("link", "Link", "All links", f.Link, links),
		pickWord("type", "Event type", "All types", f.Type, types), pickWord("verdict", "Verdict", "All verdicts", f.Verdict, verdicts), pickWord("review", "Review", "Any review", f.Review, reviews)}
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
	days1 := Filter{From: f.From, To: f.To}
	if err := s.reader.Conservation(ctx, ws.ID, days1, 10_000, func(c *Conservation) error {
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
		c.Options = append(c.Options, option{word, strings.ToUpper(word[:1]) + word[1:], len(selected) == 1 && selected[0] == word})
	}
	return c
}

func (s *Server) fillPartners(ctx context.Context, p *reportPage, workspace string, f Filter) error {
	lines, args := f.lines(workspace)
	type of struct{ partner, program string }
	at := map[of]int{}
	wallets, total := []*purses{}, &purses{}
	err := stream(ctx, s.reader.conn, "reading performance", "SELECT partner_id, partner_key, partner_name, partner_relationship, partner_lifecycle, program_id, program_key, program_name, program_status, currency, exponent, "+
		"clicks, human_clicks, tokened_clicks, leads, sales, refunds, cancellations, reversals, gross_minor, negative_minor, net_minor, reward_minor FROM ("+
		named("SELECT workspace_id, partner_id, program_id, currency, exponent, "+sums+" FROM ("+lines+") AS x GROUP BY workspace_id, partner_id, program_id, currency, exponent")+
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
	p.Total.Money, p.Total.Rate, p.Total.Coverage = total.lines(), percent(p.Total.Sales, p.Total.Clicks), percent(p.Total.TokenedClicks, p.Total.Clicks)
	slices.SortStableFunc(p.Partners, func(a, b partnerLine) int {
		return cmp.Or(cmp.Compare(b.Sales, a.Sales), cmp.Compare(b.Clicks, a.Clicks), cmp.Compare(a.PartnerName, b.PartnerName))
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

// emptiness counts what there is around a page without rows.
func (r *Reader) emptiness(ctx context.Context, workspace string, f Filter) (*emptiness, error) {
	e := &emptiness{}
	clicks := &condition{}
	clicks.and("workspace_id = {w:String}", "w", workspace)
	f.who(clicks)
	f.days(clicks, "toDate(clicked_at)")
	var of []struct {
		Clicks   uint64 `ch:"clicks"`
		Tokened  uint64 `ch:"tokened"`
		Withheld uint64 `ch:"withheld"`
		Off      uint64 `ch:"off"`
	}
	err := r.conn.Select(ctx, &of, "SELECT count() AS clicks, countIf(token_status = 'appended') AS tokened, countIf(token_status = 'withheld') AS withheld, countIf(token_status = 'off') AS off FROM clicks WHERE "+clicks.text(), clicks.args...)
	if err == nil {
		e.Clicks, e.Tokened, e.Withheld, e.Off = of[0].Clicks, of[0].Tokened, of[0].Withheld, of[0].Off
		err = r.conn.Select(ctx, &e.WithheldReasons, "SELECT toString(token_reason) AS name, count() AS n FROM clicks WHERE token_status != 'appended' AND "+clicks.text()+" GROUP BY name ORDER BY n DESC, name LIMIT 6", clicks.args...)
	}
	events := f.events(workspace)
	if err == nil {
		err = r.conn.Select(ctx, &e.Reasons, "SELECT toString(reason) AS name, count() AS n FROM outcomes WHERE verdict = 'unattributed' AND "+events.text()+" GROUP BY name ORDER BY n DESC, name LIMIT 8", events.args...)
	}
	days := &condition{}
	days.and("workspace_id = {w:String}", "w", workspace)
	f.days(days, "toDate(received_at)")
	if err == nil {
		err = r.conn.Select(ctx, &e.RefusedReasons, "SELECT toString(code) AS name, count() AS n FROM rejections WHERE "+days.text()+" GROUP BY name ORDER BY n DESC, name LIMIT 6", days.args...)
	}
	var other []counted
	if err == nil {
		err = r.conn.Select(ctx, &other, "SELECT '' AS name, count() AS n FROM clicks WHERE workspace_id = {w:String}", clickhouse.Named("w", workspace))
	}
	if err == nil {
		err = r.Conservation(ctx, workspace, Filter{From: f.From, To: f.To}, 10_000, func(c *Conservation) error {
			e.Received += c.Received
			e.Waiting += c.Waiting
			e.Unattributed += c.Unattributed
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("counting what is around: %w", err)
	}
	if other[0].N > e.Clicks {
		e.OtherClicks = other[0].N - e.Clicks
	}
	for i := range e.Reasons {
		e.Reasons[i].Text = ReasonWords(e.Reasons[i].Name)
	}
	for i := range e.WithheldReasons {
		e.WithheldReasons[i].Text = TokenWords(e.WithheldReasons[i].Name)
	}
	for _, x := range e.RefusedReasons {
		e.Refused += x.N
	}
	return e, nil
}

// Taken is the number of events that took something back.
func (p *Performance) Taken() uint64 { return p.Refunds + p.Cancellations + p.Reversals }

type whyPage struct {
	head
	EventID string
	Answer  *Answer
	Error   string
}

// whyPage answers GET /why: a field for an event's id, and the story of that event.
func (s *Server) whyPage(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), s.queryTime)
	defer cancel()
	req = req.WithContext(ctx)
	ws, ok := s.admit(w, req, "Why", partnerReporting, conversionReporting)
	if !ok {
		return
	}
	p := &whyPage{head: head{Title: "Why an event counts as it does", Workspace: ws.Name, Section: "why"}, EventID: strings.TrimSpace(req.URL.Query().Get("event_id"))}
	code := http.StatusOK
	switch {
	case len(p.EventID) > 128:
		p.Error, code = "An event's id has at most 128 bytes.", http.StatusBadRequest
	case p.EventID != "":
		var err error
		if p.Answer, err = s.reader.Why(ctx, ws.ID, p.EventID); err != nil {
			s.broken(w, req, err)
			return
		}
	}
	s.render(w, code, "why", p)
}

type disputePage struct {
	head
	Partners []Name
	Partner  string
	Error    string
	Findings []Finding
	Totals   []Total
	Done     bool
	More     bool
}

// shownFindings is how many answers the page shows; `ctl dispute` has no limit.
const shownFindings = 1000

// disputePage answers GET and POST /dispute: a partner's list of orders goes in, a verdict on each comes out. Nothing of it is kept.
func (s *Server) disputePage(w http.ResponseWriter, req *http.Request) {
	s.bound(w, disputeTime)
	ctx, cancel := context.WithTimeout(req.Context(), disputeTime)
	defer cancel()
	req = req.WithContext(ctx)
	ws, ok := s.admit(w, req, "Dispute", partnerReporting, conversionReporting)
	if !ok {
		return
	}
	p := &disputePage{head: head{Title: "Check a list of orders", Workspace: ws.Name, Section: "dispute"}}
	var err error
	if p.Partners, _, _, err = s.reader.names(ctx, ws.ID); err != nil {
		s.broken(w, req, err)
		return
	}
	code := http.StatusOK
	if req.Method == http.MethodPost {
		if !sameSite(req) {
			refuse(w, &problem{Status: http.StatusForbidden, Code: "cross_site", Detail: "this form came from another site"})
			return
		}
		req.Body = http.MaxBytesReader(w, req.Body, maxClaims)
		err := s.judgeList(req, p, ws.ID)
		var bad *BadClaim
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &bad), errors.As(err, &tooLarge), errors.Is(err, ErrTooMany):
			p.Error = err.Error()
		case err != nil && errors.Is(err, errForm):
			p.Error = "Choose a CSV file with the columns order_id (or event_id), amount and currency."
		case err != nil:
			s.broken(w, req, err)
			return
		}
		if p.Error != "" {
			p.Findings, p.Totals, p.Done, code = nil, nil, false, http.StatusBadRequest
		}
	}
	s.render(w, code, "dispute", p)
}

// errForm is a form without a file.
var errForm = errors.New("no file in the form")

func (s *Server) judgeList(req *http.Request, p *disputePage, workspace string) error {
	file, header, err := req.FormFile("file")
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return fmt.Errorf("%w: %w", errForm, err)
	}
	defer file.Close()
	defer req.MultipartForm.RemoveAll()
	p.Partner = req.PostFormValue("partner")
	claims, err := ReadClaims(file, header.Filename)
	if err != nil {
		return err
	}
	d := s.reader.Dispute(workspace, p.Partner)
	for end := false; !end; {
		var batch []Claim
		for len(batch) < BatchClaims {
			c, err := claims.Next()
			if errors.Is(err, io.EOF) {
				end = true
				break
			}
			if err != nil {
				return err
			}
			batch = append(batch, c)
		}
		if len(batch) == 0 {
			break
		}
		found, err := d.Judge(req.Context(), batch)
		if err != nil {
			return err
		}
		if room := shownFindings - len(p.Findings); len(found) > room {
			p.More, found = true, found[:room]
		}
		p.Findings = append(p.Findings, found...)
	}
	p.Totals, p.Done = d.Totals(), true
	return nil
}
