package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/connectors/report/dispute"
	"github.com/nimriz/partners/connectors/report/sheet"
)

type disputePage struct {
	head
	Partners []report.CatalogName // to choose from
	Partner  string               // id that was chosen; may be empty
	Options  sheet.Options        // how the list is written, as far as its sender said
	Error    string
	Assumed  []string          // of how the list is written
	Findings []dispute.Finding // at most shownFindings
	Totals   []dispute.Total   // of the whole list
	Warnings dispute.Warnings  // of the whole list
	Dropped  string            // which rows are gone; empty: none
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
	err = s.answerList(w, req, p, ws.ID)
	if errors.Is(err, errAnswered) {
		return
	}
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
	var bad *sheet.BadList
	var option *badOption
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &bad), errors.As(err, &option), errors.As(err, &tooLarge), errors.Is(err, dispute.ErrTooMany):
		return err.Error()
	case errors.Is(err, errForm):
		return "Choose a CSV file with the columns order_id (or event_id), amount and currency."
	}
	return ""
}

// badOption is a field of the form that cannot be.
type badOption struct{ error }

// answerList answers the list in the form: it fills the page, or writes a file.
func (s *Server) answerList(w http.ResponseWriter, req *http.Request, p *disputePage, workspace string) error {
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
	p.Options = sheet.Options{
		Separator: req.PostFormValue("separator"),
		Decimal:   req.PostFormValue("decimal"),
		Currency:  strings.ToUpper(strings.TrimSpace(req.PostFormValue("currency"))),
	}
	if err := p.Options.Validate(); err != nil {
		return &badOption{err}
	}
	claims, err := dispute.ReadClaims(file, header.Filename, p.Options)
	if err != nil {
		return err
	}
	d := dispute.New(s.reader, workspace, p.Partner)
	if req.PostFormValue("as") == "csv" {
		if err := checkClaims(claims); err != nil {
			return err
		}
		if claims, err = dispute.ReadClaims(file, header.Filename, p.Options); err != nil {
			return err
		}
		return s.writeAnswers(w, req, workspace, d, claims)
	}
	p.Assumed = claims.Assumptions()
	err = eachAnswer(req.Context(), d, claims, func(found []dispute.Finding) error {
		if room := shownFindings - len(p.Findings); len(found) > room {
			p.More = true
			found = found[:room]
		}
		p.Findings = append(p.Findings, found...)
		return nil
	})
	p.Totals = d.Totals()
	p.Warnings = d.Warnings()
	p.Dropped = d.DroppedWords()
	return err
}

// checkClaims reads a list to its end, so that a line that is wrong does not break off a
// file of answers.
func checkClaims(claims *dispute.Claims) error {
	for {
		if _, err := claims.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// eachAnswer answers a list, a batch at a time.
func eachAnswer(ctx context.Context, d *dispute.Dispute, claims *dispute.Claims,
	each func([]dispute.Finding) error) error {
	for more := true; more; {
		batch, err := claims.NextBatch()
		if more = err == nil; err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		found, err := d.Answer(ctx, batch)
		if err != nil {
			return err
		}
		if err := each(found); err != nil {
			return err
		}
	}
	return nil
}

// writeAnswers writes the answers to a list as a file, with links to this site.
func (s *Server) writeAnswers(w http.ResponseWriter, req *http.Request, workspace string, d *dispute.Dispute,
	claims *dispute.Claims) error {
	client := clientOf(req)
	err := s.writeCSV(w, req, workspace+"_answers.csv", "", true, func(file *download) error {
		answers, err := dispute.NewAnswers(file, claims, client.Scheme+"://"+client.Host)
		if err != nil {
			return err
		}
		return eachAnswer(req.Context(), d, claims, answers.Write)
	})
	return cmp.Or(err, errAnswered)
}

// errAnswered is no error: a file was written in place of the page.
var errAnswered = errors.New("answered by a file")
