package processor

import (
	"time"

	"github.com/nimriz/partners/pipeline/engine"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TransactionTimeout is after how long the broker aborts a transaction.
const TransactionTimeout = engine.TransactionTimeout

// EndTimeout is how long the end of a transaction may take.
const EndTimeout = engine.EndTimeout

// Hanging is in how many partitions the processor wrote markers that Kafka had lost.
func (p *Processor) Hanging() float64 {
	if e := p.engine.Load(); e != nil {
		return value(e.HangingTransactions())
	}
	return 0
}

// value reads a counter or gauge.
func value(c prometheus.Collector) float64 {
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		return -1
	}
	m := families[0].GetMetric()[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// SetHook calls fn at each named step of a transaction.
func (p *Processor) SetHook(fn func(step string)) { p.env.Step = fn }

// SetNow replaces the clock that stamps and ages.
func (p *Processor) SetNow(now func() time.Time) { p.env.Now = now }

// Steps are the names that a hook is called with on the way of a committed transaction.
var Steps = []string{StepPolled, StepProduced, StepFlushed, StepEnded, StepApplied}

// SetOptions adds options to the client of each session.
func (p *Processor) SetOptions(opts ...kgo.Opt) { p.env.ClientOptions = opts }

// SetHasty judges conversions as soon as they are polled.
func (p *Processor) SetHasty() { p.env.SkipBuffering = true }

// SetFlushEvery makes state durable more often than an operator would want.
func (p *Processor) SetFlushEvery(d time.Duration) { p.env.FlushEvery = d }

// SetStuckAfter is after how long without a poll a session counts as stuck.
func (p *Processor) SetStuckAfter(d time.Duration) { p.env.StuckAfter = d }

// SetPartitionCheckInterval is how often partition counts are looked at.
func (p *Processor) SetPartitionCheckInterval(d time.Duration) { p.env.PartitionCheckInterval = d }

// Misplaced is how many events were found in another partition than their token's.
func (p *Processor) Misplaced() float64 { return value(p.m.misplaced) }

// Judged is how many rows of a verdict were counted.
func (p *Processor) Judged(verdict string) float64 { return value(p.m.events.WithLabelValues(verdict)) }
