package export

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics of runs.
type Metrics struct {
	runs    *prometheus.CounterVec
	rows    prometheus.Counter
	last    prometheus.Gauge
	seconds prometheus.Histogram
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	return &Metrics{
		runs: f.NewCounterVec(prometheus.CounterOpts{Name: "partners_export_runs_total",
			Help: "Runs, by result: ok or failed."}, []string{"result"}),
		rows: f.NewCounter(prometheus.CounterOpts{Name: "partners_export_rows_total", Help: "Rows written."}),
		last: f.NewGauge(prometheus.GaugeOpts{Name: "partners_export_last_success_timestamp_seconds",
			Help: "When a run last succeeded, Unix time; until the first, when the schedule began."}),
		seconds: f.NewHistogram(prometheus.HistogramOpts{Name: "partners_export_seconds", Help: "Duration of a run.",
			Buckets: prometheus.ExponentialBuckets(0.1, 3, 10)}),
	}
}

// begin notes the last success of a series before this process; a series that begins is
// as if it had one now, so that it is overdue only when its first run is.
func (m *Metrics) begin(last time.Time) {
	if m == nil {
		return
	}
	if last.IsZero() {
		last = time.Now()
	}
	m.last.Set(float64(last.Unix()))
}

func (m *Metrics) done(err error, manifest *Manifest, took time.Duration) {
	if m == nil {
		return
	}
	m.seconds.Observe(took.Seconds())
	if err != nil {
		m.runs.WithLabelValues("failed").Inc()
		return
	}
	m.runs.WithLabelValues("ok").Inc()
	m.rows.Add(float64(manifest.Rows))
	m.last.SetToCurrentTime()
}
