package redirect

import (
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
)

// Reasons for not showing the token that come from the workspace's settings. Those that
// come from the link (link_setting) and from its destination (signed_url, oauth, …) are
// in schemas/catalog/withhold.go.
const (
	reasonTrackingOff = "tracking_off"
	reasonNotEntitled = "not_entitled"
	reasonNoTokenKey  = "no_token_key"
)

// decideTokenStatus decides whether the visitor gets to see the token, and why not. The
// workspace's reasons come before the link's, the link's before the destination's.
func decideTokenStatus(r *catalog.Resolved) (status event.TokenStatus, reason string) {
	l := r.Link
	switch {
	case !l.ConversionTracking:
		return event.TokenOff, reasonTrackingOff
	case !r.Workspace.Entitled() || !r.Workspace.Access.ConversionTracking:
		return event.TokenOff, reasonNotEntitled
	}
	if reason = l.TokenWithheld(r.WithholdReason); reason != "" {
		return event.TokenWithheld, reason
	}
	return event.TokenAppended, ""
}
