package kafka_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/outage"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// answerListings answers the next listings of topic catalog with an error or an end.
func answerListings(cluster *kfake.Cluster, left *atomic.Int32, code int16, end int64) {
	cluster.ControlKey(int16(kmsg.ListOffsets), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		in := request.(*kmsg.ListOffsetsRequest)
		isEnd := in.Topics[0].Partitions[0].Timestamp == -1 && in.IsolationLevel == 0
		if in.Topics[0].Topic != topic.Catalog || !isEnd && code == 0 || left.Add(-1) < 0 {
			return nil, nil, false
		}
		out := in.ResponseKind().(*kmsg.ListOffsetsResponse)
		p := kmsg.NewListOffsetsResponseTopicPartition()
		p.ErrorCode, p.Offset = code, end
		t := kmsg.NewListOffsetsResponseTopic()
		t.Topic, t.Partitions = topic.Catalog, []kmsg.ListOffsetsResponseTopicPartition{p}
		out.Topics = append(out.Topics, t)
		return out, nil, true
	})
}

// followOften follows with a short interval, and returns what the watch logs.
func followOften(t *testing.T, brokers []string) (*kafka.InstallFollower, *kafkatest.LogBuffer) {
	t.Helper()
	logged := &kafkatest.LogBuffer{}
	cfg := kafka.DefaultConfig()
	cfg.Brokers = brokers
	cfg.Watch = outage.New(slog.New(slog.NewTextHandler(logged, nil)), "Kafka")
	f, err := kafka.FollowInstallEvery(cfg, discard, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f, logged
}

// A topic that was read and cannot be found is not read to its end.
func TestCatalogGoneIsNotRead(t *testing.T) {
	cluster, brokers := kafkatest.Cluster(t)
	f, _ := followOften(t, brokers)
	if err := f.Await(t.Context(), time.Now()); err != nil || f.Install() == nil {
		t.Fatalf("%v %v", f.Install(), err)
	}
	var left atomic.Int32
	left.Store(1 << 30)
	answerListings(cluster, &left, kerr.UnknownTopicOrPartition.Code, 0)
	for range 3 { // a listing can be under way
		if err := f.Await(t.Context(), time.Now()); errors.Is(err, kerr.UnknownTopicOrPartition) {
			return
		}
	}
	t.Error("it is said to be read")
}

// A listing can name an end that the log does not keep, as after an unclean election. It is
// told, and listed again.
func TestListedEndThatIsLost(t *testing.T) {
	cluster, brokers := kafkatest.Cluster(t)
	f, logged := followOften(t, brokers)
	if err := f.Await(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	var left atomic.Int32
	answerListings(cluster, &left, 0, 1000)
	left.Store(1)
	for left.Load() > 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := f.Await(ctx, time.Now()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(logged.String(), "catalog was read to offset 2, its end is 1000") {
		t.Errorf("logged: %s", logged)
	}
}

// A catalog that was created anew has other records at the same offsets: it is read from its
// start, and while it is empty it is not taken for read.
func TestCatalogCreatedAnew(t *testing.T) {
	_, brokers := kafkatest.Cluster(t)
	f, _ := followOften(t, brokers)
	if err := f.Await(t.Context(), time.Now()); err != nil || f.Install() == nil {
		t.Fatalf("%v %v", f.Install(), err)
	}
	value, err := topic.Install{Epochs: topic.OneEpoch(8), Topics: f.Install().Topics}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	adm := kadm.NewClient(kafkatest.Client(t, brokers))
	if _, err := adm.DeleteTopics(t.Context(), topic.Catalog); err != nil {
		t.Fatal(err)
	}
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, topic.Catalog); err != nil {
		t.Fatal(err)
	}
	for err = nil; !errors.Is(err, kafka.ErrRecreated); err = f.Await(t.Context(), time.Now()) {
		time.Sleep(time.Millisecond)
	}
	kafkatest.Produce(t, brokers, &kgo.Record{Topic: topic.Catalog, Key: []byte(topic.InstallKey), Value: value},
		&kgo.Record{Topic: topic.Catalog, Key: []byte("workspace/a"), Value: []byte("{}")},
		&kgo.Record{Topic: topic.Catalog, Key: []byte("workspace/b"), Value: []byte("{}")})
	for f.Await(t.Context(), time.Now()) != nil {
		time.Sleep(time.Millisecond)
	}
	if n := f.Install().Epochs.Now(); n != 8 {
		t.Errorf("tokens are bound to %d partitions, want those of the new record", n)
	}
}

// A record that cannot be read stops who asks for it, and not the tokens that are given up
// behind it. Another record takes its place.
func TestGivenUpBehindUnreadable(t *testing.T) {
	brokers := kafkatest.Broker(t)
	f, _ := followOften(t, brokers)
	if err := f.Await(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	value, err := f.Install().Encode()
	if err != nil {
		t.Fatal(err)
	}
	kafkatest.Produce(t, brokers, &kgo.Record{Topic: topic.Catalog, Key: []byte(topic.InstallKey), Value: []byte("{")})
	for err = nil; err == nil || !strings.Contains(err.Error(), topic.InstallKey); {
		err = f.Await(t.Context(), time.Now())
	}
	kafkatest.Produce(t, brokers, &kgo.Record{Topic: topic.Catalog, Key: []byte(topic.GivenUpPrefix + misplacedToken)})
	for !f.IsGivenUp(misplacedToken) {
		time.Sleep(time.Millisecond)
	}
	kafkatest.Produce(t, brokers, &kgo.Record{Topic: topic.Catalog, Key: []byte(topic.InstallKey), Value: value})
	for f.Await(t.Context(), time.Now()) != nil {
		time.Sleep(time.Millisecond)
	}
}

// What a reading that was ended still has is of a topic that is no longer there: its record
// that cannot be read stops nobody. Its tokens stay given up.
func TestLateReadingLeavesNoError(t *testing.T) {
	f, _ := followOften(t, kafkatest.Broker(t))
	if err := f.Await(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	at := f.Position()
	f.TakeLate(&kgo.Record{Offset: at + 7, Key: []byte(topic.InstallKey), Value: []byte("{")},
		&kgo.Record{Offset: at + 8, Key: []byte(topic.GivenUpPrefix + misplacedToken)})
	if err := f.Await(t.Context(), time.Now()); err != nil || f.Position() != at {
		t.Errorf("read to %d, want %d: %v", f.Position(), at, err)
	}
	if !f.IsGivenUp(misplacedToken) {
		t.Error("a token that was given up is no longer")
	}
}
