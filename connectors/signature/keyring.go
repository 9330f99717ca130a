package signature

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"

	"github.com/nimriz/partners/schemas/secretdir"
)

// MaxSecrets is the largest number of active secrets of a workspace.
const MaxSecrets = 8

// A Keyring verifies requests against the active secrets of every workspace. It is safe
// for concurrent use, with Reload too.
type Keyring struct {
	current atomic.Pointer[ring]
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
