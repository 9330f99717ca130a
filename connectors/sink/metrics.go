package sink

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	rows, batches, letters, dropped, stalls *prometheus.CounterVec
	insertSeconds, ingestSeconds            *prometheus.HistogramVec
	visibleSeconds                          *prometheus.HistogramVec
	lag                                     *prometheus.GaugeVec

	mu    sync.Mutex
	ends  map[metricKey]int64 // of the logs
	heads map[metricKey]int64 // of the tables
}

type metricKey struct {
	topic     string
	partition int32
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "partners_sink_" + name, Help: help},
			[]string{"topic"})
	}
	m := &metrics{
		rows:    counter("rows_total", "Rows inserted into base tables."),
		batches: counter("batches_total", "Finished batches."),
		letters: counter("dead_letters_total", "Unreadable records sent to the dead letters."),
		dropped: counter("replays_dropped_total", "Clicks that were sent again and are in the table already."),
		stalls:  counter("stalls_total", "Attempts at a batch that failed and are repeated."),
		insertSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "partners_sink_insert_seconds",
			Help:    "Duration of one insert into a base table and everything its views feed.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 14)}, []string{"topic"}),
		ingestSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "partners_sink_ingest_seconds",
			Help:    "From the time in the oldest row of a batch until the batch is visible in ClickHouse.",
			Buckets: prometheus.ExponentialBuckets(0.05, 2, 16)}, []string{"topic"}),
		visibleSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "partners_sink_visible_seconds",
			Help: "From a click, or from the receipt of an event, until its row is visible in ClickHouse.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600,
				86400}}, []string{"from"}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "partners_sink_lag_offsets",
			Help: "End of the log minus the end of the finished batches."}, []string{"topic", "partition"}),
		ends:  map[metricKey]int64{},
		heads: map[metricKey]int64{},
	}
	if reg != nil {
		reg.MustRegister(m.rows, m.batches, m.letters, m.dropped, m.stalls, m.insertSeconds, m.ingestSeconds,
			m.visibleSeconds, m.lag)
	}
	return m
}

// done counts a finished batch.
func (m *metrics) done(f *feed, b *batch) {
	topic := f.topic
	m.batches.WithLabelValues(topic).Inc()
	m.rows.WithLabelValues(topic).Add(float64(b.sum.rows))
	m.dropped.WithLabelValues(topic).Add(float64(b.dropped))
	m.letters.WithLabelValues(topic).Add(float64(len(b.poisoned)))
	if b.sum.rows > 0 {
		m.ingestSeconds.WithLabelValues(topic).Observe(max(0, time.Since(b.sum.oldest.Time()).Seconds()))
	}
	if len(b.sum.since) > 0 {
		now, visible := time.Now(), m.visibleSeconds.WithLabelValues(f.from)
		for _, at := range b.sum.since {
			visible.Observe(max(0, now.Sub(at.Time()).Seconds())) // a sender's clock may be ahead
		}
	}
}

// end notes the end of a partition's log.
func (m *metrics) end(topic string, partition int32, end int64) {
	m.note(m.ends, topic, partition, end)
}

// position notes the end of a partition's finished batches.
func (m *metrics) position(topic string, partition int32, at int64) {
	m.note(m.heads, topic, partition, at)
}

func (m *metrics) note(where map[metricKey]int64, topic string, partition int32, at int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := metricKey{topic, partition}
	where[key] = at
	end, ok1 := m.ends[key]
	head, ok2 := m.heads[key]
	if ok1 && ok2 {
		m.lag.WithLabelValues(topic, strconv.Itoa(int(partition))).Set(float64(max(0, end-head)))
	}
}

// forget drops the gauges of a partition that went elsewhere.
func (m *metrics) forget(topic string, partition int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := metricKey{topic, partition}
	delete(m.ends, key)
	delete(m.heads, key)
	m.lag.DeleteLabelValues(topic, strconv.Itoa(int(partition)))
}
