package sink

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/ledger"
)

// The sink fills every column of its tables that does not fill itself, and no others, with
// values of its type, on a database that has run all migrations. standing_basis has a
// default that follows from other columns of the row, and only the rollup's computations
// change it.
func TestColumnsMatchMigrations(t *testing.T) {
	conn := clickhousetest.OpenMigrated(t, clickhousetest.ForTest(t))
	for _, f := range topicMappings(event.DefaultCodec()) {
		var columns []struct {
			Name string `ch:"name"`
			Type string `ch:"type"`
		}
		if err := conn.Select(t.Context(), &columns, `
SELECT name, type
FROM system.columns
WHERE database = currentDatabase() AND table = {table:String} AND default_kind IN ('', 'DEFAULT')
	AND name != 'standing_basis'`,
			clickhouse.Named("table", f.table)); err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, c := range columns {
			// The server finds equal strings inside of arrays and maps.
			kind := c.Type
			if kind != "LowCardinality(String)" {
				kind = strings.ReplaceAll(kind, "LowCardinality(String)", "String")
			}
			want = append(want, c.Name+" "+kind)
		}
		got := f.newRows().block().Columns()
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

// drawRecord gives the fields [from, to) of a record random values.
func drawRecord(random *rand.Rand, record any, from, to int) {
	v := reflect.ValueOf(record).Elem()
	for i := from; i < to; i++ {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(fmt.Sprint(v.Type().Field(i).Name, random.IntN(3)))
		case reflect.Int64:
			f.SetInt(random.Int64N(1 << 40))
		case reflect.Int32:
			f.SetInt(random.Int64N(1<<32) + math.MinInt32)
		case reflect.Bool:
			f.SetBool(random.IntN(2) == 0)
		case reflect.Pointer:
			if kind := f.Type().Elem().Kind(); kind != reflect.Struct && random.IntN(2) == 0 {
				f.Set(reflect.New(f.Type().Elem()))
				f.Elem().SetInt(random.Int64N(3)) // 0 is not null
			}
		}
	}
}

func drawClick(random *rand.Rand, k *event.Click, from, to int) {
	drawRecord(random, k, from, to)
	k.TokenStatus, k.Trigger = event.TokenWithheld, event.TriggerQR
	if random.IntN(2) == 0 {
		k.TokenStatus, k.Trigger = event.TokenOff, event.TriggerLink
	}
}

// drawOutcome returns a random outcome, often of an earlier version of the rules.
func drawOutcome(random *rand.Rand, link *event.Click) *event.Outcome {
	o := new(event.Outcome)
	drawRecord(random, o, 0, reflect.TypeFor[event.Outcome]().NumField())
	o.Verdict = event.Verdicts()[random.IntN(len(event.Verdicts()))]
	o.Review = event.Reviews()[random.IntN(len(event.Reviews()))]
	o.Type = event.Types()[random.IntN(len(event.Types()))]
	o.RulesVersion, o.Effect = random.Int32N(6), random.Int32N(3)-1
	o.ContentSHA256[random.IntN(32)] = byte(random.IntN(256))
	o.Flags = []string{"a", "", "b"}[:random.IntN(4)]
	o.Metadata = make(map[string]string)
	for range random.IntN(4) {
		o.Metadata[fmt.Sprint(random.IntN(9))] = strings.Repeat("v", random.IntN(200))
	}
	if o.Click = nil; random.IntN(3) > 0 {
		click := *link
		drawClick(random, &click, 0, firstLinkField())
		if random.IntN(4) == 0 {
			click.ClickedAt = 0
		}
		o.Click = &click
	}
	return o
}

// firstLinkField is the index of the first field of a click's link part.
func firstLinkField() int {
	owner, _ := reflect.TypeFor[event.Click]().FieldByName("WorkspaceID")
	return owner.Index[0]
}

// rowsPair reads the same records in both ways.
type rowsPair[T any] struct {
	fields, codec *typedRows[T]
	byFields      int // rows that were read by their fields
	shared        int // rows whose tail had a row
}

func newRowsPair[T any](newRows func(*event.Codec) *typedRows[T]) *rowsPair[T] {
	codec := event.DefaultCodec().Aliasing()
	p := &rowsPair[T]{fields: newRows(codec), codec: newRows(codec)}
	p.codec.fields = nil
	return p
}

func (p *rowsPair[T]) appendRow(t testing.TB, record *kgo.Record, skip func() bool) {
	t.Helper()
	before, tails := p.fields.summary.rows, p.fields.tail.rows
	err, want := p.fields.appendRow(record, skip), p.codec.appendRow(record, skip)
	if fmt.Sprint(err) != fmt.Sprint(want) {
		t.Fatalf("record %d: %v, read by the codec: %v", record.Offset, err, want)
	}
	if err == nil && p.fields.summedAt != nil && p.fields.sumTime() != p.codec.sumTime() {
		t.Fatalf("record %d is summed at another time", record.Offset)
	}
	if p.fields.summary.rows > before {
		if _, ok := p.fields.fields.read(record, &p.fields.value); ok {
			p.byFields++
		}
		if p.fields.tail.rows == tails {
			p.shared++
		}
	}
}

func (p *rowsPair[T]) compare(t testing.TB) {
	t.Helper()
	if !reflect.DeepEqual(p.fields.summarize(), p.codec.summarize()) {
		t.Errorf("%+v, read by the codec: %+v", p.fields.summary, p.codec.summary)
	}
	if !bytes.Equal(p.fields.block().AppendNative(nil), p.codec.block().AppendNative(nil)) {
		t.Error("the block is not as of records that the codec read")
	}
}

// Rows are those of records that the codec reads, byte for byte, whatever the fields are,
// which records are skipped, misfiled or unreadable, and however many links there are.
func TestRowsAreTheCodecs(t *testing.T) {
	codec, random := event.DefaultCodec(), rand.New(rand.NewPCG(1, 2))
	clicks, outcomes := newRowsPair(newClickRows), newRowsPair(newOutcomeRows)
	links := make([]event.Click, maxShared+10)
	for i := range links {
		drawClick(random, &links[i], 0, reflect.TypeFor[event.Click]().NumField())
	}
	change := func(i int, value []byte, key string) *kgo.Record {
		record := &kgo.Record{Key: []byte(key), Value: value, Offset: int64(i), Timestamp: time.UnixMilli(int64(i))}
		switch random.IntN(20) {
		case 0:
			record.Key = []byte("another")
		case 1:
			record.Value = value[:random.IntN(len(value))]
		case 2:
			record.Value = append(value, 0)
		case 3:
			record.Value[random.IntN(len(value))] ^= byte(1 << random.IntN(8))
		}
		return record
	}
	for i := range 4 * len(links) {
		k := links[i%len(links)]
		drawClick(random, &k, 0, firstLinkField())
		skip := func() bool { return i%11 == 3 }
		value, err := codec.AppendClick(nil, &k)
		if err != nil {
			t.Fatal(err)
		}
		clicks.appendRow(t, change(i, value, k.ClickToken), skip)
		o := drawOutcome(random, &links[i%len(links)])
		if value, err = codec.AppendOutcome(nil, o, nil); err != nil {
			t.Fatal(err)
		}
		outcomes.appendRow(t, change(i, value, o.ClickToken), skip)
	}
	clicks.compare(t)
	outcomes.compare(t)
	for name, n := range map[string]int{
		"clicks read by their fields":    clicks.byFields,
		"outcomes read by their fields":  outcomes.byFields,
		"clicks that share a tail's row": clicks.shared,
		"outcomes that do":               outcomes.shared,
	} {
		if n < len(links) {
			t.Errorf("only %d %s", n, name)
		}
	}
	if len(clicks.fields.tail.rowOf) != maxShared {
		t.Errorf("%d tails are known", len(clicks.fields.tail.rowOf))
	}
	clicks.fields.resetRows()
	if len(clicks.fields.tail.rowOf) > 0 || clicks.fields.block().Rows() > 0 {
		t.Error("a tail or a row outlives its batch")
	}
}

// Whatever the bytes are, a click or an outcome is what the codec makes of it.
func FuzzRows(f *testing.F) {
	codec, random := event.DefaultCodec(), rand.New(rand.NewPCG(1, 2))
	for range 5 {
		var k event.Click
		drawClick(random, &k, 0, reflect.TypeFor[event.Click]().NumField())
		click, err := codec.AppendClick(nil, &k)
		if err != nil {
			f.Fatal(err)
		}
		o := drawOutcome(random, &k)
		outcome, err := codec.AppendOutcome(nil, o, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(k.ClickToken), click)
		f.Add([]byte(o.ClickToken), outcome)
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		record := &kgo.Record{Key: key, Value: value}
		clicks, outcomes := newRowsPair(newClickRows), newRowsPair(newOutcomeRows)
		for range 2 { // the second meets the tail of the first
			clicks.appendRow(t, record, nil)
			outcomes.appendRow(t, record, nil)
		}
		clicks.compare(t)
		outcomes.compare(t)
	})
}
