package redirect

import (
	"context"
	"net"
	"sync/atomic"
)

// Listener accepts connections whose visitors are not watched while a click waits for
// the disk. While a handler runs, net/http reads ahead from the connection in another
// goroutine, to cancel the request's context if the client leaves. A click counts all
// the same, and a read that waits and is then aborted costs two system calls and three
// switches of goroutines in each redirect.
//
// It serves plain HTTP/1.1 only: give its ConnContext to the http.Server.
type Listener struct{ net.Listener }

// Accept implements net.Listener.
func (l Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &visitorConn{Conn: c}, nil
}

// ConnContext is that of http.Server.
func (l Listener) ConnContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, visitorKey{}, c)
}

type visitorKey struct{}

// visitorConn reads nothing while the handler runs. net/http's read ahead then ends at
// once, without a byte and without an error, and its next read is for the next request.
type visitorConn struct {
	net.Conn
	answering atomic.Bool
}

// Read implements net.Conn.
func (c *visitorConn) Read(p []byte) (int, error) {
	if c.answering.Load() {
		return 0, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite lets net/http end a connection so that the client reads the response.
func (c *visitorConn) CloseWrite() error {
	if tcp, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return tcp.CloseWrite()
	}
	return nil
}
