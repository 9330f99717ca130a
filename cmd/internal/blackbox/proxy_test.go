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

// warehouseProxy relays connections to ClickHouse's HTTP port. It notices the begin and
// the end of inserts into base tables, and can cut the connections.
type warehouseProxy struct {
	addr, target string

	insertBegan chan struct{} // has a value if an insert began since the last receive

	mu       sync.Mutex
	ln       net.Listener // nil while severed
	relays   map[*relay]struct{}
	dropping bool // answers are dropped
}

type relay struct {
	client, server net.Conn
	inserting      bool // guarded by the proxy's mu
}

func newWarehouseProxy(t *testing.T, addr, target string) *warehouseProxy {
	t.Helper()
	p := &warehouseProxy{
		addr:        addr,
		target:      target,
		insertBegan: make(chan struct{}, 1),
		relays:      make(map[*relay]struct{}),
	}
	if err := p.restore(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.sever)
	return p
}

// restore starts to relay connections.
func (p *warehouseProxy) restore() error {
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
			go p.relayConnection(c)
		}
	}()
	return nil
}

// sever cuts all connections and refuses new ones.
func (p *warehouseProxy) sever() {
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

func (p *warehouseProxy) relayConnection(client net.Conn) {
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
	go p.copyDirection(r, server, client, p.noteRequest)
	p.copyDirection(r, client, server, p.noteAnswer)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.relays, r)
}

// copyDirection relays one direction. It drops the bytes for which see returns false.
func (p *warehouseProxy) copyDirection(r *relay, to, from net.Conn, see func(*relay, []byte) (pass bool)) {
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

// noteRequest notices inserts: the statement is in the first line of a request.
func (p *warehouseProxy) noteRequest(r *relay, b []byte) bool {
	line, _, _ := bytes.Cut(b, []byte("\r\n"))
	if !bytes.HasPrefix(line, []byte("POST ")) || !bytes.Contains(line, []byte("INSERT+INTO")) ||
		bytes.Contains(line, []byte("batches")) {
		return true
	}
	p.mu.Lock()
	r.inserting = true
	p.mu.Unlock()
	select {
	case p.insertBegan <- struct{}{}:
	default:
	}
	return true
}

func (p *warehouseProxy) noteAnswer(r *relay, _ []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropping {
		return false
	}
	r.inserting = false
	return true
}

// dropAnswers drops all answers from now on if an insert waits for one, so that its
// sink never learns the result.
func (p *warehouseProxy) dropAnswers() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for r := range p.relays {
		p.dropping = p.dropping || r.inserting
	}
	return p.dropping
}

// passAnswers ends dropAnswers and closes the connections.
func (p *warehouseProxy) passAnswers() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropping = false
	for r := range p.relays {
		r.close()
	}
}

// awaitInsert waits until an insert is under way, then drops its answer.
func (p *warehouseProxy) awaitInsert(limit time.Duration) bool {
	for deadline := time.After(limit); !p.dropAnswers(); {
		select {
		case <-p.insertBegan:
		case <-deadline:
			return false
		}
	}
	return true
}
