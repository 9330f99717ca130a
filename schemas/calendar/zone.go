package calendar

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // for a machine without a time zone database
)

// ErrZone says that a name is not one of a time zone.
var ErrZone = errors.New("unknown time zone")

// Zone is a time zone by whose clock days are told. The zero Zone is UTC.
//
// Days are given as times of which the date alone counts, such as those of
// time.Parse(time.DateOnly, …).
type Zone struct{ location *time.Location }

// LoadZone returns the zone with an IANA name, such as Europe/Berlin, or UTC. The error
// is ErrZone.
func LoadZone(name string) (Zone, error) {
	location, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" {
		return Zone{}, fmt.Errorf("%w %q: use an IANA name such as Europe/Berlin", ErrZone, name)
	}
	return Zone{location}, nil
}

// Name is the IANA name.
func (z Zone) Name() string { return z.Location().String() }

// Location is the zone for times that are shown by its clock.
func (z Zone) Location() *time.Location {
	if z.location == nil {
		return time.UTC
	}
	return z.location
}

// IsOfMachine reports whether a zone's name is one that only some machines have: of the
// zone that the machine itself is in, and of clocks that count leap seconds. LoadZone
// takes it where the machine has it.
func IsOfMachine(name string) bool {
	return slices.Contains([]string{"localtime", "posixrules", "Factory"}, name) ||
		strings.HasPrefix(name, "right/") || strings.HasPrefix(name, "posix/")
}

// largestOffset is above every offset from UTC that a zone ever had, in both directions.
const largestOffset = 16 * time.Hour

// DayStart returns the first instant of a day, in UTC.
func (z Zone) DayStart(day time.Time) time.Time {
	midnight := dateOf(day)
	at := midnight.Add(-largestOffset) // on an earlier day, in every zone
	for {
		local := at.In(z.Location())
		_, offset := local.Zone()
		start := midnight.Add(-time.Duration(offset) * time.Second)
		if start.Before(at) { // the clocks went forward over midnight
			start = at
		}
		end := nextChange(local)
		if end.IsZero() || start.Before(end) {
			return start
		}
		at = end
	}
}

// nextChange returns an instant up to which a zone's offset does not change, in UTC; the
// zero time: it never does. Behind the changes that are listed one by one, ZoneBounds
// takes every year for 365 days, so on the last day of a leap year its end has passed.
func nextChange(local time.Time) time.Time {
	_, end := local.ZoneBounds()
	switch {
	case end.IsZero():
		return time.Time{}
	case !end.After(local):
		return local.Add(time.Hour).UTC()
	}
	return end.UTC()
}

// Days returns the first instant of the first day, and the first behind the last, in
// UTC.
func (z Zone) Days(first, last time.Time) (start, end time.Time) {
	return z.DayStart(first), z.DayStart(dateOf(last).AddDate(0, 0, 1))
}

// Month returns the first instant of a month, and the first behind it, in UTC.
func (z Zone) Month(year int, month time.Month) (start, end time.Time) {
	first := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
	return z.DayStart(first), z.DayStart(first.AddDate(0, 1, 0))
}

// DayOf returns the day of an instant, as midnight in UTC of its date.
func (z Zone) DayOf(at time.Time) time.Time {
	day := dateOf(at.In(z.Location()))
	// Where clocks go back over midnight a second time, the date falls back and the day
	// does not.
	for next := day.AddDate(0, 0, 1); !at.Before(z.DayStart(next)); next = next.AddDate(0, 0, 1) {
		day = next
	}
	return day
}

func dateOf(t time.Time) time.Time {
	year, month, day := t.Date()
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}
