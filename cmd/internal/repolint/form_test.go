package repolint

import (
	"fmt"
	"slices"
	"strings"
)

// packageNames refuses package names that do not describe the contents.
func packageNames(r repo) (bad []string) {
	for _, p := range r.pkgs {
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "misc", "model", "models",
			"types"}, p.name) {
			bad = append(bad, fmt.Sprintf("package %s: the name does not describe it; name it after what it provides",
				p.path))
		}
	}
	return bad
}

func packageComments(r repo) (bad []string) {
	for _, p := range r.pkgs {
		onlyTests := !slices.ContainsFunc(p.files, func(f goFile) bool { return !f.test })
		if !p.doc && !onlyTests {
			bad = append(bad, fmt.Sprintf("package %s has no package comment: say in doc.go what it is and what "+
				"it promises", p.path))
		}
	}
	return bad
}

func noInit(r repo) (bad []string) {
	for _, p := range r.pkgs {
		for _, f := range p.files {
			if f.inits > 0 {
				bad = append(bad, f.name+" has an init function: an import must have no effect; move the code into "+
					"a function that a caller needs")
			}
		}
	}
	return bad
}

// maxMain bounds the length of a file with func main, in lines.
const maxMain = 120

func shortMains(r repo) (bad []string) {
	for _, p := range r.pkgs {
		for _, f := range p.files {
			if f.main && f.lines > maxMain {
				bad = append(bad, fmt.Sprintf("%s has %d lines: a main wires, in at most %d; move what it does "+
					"into a package, or what it wires into cmd/internal", f.name, f.lines, maxMain))
			}
		}
	}
	return bad
}

// linesPerInterface bounds the number of interfaces: each needs two real
// implementations, and those are rare.
const linesPerInterface = 1000

func fewInterfaces(r repo) []string {
	lines := 0
	var where []string
	for _, p := range r.pkgs {
		for _, f := range p.files {
			if f.test {
				continue
			}
			lines += f.lines
			for _, name := range f.interfaces {
				where = append(where, f.name+" "+name)
			}
		}
	}
	if len(where)*linesPerInterface <= lines {
		return nil
	}
	return []string{fmt.Sprintf("%d interfaces in %d lines are more than one in %d: use the concrete type, or a "+
		"function (%s)", len(where), lines, linesPerInterface, strings.Join(where, ", "))}
}

// eachFile collects the findings of see about each text file.
func eachFile(r repo, see func(f textFile) string) (bad []string) {
	for _, f := range r.files {
		if text := see(f); text != "" {
			bad = append(bad, f.path+": "+text)
		}
	}
	return bad
}

// registryHosts are hosts of package registries. The strings are split so that this
// file is no finding.
func registryHosts() []string {
	return []string{"npm" + "js.", "pypi" + ".org", "pypi" + ".python", "pythonhosted" + ".", "repo1.mav" +
		"en", "repo.mav" + "en", "search.mav" + "en", "crates" + ".io", "proxy.golang" + ".org", "sum.golang" + ".org",
		"deb.deb" + "ian", "rubygems" + ".org"}
}

// noRegistries: each machine's own configuration decides where packages come from.
func noRegistries(r repo) []string {
	return eachFile(r, func(f textFile) string {
		for _, host := range registryHosts() {
			if strings.Contains(strings.ToLower(f.text), host) {
				return fmt.Sprintf("names the package registry %q: call the package manager by its name, and leave "+
					"the host to its configuration", host)
			}
		}
		return ""
	})
}

// selfContained: no file refers to a folder outside the repository.
func selfContained(r repo) []string {
	return eachFile(r, func(f textFile) string {
		if isWithin(f.path, ".ci") {
			return ""
		}
		for _, outside := range []string{".." + "/shared", "/wo" + "rk/"} {
			if strings.Contains(f.text, outside) {
				return fmt.Sprintf("names %q, which is not in this repository: write here what readers need", outside)
			}
		}
		return ""
	})
}

func topLevel(r repo) (bad []string) {
	folders := []string{"cmd", "pipeline", "schemas", "connectors", "dashboards", "deploy"}
	files := []string{"go.mod", "go.sum", "README.md", "GLOSSARY.md", "CONTRIBUTING.md", "CHANGELOG.md"}
	seen := map[string]bool{}
	for _, f := range r.files {
		top, _, inFolder := strings.Cut(f.path, "/")
		known := files
		if inFolder {
			known = folders
		}
		if seen[top] || strings.HasPrefix(top, ".") || slices.Contains(known, top) {
			continue
		}
		seen[top] = true
		bad = append(bad, fmt.Sprintf("%s: the top level is %s, %s and dotfiles; move it into one of them",
			top, strings.Join(folders, ", "), strings.Join(files, ", ")))
	}
	return bad
}
