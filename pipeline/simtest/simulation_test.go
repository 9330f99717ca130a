package simtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const defaultSeeds = 300

func number(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// result is what a seed came to, or several.
type result struct {
	faults, missed, events, rows int
	restarts                     int64
	virtual                      time.Duration
}

func (r *result) add(x result) {
	r.faults += x.faults
	r.missed += x.missed
	r.events += x.events
	r.rows += x.rows
	r.restarts += x.restarts
	r.virtual += x.virtual
}

// share is what one of the lanes came to.
type share struct {
	result
	hits    matrix
	refused map[string]int
}

// lanes is how many seeds run at a time, each lane in virtual time of its own.
const lanes = 2

// TestSimulation: whatever fails, and whenever, the ledger and the state are those of a
// world in which nothing fails.
func TestSimulation(t *testing.T) {
	from := number(t, "PARTNERS_TEST_SEED", 1)
	seeds := number(t, "PARTNERS_TEST_SEEDS", map[bool]uint64{true: defaultSeeds,
		false: 1}[os.Getenv("PARTNERS_TEST_SEED") == ""])
	shares := make([]share, min(lanes, seeds))
	var failed atomic.Bool // one that fails ends them all
	t.Run("lane", func(t *testing.T) {
		for i := range shares {
			sum := &shares[i]
			*sum = share{hits: make(matrix), refused: make(map[string]int)}
			t.Run(strconv.Itoa(i+1), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					// tokens are younger than 2014
					time.Sleep(time.Until(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)))
					for seed := from + uint64(i); seed < from+seeds && !failed.Load(); seed += uint64(len(shares)) {
						r, err := simulate(t.Context(), seed, sum.hits, sum.refused)
						if err != nil {
							failed.Store(true)
							t.Fatalf("seed %d: %v\nonce more: PARTNERS_TEST_SEED=%d go test -v -run "+
								"TestSimulation ./pipeline/simtest", seed, err, seed)
						}
						sum.add(r)
						if testing.Verbose() && seed%50 == 0 {
							t.Logf("at seed %d: %d faults, %d rows", seed, sum.faults, sum.rows)
						}
					}
				})
			})
		}
	})
	if failed.Load() {
		return
	}
	all := share{hits: make(matrix), refused: make(map[string]int)}
	for _, x := range shares {
		all.add(x.result)
		for c, n := range x.hits {
			all.hits[c] += n
		}
		for name, n := range x.refused {
			all.refused[name] += n
		}
	}
	t.Logf("%d seeds, %d faults (%d more did not find their step), %d events, %d rows: lost 0, doubled 0, states "+
		"equal; %d processes gave up and were started again; %v of virtual time",
		seeds, all.faults, all.missed, all.events, all.rows, all.restarts, all.virtual.Round(time.Minute))
	t.Logf("faults by step\n%v", all.hits)
	if none := all.hits.empty(); len(none) > 0 && seeds >= defaultSeeds {
		t.Errorf("never injected: %v", none)
	}
	t.Logf("requests refused: %v", all.refused)
	for _, r := range refusals {
		if all.refused[r.name] == 0 && seeds >= defaultSeeds {
			t.Errorf("no request was refused for %q", r.name)
		}
	}
}

// simulate runs one seed.
func simulate(ctx context.Context, seed uint64, hits matrix, refused map[string]int) (r result, err error) {
	began := time.Now()
	w, err := newWorld(ctx, seed)
	if err != nil {
		return r, err
	}
	defer func() {
		err = errors.Join(err, w.close())
		for c, n := range w.hits {
			hits[c] += n
		}
		for name, n := range w.refused {
			refused[name] += n
		}
		r.restarts, r.virtual = w.restarts.Load(), time.Since(began)
	}()
	tell, quiet := context.WithCancel(ctx)
	defer quiet()
	told := make(chan struct{})
	go func() {
		defer close(told)
		w.tell(tell)
	}()
	for _, m := range w.machines {
		m.start()
	}
	all := cells()
	for i := 0; r.faults < faultsOfSeed && i < 2*faultsOfSeed; i++ {
		if i%5 == 1 {
			w.machines[w.below(2)].remember()
		}
		c := all[(int(seed)*faultsOfSeed+i*7)%len(all)]
		if !w.inject(c) {
			r.missed++
		} else {
			r.faults++
		}
		if err := w.failure(); err != nil {
			return r, err
		}
		time.Sleep(w.upTo(time.Second))
	}
	quiet()
	<-told
	w.telling.Wait()
	w.timers.Wait()
	w.startAll()
	w.timers.Wait()
	l, err := w.settle(ctx)
	if l != nil {
		r.events, r.rows = l.Conversions, len(l.Outcomes)
	}
	if err != nil {
		return r, err
	}
	for _, m := range w.machines {
		if err := m.stop(); err != nil {
			return r, fmt.Errorf("stopping %s: %w", m.name, err)
		}
	}
	if err := w.checkStates(l); err != nil {
		return r, err
	}
	return r, w.failure()
}
