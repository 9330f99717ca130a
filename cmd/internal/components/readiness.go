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
// own timeout. An open gate may be shut again for a while.
type readinessGate struct {
	closed http.Handler // answers while the gate is closed

	once   sync.Once
	opened chan struct{} // closed by openTo
	// The rest is written before opened is closed.
	handler http.Handler // serves once the gate is open
	isShut  func() bool  // closed answers while it is true; nil: never
}

func newReadinessGate(closed http.Handler) *readinessGate {
	return &readinessGate{closed: closed, opened: make(chan struct{})}
}

// openTo passes all requests to h from now on, but while isShut, which may be nil, says
// otherwise. Only the first call has an effect.
func (g *readinessGate) openTo(h http.Handler, isShut func() bool) {
	g.once.Do(func() {
		g.handler = h
		g.isShut = isShut
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
	if g.isShut != nil && g.isShut() {
		g.closed.ServeHTTP(w, r)
		return
	}
	g.handler.ServeHTTP(w, r)
}
