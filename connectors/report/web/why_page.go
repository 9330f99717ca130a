package web

import (
	"context"
	"net/http"
	"strings"

	"github.com/nimriz/partners/connectors/report"
)

type whyPage struct {
	head
	EventID string         // that was asked for; may be empty
	Answer  *report.Answer // nil without an id
	Error   string
}

// serveWhyPage answers GET /why: a field for an event's id, and what is known of that
// event.
func (s *Server) serveWhyPage(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), s.queryTime)
	defer cancel()
	req = req.WithContext(ctx)
	ws, ok := s.admitVisitor(w, req, "Why", partnerReporting, conversionReporting)
	if !ok {
		return
	}
	p := &whyPage{
		head:    head{Title: "Why an event counts as it does", Workspace: ws.Name, Section: "why"},
		EventID: strings.TrimSpace(req.URL.Query().Get("event_id")),
	}
	code := http.StatusOK
	switch {
	case len(p.EventID) > 128:
		p.Error = "An event's id has at most 128 bytes."
		code = http.StatusBadRequest
	case p.EventID != "":
		var err error
		if p.Answer, err = s.reader.Why(ctx, ws.ID, p.EventID); err != nil {
			s.renderError(w, req, err)
			return
		}
	}
	s.renderPage(w, code, "why", p)
}
