package ingest

import (
	"net/http"
	"time"
)

// timeFormat is RFC 3339 in milliseconds, the precision of a record.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// statusRefused is the status of an event of a batch that has a code. The status of the
// others is codeAccepted or codeValid.
const statusRefused = "refused"

// acceptedAnswer is the body of the 202 of one event.
type acceptedAnswer struct {
	Status     string `json:"status"`
	EventID    string `json:"event_id"`
	ReceivedAt string `json:"received_at"`
	// the texts that were cut to 128 characters
	Truncated []string `json:"truncated,omitzero"`
}

// validAnswer is the body of the 200 of a dry run of one event.
type validAnswer struct {
	Status string `json:"status"` // valid
	// the texts that would be cut to 128 characters
	Truncated []string `json:"truncated,omitzero"`
}

// batchAnswer is the body of the 202 of a batch, and of the 200 of its dry run.
type batchAnswer struct {
	// of a dry run: valid, or refused if an event is
	Status  string       `json:"status,omitzero"`
	Results []itemResult `json:"results"`
}

// itemResult is what became of one event of a batch.
type itemResult struct {
	Index   int    `json:"index"`         // in the batch, from 0
	EventID string `json:"event_id"`      // as sent; empty if it could not be read
	Status  string `json:"status"`        // accepted, in a dry run valid; or refused
	Code    string `json:"code,omitzero"` // why it was refused
	// the member to blame, where there is one
	Field  string `json:"field,omitzero"`
	Detail string `json:"detail,omitzero"` // for people
	// of an accepted one: the texts that were cut to 128 characters
	Truncated []string `json:"truncated,omitzero"`
}

// refuse makes r the result of a refused event.
func (r *itemResult) refuse(ref *refusal) {
	r.Status, r.Code, r.Field, r.Detail = statusRefused, ref.code, ref.field, ref.detail
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
	d := parseEvent(rq.body.Bytes())
	rq.dryRun = d.dryRun.on()
	var one validEvent
	ref := h.chargeWorkspace(rq, now, 1)
	if ref == nil {
		one, ref = h.validateEvent(rq.workspace, &d, now)
	}
	switch {
	case ref != nil:
		about := d // so that the event of an accepted request stays off the heap
		h.rejectRequest(rq, refused{ref, &about})
		h.countRefused(rq, ref.code, 1)
		return h.writeRefusal(w, ref)
	case rq.dryRun:
		writeJSON(w, http.StatusOK, "application/json", validAnswer{codeValid, one.truncated})
		return codeValid
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
	rq.dryRun = b.dryRun.on()
	if ref := h.chargeWorkspace(rq, now, len(b.items)); ref != nil {
		h.rejectRequest(rq, refused{refusal: ref})
		return h.writeRefusal(w, ref)
	}
	if ref := b.checkWhole(); ref != nil {
		h.rejectRequest(rq, b.refuseAll(ref)...)
		h.countRefused(rq, ref.code, max(b.count, 1))
		return h.writeRefusal(w, ref)
	}
	good, results := h.validateBatch(rq, &b, now)
	if rq.dryRun {
		status := codeValid
		if len(good) < len(results) {
			status = statusRefused
		}
		writeJSON(w, http.StatusOK, "application/json", batchAnswer{status, results})
		return codeValid
	}
	h.produceBatch(rq, good, results)
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
	writeJSON(w, http.StatusAccepted, "application/json", batchAnswer{Results: results})
	return codeAccepted
}

// validateBatch validates all events and records the refusals. It returns the valid
// ones, and a result for each event.
func (h *Handler) validateBatch(rq *request, b *batch, now time.Time) (good []validEvent, results []itemResult) {
	status := codeAccepted
	if rq.dryRun {
		status = codeValid
	}
	results = make([]itemResult, len(b.items))
	good = make([]validEvent, 0, len(b.items))
	var bad []refused
	for i := range b.items {
		d := &b.items[i]
		results[i] = itemResult{Index: i, EventID: d.eventID(), Status: status}
		one, ref := h.validateEvent(rq.workspace, d, now)
		if ref != nil {
			results[i].refuse(ref)
			bad = append(bad, refused{ref, d})
			h.countRefused(rq, ref.code, 1)
			continue
		}
		results[i].Truncated = one.truncated
		good = append(good, one)
	}
	if len(bad) > 0 {
		h.produceRejections(rq, bad...)
	}
	return good, results
}

// produceBatch produces the valid events and waits once. In results, which has one for
// each event of the batch, those that are not acknowledged become unavailable.
func (h *Handler) produceBatch(rq *request, good []validEvent, results []itemResult) {
	if len(good) == 0 {
		return
	}
	_, ok := h.produceEvents(rq.workspace, rq.verified.KeyID, good)
	n := 0 // of the next valid event
	for i := range results {
		if results[i].Status != codeAccepted {
			continue
		}
		if !ok[n] {
			results[i].refuse(unavailableRefusal())
			results[i].Truncated = nil
		}
		n++
	}
}

// countRefused counts n events of a workspace that were refused for what they are. A
// dry run counts as nothing.
func (h *Handler) countRefused(rq *request, code string, n int) {
	switch statusOf(code) {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		if !rq.dryRun {
			h.metrics.workspaceRefused.WithLabelValues(rq.workspace, code).Add(float64(n))
		}
	}
}
