package redirect

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nimriz/partners/schemas/catalog"
	"github.com/nimriz/partners/schemas/event"
)

const (
	triggerParameter = "nr"
	triggerQR        = "qr"
	// maxSub bounds sub1 … sub5, in characters.
	maxSub = 64
)

// Reasons for not showing the token that come from the catalog's settings; those of the
// destination are catalog.WithholdReason's.
const (
	reasonTrackingOff = "tracking_off"
	reasonNotEntitled = "not_entitled"
	reasonLinkSetting = "link_setting"
)

// visit is what the short URL's query says.
type visit struct {
	qr  bool
	sub [5]string
}

// parseVisit reads nr and sub1 … sub5; of a repeated name the first counts. The rest of
// the query is nobody's business but forward's.
func parseVisit(query string) (v visit) {
	var seen [5]bool
	for query != "" {
		var part string
		part, query, _ = strings.Cut(query, "&")
		name, value, _ := strings.Cut(part, "=")
		name = unescape(name)
		if name == triggerParameter {
			v.qr = v.qr || unescape(value) == triggerQR
		} else if i, ok := subIndex(name); ok && !seen[i] {
			seen[i], v.sub[i] = true, printable(unescape(value), maxSub)
		}
	}
	return v
}

func subIndex(name string) (int, bool) {
	if len(name) == 4 && name[:3] == "sub" && '1' <= name[3] && name[3] <= '5' {
		return int(name[3] - '1'), true
	}
	return 0, false
}

// unescape decodes a query's text once; a bad escape stands for itself.
func unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	if decoded, err := url.QueryUnescape(s); err == nil {
		return decoded
	}
	return s
}

// printable drops what is not printable (bytes that are no UTF-8 included) and cuts at
// limit characters.
func printable(s string, limit int) string {
	clean := len(s) <= limit
	for i := 0; clean && i < len(s); i++ {
		clean = 0x20 <= s[i] && s[i] < 0x7f
	}
	if clean {
		return s
	}
	var b strings.Builder
	n := 0
	for i := 0; i < len(s) && n < limit; {
		r, size := utf8.DecodeRuneInString(s[i:])
		if unicode.IsPrint(r) && !(r == utf8.RuneError && size == 1) {
			b.WriteString(s[i : i+size])
			n++
		}
		i += size
	}
	return b.String()
}

// bare is a destination without query and fragment, as the click records it.
func bare(destination string) string {
	if i := strings.IndexAny(destination, "?#"); i >= 0 {
		return destination[:i]
	}
	return destination
}

// extend puts parameters into a destination and leaves every byte of it as it is:
// before the first #, behind ? or & as needed, none behind a final ? or &. Without
// parameters the destination comes back itself.
func extend(destination string, parameters ...string) string {
	head, fragment := destination, ""
	if i := strings.IndexByte(destination, '#'); i >= 0 {
		head, fragment = destination[:i], destination[i:]
	}
	n := len(destination)
	for _, p := range parameters {
		n += 1 + len(p)
	}
	if n == len(destination) {
		return destination
	}
	var b strings.Builder
	b.Grow(n)
	b.WriteString(head)
	separator := separatorAfter(head)
	for _, p := range parameters {
		if p == "" {
			continue
		}
		b.WriteString(separator)
		b.WriteString(p)
		separator = "&"
	}
	b.WriteString(fragment)
	return b.String()
}

func separatorAfter(head string) string {
	switch {
	case !strings.Contains(head, "?"):
		return "?"
	case strings.HasSuffix(head, "?"), strings.HasSuffix(head, "&"):
		return ""
	}
	return "&"
}

// forwarded is the part of the visitor's query that goes into the destination:
// parameters in their order and bytes, but never nr, sub1 … sub5, the token parameter,
// or a name that the destination has. Names are compared decoded, the token parameter
// in any case. A ; separates parameters for some servers, so what stands behind one is
// judged as a name too, and drops the whole.
func forwarded(query, destination, tokenParameter string) string {
	query, _, _ = strings.Cut(query, "#") // a client may send one; it would hide the token behind it
	var b strings.Builder
	var own map[string]bool
	for query != "" {
		var part string
		part, query, _ = strings.Cut(query, "&")
		if part == "" {
			continue
		}
		if own == nil {
			own = namesOf(destination)
		}
		drop := false
		for piece := range strings.SplitSeq(part, ";") {
			name := parameterName(piece)
			_, sub := subIndex(name)
			drop = drop || sub || name == triggerParameter || strings.EqualFold(name, tokenParameter) || own[name]
		}
		if drop {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(part)
	}
	return b.String()
}

func parameterName(part string) string {
	name, _, _ := strings.Cut(part, "=")
	return unescape(name)
}

// namesOf are the parameters of a destination. It has no ;, or it would not be safe to
// modify.
func namesOf(destination string) map[string]bool {
	destination, _, _ = strings.Cut(destination, "#")
	_, query, _ := strings.Cut(destination, "?")
	names := make(map[string]bool)
	for part := range strings.SplitSeq(query, "&") {
		if part != "" {
			names[parameterName(part)] = true
		}
	}
	return names
}

// showToken decides whether the visitor gets to see the token. The workspace's reasons
// come before the link's, the link's before the destination's.
func showToken(r *catalog.Resolved) (status event.TokenStatus, reason string) {
	switch l := r.Link; {
	case !l.ConversionTracking:
		return event.TokenOff, reasonTrackingOff
	case !r.Workspace.Entitled() || !r.Workspace.Access.ConversionTracking:
		return event.TokenOff, reasonNotEntitled
	case l.Token == catalog.TokenNever:
		return event.TokenWithheld, reasonLinkSetting
	case r.WithholdReason == "":
		return event.TokenAppended, ""
	case l.Token == catalog.TokenAlways &&
		(r.WithholdReason == catalog.ReasonSignedURL || r.WithholdReason == catalog.ReasonOAuth):
		return event.TokenAppended, ""
	default:
		return event.TokenWithheld, r.WithholdReason
	}
}
