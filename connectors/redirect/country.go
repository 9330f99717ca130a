package redirect

import (
	"fmt"
	"net/netip"

	"github.com/oschwald/maxminddb-golang/v2"
)

// Countries looks up the country of an IP address. A nil *Countries knows none.
type Countries struct {
	db *maxminddb.Reader
}

// OpenCountries opens a database in MaxMind's format (GeoLite2-Country, GeoIP2, DB-IP
// and others). Its entries must have country.iso_code.
func OpenCountries(path string) (*Countries, error) {
	db, err := maxminddb.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening -country-db: %w", err)
	}
	return &Countries{db}, nil
}

// Of returns an ISO 3166-1 code of two capital letters, or "" if the country of addr is
// unknown.
func (c *Countries) Of(addr netip.Addr) string {
	if c == nil || !addr.IsValid() {
		return ""
	}
	var code string
	if err := c.db.Lookup(addr).DecodePath(&code, "country", "iso_code"); err != nil || len(code) != 2 {
		return ""
	}
	return code
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
