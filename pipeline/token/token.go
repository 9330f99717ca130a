package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/ksuid"

	"github.com/nimriz/partners/schemas/secretdir"
)

// Raw is the binary form of a token, in which the stores keep it.
type Raw = [20]byte

const (
	// Len is the length of a token's text in bytes.
	Len = 27

	ksuidEpoch  = 1_400_000_000 // unix seconds
	macOffset   = 14            // where the MAC begins in Raw
	minKeyBytes = 16            // the shortest key that LoadKeyring accepts
	macVersion  = 1             // the first byte of the MAC input
)

// Errors of Parse and Verify.
var (
	ErrMalformed = errors.New("malformed token: want 27 base62 characters")
	ErrInvalid   = errors.New("invalid token: not minted for this workspace")
)

// Parse decodes a token's text. It does not check the MAC. The error is ErrMalformed.
//
// A token has exactly one text. ksuid.Parse accepts some other characters as digits
// ('@' as '3'), and two texts of one token would be two keys in Kafka, perhaps in two
// partitions.
func Parse(text string) (Raw, error) {
	raw, ok := decodeText(text)
	if !ok {
		return Raw{}, ErrMalformed
	}
	return raw, nil
}

// Text returns the 27 characters of raw.
func Text(raw *Raw) string { return ksuid.KSUID(*raw).String() }

// Seconds returns the mint time in seconds since KSUID's epoch: the first four bytes.
func Seconds(raw *Raw) uint32 { return binary.BigEndian.Uint32(raw[:4]) }

// Time returns the mint time, to the second.
func Time(raw *Raw) time.Time { return time.Unix(ksuidEpoch+int64(Seconds(raw)), 0).UTC() }

// SecondsOf converts a unix time in milliseconds to seconds since KSUID's epoch,
// clamped to what four bytes hold.
func SecondsOf(unixMillis int64) uint32 {
	s := unixMillis/1000 - ksuidEpoch
	return uint32(min(max(s, 0), 1<<32-1))
}

// Keyring holds the token keys of all workspaces. The first key of a workspace mints;
// all of them verify. A Keyring is safe for concurrent use, including Reload.
type Keyring struct {
	keys atomic.Pointer[map[string][]*key] // by workspace id
}

// key pools keyed hashers: setting one up costs twice as much as the MAC of a token.
type key struct{ hashers sync.Pool }

func newKey(secret []byte) *key {
	return &key{hashers: sync.Pool{New: func() any { return hmac.New(sha256.New, secret) }}}
}

// LoadKeyring reads one file per workspace from dir, named by the workspace's id, with
// one base64 key of at least 16 bytes a line. It skips blank lines and lines that begin
// with #. Errors name the file and the line, never the key.
func LoadKeyring(dir fs.FS) (*Keyring, error) {
	k := new(Keyring)
	if err := k.Reload(dir); err != nil {
		return nil, err
	}
	return k, nil
}

// Reload reads the directory again, as LoadKeyring does, and replaces all keys at once.
// On an error the previous keys stay active.
func (k *Keyring) Reload(dir fs.FS) error {
	keys, err := loadKeys(dir)
	if before := k.keys.Load(); err == nil && len(keys) == 0 && before != nil && len(*before) > 0 {
		err = errors.New("the directory no longer contains a key file")
	}
	if err != nil {
		return fmt.Errorf("reading token keys: %w", err)
	}
	k.keys.Store(&keys)
	return nil
}

func loadKeys(dir fs.FS) (map[string][]*key, error) {
	return secretdir.Load(dir, parseKeys)
}

// parseKeys reads the keys of one workspace.
func parseKeys(file secretdir.File) ([]*key, error) {
	var keys []*key
	for _, line := range file.Lines {
		secret, err := base64.StdEncoding.DecodeString(line.Text)
		if err != nil || len(secret) < minKeyBytes {
			return nil, line.Errorf("want standard base64 of at least %d bytes", minKeyBytes)
		}
		keys = append(keys, newKey(secret))
	}
	if len(keys) == 0 {
		return nil, errors.New("no key in it")
	}
	return keys, nil
}

// NewKey returns a line for a key file: 32 bytes read from random, in base64.
func NewKey(random io.Reader) (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("making a token key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(b[:]), nil
}

func (k *Keyring) keysOf(workspace string) []*key { return (*k.keys.Load())[workspace] }

// Has reports whether the workspace has a key.
func (k *Keyring) Has(workspace string) bool { return len(k.keysOf(workspace)) > 0 }

// Mint returns a new token of the workspace with the given time and ten bytes read from
// random: crypto/rand.Reader, except in seeded tests. It fails if the workspace has no
// key or random fails.
func (k *Keyring) Mint(workspace string, at time.Time, random io.Reader) (Raw, error) {
	var raw Raw
	keys := k.keysOf(workspace)
	if len(keys) == 0 {
		return raw, fmt.Errorf("minting a token: workspace %q has no token key", workspace)
	}
	binary.BigEndian.PutUint32(raw[:4], SecondsOf(at.UnixMilli()))
	if _, err := io.ReadFull(random, raw[4:macOffset]); err != nil {
		return raw, fmt.Errorf("minting a token: %w", err)
	}
	sum := computeMAC(keys[0], workspace, &raw)
	copy(raw[macOffset:], sum[:])
	return raw, nil
}

// Verify parses text and checks that one of the workspace's keys minted it. The error
// is ErrMalformed or ErrInvalid.
func (k *Keyring) Verify(workspace, text string) (Raw, error) {
	raw, err := Parse(text)
	if err != nil {
		return raw, err
	}
	for _, key := range k.keysOf(workspace) {
		sum := computeMAC(key, workspace, &raw)
		if hmac.Equal(sum[:], raw[macOffset:]) {
			return raw, nil
		}
	}
	return raw, ErrInvalid
}

// computeMAC returns the MAC of the first macOffset bytes of raw. See the package
// comment for its input.
func computeMAC(k *key, workspace string, raw *Raw) (sum [6]byte) {
	h := k.hashers.Get().(hash.Hash)
	defer k.hashers.Put(h)
	h.Reset()
	var in [2 + 255 + macOffset]byte
	b := append(in[:0], macVersion, byte(len(workspace)))
	b = append(append(b, workspace...), raw[:macOffset]...)
	h.Write(b)
	var full [sha256.Size]byte
	copy(sum[:], h.Sum(full[:0]))
	return sum
}
