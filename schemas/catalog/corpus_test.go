package catalog

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files under testdata")

// TestGoodFiles: every file under testdata/good is accepted, and makes the records in
// the .records file beside it.
func TestGoodFiles(t *testing.T) {
	for _, file := range corpus(t, "good") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			c, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			for _, e := range c.Entries() {
				fmt.Fprintf(&out, "%s\n  %s\n", e.Key, e.Value)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".records", out.String())
		})
	}
}

// TestBadFiles: every file under testdata/bad is refused with exactly the text in the
// .errors file beside it, and New says the same as Parse where the form is right.
func TestBadFiles(t *testing.T) {
	for _, file := range corpus(t, "bad") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			ws, err := Parse(filepath.Base(file), data)
			if err == nil {
				t.Fatalf("accepted: %+v", ws)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".errors", err.Error()+"\n")
			if _, err := Load(file); err == nil {
				t.Error("Load accepted what Parse refused")
			}
		})
	}
}

// TestConflictsBetweenFiles: what is right alone can be wrong together, and both places
// are named.
func TestConflictsBetweenFiles(t *testing.T) {
	const file = "workspaces:\n  - {id: %s, name: N, plan: starter, access: {}, domains: [%s], aliases: {%s: %[2]s}}\n"
	var all []Workspace
	for i, args := range [][3]any{
		{"a", "one.com", "two.com"},
		{"a", "three.com", "four.com"},
		{"b", "two.com", "one.com"},
	} {
		ws, err := Parse(fmt.Sprintf("%d.yaml", i), fmt.Appendf(nil, file, args[:]...))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ws...)
	}
	_, err := New(all)
	want := strings.Join([]string{
		`1.yaml:2:10: workspaces[0].id: duplicate workspace id "a": first at 0.yaml:2:10`,
		`2.yaml:2:59: workspaces[0].domains[0]: duplicate host "two.com": first at 0.yaml:2:88`,
		`2.yaml:2:88: workspaces[0].aliases["one.com"]: duplicate host "one.com": first at 0.yaml:2:59`,
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	for i := range all {
		all[i].src = nil
	}
	_, err = New(all)
	if want := `workspaces[1].id: duplicate workspace id "a": first at workspaces[0].id`; err == nil ||
		!strings.HasPrefix(err.Error(), want+"\n") {
		t.Errorf("made in Go: got\n%v\nwant first\n%s", err, want)
	}
}

// TestLoadReportsAllFiles: a file whose form is wrong does not hide the others'
// problems.
func TestLoadReportsAllFiles(t *testing.T) {
	_, err := Load("testdata/bad/syntax.yaml", "testdata/bad/references.yaml")
	if err == nil || !strings.Contains(err.Error(), "syntax.yaml:2:9: not valid YAML") ||
		!strings.Contains(err.Error(), "unknown partner id") {
		t.Errorf("got %v", err)
	}
	if _, err := Load("testdata/none.yaml"); err == nil {
		t.Error("a missing file was accepted")
	}
}

// TestDemoCatalog: the demo runs on the catalog that is tested here.
func TestDemoCatalog(t *testing.T) {
	ours, err := os.ReadFile("testdata/good/acme.yaml")
	if err != nil {
		t.Fatal(err)
	}
	demo, err := os.ReadFile("../../cmd/demo/catalog.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours, demo) {
		t.Error("cmd/demo/catalog.yaml differs from testdata/good/acme.yaml: copy one over the other")
	}
}

func corpus(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus in testdata/%s: %v", dir, err)
	}
	return files
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-rewrite accepts) -want +got:\n%s", file, diff)
	}
}
