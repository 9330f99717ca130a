package ingest

import (
	"net/http"
	"time"
)

// timeFormat is RFC 3339 in milliseconds, which is all that a record keeps.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

type accepted struct {
	Status     string `json:"status"`
	EventID    string `json:"event_id"`
	ReceivedAt string `json:"received_at"`
}

type batchResult struct {
	Results []itemResult `json:"results"`
}

type itemResult struct {
	Index   int    `json:"index"`
	EventID string `json:"event_id"`
	Status  string `json:"status"`
	Code    string `json:"code,omitzero"`
}

func notJSON() *refusal {
	return refuse(codeMalformedJSON, "", "not JSON in UTF-8, a name twice in one object, or data after the value")
}

// charge takes n events from the workspace's budget; a body without a readable event
// costs one.
func (h *Handler) charge(rq *request, now time.Time, n int) *refusal {
	if wait := h.limits.workspace(rq.workspace).events.take(now, max(n, 1)); wait > 0 {
		return rateLimited(wait)
	}
	return nil
}

// serveEvent answers an admitted request with one event.
func (h *Handler) serveEvent(w http.ResponseWriter, rq *request) string {
	now := h.now()
	d, err := parseEvent(rq.body.Bytes())
	var one judged
	ref := h.charge(rq, now, 1)
	if ref == nil && err != nil {
		ref = notJSON()
	}
	if ref == nil {
		one, ref = h.judge(rq.workspace, &d, now)
	}
	if ref != nil {
		h.rejectRequest(rq, refused{ref, d.eventID(), d.clickToken()})
		return h.answer(w, ref)
	}
	receivedAt, ok := h.record(rq.workspace, rq.verified.KeyID, []judged{one})
	if !ok[0] {
		return h.answer(w, unavailable())
	}
	writeJSON(w, http.StatusAccepted, "application/json", accepted{codeAccepted, one.EventID,
		receivedAt.Time().Format(timeFormat)})
	return codeAccepted
}

// serveBatch answers an admitted request with many events.
func (h *Handler) serveBatch(w http.ResponseWriter, rq *request) string {
	now := h.now()
	b, err := parseBatch(rq.body.Bytes())
	ref := h.charge(rq, now, len(b.items))
	if ref == nil && err != nil {
		ref = notJSON()
	}
	if ref == nil {
		ref = b.refusal()
	}
	if ref != nil {
		h.rejectRequest(rq, refused{refusal: ref})
		return h.answer(w, ref)
	}
	results := h.recordBatch(rq, &b, now)
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
		return h.answer(w, unavailable())
	}
	writeJSON(w, http.StatusAccepted, "application/json", batchResult{results})
	return codeAccepted
}

// recordBatch judges all events, records the refusals, hands the rest to Kafka and
// waits once.
func (h *Handler) recordBatch(rq *request, b *batch, now time.Time) []itemResult {
	results := make([]itemResult, len(b.items))
	good := make([]judged, 0, len(b.items))
	places := make([]int, 0, len(b.items)) // of the good ones
	var bad []refused
	for i := range b.items {
		d := &b.items[i]
		results[i] = itemResult{Index: i, EventID: d.eventID(), Status: codeAccepted}
		one, ref := h.judge(rq.workspace, d, now)
		if ref != nil {
			results[i].Status, results[i].Code = "refused", ref.code
			bad = append(bad, refused{ref, d.eventID(), d.clickToken()})
			continue
		}
		good, places = append(good, one), append(places, i)
	}
	if len(bad) > 0 {
		h.reject(rq, bad...)
	}
	if len(good) == 0 {
		return results
	}
	_, ok := h.record(rq.workspace, rq.verified.KeyID, good)
	for n, i := range places {
		if !ok[n] {
			results[i].Status, results[i].Code = "refused", codeUnavailable
		}
	}
	return results
}
