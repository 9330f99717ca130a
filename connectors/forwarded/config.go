package forwarded

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// The headers that can be believed: values of Config.Header.
const (
	// HeaderNone believes none.
	HeaderNone = "none"
	// HeaderXForwardedFor believes X-Forwarded-For and, beside it, X-Forwarded-Proto and
	// X-Forwarded-Host.
	HeaderXForwardedFor = "x-forwarded-for"
	// HeaderForwarded believes Forwarded (RFC 7239).
	HeaderForwarded = "forwarded"
)

// Config says who is believed, and what. The zero Config believes nothing.
type Config struct {
	// TrustedProxies are the peers that are believed, and the addresses in a header that
	// are proxies and not clients. ParseProxies makes them.
	TrustedProxies []netip.Prefix
	// Header is HeaderNone (also ""), HeaderXForwardedFor or HeaderForwarded.
	Header string
	// Host says that the host comes from Header's family. Without it, the host is that
	// of the request.
	Host bool
	// CountryHeader is the name of a header with the client's country; "" for none.
	CountryHeader string
	// ProxyProtocol says that trusted proxies speak the PROXY protocol.
	ProxyProtocol bool
}

// DefaultConfig believes nothing.
func DefaultConfig() Config { return Config{Header: HeaderNone} }

// Validate returns an error that names the flag of the first invalid setting.
func (c Config) Validate() error {
	switch {
	case c.Header != "" && c.Header != HeaderNone && c.Header != HeaderXForwardedFor && c.Header != HeaderForwarded:
		return fmt.Errorf("-forwarded-header: %q is none of %s, %s and %s", c.Header, HeaderNone, HeaderXForwardedFor,
			HeaderForwarded)
	case c.CountryHeader != "" && tokenLength(c.CountryHeader) != len(c.CountryHeader):
		return fmt.Errorf("-country-header: %q is not the name of a header", c.CountryHeader)
	case c.Host && !c.hasHeader():
		return errors.New("-forwarded-host: -forwarded-header does not say which header has the host")
	}
	if len(c.TrustedProxies) > 0 {
		return nil
	}
	const missing = "-trusted-proxies is missing, and no other peer is believed"
	switch {
	case c.hasHeader():
		return fmt.Errorf("-forwarded-header: %s", missing)
	case c.CountryHeader != "":
		return fmt.Errorf("-country-header: %s", missing)
	case c.ProxyProtocol:
		return fmt.Errorf("-proxy-protocol: %s", missing)
	}
	return nil
}

// Warnings returns what is allowed but hardly meant, a sentence each.
func (c Config) Warnings() (warnings []string) {
	if len(c.TrustedProxies) > 0 && !c.hasHeader() && c.CountryHeader == "" && !c.ProxyProtocol {
		warnings = append(warnings, "-trusted-proxies without effect: neither -forwarded-header nor -proxy-protocol "+
			"says what is believed of them")
	}
	for _, p := range c.TrustedProxies {
		if p.Bits() == 0 {
			warnings = append(warnings, fmt.Sprintf("-trusted-proxies %s trusts everybody: each client can choose its "+
				"address", p))
		}
	}
	return warnings
}

func (c Config) hasHeader() bool { return c.Header != "" && c.Header != HeaderNone }

// ParseProxies reads ranges of addresses, CIDR,… An address alone is a range of one.
// Ranges of IPv4-mapped addresses become IPv4 ranges.
func ParseProxies(list string) ([]netip.Prefix, error) {
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	var proxies []netip.Prefix
	for text := range strings.SplitSeq(list, ",") {
		text = strings.TrimSpace(text)
		p, err := parseProxy(text)
		if err != nil {
			return nil, err
		}
		proxies = append(proxies, p)
	}
	return proxies, nil
}

// mappedBits is the length of ::ffff:0:0/96, which all IPv4-mapped addresses begin
// with.
const mappedBits = 96

func parseProxy(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, fmt.Errorf("%q is neither a range, as 10.0.0.0/8, nor an address", text)
	case p != p.Masked():
		return p, fmt.Errorf("%s has bits behind its length: write %s, or the address alone", text, p.Masked())
	case p.Addr().Is4In6() && p.Bits() >= mappedBits:
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits), nil
	}
	return p, nil
}
