// Package zstd offers what Pebble calls of github.com/DataDog/zstd, on
// klauspost/compress, which the Kafka client brings anyway. With cgo, DataDog's
// compiles 40 files of C: more than a minute of CPU on an empty cache, for every
// program and test here, whose state is compressed by snappy. Both write and read
// Zstandard frames (RFC 8878), so whatever one has written the other reads.
package zstd

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Ctx holds what is reused from call to call. It is not safe for concurrent use.
type Ctx interface {
	// CompressLevel writes src as one frame. If dst has the capacity of CompressBound,
	// the result is in its memory.
	CompressLevel(dst, src []byte, level int) ([]byte, error)
	// DecompressInto reads the frames in src into dst, which must have room for their
	// content, and returns how much that is.
	DecompressInto(dst, src []byte) (int, error)
}

// maxExpansion is what a frame may need beyond its content: header, checksum, and three
// bytes for each block.
const maxExpansion = 64

// CompressBound is what a frame of so many bytes takes at most.
func CompressBound(size int) int { return size + size>>8 + maxExpansion }

type ctx struct {
	encoders map[zstd.EncoderLevel]*zstd.Encoder
	decoder  *zstd.Decoder
}

// NewCtx makes a context.
func NewCtx() Ctx { return &ctx{encoders: make(map[zstd.EncoderLevel]*zstd.Encoder)} }

// CompressLevel implements Ctx. Levels are those of the C library, as near as
// klauspost/compress has them.
func (c *ctx) CompressLevel(dst, src []byte, level int) ([]byte, error) {
	at := zstd.EncoderLevelFromZstd(level)
	if c.encoders[at] == nil {
		// One goroutine and no checksum: as the C library does by default.
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(at), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true))
		if err != nil {
			return nil, fmt.Errorf("making a zstd encoder of level %d: %w", level, err)
		}
		c.encoders[at] = e
	}
	return c.encoders[at].EncodeAll(src, dst[:0]), nil
}

// DecompressInto implements Ctx.
func (c *ctx) DecompressInto(dst, src []byte) (int, error) {
	if c.decoder == nil {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			return 0, fmt.Errorf("making a zstd decoder: %w", err)
		}
		c.decoder = d
	}
	out, err := c.decoder.DecodeAll(src, dst[:0:len(dst)])
	if err != nil {
		return 0, fmt.Errorf("reading a zstd frame into %d bytes: %w", len(dst), err)
	}
	return len(out), nil
}
