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

// maxDepth bounds the nesting of a file before it is parsed: the parser recurses, and a
// stack that overflows cannot be recovered from. A catalog needs 5.
const maxDepth = 32

// Load reads and checks catalog files together. All problems of all files are reported,
// joined.
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
		found, bad := decode(path, data)
		workspaces = append(workspaces, found...)
		problems = append(problems, bad...)
	}
	problems = append(problems, validate(workspaces)...)
	if err := joinProblems(problems); err != nil {
		return nil, err
	}
	return New(workspaces)
}

// Parse reads one catalog file and checks it; name is what problems call it. The
// workspaces come with defaults filled in and remember where they were read, so that
// [New] can still name lines and columns when it finds conflicts between files.
func Parse(name string, data []byte) ([]Workspace, error) {
	workspaces, problems := decode(name, data)
	problems = append(problems, validate(workspaces)...)
	if err := joinProblems(problems); err != nil {
		return nil, err
	}
	return workspaces, nil
}

// decode turns a file into workspaces and complains only about its form. What it
// complained about holds a zero value, and validate is silent there.
func decode(name string, data []byte) ([]Workspace, []*Problem) {
	d := &decoder{file: name, bad: map[string]bool{}}
	root := d.parse(data)
	if root == nil {
		return nil, d.problems
	}
	d.root = root
	var workspaces []Workspace
	d.object(root, nil, "workspaces", func(_ string, n ast.Node, at *place) bool {
		if at.key != "workspaces" {
			return false
		}
		d.list(n, at, func(i int, n ast.Node, at *place) {
			w := d.workspace(n, at)
			w.src = &source{file: name, index: i, root: root, bad: d.bad}
			workspaces = append(workspaces, w)
		})
		return true
	})
	if len(workspaces) == 0 && len(d.problems) == 0 {
		d.complain(nil, nodePosition(root), "no workspaces")
	}
	for i := range workspaces {
		fillDefaults(&workspaces[i])
	}
	return workspaces, d.problems
}

type decoder struct {
	file     string
	root     ast.Node
	problems []*Problem
	bad      map[string]bool
}

func (d *decoder) complain(at *place, pos *token.Position, format string, args ...any) {
	path := at.String()
	if path != "" {
		d.bad[path] = true
	}
	d.problems = append(d.problems, &Problem{
		File: d.file, Line: pos.Line, Column: pos.Column, Path: path, Text: fmt.Sprintf(format, args...),
	})
}

// parse returns the only document's root, or nil after a complaint.
func (d *decoder) parse(data []byte) (root ast.Node) {
	start := &token.Position{Line: 1, Column: 1}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if i := invalidByte(data); i >= 0 {
		d.complain(nil, bytePosition(data, i),
			"byte 0x%02x is not text: a catalog is UTF-8 without control characters", data[i])
		return nil
	}
	defer func() { // the YAML library is not ours; a file must not be able to stop a daemon
		if r := recover(); r != nil {
			root = nil
			d.complain(nil, start, "not valid YAML: %v", r)
		}
	}()
	tokens := lexer.Tokenize(string(data))
	if pos := tooDeep(tokens); pos != nil {
		d.complain(nil, pos, "nested too deeply")
		return nil
	}
	// repeated keys are found in object, all of them
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
		d.complain(nil, pos, "not valid YAML: %s", text)
		return nil
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if root != nil {
			d.complain(nil, nodePosition(doc.Body), "a catalog file has one document, without directives")
			return nil
		}
		root = doc.Body
	}
	if root == nil {
		d.complain(nil, start, "no workspaces")
	}
	return root
}

// invalidByte finds what YAML does not allow in a file at all, or -1.
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

// tooDeep bounds flow nesting by its brackets, and block nesting by the indentation of
// lines and by the dashes and question marks on one line: each block level needs one of
// these.
func tooDeep(tokens token.Tokens) *token.Position {
	flow, line, marks := 0, 0, 0
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

// object calls field for every key of a mapping; field returns false for a key it does
// not know. known lists the keys for the message.
func (d *decoder) object(n ast.Node, at *place, known string, field func(key string, n ast.Node, at *place) bool) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.wrongType(n, at, "a mapping")
		return
	}
	first := map[string]*token.Position{}
	for _, kv := range m.Values {
		pos := kv.Key.GetToken().Position
		key, ok := keyText(kv.Key)
		if !ok {
			d.complain(at.field(kv.Key.GetToken().Value), pos, "a key must be plain or quoted text")
			continue
		}
		here := at.field(key)
		if known == "" {
			here = at.freeKey(key)
		}
		if at == nil {
			here = &place{key: key}
		}
		if p := first[key]; p != nil {
			d.complain(here, pos, "repeated key: first at line %d, column %d", p.Line, p.Column)
			continue
		}
		first[key] = pos
		if !field(key, kv.Value, here) {
			d.complain(here, pos, "unknown key: known are %s", known)
		}
	}
}

// list calls item for every element, also for one that is malformed: indices stay those
// of the file.
func (d *decoder) list(n ast.Node, at *place, item func(i int, n ast.Node, at *place)) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrongType(n, at, "a list")
		return
	}
	for i, v := range s.Values {
		item(i, v, at.item(i))
	}
}

func (d *decoder) text(n ast.Node, at *place) string {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value
	case *ast.LiteralNode:
		return n.Value.Value
	}
	d.wrongType(n, at, "text")
	return ""
}

func (d *decoder) flag(n ast.Node, at *place) bool {
	if b, ok := n.(*ast.BoolNode); ok {
		return b.Value
	}
	d.wrongType(n, at, "true or false")
	return false
}

func (d *decoder) wrongType(n ast.Node, at *place, want string) {
	pos := nodePosition(n)
	if at != nil {
		pos, _ = locate(d.root, at)
	}
	switch n.(type) {
	case nil, *ast.NullNode:
		d.complain(at, pos, "must be %s, is empty: leave the key out or give a value", want)
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		if want == "text" {
			d.complain(at, pos, "must be text, is %s: put it in quotes", kind(n))
			return
		}
		d.complain(at, pos, "must be %s, is %s", want, kind(n))
	default:
		d.complain(at, pos, "must be %s, is %s", want, kind(n))
	}
}

func kind(n ast.Node) string {
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

func (d *decoder) workspace(n ast.Node, at *place) (w Workspace) {
	const known = "id, name, plan, access, token_parameter, timezone, domains, aliases, programs, partners, links"
	hasAccess := false
	d.object(n, at, known, func(key string, n ast.Node, at *place) bool {
		switch key {
		case "id":
			w.ID = d.text(n, at)
		case "name":
			w.Name = d.text(n, at)
		case "plan":
			w.Plan = d.text(n, at)
		case "access":
			w.Access, hasAccess = d.access(n, at), true
		case "token_parameter":
			w.TokenParameter = d.given(n, at)
		case "timezone":
			w.Timezone = d.given(n, at)
		case "domains":
			d.list(n, at, func(_ int, n ast.Node, at *place) { w.Domains = append(w.Domains, d.text(n, at)) })
		case "aliases":
			w.Aliases = map[string]string{}
			d.object(n, at, "", func(host string, n ast.Node, at *place) bool {
				w.Aliases[host] = d.text(n, at)
				return true
			})
		case "programs":
			d.list(n, at, func(_ int, n ast.Node, at *place) { w.Programs = append(w.Programs, d.program(n, at)) })
		case "partners":
			d.list(n, at, func(_ int, n ast.Node, at *place) { w.Partners = append(w.Partners, d.partner(n, at)) })
		case "links":
			d.list(n, at, func(_ int, n ast.Node, at *place) { w.Links = append(w.Links, d.link(n, at)) })
		default:
			return false
		}
		return true
	})
	if _, ok := n.(*ast.MappingNode); ok && !hasAccess {
		d.complain(at.field("access"), nodePosition(n), "required: say which features the workspace may use")
	}
	return w
}

// given is text where the empty text would silently mean the default.
func (d *decoder) given(n ast.Node, at *place) string {
	s := d.text(n, at)
	if s == "" && !d.bad[at.String()] {
		d.complain(at, nodePosition(n), "is empty: leave the key out or give a value")
	}
	return s
}

func (d *decoder) access(n ast.Node, at *place) (a Access) {
	const known = "conversion_tracking, partner_reporting, conversion_reporting, exports"
	d.object(n, at, known, func(key string, n ast.Node, at *place) bool {
		switch key {
		case "conversion_tracking":
			a.ConversionTracking = d.flag(n, at)
		case "partner_reporting":
			a.PartnerReporting = d.flag(n, at)
		case "conversion_reporting":
			a.ConversionReporting = d.flag(n, at)
		case "exports":
			a.Exports = d.flag(n, at)
		default:
			return false
		}
		return true
	})
	return a
}

func (d *decoder) program(n ast.Node, at *place) (p Program) {
	const known = "id, key, name, status, window, reward, utm"
	d.object(n, at, known, func(key string, n ast.Node, at *place) bool {
		switch key {
		case "id":
			p.ID = d.text(n, at)
		case "key":
			p.Key = d.text(n, at)
		case "name":
			p.Name = d.text(n, at)
		case "status":
			p.Status = d.given(n, at)
		case "window":
			p.WindowMs = d.window(n, at)
		case "reward":
			p.Reward = d.reward(n, at)
		case "utm":
			p.UTM = d.utm(n, at)
		default:
			return false
		}
		return true
	})
	return p
}

var windowForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,8})([dhms])$`)

// window reads a number and d, h, m or s, and returns milliseconds.
func (d *decoder) window(n ast.Node, at *place) int64 {
	s := d.text(n, at)
	if s == "" && d.bad[at.String()] {
		return 0
	}
	m := windowForm.FindStringSubmatch(s)
	if m == nil {
		d.complain(at, nodePosition(n), `window %q is not a whole number and d, h, m or s, such as "30d"`, s)
		return 0
	}
	count, _ := strconv.ParseInt(m[1], 10, 64) // at most nine digits
	unit := map[string]time.Duration{"d": 24 * time.Hour, "h": time.Hour, "m": time.Minute, "s": time.Second}[m[2]]
	ms := count * unit.Milliseconds()
	if text := windowProblem(ms); text != "" {
		d.complain(at, nodePosition(n), "%s", text)
		return 0
	}
	return ms
}

func (d *decoder) reward(n ast.Node, at *place) (r Reward) {
	d.object(n, at, "percent, flat, currency", func(key string, n ast.Node, at *place) bool {
		switch key {
		case "percent":
			r.Percent = d.given(n, at)
		case "flat":
			r.Flat = d.given(n, at)
		case "currency":
			r.Currency = d.given(n, at)
		default:
			return false
		}
		return true
	})
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) == 0 {
		d.complain(at, nodePosition(n), "needs percent, or flat and currency; leave it out for no reward")
	}
	return r
}

func (d *decoder) utm(n ast.Node, at *place) (u UTM) {
	d.object(n, at, "source, medium, campaign, term, content", func(key string, n ast.Node, at *place) bool {
		switch key {
		case "source":
			u.Source = d.text(n, at)
		case "medium":
			u.Medium = d.text(n, at)
		case "campaign":
			u.Campaign = d.text(n, at)
		case "term":
			u.Term = d.text(n, at)
		case "content":
			u.Content = d.text(n, at)
		default:
			return false
		}
		return true
	})
	return u
}

func (d *decoder) partner(n ast.Node, at *place) (p Partner) {
	d.object(n, at, "id, key, name, relationship, lifecycle", func(key string, n ast.Node, at *place) bool {
		switch key {
		case "id":
			p.ID = d.text(n, at)
		case "key":
			p.Key = d.text(n, at)
		case "name":
			p.Name = d.text(n, at)
		case "relationship":
			p.Relationship = d.text(n, at)
		case "lifecycle":
			p.Lifecycle = d.given(n, at)
		default:
			return false
		}
		return true
	})
	return p
}

func (d *decoder) link(n ast.Node, at *place) (l Link) {
	const known = "id, domain, slug, destination, conversion_tracking, token, forward_query, status, " +
		"partner, program, assignment_id, assigned_at, experiment, variant"
	d.object(n, at, known, func(key string, n ast.Node, at *place) bool {
		switch key {
		case "id":
			l.ID = d.text(n, at)
		case "domain":
			l.Domain = d.text(n, at)
		case "slug":
			l.Slug = d.text(n, at)
		case "destination":
			l.Destination = d.text(n, at)
		case "conversion_tracking":
			l.ConversionTracking = d.flag(n, at)
		case "token":
			l.Token = d.given(n, at)
		case "forward_query":
			l.ForwardQuery = d.flag(n, at)
		case "status":
			l.Status = d.given(n, at)
		case "partner":
			l.Partner = d.text(n, at)
		case "program":
			l.Program = d.text(n, at)
		case "assignment_id":
			l.AssignmentID = d.text(n, at)
		case "assigned_at":
			l.AssignedAt = d.timestamp(n, at)
		case "experiment":
			l.Experiment = d.text(n, at)
		case "variant":
			l.Variant = d.text(n, at)
		default:
			return false
		}
		return true
	})
	return l
}

func (d *decoder) timestamp(n ast.Node, at *place) time.Time {
	s := d.text(n, at)
	if s == "" && d.bad[at.String()] {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Year() < 1970 {
		d.complain(at, nodePosition(n), "%q is not an RFC 3339 time such as 2026-01-05T00:00:00Z", s)
		return time.Time{}
	}
	return t
}
