package sink

import (
	"slices"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
)

// The sink fills every column of its tables that does not fill itself, and no others,
// on a database that has run all migrations. standing_basis has a default that follows
// from other columns of the row, and only the rollup's computations change it.
func TestColumnsMatchMigrations(t *testing.T) {
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	for _, f := range topicMappings(event.DefaultCodec()) {
		var columns []struct {
			Name string `ch:"name"`
		}
		if err := conn.Select(t.Context(), &columns, `
SELECT name
FROM system.columns
WHERE database = currentDatabase() AND table = {table:String} AND default_kind IN ('', 'DEFAULT')
	AND name != 'standing_basis'`,
			clickhouse.Named("table", f.table)); err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, c := range columns {
			want = append(want, c.Name)
		}
		got := f.newRows().columnNames()
		slices.Sort(want)
		slices.Sort(got)
		if len(want) < 5 || !slices.Equal(got, want) {
			t.Errorf("%s: the sink fills\n%v\nthe table has\n%v", f.table, got, want)
		}
	}
}

// A field of an outcome or of its click, as the ledger and the demo know them, is a
// column that the sink fills.
func TestOutcomeColumnsAreItsFields(t *testing.T) {
	var got, want []string
	for _, c := range outcomeColumns() {
		got = append(got, c.name)
	}
	for _, f := range ledger.OutcomeFields() {
		want = append(want, f.Name)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the sink fills\n%v\nthe records have\n%v", got, want)
	}
}
