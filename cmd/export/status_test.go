package main

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/connectors/export"
)

// A caller tells by the exit status whether to try again, wait, or ask for exports.
func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{export.ErrBusy, 4},
		{export.ErrNotEntitled, 5},
		{export.ErrWatermarkBehind, 6},
		{syscall.ECONNREFUSED, 3},
		{export.ErrRowsMissing, 0},
	} {
		var exit *daemon.Exit
		code := 0
		if errors.As(exitStatus(fmt.Errorf("exporting acme: %w", c.err)), &exit) {
			code = exit.Code
		}
		if code != c.want {
			t.Errorf("%v ends with %d, want %d", c.err, code, c.want)
		}
	}
	if err := exitStatus(export.ErrManifest); !errors.Is(err, daemon.ErrUsage) {
		t.Errorf("a manifest of another command: %v", err)
	}
	if err := exitStatus(nil); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

func TestCheckWait(t *testing.T) {
	for _, c := range []struct {
		wait        time.Duration
		provisional bool
		schedule    string
		ok          bool
	}{
		{0, true, "0 2 * * *", true}, {time.Hour, false, "", true}, {-1, false, "", false},
		{time.Hour, true, "", false},
		{time.Hour, false, "0 2 * * *", false},
	} {
		if err := checkWait(c.wait, c.provisional, c.schedule); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
