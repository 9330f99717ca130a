package clickhouse

import (
	"encoding/binary"
	"fmt"
)

// The columns of a Block, except Texts. Each holds its rows as ClickHouse's Native format
// has them (ClickHouse, src/DataTypes/Serializations), little endian. Reset forgets the
// rows and keeps the memory.

// Numbers are integers, times and booleans: their bytes, one number after another.
type Numbers struct {
	typeName string
	width    int // bytes of a number
	rows     []byte
}

// The types of Numbers.
const (
	Int8   = "Int8"
	Int64  = "Int64"
	Int32  = "Int32"
	UInt8  = "UInt8"
	UInt16 = "UInt16"
	UInt32 = "UInt32"
	UInt64 = "UInt64"
	Bool   = "Bool"
	Millis = "DateTime64(3, 'UTC')" // unix milliseconds
)

// NewNumbers makes an empty column of one of the types of Numbers.
func NewNumbers(typeName string) *Numbers {
	width := 8
	switch typeName {
	case Int8, UInt8, Bool:
		width = 1
	case UInt16:
		width = 2
	case Int32, UInt32:
		width = 4
	}
	return &Numbers{typeName: typeName, width: width}
}

// Add appends a number, of which as many bytes count as the type has.
func (n *Numbers) Add(v int64) {
	switch n.width {
	case 1:
		n.rows = append(n.rows, byte(v))
	case 2:
		n.rows = binary.LittleEndian.AppendUint16(n.rows, uint16(v))
	case 4:
		n.rows = binary.LittleEndian.AppendUint32(n.rows, uint32(v))
	default:
		n.rows = binary.LittleEndian.AppendUint64(n.rows, uint64(v))
	}
}

// Type implements Column.
func (n *Numbers) Type() string { return n.typeName }

// Len implements Column.
func (n *Numbers) Len() int { return len(n.rows) / n.width }

// Reset forgets the rows.
func (n *Numbers) Reset() { n.rows = n.rows[:0] }

func (n *Numbers) encode(e *blockEncoder) {
	if !e.isPicked {
		e.addPart(n.rows)
		return
	}
	out := e.extend(len(e.picks) * n.width)
	switch n.width {
	case 1:
		for i, row := range e.picks {
			out[i] = n.rows[row]
		}
	case 8:
		for i, row := range e.picks {
			copy(out[i*8:i*8+8], n.rows[int(row)*8:])
		}
	default:
		for i, row := range e.picks {
			copy(out[i*n.width:(i+1)*n.width], n.rows[int(row)*n.width:])
		}
	}
}

// MaybeNumbers are Numbers of which some are null: a byte for each row, 1 if it is null,
// then the numbers.
type MaybeNumbers struct {
	nulls   Numbers
	numbers Numbers
}

// NewMaybeNumbers makes an empty column of one of the types of Numbers.
func NewMaybeNumbers(typeName string) *MaybeNumbers {
	return &MaybeNumbers{nulls: *NewNumbers(UInt8), numbers: *NewNumbers(typeName)}
}

// Add appends a number.
func (m *MaybeNumbers) Add(v int64) {
	m.nulls.Add(0)
	m.numbers.Add(v)
}

// AddNull appends a null.
func (m *MaybeNumbers) AddNull() {
	m.nulls.Add(1)
	m.numbers.Add(0)
}

// Type implements Column.
func (m *MaybeNumbers) Type() string { return "Nullable(" + m.numbers.typeName + ")" }

// Len implements Column.
func (m *MaybeNumbers) Len() int { return m.nulls.Len() }

// Reset forgets the rows.
func (m *MaybeNumbers) Reset() {
	m.nulls.Reset()
	m.numbers.Reset()
}

func (m *MaybeNumbers) encode(e *blockEncoder) {
	m.nulls.encode(e)
	m.numbers.encode(e)
}

// Strings are texts that seldom recur: the length of each, uvarint, and its bytes.
type Strings struct {
	rows []byte
	n    int
}

// Add appends a text.
func (s *Strings) Add(text string) {
	s.rows = appendNativeText(s.rows, text)
	s.n++
}

// AddBytes appends a text.
func (s *Strings) AddBytes(text []byte) {
	if len(text) < 0x80 {
		s.rows = append(append(s.rows, byte(len(text))), text...)
	} else {
		s.rows = append(binary.AppendUvarint(s.rows, uint64(len(text))), text...)
	}
	s.n++
}

// Type implements Column.
func (s *Strings) Type() string { return "String" }

// Len implements Column.
func (s *Strings) Len() int { return s.n }

// Reset forgets the rows.
func (s *Strings) Reset() { s.rows, s.n = s.rows[:0], 0 }

func (s *Strings) encode(e *blockEncoder) { e.addPart(s.rows) }

// FixedStrings are texts of one length: their bytes.
type FixedStrings struct {
	size int
	rows []byte
}

// NewFixedStrings makes an empty column of texts of size bytes.
func NewFixedStrings(size int) *FixedStrings { return &FixedStrings{size: size} }

// AddBytes appends a text: what it has too few are zeros, what it has too many are cut off.
func (f *FixedStrings) AddBytes(text []byte) {
	text = text[:min(len(text), f.size)]
	f.rows = append(f.rows, text...)
	for range f.size - len(text) {
		f.rows = append(f.rows, 0)
	}
}

// Type implements Column.
func (f *FixedStrings) Type() string { return fmt.Sprintf("FixedString(%d)", f.size) }

// Len implements Column.
func (f *FixedStrings) Len() int { return len(f.rows) / f.size }

// Reset forgets the rows.
func (f *FixedStrings) Reset() { f.rows = f.rows[:0] }

func (f *FixedStrings) encode(e *blockEncoder) { e.addPart(f.rows) }

// Lists are arrays of texts: where the items of each row end, 8 B, then the items.
type Lists struct {
	ends  Numbers
	items Strings
}

// NewLists makes an empty column.
func NewLists() *Lists { return &Lists{ends: *NewNumbers(UInt64)} }

// AddItem appends an item to the row that EndRow ends.
func (l *Lists) AddItem(item []byte) { l.items.AddBytes(item) }

// EndRow ends a row.
func (l *Lists) EndRow() { l.ends.Add(int64(l.items.n)) }

// Type implements Column.
func (l *Lists) Type() string { return "Array(String)" }

// Len implements Column.
func (l *Lists) Len() int { return l.ends.Len() }

// Reset forgets the rows.
func (l *Lists) Reset() {
	l.ends.Reset()
	l.items.Reset()
}

func (l *Lists) encode(e *blockEncoder) {
	l.ends.encode(e)
	l.items.encode(e)
}

// Pairs are maps of texts: where the pairs of each row end, 8 B, then all keys, then all
// values.
type Pairs struct {
	ends         Numbers
	keys, values Strings
}

// NewPairs makes an empty column.
func NewPairs() *Pairs { return &Pairs{ends: *NewNumbers(UInt64)} }

// AddPair appends a pair to the row that EndRow ends.
func (p *Pairs) AddPair(key, value []byte) {
	p.keys.AddBytes(key)
	p.values.AddBytes(value)
}

// EndRow ends a row.
func (p *Pairs) EndRow() { p.ends.Add(int64(p.keys.n)) }

// Type implements Column.
func (p *Pairs) Type() string { return "Map(String, String)" }

// Len implements Column.
func (p *Pairs) Len() int { return p.ends.Len() }

// Reset forgets the rows.
func (p *Pairs) Reset() {
	p.ends.Reset()
	p.keys.Reset()
	p.values.Reset()
}

func (p *Pairs) encode(e *blockEncoder) {
	p.ends.encode(e)
	p.keys.encode(e)
	p.values.encode(e)
}
