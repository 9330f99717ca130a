package processor

import (
	"strconv"

	"github.com/nimriz/partners/schemas/event"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	events       *prometheus.CounterVec
	clicks       prometheus.Counter
	transactions *prometheus.CounterVec
	phases       *prometheus.CounterVec
	sessions     prometheus.Counter
	hanging      prometheus.Counter
	heldBack     prometheus.Gauge
	partitions   *prometheus.GaugeVec
	restored     *prometheus.CounterVec
	restore      prometheus.Histogram
	position     *prometheus.GaugeVec
	lag          *prometheus.GaugeVec
	waiting      *prometheus.GaugeVec
	held         *prometheus.GaugeVec
	horizon      *prometheus.GaugeVec
	latency      prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "partners_processor_" + name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: "partners_processor_" + name, Help: help}, labels)
	}
	m := &metrics{
		events: counter("events_total", "Rows written, by verdict; unreadable counts dead letters.", "verdict"),
		clicks: f.NewCounter(prometheus.CounterOpts{Name: "partners_processor_clicks_total",
			Help: "Clicks read, shown or not."}),
		transactions: counter("transactions_total", "Transactions, by result: committed, aborted, unknown.", "result"),
		phases:       counter("transaction_seconds_total", "Time spent in each phase of transactions.", "phase"),
		sessions: f.NewCounter(prometheus.CounterOpts{Name: "partners_processor_sessions_total",
			Help: "Sessions begun: each one after the first is a recovery."}),
		hanging: f.NewCounter(prometheus.CounterOpts{Name: "partners_processor_hanging_transactions_total",
			Help: "Partitions in which Kafka had lost the marker of a transaction of ours, which was then written."}),
		heldBack: f.NewGauge(prometheus.GaugeOpts{Name: "partners_processor_waiting_for_markers",
			Help: "Partitions, and starts of sessions, that a transaction holds back."}),
		partitions: gauge("partitions", "Partitions owned here, by state: restoring, running.", "state"),
		restored:   counter("restored_records_total", "Records read by restores.", "topic"),
		restore: f.NewHistogram(prometheus.HistogramOpts{Name: "partners_processor_restore_seconds",
			Help: "How long a partition's restore took.", Buckets: prometheus.ExponentialBuckets(0.01, 3, 10)}),
		position: gauge("position", "Next offset to judge.", "topic", "partition"),
		lag:      gauge("lag", "Records behind the end as last listed.", "topic", "partition"),
		waiting:  gauge("waiting", "Events that wait for their click or parent.", "partition"),
		held:     gauge("held", "Conversions read ahead of their clicks.", "partition"),
		horizon: gauge("horizon_seconds", "Unix time up to which both inputs are known to have been read.",
			"partition"),
		latency: f.NewHistogram(prometheus.HistogramOpts{Name: "partners_processor_event_seconds",
			Help: "From an event's receipt to its verdict.", Buckets: prometheus.ExponentialBuckets(0.005, 2.5, 14)}),
	}
	// A counter that begins at its first count has no increase.
	for _, verdict := range []string{string(event.Attributed), string(event.Reversed), string(event.Duplicate),
		string(event.Conflict), string(event.Unattributed), "unreadable"} {
		m.events.WithLabelValues(verdict)
	}
	for _, result := range []string{"committed", "aborted", "unknown"} {
		m.transactions.WithLabelValues(result)
	}
	return m
}

func (m *metrics) forget(partition int32) {
	p := prometheus.Labels{"partition": strconv.Itoa(int(partition))}
	for _, v := range []*prometheus.GaugeVec{m.position, m.lag, m.waiting, m.held, m.horizon} {
		v.DeletePartialMatch(p)
	}
}
