package redirect

import (
	"fmt"
	"time"
)

// Ways to capture a click.
const (
	// CaptureDurable answers after the click has been fsynced to the spool.
	CaptureDurable = "durable"
	// CaptureAsync answers when the click is in memory. If the process or the machine
	// crashes, the last few milliseconds of clicks can be lost.
	CaptureAsync = "async"
)

// Config is what an operator can set.
type Config struct {
	// SpoolDir holds the spool, the refused records and the last good catalog. It
	// belongs to one process.
	SpoolDir string
	// Capture is CaptureDurable or CaptureAsync.
	Capture string
	// MaxSpoolBytes bounds the spool on disk, and with it the length of a Kafka outage
	// that it can bridge. A click takes about 450 bytes, so 8 GiB are 19 million
	// clicks. When the spool is full, visitors are still redirected; their clicks are
	// lost and counted.
	MaxSpoolBytes int64
}

// DefaultConfig returns the defaults. It leaves SpoolDir empty: the operator has to
// choose a directory.
func DefaultConfig() Config { return Config{Capture: CaptureDurable, MaxSpoolBytes: 8 << 30} }

// Validate returns an error that names the flag of the first invalid setting.
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
	// maxSegmentBytes is the size at which a segment is sealed. It bounds how much a
	// restart may have to read again, and it is the unit in which space is freed.
	maxSegmentBytes = 64 << 20
	// maxPendingBytes bounds the records that wait in memory for the disk.
	maxPendingBytes = 16 << 20
	// fsyncTimeout is how long a visitor waits for the disk. A disk that takes longer
	// has failed as far as the visitor is concerned.
	fsyncTimeout = 5 * time.Second
)

// segmentBytes returns the size at which this spool's segments are sealed. Space is
// freed by whole segments, so even a small spool must consist of several.
func (c Config) segmentBytes() int64 { return min(maxSegmentBytes, c.MaxSpoolBytes/8) }
