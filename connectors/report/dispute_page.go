package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

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

// disputePage answers GET and POST /dispute: a partner's list of orders goes in, a
// verdict on each comes out. Nothing of it is kept.
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
			refuse(w, &problem{Status: http.StatusForbidden,
				Code: "cross_site", Detail: "this form came from another site"})
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
