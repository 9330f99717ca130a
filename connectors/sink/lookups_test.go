package sink

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/schemas/ddl"
	"github.com/nimriz/partners/schemas/event"
	"pgregory.net/rapid"
)

// lookupLines are the lines that each lookup table has, in the table and as the rows make
// them.
var lookupLines = map[string][2]string{
	"effects_by_event_id": {
		"SELECT workspace_id, event_id, first_token, last_token FROM effects_by_event_id FINAL",
		"SELECT workspace_id, event_id, min(click_token), max(click_token) FROM outcomes WHERE effect != 0 " +
			"GROUP BY workspace_id, event_id",
	},
	"sales_by_order_id": {
		"SELECT workspace_id, order_id, first_sale, last_sale FROM sales_by_order_id FINAL",
		"SELECT workspace_id, order_id, min(src_partition * toUInt64(281474976710656) + src_offset), " +
			"max(src_partition * toUInt64(281474976710656) + src_offset) FROM outcomes " +
			"WHERE verdict = 'attributed' AND type = 'sale' AND order_id != '' GROUP BY workspace_id, order_id",
	},
	"conversions_by_key": {
		"SELECT DISTINCT workspace_id, key, received_at FROM conversions_by_key",
		"SELECT DISTINCT workspace_id, xxHash32(k), received_at FROM conversions " +
			"ARRAY JOIN [event_id, order_id, parent_event_id, click_token] AS k WHERE k != ''",
	},
	"outcomes_by_key": {
		"SELECT DISTINCT workspace_id, key, occurred_at FROM outcomes_by_key",
		"SELECT DISTINCT workspace_id, xxHash32(k), occurred_at FROM outcomes " +
			"ARRAY JOIN [event_id, order_id, parent_event_id, click_token] AS k WHERE k != ''",
	},
}

// lookupTables are those of all base tables.
func lookupTables() (tables []string) {
	for _, m := range topicMappings(event.DefaultCodec()) {
		tables = append(tables, m.lookups...)
	}
	return tables
}

// checkLookups compares lookup tables, all if none is named, with the rows.
func checkLookups(t testing.TB, conn *clickhouse.Conn, tables ...string) {
	t.Helper()
	if len(tables) == 0 {
		tables = lookupTables()
	}
	for _, table := range tables {
		var found []struct {
			Missing uint64 `ch:"missing"`
			Surplus uint64 `ch:"surplus"`
			Lines   uint64 `ch:"lines"`
		}
		lines, made := lookupLines[table][0], lookupLines[table][1]
		err := conn.Select(t.Context(), &found, "SELECT "+
			"(SELECT count() FROM ("+made+" EXCEPT DISTINCT "+lines+")) AS missing, "+
			"(SELECT count() FROM ("+lines+" EXCEPT DISTINCT "+made+")) AS surplus, "+
			"(SELECT count() FROM ("+lines+")) AS lines")
		if err != nil {
			t.Fatal(err)
		}
		if found[0].Missing > 0 || found[0].Surplus > 0 {
			t.Errorf("%s lacks %d lines of its rows, and has %d too many", table, found[0].Missing,
				found[0].Surplus)
		}
		if found[0].Lines == 0 {
			t.Errorf("%s has no lines: nothing was compared", table)
		}
	}
}

// insertSales inserts sales of one order with two tokens each, in months of two years. Every
// fifth names a parent.
func insertSales(t testing.TB, conn *clickhouse.Conn, from, to int) {
	t.Helper()
	const columns = `number % 3, number, toDateTime64('2025-01-15 00:00:00', 3, 'UTC') + number * 86400 * 10 AS at,
			at, at - 60, concat('e', toString(intDiv(number, 2))), concat('t', toString(number)),
			concat('o', toString(intDiv(number, 2))), if(number % 5 = 0, concat('p', toString(number)), '')`
	for _, statement := range []string{`
		INSERT INTO conversions (workspace_id, src_partition, src_offset, arrived_at, received_at, occurred_at, event_id,
			click_token, order_id, parent_event_id, type)
		SELECT 'acme', ` + columns + `, 'sale'`, `
		INSERT INTO outcomes (workspace_id, src_partition, src_offset, arrived_at, received_at, occurred_at, event_id,
			click_token, order_id, parent_event_id, verdict, type, effect, amount_minor, standing_change_minor, currency,
			exponent, event_partition, event_offset)
		SELECT 'acme', ` + columns + `, 'attributed', 'sale', 1, 100, 100, 'EUR', 2, number % 3, number`,
	} {
		statement += fmt.Sprintf(" FROM numbers(%d, %d)", from, to-from)
		if err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// reuse counts what counts twice.
func reuse(t testing.TB, conn *clickhouse.Conn) string {
	t.Helper()
	var found []struct {
		IDs    uint64 `ch:"ids"`
		Orders uint64 `ch:"orders"`
		Rows   uint64 `ch:"flagged"`
	}
	err := conn.Select(t.Context(), &found, "SELECT (SELECT count() FROM event_id_reuse) AS ids, "+
		"(SELECT count() FROM order_reuse) AS orders, "+
		"(SELECT countIf(has(flags, 'event_id_reused')) FROM conversion_rows) AS flagged")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d ids, %d orders, %d flagged rows", found[0].IDs, found[0].Orders, found[0].Rows)
}

// What the views of ids and orders that count twice can no longer list, because months were
// dropped, has a line beside them; before that, nothing has.
func TestDroppedReuse(t *testing.T) {
	t.Parallel()
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	insertSales(t, conn, 0, 8)
	lines := func() string {
		var found []struct {
			Line string `ch:"line"`
		}
		err := conn.Select(t.Context(), &found, "SELECT concat(kind, ' ', id, ' ', toString(toDate(rows_from))) "+
			"AS line FROM dropped_reuse WHERE workspace_id = 'acme' ORDER BY line")
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, f := range found {
			all = append(all, f.Line)
		}
		return strings.Join(all, "; ")
	}
	if got := reuse(t, conn); got != "4 ids, 4 orders, 8 flagged rows" || lines() != "" {
		t.Errorf("with all rows: %s; dropped_reuse: %s", got, lines())
	}
	for _, statement := range []string{"ALTER TABLE outcomes DROP PARTITION ID '202501'",
		"ALTER TABLE outcomes DROP PARTITION ID '202502'",
		"INSERT INTO dropped_months (month, done) VALUES (202501, true), (202502, true)"} {
		if err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	want := "event_id e0 2025-03-01; event_id e1 2025-03-01; event_id e2 2025-03-01; " +
		"order_id o0 2025-03-01; order_id o1 2025-03-01; order_id o2 2025-03-01"
	if got := lines(); got != want {
		t.Errorf("of January and February: %s, want %s", got, want)
	}
	if got := reuse(t, conn); !strings.HasPrefix(got, "1 ids, 1 orders, ") {
		t.Errorf("of what is left: %s", got)
	}
}

// A database of the release before, with rows of every month of the year: the migration
// finds all of them, also when it is run a second time from its start, and a second copy
// of a row changes nothing.
func TestLookupsOfAnOlderDatabase(t *testing.T) {
	dsn := clickhousetest.ForTest(t)
	conn, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: dsn}, discard())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	migrate := func(files fs.FS) {
		t.Helper()
		if err := conn.Migrate(t.Context(), files, clickhouse.MigrateConfig{Log: discard()}); err != nil {
			t.Fatal(err)
		}
	}
	names, err := fs.Glob(ddl.Migrations(), "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	first := func(n int) fs.FS {
		files := fstest.MapFS{}
		for _, name := range names[:n] {
			text, err := fs.ReadFile(ddl.Migrations(), name)
			if err != nil {
				t.Fatal(err)
			}
			files[name] = &fstest.MapFile{Data: text}
		}
		return files
	}
	lookups := slices.Index(names, "0008_lookups.sql")
	migrate(first(lookups))
	insertSales(t, conn, 0, 41) // the two of an id are in two parts
	insertSales(t, conn, 41, 80)
	migrate(first(lookups + 1))
	checkLookups(t, conn, "effects_by_event_id", "sales_by_order_id")
	for _, from := range []string{"8", "17"} {
		if err := conn.Exec(t.Context(), "ALTER TABLE goose_db_version DELETE WHERE version_id >= "+from+
			" SETTINGS mutations_sync = 1"); err != nil {
			t.Fatal(err)
		}
		migrate(ddl.Migrations())
		checkLookups(t, conn)
	}
	if got := reuse(t, conn); got != "40 ids, 40 orders, 80 flagged rows" {
		t.Errorf("migrated again: %s", got)
	}
	insertSales(t, conn, 80, 85)
	insertSales(t, conn, 85, 90)
	insertSales(t, conn, 85, 90) // a repetition that ClickHouse did not recognise
	checkLookups(t, conn)
	if got := reuse(t, conn); got != "45 ids, 45 orders, 95 flagged rows" {
		t.Errorf("with new rows: %s", got)
	}
}

// What is gone from the lookup tables comes back.
func TestFillLookups(t *testing.T) {
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	insertSales(t, conn, 0, 80)
	if err := conn.Exec(t.Context(), "ALTER TABLE sales_by_order_id DELETE WHERE src_partition = 1 "+
		"SETTINGS mutations_sync = 1"); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"TRUNCATE TABLE effects_by_event_id", "TRUNCATE TABLE conversions_by_key",
		"ALTER TABLE outcomes_by_key DELETE WHERE key % 2 = 0 SETTINGS mutations_sync = 1"} {
		if err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	var steps []string
	for range 2 {
		steps = nil
		if err := FillLookups(t.Context(), conn, func(step string) { steps = append(steps, step) }); err != nil {
			t.Fatal(err)
		}
		checkLookups(t, conn)
		if got := reuse(t, conn); got != "40 ids, 40 orders, 80 flagged rows" {
			t.Errorf("filled: %s", got)
		}
	}
	if len(steps) != 12 || steps[11] != "filling outcomes_by_key, partition 3 of 3" {
		t.Errorf("steps: %q", steps)
	}
}

// modelSale is a sale of an order, as a person would follow it.
type modelSale struct {
	order, token, id, parent string
	offset                   int
	standing                 int // what its chain leaves of it
}

// order_reuse is what a person finds who follows every chain from its sale: orders with
// several sales of which something stands, without those that follow an earlier sale of
// their order.
func TestOrderReuseIsItsDefinition(t *testing.T) {
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	exec := func(rt *rapid.T, statement string) {
		if err := conn.Exec(t.Context(), statement); err != nil {
			rt.Fatalf("%v: %s", err, statement)
		}
	}
	clickhousetest.FewerChecks(t)
	const workspaces = 8 // of each check, each with journeys of its own
	rapid.Check(t, func(rt *rapid.T) {
		exec(rt, "TRUNCATE TABLE outcomes")
		exec(rt, "TRUNCATE TABLE sales_by_order_id")
		var rows, want []string
		for w := range workspaces {
			drawn, sales := drawJourneys(rt, w)
			rows = append(rows, drawn...)
			for _, line := range ordersOf(sales) {
				want = append(want, fmt.Sprintf("w%d %s", w, line))
			}
		}
		exec(rt, "INSERT INTO outcomes (workspace_id, event_partition, event_offset, src_partition, src_offset, "+
			"click_token, event_id, parent_event_id, order_id, verdict, type, effect, amount_minor, "+
			"standing_change_minor, currency, exponent) VALUES "+strings.Join(rows, ", "))
		if rapid.Bool().Draw(rt, "twice") {
			exec(rt, "INSERT INTO sales_by_order_id SELECT * FROM sales_by_order_id")
		}
		var found []struct {
			Line string `ch:"line"`
		}
		if err := conn.Select(t.Context(), &found, "SELECT concat(workspace_id, ' ', order_id, ' ', "+
			"toString(arraySort(event_ids)), ' ', toString(arraySum(s -> s.minor, standing))) AS line "+
			"FROM order_reuse ORDER BY line"); err != nil {
			rt.Fatal(err)
		}
		var got []string
		for _, f := range found {
			got = append(got, f.Line)
		}
		if !slices.Equal(got, want) {
			rt.Fatalf("got  %q\nwant %q\nof %s", got, want, strings.Join(rows, "\n"))
		}
	})
}

// ordersOf says which orders the sales count more than once.
func ordersOf(sales []*modelSale) (lines []string) {
	byOrder := map[string][]*modelSale{}
	for _, s := range sales {
		follows := slices.ContainsFunc(sales, func(e *modelSale) bool {
			return e.order == s.order && e.token == s.token && e.id == s.parent && e.offset < s.offset
		})
		if !follows && s.standing > 0 {
			byOrder[s.order] = append(byOrder[s.order], s)
		}
	}
	for order, of := range byOrder {
		if len(of) < 2 {
			continue
		}
		var ids []string
		sum := 0
		for _, s := range of {
			ids = append(ids, "'"+s.id+"'")
			sum += s.standing
		}
		slices.Sort(ids)
		lines = append(lines, fmt.Sprintf("%s [%s] %d", order, strings.Join(ids, ","), sum))
	}
	slices.Sort(lines)
	return lines
}

// drawJourneys draws the rows of some journeys of a workspace, as VALUES, and their
// sales. A workspace has a partition of its own.
func drawJourneys(t *rapid.T, workspace int) (rows []string, sales []*modelSale) {
	type row struct {
		token, id string
		root      *modelSale
		effect    int
	}
	var all []row
	for offset := range rapid.IntRange(1, 14).Draw(t, "rows") {
		id := fmt.Sprintf("e%d", offset)
		token := rapid.SampledFrom([]string{"t1", "t2"}).Draw(t, "token")
		var own []row
		for _, r := range all {
			if r.token == token {
				own = append(own, r)
			}
		}
		verdict, kind, effect, amount, change, parent, order := "attributed", "sale", 1, 0, 0, "", ""
		if len(own) > 0 && rapid.IntRange(0, 2).Draw(t, "negative") > 0 {
			of := rapid.SampledFrom(own).Draw(t, "of")
			verdict, kind, effect, parent = "reversed", "reversal", -of.effect, of.id
			amount = rapid.IntRange(1, 40).Draw(t, "amount")
			change = max(effect*amount, -of.root.standing)
			of.root.standing += change
			all = append(all, row{token, id, of.root, effect})
		} else {
			order = rapid.SampledFrom([]string{"o1", "o2"}).Draw(t, "order")
			amount = 30
			change = 30
			if len(own) > 0 && rapid.Bool().Draw(t, "follows") {
				parent = rapid.SampledFrom(own).Draw(t, "parent").id
			}
			sale := &modelSale{order, token, id, parent, offset, 30}
			sales = append(sales, sale)
			all = append(all, row{token, id, sale, 1})
		}
		rows = append(rows, fmt.Sprintf("('w%[1]d', %[1]d, %[2]d, %[1]d, %[2]d, '%[3]s', '%s', '%s', '%s', '%s', "+
			"'%s', %d, %d, %d, 'EUR', 2)", workspace, offset, token, id, parent, order, verdict, kind, effect, amount,
			change))
	}
	return rows, sales
}
