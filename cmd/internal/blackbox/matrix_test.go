//go:build linux

package blackbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/clickhouse/clickhousetest"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/oracle"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
)

// matrixScale is how much of it there is.
type matrixScale struct {
	nodes     int
	bounces   int   // of each processor in a cell
	outages   int   // of the broker in a cell; of three nodes each once
	records   int64 // written in each cell, at least
	perSecond int
	session   time.Duration
	// of the zombie: longer than session and, in the long version, a transaction's
	// timeout
	zombieStop    time.Duration
	memberChanges int // how often a third member comes and goes
}

func matrixSize() matrixScale {
	if long {
		return matrixScale{
			nodes:         3,
			bounces:       3,
			outages:       3,
			records:       100_000,
			perSecond:     900,
			session:       6 * time.Second,
			zombieStop:    30 * time.Second,
			memberChanges: 15,
		}
	}
	return matrixScale{
		nodes:         1,
		bounces:       2,
		outages:       1,
		records:       500,
		perSecond:     300,
		session:       3 * time.Second,
		zombieStop:    5 * time.Second,
		memberChanges: 2,
	}
}

// matrix is two processors on Apache Kafka, what is written for them, and who watches
// what they write.
type matrix struct {
	*rig
	matrixScale
	writer  *recordWriter
	watcher *outcomeWatcher

	kills      int
	recoveries []time.Duration
}

// Kafka's own matrix (tests/kafkatest/tests/core/transactions_test.py), with our
// processor in the place of its copier: {SIGKILL, SIGTERM} × {processor, broker}, then
// a zombie, then members that come and go. A reader of committed records runs
// throughout and sees one row for each event. The long form is Kafka's size: 100,000
// records in each cell, three nodes.
func TestMatrix(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	stop := m.writer.start()
	m.watcher.awaitRecovery(time.Now())
	m.runCell("processor SIGKILL", func() { m.bounceProcessors(false) })
	m.runCell("processor SIGTERM", func() { m.bounceProcessors(true) })
	m.runCell("broker SIGKILL", func() { m.bounceBroker(false) })
	m.runCell("broker SIGTERM", func() { m.bounceBroker(true) })
	m.pauseAsZombie()
	m.churnMembers()
	stop()
	m.checkResults()
}

func newMatrix(t *testing.T) *matrix {
	m := &matrix{rig: &rig{t: t}, matrixScale: matrixSize()}
	var err error
	if m.dir, err = os.MkdirTemp(clickhousetest.Base(), "blackbox-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.cleanup)
	start := kafkatest.Real
	if m.nodes == 3 {
		start = kafkatest.Three
	}
	m.broker = start(t, "group.min.session.timeout.ms=1000")
	brokers := m.broker.Brokers()
	kafkatest.Topics(t, brokers)
	m.kafka = kafka.DefaultConfig()
	m.kafka.Brokers = brokers
	m.adm = kadm.NewClient(kafkatest.Client(t, brokers))
	for i := range m.processors {
		m.processors[i] = m.newProcessor(i)
		if err := m.processors[i].launch(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range m.processors {
		if err := p.awaitReady(); err != nil {
			t.Fatal(err)
		}
	}
	m.watcher, _ = newOutcomeWatcher(t, brokers)
	m.writer = newRecordWriter(t, brokers, m.perSecond)
	return m
}

func (m *matrix) newProcessor(n int) *childProcess {
	name := fmt.Sprintf("slot-%02d", n)
	return m.newDaemon("processor-"+name, "processor", "-brokers", strings.Join(m.broker.Brokers(), ","),
		"-instance", name, "-state-dir", filepath.Join(m.dir, name), "-grace", grace.String(),
		"-click-memory", strconv.Itoa(16<<20), "-session-timeout", m.session.String())
}

// runCell runs bounces while records are written, and goes on until there are enough of
// them.
func (m *matrix) runCell(name string, run func()) {
	m.t.Helper()
	began, written, seen, kills := time.Now(), m.writer.records.Load(), len(m.recoveries), m.kills
	run()
	for m.writer.records.Load()-written < m.records && !m.t.Failed() {
		sleepContext(m.t.Context(), 100*time.Millisecond)
	}
	m.t.Logf("%-18s %6d records in %3.0f s, %d bounces, to the next outcome in every partition %v",
		name, m.writer.records.Load()-written, time.Since(began).Seconds(), m.kills-kills,
		roundDurations(m.recoveries[seen:]))
}

func roundDurations(ds []time.Duration) []time.Duration {
	ds = slices.Clone(ds)
	for i := range ds {
		ds[i] = ds[i].Round(10 * time.Millisecond)
	}
	return ds
}

func (m *matrix) noteRecovery(since time.Time) {
	m.t.Helper()
	m.recoveries = append(m.recoveries, m.watcher.awaitRecovery(since))
}

// bounceProcessors ends each processor a few times, in the middle of a transaction, and
// starts it again at once. A SIGKILL that met none does not count.
func (m *matrix) bounceProcessors(clean bool) {
	m.t.Helper()
	for _, p := range m.processors {
		for hits, n := 0, 0; hits < m.bounces; n++ {
			if n == killsPerHit*m.bounces {
				m.t.Fatalf("%s: %d of %d SIGKILLs found a transaction open, want %d", p.name, hits, n, m.bounces)
			}
			sleepContext(m.t.Context(), time.Duration(rand.IntN(300))*time.Millisecond)
			pollBriefly(m.t.Context(), 2*time.Millisecond, func() bool { return m.transactionOpen(p) })
			began := time.Now()
			if clean {
				if _, err := p.terminate(); err != nil {
					m.t.Error(err)
					p.kill()
				}
				hits++
			} else {
				p.kill()
				if m.transactionOpen(p) {
					hits++
				}
			}
			m.kills++
			if err := p.start(); err != nil {
				m.t.Fatal(err)
			}
			m.noteRecovery(began)
		}
	}
}

// bounceBroker ends the broker a few times; of three nodes each once, and the next when
// all are in sync again.
func (m *matrix) bounceBroker(clean bool) {
	m.t.Helper()
	for n := range m.outages {
		sleepContext(m.t.Context(), time.Duration(rand.IntN(1000))*time.Millisecond)
		m.writer.lateness.Lock()
		began := time.Now()
		node := n % m.nodes
		if clean {
			m.broker.StopNode(node)
		} else {
			m.broker.KillNode(node)
		}
		m.kills++
		if m.nodes == 1 {
			m.broker.StartNode(node)
		}
		m.noteRecovery(began)
		if m.nodes > 1 { // the others went on; now it comes back
			m.broker.StartNode(node)
		}
		m.writer.lateness.Unlock()
		m.awaitInSync()
	}
}

// awaitInSync waits until every partition has all its replicas, so that the next node
// may go.
func (m *matrix) awaitInSync() {
	m.t.Helper()
	for deadline := time.Now().Add(maxWait); ; sleepContext(m.t.Context(), 100*time.Millisecond) {
		have, err := m.adm.ListTopicsWithInternal(m.t.Context())
		missing := ""
		have.EachPartition(func(p kadm.PartitionDetail) {
			if len(p.ISR) < m.nodes {
				missing = fmt.Sprintf("%s %d has the replicas %v in sync", p.Topic, p.Partition, p.ISR)
			}
		})
		if err == nil && len(have) > 0 && missing == "" {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("after %v: %s, %v", maxWait, missing, err)
		}
	}
}

// pauseAsZombie stops a processor in the middle of a transaction for longer than its
// session lasts. The other takes over; the first, when it goes on, changes nothing and
// gets its share again.
func (m *matrix) pauseAsZombie() {
	m.t.Helper()
	z := m.processors[0]
	for range 4 * killsPerHit {
		pollBriefly(m.t.Context(), 2*time.Millisecond, func() bool { return m.transactionOpen(z) })
		m.signalProcess(z, syscall.SIGSTOP)
		if m.transactionOpen(z) {
			break
		}
		m.signalProcess(z, syscall.SIGCONT)
	}
	stopped := time.Now()
	over := m.watcher.awaitRecovery(stopped)
	sleepContext(m.t.Context(), m.zombieStop-time.Since(stopped))
	m.signalProcess(z, syscall.SIGCONT)
	went := time.Now()
	again := m.watcher.awaitRecovery(went)
	m.awaitShared(2)
	m.t.Logf("%-18s stopped for %v in a transaction; the other had taken over after %v; next outcome in every "+
		"partition %v after it went on, its share again after %v", "zombie", went.Sub(stopped).Round(
		time.Second), over.Round(10*time.Millisecond),
		again.Round(10*time.Millisecond), time.Since(went).Round(10*time.Millisecond))
	if over < m.session/2 {
		m.t.Errorf("the other took over after %v: the processor was not stopped", over)
	}
}

// awaitShared waits until n processors run partitions, and together all.
func (m *matrix) awaitShared(n int) {
	m.t.Helper()
	for deadline := time.Now().Add(maxWait); ; sleepContext(m.t.Context(), 50*time.Millisecond) {
		total, busy := 0.0, 0
		var failed error
		for _, p := range m.processors {
			running, err := p.readMetric("partners_processor_partitions", `state="running"`)
			if failed = errors.Join(failed, err); running > 0 {
				busy++
			}
			total += running
		}
		if failed == nil && busy == n && total == kafkatest.Partitions {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%v partitions run on %d processors, want %d on %d; %v", total, busy, kafkatest.Partitions, n,
				failed)
		}
	}
}

// churnMembers lets a third member come, and go when it has partitions, one of both
// every two seconds. A static member that goes is taken out of the group at once, or
// nobody would notice before its session is over.
func (m *matrix) churnMembers() {
	m.t.Helper()
	const every = 2 * time.Second
	third, began, seen := m.newProcessor(2), time.Now(), m.watcher.rowCount()
	rest := func(since time.Time) { sleepContext(m.t.Context(), every-time.Since(since)) }
	for n := range m.memberChanges {
		since := time.Now()
		if err := third.start(); err != nil {
			m.t.Fatal(err)
		}
		m.awaitCount("partitions of a third member", func() int64 {
			// it has no such metric before its first
			owned, _ := third.readMetric("partners_processor_partitions", `state="running"`)
			return int64(owned)
		}, 1)
		rest(since)
		since = time.Now()
		if n%2 == 0 {
			if _, err := third.terminate(); err != nil {
				m.t.Error(err)
			}
		}
		third.kill()
		ctx, cancel := context.WithTimeout(m.t.Context(), maxWait)
		_, err := m.adm.LeaveGroup(ctx, kadm.LeaveGroup(m.kafka.Group(topic.ProcessorGroup)).Reason(
			"churn").InstanceIDs(strings.TrimPrefix(third.name, "processor-")))
		cancel()
		if err != nil {
			m.t.Errorf("taking the third member out of the group: %v", err)
		}
		rest(since)
	}
	during, calm := m.watcher.rowCount()-seen, time.Now()
	took := m.watcher.awaitRecovery(calm)
	m.awaitShared(2)
	m.t.Logf("%-18s a third member came, got partitions and left %d times within %v; %d outcomes meanwhile; next "+
		"outcome in every partition %v after the last", "churn", m.memberChanges, calm.Sub(began).Round(
		time.Second), during,
		took.Round(10*time.Millisecond))
}

// checkResults waits until every event has its row that needs no more waiting, and
// holds what was seen against the oracle and the log.
func (m *matrix) checkResults() {
	m.t.Helper()
	began := time.Now()
	events := int(m.writer.events.Load())
	truth := m.readTopics().oracleResult()
	m.watcher.awaitRows(maxWait, func() bool { return len(m.watcher.rows) >= len(truth.Outcomes) })
	settled := time.Since(began)
	f := m.readTopics()
	m.wantNoFindings("outcomes", oracle.Diff(truth.Outcomes, f.outcomes))
	lost := 0
	for _, o := range truth.Outcomes {
		if _, ok := m.watcher.rows[recordPosition{o.EventPartition, o.EventOffset}]; !ok {
			lost++
		}
	}
	if len(f.events) != events {
		m.t.Errorf("%d events are in Kafka, %d were acknowledged", len(f.events), events)
	}
	for _, at := range f.outcomesAt {
		if !m.watcher.shown[at] {
			m.t.Errorf("the row at %v was never shown to the reader that ran throughout", at)
		}
	}
	if len(f.outcomesAt) != len(m.watcher.shown) {
		m.t.Errorf("%d rows were shown, %d are there", len(m.watcher.shown), len(f.outcomesAt))
	}
	a := m.watcher.auditMarkers(m.adm)
	m.wantNoFindings("markers", a.problems)
	slices.Sort(m.recoveries)
	quantile := func(q float64) time.Duration {
		return m.recoveries[min(int(q*float64(len(m.recoveries))), len(m.recoveries)-1)].Round(10 * time.Millisecond)
	}
	m.t.Logf("settled in %v; %d events wait", settled.Round(100*time.Millisecond), len(truth.Waiting))
	m.t.Logf("matrix: %d records (%d events), %d kills, lost %d, duplicated %d, aborted-visible %d (of %d aborted "+
		"rows), recovery p50 %v p99 %v", m.writer.records.Load(), len(
		f.events), m.kills, lost, m.watcher.twice, a.visible, a.aborted,
		quantile(0.5), quantile(0.99))
	if lost > 0 || m.watcher.twice > 0 || a.visible > 0 || a.hidden > 0 {
		m.t.Errorf("lost %d, duplicated %d, aborted and visible %d, committed and hidden %d",
			lost, m.watcher.twice, a.visible, a.hidden)
	}
	if a.aborted == 0 {
		m.t.Error("no row was aborted: that shows nothing")
	}
}
