package clickhouse

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
)

// lowCardinality is the type of the columns that Texts are for.
const lowCardinality = "LowCardinality(String)"

// Texts is a column of texts of which many are the same: each is kept once, and a
// number for every row. That is also how ClickHouse keeps and sends a
// LowCardinality(String), so on the way there nobody has to copy a text again, or find
// out again which are the same.
//
// As Native has it (ClickHouse, SerializationLowCardinality.cpp), little-endian, for
// one block:
//
//	version 8 B = 1 | flags 8 B: width of the numbers, own texts, no shared ones | texts n 8 B | n × (length uvarint, bytes) | rows m 8 B | m × number 1, 2 or 4 B
//
// Not safe for concurrent use.
type Texts struct {
	numbers map[string]uint32
	texts   []byte // as they are sent
	rows    []uint32
	last    string
	lastNo  uint32
}

// NewTexts makes an empty column.
func NewTexts() *Texts { return &Texts{numbers: make(map[string]uint32)} }

// Add appends a row.
func (t *Texts) Add(s string) {
	if len(t.rows) == 0 || s != t.last {
		n, ok := t.numbers[s]
		if !ok {
			s = strings.Clone(s) // what it was cut from need not live as long
			n = uint32(len(t.numbers))
			t.numbers[s] = n
			t.texts = append(binary.AppendUvarint(t.texts, uint64(len(s))), s...)
		}
		t.last, t.lastNo = s, n
	}
	t.rows = append(t.rows, t.lastNo)
}

// Len is the number of rows.
func (t *Texts) Len() int { return len(t.rows) }

// Reset forgets all rows and keeps the memory.
func (t *Texts) Reset() {
	clear(t.numbers)
	t.texts, t.rows, t.last = t.texts[:0], t.rows[:0], ""
}

const (
	sharedDictionaries = 1      // the only version of the prefix
	ownTexts           = 1 << 9 // the block brings its texts
	newTexts           = 1 << 10
)

func (t *Texts) append(b []byte) []byte {
	width := 0 // 1 << width bytes
	switch n := len(t.numbers); {
	case n > 1<<16:
		width = 2
	case n > 1<<8:
		width = 1
	}
	le := binary.LittleEndian
	b = le.AppendUint64(b, sharedDictionaries)
	b = le.AppendUint64(b, ownTexts|newTexts|uint64(width))
	b = append(le.AppendUint64(b, uint64(len(t.numbers))), t.texts...)
	b = le.AppendUint64(b, uint64(len(t.rows)))
	for _, n := range t.rows {
		switch width {
		case 0:
			b = append(b, byte(n))
		case 1:
			b = le.AppendUint16(b, uint16(n))
		default:
			b = le.AppendUint32(b, n)
		}
	}
	return b
}

// into makes c hold the rows. clickhouse-go takes values for such a column one by one
// and finds out by reflection which are the same, several times the cost of all else of
// an insert; but it reads one from the wire as it is. buf is scratch.
func (t *Texts) into(c column.Interface, buf []byte) ([]byte, error) {
	low, ok := c.(*column.LowCardinality)
	if !ok || c.Type() != lowCardinality {
		return buf, fmt.Errorf("texts are for %s, the column is %s", lowCardinality, c.Type())
	}
	if low.Rows() > 0 {
		return buf, fmt.Errorf("texts after %d rows", low.Rows())
	}
	if len(t.rows) == 0 {
		return buf, nil
	}
	buf = t.append(buf[:0])
	r := chproto.NewReader(bytes.NewReader(buf))
	if err := low.ReadStatePrefix(r); err != nil {
		return buf, err
	}
	return buf, low.Decode(r, len(t.rows))
}
