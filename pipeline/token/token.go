package token

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/ksuid"
)

// Raw is a token's 20 bytes, the form in which stores keep it.
type Raw = [20]byte

const (
	// Len is the length of a token's text.
	Len = 27
	// epoch is KSUID's, in unix seconds.
	epoch    = 1_400_000_000
	macAt    = 14
	minKey   = 16
	version1 = 1
)

// Errors of Parse and Verify.
var (
	ErrMalformed = errors.New("malformed token: want 27 base62 characters")
	ErrInvalid   = errors.New("invalid token: not minted for this workspace")
)

// Parse reads a token's text without judging its MAC. One token has one text: ksuid
// takes other characters for digits ('@' for '3'), and two texts of one token would be
// two keys in Kafka, perhaps in two partitions.
func Parse(text string) (Raw, error) {
	raw, ok := decode(text)
	if !ok {
		return Raw{}, ErrMalformed
	}
	return raw, nil
}

// Text returns the 27 characters of raw.
func Text(raw *Raw) string { return ksuid.KSUID(*raw).String() }

// Seconds returns the mint time in seconds since KSUID's epoch: what the first four
// bytes say.
func Seconds(raw *Raw) uint32 { return binary.BigEndian.Uint32(raw[:4]) }

// Time returns the mint time, to the second.
func Time(raw *Raw) time.Time { return time.Unix(epoch+int64(Seconds(raw)), 0).UTC() }

// SecondsOf converts a unix time in milliseconds into seconds since KSUID's epoch;
// times before it are 0.
func SecondsOf(unixMillis int64) uint32 {
	s := unixMillis/1000 - epoch
	return uint32(min(max(s, 0), 1<<32-1))
}

// Keyring holds the keys of all workspaces. The first key of a workspace mints, all of
// them verify. It is safe for concurrent use, with Reload too.
type Keyring struct {
	keys atomic.Pointer[map[string][]*key]
}

// key keeps keyed hashers: setting one up costs twice what the MAC of a token costs.
type key struct{ hashers sync.Pool }

func newKey(secret []byte) *key {
	return &key{hashers: sync.Pool{New: func() any { return hmac.New(sha256.New, secret) }}}
}

// LoadKeyring reads one file per workspace id from dir, one base64 key of at least 16
// bytes on each line; blank lines and lines that begin with # are skipped. Errors name
// file and line, never a key.
func LoadKeyring(dir fs.FS) (*Keyring, error) {
	k := new(Keyring)
	if err := k.Reload(dir); err != nil {
		return nil, err
	}
	return k, nil
}

// Reload reads the directory again, as LoadKeyring does, and puts what it holds in
// place at once. On an error the keys from before stay in force.
func (k *Keyring) Reload(dir fs.FS) error {
	keys, err := loadKeys(dir)
	if before := k.keys.Load(); err == nil && len(keys) == 0 && before != nil && len(*before) > 0 {
		err = errors.New("the directory has no workspace's file any more")
	}
	if err != nil {
		return fmt.Errorf("reading token keys: %w", err)
	}
	k.keys.Store(&keys)
	return nil
}

func loadKeys(dir fs.FS) (map[string][]*key, error) {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, err
	}
	keys := make(map[string][]*key)
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		data, err := fs.ReadFile(dir, e.Name())
		if err != nil {
			return nil, err
		}
		sc, line := bufio.NewScanner(bytes.NewReader(data)), 0
		for sc.Scan() {
			line++
			text := strings.TrimSpace(sc.Text())
			if text == "" || text[0] == '#' {
				continue
			}
			secret, err := base64.StdEncoding.DecodeString(text)
			if err != nil || len(secret) < minKey {
				return nil, fmt.Errorf("%s line %d: want standard base64 of at least %d bytes", e.Name(), line, minKey)
			}
			keys[e.Name()] = append(keys[e.Name()], newKey(secret))
		}
		if err := sc.Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		if len(keys[e.Name()]) == 0 {
			return nil, fmt.Errorf("%s holds no key", e.Name())
		}
	}
	return keys, nil
}

// NewKey makes the line of a key file from 32 bytes of random.
func NewKey(random io.Reader) (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("making a token key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(b[:]), nil
}

func (k *Keyring) of(workspace string) []*key { return (*k.keys.Load())[workspace] }

// Has reports whether the workspace has a key.
func (k *Keyring) Has(workspace string) bool { return len(k.of(workspace)) > 0 }

// Mint makes a token of the workspace for the given time, with ten bytes from random
// (crypto/rand.Reader but in seeded tests).
func (k *Keyring) Mint(workspace string, at time.Time, random io.Reader) (Raw, error) {
	var raw Raw
	keys := k.of(workspace)
	if len(keys) == 0 {
		return raw, fmt.Errorf("minting a token: workspace %q has no token key", workspace)
	}
	binary.BigEndian.PutUint32(raw[:4], SecondsOf(at.UnixMilli()))
	if _, err := io.ReadFull(random, raw[4:macAt]); err != nil {
		return raw, fmt.Errorf("minting a token: %w", err)
	}
	sum := mac(keys[0], workspace, &raw)
	copy(raw[macAt:], sum[:])
	return raw, nil
}

// Verify parses text and checks that one of the workspace's keys minted it. Errors are
// ErrMalformed and ErrInvalid.
func (k *Keyring) Verify(workspace, text string) (Raw, error) {
	raw, err := Parse(text)
	if err != nil {
		return raw, err
	}
	for _, key := range k.of(workspace) {
		sum := mac(key, workspace, &raw)
		if hmac.Equal(sum[:], raw[macAt:]) {
			return raw, nil
		}
	}
	return raw, ErrInvalid
}

func mac(k *key, workspace string, raw *Raw) (sum [6]byte) {
	h := k.hashers.Get().(hash.Hash)
	defer k.hashers.Put(h)
	h.Reset()
	var in [2 + 255 + macAt]byte
	b := append(in[:0], version1, byte(len(workspace)))
	b = append(append(b, workspace...), raw[:macAt]...)
	h.Write(b)
	var full [sha256.Size]byte
	copy(sum[:], h.Sum(full[:0]))
	return sum
}
