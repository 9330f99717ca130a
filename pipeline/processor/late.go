package processor

import (
	"encoding/binary"
	"fmt"

	"github.com/nimriz/partners/pipeline/state"
)

// lateTable holds the clicks whose token time fits no segment of the click log: key 'C'
// and the raw token, value the Kafka timestamp (8 B, big-endian, ms) and the wire
// bytes.
const lateTable = 'C'

// lateClicks implements clicklog.OutOfOrderStore on the partition's Pebble.
type lateClicks struct{ store *state.Store }

func lateKey(t *[20]byte) []byte { return append([]byte{lateTable}, t[:]...) }

// PutClick implements clicklog.OutOfOrderStore.
func (l lateClicks) PutClick(t *[20]byte, at int64, value []byte) error {
	return l.store.Set(lateKey(t), append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(value)), uint64(at)),
		value...))
}

// GetClick implements clicklog.OutOfOrderStore.
func (l lateClicks) GetClick(t *[20]byte, buf []byte) (value []byte, at int64, ok bool, err error) {
	n := len(buf)
	b, ok, err := l.store.Get(lateKey(t), buf)
	if err != nil || !ok {
		return buf, 0, false, err
	}
	if len(b)-n < 8 {
		return buf, 0, false, fmt.Errorf("late click row of %d bytes", len(b)-n)
	}
	at = int64(binary.BigEndian.Uint64(b[n:]))
	return append(b[:n], b[n+8:]...), at, true, nil
}

// Flush implements clicklog.OutOfOrderStore.
func (l lateClicks) Flush() error { return l.store.Flush() }
