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

// MaxDeadLetterBytes is how much of an unreadable record goes into its dead letter. A
// broker's limit, usually 1 MB, applies to the dead letter, too, and the headers that
// say where the record was come on top.
const MaxDeadLetterBytes = 900_000

// NewDeadLetter returns the record that keeps an unreadable record's bytes, for a
// person to look at: its key, value and headers, after the headers error, source-topic,
// source-partition, source-offset and failed-at. name is the topic of the dead letters.
// A record that is too long is truncated; the error then says its lengths and its hash.
//
// Which records are dead letters is decided by their readers: of conversions the
// processor (applyConversion: unreadable, the key is not the token, or misplaced), of
// other topics the sink (mapping.go, and clicks that are misplaced). event.Unreadable
// tells an unreadable record from a failure of ours.
func NewDeadLetter(name string, r *kgo.Record, why error, now time.Time) *kgo.Record {
	key := r.Key
	value := r.Value
	headers := r.Headers
	size := len(key) + len(value)
	for _, h := range headers {
		size += len(h.Key) + len(h.Value)
	}
	if size > MaxDeadLetterBytes {
		why = fmt.Errorf("%w"+truncationMark+"%d bytes, value of %d bytes with SHA-256 %x, %d headers",
			why, len(key), len(value), sha256.Sum256(value), len(headers))
		key = key[:min(len(key), 1024)]
		value = value[:min(len(value), MaxDeadLetterBytes)]
		headers = nil
	}
	source := []kgo.RecordHeader{
		{Key: topic.HeaderError, Value: []byte(why.Error())},
		{Key: topic.HeaderSourceTopic, Value: []byte(r.Topic)},
		{Key: topic.HeaderSourcePartition, Value: strconv.AppendInt(nil, int64(r.Partition), 10)},
		{Key: topic.HeaderSourceOffset, Value: strconv.AppendInt(nil, r.Offset, 10)},
		{Key: topic.HeaderFailedAt, Value: now.UTC().AppendFormat(nil, time.RFC3339Nano)},
	}
	return &kgo.Record{Topic: name, Partition: 0, Key: key, Value: value, Headers: append(source, headers...)}
}

// DeadLetter is a dead letter that was read back.
type DeadLetter struct {
	Offset    int64     // of the dead letter itself
	Source    RecordPos // where the record was
	Error     string    // why it could not be read
	FailedAt  string    // RFC 3339
	Truncated bool      // only the beginning of the record was kept
	// Record is the record as it was: key, value and its own headers, addressed to the
	// topic and partition that it came from.
	Record *kgo.Record
}

// RecordPos is where a record is: one offset of one partition.
type RecordPos struct {
	Topic     string // full name
	Partition int32
	Offset    int64
}

// ErrNotDeadLetter: a record was not written by NewDeadLetter.
var ErrNotDeadLetter = errors.New("not a dead letter")

// ParseDeadLetter reads a record that NewDeadLetter made. Else it returns
// ErrNotDeadLetter.
func ParseDeadLetter(r *kgo.Record) (l DeadLetter, err error) {
	names := []string{topic.HeaderError, topic.HeaderSourceTopic, topic.HeaderSourcePartition,
		topic.HeaderSourceOffset, topic.HeaderFailedAt}
	if len(r.Headers) < len(names) {
		return l, fmt.Errorf("reading dead letter %d: %w: it has %d headers",
			r.Offset, ErrNotDeadLetter, len(r.Headers))
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
	l.Offset = r.Offset
	l.Source.Topic = text[1]
	l.Source.Partition = int32(partition)
	l.Error = text[0]
	l.FailedAt = text[4]
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

// truncationMark is part of the error of a dead letter that was truncated.
const truncationMark = "; cut: key of "
