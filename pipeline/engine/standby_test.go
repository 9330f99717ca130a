package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/state"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// shadow is an engine of which only the standby runs, on a fake broker, and what a test
// writes for it: rows of the changelog of partition 0.
type shadow struct {
	*testing.T
	in     kafkatest.Install
	fs     vfs.FS
	client *kgo.Client // transactional
	log    kafkatest.LogBuffer
	engine *Engine
	wiping func() // called while files are wiped; nil: nothing is
	stop   func()
}

const shadowHang = 3 * time.Minute

func newShadow(t *testing.T) *shadow {
	t.Helper()
	in := kafkatest.Install{Brokers: kafkatest.Broker(t)}
	s := &shadow{T: t, in: in, fs: vfs.NewMem()}
	s.client = kafkatest.Client(t, in.Brokers, kgo.TransactionalID("owner"))
	return s
}

// start follows every partition.
func (s *shadow) start() {
	s.Helper()
	topo := Topology{
		Name:      "shadow",
		Leading:   Input{Topic: topic.Clicks},
		Changelog: topic.Changelog,
		Index:     func(*Partition, *state.Batch, []byte, []byte) error { return nil },
		Open: func(*Partition) (Task, error) {
			next := int64(-1)
			return Task{
				Restored: func() error { return nil },
				SideLog: SideLog{
					Next: func() int64 { return next },
					Keep: func(r *kgo.Record) error { next = max(next, r.Offset+1); return nil },
				},
			}, nil
		},
		WipeSideLog: func(vfs.FS, string) error {
			if s.wiping != nil {
				s.wiping()
			}
			return nil
		},
	}
	cfg, env := DefaultConfig(), DefaultEnv()
	cfg.StateDir, cfg.Instance, cfg.Standby = "state", "slot-0", true
	env.FS = s.fs
	var out io.Writer = &s.log
	if os.Getenv("PARTNERS_TEST_LOG") != "" {
		out = io.MultiWriter(out, os.Stderr)
	}
	e, err := New(env, cfg, topo, s.in.Config(), slog.New(slog.NewTextHandler(out, nil)), prometheus.NewRegistry())
	if err != nil {
		s.Fatal(err)
	}
	e.cache = state.NewCache(1 << 20)
	e.standby = newStandby(e)
	ctx, cancel := context.WithCancel(context.Background())
	go e.standby.run(ctx)
	e.standby.followOthers(nil)
	s.engine = e
	s.stop = func() {
		s.Helper()
		cancel()
		if err := e.standby.close(); err != nil {
			s.Fatal(err)
		}
		e.cache.Close()
		s.stop = func() {}
	}
	s.Cleanup(func() { s.stop() })
}

// transaction writes rows and ends as said; nil leaves it open.
func (s *shadow) transaction(end *kgo.TransactionEndTry, rows ...string) {
	s.Helper()
	if err := s.client.BeginTransaction(); err != nil {
		s.Fatal(err)
	}
	for _, row := range rows {
		r := &kgo.Record{Topic: topic.Changelog, Key: []byte(row), Value: []byte("1")}
		if err := s.client.ProduceSync(s.Context(), r).FirstErr(); err != nil {
			s.Fatal(err)
		}
	}
	if end != nil {
		s.end(*end)
	}
}

func (s *shadow) end(how kgo.TransactionEndTry) {
	s.Helper()
	if err := s.client.EndTransaction(s.Context(), how); err != nil {
		s.Fatal(err)
	}
}

func (s *shadow) commit(rows ...string) {
	s.Helper()
	how := kgo.TryCommit
	s.transaction(&how, rows...)
}

// ask calls do with partition 0 while nobody works on it; false if it is not open.
func (s *shadow) ask(do func(f *follower) bool) bool {
	y := s.engine.standby
	y.mu.Lock()
	f := y.all[0]
	y.mu.Unlock()
	if f == nil || !y.hold(f) {
		return false
	}
	defer f.release()
	return f.p.Store != nil && do(f)
}

func (s *shadow) eventually(what string, ok func(f *follower) bool) {
	s.Helper()
	for deadline := time.Now().Add(shadowHang); !s.ask(ok); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("not within %v: %s\n%s", shadowHang, what, s.log.String())
		}
	}
}

// warm waits until the standby has all that is in the changelog now. It may be warm by an
// end that was listed before the last record.
func (s *shadow) warm() {
	s.Helper()
	ends, err := kadm.NewClient(s.client).ListEndOffsets(s.Context(), topic.Changelog)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		s.Fatal(err)
	}
	end, _ := ends.Lookup(topic.Changelog, 0)
	s.eventually("it is warm", func(f *follower) bool {
		return f.warm && f.p.identity.Position >= end.Offset
	})
}

func (f *follower) has(row string) bool {
	_, ok, err := f.p.Store.Get([]byte(row), nil)
	return ok && err == nil
}

// wants fails the test unless partition 0 has exactly these rows of a and b.
func (s *shadow) wants(a, b bool) {
	s.Helper()
	var got [2]bool
	if !s.ask(func(f *follower) bool { got = [2]bool{f.has("a"), f.has("b")}; return true }) ||
		got != [2]bool{a, b} {
		s.Errorf("rows a and b are there: %v, want %v and %v", got, a, b)
	}
}

// A standby has what is committed, and nothing else: what a transaction that is open has
// written it does not see, and it waits there.
func TestStandbyReadsCommitted(t *testing.T) {
	t.Parallel()
	s := newShadow(t)
	s.commit("a")
	s.start()
	s.warm()
	s.transaction(nil, "b")
	s.eventually("it is behind", func(f *follower) bool { return !f.warm })
	s.wants(true, false)
	s.end(kgo.TryAbort)
	s.warm()
	s.wants(true, false)
	s.commit("b")
	s.warm()
	s.wants(true, true)
	if n := s.log.Count("WARN"); n > 0 {
		t.Errorf("it complains:\n%s", s.log.String())
	}
}

// State that was applied and then aborted, as a void row says, is wiped; state that was
// read as committed is not.
func TestStandbyWipesVoidState(t *testing.T) {
	t.Parallel()
	for name, applied := range map[string]bool{"applied": true, "not applied": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShadow(t)
			s.commit("a")
			s.start()
			s.warm()
			var at int64
			// An owner would have left a row of a transaction whose End was answered.
			s.ask(func(f *follower) bool {
				at = f.p.identity.Position
				return f.p.Store.Set([]byte("b"), []byte("1")) == nil
			})
			s.stop()
			if applied {
				at--
			}
			key, value := event.VoidRow(at)
			kafkatest.Produce(t, s.in.Brokers, &kgo.Record{Topic: topic.Changelog, Key: key, Value: value})
			s.start()
			s.warm()
			s.wants(true, !applied)
			if wiped := s.log.Count("was aborted") > 0; wiped != applied {
				t.Errorf("wiped: %v\n%s", wiped, s.log.String())
			}
		})
	}
}

// A topic that was created again under its name is another one, whatever its offsets.
func TestStandbyTopicRecreated(t *testing.T) {
	t.Parallel()
	s := newShadow(t)
	s.commit("a")
	s.start()
	s.warm()
	adm := kadm.NewClient(s.client)
	if _, err := adm.DeleteTopic(t.Context(), topic.Changelog); err != nil {
		t.Fatal(err)
	}
	if _, err := adm.CreateTopic(t.Context(), kafkatest.Partitions, 1, nil, topic.Changelog); err != nil {
		t.Fatal(err)
	}
	plain := func(n int) {
		for i := range n {
			kafkatest.Produce(t, s.in.Brokers, &kgo.Record{Topic: topic.Changelog, Key: fmt.Append(nil, "n", i),
				Value: []byte("1")})
		}
	}
	plain(5)
	kafkatest.Produce(t, s.in.Brokers, &kgo.Record{Topic: topic.Changelog, Key: []byte("b"), Value: []byte("1")})
	s.eventually("it has the new topic's rows", func(f *follower) bool { return f.has("b") && f.has("n0") })
	s.warm()
	s.wants(false, true)
}

// A partition that was taken away is not touched any more, and not opened by a second
// reader while it is owned. When it is given back it is continued, not rebuilt.
func TestStandbyLetsGo(t *testing.T) {
	t.Parallel()
	s := newShadow(t)
	s.commit("a")
	s.start()
	s.warm()
	s.engine.standby.followOthers([]int32{0})
	p, err := s.engine.takePartition(t.Context(), 0)
	if err != nil || p.Store == nil {
		t.Fatalf("it was not handed over open: %v", err)
	}
	at := p.identity.Position
	s.commit("b")
	// The others are still followed: when they have been looked at again, this one has
	// been passed over.
	y := s.engine.standby
	for looks := 0; looks < 3; {
		y.mu.Lock()
		f := y.all[1]
		y.mu.Unlock()
		if f == nil || !y.hold(f) {
			t.Fatal("another partition is not followed any more")
		}
		listed := f.changelog.listed
		f.release()
		for again := false; !again; time.Sleep(10 * time.Millisecond) {
			y.hold(f)
			again = f.changelog.listed != listed
			f.release()
		}
		looks++
	}
	if _, ok, _ := p.Store.Get([]byte("b"), nil); ok || p.identity.Position != at {
		t.Error("it was written to after it had been taken away")
	}
	if s.ask(func(*follower) bool { return true }) {
		t.Error("it is followed although it is owned")
	}
	if err := p.Store.Set([]byte("kept"), []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := p.closePartition(); err != nil {
		t.Fatal(err)
	}
	s.engine.standby.followOthers(nil)
	s.eventually("it is followed again", func(f *follower) bool { return f.has("b") })
	s.eventually("it was kept", func(f *follower) bool { return f.has("kept") })
}

// A partition that was added, and that a standby has followed since, begins with what the
// standby has: nothing is rebuilt. With a row in its changelog it has lost its commit.
func TestStandbyOfAddedPartition(t *testing.T) {
	t.Parallel()
	for name, rows := range map[string][]string{"without a row": nil, "with a row": {"a"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShadow(t)
			if len(rows) > 0 {
				s.commit(rows...)
			}
			s.start()
			s.warm()
			e := s.engine
			e.standby.followOthers([]int32{0})
			p, err := e.takePartition(t.Context(), 0)
			if err != nil || p.Store == nil {
				t.Fatalf("it was not handed over open: %v", err)
			}
			ended, err := s.restore(p, groupOffsets{starts: true})
			if err != nil {
				t.Fatal(err)
			}
			if lost := errors.Is(ended, kafka.ErrOffsets); lost != (len(rows) > 0) || !lost && ended != nil {
				t.Errorf("restored with %v", ended)
			}
			if n := s.log.Count("rebuilding"); n > 0 {
				t.Errorf("it is rebuilt:\n%s", s.log.String())
			}
			if err := p.closePartition(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// restore restores a partition as a session that has these offsets.
func (s *shadow) restore(p *Partition, at groupOffsets) (ended, err error) {
	e := s.engine
	if e.install, err = kafka.FollowInstall(e.kafka, e.log); err != nil {
		return nil, err
	}
	defer e.install.Close()
	session := &session{engine: e, cfg: e.cfg, topo: e.topo, kafka: e.kafka, env: e.env, log: e.log, m: e.m,
		leading: topic.Clicks, following: topic.Conversions, cl: s.client, adm: kadm.NewClient(s.client),
		groupPartition: -1, outputs: map[string]int{}, healing: make(chan struct{}, 1)}
	meta, err := session.adm.Metadata(s.Context(), topic.Changelog, topic.Clicks)
	if err != nil {
		return nil, err
	}
	session.ids = topicIDs{cluster: meta.Cluster, changelog: meta.Topics[topic.Changelog].ID,
		leading: meta.Topics[topic.Clicks].ID}
	return session.restorePartition(s.Context(), p, at), nil
}

// A partition that the standby gives up is there until its files are closed and wiped: a
// restore that begins meanwhile waits, and does not open files that are about to go.
func TestStandbyWipesBeforeItLetsGo(t *testing.T) {
	t.Parallel()
	s := newShadow(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	var asked []error
	s.wiping = func() {
		_, err := s.engine.takePartition(gone, 0)
		asked = append(asked, err)
	}
	s.commit("a")
	s.start()
	s.warm()
	s.ask(func(f *follower) bool {
		f.p.corrupt = true
		return s.engine.standby.drop(f) == nil
	})
	if len(asked) != 1 || !errors.Is(asked[0], context.Canceled) {
		t.Errorf("a restore that began while the files were wiped: %v, want one that waits", asked)
	}
	s.eventually("it is followed again", func(f *follower) bool { return f.has("a") })
}

// Who asks for a partition while the standby writes to it waits, and not for ever: a
// full disk lets nobody go on.
func TestStandbyStuck(t *testing.T) {
	t.Parallel()
	s := newShadow(t)
	s.start()
	s.warm()
	s.engine.env.StuckAfter = 10 * time.Millisecond
	s.ask(func(*follower) bool {
		if _, err := s.engine.takePartition(t.Context(), 0); !Fatal(err) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.engine.env.StuckAfter = time.Hour
		if _, err := s.engine.takePartition(ctx, 0); err == nil || Fatal(err) {
			t.Errorf("got %v", err)
		}
		return true
	})
	s.warm() // it goes on
}
