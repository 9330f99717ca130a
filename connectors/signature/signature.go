package signature

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The three headers of a signed request, in the canonical form of net/http.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

const (
	// Tolerance is the largest accepted difference between webhook-timestamp and the
	// verifier's clock, on either side, in whole seconds.
	Tolerance = 5 * time.Minute

	// MaxIDLength is the longest webhook-id, in characters.
	MaxIDLength = 128

	// MaxSignatures is the largest number of signatures in a request, of all versions.
	MaxSignatures = 10

	versionPrefix = "v1,"
)

// Reasons to refuse a request. Code classifies them.
var (
	// ErrMissing: the headers are absent, or not in the form of a signed request. It is
	// wrapped with the reason, which says nothing about the workspace; see Detail.
	ErrMissing = errors.New("the request is not signed")
	// ErrBad: no signature was made with an active secret of the workspace, or there is
	// no such workspace. It is never wrapped, so that the two read the same.
	ErrBad = errors.New("no signature matches")
	// ErrUnreadable: whether a signature matches is not known, because the workspace's
	// file of secrets cannot be used now. The sender is not to blame. It has no Code.
	ErrUnreadable = errors.New("the workspace's signing secrets cannot be read")
	// ErrStale: genuinely signed, more than Tolerance ago.
	ErrStale = errors.New("webhook-timestamp is too old")
	// ErrFuture: genuinely signed, for a time more than Tolerance ahead.
	ErrFuture = errors.New("webhook-timestamp is in the future")
)

// Code returns the events API's code for an error of Verify, and "" for any other error
// and for nil.
func Code(err error) string {
	switch {
	case errors.Is(err, ErrMissing):
		return "missing_signature"
	case errors.Is(err, ErrBad):
		return "bad_signature"
	case errors.Is(err, ErrStale):
		return "stale_timestamp"
	case errors.Is(err, ErrFuture):
		return "future_timestamp"
	}
	return ""
}

// A claim is the parsed headers of a request, not yet verified.
type claim struct {
	id         string              // webhook-id
	timestamp  int64               // unix seconds, any int64
	head       []byte              // signedHead
	signatures [][sha256.Size]byte // 1 to MaxSignatures, of version v1
}

// parseClaim reads the headers; all its errors are ErrMissing.
func parseClaim(h http.Header) (claim, error) {
	id, err := singleHeader(h, HeaderID)
	if err != nil {
		return claim{}, err
	}
	if err := checkID(id); err != nil {
		return claim{}, err
	}
	stamp, err := singleHeader(h, HeaderTimestamp)
	if err != nil {
		return claim{}, err
	}
	timestamp, err := parseTimestamp(stamp)
	if err != nil {
		return claim{}, err
	}
	list, err := singleHeader(h, HeaderSignature)
	if err != nil {
		return claim{}, err
	}
	signatures, err := parseSignatures(list)
	if err != nil {
		return claim{}, err
	}
	return claim{id: id, timestamp: timestamp, head: signedHead(id, stamp), signatures: signatures}, nil
}

// singleHeader returns the value of a header that occurs once. Of two values, a proxy
// in front might read one and this verifier the other.
func singleHeader(h http.Header, name string) (string, error) {
	values := h[name]
	switch {
	case len(values) == 0:
		return "", absentHeader(h, name)
	case len(values) > 1:
		return "", badForm("header %s is there more than once", strings.ToLower(name))
	case values[0] == "":
		return "", badForm("header %s is empty", strings.ToLower(name))
	}
	return values[0], nil
}

// checkID accepts 1 to MaxIDLength characters of UTF-8, without dots, which would make
// the signed text ambiguous, and without control characters.
func checkID(id string) error {
	switch {
	case id == "":
		return badForm("webhook-id is empty")
	case !utf8.ValidString(id) || strings.ContainsFunc(id, unicode.IsControl):
		return badForm("webhook-id has control characters, or bytes that are no UTF-8")
	case utf8.RuneCountInString(id) > MaxIDLength:
		return badForm("webhook-id has more than %d characters", MaxIDLength)
	case strings.Contains(id, "."):
		return badForm("webhook-id has a dot")
	}
	return nil
}

// parseTimestamp accepts the one decimal spelling of a 64-bit integer: no plus sign,
// leading zero, fraction or exponent.
func parseTimestamp(text string) (int64, error) {
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(seconds, 10) != text {
		return 0, badForm("webhook-timestamp %s", timestampFault(text, errors.Is(err, strconv.ErrRange)))
	}
	return seconds, nil
}

// parseSignatures reads a list separated by spaces. Entries of other versions (v1a) and
// malformed ones count towards the limit and are otherwise ignored: a sender may offer
// versions that this verifier does not know.
func parseSignatures(list string) ([][sha256.Size]byte, error) {
	signatures := make([][sha256.Size]byte, 0, 2)
	count := 0
	for entry := range bytes.SplitSeq([]byte(list), []byte{' '}) {
		if len(entry) == 0 {
			continue
		}
		if count++; count > MaxSignatures {
			return nil, badForm("webhook-signature has more than %d signatures", MaxSignatures)
		}
		if sum, ok := parseSignature(entry); ok {
			signatures = append(signatures, sum)
		}
	}
	if len(signatures) == 0 {
		return nil, badForm("webhook-signature %s", signatureFault(list))
	}
	return signatures, nil
}

func parseSignature(entry []byte) (sum [sha256.Size]byte, ok bool) {
	encoded, ok := bytes.CutPrefix(entry, []byte(versionPrefix))
	if !ok || len(encoded) != base64.StdEncoding.EncodedLen(sha256.Size) {
		return sum, false
	}
	// 44 characters with one '=' are 32 bytes; with two they are 31, with none 33.
	var decoded [sha256.Size + 1]byte
	n, err := base64.StdEncoding.Strict().Decode(decoded[:], encoded)
	if err != nil || n != sha256.Size {
		return sum, false
	}
	copy(sum[:], decoded[:])
	return sum, true
}
