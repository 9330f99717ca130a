package ingest

import (
	"context"
	"sync"
)

// A tally counts what is under way, up to a limit, and can be waited for.
type tally struct {
	mu     sync.Mutex
	n      int
	limit  int // 0: none
	closed bool
	idle   chan struct{} // closed when n falls to 0; nil while nobody waits
}

// enter counts one more, unless the tally is full or closed.
func (t *tally) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.limit > 0 && t.n >= t.limit {
		return false
	}
	t.n++
	return true
}

func (t *tally) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

func (t *tally) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n
}

// close lets nothing more enter.
func (t *tally) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

// wait returns when nothing is under way, or with the context's error.
func (t *tally) wait(ctx context.Context) error {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
