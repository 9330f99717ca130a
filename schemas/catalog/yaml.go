package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxDepth bounds the nesting of a file before it is parsed. The parser recurses, and
// Go cannot recover from a stack overflow. A catalog needs 5.
const maxDepth = 32

// Load reads catalog files and checks them together. It returns all problems of all
// files, joined.
func Load(paths ...string) (*Catalog, error) {
	var (
		workspaces []Workspace
		problems   []*Problem
	)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading catalog: %w", err)
		}
		found, bad := decodeFile(path, data)
		workspaces = append(workspaces, found...)
		problems = append(problems, bad...)
	}
	problems = append(problems, checkWorkspaces(workspaces)...)
	if err := joinProblems(problems); err != nil {
		return nil, err
	}
	return New(workspaces)
}

// Parse reads one catalog file and checks it; its problems name the file as name. The
// workspaces have defaults filled in and remember where they were read, so that [New]
// can give line and column of a conflict between files.
func Parse(name string, data []byte) ([]Workspace, error) {
	workspaces, problems := decodeFile(name, data)
	problems = append(problems, checkWorkspaces(workspaces)...)
	if err := joinProblems(problems); err != nil {
		return nil, err
	}
	return workspaces, nil
}

// decodeFile turns a file into workspaces and reports problems of its form only. A
// value that it reported is zero, and the checker skips it.
func decodeFile(name string, data []byte) ([]Workspace, []*Problem) {
	d := &decoder{file: name, bad: map[string]bool{}}
	root := d.parseDocument(data)
	if root == nil {
		return nil, d.problems
	}
	d.root = root
	var workspaces []Workspace
	d.readFields(root, nil, fieldTable{listField("workspaces", &workspaces, workspaceFields)})
	for i := range workspaces {
		workspaces[i].src = &sourceFile{file: name, index: i, root: root, bad: d.bad}
	}
	if len(workspaces) == 0 && len(d.problems) == 0 {
		d.addProblem(nil, nodePosition(root), "no workspaces")
	}
	for i := range workspaces {
		fillDefaults(&workspaces[i])
	}
	return workspaces, d.problems
}

// decoder reads one file.
type decoder struct {
	file     string          // as the caller named it
	root     ast.Node        // of the file
	problems []*Problem      // so far
	bad      map[string]bool // paths of problems
}

func (d *decoder) addProblem(at *fieldPath, pos *token.Position, format string, args ...any) {
	path := at.String()
	if path != "" {
		d.bad[path] = true
	}
	d.problems = append(d.problems, &Problem{
		File: d.file, Line: pos.Line, Column: pos.Column, Path: path, Text: fmt.Sprintf(format, args...),
	})
}

// parseDocument returns the root of the only document, or nil after it added a problem.
func (d *decoder) parseDocument(data []byte) (root ast.Node) {
	start := &token.Position{Line: 1, Column: 1}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if i := invalidByte(data); i >= 0 {
		d.addProblem(nil, bytePosition(data, i),
			"byte 0x%02x is not text: a catalog is UTF-8 without control characters", data[i])
		return nil
	}
	defer func() { // a file must not be able to stop a daemon by a bug of the YAML library
		if r := recover(); r != nil {
			root = nil
			d.addProblem(nil, start, "not valid YAML: %v", r)
		}
	}()
	tokens := lexer.Tokenize(string(data))
	if pos := tooDeep(tokens); pos != nil {
		d.addProblem(nil, pos, "nested too deeply")
		return nil
	}
	// eachKey finds repeated keys, all of them
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		pos, text := start, err.Error()
		var y yaml.Error
		if errors.As(err, &y) {
			text = y.GetMessage()
			if tk := y.GetToken(); tk != nil && tk.Position != nil {
				pos = tk.Position
			}
		}
		d.addProblem(nil, pos, "not valid YAML: %s", text)
		return nil
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if root != nil {
			d.addProblem(nil, nodePosition(doc.Body), "a catalog file has one document, without directives")
			return nil
		}
		root = doc.Body
	}
	if root == nil {
		d.addProblem(nil, start, "no workspaces")
	}
	return root
}

// invalidByte returns the index of the first byte that YAML does not allow in a file,
// or -1.
func invalidByte(data []byte) int {
	for i := 0; i < len(data); {
		if b := data[i]; b < utf8.RuneSelf {
			if b < ' ' && b != '\t' && b != '\n' && b != '\r' || b == 0x7f {
				return i
			}
			i++
			continue
		}
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

func bytePosition(data []byte, i int) *token.Position {
	head := data[:i]
	line := bytes.Count(head, []byte("\n")) + 1
	return &token.Position{Line: line, Column: utf8.RuneCount(head[bytes.LastIndexByte(head, '\n')+1:]) + 1}
}

// tooDeep returns where the nesting exceeds maxDepth, or nil. It counts the brackets of
// flow nesting. For block nesting it bounds the indentation of lines, and the dashes
// and question marks on one line: each level needs one of these.
func tooDeep(tokens token.Tokens) *token.Position {
	var flow, line, marks int
	for _, tk := range tokens {
		if tk.Position.Line != line {
			line, marks = tk.Position.Line, 0
			if flow == 0 && tk.Position.Column > 10*maxDepth && tk.Type != token.CommentType {
				return tk.Position
			}
		}
		switch tk.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			marks++
		}
		if flow > maxDepth || marks > maxDepth {
			return tk.Position
		}
	}
	return nil
}

// readFields reads a mapping by its table.
func (d *decoder) readFields(n ast.Node, at *fieldPath, fields fieldTable) {
	seen := map[string]bool{}
	d.eachKey(n, at, at.field, func(key string, kv *ast.MappingValueNode, here *fieldPath) {
		seen[key] = true
		if f := fields.fieldOf(key); f != nil {
			f.decode(d, kv.Value, here)
			return
		}
		d.addProblem(here, kv.Key.GetToken().Position, "unknown key: known are %s", fields.knownKeys())
	})
	if _, ok := n.(*ast.MappingNode); !ok {
		return
	}
	for i := range fields {
		if f := &fields[i]; f.missing != "" && !seen[f.key] {
			d.addProblem(at.field(f.key), nodePosition(n), "%s", f.missing)
		}
	}
}

// eachKey calls read for every key of a mapping, with the path that pathOf makes of it.
// The second occurrence of a key is refused.
func (d *decoder) eachKey(n ast.Node, at *fieldPath, pathOf func(key string) *fieldPath,
	read func(key string, kv *ast.MappingValueNode, at *fieldPath)) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.addTypeProblem(n, at, "a mapping")
		return
	}
	first := map[string]*token.Position{}
	for _, kv := range m.Values {
		pos := kv.Key.GetToken().Position
		key, ok := keyText(kv.Key)
		if !ok {
			d.addProblem(at.field(kv.Key.GetToken().Value), pos, "a key must be plain or quoted text")
			continue
		}
		if p := first[key]; p != nil {
			d.addProblem(pathOf(key), pos, "repeated key: first at line %d, column %d", p.Line, p.Column)
			continue
		}
		first[key] = pos
		read(key, kv, pathOf(key))
	}
}

// eachItem calls read for every element, malformed ones included, so that indices are
// those of the file.
func (d *decoder) eachItem(n ast.Node, at *fieldPath, read func(n ast.Node, at *fieldPath)) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.addTypeProblem(n, at, "a list")
		return
	}
	for i, v := range s.Values {
		read(v, at.item(i))
	}
}

func (d *decoder) readText(n ast.Node, at *fieldPath) string {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value
	case *ast.LiteralNode:
		return n.Value.Value
	}
	d.addTypeProblem(n, at, "text")
	return ""
}

func (d *decoder) readNonEmptyText(n ast.Node, at *fieldPath) string {
	s := d.readText(n, at)
	if s == "" && !d.bad[at.String()] {
		d.addProblem(at, nodePosition(n), "is empty: leave the key out or give a value")
	}
	return s
}

func (d *decoder) readFlag(n ast.Node, at *fieldPath) bool {
	if b, ok := n.(*ast.BoolNode); ok {
		return b.Value
	}
	d.addTypeProblem(n, at, "true or false")
	return false
}

var durationForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,8})([dhms])$`)

func (d *decoder) readWindow(n ast.Node, at *fieldPath) int64 {
	return d.readDuration(n, at, "window", windowProblem)
}

func (d *decoder) readFollow(n ast.Node, at *fieldPath) int64 {
	return d.readDuration(n, at, "follow", followProblem)
}

// readDuration reads a number and d, h, m or s, and returns milliseconds. problem says
// what is wrong with them.
func (d *decoder) readDuration(n ast.Node, at *fieldPath, name string, problem func(ms int64) string) int64 {
	s := d.readText(n, at)
	if s == "" && d.bad[at.String()] {
		return 0
	}
	m := durationForm.FindStringSubmatch(s)
	if m == nil {
		d.addProblem(at, nodePosition(n), `%s %q is not a whole number and d, h, m or s, such as "30d"`, name, s)
		return 0
	}
	count, _ := strconv.ParseInt(m[1], 10, 64) // at most nine digits
	unit := map[string]time.Duration{"d": 24 * time.Hour, "h": time.Hour, "m": time.Minute, "s": time.Second}[m[2]]
	ms := count * unit.Milliseconds()
	if text := problem(ms); text != "" {
		d.addProblem(at, nodePosition(n), "%s", text)
		return 0
	}
	return ms
}

func (d *decoder) readTimestamp(n ast.Node, at *fieldPath) time.Time {
	s := d.readText(n, at)
	if s == "" && d.bad[at.String()] {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Year() < 1970 {
		d.addProblem(at, nodePosition(n), "%q is not an RFC 3339 time such as 2026-01-05T00:00:00Z", s)
		return time.Time{}
	}
	return t
}

// readTextMap reads a mapping whose keys are of the file's own choice.
func (d *decoder) readTextMap(n ast.Node, at *fieldPath) map[string]string {
	texts := map[string]string{}
	d.eachKey(n, at, at.freeKey, func(key string, kv *ast.MappingValueNode, at *fieldPath) {
		texts[key] = d.readText(kv.Value, at)
	})
	return texts
}

func (d *decoder) addTypeProblem(n ast.Node, at *fieldPath, want string) {
	pos := nodePosition(n)
	if at != nil {
		pos, _ = locateNode(d.root, at)
	}
	switch n.(type) {
	case nil, *ast.NullNode:
		d.addProblem(at, pos, "must be %s, is empty: leave the key out or give a value", want)
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		if want == "text" {
			d.addProblem(at, pos, "must be text, is %s: put it in quotes", nodeKind(n))
			return
		}
		d.addProblem(at, pos, "must be %s, is %s", want, nodeKind(n))
	default:
		d.addProblem(at, pos, "must be %s, is %s", want, nodeKind(n))
	}
}

func nodeKind(n ast.Node) string {
	switch n.(type) {
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.MappingNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.DirectiveNode:
		return "an anchor, alias, tag or directive, which a catalog does not use"
	}
	return "something else"
}
