package redirect

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/nimriz/partners/connectors/forwarded"
)

// Countries looks up the country of an IP address. A nil *Countries knows none.
type Countries struct {
	db *maxminddb.Reader
}

// OpenCountries opens a database in MaxMind's format (GeoLite2-Country, GeoIP2, DB-IP
// and others). Its entries must have country.iso_code: a database of networks or of
// another maker, in which no address has a country, is an error.
func OpenCountries(path string) (*Countries, error) {
	db, err := maxminddb.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening -country-db: %w", err)
	}
	c := &Countries{db}
	if !c.hasCountries() {
		return nil, errors.Join(fmt.Errorf("-country-db: %s is of type %q and has no country.iso_code: give a "+
			"database of countries, such as GeoLite2-Country", path, db.Metadata.DatabaseType), c.Close())
	}
	return c, nil
}

// sampledNetworks is how many networks of a database are looked at for a country.
const sampledNetworks = 10_000

func (c *Countries) hasCountries() bool {
	seen := 0
	for network := range c.db.Networks() {
		if codeOf(network) != "" {
			return true
		}
		if seen++; seen == sampledNetworks {
			break
		}
	}
	return false
}

// codeOf returns the country of an entry, or "" if it has none.
func codeOf(entry maxminddb.Result) string {
	var code string
	if err := entry.DecodePath(&code, "country", "iso_code"); err != nil || len(code) != 2 {
		return ""
	}
	return code
}

// Of returns an ISO 3166-1 code of two capital letters, or "" if the country of addr is
// unknown.
func (c *Countries) Of(addr netip.Addr) string {
	if c == nil || !addr.IsValid() {
		return ""
	}
	return codeOf(c.db.Lookup(addr))
}

// Close releases the database.
func (c *Countries) Close() error {
	if c == nil {
		return nil
	}
	if err := c.db.Close(); err != nil {
		return fmt.Errorf("closing -country-db: %w", err)
	}
	return nil
}

// countryOf returns the country of a visitor: the one that a trusted proxy names, or
// else that of the address. The address goes nowhere else.
func (h *Handler) countryOf(client *forwarded.Client) string {
	if h.countries == nil || client.Country != "" {
		return client.Country
	}
	h.private.observe(client.Addr)
	return h.countries.Of(client.Addr)
}

// privateVisitors is how many visitors in a row, from the start on, have no public
// address before that is called a mistake.
const privateVisitors = 20

// privateWatch warns once if the first visitors all have private addresses: then they
// are a proxy's, and no database of countries has them.
type privateWatch struct {
	log  *slog.Logger
	left atomic.Int64 // visitors until the warning; 0 or less: decided
}

func newPrivateWatch(log *slog.Logger) *privateWatch {
	w := &privateWatch{log: log}
	w.left.Store(privateVisitors)
	return w
}

func (w *privateWatch) observe(addr netip.Addr) {
	switch {
	case w.left.Load() <= 0:
	case isPublic(addr):
		w.left.Store(0)
	case w.left.Add(-1) == 0:
		w.log.Warn("-country-db finds no country: no visitor since the start has a public address; behind a proxy "+
			"set -trusted-proxies and -forwarded-header or -proxy-protocol", "visitors", privateVisitors)
	}
}

// carrierRange is shared by carriers and clouds (RFC 6598).
var carrierRange = netip.MustParsePrefix("100.64.0.0/10")

func isPublic(addr netip.Addr) bool {
	return addr.IsGlobalUnicast() && !addr.IsPrivate() && !carrierRange.Contains(addr)
}
