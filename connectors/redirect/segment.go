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

// A segment is a file NNNNNNNNNNNNNNNNNNNN.seg (its number in decimal): a magic, then
// frames back to back.
//
//	+----------+   +-------------+-------------+-------+--------+-------------+
//	| nimspl01 |   | n           | CRC32C      | flags | token  | value       |
//	| 8 B      |   | 4 B, little | 4 B, little | 1 B   | 27 B   | n − 28 B    |
//	+----------+   +-------------+-------------+-------+--------+-------------+
//
// n counts flags, token and value. The checksum covers the segment's number (8 B,
// little), the frame's offset in the file (8 B, little), n, and the n bytes. So a frame
// is valid in one place only: neither a block that the disk put elsewhere nor
// frame-like bytes inside a value can be taken for one, and after damage the next valid
// frame can be searched byte by byte.
const (
	segmentMagic = "nimspl01"
	segmentExt   = ".seg"
	unreadExt    = ".unread" // behind segmentExt
	segmentHead  = int64(len(segmentMagic))

	frameHead = 8
	frameMin  = 1 + token.Len
	// a click is at most 517 bytes; n is below this, so a frame in doubt is decided by
	// the next 4 kB
	frameMax   = 4096
	flagShown  = 1
	flagsKnown = flagShown
)

var errFrame = errors.New("record does not fit the spool")

// segment is one file of the spool.
type segment struct {
	number uint64
	path   string
	// old: found at start. All of it behind the cut may already have been sent.
	old bool
	// size is where the durable frames end. It grows until sealed.
	size   atomic.Int64
	sealed atomic.Bool
	// unread: it could not be read to its end and has been set aside, under another
	// name.
	unread atomic.Bool
	// file is open from creation, or from the first read of an old segment. The writer
	// uses it until sealed, the reader opens and drops it.
	file *os.File
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

// frame is one record in a segment. token and value point into the buffer it was read
// from.
type frame struct {
	shown bool
	token []byte
	value []byte
}

// appendFrame appends a frame without checksum: its place is not known yet.
func appendFrame(dst []byte, clickToken string, shown bool, value []byte) ([]byte, error) {
	n := frameMin + len(value)
	if len(clickToken) != token.Len || frameHead+n > frameMax {
		return dst, fmt.Errorf("%w: token of %d bytes, value of %d", errFrame, len(clickToken), len(value))
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

// sealFrames writes the checksums of a run of frames that will stand at the given
// offset of the segment.
func sealFrames(buf []byte, number uint64, offset int64) {
	var p place
	for len(buf) > 0 {
		end := frameHead + int(binary.LittleEndian.Uint32(buf))
		binary.LittleEndian.PutUint32(buf[4:], p.sum(buf[:end], number, offset))
		buf, offset = buf[end:], offset+int64(end)
	}
}

// place is the memory in which the first part of a checksum's input is put together.
type place [20]byte

func (p *place) sum(f []byte, number uint64, offset int64) uint32 {
	binary.LittleEndian.PutUint64(p[:], number)
	binary.LittleEndian.PutUint64(p[8:], uint64(offset))
	copy(p[16:], f[:4])
	return crc32.Update(crc32.Checksum(p[:], castagnoli), castagnoli, f[frameHead:])
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// parseFrame reads the frame at the start of buf. size 0: there is none. short: there
// may be one, but buf ends too early to say.
func (p *place) parseFrame(buf []byte, number uint64, offset int64) (f frame, size int, short bool) {
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
	if binary.LittleEndian.Uint32(buf[4:]) != p.sum(buf[:size], number, offset) || buf[frameHead]&^flagsKnown != 0 {
		return frame{}, 0, false
	}
	return frame{shown: buf[frameHead]&flagShown != 0, token: buf[frameHead+1 : frameHead+frameMin : frameHead+
		frameMin],
		value: buf[frameHead+frameMin : size : size]}, size, false
}
