package ingest

import (
	"fmt"
	"math"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// maxPrefixes bounds the number of networks that are remembered, about 2 MB. A network
// that is evicted starts with a full bucket again.
const maxPrefixes = 16384

// A budget holds the limits of one workspace.
type budget struct {
	events     *bucket
	rejections *bucket // so that a flood of refused requests does not become a flood of records
}

// A bucket is a rate.Limiter whose callers read the clock at different times before
// they get the lock. A plain Limiter would move back to an earlier time and then refill
// the same interval twice; a bucket only moves forward. It never reserves tokens to
// cancel later: a cancelled reservation loses what others took meanwhile.
type bucket struct {
	mu      sync.Mutex
	limiter *rate.Limiter
	latest  time.Time // the latest clock reading of any caller
}

func newBucket(perSecond float64, burst int) *bucket {
	return &bucket{limiter: rate.NewLimiter(rate.Limit(perSecond), burst)}
}

// takeTokens takes n tokens, or takes none and returns how long to wait for them.
func (b *bucket) takeTokens(now time.Time, n int) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.After(b.latest) {
		b.latest = now
	}
	if b.limiter.AllowN(b.latest, n) {
		return 0
	}
	return b.timeUntil(n)
}

// waitTime returns how long to wait for n tokens. It takes none.
func (b *bucket) waitTime(now time.Time, n int) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.After(b.latest) {
		b.latest = now
	}
	return b.timeUntil(n)
}

// timeUntil returns the time until the bucket has n tokens; until it is full if it
// cannot have as many. The caller holds b.mu.
func (b *bucket) timeUntil(n int) time.Duration {
	missing := min(float64(n), float64(b.limiter.Burst())) - b.limiter.TokensAt(b.latest)
	if missing <= 0 {
		if n > b.limiter.Burst() {
			return time.Second
		}
		return 0
	}
	return time.Duration(math.Ceil(missing / float64(b.limiter.Limit()) * float64(time.Second)))
}

// rateLimits holds a budget for each workspace with a verified request, which are at
// most those with secrets, and a bucket for each network with a request that failed
// verification.
type rateLimits struct {
	cfg      Config
	mu       sync.Mutex // guards budgets
	budgets  map[string]budget
	networks *lru.Cache[netip.Prefix, *bucket]
}

func newRateLimits(cfg Config) (*rateLimits, error) {
	networks, err := lru.New[netip.Prefix, *bucket](maxPrefixes)
	if err != nil {
		return nil, fmt.Errorf("making the limits: %w", err)
	}
	return &rateLimits{cfg: cfg, budgets: make(map[string]budget), networks: networks}, nil
}

func (l *rateLimits) budgetOf(id string) budget {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.budgets[id]
	if !ok {
		b = budget{events: newBucket(l.cfg.Rate, l.cfg.Burst), rejections: newBucket(l.cfg.Rate, l.cfg.Burst)}
		l.budgets[id] = b
	}
	return b
}

// chargeUnverified charges a sender's network for a request that failed verification. It
// returns how long to wait if the network is over its limit, else 0.
func (l *rateLimits) chargeUnverified(sender netip.Addr, now time.Time) (wait time.Duration) {
	key := networkOf(sender)
	fresh := newBucket(l.cfg.UnverifiedRate, l.cfg.UnverifiedBurst)
	if known, ok, _ := l.networks.PeekOrAdd(key, fresh); ok {
		l.networks.Get(key) // PeekOrAdd does not count as a use
		fresh = known
	}
	return fresh.takeTokens(now, 1)
}

// networkOf returns the /24 or /48 of an address. All senders that are not known share
// one network.
func networkOf(sender netip.Addr) netip.Prefix {
	bits := 48
	if sender.Is4() {
		bits = 24
	}
	p, err := sender.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
