package export

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// lockDirectory keeps other runs out of a directory, which it makes if there is none,
// and removes what a killed run left there.
func lockDirectory(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("-out: %w", err)
	}
	l := flock.New(filepath.Join(dir, ".export.lock"))
	ok, err := l.TryLock()
	if err != nil {
		return nil, fmt.Errorf("-out: %w", err)
	}
	if !ok {
		return nil, fmt.Errorf("-out %s: %w", dir, ErrBusy)
	}
	if err := removeTemporaryFiles(dir); err != nil {
		l.Close()
		return nil, fmt.Errorf("-out: %w", err)
	}
	return func() { l.Close() }, nil
}

// removeTemporaryFiles removes the files of a run that was killed. renameio names them
// like the final file, with a dot in front and a random number behind.
func removeTemporaryFiles(dir string) (err error) {
	for _, ending := range []string{"csv", "manifest.json"} {
		left, _ := filepath.Glob(filepath.Join(dir, ".*."+ending+"[0-9]*"))
		for _, file := range left {
			err = errors.Join(err, os.Remove(file))
		}
	}
	return err
}
