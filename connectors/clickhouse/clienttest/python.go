package clienttest

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// requirements are the wheels, as pip wants them: a new version goes in here, with the
// hashes that `pip hash` prints.
//
//go:embed requirements.txt
var requirements string

// describeScript says whether a Python can run the pinned wheels, and which they are.
const describeScript = `import platform, sys, pip
v = sys.version_info
fits = sys.implementation.name == "cpython" and (3, 11) <= v[:2] <= (3, 14) and platform.libc_ver()[0] == "glibc" \
    and platform.machine() == "x86_64"
print(f"cp{v[0]}{v[1]}" if fits else "")`

// findPython finds a Python with pip for which there are wheels, and installs them.
func findPython() (runtime, error) {
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		said, err := exec.Command(name, "-c", describeScript).Output()
		tag := strings.TrimSpace(string(said))
		if err != nil || tag == "" {
			continue
		}
		sum := sha256.Sum256([]byte(requirements))
		dir, err := install("python-"+tag+"-"+hex.EncodeToString(sum[:6]), func(ctx context.Context, dir string) error {
			return pipInstall(ctx, name, dir)
		})
		if err != nil {
			return runtime{}, err
		}
		return runtime{command: []string{name}, env: []string{"PYTHONPATH=" + dir, "PYTHONDONTWRITEBYTECODE=1"}}, nil
	}
	return runtime{}, fmt.Errorf("%w: there is no python3 with pip for which wheels are pinned: CPython 3.11 to 3.14 "+
		"on Linux x86-64 with glibc", errUnavailable)
}

// pipInstall installs the wheels into dir. pip refuses a file whose hash is another.
func pipInstall(ctx context.Context, python, dir string) error {
	list, err := os.CreateTemp("", "requirements-*.txt")
	if err != nil {
		return fmt.Errorf("making a file for pip: %w", err)
	}
	defer os.Remove(list.Name())
	defer list.Close()
	if _, err := list.WriteString(requirements); err != nil {
		return fmt.Errorf("writing a file for pip: %w", err)
	}
	return runFetch(ctx, python, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:",
		"--require-hashes", "--target", filepath.Clean(dir), "--requirement", list.Name())
}
