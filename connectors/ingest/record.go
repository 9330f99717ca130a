package ingest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/event"
)

// validEvent is an event that passed every check.
type validEvent struct {
	event.Conversion
	minted    time.Time // of its token
	truncated []string  // names of the texts that were too long
}

// pendingAcks collects the acknowledgements of one request's records.
type pendingAcks struct {
	mu   sync.Mutex
	left int           // records without result
	ok   []bool        // by record
	err  error         // the first failure
	over bool          // the request is answered: later acknowledgements are late
	done chan struct{} // closed when left is 0
}

// recordAck stores the result of record i. late reports that its request was answered
// before.
func (a *pendingAcks) recordAck(i int, err error) (late bool) {
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

// waitFor returns when every record has a result, or after limit. The returned slice
// does not change any more.
func (a *pendingAcks) waitFor(limit time.Duration) ([]bool, error) {
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

// The reasons under which the Watch keeps failures. A sender may retry at any time.
const (
	recordingEvents   = "recording events, which are answered 503"
	recordingRefusals = "recording refusals"
)

// produceEvents hands the events to the producer, in order, and waits until each is
// acknowledged or AckTimeout has passed. ok[i] says that all in-sync replicas have
// event i; false means that this is not known. Neither a client that disconnects nor a
// late acknowledgement undoes anything.
func (h *Handler) produceEvents(workspace, keyID string, list []validEvent) (receivedAt event.Millis, ok []bool) {
	start := h.now()
	receivedAt = event.MillisOf(start)
	a := &pendingAcks{left: len(list), ok: make([]bool, len(list)), done: make(chan struct{})}
	placing, cancel := context.WithTimeout(context.Background(), h.cfg.AckTimeout)
	defer cancel()
	for i := range list {
		c := &list[i]
		c.WorkspaceID, c.KeyID = workspace, keyID
		c.ReceivedAt = receivedAt
		c.EnteredAt = receivedAt
		c.ResolvedBy = event.ResolvedByToken
		c.ContentSHA256 = c.ContentHash()
		value, err := h.codec.AppendConversion(nil, &c.Conversion)
		var partition int32
		if err == nil {
			partition, err = h.placer.Place(placing, c.ClickToken, c.minted)
		}
		if err != nil {
			a.recordAck(i, err)
			continue
		}
		h.producer.TryProduce(context.Background(), &kgo.Record{
			Topic:     h.conversions,
			Partition: partition,
			Key:       []byte(c.ClickToken),
			Value:     value,
			Timestamp: receivedAt.Time(),
		}, func(_ *kgo.Record, err error) {
			if late := a.recordAck(i, err); late && err == nil {
				h.metrics.lateAcks.Inc()
			}
		})
	}
	ok, err := a.waitFor(h.cfg.AckTimeout - h.now().Sub(start))
	if err == nil {
		h.metrics.ackSeconds.Observe(h.now().Sub(start).Seconds())
		h.watch.Clear(recordingEvents)
	} else {
		h.watch.Failed(recordingEvents, 0, kafka.NameRecreated(err))
	}
	acknowledged := 0
	for i := range ok {
		if ok[i] {
			acknowledged++
			h.metrics.events[list[i].Type].Inc()
		} else {
			h.metrics.unacknowledged.Inc()
		}
	}
	h.metrics.workspaceAccepted.WithLabelValues(workspace).Add(float64(acknowledged))
	return receivedAt, ok
}

// validateEvent makes all checks of a draft.
func (h *Handler) validateEvent(workspace string, d *draft, now time.Time) (validEvent, *refusal) {
	c, truncated, ref := d.toConversion(now)
	if ref != nil {
		return validEvent{}, ref
	}
	raw, err := h.tokens.Verify(workspace, c.ClickToken)
	switch {
	case errors.Is(err, token.ErrMalformed):
		return validEvent{}, newRefusal(codeTokenMalformed, fieldClickToken.String(), "not 27 base62 characters")
	case err != nil:
		return validEvent{}, newRefusal(codeTokenInvalid, fieldClickToken.String(), "not minted for this workspace")
	}
	return validEvent{c, token.Time(&raw), truncated}, nil
}
