package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/nimriz/partners/pipeline/token"
)

// A segment is a file NNNNNNNNNNNNNNNNNNNN.seg, named by its number in decimal. It
// consists of a magic and of frames back to back:
//
//	+----------+   +-------------+-------------+-------+--------+-------------+
//	| nimspl01 |   | n           | CRC32C      | flags | token  | value       |
//	| 8 B      |   | 4 B, little | 4 B, little | 1 B   | 27 B   | n − 28 B    |
//	+----------+   +-------------+-------------+-------+--------+-------------+
//
// n counts flags, token and value. The checksum covers the segment's number (8 B,
// little), the frame's offset in the file (8 B, little), n, and the n bytes. So a frame
// is valid in one place only. A block that the disk wrote elsewhere cannot be taken for
// a frame, nor can bytes inside a value that look like one. After corrupt bytes, the
// reader can therefore search the next valid frame byte by byte.
const (
	segmentMagic = "nimspl01"
	segmentExt   = ".seg"
	unreadExt    = ".unread" // follows segmentExt
	segmentHead  = int64(len(segmentMagic))

	frameHead = 8
	frameMin  = 1 + token.Len
	// frameMax bounds a frame with its head. A click takes at most 517 bytes. The bound
	// is low so that 4 kB more are enough to decide whether a place holds a frame.
	frameMax   = 4096
	flagShown  = 1
	flagsKnown = flagShown
)

// errFrameSize: the token or the value of a record does not fit a frame.
var errFrameSize = errors.New("record does not fit the spool")

// segment is one file of the spool.
type segment struct {
	number uint64
	path   string
	// recovered: the segment was there when the process started. Everything in it after
	// the acknowledged position may have been sent already.
	recovered bool
	// size is where the durable frames end. The writer raises it until it seals the
	// segment.
	size   atomic.Int64
	sealed atomic.Bool
	// setAside: the reader could not read the segment to its end and renamed it to
	// *.unread.
	setAside atomic.Bool
	// file is open from creation, or from the first read of a recovered segment. The
	// writer uses it until the segment is sealed. Afterwards it belongs to the reader,
	// which may close and reopen it.
	file *os.File
}

// endsBefore reports whether the segment is complete and lies before p as a whole.
func (seg *segment) endsBefore(p position) bool {
	return seg.number < p.segment || seg.number == p.segment && seg.sealed.Load() && seg.size.Load() <= p.offset
}

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", number, segmentExt))
}

func segmentNumber(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentExt)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}

// frame is one record in a segment. token and value point into the buffer that it was
// read from.
type frame struct {
	shown bool // the visitor got to see the token
	token []byte
	value []byte

	partition int32 // set when it is shipped
}

// appendFrame appends a frame without its checksum, because its place in a segment is
// not known yet.
func appendFrame(dst []byte, clickToken string, shown bool, value []byte) ([]byte, error) {
	n := frameMin + len(value)
	if len(clickToken) != token.Len || frameHead+n > frameMax {
		return dst, fmt.Errorf("%w: token of %d bytes, value of %d", errFrameSize, len(clickToken), len(value))
	}
	flags := byte(0)
	if shown {
		flags = flagShown
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
	dst = append(dst, 0, 0, 0, 0, flags)
	dst = append(dst, clickToken...)
	return append(dst, value...), nil
}

// checksumFrames fills in the checksums of consecutive frames that will be written to
// the segment with this number at offset.
func checksumFrames(buf []byte, number uint64, offset int64) {
	var c checksumBuffer
	for len(buf) > 0 {
		size := frameHead + int(binary.LittleEndian.Uint32(buf))
		binary.LittleEndian.PutUint32(buf[4:], c.frameChecksum(buf[:size], number, offset))
		buf = buf[size:]
		offset += int64(size)
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksumBuffer is memory for the part of a checksum's input that precedes the frame's
// payload.
type checksumBuffer [20]byte

func (c *checksumBuffer) frameChecksum(f []byte, number uint64, offset int64) uint32 {
	binary.LittleEndian.PutUint64(c[:], number)
	binary.LittleEndian.PutUint64(c[8:], uint64(offset))
	copy(c[16:], f[:4])
	return crc32.Update(crc32.Checksum(c[:], castagnoli), castagnoli, f[frameHead:])
}

// parseFrame parses the frame at the start of buf. size is 0 if there is none. short
// reports that there may be one, but that buf ends too early to tell.
func (c *checksumBuffer) parseFrame(buf []byte, number uint64, offset int64) (f frame, size int, short bool) {
	if len(buf) < frameHead {
		return frame{}, 0, true
	}
	n := binary.LittleEndian.Uint32(buf)
	if n < frameMin || n > frameMax-frameHead {
		return frame{}, 0, false
	}
	size = frameHead + int(n)
	if size > len(buf) {
		return frame{}, 0, true
	}
	flags := buf[frameHead]
	if binary.LittleEndian.Uint32(buf[4:]) != c.frameChecksum(buf[:size], number, offset) || flags&^flagsKnown != 0 {
		return frame{}, 0, false
	}
	const tokenEnd = frameHead + frameMin
	return frame{
		shown: flags&flagShown != 0,
		token: buf[frameHead+1 : tokenEnd : tokenEnd],
		value: buf[tokenEnd:size:size],
	}, size, false
}
