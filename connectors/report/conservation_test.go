package report_test

import (
	"slices"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
)

// workspace_conservation_days compares lists of offsets, workspace_conservation each event.
// For days of UTC they say the same of whatever is lost, doubled, late or without event.
func TestConservationDaysAreConservation(t *testing.T) {
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	exec := func(statement string) {
		t.Helper()
		if err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	const (
		start = "toDateTime64('2026-03-01 00:00:00', 3, 'UTC')"
		// by the number of an event, in two partitions and two workspaces, over four days
		event = "['acme', 'beta'][1 + intDiv(number, 2) % 2] AS workspace, 'e' || number AS id, number % 2 AS " +
			"shard, intDiv(number, 2) AS place, " + start + " + INTERVAL number * 500 SECOND AS at"
		dice = "cityHash64(number) % 100"
	)
	exec("INSERT INTO conversions (workspace_id, event_id, received_at, entered_at, src_partition, src_offset) " +
		"SELECT workspace, id, at, at, shard, place FROM (SELECT " + event + ", " + dice + " AS chance " +
		"FROM numbers(690) ARRAY JOIN range(multiIf(chance < 4, 0, chance < 8, 2, chance < 10, 3, 1)) AS again)")
	exec("INSERT INTO outcomes (workspace_id, event_id, received_at, verdict, event_partition, event_offset, " +
		"src_partition, src_offset) SELECT workspace, id, at, ['attributed', 'reversed', 'duplicate', 'conflict', " +
		"'unattributed'][1 + number % 5], shard, place, shard, number FROM (SELECT number, " + event + ", " + dice +
		" AS chance FROM numbers(690) ARRAY JOIN range(multiIf(chance % 8 = 0, 0, chance % 8 = 1, 2, 1)) AS again)")
	// Partition 0 is read up to place 180, and had a longer grace for a day; partition 1
	// was never judged.
	exec("INSERT INTO progress (partition, at, read, conversions_position, outcomes_end, watermark, grace_ms, " +
		"src_partition, src_offset) SELECT 0, at, 1, place, 1, at, grace, 0, place FROM (SELECT [80, 130, 180][n] " +
		"AS place, " + start + " + INTERVAL n DAY AS at, [3600000, 216000000, 3600000][n] AS grace FROM " +
		"(SELECT 1 + number AS n FROM numbers(3)))")
	exec("INSERT INTO batches (topic_id, topic, partition, start_offset, end_offset, rows) VALUES ('x', " +
		"'conversions', 0, 0, 340, 3), ('x', 'outcomes', 0, 0, 9000, 3), ('x', 'conversions', 1, 0, 330, 3)")

	type day struct {
		Workspace    string `ch:"workspace_id"`
		Day          string `ch:"on"`
		Received     uint64 `ch:"received"`
		Attributed   uint64 `ch:"attributed"`
		Reversed     uint64 `ch:"reversed"`
		Duplicate    uint64 `ch:"duplicate"`
		Conflict     uint64 `ch:"conflict"`
		Unattributed uint64 `ch:"unattributed"`
		Waiting      uint64 `ch:"waiting"`
		Difference   int64  `ch:"difference"`
	}
	read := func(view string) (days []day) {
		t.Helper()
		if err := conn.Select(t.Context(), &days, "SELECT workspace_id, toString(v.day) AS on, received, attributed, "+
			"reversed, duplicate, conflict, unattributed, waiting, difference FROM "+view+
			" AS v ORDER BY workspace_id, on"); err != nil {
			t.Fatal(err)
		}
		return days
	}
	want, got := read("workspace_conservation"), read("workspace_conservation_days(tz = 'UTC')")
	if !slices.Equal(want, got) {
		t.Errorf("by event\n%v\nby lists of offsets\n%v", want, got)
	}
	var waiting, overdue bool
	for _, d := range want {
		waiting = waiting || d.Waiting > 0
		overdue = overdue || d.Difference > 0
	}
	if len(want) != 8 || !waiting || !overdue {
		t.Errorf("the rows show too little: %v", want)
	}
}
