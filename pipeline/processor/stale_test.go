package processor_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
)

// notes collects what a processor logs.
type notes struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (n *notes) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.buf.Write(b)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.buf.String()
}

// State that the log can no longer bring up to date is rebuilt, and what is newer than
// it is judged all the same: state so old that tombstones may be gone, and state whose
// position the log no longer reaches. State that is merely some transactions behind is
// kept.
func TestStaleState(t *testing.T) {
	forget := func(name string) func(*testing.T, *kfake.Cluster, *world) {
		return func(t *testing.T, c *kfake.Cluster, w *world) {
			ends := make(map[int32]int64)
			for _, r := range kafkatest.Consume(t, w.brokers, name) {
				ends[r.Partition] = r.Offset + 1
			}
			for p, end := range ends {
				if err := c.DeleteRecords(name, p, end); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for name, c := range map[string]struct {
		age  time.Duration
		harm func(*testing.T, *kfake.Cluster, *world)
		want string // in the log; nothing: no rebuild
	}{
		"some transactions behind": {0, func(*testing.T, *kfake.Cluster, *world) {}, ""},
		"six days old":             {6 * 24 * time.Hour, func(*testing.T, *kfake.Cluster, *world) {}, ""},
		"older than tombstones are kept": {8 * 24 * time.Hour, func(*testing.T, *kfake.Cluster, *world) {},
			"and the changelog keeps tombstones for"},
		"written by a clock ahead": {-10 * 24 * time.Hour, func(*testing.T, *kfake.Cluster, *world) {},
			"ahead of this machine's clock"},
		"the changelog begins behind it": {0, forget(topic.Changelog), "the changelog begins at"},
		"the clicks begin behind it":     {0, forget(topic.Clicks), "clicks begins at"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster, brokers := kafkatest.Cluster(t)
			w := newWorld(t, brokers)
			sales := func() {
				for range 60 {
					k := w.Click()
					w.sendClick(k)
					w.sendEvent(w.Sale(k, 1000))
				}
				w.flush()
			}
			dir, old := t.TempDir(), t.TempDir()
			first := newProcessor(t, brokers, config(dir))
			first.SetNow(func() time.Time { return time.Now().Add(-c.age) })
			stop := start(t, first)
			sales()
			w.settle(grace)
			stop()
			if err := errors.Join(os.Remove(old), os.CopyFS(old, os.DirFS(dir))); err != nil {
				t.Fatal(err)
			}
			stop = start(t, newProcessor(t, brokers, config(dir)))
			sales()
			w.settle(grace)
			stop()
			before := len(w.outcomes())
			c.harm(t, cluster, w)

			var log notes
			start(t, newLoggedProcessor(t, brokers, config(old), &log))
			eventually(t, "all partitions are restored", func() bool {
				return strings.Count(log.String(), "partition restored") == kafkatest.Partitions
			})
			sales()
			eventually(t, "the new sales have their rows", func() bool { return len(w.outcomes()) >= before+60 })
			for _, o := range w.outcomes() {
				if o.Reason != "" {
					t.Errorf("%s: %s", o.EventID, o.Reason)
				}
			}
			if n := len(w.outcomes()); n != before+60 {
				t.Errorf("%d rows, want %d", n, before+60)
			}
			if rebuilds := strings.Count(log.String(), "rebuilding a partition's state"); c.want == "" &&
				rebuilds > 0 || c.want != "" && (rebuilds != kafkatest.Partitions ||
				!strings.Contains(log.String(), c.want)) {
				t.Errorf("%d rebuilds, want …%s…:\n%s", rebuilds, c.want, log.String())
			}
		})
	}
}

// A Kafka client that never comes back from a call ends the process: nothing else
// helps, and whoever restarts it gets a new client.
func TestStuck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	p := newProcessor(t, w.brokers, config(t.TempDir()))
	p.SetStuckAfter(time.Second)
	stuck := make(chan error, 1)
	p.SetHook(func(step string) {
		if step == processor.StepProduced {
			select {} // it stays so: whoever went on would write into a directory that is being removed
		}
	})
	go func() { stuck <- p.Run(t.Context()) }()
	k := w.Click()
	w.sendClick(k)
	w.flush()
	select {
	case err := <-stuck:
		if !errors.Is(err, processor.ErrStuck) || !processor.Fatal(err) {
			t.Errorf("Run ended with %v", err)
		}
	case <-time.After(hang):
		t.Error("Run goes on")
	}
}

// Nor is one whose closing never ends, as when the disk is full: its session has
// failed, and Pebble repeats the last flush for ever.
func TestStuckClosing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	var full atomic.Bool
	f := &faults{}
	env := processor.DefaultEnv()
	env.FS = errorfs.Wrap(env.FS, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind == errorfs.OpCreate && strings.Contains(op.Path, "journeys") {
			select {} // it stays so: whoever went on would find the test's directory gone
		}
		return nil
	}))
	judged := false
	env.Step = func(step string) {
		switch {
		case step == processor.StepJudged:
			judged = true
		case step == processor.StepApplied && judged: // there is something to flush
			full.Store(true)
			f.lose.Store(1 << 30)
		}
	}
	k := kafka.DefaultConfig()
	k.Brokers = w.brokers
	p, err := processor.NewIn(env, config(t.TempDir()), k, codec, slog.New(slog.DiscardHandler),
		prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	p.SetStuckAfter(processor.EndTimeout) // a slow machine may need that for the end of a transaction
	p.SetOptions(f.options()...)
	stuck := make(chan error, 1)
	go func() { stuck <- p.Run(t.Context()) }()
	w.story(5)
	eventually(t, "the disk is full", full.Load)
	w.story(5)
	select {
	case err := <-stuck:
		if !errors.Is(err, processor.ErrStuck) {
			t.Errorf("Run ended with %v", err)
		}
	case <-time.After(hang):
		t.Error("Run goes on")
	}
	if p.Ready() == nil {
		t.Error("it is said to be ready")
	}
}
