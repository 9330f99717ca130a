package engine

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
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
