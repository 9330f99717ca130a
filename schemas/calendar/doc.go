// Package calendar says at which instants the days and months of a workspace begin. All
// that counts by days uses it: reports, exports, statements. So one day has the same
// rows everywhere.
//
//	"Europe/Berlin" ──LoadZone──▶ Zone ──DayStart, Days, Month──▶ instants in UTC
//	                                   ◀──────── DayOf ─────────
//
// # Promises
//
//   - A day begins with the first instant at which its zone's clock shows its date or a
//     later one, and ends where the next day begins. So days have no gap and no overlap,
//     and an instant is in one day.
//   - A day on which the clocks change has 23 or 25 hours; in a few zones 22, 23½, 24½
//     or 26. Where clocks go forward over midnight, the day begins after the change.
//     Where they go back over midnight, it begins with the first of its two midnights.
//   - A day that a zone left out has 0 hours: it begins and ends where the next begins.
//     (Samoa crossed the date line on 2011-12-30.)
//   - A month begins with its first day.
//
// # Quarters of an hour
//
// The rollup adds up by quarters of an hour of UTC, so it knows a zone's days if they
// begin with a quarter. They do since 1979-10-01 10:40 UTC, when Kiritimati was the last
// zone to give up an odd offset. Of days before, a quarter in which a day begins counts
// whole for the day of its first instant: events of less than 15 minutes are on the day
// before. TestQuarters says of which zones, and until when.
package calendar
