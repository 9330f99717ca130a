package clickhouse

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
)

// lowCardinality is the type of the columns that Texts are for.
const lowCardinality = "LowCardinality(String)"

// Texts is a column with many equal texts. It keeps each text once, and a number for
// every row. ClickHouse stores and sends a LowCardinality(String) in the same way, so
// the texts are neither copied nor compared again on the way there.
//
// One block in the Native format (ClickHouse, SerializationLowCardinality.cpp), little
// endian:
//
//	version 8 B = 1
//	flags   8 B: width of the numbers, own texts, no shared ones
//	n       8 B: number of texts     n × (length uvarint, bytes)
//	m       8 B: number of rows      m × number of 1, 2 or 4 B
//
// Texts is not safe for concurrent use.
type Texts struct {
	numbers    map[string]uint32 // by text
	texts      []byte            // encoded, in the order of their numbers
	rows       []uint32          // the number of each row
	last       string            // text that was added last
	lastNumber uint32            // its number
}

// NewTexts makes an empty column.
func NewTexts() *Texts { return &Texts{numbers: make(map[string]uint32)} }

// Add appends a row.
func (t *Texts) Add(s string) {
	if len(t.rows) == 0 || s != t.last {
		n, ok := t.numbers[s]
		if !ok {
			s = strings.Clone(s) // s may be a part of a larger string: do not keep that alive
			n = uint32(len(t.numbers))
			t.numbers[s] = n
			t.texts = append(binary.AppendUvarint(t.texts, uint64(len(s))), s...)
		}
		t.last = s
		t.lastNumber = n
	}
	t.rows = append(t.rows, t.lastNumber)
}

// AddBytes appends a row.
func (t *Texts) AddBytes(text []byte) {
	if len(t.rows) > 0 && string(text) == t.last {
		t.rows = append(t.rows, t.lastNumber)
	} else if n, ok := t.numbers[string(text)]; ok {
		t.rows = append(t.rows, n)
	} else {
		t.Add(string(text))
	}
}

// Len returns the number of rows.
func (t *Texts) Len() int { return len(t.rows) }

// Reset forgets all rows and keeps the memory.
func (t *Texts) Reset() {
	clear(t.numbers)
	t.texts = t.texts[:0]
	t.rows = t.rows[:0]
	t.last = ""
}

// Version and flags of the encoding, with ClickHouse's names for them.
const (
	sharedDictionaries = 1       // SharedDictionariesWithAdditionalKeys, the only version
	ownTexts           = 1 << 9  // HasAdditionalKeysBit: the block brings its texts
	newTexts           = 1 << 10 // NeedUpdateDictionary
)

// Type implements Column.
func (t *Texts) Type() string { return lowCardinality }

func (t *Texts) encode(e *blockEncoder) {
	rows := len(t.rows)
	if e.isPicked {
		rows = len(e.picks)
	}
	if rows == 0 {
		return
	}
	width := t.width()
	e.scratch = t.appendHead(e.scratch, width, rows)
	out := e.extend(rows << width)
	if !e.isPicked {
		putNumbers(out, width, t.rows)
		return
	}
	le := binary.LittleEndian
	switch width {
	case 0:
		for i, row := range e.picks {
			out[i] = byte(t.rows[row])
		}
	case 1:
		for i, row := range e.picks {
			le.PutUint16(out[2*i:], uint16(t.rows[row]))
		}
	default:
		for i, row := range e.picks {
			le.PutUint32(out[4*i:], t.rows[row])
		}
	}
}

// width returns the width of the numbers: 1 << width bytes.
func (t *Texts) width() int {
	switch n := len(t.numbers); {
	case n > 1<<16:
		return 2
	case n > 1<<8:
		return 1
	}
	return 0
}

// appendNative appends the column in the Native format.
func (t *Texts) appendNative(b []byte) []byte {
	width := t.width()
	b = t.appendHead(b, width, len(t.rows))
	from := len(b)
	b = slices.Grow(b, len(t.rows)<<width)[:from+len(t.rows)<<width]
	putNumbers(b[from:], width, t.rows)
	return b
}

// appendHead appends what stands before the numbers of the rows.
func (t *Texts) appendHead(b []byte, width, rows int) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, sharedDictionaries)
	b = le.AppendUint64(b, ownTexts|newTexts|uint64(width))
	b = append(le.AppendUint64(b, uint64(len(t.numbers))), t.texts...)
	return le.AppendUint64(b, uint64(rows))
}

// putNumbers encodes the numbers of the rows.
func putNumbers(out []byte, width int, rows []uint32) {
	le := binary.LittleEndian
	switch width {
	case 0:
		for i, n := range rows {
			out[i] = byte(n)
		}
	case 1:
		for i, n := range rows {
			le.PutUint16(out[2*i:], uint16(n))
		}
	default:
		for i, n := range rows {
			le.PutUint32(out[4*i:], n)
		}
	}
}

// loadInto fills c with the rows. clickhouse-go would take values for such a column one
// by one and find equal ones by reflection, at several times the cost of the rest of an
// insert; but it reads an encoded column as it is. buf is scratch memory.
func (t *Texts) loadInto(c column.Interface, buf []byte) ([]byte, error) {
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
	buf = t.appendNative(buf[:0])
	r := chproto.NewReader(bytes.NewReader(buf))
	if err := low.ReadStatePrefix(r); err != nil {
		return buf, err
	}
	return buf, low.Decode(r, len(t.rows))
}
