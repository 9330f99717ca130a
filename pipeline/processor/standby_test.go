package processor_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
)

// standbyRun is slot-1 with -standby, and what it says of itself.
type standbyRun struct {
	*processor.Processor
	world *world
	reg   *prometheus.Registry
	log   notes
}

func newStandby(w *world, env processor.Env, dir string) *standbyRun {
	w.Helper()
	cfg, k := config(dir), kafka.DefaultConfig()
	cfg.Instance, cfg.Standby = "slot-1", true
	k.Brokers = w.brokers
	s := &standbyRun{world: w, reg: prometheus.NewRegistry()}
	var out io.Writer = &s.log
	if os.Getenv("PARTNERS_TEST_LOG") != "" {
		out = io.MultiWriter(out, os.Stderr)
	}
	env.Now = w.clock.now
	var err error
	if s.Processor, err = processor.NewIn(env, cfg, k, codec, slog.New(slog.NewTextHandler(out, nil)),
		s.reg); err != nil {
		w.Fatal(err)
	}
	return s
}

// value sums the series of a metric that have a label's value.
func (s *standbyRun) value(name, labelValue string) (sum float64) {
	families, err := s.reg.Gather()
	if err != nil {
		s.world.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "partners_processor_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetValue() == labelValue {
					sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	return sum
}

// warm waits until the standby follows so many partitions, and has all that is there.
func (s *standbyRun) warm(partitions int) {
	s.world.Helper()
	defer func() {
		if s.world.Failed() {
			s.world.Log(s.log.String())
		}
	}()
	eventually(s.world, fmt.Sprintf("the standby is warm in %d partitions", partitions), func() bool {
		return s.value("standby_partitions", "warm") == float64(partitions) &&
			s.value("standby_partitions", "behind")+s.value("standby_partitions", "closed") == 0 &&
			s.value("standby_lag_records", topic.Clicks)+s.value("standby_lag_records", topic.Changelog) == 0
	})
}

// restoredRecords is what all restores have read.
func (s *standbyRun) restoredRecords() (clicks, rows float64) {
	return s.value("restored_records_total", topic.Clicks), s.value("restored_records_total", topic.Changelog)
}

// records counts what is committed in a topic.
func (w *world) records(name string) int { return len(kafkatest.Consume(w, w.brokers, name)) }

// The owner of half the partitions is killed. Its partitions move to a process whose
// disk was empty when it began, and which has followed them: the move reads what came in
// the last moments and nothing else. When the owner is back, the standby goes on with
// the files that it has.
func TestStandbyMove(t *testing.T) {
	t.Parallel()
	standbyMove(newWorld(t, kafkatest.Broker(t)))
}

func standbyMove(w *world) {
	const half = kafkatest.Partitions / 2
	dir := w.TempDir()
	owner := startChild(w, dir, "never", 100)
	w.story(300)
	w.judged()
	var held atomic.Bool
	letGo := make(chan struct{})
	env := processor.DefaultEnv()
	env.Step = func(step string) {
		if step == processor.StepFollowed && held.Load() {
			<-letGo
		}
	}
	s := newStandby(w, env, w.TempDir())
	start(w, s.Processor)
	s.warm(half)
	clicks, rows := w.records(topic.Clicks), w.records(topic.Changelog)

	// It falls behind by what comes now.
	held.Store(true)
	w.story(10)
	w.judged()
	hadClicks, hadRows := s.restoredRecords()
	if err := owner.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		w.Fatal(err)
	}
	owner.killed(w, <-owner.done)
	eventually(w, "all partitions run here", func() bool {
		return s.value("partitions", "running") == kafkatest.Partitions
	})
	nowClicks, nowRows := s.restoredRecords()
	tailClicks, tailRows := w.records(topic.Clicks)-clicks, w.records(topic.Changelog)-rows
	w.Logf("of %d clicks and %d rows the move read %v and %v; %d and %d came in the end",
		clicks+tailClicks, rows+tailRows, nowClicks-hadClicks, nowRows-hadRows, tailClicks, tailRows)
	if read := nowClicks - hadClicks; read > float64(tailClicks) {
		w.Errorf("the move read %v clicks, %d came since the standby was stopped", read, tailClicks)
	}
	if read := nowRows - hadRows; read == 0 || read > float64(tailRows) {
		w.Errorf("the move read %v rows, %d came since the standby was stopped", read, tailRows)
	}
	held.Store(false)
	close(letGo)
	w.story(50)

	// Back to where they were.
	followed := s.value("standby_records_total", topic.Clicks)
	owner = startChild(w, dir, "never", 100)
	eventually(w, "the owner is back", func() bool { return s.value("partitions", "running") == half })
	w.story(10)
	w.judged()
	s.warm(half)
	if read := s.value("standby_records_total", topic.Clicks) - followed; read > float64(clicks/2) {
		w.Errorf("the standby read %v clicks again", read)
	}
	if log := s.log.String(); strings.Contains(log, "rebuilding") || strings.Contains(log, "wiping") {
		w.Errorf("something was wiped:\n%s", log)
	}
	w.settle(grace)
	w.conserved()
	if err := errors.Join(owner.life.Close(), <-owner.done); err == nil {
		w.Error("the owner had ended")
	}
}
