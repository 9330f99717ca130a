package kafka_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/topic"
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
	value, err := topic.PlacedSince{Since: time.Now().Add(-time.Hour)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	kafkatest.Produce(t, brokers, &kgo.Record{Topic: topic.Catalog, Key: []byte(topic.PlacedSinceKey), Value: value})
	f, cfg := followInstall(t, brokers)
	began := time.Now()
	if err := f.Await(t.Context(), began); err != nil || f.Install() == nil {
		t.Fatalf("%v %v", f.Install(), err)
	}
	var held atomic.Bool
	kafkatest.HoldCatalog(cluster, &held)
	home := f.Install().Epochs.Partition(misplacedToken, time.Now())
	minted := began.Add(-time.Hour)
	place := func(partition int32, at, met time.Time) kafka.Placement {
		return f.Placement(&kgo.Record{Partition: partition, Timestamp: at}, misplacedToken, minted, met)
	}
	binding, err := kafka.ReadBinding(t.Context(), cfg, discard)
	if err != nil {
		t.Fatal(err)
	}
	// Times are compared in whole seconds: now is in a later one than the last listing.
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
	wrong, now := (home+1)%kafkatest.Partitions, time.Now()
	held.Store(true)
	for name, c := range map[string]struct {
		partition int32
		at        time.Time
		want      kafka.Placement
	}{
		"at home, of a while ago":     {home, began.Add(-time.Minute), kafka.Placed},
		"at home, now":                {home, now, kafka.Undecided},
		"before places were bound":    {wrong, binding.Since.Add(-time.Millisecond), kafka.Placed},
		"now":                         {wrong, now, kafka.Undecided},
		"as old as the binding":       {wrong, binding.Since, kafka.Undecided},
		"from a clock an hour ahead":  {wrong, now.Add(time.Hour), kafka.Undecided},
		"from a clock that is behind": {wrong, now.Add(-10 * time.Minute), kafka.Undecided},
	} {
		if got := place(c.partition, c.at, now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	// A token that was minted since may belong elsewhere, by an epoch that is not read.
	young := &kgo.Record{Partition: home, Timestamp: minted}
	if got := f.Placement(young, misplacedToken, now, now); got != kafka.Undecided {
		t.Errorf("at home, minted now: %v", got)
	}
	if p, ok := f.Place(misplacedToken, now, now); ok {
		t.Errorf("a token that was minted now is placed into %d", p)
	}
	if p, ok := f.Place(misplacedToken, minted, now); !ok || p != home {
		t.Errorf("one that was minted before: %d %v", p, ok)
	}
	if err := f.Await(t.Context(), now); err == nil {
		t.Error("nobody could list, and it is said to be read")
	}
	if got := place(wrong, now, now); got != kafka.Undecided {
		t.Errorf("after a failed listing: %v", got)
	}
	if err := f.Await(t.Context(), began); err != nil {
		t.Errorf("what was read stays read, whatever fails since: %v", err)
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
	held.Store(true)
	if got := place(wrong, now, time.Now().Add(time.Hour)); got != kafka.Undecided {
		t.Errorf("met later: %v", got)
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
	at := time.Now()
	for p := range int32(kafkatest.Partitions) {
		got := f.Placement(&kgo.Record{Partition: p, Timestamp: at}, misplacedToken, at, at)
		if got != kafka.Undecided {
			t.Errorf("partition %d, the record may be there unread: %v", p, got)
		}
	}
	if err := f.Await(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	for p := range int32(kafkatest.Partitions) {
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

// A fresh install binds places at once. In one that was in use before the record nothing is
// misplaced until ctl says that every program looks, and then not what was judged before.
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
	bind := func() (time.Time, bool) {
		t.Helper()
		since, written, err := kafka.BindPlaces(t.Context(), i.fresh(), i.cfg, discard)
		if err != nil {
			t.Fatal(err)
		}
		return since, written
	}
	fresh := binding()
	if fresh.Since.IsZero() || fresh.Since.After(time.Now()) || fresh.Epochs.Now() != 6 {
		t.Errorf("a fresh install: %v", fresh)
	}
	if since, written := bind(); written || !since.Equal(fresh.Since) {
		t.Errorf("bound anew: %v", since)
	}
	kafkatest.Produce(t, i.cfg.Brokers, &kgo.Record{Topic: "acme.catalog", Key: []byte(topic.InstallKey)},
		&kgo.Record{Topic: "acme.catalog", Key: []byte(topic.PlacedSinceKey)},
		&kgo.Record{Topic: "acme.clicks", Value: []byte("x")})
	_, _, err := kafka.BindPlaces(t.Context(), i.fresh(), i.cfg, discard)
	i.wants(kafka.ErrNotInstalled, "run `ctl topics apply`")(nil, err)
	if _, err := i.apply(6); err != nil {
		t.Fatal(err)
	}
	hourAhead := time.Now().Add(time.Hour)
	for p := range int32(6) {
		if b := binding(); b.Epochs.Now() != 6 || b.IsMisplaced(p, hourAhead, misplacedToken, hourAhead) {
			t.Errorf("recorded while programs work: %v", b)
		}
	}
	f, err := kafka.FollowInstall(i.cfg, discard)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Await(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	met := time.Now()
	wrong := &kgo.Record{Partition: (binding().Epochs.Partition(misplacedToken, met) + 1) % 6, Timestamp: met}
	place := func(met time.Time) kafka.Placement { return f.Placement(wrong, misplacedToken, met, met) }
	if got := place(met); got != kafka.Undecided {
		t.Errorf("somebody may have bound places meanwhile: %v", got)
	}
	if err := f.Await(t.Context(), met); err != nil || place(met) != kafka.Placed {
		t.Errorf("nobody has: %v %v", place(met), err)
	}
	began := time.Now()
	since, written := bind()
	if !written || since.Before(began.Add(topic.DeliveryLimit).Truncate(time.Millisecond)) {
		t.Errorf("bound since %v, now %v", since, began)
	}
	if err := f.Await(t.Context(), time.Now()); err != nil || place(met) != kafka.Placed {
		t.Errorf("it was placed before: %v %v", place(met), err)
	}
	wrong.Timestamp = since
	if got := place(met); got != kafka.Misplaced {
		t.Errorf("from then on: %v", got)
	}
}
