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
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
)

// matrixScale is the size of the matrix.
type matrixScale struct {
	nodes         int           // brokers
	bounces       int           // of each processor in a cell
	outages       int           // of the broker in a cell; of three nodes, one each
	records       int64         // written in each cell, at least
	perSecond     int           // records written
	session       time.Duration // session timeout of the processors
	zombieStop    time.Duration // longer than session; in the long form also than a transaction's timeout
	memberChanges int           // how often a third member comes and goes
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

// matrix is two processors on Apache Kafka, with a writer of their inputs and a reader
// of their outcomes.
type matrix struct {
	*rig
	matrixScale
	writer  *recordWriter
	watcher *outcomeWatcher

	kills      int             // so far
	recoveries []time.Duration // from each kill to new outcomes in all partitions
}

// Kafka's own matrix (tests/kafkatest/tests/core/transactions_test.py) with our
// processor instead of Kafka's copier: {SIGKILL, SIGTERM} × {processor, broker}, then a
// zombie, then members that come and go. A reader of committed records runs throughout
// and must see one outcome per event. The long form has Kafka's size: 100,000 records
// in each cell, three nodes.
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
	m := &matrix{rig: &rig{t: t, codec: event.DefaultCodec()}, matrixScale: matrixSize()}
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

// runCell runs bounces while records are written, and continues until enough are
// written.
func (m *matrix) runCell(name string, run func()) {
	m.t.Helper()
	began, written := time.Now(), m.writer.records.Load()
	seen, kills := len(m.recoveries), m.kills
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

// bounceProcessors stops each processor a few times in the middle of a transaction and
// starts it again at once. A SIGKILL outside a transaction does not count.
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

// bounceBroker stops the broker a few times. Of three nodes it stops each once, the
// next when all are in sync again.
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
		if m.nodes > 1 { // the other nodes have continued; start this one again
			m.broker.StartNode(node)
		}
		m.writer.lateness.Unlock()
		m.awaitInSync()
	}
}

// awaitInSync waits until all replicas of every partition are in sync, so that the next
// node may stop.
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

// pauseAsZombie stops a processor by SIGSTOP in the middle of a transaction, for longer
// than its session. The other processor takes over. The first one, when it continues,
// changes nothing and gets its share of partitions back.
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
	takeover := m.watcher.awaitRecovery(stopped)
	sleepContext(m.t.Context(), m.zombieStop-time.Since(stopped))
	m.signalProcess(z, syscall.SIGCONT)
	continued := time.Now()
	recovery := m.watcher.awaitRecovery(continued)
	m.awaitShared(2)
	m.t.Logf("%-18s stopped for %v in a transaction; the other had taken over after %v", "zombie",
		continued.Sub(stopped).Round(time.Second), takeover.Round(10*time.Millisecond))
	m.t.Logf("%-18s next outcome in every partition %v after it continued, its share again after %v", "zombie",
		recovery.Round(10*time.Millisecond), time.Since(continued).Round(10*time.Millisecond))
	if takeover < m.session/2 {
		m.t.Errorf("the other took over after %v: the processor was not stopped", takeover)
	}
}

// awaitShared waits until n processors run partitions, and all partitions together.
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

// churnMembers starts a third member, and stops it when it has partitions, each every
// two seconds. A stopped static member is removed from the group at once, or the group
// would wait until its session times out.
func (m *matrix) churnMembers() {
	m.t.Helper()
	const every = 2 * time.Second
	third := m.newProcessor(2)
	began, seen := time.Now(), m.watcher.rowCount()
	rest := func(since time.Time) { sleepContext(m.t.Context(), every-time.Since(since)) }
	for n := range m.memberChanges {
		since := time.Now()
		if err := third.start(); err != nil {
			m.t.Fatal(err)
		}
		m.awaitCount("partitions of a third member", func() int64 {
			// the metric does not exist before the first partition
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
			m.t.Errorf("removing the third member from the group: %v", err)
		}
		rest(since)
	}
	during, calm := m.watcher.rowCount()-seen, time.Now()
	took := m.watcher.awaitRecovery(calm)
	m.awaitShared(2)
	m.t.Logf("%-18s a third member came, got partitions and left %d times within %v; %d outcomes meanwhile", "churn",
		m.memberChanges, calm.Sub(began).Round(time.Second), during)
	m.t.Logf("%-18s next outcome in every partition %v after the last change", "churn", took.Round(10*time.Millisecond))
}

// checkResults waits until every event that needs no more waiting has its outcome. It
// then compares what the reader saw with the oracle and with the log.
func (m *matrix) checkResults() {
	m.t.Helper()
	began := time.Now()
	events := int(m.writer.events.Load())
	truth := m.readTopics().oracleResult(grace)
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
			m.t.Errorf("the reader that ran throughout never saw the row at %v", at)
		}
	}
	if len(f.outcomesAt) != len(m.watcher.shown) {
		m.t.Errorf("the reader saw %d rows, the topic has %d", len(m.watcher.shown), len(f.outcomesAt))
	}
	a := m.watcher.auditMarkers(m.adm)
	m.wantNoFindings("markers", a.problems)
	slices.Sort(m.recoveries)
	quantile := func(q float64) time.Duration {
		return m.recoveries[min(int(q*float64(len(m.recoveries))), len(m.recoveries)-1)].Round(10 * time.Millisecond)
	}
	m.t.Logf("settled in %v; %d events wait", settled.Round(100*time.Millisecond), len(truth.Waiting))
	m.t.Logf("matrix: %d records (%d events), %d kills, lost %d, duplicated %d, aborted-visible %d (of %d aborted "+
		"rows), recovery p50 %v p99 %v", m.writer.records.Load(), len(f.events), m.kills,
		lost, m.watcher.twice, a.visible, a.aborted, quantile(0.5), quantile(0.99))
	if lost > 0 || m.watcher.twice > 0 || a.visible > 0 || a.hidden > 0 {
		m.t.Errorf("lost %d, duplicated %d, aborted and visible %d, committed and hidden %d",
			lost, m.watcher.twice, a.visible, a.hidden)
	}
	if a.aborted == 0 {
		m.t.Error("no row was aborted: the test shows nothing")
	}
}
