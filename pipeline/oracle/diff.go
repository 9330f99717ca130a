package oracle

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/nimriz/partners/schemas/event"
)

// maxDifferences is how many differing rows Diff describes.
const maxDifferences = 20

// Diff compares outcomes in any order, matched by event_partition and event_offset. It
// describes the first differing rows, one line each: a row that is missing, duplicated,
// not wanted, or different in any field but decided_at. It returns nil if there is no
// difference.
func Diff(want, got []event.Outcome) []string {
	wanted, found := groupByPosition(want), groupByPosition(got)
	positions := maps.Clone(wanted)
	maps.Copy(positions, found)
	var lines []string
	differing := 0
	for _, p := range slices.SortedFunc(maps.Keys(positions), comparePositions) {
		line := diffRows(wanted[p], found[p])
		if line == "" {
			continue
		}
		if differing++; differing <= maxDifferences {
			lines = append(lines, fmt.Sprintf("conversions %d/%d: %s", p.Partition, p.Offset, line))
		}
	}
	if differing > maxDifferences {
		lines = append(lines, fmt.Sprintf("and %d more rows", differing-maxDifferences))
	}
	return lines
}

func comparePositions(a, b Position) int {
	return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
}

func groupByPosition(outcomes []event.Outcome) map[Position][]*event.Outcome {
	m := make(map[Position][]*event.Outcome)
	for i := range outcomes {
		o := &outcomes[i]
		p := Position{o.EventPartition, o.EventOffset}
		m[p] = append(m[p], o)
	}
	return m
}

// diffRows describes how the rows of one position differ; empty means not at all.
func diffRows(want, got []*event.Outcome) string {
	switch {
	case len(got) == 0:
		return "missing: " + describeOutcome(want[0])
	case len(want) == 0:
		return "not wanted: " + describeOutcome(got[0])
	case len(got) != len(want):
		return fmt.Sprintf("%d rows, want %d: %s", len(got), len(want), describeOutcome(got[0]))
	}
	var fields []string
	for i := range want {
		w, g := *want[i], *got[i]
		w.DecidedAt, g.DecidedAt = 0, 0
		if len(w.Flags) == 0 && len(g.Flags) == 0 {
			w.Flags, g.Flags = nil, nil
		}
		if len(w.Metadata) == 0 && len(g.Metadata) == 0 {
			w.Metadata, g.Metadata = nil, nil
		}
		wc, gc := w.Click, g.Click
		if (wc == nil) == (gc == nil) {
			w.Click, g.Click = nil, nil
		}
		fields = append(fields, diffFields("", w, g)...)
		if wc != nil && gc != nil {
			fields = append(fields, diffFields("click.", *wc, *gc)...)
		}
	}
	if len(fields) == 0 {
		return ""
	}
	first := want[0]
	return fmt.Sprintf("%s %s %s %s: %s",
		first.WorkspaceID, first.ClickToken, first.Type, first.EventID, strings.Join(fields, "; "))
}

// diffFields lists the fields in which two structs of one type differ, by their Avro
// names.
func diffFields(prefix string, want, got any) []string {
	w, g := reflect.ValueOf(want), reflect.ValueOf(got)
	var differ []string
	for i := range w.NumField() {
		a, b := w.Field(i).Interface(), g.Field(i).Interface()
		if !reflect.DeepEqual(a, b) {
			name := w.Type().Field(i).Tag.Get("avro")
			differ = append(differ, fmt.Sprintf("%s%s is %s, want %s", prefix, name, formatValue(b), formatValue(a)))
		}
	}
	return differ
}

func formatValue(v any) string {
	switch v := v.(type) {
	case *event.Click:
		if v == nil {
			return "none"
		}
		return "that of " + v.LinkID
	case *int64:
		if v == nil {
			return "none"
		}
		return fmt.Sprint(*v)
	case *int32:
		if v == nil {
			return "none"
		}
		return fmt.Sprint(*v)
	case [32]byte:
		return fmt.Sprintf("%x…", v[:4])
	case event.Millis:
		return v.Time().Format("2006-01-02T15:04:05.000Z")
	}
	if s := fmt.Sprint(v); s != "" {
		return s
	}
	return `""`
}

// describeOutcome prints the fields by which a person recognises a row.
func describeOutcome(o *event.Outcome) string {
	words := []string{o.WorkspaceID, o.ClickToken, string(o.Type), o.EventID, string(o.Verdict)}
	if o.Reason != "" {
		words = append(words, o.Reason)
	}
	if o.AmountMinor != nil {
		words = append(words, event.Decimal(*o.AmountMinor, o.Exponent), o.Currency)
	}
	return strings.Join(append(words, o.Flags...), " ")
}
