package sheet

import (
	"strings"
	"time"
)

// dateForms are how a day is written. Where a form has two orders of day and month, they
// stand one below the other.
var dateForms = []string{
	time.DateOnly, "2006/1/2", "2006.1.2", "20060102",
	"2.1.2006", "2.1.06",
	"2/1/2006", "1/2/2006",
	"2/1/06", "1/2/06",
	"2-1-2006", "1-2-2006",
	"2 Jan 2006", "2 January 2006", "Jan 2, 2006", "January 2, 2006", "2-Jan-2006", "2-Jan-06",
}

// readDays returns the days that a text can mean, each once: two for 05/06/2026, none
// for what is no day.
func readDays(text string) (days []time.Time) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return []time.Time{at}
	}
	day, clock, _ := strings.Cut(strings.Replace(text, "T", " ", 1), " ")
	if !isClock(clock) {
		day = text
	}
	for _, form := range dateForms {
		at, err := time.Parse(form, strings.TrimSpace(day))
		if err == nil && (len(days) == 0 || !days[0].Equal(at)) {
			days = append(days, at)
		}
	}
	return days
}

// isClock reports whether a text is a time of day.
func isClock(text string) bool {
	for _, form := range []string{"15:04", "15:04:05", "15:04:05.999", "3:04 PM", "3:04:05 PM"} {
		if _, err := time.Parse(form, strings.TrimSpace(text)); err == nil {
			return true
		}
	}
	return false
}
