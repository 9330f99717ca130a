package components

import (
	"net/http"
	"sync"
	"time"
)

// maxGateWait is how long a request waits for a gate to open. A restart takes less, so
// clients need not retry because of one.
const maxGateWait = 2 * time.Second

// readinessGate holds requests until it is opened. A request that has waited
// maxGateWait is answered by closed: without an answer, its client would hang until its
// own timeout.
type readinessGate struct {
	closed http.Handler // answers while the gate is closed

	once    sync.Once
	opened  chan struct{} // closed by openTo
	handler http.Handler  // serves once the gate is open; written before opened is closed
}

func newReadinessGate(closed http.Handler) *readinessGate {
	return &readinessGate{closed: closed, opened: make(chan struct{})}
}

// openTo passes all requests to h from now on. Only the first call has an effect.
func (g *readinessGate) openTo(h http.Handler) {
	g.once.Do(func() {
		g.handler = h
		close(g.opened)
	})
}

// ServeHTTP implements http.Handler.
func (g *readinessGate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-g.opened:
	default:
		timeout := time.NewTimer(maxGateWait)
		defer timeout.Stop()
		select {
		case <-g.opened:
		case <-r.Context().Done():
			return
		case <-timeout.C:
			g.closed.ServeHTTP(w, r)
			return
		}
	}
	g.handler.ServeHTTP(w, r)
}
