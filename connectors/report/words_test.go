package report

import (
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/schemas/event"
)

// Every word of the tables is explained.
func TestWords(t *testing.T) {
	for _, reason := range event.Reasons() {
		if !strings.Contains(ReasonWords(reason), " ") {
			t.Errorf("reason %s: %q", reason, ReasonWords(reason))
		}
	}
	for _, flag := range event.Flags() {
		if !strings.Contains(FlagWords(flag), " ") {
			t.Errorf("flag %s: %q", flag, FlagWords(flag))
		}
	}
	for _, reason := range []string{"tracking_off", "not_entitled", "signed_url", "oauth", "scheme", "semicolon_query",
		"reserved_present", "link_setting", "no_token_key"} {
		if !strings.Contains(TokenWords(reason), " ") {
			t.Errorf("token reason %s: %q", reason, TokenWords(reason))
		}
	}
}

// By how much an event missed the window is said of those that could only be in it: a
// follower has the end of follow, which its row does not show.
func TestOutsideWindowWords(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	e := &Event{
		Type: string(event.Sale), Verdict: string(event.Unattributed), Reason: event.ReasonOutsideWindow,
		ParentEventID: "s1", OccurredAt: at.Add(26 * time.Hour),
		Click: Click{At: &at, WindowMs: 3_600_000},
	}
	if got := e.Words(); !strings.HasSuffix(got, "the click's window, by 1d1h") {
		t.Errorf("a sale that follows nothing: %q", got)
	}
	e.ParentType = string(event.Sale)
	if got := e.Words(); !strings.HasSuffix(got, "the click's window, and too late to follow s1") || e.TooLate() != 0 {
		t.Errorf("a follower: %q, too late by %v", got, e.TooLate())
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Millisecond: "1ms", 90 * time.Second: "1m30s", 24 * time.Hour: "1d", 26 * time.Hour: "1d2h",
		30*24*time.Hour + time.Minute: "30d1m", 10 * time.Minute: "10m",
		20 * time.Hour: "20h", time.Second + 1: "1s",
	} {
		if got := Span(d); got != want {
			t.Errorf("%v: %q, want %q", int64(d), got, want)
		}
	}
}
