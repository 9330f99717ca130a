package web

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/statement"
)

// statementAnswer is a page of the accounts of a statement.
type statementAnswer struct {
	Statement statement.Head       `json:"statement"`
	Totals    []statement.Total    `json:"totals"` // of all pages
	Rows      []*statement.Account `json:"rows"`
	Next      string               `json:"next_cursor,omitempty"` // for the next page; empty: there is none
}

// parseStatement reads the parameters of a statement: month, which is required,
// partner, program, and those that the caller names beside them.
func parseStatement(ws *catalog.Workspace, q url.Values, beside ...string) (f report.StatementFilter, page report.Page,
	err error) {
	for name := range q {
		if !slices.Contains(append(beside, "month", "partner", "program"), name) {
			return f, page, badParameter(name, "no such parameter")
		}
	}
	rest := maps.Clone(q)
	delete(rest, "month")
	filter, page, err := parseList(ws, rest, noMore)
	if err != nil {
		return f, page, err
	}
	f.Partner, f.Program = filter.Partner, filter.Program
	if len(q["month"]) > 1 {
		return f, page, badParameter("month", "given more than once")
	}
	if q.Get("month") == "" {
		return f, page, badParameter("month", "required: such as 2026-11")
	}
	if f.Month, err = statement.ParseMonth(q.Get("month")); err != nil {
		return f, page, badParameter("month", "%v", err)
	}
	return f, page, nil
}

// showStatement answers with a page of accounts. The totals are of all of them: every
// account is added up for each page.
func (s *Server) showStatement(w http.ResponseWriter, req *http.Request, ws *catalog.Workspace) error {
	f, page, err := parseStatement(ws, req.URL.Query(), "limit", "cursor")
	if err != nil {
		return err
	}
	if page.After != nil && len(page.After) != 2 {
		return badParameter("cursor", "not one of this list")
	}
	a := statementAnswer{Rows: []*statement.Account{}}
	if a.Statement, err = s.reader.StatementHead(req.Context(), ws, f.Month); err != nil {
		return err
	}
	totals := statement.Totals{}
	err = s.reader.Accounts(req.Context(), a.Statement, f, func(row *statement.Account) error {
		totals.Add(row)
		switch {
		case page.After != nil && slices.Compare(row.Key(), page.After) <= 0:
		case len(a.Rows) < page.Limit:
			a.Rows = append(a.Rows, row)
		case a.Next == "":
			a.Next = encodeCursor(a.Rows[page.Limit-1].Key())
		}
		return nil
	})
	if err != nil {
		return err
	}
	a.Totals = totals.List()
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(a)
}

func (s *Server) writeStatementCSV(w http.ResponseWriter, req *http.Request, ws *catalog.Workspace) error {
	query := req.URL.Query()
	bom, err := takeBOM(query)
	if err != nil {
		return err
	}
	f, _, err := parseStatement(ws, query)
	if err != nil {
		return err
	}
	h, err := s.reader.StatementHead(req.Context(), ws, f.Month)
	if err != nil {
		return err
	}
	name := ws.ID + "_statement_" + h.Month + ".csv"
	return s.writeCSV(w, req, name, statement.CSVHeader(), bom, func(d *download) error {
		return s.reader.Accounts(req.Context(), h, f, func(a *statement.Account) error {
			line, err := a.CSVLine(false)
			if err != nil {
				return err
			}
			return d.writeLine(line)
		})
	})
}
