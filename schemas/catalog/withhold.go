package catalog

import (
	"net/url"
	"slices"
	"strings"
)

// Reasons why the click token is withheld from a destination. The click records them as
// token_reason. The settings of link and workspace add three more reasons:
// connectors/redirect, token_status.go.
const (
	// ReasonScheme: the destination is not http or https.
	ReasonScheme = "scheme"
	// ReasonSemicolonQuery: the query contains a semicolon, which some servers read as
	// a separator and others as data.
	ReasonSemicolonQuery = "semicolon_query"
	// ReasonReservedPresent: the destination already has the token parameter.
	ReasonReservedPresent = "reserved_present"
	// ReasonSignedURL: another parameter would, or might, break the URL's signature.
	ReasonSignedURL = "signed_url"
	// ReasonOAuth: an OAuth request or response, which servers compare as a whole.
	ReasonOAuth = "oauth"
)

// WithholdReason returns why the token parameter must not be added to a destination, or
// "" if it may be added. If several reasons apply, it returns the first in the order of
// the constants. The first three are final; a link's `token: always` overrides
// signed_url and oauth.
//
// Only the bytes between the first ? and the first # count. Parameters are separated by
// &; a name ends at the first =, and values are ignored. Names are percent-decoded once
// (a + is a space, an invalid escape is left as it is) and lower-cased, for the
// comparison only. Servers differ in whether case matters, and a token withheld without
// need costs less than a broken link.
//
//	signed_url  x-amz-signature │ x-goog-signature │ hmac
//	            signature with key-pair-id │ sig with se or sv
//	            signature, sign or token with an expiry: exp, valid_until,
//	              or a name that contains "expir"
//	oauth       state with code or redirect_uri
func WithholdReason(destination string, tokenParameter string) (reason string) {
	if !hasWebScheme(destination) {
		return ReasonScheme
	}
	destination, _, _ = strings.Cut(destination, "#")
	_, query, _ := strings.Cut(destination, "?")
	if query == "" {
		return ""
	}
	if strings.Contains(query, ";") {
		return ReasonSemicolonQuery
	}
	names := queryNames(query)
	has := func(name string) bool { return slices.Contains(names, name) }
	switch {
	case has(strings.ToLower(tokenParameter)):
		return ReasonReservedPresent
	case has("x-amz-signature"), has("x-goog-signature"), has("hmac"),
		has("signature") && has("key-pair-id"),
		has("sig") && (has("se") || has("sv")),
		(has("signature") || has("sign") || has("token")) && slices.ContainsFunc(names, isExpiry):
		return ReasonSignedURL
	case has("state") && (has("code") || has("redirect_uri")):
		return ReasonOAuth
	}
	return ""
}

func hasWebScheme(destination string) bool {
	scheme, _, ok := strings.Cut(destination, "://")
	return ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

func queryNames(query string) []string {
	var names []string
	for part := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(part, "=")
		if decoded, err := url.QueryUnescape(name); err == nil {
			name = decoded
		}
		names = append(names, strings.ToLower(name))
	}
	return names
}

func isExpiry(name string) bool {
	return name == "exp" || name == "valid_until" || strings.Contains(name, "expir")
}
