package kafkatest

import (
	"bytes"
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
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/twmb/franz-go/pkg/kadm"
)

// RealBroker is an Apache Kafka of one node that a test owns. Its methods end the test if they fail: call them from its goroutine.
type RealBroker struct {
	t         testing.TB
	java      string
	classPath string
	settings  []string
	dir       string
	cluster   string // its id
	port      int    // clients; the controller listens on the next one
	running   *child // nil while it is down
}

// Real starts Apache Kafka without topics, and ends it with the test. settings are lines of server.properties that come after ours. It skips the test where Java 17 or Maven is missing, or fails it if PARTNERS_REQUIRE_KAFKA=1.
func Real(t testing.TB, settings ...string) *RealBroker {
	t.Helper()
	return start(t, (*flock.Flock).TryRLockContext, settings)
}

// Alone is Real for a test that needs the whole machine: no other broker of this user's tests runs beside it, in whatever package.
func Alone(t testing.TB, settings ...string) *RealBroker {
	t.Helper()
	return start(t, (*flock.Flock).TryLockContext, settings)
}

func start(t testing.TB, lock func(*flock.Flock, context.Context, time.Duration) (bool, error), settings []string) *RealBroker {
	t.Helper()
	b := &RealBroker{t: t, settings: settings}
	b.require()
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
	t.Cleanup(b.cleanup)
	for attempt := 1; ; attempt++ {
		err := b.format()
		if err == nil {
			err = b.boot()
		}
		if err == nil {
			return b
		}
		b.end()
		if attempt == 3 || !strings.Contains(b.logged(), "Address already in use") {
			t.Fatalf("starting Apache Kafka: %v", err)
		}
	}
}

// require ends the test where Apache Kafka cannot run.
func (b *RealBroker) require() {
	b.t.Helper()
	err := b.prepare(b.t.Context())
	switch {
	case errors.Is(err, errUnavailable) && os.Getenv("PARTNERS_REQUIRE_KAFKA") != "1":
		b.t.Skipf("SKIP: %v", err)
	case err != nil:
		b.t.Fatal(err)
	}
}

// Brokers is where it listens, also while it is down.
func (b *RealBroker) Brokers() []string { return []string{fmt.Sprintf("127.0.0.1:%d", b.port)} }

// Kill ends it as a crash would, by SIGKILL. What it acknowledged is kept: it is the machine that does not crash.
func (b *RealBroker) Kill() {
	b.t.Helper()
	if b.running == nil {
		b.t.Fatal("Apache Kafka is not running")
	}
	b.end()
}

// Stop ends it in order: transactions and groups are handed over, logs are closed.
func (b *RealBroker) Stop() {
	b.t.Helper()
	if b.running == nil {
		b.t.Fatal("Apache Kafka is not running")
	}
	_ = b.running.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-b.running.done:
	case <-time.After(30 * time.Second):
		b.t.Error("Apache Kafka does not stop: killing it")
	}
	b.end()
}

// Start starts it again, with its data and on its port, and returns when it answers.
func (b *RealBroker) Start() {
	b.t.Helper()
	if b.running != nil {
		b.t.Fatal("Apache Kafka is running")
	}
	if err := b.boot(); err != nil {
		b.t.Fatalf("starting Apache Kafka again: %v", err)
	}
}

// end makes sure that it is gone.
func (b *RealBroker) end() {
	if b.running != nil {
		b.running.kill()
		b.running = nil
	}
}

// cleanup keeps the log of a test that failed, and nothing else.
func (b *RealBroker) cleanup() {
	b.end()
	remove := b.dir
	if b.t.Failed() {
		remove = filepath.Join(b.dir, "data")
		b.t.Logf("the log of Apache Kafka is %s; it ends:\n%s", b.logFile(), lastLines(b.logged(), 30))
	}
	if err := os.RemoveAll(remove); err != nil {
		b.t.Errorf("removing the data of Apache Kafka: %v", err)
	}
}

func (b *RealBroker) logFile() string { return filepath.Join(b.dir, "broker.log") }

func (b *RealBroker) logged() string {
	text, err := os.ReadFile(b.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// prepare finds Java and the jars.
func (b *RealBroker) prepare(ctx context.Context) error {
	java, err := exec.LookPath("java")
	if err != nil {
		return fmt.Errorf("%w: java is not in PATH: install a Java runtime, version 17 or newer", errUnavailable)
	}
	said, err := exec.CommandContext(ctx, java, "-version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: asking java for its version: %w: %s", errUnavailable, err, lastLines(string(said), 5))
	}
	if v := javaVersion(string(said)); v < 17 {
		return fmt.Errorf("%w: it needs Java 17 or newer, and this is %q", errUnavailable, lastLines(string(said), 5))
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("not done after 5 minutes"))
	defer cancel()
	files, err := jars(ctx, filepath.Join(cache, "nimriz-partners"), manifest, maven)
	if err != nil {
		return err
	}
	b.java, b.classPath = java, strings.Join(files, string(os.PathListSeparator))
	return nil
}

var javaVersionText = regexp.MustCompile(`version "(\d+)`)

// javaVersion is the major version in what `java -version` says, 0 if there is none. Java 8 calls itself 1.8.
func javaVersion(said string) int {
	m := javaVersionText.FindStringSubmatch(said)
	if m == nil {
		return 0
	}
	v, _ := strconv.Atoi(m[1])
	return v
}

// properties are the settings of a node whose clients and tests are all on this machine and in a hurry. Everything about transactions and messages that is not here is Kafka's default.
func (b *RealBroker) properties() string {
	return fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:%[2]d
listeners=PLAINTEXT://127.0.0.1:%[1]d,CONTROLLER://127.0.0.1:%[2]d
advertised.listeners=PLAINTEXT://127.0.0.1:%[1]d
controller.listener.names=CONTROLLER
log.dirs=%[3]s
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
%[4]s
`, b.port, b.port+1, filepath.Join(b.dir, "data"), strings.Join(b.settings, "\n"))
}

// command runs one of Kafka's programs; its settings are in server.properties.
func (b *RealBroker) command(out io.Writer, class string, args ...string) *exec.Cmd {
	cmd := exec.Command(b.java, append([]string{"-Xms256m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.clients.NetworkClient=error",
		"-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
		"-cp", b.classPath, class}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.dir, out, out
	return cmd
}

// format picks ports and makes an empty log directory for them.
func (b *RealBroker) format() error {
	if err := os.RemoveAll(filepath.Join(b.dir, "data")); err != nil {
		return fmt.Errorf("removing the data of a failed start: %w", err)
	}
	port, err := freePorts()
	if err != nil {
		return err
	}
	id := make([]byte, 16)
	crand.Read(id)
	id[0] &= 0x7f // an id that begins with a dash would be a flag
	b.port, b.cluster = port, base64.RawURLEncoding.EncodeToString(id)
	if err := os.WriteFile(filepath.Join(b.dir, "server.properties"), []byte(b.properties()), 0o644); err != nil {
		return fmt.Errorf("writing the settings: %w", err)
	}
	var said bytes.Buffer
	c, err := startChild(b.command(&said, "kafka.tools.StorageTool", "format", "--standalone", "-t", b.cluster, "-c", "server.properties"))
	if err != nil {
		return fmt.Errorf("formatting its log directory: %w", err)
	}
	if <-c.done; c.err != nil {
		return fmt.Errorf("formatting its log directory: %w: %s", c.err, lastLines(said.String(), 10))
	}
	return nil
}

// freePorts returns a port that is free together with the next one. See "Non-obvious" for why it is not the kernel that picks.
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

// boot starts the broker and waits until it answers.
func (b *RealBroker) boot() error {
	log, err := os.OpenFile(b.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("opening its log: %w", err)
	}
	defer log.Close() // the child has its own
	fmt.Fprintf(log, "%s starting on port %d\n", time.Now().Format("15:04:05.000"), b.port)
	b.running, err = startChild(b.command(log, "kafka.Kafka", "server.properties"))
	if err != nil {
		b.running = nil
		return err
	}
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); {
		if b.answers() {
			return nil
		}
		select {
		case <-b.running.done:
			return fmt.Errorf("it ended: %w", b.running.err)
		case <-b.t.Context().Done():
			return context.Cause(b.t.Context())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return errors.New("it does not answer after 60 s")
}

// answers reports whether our broker is there: on its port another test's might be.
func (b *RealBroker) answers() bool {
	conn, err := net.DialTimeout("tcp", b.Brokers()[0], time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	cl, err := kafka.NewClient(config(b.Brokers()), discard(), nil)
	if err != nil {
		return false
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Second)
	defer cancel()
	meta, err := kadm.NewClient(cl).BrokerMetadata(ctx)
	return err == nil && meta.Cluster == b.cluster
}
