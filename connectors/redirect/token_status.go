package redirect

import (
	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
)

// Reasons for not showing the token that come from the catalog's settings. The reasons
// that come from the destination's address (signed_url, oauth, …) are those of
// catalog.WithholdReason, in schemas/catalog/withhold.go.
const (
	reasonTrackingOff = "tracking_off"
	reasonNotEntitled = "not_entitled"
	reasonLinkSetting = "link_setting"
	reasonNoTokenKey  = "no_token_key"
)

// decideTokenStatus decides whether the visitor gets to see the token, and why not. The
// workspace's reasons come before the link's, the link's before the destination's.
func decideTokenStatus(r *catalog.Resolved) (status event.TokenStatus, reason string) {
	switch l := r.Link; {
	case !l.ConversionTracking:
		return event.TokenOff, reasonTrackingOff
	case !r.Workspace.Entitled() || !r.Workspace.Access.ConversionTracking:
		return event.TokenOff, reasonNotEntitled
	case l.Token == catalog.TokenNever:
		return event.TokenWithheld, reasonLinkSetting
	case r.WithholdReason == "":
		return event.TokenAppended, ""
	case l.Token == catalog.TokenAlways && (r.WithholdReason == catalog.ReasonSignedURL ||
		r.WithholdReason == catalog.ReasonOAuth):
		return event.TokenAppended, ""
	default:
		return event.TokenWithheld, r.WithholdReason
	}
}
