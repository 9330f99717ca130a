package processor

import (
	"encoding/binary"
	"fmt"

	"github.com/nimriz/partners/pipeline/state"
)

// outOfOrderTable holds the clicks whose token time fits no segment of the click log: key 'C'
// and the raw token, value the Kafka timestamp (8 B, big-endian, ms) and the wire
// bytes.
const outOfOrderTable = 'C'

// outOfOrderClicks implements clicklog.OutOfOrderStore on the partition's Pebble.
type outOfOrderClicks struct{ store *state.Store }

func outOfOrderKey(t *[20]byte) []byte { return append([]byte{outOfOrderTable}, t[:]...) }

// PutClick implements clicklog.OutOfOrderStore.
func (l outOfOrderClicks) PutClick(t *[20]byte, at int64, value []byte) error {
	row := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(value)), uint64(at))
	return l.store.Set(outOfOrderKey(t), append(row, value...))
}

// GetClick implements clicklog.OutOfOrderStore.
func (l outOfOrderClicks) GetClick(t *[20]byte, buf []byte) (value []byte, at int64, ok bool, err error) {
	n := len(buf)
	b, ok, err := l.store.Get(outOfOrderKey(t), buf)
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
func (l outOfOrderClicks) Flush() error { return l.store.Flush() }
