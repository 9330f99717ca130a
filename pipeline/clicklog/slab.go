package clicklog

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

const (
	recordHead  = 32 // token 20 | at 8 | length 4
	firstRecord = 8  // no record is at position 0, so a zero table entry is a free one
	minTable    = 1 << 10
	indexBatch  = 64
	maxRun      = 512 // at half load a run of 100 is already a rarity
)

// entry is a record's place in the slab under the first eight bytes of its token.
type entry struct {
	key  uint64
	pos  uint32
	hash uint32
}

// slab gathers clicks in memory: records one after another, in the order of their puts,
// and an index of open addressing over them. A token put twice has two records; the
// index knows the later one.
type slab struct {
	data    []byte
	limit   int     // bytes of records at which it is full
	entries []entry // one per record, in the same order

	table   []uint64 // hash << 32 | position; at most half of it is used
	indexed int      // entries that are in the table: the others wait, so that their cache misses overlap
	live    int      // places used in the table
	crowded bool     // a run of maxRun was met: full, whatever its size

	min, max uint32
	start    uint32 // token time from which lateness is counted
	times    sample
	aside    bool // a click went to the Side on this slab's account
}

func newSlab(limit int64) *slab {
	s := &slab{}
	s.reset(limit, 0)
	return s
}

// reset empties the slab and gives it a new limit and start. The table keeps the size
// it has grown to, unless the limit changes; the memory is replaced too after a click
// larger than a slab.
func (s *slab) reset(limit int64, start uint32) {
	s.limit = int(limit)
	if cap(s.data) != firstRecord+s.limit {
		s.data = make([]byte, firstRecord, firstRecord+s.limit)
		s.table, s.entries = make([]uint64, minTable), nil
	}
	clear(s.table)
	s.data, s.entries = s.data[:firstRecord], s.entries[:0]
	s.indexed, s.live, s.crowded, s.aside = 0, 0, false, false
	s.min, s.max, s.start = math.MaxUint32, 0, start
	s.times.n, s.times.seen, s.times.skip = 0, 0, 0
}

// full says that a value of n bytes no longer fits. One that fits no slab gets a slab
// of its own, which grows.
func (s *slab) full(n int) bool {
	return s.crowded || len(s.entries) > 0 && len(s.data)-firstRecord+recordHead+n > s.limit
}

func (s *slab) put(hash uint32, t *Token, at int64, value []byte) {
	pos := len(s.data)
	d := append(s.data, t[:]...)
	d = le.AppendUint64(d, uint64(at))
	d = le.AppendUint32(d, uint32(len(value)))
	s.data = append(d, value...)
	s.entries = append(s.entries, entry{key: binary.BigEndian.Uint64(t[:]), pos: uint32(pos), hash: hash})
	tt := tokenTime(t)
	s.min, s.max = min(s.min, tt), max(s.max, tt)
	s.times.add(tt)
	if len(s.entries)-s.indexed >= indexBatch {
		s.index()
	}
}

// index brings the table up to date.
func (s *slab) index() {
	for _, e := range s.entries[s.indexed:] {
		if 2*s.live >= len(s.table) {
			s.grow()
		}
		s.insert(e)
	}
	s.indexed = len(s.entries)
}

func (s *slab) insert(e entry) {
	mask := uint32(len(s.table) - 1)
	i := e.hash & mask
	for run := 0; s.table[i] != 0; run++ {
		if old := s.table[i]; uint32(old>>32) == e.hash && *s.token(uint32(old)) == *s.token(e.pos) {
			s.live--
			break
		}
		s.crowded = s.crowded || run >= maxRun
		i = (i + 1) & mask
	}
	s.table[i] = uint64(e.hash)<<32 | uint64(e.pos)
	s.live++
}

func (s *slab) grow() {
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

func (s *slab) token(pos uint32) *Token { return (*Token)(s.data[pos:]) }

// get returns the token's click; the value is the slab's own memory. On a slab whose
// index is up to date it only reads.
func (s *slab) get(hash uint32, t *Token) (value []byte, at int64, ok bool) {
	if s.indexed < len(s.entries) {
		s.index()
	}
	mask := uint32(len(s.table) - 1)
	for i := hash & mask; s.table[i] != 0; i = (i + 1) & mask {
		if e := s.table[i]; uint32(e>>32) == hash && *s.token(uint32(e)) == *t {
			r := s.data[uint32(e):]
			n := recordHead + int(le.Uint32(r[28:]))
			return r[recordHead:n:n], int64(le.Uint64(r[20:])), true
		}
	}
	return nil, 0, false
}

// pivot is the token time the next slab starts from: the median, or this slab's own
// start if its clicks are too few to tell.
func (s *slab) pivot() uint32 {
	if s.times.n < 64 {
		return s.start
	}
	ts := s.times.times
	slices.Sort(ts[:s.times.n])
	return ts[s.times.n/2]
}

// memory is what the slab occupies, in bytes.
func (s *slab) memory() int64 { return int64(cap(s.data) + 8*len(s.table) + 16*cap(s.entries)) }

// sample keeps between 128 and 256 evenly spaced values of a series of unknown length.
type sample struct {
	times [256]uint32
	n     int
	seen  uint32
	skip  uint32 // every (skip+1)-th value is kept; a power of two less one
}

func (p *sample) add(v uint32) {
	if p.seen&p.skip == 0 {
		if p.n == len(p.times) {
			p.n /= 2
			for i := range p.n {
				p.times[i] = p.times[2*i]
			}
			p.skip = p.skip<<1 | 1
		}
		if p.seen&p.skip == 0 {
			p.times[p.n] = v
			p.n++
		}
	}
	p.seen++
}

// hash mixes all 20 bytes with a seed of the process, so that nobody outside can aim at
// one place of the table.
func (l *Log) hash(t *Token) uint32 {
	hi, lo := bits.Mul64(le.Uint64(t[4:])^l.seed[0], le.Uint64(t[12:])^l.seed[1]^uint64(le.Uint32(t[:]))<<32)
	return uint32((hi^lo)>>32) & l.hashMask
}
