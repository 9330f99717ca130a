package ingest

import (
	"context"
	"crypto/sha256"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/nimriz/partners/schemas/event"
)

// maxRejections bounds the refusals that wait for Kafka, to a part of what the producer
// buffers, so that they never take the place of events.
const maxRejections = 10_000

// refused is one refusal and the ids of what it is about, as far as they could be read.
type refused struct {
	*refusal
	eventID, clickToken string
}

// reject records refusals of a signed request, without waiting. It never fails: what
// cannot be recorded is counted.
func (h *Handler) reject(rq *request, list ...refused) {
	now := h.now()
	sum := sha256.Sum256(rq.body.Bytes())
	for _, r := range list {
		if h.limits.workspace(rq.workspace).rejections.take(now, 1) > 0 || !h.rejecting.enter() {
			h.metrics.lost.Inc()
			continue
		}
		value, err := h.codec.AppendRejection(nil, &event.Rejection{
			WorkspaceID: rq.workspace, WebhookID: rq.verified.WebhookID, EventID: cutText(
				r.eventID), ClickToken: cutText(r.clickToken),
			ReceivedAt: event.MillisOf(now), Status: int32(
				statusOf(r.code)), Code: r.code, Field: r.field, Detail: r.detail,
			BodySHA256: sum, KeyID: rq.verified.KeyID,
		})
		if err != nil {
			h.rejected(err)
			continue
		}
		h.producer.TryProduce(context.Background(), &kgo.Record{
			Topic:     h.rejections,
			Partition: 0,
			Key:       []byte(rq.workspace),
			Value:     value,
		},
			func(_ *kgo.Record, err error) { h.rejected(err) })
	}
}

// rejected notes the end of an attempt to record a refusal.
func (h *Handler) rejected(err error) {
	defer h.rejecting.leave()
	if err == nil {
		h.metrics.recorded.Inc()
		h.watch.Clear(recordingRefusals)
		return
	}
	h.metrics.lost.Inc()
	h.watch.Failed(recordingRefusals, 0, err)
}
