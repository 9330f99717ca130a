package sink

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A backup that is restored while a sink runs is noticed, whether the sink inserts
// afterwards or not, and a repair fills the hole.
func TestRestoredWhileRunning(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.spread = 1
	r.fill(100)
	r.consume()
	for _, goesOn := range []bool{false, true} {
		s := r.sink(r.wh)
		s.env.TopicCheckInterval = time.Hour // looked for by hand, below
		if !goesOn {
			s.env.TopicCheckInterval = 50 * time.Millisecond
		}
		run := r.start(s)
		for range 2 {
			r.fill(50)
			r.arrived()
		}
		if goesOn {
			again, first, err := s.findMissingBatches(t.Context(), nil)
			if len(again)+len(first) > 0 || err != nil {
				t.Errorf("nothing was restored: %v %v %v", again, first, err)
			}
		}
		// to the state before this sink began
		r.exec("DELETE FROM clicks WHERE src_offset >= 100")
		r.exec("DELETE FROM batches WHERE topic = 'clicks' AND start_offset >= 100")
		if goesOn {
			before := len(r.places("outcomes"))
			r.fill(50)
			r.awaitRows("outcomes", before+5)
			again, first, err := s.findMissingBatches(t.Context(), nil)
			if len(again) > 0 || len(first) == 0 || first[0].topic != "clicks" || err != nil {
				t.Errorf("found %v and %v missing, %v", again, first, err)
			}
			if again, _, err = s.findMissingBatches(t.Context(), first); len(again) != len(first) || err != nil {
				t.Errorf("found %v missing again, want %v, %v", again, first, err)
			}
			run.stop(t)
		} else if err := run.end(t); !errors.Is(err, ErrWentBack) || !NeedsOperator(err) ||
			!strings.Contains(err.Error(), "ctl warehouse repair") {
			t.Errorf("the sink ended with %v", err)
		}
		r.repairs()
	}
}

// awaitRows waits until a table has so many rows.
func (r *rig) awaitRows(table string, n int) {
	r.t.Helper()
	for deadline := time.Now().Add(hang); len(r.places(table)) < n; time.Sleep(pollFirst) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s has not %d rows", table, n)
		}
	}
}
