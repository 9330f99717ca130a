package catalog

import (
	"net/url"
	"slices"
	"strings"
)

// Reasons for which [Safety] withholds a token; they stand on the click as
// token_reason.
const (
	ReasonScheme = "scheme" // not http or https
	// ; in the query: a separator to some servers, data to others
	ReasonSemicolonQuery  = "semicolon_query"
	ReasonReservedPresent = "reserved_present" // the destination already has the token parameter
	ReasonSignedURL       = "signed_url"       // another parameter would, or might, break a signature
	// an authorization request or answer; servers compare it as a whole
	ReasonOAuth = "oauth"
)

// Safety says why the token parameter must not be added to a destination, or "" if it
// may. Where several reasons hold, the first in the order of the constants is given:
// the first three are final, signed_url and oauth yield to a link's `token: always`.
//
// Only the bytes between the first ? and the first # are looked at. Parameters are what
// & separates; a name ends at the first =, a value is never looked at. For comparison,
// and only for it, names are percent-decoded once (a + is a space, a bad escape stands
// for itself) and lower-cased: servers differ in whether case matters, and a token
// withheld in vain costs less than a broken link.
//
//	signed_url  x-amz-signature │ x-goog-signature │ hmac
//	            signature with key-pair-id │ sig with se or sv
//	            signature, sign or token with an expiry: exp, valid_until, or a name that contains "expir"
//	oauth       state with code or redirect_uri
func Safety(destination string, tokenParameter string) (reason string) {
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
