package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// connectionWatch ends a session one of whose clients lost a connection.
//
// A broker that was away may have lost the markers of our last transaction, whether End
// was answered or not. The client would reconnect and continue, and its next
// transaction would close the last one with a marker of its own. So the session ends,
// and the next one first looks for hanging transactions and reads the committed
// offsets.
//
// It is a hook of the session's clients, which franz-go calls before a client can have
// dialled again.
type connectionWatch struct {
	lost context.CancelCauseFunc
	mu   sync.Mutex
	met  map[string]bool // brokers that there was a connection to
}

// OnBrokerConnect implements kgo.HookBrokerConnect. A broker that was never there is
// not lost.
func (c *connectionWatch) OnBrokerConnect(b kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	addr := net.JoinHostPort(b.Host, fmt.Sprint(b.Port))
	c.mu.Lock()
	if c.met == nil {
		c.met = make(map[string]bool)
	}
	c.met[addr] = c.met[addr] || err == nil
	met := c.met[addr]
	c.mu.Unlock()
	if met {
		c.endIfLost(addr, err)
	}
}

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (c *connectionWatch) OnBrokerE2E(b kgo.BrokerMetadata, _ int16, e kgo.BrokerE2E) {
	if err := e.Err(); err != nil {
		c.endIfLost(net.JoinHostPort(b.Host, fmt.Sprint(b.Port)), err)
	}
}

// endIfLost ends the session unless it was our side that gave up.
func (c *connectionWatch) endIfLost(addr string, err error) {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, net.ErrClosed), errors.Is(err, kgo.ErrClientClosed):
	case strings.Contains(err.Error(), "operation was canceled"):
	// what net says of a dial that is given up
	default:
		c.lost(fmt.Errorf("the connection to %s was lost: %w: %w", addr, err, errSession))
	}
}
