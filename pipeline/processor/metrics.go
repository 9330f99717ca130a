package processor

import (
	"github.com/nimriz/partners/schemas/event"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// unreadable is what the metric of verdicts calls dead letters.
const unreadable = "unreadable"

// metrics are those of attribution; engine has those of transactions and partitions.
type metrics struct {
	events    *prometheus.CounterVec
	clicks    prometheus.Counter
	misplaced prometheus.Counter
	waiting   *prometheus.GaugeVec
	latency   prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		events: f.NewCounterVec(prometheus.CounterOpts{Name: "partners_processor_events_total",
			Help: "Rows written, by verdict; unreadable counts dead letters."}, []string{"verdict"}),
		clicks: f.NewCounter(prometheus.CounterOpts{Name: "partners_processor_clicks_total",
			Help: "Clicks read, shown or not."}),
		misplaced: f.NewCounter(prometheus.CounterOpts{Name: "partners_processor_misplaced_total",
			Help: "Events in another partition than their token's, sent to the dead letters."}),
		waiting: f.NewGaugeVec(prometheus.GaugeOpts{Name: "partners_processor_waiting_events",
			Help: "Events that wait for their click or parent."}, []string{"partition"}),
		latency: f.NewHistogram(prometheus.HistogramOpts{Name: "partners_processor_event_seconds",
			Help: "From an event's receipt to its verdict.", Buckets: prometheus.ExponentialBuckets(0.005, 2.5, 14)}),
	}
	// Create all label values now: rate() and increase() miss the first increment of a
	// series that did not exist before.
	for _, verdict := range event.Texts(event.Verdicts()) {
		m.events.WithLabelValues(verdict)
	}
	m.events.WithLabelValues(unreadable)
	return m
}

// countTotals counts what one transaction has added to a partition's totals.
func (m *metrics) countTotals(before, now *totals) {
	for name, added := range map[event.Verdict]int64{
		event.Attributed:   now.attributed - before.attributed,
		event.Reversed:     now.reversed - before.reversed,
		event.Duplicate:    now.duplicate - before.duplicate,
		event.Conflict:     now.conflict - before.conflict,
		event.Unattributed: now.unattributed - before.unattributed,
		unreadable:         now.unreadable - before.unreadable,
	} {
		m.events.WithLabelValues(string(name)).Add(float64(added))
	}
}

// forgetPartition drops a partition's series: it belongs to another process now.
func (m *metrics) forgetPartition(partition string) {
	m.waiting.DeletePartialMatch(prometheus.Labels{"partition": partition})
}
