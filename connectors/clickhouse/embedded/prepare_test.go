package embedded

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// publishArchive makes a tarball with these members, and the archive that pins it.
func publishArchive(t *testing.T, members map[string]string) (archive, []byte) {
	t.Helper()
	var tarball bytes.Buffer
	zipped := gzip.NewWriter(&tarball)
	files := tar.NewWriter(zipped)
	for name, content := range members {
		if err := files.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		files.Write([]byte(content))
	}
	files.Close()
	zipped.Close()
	sum := sha512.Sum512(tarball.Bytes())
	return archive{
		name:         "test",
		version:      "1",
		integrity:    "sha512-" + base64.StdEncoding.EncodeToString(sum[:]),
		member:       "package/libchdb.so",
		memberBytes:  7,
		tarballBytes: int64(tarball.Len()),
	}, tarball.Bytes()
}

// serveContent returns a fetchFunc that delivers content and counts its calls.
func serveContent(content []byte, calls *atomic.Int32) fetchFunc {
	return func(_ context.Context, _ archive, dir string) (string, error) {
		calls.Add(1)
		path := filepath.Join(dir, "test-1.tgz")
		return path, os.WriteFile(path, content, 0o600)
	}
}

func ignoreProgress(int64, int64) {}

func TestPrepareFetchesOnce(t *testing.T) {
	a, tarball := publishArchive(t, map[string]string{"package/index.js": "x", "package/libchdb.so": "library"})
	cache := filepath.Join(t.TempDir(), "not", "there")
	var calls atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			path, err := installLibrary(t.Context(), a, cache, serveContent(tarball, &calls), ignoreProgress)
			if err != nil {
				t.Error(err)
				return
			}
			if content, err := os.ReadFile(path); err != nil || string(content) != "library" {
				t.Errorf("%s holds %q, %v", path, content, err)
			}
		})
	}
	wg.Wait()
	if calls.Load() != 1 {
		t.Errorf("fetched %d times", calls.Load())
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "fetch-*")); len(left) > 0 {
		t.Errorf("left behind %v", left)
	}
}

func TestPrepareReplacesDamage(t *testing.T) {
	a, tarball := publishArchive(t, map[string]string{"package/libchdb.so": "library"})
	cache := t.TempDir()
	var calls atomic.Int32
	path, err := installLibrary(t.Context(), a, cache, serveContent(tarball, &calls), ignoreProgress)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(cache, "fetch-of-a-killed-process"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err = installLibrary(t.Context(), a, cache, serveContent(tarball, &calls), ignoreProgress)
	if err != nil || calls.Load() != 2 {
		t.Fatalf("fetched %d times, %v", calls.Load(), err)
	}
	if content, _ := os.ReadFile(path); string(content) != "library" {
		t.Errorf("still %q", content)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "fetch-*")); len(left) > 0 {
		t.Errorf("left behind %v", left)
	}
}

func TestPrepareRefuses(t *testing.T) {
	good, tarball := publishArchive(t, map[string]string{"package/libchdb.so": "library"})
	other := good
	other.integrity = "sha512-" + base64.StdEncoding.EncodeToString(make([]byte, 64))
	without, empty := publishArchive(t, map[string]string{"package/index.js": "x"})
	short, cut := publishArchive(t, map[string]string{"package/libchdb.so": "libra"})
	for name, test := range map[string]struct {
		archive archive
		content []byte
		want    string
	}{
		"another package":  {other, tarball, "not the published package"},
		"a cut download":   {good, tarball[:len(tarball)-1], "not the published package"},
		"no library in it": {without, empty, "package/libchdb.so is not in it"},
		"a short library":  {short, cut, "has 5 bytes instead of 7"},
	} {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			var calls atomic.Int32
			fetch := serveContent(test.content, &calls)
			_, err := installLibrary(t.Context(), test.archive, cache, fetch, ignoreProgress)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if _, err := os.Stat(filepath.Join(cache, "libchdb-1")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("installed it nevertheless: %v", err)
			}
		})
	}
}

func TestPrepareWithoutNPM(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Prepare(t.Context(), Config{CacheDir: t.TempDir()}, nil)
	if !errors.Is(err, ErrNoLibrary) || !strings.Contains(err.Error(), "install Node.js, or set PARTNERS_LIBCHDB") {
		t.Error(err)
	}
}

func TestPrepareNPMFails(t *testing.T) {
	bin := t.TempDir()
	script := []byte("#!/bin/sh\necho no such package >&2\nexit 1\n")
	if err := os.WriteFile(filepath.Join(bin, "npm"), script, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	_, err := Prepare(t.Context(), Config{CacheDir: t.TempDir()}, nil)
	if !errors.Is(err, ErrNoLibrary) || !strings.Contains(err.Error(), "no such package") {
		t.Error(err)
	}
}

func TestPrepareUsesLibraryAsItIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mine.so")
	if _, err := Prepare(t.Context(), Config{Library: path}, nil); !errors.Is(err, ErrNoLibrary) {
		t.Errorf("a missing library: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Prepare(t.Context(), Config{Library: path}, nil); err != nil || got != path {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestPrepareTellsProgress(t *testing.T) {
	a, tarball := publishArchive(t, map[string]string{"package/libchdb.so": "library"})
	var calls atomic.Int32
	var last, total int64
	_, err := installLibrary(t.Context(), a, t.TempDir(), serveContent(tarball, &calls), func(done, of int64) {
		last, total = done, of
	})
	if err != nil || last != int64(len(tarball)) || total != last {
		t.Errorf("ended at %d of %d, %v", last, total, err)
	}
}
