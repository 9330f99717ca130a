//go:build linux

package blackbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
)

// coPartitioned are the topics whose partition count tokens are bound to.
var coPartitioned = []string{topic.Clicks, topic.Conversions, topic.Outcomes, topic.Changelog, topic.Progress}

// partitionsDiffer is what each program says, and where it says to look.
var partitionsDiffer = []string{"partition count differs", "see the runbook, PartitionsDiffer"}

// What is changed beneath an install that serves visitors and merchants loses nothing that
// anybody was answered.
//
// A schema registry is adopted: one whose ids clash is refused, and with the ids of
// another one, in a file that an earlier release made, all goes on, refunds of sales of
// before too.
//
// Then partitions are added with Kafka's own tool. Visitors are redirected as before;
// nothing is written any more, and every program says why. The long form goes the way back
// of deploy/RUNBOOK.md, PartitionsDiffer, and then the ledger is the oracle's.
func TestLiveChanges(t *testing.T) {
	t.Parallel()
	// It is stopped in order, so nobody waits for its session to end; and one that a busy
	// machine starves keeps its leaders.
	r := newRigOn(t, []string{"broker.session.timeout.ms=60000"})
	l := r.newLoad()
	stop := l.start(60, 30)
	r.awaitCount("requests answered", l.answeredCount, 200)

	r.adoptRegistry(l)
	r.addPartitions()
	r.checkNothingIsWritten(l)
	stop()
	if !long {
		return
	}
	r.restorePartitions()

	stop = l.start(60, 30)
	answered := l.answeredCount()
	r.awaitCount("requests answered after the way back", func() int64 { return l.answeredCount() - answered }, 200)
	stop()
	r.checkLedger(l)
}

// addPartitions does what the field saw, and waits until processors and sinks have ended.
func (r *rig) addPartitions() {
	r.t.Helper()
	judges := append(r.processors[:], r.sinks[:]...)
	for _, p := range judges {
		p.currentRun().expected.Store(true)
	}
	r.broker.RunTool(kafkatest.KafkaTopics, "--alter", "--topic", strings.Join(coPartitioned, "|"), "--partitions", "8")
	began := time.Now()
	for _, p := range judges {
		r.awaitEnd(p, partitionsDiffer...)
	}
	r.t.Logf("processors and sinks have ended %v after the last topic had 8 partitions",
		time.Since(began).Round(time.Millisecond))
	// A supervisor starts them again.
	for _, p := range []*childProcess{r.processors[0], r.sinks[0]} {
		if err := p.launch(); err != nil {
			r.t.Fatal(err)
		}
		p.currentRun().expected.Store(true)
		r.awaitEnd(p, partitionsDiffer...)
	}
}

// awaitEnd waits until a program has ended by itself, with a message that has all these
// parts.
func (r *rig) awaitEnd(p *childProcess, parts ...string) {
	r.t.Helper()
	run := p.currentRun()
	select {
	case <-run.done:
	case <-time.After(maxWait):
		r.t.Fatalf("%s has not ended after %v", p.name, maxWait)
	}
	lines := strings.Split(strings.TrimSpace(run.output.String()), "\n")
	last := lines[len(lines)-1]
	if run.err == nil {
		r.t.Errorf("%s has ended without an error", p.name)
	}
	for _, part := range parts {
		if !strings.Contains(last, part) {
			r.t.Errorf("the last line of %s does not say %q: %s", p.name, part, last)
		}
	}
}

// checkNothingIsWritten checks that redirector and gateway hold, and what they answer.
func (r *rig) checkNothingIsWritten(l *trafficLoad) {
	r.t.Helper()
	for _, p := range []*childProcess{r.redirector, r.gateway} {
		const metric = "partners_kafka_partitions_differ"
		r.awaitCount(metric+" of "+p.name, func() int64 { return int64(r.readMetric(p, metric)) }, 1)
		text, err := os.ReadFile(p.log)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, part := range partitionsDiffer {
			if !strings.Contains(string(text), part) {
				r.t.Errorf("%s does not say %q", p.name, part)
			}
		}
	}
	refused := l.unavailable.Load()
	r.awaitCount("events answered 503", func() int64 { return l.unavailable.Load() - refused }, 20)
	// What was on its way to Kafka may still arrive.
	ends, attempts := r.endOffsets(), 0
	for stopped := false; !stopped; attempts++ {
		backlog := r.readMetric(r.redirector, "partners_spool_backlog_bytes")
		redirected, before := l.redirects.Load(), ends
		r.awaitCount("visitors redirected", func() int64 { return l.redirects.Load() - redirected }, 100)
		ends = r.endOffsets()
		if stopped = ends == before; !stopped && attempts == 20 {
			r.t.Fatalf("records are written all the time:\n%s\nbefore:\n%s", ends, before)
		}
		if grown := r.readMetric(r.redirector, "partners_spool_backlog_bytes") - backlog; stopped && grown < 100 {
			r.t.Errorf("100 clicks added %v bytes to the spool's backlog", grown)
		}
	}
	for _, p := range []string{"/6 ", "/7 "} {
		if strings.Contains(ends, p) {
			r.t.Errorf("something is in partition%s: %s", p, ends)
		}
	}
}

// endOffsets lists partitions that are not empty.
func (r *rig) endOffsets() string {
	r.t.Helper()
	ends, err := r.adm.ListEndOffsets(r.t.Context(), coPartitioned...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	var lines []string
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			lines = append(lines, fmt.Sprintf("%s/%d %d", o.Topic, o.Partition, o.Offset))
		}
	})
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// runCtl runs a command of ctl against the rig's broker. It returns what it printed and
// its exit status.
func (r *rig) runCtl(args ...string) (said string, status int) {
	r.t.Helper()
	bin, err := binaries()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.CommandContext(r.t.Context(), filepath.Join(bin, "ctl"), args...)
	cmd.Env = append(os.Environ(), "PARTNERS_BROKERS="+strings.Join(r.broker.Brokers(), ","))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		r.t.Fatalf("ctl %s: %v", strings.Join(args, " "), err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// wantCtl runs a command of ctl, which must end with a status and say all parts. A broker
// that a busy machine starves has no leaders for a while: then it is run again.
func (r *rig) wantCtl(status int, parts []string, args ...string) {
	r.t.Helper()
	said, got := r.runCtl(args...)
	for again := 0; again < 20 && got != 0 && strings.Contains(said, "LEADER_NOT_AVAILABLE"); again++ {
		sleepContext(r.t.Context(), time.Second)
		said, got = r.runCtl(args...)
	}
	if got != status {
		r.t.Fatalf("ctl %s: status %d, want %d: %s", strings.Join(args, " "), got, status, said)
	}
	for _, part := range parts {
		if !strings.Contains(said, part) {
			r.t.Errorf("ctl %s does not say %q: %s", strings.Join(args, " "), part, said)
		}
	}
}

// restorePartitions is the way back of the runbook, step by step, with Kafka's own tools
// and file copies.
func (r *rig) restorePartitions() {
	r.t.Helper()
	r.wantCtl(1, append([]string{"topic clicks has 8, the installation was made with 6"}, partitionsDiffer...),
		"topics", "check", "-replication", "1")
	r.wantCtl(1, partitionsDiffer, "topics", "apply", "-replication", "1")
	if _, err := r.gateway.terminate(); err != nil {
		r.t.Fatal(err)
	}

	groups := map[string]string{}
	for _, group := range []string{topic.ProcessorGroup, topic.SinkGroup} {
		file := filepath.Join(r.dir, group+".csv")
		groups[group] = file
		said := r.broker.RunTool(kafkatest.KafkaConsumerGroups, "--group", group, "--all-topics", "--reset-offsets",
			"--to-current", "--dry-run", "--export")
		if err := os.WriteFile(file, []byte(said), 0o644); err != nil {
			r.t.Fatal(err)
		}
		r.t.Logf("%s:\n%s", group, said)
	}
	r.broker.Stop()
	kept := filepath.Join(r.dir, "kept")
	r.eachPartition(func(dir string) error {
		return os.CopyFS(filepath.Join(kept, filepath.Base(dir)), os.DirFS(dir))
	})
	r.broker.Start()
	r.recreateTopics()
	r.broker.Stop()
	r.eachPartition(func(dir string) error { return replaceLog(dir, filepath.Join(kept, filepath.Base(dir))) })
	r.broker.Start()
	for group, file := range groups {
		r.broker.RunTool(kafkatest.KafkaConsumerGroups, "--group", group, "--reset-offsets", "--from-file", file,
			"--execute")
	}

	r.wantCtl(1, []string{"topic clicks: 6 partitions, id ", "give -yes to adopt"}, "topics", "adopt")
	r.wantCtl(0, nil, "topics", "adopt", "-yes")
	r.wantCtl(0, nil, "topics", "check", "-replication", "1", "-schema-ids", r.schemaIDs())
	// Its client would not write to a topic of another id. The spool stays.
	if _, err := r.redirector.terminate(); err != nil {
		r.t.Fatal(err)
	}
	for _, p := range r.daemons() {
		if err := p.launch(); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, p := range r.daemons() {
		if err := p.awaitReady(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// eachPartition calls do with the broker's directory of each recorded partition of the
// co-partitioned topics.
func (r *rig) eachPartition(do func(dir string) error) {
	r.t.Helper()
	for _, name := range coPartitioned {
		for p := range kafkatest.Partitions {
			if err := do(filepath.Join(r.broker.DataDir(), fmt.Sprintf("%s-%d", name, p))); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// settingsOf are the settings of a topic in what `kafka-topics.sh --describe` prints.
var settingsOf = regexp.MustCompile(`(?m)^Topic: (\S+)\t.*Configs: (\S*)`)

// recreateTopics deletes the co-partitioned topics, and makes them again with the recorded
// count and the settings that they had.
func (r *rig) recreateTopics() {
	r.t.Helper()
	all := strings.Join(coPartitioned, "|")
	said := r.broker.RunTool(kafkatest.KafkaTopics, "--describe", "--topic", all)
	topics := settingsOf.FindAllStringSubmatch(said, -1)
	if len(topics) != len(coPartitioned) {
		r.t.Fatalf("the settings of %d topics: %s", len(topics), said)
	}
	r.broker.RunTool(kafkatest.KafkaTopics, "--delete", "--topic", all)
	for _, m := range topics {
		settings, last := map[string]*string{}, new(string)
		for word := range strings.SplitSeq(m[2], ",") {
			key, value, ok := strings.Cut(word, "=")
			if !ok { // the second of cleanup.policy=compact,delete
				*last += "," + word
				continue
			}
			last = &value
			settings[key] = last
		}
		if _, err := r.adm.CreateTopic(r.t.Context(), kafkatest.Partitions, 1, settings, m[1]); err != nil {
			r.t.Fatal(err)
		}
	}
}

// replaceLog replaces what a partition's directory holds by a copy, but for the file with
// the topic's id.
func replaceLog(dir, kept string) error {
	const identity = "partition.metadata"
	id, err := os.ReadFile(filepath.Join(dir, identity))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.CopyFS(dir, os.DirFS(kept)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, identity), id, 0o644)
}
