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

// maxPrefixes bounds the memory of the unverified limit (about 2 MB). A network that is
// pushed out begins with a full bucket again.
const maxPrefixes = 16384

// A budget is what one workspace may use.
type budget struct {
	events     *bucket
	rejections *bucket // so that a flood of refused requests does not become a flood of records
}

// A bucket is a rate.Limiter for those who looked at the clock at different times
// before they came: the limiter itself would go back with each, and give the time in
// between once more. And nothing is reserved to be given back, which loses what others
// took meanwhile.
type bucket struct {
	mu      sync.Mutex
	limiter *rate.Limiter
	latest  time.Time
}

func newBucket(perSecond float64, burst int) *bucket {
	return &bucket{limiter: rate.NewLimiter(rate.Limit(perSecond), burst)}
}

// take takes n, or takes nothing and says how long to wait for them.
func (b *bucket) take(now time.Time, n int) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.After(b.latest) {
		b.latest = now
	}
	if b.limiter.AllowN(b.latest, n) {
		return 0
	}
	return b.until(n)
}

// wait says how long to wait for n, and takes nothing.
func (b *bucket) wait(now time.Time, n int) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.After(b.latest) {
		b.latest = now
	}
	return b.until(n)
}

// until is the time to n tokens; to a full bucket if it never holds as many. b.mu is
// held.
func (b *bucket) until(n int) time.Duration {
	missing := min(float64(n), float64(b.limiter.Burst())) - b.limiter.TokensAt(b.latest)
	if missing <= 0 {
		if n > b.limiter.Burst() {
			return time.Second
		}
		return 0
	}
	return time.Duration(math.Ceil(missing / float64(b.limiter.Limit()) * float64(time.Second)))
}

// limits holds a budget for each verified workspace, of which there are only as many as
// have secrets, and a bucket for each network that failed verification.
type limits struct {
	cfg      Config
	mu       sync.Mutex
	budgets  map[string]budget
	networks *lru.Cache[netip.Prefix, *bucket]
}

func newLimits(cfg Config) (*limits, error) {
	networks, err := lru.New[netip.Prefix, *bucket](maxPrefixes)
	if err != nil {
		return nil, fmt.Errorf("making the limits: %w", err)
	}
	return &limits{cfg: cfg, budgets: make(map[string]budget), networks: networks}, nil
}

func (l *limits) workspace(id string) budget {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.budgets[id]
	if !ok {
		b = budget{events: newBucket(l.cfg.Rate, l.cfg.Burst), rejections: newBucket(l.cfg.Rate, l.cfg.Burst)}
		l.budgets[id] = b
	}
	return b
}

// unverified charges the network of a remote address for one request that failed
// verification.
func (l *limits) unverified(remote string, now time.Time) (wait time.Duration) {
	key := networkOf(remote)
	fresh := newBucket(l.cfg.UnverifiedRate, l.cfg.UnverifiedBurst)
	if known, ok, _ := l.networks.PeekOrAdd(key, fresh); ok {
		l.networks.Get(key) // PeekOrAdd does not count as a use
		fresh = known
	}
	return fresh.take(now, 1)
}

// networkOf is the /24 or /48 of a net/http remote address. All that cannot be read
// share one network.
func networkOf(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := at.Addr().Unmap().WithZone(""), 48
	if addr.Is4() {
		bits = 24
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
