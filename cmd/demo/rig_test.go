package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nimriz/partners/connectors/signature"
)

// maxWait bounds each start, stop and answer of a demo. On a busy machine each may take
// a minute.
const maxWait = 4 * time.Minute

// runningDemo is a demo in its own process.
type runningDemo struct {
	t    *testing.T
	cmd  *exec.Cmd
	base int
	dir  string
	out  *bytes.Buffer
	done chan error
}

// nextBase starts at random: another process may run these tests at the same time.
var nextBase = func() *atomic.Int64 {
	var n atomic.Int64
	n.Store(mathrand.Int64N(2000))
	return &n
}()

// freeBase returns the first of five free ports in a row. They lie below the kernel's
// range for outgoing connections, or a client could take one before the demo does. No
// two calls return the same port.
func freeBase(t *testing.T) int {
	t.Helper()
	for range 100 {
		base := 10_000 + 5*int(nextBase.Add(1)%2000)
		free := true
		for n := 0; n < 5 && free; n++ {
			l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", base+n))
			if free = err == nil; free {
				l.Close()
			}
		}
		if free {
			return base
		}
	}
	t.Fatal("no five free ports in a row")
	return 0
}

func demoCommand(t *testing.T, env []string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(append(os.Environ(), "PARTNERS_DEMO_CHILD=1"), env...)
	return cmd
}

// startServing starts a demo without traffic and waits until it is ready.
func startServing(t *testing.T, dir string, base int, args ...string) *runningDemo {
	t.Helper()
	r := &runningDemo{t: t, base: base, dir: dir, out: &bytes.Buffer{}, done: make(chan error, 1)}
	common := []string{"-traffic", "0", "-data", dir, "-port-base", strconv.Itoa(base)}
	r.cmd = demoCommand(t, nil, append(common, args...)...)
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stderr = r.out
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan bool, 1)
	go func() {
		sc := bufio.NewScanner(stdout)
		for sc.Scan() {
			if strings.HasPrefix(sc.Text(), "ready ") {
				ready <- true
			}
		}
		r.done <- r.cmd.Wait()
	}()
	t.Cleanup(func() { r.cmd.Process.Kill() })
	select {
	case <-ready:
	case err := <-r.done:
		t.Fatalf("the demo ended: %v\n%s", err, r.out)
	case <-time.After(maxWait):
		t.Fatalf("the demo is not ready after %v", maxWait)
	}
	return r
}

// interrupt sends Ctrl-C and wants exit status 0.
func (r *runningDemo) interrupt() {
	r.t.Helper()
	r.cmd.Process.Signal(syscall.SIGINT)
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Fatalf("after Ctrl-C: %v\n%s", err, r.out)
		}
	case <-time.After(maxWait):
		r.t.Fatalf("the demo has not stopped after %v", maxWait)
	}
}

func (r *runningDemo) queryWarehouse(q string) string {
	r.t.Helper()
	resp, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/?database=partners", r.base+3),
		"text/plain", strings.NewReader(q))
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 {
		r.t.Fatalf("%s: %d %s", q, resp.StatusCode, b)
	}
	return strings.TrimSpace(string(b))
}

// awaitResult repeats a query until it returns want.
func (r *runningDemo) awaitResult(q, want string) {
	r.t.Helper()
	got := ""
	for end := time.Now().Add(maxWait); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got = r.queryWarehouse(q); got == want {
			return
		}
	}
	r.t.Fatalf("%s: %q after %v, want %q", q, got, maxWait, want)
}

// followLink returns the redirect's location and the token in it.
func (r *runningDemo) followLink(slug string) (location, tok string) {
	r.t.Helper()
	req, err := http.NewRequest("GET", fmt.Sprintf("http://127.0.0.1:%d%s", r.base, slug), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Host = "go.acme.com"
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "+
		"Chrome/126.0 Safari/537.36")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 302 {
		r.t.Fatalf("GET %s: %s", slug, resp.Status)
	}
	location = resp.Header.Get("Location")
	u, err := url.Parse(location)
	if err != nil {
		r.t.Fatal(err)
	}
	return location, u.Query().Get("nim_ct")
}

// postEvent sends a signed event of acme and wants 202.
func (r *runningDemo) postEvent(fields map[string]any) {
	r.t.Helper()
	fields["occurred_at"] = time.Now().UTC().Format(time.RFC3339Nano)
	body, err := json.Marshal(fields)
	if err != nil {
		r.t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(r.dir, "signing-secrets", "acme"))
	if err != nil {
		r.t.Fatal(err)
	}
	secret, err := signature.ParseSecret(strings.TrimSpace(string(text)))
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequest("POST", fmt.Sprintf("http://127.0.0.1:%d/v1/workspaces/acme/events", r.base+1),
		bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if err := signature.SignRequest(req, fmt.Sprint("msg_", time.Now().UnixNano()), time.Now(), body,
		secret); err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 202 {
		r.t.Fatalf("event: %s %s", resp.Status, b)
	}
}
