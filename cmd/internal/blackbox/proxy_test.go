//go:build linux

package blackbox

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy relays connections to ClickHouse's HTTP port. It sees inserts into base tables
// begin and end, and can be severed.
type proxy struct {
	addr, target string

	began chan struct{} // holds a value when an insert began since somebody looked

	mu     sync.Mutex
	ln     net.Listener // nil while severed
	relays map[*relay]struct{}
	mute   bool // answers go nowhere
}

type relay struct {
	client, server net.Conn
	inserting      bool // guarded by the proxy's mu
}

func newProxy(t *testing.T, addr, target string) *proxy {
	t.Helper()
	p := &proxy{addr: addr, target: target, began: make(chan struct{}, 1), relays: make(map[*relay]struct{})}
	if err := p.mend(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.sever)
	return p
}

// mend makes it relay.
func (p *proxy) mend() error {
	ln, err := net.Listen("tcp", p.addr)
	if err != nil {
		return fmt.Errorf("listening for ClickHouse's clients: %w", err)
	}
	p.mu.Lock()
	p.ln = ln
	p.mu.Unlock()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return nil
}

// sever cuts all connections and refuses new ones.
func (p *proxy) sever() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ln != nil {
		p.ln.Close()
		p.ln = nil
	}
	for r := range p.relays {
		r.close()
	}
}

func (r *relay) close() {
	r.client.Close()
	r.server.Close()
}

func (p *proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		client.Close()
		return
	}
	r := &relay{client: client, server: server}
	p.mu.Lock()
	p.relays[r] = struct{}{}
	severed := p.ln == nil
	p.mu.Unlock()
	if severed {
		r.close()
	}
	go p.copy(r, server, client, p.asked)
	p.copy(r, client, server, p.answered)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.relays, r)
}

// copy relays one direction; see may swallow what it is shown.
func (p *proxy) copy(r *relay, to, from net.Conn, see func(*relay, []byte) (pass bool)) {
	defer r.close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if see(r, buffer[:n]) {
				if _, err := to.Write(buffer[:n]); err != nil {
					return
				}
			}
		}
		if err != nil {
			return
		}
	}
}

// asked: a request begins with its line, which holds the statement of an insert.
func (p *proxy) asked(r *relay, b []byte) bool {
	line, _, _ := bytes.Cut(b, []byte("\r\n"))
	if !bytes.HasPrefix(line, []byte("POST ")) || !bytes.Contains(line, []byte("INSERT+INTO")) ||
		bytes.Contains(line, []byte("batches")) {
		return true
	}
	p.mu.Lock()
	r.inserting = true
	p.mu.Unlock()
	select {
	case p.began <- struct{}{}:
	default:
	}
	return true
}

func (p *proxy) answered(r *relay, _ []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mute {
		return false
	}
	r.inserting = false
	return true
}

// silence makes answers go nowhere, if an insert is waiting for one: its sink will
// never know what became of it.
func (p *proxy) silence() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for r := range p.relays {
		p.mute = p.mute || r.inserting
	}
	return p.mute
}

// speak ends silence, and what is left of the connections that had it.
func (p *proxy) speak() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = false
	for r := range p.relays {
		r.close()
	}
}

// awaitInsert waits until an insert is under way, and then silences its answer.
func (p *proxy) awaitInsert(limit time.Duration) bool {
	for deadline := time.After(limit); !p.silence(); {
		select {
		case <-p.began:
		case <-deadline:
			return false
		}
	}
	return true
}
