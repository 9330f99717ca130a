package redirect

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// aheadListener counts the reads of a single byte, which are net/http's reads ahead.
type aheadListener struct {
	net.Listener
	ahead atomic.Int64
}

func (l *aheadListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &aheadConn{c, l}, err
}

type aheadConn struct {
	net.Conn
	l *aheadListener
}

func (c *aheadConn) Read(p []byte) (int, error) {
	if len(p) == 1 {
		c.l.ahead.Add(1)
	}
	return c.Conn.Read(p)
}

// serveSlowly serves a handler through Listener. Each fsync waits for a value of release.
func serveSlowly(t *testing.T) (s *testHandler, l *aheadListener, entered, release chan struct{}) {
	t.Helper()
	s = newTestHandler(t, testCatalog, nil)
	s.spool.fsyncTimeout = waitLimit
	entered, release = make(chan struct{}), make(chan struct{})
	s.spool.fsync = func(f *os.File) error {
		entered <- struct{}{}
		<-release
		return f.Sync()
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = &aheadListener{Listener: inner}
	visitors := Listener{l}
	server := &http.Server{Handler: s.Handler, ConnContext: visitors.ConnContext}
	go server.Serve(visitors)
	t.Cleanup(func() { server.Close() })
	return s, l, entered, release
}

func dialTest(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func mustWrite(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

// A connection is not read while a click waits for the disk. What arrives meanwhile is
// the next request, of any length.
func TestConnectionRestsWhileTheDiskWorks(t *testing.T) {
	s, l, entered, release := serveSlowly(t)
	c := dialTest(t, l)
	in := bufio.NewReader(c)
	const requests = 20
	next := benchRequest
	mustWrite(t, c, next)
	for n := range requests {
		<-entered
		if n < requests-1 { // one that fills net/http's buffer of 4 kB up to any last byte
			next = strings.Replace(benchRequest, "\r\n\r\n", "\r\nX: "+strings.Repeat("x", 3880+n)+"\r\n\r\n", 1)
			mustWrite(t, c, next)
		}
		release <- struct{}{}
		if err := readResponse(in); err != nil {
			t.Fatalf("response %d: %v", n, err)
		}
	}
	if got := len(s.durableClicks(t)); got != requests {
		t.Errorf("%d clicks, want %d", got, requests)
	}
	// A goroutine that reads ahead may be faster than the handler, but not always.
	if n := l.ahead.Load(); n >= requests {
		t.Errorf("%d reads ahead in %d requests", n, requests)
	}
}

// A visitor who leaves while the click waits for the disk has clicked.
func TestVisitorLeavesWhileTheDiskWorks(t *testing.T) {
	s, l, entered, release := serveSlowly(t)
	c := dialTest(t, l)
	mustWrite(t, c, benchRequest)
	<-entered
	c.Close()
	release <- struct{}{}
	eventually(t, "the click on disk", func() bool { return len(readFrames(s.spool)) == 1 })
	other := dialTest(t, l)
	mustWrite(t, other, closingRequest)
	<-entered
	release <- struct{}{}
	if err := readResponse(bufio.NewReader(other)); err != nil {
		t.Error(err)
	}
}
