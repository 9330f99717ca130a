package export

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are those of exports, scheduled or not.
type Metrics struct {
	runs        *prometheus.CounterVec // by result: ok, refused, failed
	rows        prometheus.Counter     // of runs that succeeded
	lastSuccess prometheus.Gauge       // Unix time
	duration    prometheus.Histogram   // of a run, in seconds
	notEntitled prometheus.Gauge       // 1 from a refused run to the next that is not
}

// NewMetrics registers the metrics; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	return &Metrics{
		runs: f.NewCounterVec(prometheus.CounterOpts{Name: "partners_export_runs_total",
			Help: "Runs, by result: ok, refused (the workspace has no exports) or failed."}, []string{"result"}),
		rows: f.NewCounter(prometheus.CounterOpts{Name: "partners_export_rows_total", Help: "Rows written."}),
		lastSuccess: f.NewGauge(prometheus.GaugeOpts{Name: "partners_export_last_success_timestamp_seconds",
			Help: "When a run last succeeded, Unix time; until the first, when the schedule began."}),
		duration: f.NewHistogram(prometheus.HistogramOpts{Name: "partners_export_seconds", Help: "Duration of a run.",
			Buckets: prometheus.ExponentialBuckets(0.1, 3, 10)}),
		notEntitled: f.NewGauge(prometheus.GaugeOpts{Name: "partners_export_not_entitled",
			Help: "1 while the workspace has no exports, so that runs are skipped."}),
	}
}

// recordStart records when a series last succeeded before this process. A new series
// counts as successful now, so that it is overdue only when its first run is.
func (m *Metrics) recordStart(last time.Time) {
	if m == nil {
		return
	}
	if last.IsZero() {
		last = time.Now()
	}
	m.lastSuccess.Set(float64(last.Unix()))
}

// recordAccess records that the workspace has exports, whatever becomes of the run: one
// that fails is overdue again.
func (m *Metrics) recordAccess() {
	if m != nil {
		m.notEntitled.Set(0)
	}
}

// recordRun records a run that ended with err. manifest is nil if it failed.
func (m *Metrics) recordRun(err error, manifest *Manifest, took time.Duration) {
	if m == nil {
		return
	}
	m.duration.Observe(took.Seconds())
	switch {
	case errors.Is(err, ErrNotEntitled):
		m.notEntitled.Set(1)
		m.runs.WithLabelValues("refused").Inc()
		return
	case err != nil:
		m.runs.WithLabelValues("failed").Inc()
		return
	}
	m.runs.WithLabelValues("ok").Inc()
	m.rows.Add(float64(manifest.Rows))
	m.lastSuccess.SetToCurrentTime()
}
