package catalog

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Schemes that a link must not lead to: they run code, or reach into the visitor's
// device.
var (
	codeSchemes   = []string{"javascript", "vbscript", "livescript", "data"}
	deviceSchemes = []string{"file", "filesystem", "blob", "about", "view-source", "chrome", "resource", "res", "jar",
		"mk", "ms-its", "ms-msdt", "search-ms", "shell"}
)

// hexLabel at the end of a host makes it an IPv4 address for browsers: 0x7f000001.
var hexLabel = regexp.MustCompile(`^0x[0-9a-f]*$`)

// destinationProblem refuses a destination that cannot be sent byte for byte in a
// Location header, and dangerous schemes.
func destinationProblem(s string) string {
	if text := storedDestinationProblem(s); text != "" {
		return text
	}
	u, _ := url.Parse(s) // it was parsed a moment ago
	switch {
	case slices.Contains(deviceSchemes, u.Scheme):
		return fmt.Sprintf("destination %q: scheme %s could reach into the visitor's device", s, u.Scheme)
	case u.Scheme == "http" || u.Scheme == "https":
		if u.Hostname() == "" {
			return fmt.Sprintf("destination %q must be an absolute URL with scheme and host", s)
		}
	case looksLikeHost(u):
		return fmt.Sprintf("destination %q must be an absolute URL with scheme and host: such as https://%[1]s", s)
	case strings.TrimPrefix(s[len(u.Scheme)+1:], "//") == "" && !strings.HasSuffix(s, "//"):
		return fmt.Sprintf("destination %q has nothing behind its scheme", s)
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }); i >= 0 {
		encoded, err := encodeDestination(u, s)
		if err != nil {
			return fmt.Sprintf("destination %q: bad host: %v", s, err)
		}
		return fmt.Sprintf("destination %q has letters that not every client can follow: write it as %q", s, encoded)
	}
	if u.Scheme == "http" || u.Scheme == "https" {
		return authorityProblem(u, s)
	}
	return ""
}

// storedDestinationProblem is what records of the topic are held to: a later release must
// not make unreadable what an earlier one accepted.
func storedDestinationProblem(s string) string {
	switch {
	case s == "":
		return "required"
	case len(s) > maxDestination:
		return fmt.Sprintf("destination has %d bytes, at most %d are allowed", len(s), maxDestination)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.IsSpace(r)
	}):
		return fmt.Sprintf("destination %q has a space or control character: percent-encode it", s)
	}
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Sprintf("bad destination: %v", err)
	}
	if u.Scheme == "" {
		return fmt.Sprintf("destination %q must be an absolute URL with scheme and host", s)
	}
	if slices.Contains(codeSchemes, u.Scheme) {
		return fmt.Sprintf("destination %q: scheme %s could run code", s, u.Scheme)
	}
	return ""
}

// looksLikeHost reports whether the scheme is a host without one: acme.com:8080/x.
func looksLikeHost(u *url.URL) bool {
	if u.Scheme != "localhost" && !strings.Contains(u.Scheme, ".") {
		return false
	}
	port, _, _ := strings.Cut(u.Opaque, "/")
	return port != "" && strings.Trim(port, "0123456789") == ""
}

// authorityProblem checks host and port of an http or https URL.
func authorityProblem(u *url.URL, s string) string {
	host := strings.TrimSuffix(lowerASCII(u.Hostname()), ".")
	if _, err := netip.ParseAddr(host); err != nil {
		last := host[strings.LastIndexByte(host, '.')+1:]
		switch {
		case len(host) > maxHost || !hostForm.MatchString(host):
			return fmt.Sprintf("destination %q: %q is not a host name or IP address", s, u.Hostname())
		case strings.Trim(last, "0123456789") == "", hexLabel.MatchString(last):
			return fmt.Sprintf("destination %q: %q is not an IP address, and no host name ends in digits", s, host)
		}
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Sprintf("destination %q: port %s is not between 1 and 65535", s, port)
		}
	}
	return ""
}

// encodeDestination writes a destination in ASCII: the host in its xn-- form, everything
// else percent-encoded. It leaves ASCII alone.
func encodeDestination(u *url.URL, s string) (string, error) {
	if u.Host == "" {
		return encodeBytes(s), nil
	}
	head, rest, _ := strings.Cut(s, "//")
	end := len(rest)
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		end = i
	}
	authority, rest := rest[:end], rest[end:]
	user := ""
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, authority = authority[:i+1], authority[i+1:]
	}
	host := u.Hostname()
	ascii := host
	if strings.ContainsFunc(host, func(r rune) bool { return r >= utf8.RuneSelf }) {
		var err error
		if ascii, err = idna.Lookup.ToASCII(host); err != nil {
			return "", err
		}
	}
	authority = ascii + strings.TrimPrefix(authority, host)
	return head + "//" + encodeBytes(user) + authority + encodeBytes(rest), nil
}

func encodeBytes(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] < utf8.RuneSelf {
			b.WriteByte(s[i])
			continue
		}
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}
