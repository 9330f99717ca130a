package redirect

import (
	"log/slog"
	"sync"
	"time"
)

const (
	tokenLogWindow = time.Minute
	// maxTokenErrors bounds the lines and the memory of a window.
	maxTokenErrors = 1000
)

// A tokenLog logs failures to give clicks a token. Every click of a workspace without a
// key meets one, so that each message is logged once a window for each workspace.
type tokenLog struct {
	log *slog.Logger

	mu     sync.Mutex
	began  time.Time // of the window
	logged map[tokenError]bool
}

type tokenError struct{ message, workspace string }

func newTokenLog(log *slog.Logger) *tokenLog {
	return &tokenLog{log: log, logged: make(map[tokenError]bool)}
}

// logError logs the first such error of the workspace in a window.
func (l *tokenLog) logError(now time.Time, message, workspace string, err error) {
	if l.isFirst(now, tokenError{message, workspace}) {
		l.log.Error(message, "workspace", workspace, "error", err)
	}
}

func (l *tokenLog) isFirst(now time.Time, e tokenError) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.began) >= tokenLogWindow {
		l.began = now
		clear(l.logged)
	}
	if l.logged[e] || len(l.logged) >= maxTokenErrors {
		return false
	}
	l.logged[e] = true
	return true
}
