//go:build linux

package blackbox

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// long selects the long form of the tests.
var long = os.Getenv("PARTNERS_TEST_LONG") == "1"

// maxWait bounds each wait of a test. It is far longer than a slow machine needs, so
// that only a hang reaches it.
const maxWait = 3 * time.Minute

// binaries builds the programs, once for all tests of this process. TestMain removes
// them.
var binaries = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "blackbox-bin-"); err != nil {
		return "", err
	}
	// without debugging information linking takes half as long
	out, err := exec.Command("go", "build", "-ldflags=-w", "-o", dir+"/", "github.com/nimriz/partners/cmd/redirector",
		"github.com/nimriz/partners/cmd/gateway",
		"github.com/nimriz/partners/cmd/processor", "github.com/nimriz/partners/cmd/sink",
		"github.com/nimriz/partners/cmd/demo", "github.com/nimriz/partners/cmd/ctl",
		"github.com/nimriz/partners/cmd/export").CombinedOutput()
	if err != nil {
		return dir, fmt.Errorf("building the programs: %w: %s", err, out)
	}
	return dir, nil
})

// TestMain lets all tests run at once: they wait for their programs most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	if !isFlagGiven("test.parallel") {
		flag.Set("test.parallel", "4")
	}
	code := m.Run()
	if built.Load() {
		dir, _ := binaries()
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

func isFlagGiven(name string) (given bool) {
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	return given
}

var built atomic.Bool

// childProcess is one of our programs, which a test starts and stops repeatedly. Its
// methods return errors, so that any goroutine may call them.
type childProcess struct {
	t    *testing.T
	name string
	path string // of the program
	args []string
	log  string // file

	mu      sync.Mutex
	current *processRun
}

// processRun is one run of a program, from its start to its end.
type processRun struct {
	cmd      *exec.Cmd
	ready    chan struct{} // closed when it reports that it serves
	done     chan struct{} // closed when it has ended; err is valid then
	err      error
	admin    string // address of its admin listener, valid after ready
	expected atomic.Bool
	output   bytes.Buffer // what it logged, valid after done
}

func newChildProcess(t *testing.T, dir, name, program string, args ...string) *childProcess {
	t.Helper()
	built.Store(true)
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	p := &childProcess{
		t:    t,
		name: name,
		path: filepath.Join(bin, program),
		args: args,
		log:  filepath.Join(dir, name+".log"),
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			text, _ := os.ReadFile(p.log)
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			t.Logf("the log of %s is %s; it ends:\n%s", name, p.log, strings.Join(lines[max(0, len(lines)-15):], "\n"))
		}
	})
	return p
}

// launch starts the program without waiting until it serves.
func (p *childProcess) launch() error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("opening the log of %s: %w", p.name, err)
	}
	l := &processRun{cmd: exec.Command(p.path, p.args...), ready: make(chan struct{}), done: make(chan struct{})}
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		log.Close()
		return err
	}
	l.cmd.Stdout, l.cmd.Stderr = w, w
	started := make(chan error)
	go func() {
		// Pdeathsig fires when the thread that started the child ends, not the process,
		// so this goroutine keeps its thread until the child has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := l.cmd.Start()
		w.Close()
		if err != nil {
			r.Close()
			log.Close()
			started <- err
			return
		}
		read := make(chan struct{})
		go func() { defer close(read); l.copyOutput(r, log) }()
		started <- nil
		<-read
		l.err = l.cmd.Wait()
		close(l.done)
		if !l.expected.Load() {
			p.t.Errorf("%s stopped unexpectedly: %v", p.name, l.err)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = l
	return nil
}

var adminAddress = regexp.MustCompile(` msg=ready .*\badmin=(\S+)`)

// copyOutput copies the output of the program to its log until it ends. It watches for
// the line that reports that the program serves.
func (l *processRun) copyOutput(r io.ReadCloser, log io.WriteCloser) {
	defer r.Close()
	defer log.Close()
	ready := false
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		io.WriteString(log, line)
		l.output.WriteString(line)
		m := adminAddress.FindStringSubmatch(line)
		if !ready && (m != nil || strings.HasPrefix(line, "ready ")) { // the daemons, the demo
			if ready = true; m != nil {
				l.admin = m[1]
			}
			close(l.ready)
		}
		if err != nil {
			return
		}
	}
}

func (p *childProcess) currentRun() *processRun {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// isRunning reports whether the program was started and has not ended.
func (p *childProcess) isRunning() bool {
	l := p.currentRun()
	if l == nil {
		return false
	}
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

// awaitReady waits until the program serves.
func (p *childProcess) awaitReady() error {
	l := p.currentRun()
	select {
	case <-l.ready:
		return nil
	case <-l.done:
		return fmt.Errorf("%s ended before it was ready: %w", p.name, l.err)
	case <-time.After(maxWait):
		return fmt.Errorf("%s is not ready after %v", p.name, maxWait)
	}
}

func (p *childProcess) start() error {
	if err := p.launch(); err != nil {
		return err
	}
	return p.awaitReady()
}

// kill sends SIGKILL, if the program runs, and waits for its end.
func (p *childProcess) kill() {
	l := p.currentRun()
	if l == nil {
		return
	}
	l.expected.Store(true)
	_ = l.cmd.Process.Kill() // it may be gone already
	<-l.done
}

// terminate sends SIGTERM and returns how long the program took to stop. An exit status
// other than 0 is an error.
func (p *childProcess) terminate() (time.Duration, error) {
	l := p.currentRun()
	l.expected.Store(true)
	began := time.Now()
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("stopping %s: %w", p.name, err)
	}
	select {
	case <-l.done:
	case <-time.After(maxWait):
		return maxWait, fmt.Errorf("%s has not ended %v after SIGTERM", p.name, maxWait)
	}
	if l.err != nil {
		return time.Since(began), fmt.Errorf("%s after SIGTERM: %w", p.name, l.err)
	}
	return time.Since(began), nil
}

// readMetric returns the sum over the series of a metric whose labels contain a text.
func (p *childProcess) readMetric(name, labels string) (sum float64, err error) {
	l := p.currentRun()
	client := http.Client{Timeout: maxWait}
	res, err := client.Get("http://" + l.admin + "/metrics")
	if err != nil {
		return 0, fmt.Errorf("reading the metrics of %s: %w", p.name, err)
	}
	defer res.Body.Close()
	found := false
	sc := bufio.NewScanner(res.Body)
	for sc.Scan() {
		rest, ok := strings.CutPrefix(sc.Text(), name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' || !strings.Contains(rest, labels) {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("reading the metrics of %s: %w", p.name, err)
		}
		found, sum = true, sum+v
	}
	if !found {
		return 0, errors.Join(fmt.Errorf("%s has no metric %s{%s}", p.name, name, labels), sc.Err())
	}
	return sum, nil
}
