package clicklog

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/s2"

	"github.com/nimriz/partners/pipeline/token"
)

// files is the content of a log's directory.
type files map[string][]byte

func readFiles(t testing.TB, fs *vfs.MemFS) files {
	t.Helper()
	names, err := fs.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	all := files{}
	for _, name := range names {
		b, err := fs.UnsafeGetFileDataBuffer(testDir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = bytes.Clone(b)
	}
	return all
}

func (f files) newFS(t testing.TB) *vfs.MemFS {
	t.Helper()
	fs := newFS(t)
	if err := fs.MkdirAll(testDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range f {
		w, err := fs.Create(testDir+"/"+name, writeCategory)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Clone(b)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return fs
}

// threeSegments are 3 × 30 clicks, in blocks that are compressed and in blocks that are
// not, and with dictionaries.
func threeSegments(t testing.TB) (files, []record) {
	t.Helper()
	fs, r := newFS(t), rand.New(rand.NewPCG(3, 3))
	l := mustOpen(t, fs, newMemStore(), clockAt(1000))
	var topic []record
	for i := range 90 {
		rec := record{
			offset: int64(i),
			token:  testToken(i, uint64(i)),
			at:     testTime(i),
			value:  bytes.Repeat([]byte{byte(i)}, 300),
		}
		rec.sharedFrom = len(rec.value)
		if i%30 < 5 { // the first four kilobytes of each segment do not compress
			for k := 0; k < 300; k++ {
				rec.value[k] = byte(r.Uint32())
			}
			for len(rec.value) < 1200 {
				rec.value = append(rec.value, byte(r.Uint32()))
			}
			rec.sharedFrom = len(rec.value)
		}
		if i%30 >= 27 { // of two such clicks one shared part is stored
			rec.sharedFrom = len(rec.value)
			rec.value = append(rec.value, bytes.Repeat([]byte{'s', byte(i % 2)}, 50+i%2*250)...)
		}
		topic = append(topic, rec)
		if err := rec.putInto(l); err != nil {
			t.Fatal(err)
		}
		if i%30 == 29 {
			if err := l.Seal(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return readFiles(t, fs), topic
}

// The test changes each byte of each file in turn. The log must refuse to open, refuse
// to answer, or answer correctly; clicks that it no longer vouches for may be missing.
func TestFlipEveryByte(t *testing.T) {
	t.Parallel()
	all, topic := threeSegments(t)
	if len(all) != 3 {
		t.Fatal(len(all), "files")
	}
	refused, wrong := 0, 0
	for name, good := range all {
		newest := name == segmentName(3)
		for i := range good {
			bad := bytes.Clone(good)
			bad[i] ^= []byte{0x01, 0x80, 0xff}[i%3]
			all[name] = bad
			l, err := Open(all.newFS(t), testDir, testID, Config{SlabBytes: testSlab}, newMemStore(), clockAt(1000))
			if err != nil {
				if !NeedsRebuild(err) {
					t.Fatalf("byte %d of %s: %v", i, name, err)
				}
				refused++
				continue
			}
			if !newest && l.Next() != 90 {
				t.Fatalf("byte %d of %s: opened, and next is %d", i, name, l.Next())
			}
			noticed := l.Next() < 90
			for _, rec := range topic {
				got, at, err := l.Get(&rec.token, nil)
				switch {
				case err == nil && at == rec.at && bytes.Equal(got, rec.value):
				case errors.Is(err, ErrCorrupt):
					noticed = true
				case errors.Is(err, ErrNotFound) && rec.offset >= l.Next():
				default:
					t.Fatalf("byte %d of %s: token of offset %d: %.20q, %v", i, name, rec.offset, got, err)
				}
			}
			if !noticed {
				wrong++
				t.Errorf("byte %d of %s: the damage was not noticed", i, name)
			}
		}
		all[name] = good
	}
	if refused == 0 || wrong > 0 {
		t.Fatal(refused, wrong)
	}
}

// A file is cut at any length. The newest one is deleted, and its offsets have to be
// read again; any other makes the log corrupt.
func TestTornFiles(t *testing.T) {
	t.Parallel()
	all, topic := threeSegments(t)
	for id := uint64(1); id <= 3; id++ {
		name := segmentName(id)
		good := all[name]
		for n := 0; n < len(good); n += 1 + len(good)/300 {
			for _, torn := range [][]byte{good[:n], append(bytes.Clone(good[:n]), make([]byte, len(good)-n)...)} {
				all[name] = torn
				fs := all.newFS(t)
				l, err := Open(fs, testDir, testID, Config{SlabBytes: testSlab}, newMemStore(), clockAt(1000))
				if id < 3 {
					if !errors.Is(err, ErrCorrupt) {
						t.Fatalf("%s cut at %d: %v", name, n, err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%s cut at %d: %v", name, n, err)
				}
				if l.Next() != 60 {
					t.Fatalf("next is %d", l.Next())
				}
				if _, err := fs.Stat(testDir + "/" + name); err == nil {
					t.Fatal("the torn file is still there")
				}
				for _, rec := range topic {
					if err := rec.putInto(l); err != nil {
						t.Fatal(err)
					}
				}
				if err := verifyAnswers(l, newMemStore(), topic, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		all[name] = good
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	without := func(name string) func(files) { return func(f files) { delete(f, name) } }
	move := func(from, to string) func(files) {
		return func(f files) { f[to] = f[from]; delete(f, from) }
	}
	version := func(v uint32, name string) func(files) {
		return func(f files) { le.PutUint32(f[name][len(f[name])-footerLen+80:], v) }
	}
	// patch changes a field of the newest footer and corrects the checksum: the fields
	// must also agree with each other.
	patch := func(at int, v uint64, bytes int) func(files) {
		return func(f files) {
			b := f[segmentName(3)]
			k := len(b) - footerLen
			var x [8]byte
			le.PutUint64(x[:], v)
			copy(b[k+at:k+at+bytes], x[:])
			le.PutUint32(b[k+84:], crc32.Checksum(b[k-footerV2Len-len(testID.Cluster):k+84], castagnoli))
		}
	}
	for _, c := range []struct {
		name   string
		damage func(files)
		id     Identity
		want   error
		says   string
	}{
		{name: "nothing", damage: func(files) {}},
		{name: "oldest missing", damage: without(segmentName(1))}, // expired
		{name: "newest missing", damage: without(segmentName(3))},
		{
			name:   "hole",
			damage: without(segmentName(2)),
			want:   ErrCorrupt,
			says:   "begins at offset 60, but 0000000000000001.seg ends at 30",
		},
		{
			name:   "renamed",
			damage: move(segmentName(3), segmentName(4)),
			want:   ErrCorrupt,
			says:   "its footer says 0000000000000003.seg",
		},
		{name: "copied", damage: func(f files) {
			f[segmentName(4)] = f[segmentName(3)]
		}, want: ErrCorrupt, says: "its footer says"},
		{name: "strange name", damage: move(segmentName(3), "3.seg"), want: ErrCorrupt, says: `file name "3.seg"`},
		{name: "older without footer", damage: func(f files) {
			f[segmentName(1)] = nil
		}, want: ErrCorrupt, says: "no valid footer"},
		{name: "leftover", damage: func(f files) { f[segmentName(4)+tmpSuffix] = []byte("half") }},
		{name: "another file", damage: func(f files) { f["LOST"] = []byte("found") }},
		{name: "newer version", damage: version(3, segmentName(3)), want: ErrForeign, says: "format version 3"},
		{name: "offsets overlap", damage: patch(0, 59, 8), want: ErrCorrupt, says: "begins at offset 59"},
		{name: "hole in ids only", damage: func(f files) {
			delete(f, segmentName(2))
			patch(0, 30, 8)(f)
		}, want: ErrCorrupt, says: "begins at offset 30"},
		{name: "no offsets", damage: patch(8, 60, 8), want: ErrCorrupt, says: "contradicts"},
		{name: "data beyond the file", damage: patch(24, 1<<62, 8), want: ErrCorrupt, says: "contradicts"},
		{name: "too many blocks", damage: patch(32, 1<<32-1, 4), want: ErrCorrupt, says: "contradicts"},
		{name: "shorter dictionary", damage: patch(-footerV2Len, 300, 4), want: ErrCorrupt, says: "file of"},
		{name: "endless dictionary", damage: patch(-footerV2Len, 1<<32-1, 4), want: ErrCorrupt, says: "file of"},
		{name: "version 1 with a dictionary", damage: func(f files) {
			version(1, segmentName(3))(f)
			b := f[segmentName(3)]
			k := len(b) - footerLen
			b = append(b[:k-footerV2Len], b[k:]...) // without the dictionary's length
			f[segmentName(3)] = b
			k -= footerV2Len
			le.PutUint32(b[k+84:], crc32.Checksum(b[k-len(testID.Cluster):k+84], castagnoli))
		}, want: ErrCorrupt, says: "file of"},
		{name: "one block less", damage: patch(32, 3, 4), want: ErrCorrupt, says: "file of"},
		{name: "empty but for blocks", damage: patch(36, 0, 4), want: ErrCorrupt, says: "contradicts"},
		{name: "range does not fit", damage: patch(40, 1, 4), want: ErrCorrupt, says: "contradicts the footer"},
		{
			name:   "other cluster",
			damage: func(files) {},
			id:     Identity{"other", testID.Topic, 7},
			want:   ErrForeign,
			says:   `expected partition 7 of topic aa0000000000000000000000000000bb in cluster "other"`,
		},
		{name: "other topic", damage: func(files) {}, id: Identity{testID.Cluster, [16]byte{1}, 7}, want: ErrForeign},
		{
			name:   "other partition",
			damage: func(files) {},
			id:     Identity{testID.Cluster, testID.Topic, 8},
			want:   ErrForeign,
			says:   "partition 7",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			all, _ := threeSegments(t)
			c.damage(all)
			if c.id == (Identity{}) {
				c.id = testID
			}
			fs := all.newFS(t)
			_, err := Open(fs, testDir, c.id, Config{SlabBytes: testSlab}, newMemStore(), clockAt(1000))
			if !errors.Is(err, c.want) || (err != nil) != NeedsRebuild(err) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil {
				if left := readFiles(t, fs); left[segmentName(4)+tmpSuffix] != nil {
					t.Fatal("the leftover is still there")
				}
				return
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v does not say %q", err, c.says)
			}
			if err := Wipe(fs, testDir); err != nil {
				t.Fatal(err)
			}
			l, err := Open(fs, testDir, c.id, Config{SlabBytes: testSlab}, newMemStore(), clockAt(1000))
			if err != nil || l.Next() != -1 {
				t.Fatal(l, err)
			}
		})
	}
}

// A valid block in the place of another block is refused.
func TestSwappedBlocks(t *testing.T) {
	t.Parallel()
	fs, r := newFS(t), rand.New(rand.NewPCG(4, 4))
	l := mustOpen(t, fs, newMemStore(), clockAt(1000))
	for i := range 10 { // each click has its own block, all of the same size
		tok := testToken(i, 0)
		value := make([]byte, 4000) // does not compress
		for k := range value {
			value[k] = byte(r.Uint32())
		}
		if err := l.Put(&tok, testTime(i), value, len(value), int64(i)); err != nil {
			t.Fatal(err)
		}
		if err := l.awaitWriter(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Seal(); err != nil {
		t.Fatal(err)
	}
	s := l.segments[0]
	if n := s.blockOffsets[1]; len(s.blockKeys) < 2 || s.blockOffsets[2] != 2*n {
		t.Fatal("blocks differ in size", s.blockOffsets)
	}
	all := readFiles(t, fs)
	b, n := all[segmentName(1)], s.blockOffsets[1]
	copy(b, append(bytes.Clone(b[n:2*n]), b[:n]...))
	l = mustOpen(t, all.newFS(t), newMemStore(), clockAt(1000))
	tok := testToken(0, 0)
	if _, _, err := l.Get(&tok, nil); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
}

func FuzzSegment(f *testing.F) {
	all, topic := threeSegments(f)
	f.Add(all[segmentName(1)], true)
	f.Add(all[segmentName(1)][:footerLen], false)
	f.Add([]byte(footerMagic), true)
	empty := segment{id: 1, firstOffset: 5, nextOffset: 9, minMint: 1<<32 - 1, blockOffsets: []uint32{0}}
	f.Add(empty.appendTail(nil, testID), true)
	f.Fuzz(func(t *testing.T, b []byte, repair bool) {
		b = bytes.Clone(b)
		if repair { // past the checksums
			if k := len(b) - footerLen; k >= 0 {
				copy(b[k+88:], footerMagic)
				le.PutUint32(b[k+80:], formatVersion)
				if n := footerV2Len + int(le.Uint32(b[k+76:])); n <= k {
					if d, m := le.Uint64(b[k+24:])+uint64(le.Uint32(b[k-footerV2Len:])), k-n; d <= uint64(m) {
						le.PutUint32(b[k+72:], crc32.Checksum(b[d:m], castagnoli))
					}
					le.PutUint32(b[k+84:], crc32.Checksum(b[k-n:k+84], castagnoli))
				}
			}
		}
		l, err := Open(files{segmentName(1): b}.newFS(t), testDir, testID, Config{SlabBytes: testSlab}, newMemStore(),
			clockAt(1000))
		if err != nil {
			if !NeedsRebuild(err) {
				t.Fatal(err)
			}
			return
		}
		for _, rec := range topic[:30] {
			if _, _, err := l.Get(&rec.token, nil); err != nil && !errors.Is(err, ErrNotFound) &&
				!errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
		}
	})
}

// appendBlock appends a block as version 1 wrote it, compressed, or as version 2 does.
func appendBlock(dst, records []byte, compress bool) []byte {
	b := make([]byte, blockHeadLen)
	if compress {
		b = append(b, s2.Encode(nil, records)...)
		le.PutUint32(b[4:], uint32(len(records)))
		le.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
		return append(dst, b...)
	}
	b = append(b, records...)
	sealBlock(b)
	return append(dst, b...)
}

func FuzzBlock(f *testing.F) {
	f.Add([]byte("records"), []byte("block"), true)
	f.Add(bytes.Repeat([]byte("records "), 100), appendBlock(nil, bytes.Repeat([]byte("records "), 100), true), true)
	f.Add(make([]byte, 40), appendBlock(nil, make([]byte, 40), false), false)
	f.Fuzz(func(t *testing.T, records, block []byte, repair bool) {
		for _, compress := range []bool{false, true} {
			got, err := decodeBlock(nil, appendBlock([]byte("before"), records, compress)[len("before"):])
			if err != nil || !bytes.Equal(got, records) {
				t.Fatalf("%d bytes came back as %d, %v", len(records), len(got), err)
			}
		}
		block = bytes.Clone(block)
		if repair && len(block) >= blockHeadLen {
			le.PutUint32(block, crc32.Checksum(block[4:], castagnoli))
		}
		records, err := decodeBlock(nil, block)
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		if _, _, err := findRecord(records, &token.Raw{0xff}); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(fmt.Errorf("finding: %w", err))
		}
	})
}
