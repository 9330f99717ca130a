package repolint

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a line, in columns. A tab counts as four.
const (
	maxCommentColumns = 100
	maxCodeColumns    = 120
)

// maxOneWordPercent is how many of the unexported functions may have a name of one
// word. The projects that we compared with have 11 to 29.
const maxOneWordPercent = 30

// wideLine is a line over its limit.
type wideLine struct {
	number  int // from 1
	columns int
	comment bool // the line has nothing but a comment
}

// wideLines returns the lines over the limits. It skips lines inside the raw strings of
// a test: these are rows, catalogs and golden texts.
func wideLines(fset *token.FileSet, f *ast.File, text []byte, test bool) (wide []wideLine) {
	skipped := map[int]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		literal, ok := n.(*ast.BasicLit)
		if !ok || !test || literal.Kind != token.STRING || literal.Value[0] != '`' {
			return true
		}
		for line := fset.Position(literal.Pos()).Line; line <= fset.Position(literal.End()).Line; line++ {
			skipped[line] = true
		}
		return true
	})
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\t", "    ")
		w := wideLine{
			number:  number,
			columns: utf8.RuneCountInString(line),
			comment: strings.HasPrefix(strings.TrimSpace(line), "//"),
		}
		if w.columns > w.limit() && !skipped[number] {
			wide = append(wide, w)
		}
	}
	return wide
}

func (w wideLine) limit() int {
	if w.comment {
		return maxCommentColumns
	}
	return maxCodeColumns
}

// isOneWord reports whether a name has no second capital and no underscore.
func isOneWord(name string) bool {
	return !strings.ContainsFunc(name[1:], func(r rune) bool { return unicode.IsUpper(r) || r == '_' })
}

func narrowLines(r repo) (bad []string) {
	for _, p := range r.pkgs {
		for _, f := range p.files {
			for _, w := range f.wide {
				kind := "code"
				if w.comment {
					kind = "comment"
				}
				bad = append(bad, fmt.Sprintf("%s:%d: %d columns of %s are more than %d: break the line",
					f.name, w.number, w.columns, kind, w.limit()))
			}
		}
	}
	return bad
}

// fullNames bounds the share of names of one word among unexported functions.
func fullNames(r repo) []string {
	all, oneWord := 0, 0
	var worst []goFile
	for _, p := range r.pkgs {
		for _, f := range p.files {
			if f.test {
				continue
			}
			all += f.unexported
			oneWord += len(f.oneWord)
			worst = append(worst, f)
		}
	}
	if 100*oneWord <= maxOneWordPercent*all {
		return nil
	}
	slices.SortStableFunc(worst, func(a, b goFile) int { return cmp.Compare(len(b.oneWord), len(a.oneWord)) })
	var examples []string
	for _, f := range worst[:min(len(worst), 5)] {
		examples = append(examples, f.name+": "+strings.Join(f.oneWord, ", "))
	}
	return []string{fmt.Sprintf("%d of %d unexported functions have a name of one word, which is more than %d %%: "+
		"name them by verb and object (%s)", oneWord, all, maxOneWordPercent, strings.Join(examples, "; "))}
}
