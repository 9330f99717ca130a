package redirect

import (
	"net/http"
	"strings"
)

// isPrefetch reports whether a browser asks before its user has clicked: to prefetch or
// prerender a page, or to draw a preview of it.
//
//	Sec-Purpose: prefetch, prefetch;prerender, prefetch;anonymous-client-ip   Chrome, Firefox
//	Purpose:     prefetch, preview                                            Safari, older Chrome
//	X-Moz:       prefetch                                                     older Firefox
//	X-Purpose:   preview, prefetch                                            apps, older Safari
func isPrefetch(h http.Header) bool {
	return saysAhead(h["Sec-Purpose"]) || saysAhead(h["Purpose"]) || saysAhead(h["X-Moz"]) || saysAhead(h["X-Purpose"])
}

// saysAhead looks at the first item of a header, without its parameters.
func saysAhead(values []string) bool {
	if len(values) == 0 {
		return false
	}
	purpose, _, _ := strings.Cut(values[0], ";")
	purpose = strings.TrimSpace(purpose)
	return strings.EqualFold(purpose, "prefetch") || strings.EqualFold(purpose, "prerender") ||
		strings.EqualFold(purpose, "preview")
}

// declinePrefetch makes the browser ask again when its user clicks. If it got the
// redirect now, it would follow that one without another word: the click would be the
// browser's and the person would have none. A browser does not use a prefetched 503.
func (h *Handler) declinePrefetch(w http.ResponseWriter, r *http.Request) {
	h.metrics.prefetches.Inc()
	h.writeError(w, r, http.StatusServiceUnavailable, "This link answers when it is visited, not before.\n")
}
