package kafkatest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/nimriz/partners/schemas/topic"
)

// installation is Apache Kafka as this machine can run it.
type installation struct {
	java      string // path of the command
	classPath string // the jars
	classes   string // path of the JVM's archive of them, "" for none
	bootstrap string // what the format command writes into a log directory: bootstrap.checkpoint
}

// found is this process's installation, once a test has asked for it.
var found struct {
	sync.Mutex
	installation
}

// findKafka finds Java, fetches the jars, and prepares them, all of it once.
func findKafka(t testing.TB) (installation, error) {
	t.Helper()
	found.Lock()
	defer found.Unlock()
	if found.java != "" {
		return found.installation, nil
	}
	in, version, err := findJavaAndJars(t.Context())
	if err != nil {
		return installation{}, err
	}
	if err := in.prepare(t, version); err != nil {
		return installation{}, fmt.Errorf("preparing Apache Kafka: %w", err)
	}
	found.installation = in
	return in, nil
}

// findJavaAndJars finds Java and the jars, and says which Java it is.
func findJavaAndJars(ctx context.Context) (in installation, version string, err error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return in, "", fmt.Errorf("%w: java is not in PATH: install a Java runtime, version 17 or newer",
			errUnavailable)
	}
	said, err := exec.CommandContext(ctx, java, "-version").CombinedOutput()
	if err != nil {
		return in, "", fmt.Errorf("%w: asking java for its version: %w: %s", errUnavailable, err,
			lastLines(string(said), 5))
	}
	if v := javaVersion(string(said)); v < 17 {
		return in, "", fmt.Errorf("%w: it needs Java 17 or newer, and this is %q", errUnavailable,
			lastLines(string(said), 5))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("not done after 5 minutes"))
	defer cancel()
	files, err := ensureJars(ctx, cacheDir(), jarSums, fetchWithMaven)
	if err != nil {
		return in, "", err
	}
	return installation{java: java, classPath: strings.Join(files, string(os.PathListSeparator))}, string(said), nil
}

// cacheDir is where this package keeps what it fetched, and what it made of that.
func cacheDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "nimriz-partners")
}

var javaVersionText = regexp.MustCompile(`version "(\d+)`)

// javaVersion is the major version in what `java -version` says, 0 if there is none.
// Java 8 calls itself 1.8.
func javaVersion(said string) int {
	m := javaVersionText.FindStringSubmatch(said)
	if m == nil {
		return 0
	}
	v, _ := strconv.Atoi(m[1])
	return v
}

const (
	bootstrapFile = "bootstrap.checkpoint"
	classesFile   = "classes.jsa"
)

// maxPreparing is how long the preparation may take, which others wait for.
const maxPreparing = 10 * time.Minute

// prepare takes what was prepared for these jars and this Java, or makes it: in the
// user's cache, once.
func (in *installation) prepare(t testing.TB, javaVersion string) error {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), maxPreparing, fmt.Errorf("not done after %v", maxPreparing))
	defer cancel()
	made := sha256.Sum256([]byte(in.java + "\n" + javaVersion + "\n" + in.classPath))
	const name = "kafka-prepared"
	version := fmt.Sprintf("%s-%x", kafkaVersion, made[:8])
	if _, err := ensureFiles(ctx, cacheDir(), name, version, "", func(ctx context.Context, dir string) error {
		return in.prepareInto(ctx, t, dir)
	}); err != nil {
		return err
	}
	dir := filepath.Join(cacheDir(), name+"-"+version)
	bootstrap, err := os.ReadFile(filepath.Join(dir, bootstrapFile))
	if err != nil {
		return err
	}
	in.bootstrap = string(bootstrap)
	// A JVM that wrote no archive starts slower.
	if _, err := os.Stat(filepath.Join(dir, classesFile)); err == nil {
		in.classes = filepath.Join(dir, classesFile)
	}
	return nil
}

// prepareInto formats a log directory with Kafka's own command, and lets a broker live
// on it for a moment: the JVM writes down the classes that it has loaded by its end.
func (in *installation) prepareInto(ctx context.Context, t testing.TB, dir string) error {
	t.Helper()
	n := &node{id: 1, dir: filepath.Join(dir, "node")}
	b := &RealBroker{t: t, kafka: *in, dir: dir, nodes: []*node{n},
		javaFlags: []string{"-XX:ArchiveClassesAtExit=" + filepath.Join(dir, classesFile), "-Xlog:cds=off",
			"-Xlog:cds+dynamic=off"}}
	defer os.RemoveAll(n.dir)
	if err := b.runFormat(n, filepath.Join(dir, bootstrapFile)); err != nil {
		return err
	}
	bootstrap, err := os.ReadFile(filepath.Join(dir, bootstrapFile))
	if err != nil {
		return err
	}
	b.kafka.bootstrap = string(bootstrap)
	defer b.killAllNodes()
	b.formatAndBoot()
	Topics(t, b.Brokers())
	cl := Client(t, b.Brokers(), kgo.TransactionalID("prepared"))
	if err := errors.Join(cl.BeginTransaction(), cl.ProduceSync(ctx, &kgo.Record{Topic: topic.Clicks}).FirstErr(),
		cl.EndTransaction(ctx, kgo.TryCommit)); err != nil {
		return fmt.Errorf("producing: %w", err)
	}
	cl.Close()
	Consume(t, b.Brokers(), topic.Clicks)
	if err := n.running.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping the broker: %w", err)
	}
	select {
	case <-n.running.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the end of the broker: %w", context.Cause(ctx))
	}
}

// runFormat formats a log directory with Kafka's own command, and keeps of it the file
// with the levels of its features.
func (b *RealBroker) runFormat(n *node, bootstrap string) error {
	b.clusterID = newID()
	port, err := freePorts()
	if err != nil {
		return err
	}
	n.port = port
	settings := filepath.Join(n.dir, "server.properties")
	if err := errors.Join(os.MkdirAll(n.dir, 0o755),
		os.WriteFile(settings, []byte(b.serverProperties(n)), 0o644)); err != nil {
		return fmt.Errorf("writing the settings: %w", err)
	}
	var said strings.Builder
	format := *b
	format.javaFlags = nil
	c, err := startChild(format.javaCommand(n, &said, "kafka.tools.StorageTool", "format",
		"-t", b.clusterID, "-c", "server.properties"))
	if err == nil {
		<-c.done
		err = c.err
	}
	if err == nil {
		err = os.Rename(filepath.Join(n.dataDir(), bootstrapFile), bootstrap)
	}
	if err != nil {
		return fmt.Errorf("formatting its log directory: %w: %s", err, lastLines(said.String(), 10))
	}
	return nil
}
