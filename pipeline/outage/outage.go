// Package outage keeps a log readable while something that a process depends on is
// away. What would be a line for each attempt, each partition and each connection,
// hundreds in a minute, becomes a warning when it begins, one a minute while attempts
// go on failing, and a line when it is over. The attempts themselves are logged at
// level debug.
package outage

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// every is how often an outage is told of while it lasts.
	every = time.Minute
	// settle is how long nothing may fail before an outage counts as over: what fails
	// again sooner is the same outage.
	settle = 5 * time.Second
	// patience is how long an attempt that was announced may stay out, before nobody
	// knows whether it is still tried.
	patience = time.Minute
	// named is how many of the things that fail a line names.
	named = 3
)

// state is where a Watch stands.
type state int

const (
	working  state = iota // nothing fails, as far as anybody knows
	away                  // an outage: the last attempt of something failed
	settling              // nothing fails any more, for less than settle
)

// Watch follows one thing that a process depends on. Everything that depends on it
// reports here, under a name for what it tries. It is safe for concurrent use; a nil
// Watch says nothing.
type Watch struct {
	what string
	log  *slog.Logger

	disturbed atomic.Bool // the state is not working: Clear has something to do

	mu       sync.Mutex
	state    state
	began    time.Time
	due      time.Time // of the next line
	ended    time.Time // while settling: since when nothing fails
	failing  map[string]failure
	failures int   // since it began
	told     int   // failures at the last line
	last     error // the newest
	timer    *time.Timer
}

// failure is the last attempt of something that is tried.
type failure struct {
	err   error
	known time.Time // until then somebody is known to try
}

// New makes a Watch of what, as in "waiting for WHAT".
func New(log *slog.Logger, what string) *Watch {
	return &Watch{what: what, log: log, failing: make(map[string]failure)}
}

// Failed reports that trying failed, and in how long it is tried again; 0 where nobody
// knows.
func (w *Watch) Failed(trying string, again time.Duration, err error) {
	if w == nil {
		return
	}
	w.log.Debug("an attempt failed", "waiting_for", w.what, "trying", trying, "in", again, "error", err)
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.failing[trying] = failure{err, now.Add(again + patience)}
	w.failures++
	w.last = err
	switch w.state {
	case working:
		w.state, w.began, w.due, w.failures, w.told = away, now, now.Add(every), 1, 1
		w.disturbed.Store(true)
		w.log.Warn("waiting for "+w.what, "since", w.began.UTC().Format(time.RFC3339), "trying", trying, "error", err)
		w.wake(now)
	case settling:
		w.state = away
		w.wake(now)
	}
}

// Clear takes back that trying fails: it worked, or nobody tries it any more. It costs
// nothing while nothing fails.
func (w *Watch) Clear(trying string) {
	if w == nil || !w.disturbed.Load() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, fails := w.failing[trying]; !fails {
		return
	}
	delete(w.failing, trying)
	if len(w.failing) == 0 {
		w.state, w.ended = settling, time.Now()
		w.wake(w.ended)
	}
}

// wake sets the timer to when the state has something to say.
func (w *Watch) wake(now time.Time) {
	at := w.due
	if w.state == settling {
		at = w.ended.Add(settle)
	}
	if w.timer == nil {
		w.timer = time.AfterFunc(at.Sub(now), w.tick)
		return
	}
	w.timer.Reset(at.Sub(now))
}

// tick says what is due. It may come for a state that is gone.
func (w *Watch) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	switch {
	case w.state == settling && !now.Before(w.ended.Add(settle)):
		w.over("no longer waiting for " + w.what)
	case w.state == away && !now.Before(w.due):
		maps.DeleteFunc(w.failing, func(_ string, f failure) bool { return now.After(f.known) })
		if len(w.failing) == 0 {
			w.ended = now
			w.over("nobody waits for " + w.what + " any more")
			return
		}
		if w.failures > w.told {
			w.log.Warn("still waiting for "+w.what, "since", w.began.UTC().Format(time.RFC3339),
				"for", now.Sub(w.began).Round(time.Second).String(),
				"trying", w.names(), "failures", w.failures, "error", w.last)
			w.told = w.failures
		}
		for !w.due.After(now) {
			w.due = w.due.Add(every)
		}
		w.wake(now)
	case w.state != working:
		w.wake(now)
	}
}

// over ends an outage.
func (w *Watch) over(message string) {
	w.log.Info(message, "since", w.began.UTC().Format(time.RFC3339),
		"lasted", w.ended.Sub(w.began).Round(time.Millisecond).String(), "failures", w.failures)
	w.state, w.last = working, nil
	w.disturbed.Store(false)
}

// names lists what fails.
func (w *Watch) names() string {
	all := slices.Sorted(maps.Keys(w.failing))
	if more := len(all) - named; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:named], ", "), more)
	}
	return strings.Join(all, ", ")
}
