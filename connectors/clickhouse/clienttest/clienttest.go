package clienttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

// fetchLimit is how long a package manager may take, runLimit how long a script.
const (
	fetchLimit = 10 * time.Minute
	runLimit   = 3 * time.Minute
)

// errUnavailable: this machine cannot run, or cannot get, the clients; the text says what
// to install.
var errUnavailable = errors.New("no official clients")

var (
	python = sync.OnceValues(findPython)
	java   = sync.OnceValues(findJava)
)

// RunPython runs a script with the libraries and returns what it printed. It ends the
// test if the script fails, or skips it where there are no libraries.
func RunPython(t testing.TB, script string, args ...string) string {
	t.Helper()
	found, err := python()
	need(t, err)
	return run(t, found, append([]string{"-c", script}, args...))
}

// RunJava compiles and runs the class in a source file with the jars, like [RunPython].
func RunJava(t testing.TB, source string, args ...string) string {
	t.Helper()
	found, err := java()
	need(t, err)
	return run(t, found, append([]string{source}, args...))
}

// runtime is an interpreter with its libraries.
type runtime struct {
	command []string
	env     []string // beside the process's own
}

func run(t testing.TB, with runtime, args []string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, with.command[0], append(with.command[1:], args...)...)
	cmd.Env = append(os.Environ(), with.env...)
	var out, problems bytes.Buffer
	cmd.Stdout = &out
	cmd.Stderr = &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("running %s: %v\n%s%s", with.command[0], err, out.String(), problems.String())
	}
	return out.String()
}

func need(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, errUnavailable) && os.Getenv("PARTNERS_REQUIRE_CLIENTS") != "1" {
		t.Skipf("SKIP: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// install returns a directory below the user's cache that fetch has filled. Several
// processes may call it at once: one fetches, the others wait. The finished directory
// appears by a rename.
func install(name string, fetch func(ctx context.Context, dir string) error) (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	base = filepath.Join(base, "nimriz-partners")
	dir := filepath.Join(base, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", fmt.Errorf("making the cache directory: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), fetchLimit)
	defer cancel()
	lock := flock.New(filepath.Join(base, name+".lock"))
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return "", fmt.Errorf("waiting for another process that fetches %s: %w", name, err)
	}
	defer lock.Unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	tmp := dir + ".fetch"
	if err := os.RemoveAll(tmp); err != nil { // of a process that was killed: we hold the lock
		return "", fmt.Errorf("removing what an earlier fetch left: %w", err)
	}
	defer os.RemoveAll(tmp)
	fmt.Fprintf(os.Stderr, "clienttest: fetching %s (once) into %s\n", name, base)
	if err := fetch(ctx, tmp); err != nil {
		return "", fmt.Errorf("fetching %s: %w", name, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", fmt.Errorf("installing %s: %w", name, err)
	}
	return dir, nil
}

// runFetch runs a package manager; its failure is that the machine cannot get the files.
func runFetch(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s: %w: %s", errUnavailable, name, err, out[max(0, len(out)-800):])
	}
	return nil
}
