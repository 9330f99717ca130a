package signature

import (
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/nimriz/partners/schemas/secretdir"
)

// MaxSecrets is the largest number of active secrets of a workspace.
const MaxSecrets = 8

// A Keyring verifies requests against the active secrets of every workspace. It is safe
// for concurrent use, with Reload too.
type Keyring struct {
	current atomic.Pointer[ring]
}

// Verified is what a matching signature proves.
type Verified struct {
	KeyID     string    // of the secret that matched; the first in file order if several did
	WebhookID string    // 1 to MaxIDLength characters, valid UTF-8
	Timestamp time.Time // webhook-timestamp in UTC, clamped to the years 1 to 9999
}

// A ring is one loaded directory. It never changes.
//
// Every workspace, known or not, has exactly width secrets to try: its own, then
// decoys. So a refusal costs width MACs over the body for any name, and its duration
// tells neither whether the workspace exists nor how many secrets it has.
type ring struct {
	workspaces map[string]trialSecrets
	unknown    trialSecrets // of every other name: decoys only
	width      int          // the most secrets that a workspace has
}

type trialSecrets struct {
	secrets []Secret // ring.width of them
	active  int      // the first active ones are real, the rest decoys
}

// LoadKeyring reads a directory in the form of package secretdir, with secrets
// "whsec_…", all of which are active. An error names the file and the line, never the
// secret. A file without secret, with more than MaxSecrets or with the same secret
// twice is an error, and so is a directory without files.
func LoadKeyring(dir fs.FS) (*Keyring, error) {
	k := new(Keyring)
	if err := k.Reload(dir); err != nil {
		return nil, err
	}
	return k, nil
}

// Reload reads the directory again, as LoadKeyring does, and replaces all secrets at
// once. After an error the old secrets stay active.
func (k *Keyring) Reload(dir fs.FS) error {
	loaded, err := loadRing(dir)
	if err != nil {
		return fmt.Errorf("loading signing secrets: %w", err)
	}
	k.current.Store(loaded)
	return nil
}

// Size returns the number of workspaces and of their active secrets.
func (k *Keyring) Size() (workspaces, secrets int) {
	loaded := k.current.Load()
	for _, c := range loaded.workspaces {
		secrets += c.active
	}
	return len(loaded.workspaces), secrets
}

// Verify checks that body and headers were signed with an active secret of the
// workspace, and recently. It checks first the form of the headers (ErrMissing), then
// the signatures (ErrBad), and only then the clock (ErrStale, ErrFuture): a client
// without secret learns nothing about time or workspace.
//
// With ErrStale and ErrFuture the result is filled in, because the request is genuine
// and its refusal can be recorded; with any other error it is zero.
func (k *Keyring) Verify(workspace string, h http.Header, body []byte, now time.Time) (Verified, error) {
	c, err := parseClaim(h)
	if err != nil {
		return Verified{}, err
	}
	key, _, ok := k.current.Load().secretsOf(workspace).matchSignature(c, body)
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

// secretsOf never fails: an unknown workspace has decoys only.
func (r *ring) secretsOf(workspace string) trialSecrets {
	if c, ok := r.workspaces[workspace]; ok {
		return c
	}
	return r.unknown
}

// matchSignature returns the first active secret that made one of the claim's
// signatures, and the number of MACs it computed: width of them unless one matches. A
// decoy never matches, whatever the bytes.
func (c trialSecrets) matchSignature(signed claim, body []byte) (key Secret, macs int, ok bool) {
	for i, secret := range c.secrets {
		sum := secret.computeMAC(signed.head, body)
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

// clampedUnix converts a timestamp to a time that formats without overflow, even if it
// is genuine but absurd (in milliseconds, or MaxInt64).
func clampedUnix(seconds int64) time.Time {
	const year1, year9999 = -62135596800, 253402300799
	return time.Unix(min(max(seconds, year1), year9999), 0).UTC()
}

func loadRing(dir fs.FS) (*ring, error) {
	secrets, err := secretdir.Load(dir, parseSecrets)
	if err != nil {
		return nil, err
	}
	if len(secrets) == 0 {
		return nil, errors.New("the directory has no workspace's file")
	}
	r := &ring{workspaces: make(map[string]trialSecrets, len(secrets))}
	for workspace, active := range secrets {
		r.workspaces[workspace] = trialSecrets{secrets: active, active: len(active)}
		r.width = max(r.width, len(active))
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
	r.unknown = trialSecrets{secrets: decoys}
	return nil
}

// parseSecrets reads the active secrets of one workspace.
func parseSecrets(file secretdir.File) ([]Secret, error) {
	var secrets []Secret
	firstLine := make(map[string]int) // of each secret, by its text
	for _, line := range file.Lines {
		secret, err := ParseSecret(line.Text)
		if err != nil {
			return nil, line.Errorf("%w", err)
		}
		if first, ok := firstLine[line.Text]; ok {
			return nil, line.Errorf("the same secret as on line %d", first)
		}
		firstLine[line.Text] = line.Number
		if len(secrets) == MaxSecrets {
			return nil, line.Errorf("more than %d secrets", MaxSecrets)
		}
		secrets = append(secrets, secret)
	}
	if len(secrets) == 0 {
		return nil, errors.New("no secret in it")
	}
	return secrets, nil
}
