package redirect

import (
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Reasons for which a click is lost: the values of the label reason of
// partners_redirect_clicks_lost_total.
const (
	lostFull   = "full"
	lostSpool  = "spool"
	lostClosed = "closed"
	lostToken  = "token"
	lostEncode = "encode"
)

// registerCollectors registers collectors; reg may be nil. A second instance in one
// process (tests, the demo) needs its own registerer.
func registerCollectors(reg prometheus.Registerer, collectors ...prometheus.Collector) {
	if reg != nil {
		reg.MustRegister(collectors...)
	}
}

func newCounter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func newCounterVec(name, label, help string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
}

type spoolMetrics struct {
	lost          map[string]prometheus.Counter // clicks by reason
	fsyncTimeouts prometheus.Counter            // visitors redirected before the disk confirmed
	fsyncSeconds  prometheus.Histogram
	groupRecords  prometheus.Histogram // clicks per group commit
	corruptRanges prometheus.Counter
	corruptBytes  prometheus.Counter
}

func newSpoolMetrics(reg prometheus.Registerer, s *Spool) *spoolMetrics {
	lost := newCounterVec("partners_redirect_clicks_lost_total", "reason",
		"Clicks whose visitor was redirected but that are not, or may not be, in the spool.")
	m := &spoolMetrics{
		lost: make(map[string]prometheus.Counter),
		fsyncTimeouts: newCounter("partners_spool_fsync_timeouts_total",
			"Clicks whose visitor was redirected before the disk confirmed the fsync."),
		fsyncSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "partners_spool_fsync_seconds",
			Help:    "Time of one fsync.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}),
		groupRecords: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "partners_spool_group_commit_records",
			Help:    "Clicks that shared one fsync.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 12),
		}),
		corruptRanges: newCounter("partners_spool_corrupt_ranges_total",
			"Ranges of the spool without a valid record, which were skipped or set aside."),
		corruptBytes: newCounter("partners_spool_corrupt_bytes_total",
			"Bytes in these ranges."),
	}
	// Create all label values now: increase() misses the first increment of a series
	// that did not exist before.
	for _, reason := range []string{lostFull, lostSpool, lostClosed, lostToken, lostEncode} {
		m.lost[reason] = lost.WithLabelValues(reason)
	}
	registerCollectors(reg, lost, m.fsyncTimeouts, m.fsyncSeconds, m.groupRecords, m.corruptRanges, m.corruptBytes)
	registerCollectors(reg, spoolGauges(s)...)
	return m
}

func spoolGauges(s *Spool) []prometheus.Collector {
	size := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "partners_spool_bytes",
		Help: "Size of the spool on disk.",
	}, func() float64 { onDisk, _ := s.measureBacklog(); return float64(onDisk) })
	limit := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "partners_spool_limit_bytes",
		Help: "Size at which the spool accepts no more clicks.",
	}, func() float64 { return float64(s.cfg.MaxSpoolBytes) })
	backlog := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "partners_spool_backlog_bytes",
		Help: "Bytes of the spool that Kafka has not acknowledged.",
	}, func() float64 { _, backlog := s.measureBacklog(); return float64(backlog) })
	return []prometheus.Collector{size, limit, backlog}
}

// countLost counts n records that Append could not keep because of err.
func (m *spoolMetrics) countLost(err error, n int) {
	reason := lostSpool
	switch {
	case errors.Is(err, ErrFull):
		reason = lostFull
	case errors.Is(err, ErrClosed):
		reason = lostClosed
	case errors.Is(err, errFrameSize):
		reason = lostEncode
	}
	m.lost[reason].Add(float64(n))
}

type shipperMetrics struct {
	shipped       prometheus.Counter     // clicks acknowledged by Kafka
	replayed      prometheus.Counter     // clicks sent with header replay
	sendFailures  prometheus.Counter     // attempts without acknowledgement, per click
	refused       *prometheus.CounterVec // clicks in refused/, by Kafka's error
	storeFailures prometheus.Counter     // attempts to write to refused/ that failed
	// oldestMintedAt is the mint time of the oldest click that Kafka has not
	// acknowledged, in Unix seconds; 0: there is none. Shipper.Run writes it.
	oldestMintedAt atomic.Int64
}

func newShipperMetrics(reg prometheus.Registerer) *shipperMetrics {
	m := &shipperMetrics{
		shipped: newCounter("partners_shipper_records_total",
			"Clicks that Kafka acknowledged."),
		replayed: newCounter("partners_shipper_replayed_total",
			"Clicks that were sent to Kafka with header replay."),
		sendFailures: newCounter("partners_shipper_send_failures_total",
			"Attempts to ship a click that Kafka did not acknowledge."),
		refused: newCounterVec("partners_shipper_refused_total", "error",
			"Clicks that Kafka refused for good, by Kafka's error; they are in refused/."),
		storeFailures: newCounter("partners_shipper_refused_store_failures_total",
			"Failed attempts to write a refused click to refused/. The click stays in the spool and blocks those "+
				"after it."),
	}
	lag := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "partners_shipper_lag_seconds",
		Help: "Age of the oldest click that Kafka has not acknowledged; 0: there is none.",
	}, func() float64 {
		oldest := m.oldestMintedAt.Load()
		if oldest == 0 {
			return 0
		}
		return max(0, time.Since(time.Unix(oldest, 0)).Seconds())
	})
	registerCollectors(reg, m.shipped, m.replayed, m.sendFailures, m.refused, m.storeFailures, lag)
	return m
}

type handlerMetrics struct {
	responses          map[int]prometheus.Counter // by HTTP status
	duration           prometheus.Histogram       // seconds
	keyless            prometheus.Counter         // clicks without token for lack of a key
	prefetches         prometheus.Counter         // declined
	textsTruncated     prometheus.Counter
	userAgentsParsed   prometheus.Counter
	userAgentsUnparsed prometheus.Counter
}

func newHandlerMetrics(reg prometheus.Registerer, statuses ...int) *handlerMetrics {
	responses := newCounterVec("partners_redirect_responses_total", "status",
		"Responses by HTTP status.")
	m := &handlerMetrics{
		responses: make(map[int]prometheus.Counter),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "partners_redirect_duration_seconds",
			Help:    "Server time of a redirect, including the wait for the disk.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 2, 18),
		}),
		keyless: newCounter("partners_redirect_clicks_without_key_total",
			"Clicks whose visitor got no token because the workspace has no token key."),
		prefetches: newCounter("partners_redirect_prefetches_declined_total",
			"Requests of browsers that fetch or render ahead, answered 503 without a click."),
		textsTruncated: newCounter("partners_redirect_texts_truncated_total",
			"Texts that were truncated so that a click fits its record."),
		userAgentsParsed: newCounter("partners_redirect_user_agents_parsed_total",
			"User-Agents that were not in the cache."),
		userAgentsUnparsed: newCounter("partners_redirect_user_agents_unparsed_total",
			"User-Agents that were left unparsed because all parsers were busy."),
	}
	for _, status := range statuses {
		m.responses[status] = responses.WithLabelValues(strconv.Itoa(status))
	}
	registerCollectors(reg, responses, m.duration, m.keyless, m.prefetches, m.textsTruncated,
		m.userAgentsParsed, m.userAgentsUnparsed)
	return m
}
