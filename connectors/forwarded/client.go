package forwarded

import (
	"log/slog"
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Client is who sent a request, as far as it is known.
type Client struct {
	// Addr is its address, without port and zone; an IPv4-mapped one is IPv4. The zero
	// Addr means that it is not known.
	Addr netip.Addr
	// Scheme is what the client asked with, http or https. Resolve leaves it empty where
	// no trusted proxy says it.
	Scheme string
	// Host is what the client asked for, perhaps with a port. Resolve leaves it empty
	// where no trusted proxy says it.
	Host string
	// Country is an ISO 3166-1 code of two capital letters, "" where no trusted proxy
	// says it.
	Country string
	// Basis says where Addr comes from.
	Basis Basis
}

// Basis is what the address of a client is based on.
type Basis int

// Where the peer of a connection is no trusted proxy, its address is the client's.
const (
	Direct    Basis = iota // the peer is not trusted, and sent no such header
	Ignored                // the peer is not trusted, and sent one
	Absent                 // a trusted proxy sent none: it is the client itself
	Believed               // a trusted proxy's header
	Unknown                // a trusted proxy says that the client is not known
	Malformed              // a trusted proxy's header cannot be read
	bases                  // their number
)

// String returns the value of the label result.
func (b Basis) String() string {
	return [bases]string{"direct", "ignored", "absent", "believed", "unknown", "malformed"}[b]
}

// maxHops bounds the trusted proxies in a header. A header with more of them, before
// the client, is malformed.
const maxHops = 32

// Resolve returns the client of a request that came from peer. It keeps nothing of the
// header but parts of its texts.
func Resolve(cfg *Config, peer netip.Addr, header http.Header) Client {
	peer = peer.Unmap().WithZone("")
	if !cfg.isTrusted(peer) {
		client := Client{Addr: peer}
		if cfg.isSent(header) {
			client.Basis = Ignored
		}
		return client
	}
	client := Client{Addr: peer, Basis: Absent}
	switch cfg.Header {
	case HeaderXForwardedFor:
		cfg.readXForwarded(&client, header)
	case HeaderForwarded:
		cfg.readForwarded(&client, header["Forwarded"])
	}
	if !cfg.Host {
		client.Host = ""
	}
	if cfg.CountryHeader != "" {
		client.Country = countryOf(header.Values(cfg.CountryHeader))
	}
	return client
}

func (c *Config) isTrusted(addr netip.Addr) bool {
	for _, p := range c.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// isSent reports whether a request has the header that trusted proxies are believed.
func (c *Config) isSent(header http.Header) bool {
	switch c.Header {
	case HeaderXForwardedFor:
		return len(header["X-Forwarded-For"]) > 0
	case HeaderForwarded:
		return len(header["Forwarded"]) > 0
	}
	return false
}

// readXForwarded reads X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host of a
// trusted proxy.
func (c *Config) readXForwarded(client *Client, header http.Header) {
	entries := listCursor{lines: header["X-Forwarded-For"]}
	hop := 0 // entries to the right of the client's
	for read := 0; ; read++ {
		entry, ok := entries.previous()
		if !ok {
			break
		}
		hop = read
		if hop == maxHops {
			client.Addr, client.Basis = netip.Addr{}, Malformed
			break
		}
		client.Addr, client.Basis = parseEntry(entry)
		if client.Basis != Believed || !c.isTrusted(client.Addr) {
			break
		}
	}
	client.Scheme = schemeOf(valueAt(header["X-Forwarded-Proto"], hop))
	client.Host = hostOf(valueAt(header["X-Forwarded-Host"], hop))
}

// readForwarded reads Forwarded of a trusted proxy.
func (c *Config) readForwarded(client *Client, lines []string) {
	elements := listCursor{lines: lines, quotes: true}
	for hop := 0; ; hop++ {
		text, ok := elements.previous()
		if !ok {
			return
		}
		e, ok := parseElement(text)
		if !ok || hop == maxHops {
			*client = Client{Basis: Malformed}
			return
		}
		*client = Client{Scheme: schemeOf(e.proto), Host: hostOf(e.host)}
		client.Addr, client.Basis = parseNode(e.node)
		if client.Basis != Believed || !c.isTrusted(client.Addr) {
			return
		}
	}
}

// countryOf returns the country that a header names; "" if it names none, or several.
func countryOf(lines []string) string {
	if len(lines) != 1 {
		return ""
	}
	code := lines[0]
	if len(code) != 2 || code == "XX" || code == "ZZ" {
		return ""
	}
	for i := range len(code) {
		if code[i] < 'A' || code[i] > 'Z' {
			return ""
		}
	}
	return code
}

// Proxies finds the clients of requests. A nil *Proxies trusts no proxy.
type Proxies struct {
	cfg         Config
	log         *slog.Logger
	requests    [bases]prometheus.Counter // by Basis
	connections [connectionResults]prometheus.Counter
	complaint   logLimit
}

// New returns the Proxies of a configuration, nil if it trusts none. It logs what is
// hardly meant. reg may be nil.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Proxies, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	for _, warning := range cfg.Warnings() {
		log.Warn(warning)
	}
	if len(cfg.TrustedProxies) == 0 {
		return nil, nil
	}
	cfg.CountryHeader = textproto.CanonicalMIMEHeaderKey(cfg.CountryHeader)
	p := &Proxies{cfg: cfg, log: log, complaint: logLimit{now: time.Now}}
	p.registerMetrics(reg)
	return p, nil
}

// ClientOf returns the client of a request. Its scheme and host are those of the
// request where no trusted proxy says others.
func (p *Proxies) ClientOf(r *http.Request) Client {
	var client Client
	if peer := addrOf(r.RemoteAddr); p == nil {
		client.Addr = peer.Unmap().WithZone("")
	} else {
		client = Resolve(&p.cfg, peer, r.Header)
		p.requests[client.Basis].Inc()
	}
	if client.Host == "" {
		client.Host = r.Host
	}
	switch {
	case client.Scheme != "":
	case r.TLS != nil:
		client.Scheme = "https"
	default:
		client.Scheme = "http"
	}
	return client
}

// addrOf returns the address in a remote address of net/http, the zero Addr if there is
// none.
func addrOf(remote string) netip.Addr {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr()
}

// schemeOf returns http or https, "" for any other text.
func schemeOf(text string) string {
	switch {
	case strings.EqualFold(text, "https"):
		return "https"
	case strings.EqualFold(text, "http"):
		return "http"
	}
	return ""
}

// maxHost is the longest name of a host with a port, in bytes.
const maxHost = 253 + len(":65535")

// hostOf returns a host with or without port, "" for a text that cannot be one.
func hostOf(text string) string {
	if len(text) > maxHost {
		return ""
	}
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"#,/<>?@\^{|}`+"`", c) >= 0 {
			return ""
		}
	}
	return text
}
