package forwarded

import (
	"net/netip"
	"strings"
)

// listCursor reads the elements of a list header from the right. It skips empty ones.
type listCursor struct {
	lines  []string // those to the left of line
	line   string   // what is left of a line
	quotes bool     // a comma inside quotation marks separates nothing
}

// previous returns the next element to the left, without blanks around it.
func (c *listCursor) previous() (element string, ok bool) {
	for {
		for c.line == "" {
			if len(c.lines) == 0 {
				return "", false
			}
			c.line = c.lines[len(c.lines)-1]
			c.lines = c.lines[:len(c.lines)-1]
		}
		comma := strings.LastIndexByte(c.line, ',')
		if c.quotes {
			comma = lastUnquotedComma(c.line)
		}
		element = trimBlanks(c.line[comma+1:])
		c.line = c.line[:max(comma, 0)]
		if element != "" {
			return element, true
		}
	}
}

// lastUnquotedComma returns the place of the last comma that is outside quotation
// marks, -1 if there is none. Read from the right, a quotation mark inside a quoted
// string opens it unless a backslash is in front: one that opens has = there. So the end
// of a list has the same meaning whatever is in front of it.
func lastUnquotedComma(line string) int {
	quoted := false
	for i := len(line) - 1; i >= 0; i-- {
		switch {
		case line[i] == '"' && quoted:
			quoted = i > 0 && line[i-1] == '\\'
		case line[i] == '"':
			quoted = true
		case line[i] == ',' && !quoted:
			return i
		}
	}
	return -1
}

func trimBlanks(text string) string { return strings.Trim(text, " \t") }

// valueAt returns the value of a list header with so many to its right, or the leftmost
// if there are fewer; "" if there is none.
func valueAt(lines []string, hop int) (value string) {
	values := listCursor{lines: lines}
	for ; hop >= 0; hop-- {
		next, ok := values.previous()
		if !ok {
			break
		}
		value = next
	}
	return value
}

// element is what one proxy says in Forwarded.
type element struct{ node, host, proto string }

// parseElement reads a forwarded-element (RFC 7239 §4). Parameters of other names must
// have the form of one, and say nothing.
func parseElement(text string) (e element, ok bool) {
	var node, by, host, proto parameter
	for rest := trimBlanks(text); rest != ""; rest = strings.TrimLeft(rest, " \t") {
		if rest[0] == ';' {
			rest = rest[1:]
			continue
		}
		n := tokenLength(rest)
		if n == 0 || n == len(rest) || rest[n] != '=' {
			return element{}, false
		}
		name := rest[:n]
		var value string
		if value, rest, ok = cutValue(rest[n+1:]); !ok {
			return element{}, false
		}
		if rest = strings.TrimLeft(rest, " \t"); rest != "" && rest[0] != ';' {
			return element{}, false
		}
		switch {
		case strings.EqualFold(name, "for"):
			ok = node.set(value)
		case strings.EqualFold(name, "by"):
			ok = by.set(value)
		case strings.EqualFold(name, "host"):
			ok = host.set(value)
		case strings.EqualFold(name, "proto"):
			ok = proto.set(value)
		}
		if !ok {
			return element{}, false
		}
	}
	return element{node: node.value, host: host.value, proto: proto.value}, true
}

// parameter is the value of a name in an element.
type parameter struct {
	value string
	given bool
}

// set reports whether the name is there for the first time.
func (p *parameter) set(value string) bool {
	first := !p.given
	p.value, p.given = value, true
	return first
}

// cutValue cuts a token or a quoted string from the start of text.
func cutValue(text string) (value, rest string, ok bool) {
	if !strings.HasPrefix(text, `"`) {
		n := tokenLength(text)
		return text[:n], text[n:], n > 0
	}
	pairs, escaped := false, false
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c < ' ' && c != '\t', c == 0x7f:
			return "", "", false
		case escaped:
			escaped = false
		case c == '\\':
			pairs, escaped = true, true
		case c == '"':
			if value = text[1:i]; pairs {
				value = unescape(value)
			}
			return value, text[i+1:], true
		}
	}
	return "", "", false
}

// unescape removes the backslashes of quoted pairs.
func unescape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) {
			i++
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// tokenLength returns the length of the token (RFC 9110 §5.6.2) at the start of text.
func tokenLength(text string) int {
	for i := range len(text) {
		if c := text[i]; !isAlphanumeric(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return i
		}
	}
	return len(text)
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// parseEntry reads an entry of X-Forwarded-For: what parseNode reads, or an IPv6
// address without brackets.
func parseEntry(text string) (netip.Addr, Basis) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return addr.Unmap(), Believed
	}
	return parseNode(text)
}

// parseNode reads a node (RFC 7239 §6): Believed with its address, Unknown for a client
// that is not named, or Malformed. An empty header names no client.
func parseNode(text string) (netip.Addr, Basis) {
	if text == "" {
		return netip.Addr{}, Unknown
	}
	name, port := text, ""
	if end := strings.IndexByte(text, ']'); end >= 0 {
		name, port = text[:end+1], text[end+1:]
	} else if colon := strings.IndexByte(text, ':'); colon >= 0 {
		name, port = text[:colon], text[colon:]
	}
	if port != "" && !(port[0] == ':' && (isPort(port[1:]) || isObfuscated(port[1:]))) {
		return netip.Addr{}, Malformed
	}
	if strings.EqualFold(name, "unknown") || isObfuscated(name) {
		return netip.Addr{}, Unknown
	}
	name, opened := strings.CutPrefix(name, "[")
	name, closed := strings.CutSuffix(name, "]")
	addr, err := netip.ParseAddr(name)
	if err != nil || opened != closed || addr.Is6() != opened || addr.Zone() != "" {
		return netip.Addr{}, Malformed
	}
	return addr.Unmap(), Believed
}

// maxPort is the highest number of a port.
const maxPort = 65535

func isPort(text string) bool {
	n := 0
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' || i == len("65535") {
			return false
		}
		n = n*10 + int(text[i]-'0')
	}
	return text != "" && n <= maxPort
}

// isObfuscated reports whether text has the form of obfnode and obfport.
func isObfuscated(text string) bool {
	if len(text) < 2 || text[0] != '_' {
		return false
	}
	for i := range len(text) {
		if c := text[i]; !isAlphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
