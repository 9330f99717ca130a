package sheet

import (
	"regexp"
	"slices"
	"strconv"
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
	"2. Jan 2006", "2. January 2006", "Jan 2 2006", "Mon, 2 Jan 2006", "Monday, January 2, 2006",
}

// clockForms are how a time of day is written behind a day, and its zone behind that.
var clockForms, zoneForms = []string{"15:04", "15:04:05", "3:04 PM", "3:04:05 PM"},
	[]string{"", "Z07:00", "Z0700", "Z07", " Z07:00", " -0700", " MST", " -0700 MST"}

// A spreadsheet that saves days as numbers counts them from here; 20000 to 79999 are the
// days of 1954 to 2119.
var spreadsheetEpoch = time.Date(1899, 12, 30, 0, 0, 0, 0, time.UTC)

var spreadsheetDay = regexp.MustCompile(`^([2-7][0-9]{4})(\.[0-9]+)?$`)

// readDays returns the days that a text can mean, each once: two for 05/06/2026, none
// for what is no day.
func readDays(text string) (days []time.Time) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return []time.Time{at}
	}
	if number := spreadsheetDay.FindStringSubmatch(text); number != nil {
		n, _ := strconv.Atoi(number[1]) // five digits
		return []time.Time{spreadsheetEpoch.AddDate(0, 0, n)}
	}
	for _, day := range withoutClock(text) {
		for _, form := range dateForms {
			at, err := time.Parse(form, day)
			if err == nil && !slices.ContainsFunc(days, at.Equal) {
				days = append(days, at)
			}
		}
	}
	return days
}

// withoutClock returns a text as it is and, for each blank or T in it with a time of day
// behind, what is in front.
func withoutClock(text string) (days []string) {
	days = []string{text}
	for i := range text {
		if text[i] != ' ' && text[i] != 'T' {
			continue
		}
		if isClock(strings.TrimSpace(text[i+1:])) {
			days = append(days, strings.TrimRight(text[:i], ", "))
		}
	}
	return days
}

// isClock reports whether a text is a time of day. time.Parse takes fractions of seconds
// where a form has none.
func isClock(text string) bool {
	for _, clock := range clockForms {
		for _, zone := range zoneForms {
			if _, err := time.Parse(clock+zone, text); err == nil {
				return true
			}
		}
	}
	return false
}
