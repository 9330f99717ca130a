package kafka_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Whatever header names a record has of its own, its letter gives it back as it was.
func TestLetterRoundTrip(t *testing.T) {
	r := &kgo.Record{
		Topic:     "conversions",
		Partition: 5,
		Offset:    77,
		Key:       []byte("k"),
		Value:     []byte("v"),
		Headers:   []kgo.RecordHeader{{Key: topic.HeaderError, Value: []byte("its own")}},
	}
	letter := kafka.NewDeadLetter(topic.DeadLetters, r, errors.New("why"), time.Now())
	l, err := kafka.ParseDeadLetter(letter)
	if err != nil {
		t.Fatal(err)
	}
	if l.Source != (kafka.RecordPos{Topic: r.Topic, Partition: 5, Offset: 77}) || l.Error != "why" || l.Truncated ||
		string(l.Record.Key) != "k" || string(l.Record.Value) != "v" ||
		len(l.Record.Headers) != 1 || string(l.Record.Headers[0].Value) != "its own" {
		t.Errorf("got %+v, record %+v", l, l.Record)
	}
	letter.Headers = letter.Headers[1:]
	if _, err := kafka.ParseDeadLetter(letter); !errors.Is(err, kafka.ErrNotDeadLetter) {
		t.Errorf("got %v", err)
	}
}
