package sink

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of one sink. Their names and meanings are in the package's doc.
type metrics struct {
	rows           *prometheus.CounterVec
	batches        *prometheus.CounterVec
	deadLetters    *prometheus.CounterVec
	misplaced      *prometheus.CounterVec
	replaysDropped *prometheus.CounterVec
	retries        *prometheus.CounterVec
	verifications  *prometheus.CounterVec
	repairedRows   *prometheus.CounterVec
	repairedSums   *prometheus.CounterVec

	insertSeconds    *prometheus.HistogramVec
	oldestRowVisible *prometheus.HistogramVec // seconds, one observation for each batch
	rowVisible       *prometheus.HistogramVec // seconds, one observation for each row

	lag *prometheus.GaugeVec

	mu        sync.Mutex
	logEnds   map[topicPartition]int64 // end offsets in Kafka
	tableEnds map[topicPartition]int64 // ends of the finished batches
}

type topicPartition struct {
	topic     string // without prefix
	partition int32
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "partners_sink_" + name, Help: help},
			[]string{"topic"})
	}
	histogram := func(name, label, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "partners_sink_" + name,
			Help:    help,
			Buckets: buckets,
		}, []string{label})
	}
	m := &metrics{
		rows:        counter("rows_total", "Rows inserted into base tables."),
		batches:     counter("batches_total", "Finished batches."),
		deadLetters: counter("dead_letters_total", "Unreadable records sent to the dead letters."),
		misplaced: counter("misplaced_total", "Records in another partition than their token's, left out of the "+
			"tables."),
		replaysDropped: counter("replays_dropped_total", "Clicks that were sent again and are in the table already."),
		retries:        counter("retries_total", "Attempts at a batch that failed and are repeated."),
		verifications:  counter("verifications_total", "Repeated inserts whose rows and sums were verified."),
		repairedRows: counter("repaired_rows_total",
			"Rows that a repeated insert, although acknowledged, had not inserted, and that were added."),
		repairedSums: counter("repaired_sums_total",
			"Lines of the rollup that differed from their rows after a repeated insert and were corrected."),
		insertSeconds: histogram("insert_seconds", "topic",
			"Duration of one insert into a base table and everything its views feed.",
			prometheus.ExponentialBuckets(0.002, 2, 14)),
		oldestRowVisible: histogram("oldest_row_visible_seconds", "topic",
			"From the time in the oldest row of a batch until the batch is visible in ClickHouse.",
			prometheus.ExponentialBuckets(0.05, 2, 16)),
		rowVisible: histogram("visible_seconds", "from",
			"From a click, or from the receipt of an event, until its row is visible in ClickHouse.",
			[]float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "partners_sink_lag_records",
			Help: "End of the log minus the end of the finished batches.",
		}, []string{"topic", "partition"}),
		logEnds:   map[topicPartition]int64{},
		tableEnds: map[topicPartition]int64{},
	}
	if reg != nil {
		reg.MustRegister(m.rows, m.batches, m.deadLetters, m.misplaced, m.replaysDropped, m.retries, m.verifications,
			m.repairedRows, m.repairedSums, m.insertSeconds, m.oldestRowVisible, m.rowVisible, m.lag)
	}
	return m
}

// countBatch counts a finished batch.
func (m *metrics) countBatch(mapping *topicMapping, b *batch) {
	topic := mapping.topic
	m.batches.WithLabelValues(topic).Inc()
	m.rows.WithLabelValues(topic).Add(float64(b.summary.rows))
	m.replaysDropped.WithLabelValues(topic).Add(float64(b.replaysDropped))
	m.deadLetters.WithLabelValues(topic).Add(float64(len(b.unreadable)))
	if mapping.bound {
		m.misplaced.WithLabelValues(topic).Add(float64(len(b.misplaced)))
	}
	now := time.Now()
	if b.summary.rows > 0 {
		m.oldestRowVisible.WithLabelValues(topic).Observe(secondsSince(now, b.summary.oldestRow.Time()))
	}
	for _, at := range b.summary.latencyStarts {
		m.rowVisible.WithLabelValues(mapping.latencyFrom).Observe(secondsSince(now, at.Time()))
	}
}

// secondsSince returns 0 for a time in the future: a sender's clock may be ahead.
func secondsSince(now, at time.Time) float64 { return max(0, now.Sub(at).Seconds()) }

// setLogEnd sets the end offset of a partition's log.
func (m *metrics) setLogEnd(topic string, partition int32, end int64) {
	m.setOffset(m.logEnds, topicPartition{topic, partition}, end)
}

// setTableEnd sets the end of a partition's finished batches.
func (m *metrics) setTableEnd(topic string, partition int32, end int64) {
	m.setOffset(m.tableEnds, topicPartition{topic, partition}, end)
}

func (m *metrics) setOffset(ends map[topicPartition]int64, at topicPartition, end int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ends[at] = end
	logEnd, isLogKnown := m.logEnds[at]
	tableEnd, isTableKnown := m.tableEnds[at]
	if isLogKnown && isTableKnown {
		lag := float64(max(0, logEnd-tableEnd))
		m.lag.WithLabelValues(at.topic, strconv.Itoa(int(at.partition))).Set(lag)
	}
}

// forgetPartition drops the gauges of a partition that this sink no longer owns.
func (m *metrics) forgetPartition(topic string, partition int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := topicPartition{topic, partition}
	delete(m.logEnds, at)
	delete(m.tableEnds, at)
	m.lag.DeleteLabelValues(topic, strconv.Itoa(int(partition)))
}
