package redirect

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// Each workspace without a key is named in the log once a minute, however many clicks
// meet it, and so is each other message.
func TestEachWorkspaceWithoutKeyIsLogged(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	var logged safeBuffer
	s.tokenLog.log = slog.New(slog.NewTextHandler(&logged, nil))
	s.Handler.keys = testKeys(t, "free")
	now := time.Unix(1790000000, 0)
	s.now = func() time.Time { return now }
	want := func(lines int) {
		t.Helper()
		for range 3 {
			for _, target := range []string{"http://go.acme.com/nomura", "http://go.nokey.com/x"} {
				if w := s.serveRequest("GET", target, nil); w.Code != 302 {
					t.Fatalf("%s: %d", target, w.Code)
				}
			}
			s.tokenLog.logError(now, "clicks are being lost", "acme", errors.New("no random bytes"))
		}
		for _, line := range []string{`msg="clicks go without token" workspace=acme`,
			`msg="clicks go without token" workspace=nokey`, `msg="clicks are being lost" workspace=acme`} {
			if n := strings.Count(logged.String(), line); n != lines {
				t.Errorf("%d lines with %s, want %d", n, line, lines)
			}
		}
	}
	want(1)
	now = now.Add(tokenLogWindow - time.Second)
	want(1)
	now = now.Add(time.Second)
	want(2)
}

// However many workspaces there are, a window has a bounded number of lines.
func TestTokenLogIsBounded(t *testing.T) {
	var logged safeBuffer
	l := newTokenLog(slog.New(slog.NewTextHandler(&logged, nil)))
	now := time.Unix(1790000000, 0)
	for window := range 2 {
		for i := range 2 * maxTokenErrors {
			l.logError(now, "clicks go without token", fmt.Sprintf("w%d", i), errors.New("no key"))
		}
		if n := strings.Count(logged.String(), "\n"); n != (window+1)*maxTokenErrors || len(l.logged) > maxTokenErrors {
			t.Errorf("window %d: %d lines, %d remembered", window, n, len(l.logged))
		}
		now = now.Add(tokenLogWindow)
	}
}
