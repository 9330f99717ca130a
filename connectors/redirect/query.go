package redirect

import (
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nimriz/partners/schemas/catalog"
)

const (
	triggerParameter = "nr"
	triggerQR        = "qr"
	// maxSubLength bounds sub1 … sub5, in characters.
	maxSubLength = 64
)

// visitQuery is what the redirector itself reads from the query of a short URL.
type visitQuery struct {
	qr  bool // nr=qr: the visitor scanned a QR code
	sub [5]string
}

// parseVisitQuery reads nr and sub1 … sub5 and ignores all other parameters. The first
// of several parameters with the same name counts.
func parseVisitQuery(query string) (v visitQuery) {
	var seen [5]bool
	for query != "" {
		var part string
		part, query, _ = strings.Cut(query, "&")
		name, value, _ := strings.Cut(part, "=")
		name = unescapeOnce(name)
		if name == triggerParameter {
			v.qr = v.qr || unescapeOnce(value) == triggerQR
			continue
		}
		if i, ok := subIndex(name); ok && !seen[i] {
			seen[i] = true
			v.sub[i] = printablePrefix(unescapeOnce(value), maxSubLength)
		}
	}
	return v
}

// subIndex returns 0 for sub1 to 4 for sub5.
func subIndex(name string) (int, bool) {
	if len(name) == 4 && name[:3] == "sub" && '1' <= name[3] && name[3] <= '5' {
		return int(name[3] - '1'), true
	}
	return 0, false
}

// unescapeOnce decodes text of a query once. Text with an invalid escape is returned
// unchanged.
func unescapeOnce(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	if decoded, err := url.QueryUnescape(s); err == nil {
		return decoded
	}
	return s
}

// unescapeLoosely decodes what it can, as PHP does, and %u006e, as ASP does.
func unescapeLoosely(s string) string {
	if decoded := unescapeOnce(s); decoded != s || !strings.Contains(s, "%") {
		return decoded
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		digits, size := "", 1
		switch rest := s[i:]; {
		case len(rest) >= len("%u006e") && (rest[:2] == "%u" || rest[:2] == "%U"):
			digits, size = rest[2:6], 6
		case len(rest) >= len("%6e") && rest[0] == '%':
			digits, size = rest[1:3], 3
		}
		code, err := strconv.ParseUint(digits, 16, 16)
		switch {
		case err == nil && size == 6:
			b.WriteRune(rune(code))
		case err == nil:
			b.WriteByte(byte(code))
		case s[i] == '+':
			b.WriteByte(' ')
			size = 1
		default:
			b.WriteByte(s[i])
			size = 1
		}
		i += size
	}
	return b.String()
}

// printablePrefix drops what is not printable (including bytes that are not UTF-8) and
// returns the first limit characters of the rest.
func printablePrefix(s string, limit int) string {
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

// forwardedQuery returns the part of the visitor's query that goes into the
// destination: whole parameters, in their order and with their bytes. It never returns
// nr, sub1 … sub5, the token parameter, or a name that the destination has. Names are
// compared decoded; only the token parameter matches in any case.
//
// Servers do not agree on where a parameter begins and what it is called, which could
// smuggle a token in or replace a parameter of the destination. So the text after each
// semicolon is checked as a name too, and names are compared as the loosest server reads
// them (unescapeLoosely, catalog.ServerName). One forbidden name drops the whole
// parameter.
func forwardedQuery(query, destination, tokenParameter string) string {
	// A client may send a fragment. Forwarded, it would hide the token behind it.
	query, _, _ = strings.Cut(query, "#")
	var b strings.Builder
	var taken *takenNames // of the destination; read when first needed
	for query != "" {
		var part string
		part, query, _ = strings.Cut(query, "&")
		if part == "" {
			continue
		}
		if taken == nil {
			taken = readTakenNames(destination)
		}
		if hasForbiddenName(part, tokenParameter, taken) {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(part)
	}
	return b.String()
}

// hasForbiddenName reports whether a piece of part, as separated by semicolons, has a
// name that must not be forwarded.
func hasForbiddenName(part, tokenParameter string, taken *takenNames) bool {
	for piece := range strings.SplitSeq(part, ";") {
		escaped, _, _ := strings.Cut(piece, "=")
		name := unescapeLoosely(escaped)
		if _, sub := subIndex(name); sub || name == triggerParameter {
			return true
		}
		if catalog.ReadsAs(name, tokenParameter) || taken.has(name) {
			return true
		}
	}
	return false
}

// takenNames are the names of a destination's parameters.
type takenNames struct {
	exact map[string]bool // decoded
	whole map[string]bool // of variables that are one parameter
	parts map[string]bool // of variables of which parameters are parts: ref of ref[0]
}

// readTakenNames need not split at semicolons: a destination whose query has one is not
// safe to modify, and nothing is forwarded to it.
func readTakenNames(destination string) *takenNames {
	destination, _, _ = strings.Cut(destination, "#")
	_, query, _ := strings.Cut(destination, "?")
	taken := &takenNames{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		escaped, _, _ := strings.Cut(part, "=")
		name := unescapeOnce(escaped)
		taken.exact[name] = true
		if variable, isPart := catalog.ServerName(name); isPart {
			taken.parts[variable] = true
		} else {
			taken.whole[variable] = true
		}
	}
	return taken
}

// has reports whether a decoded name would replace a parameter, or make a list of it.
// Another part of a variable that has parts is one more.
func (t *takenNames) has(name string) bool {
	variable, isPart := catalog.ServerName(name)
	return t.exact[name] || t.whole[variable] || !isPart && t.parts[variable]
}
