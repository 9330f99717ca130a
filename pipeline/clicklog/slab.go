package clicklog

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"

	"github.com/nimriz/partners/pipeline/token"
)

const (
	firstRecord = 8 // no record is at position 0, so a zero table entry is a free one
	minTableLen = 1 << 10
	indexBatch  = 64
	maxProbe    = 512 // at half load a probe of 100 steps is already rare
)

// entry locates a record in the slab.
type entry struct {
	key  uint64 // first eight bytes of the token
	pos  uint32 // of the record in slab.data
	hash uint32 // of all 20 bytes
}

// slab gathers clicks in memory: records one after another, in the order of their puts,
// and a hash index with open addressing. A token that was put twice has two records;
// the index knows the later one.
type slab struct {
	data       []byte  // records, from firstRecord on
	limitBytes int     // of records and dictionary, at which the slab is full
	entries    []entry // one per record, in the same order

	table    []uint64 // hash << 32 | position; at most half of it is used
	indexed  int      // entries in the table; the rest is added in batches, whose cache misses overlap
	occupied int      // used places of the table
	crowded  bool     // a probe took maxProbe steps: the slab is full, whatever its size

	dictionary []byte            // entries of shared parts, as they will be in the file
	entryAt    map[uint32]uint32 // from the hash of a shared part to its entry's position
	mostShared int               // entries that entryAt has had at once: it does not shrink

	minMint, maxMint uint32 // seconds of the KSUID epoch
	startMint        uint32 // clicks minted more than tolerance before it are out of order
	mintSample       sample
	hasOutOfOrder    bool // an out-of-order click was stored in the offsets of this slab
}

func newSlab(limitBytes int64) *slab {
	s := &slab{}
	s.reset(limitBytes, 0)
	return s
}

// reset empties the slab and sets its limit and start. It keeps the grown table, unless
// the limit changes or a click larger than a slab has grown the memory.
func (s *slab) reset(limitBytes int64, startMint uint32) {
	s.limitBytes = int(limitBytes)
	if cap(s.data) != firstRecord+s.limitBytes {
		s.data = make([]byte, firstRecord, firstRecord+s.limitBytes)
		s.table = make([]uint64, minTableLen)
		s.entries = nil
		s.dictionary = nil
		s.entryAt = make(map[uint32]uint32)
		s.mostShared = 0
	}
	clear(s.table)
	clear(s.entryAt)
	s.dictionary = s.dictionary[:0]
	s.data = s.data[:firstRecord]
	s.entries = s.entries[:0]
	s.indexed = 0
	s.occupied = 0
	s.crowded = false
	s.minMint = math.MaxUint32
	s.maxMint = 0
	s.startMint = startMint
	s.mintSample.clear()
	s.hasOutOfOrder = false
}

// isFull reports whether the slab has no room for a value of n bytes, none of which
// may be in the dictionary yet. An empty slab is never full: it grows for a value above
// limitBytes.
func (s *slab) isFull(n int) bool {
	used := len(s.data) - firstRecord + len(s.dictionary)
	return s.crowded || len(s.entries) > 0 && used+sharingHeadLen+entryHeadLen+n > s.limitBytes
}

// shareBytes returns the position of the dictionary's entry for a shared part, which it
// adds if there is room. It returns noEntry if the click must be stored whole.
func (s *slab) shareBytes(hash uint32, shared []byte) uint32 {
	if len(shared) < minShared {
		return noEntry
	}
	if pos, ok := s.entryAt[hash]; ok {
		if !bytes.Equal(s.sharedAt(pos), shared) { // another part with the same hash
			return noEntry
		}
		return pos
	}
	pos := len(s.dictionary)
	if pos+entryHeadLen+len(shared) > s.limitBytes/dictionaryShare {
		return noEntry
	}
	s.dictionary = appendEntry(s.dictionary, shared)
	s.entryAt[hash] = uint32(pos)
	s.mostShared = max(s.mostShared, len(s.entryAt))
	return uint32(pos)
}

// sharedAt returns the shared part whose entry is at the position.
func (s *slab) sharedAt(pos uint32) []byte {
	e := s.dictionary[pos:]
	n := entryHeadLen + int(le.Uint32(e[4:]))
	return e[entryHeadLen:n:n]
}

// appendEntry appends a shared part as an entry of the dictionary.
func appendEntry(dictionary, shared []byte) []byte {
	pos := len(dictionary)
	d := le.AppendUint32(dictionary, 0)
	d = le.AppendUint32(d, uint32(len(shared)))
	d = append(d, shared...)
	le.PutUint32(d[pos:], entryChecksum(d[pos:], uint32(pos)))
	return d
}

// entryChecksum is the checksum of an entry at a position of the dictionary. An entry
// in another's place fails it.
func entryChecksum(entry []byte, pos uint32) uint32 { return crc32.Update(pos, castagnoli, entry[4:]) }

// appendClick copies a click into the slab: its own bytes, and where its shared part
// is.
func (s *slab) appendClick(hash uint32, t *token.Raw, at int64, own []byte, entryPos uint32) {
	pos := len(s.data)
	s.data = appendRecord(s.data, t, at, own, entryPos)
	s.entries = append(s.entries, entry{key: binary.BigEndian.Uint64(t[:]), pos: uint32(pos), hash: hash})
	minted := token.Seconds(t)
	s.minMint = min(s.minMint, minted)
	s.maxMint = max(s.maxMint, minted)
	s.mintSample.add(minted)
	if len(s.entries)-s.indexed >= indexBatch {
		s.indexPending()
	}
}

// indexPending adds the entries that the table lacks.
func (s *slab) indexPending() {
	for _, e := range s.entries[s.indexed:] {
		if 2*s.occupied >= len(s.table) {
			s.growTable()
		}
		s.insertEntry(e)
	}
	s.indexed = len(s.entries)
}

// insertEntry puts an entry into the table, in place of an earlier one of its token.
func (s *slab) insertEntry(e entry) {
	mask := uint32(len(s.table) - 1)
	i := e.hash & mask
	for steps := 0; s.table[i] != 0; steps++ {
		if old := s.table[i]; uint32(old>>32) == e.hash && *s.tokenAt(uint32(old)) == *s.tokenAt(e.pos) {
			s.occupied--
			break
		}
		s.crowded = s.crowded || steps >= maxProbe
		i = (i + 1) & mask
	}
	s.table[i] = uint64(e.hash)<<32 | uint64(e.pos)
	s.occupied++
}

// growTable doubles the table.
func (s *slab) growTable() {
	old := s.table
	s.table = make([]uint64, 2*len(old))
	mask := uint32(len(s.table) - 1)
	for _, e := range old {
		if e == 0 {
			continue
		}
		i := uint32(e>>32) & mask
		for s.table[i] != 0 {
			i = (i + 1) & mask
		}
		s.table[i] = e
	}
}

func (s *slab) tokenAt(pos uint32) *token.Raw { return (*token.Raw)(s.data[pos:]) }

// findInSlab returns the token's click, whose bytes are the slab's own memory. On a
// slab whose index is up to date it only reads.
func (s *slab) findInSlab(hash uint32, t *token.Raw) (c foundClick, ok bool) {
	if s.indexed < len(s.entries) {
		s.indexPending()
	}
	mask := uint32(len(s.table) - 1)
	for i := hash & mask; s.table[i] != 0; i = (i + 1) & mask {
		if e := s.table[i]; uint32(e>>32) == hash && *s.tokenAt(uint32(e)) == *t {
			r := parseRecord(s.data[uint32(e):])
			c = foundClick{at: r.at, own: r.own}
			if r.entryPos != noEntry {
				c.shared = s.sharedAt(r.entryPos)
			}
			return c, true
		}
	}
	return foundClick{}, false
}

// nextStart returns the start of the next slab: the median mint time, or this slab's
// own start if its clicks are too few for a median.
func (s *slab) nextStart() uint32 {
	n := s.mintSample.kept
	if n < 64 {
		return s.startMint
	}
	values := s.mintSample.values[:n]
	slices.Sort(values)
	return values[n/2]
}

// sharedEntryBytes is what an entry of the map entryAt takes at most: a place has eight
// bytes and one of control, and of the places at least seven of 16 are used.
const sharedEntryBytes = 21

// memoryBytes is what the slab occupies.
func (s *slab) memoryBytes() int64 {
	return int64(cap(s.data) + cap(s.dictionary) + 8*len(s.table) + 16*cap(s.entries) + sharedEntryBytes*s.mostShared)
}

// sample keeps between 128 and 256 evenly spaced values of a series of unknown length.
type sample struct {
	values   [256]uint32
	kept     int    // of values
	seen     uint32 // length of the series so far
	skipMask uint32 // a value is kept if its number has none of these bits; a power of two less one
}

func (p *sample) clear() {
	p.kept = 0
	p.seen = 0
	p.skipMask = 0
}

// add takes the next value of the series. When the sample is full it drops every second
// value and doubles the spacing.
func (p *sample) add(v uint32) {
	if p.seen&p.skipMask == 0 {
		if p.kept == len(p.values) {
			p.kept /= 2
			for i := range p.kept {
				p.values[i] = p.values[2*i]
			}
			p.skipMask = p.skipMask<<1 | 1
		}
		if p.seen&p.skipMask == 0 {
			p.values[p.kept] = v
			p.kept++
		}
	}
	p.seen++
}

// hashToken mixes all 20 bytes with the seed of the log, so that a client cannot mint
// tokens that collide in the table.
func (l *Log) hashToken(t *token.Raw) uint32 {
	hi, lo := bits.Mul64(le.Uint64(t[4:])^l.hashSeed[0], le.Uint64(t[12:])^l.hashSeed[1]^uint64(le.Uint32(t[:]))<<32)
	return uint32((hi^lo)>>32) & l.hashMask
}

// hashShared is the hash under which a shared part is looked up.
func (l *Log) hashShared(shared []byte) uint32 {
	return uint32(maphash.Bytes(l.sharedSeed, shared)) & l.hashMask
}
