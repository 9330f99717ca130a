package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// writeHook is called when a client has sent a request, and holds up its answer.
type writeHook func(key int16)

// OnBrokerWrite implements kgo.HookBrokerWrite.
func (h writeHook) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	h(key)
}

// A growth that is told while the partition counts are compared ends the session at once:
// nothing else may come to wake the watch up.
func TestGrowthIsToldWhileComparing(t *testing.T) {
	t.Parallel()
	in := kafkatest.Install{Brokers: kafkatest.Broker(t)}
	log := slog.New(slog.DiscardHandler)
	install, err := kafka.FollowInstall(in.Config(), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(install.Close)
	if err := install.Await(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	write := func(key string, record interface{ Encode() ([]byte, error) }) {
		value, err := record.Encode()
		if err != nil {
			t.Error(err)
		}
		kafkatest.Produce(t, in.Brokers, &kgo.Record{Topic: topic.Catalog, Key: []byte(key), Value: value})
	}
	var isArmed, isTold atomic.Bool
	compared := writeHook(func(key int16) {
		if key != int16(kmsg.Metadata) || !isArmed.CompareAndSwap(true, false) {
			return
		}
		from := time.Now().Add(time.Hour).Truncate(time.Second)
		write(topic.GrowthKey, topic.Growth{Partitions: kafkatest.Partitions + 2, From: from})
		for changed := install.Changed(); install.Recorded().Growing() == nil; changed = install.Changed() {
			select {
			case <-changed:
			case <-time.After(10 * time.Millisecond):
			}
		}
		install.Close() // it says nothing more
		isTold.Store(true)
	})
	cl := kafkatest.Client(t, in.Brokers, kgo.WithHooks(compared))
	if err := cl.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	isArmed.Store(true)
	env := DefaultEnv()
	env.PartitionCheckInterval = time.Hour
	s := &session{engine: &Engine{install: install}, env: env, log: log, cl: cl, kafka: in.Config(), topo: Topology{
		Leading: Input{Topic: topic.Clicks}, Following: Input{Topic: topic.Conversions}, Changelog: topic.Changelog}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.watchPartitions(t.Context())
	}()
	for since := time.Now(); !isTold.Load(); time.Sleep(10 * time.Millisecond) { // what makes it compare
		if isArmed.Load() {
			since = since.Add(time.Second)
			write(topic.PlacedSinceKey, topic.PlacedSince{Since: since})
		}
	}
	select {
	case <-ended:
		if !errors.Is(s.err, kafka.ErrGrowing) {
			t.Errorf("the session ends with %v", s.err)
		}
	case <-time.After(shadowHang / 3):
		t.Fatal("the session does not end")
	}
}

// fetched is an answer with the offsets of partition 0, of which the following input's has
// an error.
func fetched(leading, following int64, code int16) *kmsg.OffsetFetchResponse {
	g := kmsg.NewOffsetFetchResponseGroup()
	for name, offset := range map[string]int64{topic.Clicks: leading, topic.Conversions: following} {
		p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
		p.Offset = offset
		if name == topic.Conversions {
			p.ErrorCode = code
		}
		t := kmsg.NewOffsetFetchResponseGroupTopic()
		t.Topic, t.Partitions = name, append(t.Partitions, p)
		g.Topics = append(g.Topics, t)
	}
	out := kmsg.NewPtrOffsetFetchResponse()
	out.Groups = append(out.Groups, g)
	return out
}

// A partition whose offset cannot be told yet, as a transaction is completing, has not lost
// it: its restore waits for the next answer.
func TestOffsetsWithErrors(t *testing.T) {
	t.Parallel()
	r := &restore{start: make(chan groupOffsets, 1)}
	s := &session{engine: &Engine{install: &kafka.InstallFollower{}}, leading: topic.Clicks,
		following: topic.Conversions, restoring: map[int32]*restore{0: r}, starting: map[int32]bool{},
		ids: topicIDs{leading: [16]byte{1}, following: [16]byte{2}}}
	if err := s.offsetsFetched(fetched(7, -1, kerr.UnstableOffsetCommit.Code)); err != nil || s.err != nil {
		t.Errorf("an offset with an error: %v, %v", err, s.err)
	}
	if len(r.start) != 0 {
		t.Error("a restore begins without an offset")
	}
	if err := s.offsetsFetched(fetched(7, 3, 0)); err != nil || s.err != nil {
		t.Error(err, s.err)
	}
	if len(r.start) != 1 {
		t.Fatal("the restore does not begin")
	}
	if got := <-r.start; got.inputOffsets != (inputOffsets{7, 3}) || got.starts {
		t.Errorf("it begins at %+v", got)
	}
	if err := s.offsetsFetched(fetched(7, -1, 0)); err != nil || !errors.Is(s.err, kafka.ErrOffsets) {
		t.Errorf("a lost offset: %v, %v", err, s.err)
	}
}

// What a session that closes is still assigned, it does not take: nobody would give it
// back.
func TestNothingIsAssignedToAClosingSession(t *testing.T) {
	t.Parallel()
	cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a restore that begins ends at once
	assign := func(s *session) int64 {
		s.partitionsAssigned(ctx, cl, map[string][]int32{topic.Clicks: {0, 1}, topic.Conversions: {0, 1}})
		return s.engine.owned.Load()
	}
	begin := func() *session {
		env := DefaultEnv()
		e := &Engine{env: env, log: slog.New(slog.DiscardHandler), m: newMetrics(prometheus.NewRegistry(), "closing")}
		return &session{engine: e, env: env, log: e.log, m: e.m, leading: topic.Clicks, following: topic.Conversions,
			restoring: map[int32]*restore{}}
	}
	s := begin()
	s.closing.Store(true)
	if n := assign(s); n != 0 || len(s.restoring) != 0 {
		t.Errorf("%d partitions are taken", n)
	}
	s = begin()
	s.env.Step = func(string) { s.closing.Store(true) } // closes meanwhile
	if n := assign(s); n != 0 || len(s.restoring) != 0 {
		t.Errorf("%d partitions are taken by one that closes meanwhile", n)
	}
}
