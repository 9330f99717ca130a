package kafka

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// MaxDeadLetterBytes is what of an unreadable record goes into its dead letter. A broker's
// limit, usually 1 MB, holds for the letter as for the record, and the headers that say
// where it was come on top.
const MaxDeadLetterBytes = 900_000

// NewDeadLetter is the record that keeps an unreadable record's bytes where a person can
// look at them: original key, value and headers, and before those the headers error,
// source-topic, source-partition, source-offset and failed-at. name is the topic of the
// dead letters. What is too long is cut; then the error tells the lengths and the hash.
func NewDeadLetter(name string, r *kgo.Record, why error, now time.Time) *kgo.Record {
	key, value, headers := r.Key, r.Value, r.Headers
	size := len(key) + len(value)
	for _, h := range headers {
		size += len(h.Key) + len(h.Value)
	}
	if size > MaxDeadLetterBytes {
		why = fmt.Errorf("%w"+truncationMark+"%d bytes, value of %d bytes with SHA-256 %x, %d headers",
			why, len(key), len(value), sha256.Sum256(value), len(headers))
		key, value, headers = key[:min(len(key), 1024)], value[:min(len(value), MaxDeadLetterBytes)], nil
	}
	return &kgo.Record{Topic: name, Partition: 0, Key: key, Value: value, Headers: append([]kgo.RecordHeader{
		{Key: topic.HeaderError, Value: []byte(why.Error())},
		{Key: topic.HeaderSourceTopic, Value: []byte(r.Topic)},
		{Key: topic.HeaderSourcePartition, Value: strconv.AppendInt(nil, int64(r.Partition), 10)},
		{Key: topic.HeaderSourceOffset, Value: strconv.AppendInt(nil, r.Offset, 10)},
		{Key: topic.HeaderFailedAt, Value: now.UTC().AppendFormat(nil, time.RFC3339Nano)},
	}, headers...)}
}

// DeadLetter is a dead letter that was read back.
type DeadLetter struct {
	// Offset is the letter's own offset.
	Offset int64
	Source struct {
		Topic     string
		Partition int32
		Offset    int64
	}
	Error    string
	FailedAt string
	// Truncated: the letter holds only the beginning of the record.
	Truncated bool
	// Record is the record as it was: key, value and its own headers, bound for the
	// topic and partition that it came from.
	Record *kgo.Record
}

// ErrNotDeadLetter is a record that is no dead letter of ours.
var ErrNotDeadLetter = errors.New("not a dead letter")

// ParseDeadLetter reads what DeadLetter wrote.
func ParseDeadLetter(r *kgo.Record) (l DeadLetter, err error) {
	names := []string{topic.HeaderError, topic.HeaderSourceTopic, topic.HeaderSourcePartition,
		topic.HeaderSourceOffset, topic.HeaderFailedAt}
	if len(r.Headers) < len(names) {
		return l, fmt.Errorf("reading dead letter %d: %w: it has %d headers", r.Offset, ErrNotDeadLetter, len(r.Headers))
	}
	text := make([]string, len(names))
	for i, name := range names { // ours come first: the record's own may have the same names
		if r.Headers[i].Key != name {
			return l, fmt.Errorf("reading dead letter %d: %w: header %d is %q, not %q",
				r.Offset, ErrNotDeadLetter, i, r.Headers[i].Key, name)
		}
		text[i] = string(r.Headers[i].Value)
	}
	partition, err := strconv.ParseInt(text[2], 10, 32)
	if err == nil {
		l.Source.Offset, err = strconv.ParseInt(text[3], 10, 64)
	}
	if err != nil {
		return l, fmt.Errorf("reading dead letter %d: %w: %w", r.Offset, ErrNotDeadLetter, err)
	}
	l.Offset, l.Source.Topic, l.Source.Partition, l.Error, l.FailedAt = r.Offset, text[1], int32(
		partition), text[0], text[4]
	l.Truncated = strings.Contains(l.Error, truncationMark)
	l.Record = &kgo.Record{
		Topic:     l.Source.Topic,
		Partition: l.Source.Partition,
		Key:       r.Key,
		Value:     r.Value,
		Headers:   r.Headers[len(names):],
	}
	return l, nil
}

// truncationMark stands in the error of a letter that was cut.
const truncationMark = "; cut: key of "
