package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
)

const (
	secretPrefix = "whsec_"

	// Bounds on the decoded key, from the Standard Webhooks specification 1.0.0,
	// "Signature scheme". Below the minimum a secret is a password, not a key.
	minKeyBytes = 24
	maxKeyBytes = 64

	// newKeyBytes is the length of a SHA-256 digest: a longer HMAC-SHA256 key adds
	// nothing.
	newKeyBytes = 32

	keyIDDigits = 8
)

// keyEncoding is strict, so that a key has exactly one text and therefore one KeyID.
var keyEncoding = base64.StdEncoding.Strict()

// A Secret is one shared signing secret. No formatting verb and no slog handler prints
// it; Reveal is the only way to its text. The zero Secret signs nothing.
type Secret struct {
	// Two pointers, because fmt does not call Format on a Secret in an unexported field
	// of another struct. There it prints by reflection and follows one pointer (with a
	// verb that does not fit, such as %s), but not a second.
	sealed **keyMaterial
}

type keyMaterial struct {
	text  string
	key   []byte
	keyID string

	usedAt atomic.Int64 // when Verify last found it, Unix seconds; 0: not yet
}

// ParseSecret reads "whsec_" followed by the padded standard base64 of 24 to 64 bytes.
// Its errors never contain any part of text.
func ParseSecret(text string) (Secret, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return Secret{}, errors.New("a signing secret starts with " + secretPrefix)
	}
	key, err := keyEncoding.DecodeString(encoded)
	// The decoder skips CR and LF, which would give one key several texts.
	if err != nil || strings.ContainsAny(encoded, "\r\n") {
		return Secret{}, errors.New("a signing secret is padded standard base64 after " + secretPrefix)
	}
	if len(key) < minKeyBytes || len(key) > maxKeyBytes {
		return Secret{}, fmt.Errorf("a signing secret has %d to %d bytes, this one has %d",
			minKeyBytes, maxKeyBytes, len(key))
	}
	digest := sha256.Sum256([]byte(text))
	m := &keyMaterial{text: text, key: key, keyID: hex.EncodeToString(digest[:])[:keyIDDigits]}
	return Secret{sealed: &m}, nil
}

// NewSecret makes a secret of 32 bytes read from random, which in production is
// crypto/rand.Reader.
func NewSecret(random io.Reader) (Secret, error) {
	key := make([]byte, newKeyBytes)
	if _, err := io.ReadFull(random, key); err != nil {
		return Secret{}, fmt.Errorf("reading %d random bytes for a signing secret: %w", newKeyBytes, err)
	}
	return ParseSecret(secretPrefix + keyEncoding.EncodeToString(key))
}

// KeyID names the secret without revealing it: the first 8 hex digits of the SHA-256 of
// its text, "whsec_" included. It is empty for the zero Secret.
func (s Secret) KeyID() string {
	if s.sealed == nil {
		return ""
	}
	return (*s.sealed).keyID
}

// Reveal returns the text "whsec_…", to be written to a file that only its owner reads.
func (s Secret) Reveal() string {
	if s.sealed == nil {
		return ""
	}
	return (*s.sealed).text
}

// Format implements fmt.Formatter: every verb prints the key id alone.
func (s Secret) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "secret(%s)", s.KeyID())
}

// LogValue implements slog.LogValuer: a log line carries the key id alone.
func (s Secret) LogValue() slog.Value {
	return slog.StringValue(fmt.Sprint(s))
}

// computeMAC is HMAC-SHA256 over head and body, without copying either.
func (s Secret) computeMAC(head, body []byte) [sha256.Size]byte {
	hash := hmac.New(sha256.New, (*s.sealed).key)
	hash.Write(head)
	hash.Write(body)
	var sum [sha256.Size]byte
	hash.Sum(sum[:0])
	return sum
}
