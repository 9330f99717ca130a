package kafkatest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The broker keeps what it acknowledged over a crash and over a stop, on the same port.
func TestRealKeepsItsLog(t *testing.T) {
	began := time.Now()
	b := Real(t)
	Topics(t, b.Brokers())
	t.Logf("started, with topics, in %v", time.Since(began).Round(time.Millisecond))
	put := func(v string) {
		Produce(t, b.Brokers(), &kgo.Record{Topic: topic.Clicks, Partition: 1, Value: []byte(v)})
	}
	put("a")
	port := b.Brokers()[0]
	b.Kill()
	if b.isReady(b.nodes[0]) {
		t.Error("a killed broker answers")
	}
	began = time.Now()
	b.Start()
	t.Logf("back after a kill in %v", time.Since(began).Round(time.Millisecond))
	put("b")
	b.Stop()
	began = time.Now()
	b.Start()
	t.Logf("back after a stop in %v", time.Since(began).Round(time.Millisecond))
	put("c")
	var got string
	for _, r := range Consume(t, b.Brokers(), topic.Clicks) {
		got += string(r.Value)
	}
	if got != "abc" || b.Brokers()[0] != port {
		t.Errorf("read %q from %s, want abc from %s", got, b.Brokers()[0], port)
	}
}

// Three nodes go on without one of them, and count it in again, with all it had.
func TestRealThree(t *testing.T) {
	if os.Getenv("PARTNERS_TEST_LONG") != "1" {
		t.Skip("SKIP: only the long matrix (PARTNERS_TEST_LONG=1) has three nodes")
	}
	began := time.Now()
	b := Three(t)
	Topics(t, b.Brokers())
	t.Logf("started, with topics, in %v", time.Since(began).Round(time.Millisecond))
	put := func(v string) {
		Produce(t, b.Brokers(), &kgo.Record{Topic: topic.Clicks, Partition: 1, Value: []byte(v)})
	}
	put("a")
	b.KillNode(1)
	began = time.Now()
	put("b")
	t.Logf("a node killed, and written without it after %v", time.Since(began).Round(time.Millisecond))
	b.StartNode(1)
	replicated(t, b, 3)
	b.StopNode(0)
	replicated(t, b, 2)
	put("c")
	var got string
	for _, r := range Consume(t, b.Brokers(), topic.Clicks) {
		got += string(r.Value)
	}
	if got != "abc" {
		t.Errorf("read %q, want abc", got)
	}
}

// replicated waits until every partition of clicks has so many replicas in sync, of
// three.
func replicated(t *testing.T, b *RealBroker, inSync int) {
	t.Helper()
	adm := kadm.NewClient(Client(t, b.Brokers()))
	eventually(t, func() bool {
		have, err := adm.ListTopics(t.Context(), topic.Clicks)
		partitions := have[topic.Clicks].Partitions
		ok := err == nil && len(partitions) == Partitions
		for _, p := range partitions {
			ok = ok && len(p.Replicas) == 3 && len(p.ISR) == inSync
		}
		return ok
	})
}

// A test process that is killed takes its broker along.
func TestRealDiesWithTheTest(t *testing.T) {
	if path := os.Getenv("PARTNERS_TEST_ORPHAN"); path != "" {
		b := Real(t)
		if err := os.WriteFile(path, []byte(fmt.Sprint(b.nodes[0].running.cmd.Process.Pid, " ", b.dir)),
			0o644); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	(&RealBroker{t: t}).requireKafka()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(self, "-test.run=^TestRealDiesWithTheTest$", "-test.timeout="+waitLimit.String())
	cmd.Env = append(os.Environ(), "PARTNERS_TEST_ORPHAN="+path)
	c, err := startChild(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer c.killAndWait()
	eventually(t, func() bool { b, err := os.ReadFile(path); return err == nil && len(b) > 0 })
	said, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text, dir, _ := strings.Cut(string(said), " ")
	t.Cleanup(func() { os.RemoveAll(dir) })
	pid, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the broker is not there before the kill: %v", err)
	}
	c.killAndWait()
	// The orphan is a zombie until its new parent reaps it.
	eventually(t, func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || bytes.Contains(stat, []byte(") Z "))
	})
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v", waitLimit)
		}
	}
}

// Jars are fetched once, however many ask, and used only if they are the pinned ones.
func TestJars(t *testing.T) {
	line := func(name, content string) string {
		return fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(content)), name)
	}
	sums := line("a.jar", "A") + line("b.jar", "B")
	write := func(t *testing.T, dir, name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	get := func(t *testing.T, calls *atomic.Int64, b string) jarFetcher {
		return func(_ context.Context, dir string) error {
			calls.Add(1)
			write(t, dir, "a.jar", "A")
			time.Sleep(50 * time.Millisecond)
			write(t, dir, "b.jar", b)
			return nil
		}
	}
	t.Run("once", func(t *testing.T) {
		cache := filepath.Join(t.TempDir(), "cache")
		var calls atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				got, err := ensureJars(t.Context(), cache, sums, get(t, &calls, "B"))
				if err != nil || len(got) != 2 || filepath.Base(got[1]) != "b.jar" {
					t.Errorf("got %v, %v", got, err)
				}
			})
		}
		wg.Wait()
		if calls.Load() != 1 {
			t.Errorf("fetched %d times", calls.Load())
		}
		left, _ := filepath.Glob(filepath.Join(cache, "kafka-fetch-*"))
		if left != nil {
			t.Errorf("left behind: %v", left)
		}
		write(t, filepath.Join(cache, "kafka-"+kafkaVersion), "a.jar", "x")
		if _, err := ensureJars(t.Context(), cache, sums, nil); err == nil ||
			!strings.Contains(err.Error(), "not the published file") {
			t.Errorf("a damaged copy: %v", err)
		}
	})
	t.Run("another file", func(t *testing.T) {
		var calls atomic.Int64
		cache := t.TempDir()
		_, err := ensureJars(t.Context(), cache, sums, get(t, &calls, "other"))
		if err == nil || errors.Is(err, errUnavailable) || !strings.Contains(err.Error(), "b.jar has the SHA-256") {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(filepath.Join(cache, "kafka-"+kafkaVersion)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it was installed: %v", err)
		}
	})
	t.Run("no network", func(t *testing.T) {
		broken := errors.New("broken")
		if _, err := ensureJars(t.Context(), t.TempDir(), sums, func(context.Context, string) error {
			return broken
		}); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a killed fetch", func(t *testing.T) {
		cache, calls := t.TempDir(), atomic.Int64{}
		left := filepath.Join(cache, "kafka-fetch-1")
		if err := os.Mkdir(left, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := ensureJars(t.Context(), cache, sums, get(t, &calls, "B")); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("still there: %v", err)
		}
	})
}

func TestJavaVersion(t *testing.T) {
	f := func(said string, want int) {
		t.Helper()
		if got := javaVersion(said); got != want {
			t.Errorf("%q: got %d, want %d", said, got, want)
		}
	}
	f("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime Environment", 17)
	f(`openjdk version "25" 2025-09-16`, 25)
	f(`java version "1.8.0_452"`, 1)
	f("command not found", 0)
}
