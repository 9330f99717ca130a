package ingest

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru"
	"golang.org/x/time/rate"
)

// maxPrefixes bounds the memory of the unverified limit (about 2 MB). A network that is pushed out begins with a full bucket again.
const maxPrefixes = 16384

// A budget is what one workspace may use.
type budget struct {
	events     *rate.Limiter
	rejections *rate.Limiter // so that a flood of refused requests does not become a flood of records
}

// limits holds a budget for each verified workspace, of which there are only as many as have secrets, and a bucket for each network that failed verification.
type limits struct {
	cfg      Config
	mu       sync.Mutex
	budgets  map[string]budget
	networks *lru.Cache // netip.Prefix → *rate.Limiter
}

func newLimits(cfg Config) (*limits, error) {
	networks, err := lru.New(maxPrefixes)
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
		b = budget{events: rate.NewLimiter(rate.Limit(l.cfg.Rate), l.cfg.Burst), rejections: rate.NewLimiter(rate.Limit(l.cfg.Rate), l.cfg.Burst)}
		l.budgets[id] = b
	}
	return b
}

// unverified charges the network of a remote address for one request that failed verification.
func (l *limits) unverified(remote string, now time.Time) (wait time.Duration) {
	key := networkOf(remote)
	fresh := rate.NewLimiter(rate.Limit(l.cfg.UnverifiedRate), l.cfg.UnverifiedBurst)
	if known, ok, _ := l.networks.PeekOrAdd(key, fresh); ok {
		l.networks.Get(key) // PeekOrAdd does not count as a use
		fresh = known.(*rate.Limiter)
	}
	return charge(fresh, now, 1)
}

// charge takes n from a bucket, or takes nothing and says how long to wait for them.
func charge(l *rate.Limiter, now time.Time, n int) (wait time.Duration) {
	r := l.ReserveN(now, n)
	if !r.OK() { // more than the bucket ever holds
		return time.Second
	}
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// networkOf is the /24 or /48 of a net/http remote address. All that cannot be read share one network.
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
