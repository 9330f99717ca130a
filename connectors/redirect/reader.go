package redirect

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// readSize is how much one read takes from a segment.
const readSize = 256 << 10

// batch is a run of frames of one segment.
type batch struct {
	frames []frame
	end    position // behind the last of them, and behind any damage that was skipped
	old    bool     // from a segment that was found at start
	bytes  int
}

// reader walks over what is durable in the spool, in order. It has one user: the
// Shipper.
//
// A frame that does not check out is damage (a bad disk, a file that somebody edited)
// or, at the end of an old segment, a tail torn by a crash. Either way the reader goes
// on at the next place that holds a valid frame, or with the next segment. A segment
// that cannot be read at all may be readable soon (no file descriptor is free, a
// network disk is away): it is tried for patience, then set aside.
type reader struct {
	spool *Spool
	at    position
	// where the damage began that the reader is looking for the end of; 0: none (no
	// frame begins at 0)
	bad      int64
	patience time.Duration // tests shorten it
	failing  time.Time     // since when the segment cannot be read; zero: it can
}

// patience is for how long a segment that cannot be read holds up those behind it.
const patience = time.Minute

// newReader starts at the cut.
func newReader(s *Spool) *reader {
	s.files.Lock()
	defer s.files.Unlock()
	return &reader{spool: s, at: s.cut, patience: patience}
}

// next returns the next frames, at most readSize bytes; ok is false if nothing more is
// durable. A batch without frames still has an end to cut at. After an error the next
// call may succeed.
func (r *reader) next() (b batch, ok bool, err error) {
	seg, size := r.segment()
	if seg == nil {
		return batch{}, false, nil
	}
	if r.at.segment != seg.number {
		r.at, r.bad = position{seg.number, segmentHead}, 0
	}
	r.at.offset = max(r.at.offset, segmentHead)
	b = batch{old: seg.old}
	buf, err := r.read(seg, size)
	if err != nil {
		if err := r.setAside(seg, size, err); err != nil {
			return batch{}, false, err
		}
	} else {
		r.failing = time.Time{}
		b.bytes = len(buf)
		r.scan(seg, buf, r.at.offset+int64(len(buf)) == size, &b)
	}
	b.end = r.at
	return b, true, nil
}

// setAside gives up a segment that has been unreadable for too long, and goes on behind
// it. An error means not yet. The newest segment is never given up, as clicks still
// come to it, and none is while its directory is away.
func (r *reader) setAside(seg *segment, size int64, err error) error {
	if r.failing.IsZero() {
		r.failing = time.Now()
		r.spool.log.Error("spool: a segment cannot be read; trying again", "error", err)
	}
	if !seg.sealed.Load() {
		return err
	}
	if seg.file != nil { // a handle may be stale for good
		seg.file.Close()
		seg.file = nil
	}
	if time.Since(r.failing) < r.patience {
		return err
	}
	aside := seg.path + unreadExt
	if renamed := os.Rename(seg.path, aside); renamed != nil {
		if _, away := os.Stat(filepath.Join(r.spool.cfg.SpoolDir, lockName)); away != nil ||
			!errors.Is(renamed, os.ErrNotExist) {
			return err
		}
		aside = "" // somebody removed it
	}
	r.spool.log.Error("spool: a segment cannot be read and is set aside", "segment", seg.number, "offset", r.at.offset,
		"bytes", size-r.at.offset, "kept", aside, "error", err)
	r.damage(size - r.at.offset)
	seg.unread.Store(true)
	r.at.offset, r.bad, r.failing = size, 0, time.Time{}
	return nil
}

// segment finds the first segment with something to read. An unsealed one is the last.
func (r *reader) segment() (seg *segment, size int64) {
	r.spool.files.Lock()
	defer r.spool.files.Unlock()
	for _, seg := range r.spool.segments {
		size := seg.size.Load()
		if seg.number > r.at.segment && size > segmentHead || seg.number == r.at.segment &&
			size > max(r.at.offset, segmentHead) {
			return seg, size
		}
	}
	return nil, 0
}

func (r *reader) read(seg *segment, size int64) ([]byte, error) {
	if seg.file == nil {
		f, err := os.Open(seg.path)
		if err != nil {
			return nil, fmt.Errorf("reading a segment: %w", err)
		}
		seg.file = f
	}
	buf := make([]byte, min(readSize, size-r.at.offset))
	if _, err := seg.file.ReadAt(buf, r.at.offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("reading a segment: %w", err)
	}
	return buf, nil
}

// scan moves r.at over buf. last: buf reaches the end of what is durable, which is the
// end of a frame unless a crash tore it.
func (r *reader) scan(seg *segment, buf []byte, last bool, b *batch) {
	var p place
	start := r.at.offset
	for i := 0; i < len(buf); {
		at := start + int64(i)
		f, size, short := p.parseFrame(buf[i:], seg.number, at)
		switch {
		case short && !last:
			r.at.offset = at
			return // the next read begins here
		case short || size == 0:
			if r.bad == 0 {
				r.bad = at
			}
			i++
		default:
			r.damageEnds(seg, at)
			b.frames = append(b.frames, f)
			i += size
		}
	}
	r.at.offset = start + int64(len(buf))
	if last && seg.old && r.bad != 0 {
		r.spool.log.Info("spool: a torn tail was dropped", "segment", seg.number, "offset", r.bad,
			"bytes", r.at.offset-r.bad)
		r.bad = 0
	} else if last {
		r.damageEnds(seg, r.at.offset)
	}
}

func (r *reader) damageEnds(seg *segment, at int64) {
	if r.bad == 0 {
		return
	}
	r.spool.log.Error("spool: damaged bytes were skipped, their clicks are lost",
		"segment", seg.number, "offset", r.bad, "bytes", at-r.bad)
	r.damage(at - r.bad)
	r.bad = 0
}

func (r *reader) damage(bytes int64) {
	r.spool.metrics.damaged.Inc()
	r.spool.metrics.damagedBytes.Add(float64(bytes))
}
