package sink

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	rows, batches, deadLetters, replaysDropped, retries *prometheus.CounterVec
	insertSeconds, oldestRowVisible                     *prometheus.HistogramVec
	rowVisible                                          *prometheus.HistogramVec
	lag                                                 *prometheus.GaugeVec

	mu        sync.Mutex
	logEnds   map[topicPartition]int64 // of the logs
	tableEnds map[topicPartition]int64 // of the tables
}

type topicPartition struct {
	topic     string
	partition int32
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "partners_sink_" + name, Help: help},
			[]string{"topic"})
	}
	m := &metrics{
		rows:           counter("rows_total", "Rows inserted into base tables."),
		batches:        counter("batches_total", "Finished batches."),
		deadLetters:    counter("dead_letters_total", "Unreadable records sent to the dead letters."),
		replaysDropped: counter("replays_dropped_total", "Clicks that were sent again and are in the table already."),
		retries:        counter("retries_total", "Attempts at a batch that failed and are repeated."),
		insertSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "partners_sink_insert_seconds",
			Help:    "Duration of one insert into a base table and everything its views feed.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 14)}, []string{"topic"}),
		oldestRowVisible: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "partners_sink_oldest_row_visible_seconds",
			Help:    "From the time in the oldest row of a batch until the batch is visible in ClickHouse.",
			Buckets: prometheus.ExponentialBuckets(0.05, 2, 16)}, []string{"topic"}),
		rowVisible: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "partners_sink_visible_seconds",
			Help: "From a click, or from the receipt of an event, until its row is visible in ClickHouse.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600,
				86400}}, []string{"from"}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "partners_sink_lag_records",
			Help: "End of the log minus the end of the finished batches."}, []string{"topic", "partition"}),
		logEnds:   map[topicPartition]int64{},
		tableEnds: map[topicPartition]int64{},
	}
	if reg != nil {
		reg.MustRegister(m.rows, m.batches, m.deadLetters, m.replaysDropped, m.retries, m.insertSeconds, m.oldestRowVisible,
			m.rowVisible, m.lag)
	}
	return m
}

// countBatch counts a finished batch.
func (m *metrics) countBatch(f *topicMapping, b *batch) {
	topic := f.topic
	m.batches.WithLabelValues(topic).Inc()
	m.rows.WithLabelValues(topic).Add(float64(b.summary.rows))
	m.replaysDropped.WithLabelValues(topic).Add(float64(b.replaysDropped))
	m.deadLetters.WithLabelValues(topic).Add(float64(len(b.unreadable)))
	if b.summary.rows > 0 {
		m.oldestRowVisible.WithLabelValues(topic).Observe(max(0, time.Since(b.summary.oldestRow.Time()).Seconds()))
	}
	if len(b.summary.latencyStarts) > 0 {
		now, visible := time.Now(), m.rowVisible.WithLabelValues(f.latencyFrom)
		for _, at := range b.summary.latencyStarts {
			visible.Observe(max(0, now.Sub(at.Time()).Seconds())) // a sender's clock may be ahead
		}
	}
}

// setLogEnd notes the end of a partition's log.
func (m *metrics) setLogEnd(topic string, partition int32, end int64) {
	m.setOffset(m.logEnds, topic, partition, end)
}

// setTableEnd notes the end of a partition's finished batches.
func (m *metrics) setTableEnd(topic string, partition int32, at int64) {
	m.setOffset(m.tableEnds, topic, partition, at)
}

func (m *metrics) setOffset(where map[topicPartition]int64, topic string, partition int32, at int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := topicPartition{topic, partition}
	where[key] = at
	end, ok1 := m.logEnds[key]
	head, ok2 := m.tableEnds[key]
	if ok1 && ok2 {
		m.lag.WithLabelValues(topic, strconv.Itoa(int(partition))).Set(float64(max(0, end-head)))
	}
}

// forgetPartition drops the gauges of a partition that went elsewhere.
func (m *metrics) forgetPartition(topic string, partition int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := topicPartition{topic, partition}
	delete(m.logEnds, key)
	delete(m.tableEnds, key)
	m.lag.DeleteLabelValues(topic, strconv.Itoa(int(partition)))
}
