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
)

const (
	testDir   = "state/clicks"
	testSlab  = minSlab
	testEpoch = 380_000_000 // seconds of the KSUID epoch at which the tests' clicks begin
)

var testID = Identity{Cluster: "MkU3OEVBNTcwNTJENDM2Qk", Topic: [16]byte{0xaa, 15: 0xbb}, Partition: 7}

// testTime is the Kafka record time of a click minted n seconds after testEpoch, in
// milliseconds.
func testTime(n int) int64 { return (ksuidEpoch + testEpoch + int64(n)) * 1000 }

func testToken(seconds int, payload uint64) (t Token) {
	binary.BigEndian.PutUint32(t[:], uint32(testEpoch+seconds))
	binary.BigEndian.PutUint64(t[4:], payload*0x9E3779B97F4A7C15)
	binary.BigEndian.PutUint64(t[12:], payload)
	return t
}

// clock stands n seconds after testEpoch.
func clock(n int) func() time.Time {
	return func() time.Time { return time.UnixMilli(testTime(n)) }
}

type sideClick struct {
	at    int64
	value []byte
}

// mapSide is a Side that forgets, at a crash, what was not flushed.
type mapSide struct {
	mu       sync.Mutex
	all      map[Token]sideClick
	durable  map[Token]sideClick
	puts     []Token // not flushed, in order
	flushes  int
	flushErr error
}

func newMapSide() *mapSide {
	return &mapSide{all: map[Token]sideClick{}, durable: map[Token]sideClick{}}
}

func (m *mapSide) PutClick(t *Token, at int64, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[*t] = sideClick{at, bytes.Clone(value)}
	m.puts = append(m.puts, *t)
	return nil
}

func (m *mapSide) GetClick(t *Token, buf []byte) ([]byte, int64, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.all[*t]
	if !ok {
		return buf, 0, false, nil
	}
	return append(buf, c.value...), c.at, true, nil
}

func (m *mapSide) Flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushes++
	if m.flushErr != nil {
		return m.flushErr
	}
	m.durable, m.puts = maps.Clone(m.all), nil
	return nil
}

// crash returns what is left: what was flushed, and of the rest all or nothing. (What
// was put over a flushed click may survive or not.)
func (m *mapSide) crash(keepUnflushed bool) *mapSide {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := m.durable
	if keepUnflushed {
		from = m.all
	}
	return &mapSide{all: maps.Clone(from), durable: maps.Clone(from)}
}

func mustOpen(t testing.TB, fs vfs.FS, side Side, now func() time.Time) *Log {
	t.Helper()
	l, err := Open(fs, testDir, testID, Config{SlabBytes: testSlab}, side, now)
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
	offset int64
	token  Token
	at     int64
	value  []byte // nil: a record to skip
}

func (r record) feed(l *Log) error {
	if r.value == nil {
		l.Skip(r.offset)
		return nil
	}
	return l.Put(&r.token, r.at, r.value, r.offset)
}

// topicOf makes a topic that has everything in it: late and future clicks, repeated
// tokens with other bytes, records to skip, holes in the offsets, tokens that share
// their first eight bytes, and a large click.
func topicOf(r *rand.Rand, n int) []record {
	var topic []record
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

// verify asks for every token of the topic and judges the answers by a plain map: for
// what lies below Next the last put's bytes, and nothing for the rest, unless the Side
// still has it from before a crash. Tokens older than expired may be missing.
func verify(l *Log, side *mapSide, topic []record, expired uint32) error {
	latest := map[Token]record{}
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
		aside, isAside := side.all[r.token]
		switch {
		case err == nil && stored && at == want.at && bytes.Equal(got, want.value):
		case err != nil && !stored:
		case err == nil && isAside && at == aside.at && bytes.Equal(got, aside.value) &&
			aheadOf(topic, r.token, aside, l.Next()):
		case tokenTime(&r.token) < expired && (err != nil || isAside && bytes.Equal(got, aside.value)):
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

// aheadOf says whether the click is one of the topic's at or above next.
func aheadOf(topic []record, t Token, c sideClick, next int64) bool {
	for _, r := range topic {
		if r.offset >= next && r.token == t && bytes.Equal(r.value, c.value) {
			return true
		}
	}
	return false
}
