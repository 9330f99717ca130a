package ingest

import (
	"net/http"
	"time"
)

// timeFormat is RFC 3339 in milliseconds, the precision of a record.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// acceptedAnswer is the body of the 202 of one event.
type acceptedAnswer struct {
	Status     string `json:"status"`
	EventID    string `json:"event_id"`
	ReceivedAt string `json:"received_at"`
	// the texts that were cut to 128 characters
	Truncated []string `json:"truncated,omitzero"`
}

// batchAnswer is the body of the 202 of a batch.
type batchAnswer struct {
	Results []itemResult `json:"results"`
}

// itemResult is what became of one event of a batch.
type itemResult struct {
	Index   int    `json:"index"`         // in the batch, from 0
	EventID string `json:"event_id"`      // as sent; empty if it could not be read
	Status  string `json:"status"`        // accepted or refused
	Code    string `json:"code,omitzero"` // why it was refused
	// the member to blame, where there is one
	Field  string `json:"field,omitzero"`
	Detail string `json:"detail,omitzero"` // for people
	// of an accepted one: the texts that were cut to 128 characters
	Truncated []string `json:"truncated,omitzero"`
}

// refuse makes r the result of a refused event.
func (r *itemResult) refuse(ref *refusal) {
	r.Status, r.Code, r.Field, r.Detail = "refused", ref.code, ref.field, ref.detail
}

// chargeWorkspace takes n events from the workspace's budget. A body without a readable
// event costs one.
func (h *Handler) chargeWorkspace(rq *request, now time.Time, n int) *refusal {
	if wait := h.limits.budgetOf(rq.workspace).events.takeTokens(now, max(n, 1)); wait > 0 {
		return rateLimitRefusal(wait)
	}
	return nil
}

// serveEvent answers an admitted request with one event.
func (h *Handler) serveEvent(w http.ResponseWriter, rq *request) string {
	now := h.now()
	d := parseEvent(rq.body.Bytes(), 0)
	var one validEvent
	ref := h.chargeWorkspace(rq, now, 1)
	if ref == nil {
		one, ref = h.validateEvent(rq.workspace, &d, now)
	}
	if ref != nil {
		about := d // so that the event of an accepted request stays off the heap
		h.rejectRequest(rq, refused{ref, &about})
		return h.writeRefusal(w, ref)
	}
	receivedAt, ok := h.produceEvents(rq.workspace, rq.verified.KeyID, []validEvent{one})
	if !ok[0] {
		return h.writeRefusal(w, unavailableRefusal())
	}
	writeJSON(w, http.StatusAccepted, "application/json", acceptedAnswer{codeAccepted, one.EventID,
		receivedAt.Time().Format(timeFormat), one.truncated})
	return codeAccepted
}

// serveBatch answers an admitted request with many events.
func (h *Handler) serveBatch(w http.ResponseWriter, rq *request) string {
	now := h.now()
	b := parseBatch(rq.body.Bytes())
	if ref := h.chargeWorkspace(rq, now, len(b.items)); ref != nil {
		h.rejectRequest(rq, refused{refusal: ref})
		return h.writeRefusal(w, ref)
	}
	if ref := b.checkWhole(); ref != nil {
		h.rejectRequest(rq, b.refuseAll(ref)...)
		return h.writeRefusal(w, ref)
	}
	results := h.produceBatch(rq, &b, now)
	unavailableItems := 0
	for _, r := range results {
		if r.Code != "" {
			h.metrics.refused.WithLabelValues(r.Code).Inc()
		}
		if r.Code == codeUnavailable {
			unavailableItems++
		}
	}
	if unavailableItems == len(results) {
		return h.writeRefusal(w, unavailableRefusal())
	}
	writeJSON(w, http.StatusAccepted, "application/json", batchAnswer{results})
	return codeAccepted
}

// produceBatch validates all events, records the refusals, produces the valid events
// and waits once.
func (h *Handler) produceBatch(rq *request, b *batch, now time.Time) []itemResult {
	results := make([]itemResult, len(b.items))
	good := make([]validEvent, 0, len(b.items))
	indices := make([]int, 0, len(b.items)) // in the batch, of the good ones
	var bad []refused
	for i := range b.items {
		d := &b.items[i]
		results[i] = itemResult{Index: i, EventID: d.eventID(), Status: codeAccepted}
		one, ref := h.validateEvent(rq.workspace, d, now)
		if ref != nil {
			results[i].refuse(ref)
			bad = append(bad, refused{ref, d})
			continue
		}
		results[i].Truncated = one.truncated
		good = append(good, one)
		indices = append(indices, i)
	}
	if len(bad) > 0 {
		h.produceRejections(rq, bad...)
	}
	if len(good) == 0 {
		return results
	}
	_, ok := h.produceEvents(rq.workspace, rq.verified.KeyID, good)
	for n, i := range indices {
		if !ok[n] {
			results[i].refuse(unavailableRefusal())
			results[i].Truncated = nil
		}
	}
	return results
}
