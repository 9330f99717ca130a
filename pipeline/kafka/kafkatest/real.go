package kafkatest

import (
	"context"
	crand "crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/twmb/franz-go/pkg/kadm"
)

// RealBroker is an Apache Kafka of one or three nodes that a test owns. Its methods end
// the test if they fail, so they must be called from the test's goroutine.
type RealBroker struct {
	t         testing.TB
	kafka     installation
	settings  []string // lines of server.properties that come after ours
	dir       string   // of all nodes
	clusterID string
	nodes     []*node

	extraListeners []extraListener // of a broker of one node, beside the plaintext one
	javaFlags      []string
}

// extraListener is one for clients, known to them as localhost.
type extraListener struct {
	name string // in the settings
	port int
}

// node is one JVM, broker and controller at once.
type node struct {
	id      int           // from 1
	dir     string        // settings, data and log
	port    int           // of clients; the controller listens on the next one
	running *childProcess // nil while it is down
}

// Real starts Apache Kafka without topics, and ends it with the test. settings are
// lines of server.properties that come after ours. It skips the test where Java 17 or
// Maven is missing, or fails it if PARTNERS_REQUIRE_KAFKA=1.
func Real(t testing.TB, settings ...string) *RealBroker {
	t.Helper()
	return startReal(t, 1, (*flock.Flock).TryRLockContext, settings)
}

// Alone is Real for a test that needs the whole machine: no other broker of this user's
// tests runs at the same time, in any package.
func Alone(t testing.TB, settings ...string) *RealBroker {
	t.Helper()
	return startReal(t, 1, (*flock.Flock).TryLockContext, settings)
}

// Three is Alone with three nodes: three replicas of everything, of which two must
// acknowledge.
func Three(t testing.TB, settings ...string) *RealBroker {
	t.Helper()
	return startReal(t, 3, (*flock.Flock).TryLockContext, settings)
}

// RealFrom is Real with the data of an earlier broker of one node: dataDir, which
// DataDir returned after Stop. It works on a copy.
func RealFrom(t testing.TB, dataDir string, settings ...string) *RealBroker {
	t.Helper()
	b := prepareReal(t, 1, (*flock.Flock).TryRLockContext, settings)
	if err := b.adoptData(dataDir); err != nil {
		t.Fatalf("taking over the data of an earlier Apache Kafka: %v", err)
	}
	if err := b.bootNodes(b.nodes); err != nil {
		t.Fatalf("starting Apache Kafka on the data of an earlier one: %v", err)
	}
	return b
}

func startReal(t testing.TB, nodes int, lock func(*flock.Flock, context.Context, time.Duration) (bool, error),
	settings []string) *RealBroker {
	t.Helper()
	b := prepareReal(t, nodes, lock, settings)
	b.formatAndBoot()
	return b
}

// formatAndBoot starts it for the first time.
func (b *RealBroker) formatAndBoot() {
	b.t.Helper()
	for attempt := 1; ; attempt++ {
		err := b.formatNodes()
		if err == nil {
			err = b.bootNodes(b.nodes)
		}
		if err == nil {
			return
		}
		b.killAllNodes()
		if attempt == 3 || !strings.Contains(b.readLogs(), "Address already in use") {
			b.t.Fatalf("starting Apache Kafka: %v", err)
		}
	}
}

// prepareReal makes the broker's directory, without data, and removes it with the test.
func prepareReal(t testing.TB, nodes int, lock func(*flock.Flock, context.Context, time.Duration) (bool, error),
	settings []string) *RealBroker {
	t.Helper()
	b := &RealBroker{t: t, settings: settings}
	b.requireKafka()
	file := flock.New(filepath.Join(os.TempDir(), fmt.Sprintf("kafkatest-%d.lock", os.Getuid())))
	if _, err := lock(file, t.Context(), 100*time.Millisecond); err != nil {
		t.Fatalf("waiting for the tests that use Apache Kafka beside this one: %v", err)
	}
	t.Cleanup(func() { file.Close() })
	dir, err := os.MkdirTemp("", "kafkatest-")
	if err != nil {
		t.Fatalf("making a directory for Apache Kafka: %v", err)
	}
	b.dir = dir
	for i := range nodes {
		b.nodes = append(b.nodes, &node{id: i + 1, dir: filepath.Join(dir, fmt.Sprint("node-", i+1))})
	}
	t.Cleanup(b.removeData)
	return b
}

// adoptData gives the only node the data of an earlier one.
func (b *RealBroker) adoptData(dataDir string) error {
	n := b.nodes[0]
	meta, err := os.ReadFile(filepath.Join(dataDir, "meta.properties"))
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(meta), "\n") {
		if id, ok := strings.CutPrefix(line, "cluster.id="); ok {
			b.clusterID = id
		}
	}
	if b.clusterID == "" {
		return fmt.Errorf("%s: no cluster.id in meta.properties", dataDir)
	}
	if n.port, err = freePorts(); err != nil {
		return err
	}
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return err
	}
	if err := os.CopyFS(n.dataDir(), os.DirFS(dataDir)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.dir, "server.properties"), []byte(b.serverProperties(n)), 0o644)
}

// DataDir is where the first node keeps its data.
func (b *RealBroker) DataDir() string { return b.nodes[0].dataDir() }

// requireKafka skips or fails the test if Apache Kafka cannot run on this machine.
func (b *RealBroker) requireKafka() {
	b.t.Helper()
	var err error
	b.kafka, err = findKafka(b.t)
	switch {
	case errors.Is(err, errUnavailable) && os.Getenv("PARTNERS_REQUIRE_KAFKA") != "1":
		b.t.Skipf("SKIP: %v", err)
	case err != nil:
		b.t.Fatal(err)
	}
}

// Brokers returns the addresses of its nodes, also of those that are down.
func (b *RealBroker) Brokers() (addresses []string) {
	for _, n := range b.nodes {
		addresses = append(addresses, n.address())
	}
	return addresses
}

func (n *node) address() string { return fmt.Sprintf("127.0.0.1:%d", n.port) }

// Kill ends it by SIGKILL, as a crash of the process would. The machine does not crash,
// so what it acknowledged is kept.
func (b *RealBroker) Kill() {
	b.t.Helper()
	for i := range b.nodes {
		b.KillNode(i)
	}
}

// Stop ends it in order: transactions and groups are handed over, logs are closed.
func (b *RealBroker) Stop() {
	b.t.Helper()
	for i := range b.nodes {
		b.StopNode(i)
	}
}

// Start starts it again, with its data and on its ports, and returns when every node
// answers.
func (b *RealBroker) Start() {
	b.t.Helper()
	for _, n := range b.nodes {
		b.requireState(n, false)
	}
	if err := b.bootNodes(b.nodes); err != nil {
		b.t.Fatalf("starting Apache Kafka again: %v", err)
	}
}

// KillNode is Kill for one node, counted from 0.
func (b *RealBroker) KillNode(i int) {
	b.t.Helper()
	b.requireState(b.nodes[i], true)
	b.nodes[i].killProcess()
}

// StopNode is Stop for one node.
func (b *RealBroker) StopNode(i int) {
	b.t.Helper()
	n := b.nodes[i]
	b.requireState(n, true)
	_ = n.running.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.running.done:
	case <-time.After(waitLimit):
		b.t.Errorf("node %d of Apache Kafka does not stop: killing it", n.id)
	}
	n.killProcess()
}

// StartNode is Start for one node.
func (b *RealBroker) StartNode(i int) {
	b.t.Helper()
	b.requireState(b.nodes[i], false)
	if err := b.bootNodes(b.nodes[i : i+1]); err != nil {
		b.t.Fatalf("starting node %d of Apache Kafka again: %v", i+1, err)
	}
}

// requireState fails the test unless a node is running, or is not, as it should be.
func (b *RealBroker) requireState(n *node, running bool) {
	b.t.Helper()
	if (n.running != nil) != running {
		b.t.Fatalf("node %d of Apache Kafka runs: %v", n.id, !running)
	}
}

// killProcess kills the node if it runs.
func (n *node) killProcess() {
	if n.running != nil {
		n.running.killAndWait()
		n.running = nil
	}
}

func (b *RealBroker) killAllNodes() {
	for _, n := range b.nodes {
		n.killProcess()
	}
}

// removeData removes all data. It keeps the logs of a test that failed.
func (b *RealBroker) removeData() {
	b.killAllNodes()
	remove := []string{b.dir}
	if b.t.Failed() {
		remove = nil
		for _, n := range b.nodes {
			remove = append(remove, n.dataDir())
			b.t.Logf("the log of Apache Kafka is %s; it ends:\n%s", n.logFile(), lastLines(n.readLog(), 30))
		}
	}
	for _, dir := range remove {
		if err := os.RemoveAll(dir); err != nil {
			b.t.Errorf("removing the data of Apache Kafka: %v", err)
		}
	}
}

func (n *node) dataDir() string { return filepath.Join(n.dir, "data") }

func (n *node) logFile() string { return filepath.Join(n.dir, "broker.log") }

func (n *node) readLog() string {
	text, err := os.ReadFile(n.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (b *RealBroker) readLogs() (text string) {
	for _, n := range b.nodes {
		text += n.readLog()
	}
	return text
}

// serverProperties are the settings of a node whose clients and tests are all on this
// machine and in a hurry. Everything about transactions and messages that is not here
// is Kafka's default.
func (b *RealBroker) serverProperties(n *node) string {
	var controllers, voters []string
	for _, other := range b.nodes {
		controllers = append(controllers, fmt.Sprintf("127.0.0.1:%d", other.port+1))
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", other.id, other.port+1))
	}
	var listeners, advertised string
	for _, l := range b.extraListeners {
		listeners += fmt.Sprintf(",%s://127.0.0.1:%d", l.name, l.port)
		advertised += fmt.Sprintf(",%s://localhost:%d", l.name, l.port)
	}
	replicas := len(b.nodes)
	return fmt.Sprintf(`process.roles=broker,controller
node.id=%[1]d
controller.quorum.bootstrap.servers=%[2]s
controller.quorum.voters=%[11]s
listeners=PLAINTEXT://127.0.0.1:%[3]d,CONTROLLER://127.0.0.1:%[4]d%[9]s
advertised.listeners=PLAINTEXT://127.0.0.1:%[3]d%[10]s
controller.listener.names=CONTROLLER
log.dirs=%[5]s
default.replication.factor=%[6]d
min.insync.replicas=%[7]d
offsets.topic.replication.factor=%[6]d
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=%[6]d
transaction.state.log.min.isr=%[7]d
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=%[6]d
share.coordinator.state.topic.min.isr=%[7]d
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
%[8]s
`, n.id, strings.Join(controllers, ","), n.port, n.port+1, n.dataDir(), replicas, max(1, replicas-1),
		strings.Join(b.settings, "\n"), listeners, advertised, strings.Join(voters, ","))
}

// javaCommand runs one of Kafka's programs for a node, whose settings are in
// server.properties.
func (b *RealBroker) javaCommand(n *node, out io.Writer, class string, args ...string) *exec.Cmd {
	flags := append([]string{"-Xms256m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
		"-Xshare:auto",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-Dorg.slf4j.simpleLogger.log.org.apache.kafka.clients.NetworkClient=error",
		"-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
		"-cp", b.kafka.classPath}, b.javaFlags...)
	if b.kafka.classes != "" {
		flags = append(flags, "-XX:SharedArchiveFile="+b.kafka.classes)
	}
	cmd := exec.Command(b.kafka.java, slices.Concat(flags, []string{class}, args)...)
	cmd.Dir = n.dir
	cmd.Stdout = out
	cmd.Stderr = out
	return cmd
}

// formatNodes picks ports and makes empty log directories for them.
func (b *RealBroker) formatNodes() error {
	b.clusterID = newID()
	for _, n := range b.nodes {
		if err := os.RemoveAll(n.dataDir()); err != nil {
			return fmt.Errorf("removing the data of a failed start: %w", err)
		}
		for taken := true; taken; {
			port, err := freePorts()
			if err != nil {
				return err
			}
			n.port = port
			taken = slices.ContainsFunc(b.nodes, func(other *node) bool {
				return other.id < n.id && other.port == port
			})
		}
	}
	for _, n := range b.nodes {
		if err := b.formatNode(n); err != nil {
			return err
		}
	}
	return nil
}

// formatNode leaves what Kafka's own format command leaves: it would take as much work
// as all of the start.
func (b *RealBroker) formatNode(n *node) error {
	meta := fmt.Sprintf("version=1\ncluster.id=%s\nnode.id=%d\ndirectory.id=%s\n", b.clusterID, n.id, newID())
	err := os.MkdirAll(n.dataDir(), 0o755)
	for path, text := range map[string]string{
		filepath.Join(n.dir, "server.properties"):     b.serverProperties(n),
		filepath.Join(n.dataDir(), "meta.properties"): meta,
		filepath.Join(n.dataDir(), bootstrapFile):     b.kafka.bootstrap,
	} {
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
	}
	if err != nil {
		return fmt.Errorf("formatting its log directory: %w", err)
	}
	return nil
}

// newID is a random id as Kafka writes them.
func newID() string {
	id := make([]byte, 16)
	crand.Read(id)
	id[0] &= 0x7f // an id that begins with a dash would be a flag
	return base64.RawURLEncoding.EncodeToString(id)
}

// freePorts returns a port that is free together with the next one. See "Non-obvious"
// for why it is not the kernel that picks.
func freePorts() (int, error) {
	for range 50 {
		port := 20_000 + 2*rand.IntN(6_000)
		a, err1 := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err1 == nil {
			a.Close()
		}
		c, err2 := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		if err2 == nil {
			c.Close()
		}
		if err1 == nil && err2 == nil {
			return port, nil
		}
	}
	return 0, errors.New("no two free ports in a row between 20000 and 32000")
}

// bootNodes starts nodes and waits until the cluster counts them in.
func (b *RealBroker) bootNodes(nodes []*node) error {
	for _, n := range nodes {
		if err := b.launchNode(n); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(waitLimit)
	for _, n := range nodes {
		for !b.isReady(n) {
			if time.Now().After(deadline) {
				return fmt.Errorf("node %d does not answer after %v", n.id, waitLimit)
			}
			select {
			case <-n.running.done:
				return fmt.Errorf("node %d ended: %w", n.id, n.running.err)
			case <-b.t.Context().Done():
				return context.Cause(b.t.Context())
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

func (b *RealBroker) launchNode(n *node) error {
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("opening its log: %w", err)
	}
	defer log.Close() // the child has its own
	fmt.Fprintf(log, "%s starting on port %d\n", time.Now().Format("15:04:05.000"), n.port)
	n.running, err = startChild(b.javaCommand(n, log, "kafka.Kafka", "server.properties"))
	if err != nil {
		n.running = nil
	}
	return err
}

// isReady reports whether our node is there and belongs to the cluster: on its port
// another test's might be.
func (b *RealBroker) isReady(n *node) bool {
	conn, err := net.DialTimeout("tcp", n.address(), time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	cl, err := kafka.NewClient(clientConfig([]string{n.address()}), discardLogger(), nil)
	if err != nil {
		return false
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Second)
	defer cancel()
	meta, err := kadm.NewClient(cl).BrokerMetadata(ctx)
	isNode := func(d kadm.BrokerDetail) bool { return int(d.NodeID) == n.id }
	return err == nil && meta.Cluster == b.clusterID && slices.ContainsFunc(meta.Brokers, isNode)
}
