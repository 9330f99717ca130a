package sink

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/prometheus/client_golang/prometheus"
)

// ledgerMetricsInterval is how often the views are read: the views read whole tables.
// workspace_conservation is left to reports: it groups by event.
const ledgerMetricsInterval = 5 * time.Minute

// ledgerMetrics are what the views say of the whole ledger, for alerts. Each sink says the
// same. Until they were read for the first time they say nothing: 0 would be an answer.
type ledgerMetrics struct {
	hasRead                                                                               atomic.Bool
	conservationDifference, waitingEvents, reusedEventIDs, tokenCoverage, joinedWatermark prometheus.Gauge
}

func newLedgerMetrics(reg prometheus.Registerer) *ledgerMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "partners_ledger_" + name, Help: help})
	}
	b := &ledgerMetrics{
		conservationDifference: gauge("conservation_difference", "What the view conservation does not account for: 0, always."),
		waitingEvents:          gauge("waiting_events", "Events that wait for their click or parent."),
		reusedEventIDs: gauge("reused_event_ids", "Event ids with effect under several click tokens: each counts "+
			"more than once."),
		tokenCoverage: gauge("token_coverage_ratio", "Share of the clicks of the last day, on links that track, whose "+
			"token was shown to the merchant; 1 if there are none."),
		joinedWatermark: gauge("joined_watermark_timestamp_seconds", "The time up to which clicks and events are joined "+
			"and in the tables, Unix time."),
	}
	if reg != nil {
		reg.MustRegister(b)
	}
	return b
}

func (b *ledgerMetrics) allGauges() []prometheus.Gauge {
	return []prometheus.Gauge{b.conservationDifference, b.waitingEvents, b.reusedEventIDs, b.tokenCoverage, b.joinedWatermark}
}

// Describe implements prometheus.Collector.
func (b *ledgerMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, g := range b.allGauges() {
		g.Describe(to)
	}
}

// Collect implements prometheus.Collector.
func (b *ledgerMetrics) Collect(to chan<- prometheus.Metric) {
	if !b.hasRead.Load() {
		return
	}
	for _, g := range b.allGauges() {
		g.Collect(to)
	}
}

// refreshLedgerMetrics reads the views until ctx ends. Where ClickHouse does not answer they stay
// as they were: stalls and lag tell that.
func (s *Sink) refreshLedgerMetrics(ctx context.Context) {
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := s.ledger.readViews(attempt, s.wh)
		cancel()
		if err != nil && ctx.Err() == nil {
			level := slog.LevelWarn
			if clickhouse.Unreachable(err) {
				level = slog.LevelDebug // inserts tell of that, and are tried more often
			}
			s.log.Log(ctx, level, "reading the ledger metrics", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(ledgerMetricsInterval):
		}
	}
}

func (b *ledgerMetrics) readViews(ctx context.Context, wh *clickhouse.Conn) error {
	var found []struct {
		Difference float64   `ch:"difference"`
		Reused     float64   `ch:"reused"`
		Coverage   float64   `ch:"coverage"`
		Waiting    float64   `ch:"waiting"`
		Joined     time.Time `ch:"joined"`
	}
	err := wh.Select(ctx, &found, `SELECT (SELECT toFloat64(sum(abs(difference))) FROM conservation) AS difference,
		(SELECT toFloat64(count()) FROM event_id_reuse) AS reused,
		(SELECT if(count() = 0, 1., countIf(token_status = 'appended') / count()) FROM clicks WHERE clicked_at >= now64(3) - INTERVAL 1 DAY AND token_status != 'off') AS coverage,
		(SELECT toFloat64(waiting) FROM freshness) AS waiting, (SELECT joined_watermark FROM freshness) AS joined`)
	if err != nil {
		return fmt.Errorf("reading conservation, reuse, coverage and freshness: %w", err)
	}
	x := found[0]
	b.conservationDifference.Set(x.Difference)
	b.reusedEventIDs.Set(x.Reused)
	b.tokenCoverage.Set(x.Coverage)
	b.waitingEvents.Set(x.Waiting)
	b.joinedWatermark.Set(float64(x.Joined.UnixMilli()) / 1000)
	b.hasRead.Store(true)
	return nil
}
