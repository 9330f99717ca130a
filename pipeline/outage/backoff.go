package outage

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff spaces the attempts at something that fails. Each pause is twice as long as
// the one before it.
type Backoff struct {
	Min time.Duration // the first pause
	Max time.Duration // no pause is longer
	// Jitter spreads each pause evenly over half to one and a half times its length, so
	// that what failed together is not repeated together.
	Jitter bool

	next time.Duration // zero: Min
}

// Next returns how long to wait before the next attempt.
func (b *Backoff) Next() time.Duration {
	pause := max(b.next, b.Min)
	b.next = min(2*pause, b.Max)
	if b.Jitter && pause > 0 {
		pause = pause/2 + rand.N(pause)
	}
	return pause
}

// Reset makes the next pause the shortest again.
func (b *Backoff) Reset() { b.next = 0 }

// Sleep waits for a pause and reports whether it passed before ctx ended.
func Sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
