package repolint

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/nimriz/partners"

// repo is the input of the rules.
type repo struct {
	pkgs  []pkg
	files []textFile
}

// pkg is one directory with Go files.
type pkg struct {
	path  string // from the module's root, such as pipeline/kafka
	name  string
	doc   bool // has a package comment
	files []goFile
}

// goFile is a Go file, as far as the rules need it.
type goFile struct {
	name       string // path from the root
	test       bool   // _test.go
	lines      int
	wide       []wideLine // lines over the limits
	unexported int        // functions and methods
	oneWord    []string   // those of unexported with a name of one word
	imports    []string
	uses       []string // of package os, such as os.Exit
	inits      int      // functions named init
	main       bool     // has func main of package main
	interfaces []string // names of types
	tests      []string // functions that go test runs
	variables  []string // environment variables of tests, in its strings
}

// textFile is any file that git would keep.
type textFile struct{ path, text string }

// loadRepo reads the repository that contains the working directory.
func loadRepo(t *testing.T) repo {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	var r repo
	byDir := map[string]*pkg{}
	var dirs []string
	all := listFiles(t, root)
	readDirs(t, root, all)
	for _, name := range all {
		text, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted, but not in git yet
		}
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(text[:min(len(text), 8000)], 0) < 0 { // text by git's rule
			r.files = append(r.files, textFile{name, string(text)})
		}
		if !strings.HasSuffix(name, ".go") || strings.Contains("/"+name, "/testdata/") {
			continue
		}
		dir := path.Dir(name)
		if byDir[dir] == nil {
			byDir[dir] = &pkg{path: dir}
			dirs = append(dirs, dir)
		}
		byDir[dir].addFile(t, name, text)
	}
	for _, dir := range dirs {
		r.pkgs = append(r.pkgs, *byDir[dir])
	}
	if len(r.pkgs) < 20 || len(r.files) < 100 {
		t.Fatalf("read only %d packages and %d files of %s: the rules would look at nothing",
			len(r.pkgs), len(r.files), root)
	}
	return r
}

// readDirs reads the directories of the files. go test then reruns this test when a
// file is added, instead of printing the cached result.
func readDirs(t *testing.T, root string, names []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, name := range names {
		for dir := path.Dir(name); !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			if _, err := os.ReadDir(filepath.Join(root, dir)); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
}

// listFiles lists the files that git tracks or would add; without git, all files.
func listFiles(t *testing.T, root string) []string {
	t.Helper()
	git := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	git.Dir = root
	if out, err := git.Output(); err == nil && len(out) > 0 {
		return strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	}
	var out []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err == nil && !strings.HasPrefix(rel, ".git"+string(filepath.Separator)) && d.Type().IsRegular() {
			out = append(out, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// testName matches a function that go test runs.
var testName = regexp.MustCompile(`^(Test|Fuzz|Benchmark)[A-Z]`)

func (p *pkg) addFile(t *testing.T, name string, text []byte) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	g := goFile{name: name, test: strings.HasSuffix(name, "_test.go"), lines: bytes.Count(text, []byte("\n"))}
	if !ast.IsGenerated(f) {
		g.wide = wideLines(fset, f, text, g.test)
	}
	if !g.test {
		p.doc = p.doc || f.Doc != nil
	}
	if !g.test || p.name == "" {
		p.name = strings.TrimSuffix(f.Name.Name, "_test")
	}
	osName := "os"
	for _, i := range f.Imports {
		target, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		g.imports = append(g.imports, target)
		if target == "os" && i.Name != nil {
			osName = i.Name.Name
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if !n.Name.IsExported() {
				g.unexported++
				if isOneWord(n.Name.Name) {
					g.oneWord = append(g.oneWord, n.Name.Name)
				}
			}
			if n.Recv == nil && n.Name.Name == "init" {
				g.inits++
			}
			if n.Recv == nil && g.test && testName.MatchString(n.Name.Name) {
				g.tests = append(g.tests, n.Name.Name)
			}
			if n.Recv == nil && n.Name.Name == "main" && f.Name.Name == "main" {
				g.main = true
			}
		case *ast.TypeSpec:
			if _, ok := n.Type.(*ast.InterfaceType); ok {
				g.interfaces = append(g.interfaces, n.Name.Name)
			}
		case *ast.BasicLit:
			if n.Kind == token.STRING {
				g.variables = append(g.variables, testVariable.FindAllString(n.Value, -1)...)
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == osName {
				g.uses = append(g.uses, "os."+n.Sel.Name)
			}
		}
		return true
	})
	p.files = append(p.files, g)
}
