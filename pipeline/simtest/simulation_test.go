package simtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nimriz/partners/pipeline/internal/scenario"
)

// Seeds of a plain go test, and of PARTNERS_TEST_LONG=1.
const (
	shortSeeds = 30
	longSeeds  = 300
)

// cellSeeds are so many that each cell of the matrix comes up about fifteen times.
const cellSeeds = 100

// long reports whether what takes minutes is wanted too.
func long() bool { return os.Getenv("PARTNERS_TEST_LONG") == "1" }

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
	near                         int // records of tokens minted near the beginning of an epoch
	restarts                     int64
	virtual                      time.Duration
	situations                   map[string]int // rows in which the rules had to choose, see scenario
}

func (r *result) add(x result) {
	r.faults += x.faults
	r.missed += x.missed
	r.events += x.events
	r.rows += x.rows
	r.near += x.near
	r.restarts += x.restarts
	r.virtual += x.virtual
	for name, n := range x.situations {
		r.situations[name] += n
	}
}

// tally is what the lanes came to together.
type tally struct {
	mu sync.Mutex
	result
	seeds   uint64
	hits    matrix
	refused map[string]int
}

func (t *tally) add(r result, hits matrix, refused map[string]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seeds++
	t.result.add(r)
	for c, n := range hits {
		t.hits[c] += n
	}
	for name, n := range refused {
		t.refused[name] += n
	}
}

// missing are the things that so many seeds must have met and did not: a simulation in
// which they never happen shows nothing. Each fault and each step comes up fifty times
// in thirty seeds, each refusal eight times, each situation thirty times or more; of
// fewer seeds nothing is wanted.
func (t *tally) missing(seeds uint64) (none []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seeds < shortSeeds {
		return nil
	}
	for _, r := range refusals {
		if t.refused[r.name] == 0 {
			none = append(none, "a request refused for "+r.name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.situations)) {
		if t.situations[name] == 0 {
			none = append(none, name)
		}
	}
	if t.near < 100 {
		none = append(none, "a hundred records of tokens minted near the beginning of an epoch")
	}
	if seeds >= cellSeeds {
		for _, c := range cells() {
			if t.hits[c] == 0 {
				none = append(none, c.fault+" at "+c.step)
			}
		}
		return none
	}
	byFault, byStep := make(map[string]int), make(map[string]int)
	for c, n := range t.hits {
		byFault[c.fault] += n
		byStep[c.step] += n
	}
	for _, f := range faults {
		if byFault[f.name] == 0 {
			none = append(none, f.name+" at any step")
		}
	}
	for _, s := range steps {
		if byStep[s] == 0 {
			none = append(none, "any fault at "+s)
		}
	}
	return none
}

// lanes is how many seeds run at a time, each lane in virtual time of its own.
const lanes = 2

// TestSimulation: whatever fails, and whenever, the ledger and the state are those of a
// world in which nothing fails.
func TestSimulation(t *testing.T) {
	from := number(t, "PARTNERS_TEST_SEED", 1)
	seeds := uint64(shortSeeds)
	switch {
	case os.Getenv("PARTNERS_TEST_SEED") != "":
		seeds = 1
	case long():
		seeds = longSeeds
	}
	seeds = number(t, "PARTNERS_TEST_SEEDS", seeds)
	all := &tally{hits: make(matrix), refused: make(map[string]int), result: result{situations: make(map[string]int)}}
	var failed atomic.Bool // one that fails ends them all
	t.Run("lane", func(t *testing.T) {
		width := min(lanes, seeds)
		for lane := range width {
			t.Run(strconv.Itoa(int(lane)+1), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					// tokens are younger than 2014
					time.Sleep(time.Until(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)))
					// What is missing then may come in half as many more.
					for n := lane; (n < seeds || n < seeds+seeds/2 && all.missing(seeds) != nil) &&
						!failed.Load(); n += width {
						seed, hits, refused := from+n, make(matrix), make(map[string]int)
						r, err := simulate(t.Context(), seed, hits, refused)
						if err != nil {
							failed.Store(true)
							t.Fatalf("seed %d: %v\nonce more: PARTNERS_TEST_SEED=%d go test -v -run "+
								"TestSimulation ./pipeline/simtest", seed, err, seed)
						}
						all.add(r, hits, refused)
						if testing.Verbose() && n%50 == 49 {
							t.Logf("at seed %d", seed)
						}
					}
				})
			})
		}
	})
	if failed.Load() {
		return
	}
	t.Logf("%d seeds, %d faults (%d more did not find their step), %d events, %d rows: lost 0, doubled 0, states "+
		"equal; each grew from %d partitions to %v, with %d records of tokens minted within %v of that; %d processes "+
		"gave up and were started again; %v of virtual time",
		all.seeds, all.faults, all.missed, all.events, all.rows, partitions, growths, all.near, nearby, all.restarts,
		all.virtual.Round(time.Minute))
	t.Logf("faults by step\n%v", all.hits)
	t.Logf("requests refused: %v", all.refused)
	t.Logf("rows by situation: %v", all.situations)
	if none := all.missing(seeds); len(none) > 0 {
		t.Errorf("%d seeds, and never came about: %s", all.seeds, strings.Join(none, "; "))
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
		r.near = w.near
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
	var grown sync.WaitGroup
	grown.Go(func() { w.grow(ctx) })
	defer grown.Wait()
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
	grown.Wait()
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
	r.situations = scenario.CountSituations(l.Outcomes) // of rows that are right
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
