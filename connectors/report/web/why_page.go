package web

import (
	"context"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/nimriz/partners/connectors/report"
)

type whyPage struct {
	head
	EventID string         // that was asked for; may be empty
	OrderID string         // that was asked for; may be empty
	Answer  *report.Answer // nil without an id
	Error   string
}

// maxID is the longest id that can be asked about, in characters.
const maxID = 128

// parseQuestion reads which id is asked about: of an event or of an order, not of both.
// key is empty if there is none.
func parseQuestion(eventID, orderID string) (column report.KeyColumn, key string, err error) {
	column, key = report.ByEventID, eventID
	if eventID == "" {
		column, key = report.ByOrderID, orderID
	}
	switch {
	case eventID != "" && orderID != "":
		return "", "", badParameter("order_id", "not beside event_id: ask about an event or about an order")
	case utf8.RuneCountInString(key) > maxID:
		return "", "", badParameter(string(column), "at most %d characters", maxID)
	}
	return column, key, nil
}

// serveWhyPage answers GET /why: a field for the id of an event or order, and what is
// known of that.
func (s *Server) serveWhyPage(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), s.queryTime)
	defer cancel()
	req = req.WithContext(ctx)
	ws, ok := s.admitVisitor(w, req, "Why", partnerReporting, conversionReporting)
	if !ok {
		return
	}
	q := req.URL.Query()
	p := &whyPage{
		head:    newHead("Why an event counts as it does", "why", ws),
		EventID: strings.TrimSpace(q.Get("event_id")),
		OrderID: strings.TrimSpace(q.Get("order_id")),
	}
	code := http.StatusOK
	column, key, err := parseQuestion(p.EventID, p.OrderID)
	switch {
	case err != nil:
		p.Error = err.Error()
		code = http.StatusBadRequest
	case key != "":
		if p.Answer, err = s.reader.Why(ctx, ws.ID, column, key); err != nil {
			s.renderError(w, req, err)
			return
		}
	}
	s.renderPage(w, code, "why", p)
}
