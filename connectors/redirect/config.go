package redirect

import (
	"fmt"
	"time"
)

// Ways to capture a click.
const (
	// CaptureDurable answers when the click is fsynced in the spool.
	CaptureDurable = "durable"
	// CaptureAsync answers when the click is in memory: a crash of the machine or the
	// process can lose the last few milliseconds.
	CaptureAsync = "async"
)

// Config is what an operator can set.
type Config struct {
	// SpoolDir holds the spool, refused records and the last good catalog. It belongs
	// to one process.
	SpoolDir string
	// Capture is CaptureDurable or CaptureAsync.
	Capture string
	// MaxSpoolBytes bounds the spool: how long an outage of Kafka it can bridge. At
	// about 450 bytes a click, 8 GiB are 19 million clicks. Full: the visitor is
	// redirected, the click is lost and counted.
	MaxSpoolBytes int64
}

// DefaultConfig has no spool directory: it must be given.
func DefaultConfig() Config { return Config{Capture: CaptureDurable, MaxSpoolBytes: 8 << 30} }

// Validate reports what is wrong, by flag.
func (c Config) Validate() error {
	switch {
	case c.SpoolDir == "":
		return fmt.Errorf("-spool-dir: a directory is required")
	case c.Capture != CaptureDurable && c.Capture != CaptureAsync:
		return fmt.Errorf("-capture: %q is neither %s nor %s", c.Capture, CaptureDurable, CaptureAsync)
	case c.MaxSpoolBytes < 1<<20:
		return fmt.Errorf("-spool-max-bytes: %d is less than 1 MiB", c.MaxSpoolBytes)
	}
	return nil
}

const (
	// maxSegment is the size at which a segment is closed: what a restart may have to
	// read again, and the grain of freed space.
	maxSegment = 64 << 20
	// maxPending bounds what waits in memory for the disk.
	maxPending = 16 << 20
	// maxWait is how long a visitor waits for the disk. A disk that hangs longer has
	// failed as far as the visitor is concerned.
	maxWait = 5 * time.Second
)

// segmentBytes leaves several segments in a small spool, because space is freed by
// whole segments.
func (c Config) segmentBytes() int64 { return min(maxSegment, c.MaxSpoolBytes/8) }
