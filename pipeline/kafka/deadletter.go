package kafka

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"time"

	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// MaxLetterBytes is what of an unreadable record goes into its dead letter. A broker's limit, usually 1 MB, holds for the letter as for the record, and the headers that say
// where it was come on top.
const MaxLetterBytes = 900_000

// DeadLetter is the record that keeps an unreadable record's bytes where a person can look at them: original key, value and headers, and before those the headers error,
// source-topic, source-partition, source-offset and failed-at. name is the topic of the dead letters. What is too long is cut; then the error tells the lengths and the hash.
func DeadLetter(name string, r *kgo.Record, why error, now time.Time) *kgo.Record {
	key, value, headers := r.Key, r.Value, r.Headers
	size := len(key) + len(value)
	for _, h := range headers {
		size += len(h.Key) + len(h.Value)
	}
	if size > MaxLetterBytes {
		why = fmt.Errorf("%w; cut: key of %d bytes, value of %d bytes with SHA-256 %x, %d headers", why, len(key), len(value), sha256.Sum256(value), len(headers))
		key, value, headers = key[:min(len(key), 1024)], value[:min(len(value), MaxLetterBytes)], nil
	}
	return &kgo.Record{Topic: name, Partition: 0, Key: key, Value: value, Headers: append([]kgo.RecordHeader{
		{Key: topic.HeaderError, Value: []byte(why.Error())},
		{Key: topic.HeaderSourceTopic, Value: []byte(r.Topic)},
		{Key: topic.HeaderSourcePartition, Value: strconv.AppendInt(nil, int64(r.Partition), 10)},
		{Key: topic.HeaderSourceOffset, Value: strconv.AppendInt(nil, r.Offset, 10)},
		{Key: topic.HeaderFailedAt, Value: now.UTC().AppendFormat(nil, time.RFC3339Nano)},
	}, headers...)}
}
