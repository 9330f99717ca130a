package repolint

import (
	"fmt"
	"slices"
	"strings"
)

// packageNames refuses names that say nothing about what is in a package.
func packageNames(r repo) (bad []string) {
	for _, p := range r.pkgs {
		if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "misc", "model", "models",
			"types"}, p.name) {
			bad = append(bad, fmt.Sprintf("package %s: the name says nothing; name it after what it provides", p.path))
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
				bad = append(bad, f.name+" has an init function: nothing happens at import; do it in a function "+
					"that somebody calls")
			}
		}
	}
	return bad
}

// maxMain is the length of a file with func main, in lines.
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

// linesPerInterface: an interface is for two real implementations, and those are rare.
const linesPerInterface = 1000

func fewInterfaces(r repo) []string {
	lines, where := 0, []string{}
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

// eachFile collects what see has to say about each text file.
func eachFile(r repo, see func(f textFile) string) (bad []string) {
	for _, f := range r.files {
		if text := see(f); text != "" {
			bad = append(bad, f.path+": "+text)
		}
	}
	return bad
}

// registryHosts are hosts of package registries. They are put together here so that this
// file is not its own finding.
func registryHosts() []string {
	return []string{"npm" + "js.", "pypi" + ".org", "pypi" + ".python", "pythonhosted" + ".", "repo1.mav" +
		"en", "repo.mav" + "en", "search.mav" + "en", "crates" + ".io", "proxy.golang" + ".org", "sum.golang" + ".org",
		"deb.deb" + "ian", "rubygems" + ".org"}
}

// noRegistries: where packages come from is the business of each machine's own
// configuration.
func noRegistries(r repo) []string {
	return eachFile(r, func(f textFile) string {
		for _, host := range registryHosts() {
			if strings.Contains(strings.ToLower(f.text), host) {
				return fmt.Sprintf("names the package registry %q: call the package manager by its name, and let "+
					"its configuration say where from", host)
			}
		}
		return ""
	})
}

// selfContained: nothing points to a folder outside the repository.
func selfContained(r repo) []string {
	return eachFile(r, func(f textFile) string {
		if isWithin(f.path, ".ci") {
			return ""
		}
		for _, outside := range []string{".." + "/shared", "/wo" + "rk/"} {
			if strings.Contains(f.text, outside) {
				return fmt.Sprintf("names %q, which is not in this repository: say here what is to be known", outside)
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
