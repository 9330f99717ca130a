// Package outage keeps a log readable while something that a process depends on is
// away, and spaces the attempts to reach it. Instead of a line for each attempt,
// partition and connection, hundreds in a minute, there is a warning when the outage
// begins, one a minute while attempts go on failing, and a line when it is over. The
// attempts are logged at level debug.
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
	// repeatInterval is how often an outage is logged while it lasts.
	repeatInterval = time.Minute
	// settleTime is how long nothing must fail before an outage counts as over. If
	// something fails sooner, it is the same outage.
	settleTime = 5 * time.Second
	// silenceLimit is how long after its announced time an attempt may be missing
	// before the Watch assumes that it is no longer made.
	silenceLimit = time.Minute
	// maxNames is how many of the failing things a line names.
	maxNames = 3
)

// state is the state of a Watch.
type state int

const (
	working  state = iota // no failure was reported
	away                  // an outage: the last attempt at something failed
	settling              // nothing has failed since, for less than settleTime
)

// Watch follows one dependency of a process. Everything that needs it reports here,
// under a name for what it tries. It is safe for concurrent use. A nil Watch does
// nothing.
type Watch struct {
	// Explain turns an error into what is logged of it; nil leaves it as it is. It is
	// set before the Watch is used.
	Explain func(error) error

	dependency string
	log        *slog.Logger

	active atomic.Bool // the state is not working: Clear has something to do

	mu             sync.Mutex
	state          state
	began          time.Time          // of the outage
	due            time.Time          // of the next line
	ended          time.Time          // of the last failure to clear, while settling
	failing        map[string]failure // by name
	failures       int                // since it began
	loggedFailures int                // failures at the last line
	last           error              // the newest
	timer          *time.Timer
}

// failure is the last attempt at something.
type failure struct {
	err     error
	staleAt time.Time // without another report until then, it counts as given up
}

// New makes a Watch of a dependency, as in "waiting for DEPENDENCY".
func New(log *slog.Logger, dependency string) *Watch {
	return &Watch{dependency: dependency, log: log, failing: make(map[string]failure)}
}

// Failed reports that an attempt failed. trying names it. again is how long it is until
// the next attempt, 0 if that is unknown.
func (w *Watch) Failed(trying string, again time.Duration, err error) {
	if w == nil {
		return
	}
	if w.Explain != nil {
		err = w.Explain(err)
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
		w.state = away
		w.began = now
		w.due = now.Add(repeatInterval)
		w.failures = 1
		w.loggedFailures = 1
		w.active.Store(true)
		w.log.Warn("waiting for "+w.dependency, "since", w.began.UTC().Format(time.RFC3339), "trying", trying,
			"error", err)
		w.scheduleTimer(now)
	case settling:
		w.state = away
		w.scheduleTimer(now)
	}
}

// Clear reports that what was tried succeeded or is no longer tried. It costs next to
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

// scheduleTimer sets the timer to the next time at which the state may change or be
// logged.
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

// handleTimer logs what is due. The state may have changed since the timer was set.
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
			w.endOutage("gave up waiting for " + w.dependency)
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

// endOutage logs the end of an outage.
func (w *Watch) endOutage(message string) {
	w.log.Info(message, "since", w.began.UTC().Format(time.RFC3339),
		"lasted", w.ended.Sub(w.began).Round(time.Millisecond).String(), "failures", w.failures)
	w.state, w.last = working, nil
	w.active.Store(false)
}

// failingNames lists what fails, at most maxNames of them.
func (w *Watch) failingNames() string {
	all := slices.Sorted(maps.Keys(w.failing))
	if more := len(all) - maxNames; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:maxNames], ", "), more)
	}
	return strings.Join(all, ", ")
}
