package clicklog

import (
	"encoding/binary"
	"errors"
	"fmt"
	iofs "io/fs"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	ksuidEpoch = 1_400_000_000 // a token's time counts from here, in Unix seconds
	tolerance  = 600           // seconds a token may be older than its slab's start or ahead of the clock

	maxOpenFiles = 64
	// offsets: what a crash may make the caller read again even if nothing of it is
	// stored
	maxUnsealed = 4 << 20

	minSlab = 16 << 10
	maxSlab = 1 << 30 // positions and offsets are 32 bits

	wipedSuffix = ".wiped"
)

var (
	// ErrNotFound says that the log has no click under the token.
	ErrNotFound = errors.New("click not found")
	// ErrCorrupt says that a file is not as it was written, or that one is missing. See
	// [NeedsRebuild].
	ErrCorrupt = errors.New("click log is corrupt")
	// ErrForeign says that the directory holds the log of another cluster, topic or
	// partition, or of another format. See [NeedsRebuild].
	ErrForeign = errors.New("click log is another's")
	// ErrTooLarge says that a click has more than 16 MiB and was not stored.
	ErrTooLarge = errors.New("click is too large")
	// ErrClosed says that the log was closed before the call.
	ErrClosed = errors.New("click log is closed")
)

// NeedsRebuild says of an error of this package whether the way out is to [Wipe] the
// log (and its Side) and to read the topic again.
func NeedsRebuild(err error) bool { return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrForeign) }

// Token is a raw KSUID: 4 bytes of big-endian seconds since 1.4e9, 16 bytes of payload.
type Token = [20]byte

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

// Side keeps the clicks whose token time does not fit the segments. A value that is put
// replaces the one before it.
//
// The log's owner calls PutClick and GetClick; the log's writer calls Flush, at the
// same time.
type Side interface {
	// PutClick stores a click; at is its Kafka record's time in milliseconds. t and
	// value are the caller's.
	PutClick(t *Token, at int64, value []byte) error
	// GetClick appends the value to buf; ok is false if there is none.
	GetClick(t *Token, buf []byte) (value []byte, at int64, ok bool, err error)
	// Flush returns when every click put before the call is durable. It is called only
	// if there was one since the last call.
	Flush() error
}

// Config holds what an operator may set.
type Config struct {
	// SlabBytes is the size of a slab, in bytes of clicks in memory. A log has two of
	// them while one is being written.
	SlabBytes int64
}

// DefaultConfig returns slabs of 64 MiB, some 180,000 clicks each.
func DefaultConfig() Config { return Config{SlabBytes: 64 << 20} }

// Validate returns an error that names the field.
func (c Config) Validate() error {
	if c.SlabBytes < minSlab || c.SlabBytes > maxSlab {
		return fmt.Errorf("SlabBytes is %d, must be %d to %d", c.SlabBytes, minSlab, maxSlab)
	}
	return nil
}

// Stats are counts since Open, and sizes now.
type Stats struct {
	Puts    int64 // clicks taken, those put aside included
	Ignored int64 // puts and skips below Next
	Late    int64 // put aside: older than the slab
	Future  int64 // put aside: ahead of the clock
	Gets    int64
	Seals   int64 // segments written

	BlocksRead int64 // by gets, and by the look-up before a click is put aside

	Segments    int
	Clicks      int64 // in segments; a token in two segments counts twice
	DiskBytes   int64
	MemoryBytes int64 // slabs, their indexes and the fences
	OpenFiles   int
}

// Log is one partition's click log. One goroutine owns it: no method may run beside
// another.
type Log struct {
	fs   vfs.FS
	dir  string
	id   Identity
	cfg  Config
	side Side
	now  func() time.Time

	segs    []*segment // durable, oldest first; none of them empty but perhaps the last
	active  *slab
	sealing *slab // being written; nil if none is
	spare   *slab
	written chan result

	first, next int64 // offsets the active slab vouches for; -1 while nothing is known
	horizon     int64 // token times up to here are not ahead of the clock
	err         error // final

	seed     [2]uint64
	hashMask uint32 // all ones; tests make hashes collide

	opened         []*segment // with an open file
	block, records []byte     // of the last block read
	token          Token      // handed to the Side, so that no caller's token has to live on the heap
	stats          Stats
}

type result struct {
	seg *segment
	err error
}

// Open opens the log in dir, creating the directory if it is missing. Kafka is to be
// read on from [Log.Next]. An error for which [NeedsRebuild] is true says that the
// directory's content is of no use.
//
// The caller makes sure that no other Log uses the directory. side must be the store
// that went with this log from its beginning.
func Open(fs vfs.FS, dir string, id Identity, cfg Config, side Side, now func() time.Time) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("opening click log %s: %w", dir, err)
	}
	if len(id.Cluster) > maxCluster {
		return nil, fmt.Errorf("opening click log %s: cluster id has %d bytes, at most %d are possible",
			dir, len(id.Cluster), maxCluster)
	}
	l := &Log{fs: fs, dir: dir, id: id, cfg: cfg, side: side, now: now, first: -1, next: -1, horizon: math.MinInt64,
		active: newSlab(cfg.SlabBytes), written: make(chan result, 1), seed: [2]uint64{rand.Uint64(), rand.Uint64()},
		hashMask: math.MaxUint32}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("opening click log %s: %w", dir, err)
	}
	if n := len(l.segs); n > 0 {
		l.first, l.next, l.active.start = l.segs[n-1].next, l.segs[n-1].next, l.segs[n-1].pivot
	}
	return l, nil
}

// load reads the directory: every segment's footer and fences, checked, in an unbroken
// row.
func (l *Log) load() error {
	if err := l.fs.RemoveAll(l.dir + wipedSuffix); err != nil {
		return err
	}
	if err := l.fs.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	if err := syncDir(l.fs, l.fs.PathDir(l.dir)); err != nil {
		return err
	}
	names, err := l.fs.List(l.dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	var ids []uint64
	for _, name := range names {
		switch {
		case strings.HasSuffix(name, tmpSuffix):
			if err := l.fs.Remove(l.path(name)); err != nil {
				return err
			}
		case strings.HasSuffix(name, segSuffix):
			id, err := segmentID(name)
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
	}
	for i, id := range ids {
		path := l.path(segmentName(id))
		s, err := loadSegment(l.fs, path, l.id)
		if errors.Is(err, errNoFooter) && i == len(ids)-1 {
			if err := l.fs.Remove(path); err != nil {
				return err
			}
			break
		}
		if err == nil {
			err = l.follows(s, id)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", segmentName(id), err)
		}
		l.segs = append(l.segs, s)
	}
	l.reindex()
	return syncDir(l.fs, l.dir)
}

// follows checks that a segment goes on where the one before it ends.
func (l *Log) follows(s *segment, id uint64) error {
	if s.id != id {
		return fmt.Errorf("%w: its footer says %s", ErrCorrupt, segmentName(s.id))
	}
	if n := len(l.segs); n > 0 {
		if last := l.segs[n-1]; s.id != last.id+1 || s.first != last.next {
			return fmt.Errorf("%w: it begins at offset %d, but %s ends at %d",
				ErrCorrupt, s.first, segmentName(last.id), last.next)
		}
	}
	return nil
}

// reindex computes what Get searches by.
func (l *Log) reindex() {
	high := uint32(0)
	for _, s := range l.segs {
		high = max(high, s.max)
		s.maxHere = high
	}
	low := uint32(math.MaxUint32)
	for _, s := range slices.Backward(l.segs) {
		low = min(low, s.min)
		s.minHere = low
	}
}

func (l *Log) path(name string) string { return l.fs.PathJoin(l.dir, name) }

func tokenTime(t *Token) uint32 { return binary.BigEndian.Uint32(t[:]) }

// Next is the next offset of the topic to read: all below it are stored, put aside or
// skipped. It is -1 while the log knows of none; then the caller reads from where the
// topic begins. It counts what is in memory too, which a crash undoes; [Log.Seal] makes
// it durable.
func (l *Log) Next() int64 { return l.next }

// Put stores the click that was read at offset; at is its Kafka record's time in
// milliseconds (not used to judge the token's time if it is not positive). An offset
// below Next is ignored. The bytes are copied.
//
// An error of an earlier write in the background is returned here or by [Log.Seal], and
// is final. Put waits while two slabs are full.
func (l *Log) Put(t *Token, at int64, value []byte, offset int64) error {
	l.poll()
	if l.err != nil {
		return l.err
	}
	if offset < 0 {
		return fmt.Errorf("putting a click: offset %d", offset)
	}
	if offset < l.next {
		l.stats.Ignored++
		return nil
	}
	if len(value) > maxValue {
		return fmt.Errorf("putting the click at offset %d: %w: %d bytes", offset, ErrTooLarge, len(value))
	}
	if misfit := l.misfit(t, at); misfit != nil {
		if aside, err := l.putAside(t, at, value); err != nil {
			return fmt.Errorf("putting the click at offset %d aside: %w", offset, err)
		} else if aside {
			*misfit++
			l.stats.Puts++
			l.advance(offset)
			return nil
		}
	}
	if l.active.full(len(value)) {
		if err := l.wait(); err != nil {
			return err
		}
		l.seal()
	}
	l.active.put(l.hash(t), t, at, value)
	l.stats.Puts++
	l.advance(offset)
	return nil
}

// misfit says by which count a click belongs aside; nil if it fits the slab.
func (l *Log) misfit(t *Token, at int64) *int64 {
	tt := int64(tokenTime(t))
	if tt+tolerance < int64(l.active.start) {
		return &l.stats.Late
	}
	// The record's time tells a wrong clock also when the record is read days later.
	if at > 0 && (tt+ksuidEpoch-tolerance)*1000 > at {
		return &l.stats.Future
	}
	if tt > l.horizon {
		if l.horizon = l.now().Unix() - ksuidEpoch + tolerance; tt > l.horizon {
			return &l.stats.Future
		}
	}
	return nil
}

// putAside gives the click to the Side, unless the log has one of the same token: then
// the later click must not go where it is found later.
func (l *Log) putAside(t *Token, at int64, value []byte) (bool, error) {
	if _, _, held, err := l.lookup(t); held || err != nil {
		return false, err
	}
	l.active.aside = true
	l.token = *t
	return true, l.side.PutClick(&l.token, at, value)
}

// Skip says that the record at offset is not to be stored; Next moves past it. An
// offset below Next is ignored.
func (l *Log) Skip(offset int64) {
	if offset < l.next || offset < 0 {
		l.stats.Ignored++
		return
	}
	l.advance(offset)
}

func (l *Log) advance(offset int64) {
	if l.first < 0 {
		l.first = offset
	}
	l.next = offset + 1
	if l.next-l.first >= maxUnsealed {
		if l.poll(); l.sealing == nil && l.err == nil {
			l.seal()
		}
	}
}

// Get appends the token's click to buf and returns its Kafka record's time in
// milliseconds. Without a click it returns [ErrNotFound], and buf as it was.
func (l *Log) Get(t *Token, buf []byte) (value []byte, at int64, err error) {
	if errors.Is(l.err, ErrClosed) {
		return buf, 0, l.err
	}
	l.poll()
	l.stats.Gets++
	v, at, ok, err := l.lookup(t)
	if err != nil {
		return buf, 0, fmt.Errorf("getting a click: %w", err)
	}
	if ok {
		return append(buf, v...), at, nil
	}
	l.token = *t
	v, at, ok, err = l.side.GetClick(&l.token, buf)
	if err != nil {
		return buf, 0, fmt.Errorf("getting a click from the side store: %w", err)
	}
	if !ok {
		return buf, 0, ErrNotFound
	}
	return v, at, nil
}

// lookup searches slabs and segments, newest first. The value is valid until the next
// call.
func (l *Log) lookup(t *Token) (value []byte, at int64, ok bool, err error) {
	h := l.hash(t)
	if value, at, ok = l.active.get(h, t); ok {
		return value, at, true, nil
	}
	if l.sealing != nil {
		if value, at, ok = l.sealing.get(h, t); ok {
			return value, at, true, nil
		}
	}
	tt := tokenTime(t)
	from := sort.Search(len(l.segs), func(i int) bool { return l.segs[i].maxHere >= tt })
	to := sort.Search(len(l.segs), func(i int) bool { return l.segs[i].minHere > tt })
	for i := to - 1; i >= from; i-- {
		if s := l.segs[i]; s.min <= tt && tt <= s.max {
			if value, at, ok, err = l.find(s, t); ok || err != nil {
				return value, at, ok, err
			}
		}
	}
	return nil, 0, false, nil
}

// Seal writes what is in memory and returns when everything below Next is durable. It
// is for revoked partitions and for the end: called often, it makes small segments.
func (l *Log) Seal() error {
	if err := l.wait(); err != nil {
		return err
	}
	if l.next == l.first {
		return nil
	}
	l.seal()
	return l.wait()
}

// seal hands the active slab to a writer. None may be at work.
func (l *Log) seal() {
	s := l.active
	s.index() // from here on it is only read
	seg := &segment{id: 1, first: l.first, next: l.next, min: s.min, max: s.max, pivot: s.pivot()}
	if n := len(l.segs); n > 0 {
		last := l.segs[n-1]
		seg.id = last.id + 1
		if last.count == 0 { // its place is taken by this one
			seg.id, seg.first = last.id, last.first
		}
	}
	if l.active = l.spare; l.active == nil {
		l.active = newSlab(l.cfg.SlabBytes)
	}
	l.active.reset(l.cfg.SlabBytes, seg.pivot)
	l.spare, l.sealing, l.first = nil, s, l.next
	w := writer{fs: l.fs, dir: l.dir, id: l.id, side: l.side, slab: s, seg: seg}
	go func() { l.written <- result{seg, w.run()} }()
}

// poll takes over what the writer has finished.
func (l *Log) poll() {
	if l.sealing == nil {
		return
	}
	select {
	case r := <-l.written:
		l.install(r)
	default:
	}
}

// wait returns when no writer is at work.
func (l *Log) wait() error {
	if l.sealing != nil && l.err == nil {
		l.install(<-l.written)
	}
	return l.err
}

// install puts a finished segment in place of its slab. If it failed, the slab stays
// for gets and the log takes no more puts.
func (l *Log) install(r result) {
	if r.err != nil {
		l.err = fmt.Errorf("sealing click log %s: %w", l.dir, r.err)
		return
	}
	if n := len(l.segs); n > 0 && l.segs[n-1].id == r.seg.id {
		l.segs = l.segs[:n-1]
	}
	l.segs = append(l.segs, r.seg)
	l.reindex()
	l.stats.Seals++
	l.spare, l.sealing = l.sealing, nil
}

// Resize changes the size of slabs, from the next one on. A size out of range is
// brought into it.
func (l *Log) Resize(slabBytes int64) { l.cfg.SlabBytes = min(max(slabBytes, minSlab), maxSlab) }

// Expire unlinks the segments whose youngest token is older than tokenTime (seconds of
// the KSUID epoch), oldest first, up to the first that is not, and never the newest.
// Clicks put aside are the Side's to delete.
func (l *Log) Expire(tokenTime uint32) error {
	for len(l.segs) > 1 && l.segs[0].max < tokenTime {
		s := l.segs[0]
		if err := l.shut(s); err != nil {
			return fmt.Errorf("expiring %s: %w", segmentName(s.id), err)
		}
		if err := l.fs.Remove(l.path(segmentName(s.id))); err != nil {
			return fmt.Errorf("expiring %s: %w", segmentName(s.id), err)
		}
		l.segs = slices.Delete(l.segs, 0, 1)
		// Before the next one goes: a younger one must not be gone while an older one
		// comes back.
		if err := syncDir(l.fs, l.dir); err != nil {
			return fmt.Errorf("expiring %s: %w", segmentName(s.id), err)
		}
	}
	l.reindex()
	return nil
}

// Stats returns counts and sizes.
func (l *Log) Stats() Stats {
	l.poll()
	st := l.stats
	st.Segments, st.OpenFiles = len(l.segs), len(l.opened)
	for _, s := range l.segs {
		st.Clicks += int64(s.count)
		st.DiskBytes += s.size
		st.MemoryBytes += int64(len(s.keys) * fenceLen)
	}
	for _, s := range []*slab{l.active, l.sealing, l.spare} {
		if s != nil {
			st.MemoryBytes += s.memory()
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
	for len(l.opened) > 0 {
		if cerr := l.shut(l.opened[0]); err == nil {
			err = cerr
		}
	}
	l.err = ErrClosed
	return err
}

// Wipe deletes a log that is not open, entirely or, if it fails, perhaps not at all:
// the directory is renamed first, with the suffix ".wiped", and such a leftover is
// removed by the next Open. A log vouches for clicks in its Side: wipe the log before
// the Side.
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
