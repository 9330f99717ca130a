// Package clickhousetest gives tests a real ClickHouse: one embedded server per test
// process, a database of its own for every call, or one for tests that only read it.
package clickhousetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/nimriz/partners/connectors/clickhouse"
	"github.com/nimriz/partners/connectors/clickhouse/embedded"
)

// server is the process's server. The lock says that its data is in use; an
// unreferenced one would be closed, and lost, by the garbage collector.
type server struct {
	*embedded.Server
	lock *flock.Flock
}

// shared is the process's server; databases numbers its databases.
var (
	shared    = sync.OnceValues(start)
	databases atomic.Int64
)

// ForTest returns the DSN of a new, empty database on the process's embedded server,
// and drops it when the test ends. Without a libchdb.so (PARTNERS_LIBCHDB, else fetched
// once into the user's cache) it skips the test, or fails it where CI=true or
// PARTNERS_REQUIRE_KAFKA=1 say that nothing may be skipped.
func ForTest(t testing.TB) (dsn string) {
	t.Helper()
	running, err := shared()
	need(t, err)
	database := createDatabase(t, running)
	t.Cleanup(func() {
		if err := post(running, "DROP DATABASE IF EXISTS "+database+" SYNC"); err != nil {
			t.Error(err)
		}
	})
	return running.DSN(database)
}

func createDatabase(t testing.TB, on server) (name string) {
	t.Helper()
	name = fmt.Sprintf("test_%d", databases.Add(1))
	if err := post(on, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return name
}

// Shared returns a function like ForTest that returns one database for all tests of the
// process. The first of them fills it, and they may only read it; it lives as long as
// the process.
func Shared(fill func(t testing.TB, dsn string)) func(t testing.TB) (dsn string) {
	var mu sync.Mutex
	filled := ""
	return func(t testing.TB) string {
		t.Helper()
		running, err := shared()
		need(t, err)
		mu.Lock()
		defer mu.Unlock()
		if filled == "" {
			dsn := running.DSN(createDatabase(t, running))
			fill(t, dsn) // ends the test if it fails
			filled = dsn
		}
		return filled
	}
}

// OpenMigrated connects to a database, usually a new one of [ForTest], migrates it as
// [Migrate] does, and closes the connection when the test ends.
func OpenMigrated(t testing.TB, dsn string) *clickhouse.Conn {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	conn, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: dsn}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	Migrate(t, dsn, conn)
	return conn
}

// Need is for a test that starts ClickHouse as a process of its own: it skips, or
// fails, as ForTest does.
func Need(t testing.TB) {
	t.Helper()
	_, err := library()
	need(t, err)
}

func need(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, embedded.ErrNoLibrary) && os.Getenv("CI") != "true" &&
		os.Getenv("PARTNERS_REQUIRE_KAFKA") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func library() (embedded.Config, error) {
	cfg := embedded.DefaultConfig()
	cfg.Library = os.Getenv("PARTNERS_LIBCHDB")
	// Compiling an expression costs more than tests ask of it.
	cfg.Settings = map[string]string{"compile_expressions": "0", "compile_aggregate_expressions": "0",
		"compile_sort_description": "0"}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var err error
	cfg.Library, err = embedded.Prepare(ctx, cfg, nil)
	return cfg, err
}

func post(to server, statement string) error {
	response, err := http.Post("http://"+to.Addr(), "text/plain", strings.NewReader(statement))
	if err != nil {
		return fmt.Errorf("running %s: %w", statement, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("running %s: %s: %s %w", statement, response.Status, text, err)
	}
	return nil
}

// start serves until the process ends: a test binary has no end at which it could be
// closed.
func start() (server, error) {
	cfg, err := library()
	if err != nil {
		return server{}, err
	}
	var lock *flock.Flock
	if cfg.DataDir, lock, err = dataDir(); err != nil {
		return server{}, err
	}
	started, err := embedded.Start(cfg, slog.New(slog.DiscardHandler))
	return server{started, lock}, err
}

const prefix = "partners-clickhousetest-"

// memory is what must be free in the file system that is in memory.
const memory = 4 << 30

// Base is where tests that need no disk keep their data: in memory if there is room,
// else where temporary files are. A third of what ClickHouse costs is the making and
// removing of small files.
func Base() string {
	const dir = "/dev/shm"
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err == nil && fs.Bavail*uint64(fs.Bsize) >= memory &&
		syscall.Access(dir, 2) == nil {
		return dir
	}
	return os.TempDir()
}

// dataDir makes this process's directory and removes those of processes that are gone:
// a process holds the lock on its own as long as it lives.
func dataDir() (string, *flock.Flock, error) {
	old, err := filepath.Glob(filepath.Join(Base(), prefix+"*.lock"))
	if err != nil {
		return "", nil, fmt.Errorf("looking for old test data: %w", err)
	}
	for _, path := range old {
		lock := flock.New(path)
		if gone, err := lock.TryLock(); err != nil || !gone {
			continue
		}
		os.RemoveAll(strings.TrimSuffix(path, ".lock"))
		os.Remove(path)
		lock.Unlock()
	}
	base := filepath.Join(Base(), fmt.Sprintf("%s%d", prefix, os.Getpid()))
	lock := flock.New(base + ".lock")
	if locked, err := lock.TryLock(); err != nil || !locked {
		return "", nil, fmt.Errorf("locking %s: locked %t: %w", lock.Path(), locked, err)
	}
	return base, lock, nil
}
