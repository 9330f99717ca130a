package clickhousetest

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"testing"

	"github.com/nimriz/partners/connectors/clickhouse/embedded"
)

// Process is a ClickHouse in a process of its own, which a test can kill and start
// again on the same data and the same address.
type Process struct {
	t       testing.TB
	dir     string
	address string
	running *exec.Cmd
	life    io.Closer // the process ends when this is closed
}

const (
	childAddress = "PARTNERS_TEST_CHILD"
	childDir     = "PARTNERS_TEST_DIR"
)

// ServeIfChild serves if this process was started by StartProcess, and then does not
// return. A test binary that calls StartProcess calls it first thing in TestMain.
func ServeIfChild() {
	address := os.Getenv(childAddress)
	if address == "" {
		return
	}
	if err := serve(address, os.Getenv(childDir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve serves until stdin ends: this process must not outlive its parent.
func serve(address, dir string) error {
	cfg, err := library()
	if err != nil {
		return err
	}
	cfg.DataDir = dir
	cfg.Listen = address
	if _, err := embedded.Start(cfg, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// StartProcess starts a ClickHouse of its own for the test, with an empty data
// directory. It skips the test where ForTest does.
func StartProcess(t testing.TB) *Process {
	t.Helper()
	Need(t)
	dir, err := os.MkdirTemp(Base(), prefix+"process-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{t: t, dir: dir, address: listener.Addr().String()}
	listener.Close()
	t.Cleanup(p.Kill)
	p.Start()
	return p
}

// DataDir is the directory with its tables.
func (p *Process) DataDir() string { return p.dir }

// DSN returns the data source name of a database, which it need not have.
func (p *Process) DSN(database string) string {
	dsn := url.URL{Scheme: "http", User: url.User("default"), Host: p.address, Path: "/" + database}
	return dsn.String()
}

// Start starts the process, which must not be running, and waits until it serves.
func (p *Process) Start() {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	p.running = exec.Command(self)
	p.running.Env = append(os.Environ(), childAddress+"="+p.address, childDir+"="+p.dir)
	p.running.Stderr = os.Stderr
	out, err := p.running.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if p.life, err = p.running.StdinPipe(); err != nil {
		p.t.Fatal(err)
	}
	if err := p.running.Start(); err != nil {
		p.t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		p.Kill()
		p.t.Fatalf("ClickHouse in a process of its own said %q: %v", line, err)
	}
}

// Kill kills the process (SIGKILL) and waits until it is gone. It does nothing if none
// is running.
func (p *Process) Kill() {
	if p.running == nil {
		return
	}
	p.running.Process.Kill()
	p.running.Wait() // its error is the kill
	p.life.Close()
	p.running = nil
}
