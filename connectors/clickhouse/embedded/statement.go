package embedded

import (
	"maps"
	"slices"
	"strings"
)

// statement is what the server has to know of an SQL text to run it: chDB parses it
// properly.
type statement struct {
	// keyword is the first word, in capitals.
	keyword string
	// format is that of a FORMAT clause, or "Values" for INSERT … VALUES; empty without
	// one.
	format string
	// insert: the text is an INSERT whose data follows: head is the statement without
	// the FORMAT clause or the word VALUES, data the offset of what follows it in the
	// text.
	insert bool
	head   string
	data   int
	// table is the offset of an insert's table name if it names no database, else 0;
	// settings is the offset behind the word SETTINGS in head, else 0.
	table, settings int
}

// into is the head of an INSERT with the database and settings of the request written
// into it; a setting that it has already stays as it is.
func (s *statement) into(database string, settings map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		list = append(list, name+" = "+quoteString(settings[name]))
	}
	head := s.head
	if ours := strings.Join(list, ", "); ours != "" && s.settings > 0 {
		// Of two values for a setting the later counts.
		head = head[:s.settings] + " " + ours + "," + head[s.settings:]
	} else if ours != "" {
		// A line feed, because head can end in a comment.
		head += "\nSETTINGS " + ours
	}
	if s.table > 0 {
		head = head[:s.table] + quoteIdentifier(database) + "." + head[s.table:]
	}
	return head
}

// parse looks for an INSERT that waits for data, or a SELECT's FORMAT clause. It sees
// words, quotes, comments and parentheses, no grammar: what it gets wrong costs the
// streaming of a result or an error message from chDB, never a different result.
func parse(text string) statement {
	s := scanner{text: text}
	first := s.next()
	found := statement{keyword: strings.ToUpper(first.word)}
	if found.keyword == "INSERT" {
		found.parseInsert(&s)
		return found
	}
	for token := first; !token.end; token = s.next() {
		if s.depth != 0 || !token.is("FORMAT") {
			continue
		}
		mark := s.at
		name := s.next()
		after := s.next()
		if name.word != "" && (after.end || after.symbol == ';' || after.is("SETTINGS")) {
			found.format = name.word
		}
		s.at = mark
	}
	return found
}

func (found *statement) parseInsert(s *scanner) {
	token := s.next()
	function := false
	for token.is("INTO") || token.is("TABLE") || token.is("FUNCTION") {
		function = function || token.is("FUNCTION")
		token = s.next()
	}
	// token is the table's name, whatever it is called; the words behind it decide.
	name := token.at
	if token = s.next(); token.symbol == '.' {
		s.next()
		token = s.next()
	} else if !function {
		found.table = name
	}
	for ; !token.end; token = s.next() {
		switch {
		case s.depth != 0:
		case token.is("SETTINGS"):
			found.settings = s.at
		case token.is("SELECT"), token.is("WITH"), token.is("FROM"):
			return
		case token.is("VALUES"):
			found.insert, found.format, found.head, found.data = true, "Values", s.text[:token.at], s.at
			return
		case token.is("FORMAT"):
			name := s.next()
			if name.word == "" {
				return
			}
			found.insert, found.format, found.head, found.data = true, name.word, s.text[:token.at], s.skipLine()
			return
		}
	}
}

// token is a word, a symbol, or the end. Quoted text and numbers are symbols too: their
// first byte.
type token struct {
	at     int
	word   string
	symbol byte
	end    bool
}

func (t token) is(word string) bool { return strings.EqualFold(t.word, word) }

type scanner struct {
	text  string
	at    int
	depth int
}

// next returns the next token; depth counts the parentheses open after it.
func (s *scanner) next() token {
	s.skipSpace()
	if s.at >= len(s.text) {
		return token{at: len(s.text), end: true}
	}
	from, c := s.at, s.text[s.at]
	switch {
	case isWord(c) && (c < '0' || c > '9'):
		for s.at < len(s.text) && isWord(s.text[s.at]) {
			s.at++
		}
		return token{at: from, word: s.text[from:s.at]}
	case c == '\'' || c == '"' || c == '`':
		s.skipQuoted(c)
		return token{at: from, symbol: c}
	case isWord(c):
		for s.at < len(s.text) && isWord(s.text[s.at]) {
			s.at++
		}
		return token{at: from, symbol: c}
	case c == '(' || c == '[' || c == '{':
		s.depth++
	case c == ')' || c == ']' || c == '}':
		s.depth--
	}
	s.at++
	return token{at: from, symbol: c}
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

// skipQuoted moves behind the quoted text that starts here; a quote inside is doubled
// or behind a backslash.
func (s *scanner) skipQuoted(quote byte) {
	for s.at++; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '\\':
			s.at++
		case quote:
			if s.at+1 >= len(s.text) || s.text[s.at+1] != quote {
				s.at++
				return
			}
			s.at++
		}
	}
	s.at = len(s.text)
}

// skipSpace moves behind white space and comments. Block comments nest.
func (s *scanner) skipSpace() {
	for s.at < len(s.text) {
		rest := s.text[s.at:]
		switch {
		case strings.IndexByte(" \t\r\n\v\f", rest[0]) >= 0:
			s.at++
		case strings.HasPrefix(rest, "--"), rest[0] == '#':
			if end := strings.IndexByte(rest, '\n'); end >= 0 {
				s.at += end + 1
			} else {
				s.at = len(s.text)
			}
		case strings.HasPrefix(rest, "/*"):
			s.skipBlockComment()
		default:
			return
		}
	}
}

func (s *scanner) skipBlockComment() {
	depth := 0
	for s.at < len(s.text) {
		rest := s.text[s.at:]
		switch {
		case strings.HasPrefix(rest, "/*"):
			depth, s.at = depth+1, s.at+2
		case strings.HasPrefix(rest, "*/"):
			depth, s.at = depth-1, s.at+2
			if depth == 0 {
				return
			}
		default:
			s.at++
		}
	}
}

// skipLine moves over blanks up to and over one line feed: there the data of an INSERT
// … FORMAT begins.
func (s *scanner) skipLine() int {
	for s.at < len(s.text) && strings.IndexByte(" \t\r", s.text[s.at]) >= 0 {
		s.at++
	}
	if s.at < len(s.text) && s.text[s.at] == '\n' {
		s.at++
	}
	return s.at
}
