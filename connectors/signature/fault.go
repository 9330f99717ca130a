package signature

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// Detail returns a sentence for the sender about an error of Verify: which header is at
// fault, and what is wrong with it. It depends on the headers alone and, of a genuine
// request, on the clock. It says nothing about the workspace, and repeats nothing that
// was sent. It is empty for any other error and for nil.
func Detail(err error) string {
	var form *formError
	switch {
	case errors.As(err, &form):
		return form.detail
	case errors.Is(err, ErrBad):
		return "no signature matches"
	case errors.Is(err, ErrStale):
		return "webhook-timestamp is more than 5 minutes old: sign every attempt anew, with the time of the attempt"
	case errors.Is(err, errMilliseconds):
		return "webhook-timestamp is far ahead: it is in seconds since 1970, not in milliseconds"
	case errors.Is(err, ErrFuture):
		return "webhook-timestamp is more than 5 minutes ahead of the gateway's clock"
	}
	return ""
}

// A formError is an ErrMissing that says what is wrong.
type formError struct {
	detail string // for the sender; it names the header
}

// Error implements error.
func (e *formError) Error() string { return ErrMissing.Error() + ": " + e.detail }

// Unwrap returns ErrMissing.
func (e *formError) Unwrap() error { return ErrMissing }

func badForm(format string, args ...any) error { return &formError{fmt.Sprintf(format, args...)} }

// errMilliseconds is the ErrFuture of a timestamp that cannot be in seconds.
var errMilliseconds = fmt.Errorf("%w: it is not in seconds", ErrFuture)

// leastMilliseconds is a timestamp that is in the year 5138 if it is in seconds, and in
// 1973 if it is in milliseconds.
const leastMilliseconds = 100_000_000_000

// absentHeader explains why there is no header of a name.
func absentHeader(h http.Header, name string) error {
	lower := strings.ToLower(name)
	if svix := "Svix-" + strings.TrimPrefix(name, "Webhook-"); len(h[svix]) > 0 {
		return badForm("header %s is missing; %s is not read: the names are webhook-id, webhook-timestamp and "+
			"webhook-signature", lower, strings.ToLower(svix))
	}
	return badForm("header %s is missing", lower)
}

var (
	numberWithFraction = regexp.MustCompile(`^[+-]?[0-9]+\.[0-9]*$`)
	integerLiteral     = regexp.MustCompile(`^[+-]?[0-9]+$`)
	dateBeginning      = regexp.MustCompile(`^([A-Z][a-z]{2}, )?[0-9]{1,4}[-/ ]`)
)

// timestampFault says why a text is not the one spelling of a 64-bit integer.
func timestampFault(text string, outOfRange bool) string {
	switch {
	case dateBeginning.MatchString(text):
		return "is a date: it is the number of seconds since 1970, such as 1772353800"
	case strings.Contains(text, ","):
		return "has a comma: was the header sent twice, and joined on the way?"
	case numberWithFraction.MatchString(text):
		return "has a fraction: it is in whole seconds since 1970"
	case integerLiteral.MatchString(text) && outOfRange:
		return "is larger than 64 bits: it is in seconds since 1970"
	case integerLiteral.MatchString(text):
		return "has a sign or a zero in front of the number"
	}
	return "is not a whole number of seconds since 1970"
}

var (
	otherVersion = regexp.MustCompile(`^v[0-9]+[a-z]*,`)
	hexDigest    = regexp.MustCompile(`^[0-9A-Fa-f]{64}$`)
)

// signatureFault says what is wrong with a list of which no entry is a signature of
// version v1: with the first that seems to be meant as one.
func signatureFault(list string) string {
	entries := strings.FieldsFunc(list, func(r rune) bool { return r == ' ' })
	if len(entries) == 0 {
		return "is blank"
	}
	meant := slices.IndexFunc(entries, func(e string) bool {
		return strings.HasPrefix(e, versionPrefix) || !otherVersion.MatchString(e)
	})
	if meant < 0 {
		return "has versions other than v1 alone"
	}
	entry := entries[meant]
	if encoded, ok := strings.CutPrefix(entry, versionPrefix); ok {
		return encodingFault(encoded)
	}
	switch lower := strings.ToLower(entry); {
	case strings.HasPrefix(lower, versionPrefix):
		return "has V1, in front: the v is a small letter"
	case strings.HasPrefix(lower, "v1="):
		return "has v1= in front: v1, is meant, with a comma"
	case strings.HasPrefix(lower, "t="):
		return "has the form t=…,v1=…: v1, and base64 is meant, and the time is in webhook-timestamp"
	case strings.HasPrefix(lower, "sha256="):
		return "has sha256= in front: v1, is meant, and then base64"
	}
	return "has no v1, in front of the base64"
}

// encodingFault says why what follows v1, is not the base64 of 32 bytes.
func encodingFault(encoded string) string {
	switch {
	case encoded == "":
		return "has nothing directly behind v1,"
	case strings.Contains(encoded, ","):
		return "has a comma between its signatures: a blank is meant"
	case hexDigest.MatchString(encoded):
		return "is hexadecimal: base64 of the bytes is meant"
	case strings.ContainsAny(encoded, "-_"):
		return "is URL-safe base64: + and / are meant, not - and _"
	}
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		if _, err := base64.RawStdEncoding.DecodeString(encoded); err == nil {
			return "is base64 without padding: it ends with ="
		}
		return "is not base64"
	}
	switch {
	case len(decoded) == sha256.Size:
		return "is base64 with other last bits than an encoder writes: was it changed by hand?"
	case hexDigest.Match(decoded):
		return "is base64 of hexadecimal digits: base64 of the bytes is meant"
	}
	return fmt.Sprintf("is base64 of %d bytes: HMAC-SHA256 has %d", len(decoded), sha256.Size)
}
