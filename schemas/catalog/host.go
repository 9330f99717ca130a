package catalog

import (
	"net/netip"
	"strings"
)

// NormalizeHost converts a Host header to the form in which a catalog names hosts:
// ASCII letters in lower case; no port, no IPv6 brackets, no trailing dot. A host that
// already has this form is returned unchanged, without allocation. Text that is no host
// gives a result that no catalog contains.
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

// lowerASCII leaves other letters alone: Unicode's lower case would turn the Kelvin
// sign into a plain k.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}
