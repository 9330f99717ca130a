package clicklog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/s2"
)

const (
	formatVersion = 1
	magic         = "clickseg"

	blockBytes = 4096 // of records; a get reads and decodes one block
	blockHead  = 8
	stored     = 1 << 31 // in a block's length: the records are not compressed
	fenceLen   = 12
	footerLen  = 96
	maxCluster = 255
	maxValue   = 16 << 20
	maxBlock   = blockBytes + recordHead + maxValue

	segSuffix = ".seg"
	tmpSuffix = ".tmp"
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errNoFooter = fmt.Errorf("%w: no valid footer", ErrCorrupt)
)

// segment is an immutable file of clicks, and what is kept of it in memory.
type segment struct {
	id          uint64
	first, next int64 // offsets of the topic
	count       uint32
	min, max    uint32 // token times
	pivot       uint32
	size        int64 // of the file

	keys []uint64 // of each block's first token
	offs []uint32 // of each block, and the end of the last

	maxHere uint32 // highest max of this and all older segments
	minHere uint32 // lowest min of this and all younger segments

	file vfs.File // nil while closed
	used int64    // when it was read last, in gets
}

func segmentName(id uint64) string { return fmt.Sprintf("%016x%s", id, segSuffix) }

func segmentID(name string) (uint64, error) {
	digits := strings.TrimSuffix(name, segSuffix)
	id, err := strconv.ParseUint(digits, 16, 64)
	if err != nil || id == 0 || segmentName(id) != name {
		return 0, fmt.Errorf("%w: file name %q", ErrCorrupt, name)
	}
	return id, nil
}

// appendBlock frames records for the disk. They stay as they are if s2 cannot make them
// smaller.
func appendBlock(dst, records []byte) []byte {
	k := len(dst)
	room := blockHead + s2.MaxEncodedLen(len(records))
	dst = slices.Grow(dst, room)[:k+room]
	length := uint32(len(records))
	enc := s2.Encode(dst[k+blockHead:], records)
	if len(enc) >= len(records) {
		enc = dst[k+blockHead:][:copy(dst[k+blockHead:], records)]
		length |= stored
	}
	b := dst[k : k+blockHead+len(enc)]
	le.PutUint32(b[4:], length)
	le.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return dst[:k+len(b)]
}

// decodeBlock checks a block and returns its records: in dst if they had to be
// decompressed, else in b.
func decodeBlock(dst, b []byte) ([]byte, error) {
	if len(b) < blockHead || crc32.Checksum(b[4:], castagnoli) != le.Uint32(b) {
		return nil, fmt.Errorf("%w: block checksum", ErrCorrupt)
	}
	length, payload := le.Uint32(b[4:]), b[blockHead:]
	n := int(length &^ stored)
	if n > maxBlock {
		return nil, fmt.Errorf("%w: block of %d bytes", ErrCorrupt, n)
	}
	if length&stored != 0 {
		if len(payload) != n {
			return nil, fmt.Errorf("%w: block length", ErrCorrupt)
		}
		return payload, nil
	}
	if m, err := s2.DecodedLen(payload); err != nil || m != n {
		return nil, fmt.Errorf("%w: block length", ErrCorrupt)
	}
	records, err := s2.Decode(dst[:0], payload)
	if err != nil {
		return nil, fmt.Errorf("%w: block: %w", ErrCorrupt, err)
	}
	return records, nil
}

// nextRecord splits the first record off. The value is not copied.
func nextRecord(records []byte) (t *Token, at int64, value, rest []byte, err error) {
	if len(records) < recordHead || uint64(len(records)-recordHead) < uint64(le.Uint32(records[28:])) {
		return nil, 0, nil, nil, fmt.Errorf("%w: record length", ErrCorrupt)
	}
	n := recordHead + int(le.Uint32(records[28:]))
	return (*Token)(records), int64(le.Uint64(records[20:])), records[recordHead:n], records[n:], nil
}

// findRecord looks for a token among a block's records.
func findRecord(records []byte, t *Token) (value []byte, at int64, ok bool, err error) {
	for len(records) > 0 {
		var r *Token
		if r, at, value, records, err = nextRecord(records); err != nil {
			return nil, 0, false, err
		}
		if c := bytes.Compare(r[:], t[:]); c == 0 {
			return value, at, true, nil
		} else if c > 0 {
			break
		}
	}
	return nil, 0, false, nil
}

// appendTail appends what follows the blocks: fences, cluster id, footer.
func (s *segment) appendTail(dst []byte, id Identity) []byte {
	k := len(dst)
	for i, key := range s.keys {
		dst = le.AppendUint64(dst, key)
		dst = le.AppendUint32(dst, s.offs[i])
	}
	fences := crc32.Checksum(dst[k:], castagnoli)
	k = len(dst)
	dst = append(dst, id.Cluster...)
	dst = le.AppendUint64(dst, uint64(s.first))
	dst = le.AppendUint64(dst, uint64(s.next))
	dst = le.AppendUint64(dst, s.id)
	dst = le.AppendUint64(dst, uint64(s.offs[len(s.keys)]))
	for _, v := range []uint32{uint32(len(s.keys)), s.count, s.min, s.max, s.pivot, uint32(id.Partition)} {
		dst = le.AppendUint32(dst, v)
	}
	dst = append(dst, id.Topic[:]...)
	dst = le.AppendUint32(dst, fences)
	dst = le.AppendUint32(dst, uint32(len(id.Cluster)))
	dst = le.AppendUint32(dst, formatVersion)
	dst = le.AppendUint32(dst, crc32.Checksum(dst[k:], castagnoli))
	return append(dst, magic...)
}

// loadSegment reads and checks everything of a file but its blocks.
func loadSegment(fs vfs.FS, path string, want Identity) (*segment, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s := &segment{size: st.Size()}
	tail := make([]byte, min(s.size, footerLen+maxCluster))
	if err := readFull(f, tail, s.size-int64(len(tail))); err != nil {
		return nil, err
	}
	ft, err := s.parseFooter(tail, want)
	if err != nil {
		return nil, err
	}
	fences := make([]byte, fenceLen*ft.blocks)
	if ft.data+int64(len(fences))+ft.cluster+footerLen != s.size || ft.data > math.MaxUint32 {
		return nil, fmt.Errorf("%w: file of %d bytes", ErrCorrupt, s.size)
	}
	if err := readFull(f, fences, ft.data); err != nil {
		return nil, err
	}
	if crc32.Checksum(fences, castagnoli) != ft.fences {
		return nil, fmt.Errorf("%w: fence checksum", ErrCorrupt)
	}
	return s, s.parseFences(fences, uint32(ft.data))
}

// footer is what of a footer is needed only while the file is being loaded.
type footer struct {
	data, cluster int64 // bytes
	blocks        int
	fences        uint32 // their crc
}

// parseFooter reads the footer at the end of tail and tells a torn file (errNoFooter)
// from another's ([ErrForeign]).
func (s *segment) parseFooter(tail []byte, want Identity) (footer, error) {
	k := len(tail) - footerLen
	if k < 0 || string(tail[k+88:]) != magic {
		return footer{}, errNoFooter
	}
	b := tail[k:]
	// A torn file has zeros for what was lost, not another number.
	version := le.Uint32(b[80:])
	if version > formatVersion && version < 1<<16 {
		return footer{}, fmt.Errorf("%w: format version %d, this program knows %d", ErrForeign, version, formatVersion)
	}
	cluster := int64(le.Uint32(b[76:]))
	if version != formatVersion || cluster > int64(k) || crc32.Checksum(tail[k-int(cluster):k+84],
		castagnoli) != le.Uint32(b[84:]) {
		return footer{}, errNoFooter
	}
	have := Identity{Cluster: string(tail[k-int(cluster) : k]), Topic: [16]byte(b[56:]),
		Partition: int32(le.Uint32(b[52:]))}
	if have != want {
		return footer{}, fmt.Errorf("%w: it is of %v, not of %v", ErrForeign, have, want)
	}
	s.first, s.next, s.id = int64(le.Uint64(b)), int64(le.Uint64(b[8:])), le.Uint64(b[16:])
	data, blocks := le.Uint64(b[24:]), le.Uint32(b[32:])
	s.count, s.min, s.max, s.pivot = le.Uint32(b[36:]), le.Uint32(b[40:]), le.Uint32(b[44:]), le.Uint32(b[48:])
	if s.first < 0 || s.next <= s.first || (s.count == 0) != (blocks == 0) || (s.count == 0) != (s.min > s.max) ||
		data > uint64(s.size) || int64(blocks)*fenceLen > s.size {
		return footer{}, fmt.Errorf("%w: footer contradicts itself", ErrCorrupt)
	}
	return footer{data: int64(data), cluster: cluster, blocks: int(blocks), fences: le.Uint32(b[72:])}, nil
}

func (s *segment) parseFences(b []byte, data uint32) error {
	n := len(b) / fenceLen
	s.keys, s.offs = make([]uint64, n), make([]uint32, n+1)
	s.offs[n] = data
	for i := range n {
		s.keys[i], s.offs[i] = le.Uint64(b[i*fenceLen:]), le.Uint32(b[i*fenceLen+8:])
	}
	ok := s.offs[0] == 0 && slices.IsSorted(s.keys)
	for i := range n {
		ok = ok && s.offs[i] < s.offs[i+1]
	}
	if n > 0 {
		ok = ok && uint32(s.keys[0]>>32) == s.min && uint32(s.keys[n-1]>>32) <= s.max
	}
	if !ok {
		return fmt.Errorf("%w: fences out of order", ErrCorrupt)
	}
	return nil
}

// find looks a token up in the file. The value is valid until the next call.
func (l *Log) find(s *segment, t *Token) (value []byte, at int64, ok bool, err error) {
	key := binary.BigEndian.Uint64(t[:])
	// The token is in the last block that starts at or before it. Tokens that agree in
	// eight bytes may fill several blocks: go back over those, and over the one before
	// the first of them.
	for b := sort.Search(len(s.keys), func(i int) bool { return s.keys[i] > key }) - 1; b >= 0; b-- {
		records, err := l.readBlock(s, b)
		if err != nil {
			return nil, 0, false, fmt.Errorf("reading block %d of %s: %w", b, segmentName(s.id), err)
		}
		if value, at, ok, err = findRecord(records, t); ok || err != nil {
			return value, at, ok, err
		}
		if s.keys[b] < key {
			break
		}
	}
	return nil, 0, false, nil
}

func (l *Log) readBlock(s *segment, i int) ([]byte, error) {
	f, err := l.open(s)
	if err != nil {
		return nil, err
	}
	l.stats.BlocksRead++
	n := int(s.offs[i+1] - s.offs[i])
	l.block = slices.Grow(l.block[:0], n)[:n]
	if err := readFull(f, l.block, int64(s.offs[i])); err != nil {
		return nil, err
	}
	records, err := decodeBlock(l.records, l.block)
	if err != nil {
		return nil, err
	}
	if le.Uint32(l.block[4:])&stored == 0 {
		l.records = records
	}
	// A sound block at the wrong place would hide clicks.
	if len(records) < recordHead || binary.BigEndian.Uint64(records) != s.keys[i] {
		return nil, fmt.Errorf("%w: block does not start as its fence says", ErrCorrupt)
	}
	return records, nil
}

// open returns the segment's file; if too many are open, the one that was not read for
// longest is closed.
func (l *Log) open(s *segment) (vfs.File, error) {
	s.used = l.stats.Gets
	if s.file != nil {
		return s.file, nil
	}
	if len(l.opened) >= maxOpenFiles {
		oldest := 0
		for i, o := range l.opened {
			if o.used < l.opened[oldest].used {
				oldest = i
			}
		}
		if err := l.shut(l.opened[oldest]); err != nil {
			return nil, err
		}
	}
	f, err := l.fs.Open(l.path(segmentName(s.id)), vfs.RandomReadsOption)
	if err != nil {
		return nil, err
	}
	s.file = f
	l.opened = append(l.opened, s)
	return f, nil
}

// shut closes the segment's file if it is open.
func (l *Log) shut(s *segment) error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	l.opened = slices.DeleteFunc(l.opened, func(o *segment) bool { return o == s })
	return err
}

// readFull reads len(b) bytes; a file that ends before is corrupt.
func readFull(f vfs.File, b []byte, at int64) error {
	n, err := f.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: file ends at %d, wanted %d", ErrCorrupt, at+int64(n), at+int64(len(b)))
	}
	return err
}
