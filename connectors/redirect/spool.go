package redirect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// Errors of Append. In all cases the visitor is redirected all the same.
var (
	// ErrFull: the spool has reached its limit, the disk is full, or the disk is slower
	// than the clicks. The record is lost.
	ErrFull = errors.New("spool is full")
	// ErrSpool: the disk refused the record. The record is lost.
	ErrSpool = errors.New("spool failed")
	// ErrLate: the disk did not answer in time. The record may still become durable.
	ErrLate = errors.New("spool is late")
	// ErrClosed: the spool was closed. The record is lost.
	ErrClosed = errors.New("spool is closed")
)

// Record is one click on its way to Kafka.
type Record struct {
	Token string // 27 characters: the Kafka key
	Shown bool   // the visitor got to see the token
	Value []byte // the click in wire form; not kept
}

// position is a place in the spool: everything before it has been dealt with.
type position struct {
	segment uint64
	offset  int64
}

// Spool is an append-only queue on disk with group commit: all records that arrive
// while the disk is busy share the next write and fsync. Many goroutines append, one
// Shipper reads.
//
// Locks: mu before files; neither is held over a system call of the write path.
type Spool struct {
	cfg     Config
	log     *slog.Logger
	metrics *spoolMetrics
	lock    *flock.Flock
	fsync   func(*os.File) error // a seam: tests make it fail or block
	wait    time.Duration

	mu      sync.Mutex // guards pending and closed
	arrived sync.Cond  // pending is no longer empty, or closed
	pending *group
	closed  bool
	done    chan struct{} // the writer has returned

	// Owned by the writer.
	current *segment
	next    uint64 // number of the next segment
	spare   []byte
	failing bool

	files    sync.Mutex // guards what follows
	segments []*segment // oldest first
	bytes    int64      // on disk
	cut      position   // as stored

	notify chan struct{} // holds a value when something became durable since the reader last looked
}

// group is the set of records that share one write and fsync.
type group struct {
	buf   []byte
	n     int
	once  sync.Once
	done  chan struct{} // closed by finish
	err   error         // valid after done
	timer *time.Timer
}

func newGroup(buf []byte) *group { return &group{buf: buf[:0], done: make(chan struct{})} }

// finish releases those who wait; only the first call counts.
func (g *group) finish(err error) {
	g.once.Do(func() {
		g.err = err
		close(g.done)
	})
}

// OpenSpool opens the spool in cfg.SpoolDir, makes it where there is none, and takes
// its lock: a second process is refused. What an earlier process left behind the cut is
// there to be shipped; new records go to a new segment, so a torn tail stays where it
// is.
func OpenSpool(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Spool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := makeDir(cfg.SpoolDir); err != nil {
		return nil, fmt.Errorf("opening spool: %w", err)
	}
	lock := flock.New(filepath.Join(cfg.SpoolDir, lockName))
	switch ok, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("opening spool: locking: %w", err)
	case !ok:
		return nil, fmt.Errorf("opening spool: -spool-dir %s is in use by another process", cfg.SpoolDir)
	}
	s := &Spool{
		cfg:     cfg,
		log:     log,
		lock:    lock,
		fsync:   (*os.File).Sync,
		wait:    maxWait,
		pending: newGroup(nil),
		done:    make(chan struct{}),
		notify:  make(chan struct{}, 1),
	}
	s.arrived.L = &s.mu
	if err := s.recover(); err != nil {
		lock.Unlock()
		return nil, fmt.Errorf("opening spool: %w", err)
	}
	s.metrics = newSpoolMetrics(reg, s)
	go s.run()
	return s, nil
}

// recover lists what is there and drops what lies before the cut.
func (s *Spool) recover() error {
	entries, err := os.ReadDir(s.cfg.SpoolDir) // sorted by name, hence by number
	if err != nil {
		return err
	}
	s.cut = s.loadCut()
	s.next = s.cut.segment + 1
	for _, e := range entries {
		path := filepath.Join(s.cfg.SpoolDir, e.Name())
		if strings.HasPrefix(e.Name(), "."+cutName) || strings.HasPrefix(e.Name(), "."+catalogName) {
			os.Remove(path) // a temporary file of a crash
			continue
		}
		number, ok := segmentNumber(e.Name())
		if !ok {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		s.next = max(s.next, number+1)
		seg := &segment{number: number, path: path, old: true}
		seg.size.Store(info.Size())
		seg.sealed.Store(true)
		if s.before(seg, s.cut) {
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		s.segments = append(s.segments, seg)
		s.bytes += info.Size()
	}
	return nil
}

// before reports whether all of seg lies before p.
func (s *Spool) before(seg *segment, p position) bool {
	return seg.number < p.segment || seg.number == p.segment && seg.sealed.Load() && seg.size.Load() <= p.offset
}

// Append adds a record. With CaptureDurable it returns nil when the record is fsynced,
// otherwise when it is in memory. The wait is bounded by ctx and by five seconds
// (ErrLate). A loss is counted here.
func (s *Spool) Append(ctx context.Context, r Record) error {
	durable := s.cfg.Capture == CaptureDurable
	s.mu.Lock()
	g := s.pending
	var err error
	switch {
	case s.closed:
		err = ErrClosed
	case len(g.buf) >= maxPending:
		err = ErrFull
	default:
		g.buf, err = appendFrame(g.buf, r.Token, r.Shown, r.Value)
	}
	if err != nil {
		s.mu.Unlock()
		s.metrics.lose(err, 1)
		return err
	}
	if g.n++; g.n == 1 {
		if durable {
			// who joins it after that does not wait at all
			g.timer = time.AfterFunc(s.wait, func() { g.finish(ErrLate) })
		}
		s.arrived.Signal()
	}
	s.mu.Unlock()
	if !durable {
		return nil
	}
	select {
	case <-g.done:
		err = g.err
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", ErrLate, context.Cause(ctx))
	}
	if errors.Is(err, ErrLate) {
		s.metrics.late.Inc()
	}
	return err
}

// run is the writer: one group after another.
func (s *Spool) run() {
	defer close(s.done)
	for {
		s.mu.Lock()
		for s.pending.n == 0 && !s.closed {
			s.arrived.Wait()
		}
		g := s.pending
		if g.n == 0 {
			s.mu.Unlock()
			return // closed, and nothing is left
		}
		s.pending = newGroup(s.spare)
		s.mu.Unlock()

		err := s.write(g.buf)
		if err != nil {
			s.metrics.lose(err, g.n)
		} else {
			s.metrics.groups.Observe(float64(g.n))
		}
		s.report(err)
		if g.timer != nil {
			g.timer.Stop()
		}
		g.finish(err)
		s.spare = g.buf
		if cap(s.spare) > 1<<20 {
			s.spare = nil // a burst's memory is given back
		}
	}
}

// report logs a change between working and failing, not every loss.
func (s *Spool) report(err error) {
	switch {
	case err != nil && !s.failing:
		s.log.Error("spool: clicks are being lost", "error", err)
	case err == nil && s.failing:
		s.log.Info("spool: clicks are kept again")
	}
	s.failing = err != nil
}

// write makes a run of frames durable. After an error the segment is closed where it
// was last known to be good: what an fsync that failed left on disk cannot be known,
// and a second fsync would not tell.
func (s *Spool) write(buf []byte) error {
	s.files.Lock()
	full := s.bytes+int64(len(buf)) > s.cfg.MaxSpoolBytes
	s.files.Unlock()
	if full {
		return fmt.Errorf("%w: limit of %d bytes", ErrFull, s.cfg.MaxSpoolBytes)
	}
	if s.current != nil && s.current.size.Load() >= s.cfg.segmentBytes() {
		s.current.sealed.Store(true)
		s.current = nil
	}
	if s.current == nil {
		if err := s.create(); err != nil {
			return spoolError(err)
		}
	}
	seg := s.current
	offset := seg.size.Load()
	sealFrames(buf, seg.number, offset)
	if _, err := seg.file.WriteAt(buf, offset); err != nil {
		s.abandon()
		return spoolError(err)
	}
	start := time.Now()
	if err := s.fsync(seg.file); err != nil {
		s.abandon()
		return spoolError(err)
	}
	s.metrics.fsyncs.Observe(time.Since(start).Seconds())
	s.files.Lock()
	s.bytes += int64(len(buf))
	s.files.Unlock()
	seg.size.Store(offset + int64(len(buf)))
	select {
	case s.notify <- struct{}{}:
	default:
	}
	return nil
}

// create begins a segment. Its name is durable before any record in it is.
func (s *Spool) create() error {
	seg := &segment{number: s.next, path: segmentPath(s.cfg.SpoolDir, s.next)}
	f, err := os.OpenFile(seg.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	s.next++
	if _, err = f.WriteAt([]byte(segmentMagic), 0); err == nil {
		err = syncDir(s.cfg.SpoolDir)
	}
	if err != nil {
		f.Close()
		os.Remove(seg.path)
		return err
	}
	seg.file = f
	seg.size.Store(segmentHead)
	s.current = seg
	s.files.Lock()
	s.segments = append(s.segments, seg)
	s.bytes += segmentHead
	s.files.Unlock()
	return nil
}

// abandon closes the current segment after an error. What was not acknowledged is cut
// off as well as the disk allows; records that survive are shipped after a restart,
// which is better than their loss.
func (s *Spool) abandon() {
	seg := s.current
	s.current = nil
	if err := seg.file.Truncate(seg.size.Load()); err != nil {
		s.log.Warn("spool: truncating a segment after an error", "segment", seg.number, "error", err)
	}
	seg.sealed.Store(true)
	if seg.size.Load() > segmentHead {
		return
	}
	s.unlist(func(other *segment) bool { return other == seg })
	s.drop(seg)
}

// unlist takes segments out of the list.
func (s *Spool) unlist(gone func(*segment) bool) (dropped []*segment) {
	s.files.Lock()
	defer s.files.Unlock()
	var kept []*segment
	for _, seg := range s.segments {
		if gone(seg) {
			dropped = append(dropped, seg)
			s.bytes -= seg.size.Load()
		} else {
			kept = append(kept, seg)
		}
	}
	s.segments = kept
	return dropped
}

// drop unlinks a segment that is no longer listed.
func (s *Spool) drop(seg *segment) {
	if seg.file != nil {
		seg.file.Close()
		seg.file = nil
	}
	if seg.unread.Load() {
		return // it has another name
	}
	if err := os.Remove(seg.path); err != nil {
		s.log.Error("spool: removing a segment that was shipped", "segment", seg.number, "error", err)
	}
}

// advance makes p the durable cut and frees whole segments before it. Space is freed
// first: on a full disk the cut cannot be written, and a segment that is gone is a cut
// of its own. The cut only ever lags.
func (s *Spool) advance(p position) error {
	for _, seg := range s.unlist(func(seg *segment) bool { return s.before(seg, p) }) {
		s.drop(seg)
	}
	if err := s.storeCut(p); err != nil {
		return err
	}
	s.files.Lock()
	s.cut = p
	s.files.Unlock()
	return nil
}

// hasOld reports whether an earlier process left something behind the cut.
func (s *Spool) hasOld() bool {
	s.files.Lock()
	defer s.files.Unlock()
	return len(s.segments) > 0 && s.segments[0].old
}

// backlog is what lies behind the cut, in bytes.
func (s *Spool) backlog() (onDisk, behind int64) {
	s.files.Lock()
	defer s.files.Unlock()
	for _, seg := range s.segments {
		from := segmentHead
		if seg.number == s.cut.segment {
			from = max(from, s.cut.offset)
		}
		if seg.number >= s.cut.segment {
			behind += max(0, seg.size.Load()-from)
		}
	}
	return s.bytes, behind
}

// Close writes what is pending and releases the directory. The Shipper has returned
// before.
func (s *Spool) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.done
		return nil
	}
	s.closed = true
	s.arrived.Signal()
	s.mu.Unlock()
	<-s.done
	if s.current != nil {
		s.current.sealed.Store(true)
	}
	s.files.Lock()
	cut := s.cut
	s.files.Unlock()
	err := s.advance(cut) // the last segment goes too if all of it was shipped
	s.files.Lock()
	for _, seg := range s.segments {
		if seg.file != nil {
			err = errors.Join(err, seg.file.Close())
			seg.file = nil
		}
	}
	s.files.Unlock()
	if err := errors.Join(err, s.lock.Unlock()); err != nil {
		return fmt.Errorf("closing spool: %w", err)
	}
	return nil
}

func spoolError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("%w: %w", ErrSpool, err)
}

// makeDir makes a directory whose name is durable, before anything in it is said to be.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// lockName is the file that a process locks while the directory is its own.
const lockName = "LOCK"

// The cut is the text file "cut": version, segment, offset, and a checksum of the
// three, such as `1 42 8193 7b0d1a52`.
const cutName = "cut"

func (s *Spool) storeCut(p position) error {
	if err := renameio.WriteFile(filepath.Join(s.cfg.SpoolDir, cutName), []byte(cutText(p)), 0o600,
		renameio.WithTempDir(s.cfg.SpoolDir)); err != nil {
		return fmt.Errorf("storing the spool's cut: %w", err)
	}
	return nil
}

// loadCut returns the zero position if there is no usable cut: then everything is sent
// again, which costs look-ups but no correctness.
func (s *Spool) loadCut() position {
	text, err := os.ReadFile(filepath.Join(s.cfg.SpoolDir, cutName))
	if errors.Is(err, os.ErrNotExist) {
		return position{}
	}
	var p position
	if err == nil {
		p, err = parseCut(string(text))
	}
	if err != nil {
		s.log.Warn("spool: the cut is unusable, everything in the spool is sent again", "error", err)
		return position{}
	}
	return p
}
