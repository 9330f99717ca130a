package redirect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/prometheus/client_golang/prometheus"
)

// Errors of Append. The visitor is redirected in all cases.
var (
	// ErrFull: the spool has reached its limit, the disk is full, or the disk is slower
	// than the clicks. The record is lost.
	ErrFull = errors.New("spool is full")
	// ErrSpool: writing the record to disk failed. The record is lost.
	ErrSpool = errors.New("spool failed")
	// ErrTimeout: the disk did not confirm the record in time. The record may still
	// become durable.
	ErrTimeout = errors.New("spool: timeout waiting for fsync")
	// ErrClosed: the spool is closed. The record is lost.
	ErrClosed = errors.New("spool is closed")
)

// Record is one click on its way to Kafka.
type Record struct {
	Token string // the click token, 27 characters: the Kafka key
	Shown bool   // the visitor got to see the token
	Value []byte // the click in wire form; Append copies it
}

// position is a place in the spool between two frames.
type position struct {
	segment uint64
	offset  int64 // in the segment's file, in bytes
}

// lockFile is the file that a process locks while it owns the directory.
const lockFile = "LOCK"

// Spool keeps clicks on disk until Kafka has them: while Kafka is down visitors are
// still redirected, their clicks stay here, and the Shipper sends them later.
//
// It is an append-only queue with group commit: all records that arrive while the disk
// is busy share the next write and fsync. Many goroutines append, one Shipper reads.
//
// Take mu before files. Neither lock is held during a system call of the write path.
type Spool struct {
	cfg          Config
	log          *slog.Logger
	metrics      *spoolMetrics
	lock         *flock.Flock         // on lockFile
	fsync        func(*os.File) error // tests make it fail or block
	fsyncTimeout time.Duration        // how long Append waits; tests shorten it

	mu      sync.Mutex // guards pending and closed
	arrived sync.Cond  // signalled when pending gets its first record, and by Close
	pending *commitGroup
	closed  bool
	done    chan struct{} // closed when the writer has returned

	// Owned by the writer.
	current *segment // nil: the next write creates one
	next    uint64   // number of the next segment
	spare   []byte   // a buffer for the next group
	failing bool     // the last write failed

	files        sync.Mutex // guards the three fields below
	segments     []*segment // oldest first
	bytes        int64      // size of the segments on disk
	acknowledged position   // as in the checkpoint; everything before it is in Kafka or in refused/

	notify chan struct{} // holds a value if more became durable since the reader last looked
}

// commitGroup is a set of records that share one write and one fsync.
type commitGroup struct {
	buf     []byte // frames without checksums
	records int
	once    sync.Once
	done    chan struct{} // closed by finish
	err     error         // valid after done
	timer   *time.Timer   // finishes the group with ErrTimeout; nil with CaptureAsync
}

func newCommitGroup(buf []byte) *commitGroup {
	return &commitGroup{buf: buf[:0], done: make(chan struct{})}
}

// finish releases the Appends that wait for the group. Only the first call counts.
func (g *commitGroup) finish(err error) {
	g.once.Do(func() {
		g.err = err
		close(g.done)
	})
}

// OpenSpool opens the spool in cfg.SpoolDir, creates it if there is none, and locks the
// directory: a second process gets an error. What an earlier process left after its
// acknowledged position is kept to be shipped. New records go to a new segment, so a
// torn tail stays where it is.
func OpenSpool(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Spool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := makeDir(cfg.SpoolDir); err != nil {
		return nil, fmt.Errorf("opening spool: %w", err)
	}
	lock := flock.New(filepath.Join(cfg.SpoolDir, lockFile))
	switch ok, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("opening spool: locking: %w", err)
	case !ok:
		return nil, fmt.Errorf("opening spool: -spool-dir %s is in use by another process", cfg.SpoolDir)
	}
	s := &Spool{
		cfg:          cfg,
		log:          log,
		lock:         lock,
		fsync:        (*os.File).Sync,
		fsyncTimeout: fsyncTimeout,
		pending:      newCommitGroup(nil),
		done:         make(chan struct{}),
		notify:       make(chan struct{}, 1),
	}
	s.arrived.L = &s.mu
	if err := s.recoverSegments(); err != nil {
		lock.Unlock()
		return nil, fmt.Errorf("opening spool: %w", err)
	}
	s.metrics = newSpoolMetrics(reg, s)
	go s.runWriter()
	return s, nil
}

// recoverSegments lists the segments of earlier processes and removes those that Kafka
// has acknowledged as a whole.
func (s *Spool) recoverSegments() error {
	entries, err := os.ReadDir(s.cfg.SpoolDir) // sorted by name, hence by number
	if err != nil {
		return err
	}
	s.acknowledged = s.readCheckpoint()
	s.next = s.acknowledged.segment + 1
	for _, e := range entries {
		path := filepath.Join(s.cfg.SpoolDir, e.Name())
		if strings.HasPrefix(e.Name(), "."+checkpointFile) || strings.HasPrefix(e.Name(), "."+catalogFile) {
			os.Remove(path) // a temporary file left by a crash
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
		seg := &segment{number: number, path: path, recovered: true}
		seg.size.Store(info.Size())
		seg.sealed.Store(true)
		if seg.endsBefore(s.acknowledged) {
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

// Append adds a record. With CaptureDurable it returns nil after the record was
// fsynced, with CaptureAsync as soon as the record is in memory. It waits at most five
// seconds or until ctx ends (ErrTimeout). Append counts each loss.
func (s *Spool) Append(ctx context.Context, r Record) error {
	durable := s.cfg.Capture == CaptureDurable
	s.mu.Lock()
	g := s.pending
	var err error
	switch {
	case s.closed:
		err = ErrClosed
	case len(g.buf) >= maxPendingBytes:
		err = ErrFull
	default:
		g.buf, err = appendFrame(g.buf, r.Token, r.Shown, r.Value)
	}
	if err != nil {
		s.mu.Unlock()
		s.metrics.countLost(err, 1)
		return err
	}
	if g.records++; g.records == 1 {
		if durable {
			// The whole group shares the deadline of its first record. A record that
			// joins after the deadline does not wait at all.
			g.timer = time.AfterFunc(s.fsyncTimeout, func() { g.finish(ErrTimeout) })
		}
		s.arrived.Signal()
	}
	s.mu.Unlock()
	if !durable {
		return nil
	}
	if ctx.Done() == nil {
		<-g.done // a select costs more
		err = g.err
	} else {
		select {
		case <-g.done:
			err = g.err
		case <-ctx.Done():
			err = fmt.Errorf("%w: %w", ErrTimeout, context.Cause(ctx))
		}
	}
	if errors.Is(err, ErrTimeout) {
		s.metrics.fsyncTimeouts.Inc()
	}
	return err
}

// runWriter writes one group after another until the spool is closed and nothing is
// pending.
func (s *Spool) runWriter() {
	defer close(s.done)
	for {
		s.mu.Lock()
		for s.pending.records == 0 && !s.closed {
			s.arrived.Wait()
		}
		g := s.pending
		if g.records == 0 {
			s.mu.Unlock()
			return
		}
		s.pending = newCommitGroup(s.spare)
		s.mu.Unlock()

		err := s.writeFrames(g.buf)
		if err != nil {
			s.metrics.countLost(err, g.records)
		} else {
			s.metrics.groupRecords.Observe(float64(g.records))
		}
		s.logStateChange(err)
		if g.timer != nil {
			g.timer.Stop()
		}
		g.finish(err)
		s.spare = g.buf
		if cap(s.spare) > 1<<20 {
			s.spare = nil // do not keep the memory of a burst
		}
		// Requests that can run now come first: theirs are the next group's records. With
		// idle CPUs this costs nothing.
		runtime.Gosched()
	}
}

// logStateChange logs when writes begin to fail and when they succeed again, instead of
// every loss.
func (s *Spool) logStateChange(err error) {
	switch {
	case err != nil && !s.failing:
		s.log.Error("spool: clicks are being lost", "error", err)
	case err == nil && s.failing:
		s.log.Info("spool: clicks are durable again")
	}
	s.failing = err != nil
}

// writeFrames makes frames durable. After an error it seals the segment where it was
// last known to be good: what a failed fsync left on disk is unknown, and a second
// fsync of the same file could report success without writing it.
func (s *Spool) writeFrames(buf []byte) error {
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
		if err := s.createSegment(); err != nil {
			return spoolError(err)
		}
	}
	seg := s.current
	offset := seg.size.Load()
	checksumFrames(buf, seg.number, offset)
	if _, err := seg.file.WriteAt(buf, offset); err != nil {
		s.abandonSegment()
		return spoolError(err)
	}
	start := time.Now()
	if err := s.fsync(seg.file); err != nil {
		s.abandonSegment()
		return spoolError(err)
	}
	s.metrics.fsyncSeconds.Observe(time.Since(start).Seconds())
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

// createSegment creates the next segment. Its name is durable before any record in it
// is.
func (s *Spool) createSegment() error {
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

// abandonSegment seals the current segment after an error. It truncates what was not
// confirmed, as far as the disk allows. Records that survive are shipped after a
// restart, which is better than losing them.
func (s *Spool) abandonSegment() {
	seg := s.current
	s.current = nil
	if err := seg.file.Truncate(seg.size.Load()); err != nil {
		s.log.Warn("spool: cannot truncate a segment after an error", "segment", seg.number, "error", err)
	}
	seg.sealed.Store(true)
	if seg.size.Load() > segmentHead {
		return
	}
	s.unlistSegments(func(other *segment) bool { return other == seg })
	s.unlinkSegment(seg)
}

// unlistSegments removes the segments that match from the list and returns them.
func (s *Spool) unlistSegments(match func(*segment) bool) (removed []*segment) {
	s.files.Lock()
	defer s.files.Unlock()
	var kept []*segment
	for _, seg := range s.segments {
		if match(seg) {
			removed = append(removed, seg)
			s.bytes -= seg.size.Load()
		} else {
			kept = append(kept, seg)
		}
	}
	s.segments = kept
	return removed
}

// unlinkSegment removes the file of a segment that is no longer listed. It leaves the
// file of a segment that was set aside.
func (s *Spool) unlinkSegment(seg *segment) {
	if seg.file != nil {
		seg.file.Close()
		seg.file = nil
	}
	if seg.setAside.Load() {
		return
	}
	if err := os.Remove(seg.path); err != nil {
		s.log.Error("spool: cannot remove a segment that is no longer needed", "segment", seg.number, "error", err)
	}
}

// acknowledgeUpTo makes p the durable acknowledged position and removes the segments
// that lie before it.
//
// It frees space first: on a full disk the checkpoint cannot be written, and a removed
// segment needs none. The checkpoint may lag what Kafka has acknowledged, but it never
// leads.
func (s *Spool) acknowledgeUpTo(p position) error {
	for _, seg := range s.unlistSegments(func(seg *segment) bool { return seg.endsBefore(p) }) {
		s.unlinkSegment(seg)
	}
	if err := s.writeCheckpoint(p); err != nil {
		return err
	}
	s.files.Lock()
	s.acknowledged = p
	s.files.Unlock()
	return nil
}

// hasRecoveredSegment reports whether an earlier process left something that is not
// acknowledged.
func (s *Spool) hasRecoveredSegment() bool {
	s.files.Lock()
	defer s.files.Unlock()
	return len(s.segments) > 0 && s.segments[0].recovered
}

// measureBacklog returns the size of the spool on disk and how much of it lies after
// the acknowledged position, both in bytes.
func (s *Spool) measureBacklog() (onDisk, backlog int64) {
	s.files.Lock()
	defer s.files.Unlock()
	for _, seg := range s.segments {
		from := segmentHead
		if seg.number == s.acknowledged.segment {
			from = max(from, s.acknowledged.offset)
		}
		if seg.number >= s.acknowledged.segment {
			backlog += max(0, seg.size.Load()-from)
		}
	}
	return s.bytes, backlog
}

// Close writes what is pending and releases the directory. The Shipper must have
// returned before.
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
	acknowledged := s.acknowledged
	s.files.Unlock()
	// The last segment is sealed now: this removes it too if all of it was shipped.
	err := s.acknowledgeUpTo(acknowledged)
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

// spoolError wraps an error of the disk as ErrFull or ErrSpool.
func spoolError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("%w: %w", ErrSpool, err)
}

// makeDir creates a directory and makes its name durable, before any file in it is
// reported as durable.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}
