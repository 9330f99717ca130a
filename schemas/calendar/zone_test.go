package calendar

import (
	"archive/zip"
	"errors"
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func loadZone(t *testing.T, name string) Zone {
	t.Helper()
	z, err := LoadZone(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func date(text string) time.Time {
	day, err := time.Parse(time.DateOnly, text)
	if err != nil {
		panic(err)
	}
	return day
}

// How long the days are on which clocks change.
func TestLengths(t *testing.T) {
	for _, c := range []struct {
		zone, day, start string
		hours            float64
	}{
		{"UTC", "2026-03-29", "2026-03-29T00:00:00Z", 24},
		{"Europe/Berlin", "2026-03-28", "2026-03-27T23:00:00Z", 24},
		{"Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z", 23},
		{"Europe/Berlin", "2026-03-30", "2026-03-29T22:00:00Z", 24},
		{"Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00Z", 25},
		{"Asia/Kolkata", "2026-11-29", "2026-11-28T18:30:00Z", 24},
		{"Asia/Kathmandu", "2026-11-29", "2026-11-28T18:15:00Z", 24},
		{"Asia/Tokyo", "2026-11-29", "2026-11-28T15:00:00Z", 24},
		{"Pacific/Apia", "2026-11-29", "2026-11-28T11:00:00Z", 24},
		{"Pacific/Apia", "2011-12-29", "2011-12-29T10:00:00Z", 24},
		{"Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z", 0}, // there was none
		{"Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z", 24},
		{"America/Santiago", "2026-09-06", "2026-09-06T04:00:00Z", 23}, // begins at 01:00
		{"America/Santiago", "2026-04-04", "2026-04-04T03:00:00Z", 25}, // ends after its second 23:59
		{"America/Havana", "2026-03-08", "2026-03-08T05:00:00Z", 23},
		{"America/Havana", "2026-11-01", "2026-11-01T04:00:00Z", 25}, // has midnight twice
		{"Australia/Lord_Howe", "2026-10-04", "2026-10-03T13:30:00Z", 23.5},
		{"Australia/Lord_Howe", "2026-04-05", "2026-04-04T13:00:00Z", 24.5},
		{"Antarctica/Troll", "2026-10-25", "2026-10-24T22:00:00Z", 26},
	} {
		start, end := loadZone(t, c.zone).Days(date(c.day), date(c.day))
		if got := start.Format(time.RFC3339); got != c.start || end.Sub(start).Hours() != c.hours {
			t.Errorf("%s %s begins %s and has %v, want %s and %v h", c.zone, c.day, got, end.Sub(start), c.start,
				c.hours)
		}
	}
}

func TestMonths(t *testing.T) {
	for zone, want := range map[string]string{
		"UTC":           "2026-03-01T00:00:00Z 2026-04-01T00:00:00Z",
		"Europe/Berlin": "2026-02-28T23:00:00Z 2026-03-31T22:00:00Z",
		"Pacific/Apia":  "2026-02-28T11:00:00Z 2026-03-31T11:00:00Z",
	} {
		start, end := loadZone(t, zone).Month(2026, time.March)
		if got := start.Format(time.RFC3339) + " " + end.Format(time.RFC3339); got != want {
			t.Errorf("March in %s: %s, want %s", zone, got, want)
		}
	}
}

// Near each change of a zone's clock the days are those of its definition, read second
// by second off the clock.
func TestDaysByTheClock(t *testing.T) {
	for zone, days := range map[string][]string{
		"Asia/Amman":        {"2021-10-29", "2021-10-28"},
		"America/Havana":    {"2026-11-01", "2026-03-08"},
		"Africa/Cairo":      {"2026-04-24", "2026-10-30", "2026-10-29"},
		"Asia/Beirut":       {"2026-03-29", "2026-10-25"},
		"Atlantic/Azores":   {"2026-03-29", "2026-10-25"},
		"America/Santiago":  {"2026-09-06", "2026-04-05", "2026-04-04"},
		"Europe/Berlin":     {"2026-03-29", "2026-10-25", "2028-12-31", "2040-12-31", "2041-01-01", "2096-12-31"},
		"America/Sao_Paulo": {"2018-11-04", "2018-02-18"},
		"America/St_Johns":  {"2010-11-07", "2010-03-14"}, // at 00:01 back to 23:01 of the day before
		"Pacific/Apia":      {"2011-12-30", "2011-12-31", "1892-07-04", "1892-07-05"},
	} {
		z := loadZone(t, zone)
		for _, day := range days {
			at := date(day).Add(-16 * time.Hour)
			for at.In(z.Location()).Format(time.DateOnly) < day {
				at = at.Add(time.Second)
			}
			if got := z.DayStart(date(day)); !got.Equal(at) {
				t.Errorf("%s %s: %s, want %s", zone, day, got, at)
			}
		}
	}
}

// An instant is in one day, and days follow one another without a gap.
func TestDayOf(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Asia/Tokyo",
		"Pacific/Apia", "America/Santiago", "America/Havana", "America/St_Johns", "Australia/Lord_Howe"} {
		z := loadZone(t, name)
		for _, first := range []string{"2010-01-01", "2011-12-01", "2026-01-01"} {
			for i := range 370 {
				day := date(first).AddDate(0, 0, i)
				start, end := z.Days(day, day)
				if !start.Before(end) { // a day that was left out
					continue
				}
				for _, at := range []time.Time{start, start.Add(time.Millisecond), end.Add(-time.Millisecond)} {
					if got := z.DayOf(at); !got.Equal(day) {
						t.Errorf("%s: %s is on %s, want %s", name, at, got.Format(time.DateOnly),
							day.Format(time.DateOnly))
					}
				}
				if before := z.DayOf(start.Add(-time.Millisecond)); !before.Before(day) {
					t.Errorf("%s: a millisecond before %s is not on an earlier day", name, start)
				}
			}
		}
	}
}

func TestUnknownZones(t *testing.T) {
	for _, name := range []string{"", "Local", "Mars/Olympus", "../etc/passwd", "europe/berlin/x"} {
		if _, err := LoadZone(name); !errors.Is(err, ErrZone) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if name := (Zone{}).Name(); name != "UTC" {
		t.Errorf("the zero zone is %s", name)
	}
}

// allZones are the names in the zone data that comes with Go.
func allZones(t *testing.T) (names []string) {
	t.Helper()
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	archive, err := zip.OpenReader(filepath.Join(strings.TrimSpace(string(root)), "lib", "time", "zoneinfo.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	for _, f := range archive.File {
		if !strings.HasSuffix(f.Name, "/") && f.Name != "Factory" {
			names = append(names, f.Name)
		}
	}
	return names
}

// lastOdd is when the last zone began a day within a quarter of an hour of UTC.
var lastOdd = time.Date(1979, 10, 1, 10, 40, 0, 0, time.UTC)

// Every later day begins with a quarter of an hour of UTC, in every zone, as far as
// clocks are laid down; so quarters of an hour add up to days. Since 1970 there were two
// zones with other days.
func TestQuarters(t *testing.T) {
	const quarter = 15 * time.Minute
	until := map[string]string{} // the end of the last time with an odd offset, by zone
	for _, name := range allZones(t) {
		z := loadZone(t, name)
		for at := date("1960-01-01"); at.Before(date("2042-01-01")); {
			local := at.In(z.Location())
			end := nextChange(local)
			_, offset := local.Zone()
			if time.Duration(offset)*time.Second%quarter != 0 && (end.IsZero() || end.After(date("1970-01-01"))) {
				until[name] = end.Format(time.RFC3339)
			}
			if end.IsZero() {
				break
			}
			// What is special about a change are the days around it.
			for i := -2; i <= 2; i++ {
				start := z.DayStart(z.DayOf(end).AddDate(0, 0, i))
				if !start.Equal(start.Truncate(quarter)) && start.After(lastOdd) {
					t.Errorf("%s: a day begins %s", name, start)
				}
			}
			at = end
		}
	}
	if want := map[string]string{
		"Africa/Monrovia":    "1972-01-07T00:44:30Z",
		"Pacific/Kiritimati": "1979-10-01T10:40:00Z",
	}; !maps.Equal(until, want) {
		t.Errorf("odd offsets since 1970, until: %v, want %v", until, want)
	}
}
