package components

import (
	"net/http"
	"sync"
	"time"
)

// maxGateWait is how long a request waits for a gate to open: a restart takes less, and
// nobody needs to come again because of one.
const maxGateWait = 2 * time.Second

// readinessGate holds requests until it is opened, and answers with closed those that have
// waited long enough: a listener that accepts and says nothing would keep its clients
// until their patience ends.
type readinessGate struct {
	closed http.Handler

	once    sync.Once
	opened  chan struct{}
	handler http.Handler // set before opened is closed
}

func newReadinessGate(closed http.Handler) *readinessGate {
	return &readinessGate{closed: closed, opened: make(chan struct{})}
}

// openTo lets everything through to h. Only the first call counts.
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
		patience := time.NewTimer(maxGateWait)
		defer patience.Stop()
		select {
		case <-g.opened:
		case <-r.Context().Done():
			return
		case <-patience.C:
			g.closed.ServeHTTP(w, r)
			return
		}
	}
	g.handler.ServeHTTP(w, r)
}
