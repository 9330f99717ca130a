package verify

import "testing"

// A line about an event that waits came after the state that is verified, or somebody
// wrote it: the manifest's as_of tells which.
func TestLineOfAnEventThatWaits(t *testing.T) {
	const end = 5
	for asOf, want := range map[int64]Tally{end: {Rows: 1, Surplus: 1}, end + 1: {Pending: 1}} {
		x := &exportFile{Export: &Export{AsOf: map[int32]int64{0: asOf}}, tally: &Tally{}}
		r := &partitionRun{
			verifier: &verifier{export: x},
			part:     &Partition{Conversions: Extent{End: end}, Outcomes: Extent{End: end}},
			entries:  []entry{{event: 3, row: -1, marks: inRange}},
			lines:    make([]digest, 1),
		}
		if err := r.compareLine(3, 2, digest{}); err != nil {
			t.Fatal(err)
		}
		if got := x.tally; got.Rows != want.Rows || got.Surplus != want.Surplus || got.Pending != want.Pending {
			t.Errorf("as of %d: %+v", asOf, got)
		}
	}
}
