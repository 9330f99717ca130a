package ingest

import (
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// The codes of answers. Those of refusals are part of the API: clients compare them, so
// they never change.
const (
	codeOK       = "ok"    // metrics only
	codeValid    = "valid" // of a dry run
	codeAccepted = "accepted"

	codeMalformedJSON    = "malformed_json"
	codeUnknownField     = "unknown_field"
	codeNotEntitled      = "not_entitled"
	codeNotFound         = "not_found"
	codeMethodNotAllowed = "method_not_allowed"
	codeTooLarge         = "too_large"
	codeUnsupportedMedia = "unsupported_media_type"
	codeInvalidField     = "invalid_field"
	codeBadAmount        = "bad_amount"
	codeBadCurrency      = "bad_currency"
	codeTokenMalformed   = "token_malformed"
	codeTokenInvalid     = "token_invalid"
	codeOccurredInFuture = "occurred_in_future"
	codeOccurredTooOld   = "occurred_too_old"
	codeRateLimited      = "rate_limited"
	codeUnavailable      = "unavailable"
	codeMissingSignature = "missing_signature" // this and the next three are signature.Code's
	codeBadSignature     = "bad_signature"
	codeStaleTimestamp   = "stale_timestamp"
	codeFutureTimestamp  = "future_timestamp"
)

// retryUnavailableAfter is the Retry-After of a 503.
const retryUnavailableAfter = 5 * time.Second

// A refusal says why a request or an event is not accepted.
type refusal struct {
	code       string        // one of the codes above
	field      string        // the faulty member of the event, if it is one
	detail     string        // for people; never the text of an error, or of a body
	retryAfter time.Duration // with 429 and 503
	offset     *int64        // with malformed_json: where, in bytes of the body
	index      *int          // … of the event at which a batch breaks off
}

func newRefusal(code, field, detail string) *refusal {
	return &refusal{code: code, field: field, detail: detail}
}

func unavailableRefusal() *refusal {
	return &refusal{
		code:       codeUnavailable,
		detail:     "not recorded, or that is not known; sending the same again is safe",
		retryAfter: retryUnavailableAfter,
	}
}

func rateLimitRefusal(wait time.Duration) *refusal {
	return &refusal{
		code:       codeRateLimited,
		detail:     "too many events; wait as long as Retry-After says",
		retryAfter: wait,
	}
}

// statusOf returns the HTTP status of a code that refuses a whole request.
func statusOf(code string) int {
	switch code {
	case codeMalformedJSON, codeUnknownField:
		return http.StatusBadRequest
	case codeMissingSignature, codeBadSignature, codeStaleTimestamp, codeFutureTimestamp:
		return http.StatusUnauthorized
	case codeNotEntitled:
		return http.StatusForbidden
	case codeNotFound:
		return http.StatusNotFound
	case codeMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case codeTooLarge:
		return http.StatusRequestEntityTooLarge
	case codeUnsupportedMedia:
		return http.StatusUnsupportedMediaType
	case codeRateLimited:
		return http.StatusTooManyRequests
	case codeUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusUnprocessableEntity
}

// titleOf returns the status's name in RFC 9110; net/http still has some older ones.
func titleOf(status int) string {
	switch status {
	case http.StatusRequestEntityTooLarge:
		return "Content Too Large"
	case http.StatusUnprocessableEntity:
		return "Unprocessable Content"
	}
	return http.StatusText(status)
}

// problem is the body of a refusal: problem details of RFC 9457 with members of our own.
type problem struct {
	Type   string `json:"type"`            // about:blank
	Title  string `json:"title"`           // of the status
	Status int    `json:"status"`          // of the answer
	Detail string `json:"detail,omitzero"` // for people
	Code   string `json:"code"`            // for programs
	Field  string `json:"field,omitzero"`  // the faulty member of the event, if it is one
	Offset *int64 `json:"offset,omitzero"` // of what is no JSON, in bytes of the body
	Index  *int   `json:"index,omitzero"`  // of the event at which a batch breaks off, from 0
}

func writeProblem(w http.ResponseWriter, ref *refusal) {
	status := statusOf(ref.code)
	if ref.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((ref.retryAfter+time.Second-1)/time.Second), 10))
	}
	writeJSON(w, status, "application/problem+json", problem{
		Type:   "about:blank",
		Title:  titleOf(status),
		Status: status,
		Detail: ref.detail,
		Code:   ref.code,
		Field:  ref.field,
		Offset: ref.offset,
		Index:  ref.index,
	})
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		// This cannot happen: all texts are our own or passed the strict decoder, so
		// they are valid UTF-8. An answer is still never half written.
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	writeBody(w, status, contentType, body)
}

func writeBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}
