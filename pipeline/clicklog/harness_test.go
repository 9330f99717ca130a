package clicklog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/nimriz/partners/pipeline/token"
)

const (
	testDir   = "state/clicks"
	testSlab  = minSlab
	testEpoch = 380_000_000 // seconds of the KSUID epoch at which the tests' clicks begin
)

var testID = Identity{Cluster: "MkU3OEVBNTcwNTJENDM2Qk", Topic: [16]byte{0xaa, 15: 0xbb}, Partition: 7}

// testTime is the Kafka record time of a click minted n seconds after testEpoch, in
// milliseconds.
func testTime(n int) int64 {
	return (epoch + testEpoch + int64(n)) * 1000
}

func testToken(seconds int, payload uint64) (t token.Raw) {
	binary.BigEndian.PutUint32(t[:], uint32(testEpoch+seconds))
	binary.BigEndian.PutUint64(t[4:], payload*0x9E3779B97F4A7C15)
	binary.BigEndian.PutUint64(t[12:], payload)
	return t
}

// clockAt is a clock that always shows n seconds after testEpoch.
func clockAt(n int) func() time.Time {
	return func() time.Time { return time.UnixMilli(testTime(n)) }
}

type storedClick struct {
	at    int64
	value []byte
}

// memStore is an OutOfOrderStore that loses, in a crash, what was not flushed.
type memStore struct {
	mu       sync.Mutex
	all      map[token.Raw]storedClick
	durable  map[token.Raw]storedClick
	puts     []token.Raw // not flushed, in order
	flushes  int
	flushErr error
}

func newMemStore() *memStore {
	return &memStore{all: map[token.Raw]storedClick{}, durable: map[token.Raw]storedClick{}}
}

func (m *memStore) PutClick(t *token.Raw, at int64, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[*t] = storedClick{at, bytes.Clone(value)}
	m.puts = append(m.puts, *t)
	return nil
}

func (m *memStore) GetClick(t *token.Raw, buf []byte) ([]byte, int64, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.all[*t]
	if !ok {
		return buf, 0, false, nil
	}
	return append(buf, c.value...), c.at, true, nil
}

func (m *memStore) Flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushes++
	if m.flushErr != nil {
		return m.flushErr
	}
	m.durable, m.puts = maps.Clone(m.all), nil
	return nil
}

// crash returns what is left: what was flushed, and of the rest all or nothing. (A put
// that replaced a flushed click may survive or not.)
func (m *memStore) crash(keepUnflushed bool) *memStore {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := m.durable
	if keepUnflushed {
		from = m.all
	}
	return &memStore{all: maps.Clone(from), durable: maps.Clone(from)}
}

func mustOpen(t testing.TB, fs vfs.FS, store OutOfOrderStore, now func() time.Time) *Log {
	t.Helper()
	l, err := Open(fs, testDir, testID, Config{SlabBytes: testSlab}, store, now)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newFS returns an empty file system in which the log's parent directory is durable.
func newFS(t testing.TB) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewCrashableMem()
	if err := fs.MkdirAll("state", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syncDir(fs, "/"); err != nil {
		t.Fatal(err)
	}
	return fs
}

// record is one record of the topic.
type record struct {
	offset     int64
	token      token.Raw
	at         int64
	value      []byte // nil: a record to skip
	sharedFrom int
}

func (r record) putInto(l *Log) error {
	if r.value == nil {
		l.Skip(r.offset)
		return nil
	}
	return l.Put(&r.token, r.at, r.value, r.sharedFrom, r.offset)
}

// randomTopic makes a topic with everything in it: out-of-order clicks of both kinds,
// repeated tokens with other bytes, records to skip, holes in the offsets, tokens that
// share their first eight bytes, clicks with shared parts of every length, also more
// than a dictionary takes, and a large click.
func randomTopic(r *rand.Rand, n int) []record {
	var topic []record
	var parts [][]byte
	for n := 1; n < 2048; n *= 2 {
		parts = append(parts, bytes.Repeat([]byte{byte(n), byte(r.Uint32())}, n))
	}
	offset := int64(r.IntN(3) * 1000)
	for i := range n {
		offset += 1 + int64(r.IntN(40)/39*5)
		sec := 10_000 + i/2 + r.IntN(60)
		rec := record{offset: offset, at: testTime(10_000 + i/2 + 60)}
		switch k := r.IntN(100); {
		case k < 3:
			sec -= 2000 + r.IntN(2000)
		case k < 5:
			sec += 2000 + r.IntN(2000)
		case k < 6:
			rec.at += 6000_000 // a record's own clock is wrong too
			sec += 2000
		}
		rec.token = testToken(sec, r.Uint64())
		if i > 0 && r.IntN(10) == 0 {
			rec.token = topic[r.IntN(i)].token
		}
		if i > 0 && r.IntN(20) == 0 {
			copy(rec.token[:8], topic[i-1].token[:8])
		}
		if r.IntN(15) > 0 {
			rec.value = fmt.Appendf(nil, "%d:%x:%s", offset, rec.token[4:8], bytes.Repeat([]byte{'x'}, r.IntN(120)))
			switch rec.sharedFrom = len(rec.value); r.IntN(6) {
			case 0:
				rec.sharedFrom = r.IntN(len(rec.value)+3) - 1
			case 1, 2, 3:
				rec.value = append(rec.value, parts[r.IntN(len(parts))]...)
			}
		}
		if r.IntN(700) == 0 {
			rec.value = make([]byte, testSlab+r.IntN(5000))
			for k := range rec.value {
				rec.value[k] = byte(r.Uint32())
			}
		}
		topic = append(topic, rec)
	}
	return topic
}

// verifyAnswers asks for every token of the topic and compares the answers with a plain
// map: below Next the bytes of the last put, otherwise nothing, unless the store still
// has the click from before a crash. Tokens minted before expired may be missing.
func verifyAnswers(l *Log, store *memStore, topic []record, expired uint32) error {
	latest := map[token.Raw]record{}
	var buf []byte
	for _, r := range topic {
		if r.offset < l.Next() && r.value != nil {
			latest[r.token] = r
		}
	}
	for _, r := range topic {
		want, stored := latest[r.token]
		got, at, err := l.Get(&r.token, buf[:0])
		buf = got
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("token %x: %w", r.token, err)
		}
		other, inStore := store.all[r.token]
		switch {
		case err == nil && stored && at == want.at && bytes.Equal(got, want.value):
		case err != nil && !stored:
		case err == nil && inStore && at == other.at && bytes.Equal(got, other.value) &&
			isUnread(topic, r.token, other, l.Next()):
		case token.Seconds(&r.token) < expired && (err != nil || inStore && bytes.Equal(got, other.value)):
		default:
			return fmt.Errorf("token %x of offset %d, next %d: got %.40q at %d, %v; want %.40q at %d",
				r.token, r.offset, l.Next(), got, at, err, want.value, want.at)
		}
	}
	never := testToken(10_100, 1)
	if _, _, err := l.Get(&never, nil); !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("a token never put: %v", err)
	}
	return nil
}

// isUnread reports whether the click is one of the topic's at or above next.
func isUnread(topic []record, t token.Raw, c storedClick, next int64) bool {
	for _, r := range topic {
		if r.offset >= next && r.token == t && bytes.Equal(r.value, c.value) {
			return true
		}
	}
	return false
}
