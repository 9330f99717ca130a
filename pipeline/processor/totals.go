package processor

import (
	"encoding/binary"
	"fmt"

	"github.com/nimriz/partners/schemas/event"
)

// totals counts one partition's events since its first, by what became of them. They
// are a row of the state, written in every transaction that changes them, and so exact
// across any crash; Progress carries them to where they are compared with the tables.
//
//	+---------+------------------------------------------------------------------+
//	| 1 B = 2 | uvarint each: read, attributed, reversed, duplicate, conflict,   |
//	| version | unattributed, unreadable, end of outcomes                        |
//	+---------+------------------------------------------------------------------+
//
// Version 1 has the same form. It was written under the first rules; a processor of that
// time refuses a partition whose totals have another version, so it cannot go on behind
// the first transaction of today's rules.
type totals struct {
	read, attributed, reversed, duplicate, conflict, unattributed, unreadable int64
	// outcomesEnd is the offset behind the last row in outcomes. No listing can tell
	// it: markers of transactions are in the log too.
	outcomesEnd int64
}

// totalsVersion rises with each rules version and each version of the journey rows.
const totalsVersion = 2

// totalsKey is the row's key: a table of one row.
var totalsKey = []byte{'T'}

func (t *totals) counterFields() []*int64 {
	return []*int64{&t.read, &t.attributed, &t.reversed, &t.duplicate, &t.conflict, &t.unattributed, &t.unreadable,
		&t.outcomesEnd}
}

func (t *totals) countVerdict(v event.Verdict) {
	switch v {
	case event.Attributed:
		t.attributed++
	case event.Reversed:
		t.reversed++
	case event.Duplicate:
		t.duplicate++
	case event.Conflict:
		t.conflict++
	default:
		t.unattributed++
	}
}

func (t *totals) appendRow(b []byte) []byte {
	b = append(b, totalsVersion)
	for _, f := range t.counterFields() {
		b = binary.AppendUvarint(b, uint64(*f))
	}
	return b
}

// parseRow reads a row. outdated says that it has an earlier version.
func (t *totals) parseRow(b []byte) (outdated bool, err error) {
	if len(b) == 0 || b[0] == 0 {
		return false, fmt.Errorf("malformed totals row: %x", b)
	}
	if b[0] > totalsVersion {
		return false, fmt.Errorf("totals row of version %d: %w", b[0], event.ErrNewer)
	}
	outdated = b[0] < totalsVersion
	b = b[1:]
	for _, f := range t.counterFields() {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return false, fmt.Errorf("totals row cut short")
		}
		*f, b = int64(v), b[n:]
	}
	return outdated, nil
}
