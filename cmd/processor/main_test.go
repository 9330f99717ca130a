package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMain runs the processor in a child process of these tests.
func TestMain(m *testing.M) {
	if os.Getenv("PARTNERS_PROCESSOR_CHILD") != "" {
		main()
	}
	os.Exit(m.Run())
}

// The processor reads durations as ctl does: both accept one PARTNERS_CLICK_LIFE.
func TestDays(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := func(want string, env ...string) {
		t.Helper()
		cmd := exec.Command(self)
		cmd.Env = append(append(os.Environ(), "PARTNERS_PROCESSOR_CHILD=1"), env...)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%q: %v, %s; want %s", env, err, out, want)
		}
	}
	run("-state-dir: a directory is required", "PARTNERS_CLICK_LIFE=40d", "PARTNERS_GRACE=3d")
	run("-click-life: 30m0s is under an hour",
		"PARTNERS_CLICK_LIFE=30m", "PARTNERS_STATE_DIR=x", "PARTNERS_INSTANCE=x", "PARTNERS_BROKERS=127.0.0.1:1")
	run("-grace: 0s is under a second", "PARTNERS_GRACE=0d", "PARTNERS_STATE_DIR=x", "PARTNERS_INSTANCE=x",
		"PARTNERS_BROKERS=127.0.0.1:1")
}
