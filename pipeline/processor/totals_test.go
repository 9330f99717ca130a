package processor

import (
	"errors"
	"testing"

	"github.com/nimriz/partners/schemas/event"
)

// A totals row of the first rules is read; what is written has a version that a
// processor of that time refuses, and the next version is refused here.
func TestTotalsVersions(t *testing.T) {
	want := totals{read: 7, attributed: 300, reversed: 1, outcomesEnd: 1 << 40}
	row := want.appendRow(nil)
	if row[0] != 2 {
		t.Fatalf("version %d is written, want 2", row[0])
	}
	for _, version := range []byte{1, 2} {
		row[0] = version
		var got totals
		outdated, err := got.parseRow(row)
		if err != nil || got != want || outdated != (version == 1) {
			t.Errorf("version %d: got %+v, outdated %v, %v", version, got, outdated, err)
		}
	}
	row[0] = 3
	if _, err := new(totals).parseRow(row); !errors.Is(err, event.ErrNewer) {
		t.Errorf("version 3: got %v, want ErrNewer", err)
	}
	for _, bad := range [][]byte{nil, {0}, row[:3]} {
		if _, err := new(totals).parseRow(bad); err == nil {
			t.Errorf("%x is read", bad)
		}
	}
}
