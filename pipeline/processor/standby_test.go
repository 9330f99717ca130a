package processor_test

import (
	"errors"
	"fmt"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"io"
	iofs "io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// standbyRun is slot-1 with -standby, and what it says of itself.
type standbyRun struct {
	*processor.Processor
	world *world
	reg   *prometheus.Registry
	log   notes
}

func newStandby(w *world, env processor.Env, cfg processor.Config) *standbyRun {
	w.Helper()
	cfg.Instance, cfg.Standby = "slot-1", true
	k := kafka.DefaultConfig()
	k.Brokers = w.brokers
	s := &standbyRun{world: w, reg: prometheus.NewRegistry()}
	var out io.Writer = &s.log
	if os.Getenv("PARTNERS_TEST_LOG") != "" {
		out = io.MultiWriter(out, os.Stderr)
	}
	env.Now = w.clock.now
	var err error
	if s.Processor, err = processor.NewIn(env, cfg, k, codec, slog.New(slog.NewTextHandler(out, nil)),
		s.reg); err != nil {
		w.Fatal(err)
	}
	return s
}

// value sums the series of a metric that have a label's value.
func (s *standbyRun) value(name, labelValue string) (sum float64) {
	families, err := s.reg.Gather()
	if err != nil {
		s.world.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "partners_processor_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetValue() == labelValue {
					sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	return sum
}

// warm waits until the standby follows so many partitions, and has all that is there.
func (s *standbyRun) warm(partitions int) {
	s.world.Helper()
	defer func() {
		if s.world.Failed() {
			s.world.Log(s.log.String())
		}
	}()
	eventually(s.world, fmt.Sprintf("the standby is warm in %d partitions", partitions), func() bool {
		return s.value("standby_partitions", "warm") == float64(partitions) &&
			s.value("standby_partitions", "behind")+s.value("standby_partitions", "closed") == 0 &&
			s.value("standby_lag_records", topic.Clicks)+s.value("standby_lag_records", topic.Changelog) == 0
	})
}

// restoredRecords is what all restores have read.
func (s *standbyRun) restoredRecords() (clicks, rows float64) {
	return s.value("restored_records_total", topic.Clicks), s.value("restored_records_total", topic.Changelog)
}

// records counts what is committed in a topic.
func (w *world) records(name string) int { return len(kafkatest.Consume(w, w.brokers, name)) }

// The owner of half the partitions is killed. Its partitions move to a process whose
// disk was empty when it began, and which has followed them: the move reads what came in
// the last moments and nothing else. When the owner is back, the standby goes on with
// the files that it has.
func TestStandbyMove(t *testing.T) {
	t.Parallel()
	standbyMove(newWorld(t, kafkatest.Broker(t)))
}

func standbyMove(w *world) {
	const half = kafkatest.Partitions / 2
	dir := w.TempDir()
	owner := startChild(w, dir, "never", 100)
	w.story(300)
	w.judged()
	var held atomic.Bool
	letGo := make(chan struct{})
	env := processor.DefaultEnv()
	env.Step = func(step string) {
		if step == processor.StepFollowed && held.Load() {
			<-letGo
		}
	}
	s := newStandby(w, env, config(w.TempDir()))
	start(w, s.Processor)
	s.warm(half)
	clicks, rows := w.records(topic.Clicks), w.records(topic.Changelog)

	// It falls behind by what comes now.
	held.Store(true)
	w.story(10)
	w.judged()
	hadClicks, hadRows := s.restoredRecords()
	if err := owner.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		w.Fatal(err)
	}
	owner.killed(w, <-owner.done)
	eventually(w, "all partitions run here", func() bool {
		return s.value("partitions", "running") == kafkatest.Partitions
	})
	nowClicks, nowRows := s.restoredRecords()
	tailClicks, tailRows := w.records(topic.Clicks)-clicks, w.records(topic.Changelog)-rows
	w.Logf("of %d clicks and %d rows the move read %v and %v; %d and %d came in the end",
		clicks+tailClicks, rows+tailRows, nowClicks-hadClicks, nowRows-hadRows, tailClicks, tailRows)
	if read := nowClicks - hadClicks; read > float64(tailClicks) {
		w.Errorf("the move read %v clicks, %d came since the standby was stopped", read, tailClicks)
	}
	if read := nowRows - hadRows; read == 0 || read > float64(tailRows) {
		w.Errorf("the move read %v rows, %d came since the standby was stopped", read, tailRows)
	}
	held.Store(false)
	close(letGo)
	w.story(50)

	// Back to where they were.
	followed := s.value("standby_records_total", topic.Clicks)
	owner = startChild(w, dir, "never", 100)
	eventually(w, "the owner is back", func() bool { return s.value("partitions", "running") == half })
	w.story(10)
	w.judged()
	s.warm(half)
	if read := s.value("standby_records_total", topic.Clicks) - followed; read > float64(clicks/2) {
		w.Errorf("the standby read %v clicks again", read)
	}
	if log := s.log.String(); strings.Contains(log, "rebuilding") || strings.Contains(log, "wiping") {
		w.Errorf("something was wiped:\n%s", log)
	}
	w.settle(grace)
	w.conserved()
	if err := errors.Join(owner.life.Close(), <-owner.done); err == nil {
		w.Error("the owner had ended")
	}
}

// crashableDisk is a MemFS whose Lock no clone can meet: Lock takes the read side of
// MemFS's mutex twice, and a CrashClone in between would wait for ever, as would Lock.
type crashableDisk struct {
	*vfs.MemFS
	opening *sync.Mutex
}

func (d crashableDisk) Lock(name string) (io.Closer, error) {
	d.opening.Lock()
	defer d.opening.Unlock()
	return d.MemFS.Lock(name)
}

// Power cuts at some moment of a standby's writing: what is left on its disk is
// continued, and in the end it holds the rows and the clicks that the owner has.
func TestStandbyCrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t, kafkatest.Broker(t))
	const half = kafkatest.Partitions / 2
	dir := t.TempDir()
	stopOwner := start(t, newProcessor(t, w.brokers, config(dir)))
	w.story(200)
	w.judged()
	random := rand.New(rand.NewPCG(3, 4))
	disk := vfs.NewCrashableMem()
	follow := func(crashAt int64) (s *standbyRun, crashed func() *vfs.MemFS, stop func()) {
		var opening sync.Mutex
		var left atomic.Pointer[vfs.MemFS]
		var writes atomic.Int64
		on := disk
		env := processor.DefaultEnv()
		env.FS = errorfs.Wrap(crashableDisk{on, &opening}, errorfs.InjectorFunc(func(op errorfs.Op) error {
			followed := strings.Contains(op.Path, "p00000") || strings.Contains(op.Path, "p00001")
			if followed && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && writes.Add(1) == crashAt {
				opening.Lock()
				defer opening.Unlock()
				left.Store(on.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random}))
			}
			return nil
		}))
		env.Lock = func(string) (io.Closer, error) { return io.NopCloser(nil), nil }
		env.SlabBytes, env.FlushEvery = 16<<10, 100*time.Millisecond
		s = newStandby(w, env, config("state"))
		return s, left.Load, start(t, s.Processor)
	}
	followed := 0.0
	for _, crashAt := range []int64{3, 30, 100, 250} {
		s, crashed, stop := follow(crashAt)
		eventually(t, fmt.Sprintf("the standby writes for the %d. time", crashAt), func() bool {
			w.story(5)
			return crashed() != nil
		})
		stop() // what it still wrote is on the disk that is gone
		disk = crashed()
		followed += s.value("standby_records_total", topic.Clicks)
	}
	if followed == 0 {
		t.Error("nothing was followed when the power was cut")
	}
	s, _, stop := follow(-1)
	s.warm(half)
	w.judged()
	stopOwner()
	eventually(t, "all partitions run here", func() bool {
		return s.value("partitions", "running") == kafkatest.Partitions
	})
	stop()
	var tokens []string
	for _, k := range w.ledger().Clicks {
		tokens = append(tokens, k.ClickToken)
	}
	for id := range int32(half) {
		want, rows, clicks := filesOf(t, vfs.Default, dir, id, tokens)
		if rows == 0 || clicks == 0 {
			t.Fatalf("partition %d: the owner has %d rows and %d clicks", id, rows, clicks)
		}
		if got, _, _ := filesOf(t, disk, "state", id, tokens); !maps.Equal(got, want) {
			t.Errorf("partition %d: the standby has %d rows and clicks that are not the owner's %d", id, len(got),
				len(want))
		}
	}
}

// filesOf are the rows and clicks in a partition's files.
func filesOf(t *testing.T, fs vfs.FS, dir string, id int32, tokens []string) (all map[string]string, rows, clicks int) {
	t.Helper()
	i, err := processor.Inspect(fs, dir, id, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	all = make(map[string]string)
	err = i.Rows(func(key, value []byte) bool {
		all["row "+string(key)] = string(value)
		return true
	})
	rows = len(all)
	for _, tok := range tokens {
		raw, bad := token.Parse(tok)
		wire, at, ok, bad2 := i.Click((*[20]byte)(&raw))
		if err = errors.Join(err, bad, bad2); ok {
			all["click "+tok] = fmt.Sprintf("%d %s", at, wire)
		}
	}
	if err := errors.Join(err, i.Close()); err != nil {
		t.Fatal(err)
	}
	return all, rows, len(all) - rows
}

// A standby deletes what the owner deletes without saying so in the changelog: clicks
// that no event may ask for any more, and entries of the expiry index. Else its disk
// would fill.
func TestStandbyExpires(t *testing.T) {
	t.Parallel()
	cluster, brokers := kafkatest.Cluster(t)
	w := newWorld(t, brokers)
	var listings atomic.Int64 // a standby's: nobody else asks for these two topics at once
	cluster.ControlKey(int16(kmsg.ListOffsets), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		asked := make(map[string]bool)
		for _, x := range r.(*kmsg.ListOffsetsRequest).Topics {
			asked[x.Topic] = true
		}
		if asked[topic.Clicks] && asked[topic.Changelog] {
			listings.Add(1)
		}
		return nil, nil, false
	})
	const day = 24 * time.Hour
	start(t, newProcessor(t, w.brokers, config(t.TempDir())))
	here := func() *event.Click { // of the owner
		for {
			if k := w.Click(); w.partition(k.ClickToken) == 0 {
				return k
			}
		}
	}
	visits := func(age time.Duration) (first *event.Click) {
		w.shift = age
		for range 1000 {
			k := here()
			if first == nil {
				first = k
			}
			w.sendClick(k)
		}
		w.sendEvent(w.Sale(first, 100))
		w.flush()
		return first
	}
	old := visits(600 * day)
	w.judged()
	env := processor.DefaultEnv()
	env.SlabBytes = 16 << 10
	dir := t.TempDir()
	s := newStandby(w, env, config(dir))
	stop := start(t, s.Processor)
	s.warm(kafkatest.Partitions / 2)
	first := filepath.Join(dir, "p00000", "clicks", "0000000000000001.seg")
	if _, err := os.Stat(first); err != nil {
		t.Fatal(err)
	}
	young := visits(0)
	eventually(t, "the segment of the oldest clicks is gone", func() bool {
		_, err := os.Stat(first)
		return errors.Is(err, iofs.ErrNotExist)
	})
	eventually(t, "the owner has deleted the old journey", func() bool {
		for _, r := range kafkatest.Consume(t, w.brokers, topic.Changelog) {
			if _, kind, ok := event.ParseJourneyKey(r.Key); ok && kind == event.KindHead && r.Value == nil {
				return true
			}
		}
		return false
	})
	s.warm(kafkatest.Partitions / 2)
	// each time that the standby looks it lists three times, and deletes afterwards
	looked := listings.Load()
	eventually(t, "the standby looks again", func() bool { return listings.Load() > looked+6 })
	stop()
	i, err := processor.Inspect(vfs.Default, dir, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []*event.Click{old, young} {
		raw, bad := token.Parse(k.ClickToken)
		_, _, ok, err := i.Click((*[20]byte)(&raw))
		if err := errors.Join(bad, err); err != nil || ok != (k == young) {
			t.Errorf("click minted at %v: there %v, %v", token.Time(&raw), ok, err)
		}
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	cache := state.NewCache(1 << 20)
	defer cache.Close()
	store, err := state.OpenDir(filepath.Join(dir, "p00000", "journeys"), cache, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var entries []string
	if err := store.Scan([]byte{'X'}, []byte{'Y'}, func(key, _ []byte) bool {
		entries = append(entries, fmt.Sprintf("%x", key))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("entries of the expiry index: %v, want that of the young sale alone", entries)
	}
}
