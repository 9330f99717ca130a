package ingest

import (
	"context"
	"crypto/sha256"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/nimriz/partners/schemas/event"
)

// maxRejections bounds the rejections that wait for Kafka. It is a fraction of what the
// producer buffers, so that rejections never take the place of events.
const maxRejections = 10_000

// refused is a refusal with the refused event, as far as it could be read.
type refused struct {
	*refusal
	event *draft // nil if none could be read
}

// produceRejections records refusals of a signed request, without waiting; none of a dry
// run. It never fails: rejections that cannot be recorded are counted.
func (h *Handler) produceRejections(rq *request, list ...refused) {
	if rq.dryRun {
		return
	}
	now := h.now()
	sum := sha256.Sum256(rq.body.Bytes())
	for _, r := range list {
		if h.limits.budgetOf(rq.workspace).rejections.takeTokens(now, 1) > 0 || !h.pendingRejections.enter() {
			h.metrics.lost.Inc()
			continue
		}
		value, err := h.codec.AppendRejection(nil, &event.Rejection{
			WorkspaceID: rq.workspace,
			WebhookID:   rq.verified.WebhookID,
			EventID:     r.event.recordedID(fieldEventID),
			ClickToken:  truncateText(r.event.textOf(fieldClickToken)),
			ReceivedAt:  event.MillisOf(now),
			Status:      int32(statusOf(r.code)),
			Code:        r.code,
			Field:       r.field,
			Detail:      r.detail,
			BodySHA256:  sum,
			KeyID:       rq.verified.KeyID,

			Type:          truncateText(r.event.textOf(fieldType)),
			OrderID:       r.event.recordedID(fieldOrderID),
			ParentEventID: r.event.recordedID(fieldParentEventID),
		})
		if err != nil {
			h.finishRejection(err)
			continue
		}
		h.producer.TryProduce(context.Background(), &kgo.Record{
			Topic:     h.rejections,
			Partition: 0,
			Key:       []byte(rq.workspace),
			Value:     value,
		}, func(_ *kgo.Record, err error) { h.finishRejection(err) })
	}
}

// finishRejection counts the result of an attempt to record a rejection.
func (h *Handler) finishRejection(err error) {
	defer h.pendingRejections.leave()
	if err == nil {
		h.metrics.recorded.Inc()
		h.watch.Clear(recordingRefusals)
		return
	}
	h.metrics.lost.Inc()
	h.watch.Failed(recordingRefusals, 0, err)
}
