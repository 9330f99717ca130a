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

// Problem is one thing that is wrong with a catalog. [Parse], [Load] and [New] report
// all they find, joined, in the order of the files.
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

// joinProblems keeps the order in which files were first named; workspaces made in Go
// come in their own order.
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

// fieldPath is a path into a catalog file, kept as a chain and written out only when
// something is wrong there.
type fieldPath struct {
	parent *fieldPath
	key    string // a field, or a key of a mapping with free keys
	free   bool   // key is of a mapping with free keys
	index  int    // position in the list parent, if key is ""
}

func (p *fieldPath) field(key string) *fieldPath { return &fieldPath{parent: p, key: key} }
func (p *fieldPath) freeKey(key string) *fieldPath {
	return &fieldPath{parent: p, key: key, free: true}
}
func (p *fieldPath) item(i int) *fieldPath { return &fieldPath{parent: p, index: i} }

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

// source is where a file's workspaces were read from. Positions are not kept: a place
// is looked up in the syntax tree when there is something to say about it.
type source struct {
	file  string
	index int             // of the workspace in its file
	root  ast.Node        // of the file
	bad   map[string]bool // places the decoder has already complained about
}

// complained says whether the decoder has already refused the value at p, or one that
// contains it.
func (s *source) complained(p *fieldPath) bool {
	for ; p != nil; p = p.parent {
		if s.bad[p.String()] {
			return true
		}
	}
	return false
}

// position finds p, or the innermost thing around it that exists.
func (s *source) position(p *fieldPath) *token.Position {
	pos, _ := locate(s.root, p)
	return pos
}

func locate(root ast.Node, p *fieldPath) (*token.Position, ast.Node) {
	if p == nil {
		return nodePosition(root), root
	}
	outer, node := locate(root, p.parent)
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

// nodePosition is where a reader sees the node begin: a block mapping begins with its
// first key, not with the colon.
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

// keyText returns the text of a key; every other kind of key is refused by the decoder.
func keyText(k ast.MapKeyNode) (string, bool) {
	s, ok := k.(*ast.StringNode)
	if !ok {
		return "", false
	}
	return s.Value, true
}
