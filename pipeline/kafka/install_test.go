package kafka_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// install is an installation of a fake broker's own.
type install struct {
	*testing.T
	adm *kadm.Client
	cfg kafka.Config
}

func newInstall(t *testing.T) *install {
	t.Helper()
	return newInstallOn(t, kafkatest.Broker(t))
}

func newInstallOn(t *testing.T, brokers []string) *install {
	t.Helper()
	cfg := kafka.DefaultConfig()
	cfg.Brokers = brokers
	cfg.TopicPrefix = "acme."
	i := &install{t, kadm.NewClient(kafkatest.Client(t, cfg.Brokers)), cfg}
	if lines, err := i.apply(6); err != nil || lines[len(lines)-1] != "recorded that tokens are bound to 6 partitions" {
		t.Fatalf("%q %v", lines, err)
	}
	return i
}

// fresh is a client that has no metadata yet, as that of every run of ctl.
func (i *install) fresh() *kgo.Client {
	i.Helper()
	return kafkatest.Client(i, i.cfg.Brokers)
}

func (i *install) apply(partitions int32) ([]string, error) {
	i.Helper()
	want := kafka.DefaultTopicsConfig()
	want.Partitions, want.Replication = partitions, 1
	return kafka.ApplyTopics(i.Context(), i.fresh(), i.cfg, want, discard)
}

// addPartitions does what kafka-topics --alter does, to all co-partitioned topics.
func (i *install) addPartitions(n int) {
	i.Helper()
	for _, s := range topic.Specs(i.cfg.TopicPrefix, 6, topic.DefaultClickLife) {
		if !s.Partitioned {
			continue
		}
		altered, err := i.adm.UpdatePartitions(i.Context(), n, s.Name)
		if err == nil {
			err = altered.Error()
		}
		if err != nil {
			i.Fatal(err)
		}
	}
}

// commits is how many offsets the groups have.
func (i *install) commits() (n int) {
	i.Helper()
	for _, group := range []string{topic.ProcessorGroup, topic.SinkGroup} {
		offsets, err := i.adm.FetchOffsets(i.Context(), i.cfg.Group(group))
		if err != nil {
			i.Fatal(err)
		}
		offsets.Each(func(kadm.OffsetResponse) { n++ })
	}
	return n
}

func (i *install) wants(want error, text string) func(lines []string, err error) {
	return func(_ []string, err error) {
		i.Helper()
		if !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), text) {
			i.Errorf("got %v, want %v: %s", err, want, text)
		}
	}
}

// Partitions are added with Kafka's own tool. Nothing takes the new count for the
// installation's, with the record or without, and no group begins in a new partition.
func TestAddedPartitions(t *testing.T) {
	i := newInstall(t)
	before := i.commits()
	i.addPartitions(8)
	i.wants(kafka.ErrPartitions, "topic acme.clicks has 8, the installation was made with 6")(i.apply(6))
	i.wants(kafka.ErrPartitions, "-partitions: partition count differs: it is 8, the installation has 6")(
		i.apply(8))
	want := kafka.DefaultTopicsConfig()
	want.ClickLife = topic.DefaultClickLife
	err := kafka.CheckTopics(t.Context(), i.fresh(), i.cfg, want, discard)
	i.wants(kafka.ErrPartitions, "topic acme.outcomes has 8, the installation was made with 6")(nil, err)
	i.wants(kafka.ErrPartitions, "acme.clicks has 8")(kafka.AdoptTopics(t.Context(), i.fresh(), i.cfg, discard, true))

	// An installation from before the record.
	kafkatest.Produce(t, i.cfg.Brokers, &kgo.Record{Topic: "acme.catalog", Key: []byte(topic.InstallKey)})
	if found, err := kafka.ReadRecorded(t.Context(), i.cfg, discard, nil); found.Install != nil || err != nil {
		t.Fatalf("%v %v", found, err)
	}
	i.wants(kafka.ErrOffsets, "has offsets in 6 of the 8 partitions of topic acme.clicks, so this is not a fresh "+
		"install, and nothing is committed")(i.apply(8))
	if n := i.commits(); n != before {
		t.Errorf("%d offsets are committed, before there were %d", n, before)
	}
	if found, err := kafka.ReadRecorded(t.Context(), i.cfg, discard, nil); found.Install != nil || err != nil {
		t.Errorf("recorded: %v %v", found, err)
	}
}

// An installation from before the record gets it by the next apply, once.
func TestInstallIsRecordedLater(t *testing.T) {
	i := newInstall(t)
	kafkatest.Produce(t, i.cfg.Brokers, &kgo.Record{Topic: "acme.catalog", Key: []byte(topic.InstallKey)})
	if lines, err := i.apply(6); err != nil || len(lines) != 1 {
		t.Errorf("%q %v", lines, err)
	}
	if lines, err := i.apply(6); err != nil || len(lines) != 0 {
		t.Errorf("again: %q %v", lines, err)
	}
}

// A topic that was created anew is refused until it is adopted, and that only with the
// same partition count and with offsets that its log has.
func TestAdopt(t *testing.T) {
	i := newInstall(t)
	const rejections = "acme.rejections"
	adopt := func(yes bool) ([]string, error) {
		return kafka.AdoptTopics(t.Context(), i.fresh(), i.cfg, discard, yes)
	}
	recreate := func(partitions int32) {
		t.Helper()
		_, err := i.adm.DeleteTopics(t.Context(), rejections)
		if err == nil {
			i.wants(kafka.ErrRecreated, "1 topics of the installation are gone")(i.apply(6))
			_, err = i.adm.CreateTopic(t.Context(), partitions, 1, nil, rejections)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if lines, err := adopt(true); err != nil || len(lines) != 0 {
		t.Errorf("nothing to adopt: %q %v", lines, err)
	}
	recreate(2)
	i.wants(kafka.ErrPartitions, rejections+" has 2")(adopt(true))
	recreate(1)
	i.wants(kafka.ErrRecreated, "run `ctl topics adopt`")(i.apply(6))
	commit := func(at int64) {
		t.Helper()
		var offsets kadm.Offsets
		offsets.AddOffset(rejections, 0, at, -1)
		if err := i.adm.CommitAllOffsets(t.Context(), i.cfg.Group(topic.SinkGroup), offsets); err != nil {
			t.Fatal(err)
		}
	}
	commit(7)
	i.wants(kafka.ErrOffsets, "committed 7, but the log ends at 0")(adopt(true))
	commit(0)
	for range 2 { // without yes nothing changes
		if lines, err := adopt(false); err != nil || len(lines) != 1 || !strings.Contains(lines[0], rejections) {
			t.Errorf("%q %v", lines, err)
		}
	}
	if _, err := adopt(true); err != nil {
		t.Error(err)
	}
	if lines, err := i.apply(6); err != nil {
		t.Errorf("after adopting: %q %v", lines, err)
	}
}
