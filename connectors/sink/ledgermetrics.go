package sink

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/prometheus/client_golang/prometheus"
)

// workspaceConservationDays is how many days of receipt, before the current one, the
// metrics compare event by event, which takes memory for each event of these days.
// An event is overdue when the grace, 72 hours, is over: the days must be more.
const workspaceConservationDays = 7

// ledgerMetrics are gauges of the whole ledger, read from views, for alerts. Every sink
// exports the same values. Before the first read it exports none: 0 would be a claim.
type ledgerMetrics struct {
	hasRead                atomic.Bool
	conservationDifference prometheus.Gauge // events

	hasComparedEvents               atomic.Bool
	workspaceConservationDifference prometheus.Gauge // events

	hasCounted             atomic.Bool
	reusedOrders           prometheus.Gauge // orders
	negativesWithoutEffect prometheus.Gauge // events
	positivesInConflict    prometheus.Gauge // events

	waitingEvents   prometheus.Gauge
	reusedEventIDs  prometheus.Gauge
	tokenCoverage   prometheus.Gauge // 0 to 1
	joinedWatermark prometheus.Gauge // Unix time, seconds
}

func newLedgerMetrics(reg prometheus.Registerer) *ledgerMetrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "partners_ledger_" + name, Help: help})
	}
	m := &ledgerMetrics{
		conservationDifference: gauge("conservation_difference",
			"What the view conservation does not account for: 0, always."),
		workspaceConservationDifference: gauge("workspace_conservation_difference",
			"Events of the current day of receipt and the seven before it that the view workspace_conservation finds "+
				"lost, without an event, or more than once: 0, always."),
		waitingEvents: gauge("waiting_events",
			"Events that wait for their click or parent."),
		reusedEventIDs: gauge("reused_event_ids",
			"Event ids with effect under several click tokens: each counts more than once."),
		reusedOrders: gauge("reused_orders",
			"Orders of which several sales stand: each counts more than once."),
		negativesWithoutEffect: gauge("negatives_without_effect",
			"Refunds, cancellations and reversals that were received and took nothing back."),
		positivesInConflict: gauge("positives_in_conflict",
			"Leads and sales that came under the id of another event, with other money: they do not count."),
		tokenCoverage: gauge("token_coverage_ratio",
			"Share of the clicks of the last day, on links that track, whose token was shown to the merchant; "+
				"1 if there are none."),
		joinedWatermark: gauge("joined_watermark_timestamp_seconds",
			"The time up to which clicks and events are joined and in the tables, Unix time."),
	}
	if reg != nil {
		reg.MustRegister(m)
	}
	return m
}

// gaugesOfViews are all that readViews sets.
func (m *ledgerMetrics) gaugesOfViews() []prometheus.Gauge {
	return []prometheus.Gauge{m.conservationDifference, m.waitingEvents, m.reusedEventIDs, m.tokenCoverage,
		m.joinedWatermark}
}

// gaugesOfCounts are all that countListed sets.
func (m *ledgerMetrics) gaugesOfCounts() []prometheus.Gauge {
	return []prometheus.Gauge{m.reusedOrders, m.negativesWithoutEffect, m.positivesInConflict}
}

// Describe implements prometheus.Collector.
func (m *ledgerMetrics) Describe(to chan<- *prometheus.Desc) {
	m.workspaceConservationDifference.Describe(to)
	for _, g := range append(m.gaugesOfViews(), m.gaugesOfCounts()...) {
		g.Describe(to)
	}
}

// Collect implements prometheus.Collector.
func (m *ledgerMetrics) Collect(to chan<- prometheus.Metric) {
	if m.hasComparedEvents.Load() {
		m.workspaceConservationDifference.Collect(to)
	}
	if m.hasCounted.Load() {
		for _, g := range m.gaugesOfCounts() {
			g.Collect(to)
		}
	}
	if m.hasRead.Load() {
		for _, g := range m.gaugesOfViews() {
			g.Collect(to)
		}
	}
}

// refreshLedgerMetrics reads the views until ctx ends. While ClickHouse does not
// answer, the metrics keep their values; retries and lag show the outage.
func (s *Sink) refreshLedgerMetrics(ctx context.Context) {
	for s.env.LedgerMetricsInterval > 0 {
		type reading func(context.Context, *clickhouse.Conn) error
		// one may take too long
		for _, read := range []reading{s.ledger.readViews, s.ledger.compareEvents, s.ledger.countListed} {
			attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
			err := read(attempt, s.wh)
			cancel()
			if err != nil && ctx.Err() == nil {
				level := slog.LevelWarn
				if clickhouse.Unreachable(err) {
					level = slog.LevelDebug // inserts are tried more often, and report the outage
				}
				s.log.Log(ctx, level, "reading the ledger metrics", "error", err)
			}
		}
		if !outage.Sleep(ctx, s.env.LedgerMetricsInterval) {
			return
		}
	}
}

func (m *ledgerMetrics) readViews(ctx context.Context, wh *clickhouse.Conn) error {
	var found []struct {
		Difference float64   `ch:"difference"`
		Reused     float64   `ch:"reused"`
		Coverage   float64   `ch:"coverage"`
		Waiting    float64   `ch:"waiting"`
		Joined     time.Time `ch:"joined"`
	}
	err := wh.Select(ctx, &found, `
		SELECT
			(SELECT toFloat64(sum(abs(difference))) FROM conservation) AS difference,
			(SELECT toFloat64(count()) FROM reused_event_ids) AS reused,
			(
				SELECT if(count() = 0, 1., countIf(token_status = 'appended') / count())
				FROM clicks
				WHERE clicked_at >= now64(3) - INTERVAL 1 DAY
					AND token_status != 'off'
			) AS coverage,
			(SELECT toFloat64(waiting) FROM freshness) AS waiting,
			(SELECT joined_watermark FROM freshness) AS joined`)
	if err != nil {
		return fmt.Errorf("reading conservation, reuse, coverage and freshness: %w", err)
	}
	x := found[0]
	m.conservationDifference.Set(x.Difference)
	m.reusedEventIDs.Set(x.Reused)
	m.tokenCoverage.Set(x.Coverage)
	m.waitingEvents.Set(x.Waiting)
	m.joinedWatermark.Set(float64(x.Joined.UnixMilli()) / 1000)
	m.hasRead.Store(true)
	return nil
}

// compareEvents reads workspace_conservation, as far as its days are recent.
func (m *ledgerMetrics) compareEvents(ctx context.Context, wh *clickhouse.Conn) error {
	var found []struct {
		Difference float64 `ch:"difference"`
	}
	err := wh.Select(ctx, &found, `
		SELECT toFloat64(sum(abs(difference))) AS difference
		FROM workspace_conservation
		WHERE day >= toDate(now('UTC')) - {days:UInt8}`,
		clickhouse.Named("days", workspaceConservationDays))
	if err != nil {
		return fmt.Errorf("reading workspace_conservation: %w", err)
	}
	m.workspaceConservationDifference.Set(found[0].Difference)
	m.hasComparedEvents.Store(true)
	return nil
}

// countListed counts what the views order_reuse and negatives_without_effect list, and
// leads and sales with the flag money_differs.
func (m *ledgerMetrics) countListed(ctx context.Context, wh *clickhouse.Conn) error {
	var found []struct {
		Orders    float64 `ch:"orders"`
		Negatives float64 `ch:"negatives"`
		Conflicts float64 `ch:"conflicts"`
	}
	err := wh.Select(ctx, &found, `
		SELECT
			(SELECT toFloat64(count()) FROM order_reuse) AS orders,
			(SELECT toFloat64(count()) FROM negatives_without_effect) AS negatives,
			(
				SELECT toFloat64(count())
				FROM outcomes
				WHERE verdict = 'conflict' AND type IN ('lead', 'sale') AND has(flags, 'money_differs')
			) AS conflicts`)
	if err != nil {
		return fmt.Errorf("reading order_reuse, negatives_without_effect and conflicts: %w", err)
	}
	m.reusedOrders.Set(found[0].Orders)
	m.negativesWithoutEffect.Set(found[0].Negatives)
	m.positivesInConflict.Set(found[0].Conflicts)
	m.hasCounted.Store(true)
	return nil
}
