package catalog

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Reasons why the click token is withheld from a tracked link's destination. The click
// records them as token_reason. The workspace's and the link's settings add more:
// connectors/redirect, token_status.go.
const (
	// ReasonLinkSetting: the link says `token: never`.
	ReasonLinkSetting = "link_setting"
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

// TokenWithheld returns why the link withholds its token, or "" if it shows it. reason is
// that of the destination, [WithholdReason].
func (l *Link) TokenWithheld(reason string) string {
	switch {
	case l.Token == TokenNever:
		return ReasonLinkSetting
	case l.Token == TokenAlways && (reason == ReasonSignedURL || reason == ReasonOAuth):
		return ""
	}
	return reason
}

// WithholdReason returns why the token parameter must not be added to a destination, or
// "" if it may be added. If several reasons apply, it returns the first in the order of
// the constants. The first three are final; a link's `token: always` overrides
// signed_url and oauth.
//
// Only the bytes between the first ? and the first # count. Parameters are separated by
// &; a name ends at the first =. Names and values are percent-decoded once (a + is a
// space, an invalid escape is left as it is), names are lower-cased, for the comparison
// only. Servers differ in whether case matters, and a token withheld without need costs
// less than a broken link. So signatures are found by rule, not by name:
//
//	signed_url  a word of a name ends in signature, sig, hash, hmac or checksum, such as
//	              x-oss-signature and params[sig]; the same inside of a value:
//	              exp=1~acl=/*~hmac=…
//	            mac, digest, md5 and the like with a digest
//	            sign with its type or method, such as sign_type
//	            a word that ends in sign, such as shasign, with a MAC
//	            sign, token, or a MAC under any name, with an expiry: exp, valid_until,
//	              a name that contains "expir", …
//	            a MAC under any name, with a time in Unix seconds under any other
//	            a value that is time and MAC in one, such as 1790000000-…
//	            s with a MAC in hexadecimal digits
//	oauth       state with code or redirect_uri. But a state that is a place, with a
//	              code that is a word, is an address and a coupon: state=CA&code=SAVE10
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
	q := parseDestinationQuery(query)
	switch {
	case slices.ContainsFunc(q, func(p destinationParameter) bool { return ReadsAs(p.name, tokenParameter) }):
		return ReasonReservedPresent
	case q.isSigned():
		return ReasonSignedURL
	case q.isOAuth():
		return ReasonOAuth
	}
	return ""
}

func hasWebScheme(destination string) bool {
	scheme, _, ok := strings.Cut(destination, "://")
	return ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

// destinationQuery is the parameters of a destination, in their order.
type destinationQuery []destinationParameter

type destinationParameter struct {
	name  string // decoded, in lower case
	value string // decoded
}

func parseDestinationQuery(query string) (q destinationQuery) {
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		q = append(q, destinationParameter{strings.ToLower(decodeOnce(name)), decodeOnce(value)})
	}
	return q
}

func decodeOnce(s string) string {
	if decoded, err := url.QueryUnescape(s); err == nil {
		return decoded
	}
	return s
}

func (q destinationQuery) has(name string) bool {
	return slices.ContainsFunc(q, func(p destinationParameter) bool { return p.name == name })
}

// valueOf returns the first value of a name, or "".
func (q destinationQuery) valueOf(name string) string {
	for _, p := range q {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

var (
	// innerName: a name inside of a value, as in exp=1~hmac=2.
	innerName = regexp.MustCompile(`([A-Za-z0-9_-]+)=`)
	// hexMAC has the length of a MAC or digest: MD5 to SHA-512.
	hexMAC = regexp.MustCompile(`^([0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{56}|[0-9A-Fa-f]{64}|` +
		`[0-9A-Fa-f]{96}|[0-9A-Fa-f]{128})$`)
	base64MAC = regexp.MustCompile(`^[A-Za-z0-9+/_-]{22,88}={0,2}$`)
	// timedMAC: seconds since 1970, then perhaps more, then a MAC.
	timedMAC = regexp.MustCompile(`^[0-9]{10}([-_.][0-9A-Za-z]{1,40})*[-_.][0-9A-Za-z+/_-]{20,}={0,2}$`)
	// timeBehindMAC: what is in front of the time must be a MAC.
	timeBehindMAC = regexp.MustCompile(`^(.+)[-_.,~:][0-9]{10}$`)
	// unixTime is seconds or milliseconds since 1970.
	unixTime = regexp.MustCompile(`^[0-9]{10}([0-9]{3})?$`)
	// presentTime is the same, of 2017 to 2033. Other numbers of ten digits are ids.
	presentTime = regexp.MustCompile(`^1[5-9][0-9]{8}([0-9]{3})?$`)
	// hexTime is seconds since 1970 as Discord and Tencent write them, of 2012 to 2038.
	hexTime = regexp.MustCompile(`^[5-7][0-9A-Fa-f]{7}$`)
	// shortHex is as short as a digest is cut.
	shortHex = regexp.MustCompile(`^[0-9A-Fa-f]{8,128}$`)
)

func (q destinationQuery) isSigned() bool {
	expires := slices.ContainsFunc(q, destinationParameter.isExpiry)
	timed := expires || slices.ContainsFunc(q, func(p destinationParameter) bool {
		return presentTime.MatchString(p.value)
	})
	return slices.ContainsFunc(q, func(p destinationParameter) bool {
		switch {
		case namesSignature(p.name), namesDigest(p.name) && isDigest(p.value), isTimedMAC(p.value):
			return true
		case slices.ContainsFunc(innerName.FindAllStringSubmatch(p.value, -1), func(m []string) bool {
			return namesSignature(strings.ToLower(m[1]))
		}):
			return true
		case p.name == "s":
			return hexMAC.MatchString(p.value)
		case p.name == "sign" && (expires || slices.ContainsFunc(q, destinationParameter.isSignType)):
			return true
		case hasWord(p.name, func(w string) bool { return strings.HasSuffix(w, "sign") }):
			return isMAC(p.value)
		}
		return expires && p.name == "token" || timed && isMAC(p.value)
	})
}

// hasWord reports whether is holds for a word of a name. Words are letters and digits;
// anything else stands between them, as in x-oss-signature and params[sig].
func hasWord(name string, is func(word string) bool) bool {
	return slices.ContainsFunc(strings.FieldsFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9')
	}), is)
}

func namesSignature(name string) bool {
	return hasWord(name, func(w string) bool {
		return slices.ContainsFunc([]string{"signature", "signaturevalue", "sig", "hash", "hmac", "checksum"},
			func(end string) bool { return strings.HasSuffix(w, end) })
	})
}

// namesDigest reports whether a name is that of a digest, or means something else: a
// weekly digest, a Mac, a check.
func namesDigest(name string) bool {
	return hasWord(name, func(w string) bool {
		return strings.HasSuffix(w, "digest") || slices.Contains([]string{"mac", "md5", "sha", "sha1", "sha224",
			"sha256", "sha384", "sha512", "crc", "crc32", "chk", "seal"}, w)
	})
}

func (p destinationParameter) isSignType() bool {
	kind, ok := strings.CutPrefix(p.name, "sign")
	return ok && slices.Contains([]string{"type", "method", "alg", "algorithm", "ver", "version"},
		strings.TrimLeft(kind, "-_."))
}

func (p destinationParameter) isExpiry() bool {
	switch p.name {
	case "exp", "valid_until", "validuntil", "valid_to", "validto", "deadline", "not_after", "se":
		return true
	case "e", "ex", "oe", "t", "ts", "until", "time", "timestamp":
		return unixTime.MatchString(p.value) || hexTime.MatchString(p.value)
	}
	return strings.Contains(p.name, "expir")
}

// isMAC recognizes a MAC by its form. A word or an id in base64's letters lacks one of
// the three classes.
func isMAC(value string) bool {
	return hexMAC.MatchString(value) || base64MAC.MatchString(value) && isRandomText(value)
}

// isTimedMAC recognizes a MAC and the time until which it holds, in either order.
func isTimedMAC(value string) bool {
	if timedMAC.MatchString(value) {
		return true
	}
	m := timeBehindMAC.FindStringSubmatch(value)
	return m != nil && isMAC(m[1])
}

// isDigest recognizes a digest under a name of one, cut short or not.
func isDigest(value string) bool {
	return isMAC(value) || shortHex.MatchString(value) && strings.ContainsAny(value, "0123456789") &&
		strings.ContainsAny(value, "abcdefABCDEF")
}

// isRandomText reports whether a text has letters of both cases and a digit, as random
// bytes in base64 have.
func isRandomText(s string) bool {
	return strings.ContainsAny(s, "0123456789") && strings.ToLower(s) != s && strings.ToUpper(s) != s
}

func (q destinationQuery) isOAuth() bool {
	if !q.has("state") {
		return false
	}
	if q.has("redirect_uri") {
		return true
	}
	return q.has("code") && !(isPlace(q.valueOf("state")) && isWord(q.valueOf("code")))
}

// usStates are the states of the USA as letters have them, in lower case.
const usStates = " al ak az ar ca co ct de fl ga hi id il in ia ks ky la me md ma mi mn ms mo mt ne nv nh nj nm ny " +
	"nc nd oh ok or pa ri sc sd tn tx ut vt va wa wv wi wy dc pr "

// isPlace reports whether a state is one of a country: a capital and letters, or the
// abbreviation of a state in small ones.
func isPlace(state string) bool {
	if state == "" || len(state) > 24 {
		return false
	}
	letters := strings.Trim(strings.ToLower(state), "abcdefghijklmnopqrstuvwxyz .-") == ""
	return letters && ('A' <= state[0] && state[0] <= 'Z' || strings.Contains(usStates, " "+state+" "))
}

// isWord reports whether a code is one that people type.
func isWord(code string) bool {
	return code != "" && len(code) <= 24 && !hexMAC.MatchString(code) && (len(code) < 16 || !isRandomText(code))
}
