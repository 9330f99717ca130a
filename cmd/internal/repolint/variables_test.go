package repolint

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// guide is the document that has the tables of tests and of their variables.
const guide = "CONTRIBUTING.md"

// testVariable matches an environment variable that controls tests or benchmarks.
var testVariable = regexp.MustCompile(`PARTNERS_(?:TEST|REQUIRE|BENCH)_[A-Z0-9_]*[A-Z0-9]`)

// longForm asks for the long form of tests. The string is split so that this file is no
// finding.
const longForm = "PARTNERS_TEST_" + "LONG"

// testVariables compares the guide's table of variables with the code, both ways. It
// requires a line for each package whose tests have a long form.
func testVariables(r repo) (bad []string) {
	tabled := map[string]bool{} // variables in the first cell of a line
	packages := map[string]bool{}
	for _, f := range r.files {
		if f.path != guide {
			continue
		}
		for _, line := range strings.Split(f.text, "\n") {
			if cell, ok := strings.CutPrefix(line, "| "); ok {
				cell, _, _ = strings.Cut(cell, " |")
				for _, v := range testVariable.FindAllString(cell, -1) {
					tabled[v] = true
				}
			}
			for _, m := range namedTest.FindAllStringSubmatch(line, -1) {
				packages[m[1]] = true
			}
		}
	}
	read := map[string]bool{}
	for _, p := range r.pkgs {
		for _, f := range p.files {
			for _, v := range f.variables {
				read[v] = true
				if v == longForm && !packages[p.path[strings.LastIndexByte(p.path, '/')+1:]] {
					bad = append(bad, fmt.Sprintf("%s reads %s, and no line of %s has a test of its package: describe "+
						"the short form, and what makes it fail", f.name, v, guide))
				}
			}
		}
	}
	for v := range tabled {
		if !read[v] {
			bad = append(bad, fmt.Sprintf("%s has a line on %s, which no code reads: remove it", guide, v))
		}
	}
	reported := map[string]bool{}
	for _, f := range r.files {
		for _, v := range testVariable.FindAllString(f.text, -1) {
			if !tabled[v] && !reported[v] {
				reported[v] = true
				bad = append(bad, fmt.Sprintf("%s names %s, on which %s has no line: add one, or use a "+
					"variable that has", f.path, v, guide))
			}
		}
	}
	slices.Sort(bad)
	return slices.Compact(bad) // a file may read a variable twice
}
