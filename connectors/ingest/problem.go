package ingest

import (
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// The codes of answers. Those of refusals stand in the contract; they are compared by
// senders and never change.
const (
	codeOK       = "ok" // metrics only
	codeAccepted = "accepted"

	codeMalformedJSON     = "malformed_json"
	codeUnknownField      = "unknown_field"
	codeNotEntitled       = "not_entitled"
	codeNotFound          = "not_found"
	codeMethodNotAllowed  = "method_not_allowed"
	codeTooLarge          = "too_large"
	codeUnsupportedMedia  = "unsupported_media_type"
	codeInvalidField      = "invalid_field"
	codeBadAmount         = "bad_amount"
	codeBadCurrency       = "bad_currency"
	codeTokenMalformed    = "token_malformed"
	codeTokenInvalid      = "token_invalid"
	codeOccurredInFuture  = "occurred_in_future"
	codeOccurredTooOld    = "occurred_too_old"
	codeRateLimited       = "rate_limited"
	codeUnavailable       = "unavailable"
	codeMissingSignature  = "missing_signature" // this and the next three as by signature.Code
	codeBadSignature      = "bad_signature"
	codeStaleTimestamp    = "stale_timestamp"
	codeFutureTimestamp   = "future_timestamp"
	retryUnavailableAfter = 5 * time.Second
)

// A refusal is why a request or an event is not accepted.
type refusal struct {
	code       string
	field      string        // the member to blame, if one is
	detail     string        // for people, in our own words: never an error's text or a value that was sent
	retryAfter time.Duration // of 429 and 503
}

func refuse(code, field, detail string) *refusal {
	return &refusal{code: code, field: field, detail: detail}
}

func unavailable() *refusal {
	return &refusal{code: codeUnavailable,
		detail: "not recorded, or that is not known; sending the same again is safe", retryAfter: retryUnavailableAfter}
}

func rateLimited(wait time.Duration) *refusal {
	return &refusal{code: codeRateLimited, detail: "too many events; wait as long as Retry-After says",
		retryAfter: wait}
}

// statusOf is the HTTP status of a code when it refuses a whole request.
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

// titleOf is the status's name in RFC 9110, where net/http still has older ones.
func titleOf(status int) string {
	switch status {
	case http.StatusRequestEntityTooLarge:
		return "Content Too Large"
	case http.StatusUnprocessableEntity:
		return "Unprocessable Content"
	}
	return http.StatusText(status)
}

// problem is the body of a refusal, by RFC 9457.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitzero"`
	Code   string `json:"code"`
	Field  string `json:"field,omitzero"`
}

func writeProblem(w http.ResponseWriter, ref *refusal) {
	status := statusOf(ref.code)
	if ref.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((ref.retryAfter+time.Second-1)/time.Second), 10))
	}
	writeJSON(w, status, "application/problem+json",
		problem{
			Type:   "about:blank",
			Title:  titleOf(status),
			Status: status,
			Detail: ref.detail,
			Code:   ref.code,
			Field:  ref.field,
		})
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		// Cannot happen: all texts are ours or went through the strict decoder, so they
		// are valid UTF-8. Never a half-written answer, though.
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
