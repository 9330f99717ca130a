// Package mutant breaks code on purpose, so that a test can check that other tests
// notice. It builds a package's tests with some source replaced (go test -overlay), and
// leaves the files of the repository alone.
package mutant

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Edit replaces the only occurrence of Old in File.
type Edit struct {
	File string // relative to the directory of the test
	Old  string
	New  string
}

// mutatedSource returns the content of the file with the edit made.
func (e Edit) mutatedSource() (string, error) {
	source, err := os.ReadFile(e.File)
	if err != nil {
		return "", fmt.Errorf("breaking code: %w", err)
	}
	if n := strings.Count(string(source), e.Old); n != 1 {
		return "", fmt.Errorf("breaking code: %s contains %d times, want once: %q", e.File, n, e.Old)
	}
	return strings.Replace(string(source), e.Old, e.New, 1), nil
}

// Check returns an error if the edit no longer matches the source.
func (e Edit) Check() error {
	_, err := e.mutatedSource()
	return err
}

// Build compiles the tests of the package in the current directory with the edits made,
// at most one per file. It returns the path of the test binary.
func Build(t testing.TB, edits ...Edit) (bin string) {
	t.Helper()
	dir := t.TempDir()
	replace := make(map[string]string)
	for i, e := range edits {
		text, err := e.mutatedSource()
		if err != nil {
			t.Fatal(err)
		}
		original, err := filepath.Abs(e.File)
		if err != nil {
			t.Fatal(err)
		}
		replace[original] = filepath.Join(dir, fmt.Sprint(i, filepath.Base(e.File)))
		if err := os.WriteFile(replace[original], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	file, bin := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "mutant.test")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "test", "-c", "-vet=off", "-ldflags=-s -w",
		"-overlay", file, "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	return bin
}
