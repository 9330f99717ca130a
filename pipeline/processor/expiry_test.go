package processor_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/schemas/event"
)

// A processor that was away for long reads days of log in one transaction: a sale of a
// click that is forty days old, and then what makes that click too old to keep. The
// transaction fails and is read again; the sale must find its click again.
func TestExpiryWaitsForTheCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	f := &faults{}
	f.request.Store(true)
	var failed atomic.Int64
	cfg := config(t.TempDir())
	const day = 24 * time.Hour
	minted := time.Now().Add(-60 * day)
	clickAt := func(at time.Time) *event.Click {
		w.shift = time.Since(at)
		return w.Click()
	}
	k := clickAt(minted) // it comes last: too old for the segment that will have begun
	here := func(at time.Time) *event.Click {
		for {
			if x := clickAt(at); w.partition(x.ClickToken) == w.partition(k.ClickToken) {
				return x
			}
		}
	}
	stop := start(t, newProcessor(t, w.brokers, cfg))
	for range 200 { // enough for a segment to say when its clicks were minted
		w.sendClick(here(minted.Add(time.Hour)))
	}
	w.sendEvent(w.Sale(here(minted.Add(time.Hour)), 100))
	w.flush()
	eventually(t, "the first clicks are read", func() bool {
		return w.progress()[w.partition(k.ClickToken)].ClicksPosition >= 200
	})
	stop()
	stop = start(t, newProcessor(t, w.brokers, cfg))
	w.shift = time.Since(minted.Add(2 * time.Hour))
	w.sendClick(k)
	w.flush()
	eventually(t, "the late click is read", func() bool {
		return w.progress()[w.partition(k.ClickToken)].ClicksPosition >= 201
	})
	stop()

	// What came while nobody ran.
	k.WindowMs = 90 * day.Milliseconds()
	w.shift = time.Since(minted.Add(20 * day))
	w.sendEvent(w.Sale(k, 1000))
	younger := here(minted.Add(42 * day))
	w.sendClick(younger)
	w.sendEvent(w.Sale(younger, 2000))
	w.flush()
	cfg.CommitInterval = time.Second
	p := newProcessor(t, w.brokers, cfg)
	p.SetOptions(f.options()...)
	p.SetHook(func(step string) {
		switch {
		case step == processor.StepJudged && failed.Load() == 0:
			f.lose.Store(1 << 30)
		case step == processor.StepEndFailed:
			failed.Add(1)
			f.lose.Store(0)
		}
	})
	start(t, p)
	w.settle(grace)
	w.conserved()
	if failed.Load() == 0 {
		t.Error("no transaction failed")
	}
}
