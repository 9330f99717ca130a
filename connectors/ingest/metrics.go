package ingest

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nimriz/partners/schemas/event"
)

// metrics are described in doc.go.
type metrics struct {
	requests *prometheus.CounterVec            // by code
	events   map[event.Type]prometheus.Counter // acknowledged to their sender
	refused  *prometheus.CounterVec            // events of batches, by code
	// events, by workspace. A label is a workspace of the catalog, of which a request was
	// genuinely signed, so there are no more than secrets.
	workspaceAccepted *prometheus.CounterVec
	workspaceRefused  *prometheus.CounterVec // and by code
	ackSeconds        prometheus.Histogram   // of requests that were acknowledged
	unacknowledged    prometheus.Counter     // events
	lateAcks          prometheus.Counter     // events
	recorded          prometheus.Counter     // rejections
	lost              prometheus.Counter     // rejections
}

// newMetrics registers the metrics with reg, unless reg is nil.
func newMetrics(reg prometheus.Registerer, inFlight func() int) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "partners_ingest_" + name, Help: help})
	}
	byLabels := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "partners_ingest_" + name, Help: help}, labels)
	}
	accepted := byLabels("events_total", "Events acknowledged to their sender.", "type")
	m := &metrics{
		requests: byLabels("requests_total", "Answers by their code; accepted for 202.", "code"),
		events:   make(map[event.Type]prometheus.Counter),
		refused: byLabels("events_refused_total", "Events of batches that were refused or unavailable.",
			"code"),
		workspaceAccepted: byLabels("workspace_accepted_total", "Events acknowledged to their sender.", "workspace"),
		workspaceRefused: byLabels("workspace_refused_total", "Events that were refused for what they are, dry runs "+
			"aside.", "workspace", "code"),
		ackSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "partners_ingest_ack_seconds",
			Help:    "Time until Kafka had acknowledged all events of a request.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16)}),
		unacknowledged: counter("unacknowledged_total", "Events answered unavailable because Kafka did not "+
			"acknowledge them in time."),
		lateAcks: counter("late_acks_total", "Events that Kafka acknowledged after they were answered unavailable."),
		recorded: counter("rejections_recorded_total", "Rejections that Kafka has acknowledged."),
		lost:     counter("rejections_lost_total", "Rejections that were not recorded."),
	}
	for _, t := range event.Types() {
		m.events[t] = accepted.WithLabelValues(string(t))
	}
	served := prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "partners_ingest_in_flight", Help: "Requests being served."},
		func() float64 { return float64(inFlight()) })
	if reg != nil {
		reg.MustRegister(m.requests, accepted, m.refused, m.workspaceAccepted, m.workspaceRefused, m.ackSeconds,
			m.unacknowledged, m.lateAcks, m.recorded, m.lost, served)
	}
	return m
}
