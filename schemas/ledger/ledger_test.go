package ledger

import (
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/schemas/event"
	"github.com/shopspring/decimal"
)

// A column that is stored is a field of the record that it names, of the column's kind;
// one that is not stored says how it is made.
func TestColumnsAreFieldsOfTheirRecords(t *testing.T) {
	fields := map[string]Field{}
	for _, f := range OutcomeFields() {
		fields[f.Name] = f
	}
	seen := map[string]bool{}
	for _, c := range Columns() {
		if seen[c.Name] {
			t.Errorf("%s is there twice", c.Name)
		}
		seen[c.Name] = true
		f, stored := fields[c.Name]
		switch c.Source {
		case Outcome, Click:
			o := event.Outcome{Click: &event.Click{}}
			if !stored || f.InClick != (c.Source == Click) {
				t.Errorf("%s: no such field of its record", c.Name)
			} else if kind, nullable := kindOf(f.Value(&o).Type()); kind != c.Kind || nullable && !c.Nullable {
				t.Errorf("%s: kind %d, nullable %t; the field has kind %d, nullable %t",
					c.Name, c.Kind, c.Nullable, kind, nullable)
			}
		case Derived:
			if !strings.Contains(c.SQL(), "o.") {
				t.Errorf("%s: derived by %q", c.Name, c.SQL())
			}
		case Joined:
			if c.SQL() != "" {
				t.Errorf("%s: joined, and derived by %q", c.Name, c.SQL())
			}
		}
	}
}

func kindOf(t reflect.Type) (kind Kind, nullable bool) {
	if nullable = t.Kind() == reflect.Pointer; nullable {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[event.Millis]():
		return Time, nullable
	case t.Kind() == reflect.Slice:
		return List, nullable
	case t.Kind() == reflect.Bool:
		return Bool, nullable
	case t.Kind() == reflect.Int32 || t.Kind() == reflect.Int64:
		return Integer, nullable
	}
	return Text, nullable
}

// Every example is a value of its column.
func TestExamples(t *testing.T) {
	for _, c := range Columns() {
		var err error
		switch c.Kind {
		case Text:
			if c.Values != nil && !slices.Contains(c.Values, c.Example) {
				t.Errorf("%s: %q is none of %q", c.Name, c.Example, c.Values)
			}
		case Time:
			var at time.Time
			if at, err = time.Parse(time.RFC3339, c.Example); err == nil && FormatTime(at) != c.Example {
				t.Errorf("%s: %q is written %q", c.Name, c.Example, FormatTime(at))
			}
		case Integer:
			_, err = strconv.ParseInt(c.Example, 10, 64)
		case Decimal:
			_, err = decimal.NewFromString(c.Example)
		case Bool:
			_, err = strconv.ParseBool(c.Example)
		}
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

// All fields of an outcome and of its click are stored, each under one name.
func TestOutcomeFields(t *testing.T) {
	o := event.Outcome{Click: &event.Click{}}
	names := map[string]bool{}
	for _, f := range OutcomeFields() {
		if f.Name == "" || names[f.Name] || !f.Value(&o).CanSet() {
			t.Errorf("field %+v", f)
		}
		names[f.Name] = true
	}
	// Of the two structs, click, its workspace_id and its click_token are no columns.
	all := reflect.TypeFor[event.Outcome]().NumField() + reflect.TypeFor[event.Click]().NumField()
	if len(names) != all-3 {
		t.Errorf("%d of %d fields", len(names), all)
	}
}

func TestFormatDecimal(t *testing.T) {
	check := func(units int64, exponent uint8, want string) {
		t.Helper()
		if got := FormatDecimal(MinorUnits(units, exponent)); got != want {
			t.Errorf("%d with %d digits: %q, want %q", units, exponent, got, want)
		}
		if got := event.Decimal(units, int32(exponent)); got != want {
			t.Errorf("event.Decimal of %d with %d digits: %q, want %q", units, exponent, got, want)
		}
	}
	check(0, 0, "0")
	check(0, 2, "0.00")
	check(-1050, 2, "-10.50")
	check(-5, 3, "-0.005")
	check(7, 0, "7")
	check(math.MaxInt64, 4, "922337203685477.5807")
	check(math.MinInt64, 2, "-92233720368547758.08")
	sum := MinorUnits(10, 0).Add(MinorUnits(500, 3))
	if got := FormatDecimal(sum); got != "10.500" {
		t.Errorf("a sum has the digits of the longer number: %q", got)
	}
	if got := FormatDecimal(decimal.Decimal{}.Sub(MinorUnits(0, 2))); got != "0.00" {
		t.Errorf("nothing less nothing: %q", got)
	}
}

// The headers of the versions, of which files exist: a new version gets a header of its
// own here, and those before it stay as they are.
func TestHeaders(t *testing.T) {
	const first = "" +
		"workspace_id,partner_id,partner_key,partner_name,partner_relationship,partner_relationship_now," +
		"program_id,program_key,program_name,assignment_id,link_id,domain,slug,destination,clicked_at," +
		"occurred_at,received_at,event_id,type,event_name,verdict,reason,effect,amount,net_amount,currency," +
		"amount_minor,quantity,order_id,parent_event_id,parent_type,reason_text,clawback,review,flags," +
		"estimated_reward,reward_currency,reward_terms,utm_source,utm_medium,utm_campaign,utm_term," +
		"utm_content,sub1,sub2,sub3,sub4,sub5,experiment,variant,country,device,is_bot,click_token," +
		"event_partition,event_offset"
	headers := []string{
		first,
		strings.Replace(first, ",net_amount,", ",net_amount,standing_change,", 1),
	}
	if len(headers) != Version {
		t.Fatalf("%d headers, the newest version is %d", len(headers), Version)
	}
	for i, want := range headers {
		if got := Header(i + 1); got != want {
			t.Errorf("version %d\n%s\nwant\n%s", i+1, got, want)
		}
	}
	if Header(Version) != strings.Join(Names(), ",") {
		t.Error("the names are not those of the newest version")
	}
}

// The SQL of a line has every column, in order.
func TestCSVLine(t *testing.T) {
	line := CSVLine(Version, false, func(c Column) string { return "<" + c.Name + ">" })
	at := -1
	for _, name := range Names() {
		next := strings.Index(line, "<"+name+">")
		if next <= at {
			t.Errorf("%s is at %d, the column before at %d", name, next, at)
		}
		at = next
	}
	if old := CSVLine(1, false, Column.SQL); strings.Contains(old, "standing_change") ||
		strings.Contains(old, "escape_formula(") {
		t.Error("a line of version 1 has a column of version 2, or is escaped as those are")
	}
	if raw := CSVLine(Version, true, Column.SQL); strings.Contains(raw, "escape_formula") ||
		!strings.Contains(line, "escape_formula(") {
		t.Error("raw lines are escaped, or others are not")
	}
}

func TestConservation(t *testing.T) {
	var sum Conservation
	for range 2 {
		sum.Add(Conservation{1, 2, 3, 4, 5, 6, 7, 8})
	}
	const want = "received 2 = attributed 4 + reversed 6 + duplicate 8 + conflict 10 + unattributed 12 + waiting 14, " +
		"difference 16"
	if sum.String() != want {
		t.Errorf("%s, want %s", sum, want)
	}
	var tags []string
	for i := range reflect.TypeFor[Conservation]().NumField() {
		tags = append(tags, reflect.TypeFor[Conservation]().Field(i).Tag.Get("ch"))
	}
	if got := ConservationColumns(); got != strings.Join(tags, ", ") {
		t.Errorf("columns %s, fields %v", got, tags)
	}
}

// Go writes amounts and times as FormatDecimal and FormatTime do, and each amount says of
// which numbers it is made.
func TestAppend(t *testing.T) {
	for _, minor := range []int64{0, 1, -1, 9, 10, -100, 1050, math.MaxInt64, math.MinInt64} {
		for _, digits := range []uint8{0, 1, 2, 3, 4, 18, 19, 20, 25} {
			got := string(AppendDecimal([]byte("x,"), minor, digits))
			if want := "x," + FormatDecimal(MinorUnits(minor, digits)); got != want {
				t.Errorf("%d, %d digits: %s, want %s", minor, digits, got, want)
			}
		}
	}
	for _, ms := range []int64{0, -1, 1773480600007, 1773480600990, 253402300799999, 253402300800000, -62135596800001} {
		if got, want := string(AppendTime(nil, ms)), FormatTime(time.UnixMilli(ms)); got != want {
			t.Errorf("%d: %s, want %s", ms, got, want)
		}
	}
	for _, c := range Columns() {
		if (c.Kind == Decimal) != (c.Minor != "" && c.Digits != "") {
			t.Errorf("%s: kind %s, of %q with %q digits", c.Name, c.Kind, c.Minor, c.Digits)
		}
	}
}
