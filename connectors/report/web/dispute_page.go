package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/connectors/report/dispute"
)

type disputePage struct {
	head
	Partners []report.CatalogName // to choose from
	Partner  string               // id that was chosen; may be empty
	Error    string
	Findings []dispute.Finding // at most shownFindings
	Totals   []dispute.Total   // of the whole list
	Warnings dispute.Warnings  // of the whole list
	Done     bool              // the list was answered
	More     bool              // there are more findings
}

// shownFindings is how many answers the page shows; `ctl dispute` has no limit.
const shownFindings = 1000

// serveDisputePage answers GET and POST /dispute: a partner's list of orders goes in, a
// verdict on each comes out. Nothing of the list is stored.
func (s *Server) serveDisputePage(w http.ResponseWriter, req *http.Request) {
	s.limitTime(w, disputeTime)
	ctx, cancel := context.WithTimeout(req.Context(), disputeTime)
	defer cancel()
	req = req.WithContext(ctx)
	ws, ok := s.admitVisitor(w, req, "Dispute", partnerReporting, conversionReporting)
	if !ok {
		return
	}
	p := &disputePage{head: newHead("Check a list of orders", "dispute", ws)}
	var err error
	if p.Partners, err = s.reader.Partners(ctx, ws.ID); err != nil {
		s.renderError(w, req, err)
		return
	}
	if req.Method != http.MethodPost {
		s.renderPage(w, http.StatusOK, "dispute", p)
		return
	}
	if !isSameSite(req) {
		writeProblem(w, errCrossSite())
		return
	}
	req.Body = http.MaxBytesReader(w, req.Body, maxClaims)
	err = s.answerList(req, p, ws.ID)
	if p.Error = listError(err); p.Error != "" {
		p.Findings = nil
		s.renderPage(w, http.StatusBadRequest, "dispute", p)
		return
	}
	if err != nil {
		s.renderError(w, req, err)
		return
	}
	p.Done = true
	s.renderPage(w, http.StatusOK, "dispute", p)
}

// errForm is a form without a file.
var errForm = errors.New("no file in the form")

// listError is what the page says about an error that the list is to blame for; empty
// for all others.
func listError(err error) string {
	var bad *dispute.BadClaim
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &bad), errors.As(err, &tooLarge), errors.Is(err, dispute.ErrTooMany):
		return err.Error()
	case errors.Is(err, errForm):
		return "Choose a CSV file with the columns order_id (or event_id), amount and currency."
	}
	return ""
}

// answerList fills the page with the answers to the list in the form.
func (s *Server) answerList(req *http.Request, p *disputePage, workspace string) error {
	file, header, err := req.FormFile("file")
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return tooLarge
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errForm, err)
	}
	defer file.Close()
	defer req.MultipartForm.RemoveAll()
	p.Partner = req.PostFormValue("partner")
	claims, err := dispute.ReadClaims(file, header.Filename)
	if err != nil {
		return err
	}
	d := dispute.New(s.reader, workspace, p.Partner)
	for more := true; more; {
		batch, err := claims.NextBatch()
		if more = err == nil; err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		found, err := d.Answer(req.Context(), batch)
		if err != nil {
			return err
		}
		if room := shownFindings - len(p.Findings); len(found) > room {
			p.More = true
			found = found[:room]
		}
		p.Findings = append(p.Findings, found...)
	}
	p.Totals = d.Totals()
	p.Warnings = d.Warnings()
	return nil
}
