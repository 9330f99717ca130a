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
	// repeatInterval is how often an outage is told of while it lasts.
	repeatInterval = time.Minute
	// settleTime is how long nothing may fail before an outage counts as over: what fails
	// again sooner is the same outage.
	settleTime = 5 * time.Second
	// silenceLimit is how long an attempt that was announced may stay out, before nobody
	// knows whether it is still tried.
	silenceLimit = time.Minute
	// maxNames is how many of the things that fail a line names.
	maxNames = 3
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
	dependency string
	log        *slog.Logger

	active atomic.Bool // the state is not working: Clear has something to do

	mu             sync.Mutex
	state          state
	began          time.Time
	due            time.Time // of the next line
	ended          time.Time // while settling: since when nothing fails
	failing        map[string]failure
	failures       int   // since it began
	loggedFailures int   // failures at the last line
	last           error // the newest
	timer          *time.Timer
}

// failure is the last attempt of something that is tried.
type failure struct {
	err     error
	staleAt time.Time // until then somebody is known to try
}

// New makes a Watch of what, as in "waiting for WHAT".
func New(log *slog.Logger, what string) *Watch {
	return &Watch{dependency: what, log: log, failing: make(map[string]failure)}
}

// Failed reports that trying failed, and in how long it is tried again; 0 where nobody
// knows.
func (w *Watch) Failed(trying string, again time.Duration, err error) {
	if w == nil {
		return
	}
	w.log.Debug("an attempt failed", "waiting_for", w.dependency, "trying", trying, "in", again, "error", err)
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.failing[trying] = failure{err, now.Add(again + silenceLimit)}
	w.failures++
	w.last = err
	switch w.state {
	case working:
		w.state, w.began, w.due, w.failures, w.loggedFailures = away, now, now.Add(repeatInterval), 1, 1
		w.active.Store(true)
		w.log.Warn("waiting for "+w.dependency, "since", w.began.UTC().Format(time.RFC3339), "trying", trying, "error", err)
		w.scheduleTimer(now)
	case settling:
		w.state = away
		w.scheduleTimer(now)
	}
}

// Clear takes back that trying fails: it worked, or nobody tries it any more. It costs
// nothing while nothing fails.
func (w *Watch) Clear(trying string) {
	if w == nil || !w.active.Load() {
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
		w.scheduleTimer(w.ended)
	}
}

// scheduleTimer sets the timer to when the state has something to say.
func (w *Watch) scheduleTimer(now time.Time) {
	at := w.due
	if w.state == settling {
		at = w.ended.Add(settleTime)
	}
	if w.timer == nil {
		w.timer = time.AfterFunc(at.Sub(now), w.handleTimer)
		return
	}
	w.timer.Reset(at.Sub(now))
}

// handleTimer says what is due. It may come for a state that is gone.
func (w *Watch) handleTimer() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	switch {
	case w.state == settling && !now.Before(w.ended.Add(settleTime)):
		w.endOutage("no longer waiting for " + w.dependency)
	case w.state == away && !now.Before(w.due):
		maps.DeleteFunc(w.failing, func(_ string, f failure) bool { return now.After(f.staleAt) })
		if len(w.failing) == 0 {
			w.ended = now
			w.endOutage("nobody waits for " + w.dependency + " any more")
			return
		}
		if w.failures > w.loggedFailures {
			w.log.Warn("still waiting for "+w.dependency, "since", w.began.UTC().Format(time.RFC3339),
				"for", now.Sub(w.began).Round(time.Second).String(),
				"trying", w.failingNames(), "failures", w.failures, "error", w.last)
			w.loggedFailures = w.failures
		}
		for !w.due.After(now) {
			w.due = w.due.Add(repeatInterval)
		}
		w.scheduleTimer(now)
	case w.state != working:
		w.scheduleTimer(now)
	}
}

// endOutage ends an outage.
func (w *Watch) endOutage(message string) {
	w.log.Info(message, "since", w.began.UTC().Format(time.RFC3339),
		"lasted", w.ended.Sub(w.began).Round(time.Millisecond).String(), "failures", w.failures)
	w.state, w.last = working, nil
	w.active.Store(false)
}

// failingNames lists what fails.
func (w *Watch) failingNames() string {
	all := slices.Sorted(maps.Keys(w.failing))
	if more := len(all) - maxNames; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:maxNames], ", "), more)
	}
	return strings.Join(all, ", ")
}
