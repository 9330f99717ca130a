package components

import (
	"net/http"
	"sync"
	"time"
)

// gateWait is how long a request waits for a gate to open: a restart takes less, and
// nobody needs to come again because of one.
const gateWait = 2 * time.Second

// gate holds requests until it is opened, and answers with closed those that have
// waited long enough: a listener that accepts and says nothing would keep its clients
// until their patience ends.
type gate struct {
	closed http.Handler

	once   sync.Once
	opened chan struct{}
	behind http.Handler // set before opened is closed
}

func newGate(closed http.Handler) *gate { return &gate{closed: closed, opened: make(chan struct{})} }

// open lets everything through to h. Only the first call counts.
func (g *gate) open(h http.Handler) {
	g.once.Do(func() {
		g.behind = h
		close(g.opened)
	})
}

// ServeHTTP implements http.Handler.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-g.opened:
	default:
		patience := time.NewTimer(gateWait)
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
	g.behind.ServeHTTP(w, r)
}
