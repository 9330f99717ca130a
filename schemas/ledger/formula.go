package ledger

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/rangetable"
)

// A program that opens a CSV need not cut it where we did: a spreadsheet whose list
// separator is ; finds cells inside of our texts, and quotes mean nothing there. So a
// formula can begin at a text's start and behind each separator and line break in it,
// and what programs skip in front of it does not count.
//
// A space is no separator, though LibreOffice cuts at it if told to: prose such as
// "5 -3" and "see @ten" would be guarded everywhere.
const (
	separators = ",;|\t"
	// lineBreaks are what some reader takes for the end of a line.
	lineBreaks = "\r\n\v\f\x1c\x1d\x1e\u0085\u2028\u2029"
	// formulaStarts begin a formula (OWASP: CSV injection): = + - @, full-width, small and
	// as a minus sign. The hyphen is the last, or these would be no class of a regular
	// expression.
	formulaStarts = "=+@＝＋＠－﹦﹢﹫﹣−-"
	// skippedStarts are what some reader drops from the start of a cell, but for the ', as
	// a class of a regular expression: the quote, and of Unicode the controls that break
	// no line (Cc), the spaces (Zs) and what is not to be seen (Cf). NUL is none: CleanText
	// makes U+FFFD of it. They are ranges and not \p{Zs}, for ClickHouse, Go and Python
	// know Unicode in versions of their own.
	skippedStarts = "\"\x01-\x08\x0e-\x1b\x1f-\x20\x7f-\u0084\u0086-\u00a0\u00ad\u0600-\u0605\u061c\u06dd" +
		"\u070f\u0890-\u0891\u08e2\u1680\u180e\u2000-\u200f\u202a-\u202f\u205f-\u2064\u2066-\u206f\u3000\ufeff" +
		"\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a" +
		"\U000e0001\U000e0020-\U000e007f"
)

// EscapeFormula makes a text one of which no program runs a part as a formula.
//
// In version 1 a ' goes in front of a text that begins with = + - @ TAB CR LF. From
// version 2 on one also goes in front of each part of the text that another reader
// could take for a cell with a formula, and in front of what looks escaped already, so
// that UnescapeFormula has a way back.
func EscapeFormula(version int, text string) string {
	if version >= 2 {
		var out strings.Builder
		kept := 0
		for _, at := range formulasIn(text) {
			out.WriteString(text[kept:at] + "'")
			kept = at
		}
		return out.String() + text[kept:]
	}
	if text != "" && strings.IndexByte("=+-@\t\r\n", text[0]) >= 0 {
		return "'" + text
	}
	return text
}

// UnescapeFormula gives back the text of which EscapeFormula made a cell of version 2 or
// later. Of version 1 it does so where the text itself did not begin with a '.
func UnescapeFormula(cell string) string {
	var out strings.Builder
	kept := 0
	for _, at := range formulasIn(cell) {
		if cell[at] == '\'' {
			out.WriteString(cell[kept:at])
			kept = at + 1
		}
	}
	return out.String() + cell[kept:]
}

// formulasIn returns where in a text a cell with a formula may begin. A ' in front does
// not change what is found.
func formulasIn(text string) (starts []int) {
	behind := utf8.RuneError // the separator or line break before; none at the start
	for at := 0; at < len(text); {
		if classes[text[at]]&mayBegin != 0 {
			rest := strings.TrimLeftFunc(text[at:], isSkipped)
			if first, size := utf8.DecodeRuneInString(rest); size > 0 && startsFormula(first, behind) {
				starts = append(starts, at)
			}
		}
		if at = nextPart(text, at); at == len(text) {
			break
		}
		var size int
		behind, size = utf8.DecodeRuneInString(text[at:])
		at += size
	}
	return starts
}

// nextPart returns the offset of the first separator or line break at or behind from;
// the text's length if there is none.
func nextPart(text string, from int) int {
	for at := from; at < len(text); at++ {
		if classes[text[at]]&mayPart == 0 {
			continue
		}
		r, _ := utf8.DecodeRuneInString(text[at:])
		if r < utf8.RuneSelf || strings.ContainsRune(lineBreaks, r) {
			return at
		}
	}
	return len(text)
}

// A class says what a byte of a text can mean for its cell. Most texts have no byte of
// any class, and are cells as they are.
type class uint8

const (
	mayBegin class = 1 << iota // a formula, or what is skipped in front of one, at a start
	mayPart                    // it is a separator or a line break, or the first byte of one
	isQuoted                   // a cell with it is quoted
	mayBreak                   // it may be no UTF-8, or is NUL
)

// classes has the class of each byte.
var classes = func() (of [256]class) {
	for b := range of {
		r := rune(b)
		if b >= utf8.RuneSelf {
			of[b] = mayBegin | mayBreak
			continue
		}
		if isSkipped(r) || strings.ContainsRune(formulaStarts+"\t\r\n", r) {
			of[b] |= mayBegin
		}
		if strings.ContainsRune(quoted, r) {
			of[b] |= isQuoted
		}
	}
	of[0] |= mayBreak
	for _, r := range separators + lineBreaks {
		of[string(r)[0]] |= mayPart
	}
	return of
}()

// isSkipped reports whether a character is one of skippedStarts or the '.
func isSkipped(r rune) bool { return r == '\'' || unicode.Is(skippedTable, r) }

// skippedTable is skippedStarts for Go.
var skippedTable = tableOf([]rune(skippedStarts))

// tableOf reads what stands in a class of a regular expression.
func tableOf(class []rune) *unicode.RangeTable {
	var runes []rune
	for i, r := range class {
		if r != '-' {
			runes = append(runes, r)
			continue
		}
		for between := class[i-1] + 1; between < class[i+1]; between++ {
			runes = append(runes, between)
		}
	}
	return rangetable.New(runes...)
}

// startsFormula reports whether a cell that begins with a character may be run. A TAB or
// CR at its start is dropped by some readers. What follows it is escaped anyway, so a run
// of TABs, a line break within a text and an empty line are left as they are.
func startsFormula(first, behind rune) bool {
	switch first {
	case '\t':
		return behind != '\t'
	case '\r':
		return behind == utf8.RuneError || strings.ContainsRune(separators, behind)
	case '\n':
		return behind == utf8.RuneError
	}
	return strings.ContainsRune(formulaStarts, first)
}
