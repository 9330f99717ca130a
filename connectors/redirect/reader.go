package redirect

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

const (
	// readSize is how many bytes of a segment are read at a time.
	readSize = 256 << 10
	// readRetry is how long a segment that cannot be read blocks those after it.
	readRetry = time.Minute
)

// chunk holds the frames of one read of a segment.
type chunk struct {
	frames    []frame
	end       position // after the last frame and after any corrupt bytes that were skipped
	recovered bool     // from a segment that was there when the process started
	bytes     int      // on disk, including what was skipped
}

// spoolReader reads what is durable in the spool, in order. Only the Shipper uses it.
//
// Bytes that are not a valid frame are corrupt (a bad disk, an edited file) or, at the
// end of a recovered segment, a tail torn by a crash. In both cases the reader goes on
// at the next valid frame or with the next segment.
//
// A segment that cannot be read right now (no free file descriptor, network disk away)
// is retried for readRetry, then renamed to *.unread.
type spoolReader struct {
	spool *Spool
	next  position // of the next byte to read
	// corruptFrom is the offset at which the current range of corrupt bytes began; 0:
	// there is none (no frame begins at 0).
	corruptFrom  int64
	readRetry    time.Duration // tests shorten it
	failingSince time.Time     // first failed read of the current segment; zero: the last one succeeded
}

// newReader returns a reader that starts at the acknowledged position.
func newReader(s *Spool) *spoolReader {
	s.files.Lock()
	defer s.files.Unlock()
	return &spoolReader{spool: s, next: s.acknowledged, readRetry: readRetry}
}

// nextChunk returns the next frames, at most readSize bytes. ok is false if no more
// bytes are durable. A chunk without frames still has an end to acknowledge. After an
// error the next call may succeed.
func (r *spoolReader) nextChunk() (c chunk, ok bool, err error) {
	seg, size := r.findSegment()
	if seg == nil {
		return chunk{}, false, nil
	}
	if r.next.segment != seg.number {
		r.next = position{seg.number, segmentHead}
		r.corruptFrom = 0
	}
	r.next.offset = max(r.next.offset, segmentHead)
	c = chunk{recovered: seg.recovered}
	buf, err := r.readSegment(seg, size)
	if err != nil {
		if err := r.setAside(seg, size, err); err != nil {
			return chunk{}, false, err
		}
	} else {
		r.failingSince = time.Time{}
		c.bytes = len(buf)
		last := r.next.offset+int64(len(buf)) == size
		r.scanFrames(seg, buf, last, &c)
	}
	c.end = r.next
	return c, true, nil
}

// setAside gives up a segment that has been unreadable for readRetry: it renames the
// file and moves on to the next segment. It returns readErr if the reader has to try
// again instead. The newest segment is never given up, because clicks are still
// appended to it, and no segment is while the spool directory itself is away.
func (r *spoolReader) setAside(seg *segment, size int64, readErr error) error {
	if r.failingSince.IsZero() {
		r.failingSince = time.Now()
		r.spool.log.Error("spool: cannot read a segment; trying again", "error", readErr)
	}
	if !seg.sealed.Load() {
		return readErr
	}
	if seg.file != nil { // the handle may be stale for good: reopen the file next time
		seg.file.Close()
		seg.file = nil
	}
	if time.Since(r.failingSince) < r.readRetry {
		return readErr
	}
	aside := seg.path + unreadExt
	if err := os.Rename(seg.path, aside); err != nil {
		_, dirErr := os.Stat(filepath.Join(r.spool.cfg.SpoolDir, lockFile))
		if dirErr != nil || !errors.Is(err, os.ErrNotExist) {
			return readErr
		}
		aside = "" // the file was removed
	}
	r.spool.log.Error("spool: cannot read a segment; it is set aside and its clicks are not sent",
		"segment", seg.number, "offset", r.next.offset, "bytes", size-r.next.offset, "kept", aside, "error", readErr)
	r.countCorruptRange(size - r.next.offset)
	seg.setAside.Store(true)
	r.next.offset = size
	r.corruptFrom = 0
	r.failingSince = time.Time{}
	return nil
}

// findSegment returns the first segment with something to read and the offset at which
// its durable frames end. A segment that is not sealed is the last one.
func (r *spoolReader) findSegment() (seg *segment, size int64) {
	r.spool.files.Lock()
	defer r.spool.files.Unlock()
	for _, seg := range r.spool.segments {
		size := seg.size.Load()
		unread := segmentHead
		if seg.number == r.next.segment {
			unread = max(r.next.offset, segmentHead)
		}
		if seg.number >= r.next.segment && size > unread {
			return seg, size
		}
	}
	return nil, 0
}

func (r *spoolReader) readSegment(seg *segment, size int64) ([]byte, error) {
	if seg.file == nil {
		f, err := os.Open(seg.path)
		if err != nil {
			return nil, fmt.Errorf("reading a segment: %w", err)
		}
		seg.file = f
	}
	buf := make([]byte, min(readSize, size-r.next.offset))
	if _, err := seg.file.ReadAt(buf, r.next.offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("reading a segment: %w", err)
	}
	return buf, nil
}

// scanFrames appends the frames of buf to c and moves r.next over them. last reports
// that buf reaches the end of what is durable. A frame ends there, unless a crash tore
// it.
func (r *spoolReader) scanFrames(seg *segment, buf []byte, last bool, c *chunk) {
	var sums checksumBuffer
	start := r.next.offset
	for i := 0; i < len(buf); {
		at := start + int64(i)
		f, size, short := sums.parseFrame(buf[i:], seg.number, at)
		switch {
		case short && !last:
			r.next.offset = at // the next read begins here
			return
		case short || size == 0:
			if r.corruptFrom == 0 {
				r.corruptFrom = at
			}
			i++
		default:
			r.endCorruptRange(seg, at)
			c.frames = append(c.frames, f)
			i += size
		}
	}
	r.next.offset = start + int64(len(buf))
	if last && seg.recovered && r.corruptFrom != 0 {
		r.spool.log.Info("spool: dropped a tail torn by a crash",
			"segment", seg.number, "offset", r.corruptFrom, "bytes", r.next.offset-r.corruptFrom)
		r.corruptFrom = 0
	} else if last {
		r.endCorruptRange(seg, r.next.offset)
	}
}

// endCorruptRange logs and counts the current range of corrupt bytes, if there is one.
// The range ends at the offset end.
func (r *spoolReader) endCorruptRange(seg *segment, end int64) {
	if r.corruptFrom == 0 {
		return
	}
	r.spool.log.Error("spool: skipped corrupt bytes; their clicks are lost",
		"segment", seg.number, "offset", r.corruptFrom, "bytes", end-r.corruptFrom)
	r.countCorruptRange(end - r.corruptFrom)
	r.corruptFrom = 0
}

func (r *spoolReader) countCorruptRange(bytes int64) {
	r.spool.metrics.corruptRanges.Inc()
	r.spool.metrics.corruptBytes.Add(float64(bytes))
}
