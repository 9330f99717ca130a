package processor_test

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/processor"
)

// What a move costs where a standby has followed, on Apache Kafka and with the settings
// a processor has by default:
//
//	PARTNERS_BENCH_CLICKS=10000000 go test -run - -bench StandbyMove \
//	    -benchtime 1x -timeout 30m ./pipeline/processor
//
// The standby begins with an empty disk. When it is warm the owner of half the
// partitions is killed in the middle of 300 visits and sales a second. Nothing is
// printed unless the ledger is the oracle's in the end.
func BenchmarkStandbyMove(b *testing.B) {
	clicks := benchClicks(b)
	broker := kafkatest.Alone(b)
	kafkatest.Topics(b, broker.Brokers())
	for b.Loop() {
		newRecovery(b, broker.Brokers()).standbyMove(clicks)
	}
	b.ReportMetric(0, "ns/op")
}

func (r *recovery) standbyMove(n int) {
	b := r.TB.(*testing.B)
	r.history(n)
	owner := r.startChild()
	r.caughtUp()
	var assigned atomic.Int64 // unix nanoseconds of the last assignment
	env := processor.DefaultEnv()
	env.Step = func(step string) {
		if step == processor.StepAssigned {
			assigned.Store(time.Now().UnixNano())
		}
	}
	cfg := processor.DefaultConfig()
	cfg.StateDir = b.TempDir()
	s := newStandby(r.world, env, cfg)
	began := time.Now()
	start(b, s.Processor)
	s.warm(kafkatest.Partitions / 2)
	warm := time.Since(began)
	stop := r.live()
	r.tail.everywhere(r.tail.mark())
	clicks, rows := s.restoredRecords()
	owner.end(r, syscall.SIGKILL)
	killed, from := time.Now(), r.tail.mark()
	for s.value("partitions", "running") != kafkatest.Partitions {
		time.Sleep(2 * time.Millisecond)
	}
	running := time.Since(time.Unix(0, assigned.Load()))
	r.tail.everywhere(from)
	everywhere := time.Since(killed)
	nowClicks, nowRows := s.restoredRecords()
	stop()
	r.caughtUp()
	r.judge()
	if b.Failed() {
		return
	}
	b.Logf("%d clicks: warm from an empty disk after %.2f s; %v clicks and %v rows were read in the move; from the "+
		"assignment to running %.3f s, from the kill to an outcome in every partition %.2f s, of which the session "+
		"timeout is %v", n, warm.Seconds(), nowClicks-clicks, nowRows-rows, running.Seconds(), everywhere.Seconds(),
		cfg.SessionTimeout)
	b.ReportMetric(running.Seconds(), "assigned-to-running-s")
	b.ReportMetric((everywhere - cfg.SessionTimeout).Seconds(), "beyond-session-s")
	b.ReportMetric(nowClicks-clicks, "clicks-read")
}
