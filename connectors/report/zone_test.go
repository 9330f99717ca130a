package report_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/schemas/calendar"
)

// ClickHouse has a time zone database of its own. Its days are ours: in every zone that
// both know, at each change of a clock from 2015 to 2037 and the days around it.
func TestClickHouseHasTheSameDays(t *testing.T) {
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	var zones []struct {
		Name string `ch:"time_zone"`
	}
	err := conn.Select(t.Context(), &zones, "SELECT time_zone FROM system.time_zones ORDER BY time_zone")
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, found := range zones {
		zone, err := calendar.LoadZone(found.Name)
		if err != nil {
			continue
		}
		var instants []int64
		var days []string
		add := func(at time.Time) {
			instants = append(instants, at.UnixMilli())
			days = append(days, zone.DayOf(at).Format(time.DateOnly))
		}
		last := time.Date(2037, 1, 1, 0, 0, 0, 0, time.UTC)
		for at := time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC); at.Before(last); {
			_, change := at.In(zone.Location()).ZoneBounds()
			if change.IsZero() {
				change = last
			}
			for i := -1; i <= 1; i++ {
				start := zone.DayStart(zone.DayOf(change).AddDate(0, 0, i))
				add(start)
				add(start.Add(-time.Millisecond))
			}
			if !change.After(at) { // see calendar's nextChange
				change = at.Add(24 * time.Hour)
			}
			at = change.UTC()
		}
		var answers []struct {
			Days string `ch:"days"`
		}
		if err := conn.Select(t.Context(), &answers, `
SELECT arrayStringConcat(
	arrayMap(at -> toString(toDate(fromUnixTimestamp64Milli(at, 'UTC'), {tz:String})), {at:Array(Int64)}), ' ') AS days`,
			clickhouse.Named("tz", zone.Name()), clickhouse.Named("at", instants)); err != nil {
			t.Errorf("%s: %v", zone.Name(), err)
			continue
		}
		if got, want := answers[0].Days, strings.Join(days, " "); got != want {
			t.Errorf("%s:\n got %s\nwant %s", zone.Name(), got, want)
		}
		compared += len(days)
	}
	if compared < 10_000 {
		t.Errorf("only %d instants of %d zones were compared", compared, len(zones))
	}
}
