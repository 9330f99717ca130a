package signature

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Sign returns a signature ("v1," and base64) over id, at (in unix seconds) and body.
// It is empty for the zero Secret. Sign does not check id; SignRequest does.
func Sign(s Secret, id string, at time.Time, body []byte) string {
	if s.sealed == nil {
		return ""
	}
	sum := s.computeMAC(signedHead(id, strconv.FormatInt(at.Unix(), 10)), body)
	return versionPrefix + base64.StdEncoding.EncodeToString(sum[:])
}

// SignRequest sets the three headers on r. body must be the exact bytes that r will
// send; r.Body is not touched. During a rotation pass the old and the new secret, so
// that the receiver needs only one of them.
func SignRequest(r *http.Request, id string, at time.Time, body []byte, secrets ...Secret) error {
	if err := checkID(id); err != nil {
		return fmt.Errorf("signing a request: %w", err)
	}
	if len(secrets) == 0 || len(secrets) > MaxSignatures {
		return fmt.Errorf("signing a request: 1 to %d secrets, not %d", MaxSignatures, len(secrets))
	}
	signatures := make([]string, len(secrets))
	for i, s := range secrets {
		if signatures[i] = Sign(s, id, at, body); signatures[i] == "" {
			return errors.New("signing a request: the zero secret signs nothing")
		}
	}
	r.Header.Set(HeaderID, id)
	r.Header.Set(HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	r.Header.Set(HeaderSignature, strings.Join(signatures, " "))
	return nil
}

// signedHead returns the signed bytes before the body:
//
//	┌────────────┬───┬──────────────────────────┬───┬───────┐
//	│ webhook-id │ . │ webhook-timestamp (text) │ . │ body… │
//	└────────────┴───┴──────────────────────────┴───┴───────┘
//
// It is unambiguous only because neither text can contain a dot (checkID,
// parseTimestamp).
func signedHead(id, timestamp string) []byte {
	head := make([]byte, 0, len(id)+len(timestamp)+2)
	head = append(head, id...)
	head = append(head, '.')
	head = append(head, timestamp...)
	return append(head, '.')
}
