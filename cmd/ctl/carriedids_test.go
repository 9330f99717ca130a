package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/kafka/kafkatest"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A few records of an id that is unknown, of another record, or broken are strays: they are
// said, and fail nothing, beside others that can be read.
func TestStrayIDs(t *testing.T) {
	good := carriedID{topic: topic.Clicks, id: 6, records: 40}
	unknown := carriedID{topic: topic.Clicks, id: 99, records: 1, broken: 1, example: event.ErrUnknownSchema}
	broken := carriedID{topic: topic.Clicks, id: 1, records: 1, broken: 1, example: event.ErrMalformed}
	other := carriedID{topic: topic.Clicks, id: 7, records: 3, broken: 3, example: event.ErrWrongRecord}
	many := carriedID{topic: topic.Clicks, id: 98, records: 4, broken: 4, example: event.ErrUnknownSchema}
	for name, x := range map[string]struct {
		carried []carriedID
		said    string // of the last line
		err     string
	}{
		"unknown": {[]carriedID{good, unknown}, "a processor stops at an event of such a click", ""},
		"broken":  {[]carriedID{good, broken}, "40 others there can be read: each is a dead letter", ""},
		"other":   {[]carriedID{good, unknown, other}, "taken for strays", ""},
		"many":    {[]carriedID{good, many}, "Click version 2", "id 98 (4 records"},
		"alone":   {[]carriedID{unknown}, "", "give it to this command, too: -schema-ids FILE"},
		"elsewhere": {[]carriedID{{topic: topic.Outcomes, id: 8, records: 50}, unknown}, "Outcome version 2",
			"clicks carries schema id 99"},
	} {
		lines, err := judgeCarriedIDs(x.carried, event.DefaultIDs(), builtInIDs)
		last := strings.Join(lines, "\n")
		last = last[strings.LastIndex(last, "\n")+1:]
		if !strings.Contains(last, x.said) || (err == nil) != (x.err == "") ||
			err != nil && !strings.Contains(err.Error(), x.err) {
			t.Errorf("%s: %q, %v", name, last, err)
		}
	}
	_, err := judgeCarriedIDs([]carriedID{unknown}, event.DefaultIDs(), "ids.json")
	if err == nil || !strings.Contains(err.Error(), "not in ids.json: their records cannot be read. Put the id back") {
		t.Errorf("with a file: %v", err)
	}
}

// What retention deletes between the listing and the reading makes the sample begin again.
func TestSampleWhileRetentionDeletes(t *testing.T) {
	cluster, brokers := kafkatest.Cluster(t)
	for range 3 {
		kafkatest.Produce(t, brokers, &kgo.Record{Topic: topic.Clicks, Value: []byte{0, 0, 0, 0, 6, 1}})
	}
	cfg := kafka.DefaultConfig()
	cfg.Brokers = brokers
	sample := func(failures int) ([]carriedID, error) {
		kafkatest.RefuseFetches(cluster, kerr.OffsetOutOfRange, failures)
		return sampleIDs(t.Context(), slog.New(slog.DiscardHandler), cfg, event.DefaultCodec())
	}
	carried, err := sample(1)
	if err != nil || len(carried) != 1 || carried[0].id != 6 || carried[0].records != 3 {
		t.Errorf("%+v, %v", carried, err)
	}
	if _, err := sample(1000); !errors.Is(err, kerr.OffsetOutOfRange) {
		t.Errorf("for ever: %v", err)
	}
}
