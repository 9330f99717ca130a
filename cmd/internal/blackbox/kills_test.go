//go:build linux

package blackbox

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nimriz/partners/schemas/topic"
)

const (
	kills = 10 // of each process
	hits  = 8  // of them must find work under way
	// A load on which at least 500 a second are answered, whatever is down at the
	// moment.
	visitsPerSecond, eventsPerSecond = 520, 240
)

// victim is a process that is killed again and again, and how often that hit.
type victim struct {
	*process
	killed, hit int
	restarts    []time.Time
}

// Each process is SIGKILLed ten times under load, most of the times with work under
// way, and started again at once. No row is lost or doubled.
func TestKills(t *testing.T) {
	r := newRig(t)
	l := r.load()
	stop := l.run(visitsPerSecond, eventsPerSecond)
	began, before := time.Now(), l.answered()
	processors := []*victim{{process: r.processors[0]}, {process: r.processors[1]}}
	sinks := []*victim{{process: r.sinks[0]}, {process: r.sinks[1]}}
	gateway, redirector := &victim{process: r.gateway}, &victim{process: r.redirector}

	// A group waits for a dead sink until its session times out: so both are killed
	// within one such time. The others are killed meanwhile.
	var wg sync.WaitGroup
	wg.Go(func() {
		for range kills {
			var both sync.WaitGroup
			for i, v := range sinks {
				both.Go(func() {
					if i == 1 {
						pause(t.Context(), time.Duration(rand.IntN(500))*time.Millisecond)
					}
					r.killInInsert(v, r.proxies[i])
				})
			}
			both.Wait()
		}
	})
	wg.Go(func() {
		for n := range 2 * kills {
			spread(t.Context(), 4*time.Second)
			r.killInTransaction(processors[n%2])
		}
	})
	wg.Go(func() {
		for range kills {
			spread(t.Context(), 8*time.Second)
			r.killInRequest(gateway, l)
		}
	})
	wg.Go(func() {
		for range kills {
			spread(t.Context(), 8*time.Second)
			r.killUnshipped(redirector, l)
		}
	})
	wg.Wait()
	took := time.Since(began)
	perSecond := float64(l.answered()-before) / took.Seconds()
	stop()
	f := r.judge(l)
	redirector.hit = unshipped(f, redirector.restarts)
	for _, v := range append(append(processors, sinks...), gateway, redirector) {
		t.Logf("%-18s killed %d times, %d of them with work under way", v.name, v.killed, v.hit)
		if v.killed != kills || v.hit < hits {
			t.Errorf("%s: %d of %d kills hit, want %d of %d", v.name, v.hit, v.killed, hits, kills)
		}
	}
	t.Logf("%.0f visits and events a second were answered during %v", perSecond, took.Round(time.Second))
	if perSecond < 500 {
		t.Errorf("%.0f visits and events a second are too few to show anything, want 500", perSecond)
	}
}

// spread pauses for about d.
func spread(ctx context.Context, d time.Duration) {
	pause(ctx, d/2+time.Duration(rand.Int64N(int64(d))))
}

// die kills a victim; between comes before its next start.
func (v *victim) die(between func()) {
	v.kill()
	v.killed++
	between()
	v.restarts = append(v.restarts, time.Now())
	if err := v.start(); err != nil {
		v.t.Error(err)
	}
}

// until waits for a condition, at most 20 s: a kill that finds nothing is one that does
// not count.
func until(ctx context.Context, every time.Duration, ok func() bool) {
	for deadline := time.Now().Add(20 * time.Second); ctx.Err() == nil && time.Now().Before(deadline) && !ok(); {
		pause(ctx, every)
	}
}

// transactionOpen asks the broker whether a processor's transaction is open. A dead
// process cannot end one: it stays Ongoing until somebody initialises the id.
func (r *rig) transactionOpen(p *process) bool {
	id := topic.ProcessorGroup + "-" + strings.TrimPrefix(p.name, "processor-")
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	d, err := r.adm.DescribeTransactions(ctx, id)
	return err == nil && d[id].Err == nil && d[id].State == "Ongoing"
}

func (r *rig) killInTransaction(v *victim) {
	until(r.t.Context(), 2*time.Millisecond, func() bool { return r.transactionOpen(v.process) })
	v.die(func() {
		if r.transactionOpen(v.process) {
			v.hit++
		}
	})
}

// killInInsert kills a sink at some moment of an insert: its data is on the way, or
// there, or the answer was about to arrive.
func (r *rig) killInInsert(v *victim, p *proxy) {
	if p.awaitInsert(30 * time.Second) {
		v.hit++
	}
	pause(r.t.Context(), time.Duration(rand.IntN(40))*time.Millisecond)
	v.die(p.speak)
}

func (r *rig) killInRequest(v *victim, l *load) {
	torn := l.torn.Load()
	until(r.t.Context(), 100*time.Microsecond, func() bool { return l.waiting.Load() > 0 })
	v.die(func() {})
	if l.torn.Load() > torn {
		v.hit++
	}
}

// killUnshipped kills the redirector when it has just answered one of many visitors:
// clicks are on disk, and Kafka has not acknowledged them.
func (r *rig) killUnshipped(v *victim, l *load) {
	answered := make(chan struct{}, 1)
	off := l.onRedirect(func() {
		select {
		case answered <- struct{}{}:
		default:
		}
	})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { l.visit() })
	}
	<-answered
	off()
	v.die(func() {})
	wg.Wait()
}

// unshipped counts the restarts after which clicks came to Kafka for the first time
// that the process before had on disk: their first record has the header replay.
func unshipped(f *facts, restarts []time.Time) (n int) {
	seen := make(map[string]bool)
	after := make(map[int]bool)
	for i, rec := range f.clickRecords {
		token := f.clicks[i].ClickToken
		if seen[token] {
			continue
		}
		seen[token] = true
		for _, h := range rec.Headers {
			if h.Key != topic.HeaderReplay {
				continue
			}
			at := -1
			for k, start := range restarts {
				if rec.Timestamp.After(start.Add(-time.Millisecond)) {
					at = k
				}
			}
			after[at] = true
		}
	}
	delete(after, -1)
	return len(after)
}
