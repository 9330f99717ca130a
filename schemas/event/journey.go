package event

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A journey is the frozen click and the events of one token. It is kept as rows, in the
// compacted topic `attribution-changelog` and in the processor's store. All rows of a
// token have the prefix 'J' token. One index over all tokens of a partition has the
// prefix 'D'.
//
//	row         key                                                   value
//	head        'J' | token 20 B | 'h'                                JourneyHead
//	event       'J' | token 20 B | 'e' | event id                     JourneyEvent
//	order       'J' | token 20 B | 'o' | 's' or 'l' | order id        JourneyOrder
//	wait        'J' | token 20 B | 'c' or 'w' | end | offset          JourneyWait
//	wait index  'J' | token 20 B | 'p', 's' or 'a' | n | id | offset  end of the wait
//	deadline    'D' | end | token 20 B | offset                       'c' or 'w'
//
// One row belongs to no journey and is in the changelog alone: what a hanging
// transaction wrote from an offset on was aborted afterwards.
//
//	void        'V' | offset                                          nothing more
//
// An order row is for its sales ('s') or its leads ('l'), and exists from the journey's
// second sale or lead on, or while a sale of the order waits. An event waits for its
// click ('c') or for its parent ('w'); a wait for a parent has an index row by what
// would end it ('p', 's' or 'a', see below), and every wait has a deadline row.
//
// In keys, end (unix ms) and offset have 8 bytes, big-endian; n is the length of id in
// one byte. Every value but the deadline's begins with the version of its form, 2;
// version 1 is read, too, and what it cannot tell is said where its reader is. Integers
// of values are varints (encoding/binary; signed ones zigzag); a text is its length and
// its bytes.
const (
	prefixJourney  = 'J'
	prefixDeadline = 'D'
	prefixVoid     = 'V'
	journeyVersion = 2
	journeyKeyLen  = 1 + 20 + 1
)

// Kinds of journey rows: the byte after the token.
const (
	KindHead        byte = 'h'
	KindEvent       byte = 'e'
	KindOrder       byte = 'o'
	KindWaitClick   byte = 'c' // an event that waits for its click
	KindWaitParent  byte = 'w' // an event that waits for its parent
	KindForEvent    byte = 'p' // wait index: for the event with this id
	KindForSale     byte = 's' // wait index: for a sale of this order; empty id: for any sale
	KindForPositive byte = 'a' // wait index: for a sale or lead of this order; empty id: for any
)

// ErrJourney is wrapped by every error about a journey row that cannot be read: the
// store is damaged.
var ErrJourney = errors.New("malformed journey row")

// ErrNewer is wrapped by errors about stored bytes of a form that this program does not
// know: a newer one wrote them. Nothing is damaged, and nothing else helps.
var ErrNewer = errors.New("a newer version of the program wrote it: upgrade the processor")

// JourneysPrefix returns the prefix of the rows of all journeys.
func JourneysPrefix() []byte { return []byte{prefixJourney} }

// JourneyPrefix returns the prefix of all rows of a token's journey.
func JourneyPrefix(token *[20]byte) []byte {
	return append(append(make([]byte, 0, 21), prefixJourney), token[:]...)
}

// AppendJourneyKey appends the key of a row of one kind: of the head with an empty id,
// of an event with its id. With an empty id it is also the prefix of all rows of a
// kind.
func AppendJourneyKey(dst []byte, token *[20]byte, kind byte, id string) []byte {
	dst = append(append(append(dst, prefixJourney), token[:]...), kind)
	return append(dst, id...)
}

// HeadKey returns the key of a journey's head.
func HeadKey(token *[20]byte) []byte { return AppendJourneyKey(nil, token, KindHead, "") }

// AppendOrderKey appends the key of an order row. An order has one for its sales and
// one for its leads.
func AppendOrderKey(dst []byte, token *[20]byte, of Type, order string) []byte {
	return append(append(AppendJourneyKey(dst, token, KindOrder, ""), orderKind(of)), order...)
}

func orderKind(of Type) byte {
	if of == Lead {
		return 'l'
	}
	return 's'
}

// AppendWaitKey appends the key of a waiting event (KindWaitClick or KindWaitParent).
// Waits sort by their end, then by offset.
func AppendWaitKey(dst []byte, token *[20]byte, kind byte, end Millis, offset int64) []byte {
	dst = AppendJourneyKey(dst, token, kind, "")
	dst = binary.BigEndian.AppendUint64(dst, uint64(end))
	return binary.BigEndian.AppendUint64(dst, uint64(offset))
}

// ParseWaitKey reads the end and offset in a key made by AppendWaitKey.
func ParseWaitKey(key []byte) (end Millis, offset int64, err error) {
	if len(key) != journeyKeyLen+16 || key[0] != prefixJourney {
		return 0, 0, fmt.Errorf("%w: wait key of %d bytes", ErrJourney, len(key))
	}
	end = Millis(binary.BigEndian.Uint64(key[journeyKeyLen:]))
	offset = int64(binary.BigEndian.Uint64(key[journeyKeyLen+8:]))
	return end, offset, nil
}

// AppendIndexPrefix appends the prefix of the wait index rows (KindForEvent,
// KindForSale, KindForPositive) of one id. Only the first 255 bytes of the id count.
func AppendIndexPrefix(dst []byte, token *[20]byte, kind byte, id string) []byte {
	id = id[:min(len(id), 255)]
	dst = AppendJourneyKey(dst, token, kind, "")
	return append(append(dst, byte(len(id))), id...)
}

// AppendIndexKey appends the key of a wait index row.
func AppendIndexKey(dst []byte, token *[20]byte, kind byte, id string, offset int64) []byte {
	return binary.BigEndian.AppendUint64(AppendIndexPrefix(dst, token, kind, id), uint64(offset))
}

// ParseIndex reads the offset in the key and the end in the value of a wait index row.
func ParseIndex(key, value []byte) (end Millis, offset int64, err error) {
	if len(key) < journeyKeyLen+1+8 || len(key) != journeyKeyLen+1+int(key[journeyKeyLen])+8 {
		return 0, 0, fmt.Errorf("%w: wait index key of %d bytes", ErrJourney, len(key))
	}
	r := journeyReader{b: value}
	r.readVersion()
	end = Millis(r.readVarint())
	return end, int64(binary.BigEndian.Uint64(key[len(key)-8:])), r.finish("wait index")
}

// AppendIndex appends the value of a wait index row.
func AppendIndex(dst []byte, end Millis) []byte {
	return binary.AppendVarint(append(dst, journeyVersion), int64(end))
}

// ParseJourneyKey reads token and kind of a journey row's key; ok is false for other
// rows.
func ParseJourneyKey(key []byte) (token [20]byte, kind byte, ok bool) {
	if len(key) < journeyKeyLen || key[0] != prefixJourney {
		return token, 0, false
	}
	copy(token[:], key[1:21])
	return token, key[21], true
}

// DeadlinePrefix returns the prefix of the deadline index.
func DeadlinePrefix() []byte { return []byte{prefixDeadline} }

// AppendDeadlineKey appends the key of a deadline row. end is the last moment of the
// wait. The row's value is one byte: the kind of wait.
func AppendDeadlineKey(dst []byte, end Millis, token *[20]byte, offset int64) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, prefixDeadline), uint64(end))
	return binary.BigEndian.AppendUint64(append(dst, token[:]...), uint64(offset))
}

// DeadlineKey returns the key of a deadline row; see AppendDeadlineKey.
func DeadlineKey(end Millis, token *[20]byte, offset int64) []byte {
	return AppendDeadlineKey(make([]byte, 0, 37), end, token, offset)
}

// ParseDeadline reads a key made by DeadlineKey; ok is false for other rows.
func ParseDeadline(key []byte) (end Millis, token [20]byte, offset int64, ok bool) {
	if len(key) != 37 || key[0] != prefixDeadline {
		return 0, token, 0, false
	}
	end = Millis(binary.BigEndian.Uint64(key[1:]))
	copy(token[:], key[9:29])
	offset = int64(binary.BigEndian.Uint64(key[29:]))
	return end, token, offset, true
}

// VoidRow says to a state that has applied the changelog beyond the offset that a transaction
// which was open from there was aborted: its state has what never was. The offset is in
// the key, so that compaction keeps the row of each event: a state that is older than
// one of them must meet it, however many come after.
func VoidRow(offset int64) (key, value []byte) {
	return binary.BigEndian.AppendUint64([]byte{prefixVoid}, uint64(offset)), []byte{journeyVersion}
}

// ParseVoid reads the offset in a key made by VoidRow; ok is false for other rows.
func ParseVoid(key []byte) (offset int64, ok bool) {
	if len(key) != 9 || key[0] != prefixVoid {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(key[1:])), true
}
