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

// saysAhead looks at the items of a header, without their parameters. Proxies join lines
// of one name by commas.
func saysAhead(values []string) bool {
	for _, value := range values {
		for item := range strings.SplitSeq(value, ",") {
			purpose, _, _ := strings.Cut(item, ";")
			purpose = strings.Trim(purpose, "\" \t")
			if strings.EqualFold(purpose, "prefetch") || strings.EqualFold(purpose, "prerender") ||
				strings.EqualFold(purpose, "preview") {
				return true
			}
		}
	}
	return false
}

// declinePrefetch makes the browser ask again when its user clicks. If it got the
// redirect now, it would follow that one without another word: the click would be the
// browser's and the person would have none. A browser does not use a prefetched 503.
func (h *Handler) declinePrefetch(w http.ResponseWriter, r *http.Request) {
	h.metrics.prefetches.Inc()
	h.writeError(w, r, http.StatusServiceUnavailable, "This link answers when it is visited, not before.\n")
}
