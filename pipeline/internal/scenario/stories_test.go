package scenario

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

// Each situation comes about in about as many journeys as a short simulation tells: a
// story that no longer leads to what it is for fails here, in milliseconds.
func TestJourneysBringEverySituation(t *testing.T) {
	const journeys = 2000
	const grace = 2 * time.Second
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	g := New(3, rand.New(rand.NewPCG(1, 1)), func() time.Time { return now })
	log := &Ledger{}
	ends := make(map[int32]int64)
	codec := event.DefaultCodec()
	for range journeys {
		for _, s := range g.Journey() {
			if s.Late {
				now = now.Add(time.Duration(g.Rand.Int64N(int64(2 * grace))))
			}
			now = now.Add(time.Millisecond)
			r, err := g.Record(s)
			if err != nil {
				t.Fatal(err)
			}
			if s.Event != nil {
				r.Offset = ends[r.Partition]
				ends[r.Partition]++
			}
			if err := log.addRecord(codec, r); err != nil {
				t.Fatal(err)
			}
		}
	}
	rows := log.Expected(grace).Outcomes
	if len(rows) != len(log.Events) {
		t.Fatalf("%d rows of %d events", len(rows), len(log.Events))
	}
	for name, n := range CountSituations(rows) {
		if n < 5 {
			t.Errorf("in %d journeys, %s came about in %d rows", journeys, name, n)
		}
	}
}
