package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/report"
)

// codeUnavailable is the code of what may work in a moment.
const codeUnavailable = "unavailable"

// problem is an RFC 9457 answer.
type problem struct {
	Title  string `json:"title"`            // of the status
	Status int    `json:"status"`           // of the response
	Code   string `json:"code"`             // for programs
	Field  string `json:"field,omitempty"`  // parameter or feature that is to blame
	Detail string `json:"detail,omitempty"` // for people
}

func (p *problem) Error() string { return p.Detail }

func writeProblem(w http.ResponseWriter, p *problem) {
	p.Title = http.StatusText(p.Status)
	w.Header().Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	setRetryAfter(w, p)
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// setRetryAfter tells a client to try again, unless the same would fail again.
func setRetryAfter(w http.ResponseWriter, p *problem) {
	if p.Code == codeUnavailable {
		w.Header().Set("Retry-After", "5")
	}
}

// Unavailable answers every request 503: for a server that has no warehouse yet.
func Unavailable() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, &problem{
			Status: http.StatusServiceUnavailable,
			Code:   codeUnavailable,
			Detail: "the warehouse does not answer yet",
		})
	})
}

// statusGone counts requests whose sender left; no client reads it.
const statusGone = 499

// answering is the reason under which the Watch over ClickHouse keeps failures. The next
// request may come at any time.
const answering = "answering requests, which get 503"

// toProblem turns an error into an answer, and logs it unless the caller is to blame.
func (s *Server) toProblem(req *http.Request, err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	var bad *report.BadParameter
	if errors.As(err, &bad) {
		return &problem{Status: http.StatusBadRequest, Code: "bad_parameter", Field: bad.Name, Detail: bad.Error()}
	}
	switch ended := req.Context().Err(); {
	case errors.Is(ended, context.DeadlineExceeded):
		s.log.Warn("a query took too long", "path", req.URL.Path, "error", err)
		return &problem{
			Status: http.StatusServiceUnavailable,
			Code:   "timeout",
			Detail: "this took longer than it may; ask for fewer days",
		}
	case ended != nil:
		return &problem{Status: statusGone, Code: "gone", Detail: "the client has left"}
	}
	if clickhouse.Unreachable(err) {
		s.watch.Failed(answering, 0, fmt.Errorf("%s: %w", req.URL.Path, err))
		return &problem{
			Status: http.StatusServiceUnavailable,
			Code:   codeUnavailable,
			Detail: "the warehouse does not answer; try again",
		}
	}
	s.log.Error("answering a request", "path", req.URL.Path, "error", err)
	return &problem{
		Status: http.StatusInternalServerError,
		Code:   "internal",
		Detail: "the warehouse refused the query; the operator's log says why",
	}
}
