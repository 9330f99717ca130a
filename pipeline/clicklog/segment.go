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

	"github.com/nimriz/partners/pipeline/token"
)

const (
	formatVersion = 2
	footerMagic   = "clickseg"

	blockBytes    = 4096 // of records; a get reads one block
	blockHeadLen  = 8
	uncompressed  = 1 << 31 // in a block's length; without it, version 1 has compressed the records
	indexEntryLen = 12
	footerLen     = 96 // without what version 2 has before it
	footerV2Len   = 4  // length of the dictionary
	maxClusterLen = 255
	maxValueLen   = 16 << 20
	maxBlockLen   = blockBytes + sharingHeadLen + maxValueLen

	recordHeadLen  = 32                // token 20 | at 8 | length 4
	sharingHeadLen = recordHeadLen + 4 // and the position of the entry
	sharing        = 1 << 31           // in a record's length: it has a shared part

	entryHeadLen = 8                 // crc32c 4 | length 4
	noEntry      = uint32(1<<32 - 1) // the position of no entry
	minShared    = 32                // bytes; a shorter part is stored with the click
	// dictionaryShare is the part of a slab that the dictionary may take. It bounds what
	// parts that are not shared after all cost.
	dictionaryShare = 8
	// entryRead is what one read of the dictionary gets: an entry, unless its part is
	// longer than a whole click of ours.
	entryRead = entryHeadLen + 512

	segmentSuffix = ".seg"
	tmpSuffix     = ".tmp"
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errNoFooter = fmt.Errorf("%w: no valid footer", ErrCorrupt)
)

// segment is an immutable file of clicks, and what of it stays in memory.
type segment struct {
	id                      uint64 // names the file
	firstOffset, nextOffset int64  // of the topic: it vouches for [first, next)
	count                   uint32 // clicks
	minMint, maxMint        uint32 // seconds of the KSUID epoch
	nextStart               uint32 // start of the slab after this segment, likewise
	size                    int64  // of the file, in bytes

	// The sparse index.
	blockKeys    []uint64 // first eight bytes of each block's first token
	blockOffsets []uint32 // start of each block in the file, and the end of the last

	// dictionaryLen is the length of the dictionary, which follows the last block.
	dictionaryLen uint32

	// Set by updateSearchBounds.
	prefixMax uint32 // highest maxMint of this and all older segments
	suffixMin uint32 // lowest minMint of this and all younger segments

	file     vfs.File // nil while closed
	lastUsed int64    // number of the last get that read it
}

func segmentName(id uint64) string { return fmt.Sprintf("%016x%s", id, segmentSuffix) }

// parseSegmentName returns the id of a segment file.
func parseSegmentName(name string) (uint64, error) {
	digits := strings.TrimSuffix(name, segmentSuffix)
	id, err := strconv.ParseUint(digits, 16, 64)
	if err != nil || id == 0 || segmentName(id) != name {
		return 0, fmt.Errorf("%w: file name %q", ErrCorrupt, name)
	}
	return id, nil
}

// sealBlock writes the head of a block, whose records are there already.
func sealBlock(b []byte) {
	le.PutUint32(b[4:], uint32(len(b)-blockHeadLen)|uncompressed)
	le.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
}

// decodeBlock checks a block and returns its records: decompressed into dst, or, if
// they were not compressed, in b.
func decodeBlock(dst, b []byte) ([]byte, error) {
	if len(b) < blockHeadLen || crc32.Checksum(b[4:], castagnoli) != le.Uint32(b) {
		return nil, fmt.Errorf("%w: block checksum", ErrCorrupt)
	}
	length := le.Uint32(b[4:])
	payload := b[blockHeadLen:]
	n := int(length &^ uncompressed)
	if n > maxBlockLen {
		return nil, fmt.Errorf("%w: block of %d bytes", ErrCorrupt, n)
	}
	if length&uncompressed != 0 {
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

// clickRecord is a record of a slab or a block. Its bytes are not copied.
type clickRecord struct {
	token    *token.Raw
	at       int64  // time of the Kafka record, in milliseconds
	own      []byte // the click's own bytes
	entryPos uint32 // where the dictionary has the shared part, or noEntry
}

// appendRecord appends a click.
func appendRecord(dst []byte, t *token.Raw, at int64, own []byte, entryPos uint32) []byte {
	dst = append(dst, t[:]...)
	dst = le.AppendUint64(dst, uint64(at))
	if entryPos == noEntry {
		dst = le.AppendUint32(dst, uint32(len(own)))
	} else {
		dst = le.AppendUint32(dst, uint32(len(own))|sharing)
		dst = le.AppendUint32(dst, entryPos)
	}
	return append(dst, own...)
}

// recordBounds returns where the own bytes of the first record begin and end.
func recordBounds(records []byte) (begin, end int) {
	length := le.Uint32(records[recordHeadLen-4:])
	begin = recordHeadLen
	if length&sharing != 0 {
		begin = sharingHeadLen
	}
	return begin, begin + int(length&^sharing)
}

// parseRecord reads the first record of a slab or of a block that was checked.
func parseRecord(records []byte) clickRecord {
	begin, end := recordBounds(records)
	r := clickRecord{
		token:    (*token.Raw)(records),
		at:       int64(le.Uint64(records[20:])),
		own:      records[begin:end:end],
		entryPos: noEntry,
	}
	if begin == sharingHeadLen {
		r.entryPos = le.Uint32(records[recordHeadLen:])
	}
	return r
}

// findRecord looks for a token among a block's records.
func findRecord(records []byte, t *token.Raw) (r clickRecord, ok bool, err error) {
	for len(records) > 0 {
		if len(records) < recordHeadLen {
			return clickRecord{}, false, fmt.Errorf("%w: record length", ErrCorrupt)
		}
		_, end := recordBounds(records)
		if end > len(records) {
			return clickRecord{}, false, fmt.Errorf("%w: record length", ErrCorrupt)
		}
		if c := bytes.Compare(records[:len(t)], t[:]); c == 0 {
			return parseRecord(records), true, nil
		} else if c > 0 {
			break
		}
		records = records[end:]
	}
	return clickRecord{}, false, nil
}

// appendTail appends what follows the dictionary: sparse index, cluster id, footer.
func (s *segment) appendTail(dst []byte, id Identity) []byte {
	k := len(dst)
	for i, key := range s.blockKeys {
		dst = le.AppendUint64(dst, key)
		dst = le.AppendUint32(dst, s.blockOffsets[i])
	}
	indexChecksum := crc32.Checksum(dst[k:], castagnoli)
	k = len(dst)
	dst = append(dst, id.Cluster...)
	dst = le.AppendUint32(dst, s.dictionaryLen)
	dst = le.AppendUint64(dst, uint64(s.firstOffset))
	dst = le.AppendUint64(dst, uint64(s.nextOffset))
	dst = le.AppendUint64(dst, s.id)
	dst = le.AppendUint64(dst, uint64(s.blockOffsets[len(s.blockKeys)]))
	dst = le.AppendUint32(dst, uint32(len(s.blockKeys)))
	dst = le.AppendUint32(dst, s.count)
	dst = le.AppendUint32(dst, s.minMint)
	dst = le.AppendUint32(dst, s.maxMint)
	dst = le.AppendUint32(dst, s.nextStart)
	dst = le.AppendUint32(dst, uint32(id.Partition))
	dst = append(dst, id.Topic[:]...)
	dst = le.AppendUint32(dst, indexChecksum)
	dst = le.AppendUint32(dst, uint32(len(id.Cluster)))
	dst = le.AppendUint32(dst, formatVersion)
	dst = le.AppendUint32(dst, crc32.Checksum(dst[k:], castagnoli))
	return append(dst, footerMagic...)
}

// loadSegment reads and checks everything in a file except its blocks and its
// dictionary, which are checked piece by piece when they are read.
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
	tail := make([]byte, min(s.size, footerLen+footerV2Len+maxClusterLen))
	if err := readFull(f, tail, s.size-int64(len(tail))); err != nil {
		return nil, err
	}
	ft, err := s.parseFooter(tail, want)
	if err != nil {
		return nil, err
	}
	index := make([]byte, indexEntryLen*ft.blockCount)
	indexAt := ft.dataLen + int64(s.dictionaryLen)
	if indexAt+int64(len(index))+ft.tailLen != s.size || ft.dataLen > math.MaxUint32 {
		return nil, fmt.Errorf("%w: file of %d bytes", ErrCorrupt, s.size)
	}
	if err := readFull(f, index, indexAt); err != nil {
		return nil, err
	}
	if crc32.Checksum(index, castagnoli) != ft.indexChecksum {
		return nil, fmt.Errorf("%w: sparse index checksum", ErrCorrupt)
	}
	return s, s.parseSparseIndex(index, uint32(ft.dataLen))
}

// footer is the part of a footer that is needed only while the file is being loaded.
type footer struct {
	dataLen       int64  // of the blocks, in bytes
	tailLen       int64  // of the cluster id and the footer, in bytes
	blockCount    int    // entries of the sparse index
	indexChecksum uint32 // crc32c of the sparse index
}

// parseFooter reads the footer at the end of tail. It distinguishes a torn file
// (errNoFooter) from one of another log ([ErrForeign]).
func (s *segment) parseFooter(tail []byte, want Identity) (footer, error) {
	k := len(tail) - footerLen
	if k < 0 || string(tail[k+88:]) != footerMagic {
		return footer{}, errNoFooter
	}
	b := tail[k:]
	// A torn file has zeros in place of what was lost, never another number.
	version := le.Uint32(b[80:])
	if version > formatVersion && version < 1<<16 {
		return footer{}, fmt.Errorf("%w: format version %d, this program knows %d", ErrForeign, version, formatVersion)
	}
	clusterEnd := k
	if version == formatVersion {
		clusterEnd -= footerV2Len
	}
	clusterAt := clusterEnd - int(le.Uint32(b[76:]))
	if version == 0 || version > formatVersion || clusterAt < 0 {
		return footer{}, errNoFooter
	}
	if crc32.Checksum(tail[clusterAt:k+84], castagnoli) != le.Uint32(b[84:]) {
		return footer{}, errNoFooter
	}
	have := Identity{
		Cluster:   string(tail[clusterAt:clusterEnd]),
		Topic:     [16]byte(b[56:]),
		Partition: int32(le.Uint32(b[52:])),
	}
	if have != want {
		return footer{}, fmt.Errorf("%w: its footer names %v, expected %v", ErrForeign, have, want)
	}
	if version == formatVersion {
		s.dictionaryLen = le.Uint32(tail[clusterEnd:])
	}
	s.firstOffset = int64(le.Uint64(b))
	s.nextOffset = int64(le.Uint64(b[8:]))
	s.id = le.Uint64(b[16:])
	dataLen := le.Uint64(b[24:])
	blockCount := le.Uint32(b[32:])
	s.count = le.Uint32(b[36:])
	s.minMint = le.Uint32(b[40:])
	s.maxMint = le.Uint32(b[44:])
	s.nextStart = le.Uint32(b[48:])
	offsetsFit := s.firstOffset >= 0 && s.nextOffset > s.firstOffset
	emptyThroughout := (s.count == 0) == (blockCount == 0) && (s.count == 0) == (s.minMint > s.maxMint)
	fileFits := dataLen <= uint64(s.size) && int64(blockCount)*indexEntryLen <= s.size
	if !offsetsFit || !emptyThroughout || !fileFits {
		return footer{}, fmt.Errorf("%w: footer contradicts itself", ErrCorrupt)
	}
	return footer{
		dataLen:       int64(dataLen),
		tailLen:       int64(len(tail) - clusterAt),
		blockCount:    int(blockCount),
		indexChecksum: le.Uint32(b[72:]),
	}, nil
}

// parseSparseIndex reads the sparse index and checks it against the footer.
func (s *segment) parseSparseIndex(b []byte, dataLen uint32) error {
	n := len(b) / indexEntryLen
	s.blockKeys = make([]uint64, n)
	s.blockOffsets = make([]uint32, n+1)
	s.blockOffsets[n] = dataLen
	for i := range n {
		s.blockKeys[i] = le.Uint64(b[i*indexEntryLen:])
		s.blockOffsets[i] = le.Uint32(b[i*indexEntryLen+8:])
	}
	ok := s.blockOffsets[0] == 0 && slices.IsSorted(s.blockKeys)
	for i := range n {
		ok = ok && s.blockOffsets[i] < s.blockOffsets[i+1]
	}
	if n > 0 {
		ok = ok && uint32(s.blockKeys[0]>>32) == s.minMint && uint32(s.blockKeys[n-1]>>32) <= s.maxMint
	}
	if !ok {
		return fmt.Errorf("%w: sparse index is not ascending or contradicts the footer", ErrCorrupt)
	}
	return nil
}

// findInSegment looks up a token in the file. The click's bytes are valid until the
// next call.
func (l *Log) findInSegment(s *segment, t *token.Raw) (c foundClick, ok bool, err error) {
	key := binary.BigEndian.Uint64(t[:])
	// The token is in the last block that starts at or before it. Tokens that agree in
	// eight bytes may fill several blocks: go back over all of them, and over the block
	// before the first of them.
	for b := sort.Search(len(s.blockKeys), func(i int) bool { return s.blockKeys[i] > key }) - 1; b >= 0; b-- {
		records, err := l.readBlock(s, b)
		if err != nil {
			return c, false, fmt.Errorf("reading block %d of %s: %w", b, segmentName(s.id), err)
		}
		r, ok, err := findRecord(records, t)
		if err != nil {
			return c, false, fmt.Errorf("searching block %d of %s: %w", b, segmentName(s.id), err)
		}
		if ok {
			c.at, c.own = r.at, r.own
			if r.entryPos != noEntry {
				if c.shared, err = l.readShared(s, r.entryPos); err != nil {
					err = fmt.Errorf("reading the dictionary of %s at %d: %w", segmentName(s.id), r.entryPos, err)
				}
			}
			return c, err == nil, err
		}
		if s.blockKeys[b] < key {
			break
		}
	}
	return c, false, nil
}

// readShared reads and checks the shared part whose entry is at pos of the dictionary.
// It is valid until the next call.
func (l *Log) readShared(s *segment, pos uint32) ([]byte, error) {
	f, err := l.openFile(s)
	if err != nil {
		return nil, err
	}
	room := int64(s.dictionaryLen) - int64(pos)
	if room < entryHeadLen {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrCorrupt, s.dictionaryLen)
	}
	at := int64(s.blockOffsets[len(s.blockKeys)]) + int64(pos)
	n := min(room, entryRead)
	l.entryBuf = slices.Grow(l.entryBuf[:0], int(n))[:n]
	if err := readFull(f, l.entryBuf, at); err != nil {
		return nil, err
	}
	length := entryHeadLen + int64(le.Uint32(l.entryBuf[4:]))
	if length > room {
		return nil, fmt.Errorf("%w: entry length", ErrCorrupt)
	}
	if length > n {
		l.entryBuf = slices.Grow(l.entryBuf[:0], int(length))[:length]
		if err := readFull(f, l.entryBuf, at); err != nil {
			return nil, err
		}
	}
	entry := l.entryBuf[:length]
	if entryChecksum(entry, pos) != le.Uint32(entry) {
		return nil, fmt.Errorf("%w: entry checksum", ErrCorrupt)
	}
	return entry[entryHeadLen:], nil
}

// readBlock reads and checks the i-th block and returns its records, which are valid
// until the next call.
func (l *Log) readBlock(s *segment, i int) ([]byte, error) {
	f, err := l.openFile(s)
	if err != nil {
		return nil, err
	}
	l.stats.BlocksRead++
	n := int(s.blockOffsets[i+1] - s.blockOffsets[i])
	l.blockBuf = slices.Grow(l.blockBuf[:0], n)[:n]
	if err := readFull(f, l.blockBuf, int64(s.blockOffsets[i])); err != nil {
		return nil, err
	}
	records, err := decodeBlock(l.recordsBuf, l.blockBuf)
	if err != nil {
		return nil, err
	}
	if le.Uint32(l.blockBuf[4:])&uncompressed == 0 {
		l.recordsBuf = records
	}
	// A valid block in the wrong place would hide clicks.
	if len(records) < recordHeadLen || binary.BigEndian.Uint64(records) != s.blockKeys[i] {
		return nil, fmt.Errorf("%w: block does not start with its key in the sparse index", ErrCorrupt)
	}
	return records, nil
}

// openFile returns the segment's file. If too many files are open, it closes the one
// that was read the longest time ago.
func (l *Log) openFile(s *segment) (vfs.File, error) {
	s.lastUsed = l.stats.Gets
	if s.file != nil {
		return s.file, nil
	}
	if len(l.openSegments) >= maxOpenFiles {
		oldest := 0
		for i, o := range l.openSegments {
			if o.lastUsed < l.openSegments[oldest].lastUsed {
				oldest = i
			}
		}
		if err := l.closeFile(l.openSegments[oldest]); err != nil {
			return nil, err
		}
	}
	f, err := l.fs.Open(l.filePath(segmentName(s.id)), vfs.RandomReadsOption)
	if err != nil {
		return nil, err
	}
	s.file = f
	l.openSegments = append(l.openSegments, s)
	return f, nil
}

// closeFile closes the segment's file if it is open.
func (l *Log) closeFile(s *segment) error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	l.openSegments = slices.DeleteFunc(l.openSegments, func(o *segment) bool { return o == s })
	return err
}

// readFull reads len(b) bytes at the position; a file that ends earlier is corrupt.
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
