//go:build linux

package blackbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/segmentio/ksuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// outageLength returns the minimum length of an outage.
func outageLength() time.Duration {
	if long {
		return 30 * time.Second
	}
	return 2 * time.Second
}

// awaitCount waits until a count reaches want, such as the requests answered during an
// outage.
func (r *rig) awaitCount(what string, count func() int64, want int64) {
	r.t.Helper()
	for deadline := time.Now().Add(maxWait); count() < want; sleepContext(r.t.Context(), 20*time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: %d after %v, want %d", what, count(), maxWait, want)
		}
	}
}

// ClickHouse and Kafka fail under load and recover, a spool fills up, a broker refuses
// a record permanently, and every program is restarted. No program stops by itself, no
// operator is needed, and the ledger is right.
func TestOutages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l := r.newLoad()
	stop := l.start(100, 40)
	r.awaitCount("requests answered", l.answeredCount, 200)

	r.writeUnreadable()
	r.interruptClickHouse(l)
	r.restartEverything(l)
	small := r.interruptKafka(l)
	stop()
	r.refuseRecord(small)
	r.checkLedger(l, small)
	r.checkDeadLetters()
}

// writeUnreadable writes unreadable records into every topic.
func (r *rig) writeUnreadable() {
	r.t.Helper()
	noise := make([]byte, 5<<20)
	rand.Read(noise)
	// records whose token differs from their key
	stranger := func(codec *event.Codec) (click, conversion, outcome []byte, err error) {
		k := event.Click{
			WorkspaceID: "acme",
			ClickToken:  ksuid.New().String(),
			TokenStatus: event.TokenAppended,
			Trigger:     event.TriggerLink,
		}
		click, err1 := codec.AppendClick(nil, &k)
		conversion, err2 := codec.AppendConversion(nil, &event.Conversion{
			WorkspaceID: "acme",
			EventID:     "e",
			ClickToken:  k.ClickToken,
			Type:        event.Sale,
		})
		outcome, err3 := codec.AppendOutcome(nil, &event.Outcome{
			WorkspaceID: "acme",
			EventID:     "e",
			ClickToken:  k.ClickToken,
			Verdict:     event.Attributed,
			Type:        event.Sale,
			Effect:      1,
			Review:      event.ReviewClear,
		}, nil)
		return click, conversion, outcome, errors.Join(err1, err2, err3)
	}
	click, conversion, outcome, err := stranger(event.DefaultCodec())
	if err != nil {
		r.t.Fatal(err)
	}
	other := map[string][]byte{topic.Clicks: click, topic.Conversions: conversion, topic.Outcomes: outcome}
	var records []*kgo.Record
	for _, name := range []string{topic.Clicks, topic.Conversions, topic.Outcomes, topic.Progress, topic.Rejections,
		topic.Catalog} {
		values := [][]byte{[]byte("garbage"), {0, 0, 0, 9, 9, 1}, noise}
		if other[name] != nil {
			values = append(values, other[name])
		}
		for _, value := range values {
			records = append(records, &kgo.Record{
				Topic:   name,
				Key:     []byte("another token"),
				Value:   value,
				Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte("42")}},
			})
		}
	}
	cl := kafkatest.Client(r.t, r.broker.Brokers(), kgo.ProducerBatchMaxBytes(maxMessageBytes),
		kgo.MaxBufferedBytes(1<<30), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err := cl.ProduceSync(r.t.Context(), records...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
	for _, rec := range records {
		r.unreadable[fmt.Sprintf("%s %d/%d", rec.Topic, rec.Partition, rec.Offset)] = true
	}
}

// checkDeadLetters compares the dead letters with the unreadable records: each must be
// there once.
func (r *rig) checkDeadLetters() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), maxWait)
	defer cancel()
	letters, err := kafka.ReadAll(ctx, r.kafka, slog.New(slog.DiscardHandler), topic.DeadLetters)
	if err != nil {
		r.t.Fatal(err)
	}
	got := make(map[string]string)
	for _, rec := range letters {
		l, err := kafka.ParseDeadLetter(rec)
		if err != nil {
			r.t.Error(err)
			continue
		}
		got[fmt.Sprintf("%s %d/%d", l.Source.Topic, l.Source.Partition, l.Source.Offset)] += "once"
		if !l.Truncated && (len(l.Record.Headers) != 1 || string(l.Record.Key) != "another token") {
			r.t.Errorf("the dead letter of %+v differs from the record: %q %v",
				l.Source, l.Record.Key, l.Record.Headers)
		}
	}
	want := make(map[string]string)
	for spot := range r.unreadable {
		want[spot] = "once"
	}
	r.wantNoFindings("dead letters", diffRows(want, got))
	r.t.Logf("%d unreadable records in %d topics, each a dead letter once", len(want), 6)
}

// interruptClickHouse kills the ClickHouse process in the middle of an insert. Visitors
// and merchants must not notice.
func (r *rig) interruptClickHouse(l *trafficLoad) {
	r.t.Helper()
	if !r.proxies[0].awaitInsert(maxWait) && !r.proxies[1].awaitInsert(maxWait) {
		r.t.Error("no insert is under way")
	}
	over := r.watchLogs("without ClickHouse")
	r.warehouse.kill()
	for _, p := range r.proxies {
		p.passAnswers()
	}
	gone, answered, off := time.Now(), l.answeredCount(), l.unavailable.Load()
	sleepContext(r.t.Context(), outageLength())
	r.awaitCount("requests answered while ClickHouse is away", func() int64 {
		return l.answeredCount() - answered
	}, 200)
	if l.unavailable.Load() > off {
		r.t.Errorf("while ClickHouse was away %d events were answered 503", l.unavailable.Load()-off)
	}
	began := time.Now()
	if err := r.warehouse.start(); err != nil {
		r.t.Fatal(err)
	}
	back := time.Now()
	r.awaitCaughtUp("outcomes")
	over()
	r.t.Logf("ClickHouse killed in an insert and away for %v; it starts in %v, the sinks had caught up %v later",
		began.Sub(gone).Round(time.Millisecond), back.Sub(began).Round(time.Millisecond),
		time.Since(back).Round(time.Millisecond))
}

// awaitCaughtUp waits until ClickHouse has the present records of a topic.
func (r *rig) awaitCaughtUp(name string) {
	r.t.Helper()
	ends, err := r.adm.ListCommittedOffsets(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	for deadline := time.Now().Add(maxWait); ; sleepContext(r.t.Context(), 50*time.Millisecond) {
		var at []struct {
			Partition uint32 `ch:"partition"`
			End       uint64 `ch:"end_offset"`
		}
		err := r.wh.Select(r.t.Context(), &at, "SELECT partition, end_offset FROM tiled_ends WHERE topic = '"+name+"'")
		behind := 0
		have := make(map[int32]int64)
		for _, x := range at {
			have[int32(x.Partition)] = int64(x.End)
		}
		ends.Each(func(o kadm.ListedOffset) {
			// The last record may be a transaction marker, which has no row.
			if have[o.Partition] < o.Offset-1 {
				behind++
			}
		})
		if err == nil && behind == 0 {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("the sinks have not caught up with %s: %v, %v; %v", name, have, ends, err)
		}
	}
}

// restartEverything ends each daemon by SIGTERM under load and starts it again, one
// after another.
func (r *rig) restartEverything(l *trafficLoad) {
	r.t.Helper()
	gaps := r.watchOutcomes()
	off := l.unavailable.Load()
	for _, p := range r.daemons() {
		took, err := p.terminate()
		if err != nil {
			r.t.Error(err)
			p.kill()
		}
		began := time.Now()
		if err := p.start(); err != nil {
			r.t.Fatal(err)
		}
		r.t.Logf("%-18s SIGTERM to its end %v, ready again after %v", p.name, took.Round(time.Millisecond),
			time.Since(began).Round(time.Millisecond))
		if p == r.processors[1] {
			r.t.Logf("longest time without an outcome in any partition while the processors were restarted "+
				"(aim: 2 s): %v", gaps().Round(time.Millisecond))
		}
	}
	r.t.Logf("events answered 503 during restarts (none if the gateway restarts faster than its listener's wait): %d",
		l.unavailable.Load()-off)
}

// watchOutcomes follows the outcomes that become visible until the returned function is
// called, which tells the longest time that a partition had none.
func (r *rig) watchOutcomes() (longest func() time.Duration) {
	r.t.Helper()
	from := make(map[int32]kgo.Offset)
	for p := range int32(kafkatest.Partitions) {
		from[p] = kgo.NewOffset().AtEnd()
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	cl := kafkatest.Client(r.t, r.broker.Brokers(), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(50*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic.Outcomes: from}))
	newest := make(map[int32]time.Time)
	for p := range int32(kafkatest.Partitions) {
		newest[p] = time.Now()
	}
	var most time.Duration
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			records := cl.PollFetches(ctx).Records()
			now := time.Now()
			for _, rec := range records {
				most = max(most, now.Sub(newest[rec.Partition]))
				newest[rec.Partition] = now
			}
		}
	})
	return func() time.Duration {
		cancel()
		wg.Wait()
		for _, at := range newest {
			most = max(most, time.Since(at))
		}
		return most
	}
}

// interruptKafka stops the broker for a while, and kills the redirector meanwhile. A
// second redirector has a spool that is too small for this outage. It returns that
// redirector's load.
func (r *rig) interruptKafka(l *trafficLoad) *trafficLoad {
	r.t.Helper()
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePorts(r.t, 1)))
	other := r.newDaemon("redirector-small", "redirector", "-brokers", strings.Join(r.broker.Brokers(), ","),
		"-listen", at, "-token-keys", filepath.Join(r.dir, "token-keys"),
		"-spool-dir", filepath.Join(r.dir, "spool-small"), "-spool-max-bytes", strconv.Itoa(1<<20))
	if err := other.start(); err != nil {
		r.t.Fatal(err)
	}
	small := newTrafficLoad(r.t, at, r.gatewayAt, r.secrets)
	small.longLinks.Store(true)
	stopSmall := small.start(250, 0)

	off := l.unavailable.Load()
	over := r.watchLogs("without Kafka", other)
	r.killBroker()
	began := time.Now()
	before := l.redirects.Load()
	sleepContext(r.t.Context(), outageLength()/2)
	r.awaitCount("visitors answered while Kafka is away", func() int64 { return l.redirects.Load() - before }, 100)
	r.redirector.kill()
	if err := r.redirector.start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Logf("redirector killed and serving again without Kafka, from the stored catalog, %v into the outage",
		time.Since(began).Round(time.Millisecond))
	restarted := l.redirects.Load()
	sleepContext(r.t.Context(), outageLength()/2)
	r.awaitCount("visitors answered while Kafka is away, after the redirector's restart", func() int64 {
		return l.redirects.Load() - restarted
	}, 100)
	r.awaitCount("events answered 503 while Kafka is away", func() int64 { return l.unavailable.Load() - off }, 1)
	lost := func() int64 { return int64(r.readMetric(other, "partners_redirect_clicks_lost_total")) }
	r.awaitCount("clicks lost by the small spool", lost, 1)
	stopSmall()
	small.longLinks.Store(false)
	if small.lost = int(lost()); small.lost >= int(small.redirects.Load()) {
		r.t.Errorf("the small spool lost %d of %d clicks: it took none", small.lost, small.redirects.Load())
	}
	r.t.Logf("the small spool: %d visitors answered 302, %d clicks counted as lost", small.redirects.Load(), small.lost)

	r.broker.Start()
	back := time.Now()
	r.awaitCaughtUp(topic.Outcomes)
	r.t.Logf("Kafka killed and away for %v; the sinks had caught up with the outcomes %v after it was back; %d "+
		"events were answered 503", back.Sub(began).Round(time.Millisecond), time.Since(back).Round(time.Millisecond),
		l.unavailable.Load())
	// Wait until the small spool has room again. Only then may refuseRecord lower the
	// topic's limit: a batch above the limit is sent record by record.
	for deadline := time.Now().Add(maxWait); r.readMetric(other, "partners_spool_backlog_bytes") > 0; {
		if time.Now().After(deadline) {
			r.t.Fatalf("the small spool is not in Kafka %v after the broker was back", maxWait)
		}
		sleepContext(r.t.Context(), 50*time.Millisecond)
	}
	r.t.Logf("the small spool was in Kafka %v after the broker was back", time.Since(back).Round(time.Millisecond))
	answered := l.answeredCount()
	r.awaitCount("requests answered after the outage", func() int64 { return l.answeredCount() - answered }, 200)
	over()
	return small
}

func (r *rig) readMetric(p *childProcess, name string) float64 {
	r.t.Helper()
	v, err := p.readMetric(name, "")
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// killBroker kills the broker while no transaction is between the answer to EndTxn and
// its last marker. A cluster of one node that is killed there may lose the markers
// permanently (Kafka 4.3: "likely deleted already and hence can be skipped"). A cluster
// of three nodes does not.
func (r *rig) killBroker() {
	r.t.Helper()
	for _, p := range r.processors {
		r.signalProcess(p, syscall.SIGSTOP)
	}
	for deadline := time.Now().Add(maxWait); ; sleepContext(r.t.Context(), 5*time.Millisecond) {
		pending, err := r.adm.ListTransactions(r.t.Context(), nil, []string{"PrepareCommit", "PrepareAbort"})
		if err == nil && len(pending) == 0 {
			break
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("markers still pending: %v, %v", pending, err)
		}
	}
	r.broker.Kill()
	for _, p := range r.processors {
		r.signalProcess(p, syscall.SIGCONT)
	}
}

func (r *rig) signalProcess(p *childProcess, s syscall.Signal) {
	r.t.Helper()
	if err := p.currentRun().cmd.Process.Signal(s); err != nil {
		r.t.Fatalf("%v to %s: %v", s, p.name, err)
	}
}

// refuseRecord makes the broker refuse one click permanently: it is too large for the
// topic. The click must be kept in refused/, and the clicks before and after it must
// reach Kafka.
func (r *rig) refuseRecord(small *trafficLoad) {
	r.t.Helper()
	limit := func(value string) {
		r.t.Helper()
		op := kadm.AlterConfig{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &value}
		if value == "" {
			op = kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "max.message.bytes"}
		}
		res, err := r.adm.AlterTopicConfigs(r.t.Context(), []kadm.AlterConfig{op}, topic.Clicks)
		if err != nil || res[0].Err != nil {
			r.t.Fatal(err, res)
		}
	}
	limit("520")
	dir := filepath.Join(r.dir, "spool-small", "refused")
	refused := func() (lines []string) {
		files, _ := filepath.Glob(filepath.Join(dir, "*.jsonl"))
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				r.t.Fatal(err)
			}
			lines = append(lines, strings.Split(strings.TrimSpace(string(text)), "\n")...)
		}
		return lines
	}
	small.visitRandomLink()
	// The topic's new limit takes effect some time after its acknowledgement, so clicks
	// sent before that are accepted.
	var sent []string
	deadline, next := time.Now().Add(maxWait), time.Time{}
	for ; len(refused()) == 0; sleepContext(r.t.Context(), 50*time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("none of %d clicks that are too large is in refused/", len(sent))
		}
		if time.Now().After(next) {
			next = time.Now().Add(time.Second)
			token, ok := small.followLink("acme", "go.acme.com", longPath())
			if !ok {
				return
			}
			sent = append(sent, token)
			small.visitRandomLink()
		}
	}
	limit("")
	lines := refused()
	for _, line := range lines {
		i := slices.IndexFunc(sent, func(token string) bool { return strings.Contains(line, token) })
		if i < 0 {
			r.t.Errorf("refused/ holds a line of none of the clicks %v: %.500s", sent, line)
			continue
		}
		delete(small.tokens, sent[i])
	}
	r.t.Logf("refused permanently: %d of %d clicks that are too large: %.200s…", len(lines), len(sent), lines[0])
}
