package signature

import (
	"crypto/hmac"
	"net/http"
	"time"
)

// Verified is what a matching signature proves.
type Verified struct {
	KeyID     string    // of the secret that matched; the first in file order if several did
	WebhookID string    // 1 to MaxIDLength characters, valid UTF-8
	Timestamp time.Time // webhook-timestamp in UTC, clamped to the years 1 to 9999
}

type trialSecrets struct {
	secrets []Secret // ring.width of them
	active  int      // the first active ones are in force
	pending int      // the next are in a file that cannot be used; the rest are decoys
	// unreadable: none is active because the workspace's file cannot be used.
	unreadable bool
}

// Verify checks that body and headers were signed with an active secret of the
// workspace (HMAC-SHA256, computeMAC in secret.go), and within Tolerance, five minutes,
// of now. A request that is repeated within this window is genuine too: the processor
// judges a repeated event as a duplicate.
//
// Verify checks first the form of the headers (ErrMissing), then the signatures
// (ErrBad), and only then the clock (ErrStale, ErrFuture): a client without secret
// learns nothing about time or workspace. ErrUnreadable stands in for ErrBad where the
// workspace's file cannot be used, and nothing of it is in force or the secret is in
// another of its lines.
//
// With ErrStale and ErrFuture the result is filled in, because the request is genuine
// and its refusal can be recorded; with any other error it is zero.
func (k *Keyring) Verify(workspace string, h http.Header, body []byte, now time.Time) (Verified, error) {
	c, err := parseClaim(h)
	if err != nil {
		return Verified{}, err
	}
	candidates := k.current.Load().secretsOf(workspace)
	key, _, ok := candidates.matchSignature(c, body)
	switch {
	case !ok && (candidates.unreadable || key != Secret{}):
		return Verified{}, ErrUnreadable
	case !ok:
		return Verified{}, ErrBad
	}
	key.markUsed(now)
	v := Verified{KeyID: key.KeyID(), WebhookID: c.id, Timestamp: clampedUnix(c.timestamp)}
	seconds, tolerance := now.Unix(), int64(Tolerance/time.Second)
	switch {
	case c.timestamp < seconds-tolerance:
		return v, ErrStale
	case c.timestamp >= leastMilliseconds:
		return v, errMilliseconds
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
// signatures, and the number of MACs it computed: width of them unless one matches. If
// none does, key is a pending one that did. A decoy never matches, whatever the bytes.
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
		if equal && i < c.active+c.pending {
			key = secret
		}
	}
	return key, macs, false
}

// clampedUnix converts a timestamp to a time that formats without overflow, even if it
// is genuine but absurd (in milliseconds, or MaxInt64).
func clampedUnix(seconds int64) time.Time {
	const year1, year9999 = -62135596800, 253402300799
	return time.Unix(min(max(seconds, year1), year9999), 0).UTC()
}

// markUsed remembers that the secret signed a request.
func (s Secret) markUsed(now time.Time) {
	usedAt := &(*s.sealed).usedAt
	if seconds := now.Unix(); usedAt.Load() < seconds {
		usedAt.Store(seconds)
	}
}
