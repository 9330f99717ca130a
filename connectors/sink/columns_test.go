package sink

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

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

// Clicks of one link have their columns from its first row, undecoded. The rows are those
// of clicks that are decoded one by one, whatever their fields are, which records are
// skipped or unreadable, and however many links there are.
func TestRowsOfEqualTails(t *testing.T) {
	codec := event.DefaultCodec().Aliasing()
	random := rand.New(rand.NewPCG(1, 2))
	draw := func(k *event.Click, from, to int) {
		v := reflect.ValueOf(k).Elem()
		for i := from; i < to; i++ {
			switch f := v.Field(i); f.Kind() {
			case reflect.String:
				f.SetString(fmt.Sprint(v.Type().Field(i).Name, random.IntN(3)))
			case reflect.Int64:
				f.SetInt(random.Int64N(1 << 40))
			case reflect.Bool:
				f.SetBool(random.IntN(2) == 0)
			}
		}
		k.TokenStatus, k.Trigger = event.TokenWithheld, event.TriggerQR
		if random.IntN(2) == 0 {
			k.TokenStatus, k.Trigger = event.TokenOff, event.TriggerLink
		}
	}
	fields := reflect.TypeFor[event.Click]()
	owner, _ := fields.FieldByName("WorkspaceID") // the first field of the link part
	links := make([]event.Click, maxTails+10)
	for i := range links {
		draw(&links[i], 0, fields.NumField())
	}
	fast, slow := newClickRows(codec), newClickRows(codec)
	slow.decodeHead = nil
	copied := 0
	const rounds = 4
	for i := range rounds*len(links) + 1 {
		k := links[i%len(links)]
		draw(&k, 0, owner.Index[0])
		if i == rounds*len(links) { // the last click's link is new: Texts remember what was added last
			draw(&k, 0, fields.NumField())
		}
		value, err := codec.AppendClick(nil, &k)
		if err != nil {
			t.Fatal(err)
		}
		record := &kgo.Record{Key: []byte(k.ClickToken), Value: value, Offset: int64(i)}
		change := random.IntN(20)
		if i == rounds*len(links) {
			change = 20
		}
		switch change {
		case 0:
			record.Key = []byte("another")
		case 1:
			record.Value = value[:random.IntN(len(value))]
		case 2:
			record.Value = append(value, 0)
		}
		skip := func() bool { return i%11 == 3 && i < rounds*len(links) }
		err, want := fast.appendRow(record, skip), slow.appendRow(record, skip)
		if fmt.Sprint(err) != fmt.Sprint(want) {
			t.Fatalf("record %d: %v, decoded whole: %v", i, err, want)
		}
		if err == nil && fast.sumTime() != slow.sumTime() {
			t.Fatalf("record %d is summed at another time", i)
		}
		if err == nil && fast.value != slow.value {
			copied++
		}
	}
	if copied < len(links) || len(fast.rowOf) != maxTails {
		t.Errorf("%d rows were copied, %d tails are known", copied, len(fast.rowOf))
	}
	if !reflect.DeepEqual(fast.summarize(), slow.summarize()) {
		t.Errorf("%+v, decoded whole: %+v", fast.summary, slow.summary)
	}
	for i, c := range fast.columns {
		if !reflect.DeepEqual(c.columnValues(), slow.columns[i].columnValues()) {
			t.Errorf("%s is not as in clicks that were decoded whole", c.name)
		}
	}
	fast.resetRows()
	if len(fast.rowOf) > 0 {
		t.Error("a tail outlives its rows")
	}
}
