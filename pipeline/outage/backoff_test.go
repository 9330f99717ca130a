package outage_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nimriz/partners/pipeline/outage"
)

// Pauses double up to the longest, and begin again after a reset.
func TestBackoff(t *testing.T) {
	b := outage.Backoff{Min: 100 * time.Millisecond, Max: 300 * time.Millisecond}
	for _, want := range []time.Duration{100, 200, 300, 300} {
		if got := b.Next(); got != want*time.Millisecond {
			t.Errorf("paused %v, want %v", got, want*time.Millisecond)
		}
	}
	b.Reset()
	if got := b.Next(); got != b.Min {
		t.Errorf("after a reset: paused %v, want %v", got, b.Min)
	}
}

// Jitter keeps each pause within half of its length, on both sides, and is not always
// the same.
func TestBackoffJitter(t *testing.T) {
	different := map[time.Duration]bool{}
	for range 100 {
		b := outage.Backoff{Min: time.Second, Max: time.Minute, Jitter: true}
		for _, full := range []time.Duration{time.Second, 2 * time.Second} {
			if got := b.Next(); got < full/2 || got >= full+full/2 {
				t.Fatalf("paused %v, want within half of %v", got, full)
			} else if full == time.Second {
				different[got] = true
			}
		}
	}
	if len(different) < 10 {
		t.Errorf("100 pauses had %d different lengths", len(different))
	}
}

// Sleep says whether the pause passed.
func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		if began := time.Now(); !outage.Sleep(ctx, time.Minute) || time.Since(began) != time.Minute {
			t.Errorf("slept %v of a minute", time.Since(began))
		}
		if outage.Sleep(ctx, time.Minute) {
			t.Error("slept on after the context had ended")
		}
	})
}
