package redirect

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"
)

// openCopy copies a spool directory into a fresh one, as a crash would leave it, and
// opens that.
func openCopy(t testing.TB, content map[string][]byte, from string) *Spool {
	t.Helper()
	dir := memoryDir(t)
	for path, data := range content {
		name, err := filepath.Rel(from, path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := DefaultConfig()
	cfg.SpoolDir = dir
	return openSpool(t, cfg)
}

func frameTokens(fs []frame) []string {
	out := []string{}
	for _, f := range fs {
		out = append(out, string(f.token))
	}
	return out
}

// onlySegment returns path and content of the only segment.
func onlySegment(t testing.TB, dir string) (string, []byte) {
	t.Helper()
	for path, data := range readFiles(t, dir) {
		if strings.HasSuffix(path, segmentExt) {
			return path, data
		}
	}
	t.Fatal("no segment")
	return "", nil
}

func TestSpoolKeepsOrderAndBytes(t *testing.T) {
	cfg, keys := testConfig(t), testKeys(t, "acme")
	s := openSpool(t, cfg)
	var want []Record
	for n := range 50 {
		want = append(want, testRecord(t, keys, n))
	}
	mustAppend(t, s, want...)
	check := func(got []frame) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%d frames, want %d", len(got), len(want))
		}
		for i, f := range got {
			if string(f.token) != want[i].Token || f.shown != want[i].Shown || !bytes.Equal(f.value, want[i].Value) {
				t.Errorf("frame %d differs", i)
			}
		}
	}
	check(readFrames(s))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check(readFrames(openSpool(t, cfg)))
}

// Frames cross the borders of reads, and segments follow each other.
func TestManyReadsAndSegments(t *testing.T) {
	cfg, keys := testConfig(t), testKeys(t, "acme")
	cfg.Capture = CaptureAsync
	cfg.MaxSpoolBytes = 8 << 20 // segments of 1 MiB
	s := openSpool(t, cfg)
	var want []string
	for n := range 12000 {
		r := testRecord(t, keys, n)
		mustAppend(t, s, r)
		want = append(want, r.Token)
		if n%1000 == 0 { // so that it does not all go into one group
			eventually(t, "the group on disk", func() bool {
				_, behind := s.measureBacklog()
				return behind > 0 && len(readFrames(s)) == len(want)
			})
		}
	}
	s.Close()
	again := openSpool(t, cfg)
	if got := frameTokens(readFrames(again)); !slices.Equal(got, want) {
		t.Errorf("%d records, want %d in order", len(got), len(want))
	}
	if n := len(again.segments); n < 2 {
		t.Errorf("all records are in %d segment, want several", n)
	}
}

// The crash model: a crash leaves any prefix of what was written. For each prefix,
// exactly the records that fit into it come back.
func TestCrashAtEveryByte(t *testing.T) {
	cfg, keys := testConfig(t), testKeys(t, "acme")
	s := openSpool(t, cfg)
	var all []string
	var ends []int
	for n := range 4 {
		r := testRecord(t, keys, n)
		mustAppend(t, s, r)
		_, data := onlySegment(t, cfg.SpoolDir)
		all = append(all, r.Token)
		ends = append(ends, len(data))
	}
	path, data := onlySegment(t, cfg.SpoolDir)
	for size := range len(data) + 1 {
		whole := 0
		for whole < len(ends) && ends[whole] <= size {
			whole++
		}
		got := reopenScan(t, path, data[:size])
		if !slices.Equal(got, all[:whole]) {
			t.Fatalf("crash at byte %d of %d: %d records, want %d", size, len(data), len(got), whole)
		}
	}
}

// reopenScan writes one segment into a fresh directory, opens it as a spool, and
// appends to it. It returns the tokens of the old records, and fails unless the new one
// follows.
func reopenScan(t testing.TB, path string, data []byte) []string {
	t.Helper()
	s := openCopy(t, map[string][]byte{path: data}, filepath.Dir(path))
	got := frameTokens(readFrames(s))
	r := testRecord(t, testKeys(t, "acme"), 999)
	mustAppend(t, s, r)
	if after := frameTokens(readFrames(s)); !slices.Equal(after, append(slices.Clone(got), r.Token)) {
		t.Fatalf("after an append: %d records, want %d and the new one", len(after), len(got))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return got
}

// A crash may also leave the tail as zeros (the file's length was written, its blocks
// were not) or as garbage.
func TestCrashLeavesGarbage(t *testing.T) {
	cfg, keys := testConfig(t), testKeys(t, "acme")
	s := openSpool(t, cfg)
	var all []string
	for n := range 3 {
		r := testRecord(t, keys, n)
		mustAppend(t, s, r)
		all = append(all, r.Token)
	}
	path, data := onlySegment(t, cfg.SpoolDir)
	for name, tail := range map[string][]byte{
		"zeros":                       make([]byte, 20000),
		"ones":                        bytes.Repeat([]byte{0xff}, 20000),
		"small lengths":               bytes.Repeat([]byte{40, 0, 0, 0}, 5000),
		"an earlier part of the file": data[len(segmentMagic):],
	} {
		if got := reopenScan(t, path, append(slices.Clone(data), tail...)); !slices.Equal(got, all) {
			t.Errorf("%s: %d records, want %d", name, len(got), len(all))
		}
	}
}

// Property: corrupt bytes cost at most the records that they touch. All others come
// back, in order.
func TestCorruptionCostsOnlyWhatItTouches(t *testing.T) {
	cfg, keys := testConfig(t), testKeys(t, "acme")
	s := openSpool(t, cfg)
	var all []string
	var starts []int
	for n := range 40 {
		r := testRecord(t, keys, n)
		_, before := segmentOrNothing(t, cfg.SpoolDir)
		mustAppend(t, s, r)
		all = append(all, r.Token)
		starts = append(starts, max(len(before), len(segmentMagic)))
	}
	_, data := onlySegment(t, cfg.SpoolDir)
	starts = append(starts, len(data))
	s.Close()
	path := segmentPath(cfg.SpoolDir, 1)
	rapid.Check(t, func(rt *rapid.T) {
		corrupt := slices.Clone(data)
		at := rapid.IntRange(len(segmentMagic), len(data)-1).Draw(rt, "at")
		junk := rapid.SliceOfN(rapid.Byte(), 1, 600).Draw(rt, "junk")
		n := copy(corrupt[at:], junk)
		var want []string
		for i, tok := range all {
			start, end := starts[i], starts[i+1]
			if end <= at || start >= at+n || bytes.Equal(corrupt[start:end], data[start:end]) {
				want = append(want, tok)
			}
		}
		if err := os.WriteFile(path, corrupt, 0o600); err != nil {
			rt.Fatal(err)
		}
		reg := prometheus.NewRegistry()
		again, err := OpenSpool(cfg, discardLog(), reg)
		if err != nil {
			rt.Fatal(err)
		}
		defer again.Close()
		if got := frameTokens(readFrames(again)); !slices.Equal(got, want) {
			rt.Fatalf("%d corrupt bytes at %d: %d records, want %d", n, at, len(got), len(want))
		}
		if lost := len(all) - len(want); lost > 0 && want != nil && want[len(want)-1] == all[len(all)-1] &&
			metricValue(t, reg, "partners_spool_corrupt_ranges_total") == 0 {
			rt.Fatal("a corrupt range in the middle was not counted")
		}
	})
}

func segmentOrNothing(t testing.TB, dir string) (string, []byte) {
	for path, data := range readFiles(t, dir) {
		if strings.HasSuffix(path, segmentExt) {
			return path, data
		}
	}
	return "", nil
}

// A corrupt range may span many reads, and a segment that vanished does not block those
// after it.
func TestCorruptRangeAcrossReads(t *testing.T) {
	cfg, keys := testConfig(t), testKeys(t, "acme")
	s := openSpool(t, cfg)
	first, last := testRecord(t, keys, 1), testRecord(t, keys, 2)
	mustAppend(t, s, first)
	s.Close()
	path := segmentPath(cfg.SpoolDir, 1)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data = append(data, bytes.Repeat([]byte{50, 1, 0, 0}, readSize)...) // four reads of plausible lengths
	frame, err := appendFrame(nil, last.Token, last.Shown, last.Value)
	if err != nil {
		t.Fatal(err)
	}
	checksumFrames(frame, 1, int64(len(data)))
	if err := os.WriteFile(path, append(data, frame...), 0o600); err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	again, err := OpenSpool(cfg, discardLog(), reg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := frameTokens(readFrames(again)); !slices.Equal(got, []string{first.Token, last.Token}) {
		t.Errorf("%d records, want the first and the last", len(got))
	}
	n := metricValue(t, reg, "partners_spool_corrupt_ranges_total")
	size := metricValue(t, reg, "partners_spool_corrupt_bytes_total")
	if n != 1 || size != 4*readSize {
		t.Errorf("counted %v ranges of %v bytes, want 1 of %d", n, size, 4*readSize)
	}
	mustAppend(t, again, last)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again.segments[0].file.Close()
	again.segments[0].file = nil // so that it has to be opened again
	if got := frameTokens(readFrames(again)); !slices.Equal(got, []string{last.Token}) {
		t.Errorf("with a vanished segment: %d records, want the last", len(got))
	}
}

// A segment that cannot be read for a moment costs nothing. One that stays unreadable
// is set aside, and doc.go says how to send it later.
func TestUnreadSegment(t *testing.T) {
	cfg, keys := testConfig(t), testKeys(t, "acme")
	s := openSpool(t, cfg)
	want := testRecord(t, keys, 1)
	mustAppend(t, s, want)
	s.Close()
	s = openSpool(t, cfg)
	path := segmentPath(cfg.SpoolDir, 1)
	away := path + ".away"
	hide := func() {
		t.Helper()
		// opens, but cannot be read
		if err := errors.Join(os.Rename(path, away), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	show := func() {
		t.Helper()
		if err := errors.Join(os.Remove(path), os.Rename(away, path)); err != nil {
			t.Fatal(err)
		}
	}
	hide()
	r := newReader(s)
	if b, ok, err := r.nextChunk(); ok || err == nil {
		t.Fatalf("%d frames of a segment that cannot be read", len(b.frames))
	}
	show()
	if got := frameTokens(readFrames(s)); !slices.Equal(got, []string{want.Token}) {
		t.Errorf("%d records once it can be read, want 1", len(got))
	}
	s.segments[0].file.Close()
	s.segments[0].file = nil
	hide()
	r = newReader(s)
	r.readRetry = 0
	b, ok, err := r.nextChunk()
	if err != nil || !ok || len(b.frames) > 0 {
		t.Fatalf("after readRetry: %v, %v", ok, err)
	}
	// replace the directory that took its place
	if err := errors.Join(os.Remove(path+unreadExt), os.Rename(away, path+unreadExt)); err != nil {
		t.Fatal(err)
	}
	if err := s.acknowledgeUpTo(b.end); err != nil {
		t.Fatal(err)
	}
	s.Close()
	// These are the steps in doc.go.
	if err := errors.Join(os.Rename(path+unreadExt, path),
		os.Remove(filepath.Join(cfg.SpoolDir, checkpointFile))); err != nil {
		t.Fatal(err)
	}
	if got := frameTokens(readFrames(openSpool(t, cfg))); !slices.Equal(got, []string{want.Token}) {
		t.Errorf("%d records of the segment that was set aside, want 1", len(got))
	}
}

// The newest segment is never set aside, however long it is unreadable: clicks are
// still appended to it.
func TestUnreadableNewestSegmentStays(t *testing.T) {
	cfg, keys := testConfig(t), testKeys(t, "acme")
	s := openSpool(t, cfg)
	mustAppend(t, s, testRecord(t, keys, 1))
	path := segmentPath(cfg.SpoolDir, 1)
	if err := os.Truncate(path, 0); err != nil { // every read reaches the end of the file
		t.Fatal(err)
	}
	r := newReader(s)
	r.readRetry = 0
	if c, ok, err := r.nextChunk(); ok || err == nil {
		t.Errorf("got %d frames of a segment that cannot be read", len(c.frames))
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the newest segment was set aside: %v", err)
	}
}

// Bytes of a record that look like a frame are never taken for one: the checksum covers
// the place.
func TestFrameInsideAValue(t *testing.T) {
	keys := testKeys(t, "acme")
	r := testRecord(t, keys, 1)
	inner, err := appendFrame(nil, r.Token, true, []byte("inner"))
	if err != nil {
		t.Fatal(err)
	}
	checksumFrames(inner, 1, segmentHead) // valid at another place
	outer, err := appendFrame(nil, r.Token, true, inner)
	if err != nil {
		t.Fatal(err)
	}
	outer[4] ^= 1 // corrupt the outer frame
	dir := t.TempDir()
	path := segmentPath(dir, 1)
	if got := reopenScan(t, path, append([]byte(segmentMagic), outer...)); len(got) != 0 {
		t.Errorf("got %d records out of a value", len(got))
	}
	if _, err := appendFrame(nil, r.Token, true, make([]byte, frameMax)); !errors.Is(err, errFrameSize) {
		t.Errorf("a record over the limit: %v", err)
	}
}

func FuzzParseFrame(f *testing.F) {
	good, _ := appendFrame(nil, strings.Repeat("a", 27), true, []byte("value"))
	checksumFrames(good, 3, 8)
	f.Add(good, uint64(3), int64(8))
	f.Add(good[:20], uint64(3), int64(8))
	f.Add(make([]byte, 50), uint64(0), int64(0))
	f.Fuzz(func(t *testing.T, data []byte, number uint64, offset int64) {
		fr, size, short := new(checksumBuffer).parseFrame(data, number, offset)
		if size == 0 || short {
			return
		}
		again, err := appendFrame(nil, string(fr.token), fr.shown, fr.value)
		if err != nil {
			t.Fatal(err)
		}
		checksumFrames(again, number, offset)
		if !bytes.Equal(again, data[:size]) {
			t.Errorf("a frame that was read is not the one that would be written")
		}
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add(formatCheckpoint(position{42, 8193}))
	f.Add("1 42 8193 00000000\n")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := parseCheckpoint(text); err == nil && formatCheckpoint(p) != text {
			t.Errorf("%q was read as %+v", text, p)
		}
	})
}

// Concurrent appends share fsyncs, and none returns before the fsync that covers it.
func TestGroupCommit(t *testing.T) {
	cfg, keys := testConfig(t), testKeys(t, "acme")
	s := openSpool(t, cfg)
	s.fsyncTimeout = waitLimit
	var syncs, arrived atomic.Int64
	s.fsync = func(f *os.File) error {
		for syncs.Load() == 0 && arrived.Load() < 200 { // the first fsync waits for all records
			time.Sleep(time.Millisecond)
		}
		syncs.Add(1)
		return f.Sync()
	}
	var wg sync.WaitGroup
	for n := range 200 {
		r := testRecord(t, keys, n)
		wg.Go(func() {
			arrived.Add(1)
			if err := s.Append(context.Background(), r); err != nil {
				t.Error(err)
			}
			if !slices.Contains(frameTokens(readFrames(s)), r.Token) {
				t.Errorf("record %d was acknowledged before it was durable", n)
			}
		})
	}
	wg.Wait()
	if n := syncs.Load(); n == 0 || n > 100 {
		t.Errorf("200 records took %d fsyncs", n)
	}
}

// The response does not come while the fsync blocks.
func TestResponseWaitsForFsync(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	entered, release := make(chan struct{}), make(chan struct{})
	s.spool.fsync = func(f *os.File) error {
		entered <- struct{}{}
		<-release
		return f.Sync()
	}
	status := make(chan int, 1)
	go func() { status <- s.serveRequest("GET", "http://go.acme.com/nomura", nil).Code }()
	<-entered
	select {
	case code := <-status:
		t.Fatalf("answered %d before the fsync returned", code)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if code := <-status; code != 302 {
		t.Errorf("answered %d", code)
	}
}

// A disk that hangs is treated as failed: the visitor is redirected, which is counted.
func TestHangingFsync(t *testing.T) {
	cfg := testConfig(t)
	reg := prometheus.NewRegistry()
	s, err := OpenSpool(cfg, discardLog(), reg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.fsyncTimeout = 20 * time.Millisecond
	release := make(chan struct{})
	s.fsync = func(f *os.File) error { <-release; return f.Sync() }
	keys := testKeys(t, "acme")
	if err := s.Append(context.Background(), testRecord(t, keys, 1)); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v, want ErrLate", err)
	}
	// this one waits behind the first
	if err := s.Append(context.Background(), testRecord(t, keys, 2)); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v, want ErrLate", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Append(ctx, testRecord(t, keys, 3)); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v, want ErrLate", err)
	}
	close(release)
	eventually(t, "the records on disk", func() bool { return len(readFrames(s)) == 3 })
	if got := metricValue(t, reg, "partners_spool_fsync_timeouts_total"); got != 3 {
		t.Errorf("counted %v timeouts, want 3", got)
	}
}

// With -capture=async a visitor does not wait for the disk.
func TestAsyncDoesNotWait(t *testing.T) {
	cfg := testConfig(t)
	cfg.Capture = CaptureAsync
	s := openSpool(t, cfg)
	release := make(chan struct{})
	s.fsync = func(f *os.File) error { <-release; return f.Sync() }
	mustAppend(t, s, testRecord(t, testKeys(t, "acme"), 1))
	close(release)
	eventually(t, "the record on disk", func() bool { return len(readFrames(s)) == 1 })
}

// A failed fsync loses the group and reports it, and the next group goes to another
// segment: a second fsync of the same file could report success without writing it.
func TestFailingFsync(t *testing.T) {
	f := func(fsyncErr, want error, reason string) {
		t.Helper()
		cfg, keys := testConfig(t), testKeys(t, "acme")
		reg := prometheus.NewRegistry()
		s, err := OpenSpool(cfg, discardLog(), reg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		before := testRecord(t, keys, 1)
		lost := testRecord(t, keys, 2)
		after := testRecord(t, keys, 3)
		mustAppend(t, s, before)
		good := s.fsync
		s.fsync = func(*os.File) error { return fsyncErr }
		if err := s.Append(context.Background(), lost); !errors.Is(err, want) || !errors.Is(err, fsyncErr) {
			t.Errorf("got %v, want %v", err, want)
		}
		if err := s.Append(context.Background(), lost); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		s.fsync = good
		mustAppend(t, s, after)
		if s.current.number < 3 {
			t.Errorf("after two failures the spool writes to segment %d", s.current.number)
		}
		if got := frameTokens(readFrames(s)); !slices.Equal(got, []string{before.Token, after.Token}) {
			t.Errorf("%d records in the spool, want the two that were confirmed", len(got))
		}
		if got := metricValue(t, reg, "partners_redirect_clicks_lost_total", reason); got != 2 {
			t.Errorf("counted %v lost, want 2", got)
		}
	}
	f(errors.New("I/O error"), ErrSpool, lostSpool)
	f(syscall.ENOSPC, ErrFull, lostFull)
}

func TestRedirectGoesOnWithoutSpool(t *testing.T) {
	s := newTestHandler(t, testCatalog, nil)
	s.spool.fsync = func(*os.File) error { return errors.New("I/O error") }
	if w := s.serveRequest("GET", "http://go.acme.com/nomura", nil); w.Code != 302 ||
		!strings.Contains(w.Header().Get("Location"), "nim_ct=") {
		t.Errorf("%d %s", w.Code, w.Header().Get("Location"))
	}
	s.spool.Close()
	if w := s.serveRequest("GET", "http://go.acme.com/nomura", nil); w.Code != 302 {
		t.Errorf("with a closed spool: %d", w.Code)
	}
	if n := len(s.durableClicks(t)); n != 0 {
		t.Errorf("%d clicks", n)
	}
}

// The limit holds, segments are sealed in time, and acknowledging frees their space.
func TestSpoolLimit(t *testing.T) {
	cfg, keys := testConfig(t), testKeys(t, "acme")
	cfg.MaxSpoolBytes = 1 << 20
	reg := prometheus.NewRegistry()
	s, err := OpenSpool(cfg, discardLog(), reg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.fsync = func(*os.File) error { return nil }
	r := testRecord(t, keys, 1)
	r.Value = append(r.Value, make([]byte, 3000)...)
	n := 0
	for ; ; n++ {
		if err = s.Append(context.Background(), r); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	if onDisk, behind := s.measureBacklog(); onDisk > cfg.MaxSpoolBytes || behind < cfg.MaxSpoolBytes/2 ||
		onDisk != dirSize(t, cfg.SpoolDir, segmentExt) {
		t.Errorf("%d bytes on disk, backlog of %d, the files have %d",
			onDisk, behind, dirSize(t, cfg.SpoolDir, segmentExt))
	}
	if got := metricValue(t, reg, "partners_redirect_clicks_lost_total", lostFull); got != 1 {
		t.Errorf("counted %v lost", got)
	}
	reader := newReader(s)
	for b, ok, _ := reader.nextChunk(); ok; b, ok, _ = reader.nextChunk() {
		if err := s.acknowledgeUpTo(b.end); err != nil {
			t.Fatal(err)
		}
	}
	if onDisk, behind := s.measureBacklog(); behind != 0 || onDisk > cfg.MaxSpoolBytes/4 {
		t.Errorf("all is acknowledged: %d bytes on disk, backlog of %d", onDisk, behind)
	}
	mustAppend(t, s, r)
	if got := readFrames(s); len(got) != 1 {
		t.Errorf("%d records in the backlog, want 1", len(got))
	}
}

func dirSize(t testing.TB, dir, ext string) (n int64) {
	for path, data := range readFiles(t, dir) {
		if strings.HasSuffix(path, ext) {
			n += int64(len(data))
		}
	}
	return n
}

// Model: after any sequence of appends, acknowledgements and restarts, the spool
// returns exactly the records that it confirmed and that were not acknowledged.
func TestSpoolModel(t *testing.T) {
	keys, parent := testKeys(t, "acme"), memoryDir(t)
	rapid.Check(t, func(rt *rapid.T) {
		cfg := DefaultConfig()
		cfg.MaxSpoolBytes = 8 << 20
		dir, err := os.MkdirTemp(parent, "spool")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		cfg.SpoolDir = dir
		open := func() *Spool {
			s, err := OpenSpool(cfg, discardLog(), nil)
			if err != nil {
				rt.Fatal(err)
			}
			s.fsync = func(*os.File) error { return nil }
			return s
		}
		s := open()
		defer func() { s.Close() }()
		var model []string
		n := 0
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(*rapid.T) {
				for range 1 + n%5 {
					n++
					r := testRecord(t, keys, n)
					mustAppend(t, s, r)
					model = append(model, r.Token)
				}
			},
			"acknowledge": func(rt *rapid.T) {
				r := newReader(s)
				for range rapid.IntRange(0, 3).Draw(rt, "batches") {
					b, ok, _ := r.nextChunk()
					if !ok {
						break
					}
					model = model[len(b.frames):]
					if err := s.acknowledgeUpTo(b.end); err != nil {
						rt.Fatal(err)
					}
				}
			},
			"reopen": func(*rapid.T) {
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				s = open()
			},
			"": func(rt *rapid.T) {
				if got := frameTokens(readFrames(s)); !slices.Equal(got, append([]string{}, model...)) {
					rt.Fatalf("%d records, want %d", len(got), len(model))
				}
			},
		})
	})
}

func TestSpoolBelongsToOneProcess(t *testing.T) {
	cfg := testConfig(t)
	openSpool(t, cfg)
	if _, err := OpenSpool(cfg, discardLog(), nil); err == nil || !strings.Contains(err.Error(), "-spool-dir") {
		t.Errorf("second open: %v", err)
	}
}

// A checkpoint that cannot be used costs replays, not clicks. One from a newer segment
// than there is does not hide new clicks.
func TestCheckpointFile(t *testing.T) {
	cfg, keys := testConfig(t), testKeys(t, "acme")
	s := openSpool(t, cfg)
	r := testRecord(t, keys, 1)
	mustAppend(t, s, r)
	s.Close()
	checkpoint := filepath.Join(cfg.SpoolDir, "cut") // the name that earlier versions use
	for _, text := range []string{"", "1 1 8", "1 99 8 00000000\n", "garbage\n"} {
		if err := os.WriteFile(checkpoint, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := openSpool(t, cfg)
		if got := frameTokens(readFrames(s)); !slices.Equal(got, []string{r.Token}) {
			t.Errorf("checkpoint %q: %d records", text, len(got))
		}
		s.Close()
	}
	if err := os.WriteFile(checkpoint, []byte(formatCheckpoint(position{7, 123})), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openSpool(t, cfg)
	mustAppend(t, s, r)
	if got := frameTokens(readFrames(s)); !slices.Equal(got, []string{r.Token}) {
		t.Errorf("after a checkpoint at segment 7: %d records, want the new one", len(got))
	}
	if s.current.number != 8 {
		t.Errorf("the new segment has number %d, want 8", s.current.number)
	}
}

func TestConfigValidate(t *testing.T) {
	f := func(change func(*Config), want string) {
		t.Helper()
		cfg := DefaultConfig()
		cfg.SpoolDir = "x"
		change(&cfg)
		err := cfg.Validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	f(func(*Config) {}, "")
	f(func(c *Config) { c.SpoolDir = "" }, "-spool-dir")
	f(func(c *Config) { c.Capture = "maybe" }, "-capture")
	f(func(c *Config) { c.MaxSpoolBytes = 1 }, "-spool-max-bytes")
}

// The format on disk, byte by byte. A change makes the spools of running redirectors
// unreadable.
func TestSegmentFormat(t *testing.T) {
	got, err := appendFrame(nil, strings.Repeat("t", 27), true, []byte("v"))
	if err != nil {
		t.Fatal(err)
	}
	checksumFrames(got, 1, 8)
	want := binary.LittleEndian.AppendUint32(nil, 29)
	want = append(want, 0x6a, 0xbd, 0xb3, 0x46) // CRC-32C, computed with another implementation
	want = append(want, 1)
	want = append(want, strings.Repeat("t", 27)+"v"...)
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	if got, want := formatCheckpoint(position{42, 8193}), "1 42 8193 4d12c147"; got != want+"\n" {
		t.Errorf("checkpoint %q, want %q", got, want)
	}
	if got := filepath.Base(segmentPath("d", 7)); got != fmt.Sprintf("%020d.seg", 7) {
		t.Errorf("segment is named %s", got)
	}
}
