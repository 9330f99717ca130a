package parts

import (
	"net/http"
	"sync/atomic"
)

// gate answers with closed until it is opened: a listener that accepts and says nothing would keep its clients until their patience ends.
type gate struct {
	closed http.Handler
	opened atomic.Pointer[http.Handler]
}

func (g *gate) open(h http.Handler) { g.opened.Store(&h) }

// ServeHTTP implements http.Handler.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := g.opened.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	g.closed.ServeHTTP(w, r)
}
