package report

import (
	"context"
	"net/http"
	"strings"
)

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
	p := &whyPage{head: head{Title: "Why an event counts as it does", Workspace: ws.Name, Section: "why"},
		EventID: strings.TrimSpace(req.URL.Query().Get("event_id"))}
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
