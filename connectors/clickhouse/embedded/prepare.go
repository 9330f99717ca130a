package embedded

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// archive is a published package that holds libchdb.so.
type archive struct {
	name, version string // of the package
	// integrity is the SHA-512 of the tarball, as npm writes it.
	integrity string
	// member is the library's path inside the tarball, memberBytes its size.
	member      string
	memberBytes int64
	// tarballBytes is the size of the tarball, the total for progress.
	tarballBytes int64
}

// pinnedArchive is chDB 26.7.3: ClickHouse 26.7.2.1.
func pinnedArchive() archive {
	return archive{
		name:         "@chdb/lib-linux-x64-gnu",
		version:      "26.7.3-stable.1",
		integrity:    "sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==",
		member:       "package/libchdb.so",
		memberBytes:  566330096,
		tarballBytes: 177817999,
	}
}

// ErrNoLibrary says that this machine has no libchdb.so and cannot get one; the text
// says what to install or to set.
var ErrNoLibrary = errors.New("no libchdb.so")

// Prepare returns the path of libchdb.so: Config.Library if that is set, else the copy
// in CacheDir. If there is none, npm downloads it (178 MB, unpacked 566 MB) and Prepare
// checks it against the pinned SHA-512. Several processes may call Prepare at once: one
// fetches, the others wait for it. progress, which may be nil, is called about twice a
// second with the bytes downloaded so far.
func Prepare(ctx context.Context, cfg Config, progress func(done, total int64)) (string, error) {
	if cfg.Library != "" {
		if err := checkFile(cfg.Library, 0); err != nil {
			return "", fmt.Errorf("%w: %w", ErrNoLibrary, err)
		}
		return cfg.Library, nil
	}
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return "", fmt.Errorf("%w: it is published for linux/amd64 with glibc, this is %s/%s: set "+
			"PARTNERS_LIBCHDB to a copy built for it, or use a ClickHouse server",
			ErrNoLibrary, runtime.GOOS, runtime.GOARCH)
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	path, err := installLibrary(ctx, pinnedArchive(), cfg.CacheDir, runNPMPack, progress)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoLibrary, err)
	}
	return path, nil
}

// fetchFunc downloads a's tarball into dir and returns its path. All its temporary
// files are below dir.
type fetchFunc func(ctx context.Context, a archive, dir string) (string, error)

// installLibrary fetches a into cacheDir if it is not there yet. The finished directory
// appears by a rename, so a directory that exists is complete.
func installLibrary(ctx context.Context, a archive, cacheDir string, fetch fetchFunc,
	progress func(done, total int64)) (string, error) {
	installed := filepath.Join(cacheDir, "libchdb-"+a.version)
	path := filepath.Join(installed, filepath.Base(a.member))
	if checkFile(path, a.memberBytes) == nil {
		return path, nil
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return "", fmt.Errorf("making the cache directory: %w", err)
	}
	lock := flock.New(filepath.Join(cacheDir, "libchdb.lock"))
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return "", fmt.Errorf("waiting for another process that fetches it: %w", err)
	}
	defer lock.Unlock()
	if checkFile(path, a.memberBytes) == nil {
		return path, nil
	}
	if err := removeLeftovers(cacheDir); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(cacheDir, "fetch-")
	if err != nil {
		return "", fmt.Errorf("making a directory to fetch into: %w", err)
	}
	defer os.RemoveAll(dir)
	tarball, err := fetchWithProgress(ctx, a, dir, fetch, progress)
	if err != nil {
		return "", err
	}
	if err := verifyIntegrity(tarball, a.integrity); err != nil {
		return "", err
	}
	unpacked := filepath.Join(dir, "unpacked")
	if err := unpackMember(ctx, tarball, a, unpacked); err != nil {
		return "", fmt.Errorf("unpacking %s: %w", filepath.Base(tarball), err)
	}
	if err := os.RemoveAll(installed); err != nil {
		return "", fmt.Errorf("removing a damaged copy: %w", err)
	}
	if err := os.Rename(unpacked, installed); err != nil {
		return "", fmt.Errorf("installing the library: %w", err)
	}
	return path, nil
}

// checkFile checks that path is a regular file, and has the given size unless that is
// 0.
func checkFile(path string, size int64) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file", path)
	case size > 0 && info.Size() != size:
		return fmt.Errorf("%s has %d bytes instead of %d", path, info.Size(), size)
	}
	return nil
}

// removeLeftovers deletes what killed fetches left. The caller holds the lock, so no
// running process uses it.
func removeLeftovers(cacheDir string) error {
	old, err := filepath.Glob(filepath.Join(cacheDir, "fetch-*"))
	if err != nil {
		return fmt.Errorf("looking for leftovers in %s: %w", cacheDir, err)
	}
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing what an earlier fetch left: %w", err)
		}
	}
	return nil
}

// fetchWithProgress runs fetch, and measures for progress how many bytes are below dir.
func fetchWithProgress(ctx context.Context, a archive, dir string, fetch fetchFunc,
	progress func(done, total int64)) (string, error) {
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				progress(min(bytesBelow(dir), a.tarballBytes), a.tarballBytes)
			}
		}
	}()
	tarball, err := fetch(ctx, a, dir)
	close(stop)
	<-stopped
	if err == nil {
		progress(a.tarballBytes, a.tarballBytes)
	}
	return tarball, err
}

// bytesBelow sums the sizes of the files below dir.
func bytesBelow(dir string) (total int64) {
	// Files come and go while npm works, so one that cannot be read counts as nothing.
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil
	})
	return total
}

// runNPMPack downloads with the npm command, so the user's registry, proxy and
// credentials apply. It puts npm's cache below dir, where progress sees it grow and
// from where it is removed with dir.
func runNPMPack(ctx context.Context, a archive, dir string) (string, error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", fmt.Errorf("fetching %s needs the npm command, which is not in PATH: install Node.js, or set "+
			"PARTNERS_LIBCHDB to a libchdb.so you have", a.name)
	}
	cmd := exec.CommandContext(ctx, npm, "pack", a.name+"@"+a.version,
		"--silent", "--ignore-scripts", "--no-update-notifier",
		"--pack-destination", dir, "--cache", filepath.Join(dir, "npm"))
	cmd.Dir = dir
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		said := strings.TrimSpace(stderr.String() + stdout.String())
		return "", fmt.Errorf(
			"fetching %s@%s with npm pack: %w: %s (or set PARTNERS_LIBCHDB to a libchdb.so you have)",
			a.name, a.version, err, lastLines(said, 5))
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("fetching %s@%s: npm pack left %d tarballs instead of one", a.name, a.version, len(found))
	}
	return found[0], nil
}

// lastLines returns the last n lines of text as one line.
func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " / ")
}

// verifyIntegrity compares the file with an integrity string: "sha512-" and the digest
// in base64.
func verifyIntegrity(path, integrity string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("checking the download: %w", err)
	}
	defer file.Close()
	hash := sha512.New()
	if _, err := io.Copy(hash, file); err != nil {
		return fmt.Errorf("checking the download: %w", err)
	}
	if got := "sha512-" + base64.StdEncoding.EncodeToString(hash.Sum(nil)); got != integrity {
		return fmt.Errorf("checking the download: %s is %s, expected %s: not the published package",
			filepath.Base(path), got, integrity)
	}
	return nil
}

// unpackMember writes a's member of the tarball into the new directory to, and syncs
// it.
func unpackMember(ctx context.Context, tarball string, a archive, to string) error {
	file, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return err
	}
	entries := tar.NewReader(unzipped)
	for {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s is not in it", a.member)
		}
		if err != nil {
			return err
		}
		if header.Name != a.member {
			continue
		}
		if a.memberBytes > 0 && header.Size != a.memberBytes {
			return fmt.Errorf("%s has %d bytes instead of %d", a.member, header.Size, a.memberBytes)
		}
		return writeFile(ctx, filepath.Join(to, filepath.Base(a.member)), entries)
	}
}

// writeFile writes and syncs a new file, with its directory.
func writeFile(ctx context.Context, path string, from io.Reader) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := io.Copy(file, &contextReader{ctx, from}); err != nil {
		return err
	}
	return file.Sync()
}

// contextReader is a reader that fails once its context is done.
type contextReader struct {
	ctx  context.Context
	from io.Reader
}

// Read implements io.Reader.
func (u *contextReader) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.from.Read(p)
}
