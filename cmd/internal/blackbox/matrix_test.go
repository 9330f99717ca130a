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

// size is how much of it there is.
type size struct {
	nodes     int
	bounces   int   // of each processor in a cell
	outages   int   // of the broker in a cell; of three nodes each once
	records   int64 // written in each cell, at least
	perSecond int
	session   time.Duration
	// of the zombie: longer than session and, in the long version, a transaction's
	// timeout
	stop  time.Duration
	churn int // how often a third member comes and goes
}

func matrixSize() size {
	if long {
		return size{
			nodes:     3,
			bounces:   3,
			outages:   3,
			records:   100_000,
			perSecond: 900,
			session:   6 * time.Second,
			stop:      30 * time.Second,
			churn:     15,
		}
	}
	return size{
		nodes:     1,
		bounces:   2,
		outages:   1,
		records:   500,
		perSecond: 300,
		session:   3 * time.Second,
		stop:      5 * time.Second,
		churn:     2,
	}
}

// matrix is two processors on Apache Kafka, what is written for them, and who watches
// what they write.
type matrix struct {
	*rig
	size
	w *writer
	o *watcher

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
	stop := m.w.run()
	m.o.recovered(time.Now())
	m.cell("processor SIGKILL", func() { m.bounceProcessors(false) })
	m.cell("processor SIGTERM", func() { m.bounceProcessors(true) })
	m.cell("broker SIGKILL", func() { m.bounceBroker(false) })
	m.cell("broker SIGTERM", func() { m.bounceBroker(true) })
	m.zombie()
	m.churnMembers()
	stop()
	m.verdict()
}

func newMatrix(t *testing.T) *matrix {
	m := &matrix{rig: &rig{t: t}, size: matrixSize()}
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
		m.processors[i] = m.slot(i)
		if err := m.processors[i].begin(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range m.processors {
		if err := p.awaitReady(); err != nil {
			t.Fatal(err)
		}
	}
	m.o, _ = newWatcher(t, brokers)
	m.w = newWriter(t, brokers, m.perSecond)
	return m
}

func (m *matrix) slot(n int) *process {
	name := fmt.Sprintf("slot-%02d", n)
	return m.daemon("processor-"+name, "processor", "-brokers", strings.Join(m.broker.Brokers(), ","),
		"-instance", name, "-state-dir", filepath.Join(m.dir, name), "-grace", grace.String(),
		"-click-memory", strconv.Itoa(16<<20), "-session-timeout", m.session.String())
}

// cell runs bounces while records are written, and goes on until there are enough of
// them.
func (m *matrix) cell(name string, run func()) {
	m.t.Helper()
	began, written, seen, kills := time.Now(), m.w.records.Load(), len(m.recoveries), m.kills
	run()
	for m.w.records.Load()-written < m.records && !m.t.Failed() {
		pause(m.t.Context(), 100*time.Millisecond)
	}
	m.t.Logf("%-18s %6d records in %3.0f s, %d bounces, to the next outcome in every partition %v",
		name, m.w.records.Load()-written, time.Since(began).Seconds(), m.kills-kills, rounded(m.recoveries[seen:]))
}

func rounded(ds []time.Duration) []time.Duration {
	ds = slices.Clone(ds)
	for i := range ds {
		ds[i] = ds[i].Round(10 * time.Millisecond)
	}
	return ds
}

func (m *matrix) recovered(since time.Time) {
	m.t.Helper()
	m.recoveries = append(m.recoveries, m.o.recovered(since))
}

// bounceProcessors ends each processor a few times, in the middle of a transaction, and
// starts it again at once. A SIGKILL that met none does not count.
func (m *matrix) bounceProcessors(clean bool) {
	m.t.Helper()
	for _, p := range m.processors {
		for hits, n := 0, 0; hits < m.bounces; n++ {
			if n == attempts*m.bounces {
				m.t.Fatalf("%s: %d of %d SIGKILLs found a transaction open, want %d", p.name, hits, n, m.bounces)
			}
			pause(m.t.Context(), time.Duration(rand.IntN(300))*time.Millisecond)
			until(m.t.Context(), 2*time.Millisecond, func() bool { return m.transactionOpen(p) })
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
			m.recovered(began)
		}
	}
}

// bounceBroker ends the broker a few times; of three nodes each once, and the next when
// all are in sync again.
func (m *matrix) bounceBroker(clean bool) {
	m.t.Helper()
	for n := range m.outages {
		pause(m.t.Context(), time.Duration(rand.IntN(1000))*time.Millisecond)
		m.w.late.Lock()
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
		m.recovered(began)
		if m.nodes > 1 { // the others went on; now it comes back
			m.broker.StartNode(node)
		}
		m.w.late.Unlock()
		m.inSync()
	}
}

// inSync waits until every partition has all its replicas, so that the next node may
// go.
func (m *matrix) inSync() {
	m.t.Helper()
	for deadline := time.Now().Add(hang); ; pause(m.t.Context(), 100*time.Millisecond) {
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
			m.t.Fatalf("after %v: %s, %v", hang, missing, err)
		}
	}
}

// zombie stops a processor in the middle of a transaction for longer than its session
// lasts. The other takes over; the first, when it goes on, changes nothing and gets its
// share again.
func (m *matrix) zombie() {
	m.t.Helper()
	z := m.processors[0]
	for range 4 * attempts {
		until(m.t.Context(), 2*time.Millisecond, func() bool { return m.transactionOpen(z) })
		m.signal(z, syscall.SIGSTOP)
		if m.transactionOpen(z) {
			break
		}
		m.signal(z, syscall.SIGCONT)
	}
	stopped := time.Now()
	over := m.o.recovered(stopped)
	pause(m.t.Context(), m.stop-time.Since(stopped))
	m.signal(z, syscall.SIGCONT)
	went := time.Now()
	again := m.o.recovered(went)
	m.shared(2)
	m.t.Logf("%-18s stopped for %v in a transaction; the other had taken over after %v; next outcome in every "+
		"partition %v after it went on, its share again after %v", "zombie", went.Sub(stopped).Round(
		time.Second), over.Round(10*time.Millisecond),
		again.Round(10*time.Millisecond), time.Since(went).Round(10*time.Millisecond))
	if over < m.session/2 {
		m.t.Errorf("the other took over after %v: the processor was not stopped", over)
	}
}

// shared waits until n processors run partitions, and together all.
func (m *matrix) shared(n int) {
	m.t.Helper()
	for deadline := time.Now().Add(hang); ; pause(m.t.Context(), 50*time.Millisecond) {
		total, busy := 0.0, 0
		var failed error
		for _, p := range m.processors {
			running, err := p.metric("partners_processor_partitions", `state="running"`)
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
	third, began, seen := m.slot(2), time.Now(), m.o.count()
	rest := func(since time.Time) { pause(m.t.Context(), every-time.Since(since)) }
	for n := range m.churn {
		since := time.Now()
		if err := third.start(); err != nil {
			m.t.Fatal(err)
		}
		m.enough("partitions of a third member", func() int64 {
			// it has no such metric before its first
			owned, _ := third.metric("partners_processor_partitions", `state="running"`)
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
		ctx, cancel := context.WithTimeout(m.t.Context(), hang)
		_, err := m.adm.LeaveGroup(ctx, kadm.LeaveGroup(m.kafka.Group(topic.ProcessorGroup)).Reason(
			"churn").InstanceIDs(strings.TrimPrefix(third.name, "processor-")))
		cancel()
		if err != nil {
			m.t.Errorf("taking the third member out of the group: %v", err)
		}
		rest(since)
	}
	during, calm := m.o.count()-seen, time.Now()
	took := m.o.recovered(calm)
	m.shared(2)
	m.t.Logf("%-18s a third member came, got partitions and left %d times within %v; %d outcomes meanwhile; next "+
		"outcome in every partition %v after the last", "churn", m.churn, calm.Sub(began).Round(time.Second), during,
		took.Round(10*time.Millisecond))
}

// verdict waits until every event has its row that needs no more waiting, and holds
// what was seen against the oracle and the log.
func (m *matrix) verdict() {
	m.t.Helper()
	began := time.Now()
	events := int(m.w.events.Load())
	truth := m.read().truth()
	m.o.await(hang, func() bool { return len(m.o.rows) >= len(truth.Outcomes) })
	settled := time.Since(began)
	f := m.read()
	m.none("outcomes", oracle.Diff(truth.Outcomes, f.outcomes))
	lost := 0
	for _, o := range truth.Outcomes {
		if _, ok := m.o.rows[place{o.EventPartition, o.EventOffset}]; !ok {
			lost++
		}
	}
	if len(f.events) != events {
		m.t.Errorf("%d events are in Kafka, %d were acknowledged", len(f.events), events)
	}
	for _, at := range f.outcomesAt {
		if !m.o.shown[at] {
			m.t.Errorf("the row at %v was never shown to the reader that ran throughout", at)
		}
	}
	if len(f.outcomesAt) != len(m.o.shown) {
		m.t.Errorf("%d rows were shown, %d are there", len(m.o.shown), len(f.outcomesAt))
	}
	a := m.o.audit(m.adm)
	m.none("markers", a.problems)
	slices.Sort(m.recoveries)
	quantile := func(q float64) time.Duration {
		return m.recoveries[min(int(q*float64(len(m.recoveries))), len(m.recoveries)-1)].Round(10 * time.Millisecond)
	}
	m.t.Logf("settled in %v; %d events wait", settled.Round(100*time.Millisecond), len(truth.Waiting))
	m.t.Logf("matrix: %d records (%d events), %d kills, lost %d, duplicated %d, aborted-visible %d (of %d aborted "+
		"rows), recovery p50 %v p99 %v", m.w.records.Load(), len(
		f.events), m.kills, lost, m.o.twice, a.visible, a.aborted,
		quantile(0.5), quantile(0.99))
	if lost > 0 || m.o.twice > 0 || a.visible > 0 || a.hidden > 0 {
		m.t.Errorf("lost %d, duplicated %d, aborted and visible %d, committed and hidden %d",
			lost, m.o.twice, a.visible, a.hidden)
	}
	if a.aborted == 0 {
		m.t.Error("no row was aborted: that shows nothing")
	}
}
