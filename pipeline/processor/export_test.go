package processor

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

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
