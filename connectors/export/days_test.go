package export

import (
	"testing"
	"time"
)

// Zones whose clocks change at or over midnight: the day begins with the first second
// that bears its date.
func TestFirstInstantOfDay(t *testing.T) {
	for zone, days := range map[string][]string{
		"Asia/Amman":       {"2021-10-29", "2021-10-28"},
		"America/Havana":   {"2026-11-01", "2026-03-08"},
		"Africa/Cairo":     {"2026-04-24", "2026-10-30", "2026-10-29"},
		"Asia/Beirut":      {"2026-03-29", "2026-10-25"},
		"Atlantic/Azores":  {"2026-03-29", "2026-10-25"},
		"America/Santiago": {"2026-09-06", "2026-04-05", "2026-04-04"},
		"Europe/Berlin":    {"2026-03-29", "2026-10-25"},
	} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range days {
			day, _ := time.Parse(time.DateOnly, s)
			got := firstInstant(day, loc)
			// The first second, of all near it, that the zone's clock dates so.
			want := day.Add(-15 * time.Hour)
			for want.In(loc).Format(time.DateOnly) != s {
				want = want.Add(time.Second)
			}
			if !got.Equal(want) {
				t.Errorf("%s %s: %s, want %s", zone, s, got, want.UTC())
			}
		}
	}
}
