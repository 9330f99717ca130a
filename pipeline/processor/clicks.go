package processor

import (
	"errors"

	"github.com/nimriz/partners/pipeline/clicklog"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// clickStore is a partition's click log, by token.
type clickStore struct {
	log   *clicklog.Log
	codec *event.Codec
	wire  []byte // scratch of lookup
}

// lookupClick returns a click's wire bytes, valid until the next call, and when it
// reached Kafka. It is an attribution.ClickLookup.
func (c *clickStore) lookupClick(t *[20]byte) (wire []byte, at event.Millis, ok bool, err error) {
	wire, ms, err := c.log.Get(t, c.wire[:0])
	c.wire = wire
	if errors.Is(err, clicklog.ErrNotFound) {
		return nil, 0, false, nil
	}
	return wire, event.Millis(ms), err == nil, err
}

// keepClick stores a click. It returns the key's token and whether the click was shown
// and can be used: no event can carry a token that was not shown.
func (c *clickStore) keepClick(r *kgo.Record) (t [20]byte, shown bool, err error) {
	if r.Attrs.IsControl() { // another program writes clicks in transactions
		c.log.Skip(r.Offset)
		return t, false, nil
	}
	tokenHeader, _ := kafka.Header(r, topic.HeaderToken)
	if tokenHeader != "1" || len(r.Value) < event.FramingLen || r.Value[0] != 0 {
		c.log.Skip(r.Offset)
		return t, false, nil
	}
	t, err = token.Parse(string(r.Key))
	if err != nil {
		c.log.Skip(r.Offset) // the sink, which decodes every click, dead-letters it
		return t, false, nil
	}
	if _, replay := kafka.Header(r, topic.HeaderReplay); replay && (c.log.Next() < 0 || r.Offset >= c.log.Next()) {
		_, _, found, err := c.lookupClick(&t)
		if err != nil {
			return t, false, err
		}
		if found { // sent twice: the first in the log counts
			c.log.Skip(r.Offset)
			return t, true, nil
		}
	}
	err = c.log.Put(&t, r.Timestamp.UnixMilli(), r.Value, c.codec.LinkPart(r.Value), r.Offset)
	if errors.Is(err, clicklog.ErrTooLarge) {
		c.log.Skip(r.Offset)
		return t, false, nil
	}
	return t, true, err
}
