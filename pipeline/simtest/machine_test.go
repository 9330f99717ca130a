package simtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/processor"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
)

const (
	shortGrace     = 2 * time.Second
	longGrace      = 2 * time.Minute
	sessionTimeout = 2 * time.Second
	stateDir       = "state"
)

// machine has a disk, a clock and, most of the time, a process that runs a slot.
type machine struct {
	w     *world
	name  string
	shift atomic.Int64 // of its clock, ns

	opening sync.Mutex // see disk

	mu   sync.Mutex
	disk *vfs.MemFS
	old  *vfs.MemFS // what the disk held at some time; nil if that is not known
	life *life      // nil while it is down
}

// disk is a MemFS whose Lock no clone can meet: Lock takes the read side of MemFS's
// mutex, and once more in the Create that it calls (Pebble v2.1.7), so with a
// CrashClone in between both wait for ever.
type disk struct {
	*vfs.MemFS
	opening *sync.Mutex
}

func (d disk) Lock(name string) (io.Closer, error) {
	d.opening.Lock()
	defer d.opening.Unlock()
	return d.MemFS.Lock(name)
}

// clone is what a crash leaves of the disk.
func (m *machine) clone(cfg vfs.CrashCloneCfg) *vfs.MemFS {
	m.opening.Lock()
	defer m.opening.Unlock()
	return m.disk.CrashClone(cfg)
}

// life is one process, from its start to its end or its death.
type life struct {
	m      *machine
	cable  *cable
	cancel context.CancelFunc
	dead   atomic.Bool
	ended  chan struct{} // closed when its goroutines are through with it
	err    error         // then
}

// flushEvery is mostly so long that a crash finds state that is not durable; that long
// alone, little would be seen of flushes.
func flushEvery(seed uint64) time.Duration {
	if seed%4 == 0 {
		return time.Second
	}
	return 6 * time.Second
}

// start runs a processor on what the disk holds.
func (m *machine) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life != nil || m.w.closed.Load() {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &life{m: m, cable: newCable(&m.w.network), cancel: cancel, ended: make(chan struct{})}
	env := processor.DefaultEnv()
	env.FS = errorfs.Wrap(disk{m.disk, &m.opening}, errorfs.InjectorFunc(l.operation))
	env.Lock = func(string) (io.Closer, error) { return io.NopCloser(nil), nil }
	env.Now = m.now
	env.Step = l.step
	env.FlushEvery = flushEvery(m.w.seed)
	env.SlabBytes = 16 << 10
	cfg := processor.DefaultConfig()
	cfg.StateDir, cfg.Instance = stateDir, m.name
	cfg.Grace = m.w.grace
	cfg.ClickMemory = 4 << 20
	cfg.CommitInterval = 200 * time.Millisecond
	cfg.SessionTimeout = sessionTimeout
	cfg.Standby = m.w.seed%2 == 1
	to := m.w.config()
	to.ClientID, to.Dial = m.name, l.cable.dial
	p, err := processor.NewIn(env, cfg, to, codec, m.w.log(m.name), prometheus.NewRegistry())
	if err != nil {
		m.w.fail(err)
		cancel()
		return
	}
	m.life = l
	go func() {
		defer close(l.ended)
		l.err = p.Run(ctx)
		if l.dead.Load() {
			return
		}
		if l.err != nil && !errors.Is(l.err, processor.ErrInstance) && !errors.Is(l.err, processor.ErrStuck) {
			m.w.fail(fmt.Errorf("%s gave up: %w", m.name, l.err))
			return
		}
		if l.err != nil { // whoever supervises it starts it again
			m.w.restarts.Add(1)
			m.bury(l)
			m.w.after(time.Second, m.start)
		}
	}()
}

func (m *machine) now() time.Time { return time.Now().Add(time.Duration(m.shift.Load())) }

// bury forgets a process. What it still does reaches neither broker nor disk.
func (m *machine) bury(l *life) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life == l {
		m.disk = m.clone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: m.w.dice()})
		m.life = nil
		m.w.mourn(l)
	}
	l.dead.Store(true)
	l.cable.cut()
	l.cancel()
}

// crash ends a process where it is. next says what the disk holds when it starts
// again, of what a power cut leaves.
func (m *machine) crash(l *life, keep int, next func(crashed *vfs.MemFS) *vfs.MemFS) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life != l {
		return
	}
	m.life = nil
	crashed := m.clone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: m.w.dice()})
	l.dead.Store(true)
	l.cable.cut()
	l.cancel()
	m.disk = next(crashed)
	m.w.mourn(l)
}

// stop lets a process end by itself, and waits for that.
func (m *machine) stop() error {
	m.mu.Lock()
	l := m.life
	m.mu.Unlock()
	if l == nil {
		return nil
	}
	l.cancel()
	<-l.ended
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life == l {
		m.life = nil
	}
	return l.err
}

func (m *machine) running() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life
}

// remember keeps a copy of the disk, as a backup of a running machine would.
func (m *machine) remember() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.old = m.clone(vfs.CrashCloneCfg{})
}

func (l *life) step(step string) {
	if !l.dead.Load() {
		l.m.w.visit(l, step)
	}
}

// operation is asked before each operation on the disk.
func (l *life) operation(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && !l.dead.Load() {
		l.m.w.visit(l, stepDisk)
	}
	return nil
}

// exchange swaps the directories of two partitions.
func exchange(fs *vfs.MemFS, a, b int32) (*vfs.MemFS, error) {
	dir := func(id int32) string { return filepath.Join(stateDir, fmt.Sprintf("p%05d", id)) }
	for _, id := range []int32{a, b} {
		if _, err := fs.Stat(dir(id)); err != nil {
			return fs, nil // it never had this partition
		}
	}
	const aside = "aside"
	return fs, errors.Join(fs.Rename(dir(a), aside), fs.Rename(dir(b), dir(a)), fs.Rename(aside, dir(b)))
}

// cable is a machine's connection to the network.
type cable struct {
	network *kfake.VirtualNetwork

	mu     sync.Mutex
	conns  map[*conn]struct{}
	down   error         // what whoever dials is told; nil while it is plugged in
	gone   bool          // for ever
	thawed chan struct{} // closed unless the process is stopped

	losing   atomic.Int64 // answers (or requests) of EndTxn that are still to be lost
	requests atomic.Bool
}

func newCable(network *kfake.VirtualNetwork) *cable {
	c := &cable{network: network, conns: make(map[*conn]struct{}), thawed: make(chan struct{})}
	close(c.thawed)
	return c
}

// A client goes on trying where it was refused, and gives records up for other errors
// of dialling (franz-go: isDialNonTimeoutErr).
var (
	errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	errDown    = errors.New("no way to the broker")
)

func (c *cable) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c.wait()
	c.mu.Lock()
	down := c.down
	c.mu.Unlock()
	if down != nil {
		return nil, down
	}
	inner, err := c.network.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	x := &conn{Conn: inner, cable: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down != nil {
		return nil, errors.Join(c.down, inner.Close())
	}
	c.conns[x] = struct{}{}
	return x, nil
}

// unplug breaks every connection, and answers err to whoever wants to make one until
// plug.
func (c *cable) unplug(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = err
	for x := range c.conns {
		x.Conn.Close()
	}
	clear(c.conns)
}

func (c *cable) plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gone {
		c.down = nil
	}
}

func (c *cable) cut() {
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	c.unplug(errDown)
	c.thaw()
}

// freeze stops everything that goes over the cable, as if the process did not run.
func (c *cable) freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.thawed:
		c.thawed = make(chan struct{})
	default:
	}
}

func (c *cable) thaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.thawed:
	default:
		close(c.thawed)
	}
}

func (c *cable) wait() {
	c.mu.Lock()
	thawed := c.thawed
	c.mu.Unlock()
	<-thawed
}

type conn struct {
	net.Conn
	cable *cable
	deaf  atomic.Bool // the answer that comes next is lost
}

func (x *conn) Write(b []byte) (int, error) {
	x.cable.wait()
	const endTxn = 26
	if len(b) > 6 && binary.BigEndian.Uint16(b[4:]) == endTxn && x.cable.losing.Add(-1) >= 0 {
		if x.cable.requests.Load() {
			x.Close()
			return 0, io.ErrUnexpectedEOF
		}
		x.deaf.Store(true)
	}
	return x.Conn.Write(b)
}

func (x *conn) Read(b []byte) (int, error) {
	n, err := x.Conn.Read(b)
	x.cable.wait()
	if x.deaf.Load() {
		x.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

func (x *conn) Close() error {
	x.cable.mu.Lock()
	delete(x.cable.conns, x)
	x.cable.mu.Unlock()
	return x.Conn.Close()
}

// log writes to stderr when PARTNERS_TEST_LOG is set, with virtual times.
func (w *world) log(name string) *slog.Logger {
	if os.Getenv("PARTNERS_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("slot", name)
}

func (w *world) config() kafka.Config {
	cfg := kafka.DefaultConfig()
	cfg.Brokers, cfg.Dial = w.cluster.ListenAddrs(), w.network.DialContext
	return cfg
}
