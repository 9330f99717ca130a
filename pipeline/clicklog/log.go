package clicklog

import (
	"errors"
	"fmt"
	"hash/maphash"
	iofs "io/fs"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/nimriz/partners/pipeline/token"
)

const (
	// tolerance is how many seconds a click may be older than its slab's start, or
	// ahead of the clock, without being out of order.
	tolerance = 600

	maxOpenFiles = 64
	// maxUnsealedOffsets is how many offsets a crash may make the caller read again,
	// even if none of them is stored.
	maxUnsealedOffsets = 4 << 20

	minSlab = 16 << 10
	maxSlab = 1 << 30 // positions and offsets are 32 bits

	wipedSuffix = ".wiped"
)

// epoch is the KSUID epoch in Unix seconds, from which mint times count.
var epoch = token.Time(&token.Raw{}).Unix()

var (
	// ErrNotFound says that the log has no click under the token.
	ErrNotFound = errors.New("click not found")
	// ErrCorrupt says that a file is missing or differs from what was written. See
	// [NeedsRebuild].
	ErrCorrupt = errors.New("click log is corrupt")
	// ErrForeign says that the directory holds another log, or an unknown format. See
	// [NeedsRebuild].
	ErrForeign = errors.New("click log belongs to another cluster, topic or partition, or has an unknown format")
	// ErrTooLarge says that a click has more than 16 MiB and was not stored.
	ErrTooLarge = errors.New("click is too large")
	// ErrClosed says that the log was closed before the call.
	ErrClosed = errors.New("click log is closed")
)

// NeedsRebuild reports whether the remedy for an error of this package is to [Wipe] the
// log with its [OutOfOrderStore] and to read the topic again.
func NeedsRebuild(err error) bool { return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrForeign) }

// Identity names the partition whose clicks a log holds. It is in every segment's
// footer.
type Identity struct {
	Cluster   string   // Kafka's cluster id, at most 255 bytes
	Topic     [16]byte // Kafka's topic id
	Partition int32
}

func (id Identity) String() string {
	return fmt.Sprintf("partition %d of topic %x in cluster %q", id.Partition, id.Topic, id.Cluster)
}

// OutOfOrderStore keeps the clicks whose mint time fits no slab. A put replaces an
// earlier value of the same token.
//
// The log's owner calls PutClick and GetClick; the log's writer calls Flush, at the
// same time.
type OutOfOrderStore interface {
	// PutClick stores a click; at is its Kafka record's time in milliseconds. It must
	// not retain t or value.
	PutClick(t *token.Raw, at int64, value []byte) error
	// GetClick appends the value to buf; ok is false if there is none.
	GetClick(t *token.Raw, buf []byte) (value []byte, at int64, ok bool, err error)
	// Flush returns when every click put before the call is durable. The log calls it
	// only if there was one since the last call.
	Flush() error
}

// Config holds what an operator may set.
type Config struct {
	// SlabBytes is the size of a slab, in bytes of clicks in memory. A log has two of
	// them while one is being written.
	SlabBytes int64
}

// DefaultConfig returns slabs of 64 MiB, some 400,000 clicks each.
func DefaultConfig() Config { return Config{SlabBytes: 64 << 20} }

// Validate reports a slab size out of range. It names the flag from which the processor
// computes the size.
func (c Config) Validate() error {
	if c.SlabBytes < minSlab || c.SlabBytes > maxSlab {
		return fmt.Errorf("-click-memory: a partition's slabs would have %d bytes, they must have %d to %d",
			c.SlabBytes, minSlab, maxSlab)
	}
	return nil
}

// Stats are counts since Open, and sizes now.
type Stats struct {
	Puts    int64 // clicks stored, out-of-order ones included
	Ignored int64 // puts and skips below Next
	TooOld  int64 // out of order: minted before the slab's start
	TooNew  int64 // out of order: minted ahead of the clock or of the Kafka record
	Gets    int64 // calls of Get
	Seals   int64 // segments written

	BlocksRead int64 // by Get, and by the look-up of an out-of-order click

	Segments    int   // on disk
	Clicks      int64 // in segments; a token in two segments counts twice
	DiskBytes   int64 // of all segments
	MemoryBytes int64 // slabs, their hash indexes and the sparse indexes
	OpenFiles   int   // at most 64
}

// Log is one partition's click log. One goroutine owns it: no method may run beside
// another.
type Log struct {
	fs         vfs.FS
	dir        string
	id         Identity
	cfg        Config
	outOfOrder OutOfOrderStore
	now        func() time.Time

	segments []*segment      // durable, oldest first; only the last may be empty
	active   *slab           // takes the puts
	sealing  *slab           // being written; nil if none is
	spare    *slab           // the memory of a written slab, to be used again
	sealed   chan sealResult // from the writer, one for each slab

	firstOffset, nextOffset int64 // the active slab vouches for [first, next); -1 while nothing is known
	// latestPlausible is a mint time in seconds. Tokens up to here are not ahead of the
	// clock; a later one makes Put read the clock again.
	latestPlausible int64
	err             error // of the writer, or ErrClosed; final

	hashSeed   [2]uint64    // of tokens; random for each Log
	sharedSeed maphash.Seed // of shared parts; random for each Log
	hashMask   uint32       // all ones; tests make hashes collide

	openSegments         []*segment // with an open file
	blockBuf, recordsBuf []byte     // of the last block read
	entryBuf             []byte     // of the last entry read from a dictionary
	// goes to the OutOfOrderStore, so that no caller's token escapes to the heap
	tokenBuf token.Raw
	stats    Stats
}

// sealResult is what the writer of a segment reports.
type sealResult struct {
	seg *segment
	err error
}

// Open opens the log in dir and creates the directory if it is missing. The caller then
// reads Kafka on from [Log.Next]. An error for which [NeedsRebuild] is true says that
// the content of the directory is useless.
//
// The caller makes sure that no other Log uses the directory. outOfOrder must be the
// store that went with this log from its beginning.
func Open(fs vfs.FS, dir string, id Identity, cfg Config, outOfOrder OutOfOrderStore, now func() time.Time) (*Log,
	error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("opening click log %s: %w", dir, err)
	}
	if len(id.Cluster) > maxClusterLen {
		return nil, fmt.Errorf("opening click log %s: cluster id has %d bytes, at most %d are possible",
			dir, len(id.Cluster), maxClusterLen)
	}
	l := &Log{
		fs:              fs,
		dir:             dir,
		id:              id,
		cfg:             cfg,
		outOfOrder:      outOfOrder,
		now:             now,
		active:          newSlab(cfg.SlabBytes),
		sealed:          make(chan sealResult, 1),
		firstOffset:     -1,
		nextOffset:      -1,
		latestPlausible: math.MinInt64,
		hashSeed:        [2]uint64{rand.Uint64(), rand.Uint64()},
		sharedSeed:      maphash.MakeSeed(),
		hashMask:        math.MaxUint32,
	}
	if err := l.loadSegments(); err != nil {
		return nil, fmt.Errorf("opening click log %s: %w", dir, err)
	}
	if n := len(l.segments); n > 0 {
		newest := l.segments[n-1]
		l.firstOffset = newest.nextOffset
		l.nextOffset = newest.nextOffset
		l.active.startMint = newest.nextStart
	}
	return l, nil
}

// loadSegments reads and checks the footer and sparse index of every segment. Together
// they must form an unbroken sequence.
func (l *Log) loadSegments() error {
	ids, err := l.cleanDirectory()
	if err != nil {
		return err
	}
	for i, id := range ids {
		path := l.filePath(segmentName(id))
		s, err := loadSegment(l.fs, path, l.id)
		if errors.Is(err, errNoFooter) && i == len(ids)-1 {
			if err := l.fs.Remove(path); err != nil {
				return err
			}
			break
		}
		if err == nil {
			err = l.checkContinuity(s, id)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", segmentName(id), err)
		}
		l.segments = append(l.segments, s)
	}
	l.updateSearchBounds()
	return syncDir(l.fs, l.dir)
}

// cleanDirectory makes the directory if it is missing, removes what a crash left in it,
// and returns the ids of its segments in ascending order.
func (l *Log) cleanDirectory() ([]uint64, error) {
	if err := l.fs.RemoveAll(l.dir + wipedSuffix); err != nil {
		return nil, err
	}
	if err := l.fs.MkdirAll(l.dir, 0o755); err != nil {
		return nil, err
	}
	if err := syncDir(l.fs, l.fs.PathDir(l.dir)); err != nil {
		return nil, err
	}
	names, err := l.fs.List(l.dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var ids []uint64
	for _, name := range names {
		switch {
		case strings.HasSuffix(name, tmpSuffix):
			if err := l.fs.Remove(l.filePath(name)); err != nil {
				return nil, err
			}
		case strings.HasSuffix(name, segmentSuffix):
			id, err := parseSegmentName(name)
			if err != nil {
				return nil, err
			}
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// checkContinuity checks that a segment begins where the one before it ends.
func (l *Log) checkContinuity(s *segment, id uint64) error {
	if s.id != id {
		return fmt.Errorf("%w: its footer says %s", ErrCorrupt, segmentName(s.id))
	}
	if n := len(l.segments); n > 0 {
		if last := l.segments[n-1]; s.id != last.id+1 || s.firstOffset != last.nextOffset {
			return fmt.Errorf("%w: it begins at offset %d, but %s ends at %d",
				ErrCorrupt, s.firstOffset, segmentName(last.id), last.nextOffset)
		}
	}
	return nil
}

// updateSearchBounds computes the mint times by which findClick selects segments.
func (l *Log) updateSearchBounds() {
	high := uint32(0)
	for _, s := range l.segments {
		high = max(high, s.maxMint)
		s.prefixMax = high
	}
	low := uint32(math.MaxUint32)
	for _, s := range slices.Backward(l.segments) {
		low = min(low, s.minMint)
		s.suffixMin = low
	}
}

func (l *Log) filePath(name string) string { return l.fs.PathJoin(l.dir, name) }

// Next is the next offset of the topic to read: everything below it is stored or
// skipped. It is -1 while the log knows of none; then the caller reads from the
// beginning of the topic. Next counts what is in memory too, which a crash undoes;
// [Log.Seal] makes it durable.
func (l *Log) Next() int64 { return l.nextOffset }

// Put stores the click that was read at offset; at is its Kafka record's time in
// milliseconds (if it is not positive, the mint time is not compared with it). Put
// ignores an offset below Next. It copies the bytes.
//
// The bytes from sharedFrom on should be those of many other clicks; the log stores
// them once for all of these. Any sharedFrom gives back the same bytes; one that is
// negative or beyond the end shares nothing.
//
// Put or [Log.Seal] returns the error of an earlier write in the background, which is
// final. Put waits while two slabs are full.
func (l *Log) Put(t *token.Raw, at int64, value []byte, sharedFrom int, offset int64) error {
	l.pollWriter()
	if l.err != nil {
		return l.err
	}
	if offset < 0 {
		return fmt.Errorf("putting a click: offset %d", offset)
	}
	if offset < l.nextOffset {
		l.stats.Ignored++
		return nil
	}
	if len(value) > maxValueLen {
		return fmt.Errorf("putting the click at offset %d: %w: %d bytes", offset, ErrTooLarge, len(value))
	}
	if counter := l.outOfOrderCounter(t, at); counter != nil {
		stored, err := l.putOutOfOrder(t, at, value)
		if err != nil {
			return fmt.Errorf("putting the out-of-order click at offset %d: %w", offset, err)
		}
		if stored {
			*counter++
			l.stats.Puts++
			l.advanceNextOffset(offset)
			return nil
		}
	}
	if l.active.isFull(len(value)) {
		if err := l.awaitWriter(); err != nil {
			return err
		}
		l.startSeal()
	}
	own, entryPos := value, noEntry
	if sharedFrom >= 0 && sharedFrom < len(value) {
		shared := value[sharedFrom:]
		if entryPos = l.active.shareBytes(l.hashShared(shared), shared); entryPos != noEntry {
			own = value[:sharedFrom]
		}
	}
	l.active.appendClick(l.hashToken(t), t, at, own, entryPos)
	l.stats.Puts++
	l.advanceNextOffset(offset)
	return nil
}

// outOfOrderCounter returns the counter for the way in which a click is out of order;
// nil if it fits the slab.
func (l *Log) outOfOrderCounter(t *token.Raw, at int64) *int64 {
	minted := int64(token.Seconds(t))
	if minted+tolerance < int64(l.active.startMint) {
		return &l.stats.TooOld
	}
	// The record's time shows a wrong clock even if the record is read days later.
	if at > 0 && (minted+epoch-tolerance)*1000 > at {
		return &l.stats.TooNew
	}
	if minted > l.latestPlausible {
		l.latestPlausible = l.now().Unix() - epoch + tolerance
		if minted > l.latestPlausible {
			return &l.stats.TooNew
		}
	}
	return nil
}

// putOutOfOrder stores the click in the OutOfOrderStore, unless the log has one of the
// same token: Get would find that one first.
func (l *Log) putOutOfOrder(t *token.Raw, at int64, value []byte) (stored bool, err error) {
	if _, found, err := l.findClick(t); found || err != nil {
		return false, err
	}
	l.active.hasOutOfOrder = true
	l.tokenBuf = *t
	return true, l.outOfOrder.PutClick(&l.tokenBuf, at, value)
}

// Skip moves Next past the record at offset without storing it. It ignores an offset
// below Next.
func (l *Log) Skip(offset int64) {
	if offset < l.nextOffset || offset < 0 {
		l.stats.Ignored++
		return
	}
	l.advanceNextOffset(offset)
}

// advanceNextOffset moves Next behind offset. It starts a seal when too many offsets
// are unsealed.
func (l *Log) advanceNextOffset(offset int64) {
	if l.firstOffset < 0 {
		l.firstOffset = offset
	}
	l.nextOffset = offset + 1
	if l.nextOffset-l.firstOffset >= maxUnsealedOffsets {
		if l.pollWriter(); l.sealing == nil && l.err == nil {
			l.startSeal()
		}
	}
}

// Get appends the token's click to buf and returns its Kafka record's time in
// milliseconds. Without a click it returns [ErrNotFound] and buf unchanged.
func (l *Log) Get(t *token.Raw, buf []byte) (value []byte, at int64, err error) {
	if errors.Is(l.err, ErrClosed) {
		return buf, 0, l.err
	}
	l.pollWriter()
	l.stats.Gets++
	c, ok, err := l.findClick(t)
	if err != nil {
		return buf, 0, fmt.Errorf("getting a click: %w", err)
	}
	if ok {
		return append(append(buf, c.own...), c.shared...), c.at, nil
	}
	l.tokenBuf = *t
	v, at, ok, err := l.outOfOrder.GetClick(&l.tokenBuf, buf)
	if err != nil {
		return buf, 0, fmt.Errorf("getting an out-of-order click: %w", err)
	}
	if !ok {
		return buf, 0, ErrNotFound
	}
	return v, at, nil
}

// foundClick is a click as findClick found it.
type foundClick struct {
	at          int64  // time of the Kafka record, in milliseconds
	own, shared []byte // one after the other they are the value
}

// findClick searches slabs and segments, newest first. The click's bytes are valid
// until the next call.
func (l *Log) findClick(t *token.Raw) (c foundClick, ok bool, err error) {
	h := l.hashToken(t)
	if c, ok = l.active.findInSlab(h, t); ok {
		return c, true, nil
	}
	if l.sealing != nil {
		if c, ok = l.sealing.findInSlab(h, t); ok {
			return c, true, nil
		}
	}
	minted := token.Seconds(t)
	from := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].prefixMax >= minted })
	to := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].suffixMin > minted })
	for i := to - 1; i >= from; i-- {
		if s := l.segments[i]; s.minMint <= minted && minted <= s.maxMint {
			if c, ok, err = l.findInSegment(s, t); ok || err != nil {
				return c, ok, err
			}
		}
	}
	return foundClick{}, false, nil
}

// Seal writes what is in memory and returns when everything below Next is durable. It
// is for revoked partitions and for the end: frequent calls make small segments.
func (l *Log) Seal() error {
	if err := l.awaitWriter(); err != nil {
		return err
	}
	if l.nextOffset == l.firstOffset {
		return nil
	}
	l.startSeal()
	return l.awaitWriter()
}

// startSeal hands the active slab to a new writer. No other writer may be running.
func (l *Log) startSeal() {
	s := l.active
	s.indexPending() // from here on the slab is only read
	seg := &segment{
		id:          1,
		firstOffset: l.firstOffset,
		nextOffset:  l.nextOffset,
		minMint:     s.minMint,
		maxMint:     s.maxMint,
		nextStart:   s.nextStart(),
	}
	if n := len(l.segments); n > 0 {
		last := l.segments[n-1]
		seg.id = last.id + 1
		if last.count == 0 { // replace the empty segment
			seg.id = last.id
			seg.firstOffset = last.firstOffset
		}
	}
	if l.active = l.spare; l.active == nil {
		l.active = newSlab(l.cfg.SlabBytes)
	}
	l.active.reset(l.cfg.SlabBytes, seg.nextStart)
	l.spare = nil
	l.sealing = s
	l.firstOffset = l.nextOffset
	w := segmentWriter{fs: l.fs, dir: l.dir, id: l.id, outOfOrder: l.outOfOrder, slab: s, segment: seg}
	go func() { l.sealed <- sealResult{seg, w.writeSegment()} }()
}

// pollWriter installs the segment if the writer has finished.
func (l *Log) pollWriter() {
	if l.sealing == nil {
		return
	}
	select {
	case r := <-l.sealed:
		l.installSegment(r)
	default:
	}
}

// awaitWriter returns when no writer is running.
func (l *Log) awaitWriter() error {
	if l.sealing != nil && l.err == nil {
		l.installSegment(<-l.sealed)
	}
	return l.err
}

// installSegment replaces the sealing slab by its finished segment. If the writer
// failed, Get still reads the slab and the log takes no more puts.
func (l *Log) installSegment(r sealResult) {
	if r.err != nil {
		l.err = fmt.Errorf("sealing click log %s: %w", l.dir, r.err)
		return
	}
	if n := len(l.segments); n > 0 && l.segments[n-1].id == r.seg.id {
		l.segments = l.segments[:n-1]
	}
	l.segments = append(l.segments, r.seg)
	l.updateSearchBounds()
	l.stats.Seals++
	l.spare = l.sealing
	l.sealing = nil
}

// Resize changes the size of slabs, beginning with the next one. It clamps a size that
// is out of range.
func (l *Log) Resize(slabBytes int64) { l.cfg.SlabBytes = min(max(slabBytes, minSlab), maxSlab) }

// Expire unlinks the segments whose clicks were all minted before mintedBefore (seconds
// of the KSUID epoch). It goes oldest first, stops at the first segment that has a
// younger click, and never unlinks the newest. Deleting out-of-order clicks is up to
// the owner of the OutOfOrderStore.
func (l *Log) Expire(mintedBefore uint32) error {
	for len(l.segments) > 1 && l.segments[0].maxMint < mintedBefore {
		s := l.segments[0]
		if err := l.closeFile(s); err != nil {
			return fmt.Errorf("expiring %s: %w", segmentName(s.id), err)
		}
		if err := l.fs.Remove(l.filePath(segmentName(s.id))); err != nil {
			return fmt.Errorf("expiring %s: %w", segmentName(s.id), err)
		}
		l.segments = slices.Delete(l.segments, 0, 1)
		// Sync each unlink by itself: after a crash a younger segment must not be gone
		// while an older one is back.
		if err := syncDir(l.fs, l.dir); err != nil {
			return fmt.Errorf("expiring %s: %w", segmentName(s.id), err)
		}
	}
	l.updateSearchBounds()
	return nil
}

// Stats returns counts and sizes.
func (l *Log) Stats() Stats {
	l.pollWriter()
	st := l.stats
	st.Segments = len(l.segments)
	st.OpenFiles = len(l.openSegments)
	for _, s := range l.segments {
		st.Clicks += int64(s.count)
		st.DiskBytes += s.size
		st.MemoryBytes += int64(len(s.blockKeys) * indexEntryLen)
	}
	for _, s := range []*slab{l.active, l.sealing, l.spare} {
		if s != nil {
			st.MemoryBytes += s.memoryBytes()
		}
	}
	return st
}

// Close seals the log and closes its files. A second call does nothing.
func (l *Log) Close() error {
	if errors.Is(l.err, ErrClosed) {
		return nil
	}
	err := l.Seal()
	for len(l.openSegments) > 0 {
		if cerr := l.closeFile(l.openSegments[0]); err == nil {
			err = cerr
		}
	}
	l.err = ErrClosed
	return err
}

// Wipe deletes a log that is not open. It renames the directory first, with the suffix
// ".wiped", so a failure leaves the whole log or none; the next Open removes such a
// leftover. A log vouches for clicks in its OutOfOrderStore: wipe the log before the
// store.
func Wipe(fs vfs.FS, dir string) error {
	wiped := dir + wipedSuffix
	err := fs.RemoveAll(wiped)
	if err == nil {
		_, err = fs.Stat(dir)
		if errors.Is(err, iofs.ErrNotExist) {
			return nil
		}
	}
	if err == nil {
		err = fs.Rename(dir, wiped)
	}
	if err == nil {
		err = syncDir(fs, fs.PathDir(dir))
	}
	if err == nil {
		err = fs.RemoveAll(wiped)
	}
	if err != nil {
		return fmt.Errorf("wiping click log %s: %w", dir, err)
	}
	return nil
}
