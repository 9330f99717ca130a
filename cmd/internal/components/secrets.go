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

// pollInterval is how often a directory of secrets is looked at.
const pollInterval = 5 * time.Second

// reloadSecrets reads the directory of a flag again when something in it has changed, until
// ctx ends. While it cannot be used, which is logged, what was read before stays in
// force.
func reloadSecrets(ctx context.Context, log *slog.Logger, flag, dir string, again func(fs.FS) error) error {
	// what the directory looked like when it was last read
	read := ""
	if seen, err := fingerprintDir(dir); err == nil && again(os.DirFS(dir)) == nil { // between the start and now
		read = seen
	}
	failed := ""
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		seen, err := fingerprintDir(dir)
		if err == nil && seen == read {
			failed = ""
			continue
		}
		if err == nil {
			err = again(os.DirFS(dir))
		}
		if err == nil {
			read, failed = seen, ""
			log.Info("secrets were read again", "flag", flag, "directory", dir)
		} else if err.Error() != failed {
			failed = err.Error()
			log.Error("secrets have changed but cannot be read; those from before stay in force",
				"flag", flag, "error", err)
		}
	}
}

// fingerprintDir describes a directory so that any change of a file makes another text.
// Kubernetes mounts secrets as links into a directory that it replaces: what counts is
// where they lead.
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
