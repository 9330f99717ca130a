package redirect

import (
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Reasons for which a click is lost; the label of partners_redirect_clicks_lost_total.
const (
	lostFull   = "full"
	lostSpool  = "spool"
	lostClosed = "closed"
	lostToken  = "token"
	lostEncode = "encode"
)

// register makes collectors known; reg may be nil. A second instance in one process
// (tests, the demo) brings its own registerer.
func register(reg prometheus.Registerer, collectors ...prometheus.Collector) {
	if reg != nil {
		reg.MustRegister(collectors...)
	}
}

type spoolMetrics struct {
	lost         map[string]prometheus.Counter
	late         prometheus.Counter
	fsyncs       prometheus.Histogram
	groups       prometheus.Histogram
	damaged      prometheus.Counter
	damagedBytes prometheus.Counter
}

func newSpoolMetrics(reg prometheus.Registerer, s *Spool) *spoolMetrics {
	lost := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "partners_redirect_clicks_lost_total",
		Help: "Clicks that were redirected but are not, or may not be, in the spool."}, []string{"reason"})
	m := &spoolMetrics{
		lost: make(map[string]prometheus.Counter),
		late: prometheus.NewCounter(prometheus.CounterOpts{Name: "partners_spool_late_total",
			Help: "Clicks whose visitor was redirected before the disk had answered."}),
		fsyncs: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "partners_spool_fsync_seconds",
			Help: "Time of one fsync.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16)}),
		groups: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "partners_spool_group_records",
			Help: "Clicks that shared one fsync.", Buckets: prometheus.ExponentialBuckets(1, 2, 12)}),
		damaged: prometheus.NewCounter(prometheus.CounterOpts{Name: "partners_spool_damaged_total",
			Help: "Places in the spool that held no valid record and were skipped."}),
		damagedBytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "partners_spool_damaged_bytes_total",
			Help: "Bytes skipped at such places."}),
	}
	for _, reason := range []string{lostFull, lostSpool, lostClosed, lostToken, lostEncode} {
		m.lost[reason] = lost.WithLabelValues(reason)
	}
	register(reg, lost, m.late, m.fsyncs, m.groups, m.damaged, m.damagedBytes,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "partners_spool_bytes", Help: "Size of the spool on disk."},
			func() float64 { onDisk, _ := s.backlog(); return float64(onDisk) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "partners_spool_limit_bytes",
			Help: "Size at which the spool takes no more clicks."},
			func() float64 { return float64(s.cfg.MaxSpoolBytes) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "partners_spool_backlog_bytes",
			Help: "Bytes of the spool that Kafka has not acknowledged."},
			func() float64 { _, behind := s.backlog(); return float64(behind) }))
	return m
}

// lose counts n records that Append could not keep.
func (m *spoolMetrics) lose(err error, n int) {
	reason := lostSpool
	switch {
	case errors.Is(err, ErrFull):
		reason = lostFull
	case errors.Is(err, ErrClosed):
		reason = lostClosed
	case errors.Is(err, errFrame):
		reason = lostEncode
	}
	m.lost[reason].Add(float64(n))
}

type shipperMetrics struct {
	shipped  prometheus.Counter
	replayed prometheus.Counter
	failed   prometheus.Counter
	refused  *prometheus.CounterVec
	unkept   prometheus.Counter
	// oldest is the mint time of the first click that is not acknowledged, in unix
	// seconds; 0: none.
	oldest atomic.Int64
}

func newShipperMetrics(reg prometheus.Registerer) *shipperMetrics {
	m := &shipperMetrics{
		shipped: prometheus.NewCounter(prometheus.CounterOpts{Name: "partners_shipper_records_total",
			Help: "Clicks that Kafka acknowledged."}),
		replayed: prometheus.NewCounter(prometheus.CounterOpts{Name: "partners_shipper_replayed_total",
			Help: "Clicks that were handed to Kafka with header replay."}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{Name: "partners_shipper_failed_total",
			Help: "Attempts to ship a click that did not end in an acknowledgement."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "partners_shipper_refused_total",
			Help: "Clicks that Kafka refused for good, by Kafka's error; they are in refused/."}, []string{"error"}),
		unkept: prometheus.NewCounter(prometheus.CounterOpts{Name: "partners_shipper_refused_unkept_total",
			Help: "Attempts to keep a refused click in refused/ that failed; the click stays in the spool and " +
				"holds up what is behind it."}),
	}
	register(reg, m.shipped, m.replayed, m.failed, m.refused, m.unkept,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "partners_shipper_lag_seconds",
			Help: "Age of the oldest click that Kafka has not acknowledged; 0: none."},
			func() float64 {
				oldest := m.oldest.Load()
				if oldest == 0 {
					return 0
				}
				return max(0, time.Since(time.Unix(oldest, 0)).Seconds())
			}))
	return m
}

type handlerMetrics struct {
	answers  map[int]prometheus.Counter
	seconds  prometheus.Histogram
	cut      prometheus.Counter
	parsed   prometheus.Counter
	unparsed prometheus.Counter
}

func newHandlerMetrics(reg prometheus.Registerer, statuses ...int) *handlerMetrics {
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "partners_redirect_answers_total",
		Help: "Answers by HTTP status."}, []string{"status"})
	m := &handlerMetrics{
		answers: make(map[int]prometheus.Counter),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "partners_redirect_seconds",
			Help:    "Server time of a redirect, capture included.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 2, 18)}),
		cut: prometheus.NewCounter(prometheus.CounterOpts{Name: "partners_redirect_texts_cut_total",
			Help: "Texts that were cut so that a click fits its record."}),
		parsed: prometheus.NewCounter(prometheus.CounterOpts{Name: "partners_redirect_agents_parsed_total",
			Help: "User agents that were not in the cache."}),
		unparsed: prometheus.NewCounter(prometheus.CounterOpts{Name: "partners_redirect_agents_unparsed_total",
			Help: "User agents that were left unparsed because all parsers were busy."}),
	}
	for _, status := range statuses {
		m.answers[status] = answers.WithLabelValues(statusText(status))
	}
	register(reg, answers, m.seconds, m.cut, m.parsed, m.unparsed)
	return m
}

func statusText(status int) string { return strconv.Itoa(status) }
