package statement

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nimriz/partners/schemas/calendar"
)

func TestMonths(t *testing.T) {
	for _, bad := range []string{"", "2026", "2026-13", "2026-00", "2026-1", "26-11", "2026-11-01", "1999-12",
		"2101-01", "2026-11 ", "-2026-11"} {
		if m, err := ParseMonth(bad); !errors.Is(err, ErrMonth) {
			t.Errorf("%q is %v, %v", bad, m, err)
		}
	}
	m, err := ParseMonth("2026-12")
	if err != nil {
		t.Fatal(err)
	}
	first, last := m.Days()
	for got, want := range map[string]string{
		m.String():                  "2026-12",
		m.Add(1).String():           "2027-01",
		m.Add(-12).String():         "2025-12",
		first.Format(time.DateOnly): "2026-12-01",
		last.Format(time.DateOnly):  "2026-12-31",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	apia, err := calendar.LoadZone("Pacific/Apia")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	if got := MonthOf(at, apia); got != m {
		t.Errorf("30 November, 12:00 UTC, is in %s in Samoa", got)
	}
}

// JSON has the columns, in their order, and so has the CSV.
func TestColumns(t *testing.T) {
	text, err := json.Marshal(&Account{PartnerName: `=a,"b"`})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	d := jsontext.NewDecoder(strings.NewReader(string(text)))
	for d.PeekKind() != 0 {
		token, err := d.ReadToken()
		if err != nil {
			break
		}
		if d.StackDepth() != 1 {
			continue
		}
		if _, n := d.StackIndex(1); n%2 == 1 {
			names = append(names, token.String())
		}
	}
	if !slices.Equal(names, Names()) {
		t.Errorf("JSON has %v, the columns are %v", names, Names())
	}
	for raw, want := range map[bool]string{
		false: `,,,false,,,"'=a,""b""",,0,0,0,0,0,0,0,0,0,0,0,0,0`,
		true:  `,,,false,,,"=a,""b""",,0,0,0,0,0,0,0,0,0,0,0,0,0`,
	} {
		if line, err := (&Account{PartnerName: `=a,"b"`}).CSVLine(raw); line != want || err != nil {
			t.Errorf("raw %t: %s, %v", raw, line, err)
		}
	}
	if got := len(strings.Split(CSVHeader(), ",")); got != len(Columns()) {
		t.Errorf("the header has %d cells", got)
	}
}
