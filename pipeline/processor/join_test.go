package processor_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
)

// What a join costs: a processor with the settings it has by default catches up with a
// history of 20 clicks a sale, on Apache Kafka, from an empty disk. Its CPU time, from
// its start to its end in peace, is compared with that of a consumer that reads the
// same topics and does nothing with them.
//
//	PARTNERS_BENCH_CLICKS=10000000 go test -run - -bench Join \
//	    -benchtime 1x -timeout 30m ./pipeline/processor
//
// Nothing is printed unless the ledger is the oracle's. PARTNERS_BENCH_PROFILE names a
// file for a CPU profile of the processor's whole life.
func BenchmarkJoin(b *testing.B) {
	clicks := benchClicks(b)
	broker := kafkatest.Alone(b)
	kafkatest.Topics(b, broker.Brokers())
	for b.Loop() {
		r := newRecovery(b, broker.Brokers())
		r.every = 20
		r.history(clicks)
		began := time.Now()
		c := r.startChild(profileLife + "=" + os.Getenv("PARTNERS_BENCH_PROFILE"))
		r.caughtUp()
		took, peak := time.Since(began), peakMemory(b, c.cmd.Process.Pid)
		c.end(r, syscall.SIGTERM)
		cpu := (c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()).Seconds()

		before := ownCPU(b)
		events, _, _ := r.readPlainly(topic.Clicks, topic.Conversions)
		plain := ownCPU(b) - before
		r.judge()
		if b.Failed() {
			return
		}
		b.Logf("%d events in %.1f s, ledger is the oracle's: %.0f events a CPU-second of the processor, at most "+
			"%d MiB; a plain consumer: %.0f", events, took.Seconds(), float64(events)/cpu, peak>>20,
			float64(events)/plain)
		b.ReportMetric(float64(events)/cpu, "events/CPU-s")
		b.ReportMetric(plain/cpu, "of-plain-consumer")
	}
	b.ReportMetric(0, "ns/op")
}

// peakMemory is the most memory in bytes that a process has had so far. Its rusage would
// count what it had of ours before it became another program.
func peakMemory(b *testing.B, pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(line, &kib); err != nil {
		b.Fatalf("reading VmHWM of process %d: %v", pid, err)
	}
	return kib << 10
}

// ownCPU is the CPU time of this process in seconds.
func ownCPU(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
