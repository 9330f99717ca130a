package kafka_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var errBrokenOff = errors.New("broken off")

// grow grows the installation; it is broken off after a step unless that is "".
func (i *install) grow(partitions int32, at time.Time, breakOff string) ([]string, error) {
	i.Helper()
	want := kafka.DefaultGrowConfig()
	want.Partitions, want.At = partitions, at
	want.Step = func(name string) error {
		if name == breakOff {
			return errBrokenOff
		}
		return nil
	}
	return kafka.Grow(i.Context(), i.fresh(), i.cfg, want, discard)
}

func (i *install) recorded() kafka.Recorded {
	i.Helper()
	r, err := kafka.ReadRecorded(i.Context(), i.cfg, discard, nil)
	if err != nil {
		i.Fatal(err)
	}
	return r
}

func soon() time.Time { return time.Now().Add(topic.GrowLead + time.Hour).Truncate(time.Second) }

// Grow that is broken off after any step is repeated, as it was. Meanwhile the counts are
// explained: nobody takes them for somebody else's.
func TestGrowIsRepeated(t *testing.T) {
	steps := append(append([]string{"intent"}, topic.CoPartitioned()...), "shown", "recorded")
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			i, at := newInstall(t), soon()
			before := i.commits()
			names := append(topic.CoPartitioned(), topic.Catalog, topic.Rejections)
			if _, err := i.grow(8, at, step); !errors.Is(err, errBrokenOff) {
				t.Fatal(err)
			}
			err := kafka.CheckPartitions(t.Context(), i.fresh(), i.cfg, i.recorded(), names...)
			if done := step == "recorded"; done && err != nil || !done && !errors.Is(err, kafka.ErrGrowing) {
				t.Errorf("broken off after %s: %v", step, err)
			}
			todo := "repeat it (-partitions 8 -at " + at.UTC().Format(time.RFC3339)
			if err != nil && !strings.Contains(err.Error(), todo) {
				t.Errorf("it does not say what to do: %v", err)
			}
			for range 2 {
				if _, err := i.grow(8, at, ""); err != nil {
					t.Fatal(err)
				}
			}
			r := i.recorded()
			if r.Growth != nil || len(r.Install.Epochs) != 2 || r.Install.Epochs.Now() != 8 ||
				!r.Install.Epochs[1].From.Equal(at) {
				t.Errorf("%+v", r)
			}
			if len(r.Install.Topics) != 8 || r.Install.Topics[topic.Rejections].Partitions != 1 ||
				r.Install.Topics[topic.Clicks].Partitions != 8 {
				t.Errorf("topics: %v", r.Install.Topics)
			}
			if err := kafka.CheckPartitions(t.Context(), i.fresh(), i.cfg, r, names...); err != nil {
				t.Error(err)
			}
			if n := i.commits(); n != before {
				t.Errorf("%d commits, before there were %d", n, before)
			}
			if lines, err := i.apply(8); err != nil || len(lines) > 0 {
				t.Errorf("apply changes %q: %v", lines, err)
			}
		})
	}
}

// What would bind tokens to two places is refused, and changes nothing.
func TestGrowRefuses(t *testing.T) {
	i, at := newInstall(t), soon()
	tooSoon := time.Now().Add(9 * time.Minute).Truncate(time.Second)
	i.wants(kafka.ErrGrow, "-at: the installation does not grow")(i.grow(8, tooSoon, ""))
	i.wants(kafka.ErrGrow, "-partitions: the installation does not grow: it is 6")(i.grow(6, at, ""))
	if _, err := i.grow(8, at.Add(time.Millisecond), ""); err == nil || !strings.Contains(err.Error(), "-at: ") {
		t.Errorf("a part of a second: %v", err)
	}
	if r := i.recorded(); r.Growth != nil {
		t.Errorf("refused, and written: %v", r.Growth)
	}
	if _, err := i.grow(8, at, topic.Outcomes); !errors.Is(err, errBrokenOff) {
		t.Fatal(err)
	}
	i.wants(kafka.ErrGrow, "growing to 8 was begun")(i.grow(12, at, ""))
	i.wants(kafka.ErrGrowing, "there will be 8")(i.apply(6))
	i.wants(kafka.ErrGrowing, "there will be 8")(kafka.AdoptTopics(t.Context(), i.fresh(), i.cfg, discard, true))
	_, err := kafka.AbandonGrowth(t.Context(), i.fresh(), i.cfg, discard)
	i.wants(kafka.ErrPartitions, "it cannot be abandoned any more")(nil, err)
	later := at.Add(time.Hour)
	if _, err := i.grow(8, later, ""); err != nil {
		t.Fatal(err)
	}
	i.wants(kafka.ErrGrow, "-at: the installation does not grow: the newest epoch begins later")(i.grow(12, at, ""))
	if _, err := i.grow(12, later.Add(time.Second), ""); err != nil {
		t.Fatal(err)
	}
	if e := i.recorded().Install.Epochs; len(e) != 3 || !e[1].From.Equal(later) || e.Now() != 12 {
		t.Errorf("%v", e)
	}
}

// A growth that has ended and is repeated leaves the record of a later one alone, which
// explains the partitions that are being added.
func TestGrowIsRepeatedBesideALaterOne(t *testing.T) {
	i, at := newInstall(t), soon()
	if _, err := i.grow(8, at, ""); err != nil {
		t.Fatal(err)
	}
	later := at.Add(time.Hour)
	if _, err := i.grow(12, later, topic.Outcomes); !errors.Is(err, errBrokenOff) {
		t.Fatal(err)
	}
	i.wants(kafka.ErrGrow, "growing to 12 was begun")(i.grow(8, at, ""))
	if g := i.recorded().Growing(); g == nil || g.Partitions != 12 || !g.From.Equal(later) {
		t.Fatalf("the later growth's record is %+v", g)
	}
	if _, err := i.grow(12, later, ""); err != nil {
		t.Fatal(err)
	}
}

// A growth is not abandoned if any broker shows partitions of it, whichever that is: the
// others may not know of them yet.
func TestGrowIsAbandonedByAllBrokers(t *testing.T) {
	cluster, brokers := kafkatest.Cluster(t, kfake.NumBrokers(3))
	i, at := newInstallOn(t, brokers), soon()
	if _, err := i.grow(8, at, topic.Clicks); !errors.Is(err, errBrokenOff) {
		t.Fatal(err)
	}
	var knows atomic.Int32 // the broker that knows of the added partitions
	answer := func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		in := request.(*kmsg.MetadataRequest)
		if len(in.Topics) < len(topic.CoPartitioned()) || cluster.CurrentNode() == knows.Load() {
			return nil, nil, false
		}
		out := in.ResponseKind().(*kmsg.MetadataResponse)
		for _, asked := range in.Topics {
			t := kmsg.NewMetadataResponseTopic()
			t.Topic, t.Partitions = asked.Topic, make([]kmsg.MetadataResponseTopicPartition, 6)
			out.Topics = append(out.Topics, t)
		}
		return out, nil, true
	}
	cluster.ControlKey(int16(kmsg.Metadata), answer)
	for id := range int32(len(brokers)) {
		knows.Store(id)
		_, err := kafka.AbandonGrowth(t.Context(), i.fresh(), i.cfg, discard)
		i.wants(kafka.ErrPartitions, "it cannot be abandoned any more")(nil, err)
	}
	if i.recorded().Growing() == nil {
		t.Error("it was abandoned, and partitions of it are there")
	}
}

// A growth of which nothing was done is taken back; partitions of Kafka's own tool are
// refused also while one is under way.
func TestGrowIsAbandoned(t *testing.T) {
	i, at := newInstall(t), soon()
	abandon := func() (bool, error) { return kafka.AbandonGrowth(t.Context(), i.fresh(), i.cfg, discard) }
	if found, err := abandon(); found || err != nil {
		t.Errorf("there is none: %v %v", found, err)
	}
	if _, err := i.grow(8, at, "intent"); !errors.Is(err, errBrokenOff) {
		t.Fatal(err)
	}
	if found, err := abandon(); !found || err != nil {
		t.Errorf("%v %v", found, err)
	}
	if err := kafka.CheckPartitions(t.Context(), i.fresh(), i.cfg, i.recorded(), topic.CoPartitioned()...); err != nil {
		t.Error(err)
	}
	if _, err := i.grow(8, at, "intent"); !errors.Is(err, errBrokenOff) {
		t.Fatal(err)
	}
	i.addPartitions(10)
	err := kafka.CheckPartitions(t.Context(), i.fresh(), i.cfg, i.recorded(), topic.CoPartitioned()...)
	i.wants(kafka.ErrPartitions, "acme.clicks has 10, the installation was made with 6")(nil, err)
	i.wants(kafka.ErrPartitions, "has 10")(i.grow(8, at, ""))
}

// A group without a commit begins in a partition that was added, and in no other.
func TestGroupsBeginInAddedPartitions(t *testing.T) {
	i := newInstall(t)
	if _, err := i.grow(8, soon(), ""); err != nil {
		t.Fatal(err)
	}
	group, clicks := i.cfg.Group(topic.ProcessorGroup), i.cfg.Topic(topic.Clicks)
	check := func() error {
		return kafka.CheckOffsets(t.Context(), i.adm, i.cfg, i.recorded().Install, group, []string{clicks})
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	forget := make(kadm.TopicsSet)
	forget.Add(clicks, 5)
	if _, err := i.adm.DeleteOffsets(t.Context(), group, forget); err != nil {
		t.Fatal(err)
	}
	i.wants(kafka.ErrOffsets, "acme.clicks partition 5: no committed offset")(nil, check())
}
