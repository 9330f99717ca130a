package statement

import (
	"errors"
	"fmt"
	"time"

	"github.com/nimriz/partners/schemas/calendar"
)

// ErrMonth says that a text is not a month.
var ErrMonth = errors.New("not a month such as 2026-11")

// Month is a calendar month.
type Month struct {
	Year  int
	Month time.Month
}

// ParseMonth reads a month such as 2026-11, of the years 2000 to 2100. The error is
// ErrMonth.
func ParseMonth(text string) (Month, error) {
	t, err := time.Parse(monthFormat, text)
	if err != nil || t.Year() < 2000 || t.Year() > 2100 {
		return Month{}, fmt.Errorf("%.20q is %w", text, ErrMonth)
	}
	return Month{t.Year(), t.Month()}, nil
}

const monthFormat = "2006-01"

// MonthOf is the month of an instant in a zone.
func MonthOf(at time.Time, zone calendar.Zone) Month {
	day := zone.DayOf(at)
	return Month{day.Year(), day.Month()}
}

func (m Month) firstDay() time.Time { return time.Date(m.Year, m.Month, 1, 0, 0, 0, 0, time.UTC) }

// String is such as 2026-11.
func (m Month) String() string { return m.firstDay().Format(monthFormat) }

// Add is the month n months later.
func (m Month) Add(n int) Month {
	first := m.firstDay().AddDate(0, n, 0)
	return Month{first.Year(), first.Month()}
}

// Days are the first and the last day.
func (m Month) Days() (first, last time.Time) {
	first = m.firstDay()
	return first, first.AddDate(0, 1, -1)
}

// Bounds are the first instant of the month in a zone, and the first behind it, in UTC.
func (m Month) Bounds(zone calendar.Zone) (start, end time.Time) { return zone.Month(m.Year, m.Month) }
