package verify_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/pipeline/verify"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// progressRecord is what a processor says of partition 0.
func progressRecord(t *testing.T, p *event.Progress) *kgo.Record {
	t.Helper()
	value, err := codec.AppendProgress(nil, p)
	if err != nil {
		t.Fatal(err)
	}
	return &kgo.Record{Topic: topic.Progress, Key: []byte("0"), Value: value}
}

// The source of topics has the state of the newest Progress, all times that Progress
// named, and where the logs begin now.
func TestOpenTopics(t *testing.T) {
	brokers := kafkatest.Broker(t)
	cfg := kafka.DefaultConfig()
	cfg.Brokers = brokers
	open := func() (*verify.Source, error) {
		return verify.OpenTopics(t.Context(), cfg, codec, slog.New(slog.DiscardHandler))
	}
	start := time.UnixMilli(1_700_000_000_000)
	var records []*kgo.Record
	for i := range 10 {
		for _, name := range []string{topic.Clicks, topic.Conversions, topic.Outcomes} {
			records = append(records, &kgo.Record{Topic: name, Timestamp: start.Add(time.Duration(i) * time.Second)})
		}
	}
	records = append(records, &kgo.Record{Topic: topic.Conversions, Partition: 3},
		&kgo.Record{Topic: topic.Outcomes, Partition: 3})
	for i, grace := range []int64{1000, 1000, 2000} {
		records = append(records, progressRecord(t, &event.Progress{ClicksPosition: int64(3 * i),
			ConversionsPosition: int64(3 * i), OutcomesEnd: int64(2 * i), Watermark: event.Millis(i), GraceMs: grace,
			ClickLifeMs: 5, JourneyLifeMs: 6}))
	}
	kafkatest.Produce(t, brokers, records...)
	source, err := open()
	if err != nil {
		t.Fatal(err)
	}
	for i := range source.Partitions {
		if p := &source.Partitions[i]; p.IsGivenUp == nil || p.IsGivenUp("any") {
			t.Error("a token is given up, or nothing says so")
		}
		source.Partitions[i].IsGivenUp = nil // its address is printed, and differs
	}
	const want = "[{ID:0 Watermark:2 Clicks:{Start:0 End:6 FirstAt:0} Conversions:{Start:0 End:6 FirstAt:0} " +
		"Outcomes:{Start:0 End:4 FirstAt:0} Times:[{GraceMs:1000 ClickLifeMs:5 JourneyLifeMs:6 First:0 Last:3 " +
		"LastOutcomes:2} {GraceMs:2000 ClickLifeMs:5 JourneyLifeMs:6 First:6 Last:6 LastOutcomes:4}] OlderRules:0 " +
		"IsGivenUp:<nil>}]"
	if got := fmt.Sprintf("%+v", source.Partitions); got != want || source.Unjudged != 5 || source.Unread != 1 {
		t.Errorf("%d unjudged, %d unread\n got %s\nwant %s", source.Unjudged, source.Unread, got, want)
	}

	deleted := make(kadm.Offsets)
	deleted.AddOffset(topic.Clicks, 0, 2, -1)
	deleted.AddOffset(topic.Conversions, 0, 7, -1) // beyond what is judged
	if _, err := kadm.NewClient(kafkatest.Client(t, brokers)).DeleteRecords(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	if source, err = open(); err != nil {
		t.Fatal(err)
	}
	p := source.Partitions[0]
	if at := event.MillisOf(start.Add(2 * time.Second)); p.Clicks != (verify.Extent{Start: 2, End: 6, FirstAt: at}) ||
		p.Conversions.Start != 6 || p.Conversions.FirstAt < 1<<60 {
		t.Errorf("%+v", p)
	}

	kafkatest.Produce(t, brokers, progressRecord(t, &event.Progress{OutcomesEnd: 11}))
	const behind = "outcomes partition 0 is processed up to offset 11, and it ends at 10"
	if _, err = open(); err == nil || !strings.Contains(err.Error(), behind) {
		t.Errorf("%v", err)
	}
}
