package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

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

// Errors of Parse and Verify, and of Mint.
var (
	ErrMalformed = errors.New("malformed token: want 27 base62 characters")
	ErrInvalid   = errors.New("invalid token: not minted for this workspace")
	ErrNoKey     = errors.New("the workspace has no token key")
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
func Text(raw *Raw) string {
	text := encodeText(raw)
	return string(text[:])
}

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

	reloading sync.Mutex // guards set
	set       *secretdir.Set[*key]
}

// key pools keyed hashers: setting one up costs twice as much as the MAC of a token.
type key struct {
	hashers sync.Pool    // *hasher
	id      string       // see KeyID
	usedAt  atomic.Int64 // when it last minted or verified, Unix seconds; 0: not yet
}

func newKey(text string, secret []byte) *key {
	return &key{
		hashers: sync.Pool{New: func() any { return &hasher{mac: hmac.New(sha256.New, secret)} }},
		id:      KeyID(text),
	}
}

// KeyID names a key without revealing it: the first 8 hex digits of the SHA-256 of its
// line.
func KeyID(line string) string {
	digest := sha256.Sum256([]byte(line))
	return hex.EncodeToString(digest[:4])
}

// LoadKeyring reads one file per workspace from dir, named by the workspace's id, with
// one base64 key of at least 16 bytes a line, in the form of package secretdir. Files
// that cannot be used are in Findings, by file and line; their workspaces have no key.
// The error is that the directory cannot be read.
func LoadKeyring(dir fs.FS) (*Keyring, error) {
	set, err := secretdir.Load(dir, secretdir.Format[*key]{
		Parse:    parseKey,
		Check:    checkKeys,
		KeepLast: true,
	})
	if err != nil {
		return nil, fmt.Errorf("reading token keys: %w", err)
	}
	k := &Keyring{set: set}
	k.putInForce()
	return k, nil
}

// Findings returns what the newest look at the directory found.
func (k *Keyring) Findings() secretdir.Findings {
	k.reloading.Lock()
	defer k.reloading.Unlock()
	return k.set.Findings()
}

// Reload looks at the directory again; see package secretdir for when a change counts.
// A file that cannot be used leaves its workspace the keys from before, but for those
// that it readably lacks.
func (k *Keyring) Reload() secretdir.Findings {
	k.reloading.Lock()
	defer k.reloading.Unlock()
	findings := k.set.Reload()
	k.putInForce()
	return findings
}

func (k *Keyring) putInForce() {
	inForce := k.set.InForce()
	keys := make(map[string][]*key, len(inForce))
	for workspace, held := range inForce {
		keys[workspace] = held.Values
	}
	k.keys.Store(&keys)
}

// Uses returns when each key last minted or verified a token.
func (k *Keyring) Uses() []secretdir.Use {
	var uses []secretdir.Use
	for workspace, keys := range *k.keys.Load() {
		for _, one := range keys {
			use := secretdir.Use{Workspace: workspace, KeyID: one.id}
			if at := one.usedAt.Load(); at != 0 {
				use.At = time.Unix(at, 0)
			}
			uses = append(uses, use)
		}
	}
	return uses
}

func parseKey(_ string, line secretdir.Line) (*key, error) {
	secret, err := base64.StdEncoding.DecodeString(line.Text)
	if err != nil || len(secret) < minKeyBytes {
		return nil, line.Errorf("want standard base64 of at least %d bytes", minKeyBytes)
	}
	return newKey(line.Text, secret), nil
}

func checkKeys(entries []secretdir.Entry[*key]) error {
	if len(entries) == 0 {
		return errors.New("no key in it")
	}
	return nil
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
// random: crypto/rand.Reader, except in seeded tests. It fails with ErrNoKey, or if
// random fails.
func (k *Keyring) Mint(workspace string, at time.Time, random io.Reader) (Raw, error) {
	var raw Raw
	keys := k.keysOf(workspace)
	if len(keys) == 0 {
		return raw, fmt.Errorf("minting a token: workspace %q: %w", workspace, ErrNoKey)
	}
	binary.BigEndian.PutUint32(raw[:4], SecondsOf(at.UnixMilli()))
	if _, err := io.ReadFull(random, raw[4:macOffset]); err != nil {
		return raw, fmt.Errorf("minting a token: %w", err)
	}
	keys[0].markUsed()
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
			key.markUsed()
			return raw, nil
		}
	}
	return raw, ErrInvalid
}

// markUsed remembers that the key minted or verified a token.
func (k *key) markUsed() {
	if now := time.Now().Unix(); k.usedAt.Load() < now {
		k.usedAt.Store(now)
	}
}

// Unsigned returns a token that no key signed, with ten bytes read from random and six
// more in place of the MAC. It names a click that its visitor does not get to see: it
// verifies in no workspace.
func Unsigned(at time.Time, random io.Reader) (raw Raw, err error) {
	binary.BigEndian.PutUint32(raw[:4], SecondsOf(at.UnixMilli()))
	if _, err := io.ReadFull(random, raw[4:]); err != nil {
		return raw, fmt.Errorf("making a token without key: %w", err)
	}
	return raw, nil
}

// hasher computes MACs with one key. Its memory would otherwise be allocated for each.
type hasher struct {
	mac hash.Hash
	in  [2 + 255 + macOffset]byte
	sum [sha256.Size]byte
}

// computeMAC returns the MAC of the first macOffset bytes of raw. See the package
// comment for its input.
func computeMAC(k *key, workspace string, raw *Raw) (sum [6]byte) {
	h := k.hashers.Get().(*hasher)
	h.mac.Reset()
	b := append(h.in[:0], macVersion, byte(len(workspace)))
	b = append(append(b, workspace...), raw[:macOffset]...)
	h.mac.Write(b)
	copy(sum[:], h.mac.Sum(h.sum[:0]))
	k.hashers.Put(h)
	return sum
}
