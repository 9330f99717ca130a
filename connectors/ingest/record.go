package ingest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// judged is an event that passed every check.
type judged struct {
	event.Conversion
	minted time.Time // of its token
}

// acks collects the acknowledgements of one request's records.
type acks struct {
	mu   sync.Mutex
	left int
	ok   []bool
	err  error         // the first failure
	over bool          // nobody waits any more: what comes now is late
	done chan struct{} // closed when left is 0
}

// settle notes the outcome of record i and says whether its request was answered
// before.
func (a *acks) settle(i int, err error) (late bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return true
	}
	a.ok[i] = err == nil
	if err != nil && a.err == nil {
		a.err = err
	}
	if a.left--; a.left == 0 {
		close(a.done)
	}
	return false
}

// wait returns once all records are settled or the limit has passed. The slice is the
// caller's.
func (a *acks) wait(limit time.Duration) ([]bool, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-a.done:
	case <-timer.C:
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	if a.err == nil && a.left > 0 {
		a.err = context.DeadlineExceeded
	}
	return a.ok, a.err
}

// What a Watch is told of. Nobody knows when a sender tries again.
const (
	recordingEvents   = "recording events, which are answered 503"
	recordingRefusals = "recording refusals"
)

// record hands the events to Kafka, all at once and in order, and waits until each is
// acknowledged or AckTimeout has passed. ok[i] says that Kafka has event i on all
// in-sync replicas; not ok means not known. Neither a sender who hangs up nor a late
// acknowledgement takes anything back.
func (h *Handler) record(workspace, keyID string, list []judged) (receivedAt event.Millis, ok []bool) {
	start := h.now()
	receivedAt = event.MillisOf(start)
	a := &acks{left: len(list), ok: make([]bool, len(list)), done: make(chan struct{})}
	for i := range list {
		c := &list[i]
		c.WorkspaceID, c.KeyID, c.ReceivedAt = workspace, keyID, receivedAt
		c.ContentSHA256 = c.ContentHash()
		value, err := h.codec.AppendConversion(nil, &c.Conversion)
		if err != nil {
			a.settle(i, err)
			continue
		}
		h.producer.TryProduce(context.Background(), &kgo.Record{
			Topic: h.conversions, Partition: h.epochs.Partition(c.ClickToken, c.minted),
			Key: []byte(c.ClickToken), Value: value, Timestamp: receivedAt.Time(),
		}, func(_ *kgo.Record, err error) {
			if late := a.settle(i, err); late && err == nil {
				h.metrics.lateAcks.Inc()
			}
		})
	}
	ok, err := a.wait(h.cfg.AckTimeout)
	if err == nil {
		h.metrics.ackSeconds.Observe(h.now().Sub(start).Seconds())
		h.watch.Clear(recordingEvents)
	} else {
		h.watch.Failed(recordingEvents, 0, err)
	}
	for i := range ok {
		if ok[i] {
			h.metrics.events[list[i].Type].Inc()
		} else {
			h.metrics.unacknowledged.Inc()
		}
	}
	return receivedAt, ok
}

// judge applies all checks to a draft.
func (h *Handler) judge(workspace string, d *draft, now time.Time) (judged, *refusal) {
	c, ref := d.conversion(now)
	if ref != nil {
		return judged{}, ref
	}
	raw, err := h.tokens.Verify(workspace, c.ClickToken)
	switch {
	case errors.Is(err, token.ErrMalformed):
		return judged{}, refuse(codeTokenMalformed, fieldClickToken.String(), "not 27 base62 characters")
	case err != nil:
		return judged{}, refuse(codeTokenInvalid, fieldClickToken.String(), "not minted for this workspace")
	}
	return judged{c, token.Time(&raw)}, nil
}
