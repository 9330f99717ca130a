// Package currency knows the codes of ISO 4217: how many digits their amounts have after
// the point, and when they are in force. The events API checks amounts with it, the
// catalog and the rules flat rewards. Its table is iso4217.csv, which says where it comes
// from.
package currency

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed iso4217.csv
var list string

// A Currency is a code of ISO 4217.
type Currency struct {
	Code   string // three capitals
	Digits int32  // of an amount after the point: 2 for EUR, 0 for JPY
	// Money is false for codes in which people do not pay: funds codes, metals, units of
	// account, and the codes for tests and for no currency. Those without minor unit have
	// 0 digits.
	Money bool

	from, until int64 // first and last day in force, in days since 1970
}

// Lookup returns the currency of a code, which may have been withdrawn. code is written
// in capitals, as ISO 4217 writes it; ok is false for anything else.
func Lookup(code string) (c *Currency, ok bool) {
	c, ok = table()[code]
	return c, ok
}

// InForce reports whether the code was in force on a day (UTC) from that of from to that
// of to, both included.
func (c *Currency) InForce(from, to time.Time) bool {
	return c.from <= dayOf(to) && dayOf(from) <= c.until
}

// dayOf returns the UTC day of t in days since 1970.
func dayOf(t time.Time) int64 {
	const secondsOfDay = 24 * 60 * 60
	s := t.Unix()
	if s < 0 {
		s -= secondsOfDay - 1
	}
	return s / secondsOfDay
}

// The codes of the list that it gives no first or last day are in force on all days that
// a time in milliseconds can name.
const (
	always = -1 << 40
	open   = 1 << 40
)

// table is the list by code. That the embedded file can be read is a promise of the
// tests.
var table = sync.OnceValue(func() map[string]*Currency {
	currencies, err := readList(list)
	if err != nil {
		panic(fmt.Sprintf("currency: reading iso4217.csv: %v", err))
	}
	return currencies
})

// readList reads a list in the form that iso4217.csv explains.
func readList(text string) (map[string]*Currency, error) {
	in := csv.NewReader(strings.NewReader(text))
	in.Comment = '#'
	in.FieldsPerRecord = 5
	rows, err := in.ReadAll()
	if err != nil {
		return nil, err
	}
	currencies := make(map[string]*Currency, len(rows))
	for _, row := range rows[min(1, len(rows)):] {
		c := &Currency{Code: row[0], Money: row[2] == "money"}
		digits, err := strconv.ParseUint(row[1], 10, 4)
		if err != nil {
			return nil, fmt.Errorf("digits of %s: %w", c.Code, err)
		}
		c.Digits = int32(digits)
		if c.from, err = readDay(row[3], always); err != nil {
			return nil, fmt.Errorf("first day of %s: %w", c.Code, err)
		}
		if c.until, err = readDay(row[4], open); err != nil {
			return nil, fmt.Errorf("last day of %s: %w", c.Code, err)
		}
		currencies[c.Code] = c
	}
	return currencies, nil
}

func readDay(text string, missing int64) (int64, error) {
	if text == "" {
		return missing, nil
	}
	t, err := time.Parse(time.DateOnly, text)
	return dayOf(t), err
}
