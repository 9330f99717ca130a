package components

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// pollInterval is how often a directory of secrets is checked for changes.
const pollInterval = 5 * time.Second

// reloadSecrets calls read for the directory of a flag whenever a file in it has
// changed, until ctx ends. If read fails, the error is logged and the secrets that were
// read before stay in force.
func reloadSecrets(ctx context.Context, log *slog.Logger, flag, dir string, read func(fs.FS) error) error {
	inForce := "" // fingerprint of the directory when it was last read
	// The files may have changed between the start and now.
	if found, err := fingerprintDir(dir); err == nil && read(os.DirFS(dir)) == nil {
		inForce = found
	}
	lastError := ""
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		found, err := fingerprintDir(dir)
		if err == nil && found == inForce {
			lastError = ""
			continue
		}
		if err == nil {
			err = read(os.DirFS(dir))
		}
		if err == nil {
			inForce = found
			lastError = ""
			log.Info("secrets reloaded", "flag", flag, "directory", dir)
		} else if err.Error() != lastError {
			lastError = err.Error()
			log.Error("changed secrets cannot be read; the previous ones stay in force", "flag", flag, "error", err)
		}
	}
}

// fingerprintDir returns a text that differs whenever a file of the directory differs
// in name, size or time. Kubernetes mounts secrets as links into a directory that it
// replaces, so links are followed.
func fingerprintDir(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		fmt.Fprintln(&b, e.Name(), info.Size(), info.ModTime().UnixNano())
	}
	return b.String(), nil
}
