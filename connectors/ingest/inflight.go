package ingest

import (
	"context"
	"sync"
)

// inFlight counts operations under way, up to a limit. It can be closed, and waited for
// until none is left. A semaphore cannot be closed, a WaitGroup has no limit, and
// neither gives a count for a metric.
type inFlight struct {
	mu     sync.Mutex
	n      int           // under way now
	limit  int           // 0: none
	closed bool          // no more may enter
	idle   chan struct{} // closed when n becomes 0; nil unless wait was called
}

// enter counts one more operation. It returns false if the limit is reached or inFlight
// is closed.
func (f *inFlight) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.limit > 0 && f.n >= f.limit {
		return false
	}
	f.n++
	return true
}

func (f *inFlight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

func (f *inFlight) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// close makes enter return false from now on.
func (f *inFlight) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// wait returns nil when nothing is under way, or the context's error.
func (f *inFlight) wait(ctx context.Context) error {
	f.mu.Lock()
	if f.n == 0 {
		f.mu.Unlock()
		return nil
	}
	if f.idle == nil {
		f.idle = make(chan struct{})
	}
	idle := f.idle
	f.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
