package daemon

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"net/netip"
	"regexp"
	"strings"
)

// errorLog returns a logger for http.Server.ErrorLog. Messages go to to as warnings,
// with every IP address redacted: net/http prints the visitor's address with TLS
// handshake errors and panics. Handshakes that fail are at level debug: anybody can make
// as many as they like, and a health check that only connects makes one each time.
func errorLog(to *slog.Logger) *log.Logger {
	return log.New(redactingWriter{to}, "", 0)
}

type redactingWriter struct{ to *slog.Logger }

func (s redactingWriter) Write(p []byte) (int, error) {
	level := slog.LevelWarn
	if bytes.HasPrefix(p, []byte("http: TLS handshake error")) {
		level = slog.LevelDebug
	}
	s.to.Log(context.Background(), level, "http server", "error",
		redactAddresses(strings.TrimRight(string(p), "\n")))
	return len(p), nil
}

const redacted = "[address]"

var (
	ipv4 = regexp.MustCompile(`[0-9]{1,3}(\.[0-9]{1,3}){3}(:[0-9]{1,5})?`)
	// ipv6 matches whatever may be an address; netip decides.
	ipv6 = regexp.MustCompile(`[0-9A-Fa-f]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:]*(\[address\])?(%[0-9A-Za-z_.-]+)?`)
)

// redactAddresses replaces addresses, with their ports where they have one.
func redactAddresses(text string) string {
	text = ipv4.ReplaceAllString(text, redacted)
	return ipv6.ReplaceAllStringFunc(text, func(candidate string) string {
		// An IPv4 tail was redacted above; any address will do for the check.
		addr, zone, _ := strings.Cut(strings.ReplaceAll(candidate, redacted, "0.0.0.0"), "%")
		for trailing := addr; ; trailing = trailing[:len(trailing)-1] {
			if _, err := netip.ParseAddr(trailing); err == nil {
				return redacted + addr[len(trailing):]
			}
			if !strings.HasSuffix(trailing, ":") {
				break
			}
		}
		if zone != "" || strings.Count(candidate, ":") >= 4 {
			return redacted // when in doubt
		}
		return candidate
	})
}
