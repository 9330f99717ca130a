package ledger

import (
	"strings"
	"unicode/utf8"
)

// A program that opens a CSV need not cut it where we did: a spreadsheet whose list
// separator is ; finds cells inside of our texts, and quotes mean nothing there. So a
// formula can begin at a text's start and behind each separator and line break in it,
// and what programs skip in front of it does not count.
const (
	separators = ",;|\t"
	// lineBreaks are what some reader takes for the end of a line.
	lineBreaks = "\r\n\v\f\x1c\x1d\x1e\u0085\u2028\u2029"
	// skippedStarts are what some reader drops from the start of a cell, but for the '.
	skippedStarts = " \"\u00a0\u200b\u3000\ufeff"
	// formulaStarts begin a formula (OWASP: CSV injection). The hyphen is the last, or
	// these would be no class of a regular expression.
	formulaStarts = "=+@＝＋＠－-"
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
		rest := strings.TrimLeft(text[at:], skippedStarts+"'")
		if first, size := utf8.DecodeRuneInString(rest); size > 0 && startsFormula(first, behind) {
			starts = append(starts, at)
		}
		next := strings.IndexAny(text[at:], separators+lineBreaks)
		if next < 0 {
			break
		}
		var size int
		behind, size = utf8.DecodeRuneInString(text[at+next:])
		at += next + size
	}
	return starts
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
