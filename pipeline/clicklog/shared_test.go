package clicklog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// sharingClick is the i-th click: some bytes of its own and one of n parts, each of 200
// bytes or more.
func sharingClick(i, n int) record {
	own := fmt.Appendf(nil, "click %d ", i)
	part := bytes.Repeat(fmt.Appendf(nil, "part %03d", i%n), 25+i%n)
	return record{
		offset:     int64(i),
		token:      testToken(i, uint64(i)),
		at:         testTime(i),
		value:      append(own, part...),
		sharedFrom: len(own),
	}
}

func putAll(t testing.TB, l *Log, topic []record) {
	t.Helper()
	for _, rec := range topic {
		if err := rec.putInto(l); err != nil {
			t.Fatal(err)
		}
	}
}

// What the index of the shared parts takes counts as memory. It does not shrink when the
// slab is emptied.
func TestSharedPartsCountAsMemory(t *testing.T) {
	s := newSlab(testSlab)
	for i := range 20 {
		s.shareBytes(uint32(i), bytes.Repeat([]byte{byte(i)}, minShared))
	}
	before := s.memoryBytes()
	s.reset(testSlab, 0)
	index := before - int64(cap(s.data)+cap(s.dictionary)+8*len(s.table))
	if index < 20*8 || s.memoryBytes() != before {
		t.Errorf("the index takes %d bytes, and the slab %d, then %d", index, before, s.memoryBytes())
	}
}

// A shared part is stored once: in the slab, which takes more clicks for it, and in the
// segment.
func TestSharedPartIsStoredOnce(t *testing.T) {
	var topic []record
	for i := range 200 {
		topic = append(topic, sharingClick(i, 4))
	}
	l := mustOpen(t, newFS(t), newMemStore(), clockAt(1000))
	putAll(t, l, topic)
	if l.sealing != nil || len(l.segments) > 0 { // 200 × 250 bytes are three slabs
		t.Fatal("the slab took the parts more than once")
	}
	if err := verifyAnswers(l, newMemStore(), topic, 0); err != nil {
		t.Fatal(err)
	}
	if err := l.Seal(); err != nil {
		t.Fatal(err)
	}
	want := 0
	for i := range 4 {
		want += entryHeadLen + len(topic[i].value) - topic[i].sharedFrom
	}
	if s := l.segments[0]; int(s.dictionaryLen) != want || s.size > 200*(sharingHeadLen+16)+2000 {
		t.Fatalf("dictionary of %d bytes, want %d; segment of %d", s.dictionaryLen, want, s.size)
	}
	if err := verifyAnswers(l, newMemStore(), topic, 0); err != nil {
		t.Fatal(err)
	}
}

// Parts for which the dictionary has no room are stored with their clicks; parts that
// it has are shared on.
func TestDictionaryFull(t *testing.T) {
	fs := newFS(t)
	l := mustOpen(t, fs, newMemStore(), clockAt(1000))
	var topic []record
	for i := range 1000 {
		n := 40 // more than an eighth of a slab
		if i%2 == 0 {
			n = 2
		}
		rec := sharingClick(i, n)
		topic = append(topic, rec)
		if err := rec.putInto(l); err != nil {
			t.Fatal(err)
		}
		if n := len(l.active.dictionary); n > testSlab/dictionaryShare {
			t.Fatalf("click %d: dictionary of %d bytes", i, n)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, fs, newMemStore(), clockAt(1000))
	full := 0
	for _, s := range l.segments {
		if s.dictionaryLen > testSlab/dictionaryShare-600 {
			full++
		}
	}
	if full < 3 {
		t.Fatalf("%d of %d dictionaries are full", full, len(l.segments))
	}
	if err := verifyAnswers(l, newMemStore(), topic, 0); err != nil {
		t.Fatal(err)
	}
}

// A part that is longer than one read of the dictionary comes back too.
func TestLongSharedPart(t *testing.T) {
	fs := newFS(t)
	l := mustOpen(t, fs, newMemStore(), clockAt(1000))
	topic := []record{sharingClick(0, 1), sharingClick(1, 1), sharingClick(2, 1)}
	for i := range 2 {
		topic[i].value = append([]byte{byte(i)}, bytes.Repeat([]byte("long"), entryRead/4+1)...)
		topic[i].sharedFrom = 1
	}
	putAll(t, l, topic)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, fs, newMemStore(), clockAt(1000))
	if l.segments[0].dictionaryLen < entryRead {
		t.Fatal("the part is not shared")
	}
	if err := verifyAnswers(l, newMemStore(), topic, 0); err != nil {
		t.Fatal(err)
	}
}

// Segments of version 1 are read beside new ones.
func TestOldSegmentsBesideNew(t *testing.T) {
	old := goldenClicks()["v1-s2"]
	dump, err := os.ReadFile("testdata/v1-s2.hex")
	if err != nil {
		t.Fatal(err)
	}
	b, err := parseHexDump(string(dump))
	if err != nil {
		t.Fatal(err)
	}
	fs, store := files{segmentName(1): b}.newFS(t), newMemStore()
	topic := old
	for i := 10; i < 300; i++ {
		topic = append(topic, sharingClick(i, 4))
	}
	for range 2 {
		l := mustOpen(t, fs, store, clockAt(1000))
		putAll(t, l, topic)
		if err := verifyAnswers(l, store, topic, 0); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(readFiles(t, fs)); n < 2 {
		t.Fatal(n, "files")
	}
}

// Each damage of a dictionary is ErrCorrupt and names the segment; clicks that share
// nothing are still found.
func TestDamagedDictionary(t *testing.T) {
	topic := []record{sharingClick(0, 2), sharingClick(1, 2)}
	for i := range topic { // entries of one length, so that they can be swapped
		topic[i].value = append(topic[i].value[:topic[i].sharedFrom], bytes.Repeat([]byte{byte(i)}, 200)...)
	}
	whole := sharingClick(2, 1)
	whole.sharedFrom = len(whole.value)
	topic = append(topic, whole)
	good := writeTopic(t, topic)
	s := mustOpen(t, files{segmentName(1): good}.newFS(t), newMemStore(), clockAt(1000)).segments[0]
	at, n := int(s.blockOffsets[1]), entryHeadLen+200
	if int(s.dictionaryLen) != 2*n {
		t.Fatal("dictionary of", s.dictionaryLen)
	}
	for name, damage := range map[string]func(entries []byte){
		"a byte of the part": func(b []byte) { b[entryHeadLen] ^= 1; b[n+entryHeadLen] ^= 1 },
		"length":             func(b []byte) { b[4]++; b[n+4]-- },
		"length beyond":      func(b []byte) { b[7] = 0xff; b[n+7] = 0xff },
		"zeros":              func(b []byte) { clear(b) },
		"swapped":            func(b []byte) { copy(b, append(bytes.Clone(b[n:]), b[:n]...)) },
	} {
		t.Run(name, func(t *testing.T) {
			bad := bytes.Clone(good)
			damage(bad[at : at+2*n])
			l := mustOpen(t, files{segmentName(1): bad}.newFS(t), newMemStore(), clockAt(1000))
			for _, rec := range topic[:2] {
				got, _, err := l.Get(&rec.token, nil)
				if !errors.Is(err, ErrCorrupt) || !NeedsRebuild(err) || len(got) > 0 ||
					!strings.Contains(err.Error(), "dictionary of "+segmentName(1)) {
					t.Fatalf("%q, %v", got, err)
				}
			}
			expectClick(t, l, whole.token, string(whole.value))
		})
	}
}

// Any value that is split anywhere comes back: from the slab, from the segment, and
// after a restart.
func FuzzSharedFrom(f *testing.F) {
	f.Add([]byte("a visitor's part and the link's, which is longer than the shortest"), 20, []byte("x"), -1)
	f.Add(bytes.Repeat([]byte("shared"), 100), 0, bytes.Repeat([]byte("shared"), 100), 6)
	f.Add([]byte{}, 0, bytes.Repeat([]byte{0}, 2050), 1)
	f.Fuzz(func(t *testing.T, value []byte, from int, other []byte, otherFrom int) {
		var topic []record
		for i := range 6 {
			rec := record{offset: int64(i), token: testToken(i, uint64(i)), at: testTime(10), value: value}
			rec.sharedFrom = from
			if i%3 == 1 {
				rec.value, rec.sharedFrom = other, otherFrom
			}
			if i == 5 {
				rec.sharedFrom = len(value) / 2
			}
			rec.value = append([]byte{}, rec.value...) // nil would be skipped
			topic = append(topic, rec)
		}
		fs, store := newFS(t), newMemStore()
		l := mustOpen(t, fs, store, clockAt(1000))
		putAll(t, l, topic)
		check := func() {
			t.Helper()
			if err := verifyAnswers(l, store, topic, 0); err != nil {
				t.Fatal(err)
			}
		}
		check()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = mustOpen(t, fs, store, clockAt(1000))
		check()
	})
}
