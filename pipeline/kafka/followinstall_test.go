package kafka_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const misplacedToken = "3MWgyD5yf6kfC92HIBeU6RXBUYB"

func followInstall(t *testing.T, brokers []string) (*kafka.InstallFollower, kafka.Config) {
	t.Helper()
	cfg := kafka.DefaultConfig()
	cfg.Brokers = brokers
	f, err := kafka.FollowInstall(cfg, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f, cfg
}

// A record that seems to lie in the wrong partition is judged only by who has read topic
// catalog to an end that was listed after it came, however wrong its time is.
func TestPlacementIsDecidedLate(t *testing.T) {
	cluster, brokers := kafkatest.Cluster(t)
	f, cfg := followInstall(t, brokers)
	if err := f.Await(t.Context(), time.Now()); err != nil || f.Install() == nil {
		t.Fatalf("%v %v", f.Install(), err)
	}
	var held atomic.Bool
	kafkatest.HoldCatalog(cluster, &held)
	home := f.Install().Epochs.Partition(misplacedToken, time.Now())
	place := func(partition int32, at, met time.Time) kafka.Placement {
		return f.Placement(&kgo.Record{Partition: partition, Timestamp: at}, misplacedToken, at, met)
	}
	binding, err := kafka.ReadBinding(t.Context(), cfg, discard)
	if err != nil {
		t.Fatal(err)
	}
	wrong, now := (home+1)%kafkatest.Partitions, time.Now()
	held.Store(true)
	for name, c := range map[string]struct {
		partition int32
		at        time.Time
		want      kafka.Placement
	}{
		"at home":                    {home, now, kafka.Placed},
		"before the record":          {wrong, binding.Since.Add(-time.Millisecond), kafka.Placed},
		"now":                        {wrong, now, kafka.Undecided},
		"as old as the record":       {wrong, binding.Since, kafka.Undecided},
		"from a clock an hour ahead": {wrong, now.Add(time.Hour), kafka.Undecided},
	} {
		if got := place(c.partition, c.at, now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if err := f.Await(t.Context(), now); err == nil {
		t.Error("nobody could list, and it is said to be read")
	}
	if got := place(wrong, now, now); got != kafka.Undecided {
		t.Errorf("after a failed listing: %v", got)
	}
	held.Store(false)
	for f.Await(t.Context(), now) != nil {
		time.Sleep(10 * time.Millisecond)
	}
	for _, at := range []time.Time{now, now.Add(time.Hour)} {
		if got := place(wrong, at, now); got != kafka.Misplaced {
			t.Errorf("listed after it came: %v", got)
		}
	}
	if got := place(home, now, now); got != kafka.Placed {
		t.Errorf("at home: %v", got)
	}
	// What came long before the newest listing needs no other one.
	held.Store(true)
	if got := place(wrong, now, time.Now().Add(time.Hour)); got != kafka.Undecided {
		t.Errorf("within the time of delivery: %v", got)
	}
}

// Without a record nothing is misplaced, and one that is written later is noticed.
func TestInstallIsFollowed(t *testing.T) {
	brokers := kafkatest.Broker(t)
	write := func(value []byte, at time.Time) {
		kafkatest.Produce(t, brokers, &kgo.Record{Topic: topic.Catalog, Key: []byte(topic.InstallKey), Value: value,
			Timestamp: at})
	}
	first, _ := followInstall(t, brokers)
	if err := first.Await(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	value, err := first.Install().Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(nil, time.Now())
	f, _ := followInstall(t, brokers)
	if err := f.Await(t.Context(), time.Now()); err != nil || f.Install() != nil {
		t.Fatalf("%v %v", f.Install(), err)
	}
	for p := range int32(kafkatest.Partitions) {
		at := time.Now()
		if got := f.Placement(&kgo.Record{Partition: p, Timestamp: at}, misplacedToken, at, at); got != kafka.Placed {
			t.Errorf("partition %d: %v", p, got)
		}
	}
	changed := f.Changed()
	write(value, time.Now())
	for f.Install() == nil {
		<-changed
		changed = f.Changed()
	}
}

// The timestamp of the record says since when records can be misplaced: not before every
// program has read it, and not anew when the record is written again.
func TestBindingBegins(t *testing.T) {
	i := newInstall(t)
	binding := func() kafka.Binding {
		t.Helper()
		b, err := kafka.ReadBinding(t.Context(), i.cfg, discard)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if b := binding(); b.Since.After(time.Now()) || b.Epochs.Now() != 6 {
		t.Errorf("a fresh install: %v", b)
	}
	kafkatest.Produce(t, i.cfg.Brokers, &kgo.Record{Topic: "acme.catalog", Key: []byte(topic.InstallKey)},
		&kgo.Record{Topic: "acme.clicks", Value: []byte("x")})
	if b := binding(); len(b.Epochs) > 0 || b.IsMisplaced(3, time.Now(), misplacedToken, time.Now()) {
		t.Errorf("no record binds %v", b)
	}
	now := time.Now()
	if _, err := i.apply(6); err != nil {
		t.Fatal(err)
	}
	later := binding()
	if later.Since.Before(now.Add(topic.DeliveryLimit).Truncate(time.Millisecond)) {
		t.Errorf("recorded while programs work: since %v, now %v", later.Since, now)
	}
	if _, err := i.adm.DeleteTopics(t.Context(), "acme.rejections"); err != nil {
		t.Fatal(err)
	}
	if _, err := i.adm.CreateTopic(t.Context(), 1, 1, nil, "acme.rejections"); err != nil {
		t.Fatal(err)
	}
	var start kadm.Offsets
	start.AddOffset("acme.rejections", 0, 0, -1)
	if err := i.adm.CommitAllOffsets(t.Context(), i.cfg.Group(topic.SinkGroup), start); err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.AdoptTopics(t.Context(), i.fresh(), i.cfg, discard, true); err != nil {
		t.Fatal(err)
	}
	if again := binding(); !again.Since.Equal(later.Since) {
		t.Errorf("written again: since %v, want %v", again.Since, later.Since)
	}
}
