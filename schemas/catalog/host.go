package catalog

import (
	"net/netip"
	"strings"
)

// NormalizeHost brings a Host header into the form in which a catalog names hosts:
// ASCII letters in lower case, without port, the brackets of IPv6, and one trailing
// dot. A host that already has the form is returned as it is, without allocation. What
// is not a host comes back as something that no catalog contains.
func NormalizeHost(host string) string {
	if isPlainHost(host) {
		return host
	}
	if rest, ok := strings.CutPrefix(host, "["); ok {
		host, _, _ = strings.Cut(rest, "]")
	} else if strings.Count(host, ":") == 1 {
		host, _, _ = strings.Cut(host, ":")
	}
	if strings.Contains(host, ":") {
		if ip, err := netip.ParseAddr(host); err == nil {
			return ip.String()
		}
	}
	return lowerASCII(strings.TrimSuffix(host, "."))
}

func isPlainHost(host string) bool {
	for i := 0; i < len(host); i++ {
		switch c := host[i]; {
		case 'A' <= c && c <= 'Z', c == ':', c == '[':
			return false
		}
	}
	return !strings.HasSuffix(host, ".")
}

// lowerASCII leaves other letters alone: Unicode's lower case would make a plain k of
// the Kelvin sign.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}
