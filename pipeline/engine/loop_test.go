package engine

import (
	"testing"
	"time"

	"github.com/nimriz/partners/schemas/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

// While a task holds an event back, polls are short: what it waits for does not come by a
// poll, and a long one would delay all of its partition by a commit interval.
func TestHeldBackPollsShortly(t *testing.T) {
	p := &Partition{buffered: []bufferedRecord{{&kgo.Record{Timestamp: time.Now()}, time.Now()}}}
	p.leading.newest = event.MillisOf(time.Now().Add(time.Hour))
	p.task.Ready = func(*kgo.Record, time.Time) bool { return false }
	s := &session{endOffsets: &endOffsetPoller{}, env: DefaultEnv(), running: map[int32]*Partition{0: p}}
	tx := &Tx{session: s, deadline: time.Now().Add(time.Hour)}
	if err := s.applyBuffered(tx); err != nil {
		t.Fatal(err)
	}
	if got := s.pollTimeout(tx); got > 10*time.Millisecond || len(p.buffered) != 1 {
		t.Errorf("polls for %v with %d events held back", got, len(p.buffered))
	}
}
