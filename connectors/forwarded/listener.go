package forwarded

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pires/go-proxyproto"
)

// headerTimeout bounds the wait for a header of the PROXY protocol. A proxy sends it at
// once.
const headerTimeout = 5 * time.Second

// complaintInterval is the least time between two log lines about refused connections.
const complaintInterval = time.Minute

// Listen returns a listener whose connections have the addresses that trusted proxies
// give in the PROXY protocol, or ln itself if Config.ProxyProtocol is off. A connection
// of a trusted proxy without a valid header can be neither read nor written. Other
// peers have their own address; a header of theirs is nothing special.
func (p *Proxies) Listen(ln net.Listener) net.Listener {
	if p == nil || !p.cfg.ProxyProtocol {
		return ln
	}
	return &proxyListener{ln, p}
}

// proxyListener accepts connections of clients and of trusted proxies.
type proxyListener struct {
	net.Listener
	proxies *Proxies
}

// Accept implements net.Listener. It does not wait for the header.
func (l *proxyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if peer := addrOf(conn.RemoteAddr().String()); !l.proxies.cfg.isTrusted(peer.Unmap().WithZone("")) {
		l.proxies.connections[directConnection].Inc()
		return conn, nil
	}
	raw := &startedConn{Conn: conn}
	return &proxiedConn{
		Conn: proxyproto.NewConn(raw, proxyproto.WithPolicy(proxyproto.REQUIRE),
			proxyproto.SetReadHeaderTimeout(headerTimeout)),
		raw:     raw,
		proxies: l.proxies,
	}, nil
}

// startedConn knows whether its peer has sent anything. Some health checks do not.
type startedConn struct {
	net.Conn
	started atomic.Bool
}

// Read implements net.Conn.
func (c *startedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.started.Store(true)
	}
	return n, err
}

// proxiedConn is a connection of a trusted proxy, which must begin with a header.
type proxiedConn struct {
	*proxyproto.Conn
	raw     *startedConn
	proxies *Proxies
	counted sync.Once
}

// Read implements net.Conn. The first call says what became of the connection.
func (c *proxiedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.counted.Do(func() { c.proxies.countConnection(c) })
	return n, err
}

func (p *Proxies) countConnection(c *proxiedConn) {
	switch {
	case c.ProxyHeader() != nil:
		p.connections[believedConnection].Inc()
	case c.raw.started.Load():
		p.connections[refusedConnection].Inc()
		if p.complaint.allow() {
			p.log.Warn("refusing connections of a trusted proxy that do not begin with a valid header of the PROXY " +
				"protocol: turn it on in the proxy, or -proxy-protocol off")
		}
	}
}

// RemoteAddr implements net.Conn: the client's address.
func (c *proxiedConn) RemoteAddr() net.Addr {
	header := c.ProxyHeader()
	if header == nil || header.Version == 2 && header.Command.IsLocal() {
		return c.Conn.RemoteAddr()
	}
	if _, ok := header.SourceAddr.(*net.TCPAddr); !ok {
		return unknownAddr{}
	}
	return c.Conn.RemoteAddr()
}

// unknownAddr is the address of a client that its proxy does not know. It is not the
// proxy's, which is trusted.
type unknownAddr struct{}

// Network implements net.Addr.
func (unknownAddr) Network() string { return "tcp" }

// String implements net.Addr.
func (unknownAddr) String() string { return "unknown" }

// logLimit allows one log line in each complaintInterval.
type logLimit struct {
	now  func() time.Time // tests set it
	next atomic.Int64     // when the next one is allowed, in Unix nanoseconds
}

func (l *logLimit) allow() bool {
	now := l.now()
	next := l.next.Load()
	return now.UnixNano() >= next && l.next.CompareAndSwap(next, now.Add(complaintInterval).UnixNano())
}
