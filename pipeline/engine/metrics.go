package engine

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	transactions *prometheus.CounterVec
	phases       *prometheus.CounterVec
	sessions     prometheus.Counter
	hanging      prometheus.Counter
	heldBack     prometheus.Gauge
	partitions   *prometheus.GaugeVec
	restored     *prometheus.CounterVec
	restore      prometheus.Histogram
	nextOffset   *prometheus.GaugeVec
	lag          *prometheus.GaugeVec
	buffered     *prometheus.GaugeVec
	watermark    *prometheus.GaugeVec

	standby        *prometheus.GaugeVec
	standbyLag     *prometheus.GaugeVec
	standbyRecords *prometheus.CounterVec
}

// States of the partitions that a standby follows.
const (
	standbyWarm   = "warm"   // read to the ends that were listed a second before
	standbyBehind = "behind" // not yet, or not any more
	standbyClosed = "closed" // its files are not open: not yet, or they could not be
)

func newMetrics(reg prometheus.Registerer, name string) *metrics {
	f := promauto.With(reg)
	prefix := "partners_" + name + "_"
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + name, Help: help}, labels)
	}
	m := &metrics{
		transactions: counter("transactions_total", "Transactions, by result: committed, aborted, unknown.", "result"),
		phases:       counter("transaction_seconds_total", "Time spent in each phase of transactions.", "phase"),
		sessions: f.NewCounter(prometheus.CounterOpts{Name: prefix + "sessions_total",
			Help: "Sessions begun: each one after the first is a recovery."}),
		hanging: f.NewCounter(prometheus.CounterOpts{Name: prefix + "hanging_transactions_total",
			Help: "Partitions that got a marker which Kafka had lost."}),
		heldBack: f.NewGauge(prometheus.GaugeOpts{Name: prefix + "waiting_for_markers",
			Help: "Partitions, and starts of sessions, that a transaction holds back."}),
		partitions: gauge("partitions", "Partitions owned here, by state: restoring, running.", "state"),
		restored:   counter("restored_records_total", "Records read by restores.", "topic"),
		restore: f.NewHistogram(prometheus.HistogramOpts{Name: prefix + "restore_seconds",
			Help: "Duration of a partition's restore.", Buckets: prometheus.ExponentialBuckets(0.01, 3, 10)}),
		nextOffset: gauge("next_offset", "Next offset to apply.", "topic", "partition"),
		lag:        gauge("lag_records", "Records behind the newest end offset.", "topic", "partition"),
		buffered:   gauge("buffered_records", "Records read ahead of the leading input.", "partition"),
		watermark: gauge("watermark_timestamp_seconds",
			"Unix time before which everything that reached Kafka has been applied.", "partition"),
	}
	m.standby = gauge("standby_partitions", "Partitions that others own and that are followed here, by state: "+
		"warm, behind, closed.", "state")
	m.standbyLag = gauge("standby_lag_records", "Records that a standby has not applied yet.", "topic", "partition")
	m.standbyRecords = counter("standby_records_total", "Records that a standby has applied.", "topic")
	// Create all label values now: rate() and increase() miss the first increment of a
	// series that did not exist before.
	for _, result := range []string{"committed", "aborted", "unknown"} {
		m.transactions.WithLabelValues(result)
	}
	for _, state := range []string{standbyWarm, standbyBehind, standbyClosed} {
		m.standby.WithLabelValues(state)
	}
	return m
}

// setStandbyLag sets how far a standby is behind the end of a topic.
func (m *metrics) setStandbyLag(topic string, partition int32, records int64) {
	m.standbyLag.WithLabelValues(topic, strconv.Itoa(int(partition))).Set(float64(max(records, 0)))
}

// forgetStandby drops a partition's series: no standby follows it any more.
func (m *metrics) forgetStandby(partition int32) {
	m.standbyLag.DeletePartialMatch(prometheus.Labels{"partition": strconv.Itoa(int(partition))})
}

// forgetPartition drops a partition's series: it belongs to another process now.
func (m *metrics) forgetPartition(partition int32) {
	p := prometheus.Labels{"partition": strconv.Itoa(int(partition))}
	for _, v := range []*prometheus.GaugeVec{m.nextOffset, m.lag, m.buffered, m.watermark} {
		v.DeletePartialMatch(p)
	}
}
