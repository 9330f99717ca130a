package processor

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TransactionTimeout is after how long the broker aborts a transaction.
const TransactionTimeout = transactionTimeout

// Hanging is how many markers that Kafka lost the processor wrote.
func (p *Processor) Hanging() float64 {
	reg := prometheus.NewRegistry()
	reg.MustRegister(p.m.hanging)
	families, err := reg.Gather()
	if err != nil {
		return -1
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

// GroupPartition is the partition of __consumer_offsets that holds a group.
var GroupPartition = groupPartition

// SetHook calls fn at each named step of a transaction.
func (p *Processor) SetHook(fn func(step string)) { p.hook = fn }

// SetNow replaces the clock that stamps and ages.
func (p *Processor) SetNow(now func() time.Time) { p.now = now }

// Steps are the names that a hook is called with on the way of a committed transaction.
var Steps = []string{StepPolled, StepProduced, StepFlushed, StepEnded, StepApplied}

// SetOptions adds options to the client of each session.
func (p *Processor) SetOptions(opts ...kgo.Opt) { p.extra = opts }

// SetHasty judges conversions as soon as they are polled.
func (p *Processor) SetHasty() { p.hasty = true }

// SetFlushEvery makes state durable more often than an operator would want.
func (p *Processor) SetFlushEvery(d time.Duration) { p.flushEvery = d }

// SetStuckAfter is after how long without a poll a session counts as stuck.
func (p *Processor) SetStuckAfter(d time.Duration) { p.stuckAfter = d }
