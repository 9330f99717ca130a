package embedded

import (
	"maps"
	"slices"
	"strings"
)

// statement is what the server needs to know of an SQL text to run it; chDB parses the
// text properly.
type statement struct {
	// keyword is the first word, in capitals; behind WITH the word that says what is done.
	keyword string
	// outfile: the result goes INTO OUTFILE, a file of the server's machine.
	outfile bool
	// format is that of a FORMAT clause, or "Values" for INSERT … VALUES; empty without
	// one.
	format string
	// insert: the text is an INSERT whose data follows. Then head is the statement
	// without the FORMAT clause or the word VALUES, and dataAt the offset of the data.
	insert bool
	head   string
	dataAt int
	// tableAt is the offset of an insert's table name if it names no database, else 0;
	// settingsAt is the offset after the word SETTINGS in head, else 0.
	tableAt, settingsAt int
	// table is the name at tableAt as it stands there, quoted or not.
	table string
	// leaves is what the statement leaves behind on its connection.
	leaves remnant
}

// remnant is what a statement leaves behind on the connection that runs it.
type remnant int

const (
	remnantNone remnant = iota
	remnantSetting
	remnantDatabase
	remnantTable
)

// insertHead returns the head of an INSERT with the database and settings of the
// request written into it. A setting that the head has already keeps its value.
func (s *statement) insertHead(database string, settings map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		list = append(list, name+" = "+quoteString(settings[name]))
	}
	head := s.head
	if ours := strings.Join(list, ", "); ours != "" && s.settingsAt > 0 {
		// If a setting has two values, the later one counts.
		head = head[:s.settingsAt] + " " + ours + "," + head[s.settingsAt:]
	} else if ours != "" {
		// Begin a new line, because head can end in a comment.
		head += "\nSETTINGS " + ours
	}
	if s.tableAt > 0 {
		head = head[:s.tableAt] + quoteIdentifier(database) + "." + head[s.tableAt:]
	}
	return head
}

// parseStatement looks for an INSERT that waits for data, or for a SELECT's FORMAT
// clause. It sees words, quotes, comments and parentheses, but no grammar. A mistake
// costs the streaming of a result or causes an error message of chDB, never a different
// result.
func parseStatement(text string) statement {
	s := sqlScanner{text: text}
	first := s.nextToken()
	found := statement{keyword: strings.ToUpper(first.word)}
	switch found.keyword {
	case "INSERT":
		found.parseInsert(&s)
		return found
	case "SET":
		found.leaves = remnantSetting
	case "USE":
		found.leaves = remnantDatabase
	case "CREATE":
		found.leaves = parseCreate(s)
	case "WITH":
		found.keyword = parseWith(s)
	}
	for token, before := first, first; !token.end; before, token = token, s.nextToken() {
		found.outfile = found.outfile || before.isKeyword("INTO") && token.isKeyword("OUTFILE")
		if s.depth != 0 || !token.isKeyword("FORMAT") {
			continue
		}
		mark := s.at
		name := s.nextToken()
		after := s.nextToken()
		if name.word != "" && (after.end || after.symbol == ';' || after.isKeyword("SETTINGS")) {
			found.format = name.word
		}
		s.at = mark
	}
	return found
}

// parseCreate returns what CREATE [OR REPLACE] [TEMPORARY] … leaves behind. s is a copy:
// the caller goes on behind CREATE.
func parseCreate(s sqlScanner) remnant {
	token := s.nextToken()
	for token.isKeyword("OR") || token.isKeyword("REPLACE") {
		token = s.nextToken()
	}
	if token.isKeyword("TEMPORARY") {
		return remnantTable
	}
	return remnantNone
}

// parseWith returns what follows the expressions of WITH: SELECT, or INSERT, which then
// has no data. A name can be either word too, beside AS. s is a copy, as for parseCreate.
func parseWith(s sqlScanner) string {
	var before sqlToken
	for token := s.nextToken(); !token.end; {
		depth, next := s.depth, s.nextToken()
		name := before.isKeyword("AS") || next.isKeyword("AS")
		if depth == 0 && !name && (token.isKeyword("SELECT") || token.isKeyword("INSERT")) {
			return strings.ToUpper(token.word)
		}
		before, token = token, next
	}
	return "WITH"
}

// parseInsert looks for the table, the settings and the data of an INSERT.
func (found *statement) parseInsert(s *sqlScanner) {
	token := s.nextToken()
	function := false
	for token.isKeyword("INTO") || token.isKeyword("TABLE") || token.isKeyword("FUNCTION") {
		function = function || token.isKeyword("FUNCTION")
		token = s.nextToken()
	}
	// token is the table's name, even if it is a keyword; the words after it decide.
	name, table := token.at, s.text[token.at:s.at]
	if token = s.nextToken(); token.symbol == '.' {
		s.nextToken()
		token = s.nextToken()
	} else if !function {
		found.tableAt, found.table = name, table
	}
	for ; !token.end; token = s.nextToken() {
		switch {
		case s.depth != 0:
		case token.isKeyword("SETTINGS"):
			found.settingsAt = s.at
		case token.isKeyword("SELECT"), token.isKeyword("WITH"), token.isKeyword("FROM"):
			return
		case token.isKeyword("VALUES"):
			found.setInsert("Values", s.text[:token.at], s.at)
			return
		case token.isKeyword("FORMAT"):
			name := s.nextToken()
			if name.word == "" {
				return
			}
			found.setInsert(name.word, s.text[:token.at], s.skipLine())
			return
		}
	}
}

// setInsert records an INSERT whose data begins at dataAt.
func (found *statement) setInsert(format, head string, dataAt int) {
	found.insert = true
	found.format = format
	found.head = head
	found.dataAt = dataAt
}

// sqlToken is a word, a symbol, or the end. Quoted text and numbers are symbols too, by
// their first byte.
type sqlToken struct {
	at     int    // offset in the text
	word   string // "" for a symbol
	symbol byte   // 0 for a word
	end    bool   // of the text
}

func (t sqlToken) isKeyword(word string) bool { return strings.EqualFold(t.word, word) }

// sqlScanner splits an SQL text into tokens.
type sqlScanner struct {
	text  string
	at    int // offset of the next token
	depth int // open parentheses
}

// nextToken returns the next token; depth counts the parentheses that are open after
// it.
func (s *sqlScanner) nextToken() sqlToken {
	s.skipSpace()
	if s.at >= len(s.text) {
		return sqlToken{at: len(s.text), end: true}
	}
	from, c := s.at, s.text[s.at]
	switch {
	case isWordByte(c) && (c < '0' || c > '9'):
		for s.at < len(s.text) && isWordByte(s.text[s.at]) {
			s.at++
		}
		return sqlToken{at: from, word: s.text[from:s.at]}
	case c == '\'' || c == '"' || c == '`':
		s.skipQuoted(c)
		return sqlToken{at: from, symbol: c}
	case isWordByte(c):
		for s.at < len(s.text) && isWordByte(s.text[s.at]) {
			s.at++
		}
		return sqlToken{at: from, symbol: c}
	case c == '(' || c == '[' || c == '{':
		s.depth++
	case c == ')' || c == ']' || c == '}':
		s.depth--
	}
	s.at++
	return sqlToken{at: from, symbol: c}
}

func isWordByte(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

// skipQuoted moves past the quoted text that starts here. A quote inside is doubled or
// follows a backslash.
func (s *sqlScanner) skipQuoted(quote byte) {
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

// skipSpace moves past white space and comments. Block comments nest.
func (s *sqlScanner) skipSpace() {
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

func (s *sqlScanner) skipBlockComment() {
	depth := 0
	for s.at < len(s.text) {
		rest := s.text[s.at:]
		switch {
		case strings.HasPrefix(rest, "/*"):
			depth++
			s.at += 2
		case strings.HasPrefix(rest, "*/"):
			depth--
			s.at += 2
			if depth == 0 {
				return
			}
		default:
			s.at++
		}
	}
}

// skipLine moves past blanks and one line feed: there the data of an INSERT … FORMAT
// begins.
func (s *sqlScanner) skipLine() int {
	for s.at < len(s.text) && strings.IndexByte(" \t\r", s.text[s.at]) >= 0 {
		s.at++
	}
	if s.at < len(s.text) && s.text[s.at] == '\n' {
		s.at++
	}
	return s.at
}
