package repolint

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// namedTest matches a test in a document, with the package before it, as in `sink`:
// `TestKills`.
var namedTest = regexp.MustCompile("(?:`([a-z0-9]+)`: )?`((?:Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9_]*)`")

// namedTests: a test that a document names as the guard of a promise must exist.
func namedTests(r repo) (bad []string) {
	where := map[string][]string{} // by test, the names of packages
	for _, p := range r.pkgs {
		for _, f := range p.files {
			for _, name := range f.tests {
				where[name] = append(where[name], path.Base(p.path))
			}
		}
	}
	for _, f := range r.files {
		if path.Base(f.path) != "DESIGN.md" && f.path != guide {
			continue
		}
		for i, line := range strings.Split(f.text, "\n") {
			for _, m := range namedTest.FindAllStringSubmatch(line, -1) {
				switch found := where[m[2]]; {
				case len(found) == 0:
					bad = append(bad, fmt.Sprintf("%s:%d names %s, which no package has: name the test that guards "+
						"this promise, or write one", f.path, i+1, m[2]))
				case m[1] != "" && !slices.Contains(found, m[1]):
					bad = append(bad, fmt.Sprintf("%s:%d names %s of package %s, which is in %s",
						f.path, i+1, m[2], m[1], strings.Join(found, ", ")))
				}
			}
		}
	}
	return bad
}
