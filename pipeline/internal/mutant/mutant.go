// Package mutant breaks code on purpose, to see whether tests notice: it builds a
// package's tests with some source changed (go test -overlay: no file of the repository
// is touched).
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

// Edit replaces the one place in File, relative to the test's directory, that reads
// Old.
type Edit struct{ File, Old, New string }

// apply returns the changed source.
func (e Edit) apply() (string, error) {
	source, err := os.ReadFile(e.File)
	if err != nil {
		return "", fmt.Errorf("breaking code: %w", err)
	}
	if n := strings.Count(string(source), e.Old); n != 1 {
		return "", fmt.Errorf("%d places in %s to break, want one: %q", n, e.File, e.Old)
	}
	return strings.Replace(string(source), e.Old, e.New, 1), nil
}

// Check reports an edit that no longer finds its place.
func (e Edit) Check() error {
	_, err := e.apply()
	return err
}

// Build compiles the tests of the current directory's package with edits of different
// files made.
func Build(t testing.TB, edits ...Edit) (bin string) {
	t.Helper()
	dir := t.TempDir()
	replace := make(map[string]string)
	for i, e := range edits {
		text, err := e.apply()
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
