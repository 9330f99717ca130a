package clicklog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/nimriz/partners/pipeline/token"
)

func putClick(t testing.TB, l *Log, tok token.Raw, at int64, value string, offset int64) {
	t.Helper()
	if err := l.Put(&tok, at, []byte(value), len(value), offset); err != nil {
		t.Fatal(err)
	}
}

func expectClick(t testing.TB, l *Log, tok token.Raw, want string) {
	t.Helper()
	got, _, err := l.Get(&tok, []byte("before "))
	if want == "" {
		if !errors.Is(err, ErrNotFound) || string(got) != "before " {
			t.Fatalf("got %q, %v; want nothing", got, err)
		}
		return
	}
	if err != nil || string(got) != "before "+want {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

// fillAndSeal puts clicks of 1 kB, one a second, until n are put, and seals.
func fillAndSeal(t testing.TB, l *Log, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		putClick(t, l, testToken(i, uint64(i)), testTime(i), strings.Repeat("f", 1000), int64(i))
	}
	if err := l.Seal(); err != nil {
		t.Fatal(err)
	}
}

func TestNext(t *testing.T) {
	fs := newFS(t)
	l := mustOpen(t, fs, newMemStore(), clockAt(1000))
	if l.Next() != -1 {
		t.Fatal("an empty log's next is", l.Next())
	}
	if err := l.Seal(); err != nil || len(readFiles(t, fs)) != 0 {
		t.Fatal("sealing nothing:", err)
	}
	tok := testToken(0, 0)
	if err := l.Put(&tok, 0, nil, 0, -1); err == nil {
		t.Fatal("a negative offset was taken")
	}
	putClick(t, l, tok, testTime(0), "a", 500)
	putClick(t, l, tok, testTime(0), "read again", 500)
	putClick(t, l, tok, testTime(0), "read again", 3)
	l.Skip(499)
	if l.Next() != 501 {
		t.Fatal(l.Next())
	}
	expectClick(t, l, tok, "a")
	l.Skip(510)
	if l.Next() != 511 {
		t.Fatal(l.Next())
	}
	if st := l.Stats(); st.Ignored != 3 || st.Puts != 1 {
		t.Fatalf("%+v", st)
	}
	// What is only in memory is gone after a crash.
	if died := mustOpen(t, fs.CrashClone(vfs.CrashCloneCfg{}), newMemStore(), clockAt(1000)); died.Next() != -1 {
		t.Fatal(died.Next())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Put(&tok, 0, nil, 0, 600); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if _, _, err := l.Get(&tok, nil); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	l = mustOpen(t, fs.CrashClone(vfs.CrashCloneCfg{}), newMemStore(), clockAt(1000))
	if l.Next() != 511 {
		t.Fatal(l.Next())
	}
	expectClick(t, l, tok, "a")
}

// A log that only skips, or only gets out-of-order clicks, keeps Next in one small
// file. The next segment with clicks replaces that file.
func TestNoFloodOfEmptySegments(t *testing.T) {
	fs, store := newFS(t), newMemStore()
	l := mustOpen(t, fs, store, clockAt(1000))
	fillAndSeal(t, l, 0, 10)
	for i := int64(100); i < 200; i++ {
		l.Skip(i)
		if i%2 == 0 {
			future := testToken(99_999, uint64(i))
			putClick(t, l, future, 0, "future", i+1)
		}
		if err := l.Seal(); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = mustOpen(t, fs, store, clockAt(1000))
		}
		if n := len(readFiles(t, fs)); n != 2 {
			t.Fatal(n, "files")
		}
	}
	if l.Next() != 200 {
		t.Fatal(l.Next())
	}
	putClick(t, l, testToken(20, 20), testTime(20), "click", 300)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, fs, store, clockAt(1000))
	if n := len(readFiles(t, fs)); n != 2 || l.Next() != 301 {
		t.Fatal(n, l.Next())
	}
	expectClick(t, l, testToken(20, 20), "click")
	expectClick(t, l, testToken(99_999, 150), "future")
}

// Skips alone become durable too, before there are more than four million.
func TestLongSkip(t *testing.T) {
	fs := newFS(t)
	l := mustOpen(t, fs, newMemStore(), clockAt(1000))
	l.Skip(0)
	l.Skip(maxUnsealedOffsets)
	if err := l.awaitWriter(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, fs.CrashClone(vfs.CrashCloneCfg{}), newMemStore(), clockAt(1000))
	if l.Next() != maxUnsealedOffsets+1 {
		t.Fatal(l.Next())
	}
}

func TestWhereClicksGo(t *testing.T) {
	store := newMemStore()
	now := 10_000
	l := mustOpen(t, newFS(t), store, clockAt(now))
	for i := range 200 { // the next slab starts at their median, 9100
		putClick(t, l, testToken(9000+i, uint64(i)), testTime(9000+i), "x", int64(i))
	}
	if err := l.Seal(); err != nil {
		t.Fatal(err)
	}
	if l.active.startMint != testEpoch+9100 {
		t.Fatal("start is", int(l.active.startMint)-testEpoch)
	}
	at := testTime(now)
	for i, c := range []struct {
		seconds    int
		at         int64
		outOfOrder bool
	}{
		{9100 - tolerance, at, false},
		{9100 - tolerance - 1, at, true},
		{now + tolerance, at, false},
		{now + tolerance + 1, testTime(now + 5000), true}, // ahead of the clock
		{9800, testTime(9800 - tolerance), false},         //
		{9800, testTime(9800-tolerance) - 1, true},        // ahead of its own record
		{9800, -1, false},                                 // a record without a time
		{-testEpoch, at, true},                            // the smallest token time
		{1<<32 - 1 - testEpoch, at, true},                 // the greatest
		{1<<32 - 1 - testEpoch, testTime(1<<32 - testEpoch), true},
	} {
		before := len(store.all)
		tok := testToken(c.seconds, uint64(1000+i))
		putClick(t, l, tok, c.at, fmt.Sprint(i), int64(20_000+i))
		if outOfOrder := len(store.all) > before; outOfOrder != c.outOfOrder {
			t.Errorf("click %d is out of order: %v", i, outOfOrder)
		}
		expectClick(t, l, tok, fmt.Sprint(i))
	}
	if st := l.Stats(); st.TooOld != 2 || st.TooNew != 4 {
		t.Errorf("%+v", st)
	}
}

// One clock that runs ahead does not move the start; the first slab of an empty log has
// none.
func TestStartIsNotTheFirstClick(t *testing.T) {
	store := newMemStore()
	l := mustOpen(t, newFS(t), store, clockAt(10_000))
	putClick(t, l, testToken(10_000+tolerance, 0), 0, "ahead", 0)
	for i := 1; i < 100; i++ {
		putClick(t, l, testToken(8000+i, uint64(i)), 0, "ordinary", int64(i))
	}
	if err := l.Seal(); err != nil {
		t.Fatal(err)
	}
	putClick(t, l, testToken(10_000+tolerance, 1), 0, "ahead", 200)
	putClick(t, l, testToken(7800, 1), 0, "ordinary", 201)
	if len(store.all) != 0 {
		t.Fatal("clicks are out of order")
	}
	// A few clicks do not move the start.
	if err := l.Seal(); err != nil {
		t.Fatal(err)
	}
	if l.active.startMint != testEpoch+8051 {
		t.Fatal("start is", int(l.active.startMint)-testEpoch)
	}
}

// The last put wins, whether the one before it is in the out-of-order store, in a
// segment, being written or still in the slab.
func TestLastPutWins(t *testing.T) {
	now := 8000
	store := newMemStore()
	l := mustOpen(t, newFS(t), store, func() time.Time { return clockAt(now)() })
	tok := testToken(9000, 1)
	offset := int64(0)
	next := func() int64 { offset++; return 100_000 + offset }
	check := func(value string, at int64, inStore bool) {
		t.Helper()
		putClick(t, l, tok, at, value, next())
		expectClick(t, l, tok, value)
		if c, ok := store.all[tok]; ok && (string(c.value) == value) != inStore {
			t.Fatalf("%q is in the out-of-order store: %v", value, !inStore)
		}
		if err := l.Seal(); err != nil {
			t.Fatal(err)
		}
		expectClick(t, l, tok, value)
	}
	check("future", 0, true)
	check("future again", 0, true)
	now = 9000
	check("now", 0, false)
	check("by its record's time in the future, but in a segment", testTime(8000), false)
	for i := range 200 {
		putClick(t, l, testToken(20_000-11_200+i, uint64(i)), 0, strings.Repeat("x", 100), next())
	}
	now = 20_000
	for i := range 200 {
		putClick(t, l, testToken(15_000+i, uint64(i)), 0, strings.Repeat("x", 100), next())
	}
	for i := range 500 {
		putClick(t, l, testToken(15_000+i, uint64(1000+i)), 0, strings.Repeat("x", 100), next())
	}
	if l.active.startMint < testEpoch+14_000 {
		t.Fatal("the slab starts too early for old clicks")
	}
	check("too old, but in a segment", 0, false)
	check("too old again", 0, false)
}

// Gets see the clicks of a slab while it is being written; puts go on into the next
// one, and wait when that is full too.
func TestGetsWhileSealing(t *testing.T) {
	release := make(chan struct{})
	mem := newFS(t)
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync && strings.HasSuffix(op.Path, tmpSuffix) {
			<-release
		}
		return nil
	}))
	l := mustOpen(t, fs, newMemStore(), clockAt(1000))
	i := 0
	for ; l.sealing == nil || !l.active.isFull(1000); i++ {
		putClick(t, l, testToken(i, uint64(i)), 0, fmt.Sprint(i, strings.Repeat("x", 1000)), int64(i))
	}
	putClick(t, l, testToken(0, 0), 0, "newer than the slab being written", 5000)
	for k := 1; k < i; k++ {
		expectClick(t, l, testToken(k, uint64(k)), fmt.Sprint(k, strings.Repeat("x", 1000)))
	}
	expectClick(t, l, testToken(0, 0), "newer than the slab being written")
	if st := l.Stats(); st.Segments != 0 || st.Seals != 0 {
		t.Fatalf("%+v", st)
	}
	if names, err := mem.List(testDir); err != nil || slices.Contains(names, segmentName(1)) {
		t.Fatal("the segment is visible before it is durable")
	}
	close(release)
	putClick(t, l, testToken(1, 9999), 0, "waits", 6000)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// No file may be visible under its final name before the out-of-order store, the file
// and all earlier names are durable.
func TestOrderOfOperations(t *testing.T) {
	var calls []string
	store := &recordingStore{newMemStore(), &calls}
	fs := errorfs.Wrap(newFS(t), errorfs.InjectorFunc(func(op errorfs.Op) error {
		name := map[errorfs.OpKind]string{errorfs.OpCreate: "create", errorfs.OpFileWrite: "write",
			errorfs.OpFileSync: "sync", errorfs.OpRename: "rename",
			errorfs.OpRemove: "remove"}[op.Kind]
		if name != "" {
			calls = append(calls, name+" "+op.Path[strings.LastIndex(op.Path, "/")+1:])
		}
		return nil
	}))
	l := mustOpen(t, fs, store, clockAt(1000))
	calls = nil
	putClick(t, l, testToken(0, 0), 0, "click", 0)
	putClick(t, l, testToken(90_000, 0), 0, "out of order", 1)
	if err := l.Seal(); err != nil {
		t.Fatal(err)
	}
	putClick(t, l, testToken(0, 1), 0, "click", 2)
	if err := l.Seal(); err != nil {
		t.Fatal(err)
	}
	l.Skip(3)
	if err := l.Seal(); err != nil {
		t.Fatal(err)
	}
	if err := l.Expire(testEpoch + 1); err != nil {
		t.Fatal(err)
	}
	writes := func(file string, flush ...string) []string {
		calls := append([]string{"create " + file + ".tmp", "write " + file + ".tmp"}, flush...)
		return append(calls, "sync "+file+".tmp", "rename "+file+".tmp", "sync clicks")
	}
	want := slices.Concat(
		writes("0000000000000001.seg", "flush"),
		writes("0000000000000002.seg"),
		writes("0000000000000003.seg"),
		[]string{"remove 0000000000000001.seg", "sync clicks"},
		[]string{"remove 0000000000000002.seg", "sync clicks"},
	)
	if !slices.Equal(calls, want) {
		t.Fatalf("got\n%s", strings.Join(calls, "\n"))
	}
}

type recordingStore struct {
	*memStore
	calls *[]string
}

func (s *recordingStore) Flush() error {
	*s.calls = append(*s.calls, "flush")
	return s.memStore.Flush()
}

func TestExpire(t *testing.T) {
	fs := newFS(t)
	l := mustOpen(t, fs, newMemStore(), clockAt(100_000))
	for k := range 5 {
		fillAndSeal(t, l, k*1000, 10)
	}
	expectClick(t, l, testToken(3, 3), strings.Repeat("f", 1000))
	if l.Stats().OpenFiles != 1 {
		t.Fatal(l.Stats().OpenFiles)
	}
	for _, c := range []struct{ cut, left int }{
		{0, 5},
		{9, 5},
		{10, 4},
		{2009, 3},
		{3000, 2},
		{99_999, 1},
		{99_999, 1},
	} {
		if err := l.Expire(uint32(testEpoch + c.cut)); err != nil {
			t.Fatal(err)
		}
		if st := l.Stats(); st.Segments != c.left || len(readFiles(t, fs)) != c.left {
			t.Fatalf("cut at %d: %d segments", c.cut, st.Segments)
		}
	}
	if l.Stats().OpenFiles != 0 {
		t.Fatal("an unlinked file is open")
	}
	expectClick(t, l, testToken(3, 3), "")
	expectClick(t, l, testToken(4003, 4003), strings.Repeat("f", 1000))
	if l = mustOpen(t, fs.CrashClone(vfs.CrashCloneCfg{}), newMemStore(), clockAt(100_000)); l.Next() != 4010 {
		t.Fatal(l.Next())
	}
}

// With every hash equal the answers are the same, and the slabs small.
func TestEqualHashes(t *testing.T) {
	for _, mask := range []uint32{0, 3} {
		topic := randomTopic(rand.New(rand.NewPCG(8, 8)), 3000)
		store := newMemStore()
		l := mustOpen(t, newFS(t), store, clockAt(12_000))
		l.hashMask = mask
		l.Resize(8 << 20)
		if err := l.Seal(); err != nil {
			t.Fatal(err)
		}
		l.active.reset(8<<20, 0)
		for _, rec := range topic {
			if err := rec.putInto(l); err != nil {
				t.Fatal(err)
			}
		}
		if err := verifyAnswers(l, store, topic, 0); err != nil {
			t.Fatal(err)
		}
		if err := l.awaitWriter(); err != nil {
			t.Fatal(err)
		}
		if l.Stats().Seals == 0 {
			t.Fatal("no crowded slab was sealed")
		}
	}
}

// Many tokens that agree in their first eight bytes fill several blocks of a segment,
// and other tokens precede them.
func TestEqualKeysOverBlocks(t *testing.T) {
	l := mustOpen(t, newFS(t), newMemStore(), clockAt(1000))
	l.Resize(1 << 20)
	l.active.reset(1<<20, 0)
	var toks []token.Raw
	for i := range 100 {
		tok := testToken(7, 7)
		if i < 10 {
			tok = testToken(6, uint64(i))
		}
		tok[19], tok[18] = byte(i*37), byte(i)
		toks = append(toks, tok)
		putClick(t, l, tok, 0, fmt.Sprint(i, strings.Repeat("y", 500)), int64(i))
	}
	if err := l.Seal(); err != nil {
		t.Fatal(err)
	}
	if s := l.segments[0]; len(s.blockKeys) < 10 || s.blockKeys[5] != s.blockKeys[9] {
		t.Fatal("the blocks do not start alike")
	}
	for i, tok := range toks {
		expectClick(t, l, tok, fmt.Sprint(i, strings.Repeat("y", 500)))
	}
	absent := testToken(7, 7)
	absent[4+8] ^= 1
	expectClick(t, l, absent, "")
}

func TestSizes(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{-1, 0, minSlab - 1, maxSlab + 1} {
		if err := (Config{SlabBytes: n}).Validate(); err == nil || !strings.Contains(err.Error(), "-click-memory: ") {
			t.Fatal(n, err)
		}
		if _, err := Open(newFS(t), testDir, testID, Config{SlabBytes: n}, newMemStore(), clockAt(0)); err == nil {
			t.Fatal(n)
		}
	}
	if _, err := Open(newFS(t), testDir, Identity{Cluster: strings.Repeat("c", 256)}, DefaultConfig(), newMemStore(),
		clockAt(0)); err == nil {
		t.Fatal("a cluster id of 256 bytes was taken")
	}
	fs := newFS(t)
	l := mustOpen(t, fs, newMemStore(), clockAt(1000))
	tok := testToken(1, 1)
	if err := l.Put(&tok, 0, make([]byte, maxValueLen+1), 0, 1); !errors.Is(err, ErrTooLarge) || l.Next() != -1 {
		t.Fatal(err)
	}
	large := make([]byte, maxValueLen)
	for i := range large {
		large[i] = byte(i * i >> 7)
	}
	putClick(t, l, tok, 0, string(large), 1)
	putClick(t, l, testToken(2, 2), 0, "small", 2)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, fs, newMemStore(), clockAt(1000))
	if got, _, err := l.Get(&tok, nil); err != nil || !bytes.Equal(got, large) {
		t.Fatal(len(got), err)
	}
	expectClick(t, l, testToken(2, 2), "small")
	// A new size holds from the next slab on.
	before := l.Stats().MemoryBytes
	l.Resize(1 << 20)
	if l.Stats().MemoryBytes != before {
		t.Fatal("the slab changed at once")
	}
	fillAndSeal(t, l, 10, 1)
	if after := l.Stats().MemoryBytes; after < 1<<20 {
		t.Fatal(after)
	}
}

func TestOpenFilesAreFew(t *testing.T) {
	l := mustOpen(t, newFS(t), newMemStore(), clockAt(100_000))
	const n = 2*maxOpenFiles + 7
	for i := range n {
		fillAndSeal(t, l, 10*i, 1)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 3000 {
		i := 10 * r.IntN(n)
		expectClick(t, l, testToken(i, uint64(i)), strings.Repeat("f", 1000))
	}
	if st := l.Stats(); st.OpenFiles != maxOpenFiles || st.Segments != n {
		t.Fatalf("%+v", st)
	}
	if err := l.Close(); err != nil || len(l.openSegments) != 0 {
		t.Fatal(err)
	}
}

// Any failure in the background ends puts, not gets, and what was durable before stays.
func TestBackgroundErrorsAreFinal(t *testing.T) {
	for _, kind := range []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpRename,
		errorfs.OpOpenDir, -1} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			mem, store := newFS(t), newMemStore()
			broken := errors.New("broken disk")
			failing := false
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if failing && op.Kind == kind {
					failing = false // the disk works again, but what it lost is unknown
					return broken
				}
				return nil
			}))
			l := mustOpen(t, fs, store, clockAt(1000))
			fillAndSeal(t, l, 0, 5)
			putClick(t, l, testToken(90_000, 1), 0, "out of order", 90)
			putClick(t, l, testToken(50, 50), 0, "in memory", 91)
			failing = true
			if kind < 0 {
				store.flushErr = broken
			}
			if err := l.Seal(); !errors.Is(err, broken) {
				t.Fatal(err)
			}
			store.flushErr = nil
			tok := testToken(60, 60)
			if err := l.Put(&tok, 0, nil, 0, 92); !errors.Is(err, broken) {
				t.Fatal(err)
			}
			if err := l.Seal(); !errors.Is(err, broken) {
				t.Fatal(err)
			}
			expectClick(t, l, testToken(50, 50), "in memory")
			expectClick(t, l, testToken(3, 3), strings.Repeat("f", 1000))
			if err := l.Close(); !errors.Is(err, broken) {
				t.Fatal(err)
			}
			l = mustOpen(t, mem.CrashClone(vfs.CrashCloneCfg{}), store.crash(false), clockAt(1000))
			if l.Next() != 5 {
				t.Fatal(l.Next())
			}
		})
	}
}

// A wipe that dies at any operation leaves the whole log or none.
func TestWipe(t *testing.T) {
	all, topic := threeSegments(t)
	for at := 1; ; at++ {
		mem := all.newFS(t)
		for _, dir := range []string{testDir, "state", "/"} {
			if err := syncDir(mem, dir); err != nil {
				t.Fatal(err)
			}
		}
		for name := range all {
			f, err := mem.Open(testDir + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(f.Sync(), f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		var left *vfs.MemFS
		count := 0
		r := rand.New(rand.NewPCG(uint64(at), 0))
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			// Here it is one step, on a disk it is one for each file, in any order.
			if op.Kind == errorfs.OpRemoveAll && op.Path == testDir {
				t.Error("files are removed under the log's own name")
			}
			if count++; count == at {
				left = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: r})
			}
			return nil
		}))
		if err := Wipe(fs, testDir); err != nil {
			t.Fatal(err)
		}
		if l := mustOpen(t, mem, newMemStore(), clockAt(1000)); l.Next() != -1 {
			t.Fatal(l.Next())
		}
		if left == nil {
			if at < 5 {
				t.Fatal("only", at, "operations")
			}
			break
		}
		l := mustOpen(t, left, newMemStore(), clockAt(1000))
		switch l.Next() {
		case -1:
		case 90:
			if err := verifyAnswers(l, newMemStore(), topic, 0); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("death before operation %d: next is %d", at, l.Next())
		}
		if err := Wipe(left, testDir); err != nil {
			t.Fatal(err)
		}
		if names, err := left.List("state"); err != nil || len(names) != 0 {
			t.Fatal(names, err)
		}
	}
	if err := Wipe(newFS(t), testDir); err != nil {
		t.Fatal("wiping what is not there:", err)
	}
}

// On a real file system, too.
func TestOnDisk(t *testing.T) {
	dir, store, topic := t.TempDir()+"/p7/clicks", newMemStore(), randomTopic(rand.New(rand.NewPCG(5, 5)), 1000)
	for range 2 {
		l, err := Open(vfs.Default, dir, testID, Config{SlabBytes: testSlab}, store, clockAt(12_000))
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range topic {
			if err := rec.putInto(l); err != nil {
				t.Fatal(err)
			}
		}
		if err := verifyAnswers(l, store, topic, 0); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := Wipe(vfs.Default, dir); err != nil {
		t.Fatal(err)
	}
	if err := Wipe(vfs.Default, dir); err != nil {
		t.Fatal(err)
	}
}

func TestPutDoesNotAllocate(t *testing.T) {
	l := mustOpen(t, newFS(t), newMemStore(), clockAt(1000))
	l.Resize(16 << 20)
	l.active.reset(16<<20, 0)
	value := make([]byte, 343)
	offset := int64(0)
	one := func() {
		tok := testToken(int(offset/1000), uint64(offset))
		if err := l.Put(&tok, testTime(0), value, 100, offset); err != nil {
			t.Fatal(err)
		}
		offset++
	}
	for range 40_000 { // the index grows to its size in the first slab
		one()
	}
	l.active.reset(16<<20, 0)
	if n := testing.AllocsPerRun(30_000, one); n != 0 {
		t.Fatal(n, "allocations a put")
	}
	tok, buf := testToken(0, 40_500), make([]byte, 0, 1000)
	tok = testToken(40, 40_500)
	if n := testing.AllocsPerRun(1000, func() {
		if _, _, err := l.Get(&tok, buf); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Fatal(n, "allocations a get")
	}
}
