package clickhousetest

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/schemas/ddl"
)

// A copied database is what the migrations leave: to the letter of every table and view,
// their columns and indexes, what they read and write, and the rows.
func TestCopyIsMigrated(t *testing.T) {
	dsn := ForTest(t)
	copied := OpenMigrated(t, dsn)
	from, err := migrated()
	if err != nil {
		t.Fatal(err)
	}
	if copied.Database() == from.database {
		t.Fatal("the template itself was handed out")
	}
	original := openDatabase(t, from.database)
	want, got := describe(t, original), describe(t, copied)
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			t.Fatalf("from line %d on:\nmigrated %.2000s\ncopied   %.2000s", i, want[min(i, len(want)):],
				got[min(i, len(got)):])
		}
	}
	if len(want) < 300 {
		t.Errorf("only %d lines are compared", len(want))
	}
	// The views that fill tables do, in the copy alone.
	for _, statement := range []string{
		"INSERT INTO outcomes (workspace_id, event_id, click_token, verdict, type, order_id, effect) " +
			"VALUES ('w', 'e', 't', 'attributed', 'sale', 'o', 1)",
		"INSERT INTO conversions (workspace_id, event_id, click_token) VALUES ('w', 'e', 't')",
		"INSERT INTO clicks (workspace_id, click_token) VALUES ('w', 't')",
	} {
		if err := copied.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range []string{"outcomes", "clicks", "effects_by_event_id", "sales_by_order_id",
		"outcomes_by_key", "conversions", "conversions_by_key", "partner_quarter_hourly_state"} {
		if count(t, copied, table) == 0 || count(t, original, table) != 0 {
			t.Errorf("%s: %d rows in the copy, %d in the template", table, count(t, copied, table),
				count(t, original, table))
		}
	}
	// There is nothing left to migrate.
	var logged strings.Builder
	cfg := clickhouse.MigrateConfig{Log: slog.New(slog.NewTextHandler(&logged, nil))}
	if err := copied.Migrate(t.Context(), ddl.Migrations(), cfg); err != nil ||
		!strings.Contains(logged.String(), "nothing") {
		t.Errorf("%v, %s", err, &logged)
	}
}

func openDatabase(t *testing.T, database string) *clickhouse.Conn {
	t.Helper()
	running, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: running.DSN(database)},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// describe is all that ClickHouse knows of a database but its name.
func describe(t *testing.T, conn *clickhouse.Conn) (lines []string) {
	t.Helper()
	for _, query := range []string{
		"SELECT concat(name, ' ', create_table_query, ' ', engine_full, ' ', as_select, " +
			"toString(arraySort(dependencies_table)), comment) AS line FROM system.tables " +
			"WHERE database = currentDatabase()",
		"SELECT concat(table, ' ', toString(position), ' ', name, ' ', type, ' ', default_kind, ' ', " +
			"default_expression, ' ', compression_codec) AS line FROM system.columns " +
			"WHERE database = currentDatabase()",
		"SELECT concat(table, ' ', name, ' ', type_full, ' ', expr, ' ', toString(granularity)) AS line " +
			"FROM system.data_skipping_indices WHERE database = currentDatabase()",
		"SELECT concat(toString(version_id), ' ', toString(is_applied)) AS line FROM goose_db_version",
	} {
		var rows []struct {
			Line string `ch:"line"`
		}
		if err := conn.Select(t.Context(), &rows, query); err != nil {
			t.Fatal(err)
		}
		var part []string
		for _, row := range rows {
			part = append(part, strings.ReplaceAll(row.Line, conn.Database(), "DATABASE"))
		}
		slices.Sort(part)
		lines = append(lines, part...)
	}
	return lines
}

func count(t *testing.T, conn *clickhouse.Conn, table string) uint64 {
	t.Helper()
	var rows []struct {
		N uint64 `ch:"n"`
	}
	if err := conn.Select(t.Context(), &rows, "SELECT count() AS n FROM "+table); err != nil {
		t.Fatal(err)
	}
	return rows[0].N
}
