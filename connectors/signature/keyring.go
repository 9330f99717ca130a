package signature

import (
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// MaxSecrets is how many secrets of one workspace can be active at a time.
const MaxSecrets = 8

// A Keyring verifies requests against the active secrets of every workspace. It is safe
// for concurrent use, with Reload too.
type Keyring struct {
	current atomic.Pointer[ring]
}

// Verified is what a matching signature vouches for.
type Verified struct {
	KeyID     string    // of the secret that matched; the first in file order if several did
	WebhookID string    // 1 to MaxIDLength characters, valid UTF-8
	Timestamp time.Time // webhook-timestamp in UTC; within years 1 to 9999 where the header is not
}

// A ring is one loaded directory; it never changes.
//
// Every workspace, known or not, has exactly width secrets to try: its own, then
// decoys. So a refusal costs width MACs over the body for any name, and its time tells
// neither whether the workspace exists nor how many secrets it has.
type ring struct {
	workspaces map[string]candidates
	unknown    candidates
	width      int
}

type candidates struct {
	secrets []Secret // ring.width of them
	active  int      // the first active ones are real, the rest decoys
}

// LoadKeyring reads one file per workspace, named by the workspace's id, with one
// secret "whsec_…" a line; all of them are active. Blank lines and lines that start
// with # are ignored, and so are files whose name starts with a dot, which is how
// Kubernetes mounts a secret. Anything else is an error that names the file and the
// line, never the secret: a bad id as file name, a directory, a file without a secret,
// more than MaxSecrets, the same secret twice in a file, an empty directory.
func LoadKeyring(dir fs.FS) (*Keyring, error) {
	k := new(Keyring)
	if err := k.Reload(dir); err != nil {
		return nil, err
	}
	return k, nil
}

// Reload reads the directory again, as LoadKeyring does, and puts what it holds in
// place at once. On an error the secrets from before stay active.
func (k *Keyring) Reload(dir fs.FS) error {
	loaded, err := loadRing(dir)
	if err != nil {
		return fmt.Errorf("loading signing secrets: %w", err)
	}
	k.current.Store(loaded)
	return nil
}

// Size counts the workspaces and their active secrets, for the operator's log.
func (k *Keyring) Size() (workspaces, secrets int) {
	loaded := k.current.Load()
	for _, c := range loaded.workspaces {
		secrets += c.active
	}
	return len(loaded.workspaces), secrets
}

// Verify checks that body and headers were signed with an active secret of the
// workspace, and recently. It looks first at the form of the headers (ErrMissing), then
// at the signatures (ErrBad), and only then at the clock (ErrStale, ErrFuture): whoever
// holds no secret learns nothing about time or workspace.
//
// With ErrStale and ErrFuture the result is filled in, as the request is genuine and
// its refusal can be put on record; with any other error it is zero.
func (k *Keyring) Verify(workspace string, h http.Header, body []byte, now time.Time) (Verified, error) {
	c, err := parseClaim(h)
	if err != nil {
		return Verified{}, err
	}
	key, _, ok := k.current.Load().candidates(workspace).match(c, body)
	if !ok {
		return Verified{}, ErrBad
	}
	v := Verified{KeyID: key.KeyID(), WebhookID: c.id, Timestamp: clampedUnix(c.timestamp)}
	seconds, tolerance := now.Unix(), int64(Tolerance/time.Second)
	switch {
	case c.timestamp < seconds-tolerance:
		return v, ErrStale
	case c.timestamp > seconds+tolerance:
		return v, ErrFuture
	}
	return v, nil
}

// candidates never fails: an unknown workspace has decoys only.
func (r *ring) candidates(workspace string) candidates {
	if c, ok := r.workspaces[workspace]; ok {
		return c
	}
	return r.unknown
}

// match finds the first active secret that made one of the claim's signatures, and
// counts the MACs it computed: all of them unless it found one. A decoy never matches,
// whatever the bytes.
func (c candidates) match(signed claim, body []byte) (key Secret, macs int, ok bool) {
	for i, secret := range c.secrets {
		sum := secret.mac(signed.head, body)
		macs++
		equal := false
		for _, signature := range signed.signatures {
			equal = hmac.Equal(sum[:], signature[:]) || equal
		}
		if equal && i < c.active {
			return secret, macs, true
		}
	}
	return Secret{}, macs, false
}

// clampedUnix keeps a genuine but absurd timestamp (milliseconds, MaxInt64) a time that
// formats and converts without overflow.
func clampedUnix(seconds int64) time.Time {
	const year1, year9999 = -62135596800, 253402300799
	return time.Unix(min(max(seconds, year1), year9999), 0).UTC()
}

func loadRing(dir fs.FS) (*ring, error) {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, err
	}
	r := &ring{workspaces: make(map[string]candidates)}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		if !isWorkspaceID(name) {
			return nil, fmt.Errorf("file %q: a file is named by its workspace, [a-z0-9-]{1,64}", name)
		}
		text, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", name, err)
		}
		secrets, err := parseSecrets(name, string(text))
		if err != nil {
			return nil, err
		}
		r.workspaces[name] = candidates{secrets: secrets, active: len(secrets)}
		r.width = max(r.width, len(secrets))
	}
	if len(r.workspaces) == 0 {
		return nil, errors.New("the directory has no workspace's file")
	}
	return r, r.fillWithDecoys()
}

// fillWithDecoys gives every candidate list the same length; see ring.
func (r *ring) fillWithDecoys() error {
	decoys := make([]Secret, r.width)
	for i := range decoys {
		var err error
		if decoys[i], err = NewSecret(rand.Reader); err != nil {
			return err
		}
	}
	for name, c := range r.workspaces {
		c.secrets = append(c.secrets, decoys[c.active:]...)
		r.workspaces[name] = c
	}
	r.unknown = candidates{secrets: decoys}
	return nil
}

func parseSecrets(file, text string) ([]Secret, error) {
	var secrets []Secret
	lineOf := make(map[string]int)
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		secret, err := ParseSecret(line)
		if err != nil {
			return nil, fmt.Errorf("file %q, line %d: %w", file, number, err)
		}
		if first, ok := lineOf[line]; ok {
			return nil, fmt.Errorf("file %q, line %d: the same secret as on line %d", file, number, first)
		}
		lineOf[line] = number
		if len(secrets) == MaxSecrets {
			return nil, fmt.Errorf("file %q, line %d: more than %d secrets", file, number, MaxSecrets)
		}
		secrets = append(secrets, secret)
	}
	if len(secrets) == 0 {
		return nil, fmt.Errorf("file %q: no secret in it", file)
	}
	return secrets, nil
}

func isWorkspaceID(name string) bool {
	if len(name) < 1 || len(name) > 64 {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
