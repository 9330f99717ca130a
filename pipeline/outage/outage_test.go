package outage_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nimriz/partners/pipeline/outage"
)

// lines collects what is logged, from any goroutine.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// take returns the lines since it was last called, without their times.
func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.TrimSpace(l.text.String())
	l.text.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(regexp.MustCompile(`(?m)^time=\S+ `).ReplaceAllString(text, ""), "\n")
}

var errRefused = errors.New("refused")

// scenario runs in virtual time, which begins at 2000-01-01T00:00:00Z.
func scenario(t *testing.T, run func(w *outage.Watch, sleep func(time.Duration), want func(lines ...string))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var log lines
		w := outage.New(slog.New(slog.NewTextHandler(&log, nil)), "Kafka")
		sleep := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		run(w, sleep, func(want ...string) {
			t.Helper()
			if got := log.take(); strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("logged\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
		})
		sleep(time.Hour)
	})
}

const (
	begun = `level=WARN msg="waiting for Kafka" since=2000-01-01T00:00:00Z trying=committing error=refused`
	still = `level=WARN msg="still waiting for Kafka" since=2000-01-01T00:00:00Z for=%s trying=%s failures=%d error=refused`
	ended = `level=INFO msg="no longer waiting for Kafka" since=2000-01-01T00:00:00Z lasted=%s failures=%d`
	given = `level=INFO msg="gave up waiting for Kafka" since=2000-01-01T00:00:00Z lasted=%s failures=%d`
)

// One line when it begins, one a minute, one at its end, however many attempts of
// however many partitions fail.
func TestOneOutage(t *testing.T) {
	scenario(t, func(w *outage.Watch, sleep func(time.Duration), want func(...string)) {
		w.Failed("committing", time.Second, errRefused)
		want(begun)
		for range 149 {
			sleep(999 * time.Millisecond) // never at the very moment of a line
			for p := range 6 {
				w.Failed(fmt.Sprint("partition ", p), time.Second, errRefused)
			}
		}
		want(fmt.Sprintf(still, "1m0s", `"committing, partition 0, partition 1 and 4 more"`, 1+6*60),
			fmt.Sprintf(still, "2m0s", `"partition 0, partition 1, partition 2 and 3 more"`, 1+6*120))
		sleep(time.Second)
		for p := range 6 {
			w.Clear(fmt.Sprint("partition ", p))
		}
		sleep(4 * time.Second)
		want()
		sleep(2 * time.Second)
		want(fmt.Sprintf(ended, "2m29.851s", 1+6*149))
		sleep(time.Hour)
		want()
	})
}

// It is over only when nothing fails any more.
func TestSomeWork(t *testing.T) {
	scenario(t, func(w *outage.Watch, sleep func(time.Duration), want func(...string)) {
		w.Failed("committing", 0, errRefused)
		w.Failed("fetching", 0, errRefused)
		want(begun)
		sleep(20 * time.Second)
		w.Clear("fetching")
		w.Clear("listing") // never failed
		sleep(20 * time.Second)
		want()
		w.Clear("committing")
		sleep(5 * time.Second)
		want(fmt.Sprintf(ended, "40s", 2))
	})
}

// What fails again within seconds is the same outage; its minutes go on as if nothing
// had worked.
func TestFlapping(t *testing.T) {
	scenario(t, func(w *outage.Watch, sleep func(time.Duration), want func(...string)) {
		w.Failed("committing", 0, errRefused)
		want(begun)
		for range 40 {
			sleep(time.Second)
			w.Clear("committing")
			sleep(1100 * time.Millisecond)
			w.Failed("committing", 0, errRefused)
		}
		want(fmt.Sprintf(still, "1m1s", "committing", 30))
		sleep(time.Second)
		w.Clear("committing")
		sleep(5 * time.Second)
		want(fmt.Sprintf(ended, "1m25s", 41))
		w.Failed("committing", 0, errRefused)
		want(strings.Replace(begun, "00:00:00Z", "00:01:30Z", 1))
		sleep(time.Hour)
	})
}

// What is no longer tried keeps no outage alive: an idle gateway, a partition that went
// elsewhere. What is tried again late does.
func TestGivenUp(t *testing.T) {
	scenario(t, func(w *outage.Watch, sleep func(time.Duration), want func(...string)) {
		w.Failed("committing", 0, errRefused)
		want(begun)
		sleep(10 * time.Second)
		w.Failed("exporting", 2*time.Minute, errRefused)
		sleep(170 * time.Second)
		want(fmt.Sprintf(still, "1m0s", `"committing, exporting"`, 2)) // and nothing failed since
		sleep(time.Hour)
		want(fmt.Sprintf(given, "4m0s", 2))
	})
}

// A minute's line that is due while it settles is left out; one that fails again gets
// it at once.
func TestDueWhileSettling(t *testing.T) {
	scenario(t, func(w *outage.Watch, sleep func(time.Duration), want func(...string)) {
		w.Failed("committing", 0, errRefused)
		want(begun)
		sleep(58 * time.Second)
		w.Clear("committing")
		sleep(4 * time.Second)
		want()
		w.Failed("committing", 0, errRefused)
		sleep(0)
		want(fmt.Sprintf(still, "1m2s", "committing", 2))
		w.Failed("committing", 0, errRefused)
		sleep(57 * time.Second)
		want()
		sleep(time.Second)
		want(fmt.Sprintf(still, "2m0s", "committing", 3))
	})
}

// Each attempt is there for who looks closer.
func TestDebug(t *testing.T) {
	var log lines
	w := outage.New(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), "ClickHouse")
	w.Failed("inserting outcomes partition 3", time.Second, errRefused)
	if got := log.take(); len(got) != 2 ||
		got[0] != `level=DEBUG msg="an attempt failed" waiting_for=ClickHouse trying="inserting outcomes partition 3" in=1s error=refused` {
		t.Errorf("logged %q", got)
	}
}

// Who was given no Watch reports all the same.
func TestNil(t *testing.T) {
	var w *outage.Watch
	w.Failed("committing", 0, errRefused)
	w.Clear("committing")
}

// Reports come from many goroutines; the race detector looks on.
func TestConcurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		w := outage.New(slog.New(slog.NewTextHandler(&log, nil)), "Kafka")
		var wg sync.WaitGroup
		for p := range 8 {
			wg.Go(func() {
				for range 290 {
					w.Failed(fmt.Sprint(p), 0, errRefused)
					time.Sleep(time.Duration(p+1) * 100 * time.Millisecond)
					w.Clear(fmt.Sprint(p))
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := log.take(); len(got) != 5 { // begun, three minutes, ended
			t.Errorf("%d lines: %q", len(got), got)
		}
	})
}
