package signature

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"sync"
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

	reloading sync.Mutex // guards set
	set       *secretdir.Set[Secret]
}

// A ring is what was in force after one look at the directory. It never changes.
//
// Every workspace, known or not, has exactly width secrets to try: its own, then
// decoys. So a refusal costs width MACs over the body for any name, and its duration
// tells neither whether the workspace exists nor how many secrets it has.
type ring struct {
	workspaces map[string]trialSecrets
	unknown    trialSecrets // of every other name: decoys only
	width      int          // the most secrets that a workspace has to try, at least one
}

// LoadKeyring reads a directory in the form of package secretdir, with secrets
// "whsec_…", all of which are active. A file without secret, with more than MaxSecrets
// or with the same secret twice cannot be used; such files are in Findings, by file and
// line, and Verify answers their workspaces ErrUnreadable. The error is that the
// directory cannot be read or has no workspace's file.
func LoadKeyring(dir fs.FS) (*Keyring, error) {
	set, err := secretdir.Load(dir, secretdir.Format[Secret]{
		Parse:    parseLine,
		Check:    checkSecrets,
		KeepLast: true,
	})
	if err == nil && set.Findings().Files == 0 {
		err = errors.New("the directory has no workspace's file")
	}
	k := &Keyring{set: set}
	if err == nil {
		err = k.putInForce()
	}
	if err != nil {
		return nil, fmt.Errorf("loading signing secrets: %w", err)
	}
	return k, nil
}

// Findings returns what the newest look at the directory found.
func (k *Keyring) Findings() secretdir.Findings {
	k.reloading.Lock()
	defer k.reloading.Unlock()
	return k.set.Findings()
}

// Reload looks at the directory again; see package secretdir for when a change counts.
// A file that cannot be used leaves its workspace the secrets from before, but for
// those that it readably lacks.
func (k *Keyring) Reload() secretdir.Findings {
	k.reloading.Lock()
	defer k.reloading.Unlock()
	findings := k.set.Reload()
	if err := k.putInForce(); err != nil { // what was in force stays
		findings.Problems = append(findings.Problems, &secretdir.Problem{Err: err})
	}
	return findings
}

// Size returns the number of workspaces and of their active secrets.
func (k *Keyring) Size() (workspaces, secrets int) {
	loaded := k.current.Load()
	for _, c := range loaded.workspaces {
		secrets += c.active
	}
	return len(loaded.workspaces), secrets
}

// Uses returns when each active secret last signed a request.
func (k *Keyring) Uses() []secretdir.Use {
	var uses []secretdir.Use
	for workspace, c := range k.current.Load().workspaces {
		for _, secret := range c.secrets[:c.active] {
			use := secretdir.Use{Workspace: workspace, KeyID: secret.KeyID()}
			if at := (*secret.sealed).usedAt.Load(); at != 0 {
				use.At = time.Unix(at, 0)
			}
			uses = append(uses, use)
		}
	}
	return uses
}

// putInForce makes a ring of what the set has in force. The error is that there are no
// random bytes for decoys.
func (k *Keyring) putInForce() error {
	inForce := k.set.InForce()
	r := &ring{workspaces: make(map[string]trialSecrets, len(inForce)), width: 1}
	for workspace, held := range inForce {
		pending := held.Pending[:min(len(held.Pending), MaxSecrets)]
		c := trialSecrets{
			secrets:    append(held.Values, pending...),
			active:     len(held.Values),
			pending:    len(pending),
			unreadable: held.Unreadable && len(held.Values) == 0,
		}
		r.workspaces[workspace] = c
		r.width = max(r.width, len(c.secrets))
	}
	if err := r.fillWithDecoys(); err != nil {
		return err
	}
	k.current.Store(r)
	return nil
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
		c.secrets = append(c.secrets, decoys[len(c.secrets):]...)
		r.workspaces[name] = c
	}
	r.unknown = trialSecrets{secrets: decoys}
	return nil
}

func parseLine(_ string, line secretdir.Line) (Secret, error) {
	secret, err := ParseSecret(line.Text)
	if err != nil {
		return Secret{}, line.Errorf("%w", err)
	}
	return secret, nil
}

// checkSecrets judges the active secrets of one workspace as a whole.
func checkSecrets(entries []secretdir.Entry[Secret]) error {
	firstLine := make(map[string]int, len(entries)) // of each secret, by its text
	for i, e := range entries {
		if first, ok := firstLine[e.Line.Text]; ok {
			return e.Line.Errorf("the same secret as on line %d", first)
		}
		firstLine[e.Line.Text] = e.Line.Number
		if i == MaxSecrets {
			return e.Line.Errorf("more than %d secrets", MaxSecrets)
		}
	}
	if len(entries) == 0 {
		return errors.New("no secret in it")
	}
	return nil
}
