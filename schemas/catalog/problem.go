package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// Problem is one fault of a catalog. [Parse], [Load] and [New] return all that they
// find, joined, in the order of the files.
type Problem struct {
	File   string // "" if the workspace was not read from a file
	Line   int    // 1-based; 0 if unknown
	Column int    // 1-based, in characters
	Path   string // such as workspaces[0].links[2].partner; "" for the file as a whole
	Text   string
}

// Error is FILE:LINE:COL: PATH: TEXT, without the parts that are unknown.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		fmt.Fprintf(&b, "%s:%d:%d: ", p.File, p.Line, p.Column)
	}
	if p.Path != "" {
		b.WriteString(p.Path)
		b.WriteString(": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// joinProblems sorts the problems of each file by position. Files keep the order in
// which they were first named; workspaces made in Go keep theirs.
func joinProblems(problems []*Problem) error {
	rank := map[string]int{}
	for _, p := range problems {
		if _, ok := rank[p.File]; !ok {
			rank[p.File] = len(rank)
		}
	}
	slices.SortStableFunc(problems, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(rank[a.File], rank[b.File]), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column))
	})
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// fieldPath is a path into a catalog file. It is a chain, which costs little while
// nothing is wrong, and becomes text only in a Problem.
type fieldPath struct {
	parent *fieldPath // nil at the top level
	key    string     // a field, or a key of a mapping with free keys
	free   bool       // key is of a mapping with free keys
	index  int        // in the list that parent leads to, if key is ""
}

func (p *fieldPath) field(key string) *fieldPath { return &fieldPath{parent: p, key: key} }
func (p *fieldPath) freeKey(key string) *fieldPath {
	return &fieldPath{parent: p, key: key, free: true}
}
func (p *fieldPath) item(i int) *fieldPath { return &fieldPath{parent: p, index: i} }

// String writes the path as in workspaces[0].links[2].partner; "" for nil.
func (p *fieldPath) String() string {
	switch {
	case p == nil:
		return ""
	case p.free:
		return p.parent.String() + "[" + strconv.Quote(p.key) + "]"
	case p.key == "":
		return p.parent.String() + "[" + strconv.Itoa(p.index) + "]"
	case p.parent == nil:
		return p.key
	}
	return p.parent.String() + "." + p.key
}

// sourceFile remembers where a workspace was read from. It keeps no positions: the line
// of a problem is looked up in the syntax tree.
type sourceFile struct {
	file  string          // as the caller named it
	index int             // of the workspace in its file
	root  ast.Node        // of the file
	bad   map[string]bool // paths that the decoder has already reported
}

// hasComplaint reports whether the decoder has already refused the value at p, or one
// that contains it.
func (s *sourceFile) hasComplaint(p *fieldPath) bool {
	for ; p != nil; p = p.parent {
		if s.bad[p.String()] {
			return true
		}
	}
	return false
}

// positionOf returns the position of p, or of the innermost part of p that exists.
func (s *sourceFile) positionOf(p *fieldPath) *token.Position {
	pos, _ := locateNode(s.root, p)
	return pos
}

func locateNode(root ast.Node, p *fieldPath) (*token.Position, ast.Node) {
	if p == nil {
		return nodePosition(root), root
	}
	outer, node := locateNode(root, p.parent)
	switch n := node.(type) {
	case *ast.MappingNode:
		for _, kv := range n.Values {
			if text, ok := keyText(kv.Key); !ok || text != p.key {
				continue
			}
			if _, null := kv.Value.(*ast.NullNode); null || kv.Value == nil {
				return kv.Key.GetToken().Position, kv.Value
			}
			return nodePosition(kv.Value), kv.Value
		}
	case *ast.SequenceNode:
		if p.key == "" && p.index < len(n.Values) {
			return nodePosition(n.Values[p.index]), n.Values[p.index]
		}
	}
	return outer, nil
}

// nodePosition returns where a reader sees the node begin: for a block mapping the
// parser gives the colon, but it begins with its first key.
func nodePosition(n ast.Node) *token.Position {
	if n == nil {
		return &token.Position{Line: 1, Column: 1}
	}
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken().Position
	}
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		return tk.Position
	}
	return &token.Position{Line: 1, Column: 1}
}

// keyText returns the text of a key. The decoder refuses every other kind of key.
func keyText(k ast.MapKeyNode) (string, bool) {
	s, ok := k.(*ast.StringNode)
	if !ok {
		return "", false
	}
	return s.Value, true
}
