package web

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/calendar"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/statement"
)

// shownAccounts is how many accounts the page shows; the CSV has all.
const shownAccounts = 1000

type statementPage struct {
	head
	Month     string // such as 2026-11
	MonthName string // such as November 2026
	Zone      string // of the month
	Previous  string // link to the month before
	Next      string // link to the month behind; empty: it has not begun
	Choices   []choice
	Error     string // of a parameter; the page then shows the default

	Status       statement.Status
	End          string // of the month, by its zone's clock
	FinalAt      string // the same; empty: not known
	Watermark    string // the same; empty: not known
	Accounts     []accountLine
	More         bool // there are more accounts
	Totals       []accountLine
	Approximated uint64 // events in whose place effect × amount stands
	BelowZero    bool   // some closing is
	CanExport    bool   // the workspace has exports
	CSV          string // link to the statement as a file
}

// accountLine is an account, or the total of a currency.
type accountLine struct {
	PartnerID   string
	PartnerKey  string
	PartnerName string
	Currency    string
	statement.Counts

	Opening    string
	Attributed string
	TakenBack  string
	GivenBack  string
	Closing    string
	Down       bool // the closing is below zero

	// What was dated into earlier months; empty: nothing.
	AttributedEarlier string
	TakenBackEarlier  string
	GivenBackEarlier  string
}

// serveStatementPage answers GET /statement: the statement of account of one month.
func (s *Server) serveStatementPage(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), s.queryTime)
	defer cancel()
	req = req.WithContext(ctx)
	ws, ok := s.admitVisitor(w, req, "Statement of account", partnerReporting)
	if !ok {
		return
	}
	p := &statementPage{head: newHead("Statement of account", "statement", ws)}
	code, err := s.fillStatement(ctx, p, ws, req.URL.Query())
	if err != nil {
		s.renderError(w, req, err)
		return
	}
	s.renderPage(w, code, "statement", p)
}

// fillStatement fills the page with what the parameters select: without a month, the
// one that runs.
func (s *Server) fillStatement(ctx context.Context, p *statementPage, ws *catalog.Workspace, q url.Values) (code int,
	err error) {
	zone, err := report.ZoneOf(ws)
	if err != nil {
		return 0, err
	}
	code = http.StatusOK
	present := statement.MonthOf(s.now(), zone)
	if q.Get("month") == "" {
		q.Set("month", present.String())
	}
	f, _, err := parseStatement(ws, q)
	var bad *report.BadParameter
	if errors.As(err, &bad) {
		code = http.StatusBadRequest
		p.Error = bad.Error()
		f = report.StatementFilter{Month: present}
	}
	p.setLinks(ws, f, present)
	if p.Choices, err = s.readStatementChoices(ctx, ws.ID, f); err != nil {
		return 0, err
	}
	h, err := s.reader.StatementHead(ctx, ws, f.Month)
	if err != nil {
		return 0, err
	}
	p.setHead(h, zone)
	totals := statement.Totals{}
	err = s.reader.Accounts(ctx, h, f, func(a *statement.Account) error {
		totals.Add(a)
		p.BelowZero = p.BelowZero || a.Closing.Sign() < 0
		p.Approximated += a.ApproximatedEvents
		if p.More = len(p.Accounts) == shownAccounts; !p.More {
			p.Accounts = append(p.Accounts, newAccountLine(a))
		}
		return nil
	})
	for _, total := range totals.List() {
		p.Totals = append(p.Totals, newTotalLine(total.Currency, total.Figures))
	}
	slices.SortStableFunc(p.Accounts, func(a, b accountLine) int {
		return cmp.Or(cmp.Compare(a.PartnerName, b.PartnerName), cmp.Compare(a.PartnerID, b.PartnerID))
	})
	return code, err
}

// setLinks fills in what follows from the filter and the workspace alone.
func (p *statementPage) setLinks(ws *catalog.Workspace, f report.StatementFilter, present statement.Month) {
	values := func(m statement.Month) string {
		q := url.Values{"month": {m.String()}}
		if f.Partner != "" {
			q.Set("partner", f.Partner)
		}
		if f.Program != "" {
			q.Set("program", f.Program)
		}
		return q.Encode()
	}
	first, _ := f.Month.Days()
	p.Month = f.Month.String()
	p.MonthName = first.Format("January 2006")
	p.Previous = "/statement?" + values(f.Month.Add(-1))
	if f.Month != present {
		p.Next = "/statement?" + values(f.Month.Add(1))
	}
	p.CanExport = ws.Access.Exports
	p.CSV = "/v1/workspaces/" + url.PathEscape(ws.ID) + "/statement.csv?bom=1&" + values(f.Month)
}

// setHead fills in what is known of the statement as a whole.
func (p *statementPage) setHead(h statement.Head, zone calendar.Zone) {
	clock := func(at *time.Time) string {
		if at == nil {
			return ""
		}
		return at.In(zone.Location()).Format("2 Jan 2006 15:04")
	}
	p.Zone = h.Timezone
	p.Status = h.Status
	p.End = clock(&h.End)
	p.FinalAt = clock(h.FinalAt)
	p.Watermark = clock(h.Watermark)
}

func (s *Server) readStatementChoices(ctx context.Context, workspace string, f report.StatementFilter) ([]choice,
	error) {
	partners, programs, err := s.readOwners(ctx, workspace)
	if err != nil {
		return nil, err
	}
	return []choice{
		chooseName("partner", "Partner", "All partners", f.Partner, partners),
		chooseName("program", "Program", "All programs", f.Program, programs),
	}, nil
}

func newAccountLine(a *statement.Account) accountLine {
	line := newTotalLine(a.Currency, a.Figures)
	line.PartnerID, line.PartnerKey, line.PartnerName = a.PartnerID, a.PartnerKey, a.PartnerName
	return line
}

func newTotalLine(currency string, f statement.Figures) accountLine {
	format := func(a statement.Amount) string { return groupDigits(a.String()) }
	formatSome := func(a statement.Amount) string {
		if a.IsZero() {
			return ""
		}
		return format(a)
	}
	return accountLine{
		Currency:          currency,
		Counts:            f.Counts,
		Opening:           format(f.Opening),
		Attributed:        format(f.Attributed),
		TakenBack:         format(f.TakenBack),
		GivenBack:         format(f.GivenBack),
		Closing:           format(f.Closing),
		Down:              f.Closing.Sign() < 0,
		AttributedEarlier: formatSome(f.AttributedEarlier),
		TakenBackEarlier:  formatSome(f.TakenBackEarlier),
		GivenBackEarlier:  formatSome(f.GivenBackEarlier),
	}
}
