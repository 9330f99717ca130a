package web

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/forwarded"
	"github.com/nimriz/partners/connectors/report"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/openapi"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	queryTime   = 30 * time.Second
	csvTime     = 15 * time.Minute
	disputeTime = 2 * time.Minute
	maxForm     = 64 << 10 // bytes of a form to sign in
	maxClaims   = 10 << 20 // bytes of a form with a list of claims
)

// Server answers people and programs over HTTP.
type Server struct {
	reader    *report.Reader
	tokens    *ReaderTokens      // who may read which workspace
	proxies   *forwarded.Proxies // nil if no proxy is trusted
	log       *slog.Logger
	watch     *outage.Watch // over ClickHouse
	metrics   *metrics
	now       func() time.Time // the clock of sessions and of the page's default days
	mux       *http.ServeMux   // of routes
	queryTime time.Duration    // that one request may ask of ClickHouse
	csvTime   time.Duration    // the same, for a CSV
}

// New returns the handler of a warehouse. proxies and reg may be nil.
func New(conn *clickhouse.Conn, tokens *ReaderTokens, proxies *forwarded.Proxies, log *slog.Logger,
	reg prometheus.Registerer) *Server {
	s := &Server{
		reader:    report.New(conn),
		tokens:    tokens,
		proxies:   proxies,
		log:       log,
		watch:     outage.New(log, "ClickHouse"),
		metrics:   newMetrics(reg),
		now:       time.Now,
		mux:       http.NewServeMux(),
		queryTime: queryTime,
		csvTime:   csvTime,
	}
	for pattern, handle := range s.routes() {
		s.mux.Handle(pattern, s.measure(pattern, handle))
	}
	return s
}

// routes are all that is answered, by pattern: those of schemas/openapi/report.json.
func (s *Server) routes() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET /{$}":                               s.servePerformancePage,
		"GET /links":                             s.serveLinksPage,
		"GET /why":                               s.serveWhyPage,
		"GET /statement":                         s.serveStatementPage,
		"GET /dispute":                           s.serveDisputePage,
		"POST /dispute":                          s.serveDisputePage,
		"POST /session":                          s.serveSignIn,
		"POST /session/end":                      s.serveSignOut,
		"GET /v1/openapi.json":                   serveDocument,
		"GET /v1/workspaces/{w}/performance":     s.list(s.listPerformance, partnerReporting),
		"GET /v1/workspaces/{w}/outcomes":        s.list(s.listOutcomes, partnerReporting, conversionReporting),
		"GET /v1/workspaces/{w}/conservation":    s.list(s.listConservation, partnerReporting),
		"GET /v1/workspaces/{w}/coverage":        s.list(s.listCoverage, partnerReporting),
		"GET /v1/workspaces/{w}/events":          s.list(s.listEvents, partnerReporting, conversionReporting),
		"GET /v1/workspaces/{w}/statement":       s.list(s.showStatement, partnerReporting),
		"GET /v1/workspaces/{w}/statement.csv":   s.list(s.writeStatementCSV, partnerReporting, exports),
		"GET /v1/workspaces/{w}/performance.csv": s.list(s.writePerformanceCSV, partnerReporting, exports),
		"GET /v1/workspaces/{w}/outcomes.csv": s.list(s.writeOutcomesCSV, partnerReporting, conversionReporting,
			exports),
	}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	s.mux.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), clientKey{}, s.proxies.ClientOf(req))))
}

// clientKey is the key of a request's forwarded.Client in its context.
type clientKey struct{}

// clientOf returns who sent a request that came through ServeHTTP.
func clientOf(req *http.Request) forwarded.Client {
	client, _ := req.Context().Value(clientKey{}).(forwarded.Client)
	return client
}

func serveDocument(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Write(openapi.Report())
}

// limitTime gives an answer as long as its queries may take, and a little for an error
// that they took longer, whatever the HTTP server allows others. A client that stops
// reading holds no query open beyond that.
func (s *Server) limitTime(w http.ResponseWriter, limit time.Duration) {
	deadline := time.Now().Add(limit + limit/10 + time.Second)
	if err := http.NewResponseController(w).SetWriteDeadline(deadline); err != nil {
		s.log.Warn("limiting the time of an answer", "error", err)
	}
}

// list makes a handler of an answer that needs a session and features.
func (s *Server) list(answer func(http.ResponseWriter, *http.Request, *catalog.Workspace) error,
	need ...feature) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		limit := s.queryTime
		if strings.HasSuffix(req.URL.Path, ".csv") {
			limit = s.csvTime
		}
		s.limitTime(w, limit)
		ctx, cancel := context.WithTimeout(req.Context(), limit)
		defer cancel()
		req = req.WithContext(ctx)
		ws, err := s.admit(req, req.PathValue("w"), need...)
		if err == nil {
			err = answer(w, req, ws)
		}
		if err != nil {
			writeProblem(w, s.toProblem(req, err))
		}
	}
}
