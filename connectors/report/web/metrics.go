package web

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	requests *prometheus.CounterVec   // by route and code
	seconds  *prometheus.HistogramVec // by route
	signIns  *prometheus.CounterVec   // by result
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "partners_report_requests_total",
			Help: "Requests, by route and status; aborted: the answer broke off, 499: its reader left first.",
		}, []string{"route", "code"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "partners_report_request_seconds",
			Help:    "Time from a request to the end of its answer.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 14),
		}, []string{"route"}),
		signIns: f.NewCounterVec(prometheus.CounterOpts{
			Name: "partners_report_sign_ins_total",
			Help: "Sign-ins: accepted, refused, or unavailable because the reader tokens cannot be read.",
		}, []string{"result"}),
	}
}

// codeAborted is the code of an answer that broke off: its handler panicked, and the
// connection was cut.
const codeAborted = "aborted"

// statusRecorder remembers the status that was answered.
type statusRecorder struct {
	http.ResponseWriter
	code int
}

func (s *statusRecorder) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController through.
func (s *statusRecorder) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *Server) measure(route string, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		began := time.Now()
		recorder := &statusRecorder{w, http.StatusOK}
		code := codeAborted
		defer func() {
			s.metrics.requests.WithLabelValues(route, code).Inc()
			s.metrics.seconds.WithLabelValues(route).Observe(time.Since(began).Seconds())
		}()
		next(recorder, req)
		code = strconv.Itoa(recorder.code)
	})
}
